//! What ends the relay: a signal, or the end of the process that started it.

use crate::sys;
use srt_common::sys::prctl;
use srt_common::{Context, Error, Result};
use std::os::fd::OwnedFd;

/// Descriptors that become readable when it is time to end.
pub struct Life(Vec<OwnedFd>);

impl Life {
    /// Takes SIGTERM, SIGINT and SIGHUP, and watches the parent unless `outlive_parent`.
    ///
    /// # Errors
    /// When the parent has ended already.
    pub fn new(outlive_parent: bool) -> Result<Self> {
        let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        let mut ends = vec![sys::take_signals(&signals).context(|| "signalfd")?];
        if !outlive_parent {
            ends.extend(watch_parent()?);
        }
        Ok(Self(ends))
    }

    /// The descriptors.
    pub fn ends(&self) -> &[OwnedFd] {
        &self.0
    }
}

/// A pidfd, because PR_SET_PDEATHSIG (prctl(2)) takes the end of the *thread* that forked for the end of the
/// parent, and programs with thread pools start children from any thread.
fn watch_parent() -> Result<Option<OwnedFd>> {
    match sys::parent() {
        // Outside this pid namespace: no number to open, so the signal has to do. A parent that ended before
        // this line is not noticed.
        0 => {
            prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0)
                .context(|| "prctl(PR_SET_PDEATHSIG)")?;
            Ok(None)
        }
        parent => {
            let pidfd = sys::pidfd(parent).context(|| "pidfd_open of the parent");
            // Its number may have been somebody else's before it was opened; then this process has another
            // parent now.
            if sys::parent() != parent {
                return Err(Error::failed("the parent has ended already"));
            }
            pidfd.map(Some)
        }
    }
}
