//! The system calls of the relay, each behind a safe function. All descriptors are close-on-exec, all sockets
//! and pipes non-blocking.

#![allow(unsafe_code)]

use srt_common::sys::{cerr, fd_flags, set_cloexec, write_all};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// -1 is an error in errno; anything else is a count or a descriptor.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    cerr(result).map(|_| result)
}

/// -1 is an error in errno; anything else is a count of bytes.
fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A descriptor that a system call has just made.
fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes an inherited descriptor that the command line names.
///
/// # Errors
/// EBADF when it is not open.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    fd_flags(fd)?;
    if fd > 2 {
        set_cloexec(fd, true)?;
    }
    // SAFETY: open, as the line above shows, and the options give no descriptor two uses.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves an inherited descriptor to a number above 2 and puts `filler` in its place if it was one of those, so
/// that no connection ever becomes stdin, stdout or stderr.
///
/// # Errors
/// errno.
pub fn move_away(fd: RawFd, filler: &Epoll) -> io::Result<OwnedFd> {
    if fd > 2 {
        return inherited(fd);
    }
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    let moved = owned(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: 0, 1 and 2 are owned by nobody here.
    check(unsafe { libc::dup2(filler.0.as_raw_fd(), fd) })?;
    Ok(moved)
}

/// Writes `ready` and a newline, and closes the descriptor. A reader that has gone is not the relay's business.
pub fn announce(fd: OwnedFd) {
    let _gone = write_all(fd.as_raw_fd(), b"ready\n");
}

/// ppoll(2): whether `fd` takes a line now. Of a pipe POLLOUT means room for PIPE_BUF, 4096 bytes (pipe(7)).
pub fn takes_a_line(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one pollfd and a timespec, both alive through the call; the signal mask stays.
    (unsafe { libc::ppoll(&raw mut poll, 1, &raw const now, std::ptr::null()) }) == 1
}

/// fcntl(2) F_GETFL: how a descriptor was opened.
///
/// # Errors
/// errno.
pub fn status_flags(fd: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}

/// fcntl(2) F_SETFL O_NONBLOCK.
///
/// # Errors
/// errno.
pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = status_flags(fd)? | libc::O_NONBLOCK;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// Raises the soft limit on descriptors to the hard one, and returns it.
///
/// # Errors
/// errno.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to an rlimit that lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur != limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above; the kernel only reads it.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// A socket address in the kernel's form.
#[derive(Clone)]
#[repr(C, align(8))]
pub struct SocketAddress {
    bytes: [u8; 128],
    length: usize,
}

impl SocketAddress {
    /// The longest path that fits: unix(7), 108 with the NUL at the end.
    pub const LONGEST_PATH: usize = 107;

    fn of(family: libc::c_int, rest: &[&[u8]]) -> Self {
        let mut address = Self { bytes: [0; 128], length: 0 };
        for part in [(family as u16).to_ne_bytes().as_slice()].iter().chain(rest) {
            for (to, from) in address.bytes.iter_mut().skip(address.length).zip(*part) {
                *to = *from;
            }
            address.length += part.len();
        }
        address
    }

    /// A `sockaddr_un` (unix(7)). `None` for a path that does not fit.
    pub fn unix(path: &[u8]) -> Option<Self> {
        (path.len() <= Self::LONGEST_PATH).then(|| Self::of(libc::AF_UNIX, &[path, &[0]]))
    }

    /// A `sockaddr_in` (ip(7)) or a `sockaddr_in6` (ipv6(7)).
    pub fn tcp(address: SocketAddr) -> Self {
        let port = address.port().to_be_bytes();
        match address {
            SocketAddr::V4(v4) => Self::of(libc::AF_INET, &[&port, &v4.ip().octets(), &[0; 8]]),
            SocketAddr::V6(v6) => {
                let scope = v6.scope_id().to_ne_bytes();
                Self::of(libc::AF_INET6, &[&port, &[0; 4], &v6.ip().octets(), &scope])
            }
        }
    }

    /// AF_UNIX, AF_INET or AF_INET6.
    pub fn family(&self) -> libc::c_int {
        let [first, second, ..] = self.bytes;
        u16::from_ne_bytes([first, second]).into()
    }

    fn pointer(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }
}

/// What socket(2) gets as its type, here and in the seccomp filter.
pub const STREAM: libc::c_int = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// socket(2), of the type [`STREAM`].
///
/// # Errors
/// errno.
pub fn socket(family: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    owned(unsafe { libc::socket(family, STREAM, 0) })
}

/// bind(2), of an Internet address.
///
/// # Errors
/// errno.
pub fn bind(socket: &OwnedFd, address: &SocketAddress) -> io::Result<()> {
    let length = address.length as libc::socklen_t;
    // SAFETY: the address has `length` bytes and lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.pointer(), length) }).map(drop)
}

/// connect(2).
///
/// # Errors
/// errno; EINPROGRESS (TCP) and EAGAIN (Unix, the listener's backlog is full) are no failures.
pub fn connect(socket: &OwnedFd, address: &SocketAddress) -> io::Result<()> {
    let length = address.length as libc::socklen_t;
    // SAFETY: the address has `length` bytes and lives through the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.pointer(), length) }).map(drop)
}

/// accept4(2).
///
/// # Errors
/// errno.
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let (nowhere, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: accept4 takes null pointers when the peer's address is of no interest.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), nowhere, no_length, flags) })
}

/// shutdown(2) with SHUT_RD or SHUT_WR.
///
/// # Errors
/// errno.
pub fn shutdown(socket: &impl AsRawFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), how) }).map(drop)
}

