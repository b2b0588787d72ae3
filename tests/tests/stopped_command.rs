//! A command that stops itself under `--keep-session` stops nobody who has to watch: SIGTERM, the deadline and the caller's
//! death still end everything. (The supervisor stops with its command, for the caller's shell to see.)

use srt_tests::processes::{self, Family, Process, child_named, descendants};
use srt_tests::talk::Talk;
use srt_tests::{MANY_PROCESSES, Who, both, has, skip, tool, turn_of, wait_until};
use std::time::{Duration, Instant};

const AT_MOST: Duration = Duration::from_secs(9);

const SESSIONS: [&str; 2] = ["--keep-session", "--keep-session --as-pid-1"];

/// Stops itself, and another process runs on. As PID 1 a command cannot stop itself (pid_namespaces(7)): its terminal can.
const STOPS: &str =
    "trap 'kill -STOP $$' USR1; sleep 1001 & echo ready; kill -STOP $$; while :; do wait; done";

/// An interactive shell on a terminal of its own.
fn shell(who: Who) -> Talk {
    let mut talk =
        Talk::on_terminal(who, who.command("bash").args(["--norc", "--noprofile", "--noediting", "-i"]));
    talk.send("PS1='READY''> '\n");
    talk.expect("READY> ");
    talk
}

/// A job of the shell's with a sandbox in it: its supervisor, and who has started that.
#[track_caller]
fn of_a_job(talk: &mut Talk, srt_ns: &str) -> (i32, i32) {
    // The other process of the job has its parent in the session: so the kernel does not continue what is left of it, as
    // it does in an orphaned group (setpgid(2)).
    talk.send(&format!("sh -c '{srt_ns} -- sleep 1001; :' | sleep 1002\n"));
    wait_until("the job", || ["srt-init", "sleep"].iter().all(|name| running(talk.pid(), name)));
    let all = descendants(talk.pid());
    let supervisor = all.iter().find(|process| process.name == "srt-ns").expect("srt-ns").pid;
    let caller = processes::status_field(supervisor, "PPid").expect("a caller").parse().expect("a number");
    wait_until("the command", || descendants(supervisor).iter().any(|process| process.name == "sleep"));
    (supervisor, caller)
}

/// Who of the sandbox runs and is not stopped.
fn running(supervisor: i32, name: &str) -> bool {
    descendants(supervisor)
        .iter()
        .any(|process| process.name == name && process.is_alive() && process.state != 'T')
}

/// The supervisor of a sandbox whose command has stopped itself.
#[track_caller]
fn stopped(talk: &mut Talk) -> i32 {
    talk.expect("ready");
    let supervisor = child_named(talk.pid(), "srt-ns");
    wait_until("the command to stop", || {
        let all = descendants(supervisor);
        all.iter().any(|process| process.name == "sh" && process.state == 'T')
            // Its other process runs on: a child that has not come to its exec yet is called sh, too.
            && running(supervisor, "sleep")
            && Process::find(supervisor).is_some_and(|own| own.state != 'R')
    });
    supervisor
}

/// The stop key, and `fg`, of which the shell says the job's words, twice.
#[track_caller]
fn stops_by_its_key_and_goes_on(talk: &mut Talk, supervisor: i32, words: &str) {
    for _ in 0..2 {
        talk.send("\x1a");
        talk.expect("Stopped");
        talk.expect("READY> ");
        talk.send("fg\n");
        talk.expect(words);
        goes_on(talk, supervisor);
    }
}

/// A command that says `ready`, in a shell with job control: the stop key, `fg`, and SIGTERM for the supervisor.
#[track_caller]
fn stops_by_its_key_and_ends(who: Who, command: &str, words: &str) {
    let family = Family::new();
    let mut talk = shell(who);
    talk.send(&format!("srt-ns --keep-session -- {command}\n"));
    talk.expect("ready");
    let supervisor = child_named(talk.pid(), "srt-ns");
    stops_by_its_key_and_goes_on(&mut talk, supervisor, words);
    processes::kill(supervisor, libc::SIGTERM);
    ends(supervisor, "SIGTERM");
    drop(talk);
    family.ends();
}

