//! Reads and writes of what was not granted.

use crate::sys::{c, descriptor, open, read, sys, write};
use crate::{Outcome, number};
use libc::{
    AT_FDCWD, O_APPEND, O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, mem, ptr};

/// What the attacks write.
const MARK: &str = "OWNED\n";

pub fn attack(words: &[&str]) -> Option<Outcome> {
    let done = |what: &str| {
        let what = what.to_owned();
        move |_: i64| what
    };
    Some(match *words {
        ["read", path] => open(path, O_RDONLY).and_then(|file| read(&file)),
        ["list", path] => std::fs::read_dir(path).and_then(|all| {
            let names = all.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect::<io::Result<Vec<_>>>().map(|names| names.join(" "))
        }),
        // Of a btrfs, NAME in a directory: a snapshot of what lies at PATH, by either call; and a subvolume less.
        ["snapshot", path, directory, name] => snapshot(path, directory, 0x5000_9401, 8, name),
        ["snapshot-v2", path, directory, name] => snapshot(path, directory, 0x5000_9417, 56, name),
        ["delete-subvolume", directory, name] => open(directory, O_RDONLY)
            .and_then(|from| subvolume(&from, 0x5000_940f, 0, 8, name))
            .map(done("deleted")),
        ["delete-subvolume-v2", directory, name] => open(directory, O_RDONLY)
            .and_then(|from| subvolume(&from, 0x5000_943f, 0, 56, name))
            .map(done("deleted")),
        ["stat", path] => std::fs::symlink_metadata(path).map(|meta| format!("{} bytes", meta.len())),
        ["mode", path] => std::fs::metadata(path)
            .map(|meta| format!("{:o}", std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777)),
        ["write", path] => put(open(path, O_WRONLY)),
        ["open-read", path] => open(path, O_RDONLY).map(|_| "opened".into()),
        ["open-write", path] => open(path, O_WRONLY).map(|_| "opened".into()),
        ["append", path] => put(open(path, O_WRONLY | O_APPEND)),
        ["create", path] => put(open(path, O_WRONLY | O_CREAT)),
        ["truncate-open", path] => put(open(path, O_WRONLY | O_TRUNC)),
        ["truncate", path] => sys!(libc::SYS_truncate, c(path).as_c_str(), 1).map(done("truncated")),
        ["chmod", path] => sys!(libc::SYS_fchmodat, AT_FDCWD, c(path).as_c_str(), 0o600).map(done("changed")),
        // The mode that it has: nothing changes, but the kernel has been asked.
        ["chmod-same", path] => std::fs::metadata(path).and_then(|meta| {
            let mode = std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777;
            sys!(libc::SYS_fchmodat, AT_FDCWD, c(path).as_c_str(), mode).map(done("changed"))
        }),
        ["chown-same", path] => {
            let meta = std::fs::metadata(path).expect("stat");
            let (uid, gid) =
                (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::gid(&meta));
            sys!(libc::SYS_fchownat, AT_FDCWD, c(path).as_c_str(), uid, gid, 0).map(done("changed"))
        }
        ["chown", path] => {
            sys!(libc::SYS_fchownat, AT_FDCWD, c(path).as_c_str(), euid(), egid(), 0).map(done("changed"))
        }
        ["utime", path] => {
            let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
            sys!(libc::SYS_utimensat, AT_FDCWD, c(path).as_c_str(), times.as_ptr(), 0).map(done("changed"))
        }
        ["setxattr", path] => {
            let (path, name) = (c(path), c"user.srt");
            sys!(libc::SYS_setxattr, path.as_c_str(), name, MARK.as_ptr(), MARK.len(), 0).map(done("set"))
        }
        // FS_IOC_SETFLAGS with what FS_IOC_GETFLAGS says and FS_NODUMP_FL turned over.
        ["setflags", path] => setflags(path).map(done("set")),
        ["unlink", path] => sys!(libc::SYS_unlinkat, AT_FDCWD, c(path).as_c_str(), 0).map(done("gone")),
        ["rmdir", path] => {
            sys!(libc::SYS_unlinkat, AT_FDCWD, c(path).as_c_str(), libc::AT_REMOVEDIR).map(done("gone"))
        }
        ["mkdir", path] => sys!(libc::SYS_mkdirat, AT_FDCWD, c(path).as_c_str(), 0o755).map(done("made")),
        ["mkfifo", path] => {
            sys!(libc::SYS_mknodat, AT_FDCWD, c(path).as_c_str(), libc::S_IFIFO | 0o644, 0).map(done("made"))
        }
        ["mknod", path, major, minor] => {
            let device = libc::makedev(number(major) as u32, number(minor) as u32);
            sys!(libc::SYS_mknodat, AT_FDCWD, c(path).as_c_str(), libc::S_IFCHR | 0o666, device)
                .map(done("made"))
        }
        ["rename", from, to] => rename(from, to, 0),
        ["exchange", from, to] => rename(from, to, libc::RENAME_EXCHANGE),
        ["whiteout", from, to] => rename(from, to, libc::RENAME_WHITEOUT),
        // Not an attack on its own: until it is killed.
        ["swap", one, other] => loop {
            let _lost = rename(one, other, libc::RENAME_EXCHANGE);
        },
        ["symlink", to, path] => {
            sys!(libc::SYS_symlinkat, c(to).as_c_str(), AT_FDCWD, c(path).as_c_str()).map(done("made"))
        }
        ["link", from, to] => {
            sys!(libc::SYS_linkat, AT_FDCWD, c(from).as_c_str(), AT_FDCWD, c(to).as_c_str(), 0)
                .map(done("linked"))
        }
        // The same file by the magic link of a descriptor.
        ["link-fd", from, to] => open(from, O_PATH).and_then(|file| link_fd(&file, to)),
        // An unnamed file in one directory gets a name in another.
        ["link-tmpfile", from, to] => open(from, O_TMPFILE | O_RDWR).and_then(|file| {
            write(&file, MARK)?;
            link_fd(&file, to)
        }),
        // A descriptor for reading, opened again for writing.
        ["reopen", path] => open(path, O_RDONLY)
            .and_then(|file| put(open(&format!("/proc/self/fd/{}", file.as_raw_fd()), O_RDWR))),
        ["reopen-path", path] => open(path, O_PATH)
            .and_then(|file| put(open(&format!("/proc/self/fd/{}", file.as_raw_fd()), O_RDWR))),
        ["map", path] => map(path),
        // Through a directory that somebody left open.
        ["read-at", fd, path] => at(fd, path, O_RDONLY).and_then(|file| read(&file)),
        ["create-at", fd, path] => put(at(fd, path, O_WRONLY | O_CREAT)),
        ["reopen-at", fd, path] => at(fd, ".", O_RDONLY | O_DIRECTORY).and_then(|directory| {
            put(open(&format!("/proc/self/fd/{}/{path}", directory.as_raw_fd()), O_WRONLY | O_CREAT))
        }),
        // A device node opens what it names, wherever it lies.
        ["device", path] => put_null(open(path, O_WRONLY)),
        ["handle-of", path] => handle_of(AT_FDCWD, path, 0),
        ["open-handle", on, handle] => open(on, O_RDONLY)
            .and_then(|on| open_handle(on.as_raw_fd(), handle, O_RDONLY))
            .and_then(|file| read(&file)),
        _ => return None,
    })
}

