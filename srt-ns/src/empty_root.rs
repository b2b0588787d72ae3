//! An empty root directory for the sandbox's own processes: srt-init and srt-relay.

use crate::namespaces;
use srt_common::sys::file::CWD;
use srt_common::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, fchdir, mount_setattr,
    move_mount, pivot_root, umount2, unshare,
};
use srt_common::{Context, Error, Result, filesystem};
use std::io;
use std::os::fd::OwnedFd;

/// The new root of a mount namespace. Until it is entered, it can be filled.
#[derive(Debug)]
pub struct EmptyRoot(OwnedFd);

impl EmptyRoot {
    /// Creates a mount namespace, and an empty tmpfs in it that is mounted on top of the old root.
    ///
    /// # Errors
    /// Any error from the kernel.
    pub fn new() -> Result<Self> {
        unshare(libc::CLONE_NEWNS)
            .map_err(|error| namespaces::refused("cannot create a mount namespace", &error))?;
        // mount_namespaces(7): the copied mounts may be peers of the caller's (with --share user they are), and
        // detaching one here would detach it there.
        mount_setattr(&CWD, c"/", libc::AT_RECURSIVE, 0, libc::MS_PRIVATE)
            .map_err(|error| of_the_root("cannot make the mounts private", &error))?;
        let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let tmpfs = filesystem::new("a tmpfs", c"tmpfs", &filesystem::NO_OPTIONS, attributes)?;
        move_mount(&tmpfs, &CWD, c"/").map_err(|error| of_the_root("cannot attach a tmpfs", &error))?;
        Ok(Self(tmpfs))
    }

    /// The directory itself.
    pub fn directory(&self) -> &OwnedFd {
        &self.0
    }

    /// Makes the directory read-only, and the root. The old root is detached, so no path leads to it.
    ///
    /// # Errors
    /// Any error from the kernel.
    pub fn enter(self) -> Result<()> {
        mount_setattr(&self.0, c"", libc::AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, 0)
            .context(|| "cannot make the empty root read-only")?;
        fchdir(&self.0).context(|| "cannot enter the empty root")?;
        // pivot_root(2), "pivot_root(".", ".")": the old root is stacked on top of the new one, and is detached from
        // there.
        pivot_root(c".", c".").map_err(|error| of_the_root("pivot_root", &error))?;
        umount2(c".", libc::MNT_DETACH).map_err(|error| of_the_root("cannot detach the old root", &error))
    }
}

/// Changes the root directory to the empty root of a detached mount. `..` stays in it, since its mount has no parent,
/// and mountinfo (proc(5)) shows no mount, since none is reachable from it.
///
/// # Errors
/// Any error from the kernel.
pub fn enter_detached(root: &OwnedFd) -> Result<()> {
    fchdir(root).context(|| "cannot enter the empty root")?;
    std::os::unix::fs::chroot(".").context(|| "chroot")
}

/// mount_setattr(2), move_mount(2) and pivot_root(2) fail with EINVAL if the caller's root is not a mount point.
fn of_the_root(what: &str, error: &io::Error) -> Error {
    let hint = "the caller's root directory must be a mount point: not a plain chroot, not the initramfs";
    namespaces::refused(what, error).hint_for(libc::EINVAL, hint)
}
