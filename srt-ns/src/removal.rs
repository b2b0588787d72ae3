//! The removal of what a sandbox has created on the host, from directories that the command may own.

use srt_common::unix_listener::Place;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

/// Removes the published sockets that are still there.
pub fn remove_sockets(published: &[Place]) {
    for place in published {
        let _stays = permitted(&place.directory, || place.remove());
    }
}

/// Does `remove`, which removes an entry of `directory`. If the command has taken away the permission for it
/// (chmod(2)), it is given back for that time.
///
/// # Errors
/// The error of `remove`, or of the calls that give the permission back: EBADF if the directory could only be opened
/// with O_PATH.
pub fn permitted(directory: &OwnedFd, remove: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match remove() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        done => return done,
    }
    let directory = File::from(directory.try_clone()?);
    let left = directory.metadata()?.permissions();
    directory.set_permissions(Permissions::from_mode(left.mode() | 0o700))?;
    remove().and(directory.set_permissions(left))
}
