//! A child that dies with the supervisor, whenever that dies.
//!
//! A death signal (PR_SET_PDEATHSIG) alone has a hole: a parent that died before it was armed sends nothing, and
//! getppid(2) cannot tell in a new pid namespace. A byte from the parent does not close it: it may have been written,
//! and the parent killed, before the child had its first turn.

use crate::sys;
use srt_common::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The supervisor's life as its children see it: a pidfd of it.
#[derive(Debug)]
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// For this process, before the fork.
    ///
    /// # Errors
    /// What pidfd_open(2) says.
    pub fn new() -> Result<Self> {
        sys::pidfd_open(sys::own_pid()).map(Self).context(|| "pidfd_open of the supervisor")
    }

    /// In the child: from now on it dies with the supervisor; if that is dead already, here and without a word.
    ///
    /// `detach` must be setsid(2) or setpgid(2). kernel/exit.c, exit_notify(): a process sends its children's death
    /// signals and becomes a zombie, which poll(2) of a pidfd tells, under one lock; these calls take the same lock. So
    /// whoever has armed too late for the signal finds a zombie.
    ///
    /// # Errors
    /// What prctl(2), `detach` or poll(2) says.
    pub fn tie(self, detach: impl FnOnce() -> Result<()>) -> Result<()> {
        sys::die_with_parent()?;
        detach()?;
        let [dead] = sys::poll([Some(self.0.as_fd())], Some(Duration::ZERO)).context(|| "poll")?;
        if dead { sys::exit(125) } else { Ok(()) }
    }
}
