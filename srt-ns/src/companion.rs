//! A process beside the sandbox: a relay, a sidecar, the guardian. It is in the host's pid namespace, so that the
//! command can neither see nor signal it, and ends with the supervisor.

use crate::caller;
use crate::pipe::{Gate, Waiter};
use crate::sys::{self, Inherited, Side};
use srt_common::tool::Tool;
use srt_common::{Context, Result};
use std::fs::File;
use std::os::fd::AsFd;

/// Forks a companion. The child comes back as [`Side::Child`], armed and with nothing of the caller's session, and
/// ends in [`end`].
///
/// # Errors
/// What fork(2) or pipe2(2) says.
pub fn start(tool: Tool, name: &str) -> Result<Side> {
    let life = Gate::new()?;
    match sys::fork().context(|| format!("cannot fork {name}"))? {
        Side::Parent(pid) => {
            life.opener().open();
            Ok(Side::Parent(pid))
        }
        Side::Child => {
            if let Err(error) = settle(life.waiter()) {
                end(tool, Err(error));
            }
            Ok(Side::Child)
        }
    }
}

fn settle(life: Waiter) -> Result<()> {
    sys::die_with_parent()?;
    life.wait(1);
    // Neither the caller's terminal and its keys nor the caller's keyring are a companion's.
    sys::setsid().context(|| "setsid")?;
    caller::leave_keyring()
}

/// The end of a companion: its exit status, or what it could not do.
pub fn end(tool: Tool, result: Result<u8>) -> ! {
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
