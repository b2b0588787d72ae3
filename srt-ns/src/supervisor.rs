//! The supervisor's life: it lets the command run once everything is there, forwards signals, watches everybody, and ends
//! them together.
//!
//! One loop from the first fork on, so that it is never deaf: every turn looks at the deadline, the parent's life and the
//! signals, and takes a bounded piece of each queue that the command, or whoever it talks to, can fill.

use crate::child::{self, Leader, Lifeline, is_ready};
use crate::command::{self, Command};
use crate::helpers::{self, Helpers};
use crate::init::{self, Report};
use crate::namespaces;
use crate::options::{Pid1, Plan, Session};
use crate::signals::{self, Inherited, Received};
use crate::terminal::Terminals;
use srt_common::exec::Program;
use srt_common::fds::{self, Kept};
use srt_common::sys::fd::{close, pollfd, ppoll};
use srt_common::sys::process::{
    self, Change, End, Pid, getpgrp, kill, pidfd_open, pidfd_send_signal, waitid,
};
use srt_common::sys::signal::{Disposition, sigaction, sigpending};
use srt_common::sys::socket::{Message, setsockopt, socketpair};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, handover, privileges};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is still missing before the command may run.
#[derive(Debug)]
pub struct Start {
    /// Where the command says its number, and where the one child inside waits for the network namespace: srt-init, which
    /// lets the command run then, or the command itself.
    pub socket: OwnedFd,
    /// The command becomes srt-mount.
    pub mount_stage: bool,
    /// srt-mount has looked at the ways to the sockets of relays, if there are both: no message before that says that
    /// everything is there, upon which the caller may remove the sockets' paths.
    pub sockets_seen: bool,
    /// The network namespace, unless it is shared or handed over.
    pub network: Option<File>,
    /// Nothing else is missing, and nothing is left to us that the command could want.
    pub locked_down: bool,
    /// The command has entered the network namespace, where somebody is told its number; else it does so last.
    pub joined: bool,
    /// When srt-relay must accept.
    pub deadline: Instant,
}

/// All that the supervisor looks after.
#[derive(Debug)]
pub struct Supervisor<'a> {
    /// What the user asked for.
    pub plan: &'a Plan,
    /// For messages and events.
    pub tool: &'a Tool,
    /// Where this process's signals arrive, all of them blocked.
    pub signals: OwnedFd,
    /// Readable when the parent is dead.
    pub parent: Option<OwnedFd>,
    /// Hung up when nobody holds the other end: `--lifetime-fd`.
    pub lifetimes: Vec<BorrowedFd<'static>>,
    /// The one child inside: srt-init, or the command under --as-pid-1. `None`: reaped.
    pub child: Option<Pid>,
    /// What srt-init tells. `None`: nothing more, or the child is the command.
    pub reports: Option<File>,
    /// The terminals to restore.
    pub terminals: Terminals,
    /// The helper processes.
    pub helpers: Helpers,
    /// `None`: the command runs.
    pub start: Option<Start>,
    /// The command, since it has spoken.
    pub command: Option<Leader>,
    /// When to help a killed PID 1.
    pub sweep_at: Option<Instant>,
    /// Everybody inside was stopped.
    pub frozen: bool,
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
    /// `--kill-after` has ended it.
    timed_out: bool,
    /// When a signal that asks programs to end was forwarded last.
    asked: Option<Instant>,
    /// One of them was SIGTERM.
    told_to_end: bool,
    /// Somebody sent us SIGTSTP, and the command has not stopped yet.
    stop_requested: bool,
}

/// The signals that ask programs to end.
const TERM: libc::c_int = libc::SIGTERM;
const INT: libc::c_int = libc::SIGINT;
const HUP: libc::c_int = libc::SIGHUP;
const QUIT: libc::c_int = libc::SIGQUIT;

/// How many entries of one queue are read before the others are looked at.
const PIECE: usize = 16;

/// How long a killed PID 1 may take.
const SWEEP: Duration = Duration::from_millis(200);

/// How long the sender of a signal to everybody inside is waited for.
const BROADCAST: Duration = Duration::from_millis(100);

