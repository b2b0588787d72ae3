//! Promise 7: the command has no capability, and no way to one.

use srt_tests::attacks::{Sandbox, behind, outside, where_one_may_mount};
use srt_tests::{Who, both, run, tool};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// What asks for a capability and changes nothing. A root in a container has not all of them: `? `.
const PRIVILEGED: [&str; 17] = [
    "capset",
    "? ambient",
    "setgroups",
    "sethostname",
    "nice",
    "? real-time",
    "? raise-limit",
    "? bpf",
    "? syslog",
    "userfaultfd-kernel",
    "fanotify-permission",
    "? swapoff",
    "? delete-module",
    "perf -1",
    "packet",
    "raw",
    "setuid 12345",
];

both! {
    fn no_set_holds_a_capability_and_none_can_be_gained(who) {
        let work = who.scratch();
        let attacks = ["capabilities", "may-gain-privileges"];
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        outside(who, &attacks).all_got_through();
        // Not after an exec as uid 0, not in a child, not with only one of the stages behind srt-ns.
        let attack = tool("attack");
        for stages in [&["--"][..], &["--", "srt-seccomp", "--"], &["--as-pid-1", "--"], &["--uid", "0", "--"]] {
            let ran = run(who.command("srt-ns").args(stages).arg(&attack).args(["each", attacks[0]]));
            assert!(ran.ok().out.contains("refused"), "{stages:?} {ran:#?}");
        }
        let kept = run(who.command("srt-ns").args(["--keep-admin", "--"]).arg(&attack).args(["each", attacks[0]]));
        assert!(kept.ok().out.contains("CapEff:0000000000200000"), "{kept:#?}");
        behind(who, &["unshare", "-Ur"], &["effective-capabilities"]).all_got_through();
    }

    fn a_bounding_set_that_cannot_be_emptied_gives_the_command_nothing(who) {
        // As in a container whose root has all but CAP_SETPCAP, and keeps its user namespace.
        let unshare: &[&str] = if who == Who::Root { &[] } else { &["unshare", "-Ur"] };
        let without = ["setpriv", "--bounding-set", "-setpcap"];
        let caller = [unshare, &without].concat();
        behind(who, &caller, &["effective-capabilities"]).all_got_through();
        let ns = tool("srt-ns");
        let ns = [ns.to_str().expect("UTF-8"), "--share", "user", "--allow-userns"];
        let sandbox = |more: &[&str]| behind(who, &[&caller[..], &ns, more, &["--"]].concat(), &["effective-capabilities"]);
        sandbox(&[]).all_were_refused();
        sandbox(&["--as-pid-1"]).all_were_refused();
        assert!(sandbox(&["--keep-admin"]).said().contains("0000000000200000"));
        // srt-mount still gets what it needs.
        let mount = [&ns[..], &["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"]].concat();
        behind(who, &[&caller[..], &mount].concat(), &["effective-capabilities"]).all_were_refused();
    }

    fn nothing_that_asks_for_a_capability_works(who) {
        let work = who.scratch();
        Sandbox::new(who, work.path()).each(&PRIVILEGED).all_were_refused();
        // An ordinary user needs none of the sandbox's help to be refused; root does.
        if who == Who::Root {
            for attack in PRIVILEGED {
                // In namespaces of its own, and in a process of its own, nothing of it lasts.
                behind(who, &["unshare", "-umn"], &[attack]).all_got_through();
            }
        }
    }

    fn a_setuid_program_gives_nothing(who) {
        let scratch = who.scratch();
        let program = scratch.join("work/setuid");
        scratch.dir("work");
        srt_tests::copy_program(tool("attack"), &program);
        // For root another user is the gain: its files are not root's to grant.
        let owner = if who == Who::Root { 1 } else { 0 };
        chown(&program, Some(owner), Some(owner)).expect("chown");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("chmod");
        let uid = who.uid().to_string();
        let program = program.to_str().expect("UTF-8");
        let words = [program, "euid-other-than", &uid];
        let sandbox = Sandbox::new(who, &scratch.join("work"));
        let inside = run(&mut sandbox.command(&words));
        assert!(inside.out.starts_with("refused"), "{inside:#?}");
        let control = run(who.command(program).args(&words[1..]));
        control.ok();
        // The system's own, too.
        let su = run(&mut sandbox.command(&["su", "-s", "/bin/sh", "-c", "id -u", "nobody"]));
        assert!(su.code != Some(0) && !su.out.contains("65534"), "{su:#?}");
    }

    fn a_program_with_file_capabilities_gives_nothing(who) {
        let scratch = who.scratch();
        let program = scratch.join("work/capable");
        scratch.dir("work");
        srt_tests::copy_program(tool("attack"), &program);
        let program = program.to_str().expect("UTF-8");
        outside(Who::Root, &[format!("set-file-capability {program}")]).all_got_through();
        let ran = run(&mut Sandbox::new(who, &scratch.join("work")).command(&[program, "effective-capabilities"]));
        assert!(ran.out.starts_with("refused"), "{ran:#?}");
        run(who.command(program).arg("effective-capabilities")).ok();
        // The command cannot make one either, but for a user namespace's own root.
        let make = [format!("set-file-capability {}", scratch.file("work/other", "").display())];
        Sandbox::new(who, &scratch.join("work")).each(&make).all_were_refused();
    }

    fn capabilities_over_a_user_namespace_of_its_own_reach_nothing_outside_it(who) {
        let work = who.scratch();
        let attacks = [
            "in-userns sethostname",
            "in-userns swapoff",
            "in-userns delete-module",
            "in-userns nice",
            "in-userns raise-limit",
            "in-userns packet",
            "in-userns mknod /tmp/node 1 3",
            "in-userns-cgroup mount cgroup /mnt",
        ];
        Sandbox::new(who, work.path()).ns(&["--allow-userns"]).each(&attacks).all_were_refused();
        where_one_may_mount(who, "true", &["in-userns capabilities"]).all_got_through();
    }

    fn the_tools_refuse_to_run_with_privileges_that_are_not_the_callers(who) {
        let scratch = who.scratch();
        for name in ["srt-ns", "srt-mount", "srt-seccomp"] {
            let copy = scratch.join(name);
            srt_tests::copy_program(tool(name), &copy);
            let owner = if who == Who::Root { 1 } else { 0 };
            chown(&copy, Some(owner), Some(owner)).expect("chown");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("chmod");
            let words = if name == "srt-mount" { vec!["--ro-bind", "/", "/", "--", "true"] } else { vec!["--", "true"] };
            run(who.command(&copy).args(words)).code(125).complains("setuid");
        }
    }

    fn a_stage_that_is_forgotten_leaves_no_capability_to_the_command(who) {
        let scratch = who.scratch();
        // Beside srt-ns lies the real srt-mount; what is run is another one of that name.
        let fake = scratch.join("srt-mount");
        srt_tests::copy_program(tool("attack"), &fake);
        let ran = run(who.command("srt-ns").arg("--").arg(&fake).arg("capabilities"));
        assert!(ran.out.starts_with("refused"), "{ran:#?}");
        // By a link to the real one: it is that, whatever its name.
        let link = scratch.join("link");
        std::os::unix::fs::symlink(tool("srt-mount"), &link).expect("symlink");
        run(who.command("srt-ns").arg("--").arg(&link).args(["--ro-bind", "/", "/", "--", "true"])).ok();
        // The real one leaves nothing to its program, srt-seccomp or not.
        let bare = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"];
        let ran = run(who.command("srt-ns").args(["--", "srt-mount"]).args(bare).arg(tool("attack")).arg("capabilities"));
        assert!(ran.out.starts_with("refused"), "{ran:#?}");
    }
}
