//! Failures that users really meet end in two lines: what failed, and what can be done about it. Each is provoked for
//! real: by a limit in a scratch user namespace, a seccomp filter in front, a mount over /proc, a missing capability.
//! What the hint proposes is tried where a test can.

use srt_tests::refusals::{Refusal, in_front, refuse, refuse_flag, refuse_value, with_mounts, with_none_of};
use srt_tests::{Ran, Scratch, Who, both, has, run, skip, tool, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

const EPERM: i32 = libc::EPERM;
const STAGES: [&str; 3] = ["srt-ns", "srt-mount", "srt-seccomp"];

/// A tool with options, and a command that says on stdout that it ran.
fn with(who: Who, tool: &str, options: &[&str]) -> Command {
    let mut command = who.command(tool);
    command.args(options).args(["--", "echo", "it ran"]);
    command
}

/// The same under a system that refuses some calls.
fn behind(refusals: &[Refusal], mut command: Command) -> Ran {
    in_front(&mut command, refusals);
    run(&mut command)
}

/// A stage has failed, and said why and what to do; nothing has run.
#[track_caller]
fn failed(ran: &Ran, tool: &str, error: &str, hint: &str) {
    ran.code(125).says("").hints(tool, error, hint);
}

/// A socket on which somebody listens and everybody may connect, as long as the listener is held.
fn socket(scratch: &Scratch) -> (UnixListener, String) {
    let path = scratch.join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    (listener, path.to_str().expect("UTF-8").to_owned())
}

/// A shell line that puts a sysctl of kernels or distributions where this one may lack it.
fn sysctl(scratch: &Scratch, name: &str, value: &str) -> String {
    scratch.file(format!("kernel/{name}"), value);
    format!("mount --bind {}/kernel /proc/sys/kernel", scratch.text())
}

mod user_namespaces {
    use super::*;

    const CANNOT: &str = "cannot create a user namespace: Operation not permitted";

    both! {
        fn a_limit_of_zero_is_named(who) {
            let refused = run(&mut with_none_of("max_user_namespaces", &with(who, "srt-ns", &[])));
            let error = "cannot create a user namespace: No space left on device";
            failed(&refused, "srt-ns", error, "user.max_user_namespaces is reached or 0");
            // The control: the same scratch user namespace with another limit at 0 that srt-ns does not need.
            run(&mut with_none_of("max_time_namespaces", &with(who, "srt-ns", &[]))).ok().says("it ran");
        }

        fn an_outer_srt_ns_forbids_them_until_it_is_told_otherwise(who) {
            let inner = tool("srt-ns");
            let outer = |options: &[&str]| {
                let mut command = who.command("srt-ns");
                run(command.args(options).arg("--").arg(&inner).args(["--", "echo", "it ran"]))
            };
            failed(&outer(&[]), "srt-ns", "cannot create a user namespace", "give that one --allow-userns");
            if who == Who::User {
                outer(&["--allow-userns"]).ok().says("it ran");
            }
        }

        fn more_than_32_levels_are_too_many(who) {
            let mut nested = who.command("unshare");
            for _ in 0..32 {
                nested.args(["--user", "--map-current-user", "--keep-caps", "unshare"]);
            }
            nested.args(["--user", "--map-current-user", "--"]).arg(tool("srt-ns")).args(["--", "echo", "it ran"]);
            let error = "cannot create a user namespace: No space left on device";
            failed(&run(&mut nested), "srt-ns", error, "more than 32 are nested");
        }

        fn a_containers_seccomp_profile_is_suspected(who) {
            // Docker's default profile: unshare(2) with any CLONE_NEW* flag is EPERM.
            let profile = refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWUSER, EPERM);
            let refused = behind(&[profile], with(who, "srt-ns", &[]));
            failed(&refused, "srt-ns", CANNOT, "docker run --security-opt seccomp=unconfined");
        }

        fn apparmor_is_named_where_its_sysctl_is_on(who) {
            // Ubuntu 24.04 for a program without a profile of its own, as a root that is confined meets it too.
            let profile = refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWUSER, EPERM);
            for (value, hint) in [("1\n", "AppArmor restricts user namespaces here"), ("0\n", "docker run")] {
                let scratch = who.scratch();
                let script = sysctl(&scratch, "apparmor_restrict_unprivileged_userns", value);
                let refused = behind(&[profile], with_mounts(&script, &with(who, "srt-ns", &[])));
                failed(&refused, "srt-ns", CANNOT, hint);
            }
        }

        fn apparmor_is_named_where_it_gives_a_namespace_without_capabilities(who) {
            // The profile `unprivileged_userns`: unshare(2) works, and every use of a capability inside is refused.
            // user_namespaces(7): without one /proc/PID/setgroups cannot be opened for writing.
            let profile = [
                refuse_flag(libc::SYS_openat, 2, libc::O_CREAT, libc::EACCES),
                // musl's open(3), where there is such a system call.
                #[cfg(target_arch = "x86_64")]
                refuse_flag(libc::SYS_open, 1, libc::O_CREAT, libc::EACCES),
            ];
            let scratch = who.scratch();
            let script = sysctl(&scratch, "apparmor_restrict_unprivileged_userns", "1\n");
            let refused = behind(&profile, with_mounts(&script, &with(who, "srt-ns", &[])));
            failed(&refused, "srt-ns", "cannot write /proc/self/setgroups", "AppArmor restricts user namespaces here");
        }

        fn debians_sysctl_is_named_where_it_is_off(who) {
            let profile = refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWUSER, EPERM);
            let scratch = who.scratch();
            let script = sysctl(&scratch, "unprivileged_userns_clone", "0\n");
            let refused = behind(&[profile], with_mounts(&script, &with(who, "srt-ns", &[])));
            failed(&refused, "srt-ns", CANNOT, "sysctl kernel.unprivileged_userns_clone=1");
        }

        fn a_chroot_is_among_the_suspects(who) {
            // user_namespaces(7): EPERM in a chroot.
            let scratch = who.scratch();
            let root = scratch.text();
            let inside = "for d in bin lib lib64 usr proc dev tmp; do mkdir -p $d; mount --rbind /$d $d; done";
            let script = format!("mount -t tmpfs tmpfs {root}; cd {root}; {inside}");
            let mut chroot = Command::new("chroot");
            let ids = format!("--userspec={0}:{0}", who.uid());
            chroot.args([&ids, "--groups=", root]).arg(tool("srt-ns")).args(["--", "echo", "it ran"]);
            failed(&run(&mut with_mounts(&script, &chroot)), "srt-ns", CANNOT, "a chroot");
        }

        fn a_kernel_without_them_is_named(who) {
            let refused = behind(&[refuse(libc::SYS_unshare, libc::EINVAL)], with(who, "srt-ns", &[]));
            failed(&refused, "srt-ns", "cannot create a user namespace: Invalid argument", "CONFIG_USER_NS");
        }

        fn a_read_only_proc_sys_leaves_a_way_that_works(who) {
            // As in a container.
            let script = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";
            let refused = run(&mut with_mounts(script, &with(who, "srt-ns", &[])));
            let error = "cannot forbid further user namespaces: /proc/sys/user/max_user_namespaces: Read-only file system";
            failed(&refused, "srt-ns", error, "use --allow-userns and forbid them with srt-seccomp --deny userns,mount");

            let mut followed = who.command("srt-ns");
            followed.args(["--allow-userns", "--", "srt-seccomp", "--deny", "userns,mount", "--"]);
            run(&mut with_mounts(script, followed.args(["echo", "it ran"]))).ok().says("it ran");
        }
    }

    #[test]
    fn uid_0_without_cap_setfcap_is_told_so() {
        for dropped in ["-setfcap", "-all"] {
            let mut command = Command::new("setpriv");
            command.args([&format!("--bounding-set={dropped}"), &format!("--inh-caps={dropped}"), "--"]);
            command.arg(tool("srt-ns")).args(["--", "echo", "it ran"]);
            let error = "cannot write /proc/self/uid_map: Operation not permitted";
            failed(&run(&mut command), "srt-ns", error, "uid 0 needs CAP_SETFCAP");
        }
        // The control and the hint's proposal: an ordinary user needs none.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
        run(command.arg(tool("srt-ns")).args(["--", "echo", "it ran"])).ok().says("it ran");
    }
}

