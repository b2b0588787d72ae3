//! The two system calls that only this tool makes.

#![allow(unsafe_code)]

use seccompiler::sock_filter;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

/// seccomp(2) SECCOMP_SET_MODE_FILTER, for the calling thread, which is the only one.
///
/// No flag: SECCOMP_FILTER_FLAG_SPEC_ALLOW would, on kernels before 5.16, take the speculative store bypass
/// mitigation from the very code that is not trusted; later kernels do not couple the two any more.
///
/// # Errors
/// errno; EINVAL for what the kernel does not take as a filter.
pub fn seccomp(program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // The kernel only reads; and seccompiler's sock_filter is the kernel's (repr(C), the same fields).
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    let flags: libc::c_ulong = 0;
    // SAFETY: `program` and the `len` instructions that it points to live through the call, which copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    srt_common::sys::cerr(result).map(drop)
}

/// The caller's descriptor `fd` as a file: a duplicate, since 0, 1 and 2 must stay open.
///
/// # Errors
/// errno, EBADF when `fd` is not open.
pub fn file(fd: RawFd) -> io::Result<File> {
    srt_common::sys::fd_flags(fd)?;
    // SAFETY: it is open, and this process has no other thread that could close it.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map(File::from)
}
