//! What the tests share: the tools where any user can run them, root and an ordinary user, scratch directories,
//! and runs with a deadline.
//!
//! A test is written once and run as root and as an ordinary user with [`both!`], since the kernel treats them
//! differently. What the kernel or the machine cannot do is skipped aloud with [`skip!`]; under `SRT_MUST_RUN=1`
//! a skip is a failure.

pub mod attacks;
pub mod bpf;
pub mod host;
pub mod manual;
pub mod noise;
pub mod pages;
pub mod processes;
pub mod random;
pub mod raw_filters;
pub mod refusals;
pub mod servers;
pub mod talk;
pub mod tree;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The ordinary user's uid and gid. No entry in /etc/passwd is needed.
pub const USER: u32 = 1000;

/// What srt-seccomp denies unless `--allow` says otherwise.
pub const DEFAULT_RULES: &str = "unix,vsock,io-uring,tty-inject,sigio,keyring,pid1,lease,snapshot";

/// All five, and the attacker's program (see [`attacks`]), which lies beside them.
const TOOLS: [&str; 6] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect", ATTACK];
const ATTACK: &str = "attack";

/// How long anything may take before a test calls it stuck.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Who runs a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// uid 0 with all capabilities.
    Root,
    /// uid 1000 with none.
    User,
}

impl Who {
    /// The uid that commands run with.
    pub fn uid(self) -> u32 {
        if self == Self::Root { 0 } else { USER }
    }

    /// A command that this user runs: directly, or through setpriv(1). A tool's bare name (`srt-ns`) is the
    /// tool under test; anything else is found as usual.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        reset_inherited();
        let program = program.as_ref();
        let name = program.to_string_lossy();
        let program = if name.starts_with("srt-") && !name.contains('/') {
            tool(&name).into_os_string()
        } else {
            program.to_os_string()
        };
        let mut command = match self {
            Self::Root => Command::new(program),
            Self::User => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"]).arg(program);
                command
            }
        };
        command
            .current_dir("/")
            .env("PATH", path_with_tools())
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null());
        command
    }

    /// A new directory that belongs to this user, mode 0755, reachable for everybody.
    pub fn scratch(self) -> Scratch {
        self.scratch_in("/tmp")
    }

    /// The same elsewhere.
    pub fn scratch_in(self, parent: &str) -> Scratch {
        let dir = tempfile::Builder::new().prefix("srt-").tempdir_in(parent).expect("a scratch directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        chown(dir.path(), Some(self.uid()), Some(self.uid())).expect("chown");
        Scratch { dir, who: self }
    }
}

/// Takes back what whoever runs the tests has had ignored: nohup(1), a shell's background job, a runner that reaps nobody.
/// Children of these tests start as if nothing had been.
///
/// A handler that does nothing, not the default: nohup(1) still means this process, and an exec makes the default of it
/// (execve(2)). An ignored SIGCHLD would take away what wait(2) is to tell (wait(2), NOTES).
pub fn reset_inherited() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for signal in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGCHLD,
            // What Python's interpreter ignores, and leaves so to what it runs; SIGPIPE, too, which std sees to.
            libc::SIGXFSZ,
        ] {
            // SAFETY: all-zero bytes are a valid sigaction; the handler does nothing at all.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut action);
                if action.sa_sigaction == libc::SIG_IGN {
                    action.sa_sigaction = match signal {
                        libc::SIGCHLD => libc::SIG_DFL,
                        _ => nothing as extern "C" fn(libc::c_int) as libc::sighandler_t,
                    };
                    action.sa_flags = libc::SA_RESTART;
                    libc::sigaction(signal, &raw const action, std::ptr::null_mut());
                }
            }
        }
    });
}

/// A directory that goes away with the test.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    who: Who,
}

impl Scratch {
    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its path as text, for argv.
    pub fn text(&self) -> &str {
        self.dir.path().to_str().expect("UTF-8")
    }

