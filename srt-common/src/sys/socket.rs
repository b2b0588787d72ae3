//! Internet and Unix sockets, and messages that carry descriptors.

use super::{check, count, owned};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A socket address in the kernel's form: ip(7), ipv6(7), unix(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAddress(Vec<u8>);

impl SocketAddress {
    fn of(family: libc::c_int, rest: &[&[u8]]) -> Self {
        Self([&(family as u16).to_ne_bytes(), rest.concat().as_slice()].concat())
    }

    /// A `sockaddr_un`. `None` if the path does not fit: unix(7), 108 bytes with the terminating NUL.
    pub fn unix(path: &[u8]) -> Option<Self> {
        (path.len() < 108).then(|| Self::of(libc::AF_UNIX, &[path, &[0]]))
    }

    /// A `sockaddr_in` or a `sockaddr_in6`.
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
        self.0.first_chunk().map_or(libc::AF_UNSPEC, |family| u16::from_ne_bytes(*family).into())
    }
}

/// socket(2). In srt-relay's allow-list, with the family and the type that it uses.
pub fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })
}

/// socketpair(2) of AF_UNIX.
pub fn socketpair(kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// bind(2).
pub fn bind(socket: &impl AsRawFd, address: &SocketAddress) -> io::Result<()> {
    let (from, length) = (address.0.as_ptr().cast(), address.0.len() as libc::socklen_t);
    // SAFETY: the address has `length` bytes and lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), from, length) }).map(drop)
}

/// connect(2). On a non-blocking socket, EINPROGRESS (TCP) and EAGAIN (Unix: the listener's backlog is full) are not
/// failures. In srt-relay's allow-list.
pub fn connect(socket: &impl AsRawFd, address: &SocketAddress) -> io::Result<()> {
    let (from, length) = (address.0.as_ptr().cast(), address.0.len() as libc::socklen_t);
    // SAFETY: the address has `length` bytes and lives through the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), from, length) }).map(drop)
}

/// getsockname(2) of a TCP socket. In srt-relay's allow-list.
pub fn getsockname(socket: &impl AsRawFd) -> io::Result<SocketAddress> {
    // SAFETY: as for `tcp_address`.
    tcp_address(|to, length| unsafe { libc::getsockname(socket.as_raw_fd(), to, length) })
}

/// getpeername(2) of a TCP socket. In srt-relay's allow-list.
pub fn getpeername(socket: &impl AsRawFd) -> io::Result<SocketAddress> {
    // SAFETY: as for `tcp_address`.
    tcp_address(|to, length| unsafe { libc::getpeername(socket.as_raw_fd(), to, length) })
}

/// For a call that writes an address of at most `length` bytes, and sets `length` to its actual size.
fn tcp_address(
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<SocketAddress> {
    let mut bytes = vec![0; size_of::<libc::sockaddr_in6>()];
    let mut length = bytes.len() as libc::socklen_t;
    check(call(bytes.as_mut_ptr().cast(), &raw mut length))?;
    bytes.truncate(length as usize);
    Ok(SocketAddress(bytes))
}

/// listen(2).
pub fn listen(socket: &impl AsRawFd, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// accept4(2), without the peer's address. `flags`: SOCK_NONBLOCK. In srt-relay's allow-list.
pub fn accept4(listener: &impl AsRawFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    let (nowhere, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    let flags = flags | libc::SOCK_CLOEXEC;
    // SAFETY: accept4 takes null pointers when the peer's address is not wanted.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), nowhere, no_length, flags) })
}

/// shutdown(2). In srt-relay's allow-list.
pub fn shutdown(socket: &impl AsRawFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), how) }).map(drop)
}

/// The types that setsockopt(2) reads: plain C types.
pub trait SocketOption {}
impl SocketOption for libc::c_int {}
impl SocketOption for libc::timeval {}
impl SocketOption for libc::linger {}

/// setsockopt(2). In srt-relay's allow-list.
pub fn setsockopt<T: SocketOption>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let (from, length) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of `value`.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, from, length) }).map(drop)
}

