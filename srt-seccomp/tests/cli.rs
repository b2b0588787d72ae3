//! The command line: what it prints, what it refuses, and what comes through to the program.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::{Ran, Who, both, run};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn srt(who: Who, args: &[&str]) -> Ran {
    run(who.command("srt-seccomp").args(args))
}

/// The same with a pipe as descriptor 9: what was written to it is in front of stdout.
fn with_status(who: Who, args: &[&str]) -> Ran {
    let mut command = who.command("sh");
    command.args(["-c", "{ \"$@\" 9>&1 >/dev/null; echo \"code $?\"; }", "sh"]);
    run(command.arg(srt_tests::tool("srt-seccomp")).args(args))
}

const LIST: &str = "
RULE         DEFAULT  SYSTEM CALLS
unix         on       socket(AF_UNIX), socketpair(AF_UNIX but SOCK_STREAM, SOCK_SEQPACKET)
vsock        on       socket(AF_RDS), socket(AF_VSOCK, AF_QIPCRTR, AF_ISDN, AF_IUCV)
io-uring     on       io_uring_setup, io_uring_enter, io_uring_register
tty-inject   on       ioctl(TIOCSTI), ioctl(TIOCLINUX), ioctl(TIOCMBIS or TIOCMBIC), ioctl(TIOCMSET), ioctl(TIOCSRS485), ioctl(TIOCSSERIAL), ioctl(TIOCSETD)
sigio        on       fcntl(F_SETFL, O_ASYNC), fcntl(F_SETSIG), fcntl(F_NOTIFY), ioctl(FIOASYNC)
keyring      on       add_key, request_key, keyctl, ioctl(FS_IOC_ADD_ENCRYPTION_KEY), ioctl(FS_IOC_REMOVE_ENCRYPTION_KEY), setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)
pid1         on       sched_setscheduler(PID 1), sched_setparam(PID 1), sched_setattr(PID 1), sched_setaffinity(PID 1), setpriority(PID 1), setpriority(PRIO_PGRP), setpriority(PRIO_USER)
lease        on       fcntl(F_SETLEASE or F_SETDELEG)
snapshot     on       ioctl(BTRFS_IOC_SNAP_*), ioctl(BCH_IOCTL_SUBVOLUME_*)
net          off      socket(all but AF_UNIX, AF_NETLINK), ioctl(TUNSETIFF), socketpair(AF_TIPC)
setid        off      chmod(S_ISUID or S_ISGID), fchmod(S_ISUID or S_ISGID), fchmodat(S_ISUID or S_ISGID), fchmodat2(S_ISUID or S_ISGID), mknod(S_ISUID or S_ISGID), mknodat(S_ISUID or S_ISGID), creat(S_ISUID or S_ISGID), open(O_CREAT, S_ISUID), open(O_CREAT, S_ISGID), open(O_TMPFILE, S_ISUID), open(O_TMPFILE, S_ISGID), openat(O_CREAT, S_ISUID), openat(O_CREAT, S_ISGID), openat(O_TMPFILE, S_ISUID), openat(O_TMPFILE, S_ISGID), openat2
userns       off      unshare(CLONE_NEWUSER), clone(CLONE_NEWUSER), clone3, setns
mount        off      mount, umount2, pivot_root, chroot, fchroot, open_tree, open_tree_attr, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
ptrace       off      ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd, get_robust_list, move_pages, migrate_pages, process_madvise
bpf          off      bpf
perf         off      perf_event_open
userfaultfd  off      userfaultfd, ioctl(USERFAULTFD_IOC_NEW)
fanotify     off      fanotify_init, fanotify_mark
file-handle  off      name_to_handle_at, open_by_handle_at
syslog       off      syslog
";

/// What is told before PROGRAM runs.
const EXEC: &str = "{\"stage\":\"srt-seccomp\",\"event\":\"exec\"}\n";

