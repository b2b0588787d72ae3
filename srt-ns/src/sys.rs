//! The system calls of srt-ns, each behind a safe function.

#![allow(unsafe_code)]

use srt_common::sys::{cerr, prctl};
use srt_common::{Context, Result};
use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A process's number, in this process's pid namespace. Negative in kill(2): a process group.
pub type Pid = libc::pid_t;

// ---- identity

/// geteuid(2).
pub fn euid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::geteuid() }
}

/// getegid(2).
pub fn egid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::getegid() }
}

/// getppid(2): 0 for a parent outside this pid namespace.
pub fn parent() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getppid() }
}

/// getpid(2).
pub fn own_pid() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getpid() }
}

/// getpgrp(2).
pub fn process_group() -> Pid {
    // SAFETY: no argument, no failure.
    unsafe { libc::getpgrp() }
}

/// setsid(2).
pub fn setsid() -> io::Result<()> {
    // SAFETY: no argument.
    cerr(unsafe { libc::setsid() }).map(drop)
}

/// setpgid(2): makes `pid` (0: this process) the leader of a group of its own.
pub fn own_process_group(pid: Pid) -> io::Result<()> {
    // SAFETY: two integers.
    cerr(unsafe { libc::setpgid(pid, 0) }).map(drop)
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a new anonymous one.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
    let none: libc::c_long = 0;
    // SAFETY: a null name asks for an anonymous keyring; the rest are integers.
    match cerr(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none, none, none, none)
    }) {
        // A kernel without keys.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        // A seccomp filter (a container's) may refuse keyctl(2) as a whole: then the command, which inherits the
        // filter, cannot reach a key either. A refusal of the joining alone is a failure.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let (ring, id) = (KEY_SPEC_SESSION_KEYRING, KEYCTL_GET_KEYRING_ID);
            // SAFETY: integers.
            match cerr(unsafe { libc::syscall(libc::SYS_keyctl, id, ring, none, none, none) }) {
                Err(probe) if probe.raw_os_error() == Some(libc::EPERM) => Ok(()),
                _ => Err(error),
            }
        }
        result => result.map(drop),
    }
}

/// prctl(2) PR_CAP_AMBIENT_RAISE.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into()).map(drop)
}

/// prctl(2) PR_SET_DUMPABLE 0.
pub fn undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// prctl(2) PR_SET_PDEATHSIG: SIGKILL when the parent's thread ends. The supervisor has one thread.
pub fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)
        .map(drop)
        .context(|| "prctl(PR_SET_PDEATHSIG)")
}

/// dup2(2).
pub fn dup2(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: two integers. 0, 1 and 2, which is what it is called for, are owned by nobody.
    cerr(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Names this process `name` in ps(1) and /proc, and wipes the caller's argv and environment from its memory.
pub fn rename_process(name: &CStr) -> io::Result<()> {
    srt_common::sys::process::prctl_set_name(name)?;
    srt_common::sys::start::overwrite_arguments(name)
}

// ---- namespaces and mounts

/// unshare(2).
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: one integer; this process has one thread.
    cerr(unsafe { libc::unshare(flags) }).map(drop)
}

/// sethostname(2).
pub fn sethostname(name: &OsStr) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `name`.
    cerr(unsafe { libc::sethostname(name.as_bytes().as_ptr().cast(), name.len()) }).map(drop)
}

/// netdevice(7) SIOCSIFFLAGS: `lo` up, upon which the kernel gives it 127.0.0.1 and ::1.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: three integers.
    let socket = cerr(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket as RawFd) };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    cerr(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}

/// linux/mount.h; libc has not all of these for musl.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

fn mount_setattr(fd: RawFd, path: &CStr, flags: libc::c_int, attr: &MountAttr) -> io::Result<()> {
    let size = size_of::<MountAttr>();
    // SAFETY: a C string and a mount_attr of the size that is told.
    cerr(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), flags, attr as *const MountAttr, size)
    })
    .map(drop)
}

/// mount_setattr(2): no mount of this namespace propagates anything.
pub fn make_private() -> io::Result<()> {
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE, &private)
}

/// mount_setattr(2): a mount becomes read-only.
pub fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &read_only)
}

