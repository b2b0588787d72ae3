//! Signals that the supervisor gets reach the command; a command that does not obey SIGTERM is killed.

use srt_tests::processes::{Process, child_named, descendants};
use srt_tests::talk::Talk;
use srt_tests::{Who, at_once, both, chain, wait_until};
use std::process::Command;
use std::time::{Duration, Instant};

/// Says `ready`, then the name of every signal that it gets. It waits for them, since a handler of Python's runs only
/// between two steps of the program.
const LISTENER: &str = "
import os, signal
heard = [signal.Signals['SIG' + s] for s in 'TERM INT HUP QUIT USR1 USR2 WINCH CONT ALRM URG IO RTMIN RTMAX PIPE XFSZ TTIN TTOU'.split()]
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
os.write(1, b'ready')
while True: os.write(1, b'<%s>' % signal.Signals(signal.sigwait(heard)).name.encode())
";

const HEARD: [(&str, i32); 11] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("HUP", libc::SIGHUP),
    ("QUIT", libc::SIGQUIT),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("WINCH", libc::SIGWINCH),
    ("CONT", libc::SIGCONT),
    ("ALRM", libc::SIGALRM),
    ("URG", libc::SIGURG),
    ("IO", libc::SIGIO),
];

/// Starts a script in srt-ns alone and waits until it says `ready`.
fn start(who: Who, options: &[&str], program: &[&str]) -> Talk {
    let mut talk = Talk::over_pipes(who.command("srt-ns").args(options).arg("--").args(program));
    talk.expect("ready");
    talk
}

fn listen(mut command: Command) {
    let mut talk = Talk::over_pipes(command.args(["/usr/bin/python3", "-c", LISTENER]));
    talk.expect("ready");
    // What srt-ns gets for a reason of its own is not passed on.
    for number in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCHLD] {
        talk.signal(number);
    }
    for (name, number) in HEARD {
        talk.signal(number);
        assert_eq!(talk.expect(&format!("<SIG{name}>")), "", "nothing but {name}");
    }
    for (name, number) in [("SIGRTMIN", 34), ("SIGRTMAX", 64)] {
        talk.signal(number);
        talk.expect(&format!("<{name}>"));
    }
    talk.signal(libc::SIGKILL);
}