fn put(file: io::Result<OwnedFd>) -> Outcome {
    file.and_then(|file| write(&file, MARK)).map(|()| "wrote".into())
}

fn put_null(file: io::Result<OwnedFd>) -> Outcome {
    file.and_then(|file| write(&file, "")).map(|()| "opened".into())
}

fn at(fd: &str, path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = c(path);
    sys!(libc::SYS_openat, number(fd), path.as_c_str(), flags | libc::O_CLOEXEC, 0o644).map(descriptor)
}

fn rename(from: &str, to: &str, flags: u32) -> Outcome {
    let (from, to) = (c(from), c(to));
    sys!(libc::SYS_renameat2, AT_FDCWD, from.as_c_str(), AT_FDCWD, to.as_c_str(), flags)
        .map(|_| "renamed".into())
}

fn link_fd(file: &OwnedFd, to: &str) -> Outcome {
    let (from, to) = (c(&format!("/proc/self/fd/{}", file.as_raw_fd())), c(to));
    sys!(libc::SYS_linkat, AT_FDCWD, from.as_c_str(), AT_FDCWD, to.as_c_str(), libc::AT_SYMLINK_FOLLOW)
        .map(|_| "linked".into())
}

fn setflags(path: &str) -> io::Result<i64> {
    let file = open(path, O_RDONLY)?;
    let mut flags: libc::c_int = 0;
    sys!(libc::SYS_ioctl, file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags)?;
    flags ^= 0x40;
    sys!(libc::SYS_ioctl, file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags)
}