/// fsopen(2) … fsmount(2): a new tmpfs, detached.
pub fn tmpfs() -> io::Result<OwnedFd> {
    // SAFETY: a C string and an integer.
    let context = cerr(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let context = unsafe { OwnedFd::from_raw_fd(context as RawFd) };
    let (fd, null) = (context.as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: FSCONFIG_CMD_CREATE takes no key and no value.
    cerr(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) })?;
    let attributes = (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC) as libc::c_uint;
    // SAFETY: three integers.
    let mount = cerr(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(mount as RawFd) })
}

/// move_mount(2): a detached mount is attached at `/`, above the root, where no path leads.
pub fn attach_at_root(mount: BorrowedFd<'_>) -> io::Result<()> {
    move_mount(mount, libc::AT_FDCWD, c"/")
}

/// move_mount(2): a detached mount is attached in a directory.
pub fn attach_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    move_mount(mount, directory.as_raw_fd(), path)
}

fn move_mount(mount: BorrowedFd<'_>, directory: RawFd, path: &CStr) -> io::Result<()> {
    let (fd, flags) = (mount.as_raw_fd(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: two C strings and integers.
    cerr(unsafe { libc::syscall(libc::SYS_move_mount, fd, c"".as_ptr(), directory, path.as_ptr(), flags) })
        .map(drop)
}

/// open_tree(2) OPEN_TREE_CLONE of what a descriptor is open on: a detached mount of it alone.
pub fn clone_mount(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: a C string and integers.
    let mount = cerr(unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(mount as RawFd) })
}

/// mkdirat(2), mode 0755; the last component of `path` is made.
pub fn mkdir_at(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: a C string and integers.
    cerr(unsafe { libc::mkdirat(directory.as_raw_fd(), path.as_ptr(), 0o755) }).map(drop)
}

/// mknodat(2) of an empty regular file, which needs no privilege.
pub fn make_file_at(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: a C string and integers.
    cerr(unsafe { libc::mknodat(directory.as_raw_fd(), path.as_ptr(), libc::S_IFREG | 0o444, 0) }).map(drop)
}

/// fchdir(2).
pub fn fchdir(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: one integer.
    cerr(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

/// pivot_root(2) of the working directory.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: two C strings.
    cerr(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// umount2(2) MNT_DETACH of what is mounted on the working directory.
pub fn detach_here() -> io::Result<()> {
    // SAFETY: a C string and an integer.
    cerr(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Closes every descriptor of this process but one.
pub fn close_all_but(fd: RawFd) -> io::Result<()> {
    let fd = fd as u32;
    if let Some(below) = fd.checked_sub(1) {
        srt_common::sys::close_range(0, below, 0)?;
    }
    srt_common::sys::close_range(fd + 1, u32::MAX, 0)
}

// ---- processes

/// Which side of a fork(2) this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that forked; the child's number.
    Parent(Pid),
    /// The new one, which ends in [`exit`].
    Child,
}

/// fork(2).
pub fn fork() -> io::Result<Side> {
    // SAFETY: this process has one thread, so the child may do what any program may.
    match cerr(unsafe { libc::fork() })? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid as Pid)),
    }
}

/// _exit(2).
pub fn exit(code: u8) -> ! {
    // SAFETY: an integer, and no return.
    unsafe { libc::_exit(code.into()) }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    let fd = cerr(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// kill(2). That the target is gone is what the sender wants or learns by waiting.
pub fn kill(pid: Pid, signal: libc::c_int) {
    // SAFETY: two integers.
    let _gone = unsafe { libc::kill(pid, signal) };
}

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It exited with this code.
    Exited(u8),
    /// This signal ended it.
    Signaled(libc::c_int),
    /// A signal stopped it.
    Stopped,
}

/// waitid(2) without waiting: the next child that changed its state; an ended one is reaped.
pub fn next_change() -> Option<(Pid, Change)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG;
    // SAFETY: a pointer to a siginfo_t that lives through the call.
    cerr(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) }).ok()?;
    // SAFETY: all-zero bytes are a valid siginfo_t, and waitid has filled it or left it zero.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills si_pid; zero means that no child changed.
    let pid = unsafe { info.si_pid() };
    // SAFETY: waitid fills si_status.
    let status = unsafe { info.si_status() };
    match info.si_code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some((pid, Change::Exited(status as u8))),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Some((pid, Change::Stopped)),
        _ => Some((pid, Change::Signaled(status))),
    }
}

