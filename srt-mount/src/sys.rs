//! The system calls of this tool, each behind a safe function. Paths are C strings; `""` with the `EMPTY_PATH`
//! flags means the descriptor itself. Calls that musl or an older glibc has no wrapper for go by number.

#![allow(unsafe_code)]

use srt_common::sys::cerr;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
/// The `MOUNT_ATTR_*` flags of mount_setattr(2) and fsmount(2).
pub const READ_ONLY: u64 = 1;
/// No setuid programs.
pub const NO_SUID: u64 = 2;
/// No device nodes.
pub const NO_DEV: u64 = 4;
/// No programs.
pub const NO_EXEC: u64 = 8;

/// The directory that the caller's relative paths count from.
pub const CWD: RawFd = libc::AT_FDCWD;

/// A path as the kernel takes it. A NUL cannot come from argv, and --args splits at it.
///
/// # Errors
/// EINVAL for a NUL byte.
pub fn c_path(path: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The descriptor that a system call answered with.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(cerr(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// unshare(2) CLONE_NEWNS: a copy of the caller's mounts, which nobody else sees.
///
/// # Errors
/// errno; EPERM without CAP_SYS_ADMIN.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: an integer.
    cerr(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}

/// struct mount_attr of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn setattr(fd: RawFd, path: &CStr, flags: libc::c_int, attr: &MountAttr) -> io::Result<()> {
    let size = size_of::<MountAttr>();
    // SAFETY: a C string and a mount_attr of the size given, alive through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), flags, std::ptr::from_ref(attr), size)
    };
    cerr(result).map(drop)
}

/// mount_setattr(2): nothing that is mounted anywhere below `/` propagates either way.
///
/// # Errors
/// errno; EINVAL where `/` is not the root of a mount (in a chroot).
pub fn make_all_private() -> io::Result<()> {
    let attr = MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    setattr(CWD, c"/", libc::AT_RECURSIVE, &attr)
}

/// mount_setattr(2): sets attributes of the mount whose root `fd` is, and of those below it if `recursive`.
///
/// # Errors
/// errno; EINVAL if `fd` is not the root of a mount.
pub fn set_attributes(fd: &impl AsRawFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    setattr(fd.as_raw_fd(), c"", flags, &attr)
}

/// open_tree(2) OPEN_TREE_CLONE: a detached copy of what is mounted at `path`. Symbolic links are followed, and
/// an automount is triggered, as by mount(2).
///
/// # Errors
/// errno; EINVAL for a mount of another namespace.
pub fn clone_tree(fd: RawFd, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | if path.is_empty() { libc::AT_EMPTY_PATH as libc::c_uint } else { 0 }
        | if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    // SAFETY: a C string and integers.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, fd, path.as_ptr(), flags) })
}

/// move_mount(2): attaches the detached tree `tree` on what `to` is open on.
///
/// # Errors
/// errno; ENOSPC when the namespace has fs.mount-max mounts.
pub fn attach(tree: &impl AsRawFd, to: &impl AsRawFd) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (tree, to, empty) = (tree.as_raw_fd(), to.as_raw_fd(), c"".as_ptr());
    // SAFETY: two C strings and integers.
    cerr(unsafe { libc::syscall(libc::SYS_move_mount, tree, empty, to, empty, flags) }).map(drop)
}

/// move_mount(2) onto the entry `name` of the directory `to`, which nobody else can reach yet.
///
/// # Errors
/// errno.
pub fn attach_at(tree: &impl AsRawFd, to: &impl AsRawFd, name: &CStr) -> io::Result<()> {
    let (tree, to, empty, name) = (tree.as_raw_fd(), to.as_raw_fd(), c"".as_ptr(), name.as_ptr());
    // SAFETY: two C strings and integers.
    let result =
        unsafe { libc::syscall(libc::SYS_move_mount, tree, empty, to, name, MOVE_MOUNT_F_EMPTY_PATH) };
    cerr(result).map(drop)
}

