//! The procfs at /proc.

use crate::sys::file::{fstatfs, open as open_path};
use std::io;
use std::os::fd::OwnedFd;

/// The root directory of the procfs at /proc. Without a procfs, an earlier run of the sandbox may have left files and
/// links there that look like the kernel's.
///
/// # Errors
/// The errno; ENOENT if it is not a procfs.
pub fn open() -> io::Result<OwnedFd> {
    let proc = open_path("/proc", libc::O_PATH | libc::O_DIRECTORY)?;
    match fstatfs(&proc)? {
        libc::PROC_SUPER_MAGIC => Ok(proc),
        _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}