/// Writes through a shared mapping.
fn map(path: &str) -> Outcome {
    let file = open(path, O_RDWR).or_else(|_| open(path, O_RDONLY))?;
    let (prot, none) = (libc::PROT_READ | libc::PROT_WRITE, ptr::null::<u8>());
    let page = sys!(libc::SYS_mmap, none, 4096, prot, libc::MAP_SHARED, file.as_raw_fd(), 0)? as *mut u8;
    // SAFETY: a page that was just mapped, of a file that is not empty.
    unsafe { page.copy_from_nonoverlapping(MARK.as_ptr(), MARK.len()) };
    Ok("wrote".into())
}

/// `struct file_handle` with room for the largest.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

/// The handle of a file, as `TYPE:HEX`.
pub fn handle_of(directory: i32, path: &str, flags: i32) -> Outcome {
    let (path, mut mount) = (c(path), 0_u64);
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let (to, id) = (&raw mut handle, &raw mut mount);
    sys!(libc::SYS_name_to_handle_at, directory, path.as_c_str(), to, id, flags)?;
    let hex: String = handle.data[..handle.bytes as usize].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}:{hex}", handle.kind))
}

/// open_by_handle_at(2) of what [`handle_of`] printed.
pub fn open_handle(on: i32, handle: &str, flags: i32) -> io::Result<OwnedFd> {
    let (kind, hex) = handle.split_once(':').expect("TYPE:HEX");
    let mut made =
        Handle { bytes: hex.len() as u32 / 2, kind: kind.parse().expect("a type"), data: [0; 128] };
    for (byte, pair) in made.data.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    }
    sys!(libc::SYS_open_by_handle_at, on, &raw const made, flags | libc::O_CLOEXEC).map(descriptor)
}

fn euid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::geteuid() }
}

fn egid() -> u32 {
    // SAFETY: no argument, no failure.
    unsafe { libc::getegid() }
}

const _: () = assert!(mem::size_of::<Handle>() == 136);

fn snapshot(path: &str, directory: &str, request: u64, at: usize, name: &str) -> Outcome {
    let (source, into) = (open(path, O_RDONLY)?, open(directory, O_RDONLY)?);
    subvolume(&into, request, source.as_raw_fd().into(), at, name).map(|_| "made".into())
}

/// struct btrfs_ioctl_vol_args of linux/btrfs.h, or btrfs_ioctl_vol_args_v2: 4096 bytes, a descriptor first, a name at `at`.
fn subvolume(directory: &OwnedFd, request: u64, fd: i64, at: usize, name: &str) -> io::Result<i64> {
    let mut args = [0_u8; 4096];
    args[..8].copy_from_slice(&fd.to_ne_bytes());
    args[at..at + name.len()].copy_from_slice(name.as_bytes());
    sys!(libc::SYS_ioctl, directory.as_raw_fd(), request, args.as_mut_ptr())
}
