//! A root directory with nothing in it, for what runs beside the command: PID 1 and the relays.

use crate::{namespaces, sys};
use srt_common::{Context, Error, Result};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The mount namespace's new root, not yet in place: it can still be filled.
#[derive(Debug)]
pub struct EmptyRoot(OwnedFd);

impl EmptyRoot {
    /// Makes a mount namespace of its own and an empty tmpfs in it, attached above the old root.
    ///
    /// # Errors
    /// What the kernel says of the step.
    pub fn new() -> Result<Self> {
        sys::unshare(libc::CLONE_NEWNS)
            .map_err(|error| namespaces::refused("cannot create a mount namespace", &error))?;
        // mount_namespaces(7): the copies may be peers of the caller's mounts (they are with --share user), and
        // what is detached here would be detached there.
        sys::make_private().map_err(|error| of_the_root("cannot make the mounts private", &error))?;
        let tmpfs = sys::tmpfs().context(|| "cannot create a tmpfs")?;
        sys::attach_at_root(tmpfs.as_fd()).map_err(|error| of_the_root("cannot attach a tmpfs", &error))?;
        Ok(Self(tmpfs))
    }

    /// The directory itself.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes it read-only and the root; the old root is detached, so no path leads there.
    ///
    /// # Errors
    /// What the kernel says of the step.
    pub fn enter(self) -> Result<()> {
        sys::make_read_only(self.0.as_fd()).context(|| "cannot make the empty root read-only")?;
        sys::fchdir(self.0.as_fd()).context(|| "cannot enter the empty root")?;
        // pivot_root(2), "pivot_root(".", ".")": the old root lands on top of the new one, from where it is detached.
        sys::pivot_root_here().map_err(|error| of_the_root("pivot_root", &error))?;
        sys::detach_here().map_err(|error| of_the_root("cannot detach the old root", &error))
    }
}

/// mount_setattr(2), move_mount(2) and pivot_root(2) say EINVAL where the caller's root is no mount point.
fn of_the_root(what: &str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => Error::system(what, error)
            .hint("the caller's root directory must be a mount point: not a plain chroot, not the initramfs"),
        _ => namespaces::refused(what, error),
    }
}
