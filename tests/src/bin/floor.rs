//! The least that a sandbox can cost: `floor DIR PROGRAM [ARGS]` makes the namespaces and the mounts of
//!
//!     srt-ns -- srt-mount --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --bind DIR DIR -- srt-seccomp -- PROGRAM
//!
//! in one program and with nothing else: no PID 1 beside PROGRAM, no filter, nothing dropped, closed, forwarded or looked
//! at. For the benchmark; it protects nobody.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{Error, Result};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

/// linux/mount.h.
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4;
const RDONLY: u64 = 1;
const NOSUID_NODEV: u64 = 2 | 4;

const NODES: [&CStr; 6] =
    [c"/dev/null", c"/dev/zero", c"/dev/full", c"/dev/random", c"/dev/urandom", c"/dev/tty"];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

fn main() {
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), Some(program)) = (args.next(), args.next()) else {
        panic!("floor DIR PROGRAM [ARGS]")
    };
    let directory = CString::new(directory.into_vec()).expect("no NUL");
    let ran = (|| {
        namespaces()?;
        // SAFETY: one thread.
        let child = check(unsafe { libc::fork() })?;
        if child != 0 {
            return wait(child as libc::pid_t);
        }
        mounts(&directory)?;
        Err(Command::new(program).args(args).exec())
    })();
    exit(ran.unwrap_or_else(|error| {
        eprintln!("floor: {error}");
        125
    }))
}

fn namespaces() -> Result<()> {
    // SAFETY: no argument, no failure.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let all = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: flags.
    check(unsafe { libc::unshare(all) })?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // SAFETY: integers; and an ifreq that outlives the call, for which all zeroes is valid.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket as libc::c_int, libc::SIOCSIFFLAGS as _, &raw const request))?;
        libc::close(socket as libc::c_int);
    }
    Ok(())
}

fn mounts(directory: &CStr) -> Result<()> {
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
    let root = clone(c"/", libc::AT_RECURSIVE)?;
    attributes(root, RDONLY | NOSUID_NODEV, libc::AT_RECURSIVE)?;
    let work = clone(directory, libc::AT_RECURSIVE)?;
    attributes(work, NOSUID_NODEV, libc::AT_RECURSIVE)?;
    let nodes = NODES.iter().map(|node| Ok((*node, clone(node, 0)?))).collect::<Result<Vec<_>>>()?;

    // pivot_root(2): the old root is below the new one until it is detached.
    attach(root, c"/tmp")?;
    // SAFETY: C strings.
    unsafe {
        check(libc::chdir(c"/tmp".as_ptr()))?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
    }
    mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), libc::MS_NOSUID, Some(c"mode=755"))?;
    for (path, node) in nodes {
        // SAFETY: a C string.
        unsafe {
            let file = check(libc::open(path.as_ptr(), libc::O_CREAT | libc::O_CLOEXEC, 0o666))?;
            libc::close(file as libc::c_int);
        }
        attach(node, path)?;
    }
    for (target, link) in LINKS {
        std::os::unix::fs::symlink(target, link)?;
    }
    fs::create_dir("/dev/shm")?;
    fs::create_dir("/dev/pts")?;
    let quiet = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount(Some(c"devpts"), c"/dev/pts", Some(c"devpts"), quiet, Some(c"newinstance,ptmxmode=0666,mode=620"))?;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), quiet | libc::MS_NODEV, None)?;
    mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, None)?;
    attach(work, directory)?;
    // SAFETY: C strings.
    unsafe {
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(directory.as_ptr()))?;
    }
    Ok(())
}

fn clone(path: &CStr, recursive: libc::c_int) -> Result<libc::c_int> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | recursive;
    // SAFETY: a C string.
    check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
        .map(|fd| fd as libc::c_int)
}

fn attributes(tree: libc::c_int, set: u64, recursive: libc::c_int) -> Result<()> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes = [set, 0, 0, 0];
    let (size, flags) = (size_of_val(&attributes), libc::AT_EMPTY_PATH | recursive);
    // SAFETY: a C string, and a mount_attr of the size that is told.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree, c"".as_ptr(), flags, attributes.as_ptr(), size)
    })
    .map(drop)
}

fn attach(tree: libc::c_int, path: &CStr) -> Result<()> {
    let (empty, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: C strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, tree, empty, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    Ok(())
}

fn mount(
    what: Option<&CStr>,
    path: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: C strings or null.
    check(unsafe { libc::mount(pointer(what), path.as_ptr(), pointer(kind), flags, pointer(data).cast()) })
        .map(drop)
}

fn wait(child: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    // SAFETY: a pointer to a local.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

fn check(result: impl Into<i64>) -> Result<i64> {
    match result.into() {
        -1 => Err(Error::last_os_error()),
        value => Ok(value),
    }
}
