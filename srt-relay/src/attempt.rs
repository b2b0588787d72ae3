//! From an accepted client to a connected target, which may take time, several tries, or fail.

use crate::listener::STREAM;
use crate::target::Target;
use srt_common::sys::socket::{connect, getsockopt, socket};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A client that does not have its target yet.
pub struct Attempt {
    /// The client's socket.
    pub client: OwnedFd,
    /// The socket that is to reach the target.
    pub socket: OwnedFd,
    /// epoll reports the end of this try (TCP). Otherwise it is to be repeated (Unix, a full backlog).
    pub in_progress: bool,
    target: Rc<Target>,
    /// Which of the target's addresses is tried.
    address: usize,
}

/// What has become of an attempt.
pub enum Progress {
    /// Neither yet.
    Pending,
    /// Its socket is connected.
    Connected,
    /// No address is left. What the last one said.
    Failed(io::Error),
}

impl Attempt {
    /// For an accepted client, with a socket of the family of the target's first address.
    pub fn new(client: OwnedFd, socket: OwnedFd, target: Rc<Target>) -> Self {
        Self { client, socket, in_progress: false, target, address: 0 }
    }

    /// Tries to connect; or learns, once epoll has reported it, how the try in progress has ended.
    pub fn advance(&mut self) -> Progress {
        loop {
            let error = match self.step() {
                Ok(()) => return Progress::Connected,
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINPROGRESS) => {
                    self.in_progress = true;
                    return Progress::Pending;
                }
                // A Unix socket's backlog is full. The kernel reports no event for its end.
                Some(libc::EAGAIN) => return Progress::Pending,
                _ => {}
            }
            // `localhost` has another address.
            self.address += 1;
            let next = self.target.addresses.get(self.address);
            let Some(Ok(next)) = next.map(|address| socket(address.family(), STREAM)) else {
                return Progress::Failed(error);
            };
            (self.socket, self.in_progress) = (next, false);
        }
    }

    fn step(&self) -> io::Result<()> {
        if self.in_progress {
            return match getsockopt(&self.socket, libc::SO_ERROR)? {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code)),
            };
        }
        match self.target.addresses.get(self.address) {
            Some(address) => connect(&self.socket, address),
            None => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        }
    }
}
