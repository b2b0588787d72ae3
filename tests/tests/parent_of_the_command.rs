//! The command is srt-init's child, and no process outside has a child inside but srt-init: what the command makes with
//! CLONE_PARENT, what it traces with PTRACE_TRACEME and what it orphans concern srt-init alone.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::processes::{self, Process, child_named, is_inside, number_inside, status_field};
use srt_tests::talk::Talk;
use srt_tests::{Who, both, run, tool, wait_until};
use std::time::{Duration, Instant};

/// The ways to start a sandbox with a PID 1 of its own.
const LIVES: [&[&str]; 3] = [&[], &["--wait-all"], &["--keep-session"]];

/// A sandbox that runs a shell script.
fn start(who: Who, options: &[&str], script: &str) -> Talk {
    let work = who.scratch();
    let mut talk = Talk::over_pipes(&mut Sandbox::bare(who).ns(options).command(&["sh", "-c", script]));
    talk.expect("ready");
    drop(work);
    talk
}

/// Those inside whose parent is outside, with that parent.
fn children_of_the_outside(talk: &Talk) -> Vec<(Process, i32)> {
    let all = processes::descendants(talk.pid()).into_iter().filter(|process| is_inside(process.pid));
    all.filter(|process| !is_inside(process.parent))
        .map(|process| (process.clone(), process.parent))
        .collect()
}

#[test]
fn what_a_process_makes_with_clone_parent_is_its_parents_wherever_that_is() {
    // The control: nsenter(1) has a child in another pid namespace, as a supervisor that forks its command itself.
    let mut command = Who::Root.command("unshare");
    let namespace = Talk::over_pipes(command.args(["--pid", "--fork", "--kill-child", "sleep", "1000"]));
    let sleep = child_named(namespace.pid(), "sleep").to_string();
    let mut command = Who::Root.command("nsenter");
    command.args(["--target", &sleep, "--pid"]).arg(tool("attack")).args(["flood-parent", "2", "0"]);
    let mut talk = Talk::over_pipes(&mut command);
    talk.expect("ready");
    let parents: Vec<_> = children_of_the_outside(&talk).into_iter().map(|(_, parent)| parent).collect();
    assert_eq!(parents, [talk.pid(); 3]);
    // The end of its PID 1 is the end of all.
    drop(namespace);
}

both! {
    fn the_commands_parent_is_pid_1(who) {
        let parent = |options: &[&str]| {
            let words = [options, &["--", "sh", "-c", "echo $PPID"]].concat();
            run(who.command("srt-ns").args(words)).ok().out.trim().to_owned()
        };
        for options in LIVES {
            assert_eq!(parent(options), "1", "{options:?}");
        }
        // The control: PID 1 itself has a parent outside.
        assert_eq!(parent(&["--as-pid-1"]), "0");
    }

    fn nobody_outside_has_a_child_inside_but_pid_1(who) {
        for options in LIVES.iter().chain([&["--as-pid-1"][..], &["--sidecar", "exec sleep 1000"]].iter()) {
            // Of PID 1 the kernel refuses it (clone(2)).
            let script = match options.contains(&"--as-pid-1") {
                true => format!("(setsid sleep 1000 &); {INSIDE} clone-parent 0; echo ready; read -r _"),
                false => format!("(setsid sleep 1000 &); {INSIDE} clone-parent 0; exec {INSIDE} flood-parent 5 0"),
            };
            let talk = start(who, options, &script);
            let outside = children_of_the_outside(&talk);
            let [(init, _)] = &outside[..] else { panic!("{options:?}: {outside:#?}") };
            assert_eq!(number_inside(init.pid), Some(1), "{options:?}: {outside:#?}");
            talk.signal(libc::SIGKILL);
        }
    }

    fn what_the_command_makes_with_clone_parent_is_waited_for_under_wait_all(who) {
        let work = who.scratch();
        // Ends at once, and leaves a child of its parent that reads on.
        let script = "import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 56, 'aarch64': 220}[platform.machine()]
CLONE_PARENT, SIGCHLD = 0x8000, 17
if libc.syscall(number, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0): os._exit(3)
os.write(1, b'ready\\n')
while True:
    word = os.read(0, 100)
    if not word: os._exit(0)
    os.write(1, b'got ' + word)
";
        let sandbox = Sandbox::new(who, work.path()).ns(&["--wait-all"]);
        let mut talk = Talk::over_pipes(&mut sandbox.command(&["/usr/bin/python3", "-c", script]));
        talk.expect("ready");
        wait_until("the command to end", || {
            let all = processes::descendants(talk.pid()).into_iter();
            all.filter(|process| process.name.starts_with("python3") && process.is_alive()).count() < 2
        });
        assert!(talk.is_alive(), "it has not waited for what is still there");
        for word in ["one\n", "two\n"] {
            talk.send(word);
            talk.expect(&format!("got {word}"));
        }
        talk.close_input();
        assert_eq!(talk.end().0, 3);
    }

    fn the_supervisor_traces_nobody(who) {
        for options in LIVES {
            let words = [INSIDE, "traceme-and-stay"];
            let mut talk = Talk::over_pipes(&mut Sandbox::bare(who).ns(options).ns(&["--kill-after", "1"]).command(&words));
            talk.expect("ready");
            let all = processes::descendants(talk.pid());
            let command = all.iter().find(|process| process.name == "attack").expect("the command");
            let tracer: i32 = status_field(command.pid, "TracerPid").expect("a line").parse().expect("a number");
            assert!(tracer != talk.pid() && (tracer == 0 || number_inside(tracer) == Some(1)), "{options:?}: {tracer}");
            // In a stop that only its tracer can end it gets no signal: the deadline ends it all the same.
            talk.send("\n");
            let start = Instant::now();
            wait_until("the stop, or the end of the command", || {
                Process::find(command.pid).is_none_or(|process| process.state == 't' || !process.is_alive())
            });
            talk.signal(libc::SIGTERM);
            let code = talk.end().0;
            assert!([0, 137, 143].contains(&code), "{options:?}: {code}");
            assert!(start.elapsed() < Duration::from_secs(6), "{options:?}: {:?}", start.elapsed());
        }
    }

    fn a_traced_commands_stops_do_not_stop_the_supervisor(who) {
        // On a terminal, where the supervisor stops with its command for the caller's shell to see.
        let attack = tool("attack");
        let script = format!("srt-ns --keep-session --kill-after 1 -- {} traceme-and-stay; echo back $?", attack.display());
        let mut talk = Talk::on_terminal(who, who.command("bash").args(["--norc", "--noprofile", "--noediting", "-i"]));
        talk.send("PS1='READY''> '\n");
        talk.expect("READY> ");
        talk.send(&format!("{script}\n"));
        talk.expect("ready\r\n");
        let supervisor = child_named(talk.pid(), "srt-ns");
        talk.send("\n");
        wait_until("the command to stop or to end", || {
            let all = processes::descendants(supervisor);
            all.iter().all(|process| process.name != "attack" || process.state == 't' || !process.is_alive())
        });
        processes::kill(supervisor, libc::SIGTERM);
        let said = talk.expect("READY> ");
        assert!(!said.contains("Stopped"), "{said}");
    }
}
