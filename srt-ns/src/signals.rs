//! The supervisor's signals: read, never delivered. Its children give the command back what the caller had.

use srt_common::sys::process::{getpid, kill};
use srt_common::sys::signal::{
    Disposition, SignalSet, read_signalfd, signal, signalfd, sigpending, sigprocmask,
};
use srt_common::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The signal state that the caller gave us.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    mask: SignalSet,
    child: Disposition,
}

/// Blocks every signal, and undoes an ignored SIGCHLD, under which the kernel would reap the children itself and their
/// status would be lost (waitpid(2)).
///
/// # Errors
/// errno.
pub fn block() -> Result<(Inherited, OwnedFd)> {
    let what = || "cannot block the signals";
    let mask = sigprocmask(libc::SIG_SETMASK, &SignalSet::full()).context(what)?;
    let child = signal(libc::SIGCHLD, Disposition::Default).context(what)?;
    let fd = signalfd(&SignalSet::full()).context(|| "signalfd")?;
    Ok((Inherited { mask, child }, fd))
}

impl Inherited {
    /// Gives the state back, before an exec.
    ///
    /// # Errors
    /// errno.
    pub fn restore(&self) -> Result<()> {
        let what = || "cannot restore the signals";
        if self.child == Disposition::Ignored {
            signal(libc::SIGCHLD, Disposition::Ignored).context(what)?;
        }
        sigprocmask(libc::SIG_SETMASK, &self.mask).map(drop).context(what)
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its number.
    pub signal: libc::c_int,
    /// The kernel sent it: a terminal's key, a hang-up.
    pub from_kernel: bool,
}

/// The next signal of a signalfd, if there is one.
///
/// # Errors
/// errno.
pub fn next(fd: &impl AsRawFd) -> Result<Option<Received>> {
    match read_signalfd(fd) {
        Ok((signal, code)) => Ok(Some(Received { signal, from_kernel: code == libc::SI_KERNEL })),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context(|| "read of a signalfd"),
    }
}

/// SIGTSTP to this process, to be taken by [`stop`]. A SIGCONT that was pending is discarded by it, and one that comes
/// discards it (signal(7)).
///
/// # Errors
/// errno.
pub fn ask_for_stop() -> io::Result<()> {
    signal(libc::SIGTSTP, Disposition::Default)?;
    kill(getpid(), libc::SIGTSTP)
}

/// Stops this process, and returns when it goes on. False: it did not stop, since nobody could continue it (the kernel drops
/// SIGTSTP in an orphaned process group).
///
/// # Errors
/// errno.
pub fn stop() -> io::Result<bool> {
    let tstp = SignalSet::of([libc::SIGTSTP]);
    // The pending signal stops us inside this call.
    sigprocmask(libc::SIG_UNBLOCK, &tstp)?;
    sigprocmask(libc::SIG_BLOCK, &tstp)?;
    // What made us go on is pending, since it is blocked.
    Ok(sigpending()?.has(libc::SIGCONT))
}
