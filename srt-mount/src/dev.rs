//! `--dev`: a /dev with what programs expect, and nothing that leads to hardware.

use crate::source::Tree;
use crate::sys::{self, NO_EXEC, NO_SUID, c_path};
use srt_common::{Context, Result};
use std::os::fd::OwnedFd;

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
        sys::mkfile(dev, &c_name, 0o666).context(|| format!("cannot make {name}"))?;
        sys::attach_at(&node.fd, dev, &c_name).context(|| format!("cannot mount {name}"))?;
    }
    for (target, name) in LINKS {
        let (target, c_name) = (c_path(target).context(|| name)?, c_path(name).context(|| name)?);
        sys::symlink(&target, dev, &c_name).context(|| format!("cannot make {name}"))?;
    }
    sys::mkdir(dev, c"shm", 0o755).context(|| "cannot make shm")?;
    sys::mkdir(dev, c"pts", 0o755).context(|| "cannot make pts")?;
    // Every mount of devpts is a new instance (Documentation/filesystems/devpts.rst).
    let options = [(c"ptmxmode", Some(c"0666")), (c"mode", Some(c"620"))];
    let pts =
        sys::new_filesystem(c"devpts", &options, NO_SUID | NO_EXEC).context(|| "cannot make a devpts")?;
    sys::attach_at(&pts, dev, c"pts").context(|| "cannot mount pts")
}
