//! landlock(7): rulesets.

use super::{check, owned};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
/// For the file that a descriptor refers to (O_PATH suffices) and everything below it. EBADFD: its file system has no
/// paths.
pub const LANDLOCK_RULE_PATH_BENEATH: libc::c_uint = 1;
/// For a TCP port.
pub const LANDLOCK_RULE_NET_PORT: libc::c_uint = 2;

/// landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION: the kernel's ABI. ENOSYS: the kernel was built
/// without Landlock; EOPNOTSUPP: it is disabled.
pub fn landlock_create_ruleset_version() -> io::Result<libc::c_long> {
    let (none, size, version) = (std::ptr::null::<u64>(), 0usize, LANDLOCK_CREATE_RULESET_VERSION);
    // SAFETY: a null pointer and integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, version) })
}

/// landlock_create_ruleset(2): the rights that are denied unless a rule grants them, `LANDLOCK_ACCESS_FS_*` and
/// `LANDLOCK_ACCESS_NET_*` (ABI 4), and `LANDLOCK_SCOPE_*` (ABI 6). A kernel that does not know the last fields accepts
/// them if they are 0.
pub fn landlock_create_ruleset(access_fs: u64, access_net: u64, scoped: u64) -> io::Result<OwnedFd> {
    let attr = [access_fs, access_net, scoped];
    // SAFETY: a struct landlock_ruleset_attr of the size given, alive through the call.
    owned(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of_val(&attr), 0) })
}

/// landlock_add_rule(2). `object`: the descriptor or port that a rule of this kind is about, which is in the last four
/// bytes of struct landlock_path_beneath_attr, or the last eight of struct landlock_net_port_attr.
pub fn landlock_add_rule(ruleset: &OwnedFd, kind: libc::c_uint, object: u64, access: u64) -> io::Result<()> {
    const { assert!(cfg!(target_endian = "little")) };
    let (fd, attr) = (ruleset.as_raw_fd(), [access, object]);
    // SAFETY: at least as large as the struct of either kind of rule, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, kind, &raw const attr, 0) }).map(drop)
}

/// landlock_restrict_self(2).
pub fn landlock_restrict_self(ruleset: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