    /// Makes a directory in it (and those above), which belongs to the user.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let mut path = self.dir.path().to_path_buf();
        for part in name.as_ref().components() {
            path.push(part);
            if fs::create_dir(&path).is_ok() {
                chown(&path, Some(self.who.uid()), Some(self.who.uid())).expect("chown");
            }
        }
        path
    }

    /// Makes a file in it, mode 0644, which belongs to the user.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        if let Some(parent) = name.as_ref().parent() {
            self.dir(parent);
        }
        let path = self.join(name);
        fs::write(&path, content).expect("write");
        chown(&path, Some(self.who.uid()), Some(self.who.uid())).expect("chown");
        path
    }

    /// Makes an executable file in it.
    pub fn script(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        wait_for_writers(&path);
        path
    }
}

/// Copies a program, which can be executed then.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    fs::copy(from, &to).expect("a copy");
    wait_for_writers(to.as_ref());
}

/// Waits until nobody has a file open for writing: a child that another test has just forked may have the descriptor with
/// which it was written, and an exec fails with ETXTBSY meanwhile. A read lease is given only then (fcntl(2)).
fn wait_for_writers(path: &Path) {
    let file = fs::File::open(path).expect("open");
    wait_until("nobody to write a program", || {
        // SAFETY: an open descriptor and integers.
        let lease =
            |kind: libc::c_int| (unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }) == 0;
        lease(libc::F_RDLCK) && lease(libc::F_UNLCK)
    });
}

/// The tool under test, in a place where every user can run it and its siblings lie beside it.
pub fn tool(name: &str) -> PathBuf {
    let path = tools().join(name);
    assert!(path.exists(), "{name} is not built: run cargo test --workspace, or cargo build first");
    path
}

/// The directory of the tools: a copy, since the checkout may lie where an ordinary user cannot reach it. They are the
/// ones built with the tests, or those in the directory that `SRT_TOOLS` names.
pub fn tools() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        // target/…/debug/deps/this-test → target/…/debug
        let exe = std::env::current_exe().expect("current_exe");
        let built = exe.ancestors().find(|dir| TOOLS.iter().any(|name| dir.join(name).is_file()));
        let built = built.unwrap_or_else(|| panic!("no srt tool is built beside {}", exe.display()));
        let chosen = std::env::var_os("SRT_TOOLS").map(PathBuf::from);
        let files = TOOLS.map(|name| match &chosen {
            Some(chosen) if name != ATTACK => {
                let file = chosen.join(name);
                assert!(file.is_file(), "SRT_TOOLS: there is no {}", file.display());
                file
            }
            _ => built.join(name),
        });
        // One copy for all tests of a build: the name says which build it is of.
        let times = files.iter().filter_map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok());
        let times = times.map(|time| time.duration_since(std::time::UNIX_EPOCH).expect("time").as_nanos());
        let mut build = std::hash::DefaultHasher::new();
        (times.collect::<Vec<_>>(), &files).hash(&mut build);
        let shared = PathBuf::from(format!("/tmp/srt-tools-{:x}", build.finish()));
        if !shared.exists() {
            let fresh = tempfile::Builder::new().prefix("srt-tools-").tempdir_in("/tmp").expect("tempdir");
            for file in files.iter().filter(|file| file.is_file()) {
                // By cp(1): another test's child could inherit a descriptor that is open for writing: ETXTBSY.
                let copied = Command::new("cp").arg(file).arg(fresh.path()).status();
                assert!(copied.expect("cp").success(), "copy {}", file.display());
            }
            fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
            // Two test processes may race: rename succeeds for the first, and the other's copy is dropped.
            if fs::rename(fresh.path(), &shared).is_ok() {
                let _moved = fresh.keep();
            }
        }
        shared
    })
}

/// PATH with the tools first.
pub fn path_with_tools() -> OsString {
    let mut path = tools().as_os_str().to_os_string();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

/// How a run ended and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// All of stdout.
    pub out: String,
    /// All of stderr.
    pub err: String,
}

