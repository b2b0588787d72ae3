//! How srt-ns starts its processes: bound to the supervisor's life, and outside the caller's session and keyring.

use crate::options::Plan;
use crate::signals::Inherited;
use srt_common::error::require_effect;
use srt_common::fds::KeptFds;
use srt_common::sys::fd::{close, dup2, pollfd, ppoll};
use srt_common::sys::file::open;
use srt_common::sys::privileges::keyctl;
use srt_common::sys::process::{
    self, Pid, fork, getpgid, getpgrp, getpid, kill, pidfd_send_signal, prctl, setpgid, setsid,
};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One run of srt-ns: what is needed to start each of its processes.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// For errors and events.
    pub tool: &'a Tool,
    /// What the user asked for.
    pub plan: &'a Plan,
    /// A pidfd of the supervisor, opened before any fork.
    pub supervisor_pidfd: &'a OwnedFd,
    /// The descriptors that bound the sandbox's life.
    pub lifetimes: &'a [Lifetime<'a>],
    /// The signal state inherited from the caller.
    pub inherited: Inherited,
}

/// In a child of the supervisor: arms SIGKILL for its death. If it is already dead, exits silently.
///
/// A parent-death signal (PR_SET_PDEATHSIG) alone leaves a race: if the parent dies before the signal is armed, none is
/// sent, and getppid(2) cannot detect this in a new pid namespace. A byte from the parent does not close the race: the
/// parent may write it and be killed before the child first runs. A pidfd of the parent does.
///
/// `detach` must be setsid(2) or setpgid(2). kernel/exit.c, exit_notify(): under one lock, a dying process sends
/// its children their death signals and becomes a zombie, which poll(2) of a pidfd reports; setsid and setpgid take the
/// same lock. So a child that armed the signal too late finds a zombie.
///
/// # Errors
/// Any error from prctl(2), `detach` or poll(2).
pub fn arm_pdeathsig(supervisor_pidfd: &OwnedFd, detach: impl FnOnce() -> Result<()>) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0).context(|| "prctl(PR_SET_PDEATHSIG)")?;
    detach()?;
    let mut dead = [pollfd(supervisor_pidfd.as_raw_fd(), libc::POLLIN)];
    match ppoll(&mut dead, Some(Duration::ZERO)).context(|| "poll of the supervisor")? {
        0 => Ok(()),
        _ => process::exit(125),
    }
}

/// A descriptor that bounds the sandbox's life, and the poll(2) event that reports its end: the parent's pidfd
/// (POLLIN), or the pipe of `--lifetime-fd` (0, since a hang-up is always reported).
pub type Lifetime<'a> = (BorrowedFd<'a>, libc::c_short);

/// A process that leads a process group, and may be reaped by another process.
#[derive(Debug)]
pub struct Leader {
    /// Its pid in this process's pid namespace.
    pub pid: Pid,
    /// Shows whether the pid still belongs to this process.
    pub pidfd: OwnedFd,
}

impl Leader {
    /// Whether the process is stopped; also true if its threads cannot be read, or /proc shows an outer pid namespace.
    /// proc(5), /proc/PID/task/TID/stat: a process whose main thread has ended is shown as a zombie, but may be
    /// stopped. A stop applies to all threads, and the command can have any number of them, so only the first few are
    /// read.
    pub fn is_stopped(&self) -> bool {
        // pidfd_open(2): POLLIN means that the whole process is dead.
        if is_ready(&self.pidfd, libc::POLLIN) {
            return false;
        }
        // proc(5): the number of this process in the pid namespace that /proc shows.
        if std::fs::read_link("/proc/self").ok() != Some(getpid().to_string().into()) {
            return true;
        }
        // The name in parentheses may contain any byte; the kernel truncates it to 15 bytes.
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

    /// Sends a signal to the process group, and to the process alone if it does not lead it yet, or has left it to others.
    pub fn signal_group(&self, signal: libc::c_int) {
        /// pidfd_send_signal(2), Linux 6.9: signals the group, even if its leader has been reaped.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        let send = |signal, flags| pidfd_send_signal(&self.pidfd, signal, flags);
        let sent = send(signal, PIDFD_SIGNAL_PROCESS_GROUP).or_else(|error| match error.raw_os_error() {
            // An older kernel: signal the group by its number, if the pidfd shows that the number is still the
            // leader's.
            Some(libc::EINVAL) => send(0, 0).and_then(|()| kill(-self.pid, signal)),
            _ => Err(error),
        });
        if sent.is_err() || getpgid(self.pid).is_ok_and(|group| group != self.pid) {
            let _dead = send(signal, 0);
        }
    }
}

/// Whether poll(2) reports an event on a descriptor now.
pub fn is_ready(fd: &impl AsRawFd, events: libc::c_short) -> bool {
    gets_ready(fd, events, Duration::ZERO)
}

/// Whether poll(2) reports an event on a descriptor within this time.
pub fn gets_ready(fd: &impl AsRawFd, events: libc::c_short, timeout: Duration) -> bool {
    ppoll(&mut [pollfd(fd.as_raw_fd(), events)], Some(timeout)).is_ok_and(|ready| ready > 0)
}

/// Leaves the caller's session, and with it the caller's terminal and process group.
///
/// # Errors
/// Any error from setsid(2).
pub fn leave_session() -> Result<()> {
    // No session has the id 0.
    require_effect("setsid", setsid().context(|| "setsid")? != 0)
}

/// Enters a new process group in the caller's session.
///
/// # Errors
/// Any error from setpgid(2), or an error if it had no effect.
pub fn leave_group() -> Result<()> {
    setpgid(0, 0).context(|| "setpgid")?;
    require_effect("setpgid", getpgrp() == getpid())
}

/// Forks a child that dies with the supervisor. It runs `body`, which ends in an exec, an error, or an exit. An error
/// is printed and becomes the exit status.
///
/// # Errors
/// Any error from fork(2), with a hint.
pub fn spawn(run: Run<'_>, name: &str, body: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    spawn_without_pdeathsig(run.tool, name, || {
        arm_pdeathsig(run.supervisor_pidfd, leave_session)?;
        leave_keyring()?;
        body()
    })
}

