//! System calls, each behind a safe function.

#![allow(unsafe_code)]

use crate::proxy::Address;
use srt_common::sys::{cerr, fd_flags};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A pollfd that asks for `events`, and for errors and hangups in any case; a negative `fd` is passed over.
pub fn watch(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// poll(2): how many are ready; 0 too when a signal interrupted it.
///
/// # Errors
/// errno.
pub fn poll(fds: &mut [libc::pollfd], limit: Option<Duration>) -> io::Result<usize> {
    // Rounded up: a wait of 0 ms for the last half would be a busy loop.
    let milliseconds = limit.map_or(-1, |limit| i32::try_from(limit.as_millis() + 1).unwrap_or(i32::MAX));
    // SAFETY: the pointer and the number are those of `fds`.
    match cerr(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) }) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        result => result.map(|count| count as usize),
    }
}

/// read(2).
///
/// # Errors
/// errno.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of `buffer`.
    cerr(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
        .map(|count| count as usize)
}

/// send(2) that does not wait, whatever the socket's flags.
///
/// # Errors
/// errno; EPIPE comes without a signal.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of `bytes`.
    cerr(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) } as i64)
        .map(|count| count as usize)
}

/// What a descriptor is open on, as far as reading and writing differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A regular file.
    Regular,
    /// A terminal or another device.
    Other,
}

/// A descriptor's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// Device and inode number: two descriptors on the same file have the same.
    pub identity: (libc::dev_t, libc::ino_t),
}

/// fstat(2).
///
/// # Errors
/// errno.
pub fn file(fd: RawFd) -> io::Result<File> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a pointer to a stat that lives through the call.
    cerr(unsafe { libc::fstat(fd, stat.as_mut_ptr()) })?;
    // SAFETY: all-zero bytes are a valid stat, and fstat has filled it.
    let stat = unsafe { stat.assume_init() };
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO => Kind::Pipe,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFREG => Kind::Regular,
        _ => Kind::Other,
    };
    Ok(File { kind, identity: (stat.st_dev, stat.st_ino) })
}

/// Writes as much as can be written without waiting, to a descriptor that poll(2) has found writable.
///
/// # Errors
/// errno.
pub fn write(fd: RawFd, kind: Kind, bytes: &[u8]) -> io::Result<usize> {
    let length = match kind {
        Kind::Socket => return send(fd, bytes),
        Kind::Regular => bytes.len(),
        // pipe(7): POLLOUT promises room for PIPE_BUF bytes.
        Kind::Pipe | Kind::Other => bytes.len().min(libc::PIPE_BUF),
    };
    // SAFETY: the pointer is that of `bytes`, and the length not above its own.
    cerr(unsafe { libc::write(fd, bytes.as_ptr().cast(), length) } as i64).map(|count| count as usize)
}

/// splice(2) of at most `length` bytes between a pipe and a socket that does not block. SPLICE_F_NONBLOCK keeps the
/// pipe from blocking, for this call alone.
///
/// # Errors
/// errno; EAGAIN when either side would have to wait.
pub fn splice(from: RawFd, to: RawFd, length: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: no offsets are given, so there is no pointer.
    cerr(unsafe { libc::splice(from, none, to, none, length, libc::SPLICE_F_NONBLOCK) } as i64)
        .map(|count| count as usize)
}

/// shutdown(2) SHUT_WR: the other side reads the end, and can still write.
///
/// # Errors
/// errno.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: two integers.
    cerr(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(drop)
}

/// Takes a descriptor that the caller passed by number. `None` for one that is not open, and for 0, 1 and 2.
pub fn take_fd(fd: RawFd) -> Option<OwnedFd> {
    if fd < 3 || fd_flags(fd).is_err() {
        return None;
    }
    // SAFETY: it is open, and nothing in this process has opened it: the caller named it on the command line.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes stdout, which nothing in this process owns. `fd` 1 stays closed: nothing is opened afterwards.
///
/// # Errors
/// errno: a file system may report here that it could not store what was written.
pub fn close_stdout() -> io::Result<()> {
    // SAFETY: no OwnedFd has number 1: Rust's runtime sees to it that 0, 1 and 2 are open before main.
    cerr(unsafe { libc::close(1) }).map(drop)
}

/// socket(2) for a stream to `address`.
///
/// # Errors
/// errno.
pub fn socket(address: &Address) -> io::Result<OwnedFd> {
    let family = match address {
        Address::Tcp(SocketAddr::V4(_)) => libc::AF_INET,
        Address::Tcp(SocketAddr::V6(_)) => libc::AF_INET6,
        Address::Unix(_) => libc::AF_UNIX,
    };
    // SAFETY: three integers.
    let fd = cerr(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// connect(2), no longer than `limit`.
///
/// # Errors
/// errno; EINPROGRESS (TCP) or EAGAIN (Unix) when the limit was reached.
pub fn connect(socket: &OwnedFd, address: &Address, limit: Option<Duration>) -> io::Result<()> {
    if let Some(limit) = limit {
        // socket(7): connect(2) heeds the send timeout, for every family. A zero would be no limit.
        let timeout =
            libc::timeval { tv_sec: limit.as_secs() as _, tv_usec: limit.subsec_micros().max(1) as _ };
        setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &timeout)?;
    }
    let name = sockaddr(address);
    loop {
        let length = name.len() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of `name`; the kernel copies it, so alignment is no matter.
        match cerr(unsafe { libc::connect(socket.as_raw_fd(), name.as_ptr().cast(), length) }) {
            // signal(7): stopping and continuing the process interrupts it. Called again, it goes on waiting.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// The socket address as bytes: ip(7), ipv6(7), unix(7).
fn sockaddr(address: &Address) -> Vec<u8> {
    let family = |number: libc::c_int| (number as libc::sa_family_t).to_ne_bytes();
    match address {
        Address::Tcp(SocketAddr::V4(v4)) => {
            [&family(libc::AF_INET)[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat()
        }
        Address::Tcp(SocketAddr::V6(v6)) => {
            let (flow, scope) = ([0; 4], [0; 4]);
            [&family(libc::AF_INET6)[..], &v6.port().to_be_bytes(), &flow, &v6.ip().octets(), &scope].concat()
        }
        Address::Unix(path) => [&family(libc::AF_UNIX)[..], path, &[0]].concat(),
    }
}

/// Makes a connected socket one that does not block, keeps idle connections alive and sends small writes at once.
///
/// # Errors
/// errno.
pub fn tune(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    if matches!(address, Address::Tcp(_)) {
        setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
        setsockopt(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    }
    // SAFETY: F_SETFL takes an integer.
    cerr(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// What setsockopt(2) reads.
trait Value {}
impl Value for libc::c_int {}
impl Value for libc::timeval {}

fn setsockopt<T: Value>(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`, a plain C type.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    cerr(result).map(drop)
}
