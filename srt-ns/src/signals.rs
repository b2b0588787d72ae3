//! The supervisor's signals are read, never delivered. Its children restore the caller's signal state for the command.

use srt_common::sys::process::{getpid, kill};
use srt_common::sys::signal::{
    Disposition, SignalSet, read_signalfd, signal, signalfd, sigpending, sigprocmask,
};
use srt_common::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The signal state inherited from the caller.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    mask: SignalSet,
    child: Disposition,
}

/// Blocks every signal, and resets an ignored SIGCHLD, with which the kernel would reap the children itself and their
/// status would be lost (waitpid(2)).
///
/// # Errors
/// The errno of the call.
pub fn block() -> Result<(Inherited, OwnedFd)> {
    let what = || "cannot block the signals";
    let mask = sigprocmask(libc::SIG_SETMASK, &SignalSet::full()).context(what)?;
    let child = signal(libc::SIGCHLD, Disposition::Default).context(what)?;
    let fd = signalfd(&SignalSet::full()).context(|| "signalfd")?;
    Ok((Inherited { mask, child }, fd))
}

impl Inherited {
    /// Restores the state, before an exec.
    ///
    /// # Errors
    /// The errno of the call.
    pub fn restore(&self) -> Result<()> {
        let what = || "cannot restore the signals";
        signal(libc::SIGCHLD, self.child).context(what)?;
        sigprocmask(libc::SIG_SETMASK, &self.mask).map(drop).context(what)
    }
}

/// The next signal of a signalfd, if there is one, and whether the kernel sent it: a key of the terminal, a
/// hang-up.
///
/// # Errors
/// The errno of the call.
pub fn next(fd: &impl AsRawFd) -> Result<Option<(libc::c_int, bool)>> {
    match read_signalfd(fd) {
        Ok((signal, code)) => Ok(Some((signal, code == libc::SI_KERNEL))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context(|| "read of a signalfd"),
    }
}

/// Sends SIGTSTP to this process; [`stop`] takes it. This discards a pending SIGCONT, and a later SIGCONT discards the
/// SIGTSTP (signal(7)).
///
/// # Errors
/// The errno of the call.
pub fn ask_for_stop() -> io::Result<()> {
    signal(libc::SIGTSTP, Disposition::Default)?;
    kill(getpid(), libc::SIGTSTP)
}

/// Stops this process, and returns when it is continued. False: it did not stop, since no process could continue it
/// (the kernel drops SIGTSTP in an orphaned process group).
///
/// # Errors
/// The errno of the call.
pub fn stop() -> io::Result<bool> {
    let tstp = SignalSet::of([libc::SIGTSTP]);
    // The pending signal stops this process inside this call.
    sigprocmask(libc::SIG_UNBLOCK, &tstp)?;
    sigprocmask(libc::SIG_BLOCK, &tstp)?;
    // The SIGCONT that continued this process is pending, since it is blocked.
    Ok(sigpending()?.has(libc::SIGCONT))
}
