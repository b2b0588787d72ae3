//! No privileges, and only the system calls that the loop makes.

use crate::sys;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::Eq;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule,
};
use srt_common::sys::prctl;
use srt_common::{Context, Error, Result, privileges};
use std::os::fd::RawFd;

/// What the loop has to be allowed beyond moving bytes.
#[derive(Debug, Default)]
pub struct Needs {
    /// The families of the sockets that it connects.
    pub families: Vec<libc::c_int>,
    /// The directories in which it removes its sockets.
    pub directories: Vec<RawFd>,
}

/// Gives up every capability, no_new_privs included, hides this process's memory from others of its user, and
/// loads the filter.
///
/// # Errors
/// When any of it cannot be had.
pub fn lock_down(needs: &Needs) -> Result<()> {
    privileges::drop_all()?;
    prctl(libc::PR_SET_DUMPABLE, 0, 0).context(|| "prctl(PR_SET_DUMPABLE)")?;
    let filter = filter(needs).map_err(|error| Error::failed(format!("seccomp filter: {error}")))?;
    seccompiler::apply_filter(&filter).map_err(|error| Error::failed(format!("seccomp: {error}")))
}

/// Calls that are safe with any arguments, given the descriptors that this process has.
const ALWAYS: &[libc::c_long] = &[
    // The loop.
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_splice,
    libc::SYS_pipe2,
    // A clock that the vDSO cannot read.
    libc::SYS_clock_gettime,
    // The allocator.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    // The end: Rust's runtime takes its signal stack down.
    libc::SYS_sigaltstack,
    libc::SYS_exit_group,
];

/// The allow-list; anything else kills the process.
///
/// # Errors
/// What seccompiler says; none for the rules here.
pub fn filter(needs: &Needs) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = std::collections::BTreeMap::new();
    let mut allow = |call: libc::c_long, alternatives: Vec<SeccompRule>| rules.insert(call, alternatives);
    for &call in ALWAYS {
        allow(call, vec![]);
    }
    // New memory, private and not executable, where the kernel wants it.
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    allow(libc::SYS_mmap, vec![all(&[(0, Qword, 0), (2, Qword, writable), (3, Qword, anonymous)])?]);
    allow(libc::SYS_mremap, vec![all(&[(3, Qword, libc::MREMAP_MAYMOVE as u64)])?]);
    // In a debug build the standard library looks at a descriptor before it closes it.
    let commands =
        if cfg!(debug_assertions) { &[libc::F_SETPIPE_SZ, libc::F_GETFD][..] } else { &[libc::F_SETPIPE_SZ] };
    let command = |&command| all(&[(1, Dword, command as u64)]);
    allow(libc::SYS_fcntl, commands.iter().map(command).collect::<Result<_, _>>()?);
    let socket = |&family| all(&[(0, Dword, family as u64), (1, Dword, sys::STREAM as u64), (2, Dword, 0)]);
    allow(libc::SYS_socket, needs.families.iter().map(socket).collect::<Result<_, _>>()?);
    // A filter cannot look at the name: with a listening Unix socket, a relay that was taken over could unlink
    // what its user can. Without one it has neither call.
    if !needs.directories.is_empty() {
        let inside = |fd: &RawFd| all(&[(0, Dword, *fd as u64), (2, Dword, 0)]);
        allow(libc::SYS_unlinkat, needs.directories.iter().map(inside).collect::<Result<_, _>>()?);
        allow(libc::SYS_newfstatat, vec![]);
    }
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// A rule for arguments (index, width, value) that must all be equal. Dword where the kernel takes an int.
fn all(arguments: &[(u8, SeccompCmpArgLen, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let equal = |(index, width, value): &(u8, SeccompCmpArgLen, u64)| {
        SeccompCondition::new(*index, width.clone(), Eq, *value)
    };
    SeccompRule::new(arguments.iter().map(equal).collect::<Result<_, _>>()?)
}
