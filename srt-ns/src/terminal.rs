//! Restores the terminals on 0, 1 and 2, and the flags of these open files; under --keep-session also the foreground of
//! the controlling terminal and the session's CPU share.

mod autogroup;
mod snapshot;

use self::autogroup::Autogroup;
use self::snapshot::Snapshot;
use crate::options::Pid1;
use srt_common::fds::own_terminals;
use srt_common::sys::fd::{borrowed, fcntl};
use srt_common::sys::file::{open, statx};
use srt_common::sys::process::{Pid, getpgrp, kill};
use srt_common::sys::signal::{Disposition, signal};
use srt_common::sys::tty::{ioctl_tcgets2, tcgetpgrp, tcsetpgrp};
use srt_common::{Context, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The terminals, and their state to restore.
#[derive(Debug)]
pub struct Terminals {
    snapshots: Vec<Snapshot>,
    /// Of the open file descriptions, which are shared with the caller: O_NONBLOCK, O_APPEND, O_DIRECT (packet mode of
    /// a pipe).
    flags: Vec<(RawFd, libc::c_int)>,
    /// Under --keep-session: the controlling terminal, and the process group that had its foreground.
    controlling: Option<(OwnedFd, Pid)>,
    /// 0 or 1 is a pipe. The other processes of the pipeline are in our process group, and may use the terminal, too:
    /// the command gets the foreground only when it needs it.
    pub shared: bool,
    /// And the foreground was ours: the command asks for it by the signals that stop it.
    asks: bool,
    /// The foreground was ours, and is the command's, or will be when it starts.
    handed: bool,
    /// Saved before a process inside can change it: under --keep-session from the start.
    autogroup: Option<Autogroup>,
    /// For output of this process: stderr and the status descriptor, if they are terminals.
    pub own: Vec<(RawFd, OwnedFd)>,
}

impl Terminals {
    /// Saves the state of 0, 1 and 2; with `keep_session`, also of the controlling terminal.
    pub fn look(keep_session: bool, pid1: Pid1, status_fd: Option<RawFd>) -> Self {
        let controlling = || {
            // A terminal in exclusive use (TIOCEXCL) cannot be opened again.
            let opened = open("/dev/tty", libc::O_RDWR | libc::O_NONBLOCK).ok();
            let inherited = (0..=2).filter_map(|number| borrowed(number).ok()?.try_clone_to_owned().ok());
            let mut ours = opened.into_iter().chain(inherited);
            ours.find_map(|tty| tcgetpgrp(&tty).ok().map(|foreground| (tty, foreground)))
        };
        let controlling = keep_session.then(controlling).flatten();
        let numbers = (0..=2).chain(controlling.iter().map(|(tty, _)| tty.as_raw_fd()));
        let snapshots = numbers.filter_map(Snapshot::look).collect();
        // The kernel does not stop PID 1 when it reads from the terminal in the background.
        let shared = pid1 != Pid1::Command && controlling.is_some() && (is_pipe(0) || is_pipe(1));
        let ours = controlling.as_ref().is_some_and(|(_, foreground)| *foreground == getpgrp());
        let (asks, handed) = (shared && ours, !shared && ours);
        let autogroup = keep_session.then(Autogroup::look).flatten();
        let flags = (0..=2).filter_map(|number| Some((number, fcntl(&number, libc::F_GETFL, 0).ok()?)));
        let own = own_terminals(status_fd.into_iter().chain([2]));
        Self { snapshots, flags: flags.collect(), controlling, shared, asks, handed, autogroup, own }
    }

    /// Saves the CPU share, before a process of this session can be reached from inside.
    pub fn look_at_autogroup(&mut self) {
        self.autogroup = self.autogroup.take().or_else(Autogroup::look);
    }

    /// In the command, which already leads its process group: takes the terminal's foreground if it was the
    /// supervisor's; a background job stays in the background. Called before the first instruction of PROGRAM. SIGTTOU
    /// is blocked.
    ///
    /// # Errors
    /// Any error from tcsetpgrp(3).
    pub fn take_foreground(&self) -> Result<()> {
        if self.asks {
            // They tell that it needs the foreground. bash(1) ignores them in `$(...)`.
            for number in [libc::SIGTTIN, libc::SIGTTOU] {
                signal(number, Disposition::Default).context(|| "cannot reset a signal")?;
            }
        }
        match &self.controlling {
            Some((tty, _)) if self.handed => tcsetpgrp(tty, getpgrp()).context(|| "tcsetpgrp"),
            _ => Ok(()),
        }
    }

    /// In the supervisor, when the command continues after a stop, or has stopped because it `needs` the foreground:
    /// gives it to the command's group, if we have it (again). False: not given.
    pub fn hand_to(&mut self, group: Pid, needs: bool) -> bool {
        let given = self.controlling.as_ref().is_some_and(|(tty, _)| {
            let ours = tcgetpgrp(tty).is_ok_and(|foreground| foreground == getpgrp());
            ours && (needs || !self.shared) && tcsetpgrp(tty, group).is_ok()
        });
        if given && is_pipe(1) {
            // The reader of the pipeline has had the terminal until now, and may go on with the modes that it has set.
            for snapshot in self.snapshots.iter_mut().filter(|snapshot| tcgetpgrp(&snapshot.number).is_ok()) {
                snapshot.modes = ioctl_tcgets2(&snapshot.number).unwrap_or(snapshot.modes);
            }
        }
        self.handed |= given;
        given
    }

    /// When the command has stopped: takes the foreground back, for the caller's shell, from the command's group, which
    /// may also have taken it itself (tcsetpgrp(3), SIGTTOU blocked), or from one that is dead: that of an inner shell.
    /// The caller's shell may have it by now. True: it had been given.
    pub fn take_back(&mut self, group: Pid) -> bool {
        if let Some((tty, _)) = &self.controlling
            && tcgetpgrp(tty).is_ok_and(|foreground| foreground == group || is_dead(foreground))
        {
            let _gone = tcsetpgrp(tty, getpgrp());
        }
        std::mem::take(&mut self.handed)
    }

    /// Whether a process group has the foreground that is neither ours nor this one.
    pub fn others_have_it(&self, group: Pid) -> bool {
        self.controlling.as_ref().is_some_and(|(tty, _)| {
            tcgetpgrp(tty)
                .is_ok_and(|foreground| ![getpgrp(), group].contains(&foreground) && !is_dead(foreground))
        })
    }

    /// The sandbox is dead: restores everything, as far as the command can have changed it.
    pub fn restore(&self) {
        if let Some((tty, foreground)) = &self.controlling
            // A foreground group without processes was the sandbox's; any other was set by the caller.
            && tcgetpgrp(tty).is_ok_and(is_dead)
        {
            let _gone = tcsetpgrp(tty, if self.handed { getpgrp() } else { *foreground });
        }
        // While others of a pipeline had the terminal, they may have set their own, such as less(1).
        let modes_are_ours = self.handed || !self.shared && !is_pipe(1);
        self.snapshots.iter().for_each(|snapshot| snapshot.restore(modes_are_ours));
        for (number, flags) in &self.flags {
            let _gone = fcntl(number, libc::F_SETFL, *flags);
        }
        self.restore_autogroup(25);
    }

    /// Restores the session's CPU share, in at most so many attempts, the first of them immediately.
    pub fn restore_autogroup(&self, attempts: usize) {
        self.autogroup.iter().for_each(|autogroup| autogroup.restore(attempts));
    }
}

/// Whether a process group has no process, or its leader is a zombie inside: the command, its parent, may be stopped.
fn is_dead(group: Pid) -> bool {
    let is_gone = || kill(-group, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH));
    // proc(5), NSpid: one more number in each pid namespace below that of /proc.
    let is_zombie = |status: String| {
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        status.contains("\nState:\tZ")
            && numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1)
    };
    // kill(2): -1 means all processes, and 1 is the group of a container's shell.
    group > 1 && (is_gone() || std::fs::read_to_string(format!("/proc/{group}/status")).is_ok_and(is_zombie))
}

/// Whether this descriptor leads to another process of a pipeline, as far as one can see.
fn is_pipe(number: RawFd) -> bool {
    statx(&number, c"").is_ok_and(|stat| stat.is(libc::S_IFIFO) || stat.is(libc::S_IFSOCK))
}
