//! What those who start together say to each other. The command tells the supervisor its number, srt-mount gives srt-init
//! a root, on a socket that it inherits (`--join FD`): [`hello`]. The supervisor answers srt-init, and srt-init the
//! command: [`go`], when all that must be there before PROGRAM runs is there. (--as-pid-1: the supervisor the command.)
//! Where others are told the command's number, they may look at its namespaces: it enters the network first, [`join`].
//!
//! The network namespace takes the kernel longer than all others together, so srt-mount builds its tree while srt-ns
//! makes it. The end of a socket means that the start has failed, and that srt-ns has said why.

use crate::sys::file::{CWD, FileId, openat, statx};
use crate::sys::mount::setns;
use crate::sys::socket::{Message, recvmsg, sendmsg};
use crate::{Context, Error, Result};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A file's identity ([`crate::sys::file::Stat::id`]) as a word of `--joined-path`.
pub fn identity(((major, minor), inode): FileId) -> String {
    format!("{major}:{minor}:{inode}")
}

/// The first message: the command's with a pidfd of it; srt-mount's with the root directory for srt-init, a detached,
/// empty, read-only mount, which only a process that has a mount namespace of this user namespace can make.
///
/// # Errors
/// EPIPE when srt-ns is dead.
pub fn hello(socket: &impl AsRawFd, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    sendmsg(socket, b'h', with)
}

/// The answer, with the network namespace that the one who waits has to enter, if it has not yet. One who is gone does
/// not need it: its end tells more.
///
/// # Errors
/// errno: ETOOMANYREFS where RLIMIT_NOFILE leaves no room for a descriptor that is on its way (unix(7)).
pub fn go(socket: &impl AsRawFd, network: Option<BorrowedFd<'_>>) -> io::Result<()> {
    unless_gone(sendmsg(socket, b'g', network))
}

/// No error where nobody has the other end open any more.
///
/// # Errors
/// Any other one.
pub fn unless_gone(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if is_gone(&error) => Ok(()),
        sent => sent,
    }
}

/// Whether nobody has the other end open any more.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
}

/// The byte of [`join`].
pub const JOIN: u8 = b'j';

/// The network namespace ahead of [`go`], and with its errors. Who waits enters it, and says [`hello`] once more.
///
/// # Errors
/// errno.
pub fn join(socket: &impl AsRawFd, network: BorrowedFd<'_>) -> io::Result<()> {
    unless_gone(sendmsg(socket, JOIN, Some(network)))
}

/// recvmsg(2), for which a peer that is gone is the end, whatever it left unread (ECONNRESET, unix(7)).
///
/// # Errors
/// errno.
pub fn receive(socket: &impl AsRawFd, flags: libc::c_int) -> io::Result<Message> {
    match recvmsg(socket, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(Message::default()),
        result => result,
    }
}

/// Waits for the answer, and enters the network namespace. False: there is none, PROGRAM must not run, and nothing is
/// to be said.
///
/// # Errors
/// What recvmsg(2) or [`enter`] says.
pub fn wait(socket: &impl AsRawFd, own: &OwnedFd) -> Result<bool> {
    loop {
        let Message { byte: Some(byte), fds, .. } = receive(socket, 0).context(|| "recvmsg from srt-ns")?
        else {
            return Ok(false);
        };
        if let Some(network) = fds.first() {
            enter(network, own)?;
        }
        if byte != JOIN {
            return Ok(true);
        }
        match hello(socket, None) {
            Err(error) if is_gone(&error) => return Ok(false),
            said => said.context(|| "sendmsg to srt-ns")?,
        }
    }
}

/// /proc/self/ns of this process, to be opened while its root has a procfs: for [`enter`].
///
/// # Errors
/// errno.
pub fn own_namespaces() -> Result<OwnedFd> {
    let path = c"/proc/self/ns";
    openat(&CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "cannot open /proc/self/ns")
}

/// Enters a network namespace. Where an outer filter answers for setns(2), this process would stay in the host's.
///
/// # Errors
/// What setns(2) says, or that it had no effect.
pub fn enter(network: &OwnedFd, own: &OwnedFd) -> Result<()> {
    let what = || "cannot enter the network namespace";
    setns(network, libc::CLONE_NEWNET).context(what)?;
    let now = openat(own, c"net", libc::O_PATH, 0).context(what)?;
    if statx(&now, c"").context(what)?.id != statx(network, c"").context(what)?.id {
        return Err(Error::failed("setns had no effect"));
    }
    Ok(())
}
