//! What ends the relay: a signal, or the end of the process that started it.

use srt_common::parent::{Parent, lifetime_fd};
use srt_common::sys::process::prctl;
use srt_common::sys::signal::{Disposition, SignalSet, sigaction, signalfd, sigprocmask};
use srt_common::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// Takes SIGTERM, SIGINT and SIGHUP, and watches the parent and the pipes' writers. Returns the descriptors that report
/// the end, and the events to ask epoll for. They stay open until the process exits.
///
/// # Errors
/// When the parent is dead, or a number is no pipe's reading end.
pub fn ends(parent: Option<Parent>, lifetime_fds: &[RawFd]) -> Result<Vec<(RawFd, libc::c_int)>> {
    let mut ends = Vec::new();
    for &fd in lifetime_fds {
        // EPOLLHUP is reported unasked. What is written there is not read.
        ends.push((lifetime_fd(fd)?.as_raw_fd(), 0));
    }
    let signals = take_signals().context(|| "signalfd")?;
    ends.push((signals.into_raw_fd(), libc::EPOLLIN));
    if let Some(parent) = parent {
        match parent.watch()? {
            Some(pidfd) => ends.push((pidfd.into_raw_fd(), libc::EPOLLIN)),
            // Outside this pid namespace: no number to open, so the signal has to do.
            None => prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0)
                .map(drop)
                .context(|| "prctl(PR_SET_PDEATHSIG)")?,
        }
    }
    Ok(ends)
}

/// Blocks those signals that ask for an end and that this process does not ignore (nohup(1) and shells' background jobs
/// rely on that), and returns the descriptor that reports them.
fn take_signals() -> io::Result<OwnedFd> {
    let ignored = |signal: &libc::c_int| sigaction(*signal).is_ok_and(|is| is == Disposition::Ignored);
    let taken = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].into_iter().filter(|signal| !ignored(signal));
    let set = SignalSet::of(taken);
    sigprocmask(libc::SIG_BLOCK, &set)?;
    // A terminal with TOSTOP would stop a background job that reports (termios(3)); blocked, it lets it write.
    sigprocmask(libc::SIG_BLOCK, &SignalSet::of([libc::SIGTTOU]))?;
    signalfd(&set)
}
