//! Connects to the proxy and does the handshake.

use crate::deadline::Deadline;
use crate::handshake::{Handshake, Step};
use crate::proxy::Address;
use srt_common::sys::fd::{fcntl, read};
use srt_common::sys::file::{open, statx};
use srt_common::sys::socket::{self, SocketAddress, send, setsockopt, socket};
use srt_common::tcp_address::has_no_such_family;
use srt_common::{Context, Error, Result, unix_socket};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How long a proxy that has refused may take to send its reason.
const REASON: Duration = Duration::from_millis(500);

/// A proxy that is connected and has not answered yet.
pub struct Call {
    socket: OwnedFd,
    handshake: Box<dyn Handshake>,
}

/// A connection to the target.
pub struct Tunnel {
    /// Non-blocking.
    pub socket: OwnedFd,
    /// What the peer sent directly after the proxy's last message. At most PIPE_BUF bytes.
    pub early: Vec<u8>,
}

/// Connects to the first of `addresses` that accepts, and sends the first message.
///
/// # Errors
/// The error of the last address whose family this machine has, or the deadline.
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
    // The descriptor that a path through it needs, held open until the connection is established.
    let mut long = None;
    let to = match address {
        Address::Tcp(address) => SocketAddress::tcp(*address),
        Address::Unix(path) => match SocketAddress::unix(path) {
            Some(short) => short,
            None => {
                let socket = open(OsStr::from_bytes(path), libc::O_PATH).context(|| "cannot connect")?;
                unix_socket::address(long.insert(socket)).map_err(|error| error.within("cannot connect"))?
            }
        },
    };
    let socket = socket(to.family(), libc::SOCK_STREAM).context(|| "socket")?;
    if to.family() == libc::AF_UNIX {
        unix_socket::refuse_descriptors(&socket);
    }
    loop {
        if let Some(limit) = deadline.left()? {
            // socket(7): connect(2) uses the send timeout, for every family. Zero would mean no limit.
            let limit =
                libc::timeval { tv_sec: limit.as_secs() as _, tv_usec: limit.subsec_micros().max(1) as _ };
            setsockopt(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &limit).context(|| "SO_SNDTIMEO")?;
        }
        let Err(error) = socket::connect(&socket, &to) else { return Ok(socket) };
        match error.raw_os_error() {
            // signal(7): stopping and continuing the process interrupts the call. If it is repeated, it continues to
            // wait.
            Some(libc::EINTR) => {}
            // SO_SNDTIMEO has expired: the errors of TCP, of TCP when the call is repeated, and of a Unix socket.
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN) => return Err(deadline.missed()),
            // If the file is not a socket, connect(2) reports that no process listens, or that writing is not
            // permitted.
            _ if names_no_socket(address) => return Err(Error::failed("cannot connect: not a socket")),
            _ => return Err(Error::system("cannot connect", &error)),
        }
    }
}

fn names_no_socket(address: &Address) -> bool {
    let Address::Unix(path) = address else { return false };
    let opened = open(OsStr::from_bytes(path), libc::O_PATH);
    opened.and_then(|opened| statx(&opened, c"")).is_ok_and(|stat| !stat.is(libc::S_IFSOCK))
}

/// Sets the options of a connected socket, which no longer blocks.
fn tune(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    if matches!(address, Address::Tcp(_)) {
        // Nagle's algorithm would delay small writes; and with a ProxyCommand, ssh's own TCPKeepAlive has no socket
        // to act on.
        setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
        setsockopt(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    }
    fcntl(socket, libc::F_SETFL, libc::O_NONBLOCK).map(drop)
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

    /// Reads the proxy's answers until the tunnel is established.
    ///
    /// # Errors
    /// A refusal, another protocol, a premature end, the deadline.
    pub fn answer(mut self, mut deadline: Deadline) -> Result<Tunnel> {
        let mut chunk = [0; libc::PIPE_BUF];
        loop {
            let received = self.receive(&mut chunk, deadline);
            let count = received.map_err(|error| self.handshake.refusal().unwrap_or(error))?;
            let mut bytes = chunk.get(..count).unwrap_or_default();
            while !bytes.is_empty() {
                match self.handshake.feed(&mut bytes)? {
                    Step::More => {}
                    Step::Send(message) => self.send(&message, deadline)?,
                    Step::Done => {
                        return Ok(Tunnel { socket: self.socket, early: bytes.to_vec() });
                    }
                }
            }
            // The limit counts from the first refusal: later data does not extend it.
            if self.handshake.refusal().is_some() {
                deadline = deadline.at_most(REASON);
            }
        }
    }

    /// Receives at least one byte.
    fn receive(&self, chunk: &mut [u8], deadline: Deadline) -> Result<usize> {
        deadline.wait(&self.socket, libc::POLLIN)?;
        match read(&self.socket, chunk).context(|| "cannot receive")? {
            0 => Err(Error::failed("closed the connection before the end of its answer")),
            count => Ok(count),
        }
    }
}
