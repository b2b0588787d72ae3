//! The supervisor's life after the start: it forwards signals, watches everybody, and ends them together.

use crate::beside::Beside;
use crate::init;
use crate::options::{Pid1, Plan, Session};
use crate::sys::{self, Change, Pid, Received};
use crate::terminal::Terminal;
use srt_common::status::Event;
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// All that the supervisor looks after.
#[derive(Debug)]
pub struct Supervisor<'a> {
    /// What the user asked for.
    pub plan: &'a Plan,
    /// For messages and events.
    pub tool: &'a Tool,
    /// Where this process's signals arrive, all of them blocked.
    pub signals: OwnedFd,
    /// Readable when the caller's process has ended.
    pub caller: Option<OwnedFd>,
    /// srt-init, until it is reaped.
    pub init: Option<Pid>,
    /// The command, until it is reaped.
    pub command: Option<Pid>,
    /// The caller's terminal, under --keep-session.
    pub terminal: Option<Terminal>,
    /// What runs beside the sandbox.
    pub beside: Beside,
    /// Under --keep-session: somebody sent us SIGTSTP, and the command has not stopped yet.
    pub asked_to_stop: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Signaled(libc::c_int),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl Supervisor<'_> {
    /// Serves until command and PID 1 are reaped; returns the exit status.
    ///
    /// # Errors
    /// Only what makes it impossible to go on watching; the sandbox is dead then too.
    pub fn run(mut self) -> Result<u8> {
        let mut end = None;
        let mut failed = None;
        let mut deadline: Option<Instant> = None;
        while self.command.is_some() || self.init.is_some() {
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|left| left.is_zero()) {
                deadline = None;
                self.kill();
            }
            let watched =
                [Some(self.signals.as_fd()), self.caller.as_ref().map(AsFd::as_fd), self.beside.news()];
            let ready = sys::poll(watched, timeout).context(|| "poll")?;
            if ready[1] {
                self.caller = None;
                self.kill();
            }
            if ready[2] {
                self.beside.read_news(self.tool);
            }
            while let Some(received) =
                sys::read_signal(self.signals.as_fd()).context(|| "read of a signalfd")?
            {
                match received.signal {
                    libc::SIGCHLD => {
                        while let Some((pid, change)) = sys::next_change() {
                            self.changed(pid, change, &mut end, &mut failed);
                        }
                    }
                    libc::SIGTSTP => self.suspend(received),
                    libc::SIGCONT => self.resume(),
                    // Nothing of ours, and stops that only a background process gets.
                    libc::SIGPIPE | libc::SIGTTIN | libc::SIGTTOU => {}
                    signal => {
                        if signal == libc::SIGTERM && deadline.is_none() {
                            deadline = self.plan.kill_after.map(|after| Instant::now() + after);
                        }
                        self.forward(received);
                    }
                }
            }
        }
        self.beside.end();
        if let Some(terminal) = &mut self.terminal {
            terminal.restore();
        }
        Ok(self.report(failed.or(end)))
    }

    /// A child changed its state.
    fn changed(&mut self, pid: Pid, change: Change, end: &mut Option<End>, failed: &mut Option<End>) {
        let ended = match change {
            Change::Stopped => {
                if Some(pid) == self.command && self.plan.session == Session::Keep {
                    self.stop_with_command();
                }
                return;
            }
            Change::Exited(code) => End::Exited(code),
            Change::Signaled(signal) => End::Signaled(signal),
        };
        if Some(pid) == self.command {
            self.command = None;
            *end = Some(ended);
            match (self.init, self.plan.pid1) {
                (Some(init), Pid1::InitWaitsForAll) => sys::kill(init, init::leave_signal()),
                // pid_namespaces(7): the end of PID 1 is the end of all in its namespace. What runs beside it ends in
                // the meantime.
                (Some(init), _) => {
                    sys::kill(init, libc::SIGKILL);
                    self.beside.end();
                }
                (None, _) => {}
            }
        } else if Some(pid) == self.init {
            self.init = None;
            match ended {
                // srt-init has said itself what it could not do, before the command could run.
                End::Exited(code) if code != 0 => *failed = Some(ended),
                _ if self.command.is_some() => {
                    self.tool.warn(&Error::failed("srt-init was ended from outside"))
                }
                _ => {}
            }
        } else if !self.beside.ended(pid, ended, self.tool) {
            self.tool.warn(&Error::failed("the guardian was ended from outside"));
            self.kill();
        }
    }

    /// SIGKILL for everything inside.
    fn kill(&self) {
        if let Some(pid) = self.init.or(self.command) {
            sys::kill(pid, libc::SIGKILL);
        }
    }

    /// Passes a signal on: to the command alone, or to its process group if the terminal sent it to ours.
    fn forward(&self, received: Received) {
        match (self.command, self.init) {
            (Some(command), _) if received.from_kernel() && self.plan.session == Session::New => {
                sys::kill(-command, received.signal);
            }
            (Some(command), _) => sys::kill(command, received.signal),
            (None, Some(init)) => sys::kill(init, received.signal),
            (None, None) => {}
        }
    }

    /// SIGTSTP to us: the command stops, then we do.
    fn suspend(&mut self, received: Received) {
        let Some(command) = self.command else { return };
        match self.plan.session {
            // The command's group decides; that it stopped comes back as a change of state.
            Session::Keep => {
                self.asked_to_stop = !received.from_kernel();
                sys::kill(-command, libc::SIGTSTP);
            }
            Session::New => {
                // setpgid(2): in a session of its own the command's group is orphaned, and the kernel drops SIGTSTP.
                sys::kill(-command, libc::SIGSTOP);
                // A stop key pressed where nobody could continue us must not stop the command either.
                if !sys::stop_as_by_default() && received.from_kernel() {
                    self.resume();
                }
            }
        }
    }

    /// The command stopped by itself or by the terminal's key: so do we, for the caller's shell to see.
    fn stop_with_command(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take_back();
        }
        // A stop key pressed where nobody could continue us must not stop the command either; somebody who sent SIGTSTP
        // can send SIGCONT.
        let asked = std::mem::take(&mut self.asked_to_stop);
        if !sys::stop_as_by_default() && !asked {
            self.resume();
        }
    }

    /// SIGCONT to us: the command goes on, with the terminal if we have it.
    fn resume(&mut self) {
        let Some(command) = self.command else { return };
        if let Some(terminal) = &mut self.terminal {
            let _gone = terminal.hand_to(command);
        }
        sys::kill(-command, libc::SIGCONT);
    }

    /// Tells the status descriptor, and chooses the exit status: the command's own, or 128+N.
    fn report(&self, end: Option<End>) -> u8 {
        let event = Event::new(self.tool.name, "exited");
        let (event, code) = match end {
            Some(End::Exited(code)) => (event.number("code", code), code),
            Some(End::Signaled(signal)) => {
                (event.number("signal", signal), 128 + u8::try_from(signal).unwrap_or(0))
            }
            None => (event.number("code", 125), 125),
        };
        if let Some(status) = self.tool.status {
            status.send(&event);
        }
        code
    }
}