both! {
    fn a_command_behind_srt_mount_gets_its_signals_as_pid_1_too(who) {
        let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        for options in [&[][..], &["--as-pid-1"]] {
            let mut command = who.command("srt-ns");
            command.args(options).args(["--", "srt-mount", "--ro-bind", "/", "/", "--", "sh", "-c", script]);
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, 3, "{options:?}");
        }
    }

    fn signals_reach_the_command(who) {
        let work = who.scratch();
        listen(chain(who, work.path()));
        for option in ["--as-pid-1", "--wait-all", "--keep-session"] {
            let mut command = who.command("srt-ns");
            command.args([option, "--kill-after", "0", "--"]);
            listen(command);
        }
    }

    fn a_signal_that_the_command_does_not_expect_ends_it_and_is_its_status(who) {
        let work = who.scratch();
        for (_, number) in &HEARD[..6] {
            let script = "ulimit -c 0; echo ready; exec sleep 1000";
            let mut talk = Talk::over_pipes(chain(who, work.path()).args(["sh", "-c", script]));
            talk.expect("ready");
            child_named(talk.pid(), "sleep");
            talk.signal(*number);
            assert_eq!(talk.end().0, 128 + number);
        }
    }

    fn a_signal_after_sigterm_puts_off_no_deadline(who) {
        // SIGHUP ends the shell; what is left of its group obeys neither.
        let script = "trap '' TERM; sh -c \"trap '' HUP; echo ready; sleep 1000; :\" & wait";
        let talk = start(who, &["--kill-after", "4"], &["sh", "-c", script]);
        talk.signal(libc::SIGTERM);
        let told = Instant::now();
        std::thread::sleep(Duration::from_millis(3500));
        talk.signal(libc::SIGHUP);
        talk.end();
        // It would be 7.5 s.
        assert!(told.elapsed() < Duration::from_millis(7400), "{:?}", told.elapsed());
    }

    fn a_command_that_obeys_ends_as_it_likes(who) {
        let work = who.scratch();
        let script = "trap 'echo bye; exit 3' TERM; echo ready; sleep 1000 & wait";
        let mut talk = Talk::over_pipes(chain(who, work.path()).args(["sh", "-c", script]));
        talk.expect("ready");
        // Before its exec the shell's child would take the signal for the shell, and sleep on until --kill-after.
        wait_until("sleep", || descendants(talk.pid()).iter().any(|process| process.name == "sleep"));
        talk.signal(libc::SIGTERM);
        let (code, said) = talk.end();
        assert_eq!((code, said.trim()), (3, "bye"));
    }

    fn a_command_that_ignores_term_is_gone_after_kill_after(who) {
        at_once(4, ["--outlive-parent", "--as-pid-1", "--wait-all", "--keep-session"], |option| {
            let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
            let talk = start(who, &[option, "--kill-after", "0.3"], &["sh", "-c", script]);
            let start = Instant::now();
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, 137, "{option}");
            assert!(start.elapsed() >= Duration::from_millis(300), "{option}: killed too early");
        });
    }

    fn a_command_that_ignores_term_is_not_killed_under_kill_after_0(who) {
        let script = "trap '' TERM; echo ready; while read word; do echo \"$word\"; done; exit 4";
        let mut talk = start(who, &["--kill-after", "0"], &["sh", "-c", script]);
        talk.line();
        talk.signal(libc::SIGTERM);
        // Longer than --kill-after 0.3, which is enough in the test above.
        assert!(talk.is_silent_for(Duration::from_millis(600)), "it said something, or ended");
        talk.send("alive\n");
        talk.expect("alive");
        talk.close_input();
        assert_eq!(talk.end().0, 4);
    }

    fn more_terms_do_not_put_the_kill_off(who) {
        let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
        let mut talk = start(who, &["--kill-after", "0.4"], &["sh", "-c", script]);
        let start = Instant::now();
        while talk.is_alive() {
            assert!(start.elapsed() < srt_tests::DEADLINE, "every SIGTERM gives the command more time");
            talk.signal(libc::SIGTERM);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(talk.end().0, 137);
    }

    fn a_command_as_pid_1_without_a_handler_is_killed_after_term(who) {
        // The kernel drops a signal for PID 1 that it has no handler for (pid_namespaces(7)).
        let script = "echo ready; exec sleep 1000";
        let talk = start(who, &["--as-pid-1", "--kill-after", "0.1"], &["sh", "-c", script]);
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 137);
    }

    fn tstp_stops_the_command_and_cont_resumes_it(who) {
        for options in [&[][..], &["--keep-session"], &["--as-pid-1"]] {
            let script = "echo ready; exec sleep 1000";
            let talk = start(who, options, &["sh", "-c", script]);
            let sleep = child_named(talk.pid(), "sleep");
            let state = |pid| Process::find(pid).expect("it runs").state;
            for _ in 0..3 {
                talk.signal(libc::SIGTSTP);
                // The supervisor stops after it, unless nobody could continue it (an orphaned process group).
                wait_until("the command to stop", || state(sleep) == 'T' && state(talk.pid()) != 'R');
                talk.signal(libc::SIGCONT);
                wait_until("the command to go on", || state(sleep) != 'T');
            }
            talk.signal(libc::SIGKILL);
        }
    }

    fn signals_from_inside_do_not_reach_pid_1(who) {
        // srt-init passes signals on while nobody of the outside is there to do it: the inside must not use that.
        let script = "trap 'echo caught' TERM USR1; echo ready
            for s in TERM USR1 INT HUP QUIT KILL STOP 34 64; do kill -$s 1; done 2>/dev/null
            sleep 0.2; [ -d /proc/self ] && echo still here; exit 6";
        let mut talk = start(who, &[], &["sh", "-c", script]);
        let said = talk.expect("still here");
        assert!(!said.contains("caught"), "{said:?}");
        assert_eq!(talk.end().0, 6);
    }

    fn what_is_left_gets_the_signals_once_the_command_is_gone(who) {
        let script = "exec /usr/bin/python3 -c \"$1\" & exit 3";
        let mut talk = start(who, &["--wait-all", "--kill-after", "0.5"], &["sh", "-c", script, "sh", LISTENER]);
        // srt-init has reaped it, then told that, then the supervisor has read it.
        let init = child_named(talk.pid(), "srt-init");
        wait_until("the command's end", || descendants(init).iter().all(|process| process.name != "sh"));
        for pid in [init, talk.pid()] {
            wait_until("its turn", || Process::find(pid).is_some_and(|process| process.state == 'S'));
        }
        talk.signal(libc::SIGUSR1);
        talk.expect("<SIGUSR1>");
        talk.signal(libc::SIGTERM);
        talk.expect("<SIGTERM>");
        // It has not obeyed; the status is the command's all the same.
        assert_eq!(talk.end().0, 3);
    }
}