fn set_option<T>(socket: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`.
    check(unsafe { libc::setsockopt(socket, level, name, std::ptr::from_ref(value).cast(), length) })
        .map(drop)
}

/// setsockopt(2) of an option that takes a number.
///
/// # Errors
/// errno.
pub fn set_number(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(socket.as_raw_fd(), level, name, &value)
}

/// setsockopt(2) SO_LINGER 0: close(2) will reset the connection rather than end it (socket(7)).
///
/// # Errors
/// errno.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// getsockopt(2) of an option of SOL_SOCKET that is a number.
///
/// # Errors
/// errno.
pub fn socket_option(socket: &OwnedFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let (mut value, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let out = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes to `value`.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, out, &raw mut length) })?;
    Ok(value)
}

/// pipe2(2): the end to read from and the end to write to.
///
/// # Errors
/// errno.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// fcntl(2) F_SETPIPE_SZ, in bytes.
///
/// # Errors
/// EPERM when the user's pipes take too much already (pipe(7)).
pub fn set_pipe_size(pipe: &OwnedFd, bytes: usize) -> io::Result<()> {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) }).map(drop)
}

/// splice(2): moves up to `bytes` without copying them. One of the two is a pipe.
///
/// # Errors
/// errno.
pub fn splice(from: &impl AsRawFd, to: &impl AsRawFd, bytes: usize) -> io::Result<usize> {
    let (here, there) = (std::ptr::null_mut(), std::ptr::null_mut());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: null offsets, as pipes and sockets want them.
    count(unsafe { libc::splice(from.as_raw_fd(), here, to.as_raw_fd(), there, bytes, flags) })
}

/// An epoll instance (epoll(7)).
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// What happened to which descriptor.
pub type Event = libc::epoll_event;

impl Epoll {
    /// epoll_create1(2).
    ///
    /// # Errors
    /// errno.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an integer.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: libc::c_int, token: u64) -> io::Result<()> {
        let mut event = Event { events: events as u32, u64: token };
        // SAFETY: the kernel reads one event.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }

    /// Watches `fd`; its events carry `token`. Closing it ends that.
    ///
    /// # Errors
    /// errno.
    pub fn add(&self, fd: &impl AsRawFd, events: libc::c_int, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), events, token)
    }

    /// Watches `fd` no longer. (Without any event asked for, EPOLLHUP would still be reported.)
    ///
    /// # Errors
    /// errno.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    /// Waits, at most `milliseconds` (-1: without end), and says how many of `events` are filled.
    ///
    /// # Errors
    /// errno, EINTR excepted: then nothing has happened.
    pub fn wait(&self, events: &mut [Event], milliseconds: libc::c_int) -> io::Result<usize> {
        let length = events.len() as libc::c_int;
        let mask = std::ptr::null();
        // SAFETY: the kernel fills at most `length` events. epoll_pwait, because it is one system call on every
        // architecture and libc: the filter knows no other.
        let filled =
            unsafe { libc::epoll_pwait(self.0.as_raw_fd(), events.as_mut_ptr(), length, milliseconds, mask) };
        match check(filled) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            result => result.map(|filled| filled as usize),
        }
    }
}

/// Blocks those of `signals` that this process does not ignore (nohup(1) and shells' background jobs rely on
/// that), and returns the descriptor that reports them: signalfd(2).
///
/// # Errors
/// errno.
pub fn take_signals(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null pointer changes nothing; the kernel fills `action`.
        check(unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) })?;
        // SAFETY: all-zero bytes are a valid sigaction, and the call has filled it.
        if unsafe { action.assume_init() }.sa_sigaction != libc::SIG_IGN {
            // SAFETY: the set is initialized.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
    }
    // SAFETY: the set is initialized; the old mask is of no interest.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) })?;
    // SAFETY: as above; -1 makes a new descriptor.
    owned(unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })
}

/// getppid(2): 0 when the parent is outside the pid namespace.
pub fn parent() -> libc::pid_t {
    // SAFETY: cannot fail.
    unsafe { libc::getppid() }
}

/// pidfd_open(2): readable when the process has ended. By number: musl has no wrapper.
///
/// # Errors
/// errno.
pub fn pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    owned(cerr(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })? as libc::c_int)
}
