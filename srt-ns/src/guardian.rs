//! The guardian does at the supervisor's death what the kernel does not.
//!
//! A SIGKILL for the supervisor ends srt-init (its death signal), and with it all that is inside. Three things are
//! left, and there is a guardian if one of them exists: a command that is PID 1 itself (--as-pid-1) and could
//! have disarmed its death signal (prctl(2)), the children of a sidecar's shell, and the published sockets.

use crate::caller;
use crate::companion;
use crate::sys::{self, Pid, Side};
use srt_common::fds::Kept;
use srt_common::tool::Tool;
use srt_common::unix_listener::Place;
use srt_common::{Context, Result, privileges};
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};

/// The supervisor's end of the guardian.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    orders: File,
}

impl Guardian {
    /// Starts it. It removes `published` and kills what [`Guardian::shall_kill`] names, when the supervisor is gone.
    ///
    /// # Errors
    /// What fork(2) or pipe2(2) says.
    pub fn start(tool: &Tool, published: &[Place]) -> Result<Self> {
        let (reader, writer) = pipe().context(|| "pipe")?;
        match sys::fork().context(|| "cannot fork the guardian")? {
            Side::Parent(pid) => Ok(Self { pid, orders: File::from(OwnedFd::from(writer)) }),
            Side::Child => {
                drop(writer);
                companion::end(tool, guard(File::from(OwnedFd::from(reader)), published))
            }
        }
    }

    /// Its number, for one who reaps.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Adds a process (or, negative, a process group) to those that must not outlive the supervisor. Said again, when it
    /// has ended, it takes that back: the number may be somebody else's next.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub fn shall_kill(&mut self, pid: Pid) -> Result<()> {
        self.orders.write_all(&pid.to_ne_bytes()).context(|| "the guardian is gone")
    }
}

/// Should: sit on the end of a pipe with nothing but the directories of the published sockets. Mustn't: do anything
/// while the supervisor lives.
fn guard(mut orders: File, published: &[Place]) -> Result<u8> {
    // It is the one process that is not tied to the supervisor's life: the end of the pipe tells it, and the orders
    // stay in the pipe until it comes to read them, however late.
    companion::detach()?;
    caller::leave_keyring()?;
    let descriptors = published.iter().map(Place::descriptor).chain([orders.as_raw_fd(), 2]);
    Kept::default().close_others(&descriptors.collect::<Vec<_>>())?;
    privileges::drop_held()?;
    sys::undumpable().context(|| "prctl(PR_SET_DUMPABLE)")?;
    let mut condemned = Vec::new();
    let mut order = [0; size_of::<Pid>()];
    while orders.read_exact(&mut order).is_ok() {
        let pid = Pid::from_ne_bytes(order);
        match condemned.iter().position(|&other| other == pid) {
            Some(ended) => drop(condemned.remove(ended)),
            None => condemned.push(pid),
        }
    }
    condemned.into_iter().for_each(|pid| sys::kill(pid, libc::SIGKILL));
    published.iter().for_each(Place::remove);
    Ok(0)
}
