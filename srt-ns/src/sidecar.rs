//! `--sidecar`: a shell command that runs where the relays run, with the host's files.

use crate::companion;
use crate::sys::{Inherited, Pid, Side};
use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::tool::Tool;
use srt_common::{Result, privileges};
use std::ffi::OsStr;

/// Starts `/bin/sh -c COMMAND`: no capability, no_new_privs, no descriptor but 0, 1, 2, a session of its own, whose
/// process group is what the returned number also names.
///
/// # Errors
/// What fork(2) says.
pub fn start(tool: &Tool, command: &OsStr, inherited: Inherited) -> Result<Pid> {
    let shell = Program::new(&["/bin/sh".into(), "-c".into(), command.to_owned()])?;
    match companion::start(tool, "a sidecar")? {
        Side::Parent(pid) => Ok(pid),
        Side::Child => {
            companion::end(tool, become_shell(&shell, inherited).map_err(|e| e.within("--sidecar")))
        }
    }
}

/// Returns only the error.
fn become_shell(shell: &Program, inherited: Inherited) -> Result<u8> {
    companion::quiet(inherited)?;
    privileges::drop_held()?;
    Kept::default().alone_survive_exec()?;
    Err(shell.exec())
}
