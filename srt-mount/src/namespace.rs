//! A mount namespace of one's own.

use crate::options::{Action, Op};
use crate::sys;
use srt_common::{Error, Result};
use std::io;

/// Leaves the caller's mount namespace, with nothing propagating either way.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, with a hint.
pub fn make_private() -> Result<()> {
    sys::unshare_mounts().map_err(|error| {
        let cannot = Error::system("cannot make a mount namespace", &error);
        match error.raw_os_error() {
            Some(libc::EPERM) => cannot.hint(
                "this needs CAP_SYS_ADMIN over the user namespace: run it first under the srt-ns beside it, anywhere \
                 under srt-ns --keep-admin, or under unshare -Ur",
            ),
            Some(libc::ENOSPC) => cannot.hint("the sysctl user.max_mnt_namespaces allows no more"),
            _ => cannot,
        }
    })?;
    // A new mount namespace still receives, or even shares, what is mounted in the old one (mount_namespaces(7)).
    sys::make_all_private().map_err(|error| refused("cannot make the mounts private", &error))
}

/// Why a change of the mounts is refused, as far as one can see from here.
pub fn refused(what: &str, error: &io::Error) -> Error {
    let cannot = Error::system(what, error);
    match error.raw_os_error() {
        Some(libc::EINVAL) => cannot.hint(
            "the root directory must be the root of a mount: not a plain chroot(2), not the initial RAM file system",
        ),
        Some(libc::EPERM | libc::EACCES) => cannot.hint(
            "something refuses mounts: in a container its profiles (docker run --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined), or a security module",
        ),
        _ => cannot,
    }
}

/// Refuses what a mount namespace cannot hold before the first mount: for so many mounts, one on the other, the kernel
/// takes minutes, and each source takes a descriptor.
///
/// # Errors
/// More mounts than fs.mount-max of proc_sys_fs(5), with a hint.
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
    !matches!(
        action,
        Action::Bind { optional: true, .. }
            | Action::Dir { .. }
            | Action::File { .. }
            | Action::Symlink { .. }
            | Action::Chmod { .. }
            | Action::RemountReadOnly
    )
}