mod other_namespaces {
    use super::*;

    both! {
        fn a_limit_of_zero_is_named(who) {
            for (limit, what) in [
                ("max_net_namespaces", "cannot create a net namespace"),
                ("max_ipc_namespaces", "cannot create the ipc, uts and cgroup namespaces"),
                ("max_uts_namespaces", "cannot create the ipc, uts and cgroup namespaces"),
                ("max_cgroup_namespaces", "cannot create the ipc, uts and cgroup namespaces"),
                ("max_pid_namespaces", "cannot create a pid namespace"),
                ("max_mnt_namespaces", "cannot create a mount namespace"),
            ] {
                let refused = run(&mut with_none_of(limit, &with(who, "srt-ns", &[])));
                let error = format!("{what}: No space left on device");
                failed(&refused, "srt-ns", &error, "a namespace limit is reached");
            }
        }

        fn a_refusal_of_one_of_them_is_explained_too(who) {
            for (flag, what) in [
                (libc::CLONE_NEWNET, "cannot create a net namespace"),
                (libc::CLONE_NEWPID, "cannot create a pid namespace"),
                (libc::CLONE_NEWNS, "cannot create a mount namespace"),
            ] {
                let profile = refuse_flag(libc::SYS_unshare, 0, flag, EPERM);
                let refused = behind(&[profile], with(who, "srt-ns", &[]));
                failed(&refused, "srt-ns", &format!("{what}: Operation not permitted"), "seccomp");
            }
            let profile = refuse_flag(libc::SYS_unshare, 0, libc::CLONE_NEWCGROUP, libc::EINVAL);
            failed(&behind(&[profile], with(who, "srt-ns", &[])), "srt-ns", "namespaces: Invalid argument", "CONFIG_CGROUPS");
        }

        fn proc_is_missed(who) {
            let refused = run(&mut with_mounts("umount -l /proc", &with(who, "srt-ns", &[])));
            failed(&refused, "srt-ns", "cannot write /proc/self/setgroups: No such file or directory", "mount a procfs");
        }

        fn a_loopback_that_cannot_be_brought_up_is_explained(who) {
            // ioctl(2) SIOCSIFFLAGS: its number alone has these bits among srt-ns's.
            let profile = refuse_flag(libc::SYS_ioctl, 1, 0x8000, EPERM);
            let refused = behind(&[profile], with(who, "srt-ns", &[]));
            failed(&refused, "srt-ns", "cannot bring up the loopback interface", "a security module");
        }

        fn share_user_says_what_it_needs(who) {
            let share = ["--share", "user", "--allow-userns"];
            let mut command = with(who, "srt-ns", &share);
            if who == Who::Root {
                command = Command::new("setpriv");
                command.args(["--bounding-set=-all", "--"]).arg(tool("srt-ns")).args(share).args(["--", "echo"]);
            }
            failed(&run(&mut command), "srt-ns", "Operation not permitted", "--share user is for a caller with CAP_SYS_ADMIN");
        }
    }

