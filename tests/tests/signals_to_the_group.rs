//! TERM, INT, QUIT, HUP and WINCH to srt-ns, from whomever, reach the command's process group, as a terminal and
//! timeout(1) send them; other signals reach the command alone. What is left of the group when the command has ended of
//! one has the rest of `--kill-after`.

use srt_tests::processes::{Process, child_named, descendants, kill};
use srt_tests::talk::Talk;
use srt_tests::{Who, at_once, both, has, run, skip, tool, wait_until};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

/// Those that a terminal or timeout(1) would send to the group, and that end a program.
const TO_THE_GROUP: [(&str, i32); 4] =
    [("TERM", libc::SIGTERM), ("INT", libc::SIGINT), ("QUIT", libc::SIGQUIT), ("HUP", libc::SIGHUP)];

/// A shell that cleans up when it is told to end, and waits for a child until then.
fn cleaner(signal: &str) -> String {
    format!("ulimit -c 0; trap 'echo cleaned; exit 3' {signal}; echo ready; sleep 1000; echo not reached")
}

/// Says which signals it gets, and ends with a line of input.
const LISTENER: &str = "
import os, signal, sys, threading
heard = [getattr(signal, 'SIG' + s) for s in 'TERM INT HUP QUIT USR1 USR2 ALRM WINCH'.split()]
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
def hear():
    while True: os.write(1, b'<%s>' % signal.Signals(signal.sigwait(heard)).name.encode())
threading.Thread(target=hear, daemon=True).start()
os.write(1, b'ready')
os.write(1, b'read %s' % sys.stdin.readline().encode())
os._exit(0)
";

/// A shell that waits for a listener, which is in its process group.
const WITH_A_LISTENER: &str = "for s in USR1 USR2 ALRM; do trap : $s; done; /usr/bin/python3 -c \"$0\"; true";

fn start(who: Who, options: &[&str], program: &[&str]) -> Talk {
    let mut talk = Talk::over_pipes(who.command("srt-ns").args(options).arg("--").args(program));
    talk.expect("ready");
    talk
}

/// Whether the command, a shell, is still there.
fn has_shell(talk: &Talk) -> bool {
    descendants(talk.pid()).iter().any(|process| process.name == "sh" && process.is_alive())
}

#[test]
fn without_a_sandbox_a_signal_to_the_shell_alone_runs_no_trap_and_one_to_its_group_does() {
    // The control of all these tests.
    let mut command = Who::Root.command("sh");
    let mut talk = Talk::over_pipes(command.args(["-c", &cleaner("TERM")]).process_group(0));
    talk.expect("ready\n");
    child_named(talk.pid(), "sleep");
    talk.signal(libc::SIGTERM);
    assert!(talk.is_silent_for(Duration::from_millis(300)));
    kill(-talk.pid(), libc::SIGTERM);
    talk.expect("cleaned");
    assert_eq!(talk.end().0, 3);
}

