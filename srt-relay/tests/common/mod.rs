//! What the tests of the relay share: a running relay, and streams of either family.

#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use srt_tests::noise::Noise;
pub use srt_tests::servers::free_port;
use srt_tests::{DEADLINE, Who, pass_fd, wait, wait_until};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A relay that has said `ready`. Killed when it goes out of scope.
pub struct Relay {
    pub child: Child,
    stderr: Arc<Mutex<String>>,
}

impl Relay {
    /// Starts a relay with these arguments and waits until it accepts.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(who: Who, args: &[S]) -> Self {
        Self::start_with(who, args, &[])
    }

    /// The same, with descriptors of this process and the numbers they have in the relay.
    #[track_caller]
    pub fn start_with<S: AsRef<OsStr>>(who: Who, args: &[S], fds: &[(RawFd, RawFd)]) -> Self {
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1"]).args(args);
        Self::spawn(command, fds)
    }

    /// Starts a command that becomes a relay with `--ready-fd 1`.
    #[track_caller]
    pub fn spawn(mut command: std::process::Command, fds: &[(RawFd, RawFd)]) -> Self {
        let copies: Vec<_> = fds.iter().map(|(own, _)| srt_tests::above(own)).collect();
        for (copy, &(_, number)) in copies.iter().zip(fds) {
            pass_fd(&mut command, copy.as_raw_fd(), number);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
        drop(copies);
        let stderr = Arc::new(Mutex::new(String::new()));
        let (lines, sink) = (child.stderr.take().expect("stderr"), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                *sink.lock().expect("lock") += &format!("{line}\n");
            }
        });
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("read");
        let mut relay = Self { child, stderr };
        if out != "ready\n" {
            let status = relay.wait();
            reader.join().expect("stderr");
            panic!("not ready but {out:?}, {status}: {}", relay.stderr());
        }
        relay
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("lock").clone()
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> usize {
        self.open().count()
    }

    /// The links of its descriptors in /proc.
    pub fn open(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("fd");
        entries.map(|entry| entry.expect("an entry").path())
    }

    /// Waits until it has as many descriptors as before.
    #[track_caller]
    pub fn settles_at(&self, descriptors: usize) {
        wait_until(&format!("{descriptors} descriptors"), || self.descriptors() == descriptors);
    }

    /// Uses `most` clock ticks (10 ms) of CPU time or fewer in `time`, once what is in flight has come to rest.
    #[track_caller]
    pub fn is_idle_for(&self, time: Duration, most: u64) {
        let used = || {
            let before = self.cpu_ticks();
            std::thread::sleep(time);
            self.cpu_ticks() - before
        };
        wait_until("it to come to rest", || used() <= most);
        assert!(used() <= most, "it spins");
    }

    /// Its CPU time so far, in clock ticks.
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: two integers; the child is not reaped yet, so the number is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child, "the relay's end")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the relay's stderr: {}", self.stderr());
        }
    }
}

