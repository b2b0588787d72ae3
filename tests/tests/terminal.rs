//! The terminal: job control from an interactive shell, inside one, and how the terminal is left.

use srt_tests::processes::{self, Process, child_named};
use srt_tests::talk::Talk;
use srt_tests::{Who, both, has, run, skip, tool, wait_until};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// The stages between srt-ns and the command.
const STAGES: &str = "srt-mount --ro-bind / / --dev /dev --proc /proc -- srt-seccomp --";

const STOP_KEY: &str = "\x1a";
const INTERRUPT_KEY: &str = "\x03";
const QUIT_KEY: &str = "\x1c";

/// Says which signals it gets, and ends after a line of input. It waits for signals, since a handler of Python's
/// runs only between two steps of the program.
const LISTENER: &str = "
import os, signal, sys, threading
heard = [signal.SIGINT, signal.SIGWINCH]
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
def say(text): os.write(1, (text + '\\n').encode())
def hear():
    while True: say('caught ' + signal.Signals(signal.sigwait(heard)).name)
threading.Thread(target=hear, daemon=True).start()
say('started')
say('got %s at %d x %d' % (sys.stdin.readline().strip(), *os.get_terminal_size()))
os._exit(4)";

/// Ways to start srt-ns that differ in who has the terminal.
const SESSIONS: [&str; 2] = ["", "--keep-session"];

/// An interactive shell on a terminal of its own.
fn shell(who: Who, name: &str) -> Talk {
    interactive(who, &mut who.command(name), name)
}

/// The same, which this command runs.
fn interactive(who: Who, command: &mut Command, name: &str) -> Talk {
    if name == "bash" {
        // Line editing would echo what is typed, and set the modes of the terminal all the time.
        command.args(["--norc", "--noprofile", "--noediting"]);
    }
    let mut talk = Talk::on_terminal(who, command.arg("-i"));
    talk.send("PS1='READY''> ' PS2=; ulimit -c 0\n");
    talk.expect("READY> ");
    talk
}

/// A program that is the leader of the terminal's session itself, without a shell.
fn leader(who: Who, words: &[&str]) -> Talk {
    Talk::on_terminal(who, who.command(words[0]).args(&words[1..]))
}

/// What the sandbox of this shell's job consists of, srt-init and the watchdog aside.
fn job(talk: &Talk) -> Vec<Process> {
    let all = processes::descendants(talk.pid()).into_iter();
    all.filter(|process| !["srt-init", "srt-watchdog"].contains(&process.name.as_str()) && process.is_alive())
        .collect()
}

fn wait_until_stopped(talk: &Talk) {
    wait_until("all of the job to stop", || job(talk).iter().all(|process| process.state == 'T'));
}

/// The command of a pipeline has stopped, so that a key reaches the others again.
fn wait_until_srt_ns_stops(talk: &Talk) {
    let stopped = || Process::find(child_named(talk.pid(), "srt-ns")).is_some_and(|own| own.state == 'T');
    wait_until("srt-ns to stop", stopped);
}

/// The pipeline whose command has stopped stops as a whole, and is ended.
fn stops_by_its_key_and_is_killed(talk: &mut Talk) {
    wait_until_srt_ns_stops(talk);
    talk.send(STOP_KEY);
    talk.expect("Stopped");
    talk.expect("READY> ");
    talk.send("kill -KILL %1; wait; echo gone\n");
    talk.expect("gone");
}

/// The job that waits for a word gets it once it is in the foreground.
fn gets_in_the_foreground(talk: &mut Talk, word: &str) {
    talk.send("fg\n");
    talk.expect("srt-ns");
    talk.send(&format!("{word}\n"));
    talk.expect(&format!("got {word}"));
    talk.expect("READY> ");
}

/// The shell has its terminal still: it had begun to wait for the first line before.
fn the_shell_reads(talk: &mut Talk) {
    for line in 1..=3 {
        talk.send(&format!("echo mine{line}$((1+1))\n"));
        talk.expect(&format!("mine{line}2\r\n"));
        talk.expect("READY> ");
    }
}

#[test]
fn without_a_sandbox_kill_9_0_kills_the_caller() {
    let alone = leader(Who::Root, &["sh", "-c", "sh -c 'kill -9 0'; echo alive"]);
    assert_eq!(alone.end(), (137, String::new()));
    // A pid namespace alone does not help: the group is the same.
    let inside = leader(Who::Root, &["sh", "-c", "unshare -Urpf sh -c 'kill -9 0'; echo alive"]);
    assert_eq!(inside.end(), (137, String::new()));
}

