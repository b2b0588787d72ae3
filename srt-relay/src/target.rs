//! CONNECT: where connections lead to.

use crate::address::{Address, Endpoint};
use srt_common::sys::fd::{fcntl_getfl, inherited};
use srt_common::sys::socket::SocketAddress;
use srt_common::{Context, Error, Result, unix_socket};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A socket to connect to.
pub struct Target {
    /// As the user wrote it.
    pub name: String,
    /// Where to connect, in this order. Never empty.
    pub addresses: Vec<SocketAddress>,
    /// Keeps a Unix socket's inode.
    pinned: Option<OwnedFd>,
}

impl Target {
    /// Prepares for connections to `address`. A Unix socket's inode is pinned: what is put in its place later,
    /// by whoever can write the directory, is not followed.
    ///
    /// # Errors
    /// When there is no such socket.
    fn new(address: &Address) -> Result<Self> {
        let name = address.text.to_string_lossy().into_owned();
        let (addresses, pinned) = match &address.endpoint {
            Endpoint::Tcp(list) => (list.iter().map(|&address| SocketAddress::tcp(address)).collect(), None),
            Endpoint::Unix(path) => {
                let file = unix_socket::pin(path).context(|| &name).map_err(|error| {
                    error.hint("start the program that makes the socket first, and wait for it")
                })?;
                pinned(file).map_err(|error| error.within(&name))?
            }
            &Endpoint::Inherited(fd) => inherited(fd)
                .context(|| "inherited descriptor")
                .and_then(pinned)
                .map_err(|error| error.within(&name))?,
        };
        Ok(Self { name, addresses, pinned })
    }

    /// AF_UNIX, or that of the address that is tried first: AF_INET or AF_INET6.
    pub fn family(&self) -> libc::c_int {
        self.addresses.first().map_or(libc::AF_UNIX, SocketAddress::family)
    }

    /// Whether this is one Unix socket, that cannot come back once its owner has closed it.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }
}

/// Every target once, however many listeners lead to it.
#[derive(Default)]
pub struct Targets(Vec<(Endpoint, Rc<Target>)>);

impl Targets {
    /// The target that `address` names.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn get(&mut self, address: &Address) -> Result<Rc<Target>> {
        if let Some((_, target)) = self.0.iter().find(|(endpoint, _)| *endpoint == address.endpoint) {
            return Ok(Rc::clone(target));
        }
        let target = Rc::new(Target::new(address)?);
        self.0.push((address.endpoint.clone(), Rc::clone(&target)));
        Ok(target)
    }

    /// The address families of all of them.
    pub fn families(&self) -> Vec<libc::c_int> {
        let addresses = self.0.iter().flat_map(|(_, target)| &target.addresses);
        let mut families: Vec<_> = addresses.map(SocketAddress::family).collect();
        families.sort_unstable();
        families.dedup();
        families
    }
}

fn pinned(fd: OwnedFd) -> Result<(Vec<SocketAddress>, Option<OwnedFd>)> {
    if fcntl_getfl(&fd).context(|| "fcntl")? & libc::O_PATH == 0 {
        return Err(Error::failed("not opened with O_PATH"));
    }
    Ok((vec![unix_socket::address(&fd)?], Some(fd)))
}
