//! No lock that another user, or a sandbox, can hold stands in a tool's way: `srt-relay unix:` and `--publish` make their
//! sockets while somebody has the directory locked, and still replace a dead socket one at a time.

use srt_tests::attacks::Sandbox;
use srt_tests::host::chain_out;
use srt_tests::talk::Talk;
use srt_tests::{Patience, Scratch, Who, both, dead_socket, run, tool, wait};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for any start, and shorter than the patience that a lock was once waited for with.
const AT_MOST: Duration = Duration::from_secs(4);

/// Whoever can read a directory can lock it (flock(2)).
const HOLDER: [&str; 3] = ["sh", "-c", "echo held; exec cat"];

/// Another user who has it locked.
fn held_by_another_user(directory: &Path, how: &str) -> Talk {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=2000", "--regid=2000", "--clear-groups", "--", "flock", how])
        .arg(directory)
        .args(HOLDER);
    locked(command, directory)
}

/// A sandbox that sees it read-only, or may write it.
fn held_by_a_sandbox(who: Who, directory: &Path, how: &str, bind: &str) -> Talk {
    let mut command = who.command("srt-ns");
    command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    command
        .arg(bind)
        .arg(directory)
        .arg(directory)
        .args(["--", "srt-seccomp", "--", "flock", how])
        .arg(directory)
        .args(HOLDER);
    locked(command, directory)
}

fn locked(mut command: Command, directory: &Path) -> Talk {
    let mut talk = Talk::over_pipes(&mut command);
    talk.expect("held");
    // The control: it is locked for whoever asks.
    let asked = run(Command::new("flock").args(["--exclusive", "--nonblock"]).arg(directory).arg("true"));
    assert_eq!(asked.code, Some(1), "{asked:#?}");
    talk
}

/// All who may have the directory locked meanwhile.
fn holders(who: Who, directory: &Path) -> Vec<(String, Talk)> {
    let mut all = vec![];
    let mut holds = |name: &str, holder: Talk| all.push((name.to_owned(), holder));
    match who {
        // Two exclusive locks at once there cannot be: shared ones keep everybody from an exclusive one as well.
        Who::Root => holds("another user, exclusively", held_by_another_user(directory, "--exclusive")),
        Who::User => {
            holds("a sandbox, exclusively", held_by_a_sandbox(who, directory, "--exclusive", "--ro-bind"))
        }
    }
    all
}

fn shared_holders(who: Who, directory: &Path) -> Vec<Talk> {
    vec![
        held_by_another_user(directory, "--shared"),
        held_by_a_sandbox(who, directory, "--shared", "--ro-bind"),
        held_by_a_sandbox(who, directory, "--shared", "--bind"),
    ]
}

fn relay(who: Who, socket: &Path) -> Command {
    let mut command = who.command("srt-relay");
    command.args(["--ready-fd", "1"]).arg(format!("unix:{}", socket.display())).arg("tcp:127.0.0.1:9");
    command
}

/// srt-relay is ready in time, and its socket goes with it.
#[track_caller]
fn a_relay_serves(who: Who, socket: &Path, while_held: &str) {
    let start = Instant::now();
    let mut talk = Talk::over_pipes(&mut relay(who, socket));
    let said = talk.line();
    assert_eq!(said, "ready", "{while_held}");
    assert!(start.elapsed() < AT_MOST, "{while_held}: {:?}", start.elapsed());
    UnixStream::connect(socket).expect("connect");
    talk.signal(libc::SIGTERM);
    talk.status();
    assert!(!socket.exists(), "{while_held}: the socket stays");
}

/// `--publish` makes its socket in time, and removes it.
#[track_caller]
fn a_port_is_published(who: Who, scratch: &Scratch, socket: &Path, while_held: &str) {
    let start = Instant::now();
    let publish = format!("{}=8000", socket.display());
    let mut command = chain_out(who, &["--publish", &publish], &scratch.dir("work"));
    let ran = run(command.args(["sh", "-c", "echo it ran"]));
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "it ran\n"), "{while_held}: {ran:#?}");
    assert!(start.elapsed() < AT_MOST, "{while_held}: {:?}", start.elapsed());
    assert!(!socket.exists(), "{while_held}: the socket stays");
}