/// waitid(2) without waiting or reaping: whether a child has ended.
pub fn has_ended(pid: Pid) -> bool {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a pointer to a siginfo_t that lives through the call.
    let result = cerr(unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), flags) });
    // SAFETY: all-zero bytes are a valid siginfo_t, and waitid has filled it or left it zero.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills si_pid; zero means that the child lives.
    result.is_err() || unsafe { info.si_pid() } != 0
}

/// waitpid(2), until the child has ended. It is on its way, or was reaped before. Its exit status, if it has one.
pub fn reap(pid: Pid) -> Option<u8> {
    let mut status = 0;
    // SAFETY: a pointer to an integer that lives through the call.
    while let Err(error) = cerr(unsafe { libc::waitpid(pid, &mut status, 0) }) {
        if error.raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status) as u8)
}

/// Whether a process has children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// Some are alive.
    Some,
    /// There is none.
    None,
}

/// waitpid(2) of every child that has ended.
pub fn reap_all() -> Children {
    loop {
        // SAFETY: a null status is not written.
        match cerr(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }) {
            Ok(0) => return Children::Some,
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => return Children::None,
        }
    }
}

// ---- descriptors

/// fcntl(2) F_SETFL O_NONBLOCK, of a descriptor that is ours alone.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFL takes an integer.
    cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

// ---- signals

/// The signal state that the caller gave us, and that the command gets back.
#[derive(Clone, Copy)]
pub struct Inherited {
    mask: libc::sigset_t,
    child_ignored: bool,
}

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inherited").field("child_ignored", &self.child_ignored).finish_non_exhaustive()
    }
}

fn every_signal() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a pointer to a sigset_t.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: sigfillset has filled it.
    unsafe { all.assume_init() }
}

/// Blocks every signal: from now on they are read, not delivered. Also undoes an ignored SIGCHLD, under which
/// the kernel would reap the children itself and their status would be lost.
pub fn block_signals() -> io::Result<Inherited> {
    let all = every_signal();
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: two pointers to sigset_t.
    cerr(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, mask.as_mut_ptr()) })?;
    // SAFETY: SIG_DFL is no function that could be unsafe to run.
    let previous = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    // SAFETY: sigprocmask has filled it.
    let mask = unsafe { mask.assume_init() };
    Ok(Inherited { mask, child_ignored: previous == libc::SIG_IGN })
}

impl Inherited {
    /// Gives the state back, before an exec.
    pub fn restore(&self) -> io::Result<()> {
        if self.child_ignored {
            // SAFETY: SIG_IGN is no function that could be unsafe to run.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        // SAFETY: a pointer to a sigset_t and a null one.
        cerr(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, std::ptr::null_mut()) })
            .map(drop)
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its number.
    pub signal: libc::c_int,
    code: libc::c_int,
    pid: Pid,
}

impl Received {
    /// The kernel sent it: a terminal's key, a hang-up.
    pub fn from_kernel(self) -> bool {
        self.code == libc::SI_KERNEL
    }

    /// A process outside this pid namespace sent it: kernel/signal.c shows such a sender as 0, and nobody inside
    /// can pretend to that: rt_sigqueueinfo(2) refuses a forged si_code of this kind for another process.
    pub fn from_outside(self) -> bool {
        self.code == libc::SI_USER && self.pid == 0
    }
}

/// sigwaitinfo(2) for any signal.
pub fn next_signal() -> io::Result<Received> {
    let all = every_signal();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: pointers to a sigset_t and to a siginfo_t.
    cerr(unsafe { libc::sigwaitinfo(&raw const all, info.as_mut_ptr()) })?;
    // SAFETY: all-zero bytes are a valid siginfo_t, and sigwaitinfo has filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: si_pid is meaningful for SI_USER, the only code for which it is read.
    let pid = unsafe { info.si_pid() };
    Ok(Received { signal: info.si_signo, code: info.si_code, pid })
}