    #[test]
    fn share_user_of_root_works_and_without_cap_net_admin_is_explained() {
        run(&mut with(Who::Root, "srt-ns", &["--share", "user", "--allow-userns"])).ok().says("it ran");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+sys_admin", "--"]).arg(tool("srt-ns"));
        command.args(["--share", "user", "--allow-userns", "--", "echo", "it ran"]);
        failed(&run(&mut command), "srt-ns", "cannot bring up the loopback interface", "CAP_NET_ADMIN");
    }

    #[test]
    fn root_in_a_chroot_that_is_no_mount_point_is_told_so() {
        let scratch = Who::Root.scratch();
        let root = scratch.text();
        let inside =
            "for d in bin lib lib64 usr proc dev tmp; do mkdir -p r/$d; mount --rbind /$d r/$d; done";
        let script = format!("mount -t tmpfs tmpfs {root}; cd {root}; {inside}");
        let mut chroot = Command::new("chroot");
        chroot.arg(format!("{root}/r")).arg(tool("srt-ns"));
        chroot.args(["--share", "user", "--allow-userns", "--", "echo", "it ran"]);
        let refused = run(&mut with_mounts(&script, &chroot));
        failed(&refused, "srt-ns", "Invalid argument", "the caller's root directory must be a mount point");
    }
}

mod all_tools {
    use super::*;

    both! {
        fn a_kernel_that_is_too_old_is_refused(who) {
            // personality(2), UNAME26: uname(2) says 2.6.
            let under = |name: &str, words: &[&str]| {
                let mut command = who.command("setarch");
                run(command.arg("--uname-2.6").arg(tool(name)).args(words))
            };
            for name in STAGES {
                failed(&under(name, &["--", "echo", "it ran"]), name, "is too old", "run a newer kernel");
            }
            let checked = under("srt-ns", &["--check"]);
            checked.code(125).complains("not everything works on this host: kernel");
            assert!(checked.out.contains("is too old: Linux 5.12 or newer"), "{checked:#?}");
            for (name, words) in [
                ("srt-relay", ["tcp:127.0.0.1:9", "tcp:127.0.0.1:1"].as_slice()),
                ("srt-connect", &["--proxy", "http://127.0.0.1:1", "example.org", "22"]),
            ] {
                under(name, words).code(1).says("").hints(name, "is too old: Linux 5.12 or newer", "run a newer kernel");
            }
        }

        fn a_call_that_the_kernel_does_not_know_is_explained(who) {
            for (call, name) in [
                (libc::SYS_close_range, "srt-ns"),
                (libc::SYS_pidfd_open, "srt-ns"),
                (libc::SYS_fsopen, "srt-ns"),
                (libc::SYS_fsmount, "srt-ns"),
                (libc::SYS_move_mount, "srt-ns"),
                (libc::SYS_mount_setattr, "srt-ns"),
                (libc::SYS_close_range, "srt-seccomp"),
            ] {
                let refused = behind(&[refuse(call, libc::ENOSYS)], with(who, name, &[]));
                failed(&refused, name, "Function not implemented", "Linux 5.12");
            }
        }

        fn a_missing_separator_is_missed(who) {
            for name in STAGES {
                let form = format!("write {name} [options] -- PROGRAM");
                failed(&run(&mut who.command(name)), name, "missing -- before PROGRAM", &form);
                // The tool cannot know where the options were to end, but that `--` is missing it knows.
                failed(&run(who.command(name).args(["echo", "it ran"])), name, "", &form);
                let stages = ["srt-seccomp", "--", "echo", "it ran"];
                failed(&run(who.command(name).args(stages)), name, "srt-seccomp", &form);
                failed(&run(who.command(name).args(["--keep-fd", "0", "echo", "it ran"])), name, "", &form);
            }
            // A later one is not the tool's.
            for name in ["srt-ns", "srt-seccomp"] {
                let form = format!("write {name} [options] -- PROGRAM");
                failed(&run(who.command(name).args(["echo", "--", "it ran"])), name, "echo: unexpected argument", &form);
            }
        }
    }