both! {
    fn a_shells_trap_runs_while_it_waits_for_a_child(who) {
        for options in [&[][..], &["--keep-session"], &["--wait-all"], &["--as-pid-1"]] {
            for (name, number) in TO_THE_GROUP {
                let options = [options, &["--kill-after", "20"]].concat();
                let talk = start(who, &options, &["sh", "-c", &cleaner(name)]);
                // The trap is set; the child is what it waits for.
                wait_until("the shell's child", || descendants(talk.pid()).iter().any(|process| process.name == "sleep"));
                let start = Instant::now();
                talk.signal(number);
                let (code, said) = talk.end();
                // A shell may say of what its child has died.
                assert!(code == 3 && said.trim_end().ends_with("cleaned"), "{options:?} {name}: {code} {said:?}");
                assert!(start.elapsed() < Duration::from_secs(15), "{options:?} {name}: {:?}", start.elapsed());
            }
        }
    }

    fn an_interrupt_from_a_runtime_ends_a_shells_loop(who) {
        for options in [&[][..], &["--keep-session"]] {
            // bash goes on after an interrupt of which its child has not died.
            let mut command = who.command("srt-ns");
            command.args(options).args(["--", "bash", "-c", "echo ready; while :; do sleep 1000; done"]).process_group(0);
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            wait_until("the shell's child", || descendants(talk.pid()).iter().any(|process| process.name == "sleep"));
            kill(-talk.pid(), libc::SIGINT);
            let start = Instant::now();
            while talk.is_alive() {
                assert!(start.elapsed() < Duration::from_secs(15), "{options:?}: the loop goes on");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(talk.end().0, 130, "{options:?}");
        }
    }

    fn a_change_of_size_reaches_the_group_and_other_signals_the_command_alone(who) {
        for options in [&[][..], &["--keep-session"]] {
            let mut talk = start(who, options, &["sh", "-c", WITH_A_LISTENER, LISTENER]);
            for number in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM] {
                talk.signal(number);
            }
            // Signals are taken lowest number first, and this is the highest: what came before it has been passed on.
            talk.signal(libc::SIGWINCH);
            assert_eq!(talk.expect("<SIGWINCH>"), "", "{options:?}");
            talk.send("word\n");
            talk.expect("read word");
            assert_eq!(talk.end().0, 0);
        }
    }

    fn what_is_left_of_the_group_has_the_rest_of_kill_after(who) {
        for options in [&[][..], &["--keep-session"]] {
            for (name, number) in TO_THE_GROUP {
                let options = [options, &["--kill-after", "20"]].concat();
                let script = format!("ulimit -c 0; {WITH_A_LISTENER}");
                let mut talk = start(who, &options, &["sh", "-c", &script, LISTENER]);
                talk.signal(number);
                talk.expect(&format!("<SIG{name}>"));
                // A shell lets its child end first when it is interrupted.
                wait_until("the shell to die", || name == "INT" || !has_shell(&talk));
                // It is there, with all the time that it needs.
                talk.send("goodbye\n");
                talk.expect("read goodbye");
                let start = Instant::now();
                assert_eq!(talk.end().0, 128 + number, "{options:?} {name}");
                assert!(start.elapsed() < Duration::from_secs(15), "nobody is left: {:?}", start.elapsed());
            }
        }
    }

    fn what_is_left_of_the_group_is_killed_after_kill_after(who) {
        for options in [&[][..], &["--keep-session"]] {
            let options = [options, &["--kill-after", "1"]].concat();
            let mut talk = start(who, &options, &["sh", "-c", WITH_A_LISTENER, LISTENER]);
            let start = Instant::now();
            talk.signal(libc::SIGTERM);
            talk.expect("<SIGTERM>");
            assert_eq!(talk.end().0, 143, "{options:?}");
            let took = start.elapsed();
            assert!((Duration::from_millis(900)..Duration::from_secs(9)).contains(&took), "{options:?}: {took:?}");
        }
    }

    fn what_a_command_leaves_that_ends_as_it_likes_after_a_term_has_the_rest_of_kill_after(who) {
        let (term, hup) = ((libc::SIGTERM, "exit 3", 3), (libc::SIGHUP, "trap - HUP; kill -HUP $$", 129));
        at_once(3, [(&[][..], term), (&["--keep-session"], term), (&[], hup)], |(options, (signal, end, code))| {
            let options = [options, &["--kill-after", "4"]].concat();
            let left = "sh -c 'trap \"\" TERM HUP; echo ready; exec sleep 1000'";
            let script = format!("trap 'echo told; read -r _; {end}' TERM HUP; {left} & wait");
            let mut talk = start(who, &options, &["sh", "-c", &script]);
            let start = Instant::now();
            talk.signal(signal);
            talk.expect("told\n");
            let _told = talk.is_silent_for(Duration::from_millis(1500));
            talk.send("\n");
            let asked_for = Instant::now();
            assert_eq!(talk.end().0, code, "{options:?}");
            // Not at once, and counted from the signal.
            assert!(start.elapsed() >= Duration::from_millis(3900), "{options:?}: {:?}", start.elapsed());
            assert!(asked_for.elapsed() < Duration::from_secs(4), "{options:?}: {:?}", asked_for.elapsed());
        });
    }

    fn what_is_left_of_the_group_is_told_what_comes_then(who) {
        for options in [&[][..], &["--keep-session"]] {
            let options = [options, &["--kill-after", "20"]].concat();
            let left = "trap '' TERM; trap 'echo told; exit' HUP; echo ready
                while kill -0 $PPID 2> /dev/null; do sleep 0.02; done; echo alone; while :; do sleep 0.02; done";
            let mut talk = start(who, &options, &["sh", "-c", "trap 'exit 3' TERM; sh -c \"$0\" & wait", left]);
            talk.signal(libc::SIGTERM);
            talk.expect("alone\n");
            talk.signal(libc::SIGHUP);
            talk.expect("told\n");
            assert_eq!(talk.end().0, 3, "{options:?}");
        }
    }

    fn what_is_left_of_the_group_has_the_time_of_the_signal_that_ended_the_command(who) {
        let script = "
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: os.write(1, b'<INT>'))
left = 'trap \"\" INT HUP; echo ready; while kill -0 $PPID; do sleep 0.02; done; sleep 0.5; echo alive'
subprocess.Popen(['sh', '-c', left], stderr=subprocess.DEVNULL)
while True: signal.pause()
";
        // Of the signal before, which the command has survived, there is nothing left. This machine may be late.
        let goes_on = || {
            let mut talk = start(who, &["--kill-after", "2"], &["/usr/bin/python3", "-c", script]);
            talk.signal(libc::SIGINT);
            talk.expect("<INT>");
            std::thread::sleep(Duration::from_millis(2500));
            talk.signal(libc::SIGHUP);
            let (code, said) = talk.end();
            assert_eq!(code, 129);
            said.contains("alive")
        };
        assert!((0..3).any(|_| goes_on()));
    }

    fn what_is_left_of_the_group_has_all_time_under_kill_after_0(who) {
        let mut talk = start(who, &["--kill-after", "0"], &["sh", "-c", WITH_A_LISTENER, LISTENER]);
        talk.signal(libc::SIGTERM);
        talk.expect("<SIGTERM>");
        wait_until("the shell to die", || !has_shell(&talk));
        std::thread::sleep(Duration::from_millis(100));
        talk.send("goodbye\n");
        talk.expect("read goodbye");
        assert_eq!(talk.end().0, 143);
    }

    fn what_leaves_the_group_by_then_has_no_time(who) {
        // A group that somebody leaves tells nobody: it is looked at.
        let script = "
import os, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b'ready')
    time.sleep(2)
    os.setsid()
