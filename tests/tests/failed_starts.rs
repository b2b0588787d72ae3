//! A start that fails half-way, or is told to end, ends at once, whatever what it has started has not come to yet: a
//! sidecar that was just forked has no process group of its own, and cannot be killed by one.
//!
//! strace(1) holds that window open: it delays setsid(2) of all that the start forks. Under `--keep-session`
//! the command itself asks for none, and comes to its end meanwhile.

use srt_tests::host::{Events, Greeter, with_another_relay};
use srt_tests::processes::{self, Family};
use srt_tests::talk::{Talk, code};
use srt_tests::{Patience, Who, at_once, both, copy_program, has, pass_fd, run, skip, tool, wait_until};
use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than a start, in microseconds.
const DELAY: &str = "inject=setsid:delay_enter=1500000";

/// A start whose children wait in front of their new session, and then.
fn delayed(who: Who, words: &[&str]) -> Command {
    let mut command = who.command("strace");
    command.args([
        "--follow-forks",
        "--quiet=all",
        "--signal=none",
        "--output=/dev/null",
        "--seccomp-bpf",
        "--trace=setsid",
    ]);
    command.args(["-e", DELAY]).arg(tool("srt-ns")).args(words);
    command
}

#[track_caller]
fn ends_in_time(talk: &mut Talk, words: &[&str]) -> i32 {
    let mut patience = Patience::default();
    // strace waits for each of its tracees: what is left keeps it from ending.
    while talk.is_alive() {
        assert!(
            patience.spent() < Duration::from_secs(10),
            "{words:?}: still there\n{}",
            processes::tree(talk.pid() as u32)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    code(talk.status())
}

both! {
    fn a_start_that_fails_before_a_sidecar_has_a_group_ends_at_once(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        let socket = scratch.join("host.sock");
        let _host = Greeter::start(&socket, "host");
        let relay = format!("8080={}", socket.display());
        // They wait most of the time.
        at_once(2, [&["--keep-session", "--as-pid-1"][..], &["--keep-session"]], |options| {
            let publish = format!("{}.sock=8000", options.len());
            let cases: [(&[&str], i32); 4] = [
                (&["--sidecar", "exec sleep 100", "--", "/none"], 127),
                (&["--sidecar", "exec sleep 100", "--sidecar", "exec sleep 101", "--", "/etc"], 126),
                (&["--sidecar", "exec sleep 100", "--", "srt-mount", "--ro-bind", "/none", "/none", "--", "true"], 125),
                (&["--relay", &relay, "--publish", &publish, "--sidecar", "exec sleep 100", "--", "/none"], 127),
            ];
            at_once(cases.len(), cases, |(words, expected)| {
                let words = [options, words].concat();
                let mut talk = Talk::over_pipes(delayed(who, &words).current_dir(scratch.path()));
                assert_eq!(ends_in_time(&mut talk, &words), expected, "{words:?}");
            });
        });
        family.ends();
        // Nothing is left of the published sockets.
        let names: Vec<_> = fs::read_dir(scratch.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, ["host.sock"]);
    }

    fn a_start_that_is_told_to_end_before_a_sidecar_has_a_group_ends_at_once(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        at_once(3, [&[][..], &["--as-pid-1"], &["--keep-session"]], |options| {
            let words = [options, &["--kill-after", "1", "--sidecar", "exec sleep 100", "--", "sleep", "1000"]].concat();
            let mut talk = Talk::over_pipes(&mut delayed(who, &words));
            let supervisor = processes::child_named(talk.pid(), "srt-ns");
            wait_until("a child of the supervisor", || !processes::descendants(supervisor).is_empty());
            processes::kill(supervisor, libc::SIGTERM);
            let code = ends_in_time(&mut talk, &words);
            // That it is the signal's is said elsewhere; here it is that there is an end.
            assert_ne!(code, 0, "{options:?}");
        });
        family.ends();
    }

    fn a_sandbox_that_ends_while_a_sidecar_has_no_group_ends_at_once(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        // Here the sidecar alone waits: the command does not ask for a session.
        let words = ["--keep-session", "--sidecar", "exec sleep 100", "--", "true"];
        let mut talk = Talk::over_pipes(&mut delayed(who, &words));
        assert_eq!(ends_in_time(&mut talk, &words), 0);
        drop(talk);
        family.ends();
    }

    fn a_supervisor_that_is_dead_before_a_sidecar_is_tied_to_it_leaves_nothing(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=prctl"]);
        // The first of each process: of the sidecar's the one that asks for its death signal.
        command.args(["-e", "inject=prctl:delay_enter=500000:when=1"]).arg(tool("srt-ns"));
        let talk = Talk::over_pipes(command.args(["--sidecar", "exec sleep 1000", "--", "true"]));
        let supervisor = processes::child_named(talk.pid(), "srt-ns");
        wait_until("the sidecar's process", || !processes::descendants(supervisor).is_empty());
        processes::kill(supervisor, libc::SIGKILL);
        let took = family.ends();
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    fn what_a_failed_start_has_made_on_the_host_is_removed_however_long_that_takes(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        copy_program(tool("srt-mount"), ns.with_file_name("srt-mount"));
        // It fails by itself; and it never comes up, until its caller's pipe ends the start, or a signal and then the pipe.
        at_once(3, [(1001, false), (1002, false), (1002, true)], |(port, signal_first)| {
            let directory = scratch.dir(format!("{port}-{signal_first}"));
            let made = directory.join("made");
            let (reader, writer) = std::io::pipe().expect("pipe");
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--seccomp-bpf", "--trace=unlinkat,rmdir"]);
            command.args(["-e", "inject=unlinkat,rmdir:delay_enter=200000"]).arg(&ns).args(["--lifetime-fd", "208", "--publish"]);
            command.arg(format!("{}={port}", directory.join("p.sock").display())).args(["--", "srt-mount", "--ro-bind", "/", "/"]);
            command.arg("--bind").args([&directory, &directory]).args(["--placeholders", "--tmpfs"]).arg(&made);
            pass_fd(&mut command, reader.as_raw_fd(), 208);
            let mut talk = Talk::over_pipes(command.args(["--", "true"]));
            if port == 1002 {
                wait_until("a mount point", || made.exists());
                let supervisor = processes::child_named(talk.pid(), "srt-ns");
                if signal_first {
                    processes::kill(supervisor, libc::SIGINT);
                    std::thread::sleep(Duration::from_millis(100));
                }
                drop(writer);
                // Whoever is impatient.
                for _ in 0..4 {
                    processes::kill(supervisor, libc::SIGINT);
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
            // 130: the signal has come first.
            let code = code(talk.status());
            assert!(code == 125 || port == 1002 && code == 130, "{port}: {code}");
            let left: Vec<_> = fs::read_dir(&directory).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
            assert!(left.is_empty(), "{port}: {left:?}");
        });
        family.ends();
    }

    fn a_command_that_waits_for_a_start_that_fails_ends_by_itself(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        for options in [&[][..], &["--as-pid-1"]] {
            let log = scratch.file("log", "");
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--seccomp-bpf", "--trace=execve", "--output"]).arg(&log).arg(&ns).args(options);
            let publish = format!("{}=1001", scratch.join("p.sock").display());
            run(command.args(["--publish", &publish, "--", "echo", "it ran"])).code(125).says("");
            let log = fs::read_to_string(&log).expect("the log");
            // The supervisor, and the command, which was not killed.
            assert_eq!(log.matches("exited with 125").count(), 2, "{options:?}: {log}");
        }
        family.ends();
    }

    fn a_start_that_fails_before_it_has_read_the_commands_first_word_is_one_error(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        for options in [&[][..], &["--as-pid-1"]] {
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=unshare"]);
            // The user, the pid and the network namespace: when the last one fails, the command waits for it.
            command.args(["-e", "inject=unshare:error=EPERM:delay_enter=500000:when=3"]).arg(tool("srt-ns"));
            let ran = run(command.args(options).args(["--", "echo", "it ran"]));
            ran.code(125).says("").one_clear_error("srt-ns").complains("cannot create a net namespace");
        }
        family.ends();
    }

    fn a_stage_that_fails_while_a_relay_never_comes_up_is_what_the_error_is_about(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        copy_program(tool("srt-mount"), ns.with_file_name("srt-mount"));
        let publish = format!("{}=1002", scratch.join("p.sock").display());
        let missing = scratch.join("missing");
        for options in [&[][..], &["--as-pid-1"]] {
            let mut command = who.command(&ns);
            command.args(options).args(["--publish", &publish, "--", "srt-mount", "--ro-bind"]).args([&missing, &missing]);
            run(command.args(["--", "echo", "it ran"])).code(125).says("").complains("missing").one_clear_error("srt-mount");
        }
        family.ends();
    }

    fn what_cannot_end_by_itself_when_a_start_has_failed_is_killed_and_not_by_kill_after(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        let log = scratch.file("log", "");
        let (reader, writer) = std::io::pipe().expect("pipe");
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--output"]).arg(&log);
        command.args(["--trace=setsid", "-e", "inject=setsid:signal=SIGSTOP"]).arg(tool("srt-ns"));
        command.args(["--status-fd", "9", "--lifetime-fd", "208", "--", "echo", "it ran"]);
        pass_fd(&mut command, reader.as_raw_fd(), 208);
        let events = Events::of(&mut command, &scratch);
        let talk = Talk::over_pipes(&mut command);
        let stops = || fs::read_to_string(&log).expect("the log").matches("stopped by SIGSTOP").count();
        wait_until("the stops of the watchdog, srt-init and the command", || stops() == 3);
        let start = Instant::now();
        drop(writer);
        let (code, said) = talk.end();
        // What cleans up has two seconds.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        assert!(code == 125 && !said.contains("it ran"), "{code} {said}");
        assert!(events.text().ends_with("\"exited\",\"code\":125}\n"), "{}", events.text());
        family.ends();
    }

    fn without_the_delay_the_same_starts_fail_in_the_same_way(who) {
        // The control: what strace adds is time alone.
        let family = Family::new();
        run(who.command("srt-ns").args(["--sidecar", "exec sleep 100", "--", "/none"])).code(127).one_clear_error("srt-ns");
        run(who.command("srt-ns").args(["--sidecar", "exec sleep 100", "--", "true"])).ok().says("");
        assert_eq!(family.members(), []);
    }

    fn srt_mount_tells_the_mount_namespace_that_it_has_built(who) {
        let _family = Family::new();
        let scratch = who.scratch();
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "9", "--", "srt-mount", "--status-fd", "9", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        command.args(["--", "srt-seccomp", "--", "stat", "--dereference", "--format=%i", "/proc/self/ns/mnt"]);
        let events = Events::of(&mut command, &scratch);
        let namespace = run(&mut command).ok().out.trim().to_owned();
        let text = events.text();
        let started = format!("{{\"stage\":\"srt-mount\",\"event\":\"started\",\"namespaces\":{{\"mnt\":{namespace}}}}}");
        let lines: Vec<_> = text.lines().filter(|line| line.contains("\"srt-mount\"")).collect();
        assert_eq!(lines.first(), Some(&started.as_str()), "{text}");
        assert!(lines.last().is_some_and(|line| line.contains("\"event\":\"exec\"")), "{text}");
        // One that could not be built is not told.
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "9", "--", "srt-mount", "--status-fd", "9", "--ro-bind", "/none", "/none", "--", "true"]);
        let events = Events::of(&mut command, &scratch);
        run(&mut command).code(125);
        assert!(!events.text().contains("\"started\""), "{}", events.text());
    }

    fn a_signal_that_the_caller_ignores_ends_no_start(who) {
        let _family = Family::new();
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        // It says that it is ready after a second, or never.
        for (ignored, port, code) in [("trap '' INT HUP QUIT", 1004, 0), (":", 1002, 128 + libc::SIGINT)] {
            let publish = format!("{}={port}", scratch.join("p.sock").display());
            let script = format!("{ignored}; exec {} --publish {publish} -- echo ran", ns.display());
            let mut talk = Talk::over_pipes(who.command("sh").args(["-c", &script]));
            processes::child_named(talk.pid(), "srt-relay");
            talk.signal(libc::SIGINT);
            assert_eq!(srt_tests::talk::code(talk.status()), code, "{ignored}");
        }
    }
}
