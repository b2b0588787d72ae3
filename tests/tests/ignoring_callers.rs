//! The tests themselves: what their caller has had ignored (nohup(1), a background job, a runner that reaps nobody) changes
//! nothing for them.

use srt_tests::{Who, run};

/// A selection: signals that a command gets, ends of process trees, terminals' hang-ups.
const SELECTION: [&str; 2] = ["inner::a_signal_ends_a_command_as_ever", "inner::a_child_is_waited_for"];

/// Runs the tests below in this same program, behind a caller that ignores these signals.
fn behind_a_caller_that_ignores(signals: &str) {
    let own = std::env::current_exe().expect("current_exe");
    let mut command = Who::Root.command("env");
    command
        .arg(format!("--ignore-signal={signals}"))
        .arg(own)
        .args(["--exact", "--nocapture"])
        .args(SELECTION);
    let ran = run(&mut command);
    assert!(ran.ok().out.contains("2 passed"), "{ran:#?}");
}

#[test]
fn the_tests_pass_under_nohup_and_from_callers_that_ignore_signals() {
    for signals in ["HUP", "INT,QUIT", "CHLD", "HUP,INT,QUIT,TERM,USR1,USR2,ALRM,CHLD"] {
        behind_a_caller_that_ignores(signals);
    }
}

mod inner {
    use super::*;
    use srt_tests::talk::Talk;

    #[test]
    fn a_signal_ends_a_command_as_ever() {
        for (name, number) in
            [("HUP", libc::SIGHUP), ("INT", libc::SIGINT), ("TERM", libc::SIGTERM), ("USR1", libc::SIGUSR1)]
        {
            let mut talk =
                Talk::over_pipes(Who::Root.command("sh").args(["-c", "echo ready; exec sleep 1000"]));
            talk.expect("ready");
            talk.signal(number);
            assert_eq!(talk.end().0, 128 + number, "{name}");
        }
    }

    #[test]
    fn a_child_is_waited_for() {
        run(Who::Root.command("sh").args(["-c", "exit 7"])).code(7);
        run(Who::Root.command("srt-seccomp").args(["--", "sh", "-c", "exit 8"])).code(8);
    }
}