both! {
    fn help_and_version_go_to_stdout_with_status_0(who) {
        let help = srt(who, &["--help"]);
        help.ok();
        assert!(help.out.starts_with("Usage: srt-seccomp [options] -- PROGRAM [args...]\n"), "{help:#?}");
        for option in [
            "--allow", "--deny", "--load", "--load-fd", "--export", "--list", "--keep-fd", "--status-fd", "--version",
        ] {
            assert!(help.out.contains(&format!("\n  {option} ")), "{option}: {help:#?}");
        }
        srt(who, &["--version"]).ok().says(&format!("srt-seccomp {}", env!("CARGO_PKG_VERSION")));
        srt(who, &["--", "echo", "--help", "--version"]).ok().says("--help --version");
    }

    fn the_list_names_every_rule_with_its_default_and_its_calls(who) {
        // By heart: a call that goes, or comes, goes or comes here too.
        srt(who, &["--list"]).ok().says(LIST.trim());
    }

    fn wrong_usage_is_125_with_one_line_that_names_what_is_wrong(who) {
        let long = "x".repeat(5000);
        for (args, words) in [
            (&[][..], "missing -- before PROGRAM"),
            (&["true"], "true"),
            (&["--"], "expected PROGRAM"),
            (&["--allow"], "--allow"),
            (&["--allow", "--", "true"], "--allow"),
            (&["--allow", "nope", "--", "true"], "--allow: there is no rule \"nope\"; expected any of unix, vsock"),
            (&["--deny", "unix,nope", "--", "true"], "--deny: there is no rule \"nope\"; expected any of unix"),
            (&["--deny", "", "--", "true"], "--deny: there is no rule \"\""),
            (&["--allow", "a\nb\x1b[m", "--", "true"], "\\n"),
            (&["--allow", &long, "--", "true"], "there is no rule"),
            (&["--allow", "bpf,unix", "--deny", "unix", "--", "true"], "unix: in both --allow and --deny"),
            (&["--nope", "--", "true"], "--nope"),
            (&["-x", "--", "true"], "-x"),
            (&["--keep-fd", "x", "--", "true"], "--keep-fd"),
            (&["--keep-fd", "-1", "--", "true"], "--keep-fd -1: not an open descriptor"),
            (&["--keep-fd", "+3", "--", "true"], "--keep-fd +3: expected a number"),
            (&["--deny", "+unix", "--", "true"], "--deny: there is no rule \"+unix\""),
            (&["--keep-fd", "77", "--", "true"], "--keep-fd 77: not an open descriptor"),
            (&["--keep-fd", "99999999999", "--", "true"], "--keep-fd"),
            (&["--status-fd", "77", "--", "true"], "--status-fd 77: not an open descriptor"),
            (&["--status-fd", "0", "--status-fd", "0", "--", "true"], "--status-fd"),
            (&["--export", "--", "true"], "--export runs no program"),
            (&["--list", "--", "true"], "--list runs no program"),
            (&["--export", "--load", "f"], "--export cannot be combined with --load or --load-fd"),
            (&["--export", "--load-fd", "0"], "--export cannot be combined with --load or --load-fd"),
            (&["--list", "--export"], "--list, --export: expected one of them"),
            (&["--export", "--allow", "nope"], "there is no rule"),
            (&["--export", "--export"], "--export: given twice"),
        ] {
            srt(who, args).code(125).one_clear_error("srt-seccomp").complains(words).says("");
        }
        let mut command = who.command("srt-seccomp");
        command.arg("--deny").arg(OsStr::from_bytes(b"\xff")).args(["--", "true"]);
        run(&mut command).code(125).one_clear_error("srt-seccomp").complains("there is no rule");
    }

    fn rules_accumulate_over_repeated_options(who) {
        let make = "import socket
for family in (socket.AF_UNIX, socket.AF_VSOCK):
    try: socket.socket(family)
    except PermissionError: print('refused')
    except OSError: print('made')
    else: print('made')";
        let python = |options: &[&str]| srt(who, &[options, &["--", "python3", "-c", make]].concat());
        python(&[]).ok().says("refused\nrefused");
        python(&["--allow", "unix"]).ok().says("made\nrefused");
        python(&["--allow", "unix,vsock"]).ok().says("made\nmade");
        python(&["--allow", "unix", "--allow", "vsock", "--deny", "bpf", "--deny", "perf"]).ok().says("made\nmade");
    }

    fn the_exit_status_is_the_program_s_own(who) {
        for code in [0, 1, 2, 42, 125, 126, 127, 128, 255] {
            srt(who, &["--", "sh", "-c", &format!("exit {code}")]).code(code);
        }
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGPIPE] {
            let ran = srt(who, &["--", "sh", "-c", &format!("kill -{signal} $$")]);
            assert_eq!(ran.signal, Some(signal), "{ran:#?}");
        }
        let scratch = who.scratch();
        let file = scratch.file("not-executable", "#!/bin/sh\n");
        let file = file.to_str().expect("UTF-8");
        srt(who, &["--", file]).code(126).one_clear_error("srt-seccomp").complains("Permission denied");
        srt(who, &["--", "/"]).code(126).one_clear_error("srt-seccomp");
        srt(who, &["--", "no-such-program"]).code(127).one_clear_error("srt-seccomp");
        srt(who, &["--", ""]).code(127).one_clear_error("srt-seccomp");
    }

    fn a_missing_interpreter_or_loader_is_named(who) {
        let lab = who.scratch();
        let mut program = std::fs::read("/bin/ls").expect("read");
        let at = program.windows(9).position(|part| part == b"/ld-linux").expect("a dynamic program");
        program[at + 1] = b'x';
        for (name, content, cause) in [
            ("an-elf", &program[..], "its loader /lib"),
            ("a-script", b"#!/no/such/sh -e\n".as_slice(), "its #! interpreter /no/such/sh is not"),
            ("a-crlf", b"#!/bin/sh\r\nexit\r\n".as_slice(), "its #! interpreter /bin/sh\\r is not"),
            ("a-chain", format!("#!{}\n", lab.join("a-script").display()).as_bytes(), "script is there, but its #! interpreter /no/such/sh"),
        ] {
            let path = lab.script(name, content);
            let path = path.to_str().expect("UTF-8");
            let filter = lab.file("filter", [[6, 0, 0, 0, 0, 0, 0xff, 0x7f]].concat());
            for options in [&[][..], &["--load", filter.to_str().expect("UTF-8")], &["--landlock"]] {
                let ran = srt(who, &[options, &["--", path]].concat());
                ran.code(127).hints("srt-seccomp", &format!("cannot run {path}: No such file or directory"), cause);
            }
            let mut command = who.command("srt-seccomp");
            run(command.args(["--", name]).env("PATH", format!("{}:/usr/bin:/bin", lab.text()))).code(127).hints("srt-seccomp", name, cause);
        }
        // Links as of update-alternatives(1), whose last one leads nowhere; and one in place of an interpreter.
        std::os::unix::fs::symlink("/no/such/program", lab.join("alternative")).expect("symlink");
        std::os::unix::fs::symlink("../".to_owned() + lab.path().file_name().and_then(OsStr::to_str).expect("UTF-8") + "/alternative", lab.join("a-link")).expect("symlink");
        let by_link = lab.script("by-link", format!("#!{}\n", lab.join("a-link").display()));
        for (name, cause) in [("a-link", "a-link is a symbolic link to /no/such/program, which is not there"), ("by-link", "by-link is there, but its #! interpreter")] {
            let path = by_link.with_file_name(name);
            srt(who, &["--", path.to_str().expect("UTF-8")]).code(127).hints("srt-seccomp", "No such file or directory", cause);
            let mut command = who.command("srt-seccomp");
            run(command.args(["--", name]).env("PATH", format!("/usr/bin:{}", lab.text()))).code(127).hints("srt-seccomp", name, cause);
        }
        std::os::unix::fs::symlink("circle", lab.join("circle")).expect("symlink");
        srt(who, &["--", lab.join("circle").to_str().expect("UTF-8")]).code(126).one_clear_error("srt-seccomp");
        let ran = srt(who, &["--", "/no/such/program"]);
        ran.code(127).one_clear_error("srt-seccomp");
        assert_eq!(ran.err.lines().count(), 1, "nothing to add: {ran:#?}");
    }

    fn a_mount_that_lets_nothing_be_run_is_named(who) {
        let lab = who.scratch();
        let script = lab.script("locked-script", "#!/bin/sh\nexit 4\n");
        let (script, lab) = (script.to_str().expect("UTF-8"), lab.text());
        let tool = srt_tests::tool("srt-seccomp");
        let on = |options: &str, words: &str| {
            let line = format!("mount --bind {lab} {lab} && mount -o remount,bind,{options} {lab} && exec \"$0\" {words}");
            run(who.command("unshare").args(["-Urm", "sh", "-c", &line]).arg(&tool).env("PATH", format!("{lab}:/usr/bin:/bin")))
        };
        for words in [format!("-- {script}"), "-- locked-script".to_owned(), "--landlock -- locked-script".to_owned()] {
            on("noexec", &words).code(126).hints("srt-seccomp", "Permission denied", "locked-script is on a mount that lets nothing be run (noexec)");
            on("ro", &words).code(4);
        }
    }

    fn argv_and_environment_come_through_byte_for_byte(who) {
        let script = "import os, sys
print(sys.argv[1:] == ['', '--', '\\udcff', 'help', '--export'], os.environb[b'X\\xff'] == b'\\xfe', 'PWD' in os.environ)";
        let mut command = who.command("srt-seccomp");
        command.args(["--", "python3", "-c", script, "", "--"]).arg(OsStr::from_bytes(b"\xff"));
        command.args(["help", "--export"]).env_clear().env(OsStr::from_bytes(b"X\xff"), OsStr::from_bytes(b"\xfe"));
        command.env("PATH", srt_tests::path_with_tools());
        run(&mut command).ok().says("True True False");
    }

    fn descriptors_are_closed_but_for_those_named(who) {
        let script = "for fd in 3 4 5 9; do test -e /proc/self/fd/$fd && echo $fd; done; true";
        let ran = |options: &str| {
            let line = format!("exec srt-seccomp {options} -- sh -c '{script}' 3</ 4</ 5>/dev/null 9</");
            run(who.command("sh").args(["-c", &line])).ok().out.replace('\n', " ")
        };
        assert_eq!(ran(""), "");
        assert_eq!(ran("--keep-fd 4"), "4 ");
        assert_eq!(ran("--keep-fd 9 --keep-fd 3 --keep-fd 0 --keep-fd 9"), "3 9 ");
        assert_eq!(ran("--status-fd 5"), "", "the status descriptor is srt-seccomp's own");
        assert_eq!(ran("--status-fd 5 --keep-fd 5"), "5 ", "unless the next stage wants it too");
    }

    fn closed_standard_descriptors_do_no_harm(who) {
        let run = |redirections: &str| {
            let line = format!("srt-seccomp -- sh -c 'exit 3' {redirections}");
            run(who.command("sh").args(["-c", &line])).code(3);
        };
        ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"].into_iter().for_each(run);
    }

    fn the_status_descriptor_tells_our_failures_from_the_program_s(who) {
        for (args, code, message) in [
            (&["--deny", "nope", "--status-fd", "9", "--", "true"][..], 125, "--deny: there is no rule"),
            (&["--nope", "--status-fd", "9", "--", "true"], 125, "--nope"),
            (&["--status-fd", "9", "--load", "/dev/null", "--", "true"], 125, "--load /dev/null: the filter is empty"),
            (&["--status-fd", "9", "--", "/"], 126, "cannot run /: Permission denied"),
            (&["--status-fd", "9", "--", "no-such-program"], 127, "cannot run no-such-program"),
        ] {
            let ran = with_status(who, args);
            let exec = if code == 125 { "" } else { EXEC };
            let start = format!("{exec}{{\"stage\":\"srt-seccomp\",\"event\":\"failed\",\"code\":{code},\"message\":\"");
            assert!(ran.out.starts_with(&start) && ran.out.contains(message), "{ran:#?}");
            assert!(ran.out.ends_with(&format!("}}\ncode {code}\n")), "{ran:#?}");
        }
        for code in [0, 125, 126, 127] {
            let ran = with_status(who, &["--status-fd", "9", "--", "sh", "-c", &format!("exit {code}")]);
            ran.says(&format!("{EXEC}code {code}"));
        }
    }

    fn the_program_is_announced_before_a_filter_can_forbid_it(who) {
        // A filter that kills at write(2), but for the shell that reads the pipe.
        let number = u8::try_from(libc::SYS_write).expect("a small number");
        let lab = who.scratch();
        let filter = [[0x20, 0, 0, 0, 0, 0, 0, 0], [0x15, 0, 0, 1, number, 0, 0, 0],
            [0x06, 0, 0, 0, 0, 0, 0, 0x80], [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]];
        let file = lab.file("no-write", filter.concat());
        let file = file.to_str().expect("UTF-8");
        let ran = with_status(who, &["--status-fd", "9", "--load", file, "--", "true"]);
        ran.says(&format!("{EXEC}code 0"));
    }

    fn what_cannot_be_written_is_an_error(who) {
        for option in ["--list", "--export", "--help", "--version"] {
            let ran = run(who.command("sh").args(["-c", &format!("srt-seccomp {option} >/dev/full")]));
            ran.code(125).one_clear_error("srt-seccomp").complains("No space left on device");
        }
    }
}
