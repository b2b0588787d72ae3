//! A Unix socket to connect to, by its inode rather than by its name; and what none is to take.

use crate::sys::file::{open, statx};
use crate::sys::socket::{SocketAddress, setsockopt};
use crate::{Context, Error, Result};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// An O_PATH descriptor of what `path` names; nothing that takes the name later is reached through it. A link in the
/// socket's own place is not followed: [`address`] refuses it.
///
/// # Errors
/// errno.
pub fn pin(path: &Path) -> io::Result<OwnedFd> {
    open(path, libc::O_PATH | libc::O_NOFOLLOW)
}

/// The address of the socket that `pin` is open on with O_PATH. connect(2) has no form that takes an inode, but
/// `/proc/self/fd/N` leads to it; where there is no procfs, whoever starts this process can put the socket itself at
/// that path (srt-ns does, in its relay's empty root).
///
/// # Errors
/// What is no socket; a missing /proc.
pub fn address(pin: &impl AsRawFd) -> Result<SocketAddress> {
    let path = format!("/proc/self/fd/{}", pin.as_raw_fd());
    let stat = statx(pin, c"").context(|| "statx")?;
    if stat.is(libc::S_IFLNK) {
        return Err(Error::failed("a symbolic link, which is not followed").hint("name the socket itself"));
    }
    if !stat.is(libc::S_IFSOCK) {
        return Err(Error::failed("not a socket"));
    }
    let hint = |error: Error| error.hint("connecting to a Unix socket needs /proc: mount it");
    // Through the link, as connect(2) will go.
    let reached = open(&path, libc::O_PATH).context(|| &path).map_err(hint)?;
    if statx(&reached, c"").context(|| &path)?.id != stat.id {
        return Err(Error::failed(format!("{path} is another file")));
    }
    SocketAddress::unix(path.as_bytes()).ok_or_else(|| Error::failed(format!("{path} does not fit")))
}

/// SO_PASSRIGHTS of asm-generic/socket.h, Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Refuses the descriptors that a peer sends (SCM_RIGHTS), where the kernel can: who reads without taking them closes
/// them, and that waits as long as their SO_LINGER says. What is accepted inherits it from its listener.
pub fn refuse_descriptors(socket: &impl AsRawFd) {
    let _older = setsockopt(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, &0);
}
