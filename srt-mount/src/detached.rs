//! Detached mounts: new file systems and copies of mounts, created and restricted before they are attached.

use srt_common::sys::file::{Stat, fstatvfs, statx};
use srt_common::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, OPEN_TREE_CLONE,
    mount_setattr, move_mount, open_tree,
};
use srt_common::{Context, Result, filesystem};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

/// The attributes of every mount except those of `--dev-bind` and those in `--dev`.
pub const PLAIN: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
/// The attributes of masks, and of file systems that only show information.
pub const INERT: u64 = PLAIN | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;

/// The root of a mount, detached until it is attached somewhere.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The root itself.
    pub fd: Rc<OwnedFd>,
    /// Its status (statx(2)).
    pub stat: Stat,
    /// The mount points of message queues in it, relative to its root.
    pub queues: Vec<CString>,
}

impl Tree {
    /// # Errors
    /// statx(2).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = statx(&fd, c"")?;
        Ok(Self { fd: Rc::new(fd), stat, queues: vec![] })
    }

    /// The root of a new file system.
    ///
    /// # Errors
    /// Those of [`filesystem::new`] and statx(2).
    pub fn make(name: &str, kind: &CStr, options: &[impl AsRef<[u8]>], attributes: u64) -> Result<Self> {
        Self::new(filesystem::new(name, kind, options, attributes)?).context(|| "statx")
    }

    /// Copies the mount at `path`, with all mounts below it if `recursive`. The attributes are set while the copy is
    /// detached, so that no mount is writable even for a moment.
    ///
    /// # Errors
    /// errno; EINVAL for a mount of another namespace.
    pub fn copy(fd: &impl AsRawFd, path: &CStr, attributes: u64, recursive: bool) -> io::Result<Self> {
        let copy = clone_tree(fd, path, recursive)?;
        set_attributes(&copy, attributes, recursive)?;
        Self::new(copy)
    }
}

/// Attaches a tree, whose root is a directory, to a directory that no path will lead to afterwards, and checks that
/// it is attached: `..` leads out of an attached mount.
///
/// # Errors
/// errno.
pub fn attach_out_of_sight(tree: &OwnedFd, onto: &OwnedFd) -> io::Result<()> {
    move_mount(tree, onto, c"")?;
    require_effect("move_mount", statx(tree, c"..")?.mount != statx(tree, c"")?.mount)
}

/// open_tree(2) with OPEN_TREE_CLONE. Only mounts of the caller's mount namespace can be copied, and before Linux
/// 6.15 no detached ones (`__do_loopback()` in fs/namespace.c).
///
/// # Errors
/// errno.
pub fn clone_tree(fd: &impl AsRawFd, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    open_tree(fd, path, OPEN_TREE_CLONE | (empty | recursive) as libc::c_uint)
}

/// Sets attributes of the mount whose root is `fd`, and of those below it if `recursive`, and checks that they are
/// set.
///
/// # Errors
/// errno; EINVAL if `fd` is not the root of a mount.
pub fn set_attributes(fd: &impl AsRawFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(fd, c"", flags, attributes, 0)?;
    // MOUNT_ATTR_* and ST_* have the same values for the attributes set here (linux/mount.h, linux/statfs.h).
    require_effect("mount_setattr", fstatvfs(fd)? as u64 & attributes == attributes)
}

/// Checks the effect of a system call: an outer filter may have answered instead of the kernel (SECCOMP_RET_ERRNO).
///
/// # Errors
/// The effect of `call` was not seen.
pub fn require_effect(call: &str, seen: bool) -> io::Result<()> {
    if seen { Ok(()) } else { Err(io::Error::other(format!("{call} had no effect"))) }
}

/// Whether the mount through which `fd` was opened is read-only.
///
/// # Errors
/// errno.
pub fn is_read_only(fd: &impl AsRawFd) -> io::Result<bool> {
    Ok(fstatvfs(fd)? & libc::ST_RDONLY != 0)
}

/// A new tmpfs.
///
/// # Errors
/// Those of [`Tree::make`].
pub fn tmpfs(mode: u32, size: Option<u64>) -> Result<Tree> {
    let mut options = vec![format!("mode={mode:o}")];
    options.extend(size.map(|size| format!("size={size}")));
    Tree::make("a tmpfs", c"tmpfs", &options, PLAIN)
}
