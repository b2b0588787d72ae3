//! Restores the terminals on 0, 1 and 2, and the flags of these open files; under --keep-session also the foreground of
//! the controlling terminal and the session's CPU share.

use crate::options::Pid1;
use srt_common::fds::own_terminals;
use srt_common::sys::fd::{borrowed, fcntl};
use srt_common::sys::file::{CWD, Stat, fchmod, openat, statx};
use srt_common::sys::process::{Pid, getpgrp, kill};
use srt_common::sys::signal::{Disposition, signal};
use srt_common::sys::tty::{
    ioctl, ioctl_get, ioctl_set, ioctl_vt_resize, tcflow, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    tcsetpgrp,
};
use srt_common::{Context, Result};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

// asm-generic/ioctls.h, the same on both architectures; libc lacks some of them.
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSETD: u32 = 0x5423;
const TIOCGETD: u32 = 0x5424;
const TIOCCBRK: u32 = 0x5428;
/// `_IOR('T', 0x40, int)`
const TIOCGEXCL: u32 = 0x8004_5440;

/// ioctl_console(2): the keyboard mode of a virtual console, and whether it shows text; KDGKBMODE and KDSKBMODE,
/// KDGETMODE and KDSETMODE. A process on a console may leave it without keyboard input and display.
const CONSOLE: [(u32, u32); 2] = [(0x4b44, 0x4b45), (0x4b3b, 0x4b3a)];

/// A terminal that the command gets as 0, 1 or 2, with its state before.
#[derive(Debug)]
struct Snapshot {
    number: RawFd,
    modes: libc::termios,
    file: Option<Stat>,
    exclusive: Option<libc::c_int>,
    discipline: Option<libc::c_int>,
    console: [Option<libc::c_int>; 2],
    /// Rows and columns of a virtual console. The kernel does not determine those of other terminals.
    size: Option<[u16; 2]>,
}

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
    share: Option<Share>,
    /// For output of this process: stderr and the status descriptor, if they are terminals.
    pub own: Vec<(RawFd, OwnedFd)>,
}

/// sched(7), "The autogroup feature": the nice value of the session, which any process in it may change.
#[derive(Debug)]
struct Share {
    /// Opened while this process still owns it: the /proc files of a process that is not dumpable are root's (proc(5)).
    file: File,
    nice: String,
}

impl Terminals {
    /// Saves the state of 0, 1 and 2; with `keep_session`, also of the controlling terminal.
    pub fn look(keep_session: bool, pid1: Pid1, status_fd: Option<RawFd>) -> Self {
        let controlling = || {
            // A terminal in exclusive use (TIOCEXCL) cannot be opened again.
            let opened = openat(&CWD, c"/dev/tty", libc::O_RDWR | libc::O_NONBLOCK, 0).ok();
            let inherited = (0..=2).filter_map(|number| borrowed(number).ok()?.try_clone_to_owned().ok());
            let mut ours = opened.into_iter().chain(inherited);
            ours.find_map(|tty| tcgetpgrp(&tty).ok().map(|foreground| (tty, foreground)))
        };
        let controlling = keep_session.then(controlling).flatten();
        let numbers = (0..=2).chain(controlling.iter().map(|(tty, _)| tty.as_raw_fd()));
        let snapshots = numbers.filter_map(|number| {
            let modes = tcgetattr(&number).ok()?;
            let get = |request| ioctl_get(&number, request).ok();
            let (exclusive, discipline) = (get(TIOCGEXCL), get(TIOCGETD));
            let (file, console) = (statx(&number, c"").ok(), CONSOLE.map(|(request, _)| get(request)));
            let size = console[0].and_then(|_| tcgetwinsize(&number).ok());
            Some(Snapshot { number, modes, file, exclusive, discipline, console, size })
        });
        let snapshots = snapshots.collect();
        // The kernel does not stop PID 1 when it reads from the terminal in the background.
        let shared = pid1 != Pid1::Command && controlling.is_some() && (is_pipe(0) || is_pipe(1));
        let ours = controlling.as_ref().is_some_and(|(_, foreground)| *foreground == getpgrp());
        let (asks, handed) = (shared && ours, !shared && ours);
        let share = keep_session.then(Share::look).flatten();
        let flags = (0..=2).filter_map(|number| Some((number, fcntl(&number, libc::F_GETFL, 0).ok()?)));
        let own = own_terminals(status_fd.into_iter().chain([2]));
        Self { snapshots, flags: flags.collect(), controlling, shared, asks, handed, share, own }
    }

