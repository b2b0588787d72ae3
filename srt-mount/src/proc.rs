//! `--proc`: a procfs of the sandbox's pid namespace.

use crate::detached::{INERT, PLAIN, Tree, require_effect};
use crate::source::is_root_of_the_host;
use srt_common::sys::c_path;
use srt_common::sys::file::statx;
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, fchdir, move_mount};
use srt_common::sys::process::{geteuid, getpid};
use srt_common::{Context, Error, Result};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// A new procfs, detached.
///
/// # Errors
/// EPERM for one of two reasons, with a hint that covers both.
pub fn new(options: &[&str]) -> Result<Tree> {
    // proc(5): the pid namespace must belong to a user namespace in which the caller has CAP_SYS_ADMIN, and a procfs
    // must already be mounted, with no part of it covered (mount_too_revealing() in fs/namespace.c).
    let hint = "a procfs needs a pid namespace of its own (srt-ns, unshare -p) and, in a container, a /proc that is \
                not masked (docker run --security-opt systempaths=unconfined); or show the one that is there, and \
                with it the names of the processes outside: --ro-bind /proc /proc";
    let made = Tree::make("a procfs", c"proc", options, PLAIN | MOUNT_ATTR_NOEXEC);
    made.map_err(|error| error.hint_for(libc::EPERM, hint))
}

/// Makes the parts of a procfs that do not belong to a process read-only for their owner, uid 0 of the host.
///
/// The kernel requires no capability to write most of /proc/sys, /proc/sysrq-trigger, /proc/irq and others: being the
/// owner is enough. It is also enough to change the mode of any entry, and that is the same in every procfs, now and
/// later (`proc_notify_change()` in fs/proc/generic.c). `covers`: what [`may_be_covered`] says.
///
/// # Errors
/// An entry cannot be covered.
pub fn protect(proc: &OwnedFd, covers: bool) -> Result<()> {
    let is_root = is_root_of_the_host();
    if is_root {
        cover_what_root_owns(proc)?;
    }
    // sched(7), "The autogroup feature": the owner can deny PID 1 the CPU time that it needs to die. PROGRAM may do
    // so if it is PID 1 itself.
    if getpid() == 1 || !covers || !is_root && !is_root_outside() {
        return Ok(());
    }
    let autogroup = c"1/autogroup";
    match statx(proc, autogroup) {
        // A kernel without CONFIG_SCHED_AUTOGROUP.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        _ => cover(proc, autogroup).context(|| "cannot make 1/autogroup read-only"),
    }
}

/// Whether this is uid 0 of the user namespace in which srt-ns was executed, the parent of this one
/// (user_namespaces(7)), or if that cannot be read. That user owns the /proc files of srt-init, which is not dumpable
/// (proc(5)).
fn is_root_outside() -> bool {
    let own = geteuid().to_string();
    let is_root = |line: &str| line.split_whitespace().take(2).eq([&*own, "0"]);
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| map.lines().any(is_root))
}

fn cover_what_root_owns(proc: &OwnedFd) -> Result<()> {
    let cannot = || "cannot list the procfs";
    fchdir(proc).context(cannot)?;
    let mut entries = std::fs::read_dir(".").context(cannot)?;
    loop {
        // PID 1 exists, so a list without a process is incomplete: an outer filter has answered the call.
        let entry = entries.next().ok_or_else(|| Error::failed("the procfs lists no process"))?;
        let entry = entry.context(cannot)?;
        let name = entry.file_name();
        // Processes come last, as numbers.
        if name.as_bytes().iter().all(u8::is_ascii_digit) {
            return Ok(());
        }
        if !entry.file_type().context(cannot)?.is_symlink() {
            let covered = c_path(&name).and_then(|name| cover(proc, &name));
            covered.context(|| format!("cannot make {} read-only", name.display()))?;
        }
    }
}

/// Mounts an entry of the procfs on itself, read-only, and checks the result.
fn cover(proc: &OwnedFd, name: &CStr) -> io::Result<()> {
    attach(&Tree::copy(proc, name, INERT, false)?, proc, name)
}

/// The entries that show the keys of the caller (keyrings(7)): all that its uid may view, of any session.
pub const KEYS: [&CStr; 2] = [c"keys", c"key-users"];

/// Whether to cover these entries, and PID 1's autogroup. Not if the command may create user namespaces: no procfs can
/// be mounted in a nested sandbox if parts of /proc are covered, and that procfs would show them anyway. If the limit
/// cannot be read, and for uid 0 of the host, they are covered.
pub fn may_be_covered() -> bool {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    most.is_none_or(|most| most.trim() == "0") || is_root_of_the_host()
}

/// Mounts `tree` on an entry of a procfs, and checks that it is attached.
///
/// # Errors
/// errno, ENOENT for an entry that this kernel does not have.
pub fn attach(tree: &Tree, proc: &OwnedFd, name: &CStr) -> io::Result<()> {
    move_mount(&tree.fd, proc, name)?;
    require_effect("move_mount", statx(proc, name)?.mount == tree.stat.mount)
}
