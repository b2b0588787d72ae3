//! What srt-ns and the srt-mount that it runs say to each other, on a socket that srt-mount inherits (`--join FD`).
//!
//! The network namespace takes the kernel longer than all others together, so srt-mount builds its tree while srt-ns
//! makes it. srt-mount speaks first ([`hello`]); the answer ([`wait`]) comes when all that must be there before
//! PROGRAM runs is there. The end of the socket means that the start has failed, and that srt-ns has said why.

use crate::sys::mount::setns;
use crate::sys::socket::{Message, recvmsg, sendmsg};
use crate::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The first message, with the root directory for srt-init: a detached, empty, read-only mount, which only a process
/// that has a mount namespace of this user namespace can make.
///
/// # Errors
/// EPIPE when srt-ns is dead.
pub fn hello(socket: &impl AsRawFd, root: Option<BorrowedFd<'_>>) -> io::Result<()> {
    sendmsg(socket, b'h', root.as_slice())
}

/// The answer, with the network namespace that the one who waits has to enter, if it has not yet.
///
/// # Errors
/// errno.
pub fn go(socket: &impl AsRawFd, network: Option<BorrowedFd<'_>>) -> io::Result<()> {
    sendmsg(socket, b'g', network.as_slice())
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
/// What recvmsg(2) or setns(2) says.
pub fn wait(socket: &impl AsRawFd) -> Result<bool> {
    let Message { byte: Some(_), fds, .. } = receive(socket, 0).context(|| "recvmsg from srt-ns")? else {
        return Ok(false);
    };
    if let Some(network) = fds.first() {
        setns(network, libc::CLONE_NEWNET).context(|| "cannot enter the network namespace")?;
    }
    Ok(true)
}