    #[test]
    fn privileges_that_the_caller_lacks_are_refused_and_can_be_taken_away() {
        let copy = |name: &str, give: &[&str]| {
            let scratch = Who::Root.scratch();
            let path = scratch.join(name);
            run(Command::new("cp").arg(tool(name)).arg(&path)).ok();
            run(Command::new(give[0]).args(&give[1..]).arg(&path)).ok();
            (scratch, path)
        };
        let stage = &["--", "echo", "it ran"][..];
        for (name, words) in [
            ("srt-ns", stage),
            ("srt-mount", stage),
            ("srt-seccomp", stage),
            ("srt-relay", &["tcp:127.0.0.1:0", "tcp:127.0.0.1:1"]),
            ("srt-connect", &["--proxy", "http://127.0.0.1:1", "example.org", "22"]),
        ] {
            for give in [&["chmod", "4755"][..], &["setcap", "cap_net_bind_service+ep"]] {
                let (_scratch, path) = copy(name, give);
                let ran = run(Who::User.command(&path).args(words));
                ran.code(if words == stage { 125 } else { 1 }).says("");
                ran.hints(
                    name,
                    "refusing to run setuid, setgid or with file capabilities",
                    "chmod u-s,g-s and setcap -r",
                );
                // It is told on the status descriptor as well: this 125 is not the command's.
                if words == stage {
                    let ran = run(Who::User.command(&path).args(["--status-fd", "1"]).args(words));
                    assert!(ran.out.contains("\"event\":\"failed\""), "{ran:#?}");
                }
                // Root is not made more by either.
                if words == stage && give[0] == "chmod" {
                    let help = run(Command::new(&path).arg("--help"));
                    help.ok();
                }
            }
            // setgid, for a group that is not the caller's.
            let (_scratch, path) = copy(name, &["chmod", "2755"]);
            run(Who::User.command(&path).arg("--help")).says("").hints(name, "setgid", "chmod u-s,g-s");
            // What the hint proposes.
            run(Command::new("chmod").args(["u-s,g-s"]).arg(&path)).ok();
            run(Who::User.command(&path).arg("--help")).ok();
        }
    }
}

mod mounts {
    use super::*;

    /// srt-mount under srt-ns, around a command that says on stdout that it ran.
    fn mount(who: Who, options: &[&str]) -> Command {
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/"]).args(options).args(["--", "echo", "it ran"]);
        command
    }

