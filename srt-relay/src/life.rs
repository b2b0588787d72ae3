//! What ends the relay: a signal, or the end of the process that started it.

use srt_common::parent::{Parent, lifetime_fd};
use srt_common::sys::process::prctl;
use srt_common::sys::signal::{Disposition, SignalSet, sigaction, signalfd, sigprocmask};
use srt_common::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Descriptors on which something happens when it is time to end.
pub struct Life {
    /// Signals and the parent: readable then.
    readable: Vec<OwnedFd>,
    /// `--lifetime-fd`: hung up then. What is written there is of no interest.
    pipes: Vec<BorrowedFd<'static>>,
}

impl Life {
    /// Takes SIGTERM, SIGINT and SIGHUP, and watches the parent and the pipes' writers.
    ///
    /// # Errors
    /// When the parent is dead, or a number is no pipe's reading end.
    pub fn new(parent: Option<Parent>, lifetime_fds: &[RawFd]) -> Result<Self> {
        let pipes = lifetime_fds.iter().map(|&fd| lifetime_fd(fd)).collect::<Result<_>>()?;
        let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        let mut readable = vec![take_signals(&signals).context(|| "signalfd")?];
        if let Some(parent) = parent {
            match parent.watch()? {
                Some(pidfd) => readable.push(pidfd),
                // Outside this pid namespace: no number to open, so the signal has to do.
                None => prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0)
                    .map(drop)
                    .context(|| "prctl(PR_SET_PDEATHSIG)")?,
            }
        }
        Ok(Self { readable, pipes })
    }

    /// The descriptors, and what to ask epoll of each. It reports EPOLLHUP unasked.
    pub fn ends(&self) -> impl Iterator<Item = (RawFd, libc::c_int)> + '_ {
        let readable = self.readable.iter().map(|fd| (fd.as_raw_fd(), libc::EPOLLIN));
        readable.chain(self.pipes.iter().map(|fd| (fd.as_raw_fd(), 0)))
    }
}

/// Blocks those of `signals` that this process does not ignore (nohup(1) and shells' background jobs rely on
/// that), and returns the descriptor that reports them.
fn take_signals(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let mut taken = Vec::new();
    for &signal in signals {
        if sigaction(signal)? == Disposition::Default {
            taken.push(signal);
        }
    }
    let set = SignalSet::of(taken);
    sigprocmask(libc::SIG_BLOCK, &set)?;
    signalfd(&set)
}