/// The same for a child whose life is bounded in another way: by the pid namespace, or by the end of a pipe.
///
/// # Errors
/// Any error from fork(2), with a hint.
pub fn spawn_without_pdeathsig(
    tool: &Tool,
    name: &str,
    body: impl FnOnce() -> Result<Infallible>,
) -> Result<Pid> {
    // fork(2), EAGAIN.
    let limits = "a process limit is reached: RLIMIT_NPROC counts all processes of the user (ulimit -u, prlimit --nproc), \
                  pids.max those of the cgroup (a container's --pids-limit)";
    let forked = fork().context(|| format!("cannot fork {name}"));
    if let Some(pid) = forked.map_err(|error| error.hint_for(libc::EAGAIN, limits))? {
        return Ok(pid);
    }
    let Err(error) = body();
    process::exit(tool.fail(&error))
}

/// Joins a new session keyring. keyrings(7): the caller's is inherited, with all keys in it.
///
/// # Errors
/// Any error from keyctl(2).
pub fn leave_keyring() -> Result<()> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
    let refuses_all = || {
        keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
            .is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    };
    let quota = "this user has as many keys as sysctl kernel.keys.maxkeys allows: raise it";
    match keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0) {
        // No keyring has the id 0: an outer seccomp filter has faked the result.
        Ok(0) => Err(Error::failed("cannot join a new session keyring: keyctl had no effect")),
        Ok(_) => Ok(()),
        // A kernel without keyrings.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        // A seccomp filter, such as a container's, may refuse every keyctl(2): then the command, which inherits the
        // filter, cannot reach a key either. If only the join is refused, that is a failure.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && refuses_all() => Ok(()),
        Err(error) => {
            Err(Error::system("cannot join a new session keyring", &error).hint_for(libc::EDQUOT, quota))
        }
    }
}

/// Checks that this process is PID 1 of a new pid namespace. If an outer seccomp filter faked the result of unshare(2),
/// it is in the caller's pid namespace, and so would be all its descendants.
///
/// # Errors
/// This process is not PID 1.
pub fn is_pid_1() -> Result<()> {
    require_effect("unshare", getpid() == 1).map_err(|error| error.within("cannot create a pid namespace"))
}

/// Replaces stdin and stdout by /dev/null: a helper keeps only the caller's stderr, for its error messages.
///
/// # Errors
/// Any error from the kernel.
pub fn silence() -> Result<()> {
    let null = open("/dev/null", libc::O_RDWR).context(|| "cannot open /dev/null")?;
    for number in 0..=1 {
        dup2(&null, number).context(|| "dup2")?;
    }
    Ok(())
}

/// Closes every descriptor except these.
///
/// # Errors
/// Any error from close_range(2).
pub fn close_all_but(keep: &[i32]) -> Result<()> {
    KeptFds::default().close_others(keep.iter().copied())?;
    for number in (0..=2).filter(|number| !keep.contains(number)) {
        close(number).context(|| "close")?;
    }
    Ok(())
}