    both! {
        fn apparmors_profile_of_a_container_is_suspected(who) {
            // `deny mount` of docker-default is EACCES from pivot_root(2), umount2(2) and, since Linux 6.7, move_mount(2).
            // Landlock and Docker's seccomp profile say EPERM, which in srt-ns has other causes.
            for call in [libc::SYS_move_mount, libc::SYS_pivot_root, libc::SYS_umount2] {
                for (name, errno) in [("srt-ns", libc::EACCES), ("srt-mount", libc::EACCES), ("srt-mount", EPERM)] {
                    let mut command = who.command("unshare");
                    command.args(["--user", "--map-current-user", "--keep-caps"]).arg(tool(name));
                    let options = if name == "srt-mount" { &["--ro-bind", "/", "/", "--tmpfs", "/tmp"][..] } else { &[] };
                    command.args(options).args(["--", "echo", "it ran"]);
                    let error = std::io::Error::from_raw_os_error(errno).to_string();
                    let error = error.split(" (").next().expect("its text");
                    failed(&behind(&[refuse(call, errno)], command), name, error, "--security-opt apparmor=unconfined");
                }
            }
        }

        fn a_bounding_set_that_cannot_be_emptied_is_an_error(who) {
            // EINVAL says that there are no more capabilities: of the first one it says something else.
            let refuse = |errno| refuse_value(libc::SYS_prctl, 0, libc::PR_CAPBSET_DROP, errno);
            let refused = behind(&[refuse(libc::EINVAL)], with(who, "srt-seccomp", &[]));
            match who {
                Who::Root => drop(refused.code(125).one_clear_error("srt-seccomp").says("").complains("prctl(PR_CAPBSET_DROP)")),
                // Nobody without CAP_SETPCAP asks.
                Who::User => drop(refused.ok().says("it ran")),
            }
        }

        fn a_failure_of_srt_init_is_told_once(who) {
            // strace(1) holds the fork of the command back until srt-init has failed, and with it the pid namespace.
            let mut command = who.command("strace");
            command.args(["-o", "/dev/null", "-e", "inject=clone,clone3:delay_enter=200000:when=2"]);
            command.arg(tool("srt-ns")).args(["--", "echo", "it ran"]);
            let refused = behind(&[refuse(libc::SYS_umount2, libc::EACCES)], command);
            failed(&refused, "srt-ns", "Permission denied", "--security-opt apparmor=unconfined");
        }

        fn cap_sys_admin_is_missed(who) {
            let mut command = with(who, "srt-mount", &["--ro-bind", "/", "/"]);
            if who == Who::Root {
                command = Command::new("setpriv");
                command.args(["--bounding-set=-sys_admin", "--"]).arg(tool("srt-mount"));
                command.args(["--ro-bind", "/", "/", "--", "echo", "it ran"]);
            }
            let error = "cannot make a mount namespace: Operation not permitted";
            failed(&run(&mut command), "srt-mount", error, "needs CAP_SYS_ADMIN");

            // srt-ns gives it to the srt-mount beside it alone; what the hint proposes.
            let under = |options: &[&str]| {
                let mut command = who.command("srt-ns");
                let words = ["--", "env", "srt-mount", "--ro-bind", "/", "/", "--", "echo", "it ran"];
                run(command.args(options).args(words))
            };
            failed(&under(&[]), "srt-mount", error, "under srt-ns --keep-admin");
            under(&["--keep-admin"]).ok().says("it ran");
            run(&mut mount(who, &[])).ok().says("it ran");
        }

        fn a_masked_proc_leaves_a_way_that_works(who) {
            // As Docker and podman do with /proc/interrupts and others.
            let masked = "mount --bind /dev/null /proc/interrupts";
            let refused = run(&mut with_mounts(masked, &mount(who, &["--proc", "/proc"])));
            let error = "--proc /proc: cannot make a procfs: Operation not permitted";
            failed(&refused, "srt-mount", error, "systempaths=unconfined");
            let followed = mount(who, &["--ro-bind", "/proc", "/proc"]);
            run(&mut with_mounts(masked, &followed)).ok().says("it ran");
            // The control: it was the mask.
            run(&mut with_mounts("", &mount(who, &["--proc", "/proc"]))).ok().says("it ran");
        }

        fn a_procfs_without_a_pid_namespace_is_explained(who) {
            let mut command = who.command("unshare");
            command.args(["--user", "--map-root-user", "--mount"]).arg(tool("srt-mount"));
            command.args(["--ro-bind", "/", "/", "--proc", "/proc", "--", "echo", "it ran"]);
            failed(&run(&mut command), "srt-mount", "cannot make a procfs", "needs a pid namespace of its own");
        }

        fn a_call_that_the_kernel_does_not_know_is_explained(who) {
            for call in [libc::SYS_open_tree, libc::SYS_openat2, libc::SYS_mount_setattr, libc::SYS_move_mount, libc::SYS_fsopen] {
                let mut command = who.command("unshare");
                command.args(["--user", "--map-root-user"]).arg(tool("srt-mount"));
                command.args(["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--", "echo", "it ran"]);
                failed(&behind(&[refuse(call, libc::ENOSYS)], command), "srt-mount", "Function not implemented", "Linux 5.12");
            }
        }

        fn a_root_that_is_no_mount_point_is_explained(who) {
            if who == Who::User {
                return; // Only root can chroot(2) and then have CAP_SYS_ADMIN: user_namespaces(7), EPERM.
            }
            let scratch = who.scratch();
            let root = scratch.text();
            let inside = "for d in bin lib lib64 usr proc dev tmp; do mkdir -p r/$d; mount --rbind /$d r/$d; done";
            let script = format!("mount -t tmpfs tmpfs {root}; cd {root}; {inside}");
            let mut chroot = Command::new("chroot");
            chroot.arg(format!("{root}/r")).arg(tool("srt-mount"));
            let refused = run(&mut with_mounts(&script, chroot.args(["--ro-bind", "/", "/", "--", "echo", "it ran"])));
            failed(&refused, "srt-mount", "Invalid argument", "not a plain chroot");
        }

        fn the_limit_of_mounts_is_named(who) {
            let scratch = who.scratch();
            // 4096 mounts, each of them copied with the directory that they are in.
            let full = scratch.dir("full");
            let full = full.to_str().expect("UTF-8");
            let double = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir $i; mount --rbind . $i; done";
            let script = format!("mount -t tmpfs tmpfs {full}; cd {full}; {double}; cd /");
            let names: Vec<_> = (0..26).map(|number| format!("/tmp/{number}")).collect();
            let binds = |count: usize| -> Vec<&str> {
                let binds = names.iter().take(count).flat_map(|name| ["--ro-bind", full, name]);
                ["--tmpfs", "/tmp"].into_iter().chain(binds).collect()
            };
            let refused = run(&mut with_mounts(&script, &mount(who, &binds(26))));
            failed(&refused, "srt-mount", "cannot mount: No space left on device", "fs.mount-max");
            run(&mut with_mounts(&script, &mount(who, &binds(2)))).ok().says("it ran");
        }

        fn the_limit_of_descriptors_is_named(who) {
            let many: Vec<_> = std::iter::repeat_n(["--ro-bind", "/usr", "/usr"], 120).flatten().collect();
            let under = |limit: &str| {
                let mut command = who.command("prlimit");
                command.arg(format!("--nofile={limit}")).arg(tool("srt-ns"));
                run(command.args(["--", "srt-mount", "--ro-bind", "/", "/"]).args(&many).args(["--", "echo", "it ran"]))
            };
            failed(&under("64:64"), "srt-mount", "cannot open /usr: Too many open files", "ulimit -Hn");
            under("64:4096").ok().says("it ran");
        }

        fn whatever_meets_the_limit_of_descriptors_names_it(who) {
            let scratch = who.scratch();
            let (_listener, path) = socket(&scratch);
            let (relay, publish) = (format!("80={path}"), format!("{}/published=80", scratch.text()));
            let placeholder = format!("{}/placeholder", scratch.text());
            let mut refused = 0;
            for limit in 3..40 {
                let mut command = who.command("prlimit");
                command.arg(format!("--nofile={limit}")).arg(tool("srt-ns"));
                command.args(["--relay", &relay, "--publish", &publish, "--placeholder", &placeholder, "--"]);
                let ran = run(command.args(["srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--", "true"]));
                if ran.code == Some(0) {
                    continue;
                }
                refused += 1;
                ran.code(125);
                let lines: Vec<_> = ran.err.lines().collect();
                assert!(lines.iter().any(|line| line.contains(": hint: ") && line.contains("ulimit -")), "{limit}: {ran:#?}");
                assert!(!ran.err.contains(" fd:") && !ran.err.contains("beside srt-ns"), "{limit}: {ran:#?}");
            }
            assert!((8..30).contains(&refused), "{refused}");
        }

        fn a_mount_point_that_would_stay_on_the_host_is_refused(who) {
            let scratch = who.scratch();
            let missing = scratch.join("missing");
            let missing = missing.to_str().expect("UTF-8");
            let options = ["--bind", scratch.text(), scratch.text(), "--tmpfs", missing];
            failed(&run(&mut mount(who, &options)), "srt-mount", "would be made on the host's file system", "--placeholders");
            assert!(!scratch.join("missing").exists());
            run(&mut mount(who, &[&["--placeholders"], &options[..]].concat())).ok().says("it ran");

            // Below a read-only one nobody can make it.
            let refused = run(&mut mount(who, &["--placeholders", "--tmpfs", "/usr/srt-missing"]));
            refused.code(125).says("").complains("/usr/srt-missing").one_clear_error("srt-mount");
        }

        fn a_destination_that_is_a_link_names_its_target(who) {
            let scratch = who.scratch();
            std::os::unix::fs::symlink("/etc", scratch.join("link")).expect("symlink");
            let link = scratch.join("link");
            let link = link.to_str().expect("UTF-8");
            let refused = run(&mut mount(who, &["--tmpfs", link]));
            failed(&refused, "srt-mount", &format!("{link} is a symbolic link to /etc"), "name its target instead");
        }

        fn options_that_only_bubblewrap_has_lead_to_the_tool_that_does_it(who) {
            for (option, hint) in [
                ("--unshare-all", "srt-ns"),
                ("--unshare-net", "srt-ns"),
                ("--share-net", "srt-ns"),
                ("--uid", "srt-ns"),
                ("--gid", "srt-ns"),
                ("--as-pid-1", "srt-ns"),
                ("--hostname", "srt-ns"),
                ("--die-with-parent", "srt-ns"),
                ("--new-session", "srt-ns"),
                ("--setenv", "env NAME=VALUE"),
                ("--unsetenv", "env"),
                ("--clearenv", "env"),
                ("--seccomp", "srt-seccomp --load-fd"),
                ("--add-seccomp-fd", "srt-seccomp --load-fd"),
            ] {
                let refused = run(&mut mount(who, &[option, "1"]));
                failed(&refused, "srt-mount", &format!("{option}: unknown option"), hint);
            }
        }
    }
}

