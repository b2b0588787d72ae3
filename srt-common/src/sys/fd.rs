//! Descriptors: flags, reading, writing, waiting.

use super::{check, count, owned, timespec};
use libc::{c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// fcntl(2) with an integer argument, 0 for a command that takes none: F_GETFD (EBADF if `fd` is not open), F_SETFD,
/// F_GETFL, F_SETFL, F_GET_SEALS, F_GETPIPE_SZ, and F_SETPIPE_SZ, which is in srt-relay's allow-list.
pub fn fcntl(fd: &impl AsRawFd, command: c_int, value: c_int) -> io::Result<c_int> {
    // SAFETY: the callers pass only the commands above, which take no pointer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, value) })
}

/// dup2(2) onto a number that no [`OwnedFd`] owns: 0, 1, 2 or one of the caller's.
pub fn dup2(from: &impl AsRawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: two integers; the number is not owned (see above).
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// close(2) of a number that no [`OwnedFd`] owns: 0, 1, 2 or one of the caller's.
pub fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: an integer; the number is not owned (see above).
    check(unsafe { libc::close(fd) }).map(drop)
}

/// close_range(2), `first` to `last`. The caller must ensure that nothing in the range is used again: an exec or an
/// exit follows, or the process has just started.
pub fn close_range(first: u32, last: u32, flags: c_uint) -> io::Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Takes ownership of an inherited descriptor that the command line names. EBADF as for [`given`].
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    given(fd)?;
    // SAFETY: it is open, and nothing in this process has opened it (see `given`).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same without ownership: it stays open when the value is dropped. EBADF if it is not inherited: it
/// is closed, or has FD_CLOEXEC, as have all that a tool opens, but none that survives execve(2).
pub fn given(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    match fcntl(&fd, libc::F_GETFD, 0)? & libc::FD_CLOEXEC {
        0 => borrowed(fd),
        _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// 0, 1, 2, or a descriptor that was [`given`] before. EBADF if it is not open.
pub fn borrowed(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    fcntl(&fd, libc::F_GETFD, 0)?;
    // SAFETY: it is open, and it is the caller's: nothing in this process closes it before the exec or the exit.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// pipe2(2): the read end and the write end. In srt-relay's allow-list.
pub fn pipe2(flags: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags | libc::O_CLOEXEC) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// read(2). In srt-relay's allow-list.
pub fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of `buffer`.
    count(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// write(2). In srt-relay's allow-list.
pub fn write(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of `bytes`.
    count(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// splice(2), without offsets: one of the two is a pipe. In srt-relay's allow-list.
pub fn splice(from: &impl AsRawFd, to: &impl AsRawFd, bytes: usize, flags: c_uint) -> io::Result<usize> {
    let (here, there) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: null offsets and integers.
    count(unsafe { libc::splice(from.as_raw_fd(), here, to.as_raw_fd(), there, bytes, flags) })
}

/// An entry for [`ppoll`]. A negative `fd` is ignored (poll(2)).
pub fn pollfd(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// ppoll(2) without a signal mask: the number of entries with events. `None` waits without limit. In srt-relay's
/// allow-list.
pub fn ppoll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let length = fds.len() as libc::nfds_t;
    // SAFETY: the pointer and the length are those of `fds`; a timespec or null; no mask.
    count(unsafe { libc::ppoll(fds.as_mut_ptr(), length, timeout, std::ptr::null()) })
}

/// epoll_create1(2).
pub fn epoll_create1() -> io::Result<OwnedFd> {
    // SAFETY: an integer.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// epoll_ctl(2). `operation`: EPOLL_CTL_ADD, EPOLL_CTL_MOD or EPOLL_CTL_DEL. In srt-relay's allow-list.
pub fn epoll_ctl(
    epoll: &impl AsRawFd,
    operation: c_int,
    fd: &impl AsRawFd,
    events: c_int,
    token: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events as u32, u64: token };
    // SAFETY: the kernel reads one event.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) }).map(drop)
}

/// epoll_pwait(2) without a signal mask: how many of `events` are filled. Not epoll_wait(2), which is another system
/// call on some architectures. In srt-relay's allow-list.
pub fn epoll_pwait(
    epoll: &impl AsRawFd,
    events: &mut [libc::epoll_event],
    milliseconds: c_int,
) -> io::Result<usize> {
    let (length, mask) = (events.len() as c_int, std::ptr::null());
    // SAFETY: the kernel fills at most `length` events.
    count(unsafe { libc::epoll_pwait(epoll.as_raw_fd(), events.as_mut_ptr(), length, milliseconds, mask) })
}
