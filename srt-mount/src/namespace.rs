//! A mount namespace of one's own.

use crate::sys;
use srt_common::{Context, Error, Result};

/// Leaves the caller's mount namespace, with nothing propagating either way.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, with a hint.
pub fn make_private() -> Result<()> {
    sys::unshare_mounts().map_err(|error| {
        let cannot = Error::system("cannot make a mount namespace", &error);
        match error.raw_os_error() {
            Some(libc::EPERM) => cannot.hint(
                "this needs CAP_SYS_ADMIN over the user namespace: run it under srt-ns, or under unshare -Ur",
            ),
            Some(libc::ENOSPC) => cannot.hint("the sysctl user.max_mnt_namespaces allows no more"),
            _ => cannot,
        }
    })?;
    // A new mount namespace still receives, or even shares, what is mounted in the old one (mount_namespaces(7)).
    sys::make_all_private().context(|| "cannot make the mounts private").map_err(|error| {
        error.hint("the root directory must be the root of a mount: srt-mount does not work in a chroot(2)")
    })
}
