//! New file systems: fsopen(2), fsconfig(2), fsmount(2).

use crate::sys::fd::read;
use crate::sys::mount::{fsconfig, fsmount, fsopen};
use crate::{Context, Error, Result};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

/// For a file system with default options.
pub const NO_OPTIONS: [&str; 0] = [];

/// Creates a file system and returns its root, detached. `name` is for messages, `options` are `KEY=VALUE` or a flag,
/// `attributes` are `MOUNT_ATTR_*`.
///
/// # Errors
/// The kernel's error, with the message of the file system if there is one.
pub fn new(name: &str, kind: &CStr, options: &[impl AsRef<[u8]>], attributes: u64) -> Result<OwnedFd> {
    let what = || format!("cannot make {name}");
    let context = fsopen(kind).context(what)?;
    let explain = |error: io::Error| {
        let mut failed = Error::system(what(), &error);
        // The first message in the context's log, without its severity.
        let mut buffer = [0u8; 512];
        if let Some(text) = read(&context, &mut buffer).ok().and_then(|length| buffer.get(2..length)) {
            let text = String::from_utf8_lossy(text);
            // The user does not know the names that this process has for the layers of an overlay.
            let known =
                text.split_whitespace().map(|word| if word.contains("/proc/self/fd/") { "it" } else { word });
            failed.message.push_str(&format!(": {}", known.collect::<Vec<_>>().join(" ")));
        }
        failed
    };
    let set = |option: &[u8]| {
        let mut parts = option.splitn(2, |&byte| byte == b'=').map(CString::new);
        let (key, value) = (parts.next().transpose()?, parts.next().transpose()?);
        let command = if value.is_some() { libc::FSCONFIG_SET_STRING } else { libc::FSCONFIG_SET_FLAG };
        fsconfig(&context, command, key.as_deref(), value.as_deref())
    };
    options.iter().try_for_each(|option| set(option.as_ref())).map_err(explain)?;
    fsconfig(&context, libc::FSCONFIG_CMD_CREATE, None, None).map_err(explain)?;
    fsmount(&context, attributes).context(what)
}
