//! The system calls that the standard library does not make, or not as needed. No other code is `unsafe`.
//!
//! A function named after a man page makes that one call: it has its parameters, and returns `io::Result` with errno.
//! It has no message, hint, default or policy: those belong to the tools. Calls for which musl or an older glibc has no
//! wrapper are made by number (`libc::SYS_*`). Every descriptor that a function creates is
//! close-on-exec.
//!
//! srt-relay runs under an allow-list: the functions marked so are called there after the filter is loaded. If the
//! system call behind one of them changes, that list must change too.

#![allow(unsafe_code)]

pub mod allocator;
pub mod entry;
pub mod fd;
pub mod file;
pub mod landlock;
pub mod mount;
pub mod privileges;
pub mod process;
pub mod signal;
pub mod socket;
pub mod tty;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// -1 means an error in errno; anything else is the result.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// -1 means an error in errno; anything else is a number of bytes or entries.
fn count(result: impl TryInto<usize>) -> io::Result<usize> {
    result.try_into().map_err(|_| io::Error::last_os_error())
}

/// The descriptor that a call returned.
fn owned(result: impl Into<libc::c_long>) -> io::Result<OwnedFd> {
    let fd = check(result.into())? as RawFd;
    // SAFETY: the kernel has just created it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ }
}

/// A path in the form that the kernel takes. EINVAL for a NUL byte, which cannot come from argv.
pub fn c_path(path: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::{fd, file, mount, process, signal, socket};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn every_descriptor_that_is_made_here_is_close_on_exec() {
        let (reader, writer) = fd::pipe2(0).expect("pipe2");
        let (one, other) = socket::socketpair(libc::SOCK_SEQPACKET).expect("socketpair");
        socket::sendmsg(&one, b'x', Some(reader.as_fd())).expect("sendmsg");
        let received = socket::recvmsg(&other, 0).expect("recvmsg").fds.pop().expect("a descriptor");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let _client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
        let signals = signal::SignalSet::of([libc::SIGUSR1]);
        let mut made = vec![
            ("openat", file::openat(&file::CWD, c"/", libc::O_PATH, 0).expect("openat")),
            ("epoll_create1", fd::epoll_create1().expect("epoll_create1")),
            ("signalfd", signal::signalfd(&signals).expect("signalfd")),
            ("socket", socket::socket(libc::AF_INET, libc::SOCK_STREAM).expect("socket")),
            ("accept4", socket::accept4(&listener, 0).expect("accept4")),
            ("recvmsg", received),
        ];
        made.extend([reader, writer].map(|fd| ("pipe2", fd)));
        made.extend([one, other].map(|fd| ("socketpair", fd)));
        // Not available to every user, or in an emulator of system calls.
        let way = file::openat2(&file::CWD, c"/", libc::O_PATH, 0).ok();
        let pidfd = process::pidfd_open(process::getpid()).ok();
        let context = mount::fsopen(c"tmpfs").ok();
        let new = context.as_ref().and_then(|context| {
            mount::fsconfig(context, libc::FSCONFIG_CMD_CREATE, None, None).ok()?;
            mount::fsmount(context, 0).ok()
        });
        let copy = mount::open_tree(&file::CWD, c"/", mount::OPEN_TREE_CLONE).ok();
        let named = [
            ("openat2", way),
            ("pidfd_open", pidfd),
            ("fsopen", context),
            ("fsmount", new),
            ("open_tree", copy),
        ];
        made.extend(named.into_iter().filter_map(|(name, fd)| Some((name, fd?))));
        for (call, fd) in made {
            assert_eq!(fd::fcntl(&fd, libc::F_GETFD, 0).expect("F_GETFD"), libc::FD_CLOEXEC, "{call}");
        }
    }
}
