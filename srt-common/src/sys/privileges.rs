//! capabilities(7), keyrings(7), seccomp(2).

use super::check;
use std::io;

/// capabilities(7), by number: may bypass file permissions.
pub const CAP_DAC_OVERRIDE: u32 = 1;
/// May change capabilities.
pub const CAP_SETPCAP: u32 = 8;
/// May mount.
pub const CAP_SYS_ADMIN: u32 = 21;
/// May give capabilities to files.
pub const CAP_SETFCAP: u32 = 31;

/// The three sets of capget(2), one bit per capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Those that the kernel checks.
    pub effective: u64,
    /// Those that can be made effective.
    pub permitted: u64,
    /// Those that can be preserved across an exec.
    pub inheritable: u64,
}

/// The header of capget(2) and capset(2): `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h, and 0 for this thread.
/// The data are the effective, permitted and inheritable sets of capabilities 0 to 31, then of 32 to 63.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];

/// capget(2) of this thread. All capabilities if an outer seccomp filter fakes the result and nothing was written.
pub fn capget() -> io::Result<Capabilities> {
    let (mut header, mut data) = (CAP_HEADER, [[!0u32; 3]; 2]);
    // SAFETY: version 3 has a header of two words and data of two times three.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) })?;
    let [effective, permitted, inheritable] =
        [0, 1, 2].map(|set| u64::from(data[0][set]) | u64::from(data[1][set]) << 32);
    Ok(Capabilities { effective, permitted, inheritable })
}

/// capset(2) of this thread.
pub fn capset(sets: Capabilities) -> io::Result<()> {
    let Capabilities { effective, permitted, inheritable } = sets;
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let (mut header, data) = (CAP_HEADER, [half(0), half(32)]);
    // SAFETY: version 3 has a header of two words and data of two times three.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) }).map(drop)
}

/// keyctl(2) with integer arguments.
pub fn keyctl(operation: libc::c_int, second: libc::c_long, third: libc::c_long) -> io::Result<libc::c_long> {
    let none: libc::c_long = 0;
    // SAFETY: used only for operations whose arguments are integers, or a pointer that may be null and is 0.
    check(unsafe { libc::syscall(libc::SYS_keyctl, operation, second, third, none, none) })
}

/// prctl(2) PR_SET_SECCOMP with SECCOMP_MODE_FILTER. EINVAL if the kernel does not accept the filter.
///
/// Not seccomp(2): an outer filter may forbid that call but permit prctl(2). And no flag is wanted: before Linux 5.16,
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW would disable a mitigation for exactly the code that is not trusted.
pub fn prctl_set_seccomp(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (option, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as libc::c_ulong);
    // SAFETY: `program` and the `len` instructions that it points to live through the call, which copies them.
    check(unsafe { libc::prctl(option, mode, &raw const program) }).map(drop)
}
