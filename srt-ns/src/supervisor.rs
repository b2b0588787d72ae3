//! The supervisor's life: it lets the command run once everything is there, forwards signals, watches everybody, and ends
//! them together.
//!
//! One loop from the first fork on, so that it is never deaf: every turn looks at the deadline, the parent's life and the
//! signals, and takes a bounded piece of each queue that the command, or whoever it talks to, can fill.

mod start;

use self::start::Start;
use crate::child::{self, Leader, Life, Run, gets_ready, is_ready};
use crate::helpers::{self, Helpers, Kind};
use crate::options::Pid1;
use crate::signals::{self, Received};
use crate::terminal::Terminals;
use crate::{init, watchdog};
use srt_common::sys::fd::{pollfd, ppoll};
use srt_common::sys::process::{
    self, Change, End, Pid, getpid, kill, pidfd_open, pidfd_send_signal, prctl, waitid,
};
use srt_common::sys::signal::{Disposition, sigaction, sigpending};
use srt_common::sys::start::overwrite_arguments;
use srt_common::{Context, Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// All that the supervisor looks after.
#[derive(Debug)]
pub struct Supervisor<'a> {
    run: Run<'a>,
    /// Where this process's signals arrive, all of them blocked.
    signals: OwnedFd,
    lives: &'a [Life<'a>],
    terminals: Terminals,
    helpers: Helpers,
    /// The one child inside: srt-init, or the command under --as-pid-1. `None`: reaped.
    child: Option<Pid>,
    /// What srt-init tells. `None`: nothing more, or the child is the command.
    reports: Option<File>,
    /// `None`: the command runs.
    start: Option<Start>,
    /// The command, since it has spoken.
    command: Option<Leader>,
    course: Course,
}

/// What happens in the course of the loop.
#[derive(Debug, Default)]
struct Course {
    /// The command is dead.
    end: Option<End>,
    /// The start has failed, or srt-init.
    failed: Option<u8>,
    /// When everything inside is killed.
    deadline: Option<Instant>,
    /// When to help a killed PID 1.
    sweep_at: Option<Instant>,
    /// `--kill-after` has ended it.
    timed_out: bool,
    /// When a signal that asks programs to end was forwarded last.
    asked: Option<Instant>,
    /// One of them was SIGTERM.
    told_to_end: bool,
    /// Somebody sent us SIGTSTP, and the command has not stopped yet.
    stop_requested: bool,
    /// The command has stopped before this process knew who it is.
    stopped_early: bool,
    /// Everybody inside was stopped.
    frozen: bool,
    /// When to try again to continue them: no process could be made.
    thaw_at: Option<Instant>,
    /// More children may be dead: one SIGCHLD tells of all that died before it was read (signal(7)).
    unreaped: bool,
}

/// The signals that ask programs to end.
const ASKING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How many entries of one queue are read before the others are looked at.
const PIECE: usize = 16;

/// How long a killed PID 1 may take.
const SWEEP: Duration = Duration::from_millis(200);

/// Between two looks at the sender of a signal to everybody inside, which is waited for ten times as long.
const BROADCAST: Duration = Duration::from_millis(100);

