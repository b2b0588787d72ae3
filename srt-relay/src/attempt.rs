//! Connects an accepted client to its target, which may take time, several attempts, or fail.

use crate::listener::reset_on_close;
use crate::target::Target;
use srt_common::sys::socket::{connect, getpeername, getsockname, getsockopt};
use srt_common::tcp_address::has_no_such_family;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

/// A client that is not connected to its target yet.
pub struct Attempt {
    /// The client's socket.
    pub client: OwnedFd,
    /// The socket that connects to the target, at first of the family of the target's first address. `None` if none
    /// could be created for another address.
    pub socket: Option<OwnedFd>,
    /// The index of the client's listener.
    pub listener: usize,
    /// When to give up on the client.
    pub deadline: Option<Instant>,
    /// epoll reports the end of this attempt (TCP). Otherwise it must be repeated (Unix, a full backlog).
    pub in_progress: bool,
    /// The target to connect the client to.
    pub target: Rc<Target>,
    /// The index of the target's address that is being tried.
    pub address: usize,
    /// The target accepted the connection and has reset it since.
    pub reset: bool,
    /// The error of the addresses tried before.
    pub failure: Option<io::Error>,
}

impl Attempt {
    /// Tries to connect or, after an event of epoll, gets the result of the attempt in progress. The error is that of
    /// the last address whose family this machine has.
    pub fn advance(&mut self) -> Poll<io::Result<()>> {
        loop {
            let Err(error) = self.step() else { return Poll::Ready(Ok(())) };
            match error.raw_os_error() {
                Some(libc::EINPROGRESS) => {
                    self.in_progress = true;
                    return Poll::Pending;
                }
                // The backlog of a Unix socket is full. The kernel reports no event when that changes.
                Some(libc::EAGAIN) => return Poll::Pending,
                _ => {}
            }
            // `localhost` has another address. The first socket is closed before: it may hold the last free
            // descriptor.
            self.address += 1;
            (self.socket, self.in_progress) = (None, false);
            self.socket = self.target.socket(self.address).ok();
            let error = match self.failure.take() {
                Some(failure) if has_no_such_family(error.raw_os_error()) => failure,
                _ => error,
            };
            if self.socket.is_none() {
                return Poll::Ready(Err(error));
            }
            self.failure = Some(error);
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let address = self.target.addresses.get(self.address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        if !self.in_progress {
            connect(socket, address)?;
        } else {
            match getsockopt(socket, libc::SO_ERROR)? {
                0 => {}
                // Only an established connection ends this way: tcp_reset() in net/ipv4/tcp_input.c. Data received
                // before can be read.
                code @ (libc::ECONNRESET | libc::EPIPE) => {
                    self.reset = code == libc::ECONNRESET;
                    return Ok(());
                }
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        // RFC 9293, 3.5, figure 8: if no process listens on a port that the kernel also assigns, a socket that is
        // assigned this port connects to itself, receives its own data, and occupies its server's port.
        let itself = |peer| getsockname(socket).is_ok_and(|own| own == peer);
        if address.family() != libc::AF_UNIX && getpeername(socket).is_ok_and(itself) {
            let _unsupported = reset_on_close(socket);
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        Ok(())
    }
}
