//! `--proc`: a procfs of the sandbox's pid namespace.

use crate::sys::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use srt_common::{Error, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A new procfs, detached.
///
/// # Errors
/// EPERM has two reasons, and a hint for each.
pub fn new() -> Result<OwnedFd> {
    sys::new_filesystem(c"proc", &[], NO_SUID | NO_DEV | NO_EXEC).map_err(|error| {
        let cannot = Error::system("cannot make a procfs", &error);
        match error.raw_os_error() {
            // proc(5): the pid namespace must belong to a user namespace in which the caller has CAP_SYS_ADMIN, and
            // there must be a procfs already of which nothing is covered (mount_too_revealing() in fs/namespace.c).
            Some(libc::EPERM) => cannot.hint(
                "a procfs needs a pid namespace of its own (srt-ns, unshare -p) and, in a container, a /proc that is \
                 not masked (docker run --security-opt systempaths=unconfined); or show the one that is there, and \
                 with it the names of the processes outside: --ro-bind /proc /proc",
            ),
            _ => cannot,
        }
    })
}

/// Makes read-only what is no process's, if the caller could write it.
///
/// The kernel asks for no capability to write most of /proc/sys, /proc/sysrq-trigger, /proc/irq and others: to be
/// the owner, uid 0 of the host, is enough. For anyone else nothing is covered, because a covered /proc forbids a
/// procfs in a sandbox inside this one.
///
/// # Errors
/// When something cannot be covered.
pub fn protect(proc: &OwnedFd) -> Result<()> {
    if !caller_owns(proc).map_err(|error| Error::system("cannot read the owner of sys", &error))? {
        return Ok(());
    }
    // Processes come last, as numbers.
    let is_process = |name: &CStr| name.to_bytes().first().is_some_and(u8::is_ascii_digit);
    let entries =
        sys::list(proc, is_process).map_err(|error| Error::system("cannot list the procfs", &error))?;
    for (name, _) in
        entries.iter().filter(|(name, kind)| !name.as_bytes().starts_with(b".") && *kind != libc::DT_LNK)
    {
        cover(proc, name).map_err(|error| {
            Error::system(format!("cannot make {} read-only", name.to_string_lossy()), &error)
        })?;
    }
    Ok(())
}

fn caller_owns(proc: &OwnedFd) -> std::io::Result<bool> {
    Ok(sys::stat_at(proc.as_raw_fd(), c"sys")?.uid == sys::user())
}

/// Mounts an entry on itself, read-only, unless it is a file that nobody can write.
fn cover(proc: &OwnedFd, name: &CStr) -> std::io::Result<()> {
    let stat = sys::stat_at(proc.as_raw_fd(), name)?;
    if stat.is(libc::S_IFREG) && stat.mode & 0o222 == 0 {
        return Ok(());
    }
    let tree = sys::clone_tree(proc.as_raw_fd(), name, false)?;
    sys::set_attributes(&tree, NO_SUID | NO_DEV | NO_EXEC | READ_ONLY, false)?;
    sys::attach_at(&tree, proc, name)
}
