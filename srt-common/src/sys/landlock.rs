//! landlock(7): rulesets.

use super::{check, owned};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// struct landlock_ruleset_attr of linux/landlock.h. A kernel that does not know the last fields takes them as long as
/// they are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RulesetAttr {
    /// `LANDLOCK_ACCESS_FS_*`.
    pub handled_access_fs: u64,
    /// `LANDLOCK_ACCESS_NET_*` (ABI 4).
    pub handled_access_net: u64,
    /// `LANDLOCK_SCOPE_*` (ABI 6).
    pub scoped: u64,
}

const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
/// For what a descriptor is open on (O_PATH will do) and all below it. EBADFD: it is on no file system with paths.
pub const LANDLOCK_RULE_PATH_BENEATH: libc::c_uint = 1;
/// For a TCP port.
pub const LANDLOCK_RULE_NET_PORT: libc::c_uint = 2;

/// landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION: the kernel's ABI. ENOSYS: it was built without
/// Landlock; EOPNOTSUPP: it is off.
pub fn landlock_create_ruleset_version() -> io::Result<libc::c_long> {
    let (none, size, version) = (std::ptr::null::<RulesetAttr>(), 0usize, LANDLOCK_CREATE_RULESET_VERSION);
    // SAFETY: a null pointer and integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, version) })
}

/// landlock_create_ruleset(2).
pub fn landlock_create_ruleset(attr: &RulesetAttr) -> io::Result<OwnedFd> {
    let (attr, size, flags) = (std::ptr::from_ref(attr), size_of::<RulesetAttr>(), 0 as libc::c_uint);
    // SAFETY: a landlock_ruleset_attr of the size given, alive through the call.
    owned(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr, size, flags) })
}

/// landlock_add_rule(2). `object`: the descriptor or the port that a rule of this kind is about. In struct
/// landlock_path_beneath_attr it has the last four bytes, in struct landlock_net_port_attr the last eight.
pub fn landlock_add_rule(ruleset: &OwnedFd, kind: libc::c_uint, object: u64, access: u64) -> io::Result<()> {
    const { assert!(cfg!(target_endian = "little")) };
    let (fd, attr, flags) = (ruleset.as_raw_fd(), [access, object], 0 as libc::c_uint);
    // SAFETY: at least as much as a rule of either kind has, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, kind, &raw const attr, flags) }).map(drop)
}

/// landlock_restrict_self(2).
pub fn landlock_restrict_self(ruleset: &impl AsRawFd) -> io::Result<()> {
    let (fd, flags) = (ruleset.as_raw_fd(), 0 as libc::c_uint);
    // SAFETY: integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, flags) }).map(drop)
}
