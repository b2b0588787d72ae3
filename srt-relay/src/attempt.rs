//! From an accepted client to a connected target, which may take time, several tries, or fail.

use crate::listener::reset_on_close;
use crate::target::Target;
use srt_common::sys::socket::{connect, getpeername, getsockname, getsockopt};
use srt_common::tcp_address::has_no_such_family;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

/// A client that does not have its target yet.
pub struct Attempt {
    /// The client's socket.
    pub client: OwnedFd,
    /// The socket that is to reach the target: at first of the family of the target's first address. `None`: there was none
    /// to be had for another address.
    pub socket: Option<OwnedFd>,
    /// The client's listener.
    pub listener: usize,
    /// When the client is given up.
    pub deadline: Option<Instant>,
    /// epoll reports the end of this try (TCP). Otherwise it is to be repeated (Unix, a full backlog).
    pub in_progress: bool,
    /// Where the client is to be connected to.
    pub target: Rc<Target>,
    /// Which of the target's addresses is tried.
    pub address: usize,
    /// It has accepted, and has reset the connection since.
    pub reset: bool,
    /// What the addresses before have said.
    pub failure: Option<io::Error>,
}

impl Attempt {
    /// Tries to connect; or learns, once epoll has reported it, how the try in progress has ended. The error is the one
    /// of the last address that there is here.
    pub fn advance(&mut self) -> Poll<io::Result<()>> {
        loop {
            let Err(error) = self.step() else { return Poll::Ready(Ok(())) };
            match error.raw_os_error() {
                Some(libc::EINPROGRESS) => {
                    self.in_progress = true;
                    return Poll::Pending;
                }
                // A Unix socket's backlog is full. The kernel reports no event for its end.
                Some(libc::EAGAIN) => return Poll::Pending,
                _ => {}
            }
            // `localhost` has another address. The first one's socket is closed before: the last descriptor may be its own.
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
                // Only a connection that stood ends so: tcp_reset() in net/ipv4/tcp_input.c. What came before can be read.
                code @ (libc::ECONNRESET | libc::EPIPE) => {
                    self.reset = code == libc::ECONNRESET;
                    return Ok(());
                }
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        // RFC 9293, 3.5, figure 8: where nobody listens on a port that the kernel also gives away, a socket that got it
        // connects to itself, says what is said to it, and keeps the port from its server.
        let itself = |peer| getsockname(socket).is_ok_and(|own| own == peer);
        if address.family() != libc::AF_UNIX && getpeername(socket).is_ok_and(itself) {
            let _unsupported = reset_on_close(socket);
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        Ok(())
    }
}
