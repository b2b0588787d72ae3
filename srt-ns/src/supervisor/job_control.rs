//! Stops and continues the command together with this process, as a shell expects of a job.

use super::{SWEEP, Supervisor};
use crate::child::Leader;
use crate::helpers::HelperKind;
use crate::{signals, watchdog};
use srt_common::sys::process::{getpid, kill, prctl};
use srt_common::sys::signal::sigpending;
use std::time::Instant;

/// What has been stopped, and what is to be continued.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// A process has sent us SIGTSTP, and the command has not stopped yet.
    requested: bool,
    /// The signal that stopped the command before its pid was known.
    pub(super) early: Option<u8>,
    /// All processes inside were stopped.
    all: bool,
    /// When to continue them again: no process could be created for it, or others had the terminal that the command
    /// needs.
    pub(super) continue_at: Option<Instant>,
}

impl Supervisor<'_> {
    /// Continues what waits for that, when it is time to try.
    pub(super) fn try_to_continue(&mut self, now: Instant) {
        let Some(at) = self.stops.continue_at.as_mut().filter(|at| **at <= now) else { return };
        *at = now + SWEEP;
        let waits = |command: &Leader| self.terminals.others_have_it(command.pid);
        if self.progress.end.is_some() || !self.command.as_ref().is_some_and(waits) {
            self.resume();
        }
    }

    /// SIGTSTP was received: stops the command, then this process.
    pub(super) fn suspend(&mut self, from_kernel: bool) {
        if self.run.plan.options.keep_session {
            if self.stops.continue_at.is_some() {
                // The command waits for the terminal, and is stopped already.
                let _orphaned = self.stop();
                return;
            }
            // The command's process group decides; srt-init reports if the command stops.
            self.stops.requested = !from_kernel;
            return self.forward_group(libc::SIGTSTP);
        }
        // setpgid(2): in its own session, the command's process group is orphaned, and the kernel drops SIGTSTP there.
        self.forward_group(libc::SIGSTOP);
        // A stopped supervisor cannot watch the other processes, so none of them may run.
        (self.stops.all, self.stops.continue_at) = (true, None);
        let all = self.broadcast(libc::SIGSTOP);
        let stopped = all && self.stop();
        // If no process could continue us, a stop key must not stop the command either.
        if !stopped && (from_kernel || !all) {
            self.resume();
        }
    }

    /// The command was stopped by itself or by a key of the terminal: stops this process too, for the caller's shell to
    /// see.
    pub(super) fn stop_with_command(&mut self, signal: u8) {
        let Some(command) = &self.command else {
            // The report has arrived before the message with the command's pid.
            self.stops.early = self.start.is_some().then_some(signal);
            return;
        };
        if !command.is_stopped() {
            return; // Another process has continued it since.
        }
        let asks = [libc::SIGTTIN, libc::SIGTTOU].contains(&signal.into());
        if asks && self.terminals.hand_to(command.pid, true) {
            return self.forward_group(libc::SIGCONT);
        }
        let had_it = self.terminals.take_back(command.pid);
        // If no process could continue us, a stop key must not stop the command either; a process that sent SIGTSTP can
        // send SIGCONT.
        let requested = std::mem::take(&mut self.stops.requested);
        // Nobody may continue this process: a shell that takes a pipeline for running, or ignores these signals.
        let others_have_it = !had_it || self.terminals.others_have_it(command.pid);
        let waits = asks && self.terminals.shared && others_have_it && !requested;
        let goes_on = waits || !self.stop() && !requested;
        // As long as others have the foreground, it would stop again at once.
        self.stops.continue_at = (goes_on && asks).then(|| Instant::now() + SWEEP);
        if goes_on && !asks {
            self.resume();
        }
    }

    /// Stops this process, unless it has to keep a deadline. True: it stopped, and was continued.
    fn stop(&self) -> bool {
        if self.progress.deadline.is_some() || self.progress.sweep_at.is_some() {
            return false;
        }
        // A stop would discard the pending SIGCONT (signal(7)).
        if sigpending().is_ok_and(|pending| pending.has(libc::SIGCONT)) {
            return true;
        }
        // From here on, a SIGCONT discards the stop instead.
        if signals::ask_for_stop().is_err() {
            return false;
        }
        // The command may have arranged for the kernel to continue it (timer_create(2), SIGCONT), so the caller's death
        // must reach this process even while it is stopped. It is also continued if only the thread that created it
        // ends.
        let arms = self.run.lifetimes.iter().any(|(_, event)| *event == libc::POLLIN);
        let arm = |signal: libc::c_int| prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0);
        if arms && arm(libc::SIGCONT).is_err() || self.is_abandoned() {
            let _goes_on = kill(getpid(), libc::SIGCONT);
        }
        let watchdog = self.helpers.of(HelperKind::Watchdog);
        watchdog.inspect(|watchdog| watchdog::supervisor_stops(&watchdog.channel, true));
        let stopped = signals::stop().unwrap_or(false);
        watchdog.inspect(|watchdog| watchdog::supervisor_stops(&watchdog.channel, false));
        let _disarmed = arms.then(|| arm(0));
        stopped
    }

    /// SIGCONT was received: continues the command, with the terminal if we have its foreground.
    pub(super) fn resume(&mut self) {
        self.stops.requested = false;
        let _given = self.command.as_ref().map(|command| self.terminals.hand_to(command.pid, false));
        // All at once: a process that continued before the others could stop the sender.
        self.continue_all();
        self.forward_group(libc::SIGCONT);
    }

    /// Continues all processes inside that were stopped. If no process can be created for that now, retries later.
    fn continue_all(&mut self) {
        self.stops.all = self.stops.all && !self.broadcast(libc::SIGCONT);
        self.stops.continue_at = self.stops.all.then(|| Instant::now() + SWEEP);
    }
}
