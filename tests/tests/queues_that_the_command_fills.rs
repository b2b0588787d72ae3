//! Nothing that the command does can delay a duty of the supervisor: the deadline, the caller's death and signals are
//! looked at whatever it floods the supervisor and PID 1 with.
//!
//! The control is a supervisor that is the command's parent and reads on as long as there is something to read: it fails
//! here. `SRT_FLOOD=12000` makes as many sleepers as that finding had.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::processes::{Family, Process, child_named};
use srt_tests::talk::{Talk, code};
use srt_tests::{MANY_PROCESSES, Patience, Who, both, turn_of, wait_until};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
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
    let mut patience = Patience::default();
    while talk.is_alive() {
        let waited = patience.spent();
        assert!(waited < AT_MOST, "{what}: still there after {waited:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{what}: {:?}", patience.spent());
    code(talk.status())
}

/// The writing end of the one pipe that goes from a process to another.
#[track_caller]
fn pipe_between(from: i32, to: i32) -> File {
    let fds = |pid: i32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        fds.filter_map(|fd| Some((std::fs::read_link(fd.path()).ok()?, fd.path()))).collect::<Vec<_>>()
    };
    let theirs = fds(to);
    let is_pipe = |link: &Path| link.to_str().is_some_and(|link| link.starts_with("pipe:"));
    let mut shared = fds(from);
    shared.retain(|(link, _)| is_pipe(link) && theirs.iter().any(|(other, _)| other == link));
    assert_eq!(shared.len(), 1, "{shared:?}");
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&shared[0].1).expect("the pipe")
}

both! {
    fn a_flooded_supervisor_keeps_the_deadline(who) {
        let _turn = turn_of(MANY_PROCESSES);
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
        let _turn = turn_of(MANY_PROCESSES);
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
        let _turn = turn_of(MANY_PROCESSES);
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

    fn srt_init_goes_on_where_the_supervisor_reads_no_reports_of_stops(who) {
        let family = Family::new();
        // Its child stops it again and again. Then an orphan must be reaped.
        let script = "import os, signal, time
command = os.getpid()
os.write(1, b'ready\\n')
os.read(0, 1)
if os.fork() == 0:
    for _ in range(50):
        os.kill(command, signal.SIGSTOP)
        time.sleep(0.001)
        os.kill(command, signal.SIGCONT)
    read, write = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0: os._exit(os.write(write, b'%d' % os.getpid()) and 0)
        os._exit(0)
    os.wait()
    orphan = int(os.read(read, 16))
    try:
        while True:
            os.kill(orphan, 0)
            time.sleep(0.001)
    except ProcessLookupError: os.write(1, b'reaped\\n')
time.sleep(1000)";
        let mut talk = Talk::over_pipes(&mut Sandbox::bare(who).ns(&["--keep-session"]).command(&["/usr/bin/python3", "-c", script]));
        talk.expect("ready");
        let mut reports = pipe_between(child_named(talk.pid(), "srt-init"), talk.pid());
        talk.signal(libc::SIGSTOP);
        wait_until("the supervisor's stop", || Process::find(talk.pid()).is_some_and(|own| own.state == 'T'));
        // Full of reports of stops.
        while reports.write(&b"s\0".repeat(2048)).is_ok() {}
        talk.send("\n");
        talk.expect("reaped");
        assert!(reports.write(b"s\0").is_err(), "the supervisor has read");
        talk.signal(libc::SIGCONT);
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 128 + libc::SIGTERM);
        family.ends();
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
