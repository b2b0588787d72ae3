//! What runs beside the sandbox: in its network, outside its pid namespace.

use crate::sys::Pid;
use srt_common::tool::Tool;
use std::os::fd::BorrowedFd;

/// The running relays.
#[derive(Debug, Default)]
pub struct Relays {}

impl Relays {
    /// Readable when a relay has something to tell.
    pub fn news(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Reads it.
    pub fn read_news(&mut self, _tool: Tool) {}

    /// A child that is neither command nor PID 1 has ended.
    pub fn ended(&mut self, _pid: Pid, _tool: Tool) {}
}
