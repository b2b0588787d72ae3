//! The command gets 0, 1, 2 and what --keep-fd names; nobody else keeps anything.

use srt_tests::processes::child_named;
use srt_tests::talk::Talk;
use srt_tests::{Ran, Who, both, chain, chain_with, run};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prints the numbers of the open descriptors; 255 would be the shell's own script.
const LIST: &str = "import os
print(*sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n)))";

/// Lets `command` inherit 500 descriptors of /dev/null: 3 to 499, and three with high numbers.
fn with_500_descriptors(command: &mut Command) -> &mut Command {
    let inherit = || {
        // SAFETY: a C string and an integer.
        let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
        for number in (3..500).chain([700, 1000, 1023]).filter(|&number| number != null) {
            // SAFETY: integers. What is open there is another test's, or std's for a failure of the exec.
            unsafe { libc::dup2(null, number) };
        }
        Ok(())
    };
    // SAFETY: open and dup2 are async-signal-safe.
    unsafe { command.pre_exec(inherit) }
}

/// The numbers that a run of [`LIST`] has printed.
fn numbers(ran: &Ran) -> Vec<u32> {
    ran.ok().out.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn without_a_sandbox_a_command_inherits_hundreds() {
    let ran = run(with_500_descriptors(Who::Root.command("/usr/bin/python3").args(["-c", LIST])));
    assert!(numbers(&ran).len() > 490, "{ran:#?}");
}

both! {
    fn nothing_leaks_from_a_caller_with_500_open_descriptors(who) {
        let work = who.scratch();
        let ran = run(with_500_descriptors(chain(who, work.path()).args(["/usr/bin/python3", "-c", LIST])));
        assert_eq!(numbers(&ran), [0, 1, 2], "{ran:#?}");
        for option in ["--as-pid-1", "--wait-all", "--keep-session", "--outlive-parent"] {
            let words = [option, "--", "/usr/bin/python3", "-c", LIST];
            let ran = run(with_500_descriptors(who.command("srt-ns").args(words)));
            assert_eq!(numbers(&ran), [0, 1, 2], "{option} {ran:#?}");
        }
    }

    fn a_number_that_the_caller_has_not_opened_is_none_of_what_the_tools_have_open(who) {
        let lines = [
            "srt-ns --keep-fd N",
            "srt-ns --status-fd N",
            "srt-ns --lifetime-fd N",
            "srt-ns --check --status-fd N",
            "srt-ns -- srt-mount --ro-bind / / --keep-fd N",
            "srt-ns -- srt-mount --ro-bind / / --status-fd N",
            "srt-ns -- srt-mount --ro-bind / / --bind-fd N /mnt",
            "srt-ns -- srt-mount --ro-bind / / --ro-bind-fd N /mnt",
            "srt-ns -- srt-mount --ro-bind / / --ro-bind /proc/self/fd/N /mnt",
            "srt-ns -- srt-mount --ro-bind / / --ro-bind /proc/thread-self/fd/N /mnt",
            "srt-ns -- srt-mount --ro-bind / / --bind /dev/fd/N /mnt",
            "srt-ns -- srt-mount --ro-bind / / --overlay-src /dev/fd/N --tmp-overlay /mnt",
            "srt-ns -- srt-mount --ro-bind / / --tmpfs /mnt --file N /mnt/file",
            "srt-ns -- srt-mount --ro-bind / / --tmpfs /mnt --bind-data N /mnt/file",
            "srt-ns -- srt-mount --ro-bind / / --ro-bind-data N /etc/hostname",
            "srt-ns -- srt-mount --ro-bind / / --args N",
            "srt-seccomp --keep-fd N",
            "srt-seccomp --status-fd N",
            "srt-seccomp --load-fd N",
            "srt-seccomp --read / --write /dev/fd/N",
            "srt-seccomp --read / --read /proc/self/fd/N",
            "srt-relay --ready-fd N unix:DIR/s tcp:127.0.0.1:1",
            "srt-relay --lifetime-fd N unix:DIR/s tcp:127.0.0.1:1",
            "srt-relay --status-fd N unix:DIR/s tcp:127.0.0.1:1",
            "srt-relay fd:N tcp:127.0.0.1:1",
            "srt-relay unix:DIR/s fd:N",
        ];
        let scratch = who.scratch();
        for (line, number) in lines.iter().flat_map(|line| (3..=16).map(move |number| (line, number))) {
            let line = line.replace('N', &number.to_string()).replace("DIR", scratch.text());
            let mut words = line.split(' ');
            let mut command = who.command(words.next().expect("a tool"));
            command.args(words);
            if !line.contains("--check") && !line.contains("srt-relay") {
                command.args(["--", "echo", "ran"]);
            }
            // SAFETY: a system call with integers; std closes what it needs by itself.
            unsafe {
                command.pre_exec(|| {
                    libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
                    Ok(())
                });
            }
            let ran = run(&mut command);
            let codes: &[i32] = if line.starts_with("srt-relay") { &[1, 2] } else { &[125] };
            assert!(ran.code.is_some_and(|code| codes.contains(&code)) && !ran.out.contains("ran"), "{line}: {ran:#?}");
        }
    }

    fn what_is_written_to_must_be_open_for_writing(who) {
        let scratch = who.scratch();
        let file = scratch.file("file", "");
        for (line, why) in [
            ("srt-ns --status-fd 9 -- echo ran", "--status-fd 9: not open for writing"),
            ("srt-ns -- srt-mount --ro-bind / / --status-fd 9 -- echo ran", "--status-fd 9: not open for writing"),
            ("srt-seccomp --status-fd 9 -- echo ran", "--status-fd 9: not open for writing"),
            ("srt-relay --status-fd 9 unix:DIR/s tcp:127.0.0.1:1", "--status-fd 9: not open for writing"),
            ("srt-relay --ready-fd 9 unix:DIR/s tcp:127.0.0.1:1", "--ready-fd 9: not open for writing"),
            ("srt-relay --report-fd 9 unix:DIR/s tcp:127.0.0.1:1", "--report-fd 9: not open for writing"),
        ] {
            for flags in [libc::O_RDONLY, libc::O_PATH] {
                let opened = fs::File::options().read(true).custom_flags(flags).open(&file).expect("open");
                let line = line.replace("DIR", scratch.text());
                // srt-ns passes it on.
                let line = line.replace("srt-ns -- srt-mount", "srt-ns --keep-fd 9 -- srt-mount");
                let mut words = line.split(' ');
                let mut command = who.command(words.next().expect("a tool"));
                srt_tests::pass_fd(&mut command, opened.as_raw_fd(), 9);
                let ran = run(command.args(words));
                let codes: &[i32] = if line.starts_with("srt-relay") { &[1, 2] } else { &[125] };
                assert!(ran.code.is_some_and(|code| codes.contains(&code)), "{line}: {ran:#?}");
                ran.says("").complains(why);
            }
        }
    }

    fn keep_fd_passes_exactly_what_it_names(who) {
        let work = who.scratch();
        let keep = ["--keep-fd", "5", "--keep-fd", "1023", "--keep-fd", "0", "--keep-fd", "77", "--keep-fd", "5"];
        let mut command = chain_with(who, work.path(), &keep);
        let ran = run(with_500_descriptors(command.args(["/usr/bin/python3", "-c", LIST])));
        assert_eq!(numbers(&ran), [0, 1, 2, 5, 77, 1023], "{ran:#?}");
    }

    fn a_descriptor_that_one_stage_does_not_keep_is_closed(who) {
        // Passed on by srt-ns alone: what follows must close it.
        for stage in [&["srt-seccomp"][..], &["srt-mount", "--ro-bind", "/", "/"]] {
            let words = [&["--keep-fd", "5", "--"][..], stage, &["--", "/usr/bin/python3", "-c", LIST]].concat();
            let ran = run(with_500_descriptors(who.command("srt-ns").args(words)));
            assert_eq!(numbers(&ran), [0, 1, 2], "{ran:#?}");
        }
    }

    fn a_kept_descriptor_is_the_callers(who) {
        let work = who.scratch();
        let log = work.file("log", "");
        let mut file = fs::File::options().append(true).open(&log).expect("open");
        file.write_all(b"outside\n").expect("write");
        let mut command = chain_with(who, work.path(), &["--keep-fd", "9"]);
        srt_tests::pass_fd(&mut command, file.as_raw_fd(), 9);
        run(command.args(["sh", "-c", "echo inside >&9"])).ok();
        assert_eq!(fs::read_to_string(&log).expect("read"), "outside\ninside\n");
    }

    fn standard_descriptors_that_are_closed_at_the_start_do_no_harm(who) {
        let work = who.scratch();
        for closed in 1..8 {
            let file = work.join("out");
            let script = "readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 >out; echo to stdout; echo to stderr >&2; exit 7";
            let mut command = chain(who, work.path());
            command.args(["sh", "-c", script]);
            let zero = || fs::File::options().read(true).write(true).open("/dev/zero").expect("open");
            command.stdin(zero()).stdout(zero()).stderr(zero());
            let close = move || {
                for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
                    // SAFETY: an integer.
                    unsafe { libc::close(fd) };
                }
                Ok(())
            };
            // SAFETY: close is async-signal-safe.
            unsafe { command.pre_exec(close) };
            let mut child = command.spawn().expect("spawn");
            let status = srt_tests::wait(&mut child, "the chain");
            assert_eq!(status.code(), Some(7), "closed {closed:03b}");
            // What was open is as it was; what was not is /dev/null, and nothing of the tools'.
            let seen = fs::read_to_string(&file).expect("the command has written it");
            for (fd, link) in seen.lines().enumerate() {
                let expected = if closed & (1 << fd) != 0 { "/dev/null" } else { "/dev/zero" };
                // `>out` is the script's own.
                assert!(link == expected || fd == 1, "closed {closed:03b}: {fd} is {link}");
            }
            assert_eq!(seen.lines().count(), 3, "closed {closed:03b}: {seen}");
            fs::remove_file(file).expect("remove");
        }
    }

    /// The tools open /dev/null in its place, where what an option means to reach somebody would be lost.
    fn a_standard_descriptor_that_is_closed_is_not_an_open_one(who) {
        let lost = "cannot write to stdout: Bad file descriptor";
        for (line, code, complaint) in [
            ("srt-seccomp --export >&-", 125, lost),
            ("srt-seccomp --list >&-", 125, lost),
            ("srt-ns --check >&-", 125, lost),
            ("srt-ns --status-fd 1 -- echo ran >&-", 125, "--status-fd 1: not an open descriptor"),
            ("srt-ns --status-fd 2 -- echo ran 2>&-", 125, ""),
            ("srt-ns --lifetime-fd 0 -- echo ran <&-", 125, "--lifetime-fd 0: not an open descriptor"),
            ("srt-ns --keep-fd 0 -- echo ran <&-", 125, "--keep-fd 0: not an open descriptor"),
            ("unshare -Ur srt-mount --status-fd 1 -- echo ran >&-", 125, "--status-fd 1: not an open descriptor"),
            ("unshare -Ur srt-mount --file 0 /file -- echo ran <&-", 125, "0 is not an open descriptor"),
            ("unshare -Ur srt-mount --args 0 -- echo ran <&-", 125, "--args 0: not an open descriptor"),
            ("srt-seccomp --status-fd 1 -- echo ran >&-", 125, "--status-fd 1: not an open descriptor"),
            ("srt-seccomp --load-fd 0 -- echo ran <&-", 125, "--load-fd 0: cannot read the filter: Bad file descriptor"),
            ("srt-relay --ready-fd 1 tcp:127.0.0.1:1 tcp:127.0.0.1:2 >&-", 2, "--ready-fd 1: not an open descriptor"),
            ("srt-relay --report-fd 1 tcp:127.0.0.1:1 tcp:127.0.0.1:2 >&-", 2, "--report-fd 1: not an open descriptor"),
            ("srt-relay --status-fd 1 tcp:127.0.0.1:1 tcp:127.0.0.1:2 >&-", 2, "--status-fd 1: not an open descriptor"),
        ] {
            let ran = run(who.command("sh").args(["-c", &format!("exec {line}")]));
            assert!(ran.code == Some(code) && !ran.out.contains("ran"), "{line}: {ran:#?}");
            ran.complains(complaint);
        }
    }

    fn pid_1_holds_one_pipe_and_the_supervisor_only_its_own(who) {
        let mut command = who.command("srt-ns");
        command.args(["--", "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut talk = Talk::over_pipes(with_500_descriptors(&mut command));
        talk.expect("ready");
        let open = |pid: i32| -> Vec<String> {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("root may look").filter_map(Result::ok);
            // One that is closed meanwhile is gone.
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|link| link.display().to_string()).collect()
        };
        let init = child_named(talk.pid(), "srt-init");
        // The command may be faster than whoever has let it go, which closes its end of srt-mount's socket then.
        srt_tests::wait_until("srt-init to have a pipe and nothing else", || {
            matches!(&open(init)[..], [only] if only.starts_with("pipe:"))
        });
        let held = open(init);
        // It can be written to, and no more: open(2), O_WRONLY is 1.
        let number = fs::read_dir(format!("/proc/{init}/fdinfo")).expect("root may look").next().expect("one");
        let info = fs::read_to_string(number.expect("one").path()).expect("fdinfo");
        assert!(info.lines().any(|line| line.starts_with("flags:") && line.ends_with('1')), "{info}");
        let own = |link: &&String| {
            link.contains("[signalfd]") || link.contains("pidfd") || **link == held[0] || link.starts_with("net:")
        };
        srt_tests::wait_until("the supervisor to have nothing else", || {
            let supervisor = open(talk.pid());
            supervisor.iter().filter(own).count() + 3 == supervisor.len()
        });
    }
}
