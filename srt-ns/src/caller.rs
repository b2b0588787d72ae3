//! The process that started srt-ns, and how its end is noticed.

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
