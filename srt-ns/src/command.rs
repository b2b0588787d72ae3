//! The process that becomes PROGRAM: what it is given, and what is taken from it, before the exec.

use crate::child::{self, Run, leave_group, leave_session};
use crate::namespaces::FOR_SRT_MOUNT;
use crate::options::Pid1;
use crate::terminal::Terminals;
use srt_common::exec::{Program, beside};
use srt_common::fds::Kept;
use srt_common::handover;
use srt_common::sys::file::{open, statx};
use srt_common::sys::privileges::{CAP_SYS_ADMIN, Capabilities};
use srt_common::sys::process::{self, getpid, pidfd_open, prctl};
use srt_common::{Context, Result, privileges};
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// All that the command is made of.
#[derive(Debug)]
pub struct Command<'a> {
    /// The run that it belongs to.
    pub run: Run<'a>,
    /// PROGRAM and its arguments.
    pub program: &'a Program,
    /// PROGRAM, if it is the srt-mount beside this srt-ns.
    pub mount_stage: Option<OwnedFd>,
    /// srt-mount's `--joined-path`.
    pub joined_paths: Vec<OsString>,
    /// The descriptors that PROGRAM gets.
    pub kept: Kept,
    /// The terminal whose foreground PROGRAM gets.
    pub terminals: &'a Terminals,
}

impl Command<'_> {
    /// In the new process: tells the supervisor its number, and becomes PROGRAM. srt-mount, which is trusted, does so at
    /// once and waits at `go` itself, once its tree stands; any other program waits here, until all who could be reached by
    /// it have locked themselves down.
    ///
    /// # Errors
    /// Of a step, or of the exec.
    pub fn run(self, supervisor: &OwnedFd, go: &OwnedFd) -> Result<Infallible> {
        let Run { tool, plan, life, inherited } = self.run;
        let detach = || {
            if !plan.options.keep_session {
                // No controlling terminal: no TIOCSTI into the caller's, no signals from it.
                return leave_session();
            }
            // kill(2): kill(0, SIGKILL) reaches a process group even where its members have no number in the caller's
            // pid namespace, so the caller's group must not be the command's.
            leave_group()?;
            self.terminals.take_foreground()
        };
        match plan.pid1 {
            // What bounds srt-init's life bounds the command's, and its keyring is the command's.
            Pid1::Init | Pid1::InitWaitsForAll => detach()?,
            Pid1::Command => {
                child::is_pid_1()?;
                life.arm_pdeathsig(detach)?;
                child::leave_keyring()?;
            }
        }
        // No supervisor to hear it, or no answer: the start has failed, and that was said. srt-mount as PID 1 says it itself.
        if plan.pid1 != Pid1::Command || self.mount_stage.is_none() {
            // With a pidfd: the number may be another's once srt-init has reaped this process.
            let own = pidfd_open(getpid()).context(|| "pidfd_open of the command")?;
            match handover::hello(supervisor, Some(own.as_fd())) {
                Err(error) if handover::is_gone(&error) => process::exit(125),
                said => said.context(|| "sendmsg to srt-ns")?,
            }
        }
        let (kept, capabilities): (_, &[u32]) = match self.mount_stage {
            Some(_) => (self.kept.and(go.as_raw_fd()), &FOR_SRT_MOUNT),
            None if !handover::wait(go, &handover::own_namespaces()?)? => process::exit(125),
            None if plan.options.keep_admin => (self.kept, &[CAP_SYS_ADMIN]),
            None => (self.kept, &[]),
        };
        keep_capabilities(capabilities)?;
        kept.alone_survive_exec()?;
        inherited.restore()?;
        Err(match self.mount_stage {
            Some(file) => {
                let mut join: Vec<OsString> = vec!["--join".into(), go.as_raw_fd().to_string().into()];
                join.extend(self.joined_paths);
                self.program.failure(&self.program.exec_fd(&file, &join))
            }
            None => {
                tool.tell("exec", |event| event);
                self.program.exec(&self.program.candidates())
            }
        })
    }
}

/// PROGRAM, if it is the srt-mount beside this srt-ns: the same inode, run through the descriptor that was
/// compared. Any other program gets no capability, whatever its name: it might be one that an earlier command wrote.
pub fn mount_stage(program: &Program) -> Option<OwnedFd> {
    let look = |path: &Path| {
        let file = open(path, libc::O_PATH)?;
        std::io::Result::Ok((statx(&file, c"")?.id, file))
    };
    let (ours, _) = look(&beside("srt-mount").ok()?).ok()?;
    let (theirs, file) = program.candidates().iter().find_map(|path| look(path).ok())?;
    (ours == theirs).then_some(file)
}

/// Exactly these capabilities, and ambient, so that they last through the exec.
fn keep_capabilities(kept: &[u32]) -> Result<()> {
    let set = kept.iter().fold(0, |set, capability| set | 1 << capability);
    // As uid 0 inside, PROGRAM would get what is left inheritable (capabilities(7)).
    privileges::hold(Capabilities { effective: set, permitted: set, inheritable: set })?;
    for &capability in kept {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into())
            .context(|| "prctl(PR_CAP_AMBIENT_RAISE)")?;
    }
    Ok(())
}