/// How long srt-mount may take to remove what it made on the host, after a start that has failed.
const CLEAN_UP: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Serves until the child is reaped; returns the exit status.
    ///
    /// # Errors
    /// Only what makes it impossible to go on watching; the sandbox dies with this process then.
    pub fn serve(mut self) -> Result<u8> {
        if let Err(error) = self.make_network() {
            self.fail(&error);
        }
        while self.child.is_some() {
            let now = Instant::now();
            if self.course.deadline.take_if(|at| *at <= now).is_some() {
                self.course.timed_out |= self.course.failed.is_none() && self.course.end.is_none();
                self.kill_all();
            }
            if self.course.sweep_at.is_some_and(|at| at <= now) {
                // PID 1 has not died for a while.
                self.broadcast(libc::SIGKILL);
                self.course.sweep_at = Some(now + SWEEP);
            }
            if self.course.thaw_at.is_some_and(|at| at <= now) {
                self.thaw();
            }
            let unreaped = self.course.unreaped.then_some(now);
            let Course { deadline, sweep_at, thaw_at, .. } = self.course;
            let next = [deadline, sweep_at, thaw_at, self.start_deadline(), unreaped];
            let next = next.into_iter().flatten().min();
            self.wait(next.map(|at| at.saturating_duration_since(now)))?;
            if let Err(error) = self.turn() {
                self.fail(&error);
            }
        }
        self.helpers.report_lost_placeholders(self.run.tool);
        self.helpers.end();
        self.terminals.restore();
        Ok(self.report())
    }

    /// Waits for anything to happen. What has happened, [`Self::turn`] finds out by looking.
    fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let files = [
            Some(self.signals.as_raw_fd()),
            self.reports.as_ref().map(AsRawFd::as_raw_fd),
            self.start.as_ref().map(|start| start.socket.as_raw_fd()),
            self.helpers.reports.as_ref().map(|reports| reports.pipe.as_raw_fd()),
        ];
        let helpers = self.start.iter().flat_map(|_| self.helpers.getting_ready());
        let readable = files.into_iter().flatten().chain(helpers);
        let mut watched: Vec<_> = readable.map(|fd| pollfd(fd, libc::POLLIN)).collect();
        watched.extend(self.lives.iter().map(|(fd, event)| pollfd(fd.as_raw_fd(), *event)));
        match ppoll(&mut watched, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error).context(|| "poll"),
            _ => Ok(()),
        }
    }

    /// One look at everything.
    fn turn(&mut self) -> Result<()> {
        if self.is_abandoned() {
            self.lives = &[];
            match self.start {
                Some(_) => self.fail(&Error::failed("its parent, or who held --lifetime-fd, is gone")),
                None => self.kill_all(),
            }
        }
        for _ in 0..PIECE {
            let Some(received) = signals::next(&self.signals)? else { break };
            self.take_signal(received);
        }
        self.read_reports();
        self.course.unreaped = (0..PIECE).all(|_| self.reap());
        self.helpers.read_reports(self.run);
        let goes_on = self.child.is_some() && self.course.failed.is_none() && self.course.end.is_none();
        if goes_on {
            self.step()?;
        }
        if self.command.is_some() && std::mem::take(&mut self.course.stopped_early) {
            self.stop_with_command();
        }
        Ok(())
    }

    /// Whose end ends the sandbox is gone.
    fn is_abandoned(&self) -> bool {
        self.lives.iter().any(|(fd, event)| is_ready(fd, *event))
    }

    /// The start has failed. Who waits for it learns that by the end of its socket, so that srt-mount can remove what it
    /// has made on the host; then everything is killed.
    fn fail(&mut self, error: &Error) {
        let code = self.run.tool.fail(error);
        self.give_up(code);
    }

    fn give_up(&mut self, code: u8) {
        // Whose end it was to meet ends nothing but the start.
        (self.start, self.lives) = (None, &[]);
        self.course.failed = Some(code);
        self.course.deadline = Some(Instant::now() + CLEAN_UP);
    }

    fn take_signal(&mut self, received: Received) {
        match received.signal {
            // Looked at in any case. And stops that only a background process gets.
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGXFSZ | libc::SIGTTIN | libc::SIGTTOU => {}
            libc::SIGTSTP => self.suspend(received),
            libc::SIGCONT => self.resume(),
            signal => {
                let course = &mut self.course;
                if ASKING.contains(&signal) {
                    course.asked = Some(Instant::now());
                }
                if signal == libc::SIGTERM {
                    // Or this process might not get the turn in which its time is over.
                    self.terminals.restore_share(1);
                    course.told_to_end = true;
                    let deadline = self.run.plan.options.kill_after.0.map(|after| Instant::now() + after);
                    course.deadline = course.deadline.or(deadline);
                }
                self.forward(signal);
            }
        }
    }

    /// Passes a signal on: as a terminal sends it, to the command's process group; any other to the command alone.
    fn forward(&mut self, signal: libc::c_int) {
        // srt-mount removes what it has made: a second ^C must not end that.
        if self.course.failed.is_some() {
            return;
        }
        let asks = ASKING.contains(&signal);
        // Before the command runs nobody is there to obey: one that asks programs to end, ends the start.
        if self.start.is_some() {
            if asks && sigaction(signal).is_ok_and(|is| is == Disposition::Default) {
                self.give_up(128 + signal as u8);
            }
            return;
        }
        match &self.command {
            Some(_) if self.course.end.is_some() && self.run.plan.pid1 == Pid1::InitWaitsForAll => {
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

    /// SIGKILL for everything inside: by the end of PID 1 (pid_namespaces(7)), for which PID 1 needs a turn. Any process of
    /// its user may have taken its turns away (sched_setscheduler(2)), so the others are killed as well.
    fn kill_all(&mut self) {
        if let Some(child) = self.child {
            self.terminals.restore_share(1);
            self.forward_group(libc::SIGKILL);
            let _dead = kill(child, libc::SIGKILL);
            self.course.sweep_at = Some(Instant::now() + SWEEP);
        }
    }

    /// Sends a signal to everybody inside but PID 1, from a new process there: it has this one's turns, and no number that
    /// could be another's by now is asked for (kill(2), -1).
    ///
    /// Waits for it, but not for long: somebody inside could stop it. False: it could not be made, or was stopped or killed,
    /// and not everybody may have got the signal. It has all that this process has open, and so must not stay.
    fn broadcast(&mut self, signal: libc::c_int) -> bool {
        // It is in the caller's session, whose share of the processors root inside can change by /proc/PID/autogroup.
        self.terminals.look_at_share();
        // /proc/PID/cmdline of the new one can be read inside (proc(5)). In the child it would be seen before it is wiped.
        let _as_it_is = overwrite_arguments(c"srt-ns");
        let sender = child::spawn_untied(self.run.tool, "a process inside", || {
            let _nobody_there = kill(-1, signal);
            process::exit(0)
        });
        // None is made any more in a namespace whose PID 1 is dying.
        let sent = sender.and_then(|pid| {
            let pidfd = pidfd_open(pid).context(|| "pidfd_open")?;
            // On a busy machine it may be late. That it was stopped, no descriptor tells.
            let stopped =
                || matches!(waitid(Some(pid), libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT), Ok(Some(_)));
            let _ended = (0..10).any(|_| gets_ready(&pidfd, libc::POLLIN, BROADCAST) || stopped());
            let _dead = pidfd_send_signal(&pidfd, libc::SIGKILL, 0);
            waitid(Some(pid), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).context(|| "waitid")
        });
        matches!(sent, Ok(Some((_, Change::Ended(End::Exited(0))))))
    }

    /// What srt-init tells, a bounded piece of it.
    fn read_reports(&mut self) {
        let mut piece = [0; 2 * PIECE];
        let Some(pipe) = self.reports.as_mut().filter(|pipe| is_ready(*pipe, libc::POLLIN)) else {
            return;
        };
        // srt-init writes two bytes at a time, and a pipe keeps such writes whole (pipe(7)).
        let length = pipe.read(&mut piece).unwrap_or(0);
        if length == 0 {
            self.reports = None;
        }
        let (reports, _) = piece.get(..length).unwrap_or_default().as_chunks::<2>();
        for &report in reports {
            match report {
                [init::JOINED, _] => self.start.iter_mut().for_each(|start| start.joined = true),
                [init::STOPPED, _] => self.stop_with_command(),
                [init::EXITED, code] => self.command_ended(End::Exited(code)),
                [init::KILLED, signal] => self.command_ended(End::Signaled(signal)),
                _ => {}
            }
        }
    }

    /// The command is dead. What is left of its group after a signal that asked it to end has the rest of --kill-after.
    fn command_ended(&mut self, end: End) {
        let course = &mut self.course;
        course.end = Some(end);
        if self.run.plan.pid1 == Pid1::InitWaitsForAll {
            return;
        }
        let by_it = matches!(end, End::Signaled(signal) if ASKING.contains(&signal.into()));
        match (course.asked.filter(|_| by_it || course.told_to_end), self.run.plan.options.kill_after.0) {
            (Some(_), None) => {}
            (Some(asked), Some(after)) => {
                let at = asked + after;
                course.deadline = Some(course.deadline.map_or(at, |before| before.min(at)));
            }
            // pid_namespaces(7): the end of PID 1 is the end of all in its namespace.
            (None, _) => self.kill_all(),
        }
    }

    /// Reaps one child that has died. False: there is none.
    fn reap(&mut self) -> bool {
        let any = libc::WEXITED | libc::WSTOPPED;
        let Ok(Some((pid, change))) = waitid(None, any | libc::WNOHANG | libc::WNOWAIT) else { return false };
        // The same change: an end that has come since a stop is the next one's.
        let kind = if let Change::Ended(_) = change { libc::WEXITED } else { libc::WSTOPPED };
        if kind == libc::WEXITED {
            self.helpers.end_group(pid);
        }
        let _same = waitid(Some(pid), kind | libc::WNOHANG);
        match change {
            Change::Ended(end) if Some(pid) == self.child => self.child_ended(end),
            Change::Ended(end) => self.helper_ended(pid, end),
            Change::Stopped if Some(pid) == self.child && self.run.plan.options.keep_session => {
                self.stop_with_command();
            }
            Change::Stopped | Change::Trapped | Change::Continued => {}
        }
        true
    }

    /// srt-init is dead, or the command under --as-pid-1, and so is everybody inside.
    fn child_ended(&mut self, end: End) {
        // The last words of srt-init are in the pipe, which holds no more than 64 KiB.
        while self.reports.as_ref().is_some_and(|pipe| is_ready(pipe, libc::POLLIN)) {
            self.read_reports();
        }
        self.child = None;
        let course = &mut self.course;
        match (self.run.plan.pid1, end) {
            (Pid1::Command, _) => course.end = Some(end),
            // srt-init has said itself what it could not do, before the command could run; or tells it by an errno.
            (_, End::Exited(code)) if code != 0 && (code == 125 || course.failed.is_some()) => {
                course.failed = course.failed.or(Some(code));
            }
            (_, End::Exited(errno)) if errno != 0 => {
                let error = io::Error::from_raw_os_error(errno.into());
                self.fail(&Error::system("srt-init cannot let the command run", &error));
            }
            // The command's own, even if the deadline came between.
            (_, End::Exited(_)) if course.end.is_none() && course.failed.is_none() => {
                (course.end, course.timed_out) = (Some(end), false);
            }
            _ => course.end = course.end.or(Some(end)),
        }
    }

    /// A helper is dead: before the command could run that is the end of the start. Without the watchdog nothing is safe.
    fn helper_ended(&mut self, pid: Pid, end: End) {
        let Some(helper) = self.helpers.forget(pid) else { return };
        if self.start.is_some() && self.course.failed.is_none() {
            if helper.has_told(end) {
                return self.give_up(125);
            }
            let colon = if helper.kind == Kind::Sidecar { ":" } else { "" };
            let what = format!("{}{colon} ended before the command could start: {end}", helper.name);
            self.fail(&Error::failed(what));
        } else if helper.kind == Kind::Watchdog {
            self.run.tool.warn(&watchdog::gone());
            self.kill_all();
        } else if self.course.failed.is_none() {
            helpers::tell_end(self.run, &helper, end);
        }
    }

    /// SIGTSTP to us: the command stops, then we do.
    fn suspend(&mut self, received: Received) {
        if self.run.plan.options.keep_session {
            // The command's group decides; that it stopped comes back as a report.
            self.course.stop_requested = !received.from_kernel;
            return self.forward_group(libc::SIGTSTP);
        }
        // setpgid(2): in a session of its own the command's group is orphaned, and the kernel drops SIGTSTP there.
        self.forward_group(libc::SIGSTOP);
        // While this process is stopped nobody watches the others: then none of them runs.
        (self.course.frozen, self.course.thaw_at) = (true, None);
        let all = self.broadcast(libc::SIGSTOP);
        let stopped = all && self.stop();
        // A stop key pressed where nobody could continue us must not stop the command either.
        if !stopped && (received.from_kernel || !all) {
            self.resume();
        }
    }

    /// The command stopped by itself or by the terminal's key: so do we, for the caller's shell to see.
    fn stop_with_command(&mut self) {
        let Some(command) = &self.command else {
            // The report has overtaken the command's first word, which says who it is.
            self.course.stopped_early = self.start.is_some();
            return;
        };
        if !command.is_stopped() {
            return; // Somebody has continued it since.
        }
        self.terminals.take_back();
        // A stop key pressed where nobody could continue us must not stop the command either; somebody who sent SIGTSTP
        // can send SIGCONT.
        let requested = std::mem::take(&mut self.course.stop_requested);
        if !self.stop() && !requested {
            self.resume();
        }
    }

    /// Stops this process, unless it has a deadline to keep. True: it stopped, and goes on.
    fn stop(&self) -> bool {
        if self.course.deadline.is_some() || self.course.sweep_at.is_some() {
            return false;
        }
        // A stop would discard it (signal(7)).
        if sigpending().is_ok_and(|pending| pending.has(libc::SIGCONT)) {
            return true;
        }
        // From here on it is the other way round: whoever makes this process go on takes the stop back.
        if signals::ask_for_stop().is_err() {
            return false;
        }
        // The command may have seen to it that the kernel continues it (timer_create(2), SIGCONT): the caller's end must
        // reach a process that is stopped. That of the thread which made this process alone continues it as well.
        let arms = self.lives.iter().any(|(_, event)| *event == libc::POLLIN);
        let arm = |signal: libc::c_int| prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0);
        if arms && arm(libc::SIGCONT).is_err() || self.is_abandoned() {
            let _goes_on = kill(getpid(), libc::SIGCONT);
        }
        let watchdog = self.helpers.of(Kind::Watchdog);
        watchdog.inspect(|watchdog| watchdog::supervisor_stops(watchdog, true));
        let stopped = signals::stop().unwrap_or(false);
        watchdog.inspect(|watchdog| watchdog::supervisor_stops(watchdog, false));
        let _disarmed = arms.then(|| arm(0));
        stopped
    }

    /// SIGCONT to us: the command goes on, with the terminal if we have it.
    fn resume(&mut self) {
        self.command.iter().for_each(|command| self.terminals.hand_to(command.pid));
        // Everybody at once: whoever goes on before the others could stop the sender.
        self.thaw();
        self.forward_group(libc::SIGCONT);
    }

    /// Continues everybody inside who was stopped; later, if no process can be made for that now.
    fn thaw(&mut self) {
        self.course.frozen = self.course.frozen && !self.broadcast(libc::SIGCONT);
        self.course.thaw_at = self.course.frozen.then(|| Instant::now() + SWEEP);
    }

    /// Tells the status descriptor, and chooses the exit status: the command's own, or 128+N.
    fn report(&self) -> u8 {
        let Course { end, failed, timed_out, .. } = self.course;
        let end = failed.map(End::Exited).or(end).unwrap_or(End::Signaled(libc::SIGKILL as u8));
        self.run.tool.tell("exited", |event| {
            let event = match end {
                End::Exited(code) => event.number("code", code),
                End::Signaled(signal) => event.number("signal", signal),
            };
            if timed_out { event.text("reason", "kill-after") } else { event }
        });
        match end {
            End::Exited(code) => code,
            End::Signaled(signal) => 128 + signal,
        }
    }
}