/// fsopen(2), fsconfig(2), fsmount(2): a new, detached mount of a file system. An option without a value is a
/// flag.
///
/// # Errors
/// errno, with what the file system itself says about it where it does.
pub fn new_filesystem(
    kind: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    // SAFETY: a C string and an integer.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let explain = |error: io::Error| match filesystem_log(&context) {
        Some(log) => io::Error::new(error.kind(), format!("{}: {log}", srt_common::error::strerror(&error))),
        None => error,
    };
    for &(key, value) in options {
        let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
        fsconfig(&context, command, Some(key), value).map_err(explain)?;
    }
    // EPERM of the creation is told apart by its callers: it stays a bare errno.
    let create = fsconfig(&context, FSCONFIG_CMD_CREATE, None, None);
    create.map_err(|error| if error.raw_os_error() == Some(libc::EPERM) { error } else { explain(error) })?;
    let context = context.as_raw_fd();
    // SAFETY: integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes as libc::c_uint) })
}

fn fsconfig(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: NULL or C strings, as the command demands.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    cerr(result).map(drop)
}

/// The first message in the log of a file system context, without its severity.
fn filesystem_log(context: &OwnedFd) -> Option<String> {
    let mut buffer = [0u8; 512];
    // SAFETY: the buffer and its length.
    let length = unsafe { libc::read(context.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let text = buffer.get(2..usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(text).trim().to_owned())
}

/// openat2(2).
///
/// # Errors
/// errno.
pub fn openat2(fd: RawFd, path: &CStr, flags: libc::c_int, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    let size = size_of::<libc::open_how>();
    // SAFETY: a C string and an open_how of the size given, alive through the call.
    owned(unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, size) })
}

/// openat(2) that makes the file if it is not there.
///
/// # Errors
/// errno.
pub fn create(fd: &impl AsRawFd, name: &CStr, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a C string and integers.
    owned(libc::c_long::from(unsafe { libc::openat(fd.as_raw_fd(), name.as_ptr(), flags, mode) }))
}

