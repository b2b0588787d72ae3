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
        let list = srt(who, &["--list"]);
        list.ok();
        for line in [
            "unix         on       socket(AF_UNIX), socketpair(AF_UNIX but SOCK_STREAM, SOCK_SEQPACKET)",
            "vsock        on       socket(AF_VSOCK), socket(AF_QIPCRTR)",
            "io-uring     on       io_uring_setup, io_uring_enter, io_uring_register",
            "tty-inject   on       ioctl(TIOCSTI), ioctl(TIOCLINUX)",
            "keyring      on       add_key, request_key, keyctl",
            "userns       off      unshare(CLONE_NEWUSER), clone(CLONE_NEWUSER), clone3, setns",
        ] {
            assert!(list.out.lines().any(|other| other == line), "{line} in {list:#?}");
        }
        assert_eq!(list.out.lines().count(), 1 + srt_seccomp::rules::RULES.len());
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
            (&["--keep-fd", "77", "--", "true"], "--keep-fd 77: not an open descriptor"),
            (&["--keep-fd", "99999999999", "--", "true"], "--keep-fd"),
            (&["--status-fd", "77", "--", "true"], "--status-fd 77: not an open descriptor"),
            (&["--status-fd", "0", "--status-fd", "0", "--", "true"], "--status-fd"),
            (&["--export", "--", "true"], "--export runs no program"),
            (&["--list", "--", "true"], "--list runs no program"),
            (&["--export", "--load", "f"], "--export cannot be combined with --load or --load-fd"),
            (&["--export", "--load-fd", "0"], "--export cannot be combined with --load or --load-fd"),
            (&["--list", "--export"], "--list, --export: expected one of them, once"),
            (&["--export", "--allow", "nope"], "there is no rule"),
            (&["--export", "--export"], "--list, --export: expected one of them, once"),
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
            let line = format!("exec srt-seccomp {options} -- sh -c '{script}' 3</ 4</ 5</ 9</");
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
            let start = format!("{{\"stage\":\"srt-seccomp\",\"event\":\"failed\",\"code\":{code},\"message\":\"");
            assert!(ran.out.starts_with(&start) && ran.out.contains(message), "{ran:#?}");
            assert!(ran.out.ends_with(&format!("}}\ncode {code}\n")), "{ran:#?}");
        }
        for code in [0, 125, 126, 127] {
            let ran = with_status(who, &["--status-fd", "9", "--", "sh", "-c", &format!("exit {code}")]);
            ran.says(&format!("code {code}"));
        }
    }

    fn what_cannot_be_written_is_an_error(who) {
        for option in ["--list", "--export", "--help", "--version"] {
            let ran = run(who.command("sh").args(["-c", &format!("srt-seccomp {option} >/dev/full")]));
            ran.code(125).one_clear_error("srt-seccomp").complains("No space left on device");
        }
    }
}
