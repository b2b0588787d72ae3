//! overlayfs (Documentation/filesystems/overlayfs.rst).

use crate::detached::{PLAIN, Tree, tmpfs};
use srt_common::sys::c_path;
use srt_common::sys::file::{fstatfs, symlinkat};
use srt_common::sys::mount::{MOUNT_ATTR_RDONLY, fchdir};
use srt_common::{Context, Error, Result};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// How many one-byte names, separated by colons, fit into the 255 bytes that fsconfig(2) accepts. Bytes that are
/// special in a list of layers are not used.
const MOST_NAMES: usize = 128;

/// A new overlay of `layers`, from bottom to top, writable if `upper` gives an upper and a work directory.
///
/// The layers are passed as `/proc/self/fd/N`: they have been opened before, and no character in their paths (`:`,
/// `,` and `\` are special to overlayfs) can be misread.
///
/// # Errors
/// The kernel's error, with hints.
pub fn new(layers: &[Rc<OwnedFd>], upper: Option<&[Rc<OwnedFd>; 2]>) -> Result<Tree> {
    let lower: Vec<String> = layers.iter().rev().map(link).collect();
    // In a user namespace overlayfs can store its metadata only in user.* extended attributes (Linux 5.11).
    let mut others = vec![b"userxattr".to_vec()];
    if let Some([upper, work]) = upper {
        others.extend([format!("upperdir={}", link(upper)).into(), format!("workdir={}", link(work)).into()]);
    }
    let attributes = if upper.is_some() { PLAIN } else { PLAIN | MOUNT_ATTR_RDONLY };
    let create =
        |lower: &[Vec<u8>]| Tree::make("an overlay", c"overlay", &[lower, &others].concat(), attributes);
    // lowerdir+ takes one layer at a time, since Linux 6.8. Older kernels reject it as an unknown option.
    let one_by_one: Vec<_> = lower.iter().map(|layer| format!("lowerdir+={layer}").into_bytes()).collect();
    let tree = match create(&one_by_one) {
        Err(error) if error.errno == Some(libc::EINVAL) => create(&[list(&lower)?]),
        tree => tree,
    };
    tree.map_err(|error| {
        let on_overlay = upper.is_some_and(|[upper, _]| fstatfs(upper).is_ok_and(|kind| kind == libc::OVERLAYFS_SUPER_MAGIC));
        let hint = if on_overlay {
            "RW cannot lie on an overlay (a container's root): --tmp-overlay, or a directory on another file system"
        } else {
            "overlayfs takes no layer with other mounts below it, and none on a procfs or sysfs; RW and WORK must be of \
             one file system, and neither below the other"
        };
        error
            .hint(hint)
            .hint_for(libc::ELOOP, "no layer, RW or WORK may be another of them, or lie in one")
            .hint_for(libc::ENODEV, "the kernel has no overlayfs, or has not loaded it: modprobe overlay")
    })
}

fn link(fd: &Rc<OwnedFd>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The layers in one option, as symbolic links with short names in a directory that becomes the working directory.
fn list(lower: &[String]) -> Result<Vec<u8>> {
    let names: Vec<u8> = (b'!'..=u8::MAX).filter(|byte| !b",./:\\".contains(byte)).take(MOST_NAMES).collect();
    if lower.len() > names.len() {
        let text = format!("more than {MOST_NAMES} --overlay-src need Linux 6.8 or newer");
        return Err(Error::failed(text));
    }
    let directory = tmpfs(0o700, None)?;
    for (layer, name) in lower.iter().zip(&names) {
        let name = c_path(OsStr::from_bytes(&[*name]));
        let made = name.and_then(|name| symlinkat(&c_path(layer)?, &directory.fd, &name));
        made.context(|| "cannot name a layer")?;
    }
    fchdir(&directory.fd).context(|| "cannot enter the directory of layers")?;
    let names: Vec<&[u8]> = names.chunks(1).take(lower.len()).collect();
    Ok([&b"lowerdir="[..], &names.join(&b':')].concat())
}