mod relays {
    use super::*;

    both! {
        fn a_socket_that_is_not_there_is_missed(who) {
            let missing = who.scratch().join("none");
            let missing = missing.to_str().expect("UTF-8");
            let error = format!("cannot open {missing}: No such file or directory");
            let relay = format!("8080={missing}");
            failed(&run(&mut with(who, "srt-ns", &["--relay", &relay])), "srt-ns", &error, "start the proxy that makes this socket");

            let to = format!("unix:{missing}");
            let ran = run(who.command("srt-relay").args(["tcp:127.0.0.1:9999", &to]));
            ran.code(1).hints("srt-relay", "No such file or directory", "first start the program that creates the socket");
        }

        fn a_port_below_1024_is_roots(who) {
            let scratch = who.scratch();
            let (_listener, socket) = socket(&scratch);
            let mut command = who.command("srt-relay");
            if who == Who::Root {
                command = Command::new("setpriv");
                command.args(["--bounding-set=-net_bind_service", "--"]).arg(tool("srt-relay"));
            }
            let ran = run(command.args(["tcp:127.0.0.1:81", &format!("unix:{socket}")]));
            ran.code(1).hints("srt-relay", "tcp:127.0.0.1:81: Permission denied", "ports below 1024 are privileged");

            // In a network namespace of the sandbox's own every port is free.
            run(&mut with(who, "srt-ns", &["--relay", &format!("81={socket}")])).ok().says("it ran");
        }

        fn a_higher_port_that_is_refused_has_another_reason(who) {
            if srt_tests::landlock_abi() < 4 {
                skip!("this kernel's Landlock knows no ports");
            }
            let mut command = who.command("srt-seccomp");
            command.args(["--connect-tcp", "443", "--"]).arg(tool("srt-relay"));
            let ran = run(command.args(["tcp:127.0.0.1:1024", "tcp:127.0.0.1:443"]));
            ran.code(1).one_clear_error("srt-relay").complains("tcp:127.0.0.1:1024: Permission denied");
            assert!(!ran.err.contains("1024 are privileged"), "{ran:#?}");
        }

        fn where_ipv6_is_off_the_reason_is_that_of_the_other_address(who) {
            let off = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up; exec \"$@\"";
            let there = |words: &[&str]| {
                let mut command = who.command("unshare");
                command.args(["-Urn", "sh", "-c", off, "sh"]).args(words);
                run(&mut command)
            };
            there(&["grep", ".", "/proc/net/if_inet6"]).code(1);
            let ran = there(&["srt-connect", "--proxy", "http://localhost:9", "host", "1"]);
            ran.code(1).one_clear_error("srt-connect").complains("Connection refused");
            let script = "exec 4< <(exec srt-relay --ready-fd 1 tcp:127.0.0.1:8000 tcp:localhost:9); relay=$!; read -r ready <&4
                exec 3<>/dev/tcp/127.0.0.1/8000; read -r -t 5 answer <&3; kill $relay";
            let ran = there(&["bash", "-c", script]);
            assert!(ran.err.contains("tcp:localhost:9") && ran.err.contains("Connection refused"), "{ran:#?}");
        }

        fn a_relay_that_is_not_beside_srt_ns_is_missed(who) {
            let scratch = who.scratch();
            let (_listener, socket) = socket(&scratch);
            run(Command::new("cp").arg(tool("srt-ns")).arg(scratch.path())).ok();
            let mut command = who.command(scratch.join("srt-ns"));
            command.args(["--relay", &format!("8080={socket}"), "--", "echo", "it ran"]);
            failed(&run(&mut command), "srt-ns", "srt-relay: No such file or directory", "need srt-relay beside srt-ns");
        }

        fn a_published_socket_replaces_no_file(who) {
            let scratch = who.scratch();
            let file = scratch.file("precious", "content");
            let publish = format!("{}=8080", file.display());
            failed(&run(&mut with(who, "srt-ns", &["--publish", &publish])), "srt-ns", "is not a socket", "choose another path");
            assert_eq!(std::fs::read(file).expect("there"), b"content");
        }

        fn ports_of_the_callers_network_are_not_relayed(who) {
            let refused = run(&mut with(who, "srt-ns", &["--share", "net", "--relay", "8080=/x"]));
            failed(&refused, "srt-ns", "need a net namespace of their own", "run srt-relay if that is meant");
        }
    }

