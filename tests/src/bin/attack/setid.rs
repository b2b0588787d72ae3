//! Files with the set-user-ID or set-group-ID bit, by every system call that takes a mode. PATH is there for those that
//! change a mode, and is not for those that make a file.

use crate::sys::{c, descriptor, open, sys};
use crate::{Outcome, number};
use std::io;
use std::os::fd::AsRawFd;

const FD: i32 = libc::AT_FDCWD;

/// `["setid", CALL, PATH, MODE]`: MODE in hexadecimal, its high bits as they are.
pub fn attack(words: &[&str]) -> Option<Outcome> {
    let ["setid", call, path, mode] = *words else { return None };
    let mode = number(mode);
    let path = c(path);
    let path = path.as_c_str();
    let create = libc::O_CREAT | libc::O_WRONLY;
    let result = match call {
        #[cfg(target_arch = "x86_64")]
        "chmod" => sys!(libc::SYS_chmod, path, mode),
        "fchmod" => {
            let text = path.to_str().expect("UTF-8");
            open(text, libc::O_RDONLY).and_then(|file| sys!(libc::SYS_fchmod, file.as_raw_fd(), mode))
        }
        "fchmodat" => sys!(libc::SYS_fchmodat, FD, path, mode),
        "fchmodat2" => sys!(FCHMODAT2, FD, path, mode, 0),
        #[cfg(target_arch = "x86_64")]
        "mknod" => sys!(libc::SYS_mknod, path, mode | u64::from(libc::S_IFREG), 0),
        "mknodat" => sys!(libc::SYS_mknodat, FD, path, mode | u64::from(libc::S_IFREG), 0),
        #[cfg(target_arch = "x86_64")]
        "creat" => closed(sys!(libc::SYS_creat, path, mode)),
        #[cfg(target_arch = "x86_64")]
        "open" => closed(sys!(libc::SYS_open, path, create, mode)),
        "openat" => closed(sys!(libc::SYS_openat, FD, path, create, mode)),
        // O_TMPFILE makes a file as well, which gets a name by linkat(2).
        "openat-tmpfile" => {
            closed(sys!(libc::SYS_openat, FD, c"/tmp", libc::O_TMPFILE | libc::O_WRONLY, mode))
        }
        "openat2" => {
            let how = [create as u64, mode & 0o7777, 0];
            closed(sys!(libc::SYS_openat2, FD, path, how.as_ptr(), 24))
        }
        // Not an attack: what a program does all the time.
        "read" => closed(sys!(libc::SYS_openat, FD, path, libc::O_RDONLY, mode)),
        "mkdir" => sys!(libc::SYS_mkdirat, FD, path, mode),
        #[cfg(not(target_arch = "x86_64"))]
        "chmod" | "mknod" | "creat" | "open" => Err(io::Error::from_raw_os_error(libc::EPERM)),
        _ => panic!("{call}: no such call"),
    };
    Some(result.map(|_| "done".into()))
}

/// The same number on all architectures (Linux 6.6).
const FCHMODAT2: libc::c_long = 452;

fn closed(result: io::Result<i64>) -> io::Result<i64> {
    result.map(|fd| {
        drop(descriptor(fd));
        0
    })
}