impl Ran {
    /// Fails the test unless the exit code is this.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails the test unless the run succeeded.
    #[track_caller]
    pub fn ok(&self) -> &Self {
        self.code(0)
    }

    /// Fails the test unless stdout is this, white space at the end aside.
    #[track_caller]
    pub fn says(&self, out: &str) -> &Self {
        assert_eq!(self.out.trim_end(), out, "{self:#?}");
        self
    }

    /// Fails the test unless stderr contains this.
    #[track_caller]
    pub fn complains(&self, of: &str) -> &Self {
        assert!(tells(&self.err, of), "expected {of:?} in {self:#?}");
        self
    }

    /// Fails the test unless stderr is two lines: one of `tool: …` with `error`, one of `tool: hint: …` with `hint`.
    #[track_caller]
    pub fn hints(&self, tool: &str, error: &str, hint: &str) -> &Self {
        self.one_clear_error(tool);
        let lines = self.error_lines();
        assert!(tells(lines[0], error), "expected {error:?} in {self:#?}");
        assert!(
            lines.get(1).is_some_and(|line| line.contains(hint)),
            "expected a hint with {hint:?} in {self:#?}"
        );
        self
    }

    /// The lines of stderr, without the one in which srt-mount says where PROGRAM starts: it is no failure.
    fn error_lines(&self) -> Vec<&str> {
        let is_note = |line: &&str| line.starts_with("srt-mount: ") && line.contains(": PROGRAM starts in ");
        self.err.lines().filter(|line| !is_note(line)).collect()
    }

    /// Fails the test unless stderr is one line of `tool: …`, with or without a second `tool: hint: …`.
    #[track_caller]
    pub fn one_clear_error(&self, tool: &str) -> &Self {
        let lines = self.error_lines();
        let named = |line: &&str| line.starts_with(&format!("{tool}: "));
        let hinted = lines.get(1).is_none_or(|line| line.starts_with(&format!("{tool}: hint: ")));
        assert!((1..=2).contains(&lines.len()) && lines.iter().all(named) && hinted, "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }
}

/// Whether an error line contains this: with musl, strerror(3) has other words for some.
fn tells(line: &str, of: &str) -> bool {
    const MUSL: [(&str, &str); 6] = [
        ("File name too long", "Filename too long"),
        ("Cannot allocate memory", "Out of memory"),
        ("Cannot assign requested address", "Address not available"),
        ("Disk quota exceeded", "Quota exceeded"),
        ("Too many open files", "No file descriptors available"),
        ("Operation not supported", "Not supported"),
    ];
    line.contains(of)
        || line.contains(&MUSL.iter().fold(of.to_owned(), |of, (glibc, musl)| of.replace(glibc, musl)))
}

/// Runs a command to its end, which must come before [`DEADLINE`].
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    run_with_input(command, b"")
}

/// What `run` has run in the end: bubblewrap fails where a mount goes away meanwhile, and other tests have some.
pub fn run_bwrap(mut run: impl FnMut() -> Ran) -> Ran {
    let passes =
        |ran: &Ran| ![&ran.out, &ran.err].iter().any(|said| said.contains("Unable to apply mount flags"));
    std::iter::repeat_with(&mut run).take(10).find(passes).unwrap_or_else(run)
}

/// The same as [`run`] with something on stdin, unless it is empty.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    reset_inherited();
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stdin = child.stdin.take();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            let _closed = stdin.write_all(&input);
        }
    });
    let collect = |stream: Option<Box<dyn Read + Send>>| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _closed = stream.read_to_end(&mut bytes);
            }
            let _late = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        receiver
    };
    let out = collect(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let err = collect(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let status = wait(&mut child, &format!("the end of {command:?}"));
    let [out, err] = [out, err].map(|text| {
        text.recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("somebody outlives {command:?} and holds its output"))
    });
    feeder.join().expect("feeder");
    Ran { code: status.code(), signal: status.signal(), out, err }
}