/// How long srt-relay may take until it accepts.
const ACCEPT: Duration = Duration::from_secs(10);

/// How long srt-mount may take to remove what it made on the host, after a start that has failed.
const CLEAN_UP: Duration = Duration::from_secs(2);

impl<'a> Supervisor<'a> {
    /// Forks srt-init and the command, or the command as PID 1.
    ///
    /// # Errors
    /// What the system says of the start. Nothing inside runs then.
    pub fn launch(
        &mut self,
        program: &'a Program,
        kept: Kept,
        inherited: Inherited,
        life: &'a Lifeline,
    ) -> Result<()> {
        let (ours, theirs) = socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?;
        // unix(7): the command's message tells its number here, which it does not know itself.
        setsockopt(&ours, libc::SOL_SOCKET, libc::SO_PASSCRED, &1).context(|| "SO_PASSCRED")?;
        let program_file = command::mount_stage(program);
        let mount_stage = program_file.is_some();
        let (tool, plan, terminals, group) = (self.tool, self.plan, &self.terminals, getpgrp());
        let command = Command {
            tool,
            plan,
            program,
            mount_stage: program_file,
            joined_paths: self.helpers.joined_paths(plan)?,
            kept,
            inherited,
            terminals,
            group,
            life,
        };
        if plan.pid1 == Pid1::Command {
            let number = ours.as_raw_fd();
            let pid = child::spawn_untied(tool, "the command", || {
                close(number).context(|| "close")?;
                command.run(&theirs, &theirs)
            })?;
            self.child = Some(pid);
            if let Some(watchdog) = &self.helpers.watchdog {
                watchdog.condemn(&pidfd_open(pid).context(|| "pidfd_open of the command")?)?;
            }
        } else {
            let init = init::start(command, &ours, theirs)?;
            (self.child, self.reports) = (Some(init.pid), Some(init.reports));
            // srt-init forks the command before this process is busy with the network namespace: a scheduler that keeps a
            // new process where its parent runs leaves both behind this one otherwise, while another processor is idle.
            std::thread::yield_now();
        }
        // As PID 1 srt-mount says hello after its look.
        let sockets_seen = !mount_stage || plan.pid1 == Pid1::Command || !plan.forwards();
        let deadline = Instant::now() + ACCEPT;
        let (joined, locked_down) = (plan.share.net || tool.status.is_none(), false);
        let network = None;
        self.start =
            Some(Start { socket: ours, mount_stage, sockets_seen, network, locked_down, joined, deadline });
        Ok(())
    }

    /// Makes the network namespace, while those that have been forked get ready.
    fn make_network(&mut self) -> Result<()> {
        let network = namespaces::enter_network(self.plan.share)?;
        self.helpers.announce(network.as_ref())?;
        if let Some(start) = &mut self.start {
            start.network = network;
        }
        Ok(())
    }

    /// Serves until the child is reaped; returns the exit status.
    ///
    /// # Errors
    /// Only what makes it impossible to go on watching; the sandbox dies with this process then.
    pub fn run(mut self) -> Result<u8> {
        let mut course = Course::default();
        if let Err(error) = self.make_network() {
            self.fail(&error, &mut course);
        }
        while self.child.is_some() {
            let timeout = course.deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = timeout.or(self.relay_timeout());
            if course.deadline.is_some() && timeout.is_some_and(|left| left.is_zero()) {
                course.deadline = None;
                course.timed_out = course.failed.is_none();
                self.kill_all();
            }
            let now = Instant::now();
            if self.sweep_at.is_some_and(|at| at <= now) {
                // PID 1 has not died for a while.
                self.broadcast(libc::SIGKILL);
                self.sweep_at = Some(now + SWEEP);
            }
            let sweep = self.sweep_at.map(|at| at.saturating_duration_since(now));
            self.wait(timeout.into_iter().chain(sweep).min())?;
            if let Err(error) = self.turn(&mut course) {
                self.fail(&error, &mut course);
            }
        }
        self.helpers.report_lost_placeholders(self.tool);
        self.helpers.end();
        self.terminals.restore();
        Ok(self.report(&course))
    }

