//! Signals: sets, dispositions, and reading them instead of having them delivered.

use super::{check, owned, timespec};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// sigset_t (sigsetops(3)).
#[derive(Clone, Copy, Debug)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// No signal: for calls to fill.
    fn empty() -> Self {
        // SAFETY: all-zero bytes are a valid sigset_t, the empty one (sigemptyset(3) of glibc and of musl).
        Self(unsafe { std::mem::zeroed() })
    }

    /// Every signal.
    pub fn full() -> Self {
        let mut set = Self::empty();
        // SAFETY: a pointer to a sigset_t.
        unsafe { libc::sigfillset(&raw mut set.0) };
        set
    }

    /// These.
    pub fn of(signals: impl IntoIterator<Item = libc::c_int>) -> Self {
        let mut set = Self::empty();
        for signal in signals {
            // SAFETY: a pointer to a sigset_t.
            unsafe { libc::sigaddset(&raw mut set.0, signal) };
        }
        set
    }

    /// Whether `signal` is in it.
    pub fn has(&self, signal: libc::c_int) -> bool {
        // SAFETY: a pointer to a sigset_t.
        (unsafe { libc::sigismember(&raw const self.0, signal) }) == 1
    }
}

/// sigprocmask(2); the previous mask. `how`: SIG_BLOCK, SIG_UNBLOCK or SIG_SETMASK.
pub fn sigprocmask(how: libc::c_int, set: &SignalSet) -> io::Result<SignalSet> {
    let mut previous = SignalSet::empty();
    // SAFETY: two pointers to sigset_t.
    check(unsafe { libc::sigprocmask(how, &raw const set.0, &raw mut previous.0) })?;
    Ok(previous)
}

/// sigpending(2).
pub fn sigpending() -> io::Result<SignalSet> {
    let mut set = SignalSet::empty();
    // SAFETY: a pointer to a sigset_t.
    check(unsafe { libc::sigpending(&raw mut set.0) })?;
    Ok(set)
}

/// What happens at a signal that is not blocked. The tools have no handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// SIG_DFL.
    Default,
    /// SIG_IGN.
    Ignored,
}

/// signal(2); the previous disposition.
pub fn signal(signal: libc::c_int, disposition: Disposition) -> io::Result<Disposition> {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignored => libc::SIG_IGN,
    };
    // SAFETY: SIG_DFL and SIG_IGN are no functions that could be unsafe to run.
    match unsafe { libc::signal(signal, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        libc::SIG_IGN => Ok(Disposition::Ignored),
        _ => Ok(Disposition::Default),
    }
}

/// sigaction(2) that changes nothing.
pub fn sigaction(signal: libc::c_int) -> io::Result<Disposition> {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer changes nothing; the kernel fills `action`.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) })?;
    Ok(if action.sa_sigaction == libc::SIG_IGN { Disposition::Ignored } else { Disposition::Default })
}

/// sigtimedwait(2): the number of a signal of `set`. EAGAIN: none came in time; `None` waits without end. What
/// siginfo says of the sender is not looked at: the kernel drops it where the queue is full (RLIMIT_SIGPENDING).
pub fn sigtimedwait(set: &SignalSet, timeout: Option<Duration>) -> io::Result<libc::c_int> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a pointer to a sigset_t; a null siginfo_t is not written; a timespec or null.
    check(unsafe { libc::sigtimedwait(&raw const set.0, std::ptr::null_mut(), timeout) })
}

/// signalfd(2), not blocking.
pub fn signalfd(set: &SignalSet) -> io::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: a pointer to a sigset_t; -1 makes a new descriptor.
    owned(unsafe { libc::signalfd(-1, &raw const set.0, flags) }.into())
}

/// read(2) of one signalfd_siginfo: the signal's number and its si_code. EAGAIN: there is none.
pub fn read_signalfd(fd: &impl AsRawFd) -> io::Result<(libc::c_int, libc::c_int)> {
    // SAFETY: all-zero bytes are a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a signalfd_siginfo and its size.
    check(unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) })?;
    Ok((info.ssi_signo as libc::c_int, info.ssi_code))
}
