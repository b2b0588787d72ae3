//! The time until the tunnel must stand.

use crate::sys;
use srt_common::{Context, Error, Result};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// One moment for the whole way to the tunnel, so that no number of small steps stretches it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    seconds: u32,
    start: Instant,
}

impl Deadline {
    /// So many seconds from now; 0 is never.
    pub fn after(seconds: u32) -> Self {
        Self { seconds, start: Instant::now() }
    }

    /// The time left, `None` without a limit.
    ///
    /// # Errors
    /// When there is none left.
    pub fn left(self) -> Result<Option<Duration>> {
        let limit = Duration::from_secs(self.seconds.into());
        match limit.checked_sub(self.start.elapsed()) {
            _ if self.seconds == 0 => Ok(None),
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(self.missed()),
        }
    }

    /// The error of one who waited in vain.
    pub fn missed(self) -> Error {
        Error::failed(format!("not done within {} s", self.seconds)).hint("--timeout S sets another limit")
    }

    /// Waits until poll(2) reports `events` on `fd`, or an error or hangup there.
    ///
    /// # Errors
    /// When it is too late.
    pub fn wait(self, fd: RawFd, events: libc::c_short) -> Result<()> {
        let mut polled = [sys::watch(fd, events)];
        while sys::poll(&mut polled, self.left()?).context(|| "poll")? == 0 {}
        Ok(())
    }
}
