//! The time limit for establishing the tunnel.

use srt_common::sys::fd::{pollfd, ppoll};
use srt_common::{Context, Error, Result};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// One point in time for all steps up to the tunnel, so that many small steps cannot extend it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    end: Option<Instant>,
}

impl Deadline {
    /// `limit` from now; `None` means never.
    pub fn after(limit: Option<Duration>) -> Self {
        Self { limit: limit.unwrap_or_default(), end: limit.map(|limit| Instant::now() + limit) }
    }

    /// The same deadline, or `limit` from now if that is sooner.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        let end = Instant::now() + limit;
        Self { end: Some(self.end.map_or(end, |own| own.min(end))), ..self }
    }

    /// The time left, `None` without a limit.
    ///
    /// # Errors
    /// There is no time left.
    pub fn left(self) -> Result<Option<Duration>> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) { Err(self.missed()) } else { Ok(left) }
    }

    /// The error for a missed deadline.
    pub fn missed(self) -> Error {
        let fraction = match self.limit.subsec_millis() {
            0 => String::new(),
            millis => format!(".{millis:03}"),
        };
        Error::failed(format!("not done within {}{fraction} s", self.limit.as_secs()))
            .hint("--timeout S sets another limit")
    }

    /// Waits until poll(2) reports `events` on `fd`, or an error or hangup there.
    ///
    /// # Errors
    /// The deadline has passed.
    pub fn wait(self, fd: &impl AsRawFd, events: libc::c_short) -> Result<()> {
        let mut polled = [pollfd(fd.as_raw_fd(), events)];
        while poll(&mut polled, self.left()?).context(|| "poll")? == 0 {}
        Ok(())
    }
}

/// ppoll(2): how many descriptors are ready; also 0 if a signal interrupted it.
///
/// # Errors
/// errno.
pub fn poll(fds: &mut [libc::pollfd], limit: Option<Duration>) -> io::Result<usize> {
    match ppoll(fds, limit) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        result => result,
    }
}
