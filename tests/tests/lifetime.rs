//! Nothing of a sandbox outlives it, however it ends; and nothing ends it that should not.
//!
//! The test process adopts every orphan below it, so it sees whatever is left, and [`Family::ends`] fails where
//! something is. What took longest is printed (`--nocapture`).

use srt_tests::processes::{self, Family, Process, child_named};
use srt_tests::random::Random;
use srt_tests::talk::{Talk, code};
use srt_tests::{DEADLINE, READ_ONLY, Who, at_once, both, chain, has, run, skip, tool, wait, wait_until};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Leaves a daemon behind that is hard to get rid of, and ends with 5 once it is there.
const DAEMON: &str = "
import os, signal
reader, writer = os.pipe()
if os.fork():
    os.read(reader, 1)
    os._exit(5)
os.setsid()
if os.fork(): os._exit(0)
os.setpgid(0, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for s in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(s, signal.SIG_IGN)
os.closerange(0, writer)
os.write(writer, b'!')
os.close(writer)
while True: signal.pause()
";

/// Keeps changing its number: whoever lists processes and kills what is listed is late.
const HYDRA: &str = "
import os, signal
if os.fork():
    print('ready', flush=True)
    while True: signal.pause()
os.setsid()
while True:
    if os.fork(): os._exit(0)
";

/// The options that change who must die with whom.
const LIVES: [&[&str]; 5] =
    [&[], &["--as-pid-1"], &["--wait-all"], &["--keep-session"], &["--keep-session", "--as-pid-1"]];

/// srt-ns with options around the rest of the chain.
fn sandbox(who: Who, options: &[&str], program: &[&str]) -> Command {
    let mut command = who.command("srt-ns");
    command.args(options).args(["--", "srt-mount"]).args(READ_ONLY);
    command.args(["--", "srt-seccomp", "--"]).args(program);
    command
}

/// A sandbox whose command has said `ready` and waits for ever.
fn started(who: Who, options: &[&str]) -> Talk {
    let mut talk =
        Talk::over_pipes(&mut sandbox(who, options, &["sh", "-c", "echo ready; sleep 1000 & sleep 1000"]));
    talk.expect("ready");
    talk
}

/// The same as the child of a shell, which has started it in the background; the shell first.
fn started_by_a_caller(who: Who, options: &[&str]) -> Talk {
    let sandbox = sandbox(who, options, &["sh", "-c", "echo ready; cat"]);
    let words = [sandbox.get_program()].into_iter().chain(sandbox.get_args());
    let mut talk =
        Talk::over_pipes(Command::new("sh").args(["-c", "exec 3<&0; \"$@\" <&3 & wait", "sh"]).args(words));
    talk.expect("ready");
    talk
}

/// How long a start takes, from the first fork to the command's first word.
fn time_of_a_start(who: Who) -> Duration {
    let start = Instant::now();
    drop(started(who, &[]));
    start.elapsed()
}

/// What a sandbox must not change: the mounts here, and the files in a directory that it may write.
fn traces(work: &Path) -> (String, usize) {
    // Without those of other tests, see `LoopMount`.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mounts = mounts.lines().filter(|mount| !mount.contains("/mounted ")).collect();
    (mounts, fs::read_dir(work).expect("its work directory").count())
}

/// Starts sandboxes, some at a time, and does `harm` to each after a random part of the time that a start takes.
/// Returns how they ended.
fn harmed_at_random_moments(
    who: Who,
    family: &Family,
    count: usize,
    start: impl Fn(&[&str]) -> Command + Sync,
    harm: impl Fn(i32) + Sync,
) -> Vec<ExitStatus> {
    const AT_A_TIME: usize = 10;
    let limit = time_of_a_start(who).mul_f64(1.5).max(Duration::from_millis(10));
    family.ends();
    let mut random = Random::unlike_before();
    let mut worst = Duration::ZERO;
    let mut statuses = vec![];
    let one = |options: &[&str], delay: Duration| {
        let mut child = start(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        thread::sleep(delay);
        harm(child.id().try_into().expect("a pid"));
        wait(&mut child, "the end of what was harmed")
    };
    let each: Vec<_> =
        (0..count).map(|number| (LIVES[number % LIVES.len()], random.time_below(limit))).collect();
    for some in each.chunks(AT_A_TIME) {
        thread::scope(|scope| {
            let all: Vec<_> =
                some.iter().map(|&(options, delay)| scope.spawn(move || one(options, delay))).collect();
            statuses.extend(all.into_iter().map(|thread| thread.join().expect("join")));
        });
        worst = worst.max(family.ends());
    }
    eprintln!("{count} within {limit:?}: all gone after {worst:?} at most");
    statuses
}

#[test]
fn without_a_sandbox_a_daemon_outlives_the_command() {
    let family = Family::new();
    run(Who::Root.command("/usr/bin/python3").args(["-c", DAEMON])).code(5);
    wait_until("the daemon alone", || family.members().len() == 1);
    processes::kill(family.members()[0].pid, libc::SIGTERM);
    assert_eq!(family.members().len(), 1, "it ignores signals");
}

/// A command that exits with 7 after a line of input, and its child, which traces it and does not wait for it.
fn traced(first: &str, in_the_child: &str, then: &str) -> String {
    // PTRACE_SEIZE; before that PR_SET_PTRACER, which Yama wants.
    format!(
        "
import ctypes, os, signal, sys, time
libc, command = ctypes.CDLL(None), os.getpid()
reader, writer = os.pipe()
libc.prctl(0x59616d61, ctypes.c_long(-1), 0, 0, 0)
{first}
if os.fork() == 0:
    {in_the_child}
    assert libc.ptrace(0x4206, command, 0, 0) == 0
    os.write(writer, b'!')
    {then}
    os._exit(0)
os.read(reader, 1)
print('traced', flush=True)
sys.stdin.readline()
os._exit(7)"
    )
}

both! {
    fn a_daemon_ends_with_the_command(who) {
        let family = Family::new();
        for options in LIVES.iter().filter(|options| !options.contains(&"--wait-all")) {
            let start = Instant::now();
            run(&mut sandbox(who, options, &["/usr/bin/python3", "-c", DAEMON])).code(5);
            // The end of srt-ns says that all has ended: nothing is on its way out.
            assert_eq!(family.members(), [], "{options:?}");
            eprintln!("{options:?}: {:?} with start and Python", start.elapsed());
        }
        // Without srt-mount and srt-seccomp too.
        run(who.command("srt-ns").args(["--", "/usr/bin/python3", "-c", DAEMON])).code(5);
        assert_eq!(family.members(), []);
    }

    fn the_sandbox_ends_with_a_killed_supervisor(who) {
        let family = Family::new();
        let work = who.scratch();
        let before = traces(work.path());
        for options in LIVES.iter().chain([&["--outlive-parent"][..]].iter()) {
            let mut talk = started(who, options);
            assert!(family.members().len() >= 3, "{:#?}", family.members());
            talk.signal(libc::SIGKILL);
            talk.status();
            eprintln!("{options:?}: all gone after {:?}", family.ends());
        }
        assert_eq!(traces(work.path()), before);
    }

    fn a_command_that_ignores_signals_ends_with_a_killed_supervisor(who) {
        let family = Family::new();
        for options in LIVES {
            let script = format!("import os\nif os.fork() == 0:{}\n", DAEMON.replace('\n', "\n  "));
            let script = format!("{script}\nprint('ready', flush=True)\nos.wait()\nwhile True: signal.pause()");
            let script = format!("import signal\nfor s in range(1, 32):\n  if s not in (9, 17, 19): signal.signal(s, signal.SIG_IGN)\n{script}");
            let mut talk = Talk::over_pipes(&mut sandbox(who, options, &["/usr/bin/python3", "-c", &script]));
            talk.expect("ready");
            talk.signal(libc::SIGKILL);
            talk.status();
            family.ends();
        }
    }

    fn a_process_that_changes_its_number_all_the_time_ends_with_a_killed_supervisor(who) {
        let family = Family::new();
        for options in LIVES {
            let mut talk = Talk::over_pipes(&mut sandbox(who, options, &["/usr/bin/python3", "-c", HYDRA]));
            talk.expect("ready");
            talk.signal(libc::SIGKILL);
            talk.status();
            family.ends();
        }
    }

    fn a_command_as_pid_1_that_disarms_its_death_signal_ends_with_a_killed_supervisor(who) {
        let family = Family::new();
        let script = "echo ready; exec sleep 1000";
        for options in [&["--as-pid-1"][..], &["--as-pid-1", "--keep-session"], &["--as-pid-1", "--outlive-parent"]] {
            let program = ["setpriv", "--pdeathsig", "clear", "sh", "-c", script];
            let mut talk = Talk::over_pipes(&mut sandbox(who, options, &program));
            talk.expect("ready");
            talk.signal(libc::SIGKILL);
            talk.status();
            family.ends();
        }
    }

    fn what_the_supervisor_sends_inside_does_not_keep_the_sandbox_alive(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let mut command = who.command("strace");
        // It is stopped, as a hostile process could do it: it has all of the supervisor's descriptors.
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=kill"]);
        command.args(["-e", "inject=kill:signal=SIGSTOP"]).arg(tool("srt-ns"));
        command.args(["--as-pid-1", "--", "setpriv", "--pdeathsig", "clear", "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("ready");
        let supervisor = child_named(talk.pid(), "srt-ns");
        processes::kill(supervisor, libc::SIGTSTP);
        let sent = || processes::descendants(supervisor).iter().any(|process| process.name == "srt-ns");
        // At the latest when it has given up waiting.
        wait_until("what it sends", || sent() || Process::find(supervisor).is_some_and(|own| own.state == 'T'));
        processes::kill(supervisor, libc::SIGKILL);
        let took = family.ends();
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    fn the_sandbox_ends_with_a_killed_watchdog(who) {
        let family = Family::new();
        let talk = started(who, &["--as-pid-1"]);
        processes::kill(child_named(talk.pid(), "srt-watchdog"), libc::SIGKILL);
        let (code, said) = talk.end();
        assert!(code == 137 && said.contains("srt-ns: the watchdog was killed"), "{code} {said}");
        family.ends();
    }

    fn a_supervisor_killed_at_any_moment_of_its_start_leaves_nothing(who) {
        let family = Family::new();
        let work = who.scratch();
        let before = traces(work.path());
        let start = |options: &[&str]| sandbox(who, options, &["sleep", "1000"]);
        harmed_at_random_moments(who, &family, 200, start, |pid| processes::kill(pid, libc::SIGKILL));
        assert_eq!(traces(work.path()), before);
    }

    fn a_supervisor_killed_at_each_of_its_system_calls_leaves_nothing(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let work = who.scratch();
        for options in [&[][..], &["--as-pid-1"]] {
            let traced = |what: &[&str], program: &str| {
                let mut command = who.command("strace");
                command.args(what).arg("--").arg(tool("srt-ns")).args(options).args(["--", program, "1000"]);
                run(&mut command)
            };
            let log = work.file("log", "");
            traced(&["-o", log.to_str().expect("UTF-8")], "true").ok();
            let calls = fs::read_to_string(&log).expect("a log");
            // The first is strace's own execve. The first ppoll looks at 0, 1 and 2; the second waits for the others.
            let names: Vec<_> = calls.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
            let polls = names.iter().enumerate().filter(|(_, name)| **name == "ppoll").map(|(at, _)| at);
            let names = &names[..polls.clone().nth(1).unwrap_or(names.len())];
            assert!(names.len() > 30, "{calls}");
            at_once(4, 1..names.len(), |number| {
                // strace counts each system call's invocations apart.
                let count = names[..=number].iter().filter(|name| **name == names[number]).count();
                let first_or_last = names[number - 1] != names[number] || names.get(number + 1) != Some(&names[number]);
                if count == 1 || first_or_last {
                    let inject = format!("inject={}:signal=KILL:when={count}", names[number]);
                    let ran = traced(&["-o", "/dev/null", "-e", &inject], "sleep");
                    assert_eq!(ran.signal, Some(libc::SIGKILL), "{inject}: {ran:#?}");
                }
            });
            eprintln!("{options:?}: {} system calls, all gone after {:?}", names.len(), family.ends());
        }
    }

    fn a_start_that_is_told_to_end_ends_with_that_signal(who) {
        let family = Family::new();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let start = |options: &[&str]| sandbox(who, &[options, &["--kill-after", "0.3"]].concat(), &["sleep", "1000"]);
            let statuses = harmed_at_random_moments(who, &family, 20, start, |pid| {
                processes::kill(pid, signal);
                // As PID 1 a command is told nothing that it has no handler for; only SIGTERM has consequences then.
                thread::sleep(Duration::from_millis(50));
                processes::kill(pid, libc::SIGTERM);
            });
            for status in statuses {
                assert!([128 + signal, 128 + libc::SIGTERM, 137].contains(&code(status)), "{status:?}");
            }
        }
    }

    fn the_sandbox_ends_when_init_is_killed_from_outside(who) {
        let family = Family::new();
        for options in [&[][..], &["--wait-all"], &["--keep-session"], &["--outlive-parent"]] {
            let talk = started(who, options);
            processes::kill(child_named(talk.pid(), "srt-init"), libc::SIGKILL);
            // The kernel has killed the command, too.
            assert_eq!(talk.end().0, 137);
            eprintln!("{options:?}: all gone after {:?}", family.ends());
        }
    }

    fn a_start_ends_when_its_first_process_is_killed_at_any_moment(who) {
        let family = Family::new();
        let start = |options: &[&str]| sandbox(who, options, &["sleep", "1000"]);
        let statuses = harmed_at_random_moments(who, &family, 40, start, |pid| {
            let child = || processes::all().into_iter().filter(|child| child.parent == pid).map(|child| child.pid).min();
            wait_until("a first child", || child().is_some());
            processes::kill(child().unwrap_or(pid), libc::SIGKILL);
        });
        for status in statuses {
            assert!([125, 137].contains(&code(status)), "{status:?}");
        }
    }

    fn the_sandbox_ends_with_a_killed_caller(who) {
        let family = Family::new();
        for options in LIVES {
            let mut talk = started_by_a_caller(who, options);
            talk.signal(libc::SIGKILL);
            talk.status();
            eprintln!("{options:?}: all gone after {:?}", family.ends());
        }
    }

    fn a_start_ends_with_a_caller_killed_at_any_moment_after_it_was_looked_at(who) {
        let family = Family::new();
        let watches = |pid: i32| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| link.to_string_lossy().contains("pidfd"))
        };
        let start = |options: &[&str]| {
            let sandbox = sandbox(who, options, &["sleep", "1000"]);
            let words = [sandbox.get_program()].into_iter().chain(sandbox.get_args());
            let mut command = Command::new("sh");
            command.args(["-c", "\"$@\"; :", "sh"]).args(words);
            command
        };
        harmed_at_random_moments(who, &family, 40, start, |pid| {
            // Before that srt-ns cannot know who has started it.
            wait_until("srt-ns to watch its caller", || {
                processes::all().iter().any(|child| child.parent == pid && watches(child.pid))
            });
            processes::kill(pid, libc::SIGKILL);
        });
    }

    fn outlive_parent_goes_on_without_the_caller(who) {
        let family = Family::new();
        for option in [&["--outlive-parent"][..], &["--outlive-parent", "--as-pid-1"]] {
            let mut talk = started_by_a_caller(who, option);
            talk.signal(libc::SIGKILL);
            talk.status();
            for word in ["one", "two"] {
                talk.send(&format!("{word}\n"));
                talk.expect(word);
            }
            assert!(family.members().iter().any(|member| member.name == "cat"));
            // It ends as ever.
            talk.close_input();
            family.ends();
        }
    }

    fn the_sandbox_survives_the_thread_that_has_started_it(who) {
        let family = Family::new();
        let mut talk = thread::scope(|scope| scope.spawn(|| started_by_this_process(who)).join().expect("join"));
        for word in ["one", "two"] {
            talk.send(&format!("{word}\n"));
            talk.expect(word);
        }
        talk.close_input();
        assert_eq!(talk.end().0, 0);
        family.ends();
    }

    fn a_death_signal_would_not_survive_the_thread(who) {
        // The control of the test above: what is tied to its parent by a death signal alone dies with the thread,
        // and what disarms it does not.
        let family = Family::new();
        for (disarm, survives) in [(false, false), (true, true)] {
            let start = || {
                let mut command = who.command("setpriv");
                command.args(["--pdeathsig", "KILL"]);
                if disarm {
                    command.args(["setpriv", "--pdeathsig", "clear"]);
                }
                let mut talk = Talk::over_pipes(command.args(["sh", "-c", "echo ready; exec cat"]));
                talk.expect("ready");
                talk
            };
            let mut talk = thread::scope(|scope| scope.spawn(start).join().expect("join"));
            if survives {
                talk.send("one\n");
                talk.expect("one");
            } else {
                assert_eq!(code(talk.status()), 137);
            }
            drop(talk);
            family.ends();
        }
    }

    fn the_sandbox_of_a_thread_ends_with_the_process(who) {
        let family = Family::new();
        let script = "
import subprocess, sys, threading, time
thread = threading.Thread(target=subprocess.Popen, args=[sys.argv[1:]])
thread.start()
thread.join()
print('started', flush=True)
time.sleep(1000)";
        let sandbox = sandbox(who, &[], &["sh", "-c", "echo ready; cat"]);
        let words = [sandbox.get_program()].into_iter().chain(sandbox.get_args());
        let mut talk = Talk::over_pipes(Command::new("/usr/bin/python3").args(["-c", script]).args(words));
        talk.expect("ready");
        talk.send("still there\n");
        talk.expect("still there");
        talk.signal(libc::SIGKILL);
        talk.status();
        family.ends();
    }

    fn a_stopped_job_ends_with_its_shell(who) {
        let family = Family::new();
        for session in ["", "--keep-session"] {
            let mut command = who.command("bash");
            let mut talk = Talk::on_terminal(who, command.args(["--norc", "--noprofile", "--noediting", "-i"]));
            talk.send(&format!("srt-ns {session} -- sh -c 'echo started; read word'\n"));
            talk.expect("started");
            talk.send("\x1a");
            talk.expect("Stopped");
            talk.signal(libc::SIGKILL);
            talk.status();
            family.ends();
        }
    }

    fn wait_all_waits_for_every_process(who) {
        let family = Family::new();
        // The command ends at once; what it leaves reads on.
        let script = "(while read word; do echo got $word; done) <&3 3<&- & echo ready; exit 3";
        let mut talk = Talk::over_pipes(&mut sandbox(who, &["--wait-all"], &["sh", "-c", &format!("exec 3<&0; {script}")]));
        talk.expect("ready");
        for word in ["one", "two"] {
            talk.send(&format!("{word}\n"));
            talk.expect(&format!("got {word}"));
        }
        wait_until("the command to end", || {
            let all = processes::descendants(talk.pid());
            all.iter().filter(|process| process.name == "sh" && process.is_alive()).count() == 1
        });
        assert!(talk.is_alive());
        talk.close_input();
        assert_eq!(talk.end().0, 3);
        family.ends();
        // Without the option it gets no word out.
        let script = format!("exec 3<&0; {script}");
        let mut talk = Talk::over_pipes(&mut sandbox(who, &[], &["sh", "-c", &script]));
        talk.expect("ready");
        assert_eq!(code(talk.status()), 3);
        assert_eq!(family.members(), []);
    }

    fn wait_all_reaps_whatever_detaches_itself(who) {
        let family = Family::new();
        let script = "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'sleep 0.05 & sleep 0.1' &); done; exit 6";
        run(&mut sandbox(who, &["--wait-all"], &["sh", "-c", script])).code(6);
        assert_eq!(family.members(), []);
    }

    fn wait_all_ends_though_the_last_process_inside_was_started_outside(who) {
        let family = Family::new();
        let mut talk = Talk::over_pipes(who.command("srt-ns").args(["--wait-all", "--", "sh", "-c", "echo ready; read -r _; exit 3"]));
        talk.expect("ready\n");
        // Its parent, nsenter(1), gets the SIGCHLD.
        let init = child_named(talk.pid(), "srt-init").to_string();
        let mut guest = Talk::over_pipes(Who::Root.command("nsenter").args(["--target", &init, "--pid", "cat"]));
        guest.send("inside\n");
        guest.expect("inside");
        talk.send("\n");
        wait_until("the command's end", || !processes::descendants(talk.pid()).iter().any(|process| process.name == "sh"));
        assert!(talk.is_alive());
        guest.close_input();
        assert_eq!(guest.end().0, 0);
        assert_eq!(talk.end(), (3, String::new()));
        family.ends();
    }

    fn a_tracer_inside_that_does_not_wait_does_not_keep_the_sandbox_alive(who) {
        let family = Family::new();
        let script = &traced("", "os.setsid()", "while True: signal.pause()");
        for options in [&[][..], &["--keep-session"], &["--wait-all"]] {
            let mut talk = Talk::over_pipes(who.command("srt-ns").args(options).args(["--", "/usr/bin/python3", "-c", script]));
            talk.expect("traced\n");
            talk.send("\n");
            if options == ["--wait-all"] {
                // It waits for the tracer, whose end tells the command's.
                let pythons = || family.members().into_iter().filter(|process| process.name == "python3").collect::<Vec<_>>();
                wait_until("the command's end", || pythons().len() == 1);
                assert!(talk.is_silent_for(Duration::from_millis(700)) && talk.is_alive());
                processes::kill(pythons()[0].pid, libc::SIGKILL);
            }
            assert_eq!(talk.end(), (7, String::new()), "{options:?}");
            family.ends();
        }
    }

    fn a_tracer_of_the_commands_group_has_the_time_of_kill_after(who) {
        let family = Family::new();
        let block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])";
        let work = "signal.sigwait([signal.SIGTERM]); print('asked', flush=True); time.sleep(1); print('cleaned', flush=True)";
        let script = &traced(block, "", work);
        let mut talk = Talk::over_pipes(who.command("srt-ns").args(["--kill-after", "20", "--", "/usr/bin/python3", "-c", script]));
        talk.expect("traced\n");
        talk.signal(libc::SIGTERM);
        talk.expect("asked\n");
        talk.send("\n");
        talk.expect("cleaned\n");
        assert_eq!(talk.end(), (7, String::new()));
        family.ends();
    }

    fn pid_1_leaves_no_zombies_while_the_command_runs(who) {
        let family = Family::new();
        let script = "for i in 1 2 3 4 5 6 7 8 9; do (setsid true &); done; echo ready; exec cat";
        let mut talk = Talk::over_pipes(&mut sandbox(who, &[], &["sh", "-c", script]));
        talk.expect("ready");
        let zombies = || {
            let all = processes::descendants(talk.pid());
            all.into_iter().filter(|process| !process.is_alive()).collect::<Vec<Process>>()
        };
        wait_until("PID 1 to reap the orphans", || zombies().is_empty());
        drop(talk);
        family.ends();
    }

    fn the_command_of_the_chain_ends_with_a_killed_supervisor_within_the_deadline(who) {
        // The whole chain as the other tests use it, with a writable directory, to be sure that no mount stays.
        let family = Family::new();
        let work = who.scratch();
        let before = traces(work.path());
        let mut talk = Talk::over_pipes(chain(who, work.path()).args(["sh", "-c", "echo ready; exec sleep 1000"]));
        talk.expect("ready");
        talk.signal(libc::SIGKILL);
        talk.status();
        assert!(family.ends() < DEADLINE);
        assert_eq!(traces(work.path()), before);
    }

    fn a_supervisor_and_a_watchdog_that_are_killed_together_leave_no_pid_1(who) {
        let family = Family::new();
        let mut talk = Talk::over_pipes(who.command("srt-ns").args(["--as-pid-1", "--", "sleep", "1000"]));
        let supervisor = talk.pid();
        child_named(supervisor, "sleep");
        let watchdog = child_named(supervisor, "srt-watchdog");
        processes::kill(supervisor, libc::SIGSTOP);
        wait_until("its stop", || Process::find(supervisor).is_some_and(|own| own.state == 'T'));
        processes::kill(watchdog, libc::SIGKILL);
        processes::wait_for_end(watchdog);
        processes::kill(supervisor, libc::SIGKILL);
        talk.status();
        drop(talk);
        family.ends();
    }

    fn a_pid_1_without_turns_dies_soon_nonetheless(who) {
        let family = Family::new();
        let script = "
import os, signal, time
processor = sorted(os.sched_getaffinity(0))[-1:]
for pid in (0, 1): os.sched_setaffinity(pid, processor)
os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))
for _ in range(96):
    if os.fork() == 0:
        os.setpgid(0, 0)
        while True: pass
os.write(1, b'ready')
signal.pause()";
        let mut talk = Talk::over_pipes(who.command("srt-ns").args(["--keep-session", "--kill-after", "0.1", "--", "/usr/bin/python3", "-c", script]));
        talk.expect("ready");
        let start = Instant::now();
        talk.signal(libc::SIGTERM);
        talk.status();
        // Whoever is beside the sandbox has turns, too.
        assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
        family.ends();
    }
}

/// A sandbox with cat(1), whose parent is this process and whose death the calling thread would mean.
fn started_by_this_process(who: Who) -> Talk {
    let mut talk = Talk::over_pipes(&mut sandbox(who, &[], &["sh", "-c", "echo ready; exec cat"]));
    talk.expect("ready");
    talk
}