/// Waits until the command has the terminal again and runs. SIGCONT comes after the terminal and discards a stop of before.
#[track_caller]
fn goes_on(talk: &Talk, supervisor: i32) {
    let is_stopped = |pid: i32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut states = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        states.any(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['T', 't'])))
    };
    wait_until("the command in the foreground", || {
        ![talk.pid(), supervisor].contains(&talk.foreground())
            && !descendants(supervisor).iter().any(|process| is_stopped(process.pid))
    });
}

#[track_caller]
fn ends(supervisor: i32, what: &str) {
    all_end(supervisor, &descendants(supervisor), what);
}

/// The supervisor, and those who were inside.
#[track_caller]
fn all_end(supervisor: i32, inside: &[Process], what: &str) {
    let start = Instant::now();
    let alive = |pid: i32, name: &str| {
        Process::find(pid).is_some_and(|process| process.is_alive() && process.name == name)
    };
    while inside.iter().any(|process| alive(process.pid, &process.name)) || alive(supervisor, "srt-ns") {
        // What the supervisor has sent inside, to stop all or to continue them, may not be reaped yet when it is killed.
        processes::reap_inside();
        assert!(start.elapsed() < AT_MOST, "{what}: still there: {:#?}", descendants(supervisor));
        std::thread::sleep(Duration::from_millis(5));
    }
}

