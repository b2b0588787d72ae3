//! Messages during the start. [`hello`]: the command sends its pid to the supervisor; srt-mount sends a root directory
//! to srt-init, on an inherited socket (`--join FD`). [`GO`]: when everything is ready for PROGRAM, the supervisor
//! answers srt-init, and srt-init the command (with --as-pid-1, the supervisor the command). [`JOIN`]: if other
//! processes are told the command's pid, they may look at its namespaces, so it first enters the network namespace.
//!
//! The kernel takes longer to create the network namespace than all the others together, so srt-mount builds its tree
//! at the same time. The end of a socket means that the start has failed, and that srt-ns has printed why.

use crate::error::require_effect;
use crate::sys::file::{FileId, open, openat, statx};
use crate::sys::mount::setns;
use crate::sys::socket::{Message, recvmsg, sendmsg};
use crate::{Context, Result};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A file's identity ([`crate::sys::file::Stat::id`]) as an argument of `--joined-path`.
pub fn identity(((major, minor), inode): FileId) -> String {
    format!("{major}:{minor}:{inode}")
}

/// The first message: the command's, with its pidfd; srt-mount's, with the root directory for srt-init: a detached,
/// empty, read-only mount, which only a process with a mount namespace of this user namespace can create.
///
/// # Errors
/// EPIPE if srt-ns is dead.
pub fn hello(socket: &impl AsRawFd, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    sendmsg(socket, b'h', with)
}

/// PROGRAM may run.
pub const GO: u8 = b'g';

/// Comes before [`GO`], with the network namespace. The receiver enters it and sends [`hello`] again.
pub const JOIN: u8 = b'j';

/// The answer, [`GO`] or [`JOIN`], with the network namespace that the receiver must enter, if it has not yet. A
/// receiver that is gone is not an error: its exit status says more.
///
/// # Errors
/// The errno; ETOOMANYREFS if RLIMIT_NOFILE leaves no room for a descriptor in flight (unix(7)).
pub fn answer(socket: &impl AsRawFd, byte: u8, network: Option<BorrowedFd<'_>>) -> io::Result<()> {
    unless_gone(sendmsg(socket, byte, network))
}

/// Ignores the error that no process has the other end open any more.
///
/// # Errors
/// Any other error.
pub fn unless_gone(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if is_gone(&error) => Ok(()),
        sent => sent,
    }
}

/// Whether the error means that no process has the other end open any more.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
}

/// recvmsg(2), for which a peer that is gone is end of file, even if it left data unread (ECONNRESET, unix(7)).
///
/// # Errors
/// The errno of the call.
pub fn receive(socket: &impl AsRawFd, flags: libc::c_int) -> io::Result<Message> {
    match recvmsg(socket, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(Message::default()),
        result => result,
    }
}

/// Waits for the answer, and enters the network namespace. False: no answer will come, PROGRAM must not run, and there
/// is nothing to print.
///
/// # Errors
/// Any error from recvmsg(2) or [`enter`].
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
        // If no process is left to read it, none answers.
        unless_gone(hello(socket, None)).context(|| "sendmsg to srt-ns")?;
    }
}

/// Opens /proc/self/ns of this process for [`enter`], while its root has a procfs.
///
/// # Errors
/// The errno of the call.
pub fn own_namespaces() -> Result<OwnedFd> {
    open("/proc/self/ns", libc::O_PATH | libc::O_DIRECTORY).context(|| "cannot open /proc/self/ns")
}

/// Enters a network namespace. If an outer seccomp filter fakes the result of setns(2), this process stays in the
/// host's.
///
/// # Errors
/// Any error from setns(2), or an error if it had no effect.
pub fn enter(network: &OwnedFd, own: &OwnedFd) -> Result<()> {
    let what = || "cannot enter the network namespace";
    setns(network, libc::CLONE_NEWNET).context(what)?;
    let now = openat(own, c"net", libc::O_PATH, 0).context(what)?;
    let entered = statx(&now, c"").context(what)?.id == statx(network, c"").context(what)?.id;
    require_effect("setns", entered)
}
