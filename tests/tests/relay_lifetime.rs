//! How the end of a relay or a sidecar is told, and that they end with the sandbox. Each test owns all that this test
//! process has started: they take turns.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::{Events, Greeter, own_program};
use srt_tests::processes::{self, Family, Process, child_named, kill};
use srt_tests::talk::Talk;
use srt_tests::{both, wait_until};
use std::time::Duration;

both! {
    fn a_relay_that_ends_early_is_reported_and_the_command_goes_on(who) {
        let _family = Family::new();
        let scratch = who.scratch();
        let _one = Greeter::start(&scratch.join("one.sock"), "one");
        let _two = Greeter::start(&scratch.join("two.sock"), "two");
        let relays = [("4000", "one"), ("4001", "two")].map(|(port, name)| format!("{port}={}/{name}.sock", scratch.text()));
        let mut command = who.command("srt-ns");
        command.args(["--relay", &relays[0], "--relay", &relays[1], "--status-fd", "9", "--", "sh", "-c"]);
        command.arg("echo up; read -r _; exit 7");
        let events = Events::of(&mut command, &scratch);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "up");
        kill(child_named(talk.pid(), "srt-relay"), libc::SIGKILL);
        for relay in &relays {
            let is = |line: &str| line.contains("\"relay-lost\"") && line.contains(relay.as_str());
            wait_until("relay-lost", || events.text().lines().any(is));
        }
        talk.send("\n");
        assert_eq!(talk.end(), (7, String::new()));
        assert!(events.text().ends_with("{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":7}\n"), "{}", events.text());
    }

    fn nothing_is_left_when_srt_ns_gets_sigkill(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("one.sock"), "one");
        let published = [scratch.join("a.sock"), scratch.join("b.sock")];
        let mut command = who.command("srt-ns");
        command.args(["--relay", &format!("4000={}/one.sock", scratch.text())]);
        for (socket, port) in published.iter().zip(["8000", "8001"]) {
            command.arg("--publish").arg(format!("{}={port}", socket.display()));
        }
        // A shell with children, one that execs, one that minds no signal.
        for sidecar in ["sleep 1000 & sleep 1000", "exec sleep 1000", "trap '' TERM HUP INT; sleep 1000; sleep 1000"] {
            command.args(["--sidecar", sidecar]);
        }
        command.args(["--", "sh", "-c", "setsid sleep 1000 & echo up; exec sleep 1000"]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "up");
        let sleeps = |members: &[Process]| members.iter().filter(|process| process.name == "sleep").count();
        wait_until("six sleeps", || sleeps(&family.members()) == 6);
        assert!(published.iter().all(|socket| socket.exists()));
        assert!(processes::descendants(talk.pid()).len() >= 10, "{:?}", family.members());

        talk.signal(libc::SIGKILL);
        let _killed = talk.status();
        let took = family.ends();
        eprintln!("all gone after {took:?}");
        wait_until("the end of the published sockets", || !published.iter().any(|socket| socket.exists()));
        assert!(took < Duration::from_secs(9), "{took:?}");
    }

    fn one_kind_of_helper_alone_leaves_nothing_when_srt_ns_gets_sigkill(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("one.sock"), "one");
        let (published, placeholder) = (scratch.join("a.sock"), scratch.join("config"));
        let of = |path: &std::path::Path| path.display().to_string();
        let kinds: [(&[&str], Option<&std::path::Path>); 5] = [
            (&["--relay", &format!("4000={}/one.sock", scratch.text())], None),
            (&["--publish", &format!("{}=8000", of(&published))], Some(&published)),
            (&["--sidecar", "trap '' TERM HUP; sleep 1000 & sleep 1000"], None),
            (&["--placeholder", &of(&placeholder)], Some(&placeholder)),
            (&["--as-pid-1"], None),
        ];
        for (options, made) in kinds {
            let mut command = who.command("srt-ns");
            // What could disarm its own death signal does.
            command.args(options).args(["--", "setpriv", "--pdeathsig", "clear", "sh", "-c", "echo up; exec sleep 1000"]);
            let mut talk = Talk::over_pipes(&mut command);
            assert_eq!(talk.line(), "up", "{options:?}");
            if options[0] == "--sidecar" {
                let sleeps = || family.members().iter().filter(|process| process.name == "sleep").count();
                wait_until("three sleeps", || sleeps() == 3);
            }
            assert!(made.is_none_or(|path| path.symlink_metadata().is_ok()), "{options:?}");
            talk.signal(libc::SIGKILL);
            let _killed = talk.status();
            family.ends();
            assert!(made.is_none_or(|path| path.symlink_metadata().is_err()), "{options:?}: {made:?} is left");
        }
    }

    fn nothing_is_left_when_the_command_ends(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let program = own_program(&scratch, env!("CARGO_BIN_EXE_connect-at-once"));
        let _greeter = Greeter::start(&scratch.join("one.sock"), "one");
        let published = scratch.join("a.sock");
        let mut command = who.command("srt-ns");
        command.args(["--relay", &format!("4000={}/one.sock", scratch.text())]);
        command.arg("--publish").arg(format!("{}=8000", published.display()));
        command.args(["--sidecar", "sleep 1000 & sleep 1000", "--", "sh", "-c", "read -r _; exec \"$0\" 4000=one"]).arg(program);
        let mut talk = Talk::over_pipes(&mut command);
        wait_until("two sleeps", || family.members().iter().filter(|process| process.name == "sleep").count() == 2);
        talk.send("\n");
        assert_eq!(talk.end().0, 0);
        // Not even for a moment: srt-ns has reaped them. What a sidecar's shell has started is killed, and its parent
        // is gone: whoever adopts it reaps it.
        let left: Vec<_> = family.members().into_iter().filter(|process| process.name != "sleep").collect();
        assert_eq!(left, []);
        family.ends();
        assert!(!published.exists());
    }
}