/// A socket whose listener is dead, which belongs to the user.
fn dead(who: Who, socket: &Path) {
    dead_socket(socket);
    srt_tests::chown_to(who, socket);
}

both! {
    fn a_lease_of_a_sandbox_keeps_nobody_waiting(who) {
        let scratch = who.scratch_in("/var/tmp");
        let program = scratch.join("program");
        srt_tests::copy_program(tool("attack"), &program);
        chown(&program, Some(who.uid()), Some(who.uid())).expect("chown");
        // Whoever opens it would wait, but for O_NONBLOCK.
        let open = || std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&program);
        let take = format!("import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open('{}', os.O_RDONLY)
try: fcntl.fcntl(file, 1024, fcntl.F_WRLCK); print('leased', flush=True)
except OSError as error: print('refused', error.errno, flush=True)
sys.stdin.read()", program.display());
        let sandbox = |options: &[&str]| {
            let words = ["/usr/bin/python3", "-I", "-S", "-c", &take];
            Talk::over_pipes(&mut Sandbox::bare(who).seccomp(options).command(&words))
        };
        let mut control = sandbox(&["--allow", "lease"]);
        control.expect("leased");
        assert!(open().is_err_and(|error| error.raw_os_error() == Some(libc::EWOULDBLOCK)));
        control.signal(libc::SIGTERM);
        control.status();
        let mut refused = sandbox(&[]);
        refused.expect("refused 1");
        open().expect("nobody has a lease");
        refused.signal(libc::SIGTERM);
        refused.status();
    }

    fn a_locked_directory_keeps_nobody_from_a_new_socket(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("run");
        let socket = directory.join("s.sock");
        for (name, _holder) in holders(who, &directory) {
            a_relay_serves(who, &socket, &name);
            a_port_is_published(who, &scratch, &socket, &name);
        }
        let _holders = shared_holders(who, &directory);
        a_relay_serves(who, &socket, "shared");
        a_port_is_published(who, &scratch, &socket, "shared");
    }

    fn a_locked_directory_keeps_nobody_from_replacing_a_dead_socket(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("run");
        let socket = directory.join("s.sock");
        for (name, _holder) in holders(who, &directory) {
            dead(who, &socket);
            a_relay_serves(who, &socket, &name);
            dead(who, &socket);
            a_port_is_published(who, &scratch, &socket, &name);
        }
    }

    fn of_those_who_replace_a_dead_socket_at_once_one_serves(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("run");
        let socket = directory.join("s.sock");
        let (name, _holder) = holders(who, &directory).swap_remove(0);
        for _ in 0..5 {
            dead(who, &socket);
            let mut all: Vec<_> = (0..8).map(|_| relay(who, &socket).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")).collect();
            let mut patience = Patience::default();
            // Seven give up; the one that serves stays.
            while all.iter_mut().filter_map(|child| child.try_wait().expect("wait")).count() < 7 {
                assert!(patience.spent() < 2 * AT_MOST, "{name}: more than one serves, or waits");
                std::thread::sleep(Duration::from_millis(2));
            }
            UnixStream::connect(&socket).expect("the one that serves is where the name leads");
            let serving = all.iter_mut().filter_map(|child| child.try_wait().expect("wait").is_none().then_some(())).count();
            assert_eq!(serving, 1, "{name}");
            for child in &mut all {
                if child.try_wait().expect("wait").is_none() {
                    srt_tests::processes::kill(child.id().try_into().expect("a pid"), libc::SIGTERM);
                    wait(child, "its end");
                } else {
                    assert_eq!(wait(child, "its end").code(), Some(1), "{name}");
                }
            }
            assert!(!socket.exists());
        }
    }

    fn a_living_socket_is_not_replaced_whoever_has_the_directory_locked(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("run");
        let socket = directory.join("s.sock");
        let _living = UnixListener::bind(&socket).expect("bind");
        let (name, _holder) = holders(who, &directory).swap_remove(0);
        let ran = run(&mut relay(who, &socket));
        assert_eq!(ran.code, Some(1), "{name}: {ran:#?}");
        UnixStream::connect(&socket).expect("it is still there");
        let publish = format!("{}=8000", socket.display());
        let ran = run(who.command("srt-ns").args(["--publish", &publish, "--", "echo", "it ran"]));
        ran.code(125).says("");
        UnixStream::connect(&socket).expect("it is still there");
    }
}
