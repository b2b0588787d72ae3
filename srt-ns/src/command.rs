//! The process that becomes PROGRAM: what it gets, and what is taken from it, before the exec.

use crate::child::{self, Run, leave_group, leave_session};
use crate::namespaces::FOR_SRT_MOUNT;
use crate::options::Pid1;
use crate::terminal::Terminals;
use srt_common::exec::{Program, beside};
use srt_common::fds::KeptFds;
use srt_common::startup;
use srt_common::sys::fd::close;
use srt_common::sys::file::{open, statx};
use srt_common::sys::privileges::{CAP_SYS_ADMIN, Capabilities};
use srt_common::sys::process::{self, Pid, getpid, pidfd_open, prctl};
use srt_common::{Context, Result, privileges};
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// What is needed to start the command.
#[derive(Debug)]
pub struct Command<'a> {
    /// The run of srt-ns.
    pub run: Run<'a>,
    /// PROGRAM and its arguments.
    pub program: &'a Program,
    /// PROGRAM, if it is the srt-mount in srt-ns's own directory.
    pub mount_stage: Option<OwnedFd>,
    /// The `--joined-path` options for srt-mount.
    pub joined_paths: Vec<OsString>,
    /// The descriptors that PROGRAM gets.
    pub kept: KeptFds,
    /// The caller's terminals. PROGRAM may get the foreground of the controlling one.
    pub terminals: &'a Terminals,
}

impl Command<'_> {
    /// Forks the process that becomes PROGRAM. `other` is the other end of `go`: a child that kept it would wait in vain
    /// for the end of the socket.
    ///
    /// # Errors
    /// Any error from fork(2), with a hint.
    pub fn fork(self, supervisor: &OwnedFd, go: &OwnedFd, other: &OwnedFd) -> Result<Pid> {
        child::spawn_without_pdeathsig(self.run.tool, "the command", || {
            close(other.as_raw_fd()).context(|| "close")?;
            self.run(supervisor, go)
        })
    }

    /// In the new process: sends its pid to the supervisor and becomes PROGRAM. srt-mount, which is trusted, is
    /// executed at once and itself waits at `go` when its mount tree is built. Any other program waits here until every
    /// process that it could reach has locked itself down.
    ///
    /// # Errors
    /// Any error of a step, or of the exec.
    fn run(self, supervisor: &OwnedFd, go: &OwnedFd) -> Result<Infallible> {
        let Run { tool, plan, supervisor_pidfd, inherited, .. } = self.run;
        let detach = || {
            if !plan.options.keep_session {
                // Without a controlling terminal, no TIOCSTI into the caller's, and no signals from it.
                return leave_session();
            }
            // kill(2): kill(0, SIGKILL) reaches all members of the process group, even those without a pid in the
            // sender's pid namespace, so the command must not be in the caller's group.
            leave_group()?;
            self.terminals.take_foreground()
        };
        match plan.pid1 {
            // The command dies with srt-init, and has inherited its keyring.
            Pid1::Init | Pid1::InitWaitsForAll => detach()?,
            Pid1::Command => {
                child::is_pid_1()?;
                child::arm_pdeathsig(supervisor_pidfd, detach)?;
                child::leave_keyring()?;
            }
        }
        // If the supervisor is gone or does not answer, the start has failed and the error has been printed. As PID 1,
        // srt-mount itself sends this message.
        if plan.pid1 != Pid1::Command || self.mount_stage.is_none() {
            // The pidfd is sent because the pid may be reused once srt-init has reaped this process.
            let own = pidfd_open(getpid()).context(|| "pidfd_open of the command")?;
            match startup::hello(supervisor, Some(own.as_fd())) {
                Err(error) if startup::is_gone(&error) => process::exit(125),
                said => said.context(|| "sendmsg to srt-ns")?,
            }
        }
        let (kept, capabilities): (_, &[u32]) = match self.mount_stage {
            Some(_) => (self.kept.and(go.as_raw_fd()), &FOR_SRT_MOUNT),
            None if !startup::wait(go, &startup::own_namespaces()?)? => process::exit(125),
            None if plan.options.keep_admin => (self.kept, &[CAP_SYS_ADMIN]),
            None => (self.kept, &[]),
        };
        keep_capabilities(capabilities)?;
        kept.close_others_on_exec()?;
        inherited.restore()?;
        Err(match self.mount_stage {
            Some(file) => {
                let (name, words) = plan.program.split_at(1);
                let join = ["--join".into(), go.as_raw_fd().to_string().into()];
                Program::new(&[name, &join, &self.joined_paths, words].concat())?.exec_fd(&file)
            }
            None => {
                tool.tell("exec", |event| event);
                self.program.exec(&self.program.candidates())
            }
        })
    }
}

/// PROGRAM, if it is the srt-mount in srt-ns's own directory: the same inode, executed through the descriptor that was
/// compared. Any other program gets no capability, whatever its name: an earlier command may have written it.
pub fn mount_stage(program: &Program) -> Option<OwnedFd> {
    let look = |path: &Path| {
        let file = open(path, libc::O_PATH).ok()?;
        Some((statx(&file, c"").ok()?.id, file))
    };
    let (ours, _) = look(&beside("srt-mount").ok()?)?;
    let (theirs, file) = program.candidates().iter().find_map(|path| look(path))?;
    (ours == theirs).then_some(file)
}

/// Keeps exactly these capabilities, and makes them ambient, so that they survive the exec.
fn keep_capabilities(kept: &[u32]) -> Result<()> {
    let set = kept.iter().fold(0, |set, capability| set | 1 << capability);
    // If its uid inside is 0, PROGRAM would gain what is left inheritable (capabilities(7)).
    privileges::hold(Capabilities { effective: set, permitted: set, inheritable: set })?;
    for &capability in kept {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into())
            .context(|| "prctl(PR_CAP_AMBIENT_RAISE)")?;
    }
    Ok(())
}