/// For how long somebody looks for something again and again. Not the clock's time: a virtual machine may stand still, and
/// everything in it with it, so from one look to the next at most a second counts.
#[derive(Debug)]
pub struct Patience {
    last: Instant,
    spent: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { last: Instant::now(), spent: Duration::ZERO }
    }
}

impl Patience {
    /// Another look: how much time counts so far.
    pub fn spent(&mut self) -> Duration {
        let now = Instant::now();
        self.spent += (now - std::mem::replace(&mut self.last, now)).min(Duration::from_secs(1));
        self.spent
    }
}

/// Waits for a child's end; kills it and fails the test at the deadline, and tells what it and its children do.
#[track_caller]
pub fn wait(child: &mut Child, what: &str) -> std::process::ExitStatus {
    let mut patience = Patience::default();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status;
        }
        if patience.spent() > DEADLINE {
            let who_does_what = processes::tree(child.id());
            let _gone = child.kill();
            panic!("waited {DEADLINE:?} in vain for {what}; there are\n{who_does_what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds; fails the test at the deadline with `what` was awaited.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut patience = Patience::default();
    while !condition() {
        assert!(patience.spent() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// poll(2), without waiting: whether any of these events is there, an end or an error too.
pub fn is_ready(fd: &impl AsRawFd, events: libc::c_short) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

/// What an ordinary user may have 200 of (keyrings(7), maxkeys): each srt-init and each srt-relay has a keyring.
pub const MANY_KEYS: &str = "srt-tests-many-keys";

/// What a test limits for an ordinary user (getrlimit(2), RLIMIT_NPROC), and another has many of.
pub const MANY_PROCESSES: &str = "srt-tests-many-processes";

/// A turn of those tests, in all programs, that take much of one thing.
pub fn turn_of(name: &str) -> UnixListener {
    let name = SocketAddr::from_abstract_name(name).expect("a name");
    loop {
        if let Ok(turn) = UnixListener::bind_addr(&name) {
            return turn;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a Unix socket that nobody listens on.
#[track_caller]
pub fn dead_socket(path: impl AsRef<Path>) {
    drop(UnixListener::bind(&path).expect("bind"));
    nobody_listens(path);
}

/// Waits until a socket that was closed is dead: a child that another test starts has it until its exec.
#[track_caller]
pub fn nobody_listens(path: impl AsRef<Path>) {
    wait_until("nobody to listen", || UnixStream::connect(&path).is_err());
}

/// Does `work` for each of `cases`, up to `most` of them at a time: what mostly waits need not wait for the others. Fails
/// the test if one fails.
pub fn at_once<T: Send>(most: usize, cases: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let cases = Mutex::new(cases.into_iter().collect::<Vec<_>>().into_iter());
    let next = || cases.lock().expect("nothing fails under the lock").next();
    std::thread::scope(|scope| {
        for _ in 0..most {
            scope.spawn(|| {
                while let Some(case) = next() {
                    work(case);
                }
            });
        }
    });
}

/// Options of srt-mount: the host read-only, with a fresh /dev and /proc.
pub const READ_ONLY: [&str; 7] = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"];

/// The whole chain around a command: everything read-only, fresh /dev, /proc and /tmp, and `work` writable.
pub fn chain(who: Who, work: &Path) -> Command {
    chain_with(who, work, &[])
}

/// The same with more options for each of the three stages.
pub fn chain_with(who: Who, work: &Path, options: &[&str]) -> Command {
    let mut command = who.command("srt-ns");
    command.args(options).args(["--", "srt-mount"]).args(options);
    command.args(READ_ONLY).args(["--tmpfs", "/tmp"]);
    command.arg("--bind").arg(work).arg(work).arg("--chdir").arg(work);
    command.args(["--placeholders", "--", "srt-seccomp"]).args(options).arg("--");
    command
}

/// Runs a shell script as the command of [`chain`].
#[track_caller]
pub fn in_chain(who: Who, work: &Path, script: &str) -> Ran {
    run(chain(who, work).args(["sh", "-c", script]))
}

/// Gives a file to the user.
pub fn chown_to(who: Who, path: &Path) {
    chown(path, Some(who.uid()), Some(who.uid())).expect("chown");
}

/// A Unix socket that listens, and that its user may connect to.
#[track_caller]
pub fn unix_listener(who: Who, path: impl AsRef<Path>) -> UnixListener {
    let listener = UnixListener::bind(&path).expect("bind");
    chown_to(who, path.as_ref());
    listener
}

/// Whether there is an address ::1: a kernel with IPv6 may have been told to use none.
pub fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Whether this process is root and can so play both parts.
pub fn am_root() -> bool {
    // SAFETY: no argument, no failure.
    (unsafe { libc::geteuid() }) == 0
}

/// The ABI of this kernel's Landlock, 0 without it.
pub fn landlock_abi() -> i64 {
    // SAFETY: a null pointer and integers: LANDLOCK_CREATE_RULESET_VERSION.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, 1u32) }.max(0)
}

/// Whether this kernel is Linux MAJOR.MINOR or newer.
pub fn linux_at_least(version: [u32; 2]) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    release.split('.').map_while(|number| number.parse().ok()).collect::<Vec<_>>() >= version.to_vec()
}

/// Whether a program is in PATH.
pub fn has(program: &str) -> bool {
    std::env::split_paths(&path_with_tools()).any(|dir| dir.join(program).is_file())
}

/// A copy above every number that a command inherits: passing one descriptor closes no other that is to be passed.
pub fn above(fd: &impl std::os::fd::AsRawFd) -> std::os::fd::OwnedFd {
    // SAFETY: no pointer.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 300) };
    assert!(copy >= 0, "F_DUPFD_CLOEXEC");
    // SAFETY: just made, and nobody else's.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) }
}

/// Lets `command` inherit `fd` as descriptor `number`. Where it inherits several, `fd` is one from [`above`].
pub fn pass_fd(command: &mut Command, fd: std::os::fd::RawFd, number: std::os::fd::RawFd) {
    // SAFETY: dup2 and fcntl are async-signal-safe, and touch only the child's descriptors.
    unsafe {
        command.pre_exec(move || {
            let done = if fd == number { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, number) };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Says it, and adds it to the file that `SRT_SKIPPED` names: libtest counts a skipped test as passed, tests/all does not.
#[track_caller]
pub fn note_skipped(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("SRT_SKIPPED") {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let file = fs::File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{name}: {why}\n").as_bytes())).expect("SRT_SKIPPED");
    }
}

/// Ends a test that cannot run here, and says why; a failure under `SRT_MUST_RUN=1`.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        let why = format!($($why)*);
        assert!(std::env::var_os("SRT_MUST_RUN").is_none_or(|must| must != "1"), "cannot run here: {why}");
        $crate::note_skipped(&why);
        return;
    }};
}

/// `both! { fn name(who) { … } }` makes the tests `name::as_root` and `name::as_an_ordinary_user`.
#[macro_export]
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident($who:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$meta])*
            fn body($who: $crate::Who) $body

            #[test]
            fn as_root() {
                $crate::reset_inherited();
                if !$crate::am_root() {
                    $crate::skip!("the tests do not run as root");
                }
                body($crate::Who::Root);
            }

            #[test]
            fn as_an_ordinary_user() {
                $crate::reset_inherited();
                if !$crate::am_root() {
                    $crate::skip!("the tests do not run as root");
                }
                body($crate::Who::User);
            }
        }
    )*};
}

/// CLOCK_MONOTONIC in nanoseconds: the same in all processes.
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a local; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
