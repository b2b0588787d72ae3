//! To the proxy and through its handshake.

use crate::deadline::Deadline;
use crate::handshake::{Handshake, Step};
use crate::proxy::Address;
use crate::sys;
use srt_common::{Context, Error, Result};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};

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
/// What the last address said, or the deadline.
pub fn call(addresses: &[Address], handshake: Box<dyn Handshake>, deadline: Deadline) -> Result<Call> {
    let mut failure = Error::failed("no address");
    for address in addresses {
        match connect(address, deadline) {
            Err(error) => failure = error,
            Ok(socket) => {
                let call = Call { socket, handshake };
                call.send(&call.handshake.opening(), deadline)?;
                // Nagle's algorithm would hold small writes back; and behind a ProxyCommand ssh's own TCPKeepAlive
                // reaches no socket.
                sys::tune(&call.socket, address).context(|| "cannot set socket options")?;
                return Ok(call);
            }
        }
    }
    Err(failure)
}

fn connect(address: &Address, deadline: Deadline) -> Result<OwnedFd> {
    let socket = sys::socket(address).context(|| "socket")?;
    match sys::connect(&socket, address, deadline.left()?) {
        // What connect(2) says when SO_SNDTIMEO has run out: the first for TCP, the second for a Unix socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN)) => {
            Err(deadline.missed())
        }
        result => result.context(|| "cannot connect").map(|()| socket),
    }
}

impl Call {
    fn send(&self, mut message: &[u8], deadline: Deadline) -> Result<()> {
        while !message.is_empty() {
            match sys::send(self.socket.as_raw_fd(), message) {
                Ok(count) => message = message.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    deadline.wait(self.socket.as_raw_fd(), libc::POLLOUT)?;
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
    pub fn answer(mut self, deadline: Deadline) -> Result<Tunnel> {
        let mut chunk = [0; libc::PIPE_BUF];
        loop {
            deadline.wait(self.socket.as_raw_fd(), libc::POLLIN)?;
            let count = match sys::read(self.socket.as_raw_fd(), &mut chunk).context(|| "cannot receive")? {
                0 => return Err(Error::failed("closed the connection before the end of its answer")),
                count => count,
            };
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
        }
    }
}
