//! System calls by number, with whatever arguments an attacker likes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A word of a system call: an integer or a pointer.
pub trait Word {
    /// Its bits.
    fn word(self) -> libc::c_long;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Word for $type {
            fn word(self) -> libc::c_long {
                self as libc::c_long
            }
        }
    )*};
}
integers!(i32 u32 i64 u64 usize);

impl<T> Word for *const T {
    fn word(self) -> libc::c_long {
        self as libc::c_long
    }
}

impl<T> Word for *mut T {
    fn word(self) -> libc::c_long {
        self as libc::c_long
    }
}

impl Word for &CStr {
    fn word(self) -> libc::c_long {
        self.as_ptr() as libc::c_long
    }
}

/// syscall(2).
pub fn call(number: libc::c_long, words: &[libc::c_long]) -> io::Result<i64> {
    let mut all = [0; 6];
    all[..words.len()].copy_from_slice(words);
    let [a, b, c, d, e, f] = all;
    // SAFETY: nothing is safe here, and nothing needs to be: each process tries one attack. Pointers come from
    // values that live through the call.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// `sys!(SYS_x, words…)`: the call by its name in libc, or by number, with integers and pointers as they are.
macro_rules! sys {
    ($number:expr $(, $word:expr)* $(,)?) => {
        $crate::sys::call($number as libc::c_long, &[$($crate::sys::Word::word($word)),*])
    };
}
pub(crate) use sys;

/// The same where the answer is a new descriptor.
pub fn descriptor(answer: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(answer as i32) }
}

/// A path as the kernel takes it.
pub fn c(path: &str) -> CString {
    CString::new(path).expect("no NUL")
}

/// open(2).
pub fn open(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = c(path);
    sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_c_str(), flags | libc::O_CLOEXEC, 0o644).map(descriptor)
}

/// write(2).
pub fn write(fd: &impl std::os::fd::AsRawFd, text: &str) -> io::Result<()> {
    sys!(libc::SYS_write, fd.as_raw_fd(), text.as_ptr(), text.len()).map(drop)
}

/// read(2), once.
pub fn read(fd: &impl std::os::fd::AsRawFd) -> io::Result<String> {
    let mut buffer = [0_u8; 4096];
    let count = sys!(libc::SYS_read, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())?;
    Ok(String::from_utf8_lossy(&buffer[..count as usize]).into_owned())
}
