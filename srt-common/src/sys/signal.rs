//! Signals: sets, dispositions, and reading instead of delivery.

use super::{check, owned, timespec};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The kernel's sigset_t: one bit for each of 64 signals. The C library's functions leave out the signals that it uses
/// itself (nptl(7): 32 and 33; musl: 34, too), also in the sets that they return.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Every signal.
    pub fn full() -> Self {
        Self(!0)
    }

    /// These signals, from 1 to 64.
    pub fn of(signals: impl IntoIterator<Item = libc::c_int>) -> Self {
        Self(signals.into_iter().fold(0, |set, signal| set | 1 << (signal - 1)))
    }

    /// Whether `signal` is in the set.
    pub fn has(&self, signal: libc::c_int) -> bool {
        self.0 & 1 << (signal - 1) != 0
    }
}

/// sigprocmask(2); returns the previous mask. `how`: SIG_BLOCK, SIG_UNBLOCK or SIG_SETMASK.
pub fn sigprocmask(how: libc::c_int, set: &SignalSet) -> io::Result<SignalSet> {
    let mut previous = SignalSet::default();
    let (new, old) = (&raw const set.0, &raw mut previous.0);
    // SAFETY: two pointers to sets of this size.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, SIZE) })?;
    Ok(previous)
}

/// sigpending(2).
pub fn sigpending() -> io::Result<SignalSet> {
    let mut set = SignalSet::default();
    // SAFETY: a pointer to a set of this size.
    check(unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set.0, SIZE) })?;
    Ok(set)
}

const SIZE: usize = size_of::<SignalSet>();

/// What a signal that is not blocked does. The tools have no handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Disposition {
    /// SIG_DFL.
    Default = libc::SIG_DFL,
    /// SIG_IGN.
    Ignored = libc::SIG_IGN,
}

/// signal(2); returns the previous disposition.
pub fn signal(signal: libc::c_int, disposition: Disposition) -> io::Result<Disposition> {
    // SAFETY: SIG_DFL and SIG_IGN are not functions that could be unsafe to run.
    match unsafe { libc::signal(signal, disposition as libc::sighandler_t) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        libc::SIG_IGN => Ok(Disposition::Ignored),
        _ => Ok(Disposition::Default),
    }
}

/// sigaction(2) without a change.
pub fn sigaction(signal: libc::c_int) -> io::Result<Disposition> {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer changes nothing; the kernel fills `action`.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) })?;
    Ok(if action.sa_sigaction == libc::SIG_IGN { Disposition::Ignored } else { Disposition::Default })
}

/// sigtimedwait(2): the number of a signal in `set`. EAGAIN: none came in time; `None` waits without limit. The sender
/// in siginfo is not used: the kernel drops it when the queue is full (RLIMIT_SIGPENDING).
pub fn sigtimedwait(set: &SignalSet, timeout: Option<Duration>) -> io::Result<libc::c_int> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let (set, info) = (&raw const set.0, std::ptr::null_mut::<libc::siginfo_t>());
    // SAFETY: a pointer to a set of this size; a null siginfo_t is not written; a timespec or null.
    check(unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, set, info, timeout, SIZE) })
        .map(|signal| signal as libc::c_int)
}

/// signalfd(2), non-blocking.
pub fn signalfd(set: &SignalSet) -> io::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: a pointer to a set of this size; -1 makes a new descriptor.
    owned(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, SIZE, flags) })
}

/// read(2) of one signalfd_siginfo: the signal's number and its si_code. EAGAIN: there is none.
pub fn read_signalfd(fd: &impl AsRawFd) -> io::Result<(libc::c_int, libc::c_int)> {
    // SAFETY: all-zero bytes are a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a signalfd_siginfo and its size.
    check(unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) })?;
    Ok((info.ssi_signo as libc::c_int, info.ssi_code))
}
