//! To the proxy and through its handshake.

use crate::deadline::Deadline;
use crate::handshake::{Handshake, Step};
use crate::proxy::Address;
use srt_common::sys::fd::{fcntl_setfl, read};
use srt_common::sys::file::{open, statx};
use srt_common::sys::socket::{self, SocketAddress, send, setsockopt, socket};
use srt_common::tcp_address::has_no_such_family;
use srt_common::{Context, Error, Result, unix_socket};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How long a proxy that has refused may take to give its reason.
const REASON: Duration = Duration::from_millis(500);

/// A proxy that was called and has not answered yet.
pub struct Call {
    socket: OwnedFd,
    handshake: Box<dyn Handshake>,
}

/// A connection to the target.
#[derive(Debug)]
pub struct Tunnel {
    /// Not blocking.
    pub socket: OwnedFd,
    /// What the peer said behind the proxy's last word. At most PIPE_BUF bytes.
    pub early: Vec<u8>,
}

/// Connects to the first of `addresses` that accepts, and sends the first message.
///
/// # Errors
/// What the last address said that there is here, or the deadline.
pub fn call(addresses: &[Address], handshake: Box<dyn Handshake>, deadline: Deadline) -> Result<Call> {
    let mut failure = Error::failed("no address");
    for (index, address) in addresses.iter().enumerate() {
        match connect(address, deadline) {
            Err(error) if index > 0 && has_no_such_family(error.errno) => {}
            Err(error) => failure = error,
            Ok(socket) => {
                let call = Call { socket, handshake };
                call.send(&call.handshake.opening(), deadline)?;
                tune(&call.socket, address).context(|| "cannot set socket options")?;
                return Ok(call);
            }
        }
    }
    Err(failure)
}

fn connect(address: &Address, deadline: Deadline) -> Result<OwnedFd> {
    // Held until the connection stands: what a path through it leads to.
    let mut long = None;
    let to = match address {
        Address::Tcp(address) => SocketAddress::tcp(*address),
        Address::Unix(path) => match SocketAddress::unix(path) {
            Some(short) => short,
            None => {
                let pin = open(OsStr::from_bytes(path), libc::O_PATH).context(|| "cannot connect")?;
                unix_socket::address(long.insert(pin)).map_err(|error| error.within("cannot connect"))?
            }
        },
    };
    let socket = socket(to.family(), libc::SOCK_STREAM).context(|| "socket")?;
    if to.family() == libc::AF_UNIX {
        unix_socket::refuse_descriptors(&socket);
    }
    loop {
        if let Some(limit) = deadline.left()? {
            // socket(7): connect(2) heeds the send timeout, for every family. A zero would be no limit.
            let limit =
                libc::timeval { tv_sec: limit.as_secs() as _, tv_usec: limit.subsec_micros().max(1) as _ };
            setsockopt(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &limit).context(|| "SO_SNDTIMEO")?;
        }
        match socket::connect(&socket, &to) {
            // signal(7): stopping and continuing the process interrupts it. Called again, it goes on waiting.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // SO_SNDTIMEO has run out: what TCP says, the second time, too, and a Unix socket.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN)
                ) =>
            {
                return Err(deadline.missed());
            }
            // Of what is no socket connect(2) says that nobody listens, or nobody may write.
            Err(_) if names_no_socket(address) => return Err(Error::failed("cannot connect: not a socket")),
            result => return result.context(|| "cannot connect").map(|()| socket),
        }
    }
}

fn names_no_socket(address: &Address) -> bool {
    let Address::Unix(path) = address else { return false };
    let opened = open(OsStr::from_bytes(path), libc::O_PATH);
    opened.and_then(|opened| statx(&opened, c"")).is_ok_and(|stat| !stat.is(libc::S_IFSOCK))
}

/// For a connected socket: it does not block from here on.
fn tune(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    if matches!(address, Address::Tcp(_)) {
        // Nagle's algorithm would hold small writes back; and behind a ProxyCommand ssh's own TCPKeepAlive reaches no
        // socket.
        setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
        setsockopt(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    }
    fcntl_setfl(socket, libc::O_NONBLOCK)
}

impl Call {
    fn send(&self, mut message: &[u8], deadline: Deadline) -> Result<()> {
        while !message.is_empty() {
            match send(&self.socket, message, libc::MSG_DONTWAIT) {
                Ok(count) => message = message.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    deadline.wait(&self.socket, libc::POLLOUT)?;
                }
                Err(error) => return Err(Error::system("cannot send", &error)),
            }
        }
        Ok(())
    }

    /// Reads the proxy's answers until the tunnel stands.
    ///
    /// # Errors
    /// A refusal, a foreign protocol, an end too early, the deadline.
    pub fn answer(mut self, mut deadline: Deadline) -> Result<Tunnel> {
        let mut chunk = [0; libc::PIPE_BUF];
        loop {
            let received = self.receive(&mut chunk, deadline);
            let count = received.map_err(|error| self.handshake.refusal().unwrap_or(error))?;
            let mut bytes = chunk.get(..count).unwrap_or_default();
            while !bytes.is_empty() {
                let used = match self.handshake.feed(bytes)? {
                    Step::More => bytes.len(),
                    Step::Send(message, used) => {
                        self.send(&message, deadline)?;
                        used
                    }
                    Step::Done(used) => {
                        let early = bytes.get(used..).unwrap_or_default().to_vec();
                        return Ok(Tunnel { socket: self.socket, early });
                    }
                };
                bytes = bytes.get(used..).unwrap_or_default();
            }
            // From the first refusal on: what comes later ends no later.
            if self.handshake.refusal().is_some() {
                deadline = deadline.at_most(REASON);
            }
        }
    }

    /// Some bytes, at least one.
    fn receive(&self, chunk: &mut [u8], deadline: Deadline) -> Result<usize> {
        deadline.wait(&self.socket, libc::POLLIN)?;
        match read(&self.socket, chunk).context(|| "cannot receive")? {
            0 => Err(Error::failed("closed the connection before the end of its answer")),
            count => Ok(count),
        }
    }
}
