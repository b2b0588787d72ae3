//! Drops all privileges, and permits only the system calls of the loop.

use crate::target::STREAM;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::Eq;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};
use srt_common::sys::privileges::prctl_set_seccomp;
use srt_common::{Context, Error, Result, privileges};
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// Drops all capabilities, sets no_new_privs, hides this process's memory from other processes of its user, and
/// installs the filter. Besides moving bytes, the loop needs to connect sockets of these families, and to remove its
/// sockets in these directories. An outer filter may answer instead of the kernel (SECCOMP_RET_ERRNO), without
/// executing the call.
///
/// # Errors
/// A step fails, or has no effect.
pub fn lock_down(families: &[libc::c_int], directories: &[RawFd]) -> Result<()> {
    privileges::drop_all()?;
    privileges::clear_dumpable()?;
    // The kernel accepts no filter without instructions (seccomp(2), EINVAL).
    if prctl_set_seccomp(&[]).is_ok() {
        return Err(Error::failed("an outer filter fakes prctl(PR_SET_SECCOMP)"));
    }
    let filter = filter(families, directories);
    let filter = filter.map_err(|error| Error::failed(format!("seccomp filter: {error}")))?;
    let filter: Vec<_> =
        filter.iter().map(|&sock_filter { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k }).collect();
    prctl_set_seccomp(&filter).context(|| "prctl(PR_SET_SECCOMP)")
}

/// Calls that are safe with any arguments, given this process's descriptors.
const ALWAYS: &[libc::c_long] = &[
    // The loop.
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_splice,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    // For a clock that the vDSO cannot read.
    libc::SYS_clock_gettime,
    // The allocator.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    // Exit.
    libc::SYS_exit_group,
];

