//! The process that becomes PROGRAM: what it is given, and what is taken from it, before the exec.

use crate::caller;
use crate::lifeline::Lifeline;
use crate::namespaces::FOR_SRT_MOUNT;
use crate::options::{Pid1, Plan, Session};
use crate::pipe::{Gate, Waiter};
use crate::sys::{self, Inherited, Pid, Side};
use srt_common::exec::{Program, beside};
use srt_common::fds::Kept;
use srt_common::sys::{CAP_SYS_ADMIN, Capabilities, open_path, set_capabilities};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Forks the process that becomes PROGRAM. It waits at `go` for a byte of everybody who has something to give away
/// first: the supervisor, and srt-init if there is one.
///
/// # Errors
/// What fork(2) says. What the child itself cannot do, it tells the user, and exits.
pub fn start(
    tool: &Tool,
    plan: &Plan,
    program: &Program,
    kept: &Kept,
    go: Gate,
    inherited: Inherited,
) -> Result<(Pid, Gate)> {
    // srt-init's end is the command's. Without it the command is tied to the supervisor as srt-init would be.
    let life = if plan.pid1 == Pid1::Command { Some(Lifeline::new()?) } else { None };
    match sys::fork().context(|| "cannot fork the command")? {
        Side::Parent(pid) => Ok((pid, go)),
        Side::Child => {
            let error = become_program(plan, program, kept, life, go.waiter(), inherited)
                .unwrap_or_else(|error| error);
            sys::exit(tool.fail(&error))
        }
    }
}

/// Returns only the error: of the exec, or of a step before it.
fn become_program(
    plan: &Plan,
    program: &Program,
    kept: &Kept,
    life: Option<Lifeline>,
    go: Waiter,
    inherited: Inherited,
) -> Result<Error> {
    let detach = || match plan.session {
        // No controlling terminal: no TIOCSTI into the caller's, no signals from it.
        Session::New => sys::setsid().context(|| "setsid"),
        // kill(2): kill(0, SIGKILL) reaches a process group even where its members have no number in the caller's
        // pid namespace, so the caller's group must not be the command's.
        Session::Keep => sys::own_process_group(0).context(|| "setpgid"),
    };
    life.map_or_else(detach, |life| life.tie(detach))?;
    caller::leave_keyring()?;
    let stage = mount_stage(program);
    // Both the supervisor and srt-init have given everything away when they let the command go.
    let count = if plan.pid1 == Pid1::Command { 1 } else { 2 };
    go.wait(count);
    keep_capabilities(match stage {
        Some(_) => &FOR_SRT_MOUNT,
        None if plan.keep_admin => &[CAP_SYS_ADMIN],
        None => &[],
    })?;
    kept.alone_survive_exec()?;
    inherited.restore().context(|| "cannot restore the signals")?;
    Ok(match stage {
        Some(file) => program.failure(&program.exec_fd(file.as_fd())),
        None => program.exec(),
    })
}

/// PROGRAM, if it is the srt-mount beside this srt-ns: the same inode, run through the descriptor that was
/// compared. Any other program gets no capability, whatever its name: it might be one that an earlier command wrote.
fn mount_stage(program: &Program) -> Option<File> {
    let open = |path: &std::path::Path| {
        let file = File::from(open_path(path, 0)?);
        std::io::Result::Ok((file.metadata()?, file))
    };
    let (ours, _) = open(&beside(OsStr::new("srt-mount"))?).ok()?;
    let (theirs, file) = program.candidates().iter().find_map(|path| open(path).ok())?;
    ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())).then_some(file)
}

/// Exactly these capabilities, and ambient, so that they last through the exec.
fn keep_capabilities(kept: &[u32]) -> Result<()> {
    let set = kept.iter().fold(0, |set, capability| set | 1 << capability);
    set_capabilities(Capabilities { effective: set, permitted: set, inheritable: set })
        .context(|| "capset")?;
    for &capability in kept {
        sys::raise_ambient(capability).context(|| "prctl(PR_CAP_AMBIENT_RAISE)")?;
    }
    Ok(())
}
