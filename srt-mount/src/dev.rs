//! `--dev`: a /dev with the nodes that programs expect, and none that gives access to hardware.

use crate::detached::{Tree, clone_tree, is_read_only, set_attributes};
use crate::options::Access;
use crate::source::{Host, cannot_open};
use srt_common::sys::c_path;
use srt_common::sys::fd::{borrowed, dup2, fcntl};
use srt_common::sys::file::{CWD, FileId, mkdirat, mknodat, open, openat, statx, symlinkat};
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, move_mount};
use srt_common::sys::process::geteuid;
use srt_common::{Context, Result};
use std::ffi::CString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// The devices that every Linux program may expect.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links that every Linux program may expect.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// The device nodes of a minimal /dev, and the caller's terminal.
///
/// Read-only if the caller owns them, as uid 0 of the host or of a container: this does not prevent writes to a
/// device, but it prevents changes to the mode, owner and times of inodes that are shared with the host.
///
/// # Errors
/// A device cannot be copied.
pub fn open_nodes(host: &Host) -> Result<Vec<(&'static str, Tree)>> {
    let (mut nodes, own) = (vec![], geteuid());
    for name in NODES {
        let path = Path::new("/dev").join(name);
        let copy = |path: CString| {
            let tree = Tree::new(clone_tree(&CWD, &path, false)?)?;
            let read_only = if tree.stat.uid == own { MOUNT_ATTR_RDONLY } else { 0 };
            set_attributes(&tree.fd, MOUNT_ATTR_NOSUID | read_only, false).map(|()| tree)
        };
        let tree = c_path(&path).and_then(copy);
        nodes.push((name, tree.map_err(|error| cannot_open(&path, &error))?));
    }
    // The command can use this terminal in any case; /dev/console gives it a name, which ttyname(3) needs. A
    // terminal of another mount namespace has no path here, and is left out.
    let terminal = [0, 1].into_iter().find(|&fd| borrowed(fd).is_ok_and(|fd| fd.is_terminal()));
    let console = terminal.and_then(|fd| host.of_descriptor(fd, Access::Devices).ok());
    let _of_the_first = host.nodes.set(nodes.clone());
    nodes.extend(console.map(|tree| ("console", tree)));
    Ok(nodes)
}

/// Fills the empty file system `dev`. Each node is a bind mount of the host's: mknod(2) cannot create a device in a
/// user namespace.
///
/// # Errors
/// The step that failed.
pub fn fill(dev: &OwnedFd, nodes: Vec<(&'static str, Tree)>) -> Result<()> {
    for (name, node) in nodes {
        let c_name = c_path(name).context(|| name)?;
        mknodat(dev, &c_name, libc::S_IFREG | 0o666).context(|| format!("cannot make {name}"))?;
        move_mount(&node.fd, dev, &c_name).context(|| format!("cannot mount {name}"))?;
    }
    for (target, name) in LINKS {
        let made = c_path(target).and_then(|target| symlinkat(&target, dev, &c_path(name)?));
        made.context(|| format!("cannot make {name}"))?;
    }
    mkdirat(dev, c"shm", 0o755).context(|| "cannot make shm")?;
    mkdirat(dev, c"pts", 0o755).context(|| "cannot make pts")?;
    // Every mount of devpts is a new instance (Documentation/filesystems/devpts.rst).
    let options = ["ptmxmode=0666", "mode=620"];
    let pts = Tree::make("a devpts", c"devpts", &options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    move_mount(&pts.fd, dev, c"pts").context(|| "cannot mount pts")
}

/// Reopens the usual devices among PROGRAM's descriptors through a read-only mount, if PROGRAM's user owns them: see
/// [`open_nodes`] for what fchmod(2) could do through a descriptor from outside. Called before the new root is
/// entered, which may lack these devices.
///
/// # Errors
/// A device cannot be reopened.
pub fn reopen(host: &Host) -> Result<()> {
    (0..=2).chain(host.plan.keep.iter().copied()).try_for_each(|number| {
        reopen_one(host, number).context(|| format!("cannot open the device on descriptor {number} again"))
    })
}

fn reopen_one(host: &Host, number: RawFd) -> io::Result<()> {
    let stat = statx(&number, c"")?;
    if !stat.is(libc::S_IFCHR) || stat.uid != geteuid() {
        return Ok(());
    }
    let Some((path, node)) = read_only(host, stat.id)? else { return Ok(()) };
    let same = libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK | libc::O_PATH;
    let flags = fcntl(&number, libc::F_GETFL, 0)? & same | libc::O_NOCTTY;
    match open(format!("/proc/self/fd/{}", node.fd.as_raw_fd()), flags) {
        // /dev/tty, if srt-ns has created a session without a controlling terminal.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        // No procfs is mounted: mount the node over the device itself, in the old root, which is detached later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let _there_already = move_mount(&node.fd, &CWD, &path);
            let own = openat(&CWD, &path, flags, 0)?;
            if is_read_only(&own)? { dup2(&own, number) } else { Err(error) }
        }
        own => dup2(&own?, number),
    }
}

/// The path of the usual device `id`, and a read-only mount of it: that of `--dev` if there is one, else a new one.
fn read_only(host: &Host, id: FileId) -> io::Result<Option<(CString, Tree)>> {
    let path = |name: &str| c_path(format!("/dev/{name}"));
    if let Some((name, node)) = host.nodes.get().into_iter().flatten().find(|(_, node)| node.stat.id == id) {
        return Ok(Some((path(name)?, node.clone())));
    }
    let mut paths = NODES.iter().filter_map(|name| path(name).ok());
    let path = paths.find(|path| statx(&CWD, path).is_ok_and(|there| there.id == id));
    let copy = |path: CString| {
        let node = Tree::copy(&CWD, &path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY, false)?;
        Ok((path, node))
    };
    path.map(copy).transpose()
}
