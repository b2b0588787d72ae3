//! CONNECT: the targets of connections.

use crate::address::{Address, Endpoint};
use srt_common::sys::fd::{fcntl, given};
use srt_common::sys::socket::{SocketAddress, socket};
use srt_common::{Context, Error, Result, unix_socket};
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// The type that is passed to socket(2), here, for listeners and in the seccomp filter.
pub const STREAM: libc::c_int = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// A socket to connect to.
pub struct Target {
    /// As the user wrote it.
    pub name: String,
    /// The addresses to connect to, in this order. Never empty.
    pub addresses: Vec<SocketAddress>,
    /// Keeps open the inode of a Unix socket that was named by its path.
    _socket: Option<OwnedFd>,
}

impl Target {
    /// Prepares for connections to `address`. A Unix socket's inode is kept open: a socket that replaces it later, made
    /// by a process that can write the directory, is not used.
    ///
    /// # Errors
    /// There is no such socket, or this machine lacks its family.
    pub fn new(address: &Address) -> Result<Self> {
        let name = address.text.to_string_lossy().into_owned();
        let (addresses, socket) = match &address.endpoint {
            Endpoint::Tcp(list) => (list.iter().map(|&address| SocketAddress::tcp(address)).collect(), None),
            Endpoint::Unix(path) => {
                let hint = "first start the program that creates the socket";
                let socket = unix_socket::open(path).context(|| &name);
                let socket = socket.map_err(|error| error.hint_for(libc::ENOENT, hint))?;
                (vec![unix_socket::address(&socket).map_err(|error| error.within(&name))?], Some(socket))
            }
            &Endpoint::Inherited(fd) => (vec![inherited(fd).map_err(|error| error.within(&name))?], None),
        };
        let target = Self { name, addresses, _socket: socket };
        // A socket is made for every client. Fail here if this machine lacks the family: later, that would look like
        // a lack of descriptors.
        target.socket(0).context(|| format!("cannot connect to {}", target.name))?;
        Ok(target)
    }

    /// A new socket for one of the addresses, by its index.
    ///
    /// # Errors
    /// There is no such address; errno.
    pub fn socket(&self, place: usize) -> io::Result<OwnedFd> {
        let family = self.addresses.get(place).ok_or(io::ErrorKind::AddrNotAvailable)?.family();
        let socket = socket(family, STREAM)?;
        if family == libc::AF_UNIX {
            unix_socket::refuse_descriptors(&socket);
        }
        Ok(socket)
    }

    /// Whether an attempt that failed shows that the target is lost: a Unix socket is held by its inode, and
    /// cannot come back once its owner has closed it.
    pub fn is_lost(&self, error: &io::Error) -> bool {
        self.family() == libc::AF_UNIX && error.kind() == io::ErrorKind::ConnectionRefused
    }

    /// AF_UNIX, or the family of the address that is tried first: AF_INET or AF_INET6.
    pub fn family(&self) -> libc::c_int {
        self.addresses.first().map_or(libc::AF_UNIX, SocketAddress::family)
    }
}

/// A socket that the caller has made. It is borrowed, since several pairs may name it, and stays open.
fn inherited(fd: RawFd) -> Result<SocketAddress> {
    let socket = given(fd).context(|| "inherited descriptor")?;
    if fcntl(&socket, libc::F_GETFL, 0).context(|| "fcntl")? & libc::O_PATH == 0 {
        return Err(Error::failed("not opened with O_PATH"));
    }
    unix_socket::address(&socket)
}
