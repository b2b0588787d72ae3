//! The removal of what a sandbox has created on the host, from directories that the command may own.

use srt_common::unix_listener::SocketPath;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

/// chmod(2): S_IRWXU.
const OWNER: u32 = 0o700;
/// How often it is tried while other sandboxes change the mode.
const TRIES: u32 = 10;

/// Removes the published sockets that are still there.
pub fn remove_sockets(published: &[SocketPath]) {
    for place in published {
        let _stays = permitted(&place.directory, || place.remove());
    }
}

/// Does `remove`, which removes an entry of `directory`. If the command has taken away the owner's permission for it
/// (chmod(2)), it is given back for that time.
///
/// # Errors
/// The error of `remove`, or of stat(2) or chmod(2).
pub fn permitted(directory: &OwnedFd, remove: impl Fn() -> io::Result<()>) -> io::Result<()> {
    // fchmod(2) refuses an O_PATH descriptor.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut left = None;
    let mut done = remove();
    for _ in 0..TRIES {
        if !done.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            break;
        }
        let mode = fs::metadata(&path)?.permissions().mode();
        // If the owner has all of it, another sandbox has just given it back, and takes it away again.
        if mode & OWNER != OWNER {
            left = Some(mode);
            fs::set_permissions(&path, Permissions::from_mode(mode | OWNER))?;
        }
        done = remove();
    }
    left.map_or(Ok(()), |left| fs::set_permissions(&path, Permissions::from_mode(left)))?;
    done
}
