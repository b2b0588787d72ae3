//! `--dev`: a /dev with what programs expect, and nothing that leads to hardware.

use crate::detached::{Tree, new_filesystem};
use srt_common::sys::c_path;
use srt_common::sys::file::{mkdirat, mknodat, symlinkat};
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, move_mount};
use srt_common::{Context, Result};
use std::os::fd::OwnedFd;

/// The devices that every Linux program may expect.
pub const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links that every Linux program may expect.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Fills the empty file system `dev`. The nodes are the host's, mounted one by one: mknod(2) of a device is not
/// for a user namespace.
///
/// # Errors
/// What failed.
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
    let pts = new_filesystem("a devpts", c"devpts", &options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    move_mount(&pts.fd, dev, c"pts").context(|| "cannot mount pts")
}
