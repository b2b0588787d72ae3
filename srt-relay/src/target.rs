//! CONNECT: where connections lead to.

use crate::address::{Address, Place};
use crate::sys::{self, SocketAddress};
use srt_common::sys::open_path;
use srt_common::{Context, Error, Result};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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
        let (addresses, pinned) = match &address.place {
            Place::Tcp(list) => (list.iter().map(|&address| SocketAddress::tcp(address)).collect(), None),
            Place::Unix(path) => {
                let file = open_path(path, 0).context(|| &name);
                let file = file
                    .map_err(|e| e.hint("start the program that makes the socket first, and wait for it"));
                pinned(&name, file?)?
            }
            &Place::Descriptor(fd) => pinned(&name, sys::inherited(fd).context(|| &name)?)?,
        };
        Ok(Self { name, addresses, pinned })
    }

    /// Whether this is one Unix socket, that cannot come back once its owner has closed it.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }
}

/// Every target once, however many listeners lead to it.
#[derive(Default)]
pub struct Targets(Vec<(Place, Rc<Target>)>);

impl Targets {
    /// The target that `address` names.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn get(&mut self, address: &Address) -> Result<Rc<Target>> {
        if let Some((_, target)) = self.0.iter().find(|(place, _)| *place == address.place) {
            return Ok(Rc::clone(target));
        }
        let target = Rc::new(Target::new(address)?);
        self.0.push((address.place.clone(), Rc::clone(&target)));
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

/// connect(2) has no form that takes an inode. `/proc/self/fd/N` leads to it; where there is no procfs, whoever
/// starts the relay can put the socket itself at that path (srt-ns does, in the relay's empty root).
fn pinned(name: &str, fd: OwnedFd) -> Result<(Vec<SocketAddress>, Option<OwnedFd>)> {
    if sys::status_flags(&fd).context(|| name)? & libc::O_PATH == 0 {
        return Err(Error::failed(format!("{name}: not opened with O_PATH")));
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = File::from(fd);
    let inode = file.metadata().context(|| name)?;
    if !inode.file_type().is_socket() {
        return Err(Error::failed(format!("{name}: not a socket")));
    }
    let seen = std::fs::metadata(&path).context(|| format!("{name}: {path}"));
    let seen = seen.map_err(|error| error.hint("connecting to a Unix socket needs /proc: mount it"))?;
    if (seen.dev(), seen.ino()) != (inode.dev(), inode.ino()) {
        return Err(Error::failed(format!("{name}: {path} is another file")));
    }
    Ok((SocketAddress::unix(path.as_bytes()).into_iter().collect(), Some(file.into())))
}