both! {
    fn a_command_that_stops_itself_can_be_told_to_end(who) {
        let family = Family::new();
        let mut talk = shell(who);
        talk.send(&format!("srt-ns --keep-session --kill-after 0.3 -- sh -c '{}'\n", STOPS.replace('\'', "'\\''")));
        let supervisor = stopped(&mut talk);
        processes::kill(supervisor, libc::SIGTERM);
        ends(supervisor, "SIGTERM");
        drop(talk);
        family.ends();
    }

    fn what_asks_for_no_end_does_not_continue_a_command_that_stops_itself(who) {
        let family = Family::new();
        let mut talk = shell(who);
        talk.send(&format!("srt-ns --keep-session --kill-after 0.3 -- sh -c '{}'\n", STOPS.replace('\'', "'\\''")));
        let supervisor = stopped(&mut talk);
        let is_stopped = || Process::find(supervisor).is_some_and(|own| own.state == 'T');
        wait_until("the stop of the supervisor", is_stopped);
        for signal in [libc::SIGCHLD, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH] {
            processes::kill(supervisor, signal);
        }
        // Longer than it takes the watchdog to look.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            assert!(is_stopped(), "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        processes::kill(supervisor, libc::SIGTERM);
        ends(supervisor, "SIGTERM");
        drop(talk);
        family.ends();
    }

    fn a_command_that_stops_itself_when_it_is_told_to_end_is_killed_at_the_deadline(who) {
        let family = Family::new();
        let script = "trap \"kill -STOP \\$\\$\" TERM; sh -c \"trap : TERM; while :; do sleep 1001; done\" & echo ready; while :; do wait; done";
        let mut talk = shell(who);
        talk.send(&format!("srt-ns --keep-session --kill-after 0.3 -- sh -c '{script}'\n"));
        talk.expect("ready");
        let supervisor = child_named(talk.pid(), "srt-ns");
        processes::kill(supervisor, libc::SIGTERM);
        ends(supervisor, "the deadline");
        drop(talk);
        family.ends();
    }

    fn a_command_that_stops_itself_ends_with_its_caller(who) {
        let family = Family::new();
        for signal in [libc::SIGKILL, libc::SIGTERM] {
            let mut talk = shell(who);
            // Another process of the job, whose parent is the shell: the group is not orphaned when the caller dies, and the
            // kernel continues nobody (setpgid(2)).
            let script = "srt-ns --keep-session -- sh -c \"$0\"; :";
            talk.send(&format!("sh -c '{script}' '{}' | cat\n", STOPS.replace('\'', "'\\''")));
            talk.expect("ready");
            let caller = child_named(talk.pid(), "sh");
            let supervisor = child_named(caller, "srt-ns");
            wait_until("the command to stop", || {
                descendants(supervisor).iter().any(|process| process.name == "sh" && process.state == 'T')
            });
            let all = descendants(supervisor);
            processes::kill(caller, signal);
            // What a stopped caller is sent waits for its continuation, but for SIGKILL.
            processes::kill(caller, libc::SIGCONT);
            all_end(supervisor, &all, "the caller's death");
            drop(talk);
            family.ends();
        }
    }

    fn a_command_that_stops_itself_goes_on_in_the_foreground(who) {
        // What must still work.
        let _family = Family::new();
        let mut talk = shell(who);
        talk.send("srt-ns --keep-session -- sh -c 'echo ready; kill -STOP $$; read word; echo got $word; exit 5'\n");
        talk.expect("ready");
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

    fn without_keep_session_a_command_that_stops_itself_can_be_told_to_end(who) {
        // The control: the supervisor does not stop with it.
        let family = Family::new();
        for options in ["", "--wait-all"] {
            let mut talk = shell(who);
            talk.send(&format!("srt-ns {options} --kill-after 0.3 -- sh -c '{}'\n", STOPS.replace('\'', "'\\''")));
            let supervisor = stopped(&mut talk);
            processes::kill(supervisor, libc::SIGTERM);
            ends(supervisor, "SIGTERM");
            drop(talk);
            family.ends();
        }
    }

    fn the_stop_key_stops_a_command_whose_first_thread_has_ended(who) {
        stops_by_its_key_and_ends(who, &format!("{} first-thread-ends", tool("attack").display()), "first-thread-ends");
    }

    fn the_stop_key_stops_a_command_whose_name_is_of_any_bytes(who) {
        let name = "import ctypes, time; ctypes.CDLL(None).prctl(15, b\"\\xc3) S \\xff\"); print(\"re\" \"ady\", flush=True); time.sleep(1001)";
        stops_by_its_key_and_ends(who, &format!("/usr/bin/python3 -c '{name}'"), "time.sleep(1001)");
    }

    fn the_stop_key_stops_a_command_that_has_taken_the_descriptors_of_pid_1(who) {
        // ppoll(2): EINVAL for more descriptors than RLIMIT_NOFILE.
        let command = "sh -c \"prlimit --pid=1 --nofile=0:0 && echo ready && exec sleep 1001\"";
        stops_by_its_key_and_ends(who, command, "prlimit");
    }

    fn a_sandbox_that_was_stopped_ends_by_the_signal_that_its_caller_has_asked_for(who) {
        let family = Family::new();
        let mut talk = shell(who);
        let (supervisor, caller) = of_a_job(&mut talk, "setpriv --pdeathsig KILL srt-ns --outlive-parent");
        processes::kill(supervisor, libc::SIGTSTP);
        wait_until("the stop", || Process::find(supervisor).is_some_and(|own| own.state == 'T'));
        processes::kill(supervisor, libc::SIGCONT);
        wait_until("the command to go on", || running(supervisor, "sleep"));
        processes::kill(caller, libc::SIGKILL);
        ends(supervisor, "the caller's end");
        drop(talk);
        family.ends();
    }

    fn the_stop_key_stops_a_command_that_is_traced_inside(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let mut talk = shell(who);
        // The command is what is traced; strace is its grandchild.
        talk.send("srt-ns --keep-session -- strace -D --output=/dev/null sh -c 'echo ready; sleep 1001; :'\n");
        talk.expect("ready");
        let supervisor = child_named(talk.pid(), "srt-ns");
        // vfork(2): a shell whose child stops before its exec does not stop.
        wait_until("the shell's child", || running(supervisor, "sleep"));
        stops_by_its_key_and_goes_on(&mut talk, supervisor, "strace");
        processes::kill(supervisor, libc::SIGKILL);
        ends(supervisor, "SIGKILL");
        drop(talk);
        family.ends();
    }

    fn a_command_that_is_killed_once_it_has_stopped_is_an_end(who) {
        let family = Family::new();
        let mut talk = shell(who);
        let (supervisor, _) = of_a_job(&mut talk, "srt-ns --keep-session");
        let all = descendants(supervisor);
        let command = all.iter().find(|process| process.name == "sleep").expect("the command").pid;
        // Its stop is told, and its end, while the supervisor looks at neither.
        processes::kill(supervisor, libc::SIGSTOP);
        wait_until("the supervisor's stop", || Process::find(supervisor).is_some_and(|own| own.state == 'T'));
        processes::kill(command, libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(300));
        processes::kill(command, libc::SIGKILL);
        wait_until("srt-init to reap the command", || Process::find(command).is_none());
        processes::kill(supervisor, libc::SIGCONT);
        ends(supervisor, "the command's end");
        drop(talk);
        family.ends();
    }

    fn a_sandbox_that_is_stopped_ends_with_its_caller(who) {
        let family = Family::new();
        // Also where the caller ignores its own stop key.
        for before in [":", "trap \"\" TSTP"] {
            let mut talk = shell(who);
            let (supervisor, caller) = of_a_job(&mut talk, &format!("{before}; srt-ns"));
            processes::kill(supervisor, libc::SIGTSTP);
            wait_until("the stop", || Process::find(supervisor).is_some_and(|own| own.state == 'T'));
            processes::kill(caller, libc::SIGKILL);
            ends(supervisor, "the caller's end");
            drop(talk);
            family.ends();
        }
    }

    fn a_sandbox_whose_caller_ends_while_it_is_about_to_stop_ends(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let mut talk = shell(who);
        // strace(1) holds the supervisor up where it would stop itself.
        let held_up = "strace -D --output=/dev/null --trace=kill -e inject=kill:delay_enter=1500000 srt-ns";
        let (supervisor, caller) = of_a_job(&mut talk, held_up);
        processes::kill(supervisor, libc::SIGTSTP);
        let stopped = |process: &Process| process.name == "sleep" && process.state == 'T';
        wait_until("the command's stop", || descendants(supervisor).iter().any(stopped));
        std::thread::sleep(Duration::from_millis(200));
        assert_ne!(Process::find(supervisor).map(|own| own.state), Some('T'), "too late for the test");
        processes::kill(caller, libc::SIGKILL);
        ends(supervisor, "the caller's end");
        drop(talk);
        family.ends();
    }

    fn everybody_goes_on_although_no_process_can_be_made_for_that_at_first(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        let count = scratch.file("count", "");
        // srt-init is the first that the supervisor forks, then what stops everybody.
        let log = scratch.file("log", "");
        let forks = format!("strace -D --output={} --trace=clone,?fork -e inject=clone,?fork:error=EAGAIN:when=3", log.display());
        let script = scratch.file("script", format!(
            "setsid sh -c 'while :; do echo >>{}; sleep 0.01; done' & echo re''ady; sleep 1001; :", count.display()
        ));
        let mut talk = shell(who);
        talk.send(&format!("{forks} srt-ns -- sh {}\n", script.display()));
        talk.expect("ready");
        let supervisor = child_named(talk.pid(), "srt-ns");
        let counted = || std::fs::metadata(&count).map_or(0, |file| file.len());
        wait_until("the other", || counted() > 0);
        processes::kill(supervisor, libc::SIGTSTP);
        wait_until("the stop of everybody", || {
            let mut all = descendants(supervisor);
            all.retain(|process| process.is_alive() && ["sh", "sleep"].contains(&process.name.as_str()));
            // D: a shell whose child, made by vfork(2), was stopped before its exec.
            let waits = |process: &Process| process.state == 'D' && all.iter().any(|child| child.parent == process.pid);
            !all.is_empty() && all.iter().all(|process| process.state == 'T' || waits(process))
        });
        let before = counted();
        processes::kill(supervisor, libc::SIGCONT);
        wait_until("the other to go on", || counted() > before);
        assert!(std::fs::read_to_string(&log).is_ok_and(|log| log.contains("INJECTED")), "there was no first try");
        processes::kill(supervisor, libc::SIGKILL);
        ends(supervisor, "SIGKILL");
        drop(talk);
        family.ends();
    }

    fn the_stop_key_leaves_a_sandbox_that_can_be_told_to_end(who) {
        let family = Family::new();
        for session in SESSIONS {
            let mut talk = shell(who);
            talk.send(&format!("srt-ns {session} --kill-after 0.3 -- sh -c 'echo ready; sleep 1001; :'\n"));
            talk.expect("ready");
            let supervisor = child_named(talk.pid(), "srt-ns");
            wait_until("the shell's child", || running(supervisor, "sleep"));
            talk.send("\x1a");
            // As PID 1 a shell without a handler does not stop, but its child does.
            wait_until("the stop", || descendants(supervisor).iter().any(|process| process.state == 'T'));
            processes::kill(supervisor, libc::SIGTERM);
            ends(supervisor, session);
            drop(talk);
            family.ends();
        }
    }

    fn a_watchdog_does_not_go_on_looking_once_the_supervisor_goes_on(who) {
        let _family = Family::new();
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", "set -m; srt-ns --keep-session -- sh -c 'echo up; kill -STOP $$; echo on; exec sleep 1000'; echo stopped; fg; read x"]));
        talk.expect("stopped");
        // Not a part of the job's words, which fg says first.
        talk.expect("\non\r\n");
        let watchdog = child_named(child_named(talk.pid(), "srt-ns"), "srt-watchdog");
        let turns = || processes::status_field(watchdog, "voluntary_ctxt_switches").expect("a number").parse::<u64>().expect("a number");
        // A watchdog that goes on looking does so eight times.
        wait_until("the watchdog to rest", || {
            let before = turns();
            std::thread::sleep(Duration::from_millis(400));
            turns() <= before + 1
        });
        drop(talk);
    }
}

#[test]
fn a_supervisor_that_cannot_stop_everybody_does_not_stop() {
    // To stop all, and not the command's group alone, it needs a process inside, for which the command leaves no room. For
    // root there is no such limit.
    let _turn = turn_of(MANY_PROCESSES);
    let family = Family::new();
    let scratch = Who::User.scratch();
    let count = scratch.join("count");
    let fill = format!(
        "import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        open('{}', 'ab').write(b'.')
        time.sleep(0.01)
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError: break
print('re' 'ady', flush=True)
time.sleep(1000)",
        count.display()
    );
    // A supervisor whose process group is orphaned cannot stop anyway (setpgid(2)).
    let mut talk = shell(Who::User);
    let script = scratch.file("fill", fill);
    talk.send(&format!(
        "prlimit --nproc=800 srt-ns --kill-after 0.3 -- /usr/bin/python3 {}\n",
        script.display()
    ));
    talk.expect("ready");
    let supervisor = child_named(talk.pid(), "srt-ns");
    processes::kill(supervisor, libc::SIGTSTP);
    std::thread::sleep(Duration::from_millis(300));
    let counted = || std::fs::metadata(&count).map_or(0, |file| file.len());
    let stopped = || Process::find(supervisor).is_some_and(|supervisor| supervisor.state == 'T');
    let watched = (0..5).all(|_| {
        let (was_stopped, before) = (stopped(), counted());
        std::thread::sleep(Duration::from_millis(50));
        let all = counted();
        !(was_stopped && stopped()) || all <= before + 1
    });
    assert!(watched, "the supervisor is stopped, and the command runs");
    // Unless a process of another test's has ended meanwhile, which made room.
    let runs = || descendants(supervisor).iter().all(|process| process.state != 'T');
    wait_until("the command to go on", || stopped() || runs());
    processes::kill(supervisor, libc::SIGCONT);
    processes::kill(supervisor, libc::SIGTERM);
    ends(supervisor, "SIGTERM");
    drop(talk);
    family.ends();
}
