//! A Unix socket to connect to, identified by its inode, not its name; and the refusal of descriptors from a peer.

use crate::sys::file::{self, statx};
use crate::sys::socket::{SocketAddress, setsockopt};
use crate::{Context, Error, Result};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// An O_PATH descriptor of the file at `path`; a file that gets that name later is not reached through it. A link in
/// place of the socket is not followed: [`address`] refuses it.
///
/// # Errors
/// The errno of the call.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    file::open(path, libc::O_PATH | libc::O_NOFOLLOW)
}

/// The address of the socket that the O_PATH descriptor `socket` refers to. connect(2) cannot take an inode, but
/// `/proc/self/fd/N` leads to it. Without a procfs, the process that starts this one can put the socket itself at that
/// path (as srt-ns does in its relay's empty root).
///
/// # Errors
/// It is not a socket, or /proc is missing.
pub fn address(socket: &impl AsRawFd) -> Result<SocketAddress> {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let stat = statx(socket, c"").context(|| "statx")?;
    if stat.is(libc::S_IFLNK) {
        return Err(Error::failed("a symbolic link, which is not followed").hint("name the socket itself"));
    }
    if !stat.is(libc::S_IFSOCK) {
        return Err(Error::failed("not a socket"));
    }
    let hint = |error: Error| error.hint("connecting to a Unix socket needs /proc: mount it");
    // Through the link, as connect(2) will go.
    let reached = file::open(&path, libc::O_PATH).context(|| &path).map_err(hint)?;
    if statx(&reached, c"").context(|| &path)?.id != stat.id {
        return Err(Error::failed(format!("{path} is another file")));
    }
    SocketAddress::unix(path.as_bytes()).ok_or_else(|| Error::failed(format!("{path} does not fit")))
}

/// SO_PASSRIGHTS of asm-generic/socket.h, Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Refuses the descriptors that a peer sends (SCM_RIGHTS), if the kernel can: a reader that does not receive them
/// closes them, which blocks as long as their SO_LINGER says. An accepted socket inherits this from its listener.
pub fn refuse_descriptors(socket: &impl AsRawFd) {
    let _older = setsockopt(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, &0);
}
