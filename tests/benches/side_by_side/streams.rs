//! Streams of either family, and bytes that flow through them for a while: every byte that is sent must arrive.

use crate::relays::{Route, listen};
use crate::report::Result;
use srt_tests::DEADLINE;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How much is read or written at once.
const CHUNK: usize = 128 << 10;

/// A connected socket.
pub trait Duplex: Read + Write + Send {
    fn end(&self) -> io::Result<()>;
    fn copy(&self) -> io::Result<Box<dyn Duplex>>;
    /// Bounds how long a call may take.
    fn bounded(&self) -> io::Result<()>;
    fn patience(&self, limit: Duration) -> io::Result<()>;
}

macro_rules! duplex {
    ($stream:ty) => {
        impl Duplex for $stream {
            fn end(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
            fn copy(&self) -> io::Result<Box<dyn Duplex>> {
                Ok(Box::new(self.try_clone()?))
            }
            fn bounded(&self) -> io::Result<()> {
                self.patience(DEADLINE)
            }
            fn patience(&self, limit: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(limit))?;
                self.set_write_timeout(Some(limit))
            }
        }
    };
}

duplex!(TcpStream);
duplex!(UnixStream);

/// The server's listening socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub fn tcp(port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listen(&socket)?;
        Ok(Self::Tcp(socket))
    }

    pub fn unix(path: &Path) -> io::Result<Self> {
        let socket = UnixListener::bind(path)?;
        listen(&socket)?;
        Ok(Self::Unix(socket))
    }

    /// The next connection. One that does not come ends in an error at the deadline.
    pub fn accept(&self) -> io::Result<Box<dyn Duplex>> {
        use std::os::fd::AsRawFd;
        let fd = match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: a pointer to one pollfd that lives through the call.
        match unsafe { libc::poll(&raw mut poll, 1, DEADLINE.as_millis() as libc::c_int) } {
            1 => {}
            0 => return Err(io::ErrorKind::TimedOut.into()),
            _ => return Err(io::Error::last_os_error()),
        }
        self.accept_whenever()
    }

    /// The next connection, however long it takes.
    pub fn accept_whenever(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Tcp(socket) => {
                let stream = socket.accept()?.0;
                stream.set_nodelay(true)?;
                stream.bounded()?;
                Box::new(stream)
            }
            Self::Unix(socket) => {
                let stream = socket.accept()?.0;
                stream.bounded()?;
                Box::new(stream)
            }
        })
    }

    /// Ends the waits of [`Self::accept_whenever`]: they fail from now on.
    pub fn shut_down(&self) {
        use std::os::fd::AsRawFd;
        let fd = match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        };
        // SAFETY: integers.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

/// What is sent: the byte at each place says which place it is, so that one that is lost, doubled or out of order shows.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| (0..CHUNK * 8).map(byte_at).collect())
}

fn byte_at(place: usize) -> u8 {
    let place = place % (CHUNK * 8);
    (place + place / 256 * 7) as u8
}

/// Bytes that flow: streams of which each has a sender and a receiver.
pub struct Flows<'scope> {
    shared: &'scope Shared,
    senders: Vec<ScopedJoinHandle<'scope, io::Result<Box<dyn Duplex>>>>,
    receivers: Vec<ScopedJoinHandle<'scope, io::Result<()>>>,
}

/// What all senders and receivers share.
#[derive(Default)]
pub struct Shared {
    /// The senders send no more.
    stop: AtomicBool,
    /// All that was sent has arrived.
    complete: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl<'scope> Flows<'scope> {
    /// Starts `streams` connections on which bytes go `up` to the server, `down` from it, or both.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared,
        (route, listener): (&Route, &Listener),
        streams: usize,
        (up, down): (bool, bool),
    ) -> Result<Self> {
        let mut flows = Self { shared, senders: Vec::new(), receivers: Vec::new() };
        // All connect before the first sends: later ones would wait long for their turn.
        let pairs = (0..streams).map(|_| route.pair(listener)).collect::<Result<Vec<_>>>()?;
        for [client, server] in pairs {
            let (client2, server2) = (client.copy()?, server.copy()?);
            if up {
                flows.flow(scope, client, server);
            }
            if down {
                flows.flow(scope, server2, client2);
            }
        }
        Ok(flows)
    }

    fn flow(&mut self, scope: &'scope Scope<'scope, '_>, mut from: Box<dyn Duplex>, mut to: Box<dyn Duplex>) {
        let shared = self.shared;
        self.senders.push(scope.spawn(move || {
            for chunk in pattern().chunks(CHUNK).cycle() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                from.write_all(chunk)?;
                shared.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            Ok(from)
        }));
        self.receivers.push(scope.spawn(move || {
            let (mut chunk, mut total) = (vec![0; CHUNK], 0);
            loop {
                let count = match to.read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(count) => count,
                    // systemd-socket-proxyd ends both directions when one has ended.
                    Err(_) if shared.complete.load(Ordering::Relaxed) => return Ok(()),
                    Err(error) => return Err(error),
                };
                if chunk[0] != byte_at(total) || chunk[count - 1] != byte_at(total + count - 1) {
                    return Err(io::Error::other(format!("not what was sent, near byte {total}")));
                }
                total += count;
                shared.received.fetch_add(count as u64, Ordering::Relaxed);
            }
        }));
    }

    /// Lets them flow for `time`: gigabytes a second that arrived, and CPU seconds of the relay per gigabyte.
    pub fn measure(&self, route: &Route, time: Duration) -> (f64, f64) {
        let look = || (Instant::now(), route.cpu(), self.shared.received.load(Ordering::Relaxed));
        let before = look();
        thread::sleep(time);
        let after = look();
        let gigabytes = (after.2 - before.2) as f64 / 1e9;
        (gigabytes / (after.0 - before.0).as_secs_f64(), (after.1 - before.1) / gigabytes)
    }

    /// Ends them, once all that was sent has arrived.
    ///
    /// # Errors
    /// When a byte was lost.
    pub fn end(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut senders = Vec::new();
        for sender in self.senders {
            senders.push(sender.join().map_err(|_| "a sender panicked")??);
        }
        let (sent, start) = (self.shared.sent.load(Ordering::Relaxed), Instant::now());
        while self.shared.received.load(Ordering::Relaxed) < sent && start.elapsed() < DEADLINE {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.complete.store(true, Ordering::Relaxed);
        for sender in senders {
            let _ended_already = sender.end();
        }
        for receiver in self.receivers {
            receiver.join().map_err(|_| "a receiver panicked")??;
        }
        let received = self.shared.received.load(Ordering::Relaxed);
        if sent == received {
            Ok(())
        } else {
            Err(format!("{sent} bytes were sent, {received} arrived").into())
        }
    }
}