time.sleep(1000)
";
        let talk = start(who, &["--kill-after", "20"], &["/usr/bin/python3", "-c", script]);
        let start = Instant::now();
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 143);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }

    fn what_has_left_the_group_has_no_time(who) {
        for options in [&[][..], &["--keep-session"]] {
            let options = [options, &["--kill-after", "20"]].concat();
            let script = "setsid sh -c 'echo ready; exec sleep 1000' & wait";
            let talk = start(who, &options, &["sh", "-c", script]);
            let start = Instant::now();
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, 143, "{options:?}");
            assert!(start.elapsed() < Duration::from_secs(15), "{options:?}: {:?}", start.elapsed());
        }
    }

    fn what_a_command_leaves_that_ends_by_itself_has_no_time(who) {
        let mut talk = start(who, &["--kill-after", "20"], &["sh", "-c", "sleep 1000 & echo ready; read -r _; exit 4"]);
        let start = Instant::now();
        talk.send("\n");
        assert_eq!(talk.end().0, 4);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }

    fn what_a_command_leaves_that_was_interrupted_and_went_on_has_no_time(who) {
        let script = "
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: os.write(1, b'<INT>'))
subprocess.Popen(['sh', '-c', 'trap \"\" INT; echo ready; exec sleep 1000'])
sys.stdin.readline()
os._exit(4)
";
        let mut talk = start(who, &["--kill-after", "20"], &["/usr/bin/python3", "-c", script]);
        talk.signal(libc::SIGINT);
        talk.expect("<INT>");
        let start = Instant::now();
        talk.send("\n");
        assert_eq!(talk.end().0, 4);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }

    fn a_command_that_leaves_its_own_group_is_told_to_end_as_well(who) {
        // Under --keep-session it may go into the group of a child: its first group is then nobody's.
        let script = "
import os, time
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.write(writer, b'!')
    time.sleep(1000)
os.read(reader, 1)
os.setpgid(0, child)
os.write(1, b'ready')
time.sleep(1000)
";
        let options = ["--keep-session", "--kill-after", "5"];
        let talk = start(who, &options, &["/usr/bin/python3", "-c", script]);
        let start = Instant::now();
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 143);
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }

    fn kill_after_takes_fractions(who) {
        let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
        for (option, least) in [("0.3", 300), ("0.05", 50), ("1.25", 1250)] {
            let talk = start(who, &["--kill-after", option], &["sh", "-c", script]);
            let start = Instant::now();
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, 137, "{option}");
            let took = start.elapsed();
            let least = Duration::from_millis(least);
            assert!(took >= least && took < least + Duration::from_secs(8), "{option}: {took:?}");
        }
        for wrong in ["-1", "-0.5", "nan", "inf", "1e3", "0x1", "1.", ".", "", " 1", "1s", "1,5", "99999999999999999999999"] {
            let ran = run(who.command("srt-ns").args(["--kill-after", wrong, "--", "echo", "it ran"]));
            // A dot at the end is nobody's mistake.
            if wrong != "1." {
                ran.code(125).says("").complains("--kill-after");
            }
        }
    }

    fn a_stop_and_its_end_still_reach_the_whole_group(who) {
        let talk = start(who, &[], &["sh", "-c", "sleep 1000 & echo ready; wait"]);
        let states = || {
            let inside = descendants(talk.pid()).into_iter().filter(|process| ["sh", "sleep"].contains(&&*process.name));
            inside.map(|process| process.state).collect::<Vec<_>>()
        };
        wait_until("both", || states().len() == 2);
        talk.signal(libc::SIGTSTP);
        wait_until("the stop", || states() == ['T', 'T'] && Process::find(talk.pid()).is_some_and(|own| own.state != 'R'));
        talk.signal(libc::SIGCONT);
        wait_until("the end of the stop", || !states().contains(&'T'));
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 143);
    }

    fn before_linux_6_9_a_signal_reaches_the_group_by_its_number(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let script = "trap : INT; sh -c 'trap \"echo child; exit\" INT; echo ready; while :; do sleep 0.02; done'; exit 5";
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=pidfd_send_signal"]);
        command.args(["-e", "inject=pidfd_send_signal:error=EINVAL:when=1"]).arg(tool("srt-ns"));
        let mut talk = Talk::over_pipes(command.args(["--", "sh", "-c", script]));
        talk.expect("ready");
        kill(child_named(talk.pid(), "srt-ns"), libc::SIGINT);
        talk.expect("child");
        assert_eq!(talk.end().0, 5);
    }

    fn before_linux_6_9_a_number_that_is_not_known_to_be_the_leaders_gets_nothing(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        // The pidfd answers for the number; it never does.
        for (when, by_number) in [("1", true), ("1+", false)] {
            let log = scratch.file("log", "");
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--trace=kill,pidfd_send_signal", "--output"]).arg(&log);
            command.args(["-e", &format!("inject=pidfd_send_signal:error=EINVAL:when={when}")]).arg(tool("srt-ns"));
            let script = "trap : TERM; echo ready; while :; do sleep 0.02; done";
            let mut talk = Talk::over_pipes(command.args(["--kill-after", "0.1", "--", "sh", "-c", script]));
            talk.expect("ready");
            kill(child_named(talk.pid(), "srt-ns"), libc::SIGTERM);
            talk.status();
            let log = std::fs::read_to_string(&log).expect("the log");
            let group = log.lines().any(|line| line.contains("kill(-") && line.contains("SIGTERM"));
            assert_eq!(group, by_number, "{when}: {log}");
        }
    }

    fn the_end_of_one_is_no_signal_for_the_others_under_wait_all(who) {
        let script = "
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(0.3); os._exit(0)
    if os.fork() == 0:
        time.sleep(0.6)
        os.write(1, b'heard' if signal.SIGCHLD in signal.sigpending() else b'nothing')
        os._exit(0)
os._exit(0)";
        let ran = run(who.command("srt-ns").args(["--wait-all", "--", "/usr/bin/python3", "-c", script]));
        ran.ok().says("nothing");
    }
}
