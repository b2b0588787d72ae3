//! Files by name and by descriptor. `""` with an `AT_EMPTY_PATH` flag means the descriptor itself.

use super::{c_path, check, count, owned};
use libc::{c_int, c_long, c_uint, c_ulong, mode_t};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The working directory, for the functions that take a directory.
pub const CWD: RawFd = libc::AT_FDCWD;

/// openat(2). Not through the standard library for O_PATH: it masks O_ACCMODE out of the flags, which in musl includes
/// O_PATH, so that a FIFO or a socket would really be opened.
pub fn openat(directory: &impl AsRawFd, path: &CStr, flags: c_int, mode: mode_t) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: a C string and integers.
    owned(unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags, mode as c_uint) })
}

/// open(2), without O_CREAT.
pub fn open(path: impl AsRef<OsStr>, flags: c_int) -> io::Result<OwnedFd> {
    openat(&CWD, &c_path(path)?, flags, 0)
}

/// openat2(2), without O_CREAT.
pub fn openat2(directory: &impl AsRawFd, path: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    // struct open_how of linux/openat2.h: flags, mode, resolve.
    let how = [(flags | libc::O_CLOEXEC) as u64, 0, resolve];
    let (fd, size) = (directory.as_raw_fd(), size_of_val(&how));
    // SAFETY: a C string and an open_how of the size given, alive through the call.
    owned(unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, size) })
}

/// mkdirat(2).
pub fn mkdirat(directory: &impl AsRawFd, path: &CStr, mode: mode_t) -> io::Result<()> {
    // SAFETY: a C string and integers.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), path.as_ptr(), mode) }).map(drop)
}

/// mknodat(2) with device 0. A regular file (`S_IFREG | mode`) needs no privilege.
pub fn mknodat(directory: &impl AsRawFd, path: &CStr, mode: mode_t) -> io::Result<()> {
    // SAFETY: a C string and integers.
    check(unsafe { libc::mknodat(directory.as_raw_fd(), path.as_ptr(), mode, 0) }).map(drop)
}

/// symlinkat(2).
pub fn symlinkat(target: &CStr, directory: &impl AsRawFd, path: &CStr) -> io::Result<()> {
    // SAFETY: two C strings.
    check(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// unlinkat(2). `flags`: AT_REMOVEDIR for a directory, which must be empty. In srt-relay's allow-list.
pub fn unlinkat(directory: &impl AsRawFd, path: &CStr, flags: c_int) -> io::Result<()> {
    // SAFETY: a C string and integers.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), path.as_ptr(), flags) }).map(drop)
}

/// renameat2(2) within one directory. `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE. By number: musl has no wrapper.
pub fn renameat2(directory: &impl AsRawFd, from: &CStr, to: &CStr, flags: c_uint) -> io::Result<()> {
    let fd = directory.as_raw_fd();
    // SAFETY: two C strings and integers.
    check(unsafe { libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), flags) }).map(drop)
}

/// readlinkat(2). If not a link: EINVAL. An empty path means `directory` itself; ENOENT if that is not a link.
pub fn readlinkat(directory: &impl AsRawFd, path: &CStr) -> io::Result<PathBuf> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let (fd, to) = (directory.as_raw_fd(), buffer.as_mut_ptr().cast());
    // SAFETY: a C string, the buffer and its length.
    let length = count(unsafe { libc::readlinkat(fd, path.as_ptr(), to, buffer.len()) })?;
    Ok(PathBuf::from(OsStr::from_bytes(buffer.get(..length).unwrap_or(&buffer))))
}

/// fchmod(2).
pub fn fchmod(file: &impl AsRawFd, mode: mode_t) -> io::Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode) }).map(drop)
}

/// faccessat2(2). `flags`: AT_EACCESS, AT_EMPTY_PATH.
pub fn faccessat2(directory: &impl AsRawFd, path: &CStr, mode: c_int, flags: c_int) -> io::Result<()> {
    // SAFETY: a C string and integers.
    check(unsafe { libc::syscall(libc::SYS_faccessat2, directory.as_raw_fd(), path.as_ptr(), mode, flags) })
        .map(drop)
}