    /// Saves the CPU share, before a process of this session can be reached from inside.
    pub fn look_at_share(&mut self) {
        self.share = self.share.take().or_else(Share::look);
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
                snapshot.modes = tcgetattr(&snapshot.number).unwrap_or(snapshot.modes);
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
        self.restore_share(25);
    }

    /// Restores the session's CPU share, in at most so many attempts, the first of them immediately.
    pub fn restore_share(&self, attempts: usize) {
        self.share.iter().for_each(|share| share.restore(attempts));
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

impl Share {
    fn look() -> Option<Self> {
        let file = File::options().read(true).write(true).open("/proc/self/autogroup").ok()?;
        Some(Self { nice: Self::nice(&file)?, file })
    }

    /// Parses the nice value in `/autogroup-25 nice 0`.
    fn nice(file: &File) -> Option<String> {
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).ok()?;
        String::from_utf8_lossy(text.get(..length)?).split_whitespace().last().map(str::to_owned)
    }

    /// Best effort. EAGAIN: the kernel accepts one change every tenth of a second, for all sessions together
    /// (`proc_sched_autogroup_set_nice()` in kernel/sched/autogroup.c).
    fn restore(&self, attempts: usize) {
        for attempt in 0..attempts {
            if attempt > 0 {
                thread::sleep(Duration::from_millis(40));
            }
            let is_as_before = Self::nice(&self.file).is_none_or(|nice| nice == self.nice);
            let again = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if is_as_before || !(&self.file).write(self.nice.as_bytes()).is_err_and(again) {
                return;
            }
        }
    }
}

impl Snapshot {
    /// Best effort: the terminal may be gone.
    fn restore(&self, modes_are_ours: bool) {
        let number = &self.number;
        if let Some(discipline) = self.discipline
            && ioctl_get(number, TIOCGETD).ok() != Some(discipline)
        {
            let _gone = ioctl_set(number, TIOCSETD, discipline);
        }
        // For a serial line: the break of TIOCSBRK lasts until it is ended.
        let _gone = ioctl(number, TIOCCBRK, 0);
        // tcflow(3) undoes TCOOFF, but not a stop key (^S).
        let _gone = tcflow(number, libc::TCOON);
        // The modes belong to the foreground: while this was a background job, the shell has set its own.
        if tcgetpgrp(number).map_or(true, |foreground| foreground == getpgrp() && modes_are_ours) {
            let _gone = tcsetattr(number, libc::TCSANOW, &self.modes);
        }
        if let Some(exclusive) = self.exclusive {
            let _gone = ioctl(number, if exclusive == 0 { TIOCNXCL } else { TIOCEXCL }, 0);
        }
        for ((_, set), mode) in CONSOLE.iter().zip(self.console) {
            let _gone = mode.map(|mode| ioctl(number, *set, mode));
        }
        // VT_RESIZE changes all consoles, and so does this call.
        if let Some(before) = self.size
            && tcgetwinsize(number).is_ok_and(|now| now != before)
        {
            let _gone = ioctl_vt_resize(number, before);
        }
        if let (Some(before), Ok(now)) = (self.file, statx(number, c""))
            && before.mode != now.mode
        {
            let _not_ours = fchmod(number, before.mode & 0o7777);
        }
    }
}