#[test]
fn without_a_sandbox_a_killed_command_leaves_the_modes_as_they_are() {
    let mut talk =
        leader(Who::Root, &["sh", "-c", "read x; sh -c 'stty raw; kill -9 $$'; echo back; read x"]);
    let before = talk.modes();
    talk.send("\n");
    talk.expect("back");
    assert_ne!(talk.modes(), before);
}

both! {
    fn ctrl_z_stops_the_command_and_fg_resumes_it(who) {
        for name in ["bash", "dash"] {
            for session in SESSIONS {
                let mut talk = shell(who, name);
                let script = "echo started; read word; echo got $word; exit 5";
                talk.send(&format!("srt-ns {session} -- {STAGES} sh -c '{script}'\n"));
                talk.expect("started");
                for _ in 0..3 {
                    talk.send(STOP_KEY);
                    talk.expect("Stopped");
                    talk.expect("READY> ");
                    wait_until_stopped(&talk);
                    assert_eq!(talk.foreground(), talk.pid(), "{name} {session}");
                    talk.send("fg\n");
                    talk.expect("srt-ns");
                    wait_until("the job to go on", || job(&talk).iter().all(|process| process.state != 'T'));
                }
                talk.send("hello\n");
                talk.expect("got hello");
                talk.expect("READY> ");
                talk.send("echo status $?\n");
                talk.expect("status 5");
            }
        }
    }

    fn ctrl_z_stops_the_command_though_proc_shows_other_numbers(who) {
        // The /proc of an outer pid namespace.
        let mut unshare = who.command("unshare");
        let mut talk = interactive(who, unshare.args(["--user", "--map-current-user", "--pid", "--kill-child", "bash"]), "bash");
        talk.send("srt-ns --keep-session -- sh -c 'echo started; read word; echo got $word; exit 5'\n");
        talk.expect("started\r\n");
        talk.send(STOP_KEY);
        talk.expect("Stopped");
        talk.expect("READY> ");
        talk.send("fg\n");
        talk.expect("srt-ns");
        talk.send("hello\n");
        talk.expect("got hello");
        talk.expect("READY> ");
        talk.send("echo status $?\n");
        talk.expect("status 5");
    }

    fn a_start_that_waits_for_its_caller_stops_and_goes_on(who) {
        for session in SESSIONS {
            let work = who.scratch();
            run(who.command("mkfifo").arg(work.join("options"))).ok();
            let mut talk = shell(who, "bash");
            let stages = format!("srt-mount --ro-bind / / --args 9 -- echo the command ru''ns 9< <(cat {}/options)", work.text());
            talk.send(&format!("srt-ns {session} --keep-fd 9 -- {stages}\n"));
            wait_until("srt-mount to read its options", || job(&talk).iter().any(|process| process.name == "srt-mount"));
            talk.send(STOP_KEY);
            talk.expect("Stopped");
            talk.expect("READY> ");
            // cat(1) is not of the job, and srt-init, which has not got its name yet, never stops.
            let supervisor = child_named(talk.pid(), "srt-ns");
            let stopped = |talk: &Talk, are: bool| {
                let mut tools = job(talk).into_iter();
                tools.all(|tool| (tool.state == 'T') == are || (tool.pid != supervisor && tool.name != "srt-mount"))
            };
            wait_until("the tools to stop", || stopped(&talk, true));
            talk.send("fg\n");
            talk.expect("srt-ns");
            wait_until("the tools to go on", || stopped(&talk, false));
            fs::write(work.join("options"), "--tmpfs\0/tmp\0").expect("write");
            talk.expect("the command runs");
            talk.expect("READY> ");
        }
    }

    fn a_start_that_stops_before_the_supervisor_knows_the_command_stops_it(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // strace(1) keeps the supervisor in its third unshare(2), of the network namespace.
        let strace = "strace -D --output=/dev/null --trace=unshare -e inject=unshare:delay_exit=4000000:when=3";
        let work = who.scratch();
        run(who.command("mkfifo").arg(work.join("options"))).ok();
        let mut talk = shell(who, "bash");
        let stages = format!("srt-mount --ro-bind / / --args 9 -- echo the command ru''ns 9< <(cat {}/options)", work.text());
        talk.send(&format!("{strace} srt-ns --keep-session --keep-fd 9 -- {stages}\n"));
        wait_until("srt-mount to read its options", || job(&talk).iter().any(|process| process.name == "srt-mount"));
        let supervisor = child_named(talk.pid(), "srt-ns");
        let held = format!("{} ", libc::SYS_unshare);
        let call = || fs::read_to_string(format!("/proc/{supervisor}/syscall"));
        wait_until("the supervisor to be held", || call().is_ok_and(|call| call.starts_with(&held)));
        talk.send(STOP_KEY);
        talk.expect("Stopped");
        talk.expect("READY> ");
        talk.send("fg\n");
        talk.expect("strace");
        wait_until("srt-mount to go on", || job(&talk).iter().all(|process| !['T', 't'].contains(&process.state)));
        fs::write(work.join("options"), "--tmpfs\0/tmp\0").expect("write");
        talk.expect("the command runs");
        talk.expect("READY> ");
    }

    fn bg_lets_it_go_on_in_the_background(who) {
        for name in ["bash", "dash"] {
            for session in SESSIONS {
                let work = who.scratch();
                let mut talk = shell(who, name);
                talk.send(&format!("cd {}; ", work.text()));
                // Nothing that forks: a shell that waits in vfork(2) for a stopped child cannot stop itself.
                run(who.command("mkfifo").arg(work.join("fifo"))).ok();
                let script = "echo started; read word <fifo; echo finished";
                talk.send(&format!("srt-ns {session} -- {STAGES} sh -c '{script}'\n"));
                talk.expect("started");
                talk.send(STOP_KEY);
                talk.expect("Stopped");
                talk.expect("READY> ");
                wait_until_stopped(&talk);
                talk.send("bg\n");
                talk.expect("READY> ");
                fs::write(work.join("fifo"), "go\n").expect("write");
                talk.expect("finished");
                talk.send("wait; echo still here\n");
                talk.expect("still here");
            }
        }
    }

    fn a_background_job_that_reads_stops_until_it_is_in_the_foreground(who) {
        // Without --keep-session the terminal is not the command's: it reads like from any other file.
        let mut talk = shell(who, "bash");
        talk.send(&format!("srt-ns --keep-session -- {STAGES} sh -c 'read word; echo got $word' &\n"));
        talk.expect("READY> ");
        wait_until("the job to start", || job(&talk).iter().any(|process| process.name == "sh"));
        wait_until_stopped(&talk);
        talk.send("fg\n");
        talk.expect("srt-ns");
        talk.send("hello\n");
        talk.expect("got hello");
        talk.expect("READY> ");
    }

    fn the_other_processes_of_a_pipeline_have_the_terminal_until_the_command_needs_it(who) {
        for session in ["--keep-session", "--keep-session --wait-all"] {
            let mut talk = shell(who, "bash");
            // The reader of the pipeline asks; so does one that writes into it, and last the command itself.
            talk.send(&format!("srt-ns {session} -- seq 2 | while read n; do read a < /dev/tty; echo $n is $a; done\n"));
            talk.send("yes\nno\n");
            talk.expect("1 is yes\r\n2 is no\r\n");
            talk.expect("READY> ");
            talk.send(&format!("sh -c 'read a < /dev/tty; echo it is $a' | srt-ns {session} -- cat\nfine\n"));
            talk.expect("it is fine\r\n");
            talk.expect("READY> ");
            talk.send(&format!("echo said | srt-ns {session} -- sh -c 'read a; read b < /dev/tty; echo $a: $b' | cat\nwell\n"));
            talk.expect("said: well\r\n");
            talk.expect("READY> ");
        }
    }

    fn the_keys_reach_a_whole_pipeline(who) {
        for session in SESSIONS {
            let mut talk = shell(who, "bash");
            let running = |talk: &Talk, count| {
                let sleeps = |process: &&Process| process.name == "sleep" && process.state != 'T';
                wait_until("the pipeline to run", || job(talk).iter().filter(sleeps).count() == count);
            };
            talk.send(&format!("srt-ns {session} -- sleep 1000 | sleep 1000\n"));
            running(&talk, 2);
            for _ in 0..2 {
                talk.send(STOP_KEY);
                talk.expect("Stopped");
                talk.expect("READY> ");
                wait_until_stopped(&talk);
                talk.send("fg\n");
                running(&talk, 2);
            }
            talk.send(INTERRUPT_KEY);
            talk.expect("READY> ");
            wait_until("all of it to end", || job(&talk).is_empty());
        }
    }

    fn a_pipeline_whose_command_has_taken_the_terminal_gets_it_back(who) {
        let mut talk = shell(who, "bash");
        talk.send("srt-ns --keep-session -- sh -c 'echo up; while read a; do echo got $a; done' | cat\n");
        talk.expect("up");
        for word in ["one", "two"] {
            talk.send(&format!("{word}\n"));
            talk.expect(&format!("got {word}\r\n"));
            // The first one reaches the command, which gives the terminal back, the second one the others.
            talk.send(STOP_KEY);
            wait_until_srt_ns_stops(&talk);
            talk.send(STOP_KEY);
            talk.expect("Stopped");
            talk.expect("READY> ");
            wait_until_stopped(&talk);
            talk.send("fg\n");
            talk.expect("srt-ns");
        }
        talk.send("three\n\x04");
        talk.expect("got three");
        talk.expect("READY> ");
        // PID 1 cannot be stopped until it has the terminal: it gets it at once.
        talk.send("srt-ns --keep-session --as-pid-1 -- sh -c 'read a; echo got $a' | cat\nfour\n");
        talk.expect("got four");
        talk.expect("READY> ");
    }

    fn a_command_whose_output_a_shell_takes_has_the_terminal(who) {
        // bash(1) ignores SIGTTIN and SIGTTOU in `$(...)`.
        let mut talk = shell(who, "bash");
        let pick = "stty -echo < /dev/tty; read a < /dev/tty; echo picked $a";
        talk.send(&format!("x=$(srt-ns --keep-session -- sh -c '{pick}'); stty -a | grep -o '[-]*echo '; echo \"<$x>\"\n"));
        talk.send("one\n");
        talk.expect("echo \r\n<picked one>");
        talk.expect("READY> ");
        // The others of a pipeline have it there, too, until the command needs it.
        talk.send("x=$(sh -c 'read a < /dev/tty; echo got $a' | srt-ns --keep-session -- cat); echo \"<$x>\"\ntwo\n");
        talk.expect("<got two>");
        talk.expect("READY> ");
    }
    fn a_pipeline_in_the_background_waits_for_the_terminal(who) {
        let mut talk = shell(who, "bash");
        talk.send("srt-ns --keep-session -- sh -c 'echo up; read a < /dev/tty; echo got $a' | cat &\n");
        talk.expect("up");
        let asks = |talk: &Talk| {
            let waits = |process: &Process| process.name == "sh" && process.state == 'T';
            wait_until("it to ask", || job(talk).iter().any(waits));
        };
        asks(&talk);
        // For the shell it runs: it sends no SIGCONT.
        gets_in_the_foreground(&mut talk, "one");
        // It can be stopped while it waits, and nothing continues it in vain.
        let scratch = who.scratch();
        let log = scratch.join("log");
        let script = format!("trap \"echo on >> {}\" CONT; echo up; until read a < /dev/tty; do :; done; echo got $a", log.display());
        talk.send(&format!("srt-ns --keep-session -- sh -c '{script}' | cat &\n"));
        talk.expect("up");
        asks(&talk);
        std::thread::sleep(Duration::from_millis(600));
        assert!(!log.exists());
        talk.send("kill -TSTP %1; wait; jobs\n");
        talk.expect("Stopped");
        wait_until_stopped(&talk);
        gets_in_the_foreground(&mut talk, "two");
    }
    fn the_terminal_of_an_inner_shell_that_has_ended_is_the_commands_again(who) {
        let scratch = who.scratch();
        let meanwhile = |inner: &str| {
            let go = scratch.join("go").display().to_string();
            // No fork beside an interactive shell that starts: it stops its group until it has the terminal.
            format!("rm -f {go}; mkfifo {go}; bash --norc -ic 'echo > {go}; {inner}' & read x < {go}; read a < /dev/tty; echo got $a")
        };
        for script in [
            "bash --norc -ic 'kill -9 $$'; read a; echo got $a",
            // It gives the terminal back to its parent's group, which has stopped for lack of it.
            &meanwhile("sleep 0.5; :"),
            // A zombie has the foreground, whose parent is stopped.
            &meanwhile("sleep 0.5"),
        ] {
            for rest in ["", " | cat"] {
                let line = format!("srt-ns --keep-session -- sh -c \"$0\"{rest}");
                let mut talk = leader(who, &["sh", "-c", &line, script]);
                std::thread::sleep(Duration::from_millis(700));
                talk.send("one\n");
                talk.expect("got one");
                assert_eq!(talk.end().0, 0);
            }
        }
    }
    fn the_shell_of_a_container_keeps_its_terminal(who) {
        // Its process group is 1: kill(2) takes -1 for all processes.
        let mut command = who.command("unshare");
        let ids = if who == Who::Root { &["--pid"][..] } else { &["--user", "--map-current-user", "--pid"] };
        let mut talk = Talk::on_terminal(who, command.args(ids).args(["--fork", "--mount-proc", "bash", "--norc", "--noprofile", "--noediting", "-i"]));
        talk.send("PS1='READY''> ' PS2=\n");
        talk.expect("READY> ");
        talk.send("srt-ns --keep-session -- sh -c 'echo up; kill -STOP $$; sleep 0.2'\n");
        talk.expect("up");
        talk.expect("READY> ");
        talk.send("bg\n");
        talk.expect("READY> ");
        wait_until("its end", || !processes::descendants(talk.pid()).iter().any(|process| process.name == "srt-ns"));
        the_shell_reads(&mut talk);
    }
    fn a_job_that_is_not_in_the_foreground_any_more_leaves_it_to_the_shell(who) {
        let mut talk = shell(who, "bash");
        let outlives = "sleep 1; read a < /dev/tty; echo $a";
        talk.send(&format!("sh -c 'srt-ns --keep-session --outlive-parent -- sh -c \"{outlives}\" & sleep 0.5'\n"));
        talk.expect("READY> ");
        std::thread::sleep(Duration::from_secs(1));
        the_shell_reads(&mut talk);
    }
    fn the_modes_are_restored_that_a_command_of_a_pipeline_has_set(who) {
        let mut talk = shell(who, "bash");
        // Before it has the foreground, only if it ignores SIGTTOU.
        let early = "trap \"\" TTOU; stty -icanon min 3 < /dev/tty; trap - TTOU; read a < /dev/tty; echo got $a";
        let late = "stty -icanon min 3 < /dev/tty; read a; echo got $a";
        for pipeline in [
            format!("true | srt-ns --keep-session -- sh -c '{early}'"),
            format!("srt-ns --keep-session -- sh -c '{late}' | cat"),
            format!("srt-ns --keep-session --as-pid-1 -- sh -c '{late}' | cat"),
        ] {
            talk.send(&format!("stty min 1; {pipeline}; stty -a | grep -oE '[-]*icanon|min = .'\none\n"));
            talk.expect("got one\r\n");
            let after = talk.expect("READY> ");
            assert!(after.contains("min = 1") && !after.contains("-icanon"), "{pipeline}: {after}");
        }
    }
    fn the_modes_that_another_process_of_a_pipeline_had_set_are_gone_as_it_left_them(who) {
        let scratch = who.scratch();
        let mut talk = shell(who, "bash");
        talk.send(&format!("cd {} && mkfifo set done\n", scratch.text()));
        talk.expect("READY> ");
        let asks = "stty -echo < /dev/tty; echo > set; read x < done; stty echo < /dev/tty";
        let sandbox = "srt-ns --keep-session -- sh -c \"echo > done; cat\"";
        talk.send(&format!("({asks}) | (read x < set; exec {sandbox}); stty -a | grep -o '[-]*echo '\n"));
        assert_eq!(talk.expect("READY> "), "echo \r\n");
    }
    fn a_command_that_leaves_its_process_group_and_reads_stops_for_the_shell(who) {
        let mut talk = shell(who, "bash");
        // One process remains in its group, another leads the group to which it goes.
        let leaves = "import os, signal
def child():
    pid = os.fork()
    if pid == 0: signal.pause()
    return pid
child()
group = child()
os.setpgid(group, group)
os.setpgid(0, group)
print(\"up\", flush=True)
os.read(os.open(\"/dev/tty\", os.O_RDWR), 1)";
        talk.send(&format!("srt-ns --keep-session -- /usr/bin/python3 -c '{leaves}' | cat\n"));
        talk.expect("up");
        stops_by_its_key_and_is_killed(&mut talk);
    }
    fn a_command_that_takes_the_terminal_and_stops_gives_it_back(who) {
        let mut talk = shell(who, "bash");
        let takes = "import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
os.tcsetpgrp(os.open(\"/dev/tty\", os.O_RDWR), os.getpgrp())
os.kill(os.getpid(), signal.SIGSTOP)";
        talk.send(&format!("sleep 1000 | srt-ns --keep-session -- /usr/bin/python3 -c '{takes}'\n"));
        stops_by_its_key_and_is_killed(&mut talk);
    }
    fn who_waits_for_the_terminal_where_no_job_can_be_stopped_waits_quietly(who) {
        // Both need it; none can be stopped: nobody could continue them.
        let reader = "srt-ns --keep-session -- sh -c 'echo up >&2; read a < /dev/tty; echo $0 $a >&2'";
        let mut talk = leader(who, &["sh", "-c", &format!("{reader} first | {reader} second; echo both")]);
        talk.expect("up");
        talk.expect("up");
        let both = || processes::descendants(talk.pid()).into_iter().filter(|process| process.name == "srt-ns");
        wait_until("one to have the terminal", || talk.foreground() != talk.pid());
        let switches = |process: &Process| {
            processes::status_field(process.pid, "voluntary_ctxt_switches").and_then(|n| n.parse::<u64>().ok()).expect("status")
        };
        let before: Vec<_> = both().map(|process| switches(&process)).collect();
        std::thread::sleep(Duration::from_millis(500));
        for (process, before) in both().zip(before) {
            assert!(switches(&process) < before + 100, "it spins");
        }
        talk.send("one\n");
        talk.expect("one");
        talk.send("two\n");
        talk.expect("two");
        talk.expect("both");
    }
    fn the_modes_are_those_of_the_reader_of_a_pipeline(who) {
        for session in SESSIONS {
            let scratch = who.scratch();
            let mut talk = shell(who, "bash");
            // As less(1) does: sets them once the command runs, and works on when it has ended.
            let reader = "read up; stty -icanon < /dev/tty; echo > go; cat; stty -a < /dev/tty | tr \";\" \"\\n\" | grep icanon";
            talk.send(&format!("cd {} && mkfifo go\n", scratch.text()));
            talk.send(&format!("srt-ns {session} -- sh -c 'echo up; read go < go' | sh -c '{reader}'; stty icanon\n"));
            talk.expect(" -icanon");
            talk.expect("READY> ");
        }
    }

    fn the_keys_that_end_a_command_end_it_alone(who) {
        for session in SESSIONS {
            for (key, code) in [(INTERRUPT_KEY, 130), (QUIT_KEY, 131)] {
                let mut talk = shell(who, "bash");
                // A pipeline and a child: the keys mean all of them.
                let script = "echo started; sleep 1000 | sleep 1000; echo not reached";
                talk.send(&format!("srt-ns {session} -- {STAGES} sh -c '{script}'\n"));
                talk.expect("started");
                wait_until("both ends of the pipeline", || {
                    let all = processes::descendants(talk.pid());
                    all.iter().filter(|process| process.name == "sleep").count() == 2
                });
                talk.send(key);
                assert!(!talk.expect("READY> ").contains("reached"));
                talk.send("echo status $?\n");
                talk.expect(&format!("status {code}"));
            }
        }
    }

    fn a_command_may_live_on_after_the_interrupt_key(who) {
        for session in SESSIONS {
            let mut talk = shell(who, "bash");
            talk.send(&format!("srt-ns {session} -- {STAGES} /usr/bin/python3 -c \"{LISTENER}\"\n"));
            talk.expect("started");
            for _ in 0..3 {
                talk.send(INTERRUPT_KEY);
                talk.expect("caught SIGINT\r\n");
            }
            talk.send("end\n");
            talk.expect("got end");
            talk.expect("READY> ");
            talk.send("echo status $?\n");
            talk.expect("status 4");
        }
    }

    fn an_interactive_shell_inside_has_job_control(who) {
        let mut talk = shell(who, "bash");
        talk.send(&format!("srt-ns --keep-session -- {STAGES} bash --norc --noprofile --noediting -i\n"));
        talk.send("PS1='INNER''> '\n");
        let said = talk.expect("INNER> ");
        assert!(!said.contains("job control") && !said.contains("process group"), "{said:?}");
        talk.send("sh -c 'echo started; exec cat'\n");
        talk.expect("started");
        talk.send(STOP_KEY);
        talk.expect("Stopped");
        talk.expect("INNER> ");
        talk.send("jobs\n");
        talk.expect("Stopped");
        talk.expect("INNER> ");
        talk.send("fg\n");
        talk.expect("cat");
        talk.send("through cat\n");
        talk.expect("through cat");
        talk.send(INTERRUPT_KEY);
        talk.expect("INNER> ");
        // The whole inner shell stops and goes on, as a job of the outer one.
        talk.send("kill -STOP $$\n");
        talk.expect("Stopped");
        talk.expect("READY> ");
        talk.send("fg\n");
        talk.expect("srt-ns");
        talk.send("echo and on\n");
        talk.expect("and on");
        talk.send("exit 3\n");
        talk.expect("READY> ");
        talk.send("echo status $?\n");
        talk.expect("status 3");
    }

    fn without_keep_session_a_shell_inside_has_no_terminal(who) {
        let mut talk = shell(who, "bash");
        talk.send(&format!("srt-ns -- {STAGES} bash --norc --noprofile --noediting -i\n"));
        talk.expect("no job control");
        talk.send("exit\n");
        talk.expect("READY> ");
        for (session, code) in [("", 2), ("--keep-session", 0)] {
            talk.send(&format!("srt-ns {session} -- dash -c ': </dev/tty'; echo status $?\n"));
            talk.expect(&format!("status {code}"));
        }
    }

    fn kill_9_0_inside_leaves_the_caller_alive(who) {
        for options in ["", "--keep-session", "--as-pid-1", "--keep-session --as-pid-1", "--keep-session --wait-all"] {
            let script = format!("srt-ns {options} -- {STAGES} sh -c 'sh -c \"kill -9 0\"; kill -9 0'; echo alive $?");
            let mut talk = leader(who, &["sh", "-c", &script]);
            // As PID 1 the command is safe from itself (pid_namespaces(7)) and ends by its own will.
            let said = talk.expect("alive ");
            let code = talk.line();
            assert!(code.trim() == "137" || options.contains("as-pid-1"), "{options}: {said:?} {code:?}");
            assert_eq!(talk.end().0, 0, "{options}");
        }
        let mut talk = shell(who, "bash");
        talk.send(&format!("srt-ns --keep-session -- {STAGES} bash --norc --noprofile --noediting -i\n"));
        talk.send("PS1='INNER''> '\n");
        talk.expect("INNER> ");
        talk.send("kill -9 0\n");
        talk.expect("READY> ");
        talk.send("echo status $?\n");
        talk.expect("status 137");
    }

    fn the_modes_and_the_foreground_are_as_before_afterwards(who) {
        for end in ["exit 0", "kill -9 $$", "kill -9 0", "kill -TERM $$"] {
            let script = format!(
                "read x; srt-ns --keep-session -- {STAGES} sh -c 'stty raw -echo -isig 115200; {end}'; echo back; read x"
            );
            let mut talk = leader(who, &["sh", "-c", &script]);
            let before = talk.modes();
            talk.send("\n");
            talk.expect("back");
            assert_eq!(talk.modes(), before, "{end}");
            assert_eq!(talk.foreground(), talk.pid(), "{end}");
            talk.send("\n");
            assert_eq!(talk.end().0, 0);
        }
    }

    fn the_modes_are_as_before_though_the_terminal_is_none_of_its_descriptors(who) {
        let spoil = "stty -echo -icanon < /dev/tty";
        let script = format!("read x; srt-ns --keep-session -- sh -c '{spoil}' </dev/null >/dev/null 2>&1; echo back; read x");
        let mut talk = leader(who, &["sh", "-c", &script]);
        let before = talk.modes();
        talk.send("\n");
        talk.expect("back");
        assert_eq!(talk.modes(), before);
        talk.send("\n");
        assert_eq!(talk.end().0, 0);
    }

    fn the_modes_are_restored_when_the_supervisor_is_told_to_end(who) {
        let mut talk = leader(who, &[
            "sh", "-c", "srt-ns --keep-session -- sh -c 'read x; stty raw; echo raw; exec sleep 1000'; echo back; read x",
        ]);
        let before = talk.modes();
        talk.send("\n");
        talk.expect("raw");
        assert_ne!(talk.modes(), before);
        processes::kill(child_named(talk.pid(), "srt-ns"), libc::SIGTERM);
        talk.expect("back");
        assert_eq!(talk.modes(), before);
        assert_eq!(talk.foreground(), talk.pid());
    }

    fn the_command_has_the_foreground_before_its_first_instruction(who) {
        let probe = "import os; assert os.tcgetpgrp(0) == os.getpgrp()";
        for _ in 0..10 {
            let talk = leader(who, &["srt-ns", "--keep-session", "--", "/usr/bin/python3", "-c", probe]);
            assert_eq!(talk.end(), (0, String::new()));
        }
    }

    fn a_change_of_the_terminals_size_reaches_the_command(who) {
        for options in [&[][..], &["--keep-session"]] {
            let words = [&["srt-ns"], options, &["--", "/usr/bin/python3", "-c", LISTENER]].concat();
            let mut talk = leader(who, &words);
            talk.expect("started");
            talk.resize(33, 44);
            talk.expect("caught SIGWINCH\r\n");
            talk.send("end\n");
            talk.expect("got end at 44 x 33");
            assert_eq!(talk.end().0, 4);
        }
    }

    fn the_stop_key_does_no_harm_where_nobody_could_continue_the_job(who) {
        for options in [&[][..], &["--keep-session"], &["--as-pid-1"]] {
            let script = "echo started; read word; echo got $word; exit 4";
            let mut talk = leader(who, &[&["srt-ns"], options, &["--", "sh", "-c", script]].concat());
            talk.expect("started");
            talk.send(STOP_KEY);
            talk.send("hello\n");
            talk.expect("got hello");
            assert_eq!(talk.end().0, 4);
        }
    }

    fn a_stop_that_somebody_asks_for_lasts_where_nobody_could_continue_the_job(who) {
        // Not the job: who has sent the signal can send SIGCONT, too.
        for options in [&[][..], &["--keep-session"], &["--as-pid-1"]] {
            let command = ["--", "sh", "-c", "echo started; exec sleep 1000"];
            let mut talk = leader(who, &[&["srt-ns"], options, &command].concat());
            talk.expect("started");
            let sleep = child_named(talk.pid(), "sleep");
            let state = || Process::find(sleep).expect("it runs").state;
            for _ in 0..2 {
                talk.signal(libc::SIGTSTP);
                wait_until("the stop", || state() == 'T');
                std::thread::sleep(Duration::from_millis(200));
                assert_eq!(state(), 'T', "{options:?}");
                talk.signal(libc::SIGCONT);
                wait_until("its end", || state() != 'T');
            }
            talk.signal(libc::SIGKILL);
        }
    }

    fn a_request_to_stop_is_over_when_the_job_is_continued(who) {
        // The command ignores it, and stops itself later, where nobody could continue it.
        let script = "trap '' TSTP; echo started; read a; kill -STOP $$; echo goes on";
        let mut talk = leader(who, &["srt-ns", "--keep-session", "--", "sh", "-c", script]);
        talk.expect("started");
        for signal in [libc::SIGTSTP, libc::SIGCONT] {
            talk.signal(signal);
            let pending = || processes::status_field(talk.pid(), "SigPnd").is_some_and(|set| set.bytes().any(|c| c != b'0'));
            wait_until("it to be taken", || !pending());
        }
        talk.send("\n");
        talk.expect("goes on");
    }

    fn the_command_has_the_foreground_of_a_terminal_that_is_its_stdout_or_stderr_alone(who) {
        // The name /dev/tty is a way to it that may be closed: by TIOCEXCL to all but root.
        let closed = match who {
            Who::Root => "exec unshare --mount sh -c 'mount --bind /dev/null /dev/tty; exec \"$@\"' sh \"$@\"",
            Who::User => "exec /usr/bin/python3 -c 'import fcntl, os, sys; fcntl.ioctl(1, 0x540c); os.execvp(sys.argv[1], sys.argv[1:])' \"$@\"",
        };
        for fd in ["1", "2"] {
            let say = format!("import os; os.write({fd}, b'%s\\n' % str(os.tcgetpgrp({fd}) == os.getpgrp()).encode())");
            let others = if fd == "1" { "2>/dev/null" } else { ">/dev/null" };
            // The shell is the session's leader, and has the foreground; srt-ns is in its group.
            let inner = format!("srt-ns --keep-session -- /usr/bin/python3 -c \"{say}\" </dev/null {others}; exit 3");
            let talk = leader(who, &["sh", "-c", closed, "sh", "sh", "-c", &inner]);
            assert_eq!(talk.end(), (3, "True\r\n".to_owned()), "{fd}");
        }
    }

    fn no_key_sends_a_signal_of_the_commands_to_the_foreground_outside(who) {
        // The caller is a script in the same process group as srt-ns.
        let caller = "trap 'echo hit' USR1 IO; \"$@\"; echo ended";
        let attack = tool("attack");
        for how in ["SETFL", "IOCTL"] {
            for (options, hit) in [(&[][..], false), (&["--allow", "sigio"], true)] {
                let sandbox = [&["srt-ns", "--", "srt-seccomp"], options, &["--"]].concat();
                let words = [&["sh", "-c", caller, "sh"], &*sandbox, &[attack.to_str().expect("UTF-8"), "async", "0", "10", how]];
                let mut talk = leader(who, &words.concat());
                if hit {
                    talk.expect("armed");
                    talk.send("key\n");
                    talk.expect("hit");
                } else {
                    let said = talk.expect("ended");
                    assert!(said.contains("refused: Operation not permitted") && !said.contains("hit"), "{said:?}");
                }
            }
        }
    }

    fn a_hang_up_ends_the_sandbox(who) {
        for options in [&[][..], &["--keep-session"]] {
            let words = [&["srt-ns"], options, &["--", "sh", "-c", "echo started; sleep 1000; echo"]].concat();
            let mut talk = leader(who, &words);
            talk.expect("started");
            talk.hang_up();
            assert_eq!(srt_tests::talk::code(talk.status()), 129, "{options:?}");
        }
    }
}
