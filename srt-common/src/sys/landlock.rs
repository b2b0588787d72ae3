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

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
}

const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
const LANDLOCK_RULE_PATH_BENEATH: libc::c_uint = 1;
const LANDLOCK_RULE_NET_PORT: libc::c_uint = 2;

/// landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION: the kernel's ABI. ENOSYS: it was built without
/// Landlock; EOPNOTSUPP: it is off.
pub fn landlock_create_ruleset_version() -> io::Result<libc::c_long> {
    let (none, version) = (std::ptr::null::<RulesetAttr>(), LANDLOCK_CREATE_RULESET_VERSION);
    let size: libc::size_t = 0;
    // SAFETY: a null pointer and integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, version) })
}

/// landlock_create_ruleset(2).
pub fn landlock_create_ruleset(attr: &RulesetAttr) -> io::Result<OwnedFd> {
    let (attr, size, flags) = (std::ptr::from_ref(attr), size_of::<RulesetAttr>(), 0 as libc::c_uint);
    // SAFETY: a landlock_ruleset_attr of the size given, alive through the call.
    owned(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr, size, flags) })
}

/// landlock_add_rule(2) LANDLOCK_RULE_PATH_BENEATH, for what `path` is open on (O_PATH will do) and all below it. EBADFD:
/// it is on no file system with paths.
pub fn landlock_add_rule_path(ruleset: &impl AsRawFd, path: &impl AsRawFd, access: u64) -> io::Result<()> {
    let attr = PathBeneathAttr { allowed_access: access, parent_fd: path.as_raw_fd() };
    let (fd, kind, flags) = (ruleset.as_raw_fd(), LANDLOCK_RULE_PATH_BENEATH, 0 as libc::c_uint);
    // SAFETY: a landlock_path_beneath_attr, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, kind, &raw const attr, flags) }).map(drop)
}

/// landlock_add_rule(2) LANDLOCK_RULE_NET_PORT.
pub fn landlock_add_rule_port(ruleset: &impl AsRawFd, port: u16, access: u64) -> io::Result<()> {
    let attr = NetPortAttr { allowed_access: access, port: port.into() };
    let (fd, kind, flags) = (ruleset.as_raw_fd(), LANDLOCK_RULE_NET_PORT, 0 as libc::c_uint);
    // SAFETY: a landlock_net_port_attr, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, kind, &raw const attr, flags) }).map(drop)
}

/// landlock_restrict_self(2).
pub fn landlock_restrict_self(ruleset: &impl AsRawFd) -> io::Result<()> {
    let (fd, flags) = (ruleset.as_raw_fd(), 0 as libc::c_uint);
    // SAFETY: integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, flags) }).map(drop)
}
