//! Processes: identity, start, end.

use super::{check, owned};
use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};

/// A process's pid in this process's pid namespace. Negative in kill(2): a process group.
pub type Pid = libc::pid_t;

/// getpid(2).
pub fn getpid() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getpid() }
}

/// getppid(2): 0 for a parent outside this pid namespace.
pub fn getppid() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getppid() }
}

/// getpgid(2).
pub fn getpgid(pid: Pid) -> io::Result<Pid> {
    // SAFETY: no pointers.
    check(unsafe { libc::getpgid(pid) })
}

/// getpgrp(2).
pub fn getpgrp() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getpgrp() }
}

/// geteuid(2).
pub fn geteuid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::geteuid() }
}

/// getegid(2).
pub fn getegid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::getegid() }
}

/// setsid(2): the id of the new session.
pub fn setsid() -> io::Result<Pid> {
    // SAFETY: no argument.
    check(unsafe { libc::setsid() })
}

/// setpgid(2).
pub fn setpgid(pid: Pid, group: Pid) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::setpgid(pid, group) }).map(drop)
}

/// fork(2): the child's pid; `None` in the child, which ends in an exec or in [`exit`], so it must not run
/// destructors of what it inherited.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the tools have one thread each, so the child may do what any program may.
    check(unsafe { libc::fork() }).map(|pid| (pid != 0).then_some(pid))
}

/// The same by clone(2), but the child's end sends no signal ("The child termination signal"): waitid(2) needs __WALL.
pub fn fork_without_signal() -> io::Result<Option<Pid>> {
    let none: libc::c_ulong = 0;
    // SAFETY: as in fork(); without CLONE_VM the child has a copy of this stack.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, none, none, none, none, none) })?;
    Ok((pid != 0).then_some(pid as Pid))
}

/// _exit(2).
pub fn exit(code: u8) -> ! {
    // SAFETY: an integer, and no return.
    unsafe { libc::_exit(code.into()) }
}

/// A NULL-terminated array of pointers to C strings, as execve(2) requires.
#[derive(Debug)]
pub struct Pointers<'a>(Vec<*const libc::c_char>, PhantomData<&'a CStr>);

impl<'a> Pointers<'a> {
    /// Borrows the strings.
    pub fn new(strings: &'a [impl AsRef<CStr>]) -> Self {
        Self(strings.iter().map(|s| s.as_ref().as_ptr()).chain([std::ptr::null()]).collect(), PhantomData)
    }
}

/// execve(2). Returns only the error.
pub fn execve(path: &CStr, argv: &Pointers, envp: &Pointers) -> io::Error {
    // SAFETY: a C string and two NULL-terminated arrays of C strings, alive through the call.
    unsafe { libc::execve(path.as_ptr(), argv.0.as_ptr(), envp.0.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) with AT_EMPTY_PATH: the file that `fd` refers to. Returns only the error.
pub fn execveat(fd: &impl AsRawFd, argv: &Pointers, envp: &Pointers) -> io::Error {
    let (fd, empty, argv, envp) = (fd.as_raw_fd(), c"".as_ptr(), argv.0.as_ptr(), envp.0.as_ptr());
    // SAFETY: an empty C string and two NULL-terminated arrays of C strings, alive through the call.
    unsafe { libc::syscall(libc::SYS_execveat, fd, empty, argv, envp, libc::AT_EMPTY_PATH) };
    io::Error::last_os_error()
}

/// pidfd_open(2).
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_send_signal(2), without siginfo.
pub fn pidfd_send_signal(pidfd: &impl AsRawFd, signal: libc::c_int, flags: libc::c_uint) -> io::Result<()> {
    let (fd, info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: integers and a null pointer.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, flags) }).map(drop)
}

/// kill(2). Except for signal 0, the pid must not have been reused: that of a child that was not reaped, of this
/// process, of one just checked through a pidfd, or -1.
pub fn kill(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(u8),
    /// It was killed by this signal.
    Signaled(u8),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What waitid(2) reports about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is dead.
    Ended(End),
    /// This signal stopped it.
    Stopped(u8),
    /// A ptrace(2) stop: the child has made this process its tracer. Reported whatever the options are.
    Trapped,
}

/// waitid(2) for one child, or for any with `None`. `Ok(None)`: with WNOHANG, no child has changed. ECHILD: there is
/// none.
pub fn waitid(child: Option<Pid>, options: libc::c_int) -> io::Result<Option<(Pid, Change)>> {
    // SAFETY: all-zero bytes are a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let (kind, id) = child.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid as libc::id_t));
    // SAFETY: a pointer to a siginfo_t that lives through the call.
    check(unsafe { libc::waitid(kind, id, &raw mut info, options) })?;
    // SAFETY: waitid fills si_pid; zero means that no child changed.
    let pid = unsafe { info.si_pid() };
    // SAFETY: waitid fills si_status.
    let status = unsafe { info.si_status() };
    let change = match info.si_code {
        libc::CLD_EXITED => Change::Ended(End::Exited(status as u8)),
        libc::CLD_STOPPED => Change::Stopped(status as u8),
        libc::CLD_TRAPPED => Change::Trapped,
        _ => Change::Ended(End::Signaled(status as u8)),
    };
    Ok((pid != 0).then_some((pid, change)))
}

/// prctl(2) with integer arguments; the unused ones are 0, as newer options require.
pub fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: used only for options whose arguments are integers.
    check(unsafe { libc::prctl(option, second, third, none, none) })
}

/// prctl(2) PR_SET_NAME: at most 15 bytes are used.
pub fn prctl_set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: PR_SET_NAME reads a C string.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// getrlimit(2). `resource`: a constant such as RLIMIT_NOFILE.
pub fn getrlimit(resource: i32) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to an rlimit that lives through the call.
    check(unsafe { libc::getrlimit(resource as _, &raw mut limit) })?;
    Ok(limit)
}

/// setrlimit(2).
pub fn setrlimit(resource: i32, limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: a pointer to an rlimit that lives through the call.
    check(unsafe { libc::setrlimit(resource as _, &raw const limit) }).map(drop)
}

/// uname(2): the kernel's release.
pub fn uname() -> io::Result<String> {
    // SAFETY: all-zero bytes are a valid utsname.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a utsname that lives through the call.
    check(unsafe { libc::uname(&raw mut name) })?;
    // SAFETY: the kernel ends every field with a NUL.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    Ok(release.to_string_lossy().into_owned())
}