/// getsockopt(2) of an integer option of SOL_SOCKET. In srt-relay's allow-list.
pub fn getsockopt(socket: &impl AsRawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let (mut value, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let (fd, out) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: the kernel writes at most `length` bytes to `value`.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, out, &raw mut length) })?;
    Ok(value)
}

/// send(2).
pub fn send(socket: &impl AsRawFd, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of `bytes`.
    count(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// A control message of SCM_RIGHTS: on 64-bit machines the data directly follow the header (cmsg(3)).
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    fd: RawFd,
}

/// sendmsg(2) of one byte, with an optional descriptor (unix(7), SCM_RIGHTS).
pub fn sendmsg(socket: &impl AsRawFd, mut byte: u8, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero bytes are a valid Rights.
    let mut rights: Rights = unsafe { std::mem::zeroed() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    if let Some(fd) = fd {
        let data = size_of::<RawFd>() as libc::c_uint;
        (rights.header.cmsg_level, rights.header.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        rights.fd = fd.as_raw_fd();
        // SAFETY: arithmetic on an integer.
        rights.header.cmsg_len = unsafe { libc::CMSG_LEN(data) } as _;
        // SAFETY: arithmetic on an integer.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(data) } as _;
        message.msg_control = (&raw mut rights).cast();
    }
    // SAFETY: a msghdr whose parts live through the call.
    match count(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) })? {
        1 => Ok(()),
        _ => Err(io::Error::other("sendmsg sent nothing")),
    }
}

/// The contents of a message from [`recvmsg`].
#[derive(Debug, Default)]
pub struct Message {
    /// Its byte. `None`: end of file, no process has the other end open.
    pub byte: Option<u8>,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
    /// The sender's pid in this process's pid namespace, with SO_PASSCRED (unix(7), SCM_CREDENTIALS).
    pub pid: Option<libc::pid_t>,
}

/// recvmsg(2) of one byte and its control messages. `flags`: MSG_DONTWAIT. EMFILE: if RLIMIT_NOFILE leaves no room for
/// a descriptor, the kernel drops it and reports that only by MSG_CTRUNC (unix(7), scm_detach_fds() in net/core/scm.c).
pub fn recvmsg(socket: &impl AsRawFd, flags: libc::c_int) -> io::Result<Message> {
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // Space for SCM_RIGHTS and SCM_CREDENTIALS (cmsg(3): each is a header and its data, both aligned to 8 bytes).
    let mut control = [0u64; 8];
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of_val(&control) as _);
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: a msghdr whose parts live through the call.
    if count(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })? == 0 {
        return Ok(Message::default());
    }
    let truncated = message.msg_flags & libc::MSG_CTRUNC != 0;
    let mut received = Message { byte: Some(byte), ..Message::default() };
    // SAFETY: the kernel has filled `control` with whole control messages.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: NULL, or a header within `control`, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: the data that follows the header.
        let data = unsafe { libc::CMSG_DATA(next) };
        #[allow(clippy::unnecessary_cast, reason = "narrower with musl")]
        let length = header.cmsg_len as usize;
        // SAFETY: arithmetic on an integer.
        let bytes = length - unsafe { libc::CMSG_LEN(0) } as usize;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for at in 0..bytes / size_of::<RawFd>() {
                    // SAFETY: within the data of this message.
                    let place = unsafe { data.cast::<RawFd>().add(at) };
                    // SAFETY: as above; it need not be aligned.
                    let fd = unsafe { place.read_unaligned() };
                    // SAFETY: the kernel has just created it, so nothing else owns it.
                    received.fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= size_of::<libc::ucred>() => {
                // SAFETY: the data of this message is a ucred; it need not be aligned.
                received.pid = Some(unsafe { data.cast::<libc::ucred>().read_unaligned() }.pid);
            }
            _ => {}
        }
        // SAFETY: the same message and a header in it.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    // The descriptors that have arrived are closed.
    if truncated { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(received) }
}

/// netdevice(7) SIOCSIFFLAGS for the interface `name`, of at most 15 bytes.
pub fn ioctl_siocsifflags(socket: &impl AsRawFd, name: &[u8], flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(15).zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}
