//! LISTEN: the sockets that accept connections.

use crate::address::{Address, Endpoint};
use crate::target::{STREAM, Target};
use srt_common::sys::fd::{fcntl, inherited};
use srt_common::sys::socket::{SocketAddress, bind, getsockopt, listen, setsockopt, socket};
use srt_common::tcp_address::has_no_such_family;
use srt_common::unix_listener::{self, SocketPath};
use srt_common::{Context, Error, Result, unix_socket};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

/// A listening socket, and the target of its connections.
pub struct Listener {
    /// The index of its pair on the command line, from 0.
    pub pair: usize,
    /// As the user wrote it.
    pub name: String,
    /// The listening socket.
    pub socket: OwnedFd,
    /// AF_UNIX, AF_INET or AF_INET6.
    pub family: libc::c_int,
    /// The target of its connections.
    pub target: Rc<Target>,
    /// What was reported since an attempt last succeeded: a failure (false), or that the target is lost (true), perhaps
    /// after a failure.
    pub told: Option<bool>,
    /// Connections that are not connected to their target yet, the oldest first.
    pub pending: VecDeque<u64>,
    /// A Unix socket that was created here and must be removed.
    place: Option<SocketPath>,
}

impl Listener {
    /// Opens the listening sockets of `address`: one, or two for `localhost`.
    ///
    /// # Errors
    /// A socket cannot be opened. Those created before are removed again.
    pub fn open(pair: usize, address: &Address, target: &Rc<Target>) -> Result<Vec<Self>> {
        let name = address.text.to_string_lossy().into_owned();
        let new = |socket, family, place| {
            let (name, target, pending) = (name.clone(), Rc::clone(target), VecDeque::new());
            Self { pair, name, socket, family, target, told: None, pending, place }
        };
        let mut listeners = Vec::new();
        match &address.endpoint {
            Endpoint::Tcp(list) => {
                for (index, &address) in list.iter().enumerate() {
                    let address = SocketAddress::tcp(address);
                    match tcp(&address) {
                        Ok(socket) => listeners.push(new(socket, address.family(), None)),
                        // localhost on a machine without IPv6.
                        Err(error) if index > 0 && has_no_such_family(error.raw_os_error()) => {}
                        Err(error) => return Err(explain(&name, list, &error)),
                    }
                }
            }
            Endpoint::Unix(path) => {
                let (socket, place) = unix_listener::bind(path)?;
                listeners.push(new(socket, libc::AF_UNIX, Some(place)));
            }
            &Endpoint::Inherited(fd) => {
                let (socket, family) = take(fd).map_err(|error| error.within(&name))?;
                listeners.push(new(socket, family, None));
            }
        }
        for Self { socket, family, .. } in &listeners {
            // Another process may have the same socket and accept a connection between epoll's report and accept4.
            fcntl(socket, libc::F_GETFL, 0)
                .and_then(|flags| fcntl(socket, libc::F_SETFL, flags | libc::O_NONBLOCK))
                .context(|| format!("{name}: O_NONBLOCK"))?;
            if *family != libc::AF_UNIX {
                tune_tcp(socket).context(|| format!("{name}: setsockopt"))?;
            }
        }
        Ok(listeners)
    }

    /// The directory that contains a socket to remove at the end.
    pub fn directory(&self) -> Option<RawFd> {
        self.place.as_ref().map(|place| place.directory.as_raw_fd())
    }
}

/// Removes the socket's name, at exit or after an error.
impl Drop for Listener {
    fn drop(&mut self) {
        let _stays = self.place.as_ref().map(SocketPath::remove);
    }
}

/// Sets the options of a TCP socket. Sockets returned by accept4(2) inherit them from their listener.
///
/// # Errors
/// errno.
pub fn tune_tcp(socket: &OwnedFd) -> io::Result<()> {
    setsockopt(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    // A dead peer is detected after 10 + 3 × 5 seconds.
    setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &10)?;
    setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &5)?;
    setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &3)?;
    // The relay writes what it has read at once: delaying small writes gains nothing.
    setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)
}

/// Sets the options of a connected Unix socket, which inherits none.
///
/// # Errors
/// errno.
pub fn tune_unix(socket: &OwnedFd) -> io::Result<()> {
    // The kernel doubles the value (socket(7), SO_SNDBUF): this is twice the default of a Unix socket, and permitted
    // to any user. One stream from TCP is relayed 1.3 times as fast; with 64 streams, a larger buffer would not stay
    // in the cache.
    setsockopt(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &212_992)
}

/// SO_LINGER 0: close(2) resets the connection instead of ending it in order (socket(7)).
///
/// # Errors
/// errno.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    linger(socket, 1)
}

/// No SO_LINGER: close(2) ends the connection in the background.
///
/// # Errors
/// errno.
pub fn end_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    linger(socket, 0)
}

fn linger(socket: &impl AsRawFd, l_onoff: libc::c_int) -> io::Result<()> {
    setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff, l_linger: 0 })
}

fn tcp(address: &SocketAddress) -> io::Result<OwnedFd> {
    let socket = socket(address.family(), STREAM)?;
    setsockopt(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
    if address.family() == libc::AF_INET6 {
        // [::] accepts only IPv6, whatever net.ipv6.bindv6only is.
        setsockopt(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1)?;
    }
    bind(&socket, address)?;
    // As much as net.core.somaxconn allows: a client that finds the backlog full waits for a second (tcp(7)).
    listen(&socket, libc::c_int::MAX)?;
    Ok(socket)
}

fn explain(name: &str, addresses: &[SocketAddr], error: &io::Error) -> Error {
    let refused = Error::system(format!("cannot listen on {name}"), error);
    match error.kind() {
        ErrorKind::PermissionDenied if addresses.iter().any(|address| address.port() < 1024) => {
            refused.hint("ports below 1024 are privileged: use a higher one")
        }
        ErrorKind::AddrInUse => refused.hint("another program listens there: ss -ltnp shows which"),
        _ => refused,
    }
}

fn take(fd: RawFd) -> Result<(OwnedFd, libc::c_int)> {
    let socket = inherited(fd).context(|| "inherited descriptor")?;
    let option = |name| getsockopt(&socket, name).context(|| "not a socket");
    if option(libc::SO_TYPE)? != libc::SOCK_STREAM || option(libc::SO_ACCEPTCONN)? != 1 {
        return Err(Error::failed("not a listening stream socket"));
    }
    let family = option(libc::SO_DOMAIN)?;
    if ![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].contains(&family) {
        return Err(Error::failed("neither a Unix nor a TCP socket"));
    }
    if family == libc::AF_UNIX {
        unix_socket::refuse_descriptors(&socket);
    }
    Ok((socket, family))
}
