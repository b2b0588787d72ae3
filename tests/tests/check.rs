//! `srt-ns --check` tells what this host refuses, and what to do. Each refusal is provoked for real, and what the rows say
//! is held against a sandbox under the same refusal.

use srt_tests::refusals::{in_front, refuse, refuse_flag, refuse_value, with_mounts, with_none_of};
use srt_tests::{Ran, Who, both, has, landlock_abi, run, skip, tool};
use std::ffi::OsStr;
use std::process::Command;

const EPERM: i32 = libc::EPERM;
const READ_ONLY_SYSCTLS: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";

fn check(who: Who) -> Command {
    let mut command = who.command("srt-ns");
    command.arg("--check");
    command
}

/// The rows with this result.
fn rows<'a>(ran: &'a Ran, result: &str) -> Vec<&'a str> {
    let lines = ran.out.lines().filter(|line| !line.starts_with(' ') && line.len() > 20);
    let row =
        |line: &'a str| (line.get(21..)?.split_whitespace().next()? == result).then(|| line[..20].trim_end());
    lines.filter_map(row).collect()
}

/// Exactly these rows are `no`, this is said of it, and the exit status tells whether the chain needs one.
#[track_caller]
fn refused(ran: &Ran, code: i32, names: &[&str], said: &[&str]) {
    ran.code(code);
    assert_eq!(rows(ran, "no"), names, "{ran:#?}");
    said.iter().for_each(|text| assert!(ran.out.contains(text), "expected {text:?} in {ran:#?}"));
    if code == 0 {
        assert_eq!(ran.err, "", "{ran:#?}");
    } else {
        ran.one_clear_error("srt-ns").complains("not everything works on this host: ");
    }
}

/// All that needs a user namespace.
const INSIDE: [&str; 12] = [
    "user namespace",
    "max_user_namespaces",
    "pid namespace",
    "net namespace",
    "ipc namespace",
    "uts namespace",
    "cgroup namespace",
    "mount namespace",
    "mount API",
    "procfs",
    "procfs subset=pid",
    "overlay",
];

