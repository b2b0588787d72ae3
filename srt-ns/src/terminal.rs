//! The caller's terminal under --keep-session: who has its foreground, and how it is left.

use crate::sys::{self, Pid};
use srt_common::Result;
use std::os::fd::AsFd;

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    tty: std::fs::File,
    modes: sys::Modes,
    own_group: Pid,
    handed: bool,
}

impl Terminal {
    /// The caller's controlling terminal, if it has one.
    pub fn controlling() -> Option<Self> {
        let tty = std::fs::File::options().read(true).write(true).open("/dev/tty").ok()?;
        let modes = sys::terminal_modes(tty.as_fd()).ok()?;
        Some(Self { tty, modes, own_group: sys::process_group(), handed: false })
    }

    /// Gives the foreground to the command's group, if it is ours to give: a background job keeps its place.
    ///
    /// # Errors
    /// What tcsetpgrp(3) says.
    pub fn hand_to(&mut self, group: Pid) -> Result<()> {
        if sys::foreground(self.tty.as_fd()) == Some(self.own_group) {
            // SIGTTOU is blocked in the supervisor, so a background process may do this too.
            sys::set_foreground(self.tty.as_fd(), group)?;
            self.handed = true;
        }
        Ok(())
    }

    /// Takes the foreground back. A terminal that is gone needs nothing.
    pub fn take_back(&mut self) {
        if std::mem::take(&mut self.handed) {
            let _gone = sys::set_foreground(self.tty.as_fd(), self.own_group);
        }
    }

    /// Takes the foreground back and restores the modes, as a shell does for a job that leaves them raw.
    pub fn restore(&mut self) {
        if self.handed {
            self.take_back();
            let _gone = sys::set_terminal_modes(self.tty.as_fd(), &self.modes);
        }
    }
}
