//! Namespaces, mounts and roots.

use super::{check, owned};
use libc::{c_int, c_uint};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

pub use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, OPEN_TREE_CLONE};

/// unshare(2). The tools are single-threaded.
pub fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: one integer.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// setns(2): `fd` refers to a namespace, or is a pidfd.
pub fn setns(fd: &impl AsRawFd, flags: c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// sethostname(2).
pub fn sethostname(name: &OsStr) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `name`.
    check(unsafe { libc::sethostname(name.as_bytes().as_ptr().cast(), name.len()) }).map(drop)
}

/// mount_setattr(2), clearing no attribute. `flags`: AT_EMPTY_PATH, AT_RECURSIVE; `set`: `MOUNT_ATTR_*`; `sharing`:
/// 0, or a type such as `MS_PRIVATE`.
pub fn mount_setattr(fd: &impl AsRawFd, path: &CStr, flags: c_int, set: u64, sharing: u64) -> io::Result<()> {
    // struct mount_attr of linux/mount.h: attr_set, attr_clr, propagation, userns_fd.
    let attr = [set, 0, sharing, 0];
    let (fd, path, attr, size) = (fd.as_raw_fd(), path.as_ptr(), &raw const attr, size_of_val(&attr));
    // SAFETY: a C string and a mount_attr of the size given, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path, flags, attr, size) }).map(drop)
}

/// open_tree(2). `flags`: OPEN_TREE_CLONE, AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW.
pub fn open_tree(fd: &impl AsRawFd, path: &CStr, flags: c_uint) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as c_uint;
    // SAFETY: a C string and integers.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, fd.as_raw_fd(), path.as_ptr(), flags) })
}

/// move_mount(2) of the mount `from` itself onto `path` in `to`, or onto `to` itself for an empty path.
pub fn move_mount(from: &impl AsRawFd, to: &impl AsRawFd, path: &CStr) -> io::Result<()> {
    let onto = if path.is_empty() { libc::MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    let (from, to, flags) = (from.as_raw_fd(), to.as_raw_fd(), libc::MOVE_MOUNT_F_EMPTY_PATH | onto);
    // SAFETY: two C strings and integers.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) })
        .map(drop)
}

/// fsopen(2).
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a C string and an integer.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// fsconfig(2), without the commands that take a descriptor.
pub fn fsconfig(
    context: &impl AsRawFd,
    command: c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let [key, value] = [key, value].map(|text| text.map_or(std::ptr::null(), CStr::as_ptr));
    // SAFETY: NULL or C strings, as the command requires.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) }).map(drop)
}

/// fsmount(2). `attributes`: `MOUNT_ATTR_*`.
pub fn fsmount(context: &impl AsRawFd, attributes: u64) -> io::Result<OwnedFd> {
    let attributes = attributes as c_uint;
    // SAFETY: integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes) })
}

/// pivot_root(2).
pub fn pivot_root(new_root: &CStr, put_old: &CStr) -> io::Result<()> {
    // SAFETY: two C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new_root.as_ptr(), put_old.as_ptr()) }).map(drop)
}

/// umount2(2).
pub fn umount2(path: &CStr, flags: c_int) -> io::Result<()> {
    // SAFETY: a C string and an integer.
    check(unsafe { libc::umount2(path.as_ptr(), flags) }).map(drop)
}

/// fchdir(2).
pub fn fchdir(directory: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: an integer.
    check(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}