/// The allow-list; any other call kills the process.
///
/// # Errors
/// seccompiler's error; there is none for these rules.
fn filter(families: &[libc::c_int], directories: &[RawFd]) -> Result<BpfProgram, BackendError> {
    // New memory: private, not executable, at an address that the kernel chooses.
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    // In a debug build the standard library checks a descriptor before it closes it.
    let commands: &[_] =
        if cfg!(debug_assertions) { &[libc::F_SETPIPE_SZ, libc::F_GETFD] } else { &[libc::F_SETPIPE_SZ] };
    let command = |&command| all(&[(1, Dword, command as u64)]);
    let socket = |&family| all(&[(0, Dword, family as u64), (1, Dword, STREAM as u64), (2, Dword, 0)]);
    let mut rules = BTreeMap::from([
        (libc::SYS_mmap, vec![all(&[(0, Qword, 0), (2, Qword, writable), (3, Qword, anonymous)])?]),
        (libc::SYS_mremap, vec![all(&[(3, Qword, libc::MREMAP_MAYMOVE as u64)])?]),
        (libc::SYS_fcntl, commands.iter().map(command).collect::<Result<_, _>>()?),
        (libc::SYS_socket, families.iter().map(socket).collect::<Result<_, _>>()?),
    ]);
    // A filter cannot read the name: with a listening Unix socket, a compromised relay could unlink whatever its user
    // can. Without one it has neither call.
    if !directories.is_empty() {
        let inside = |fd: &RawFd| all(&[(0, Dword, *fd as u64), (2, Dword, 0)]);
        rules.insert(libc::SYS_unlinkat, directories.iter().map(inside).collect::<Result<_, _>>()?);
        rules.insert(libc::SYS_statx, vec![]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let mut program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()?;
    program.splice(ARCHITECTURE_CHECK..ARCHITECTURE_CHECK, table());
    Ok(program)
}

/// The number of instructions at the start of seccompiler's filter that check the architecture.
const ARCHITECTURE_CHECK: usize = 3;

/// Allows the calls of [`ALWAYS`], with one instruction each where seccompiler uses five. When a filter is loaded,
/// the kernel runs it once for every number, to learn what is always allowed (`seccomp_cache_prepare`), so its length
/// adds to the start-up time; a call found to be allowed is not filtered again.
fn table() -> BpfProgram {
    let statement = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let calls = ALWAYS.iter().enumerate().map(|(index, &call)| {
        // BPF_JMP | BPF_JEQ | BPF_K: a match jumps to the table's last instruction, which the last comparison skips
        // on a mismatch.
        let left = (ALWAYS.len() - 1 - index) as u8;
        statement(0x15, left, u8::from(left == 0), call as u32)
    });
    // BPF_LD | BPF_W | BPF_ABS, of seccomp_data's nr; BPF_RET | BPF_K.
    let (load, allow) = (statement(0x20, 0, 0, 0), statement(0x06, 0, 0, libc::SECCOMP_RET_ALLOW));
    [load].into_iter().chain(calls).chain([allow]).collect()
}

/// A rule whose arguments (index, width, value) must all be equal. Dword if the kernel takes an int.
fn all(arguments: &[(u8, SeccompCmpArgLen, u64)]) -> Result<SeccompRule, BackendError> {
    let equal = |(index, width, value): &(u8, SeccompCmpArgLen, u64)| {
        SeccompCondition::new(*index, width.clone(), Eq, *value)
    };
    SeccompRule::new(arguments.iter().map(equal).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use srt_tests::bpf::{Data, interpret};

    fn evaluate(program: &BpfProgram, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        interpret(program, &Data { nr, arch, args }).action
    }

    const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

    /// Families and directories.
    type Needs = (&'static [libc::c_int], &'static [RawFd]);

    const UNIX: Needs = (&[libc::AF_UNIX], &[]);

    fn allowed((families, directories): Needs, nr: libc::c_long, args: [u64; 6]) -> bool {
        match evaluate(&filter(families, directories).expect("filter"), NATIVE, nr as u32, args) {
            libc::SECCOMP_RET_ALLOW => true,
            libc::SECCOMP_RET_KILL_PROCESS => false,
            other => panic!("{other:#x}"),
        }
    }

    /// Written as numbers, so that a call that is added to the list must be added here, too: epoll_pwait, epoll_ctl,
    /// accept4, connect, getsockname, getpeername, getsockopt, setsockopt, shutdown, close, read, write, splice,
    /// pipe2, ppoll, clock_gettime, brk, munmap, madvise, exit_group.
    const LIST: [libc::c_long; 20] = if cfg!(target_arch = "x86_64") {
        [281, 233, 288, 42, 51, 52, 55, 54, 48, 3, 0, 1, 275, 293, 271, 228, 12, 11, 28, 231]
    } else {
        [22, 21, 242, 203, 204, 205, 209, 208, 210, 57, 63, 64, 76, 59, 73, 113, 214, 215, 233, 94]
    };

    #[test]
    fn the_list_is_allowed_and_every_other_number_kills() {
        // With any arguments; the calls that need particular ones are in the tests below.
        for nr in (0..1000).chain(0x4000_0000..0x4000_0300).chain([0x7fff_ffff, 0xffff_ffff]) {
            for needs in [UNIX, (&[libc::AF_INET], &[5])] {
                let expected = LIST.contains(&nr) || nr == libc::SYS_statx && !needs.1.is_empty();
                assert_eq!(allowed(needs, nr, [u64::MAX; 6]), expected, "{nr}");
            }
        }
    }

    #[test]
    fn of_fcntl_the_size_of_a_pipe_is_allowed() {
        // In a debug build the standard library calls F_GETFD before it closes a descriptor.
        let debug = if cfg!(debug_assertions) { libc::F_GETFD } else { libc::F_SETPIPE_SZ };
        for command in 0..2000 {
            let wanted = [libc::F_SETPIPE_SZ, debug].contains(&command);
            assert_eq!(allowed(UNIX, libc::SYS_fcntl, [9, command as u64, 0, 0, 0, 0]), wanted, "{command}");
        }
    }

    #[test]
    fn another_architecture_kills_whatever_the_number() {
        for arch in [0x4000_0003, 0x4000_0028, 0, NATIVE ^ (0xc000_003e ^ 0xc000_00b7)] {
            for nr in 0..500 {
                let verdict = evaluate(&filter(UNIX.0, UNIX.1).expect("filter"), arch, nr, [0; 6]);
                assert_eq!(verdict, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    #[test]
    fn sockets_are_of_the_families_that_are_connected_to() {
        let stream = STREAM as u64;
        let both: Needs = (&[libc::AF_INET, libc::AF_INET6], &[]);
        for family in 0..50 {
            let args = [family, stream, 0, 0, 0, 0];
            assert_eq!(allowed(UNIX, libc::SYS_socket, args), family == libc::AF_UNIX as u64);
            let inet = [libc::AF_INET as u64, libc::AF_INET6 as u64].contains(&family);
            assert_eq!(allowed(both, libc::SYS_socket, args), inet);
        }
        for bad in [[1, stream, 1], [1, stream & !0x800, 0], [1, stream + 1, 0]] {
            assert!(!allowed(UNIX, libc::SYS_socket, [bad[0], bad[1], bad[2], 0, 0, 0]));
        }
    }

    #[test]
    fn memory_is_neither_executable_nor_placed() {
        let (rw, anonymous) = (3, 0x22);
        assert!(allowed(UNIX, libc::SYS_mmap, [0, 4096, rw, anonymous, u64::MAX, 0]));
        for bad in
            [[0, 4096, 7, anonymous], [4096, 4096, rw, anonymous], [0, 4096, rw, 1], [0, 4096, rw, 0x32]]
        {
            assert!(!allowed(UNIX, libc::SYS_mmap, [bad[0], bad[1], bad[2], bad[3], 3, 0]));
        }
        assert!(!allowed(UNIX, libc::SYS_mremap, [0, 0, 0, 3, 0, 0]));
    }

    #[test]
    fn names_are_removed_where_there_are_names_to_remove() {
        let needs: Needs = (&[], &[5, 8]);
        for directory in 0..10 {
            let args = [directory, 1, 0, 0, 0, 0];
            assert_eq!(allowed(needs, libc::SYS_unlinkat, args), [5, 8].contains(&directory));
        }
        assert!(!allowed(needs, libc::SYS_unlinkat, [5, 1, libc::AT_REMOVEDIR as u64, 0, 0, 0]));
        assert!(!allowed(UNIX, libc::SYS_statx, [0; 6]));
    }
}
