//! System calls that more than one tool makes, each behind a safe function.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// -1 is an error in errno; anything else is the answer.
///
/// # Errors
/// errno.
pub fn cerr(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// The same for calls that answer with a small number.
fn cerr_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// fcntl(2) F_GETFD: fails with EBADF when `fd` is not open.
///
/// # Errors
/// errno.
pub fn fd_flags(fd: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFD takes no pointer.
    cerr_int(unsafe { libc::fcntl(fd, libc::F_GETFD) })
}

/// Whether the next exec closes `fd`.
///
/// # Errors
/// errno.
pub fn set_cloexec(fd: RawFd, on: bool) -> io::Result<()> {
    let flags = fd_flags(fd)? & !libc::FD_CLOEXEC | if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an integer.
    cerr_int(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) }).map(drop)
}

/// close_range(2), of `first` to `last`. By number: musl has no wrapper.
///
/// # Errors
/// errno.
pub fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: three integers. That no owned descriptor is in the range is the caller's business: at an exec or
    // in a fresh child there is none that is used again.
    cerr(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// write(2) until all is written.
///
/// # Errors
/// errno, EINTR excepted.
pub fn write_all(fd: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the pointer and the length are those of `bytes`.
        match cerr(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as i64) {
            Ok(count) => bytes = bytes.get(count as usize..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// getauxval(3) AT_SECURE: the kernel gave this process privileges that its caller does not have.
pub fn secure_exec() -> bool {
    // SAFETY: an integer in, an integer out.
    (unsafe { libc::getauxval(libc::AT_SECURE) }) != 0
}

/// uname(2): the kernel's release.
///
/// # Errors
/// errno.
pub fn kernel_release() -> io::Result<String> {
    let mut name = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: a pointer to a utsname that lives through the call.
    cerr_int(unsafe { libc::uname(name.as_mut_ptr()) })?;
    // SAFETY: all-zero bytes are a valid utsname, and uname has filled it.
    let name = unsafe { name.assume_init() };
    // SAFETY: the kernel ends every field with a NUL.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    Ok(release.to_string_lossy().into_owned())
}

/// prctl(2) PR_SET_NO_NEW_PRIVS.
///
/// # Errors
/// errno.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// prctl(2) PR_GET_NO_NEW_PRIVS.
///
/// # Errors
/// errno.
pub fn no_new_privs() -> io::Result<bool> {
    prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0).map(|set| set == 1)
}

/// prctl(2) with integer arguments; the unused ones are 0, as the newer options demand.
///
/// # Errors
/// errno.
pub fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: only options whose arguments are integers come here.
    cerr_int(unsafe { libc::prctl(option, second, third, none, none) })
}

/// capabilities(7), by number: may pass the permissions of files.
pub const CAP_DAC_OVERRIDE: u32 = 1;

/// capabilities(7), by number: may change capabilities.
pub const CAP_SETPCAP: u32 = 8;

/// capabilities(7), by number: may mount.
pub const CAP_SYS_ADMIN: u32 = 21;

/// The three sets of capget(2), a bit per capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What the kernel asks.
    pub effective: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What an exec can keep.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: 64 capabilities in two halves.
const CAP_VERSION_3: u32 = 0x2008_0522;

/// capget(2) of this thread.
///
/// # Errors
/// errno.
pub fn capabilities() -> io::Result<Capabilities> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and writes two data.
    cerr(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |half: fn(&CapData) -> u32| u64::from(half(&data[0])) | u64::from(half(&data[1])) << 32;
    Ok(Capabilities {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// capset(2) of this thread.
///
/// # Errors
/// errno.
pub fn set_capabilities(sets: Capabilities) -> io::Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data.
    cerr(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// prctl(2) PR_CAPBSET_DROP of every capability that the kernel knows (EINVAL tells the end).
///
/// # Errors
/// errno, EPERM without CAP_SETPCAP.
pub fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => break,
            result => result.map(drop)?,
        }
    }
    Ok(())
}

/// Opens /dev/null where 0, 1 or 2 is closed.
///
/// # Errors
/// errno.
pub fn open_standard_descriptors() -> io::Result<()> {
    let mut three = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three pollfds.
    cerr_int(unsafe { libc::poll(three.as_mut_ptr(), 3, 0) })?;
    for closed in three.iter().filter(|entry| entry.revents & libc::POLLNVAL != 0) {
        // open(2) takes the lowest number that is free: those below are open by now.
        // SAFETY: a C string.
        let fd = cerr_int(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        if fd != closed.fd {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
    }
    Ok(())
}

/// A write into a closed pipe fails with EPIPE, and does not end the process.
///
/// # Errors
/// errno.
pub fn ignore_sigpipe() -> io::Result<()> {
    // SAFETY: SIG_IGN is no function that could be unsafe to run.
    let previous = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SIGPIPE back to its default: an ignored signal stays ignored through exec.
///
/// # Errors
/// errno.
pub fn default_sigpipe() -> io::Result<()> {
    // SAFETY: SIG_DFL is no function that could be unsafe to run.
    let previous = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// environ(7) as it came, entries without `=` and repeated ones included, which `std::env` would not give.
pub fn environment() -> Vec<CString> {
    unsafe extern "C" {
        static mut environ: *const *const libc::c_char;
    }
    let mut all = Vec::new();
    // SAFETY: one thread, and nothing in these tools calls setenv(3).
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: environ is an array of pointers that ends with NULL, which `break` below does not pass.
        let string = unsafe { *entry };
        if string.is_null() {
            break;
        }
        // SAFETY: an entry before the NULL is a C string.
        all.push(unsafe { CStr::from_ptr(string) }.to_owned());
        // SAFETY: the entry was not the NULL at the end, so there is another behind it.
        entry = unsafe { entry.add(1) };
    }
    all
}

/// A NULL-terminated array of pointers to C strings, as execve(2) wants it.
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

/// execveat(2) with AT_EMPTY_PATH: runs the file that `fd` is open on. Returns only the error.
pub fn execve_fd(fd: RawFd, argv: &Pointers, envp: &Pointers) -> io::Error {
    let (empty, argv, envp) = (c"".as_ptr(), argv.0.as_ptr(), envp.0.as_ptr());
    // SAFETY: an empty C string and two NULL-terminated arrays of C strings, alive through the call.
    unsafe { libc::syscall(libc::SYS_execveat, fd, empty, argv, envp, libc::AT_EMPTY_PATH) };
    io::Error::last_os_error()
}

/// Opens a path with O_PATH and close-on-exec. Not through the standard library: it masks the caller's flags with
/// O_ACCMODE, in which musl counts O_PATH, so that a FIFO or a socket would be opened in earnest.
///
/// # Errors
/// errno.
pub fn open_path(path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a C string.
    let fd = cerr_int(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | flags) })?;
    // SAFETY: the kernel has just made it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// umask(2) around `action`. One thread.
pub fn with_umask<T>(mask: libc::mode_t, action: impl FnOnce() -> T) -> T {
    // SAFETY: an integer, and no failure.
    let previous = unsafe { libc::umask(mask) };
    let result = action();
    // SAFETY: an integer, and no failure.
    unsafe { libc::umask(previous) };
    result
}

/// listen(2).
///
/// # Errors
/// errno.
pub fn listen(socket: BorrowedFd<'_>, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    cerr_int(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// fstatat(2) of what `name` itself is, symlink or not: device and inode.
///
/// # Errors
/// errno.
pub fn inode(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<(u64, u64)> {
    let name = CString::new(name.as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: a C string and a pointer to a stat that lives through the call.
    cerr_int(unsafe { libc::fstatat(directory.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags) })?;
    // SAFETY: fstatat has filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "narrower on some targets")]
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}

/// unlinkat(2).
///
/// # Errors
/// errno.
pub fn unlink_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: a C string.
    cerr_int(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}
