//! A private mount namespace.

use crate::detached::{INERT, Tree, require_effect, set_attributes, tmpfs};
use crate::options::{Action, Op};
use crate::source::look_at;
use srt_common::filesystem::NO_OPTIONS;
use srt_common::sys::fd::inherited;
use srt_common::sys::file::{CWD, statx};
use srt_common::sys::mount::{mount_setattr, unshare};
use srt_common::{Context, Error, Result, mountinfo, procfs, startup};
use std::fs::symlink_metadata;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Leaves the caller's mount namespace. No mounts propagate between it and the new one.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, with a hint.
pub fn make_private() -> Result<()> {
    let root = || statx(&CWD, c"/").context(|| "cannot look at the root directory");
    let callers = root()?.mount;
    let hint = "this needs CAP_SYS_ADMIN over the user namespace: run it first under the srt-ns beside it, anywhere under \
                srt-ns --keep-admin, or under unshare -Ur";
    let limit = "the sysctl user.max_mnt_namespaces allows no more";
    let made = unshare(libc::CLONE_NEWNS).context(|| "cannot make a mount namespace");
    made.map_err(|error| error.hint_for(libc::EPERM, hint).hint_for(libc::ENOSPC, limit))?;
    // The mounts of the new namespace are copies, with IDs of their own as long as the originals exist.
    if root()?.mount == callers {
        return Err(Error::failed("unshare had no effect"));
    }
    // Mounts still propagate from the old namespace to a new one, or even both ways (mount_namespaces(7)).
    mount_setattr(&CWD, c"/", libc::AT_RECURSIVE, 0, libc::MS_PRIVATE)
        .map_err(|error| refused("cannot make the mounts private", &error).hint_for(libc::EINVAL, ROOT))?;
    // The attributes of mounts below another one are not read back. Nobody has all: EINVAL, unless an outer filter
    // answers such calls.
    let all = mount_setattr(&CWD, c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, u64::MAX, 0);
    let reached = all.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
    require_effect("mount_setattr", reached).context(|| "cannot set attributes of mounts")
}

/// Checks that no mount of the namespace propagates any more (proc(5), mountinfo), and returns the mount points of
/// message queues of another ipc namespace. Does nothing if no procfs is mounted.
///
/// # Errors
/// A mount propagates, or the mounts cannot be examined.
pub fn look() -> Result<Vec<PathBuf>> {
    let what = || "cannot read /proc/self/mountinfo";
    // Without a procfs there must be no /proc/self, not even a dangling link: later paths below it would lead to what an
    // earlier run has left there.
    let absent = || procfs::open().is_ok() || symlink_metadata("/proc/self").is_err();
    let mounts = match mountinfo::read("/proc/self/mountinfo") {
        Err(error) if error.kind() == ErrorKind::NotFound && absent() => return Ok(vec![]),
        read => read.context(what)?,
    };
    let mut queues = vec![];
    for mount in mountinfo::parse(&mounts).ok_or_else(|| Error::failed(what()))? {
        if mount.propagates {
            return Err(Error::failed("mounts propagate after mount_setattr"));
        }
        if mount.kind == b"mqueue" {
            queues.push(mount.point);
        }
    }
    if !queues.is_empty() {
        // In the same ipc namespace a new mount shows the same file system. Without privileges over the ipc namespace
        // (EPERM) none was created, and the queues are those of the command's own namespace anyway.
        let own = match Tree::make("an mqueue file system", c"mqueue", &NO_OPTIONS, INERT) {
            Err(error) if error.errno == Some(libc::EPERM) => return Ok(vec![]),
            own => own?,
        };
        for path in std::mem::take(&mut queues) {
            let found = match look_at(&path).context(|| format!("cannot look at {}", path.display())) {
                // The mount point is covered, or cannot be reached.
                Err(Error { errno: Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES), .. }) => continue,
                found => found?,
            };
            if found.device() != own.stat.device() {
                queues.push(path);
            }
        }
    }
    Ok(queues)
}

/// The inode number of this mount namespace, which identifies it (namespaces(7)), or 0 if no procfs is mounted.
pub fn inode() -> u64 {
    std::fs::metadata("/proc/self/ns/mnt").map_or(0, |namespace| namespace.ino())
}

/// The connection to srt-ns for `--join`: the socket, and this process's /proc/self/ns.
pub type Join = (OwnedFd, OwnedFd);

/// Tells the srt-ns that waits at the socket `--join` that the mount namespace exists, and passes it what only a
/// process inside can create: an empty root directory for srt-init, not attached anywhere.
///
/// # Errors
/// `number` is not an open socket.
pub fn say_hello(number: RawFd) -> Result<Join> {
    let what = || format!("--join {number}");
    let socket = inherited(number).context(what)?;
    let root = tmpfs(0o555, None)?;
    set_attributes(&root.fd, INERT, false).context(|| "mount_setattr of the root for srt-init")?;
    // If srt-ns is gone, the start has failed, and it has reported why. The wait for its answer will find that there is
    // none.
    startup::unless_gone(startup::hello(&socket, Some(root.fd.as_fd()))).context(what)?;
    Ok((socket, startup::own_namespaces()?))
}

/// The hint for EINVAL, if the root directory is the likely cause.
pub const ROOT: &str =
    "the root directory must be the root of a mount: not a plain chroot(2), not the initial RAM file system";

/// The error for a refused change of the mounts, with a hint at the likely cause.
pub fn refused(what: &str, error: &io::Error) -> Error {
    let refuses = "something refuses mounts: in a container its profiles (docker run --security-opt seccomp=unconfined \
                   --security-opt apparmor=unconfined), a security module, or Landlock (srt-seccomp --landlock, --read, --write)";
    Error::system(what, error)
        .hint_for(libc::EPERM, refuses)
        .hint_for(libc::EACCES, refuses)
        .hint_for(libc::ENOSPC, "a mount namespace holds no more than the sysctl fs.mount-max mounts")
}

/// Refuses more mounts than a mount namespace can hold before the first one is made: the kernel takes minutes to
/// stack so many mounts, and each source takes a descriptor.
///
/// # Errors
/// More mounts than fs.mount-max (proc_sys_fs(5)), with a hint.
pub fn has_room_for(ops: &[Op]) -> Result<()> {
    if ops.len() < 10_000 {
        return Ok(());
    }
    let mounts = ops.iter().filter(|op| mounts(&op.action)).count();
    let limit = std::fs::read_to_string("/proc/sys/fs/mount-max").ok();
    match limit.and_then(|limit| limit.trim().parse().ok()) {
        Some(limit) if mounts >= limit => {
            Err(Error::failed(format!("{mounts} mounts are more than a mount namespace holds"))
                .hint(format!("the sysctl fs.mount-max is {limit}")))
        }
        _ => Ok(()),
    }
}

fn mounts(action: &Action) -> bool {
    match action {
        Action::Bind { optional, .. } => !optional,
        Action::File { .. } | Action::Dir { .. } | Action::Symlink { .. } => false,
        Action::Chmod { .. } | Action::RemountReadOnly => false,
        _ => true,
    }
}