    #[test]
    fn a_port_below_1024_is_roots_in_srt_ns_too() {
        let scratch = Who::Root.scratch();
        let (_listener, socket) = socket(&scratch);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+sys_admin,+net_admin", "--"]).arg(tool("srt-ns"));
        command.args([
            "--share",
            "user",
            "--allow-userns",
            "--relay",
            &format!("80={socket}"),
            "--",
            "echo",
            "it ran",
        ]);
        failed(
            &run(&mut command),
            "srt-ns",
            "cannot listen on port 80: Permission denied",
            "ports below 1024 are privileged",
        );
    }
}

mod caller {
    use super::*;

    both! {
        fn one_that_has_ended_already_is_missed(who) {
            // strace(1) holds srt-ns back, where it opens a pidfd of the shell, until the shell has ended.
            let late = "strace -D -o /dev/null -e trace=pidfd_open -e inject=pidfd_open:delay_enter=2500000:when=1";
            let orphan = |options: &str| {
                let scratch = who.scratch();
                let call = || {
                    let pid = fs::read_to_string(scratch.join("pid")).ok()?;
                    fs::read_to_string(format!("/proc/{}/syscall", pid.trim())).ok()
                };
                let there = format!("{} ", libc::SYS_pidfd_open);
                let script = format!(
                    "{late} srt-ns {options} -- echo it ran & echo $! >pid; until [ -e go ]; do sleep 0.01; done"
                );
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        wait_until("the call", || call().is_some_and(|call| call.starts_with(&there)));
                        scratch.file("go", "");
                    });
                    run(who.command("sh").args(["-c", &script]).current_dir(scratch.path()))
                })
            };
            orphan("").says("").hints("srt-ns", "the parent process is dead", "--outlive-parent");
            orphan("--outlive-parent").says("it ran");
        }
    }
}

mod keys {
    use super::*;

