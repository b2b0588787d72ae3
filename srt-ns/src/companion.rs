//! A process beside the sandbox: a relay, a sidecar, the guardian. It is in the host's pid namespace, so that the
//! command can neither see nor signal it, and ends with the supervisor.

use crate::caller;
use crate::lifeline::Lifeline;
use crate::sys::{self, Inherited, Side};
use srt_common::tool::Tool;
use srt_common::{Context, Result};
use std::fs::File;
use std::os::fd::AsFd;

/// Forks a companion. The child comes back as [`Side::Child`], tied to the supervisor's life and with nothing of the
/// caller's session, and ends in [`end`].
///
/// # Errors
/// What fork(2) or pidfd_open(2) says.
pub fn start(tool: &Tool, name: &str) -> Result<Side> {
    let life = Lifeline::new()?;
    match sys::fork().context(|| format!("cannot fork {name}"))? {
        Side::Parent(pid) => Ok(Side::Parent(pid)),
        Side::Child => {
            let tied = life.tie(detach).and_then(|()| caller::leave_keyring());
            tied.map_or_else(|error| end(tool, Err(error)), |()| Ok(Side::Child))
        }
    }
}

/// Neither the caller's terminal and its keys nor the caller's process group are a companion's.
///
/// # Errors
/// What setsid(2) says.
pub fn detach() -> Result<()> {
    sys::setsid().context(|| "setsid")
}

/// The end of a companion: its exit status, or what it could not do.
pub fn end(tool: &Tool, result: Result<u8>) -> ! {
    sys::exit(result.unwrap_or_else(|error| tool.fail(&error)))
}

/// What a program that runs beside the sandbox starts with: /dev/null as stdin and stdout, the caller's stderr for
/// its complaints, and the caller's signals.
///
/// # Errors
/// What the system says.
pub fn quiet(inherited: Inherited) -> Result<()> {
    let null =
        File::options().read(true).write(true).open("/dev/null").context(|| "cannot open /dev/null")?;
    for fd in 0..=1 {
        sys::dup2(null.as_fd(), fd).context(|| "dup2")?;
    }
    inherited.restore().context(|| "cannot restore the signals")
}
