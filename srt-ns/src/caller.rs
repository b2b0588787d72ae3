//! The process that started srt-ns: how its end is noticed, and that its keys stay its own.

use crate::sys;
use srt_common::{Context, Error, Result};
use std::os::fd::OwnedFd;

/// A pidfd that becomes readable when the caller's process ends. PR_SET_PDEATHSIG would fire at the end of the
/// *thread* that started srt-ns, which is no end of the caller.
///
/// `None` when there is nobody to watch: a parent outside this pid namespace has no number here.
///
/// # Errors
/// When the caller has ended already, or pidfd_open(2) is refused.
pub fn watch() -> Result<Option<OwnedFd>> {
    let parent = sys::parent();
    if parent == 0 {
        return Ok(None);
    }
    let pidfd = sys::pidfd_open(parent);
    // An ended parent changes getppid(2): only if it is the same after the opening is the pidfd the caller's.
    if sys::parent() != parent {
        return Err(Error::failed("the process that started srt-ns has ended already")
            .hint("--outlive-parent goes on without it"));
    }
    pidfd.map(Some).context(|| "pidfd_open of the caller")
}

/// Joins a new session keyring. keyrings(7): the caller's is inherited, with all that the caller keeps in it.
///
/// # Errors
/// What keyctl(2) says.
pub fn leave_keyring() -> Result<()> {
    sys::new_session_keyring().map_err(|error| {
        let failed = Error::system("cannot join a new session keyring", &error);
        match error.raw_os_error() {
            Some(libc::EDQUOT) => {
                failed.hint("this user has as many keys as sysctl kernel.keys.maxkeys allows: raise it")
            }
            _ => failed,
        }
    })
}
