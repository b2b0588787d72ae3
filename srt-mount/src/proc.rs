//! `--proc`: a procfs of the sandbox's pid namespace.

use crate::detached::{INERT, PLAIN, Tree, new_filesystem};
use crate::links::PROC_SUPER_MAGIC;
use crate::source::is_root_of_the_host;
use srt_common::sys::c_path;
use srt_common::sys::file::{fstatfs, openat2, statx};
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, fchdir, move_mount};
use srt_common::{Context, Result};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// A new procfs, detached.
///
/// # Errors
/// EPERM has two reasons, and a hint for each.
pub fn new(options: &[(&CStr, Option<&CStr>)]) -> Result<Tree> {
    // proc(5): the pid namespace must belong to a user namespace in which the caller has CAP_SYS_ADMIN, and
    // there must be a procfs already of which nothing is covered (mount_too_revealing() in fs/namespace.c).
    let hint = "a procfs needs a pid namespace of its own (srt-ns, unshare -p) and, in a container, a /proc that is \
                not masked (docker run --security-opt systempaths=unconfined); or show the one that is there, and \
                with it the names of the processes outside: --ro-bind /proc /proc";
    let made = new_filesystem("a procfs", c"proc", options, PLAIN | MOUNT_ATTR_NOEXEC);
    made.map_err(|error| error.hint_for(libc::EPERM, hint))
}

/// Makes read-only what is no process's, if the caller could write it.
///
/// The kernel asks for no capability to write most of /proc/sys, /proc/sysrq-trigger, /proc/irq and others: to be
/// the owner, uid 0 of the host, is enough. For anyone else nothing is covered, because a covered /proc forbids a
/// procfs in a sandbox inside this one.
///
/// # Errors
/// When something cannot be covered.
pub fn protect(proc: &OwnedFd, host: &OwnedFd) -> Result<()> {
    if !is_root_of_the_host() {
        return Ok(());
    }
    // The modes are the same in every procfs, and the kernel has made the host's inodes before.
    let known = openat2(host, c"proc", libc::O_PATH | libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS).ok();
    let known = known.filter(|known| fstatfs(known).is_ok_and(|kind| kind == PROC_SUPER_MAGIC));
    let cannot = || "cannot list the procfs";
    fchdir(proc).context(cannot)?;
    for entry in std::fs::read_dir(".").context(cannot)? {
        let entry = entry.context(cannot)?;
        let name = entry.file_name();
        // Processes come last, as numbers.
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            break;
        }
        if !entry.file_type().context(cannot)?.is_symlink() {
            let done = c_path(&name).and_then(|name| cover(proc, &name, known.as_ref()));
            done.context(|| format!("cannot make {} read-only", name.display()))?;
        }
    }
    Ok(())
}

/// Names of what shows the keys of the caller (keyrings(7)): all that its uid may view, whatever session they are in.
pub const KEYS: [&CStr; 2] = [c"keys", c"key-users"];

/// Whether those are to be covered. Not where the command may make user namespaces: a covered /proc would forbid a procfs
/// in a sandbox inside this one, and that procfs would show them anyway.
pub fn hides_keys() -> bool {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    most.is_some_and(|most| most.trim() == "0") || is_root_of_the_host()
}

/// Mounts an entry on itself, read-only, unless it is a file that nobody can write.
fn cover(proc: &OwnedFd, name: &CStr, known: Option<&OwnedFd>) -> io::Result<()> {
    let unwritable = |proc| {
        // Not what is mounted on it.
        let stat = statx(proc, name)?;
        io::Result::Ok(stat.is(libc::S_IFREG) && stat.mode & 0o222 == 0 && !stat.mount_root)
    };
    if known.is_some_and(|known| unwritable(known).is_ok_and(|is| is)) || unwritable(proc)? {
        return Ok(());
    }
    let tree = Tree::copy(proc, name, INERT, false)?;
    attach(&tree, proc, name)
}

/// Mounts on an entry of a procfs, and looks whether it is there.
///
/// # Errors
/// errno, ENOENT for an entry that this kernel does not have.
pub fn attach(tree: &Tree, proc: &OwnedFd, name: &CStr) -> io::Result<()> {
    move_mount(&tree.fd, proc, name)?;
    match statx(proc, name)?.mount == tree.mount {
        true => Ok(()),
        false => Err(io::Error::other("move_mount had no effect")),
    }
}
