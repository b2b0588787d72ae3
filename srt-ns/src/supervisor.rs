//! The supervisor lets the command run once everything is ready, forwards signals, watches all processes, and ends them
//! together.
//!
//! One loop runs from the first fork on, so that the supervisor always responds: each iteration checks the deadline,
//! the parent and the signals, and takes a bounded amount from each queue that the command, or a peer of it, can fill.

mod job_control;
mod start;

use self::job_control::Stops;
use self::start::Start;
use crate::child::{self, Leader, Run, gets_ready, is_ready};
use crate::helpers::{self, HelperKind, Helpers};
use crate::options::Pid1;
use crate::signals;
use crate::terminal::Terminals;
use crate::{init, watchdog};
use srt_common::sys::entry::overwrite_arguments;
use srt_common::sys::fd::{pollfd, ppoll};
use srt_common::sys::process::{self, Change, End, Pid, kill, pidfd_open, pidfd_send_signal, waitid};
use srt_common::sys::signal::{Disposition, sigaction};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The state of the supervisor.
#[derive(Debug)]
pub struct Supervisor<'a> {
    /// Its `lifetimes` are empty once one of them is over, or the start has failed.
    run: Run<'a>,
    /// The signalfd with this process's signals, all of which are blocked.
    signals: OwnedFd,
    terminals: Terminals,
    helpers: Helpers,
    /// The only child inside: srt-init, or the command under --as-pid-1. `None`: reaped.
    child: Option<Pid>,
    /// The reports of srt-init. `None`: no more will come, or the child is the command.
    reports: Option<File>,
    /// `None`: the start is over.
    start: Option<Start>,
    /// The command, once it has sent its pid.
    command: Option<Leader>,
    progress: Progress,
    stops: Stops,
}

/// What changes in the course of the loop.
#[derive(Debug, Default)]
struct Progress {
    /// Set when the command is dead.
    end: Option<End>,
    /// The exit status if the start, or srt-init, has failed.
    failed: Option<u8>,
    /// When everything inside is to be killed.
    deadline: Option<Instant>,
    /// When to kill everything inside except PID 1: to help a killed PID 1 to die, or srt-init to reap the command.
    sweep_at: Option<Instant>,
    /// When srt-init must have reported the end of the command, which is dead.
    report_due: Option<Instant>,
    /// `--kill-after` has ended the sandbox.
    timed_out: bool,
    /// When a signal that asks programs to end was last forwarded.
    asked: Option<Instant>,
    /// One of those signals was SIGTERM.
    told_to_end: bool,
    /// More children may be dead: one SIGCHLD stands for all that died before it was read (signal(7)).
    unreaped: bool,
}

/// The signals that ask programs to end.
const ASKING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How many entries of one queue are read before the other queues are checked.
const BATCH: usize = 16;

/// How long a killed PID 1 may take to die.
const SWEEP: Duration = Duration::from_millis(200);

/// The interval for checking the process that sends a signal to all inside; it may take ten of these.
const BROADCAST: Duration = Duration::from_millis(100);

/// How long srt-init may take to report the end of the command.
const REPORT: Duration = Duration::from_millis(500);

