//! What ends the relay: a signal, or the end of the process that started it.

use srt_common::lifetime::{lifetime_fd, watch};
use srt_common::sys::process::{Pid, prctl};
use srt_common::sys::signal::{Disposition, SignalSet, sigaction, signalfd, sigprocmask};
use srt_common::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// Blocks SIGTERM, SIGINT and SIGHUP, and watches the parent and the pipes' writers. Returns the descriptors that
/// report the end, and the events to ask epoll for. They stay open until the process exits.
///
/// # Errors
/// The parent is dead, or a number is not the read end of a pipe.
pub fn events(parent: Option<Pid>, lifetime_fds: &[RawFd]) -> Result<Vec<(RawFd, libc::c_int)>> {
    // EPOLLHUP is always reported. Data in the pipe is not read.
    let pipes = lifetime_fds.iter().map(|&fd| Ok((lifetime_fd(fd)?.as_raw_fd(), 0)));
    let mut ends = pipes.collect::<Result<Vec<_>>>()?;
    let signals = take_signals().context(|| "signalfd")?;
    ends.push((signals.into_raw_fd(), libc::EPOLLIN));
    if let Some(parent) = parent {
        match watch(parent)? {
            Some(pidfd) => ends.push((pidfd.into_raw_fd(), libc::EPOLLIN)),
            // The parent is outside this pid namespace and has no PID here to open: rely on the parent-death signal.
            None => prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0)
                .map(drop)
                .context(|| "prctl(PR_SET_PDEATHSIG)")?,
        }
    }
    Ok(ends)
}

/// Blocks those of these signals that this process does not ignore (nohup(1) and shells' background jobs rely on
/// that), and returns the descriptor that reports them.
fn take_signals() -> io::Result<OwnedFd> {
    let ignored = |signal: &libc::c_int| sigaction(*signal).is_ok_and(|is| is == Disposition::Ignored);
    let taken = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].into_iter().filter(|signal| !ignored(signal));
    let set = SignalSet::of(taken);
    sigprocmask(libc::SIG_BLOCK, &set)?;
    // A terminal with TOSTOP stops a background job that writes a report (termios(3)), unless SIGTTOU is blocked.
    sigprocmask(libc::SIG_BLOCK, &SignalSet::of([libc::SIGTTOU]))?;
    signalfd(&set)
}