    /// Waits for anything to happen. What has happened, [`Self::turn`] finds out by looking.
    fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let relay = self.helpers.relay.as_ref();
        let start = self.start.as_ref();
        let files = [
            self.parent.as_ref().map(AsRawFd::as_raw_fd),
            self.reports.as_ref().map(AsRawFd::as_raw_fd),
            start.map(|start| start.socket.as_raw_fd()),
            relay.and_then(|relay| Some(relay.reports.as_ref()?.as_raw_fd())),
        ];
        let mut watched = vec![pollfd(self.signals.as_raw_fd(), libc::POLLIN)];
        if start.is_some() {
            watched.extend(self.helpers.getting_ready().map(|fd| pollfd(fd, libc::POLLIN)));
        }
        watched.extend(files.iter().flatten().map(|&fd| pollfd(fd, libc::POLLIN)));
        watched.extend(self.lifetimes.iter().map(|pipe| pollfd(pipe.as_raw_fd(), 0)));
        match ppoll(&mut watched, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error).context(|| "poll"),
            _ => Ok(()),
        }
    }

    /// The time that is left to a srt-relay that does not accept yet.
    fn relay_timeout(&self) -> Option<Duration> {
        let start = self.start.as_ref()?;
        let waits = self.helpers.relay.as_ref().is_some_and(|relay| !relay.accepts);
        waits.then(|| start.deadline.saturating_duration_since(Instant::now()))
    }

    /// One look at everything.
    fn turn(&mut self, course: &mut Course) -> Result<()> {
        if self.parent.as_ref().is_some_and(|parent| is_ready(parent, libc::POLLIN))
            || self.lifetimes.iter().any(|pipe| is_ready(pipe, 0))
        {
            (self.parent, self.lifetimes) = (None, vec![]);
            match self.start {
                Some(_) => {
                    self.fail(&Error::failed("its parent, or who held --lifetime-fd, is gone"), course)
                }
                None => self.kill_all(),
            }
        }
        for _ in 0..PIECE {
            match signals::next(&self.signals)? {
                Some(received) => self.take_signal(received, course),
                None => break,
            }
        }
        self.read_reports(course);
        for _ in 0..PIECE {
            if !self.reap(course) {
                break;
            }
        }
        self.helpers.read_reports(self.tool);
        let goes_on = self.child.is_some() && course.failed.is_none() && course.end.is_none();
        if self.start.is_some() && goes_on { self.step(course) } else { Ok(()) }
    }

    /// The start: goes on where something was missing and is there now.
    fn step(&mut self, course: &mut Course) -> Result<()> {
        let Some(start) = &mut self.start else { return Ok(()) };
        if is_ready(&start.socket, libc::POLLIN) {
            let socket = &start.socket;
            match handover::receive(socket, libc::MSG_DONTWAIT).context(|| "recvmsg from the command")? {
                // It has failed and said why: its end follows, which srt-init is there to tell.
                Message { byte: None, .. } => {
                    self.start = None;
                    return Ok(());
                }
                Message { .. } if self.command.is_some() => start.joined = true,
                Message { pid, fds, .. } => {
                    let pid = pid.ok_or_else(|| Error::failed("no number came from the command"))?;
                    let pidfd = match (self.plan.pid1, fds.into_iter().next()) {
                        // Nobody but this process reaps it. What has come may be the root that srt-init would get.
                        (Pid1::Command, _) => pidfd_open(pid).context(|| "pidfd_open of the command")?,
                        (_, pidfd) => pidfd.ok_or_else(|| Error::failed("no pidfd came from the command"))?,
                    };
                    self.command = Some(Leader { pid, pidfd });
                    self.terminals.note_handed();
                }
            }
        }
        if self.helpers.look() {
            // srt-relay has closed the pipe: its end, which is to come, says more.
            start.deadline = start.deadline.min(Instant::now() + Duration::from_millis(500));
        }
        if self.relay_timeout() == Some(Duration::ZERO) {
            return Err(Error::failed(
                match self.helpers.relay.as_ref().and_then(|relay| relay.ready.as_ref()) {
                    Some(_) => format!("srt-relay does not accept after {} seconds", ACCEPT.as_secs()),
                    None => "srt-relay ended before the command could start".to_owned(),
                },
            ));
        }
        let seen = self.start.as_ref().is_some_and(|start| start.sockets_seen);
        if self.command.is_some() && seen && self.helpers.are_ready()? {
            self.let_the_command_run(course)?;
        }
        Ok(())
    }

    /// Nothing is left to us that the command could want; then it may go.
    fn let_the_command_run(&mut self, course: &Course) -> Result<()> {
        let Some(start) = &mut self.start else { return Ok(()) };
        if !start.locked_down {
            // In this order: what the capabilities have refused so far, being not dumpable refuses from here on.
            child::undumpable()?;
            privileges::drop_held()?;
            fds::never_wait();
            start.locked_down = true;
            if let Some(network) = start.network.take_if(|_| !start.joined) {
                // Should they be gone, their end tells it.
                let _gone = handover::join(&start.socket, network.as_fd());
            }
        }
        let Some(start) = self.start.take_if(|start| start.joined) else { return Ok(()) };
        let pid = self.command.as_ref().map_or(0, |command| command.pid);
        self.tool
            .tell("started", |event| event.number("pid", pid).numbers("namespaces", namespaces::inodes()));
        if start.mount_stage {
            // It becomes srt-mount without waiting for this.
            self.tool.tell("exec", |event| event);
        }
        if course.failed.is_none() {
            // Should they be gone, their end tells it.
            let _gone = handover::go(&start.socket, start.network.as_ref().map(AsFd::as_fd));
        }
        Ok(())
    }

    /// The start has failed. Who waits for it learns that by the end of its socket, so that srt-mount can remove what it
    /// has made on the host; then everything is killed.
    fn fail(&mut self, error: &Error, course: &mut Course) {
        course.failed = Some(self.tool.fail(error));
        self.give_up(course);
    }

    fn give_up(&mut self, course: &mut Course) {
        self.start = None;
        course.deadline = Some(Instant::now() + CLEAN_UP);
    }

    fn take_signal(&mut self, received: Received, course: &mut Course) {
        match received.signal {
            // Looked at in any case. And stops that only a background process gets.
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGTTIN | libc::SIGTTOU => {}
            libc::SIGTSTP => self.suspend(received, course),
            libc::SIGCONT => self.resume(),
            signal => {
                if let TERM | INT | HUP | QUIT = signal {
                    course.asked = Some(Instant::now());
                }
                course.told_to_end |= signal == TERM;
                if signal == TERM && course.deadline.is_none() {
                    course.deadline = self.plan.kill_after.map(|after| Instant::now() + after);
                }
                self.forward(signal, course);
            }
        }
    }

    /// Passes a signal on: as a terminal sends it, to the command's process group; any other to the command alone.
    fn forward(&mut self, signal: libc::c_int, course: &mut Course) {
        // Before the command runs nobody is there to obey: one that asks programs to end, ends the start.
        if self.start.is_some() {
            let asks = [TERM, INT, HUP, QUIT].contains(&signal);
            if asks && sigaction(signal).is_ok_and(|is| is == Disposition::Default) {
                course.failed = Some(128 + signal as u8);
                self.give_up(course);
            }
            return;
        }
        match (&self.command, signal) {
            (Some(_), _) if course.end.is_some() && self.plan.pid1 == Pid1::InitWaitsForAll => {
                self.child.inspect(|&init| drop(kill(init, signal)));
            }
            (Some(command), TERM | INT | HUP | QUIT | libc::SIGWINCH) => command.signal_group(signal),
            (Some(command), _) => drop(pidfd_send_signal(&command.pidfd, signal, 0)),
            (None, _) => {}
        }
    }

    fn forward_group(&self, signal: libc::c_int) {
        self.command.iter().for_each(|command| command.signal_group(signal));
    }

    /// SIGKILL for everything inside: by the end of PID 1 (pid_namespaces(7)), for which PID 1 needs a turn. Any process of
    /// its user may have taken its turns away (sched_setscheduler(2)), so the others are killed as well.
    fn kill_all(&mut self) {
        if let Some(child) = self.child {
            self.command.iter().for_each(|command| command.signal_group(libc::SIGKILL));
            let _dead = kill(child, libc::SIGKILL);
            self.sweep_at = Some(Instant::now() + SWEEP);
        }
    }

    /// Sends a signal to everybody inside but PID 1, from a new process there: it has this one's turns, and no number that
    /// could be another's by now is asked for (kill(2), -1).
    ///
    /// Waits for it, but not for long: somebody inside could stop it. False: it could not be made, or was stopped or killed,
    /// and not everybody may have got the signal.
    fn broadcast(&self, signal: libc::c_int) -> bool {
        let sender = child::spawn_untied(self.tool, "a process inside", || {
            let _nobody_there = kill(-1, signal);
            process::exit(0)
        });
        // None is made any more in a namespace whose PID 1 is dying.
        let sent = sender.and_then(|pid| {
            let pidfd = pidfd_open(pid).context(|| "pidfd_open")?;
            let _dead = ppoll(&mut [pollfd(pidfd.as_raw_fd(), libc::POLLIN)], Some(BROADCAST));
            waitid(Some(pid), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).context(|| "waitid")
        });
        matches!(sent, Ok(Some((_, Change::Ended(End::Exited(0))))))
    }

    /// What srt-init tells, a bounded piece of it.
    fn read_reports(&mut self, course: &mut Course) {
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
            match Report::from_bytes(report) {
                Some(Report::SocketsSeen) => {
                    if let Some(start) = &mut self.start {
                        start.sockets_seen = true;
                    }
                }
                Some(Report::Joined) => {
                    if let Some(start) = &mut self.start {
                        start.joined = true;
                    }
                }
                Some(Report::Stopped) => self.stop_with_command(course),
                Some(Report::Ended(end)) => self.command_ended(end, course),
                None => {}
            }
        }
    }

    /// The command is dead. What is left of its group after a signal that asked it to end has the rest of --kill-after.
    fn command_ended(&mut self, end: End, course: &mut Course) {
        course.end = Some(end);
        if self.plan.pid1 == Pid1::InitWaitsForAll {
            return;
        }
        let by_it = matches!(end, End::Signaled(signal) if [TERM, INT, HUP, QUIT].contains(&signal.into()));
        match (course.asked.filter(|_| by_it || course.told_to_end), self.plan.kill_after) {
            (Some(_), None) => {}
            (Some(asked), Some(after)) => course.deadline = Some(asked + after),
            // pid_namespaces(7): the end of PID 1 is the end of all in its namespace.
            (None, _) => self.kill_all(),
        }
    }

    /// Reaps one child that has died. False: there is none.
    fn reap(&mut self, course: &mut Course) -> bool {
        let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG;
        let Ok(Some((pid, change))) = waitid(None, options | libc::WNOWAIT) else { return false };
        if let Change::Ended(_) = change {
            self.helpers.sidecar_is_dead(pid);
        }
        let _same = waitid(Some(pid), options);
        match change {
            Change::Ended(end) if Some(pid) == self.child => {
                // The last words of srt-init are in the pipe, which holds no more than 64 KiB.
                while self.reports.as_ref().is_some_and(|pipe| is_ready(pipe, libc::POLLIN)) {
                    self.read_reports(course);
                }
                self.child = None;
                match (self.plan.pid1, end) {
                    (Pid1::Command, _) => course.end = Some(end),
                    // srt-init has said itself what it could not do, before the command could run.
                    (_, End::Exited(code)) if code != 0 => course.failed = course.failed.or(Some(code)),
                    // The command's own, even if the deadline came between.
                    (_, End::Exited(_)) if course.end.is_none() && course.failed.is_none() => {
                        (course.end, course.timed_out) = (Some(end), false);
                    }
                    _ if course.end.is_none() && course.failed.is_none() && !course.timed_out => {
                        course.end = Some(end);
                    }
                    _ => {}
                }
            }
            Change::Ended(end) if self.start.is_some() && course.failed.is_none() => {
                self.helper_failed(pid, end, course);
            }
            Change::Ended(end) => {
                if !self.helpers.ended(pid, end, self.tool) {
                    self.tool.warn(&helpers::watchdog_gone());
                    self.kill_all();
                }
            }
            Change::Stopped if Some(pid) == self.child && self.plan.session == Session::Keep => {
                self.stop_with_command(course);
            }
            Change::Stopped | Change::Trapped | Change::Continued => {}
        }
        true
    }

    /// A child is dead before the command could run.
    fn helper_failed(&mut self, pid: Pid, end: End, course: &mut Course) {
        let Some((name, told)) = self.helpers.forget(pid, end) else { return };
        if told {
            course.failed = Some(125);
            self.give_up(course);
        } else {
            let error = Error::failed(format!("{name} ended before the command could start: {end}"));
            self.fail(&error, course);
        }
    }

    /// SIGTSTP to us: the command stops, then we do.
    fn suspend(&mut self, received: Received, course: &mut Course) {
        match self.plan.session {
            // The command's group decides; that it stopped comes back as a report.
            Session::Keep => {
                course.stop_requested = !received.from_kernel;
                self.forward_group(libc::SIGTSTP);
            }
            // setpgid(2): in a session of its own the command's group is orphaned, and the kernel drops SIGTSTP there.
            Session::New => {
                self.forward_group(libc::SIGSTOP);
                // While this process is stopped nobody watches the others: then none of them runs.
                self.frozen = true;
                let all = self.broadcast(libc::SIGSTOP);
                let stopped = all && self.stop(course);
                // A stop key pressed where nobody could continue us must not stop the command either.
                if !stopped && (received.from_kernel || !all) {
                    self.resume();
                }
            }
        }
    }

    /// The command stopped by itself or by the terminal's key: so do we, for the caller's shell to see.
    fn stop_with_command(&mut self, course: &mut Course) {
        if !self.command.as_ref().is_some_and(Leader::is_stopped) {
            return; // Somebody has continued it since.
        }
        self.terminals.take_back();
        // A stop key pressed where nobody could continue us must not stop the command either; somebody who sent SIGTSTP
        // can send SIGCONT.
        let requested = std::mem::take(&mut course.stop_requested);
        if !self.stop(course) && !requested {
            self.resume();
        }
    }

    /// Stops this process, unless it has a deadline to keep. True: it stopped, and goes on.
    fn stop(&self, course: &Course) -> bool {
        if course.deadline.is_some() || self.sweep_at.is_some() {
            return false;
        }
        // A stop would discard it (signal(7)).
        if sigpending().is_ok_and(|pending| pending.has(libc::SIGCONT)) {
            return true;
        }
        let watchdog = self.helpers.watchdog.as_ref();
        watchdog.inspect(|watchdog| watchdog.supervisor_stops());
        let stopped = signals::stop().unwrap_or(false);
        watchdog.inspect(|watchdog| watchdog.supervisor_goes_on());
        stopped
    }

    /// SIGCONT to us: the command goes on, with the terminal if we have it.
    fn resume(&mut self) {
        if let Some(command) = &self.command {
            self.terminals.hand_to(command.pid);
            command.signal_group(libc::SIGCONT);
        }
        if std::mem::take(&mut self.frozen) {
            self.broadcast(libc::SIGCONT);
        }
    }

    /// Tells the status descriptor, and chooses the exit status: the command's own, or 128+N.
    fn report(&self, course: &Course) -> u8 {
        let (signal, code) = match (course.failed, course.end) {
            (Some(code), _) => (None, code),
            (None, Some(End::Exited(code))) => (None, code),
            (None, Some(End::Signaled(signal))) => (Some(signal), 128 + signal),
            (None, None) => (Some(libc::SIGKILL as u8), 128 + libc::SIGKILL as u8),
        };
        self.tool.tell("exited", |event| {
            let event = match signal {
                Some(signal) => event.number("signal", signal),
                None => event.number("code", code),
            };
            if course.timed_out { event.text("reason", "kill-after") } else { event }
        });
        code
    }
}