both! {
    fn where_all_works_every_row_is_ok_and_nothing_is_left_behind(who) {
        let ran = run(&mut check(who));
        refused(&ran, 0, &[], &["kernel", "Landlock             ok       ABI "]);
        assert_eq!(rows(&ran, "ok").len(), 20, "{ran:#?}");

        // No process: `run` waits for all who hold its output. No mount and no file, in a /tmp that nobody else uses:
        let state = "$(grep -v '/mounted ' /proc/self/mountinfo; ls -A /tmp)";
        let script = format!("before={state}; /tmp/srt-ns --check && [ \"$before\" = \"{state}\" ] && echo the same");
        let (scratch, path) = (who.scratch(), tool("srt-ns"));
        let (own, path) = (scratch.text(), path.display());
        let mounts = format!("mount -t tmpfs -o mode=1777 tmpfs {own}; cp {path} {own}; mount --bind {own} /tmp");
        let ran = run(&mut with_mounts(&mounts, who.command("sh").args(["-c", &script])));
        assert!(ran.ok().out.ends_with("\nthe same\n"), "{ran:#?}");
    }

    fn a_caller_that_ignores_sigchld_changes_nothing(who) {
        let mut command = who.command("env");
        let ran = run(command.arg("--ignore-signal=CHLD").arg(tool("srt-ns")).arg("--check"));
        refused(&ran, 0, &[], &[]);
        assert_eq!(rows(&ran, "ok").len(), 20, "{ran:#?}");
    }

    fn an_overlay_as_the_root_is_told(who) {
        let scratch = who.scratch();
        let script = format!("mount -t tmpfs none {0} && cd {0} && chmod 755 . && mkdir u w m && mount -t overlay none -o lowerdir=/,upperdir=u,workdir=w m && mount --rbind /proc m/proc && mkdir -p m{1} && mount --rbind {1} m{1} && cd m && pivot_root . . && umount -l . && cd / && exec \"$@\"", scratch.text(), srt_tests::tools().display());
        let overlay = |command: Command| {
            let mut inside = Command::new("unshare");
            inside.args(["-m", "sh", "-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
            inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            run(&mut inside)
        };
        let ran = overlay(check(who));
        assert!(rows(&ran, "limited").contains(&"overlay"), "{ran:#?}");
        assert!(ran.out.contains("the root is an overlay") && ran.out.contains("--tmp-overlay, or"), "{ran:#?}");
        assert!(!rows(&run(&mut check(who)), "limited").contains(&"overlay"));
    }

    fn a_kernel_without_overlayfs_is_told_what_to_load(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let mut command = who.command("strace");
        command.args(["-f", "--quiet=all", "-o", "/dev/null", "--trace=fsopen", "-e", "inject=fsopen:error=ENODEV:when=2"]);
        let ran = run(command.arg(tool("srt-ns")).arg("--check"));
        assert!(rows(&ran, "no").contains(&"overlay") && ran.out.contains("modprobe overlay"), "{ran:#?}");
    }

    fn a_limit_of_zero_fails_what_needs_it(who) {
        let ran = run(&mut with_none_of("max_user_namespaces", &check(who)));
        refused(&ran, 125, &INSIDE, &[
            "user namespace       no       cannot create a user namespace: No space left on device",
            "remedy: user.max_user_namespaces is reached or 0",
            "still works: srt-seccomp with --read",
        ]);
        // The remedy is said once, and does not send back to where it is said.
        assert_eq!(ran.out.matches("remedy: ").count(), 1, "{ran:#?}");
        assert!(!ran.out.contains("--check"), "{ran:#?}");
        for (limit, names) in [
            ("max_net_namespaces", &["net namespace"][..]),
            ("max_ipc_namespaces", &["ipc namespace"]),
            ("max_uts_namespaces", &["uts namespace"]),
            ("max_cgroup_namespaces", &["cgroup namespace"]),
            ("max_pid_namespaces", &["pid namespace", "procfs", "procfs subset=pid"]),
            ("max_mnt_namespaces", &["mount namespace", "mount API", "procfs", "procfs subset=pid", "overlay"]),
        ] {
            let ran = run(&mut with_none_of(limit, &check(who)));
            refused(&ran, 125, names, &["remedy: a namespace limit is reached"]);
        }
    }

    fn a_masked_proc_is_found(who) {
        let masked = "mount --bind /dev/null /proc/interrupts";
        let ran = run(&mut with_mounts(masked, &check(who)));
        assert!(rows(&ran, "no").contains(&"procfs"), "{ran:#?}");
        ran.code(125).complains("host: procfs");
        assert!(ran.out.contains("systempaths=unconfined"), "{ran:#?}");
    }

    fn a_read_only_proc_sys_is_found(who) {
            // mount_too_revealing() in fs/namespace.c: the mount also covers a part of /proc.
            let ran = run(&mut with_mounts(READ_ONLY_SYSCTLS, &check(who)));
            let names = ["max_user_namespaces", "procfs", "procfs subset=pid"];
            refused(&ran, 125, &names, &["Read-only file system", "still works: srt-ns --allow-userns"]);
        }

        fn a_missing_proc_is_survived(who) {
        let ran = run(&mut with_mounts("umount -l /proc", &check(who)));
        ran.code(125).one_clear_error("srt-ns");
        assert!(ran.out.contains("remedy: srt-ns needs /proc: mount a procfs there"), "{ran:#?}");
    }

    fn each_call_that_a_filter_refuses_is_found_and_named(who) {
        let needs = |call| refuse(call, libc::ENOSYS);
        let new = |flag| refuse_flag(libc::SYS_unshare, 0, flag, EPERM);
        for (refusal, code, names) in [
            (new(libc::CLONE_NEWUSER), 125, &INSIDE[..]),
            (new(libc::CLONE_NEWPID), 125, &["pid namespace", "procfs", "procfs subset=pid"]),
            (new(libc::CLONE_NEWNET), 125, &["net namespace"]),
            (new(libc::CLONE_NEWIPC), 125, &["ipc namespace"]),
            (new(libc::CLONE_NEWUTS), 125, &["uts namespace"]),
            (new(libc::CLONE_NEWCGROUP), 125, &["cgroup namespace"]),
            (new(libc::CLONE_NEWNS), 125, &["mount namespace", "mount API", "procfs", "procfs subset=pid", "overlay"]),
            (needs(libc::SYS_fsopen), 125, &["mount API", "procfs", "procfs subset=pid", "overlay"]),
            (needs(libc::SYS_fsmount), 125, &["mount API", "procfs", "procfs subset=pid", "overlay"]),
            (needs(libc::SYS_move_mount), 125, &["mount API", "overlay"]),
            (needs(libc::SYS_mount_setattr), 125, &["mount API", "overlay"]),
            (needs(libc::SYS_open_tree), 125, &["mount API"]),
            (needs(libc::SYS_openat2), 125, &["mount API"]),
            (refuse(libc::SYS_pivot_root, libc::EACCES), 125, &["mount API"]),
            (needs(libc::SYS_close_range), 125, &["close_range"]),
            (needs(libc::SYS_pidfd_send_signal), 125, &["pidfds"]),
            (needs(libc::SYS_pidfd_open), 125, &["pidfds"]),
            (refuse_value(libc::SYS_prctl, 0, libc::PR_SET_SECCOMP, EPERM), 125, &["seccomp"]),
            (refuse_value(libc::SYS_prctl, 0, libc::PR_CAPBSET_DROP, EPERM), 125, &["user namespace"]),
            (refuse_flag(libc::SYS_ioctl, 1, 0x8000, EPERM), 125, &["net namespace"]),
            (refuse_flag(libc::SYS_keyctl, 0, 1, EPERM), 125, &["session keyring"]),
            // Answered for and not done.
            (refuse_value(libc::SYS_unshare, 0, libc::CLONE_NEWPID, 0), 125, &["pid namespace", "procfs", "procfs subset=pid"]),
            (needs(libc::SYS_landlock_create_ruleset), 0, &["Landlock"]),
            (refuse(libc::SYS_landlock_restrict_self, EPERM), 0, &["Landlock"]),
            (refuse(libc::SYS_fsetxattr, libc::EOPNOTSUPP), 0, &["user xattrs"]),
        ] {
            let mut command = check(who);
            in_front(&mut command, &[refusal]);
            let ran = run(&mut command);
            refused(&ran, code, names, &[]);
            let remedy = match names {
                ["seccomp"] => "remedy: an outer seccomp filter refuses others",
                ["Landlock"] => "lsm=",
                ["user xattrs"] => "remedy: Linux 6.6 has them on tmpfs",
                ["session keyring"] => "still works: ",
                _ => "remedy: ",
            };
            assert!(ran.out.contains(remedy), "{remedy} {ran:#?}");
            // The filter itself is seen, and is no failure.
            assert_eq!(rows(&ran, "limited"), ["no outer filter"], "{ran:#?}");
            let limited = ran.out.split("no outer filter").nth(1).expect("the row");
            assert!(limited.contains("still works: what the other rows say"), "{ran:#?}");
            // The judgement is a sandbox's own, but for what srt-mount and srt-seccomp alone need.
            if code == 0 {
                let mut sandbox = who.command("srt-ns");
                sandbox.args(["--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc", "--", "srt-seccomp", "--", "echo", "it ran"]);
                in_front(&mut sandbox, &[refusal]);
                run(&mut sandbox).ok().says("it ran");
            }
        }
    }

    fn what_an_older_landlock_cannot_do_is_told(who) {
        if !has("strace") || landlock_abi() < 1 {
            skip!("no strace, or no Landlock");
        }
        for (abi, result, cause) in [
            (4, "limited", "ABI 4: no --landlock, --read and --write"),
            (5, "ok", "ABI 5; --unix needs ABI 9 (Linux 7.1)"),
            (8, "ok", "ABI 8; --unix needs ABI 9 (Linux 7.1)"),
            (9, "ok", "ABI 9"),
        ] {
            let mut command = who.command("strace");
            command.args(["-f", "--quiet=all", "--output=/dev/null", "--seccomp-bpf", "--trace=landlock_create_ruleset"]);
            command.args(["-e", &format!("inject=landlock_create_ruleset:retval={abi}:when=2")]);
            let ran = run(command.arg(tool("srt-ns")).arg("--check"));
            let row = format!("{:<20} {result:<8} {cause}\n", "Landlock");
            assert!(ran.out.contains(&row), "{abi}: {ran:#?}");
        }
    }

    fn a_filter_that_kills_is_survived(who) {
        // seccomp(2): an action that the kernel does not know kills the process.
        let mut command = check(who);
        in_front(&mut command, &[refuse(libc::SYS_fsopen, i32::MIN)]);
        let ran = run(&mut command);
        let names = ["mount API", "procfs", "procfs subset=pid", "overlay"];
        refused(&ran, 125, &names, &["gave no answer: signal 31", "remedy: an outer seccomp filter may kill"]);
        assert_eq!(ran.out.matches("gave no answer: signal 31").count(), names.len(), "{ran:#?}");
    }

    fn an_outer_srt_ns_is_found(who) {
        let outer = |options: &[&str]| run(who.command("srt-ns").args(options).arg("--").arg(tool("srt-ns")).arg("--check"));
        let ran = outer(&[]);
        refused(&ran, 125, &INSIDE, &["remedy: user.max_user_namespaces is reached or 0", "give that one --allow-userns"]);
        if who == Who::User {
            refused(&outer(&["--allow-userns"]), 0, &[], &[]);
        }
    }

    fn apparmors_remedy_is_a_profile_for_this_very_file(who) {
        let scratch = who.scratch();
        scratch.file("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        // A path with what means something in a profile.
        let copy = scratch.dir("a {b} \"c\" *@").join("srt-ns");
        srt_tests::copy_program(tool("srt-ns"), &copy);
        let script = format!("mount --bind {}/kernel /proc/sys/kernel", scratch.text());
        let mut command = with_mounts(&script, who.command(&copy).arg("--check"));
        in_front(&mut command, &[refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWUSER, EPERM)]);
        let ran = run(&mut command);
        refused(&ran, 125, &INSIDE, &["cat >/etc/apparmor.d/srt-ns <<'END'\n", "a \\{b\\} \\\"c\\\" \\*\\@/srt-ns\"", "\nEND\napparmor_parser -r"]);
        assert_eq!(ran.out.matches("userns,").count(), 1, "{ran:#?}");
        // Root is to paste it: no path ends the text early.
        let copy = scratch.dir("a\nEND\nb").join("srt-ns");
        srt_tests::copy_program(tool("srt-ns"), &copy);
        let mut command = with_mounts(&script, who.command(&copy).arg("--check"));
        in_front(&mut command, &[refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWUSER, EPERM)]);
        let broken = run(&mut command);
        refused(&broken, 125, &INSIDE, &["remedy: "]);
        assert!(!broken.out.contains("apparmor_parser"), "{broken:#?}");
        if !has("apparmor_parser") {
            skip!("there is no apparmor_parser");
        }
        let (_, text) = ran.out.split_once("<<'END'\n").expect("a profile");
        let (profile, _) = text.split_once("\nEND\n").expect("its end");
        let parse = |text: &str| run(Command::new("apparmor_parser").args(["-Q", "-K"]).arg(scratch.file("profile", text)));
        let ran = if std::path::Path::new("/etc/apparmor.d/abi/4.0").exists() {
            parse(profile)
        } else {
            // A parser before AppArmor 4 knows neither the ABI nor the rule; no such host restricts user namespaces.
            parse(&profile.replace("abi <abi/4.0>,\n", "").replace("  userns,\n", ""))
        };
        ran.ok();
        // The control: a parser that reads what it is given.
        assert_ne!(parse("profile srt-ns \"/a\" flags=(unconfined) {").code, Some(0));
    }

    fn each_row_is_a_json_object(who) {
        let read = "import json,sys; rows=[json.loads(line) for line in sys.stdin]\n\
                    assert all(row['stage']=='srt-ns' for row in rows)\n\
                    checks=[row for row in rows if row['event']=='check']\n\
                    assert all(set(row)=={'stage','event','name','result','cause','remedy'} for row in checks)\n\
                    print(len(checks), *(row['name'] for row in checks if row['result']=='no'), sep=',')\n\
                    print([row['code'] for row in rows if row['event']=='failed'])";
        let line = "\"$0\" --check --status-fd 3 3>&1 >/dev/null 2>&1 | python3 -c \"$1\"";
        let path = tool("srt-ns");
        let words: [&OsStr; 5] = ["sh".as_ref(), "-c".as_ref(), line.as_ref(), path.as_ref(), read.as_ref()];
        run(who.command(words[0]).args(&words[1..])).ok().says("20\n[]");
        let refused = format!("20,{}\n[125]", INSIDE.join(","));
        run(who.command("srt-ns").arg("--").args(words)).ok().says(&refused);
    }

    fn it_runs_no_program_and_takes_no_other_option(who) {
        for words in [&["--", "echo", "it ran"][..], &["--uid", "1"], &["--keep-session"], &["--check"], &["--"]] {
            let ran = run(check(who).args(words));
            ran.code(125).says("").one_clear_error("srt-ns");
        }
        run(check(who).args(["--status-fd", "9"])).code(125).says("").complains("--status-fd 9: not an open descriptor");
    }

    fn the_hints_of_real_failures_point_to_it(who) {
        let sandbox = |who: Who| {
            let mut command = who.command("srt-ns");
            command.args(["--", "echo", "it ran"]);
            command
        };
        let pointer = "srt-ns --check tries all that is needed";
        run(&mut with_none_of("max_user_namespaces", &sandbox(who))).code(125).hints("srt-ns", "user namespace", pointer);
        run(&mut with_none_of("max_net_namespaces", &sandbox(who))).code(125).hints("srt-ns", "net namespace", pointer);
        let refused = run(&mut with_mounts(READ_ONLY_SYSCTLS, &sandbox(who)));
        refused.code(125).hints("srt-ns", "cannot forbid further user namespaces", pointer);
    }

    fn what_the_chain_does_not_need_is_no_failure(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=fsconfig"]);
        // subset=pid, and the overlay: those that set something before they create it.
        command.args(["-e", "inject=fsconfig:error=EINVAL:when=2"]).arg(tool("srt-ns"));
        let ran = run(command.arg("--check"));
        for (row, result) in [("procfs subset=pid", "no"), ("overlay", "no"), ("procfs ", "ok"), ("mount API", "ok")] {
            let line = ran.out.lines().find(|line| line.starts_with(row)).expect("a row");
            assert!(line.get(20..).is_some_and(|rest| rest.trim_start().starts_with(result)), "{line}");
        }
        ran.ok();
    }
}