/// mkdirat(2).
///
/// # Errors
/// errno.
pub fn mkdir(fd: &impl AsRawFd, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: a C string and integers.
    cerr(unsafe { libc::mkdirat(fd.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2) of an empty regular file, which needs no CAP_MKNOD.
///
/// # Errors
/// errno.
pub fn mkfile(fd: &impl AsRawFd, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: a C string and integers.
    cerr(unsafe { libc::mknodat(fd.as_raw_fd(), name.as_ptr(), libc::S_IFREG | mode, 0) }).map(drop)
}

/// symlinkat(2).
///
/// # Errors
/// errno.
pub fn symlink(target: &CStr, fd: &impl AsRawFd, name: &CStr) -> io::Result<()> {
    // SAFETY: two C strings.
    cerr(unsafe { libc::symlinkat(target.as_ptr(), fd.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// unlinkat(2), of a directory only when it is empty.
///
/// # Errors
/// errno.
pub fn unlink(fd: &impl AsRawFd, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: a C string and integers.
    cerr(unsafe { libc::unlinkat(fd.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// readlinkat(2). An empty `name` reads the link that `fd` itself is open on.
///
/// # Errors
/// errno; EINVAL for what is no symbolic link.
pub fn readlink(fd: RawFd, name: &CStr) -> io::Result<PathBuf> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: a C string, the buffer and its length.
    let length = unsafe { libc::readlinkat(fd, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let length = usize::try_from(cerr(length as i64)?).map_err(io::Error::other)?;
    Ok(PathBuf::from(OsStr::from_bytes(buffer.get(..length).unwrap_or_default())))
}

/// fchmod(2).
///
/// # Errors
/// errno.
pub fn fchmod(fd: &impl AsRawFd, mode: u32) -> io::Result<()> {
    // SAFETY: integers.
    cerr(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).map(drop)
}

/// chmod(2).
///
/// # Errors
/// errno.
pub fn chmod(path: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: a C string and an integer.
    cerr(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

/// What this tool asks of statx(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `S_IFMT` and the permissions.
    pub mode: u32,
    /// The owner, as this user namespace shows it.
    pub uid: u32,
    /// Device and inode: the file's identity.
    pub id: (u32, u32, u64),
    /// The device alone: the file system's identity.
    pub device: (u32, u32),
    /// The mount through which `fd` was opened.
    pub mount: u64,
    /// Whether the file is the root of that mount.
    pub mount_root: bool,
}

impl Stat {
    /// Whether the type is `kind`, an `S_IF*` constant.
    pub fn is(&self, kind: libc::mode_t) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// statx(2) of what `fd` is open on.
///
/// # Errors
/// errno.
pub fn stat(fd: RawFd) -> io::Result<Stat> {
    stat_at(fd, c"")
}

/// statx(2) of the entry `name` of a directory; a symbolic link is not followed.
///
/// # Errors
/// errno.
pub fn stat_at(fd: RawFd, name: &CStr) -> io::Result<Stat> {
    let mut buffer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags =
        libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: a C string and a statx to fill, alive through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_statx, fd, name.as_ptr(), flags, mask, buffer.as_mut_ptr()) };
    cerr(result)?;
    // SAFETY: zeroed memory is a valid statx, and the kernel has filled it.
    let stat = unsafe { buffer.assume_init() };
    Ok(Stat {
        mode: stat.stx_mode.into(),
        uid: stat.stx_uid,
        id: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        mount: stat.stx_mnt_id,
        mount_root: stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

/// Whether the mount that `fd` was opened through is read-only: fstatvfs(3).
///
/// # Errors
/// errno.
pub fn is_read_only(fd: &impl AsRawFd) -> io::Result<bool> {
    let mut buffer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a statvfs to fill, alive through the call.
    cerr(unsafe { libc::fstatvfs(fd.as_raw_fd(), buffer.as_mut_ptr()) })?;
    // SAFETY: zeroed memory is a valid statvfs, and the call has filled it.
    Ok(unsafe { buffer.assume_init() }.f_flag & libc::ST_RDONLY != 0)
}

/// A new descriptor, from 3 up and closed at the exec, for what `fd` is open on.
///
/// # Errors
/// errno; EBADF when `fd` is not open.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers.
    owned(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }))
}

/// isatty(3).
pub fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: an integer.
    (unsafe { libc::isatty(fd) }) == 1
}

/// fchdir(2).
///
/// # Errors
/// errno.
pub fn fchdir(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: an integer.
    cerr(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

/// pivot_root(2) with `.` twice: the working directory becomes the root, and the old root lies on top of it.
///
/// # Errors
/// errno; EINVAL where the old root is a ramfs of the boot, or no mount.
pub fn pivot_root_here() -> io::Result<()> {
    let dot = c".".as_ptr();
    // SAFETY: two C strings.
    cerr(unsafe { libc::syscall(libc::SYS_pivot_root, dot, dot) }).map(drop)
}

/// umount2(2) MNT_DETACH of what is mounted on the working directory.
///
/// # Errors
/// errno.
pub fn detach_here() -> io::Result<()> {
    // SAFETY: a C string and an integer.
    cerr(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// The names in the directory `fd`, with their `DT_*` types, up to the first that `last` is true for.
///
/// # Errors
/// errno.
pub fn list(fd: &impl AsRawFd, last: impl Fn(&CStr) -> bool) -> io::Result<Vec<(CString, u8)>> {
    let own = openat2(fd.as_raw_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    // SAFETY: an open directory, which the stream owns from here on.
    let stream = unsafe { libc::fdopendir(own.into_raw_fd()) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut names = Ok(vec![]);
    while let Ok(list) = &mut names {
        // SAFETY: no arguments.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: this thread's own errno, by which readdir(3) tells an error from the end.
        unsafe { *errno = 0 };
        // SAFETY: an open stream, of this thread alone.
        let entry = unsafe { libc::readdir(stream) };
        // SAFETY: NULL at the end, or an entry that stays valid until the next readdir.
        let Some(entry) = (unsafe { entry.as_ref() }) else {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(0) {
                names = Err(error);
            }
            break;
        };
        // SAFETY: the kernel ends the name with a NUL.
        let name = unsafe { CStr::from_ptr(entry.d_name.as_ptr()) };
        if last(name) {
            break;
        }
        list.push((name.to_owned(), entry.d_type));
    }
    // SAFETY: an open stream that is not used again.
    unsafe { libc::closedir(stream) };
    names
}

/// geteuid(2).
pub fn user() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

/// umask(2); the previous one.
pub fn set_umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: an integer.
    unsafe { libc::umask(mask) }
}

/// RLIMIT_NOFILE: how many descriptors this process may have, now and at most.
///
/// # Errors
/// errno.
pub fn descriptor_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a rlimit to fill, alive through the call.
    cerr(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

/// Sets RLIMIT_NOFILE.
///
/// # Errors
/// errno.
pub fn set_descriptor_limit(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: a rlimit, alive through the call.
    cerr(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
