//! overlayfs (Documentation/filesystems/overlayfs.rst).

use crate::sys::{self, NO_DEV, NO_SUID, READ_ONLY, c_path};
use srt_common::{Context, Error, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

/// fsconfig(2) takes strings of up to 255 bytes.
const LONGEST_STRING: usize = 255;

/// A new overlay of `layers`, bottom to top, with `upper` and work directory if it is to be writable.
///
/// The layers go in as `/proc/self/fd/N`: they were opened before, and no character in their paths (`:`, `,` and
/// `\` mean something to overlayfs) can be misread.
///
/// # Errors
/// What the kernel says.
pub fn new(layers: &[OwnedFd], upper: Option<&[OwnedFd; 2]>) -> Result<OwnedFd> {
    let lower: Vec<CString> = layers.iter().rev().map(link).collect::<Result<_>>()?;
    let upper = upper.map(|[upper, work]| Ok([link(upper)?, link(work)?])).transpose()?;
    // lowerdir+ takes one layer at a time, from Linux 6.8 on.
    let appended: Vec<_> = lower.iter().map(|layer| (c"lowerdir+", layer.as_c_str())).collect();
    if let Ok(tree) = create(&appended, upper.as_ref()) {
        return Ok(tree);
    }
    let joined = lower.iter().map(|layer| layer.as_bytes()).collect::<Vec<_>>().join(&b':');
    if joined.len() > LONGEST_STRING {
        return Err(Error::failed("so many --overlay-src need Linux 6.8 or newer"));
    }
    let joined = CString::new(joined).map_err(|_| Error::failed("NUL byte"))?;
    create(&[(c"lowerdir", &joined)], upper.as_ref()).context(|| "cannot make an overlay").map_err(|error| {
        error.hint("overlayfs takes no layer with other mounts below it, and RWSRC and WORKDIR must be of one file system")
    })
}

fn link(fd: &OwnedFd) -> Result<CString> {
    c_path(format!("/proc/self/fd/{}", fd.as_raw_fd())).context(|| "path")
}

fn create(lower: &[(&CStr, &CStr)], upper: Option<&[CString; 2]>) -> std::io::Result<OwnedFd> {
    let mut options: Vec<_> = lower.iter().map(|&(key, value)| (key, Some(value))).collect();
    if let Some([upper, work]) = upper {
        options.extend([(c"upperdir", Some(upper.as_c_str())), (c"workdir", Some(work.as_c_str()))]);
    }
    // In a user namespace only user.* extended attributes can hold what overlayfs notes (Linux 5.11).
    options.push((c"userxattr", None));
    let read_only = if upper.is_none() { READ_ONLY } else { 0 };
    sys::new_filesystem(c"overlay", &options, NO_SUID | NO_DEV | read_only)
}