    both! {
        fn a_filter_that_keeps_all_keys_away_is_no_failure(who) {
            // Docker's default profile. The command inherits it, so no key of the caller's is within its reach.
            behind(&[refuse(libc::SYS_keyctl, EPERM)], with(who, "srt-ns", &[])).ok().says("it ran");
            // A kernel without keys.
            behind(&[refuse(libc::SYS_keyctl, libc::ENOSYS)], with(who, "srt-ns", &[])).ok().says("it ran");
        }

        fn a_keyring_that_cannot_be_left_is_a_failure(who) {
            // keyctl(2): 1 is KEYCTL_JOIN_SESSION_KEYRING.
            let ran = behind(&[refuse_flag(libc::SYS_keyctl, 0, 1, EPERM)], with(who, "srt-ns", &[]));
            ran.code(125).says("").complains("cannot join a new session keyring").one_clear_error("srt-ns");
            // Nor is it where the question is refused for another reason than all of keyctl(2) is.
            let refusals = [refuse_flag(libc::SYS_keyctl, 0, 1, EPERM), refuse(libc::SYS_keyctl, libc::EACCES)];
            behind(&refusals, with(who, "srt-ns", &[])).code(125).says("").one_clear_error("srt-ns");
        }
    }

    #[test]
    fn a_quota_of_keys_that_is_used_up_is_named() {
        // keyrings(7): kernel.keys.maxkeys, for a uid that nobody else here uses.
        let fill = "import ctypes, os, sys\n\
            libc = ctypes.CDLL(None, use_errno=True)\n\
            add_key = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]\n\
            count = 0\n\
            while libc.syscall(add_key, b'user', b'key %d' % count, b'x', 1, -3) > 0: count += 1\n\
            assert ctypes.get_errno() == 122, ctypes.get_errno()\n\
            os.execv(sys.argv[1], sys.argv[1:])\n";
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=5151",
            "--regid=5151",
            "--clear-groups",
            "--",
            "/usr/bin/python3",
            "-c",
            fill,
        ]);
        command.arg(tool("srt-ns")).args(["--", "echo", "it ran"]);
        failed(&run(&mut command), "srt-ns", "Disk quota exceeded", "kernel.keys.maxkeys");
    }
}

mod filters {
    use super::*;

    both! {
        fn a_filter_that_forbids_filters_is_suspected(who) {
            let forbidden = refuse_value(libc::SYS_prctl, 0, libc::PR_SET_SECCOMP, EPERM);
            let refused = behind(&[forbidden], with(who, "srt-seccomp", &[]));
            failed(&refused, "srt-seccomp", "cannot install the seccomp filter", "a filter that is already in place forbids prctl(2)");
        }

        fn what_is_no_filter_is_told_so(who) {
            let scratch = who.scratch();
            let file = scratch.file("filter", [0xff; 8]);
            let refused = run(&mut with(who, "srt-seccomp", &["--load", file.to_str().expect("UTF-8")]));
            failed(&refused, "srt-seccomp", "Invalid argument", "the kernel rejects this filter");
        }
    }
}

#[test]
fn a_limit_of_processes_is_named() {
    // Root has none (kernel/fork.c, INIT_USER).
    let mut command = Who::User.command("prlimit");
    let ran = run(command.arg("--nproc=0").arg(tool("srt-ns")).args(["--", "true"]));
    ran.code(125).hints("srt-ns", "cannot fork", "a process limit is reached");
}

both! {
    fn a_limit_of_mount_namespaces_is_named(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let outer: &[&str] = if who == Who::Root { &["env"] } else { &["unshare", "-Ur"] };
        let mut command = who.command(outer[0]);
        command.args(&outer[1..]).args(["strace", "--quiet=all", "--output=/dev/null", "--trace=unshare", "-e", "inject=unshare:error=ENOSPC"]);
        let ran = run(command.arg(tool("srt-mount")).args(["--ro-bind", "/", "/", "--", "true"]));
        ran.code(125).hints("srt-mount", "cannot make a mount namespace", "user.max_mnt_namespaces");
    }

    fn the_hint_of_cap_setfcap_is_for_uid_0_without_it_alone(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--follow-forks", "--output=/dev/null", "--trace=write"]);
        // setgroups, then uid_map.
        command.args(["-e", "inject=write:error=EPERM:when=2"]).arg(tool("srt-ns"));
        let ran = run(command.args(["--", "true"]));
        assert!(ran.code(125).err.contains("uid_map") && !ran.err.contains("CAP_SETFCAP"), "{ran:#?}");
    }

    fn a_file_table_that_is_full_is_named(who) {
        if !has("strace") {
            skip!("no strace");
        }
        for (errno, hint) in [("ENFILE", "fs.file-max"), ("EMFILE", "RLIMIT_NOFILE"), ("ENOMEM", "")] {
            let mut command = who.command("strace");
            command.args(["--quiet=all", "--follow-forks", "--output=/dev/null", "--trace=pidfd_open"]);
            command.args(["-e", &format!("inject=pidfd_open:error={errno}:when=1")]).arg(tool("srt-ns"));
            let ran = run(command.args(["--", "true"]));
            ran.code(125);
            match hint { "" => assert!(!ran.err.contains("hint:"), "{ran:#?}"), hint => { ran.hints("srt-ns", "pidfd_open", hint); } }
        }
    }
}
