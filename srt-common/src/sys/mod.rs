//! The floor: every system call that the tools make, each behind a safe function. Nothing above it is `unsafe`.
//!
//! The rule: one function is one call. It bears the name of the man page, takes what the call takes, and returns
//! `io::Result` with errno. It has no message, no hint, no default and no policy: those belong to the tool. Calls
//! that musl or an older glibc has no wrapper for go by number (`libc::SYS_*`). Every descriptor that a function
//! makes is close-on-exec.
//!
//! srt-relay runs behind an allow-list: the functions that say so are called there after the filter is loaded, and a
//! change of the system call that is behind one of them has to show in that list.

#![allow(unsafe_code)]

pub mod fd;
pub mod file;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod privileges;
pub mod process;
pub mod signal;
pub mod socket;
pub mod start;
pub mod tty;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// -1 is an error in errno; anything else is the answer.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// -1 is an error in errno; anything else is a count of bytes.
fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The descriptor that a call answered with.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just made it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ }
}

/// A path as the kernel takes it: EINVAL for a NUL byte, which cannot come from argv.
pub fn c_path(path: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
