//! `--sidecar`: any program where the relays run; and that it is no more than that.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::{Events, HostRelay, chain_out, with_another_relay};
use srt_tests::processes::{Process, child_named, descendants, kill};
use srt_tests::refusals::with_mounts;
use srt_tests::servers::web;
use srt_tests::talk::Talk;
use srt_tests::{Who, both, has, run, tool, wait_until};
use std::fs;

both! {
    fn socat_as_a_sidecar_stands_in_for_srt_relay_in_both_directions(who) {
        if let Some(missing) = ["curl", "python3", "socat"].iter().find(|program| !has(program)) {
            srt_tests::skip!("no {missing}");
        }
        let (scratch, web) = (who.scratch(), web(who));
        web.scratch.file("www/page", "from the host");
        scratch.file("work/page", "from inside");
        let out = HostRelay::start(who, scratch.join("web.sock"), web.port);
        let published = scratch.join("dev.sock");
        let options = [
            "--sidecar".to_owned(),
            format!("exec socat TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,fork UNIX-CONNECT:{}", out.socket.display()),
            "--sidecar".to_owned(),
            format!("exec socat UNIX-LISTEN:{},mode=600,fork TCP:127.0.0.1:8000", published.display()),
        ];
        let script = "curl -sS -f --retry 100 --retry-delay 0 --retry-connrefused --max-time 20 http://127.0.0.1:8080/page 2>&1; echo
                      exec python3 -m http.server --bind 127.0.0.1 8000 2>/dev/null";
        let mut talk = Talk::over_pipes(chain_out(who, &options, &scratch.join("work")).args(["sh", "-c", script]));
        let said = talk.expect("from the host\n");
        assert!(!said.contains("from"), "{said}");
        let get = || run(who.command("curl").args(["-sS", "-f", "--unix-socket"]).arg(&published).arg("http://sandbox/page"));
        wait_until("the server inside", || get().out == "from inside");
        talk.signal(libc::SIGTERM);
        let _ended = talk.status();
        assert_ne!(get().code, Some(0));
    }

    fn a_sidecar_is_out_of_reach_and_has_nothing_of_the_callers(who) {
        let scratch = who.scratch();
        let mut command = who.command("srt-ns");
        command.args(["--sidecar", "exec sleep 1000", "--", "sh", "-c"]);
        // The kill is for a pid namespace: nothing is killed if this is none.
        command.arg("readlink /proc/self/ns/net; test $$ -lt 10 || exit 99; sleep 1000 & kill -9 -1; echo killed; read -r _");
        let secret = Events::of(&mut command, &scratch);
        let mut talk = Talk::over_pipes(&mut command);
        let network = talk.line();
        assert_eq!(talk.line(), "killed");
        let sleep = child_named(talk.pid(), "sleep");
        let own = std::process::id().try_into().expect("a pid");
        let link = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).expect("a link");
        assert_eq!(link(sleep, "ns/net").to_string_lossy(), network);
        assert_ne!(link(sleep, "ns/net"), link(own, "ns/net"));
        assert_eq!(link(sleep, "ns/pid"), link(own, "ns/pid"));
        assert_eq!(link(sleep, "ns/mnt"), link(own, "ns/mnt"));
        let status = fs::read_to_string(format!("/proc/{sleep}/status")).expect("status");
        for line in ["CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
                     "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let stat = fs::read_to_string(format!("/proc/{sleep}/stat")).expect("stat");
        let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).expect("a session");
        assert_eq!(session, sleep.to_string(), "{stat}");
        // sleep's loader has a library open.
        wait_until("0, 1 and 2 alone", || {
            let fds = fs::read_dir(format!("/proc/{sleep}/fd")).expect("fd").map(|fd| fd.expect("fd").file_name());
            let mut fds: Vec<_> = fds.collect();
            fds.sort();
            fds == ["0", "1", "2"]
        });
        assert_eq!([link(sleep, "fd/0"), link(sleep, "fd/1")].map(|path| path.display().to_string()), ["/dev/null", "/dev/null"]);
        assert_eq!(secret.text(), "");
        talk.send("\n");
        assert_eq!(talk.end(), (0, String::new()));
        assert!(Process::find(sleep).is_none_or(|process| process.name != "sleep"), "the sidecar is still there");
    }

    fn a_sidecar_that_ends_before_the_command_is_fatal(who) {
        let scratch = who.scratch();
        // A relay that takes its time is what makes it certain who comes first.
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        let publish = format!("{}=1004", scratch.join("p.sock").display());
        let start = |sidecar: &str| run(who.command(&ns).args(["--publish", &publish, "--sidecar", sidecar, "--", "echo", "it ran"]));
        for sidecar in ["exit 3", "exit 125"] {
            let error = format!("--sidecar {sidecar}: ended before the command could start");
            start(sidecar).code(125).says("").complains(&error).one_clear_error("srt-ns");
        }
        start("exec sleep 1000").ok().says("it ran");
        assert!(!scratch.join("p.sock").exists());
    }

    fn many_that_fail_at_once_end_the_start(who) {
        // An ordinary user of its own: each sidecar has a keyring, of which there may be 200 (keyrings(7), maxkeys).
        let mut command = match who {
            Who::Root => who.command("srt-ns"),
            Who::User => Who::Root.command("setpriv"),
        };
        if who == Who::User {
            command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(tool("srt-ns"));
        }
        // More than the messages that a socket holds which nobody reads.
        command.args(["--sidecar", "x"].repeat(400)).args(["--", "echo", "it ran"]);
        let ran = run(&mut with_mounts("mount -t tmpfs tmpfs /dev", &command));
        ran.code(125).says("").complains("srt-ns: --sidecar: cannot open /dev/null");
    }

    fn a_shell_that_cannot_be_run_is_told_once(who) {
        let mut command = who.command("srt-ns");
        command.args(["--sidecar", "x", "--", "echo", "it ran"]);
        let ran = run(&mut with_mounts("mount --bind /dev/null \"$(readlink -f /bin/sh)\"", &command));
        ran.code(125).says("").one_clear_error("srt-ns").complains("--sidecar");
    }

    fn a_sidecar_that_ends_early_is_reported_and_the_command_goes_on(who) {
        let scratch = who.scratch();
        let mut command = who.command("srt-ns");
        command.args(["--sidecar", "exec sleep 1000", "--status-fd", "9", "--", "sh", "-c", "echo up; read -r _; exit 7"]);
        let events = Events::of(&mut command, &scratch);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "up");
        kill(child_named(talk.pid(), "sleep"), libc::SIGKILL);
        let told = "{\"stage\":\"srt-ns\",\"event\":\"sidecar-ended\",\"sidecar\":\"--sidecar exec sleep 1000\",\
                    \"message\":\"ended before the command: signal 9\"}\n";
        wait_until("sidecar-ended", || events.text().contains(told));
        talk.send("\n");
        // There alone: stderr is the command's, too.
        assert_eq!(talk.end(), (7, String::new()));
        let mut command = who.command("srt-ns");
        command.args(["--sidecar", "exec sleep 1000", "--", "sh", "-c", "echo up; read -r _; exit 7"]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "up");
        kill(child_named(talk.pid(), "sleep"), libc::SIGKILL);
        assert_eq!(talk.line(), "srt-ns: --sidecar exec sleep 1000: ended before the command: signal 9");
        talk.send("\n");
        assert_eq!(talk.end(), (7, String::new()));
    }

    fn what_a_sidecar_that_ends_early_has_left_running_goes_with_it(who) {
        let mut command = who.command("srt-ns");
        // The shell tells the number of what it leaves: it has the caller's stderr.
        let sidecar = "sleep 1000 & echo $! >&2; exec sleep 1001";
        command.args(["--sidecar", sidecar, "--", "sh", "-c", "echo up; read -r _"]);
        let mut talk = Talk::over_pipes(&mut command);
        // Whoever is first.
        let told = [talk.line(), talk.line()];
        let left: i32 = told.iter().find(|line| *line != "up").expect("a number").parse().expect("a pid");
        let is_there = || Process::find(left).is_some_and(|process| process.name == "sleep" && process.is_alive());
        wait_until("both sleeps", || is_there() && Process::find(child_named(talk.pid(), "sleep")).is_some());
        kill(child_named(talk.pid(), "sleep"), libc::SIGKILL);
        assert!(talk.line().ends_with("ended before the command: signal 9"));
        talk.send("\n");
        assert_eq!(talk.end(), (0, String::new()));
        wait_until("its end", || !is_there());
    }

    fn one_that_is_stopped_goes_on(who) {
        let mut command = who.command("srt-ns");
        command.args(["--sidecar", "exec sleep 1000", "--", "sh", "-c", "trap 'echo heard' USR1; echo ready; while :; do sleep 0.05; done"]);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("ready");
        let sleep = child_named(talk.pid(), "sleep");
        for (signal, state) in [(libc::SIGSTOP, 'T'), (libc::SIGCONT, 'S')] {
            kill(sleep, signal);
            wait_until("the change", || Process::find(sleep).is_none_or(|process| process.state == state || !process.is_alive()));
            // By then the supervisor has looked at it.
            talk.signal(libc::SIGUSR1);
            talk.expect("heard");
            assert!(Process::find(sleep).is_some_and(|process| process.state == state), "{state}");
        }
    }

    fn the_number_of_one_that_has_ended_is_not_killed_later(who) {
        // strace(1) notes who kills a process group at which time, each process in a log of its own.
        let kills = |sidecar: &str, sleeps: usize| {
            let scratch = who.scratch();
            let mut command = who.command("strace");
            command.args(["-ff", "-qq", "-e", "trace=kill,pidfd_send_signal", "-e", "signal=none", "-o"]).arg(scratch.join("log"));
            command.arg(tool("srt-ns")).args(["--outlive-parent", "--sidecar", sidecar, "--", "sh", "-c", "echo up; exec sleep 60"]);
            let mut talk = Talk::over_pipes(&mut command);
            let supervisor = child_named(talk.pid(), "srt-ns");
            wait_until("the sleeps", || {
                let all = descendants(supervisor).into_iter();
                all.filter(|process| process.name == "sleep" && process.is_alive()).count() == sleeps
            });
            if sleeps == 1 {
                talk.expect("ended before the command");
            }
            kill(supervisor, libc::SIGKILL);
            talk.status();
            let logs = std::fs::read_dir(scratch.path()).expect("a directory");
            let text: String =
                logs.map(|log| std::fs::read_to_string(log.expect("an entry").path()).expect("a log")).collect();
            // Linux 6.9: the group behind a pidfd (0x4, PIDFD_SIGNAL_PROCESS_GROUP), which no other process can be.
            let group = |line: &&str| line.contains("kill(-") || line.contains("SIGKILL, NULL, 0x4) = 0");
            text.lines().filter(group).count()
        };
        // The control: the watchdog does it, for the one that nobody else kills. Of one that has ended the supervisor has
        // ended the rest, at once.
        assert_eq!(kills("sleep 60 & exec sleep 60", 3), 1);
        assert_eq!(kills("exec sleep 0.2", 1), 1);
    }
}
