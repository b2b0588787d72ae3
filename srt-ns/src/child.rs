//! The one way in which srt-ns starts a process that is not srt-init's: tied to the supervisor's life, away from the
//! caller's session and keys.

use crate::options::Plan;
use crate::signals::Inherited;
use srt_common::fds::Kept;
use srt_common::sys::fd::{close, dup2, pollfd, ppoll};
use srt_common::sys::file::{CWD, openat};
use srt_common::sys::privileges::keyctl;
use srt_common::sys::process::{
    self, Fork, Pid, fork, getpgrp, getpid, kill, pidfd_open, pidfd_send_signal, prctl, setpgid, setsid,
};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One run of srt-ns: what every process that it starts is made from.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// For errors and events.
    pub tool: &'a Tool,
    /// What the user asked for.
    pub plan: &'a Plan,
    /// The supervisor's life.
    pub life: &'a Lifeline,
    /// The signal state that the caller gave us.
    pub inherited: Inherited,
}

/// The supervisor's life as its children see it.
///
/// A death signal (PR_SET_PDEATHSIG) alone has a hole: a parent that died before it was armed sends nothing, and
/// getppid(2) cannot tell in a new pid namespace. A byte from the parent does not close it: it may have been written,
/// and the parent killed, before the child had its first turn. A pidfd of the parent does.
#[derive(Debug)]
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// Of this process, before the fork.
    ///
    /// # Errors
    /// What pidfd_open(2) says.
    pub fn new() -> Result<Self> {
        pidfd_open(getpid()).map(Self).context(|| "pidfd_open of the supervisor")
    }

    /// The pidfd of the supervisor.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.0
    }

    /// In the child: SIGKILL when the supervisor dies; when it is dead already, the end, without a word.
    ///
    /// `detach` must be setsid(2) or setpgid(2). kernel/exit.c, exit_notify(): a process sends its children's death
    /// signals and becomes a zombie, which poll(2) of a pidfd tells, under one lock; these calls take the same lock. So
    /// whoever has armed too late for the signal finds a zombie.
    ///
    /// # Errors
    /// What prctl(2), `detach` or poll(2) says.
    pub fn arm_pdeathsig(&self, detach: impl FnOnce() -> Result<()>) -> Result<()> {
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)
            .context(|| "prctl(PR_SET_PDEATHSIG)")?;
        detach()?;
        let mut dead = [pollfd(self.0.as_raw_fd(), libc::POLLIN)];
        match ppoll(&mut dead, Some(Duration::ZERO)).context(|| "poll of the supervisor")? {
            0 => Ok(()),
            _ => process::exit(125),
        }
    }
}

/// Whose end ends the sandbox, and the event of poll(2) that tells it: the parent's pidfd (POLLIN), the pipe of
/// `--lifetime-fd` (0, since a hang-up is always told).
pub type Life<'a> = (BorrowedFd<'a>, libc::c_short);

/// The process that leads a process group, and may be reaped by another.
#[derive(Debug)]
pub struct Leader {
    /// Its number here.
    pub pid: Pid,
    /// Says whether the number still is its own.
    pub pidfd: OwnedFd,
}

impl Leader {
    /// proc(5), /proc/PID/task/TID/stat: a process whose first thread has ended is a zombie and may be stopped. A stop is one
    /// of all threads, and the command can have them without end: a few are asked. True also where that cannot be read.
    pub fn is_stopped(&self) -> bool {
        // pidfd_open(2): all of it is dead.
        if is_ready(&self.pidfd, libc::POLLIN) {
            return false;
        }
        // The name in parentheses is of any bytes: the kernel cuts it after 15.
        let is_stopped = |stat: Vec<u8>| {
            let state = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
            state.starts_with(b" T") || state.starts_with(b" t")
        };
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(true, |tasks| {
            tasks.take(64).any(|task| {
                task.and_then(|task| std::fs::read(task.path().join("stat"))).is_ok_and(is_stopped)
            })
        })
    }

    /// Sends a signal to its process group; to itself, if it does not lead one yet.
    pub fn signal_group(&self, signal: libc::c_int) {
        /// pidfd_send_signal(2), Linux 6.9: the group, even when its leader was reaped.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        let sent = pidfd_send_signal(&self.pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP);
        let sent = match sent.as_ref().map_err(io::Error::raw_os_error) {
            // An older kernel: the group by its number, while the pidfd says that the number is the leader's.
            Err(Some(libc::EINVAL)) => {
                pidfd_send_signal(&self.pidfd, 0, 0).and_then(|()| kill(-self.pid, signal))
            }
            _ => sent,
        };
        if sent.is_err() {
            let _dead = pidfd_send_signal(&self.pidfd, signal, 0);
        }
    }
}

/// Whether poll(2) has something to tell of a descriptor now.
pub fn is_ready(fd: &impl AsRawFd, events: libc::c_short) -> bool {
    gets_ready(fd, events, Duration::ZERO)
}