/// signalfd(2) for every signal; they must be blocked.
pub fn signalfd() -> io::Result<OwnedFd> {
    let all = every_signal();
    // SAFETY: a pointer to a sigset_t.
    let fd = cerr(unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The next signal of a signalfd, if there is one.
pub fn read_signal(fd: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: a pointer to `size` bytes.
    match cerr(unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) } as i64) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(_) => {
            // SAFETY: all-zero bytes are a valid signalfd_siginfo, and a read fills it whole.
            let info = unsafe { info.assume_init() };
            Ok(Some(Received { signal: info.ssi_signo as _, code: info.ssi_code, pid: info.ssi_pid as Pid }))
        }
    }
}

/// Stops this process as SIGTSTP does by default, and returns when it goes on. False: it did not stop, since
/// nobody could continue it (the kernel drops SIGTSTP in an orphaned process group).
pub fn stop_as_by_default() -> bool {
    let mut stop = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a pointer to a sigset_t.
    unsafe { libc::sigemptyset(stop.as_mut_ptr()) };
    // SAFETY: a pointer to an initialized sigset_t.
    unsafe { libc::sigaddset(stop.as_mut_ptr(), libc::SIGTSTP) };
    // SAFETY: SIG_DFL is no function that could be unsafe to run.
    let previous = unsafe { libc::signal(libc::SIGTSTP, libc::SIG_DFL) };
    // SAFETY: one integer.
    unsafe { libc::raise(libc::SIGTSTP) };
    // SAFETY: pointers to an initialized sigset_t and null; the pending signal stops us inside this call.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, stop.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: the same pointers.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, stop.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: what signal(2) returned before.
    unsafe { libc::signal(libc::SIGTSTP, previous) };
    // What made us go on is pending, since it is blocked.
    let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a pointer to a sigset_t.
    unsafe { libc::sigpending(pending.as_mut_ptr()) };
    // SAFETY: sigpending has filled it.
    (unsafe { libc::sigismember(pending.as_ptr(), libc::SIGCONT) }) == 1
}

/// ppoll(2) for reading; tells which are readable or at their end. `None` waits for ever.
pub fn poll<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // poll(2) passes over negative descriptors.
    let mut list = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout =
        timeout.map(|time| libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: N pollfds, a timespec or null, and no mask.
    match cerr(unsafe { libc::ppoll(list.as_mut_ptr(), N as libc::nfds_t, timeout, std::ptr::null()) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(list.map(|entry| entry.revents != 0)),
    }
}

// ---- the terminal

/// termios(3).
#[derive(Clone, Copy)]
pub struct Modes(libc::termios);

impl std::fmt::Debug for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Modes")
    }
}

/// tcgetattr(3).
pub fn terminal_modes(tty: BorrowedFd<'_>) -> io::Result<Modes> {
    let mut modes = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: a pointer to a termios.
    cerr(unsafe { libc::tcgetattr(tty.as_raw_fd(), modes.as_mut_ptr()) })?;
    // SAFETY: tcgetattr has filled it.
    Ok(Modes(unsafe { modes.assume_init() }))
}

/// tcsetattr(3), once what was written has gone out.
pub fn set_terminal_modes(tty: BorrowedFd<'_>, modes: &Modes) -> io::Result<()> {
    // SAFETY: a pointer to a termios.
    cerr(unsafe { libc::tcsetattr(tty.as_raw_fd(), libc::TCSADRAIN, &raw const modes.0) }).map(drop)
}

/// tcgetpgrp(3).
pub fn foreground(tty: BorrowedFd<'_>) -> Option<Pid> {
    // SAFETY: one integer.
    cerr(unsafe { libc::tcgetpgrp(tty.as_raw_fd()) }).ok().map(|group| group as Pid)
}

/// tcsetpgrp(3).
pub fn set_foreground(tty: BorrowedFd<'_>, group: Pid) -> Result<()> {
    // SAFETY: two integers.
    cerr(unsafe { libc::tcsetpgrp(tty.as_raw_fd(), group) }).map(drop).context(|| "tcsetpgrp")
}
