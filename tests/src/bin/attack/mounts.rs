//! Changes of the mount tree, with the old system calls and the new, and in a user namespace of the attacker's.

use crate::sys::{c, descriptor, open, sys};
use crate::{Outcome, attack as any};
use libc::{
    AT_FDCWD, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, MNT_DETACH, MS_BIND, MS_MOVE, MS_PRIVATE, MS_REC,
    MS_REMOUNT,
};
use libc::{O_DIRECTORY, O_PATH};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const AT_RECURSIVE: u32 = 0x8000;
/// Numbers that libc does not know everywhere; the same on every architecture.
const SYS_LISTMOUNT: i64 = 458;
const SYS_OPEN_TREE_ATTR: i64 = 467;
/// ioctl_nsfs(2), linux/nsfs.h.
const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_MNT_GET_NEXT: u32 = 0x8010_b70b;
const NS_MNT_GET_PREV: u32 = 0x8010_b70c;

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC: all that would help.
static PROTECTION: MountAttr = MountAttr { attr_set: 0, attr_clr: 0xf, propagation: 0, userns_fd: 0 };

pub fn attack(words: &[&str]) -> Option<Outcome> {
    let done = |result: io::Result<i64>| result.map(|_| "done".to_owned());
    Some(match *words {
        // The rest of the words is another attack, from a new user namespace that owns a new mount namespace.
        ["in-userns", ref rest @ ..] => new_user_namespace(CLONE_NEWNS).and_then(|()| any(rest)),
        ["in-mountns", ref rest @ ..] => sys!(libc::SYS_unshare, CLONE_NEWNS).and_then(|_| any(rest)),
        // … and a pid namespace, for a procfs of its own.
        ["in-userns-pid", ref rest @ ..] => {
            new_user_namespace(CLONE_NEWNS | CLONE_NEWPID).and_then(|()| in_child(|| any(rest)))
        }
        ["in-userns-cgroup", ref rest @ ..] => {
            new_user_namespace(CLONE_NEWNS | libc::CLONE_NEWCGROUP).and_then(|()| any(rest))
        }
        ["in-userns-net", ref rest @ ..] => {
            new_user_namespace(CLONE_NEWNS | libc::CLONE_NEWNET).and_then(|()| any(rest))
        }
        ["userns-unshare"] => new_user_namespace(0).map(|()| "made".into()),
        ["userns-clone"] => clone_in(CLONE_NEWUSER),
        ["userns-clone3"] => clone3_in(CLONE_NEWUSER as u64),
        // One attempt after the other: a limit that can be raced or overflowed gives in.
        ["userns-loop"] => (0..200)
            .map(|_| new_user_namespace(0))
            .find(Result::is_ok)
            .map_or_else(|| new_user_namespace(0).map(|()| "made".into()), |_| Ok("made".into())),
        ["userns-raise-limit"] => {
            std::fs::write("/proc/sys/user/max_user_namespaces", "100").map(|()| "raised".into())
        }
        ["unshare", flags] => done(sys!(libc::SYS_unshare, crate::number(flags))),

        ["remount", path] => done(mount(c"none", &c(path), MS_REMOUNT | MS_BIND)),
        ["umount", path] => done(sys!(libc::SYS_umount2, c(path).as_c_str(), MNT_DETACH)),
        ["bind", from, to] => done(mount(&c(from), &c(to), MS_BIND)),
        ["rbind", from, to] => done(mount(&c(from), &c(to), MS_BIND | MS_REC)),
        ["move", from, to] => {
            // A shared mount cannot be moved: that would not be the sandbox's doing.
            let _refused = mount(c"none", c"/", MS_PRIVATE | MS_REC);
            done(mount(&c(from), &c(to), MS_MOVE))
        }
        ["tmpfs", path] => done(new_mount(c"tmpfs", path)),
        ["mount", kind, path] => done(new_mount(&c(kind), path)),
        ["open-tree", path] => open_tree(path, OPEN_TREE_CLONE).map(|_| "cloned".into()),
        ["open-tree-recursive", path] => {
            open_tree(path, OPEN_TREE_CLONE | AT_RECURSIVE).map(|_| "cloned".into())
        }
        ["open-tree-attr", path] => open_tree_attr(path).map(|_| "cloned".into()),
        ["move-mount", from, to] => {
            let _refused = mount(c"none", c"/", MS_PRIVATE | MS_REC);
            open_tree(from, 0).and_then(|tree| done(attach(&tree, to)))
        }
        ["mount-setattr", path] => {
            let (path, size) = (c(path), size_of::<MountAttr>());
            done(sys!(libc::SYS_mount_setattr, AT_FDCWD, path.as_c_str(), 0, &raw const PROTECTION, size))
        }
        ["mount-setattr-recursive", path] => {
            let (path, size) = (c(path), size_of::<MountAttr>());
            done(sys!(
                libc::SYS_mount_setattr,
                AT_FDCWD,
                path.as_c_str(),
                AT_RECURSIVE,
                &raw const PROTECTION,
                size
            ))
        }
        ["pivot-root", directory] => pivot(directory).map(|()| "pivoted".into()),
        ["chroot", directory] => done(sys!(libc::SYS_chroot, c(directory).as_c_str())),
        ["fsopen", kind] => done(sys!(libc::SYS_fsopen, c(kind).as_c_str(), 1)),
        ["fspick", path] => done(sys!(libc::SYS_fspick, AT_FDCWD, c(path).as_c_str(), 1)),
        ["fspick-reconfigure", path] => fspick_reconfigure(path).map(|()| "made writable".into()),

        // Reads PATH below a mount, after a way around what covers it.
        ["read-below-umount", mount, path] => {
            sys!(libc::SYS_umount2, c(mount).as_c_str(), MNT_DETACH).and_then(|_| any(&["read", path]))
        }
        ["read-below-clone", root, path] => open_tree(root, OPEN_TREE_CLONE)
            .and_then(|tree| attach(&tree, "/tmp"))
            .and_then(|_| any(&["read", &format!("/tmp/{path}")])),
        ["write-after-remount", mount_point, path] => {
            mount(c"none", &c(mount_point), MS_REMOUNT | MS_BIND).and_then(|_| any(&["write", path]))
        }
        // Everything is detached but a descriptor, and then a name is changed through it: the kernel protects
        // mount points in the renamer's own mount namespace only.
        ["detach-and-rename", directory, from, to] => detach_and_rename(directory, from, to),
        ["mount-and-write", kind, at, path] => {
            new_mount(&c(kind), at).and_then(|_| any(&["open-write", &format!("{at}/{path}")]))
        }

        ["ns-parent", path] => ns_ioctl(path, NS_GET_PARENT),
        ["ns-userns", path] => ns_ioctl(path, NS_GET_USERNS),
        ["ns-next"] => ns_walk(NS_MNT_GET_NEXT),
        ["ns-previous"] => ns_walk(NS_MNT_GET_PREV),
        ["setns", path] => {
            open(path, libc::O_RDONLY).and_then(|ns| done(sys!(libc::SYS_setns, ns.as_raw_fd(), 0)))
        }
        ["setns-pidfd", pid] => sys!(libc::SYS_pidfd_open, crate::number(pid), 0)
            .and_then(|pidfd| done(sys!(libc::SYS_setns, pidfd, CLONE_NEWNS))),
        // The mounts of another namespace, by its number.
        ["listmount", id] => {
            let request =
                [32_u64 /* size, spare */, u64::MAX /* LSMT_ROOT */, 0, crate::number(id)];
            let mut ids = [0_u64; 64];
            sys!(SYS_LISTMOUNT, request.as_ptr(), ids.as_mut_ptr(), ids.len(), 0)
                .map(|count| format!("{count} mounts"))
        }
        ["mountns-id"] => {
            let mut id = 0_u64;
            // NS_GET_MNTNS_ID of linux/nsfs.h.
            open("/proc/self/ns/mnt", libc::O_RDONLY)
                .and_then(|ns| sys!(libc::SYS_ioctl, ns.as_raw_fd(), 0x8008_b705_u32, &raw mut id))
                .map(|_| id.to_string())
        }
        _ => return None,
    })
}

