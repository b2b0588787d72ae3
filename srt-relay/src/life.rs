//! What ends the relay: a signal, or the end of the process that started it.

use crate::sys;
use srt_common::parent::Parent;
use srt_common::sys::process::prctl;
use srt_common::{Context, Result};
use std::os::fd::OwnedFd;

/// Descriptors that become readable when it is time to end.
pub struct Life(Vec<OwnedFd>);

impl Life {
    /// Takes SIGTERM, SIGINT and SIGHUP, and watches the parent.
    ///
    /// # Errors
    /// When the parent has ended already.
    pub fn new(parent: Option<Parent>) -> Result<Self> {
        let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        let mut ends = vec![sys::take_signals(&signals).context(|| "signalfd")?];
        if let Some(parent) = parent {
            match parent.watch()? {
                Some(pidfd) => ends.push(pidfd),
                // Outside this pid namespace: no number to open, so the signal has to do.
                None => prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0)
                    .map(drop)
                    .context(|| "prctl(PR_SET_PDEATHSIG)")?,
            }
        }
        Ok(Self(ends))
    }

    /// The descriptors.
    pub fn ends(&self) -> &[OwnedFd] {
        &self.0
    }
}