/// A stream socket of either family.
pub trait Stream: Read + Write + AsRawFd + Send {
    fn end(&self);
    fn another(&self) -> Box<dyn Stream>;
    fn deadline(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
    fn another(&self) -> Box<dyn Stream> {
        Box::new(self.try_clone().expect("dup"))
    }
    fn deadline(&self) {
        self.set_read_timeout(Some(DEADLINE)).expect("timeout");
        self.set_write_timeout(Some(DEADLINE)).expect("timeout");
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
    fn another(&self) -> Box<dyn Stream> {
        Box::new(self.try_clone().expect("dup"))
    }
    fn deadline(&self) {
        self.set_read_timeout(Some(DEADLINE)).expect("timeout");
        self.set_write_timeout(Some(DEADLINE)).expect("timeout");
    }
}

/// A stream on which nothing waits for ever.
pub fn bounded(stream: impl Stream + 'static) -> Box<dyn Stream> {
    stream.deadline();
    Box::new(stream)
}

/// The four ways in which a relay can stand between two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    TcpToUnix,
    UnixToTcp,
    TcpToTcp,
    UnixToUnix,
}

pub const WAYS: [Way; 4] = [Way::TcpToUnix, Way::UnixToTcp, Way::TcpToTcp, Way::UnixToUnix];

/// A relay and the two sides of it.
pub struct Setup {
    pub relay: Relay,
    connect: Box<dyn Fn() -> Box<dyn Stream>>,
    accept: Box<dyn Fn() -> Box<dyn Stream>>,
    _scratch: srt_tests::Scratch,
}

impl Setup {
    pub fn new(who: Who, way: Way) -> Self {
        let scratch = who.scratch();
        let (listen, target) = (scratch.join("listen"), scratch.join("target"));
        let (from_tcp, to_tcp) =
            (matches!(way, Way::TcpToUnix | Way::TcpToTcp), matches!(way, Way::UnixToTcp | Way::TcpToTcp));
        let (accept, connect_address): (Box<dyn Fn() -> Box<dyn Stream>>, String) = if to_tcp {
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let port = server.local_addr().expect("address").port();
            (Box::new(move || bounded(server.accept().expect("accept").0)), format!("tcp:127.0.0.1:{port}"))
        } else {
            let server = srt_tests::unix_listener(who, &target);
            (
                Box::new(move || bounded(server.accept().expect("accept").0)),
                format!("unix:{}", target.display()),
            )
        };
        let port = free_port();
        let listen_address =
            if from_tcp { format!("tcp:127.0.0.1:{port}") } else { format!("unix:{}", listen.display()) };
        let relay = Relay::start(who, &[listen_address, connect_address]);
        let connect: Box<dyn Fn() -> Box<dyn Stream>> = if from_tcp {
            Box::new(move || bounded(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect")))
        } else {
            Box::new(move || bounded(UnixStream::connect(&listen).expect("connect")))
        };
        Self { relay, connect, accept, _scratch: scratch }
    }

    pub fn pair(&self) -> (Box<dyn Stream>, Box<dyn Stream>) {
        ((self.connect)(), (self.accept)())
    }
}

/// Everything up to the end of the stream.
#[track_caller]
pub fn read_all(stream: &mut (impl Read + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end of the stream");
    bytes
}

/// Closes with a reset rather than an end.
pub fn reset(stream: TcpStream) {
    reset_on_close(&stream);
}

/// The same when it is closed.
pub fn reset_on_close(stream: &(impl AsRawFd + ?Sized)) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as u32;
    // SAFETY: a pointer to a linger and its size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            length,
        )
    };
    assert_eq!(result, 0);
}

/// Whether something can be written within `time`.
pub fn has_room(stream: &(impl AsRawFd + ?Sized), time: Duration) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as i32) == 1 }
}

/// A pipe: to read from, and to give away.
pub fn pipe() -> (File, OwnedFd) {
    let mut ends = [-1; 2];
    // SAFETY: two descriptors are written.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: new, so nothing else owns it.
    let read = unsafe { File::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    (read, unsafe { OwnedFd::from_raw_fd(ends[1]) })
}

/// Writes `total` bytes of noise in pieces of changing size, then ends; returns how many.
pub fn send_noise(stream: &mut dyn Stream, seed: u64, total: usize) -> io::Result<usize> {
    let (mut noise, mut left) = (Noise::new(seed), total);
    let mut size = 1;
    while left > 0 {
        size = (size * 7 + 13) % 300_000 + 1;
        let piece = noise.next(size.min(left));
        stream.write_all(piece)?;
        left -= piece.len();
    }
    stream.end();
    Ok(total)
}

/// Reads up to the end, which must be the noise with this seed; returns how many bytes it was.
pub fn receive_noise(stream: &mut dyn Stream, seed: u64) -> io::Result<usize> {
    let (mut noise, mut got, mut buffer) = (Noise::new(seed), 0, vec![0; 100_000]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(got);
        }
        assert!(noise.goes_on_with(&buffer[..count]), "something is wrong after {got} bytes");
        got += count;
    }
}