/// How long srt-mount may take to remove what it created on the host, after a failed start.
const CLEAN_UP: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Serves until the child is reaped; returns the exit status.
    ///
    /// # Errors
    /// Only errors that prevent further watching. The sandbox then dies with this process.
    pub fn serve(mut self) -> Result<u8> {
        if let Err(error) = self.make_network() {
            self.fail(&error);
        }
        while self.child.is_some() {
            let now = Instant::now();
            if self.progress.deadline.take_if(|at| *at <= now).is_some() {
                self.progress.timed_out |= self.progress.failed.is_none() && self.progress.end.is_none();
                self.kill_all();
            }
            // The command is dead, but traced: srt-init cannot reap it until the tracer has waited for it or is dead
            // (wait_consider_task() in kernel/exit.c). A second look, since pidfd_poll() takes no lock: the exec of a
            // thread, which replaces the first one (de_thread() in fs/exec.c), must not be taken for an end. A deadline
            // ends the sandbox anyway, and until then the rest of the process group has time.
            let is_dead = |command: &Leader| is_ready(&command.pidfd, libc::POLLIN);
            if self.progress.report_due.take_if(|at| *at <= now).is_some()
                && self.progress.end.is_none()
                && self.progress.deadline.is_none()
                && self.command.as_ref().is_some_and(is_dead)
            {
                self.progress.sweep_at = Some(now);
            }
            if self.progress.sweep_at.is_some_and(|at| at <= now) {
                self.progress.sweep_at = Some(now + SWEEP);
                // If no process can be created for it, the end of PID 1 is what is left.
                if !self.broadcast(libc::SIGKILL) {
                    self.kill_all();
                }
            }
            self.try_to_continue(now);
            let unreaped = self.progress.unreaped.then_some(now);
            let Progress { deadline, sweep_at, report_due, .. } = self.progress;
            let next =
                [deadline, sweep_at, report_due, self.stops.continue_at, self.start_deadline(), unreaped];
            let next = next.into_iter().flatten().min();
            self.wait(next.map(|at| at.saturating_duration_since(now)))?;
            if let Err(error) = self.turn() {
                self.fail(&error);
            }
        }
        self.helpers.report_lost_placeholders(self.run.tool);
        drop(self.helpers);
        self.terminals.restore();
        Ok(self.progress.report(self.run.tool))
    }

    /// Waits for any event. [`Self::turn`] finds out which.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let files = [
            Some(self.signals.as_raw_fd()),
            self.reports.as_ref().map(AsRawFd::as_raw_fd),
            self.start.as_ref().map(|start| start.socket.as_raw_fd()),
            self.helpers.reports.as_ref().map(|reports| reports.pipe.as_raw_fd()),
        ];
        let helpers = self.start.iter().flat_map(|_| self.helpers.getting_ready());
        let readable = files.into_iter().flatten().chain(helpers);
        let mut watched: Vec<_> = readable.map(|fd| pollfd(fd, libc::POLLIN)).collect();
        watched.extend(self.run.lifetimes.iter().map(|(fd, event)| pollfd(fd.as_raw_fd(), *event)));
        // Once: the pidfd of a dead process stays readable (pidfd_open(2)). --wait-all waits for the tracer as well.
        let progress = &mut self.progress;
        let looks = progress.end.is_none() && progress.sweep_at.or(progress.report_due).is_none();
        let command = self.command.as_ref().filter(|_| looks && self.run.plan.pid1 == Pid1::Init);
        watched.extend(command.map(|command| pollfd(command.pidfd.as_raw_fd(), libc::POLLIN)));
        match ppoll(&mut watched, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error).context(|| "poll"),
            _ if command.and(watched.last()).is_some_and(|command| command.revents != 0) => {
                progress.report_due = Some(Instant::now() + REPORT);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks everything once.
    fn turn(&mut self) -> Result<()> {
        if self.is_abandoned() {
            self.run.lifetimes = &[];
            match self.start {
                Some(_) => {
                    self.fail(&Error::failed("the parent or the last writer of --lifetime-fd is gone"))
                }
                None => self.kill_all(),
            }
        }
        for _ in 0..BATCH {
            let Some((signal, from_kernel)) = signals::next(&self.signals)? else { break };
            self.take_signal(signal, from_kernel);
        }
        self.read_reports();
        self.progress.unreaped = (0..BATCH).all(|_| self.reap());
        self.helpers.read_reports(self.run);
        if self.child.is_some() && self.progress.failed.is_none() && self.progress.end.is_none() {
            self.step()?;
        }
        if let Some(signal) = self.stops.early.take_if(|_| self.command.is_some()) {
            self.stop_with_command(signal);
        }
        Ok(())
    }

    /// Whether a process or pipe that bounds the sandbox's life is gone.
    fn is_abandoned(&self) -> bool {
        self.run.lifetimes.iter().any(|(fd, event)| is_ready(fd, *event))
    }

    /// The start has failed. The closed socket tells this to the process that waits for it, so that srt-mount can
    /// remove what it created on the host. Then everything is killed.
    fn fail(&mut self, error: &Error) {
        let code = self.run.tool.fail(error);
        self.give_up(code);
    }

    fn give_up(&mut self, code: u8) {
        // From now on, the end of the caller must not cut the clean-up short.
        (self.start, self.run.lifetimes) = (None, &[]);
        self.progress.failed = Some(code);
        self.progress.deadline = Some(Instant::now() + CLEAN_UP);
    }

    fn take_signal(&mut self, signal: libc::c_int, from_kernel: bool) {
        match signal {
            // Children are reaped in any case. SIGTTIN and SIGTTOU are sent only to background processes.
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGXFSZ | libc::SIGTTIN | libc::SIGTTOU => {}
            libc::SIGTSTP => self.suspend(from_kernel),
            libc::SIGCONT => self.resume(),
            _ => {
                let progress = &mut self.progress;
                if ASKING.contains(&signal) {
                    progress.asked = Some(Instant::now());
                }
                if signal == libc::SIGTERM {
                    // Otherwise this process might get no CPU time at the deadline.
                    self.terminals.restore_autogroup(1);
                    progress.told_to_end = true;
                    let deadline = self.run.plan.options.kill_after.0.map(|after| Instant::now() + after);
                    progress.deadline = progress.deadline.or(deadline);
                }
                self.forward(signal);
                // While it waits for the terminal, it is stopped.
                if self.stops.continue_at.is_some() {
                    self.resume();
                }
            }
        }
    }

    /// Forwards a signal: one that a terminal sends, to the command's process group; any other, to the command alone.
    fn forward(&mut self, signal: libc::c_int) {
        // srt-mount is removing what it created: a second ^C must not interrupt that.
        if self.progress.failed.is_some() {
            return;
        }
        let asks = ASKING.contains(&signal);
        // Before the command runs, a signal that asks programs to end ends the start.
        if self.start.is_some() {
            if asks && sigaction(signal).is_ok_and(|is| is == Disposition::Default) {
                self.give_up(128 + signal as u8);
            }
            return;
        }
        match &self.command {
            Some(_) if self.progress.end.is_some() && self.run.plan.pid1 == Pid1::InitWaitsForAll => {
                self.child.inspect(|&init| drop(kill(init, signal)));
            }
            Some(command) if asks || signal == libc::SIGWINCH => command.signal_group(signal),
            Some(command) => drop(pidfd_send_signal(&command.pidfd, signal, 0)),
            None => {}
        }
    }

    fn forward_group(&self, signal: libc::c_int) {
        self.command.iter().for_each(|command| command.signal_group(signal));
    }

    /// Kills everything inside, through the end of PID 1 (pid_namespaces(7)). PID 1 needs CPU time for this, of which
    /// any process of the same user may have deprived it (sched_setscheduler(2)), so the other processes are killed as
    /// well.
    fn kill_all(&mut self) {
        if let Some(child) = self.child {
            self.terminals.restore_autogroup(1);
            self.forward_group(libc::SIGKILL);
            let _dead = kill(child, libc::SIGKILL);
            self.progress.sweep_at = Some(Instant::now() + SWEEP);
        }
    }

    /// Sends a signal to all processes inside except PID 1, from a new process there: it has the supervisor's
    /// scheduling attributes, and addresses no pid that could have been reused (kill(2), -1).
    ///
    /// Waits for the new process only for a limited time, since a process inside could stop it. False: it could not be
    /// created, or was stopped or killed, so some processes may not have got the signal. It has copies of all
    /// descriptors of this process, and so must not remain.
    fn broadcast(&mut self, signal: libc::c_int) -> bool {
        // The new process is in the caller's session, whose CPU share root inside can change through
        // /proc/PID/autogroup.
        self.terminals.look_at_autogroup();
        // The new process's /proc/PID/cmdline can be read inside (proc(5)), so it is wiped before the fork.
        let _as_it_is = overwrite_arguments(c"srt-ns");
        let sender = child::spawn_without_pdeathsig(self.run.tool, "a process inside", || {
            let _nobody_there = kill(-1, signal);
            process::exit(0)
        });
        // In a namespace whose PID 1 is dying, no process can be created.
        let sent = sender.and_then(|pid| {
            let pidfd = pidfd_open(pid).context(|| "pidfd_open")?;
            // On a busy machine it may be late. No descriptor reports that it was stopped.
            let stopped =
                || matches!(waitid(Some(pid), libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT), Ok(Some(_)));
            let _ended = (0..10).any(|_| gets_ready(&pidfd, libc::POLLIN, BROADCAST) || stopped());
            let _dead = pidfd_send_signal(&pidfd, libc::SIGKILL, 0);
            waitid(Some(pid), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).context(|| "waitid")
        });
        matches!(sent, Ok(Some((_, Change::Ended(End::Exited(0))))))
    }

    /// Reads a bounded amount of srt-init's reports.
    fn read_reports(&mut self) {
        let mut piece = [0; 2 * BATCH];
        let Some(pipe) = self.reports.as_mut().filter(|pipe| is_ready(*pipe, libc::POLLIN)) else {
            return;
        };
        // srt-init writes two bytes at a time, and such writes to a pipe are atomic (pipe(7)).
        let length = pipe.read(&mut piece).unwrap_or(0);
        if length == 0 {
            self.reports = None;
        }
        let (reports, _) = piece.get(..length).unwrap_or_default().as_chunks::<2>();
        for &report in reports {
            match report {
                [init::JOINED, _] => self.start.iter_mut().for_each(|start| start.joined = true),
                [init::STOPPED, signal] => self.stop_with_command(signal),
                [init::EXITED, code] => self.command_ended(End::Exited(code)),
                [init::KILLED, signal] => self.command_ended(End::Signaled(signal)),
                _ => {}
            }
        }
    }

    /// The command is dead. If a signal asked it to end, the rest of its process group gets the remainder of
    /// --kill-after.
    fn command_ended(&mut self, end: End) {
        let progress = &mut self.progress;
        progress.end = Some(end);
        if self.run.plan.pid1 == Pid1::InitWaitsForAll {
            return;
        }
        let by_it = matches!(end, End::Signaled(signal) if ASKING.contains(&signal.into()));
        match (progress.asked.filter(|_| by_it || progress.told_to_end), self.run.plan.options.kill_after.0) {
            (Some(_), None) => {}
            (Some(asked), Some(after)) => {
                let at = asked + after;
                progress.deadline = Some(progress.deadline.map_or(at, |before| before.min(at)));
            }
            // pid_namespaces(7): the end of PID 1 ends all processes in its namespace.
            (None, _) => self.kill_all(),
        }
    }

    /// Handles one child that has died or stopped. False: there is none.
    fn reap(&mut self) -> bool {
        let any = libc::WEXITED | libc::WSTOPPED;
        let Ok(Some((pid, change))) = waitid(None, any | libc::WNOHANG | libc::WNOWAIT) else { return false };
        // Waits for the same kind of change: the end of a child that had stopped is reported by the next call.
        let kind = if let Change::Ended(_) = change { libc::WEXITED } else { libc::WSTOPPED };
        if kind == libc::WEXITED {
            self.helpers.end_group(pid);
        }
        let _same = waitid(Some(pid), kind | libc::WNOHANG);
        match change {
            Change::Ended(end) if Some(pid) == self.child => self.child_ended(end),
            Change::Ended(end) => self.helper_ended(pid, end),
            Change::Stopped(signal) if Some(pid) == self.child && self.run.plan.options.keep_session => {
                self.stop_with_command(signal);
            }
            Change::Stopped(_) | Change::Trapped => {}
        }
        true
    }

    /// srt-init, or the command under --as-pid-1, is dead, and so is every process inside.
    fn child_ended(&mut self, end: End) {
        // The last reports of srt-init are in the pipe, which holds at most 64 KiB.
        while self.reports.as_ref().is_some_and(|pipe| is_ready(pipe, libc::POLLIN)) {
            self.read_reports();
        }
        self.child = None;
        let progress = &mut self.progress;
        match (self.run.plan.pid1, end) {
            (Pid1::Command, _) => progress.end = Some(end),
            // Before the command could run, srt-init failed: it has printed the error itself, or else its status is an
            // errno.
            (_, End::Exited(code)) if code != 0 && (code == 125 || progress.failed.is_some()) => {
                progress.failed = progress.failed.or(Some(code));
            }
            (_, End::Exited(errno)) if errno != 0 => {
                let error = io::Error::from_raw_os_error(errno.into());
                self.fail(&Error::system("srt-init cannot let the command run", &error));
            }
            // The command exited with 0, even if the deadline passed in between.
            (_, End::Exited(_)) if progress.end.is_none() && progress.failed.is_none() => {
                (progress.end, progress.timed_out) = (Some(end), false);
            }
            _ => progress.end = progress.end.or(Some(end)),
        }
    }

    /// A helper is dead. Before the command runs, this ends the start. Without the watchdog, the sandbox is not safe.
    fn helper_ended(&mut self, pid: Pid, end: End) {
        let Some(helper) = self.helpers.forget(pid) else { return };
        if self.start.is_some() && self.progress.failed.is_none() {
            if helper.has_told(end) {
                return self.give_up(125);
            }
            let colon = if helper.kind == HelperKind::Sidecar { ":" } else { "" };
            let what = format!("{}{colon} ended before the command could start: {end}", helper.name);
            self.fail(&Error::failed(what));
        } else if helper.kind == HelperKind::Watchdog {
            self.run.tool.warn(&watchdog::gone());
            self.kill_all();
        } else if self.progress.failed.is_none() {
            helpers::tell_end(self.run, &helper, end);
        }
    }
}

impl Progress {
    /// Writes the `exited` event and returns the exit status: the command's own, or 128+N.
    fn report(&self, tool: &Tool) -> u8 {
        let end = self.failed.map(End::Exited).or(self.end).unwrap_or(End::Signaled(libc::SIGKILL as u8));
        tool.tell("exited", |event| {
            let event = match end {
                End::Exited(code) => event.number("code", code),
                End::Signaled(signal) => event.number("signal", signal),
            };
            if self.timed_out { event.text("reason", "kill-after") } else { event }
        });
        match end {
            End::Exited(code) => code,
            End::Signaled(signal) => 128 + signal,
        }
    }
}