/// umask(2); returns the previous mask. It cannot fail.
pub fn umask(mask: mode_t) -> mode_t {
    // SAFETY: an integer.
    unsafe { libc::umask(mask) }
}

/// The device, which identifies the file system, and the inode.
pub type FileId = ((u32, u32), u64);

/// The fields of statx(2) that the tools use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `S_IFMT` and the permissions.
    pub mode: u32,
    /// The owner, as this user namespace shows it.
    pub uid: u32,
    /// The number of hard links.
    pub links: u32,
    /// The size in bytes.
    pub size: u64,
    /// The file's identity.
    pub id: FileId,
    /// The mount through which it was reached.
    pub mount: u64,
    /// Whether it is the root of that mount.
    pub mount_root: bool,
}

impl Stat {
    /// The file system's identity.
    pub fn device(&self) -> (u32, u32) {
        self.id.0
    }

    /// The type, an `S_IF*` constant.
    pub fn file_type(&self) -> mode_t {
        self.mode & libc::S_IFMT
    }

    /// Whether the type is `kind`, an `S_IF*` constant.
    pub fn is(&self, kind: mode_t) -> bool {
        self.file_type() == kind
    }
}

/// statx(2) of `path` without following links, or of `fd` itself for an empty path. In srt-relay's allow-list.
pub fn statx(fd: &impl AsRawFd, path: &CStr) -> io::Result<Stat> {
    // SAFETY: all-zero bytes are a valid statx.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags =
        libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let (fd, to) = (fd.as_raw_fd(), &raw mut stat);
    // SAFETY: a C string and a statx to fill, alive through the call.
    check(unsafe { libc::syscall(libc::SYS_statx, fd, path.as_ptr(), flags, mask, to) })?;
    Ok(Stat {
        mode: stat.stx_mode.into(),
        uid: stat.stx_uid,
        links: stat.stx_nlink,
        size: stat.stx_size,
        id: ((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
        mount: stat.stx_mnt_id,
        mount_root: stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

/// fstatvfs(3): the `ST_*` flags of the mount that `file` was opened through.
pub fn fstatvfs(file: &impl AsRawFd) -> io::Result<c_ulong> {
    // SAFETY: all-zero bytes are a valid statvfs.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a statvfs to fill, alive through the call.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut stat) })?;
    Ok(stat.f_flag)
}

/// fstatfs(2): the file system's magic number (`PROC_SUPER_MAGIC`, …).
pub fn fstatfs(file: &impl AsRawFd) -> io::Result<c_long> {
    // SAFETY: all-zero bytes are a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a statfs to fill, alive through the call.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) })?;
    Ok(stat.f_type as c_long)
}

/// fgetxattr(2): a value of at most 64 bytes. ENODATA: there is none.
pub fn fgetxattr(file: &impl AsRawFd, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; 64];
    let (fd, to) = (file.as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: a C string, the buffer and its length.
    let length = count(unsafe { libc::fgetxattr(fd, name.as_ptr(), to, value.len()) })?;
    value.truncate(length);
    Ok(value)
}

/// fsetxattr(2). `flags`: 0, XATTR_CREATE or XATTR_REPLACE.
pub fn fsetxattr(file: &impl AsRawFd, name: &CStr, value: &[u8], flags: c_int) -> io::Result<()> {
    let (fd, from) = (file.as_raw_fd(), value.as_ptr().cast());
    // SAFETY: a C string, a buffer and its length.
    check(unsafe { libc::fsetxattr(fd, name.as_ptr(), from, value.len(), flags) }).map(drop)
}

/// fremovexattr(2).
pub fn fremovexattr(file: &impl AsRawFd, name: &CStr) -> io::Result<()> {
    // SAFETY: an integer and a C string.
    check(unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// flock(2).
pub fn flock(file: &impl AsRawFd, operation: c_int) -> io::Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}