/// Whether it has within this time.
pub fn gets_ready(fd: &impl AsRawFd, events: libc::c_short, patience: Duration) -> bool {
    ppoll(&mut [pollfd(fd.as_raw_fd(), events)], Some(patience)).is_ok_and(|ready| ready > 0)
}

/// Neither the caller's terminal nor the caller's process group is a child's.
///
/// # Errors
/// What setsid(2) says.
pub fn leave_session() -> Result<()> {
    match setsid().context(|| "setsid")? {
        // No session has this number: an outer filter has answered.
        0 => Err(Error::failed("setsid had no effect")),
        _ => Ok(()),
    }
}

/// A process group of its own, in the caller's session.
///
/// # Errors
/// What setpgid(2) says, or that it had no effect.
pub fn leave_group() -> Result<()> {
    setpgid(0, 0).context(|| "setpgid")?;
    if getpgrp() == getpid() { Ok(()) } else { Err(Error::failed("setpgid had no effect")) }
}

/// Forks a child that dies with the supervisor. It runs `body`, which ends in an exec or an error, or in an exit of its
/// own; an error is told and becomes the exit status.
///
/// # Errors
/// What fork(2) says, with a hint.
pub fn spawn(run: Run<'_>, name: &str, body: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    spawn_untied(run.tool, name, || {
        run.life.arm_pdeathsig(leave_session)?;
        leave_keyring()?;
        body()
    })
}

/// The same for a child whose life something else bounds: the pid namespace, or the end of a pipe.
///
/// # Errors
/// What fork(2) says, with a hint.
pub fn spawn_untied(tool: &Tool, name: &str, body: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    // fork(2), EAGAIN.
    let limits = "a limit of processes is reached: RLIMIT_NPROC counts all processes of the user (ulimit -u, prlimit --nproc), \
                  pids.max those of the cgroup (a container's --pids-limit)";
    let forked = fork().context(|| format!("cannot fork {name}"));
    match forked.map_err(|error| error.hint_for(libc::EAGAIN, limits))? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => match body() {
            Ok(never) => match never {},
            Err(error) => process::exit(tool.fail(&error)),
        },
    }
}

/// Joins a new session keyring. keyrings(7): the caller's is inherited, with all that the caller keeps in it.
///
/// # Errors
/// What keyctl(2) says.
pub fn leave_keyring() -> Result<()> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
    let error = match keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0) {
        Err(error) => error,
        // No keyring has this number: an outer filter has answered.
        Ok(0) => return Err(Error::failed("cannot join a new session keyring: keyctl had no effect")),
        Ok(_) => return Ok(()),
    };
    let refuses_all = || {
        keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
            .is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    };
    let quota = "this user has as many keys as sysctl kernel.keys.maxkeys allows: raise it";
    match error.raw_os_error() {
        // A kernel without keys.
        Some(libc::ENOSYS) => Ok(()),
        // A seccomp filter (a container's) may refuse keyctl(2) as a whole: then the command, which inherits the
        // filter, cannot reach a key either. A refusal of the joining alone is a failure.
        Some(libc::EPERM) if refuses_all() => Ok(()),
        _ => Err(Error::system("cannot join a new session keyring", &error).hint_for(libc::EDQUOT, quota)),
    }
}

/// This process is the first of a new pid namespace. Where an outer filter has answered for unshare(2), it is one of the
/// caller's, and so would be all below it.
///
/// # Errors
/// It is not.
pub fn is_pid_1() -> Result<()> {
    match getpid() {
        1 => Ok(()),
        _ => Err(Error::failed("cannot create a pid namespace: unshare had no effect")),
    }
}

/// Puts /dev/null in place of stdin and stdout: a helper has the caller's stderr for its complaints, and no more.
///
/// # Errors
/// What the system says.
pub fn silence() -> Result<()> {
    let null = openat(&CWD, c"/dev/null", libc::O_RDWR, 0).context(|| "cannot open /dev/null")?;
    for number in 0..=1 {
        dup2(&null, number).context(|| "dup2")?;
    }
    Ok(())
}

/// Hides this process's memory, descriptors and root from every process of its user: ptrace(2), "Ptrace access mode
/// checking".
///
/// # Errors
/// What prctl(2) says, or that it had no effect.
pub fn undumpable() -> Result<()> {
    let what = || "prctl(PR_SET_DUMPABLE)";
    prctl(libc::PR_SET_DUMPABLE, 0, 0).context(what)?;
    match prctl(libc::PR_GET_DUMPABLE, 0, 0).context(what)? {
        0 => Ok(()),
        _ => Err(Error::failed("PR_SET_DUMPABLE had no effect")),
    }
}

/// Closes every descriptor but these.
///
/// # Errors
/// What close_range(2) says.
pub fn close_all_but(keep: &[i32]) -> Result<()> {
    Kept::default().close_others(keep)?;
    for number in (0..=2).filter(|number| !keep.contains(number)) {
        close(number).context(|| "close")?;
    }
    Ok(())
}
