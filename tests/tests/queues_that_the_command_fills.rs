//! Nothing that the command does can delay a duty of the supervisor: the deadline, the caller's death and signals are
//! looked at whatever it floods the supervisor and PID 1 with.
//!
//! The control is a supervisor that is the command's parent and reads on as long as there is something to read: it fails
//! here. `SRT_FLOOD=12000` makes as many sleepers as that finding had.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::processes::Family;
use srt_tests::talk::{Talk, code};
use srt_tests::{Who, both};
use std::process::Command;
use std::time::{Duration, Instant};

/// No duty of the supervisor may take longer, on a machine that a flood keeps busy.
const AT_MOST: Duration = Duration::from_secs(5);

/// What reaches whoever is the command's parent, or PID 1, and the options with which somebody may have to read it.
fn floods() -> Vec<(Vec<String>, &'static [&'static str])> {
    let sleepers = std::env::var("SRT_FLOOD").unwrap_or_else(|_| "1000".into());
    let of_the_parent = ["flood-parent".to_owned(), sleepers, "3".to_owned()];
    vec![
        (of_the_parent.to_vec(), &[]),
        (of_the_parent.to_vec(), &["--wait-all"]),
        (vec!["flood-init".into()], &["--wait-all"]),
        (vec!["flood-stops".into()], &[]),
        (vec!["flood-stops".into()], &["--keep-session"]),
    ]
}

/// The sandbox whose command is a flood.
fn sandbox(who: Who, options: &[&str], flood: &[String]) -> Command {
    let mut command = Sandbox::bare(who).ns(options).command(&[INSIDE]);
    command.args(flood);
    command
}

/// Waits for the end, which must come in time, and returns how.
#[track_caller]
fn end_in_time(talk: &mut Talk, what: &str) -> i32 {
    let start = Instant::now();
    while talk.is_alive() {
        assert!(start.elapsed() < AT_MOST, "{what}: still there after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{what}: {:?}", start.elapsed());
    code(talk.status())
}

both! {
    fn a_flooded_supervisor_keeps_the_deadline(who) {
        let family = Family::new();
        for (flood, options) in floods() {
            let mut talk = Talk::over_pipes(&mut sandbox(who, &[options, &["--kill-after", "0.3"]].concat(), &flood));
            talk.expect("ready");
            talk.signal(libc::SIGTERM);
            assert_eq!(end_in_time(&mut talk, &format!("{flood:?} {options:?}")), 137);
            family.ends();
        }
    }

    fn a_flooded_supervisor_ends_with_its_caller(who) {
        let family = Family::new();
        for (flood, options) in floods() {
            let sandbox = sandbox(who, options, &flood);
            let words = [sandbox.get_program()].into_iter().chain(sandbox.get_args());
            let mut talk = Talk::over_pipes(Command::new("sh").args(["-c", "\"$@\" & wait", "sh"]).args(words));
            talk.expect("ready");
            talk.signal(libc::SIGKILL);
            talk.status();
            let took = family.ends();
            eprintln!("{flood:?} {options:?}: {took:?}");
            assert!(took < AT_MOST, "{flood:?} {options:?}: {took:?}");
        }
    }

    fn a_flooded_supervisor_passes_signals_on(who) {
        let family = Family::new();
        // Under --keep-session a supervisor stops with its command: what it gets then waits, but for SIGTERM.
        for (flood, options) in floods().into_iter().filter(|(_, options)| options.is_empty()) {
            let mut talk = Talk::over_pipes(&mut sandbox(who, options, &flood));
            talk.expect("ready");
            talk.signal(libc::SIGUSR1);
            assert_eq!(end_in_time(&mut talk, &format!("{flood:?} {options:?}")), 128 + libc::SIGUSR1);
            family.ends();
        }
    }

    fn connections_that_a_relay_cannot_make_delay_nothing(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let socket = scratch.join("dead");
        // Nobody listens any more: every connection inside ends at once, and the relay may have something to say.
        drop(srt_tests::host::Greeter::start(&socket, "never"));
        let script = "import os, signal, socket
for s in range(1, 32):
    if s not in (9, 17, 19): signal.signal(s, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        while True:
            try: socket.create_connection(('127.0.0.1', 8080)).recv(1)
            except OSError: pass
os.write(1, b'ready\\n')
while True: os.wait()
";
        let relay = format!("8080={}", socket.display());
        let options = ["--relay", &relay, "--kill-after", "0.3"];
        let mut talk = Talk::over_pipes(&mut Sandbox::bare(who).ns(&options).command(&["/usr/bin/python3", "-c", script]));
        talk.expect("ready");
        let start = Instant::now();
        talk.signal(libc::SIGTERM);
        // All is read that it says.
        assert_eq!(talk.end().0, 137);
        assert!(start.elapsed() < AT_MOST, "{:?}", start.elapsed());
        assert_eq!(family.members(), []);
    }
}