/// unshare(2) of a user namespace and others, with as good an id map as can be had: none will do, since the
/// capabilities do not depend on it, and the files are judged by the host's uid.
fn new_user_namespace(others: i32) -> io::Result<()> {
    // SAFETY: no arguments, no failure.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    sys!(libc::SYS_unshare, CLONE_NEWUSER | others)?;
    let _refused = std::fs::write("/proc/self/setgroups", "deny");
    let _refused = std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"));
    let _refused = std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"));
    Ok(())
}

/// clone(2) with a namespace flag; the child ends at once.
fn clone_in(flags: i32) -> Outcome {
    match sys!(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0)? {
        0 => std::process::exit(0),
        _child => Ok("made".into()),
    }
}

fn clone3_in(flags: u64) -> Outcome {
    let args = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    match sys!(libc::SYS_clone3, args.as_ptr(), size_of_val(&args))? {
        0 => std::process::exit(0),
        _child => Ok("made".into()),
    }
}

/// Runs in a child: the first process of a new pid namespace. What it says comes back over a pipe.
fn in_child(work: impl FnOnce() -> Outcome) -> Outcome {
    let (mut reader, mut writer) = io::pipe().expect("pipe");
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let said = match work() {
                Ok(said) => format!("0{said}"),
                Err(error) => error.raw_os_error().expect("errno").to_string(),
            };
            io::Write::write_all(&mut writer, said.as_bytes()).expect("write");
            std::process::exit(0)
        }
        _ => {
            drop(writer);
            let mut said = String::new();
            io::Read::read_to_string(&mut reader, &mut said).expect("read");
            match said.strip_prefix('0') {
                Some(said) => Ok(said.to_owned()),
                None => Err(io::Error::from_raw_os_error(said.parse().expect("the child said nothing"))),
            }
        }
    }
}

fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> io::Result<i64> {
    sys!(libc::SYS_mount, source, target, null::<u8>(), flags, null::<u8>())
}

fn new_mount(kind: &CStr, path: &str) -> io::Result<i64> {
    sys!(libc::SYS_mount, c"none", c(path).as_c_str(), kind, 0, null::<u8>())
}

fn open_tree(path: &str, flags: u32) -> io::Result<OwnedFd> {
    sys!(libc::SYS_open_tree, AT_FDCWD, c(path).as_c_str(), flags | libc::O_CLOEXEC as u32).map(descriptor)
}

fn open_tree_attr(path: &str) -> io::Result<OwnedFd> {
    let (path, flags) = (c(path), OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as u32);
    let size = size_of::<MountAttr>();
    sys!(SYS_OPEN_TREE_ATTR, AT_FDCWD, path.as_c_str(), flags, &raw const PROTECTION, size).map(descriptor)
}

fn attach(tree: &OwnedFd, to: &str) -> io::Result<i64> {
    let to = c(to);
    sys!(libc::SYS_move_mount, tree.as_raw_fd(), c"", AT_FDCWD, to.as_c_str(), MOVE_MOUNT_F_EMPTY_PATH)
}

/// The file system below a mount, made writable for all mounts of it.
fn fspick_reconfigure(path: &str) -> io::Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
    let context = descriptor(sys!(libc::SYS_fspick, AT_FDCWD, c(path).as_c_str(), 1)?);
    sys!(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_FLAG, c"rw", null::<u8>(), 0)?;
    sys!(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, null::<u8>(), null::<u8>(), 0)?;
    Ok(())
}

/// A new root at `directory`; the old one is detached.
fn pivot(directory: &str) -> io::Result<()> {
    let _refused = mount(c"none", c"/", MS_PRIVATE | MS_REC);
    new_mount(c"tmpfs", directory)?;
    std::env::set_current_dir(directory)?;
    sys!(libc::SYS_pivot_root, c".", c".")?;
    sys!(libc::SYS_umount2, c".", MNT_DETACH).map(drop)
}

fn detach_and_rename(directory: &str, from: &str, to: &str) -> Outcome {
    let held = open(directory, O_PATH | O_DIRECTORY)?;
    pivot("/tmp")?;
    let (from, to, fd) = (c(from), c(to), held.as_raw_fd());
    sys!(libc::SYS_renameat2, fd, from.as_c_str(), fd, to.as_c_str(), 0).map(|_| "renamed".into())
}

fn ns_ioctl(path: &str, request: u32) -> Outcome {
    let ns = open(path, libc::O_RDONLY)?;
    let found = descriptor(sys!(libc::SYS_ioctl, ns.as_raw_fd(), request)?);
    let link = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    Ok(link.display().to_string())
}

/// From mount namespace to mount namespace, to the last.
fn ns_walk(request: u32) -> Outcome {
    let mut ns = open("/proc/self/ns/mnt", libc::O_RDONLY)?;
    let mut count = 0;
    loop {
        let mut info = [0_u64; 2];
        info[0] = 16; // struct mnt_ns_info: size, nr_mounts, mnt_ns_id
        match sys!(libc::SYS_ioctl, ns.as_raw_fd(), request, info.as_mut_ptr()) {
            Ok(next) => ns = descriptor(next),
            Err(error) if count == 0 => return Err(error),
            Err(_) => return Ok(format!("{count} mount namespaces")),
        }
        count += 1;
    }
}
