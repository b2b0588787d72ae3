//! From the first fork to the command's first instruction. The command runs once everything is ready and the supervisor
//! has given up all that the command could use.

use super::job_control::Stops;
use super::{Progress, Supervisor};
use crate::child::{Leader, Run, is_ready};
use crate::command::{self, Command};
use crate::helpers::{HelperKind, Helpers};
use crate::options::Pid1;
use crate::terminal::Terminals;
use crate::{init, namespaces, watchdog};
use srt_common::exec::Program;
use srt_common::fds::{self, KeptFds};
use srt_common::startup::{self, GO, JOIN};
use srt_common::sys::process::pidfd_open;
use srt_common::sys::socket::{Message, setsockopt, socketpair};
use srt_common::{Context, Error, Result, privileges};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long srt-relay may take to accept connections.
const ACCEPT: Duration = Duration::from_secs(10);

/// What is still missing before the command may run.
#[derive(Debug)]
pub(super) struct Start {
    /// Here the command sends its pid, and the one child inside waits for the network namespace: srt-init, which then
    /// lets the command run, or the command itself.
    pub(super) socket: OwnedFd,
    /// The command becomes srt-mount.
    mount_stage: bool,
    /// The network namespace, unless it is shared or already sent.
    network: Option<File>,
    /// Nothing else is missing, and the supervisor has given up all that the command could use.
    locked_down: bool,
    /// The command has entered the network namespace, as it must before its pid is reported. Otherwise it enters last.
    pub(super) joined: bool,
    /// When srt-relay must accept, or else the start fails.
    deadline: Instant,
}

impl<'a> Supervisor<'a> {
    /// Forks srt-init and the command, or the command as PID 1.
    ///
    /// # Errors
    /// Any error of the start. Nothing runs inside then.
    pub fn launch(
        run: Run<'a>,
        program: &Program,
        kept: KeptFds,
        signals: OwnedFd,
        terminals: Terminals,
        helpers: Helpers,
    ) -> Result<Self> {
        let (socket, theirs) = socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?;
        // unix(7): the command's message carries its pid as seen here, which the command itself does not know.
        setsockopt(&socket, libc::SOL_SOCKET, libc::SO_PASSCRED, &1).context(|| "SO_PASSCRED")?;
        let Run { tool, plan, .. } = run;
        let mount_stage = command::mount_stage(program);
        let start = Start {
            socket,
            mount_stage: mount_stage.is_some(),
            network: None,
            locked_down: false,
            joined: plan.shares(libc::CLONE_NEWNET) || tool.status.is_none(),
            deadline: Instant::now() + ACCEPT,
        };
        let joined_paths = helpers.joined_paths(plan);
        let command = Command { run, program, mount_stage, joined_paths, kept, terminals: &terminals };
        let (child, reports) = if plan.pid1 == Pid1::Command {
            let pid = command.fork(&theirs, &theirs, &start.socket)?;
            if let Some(watchdog) = helpers.of(HelperKind::Watchdog) {
                let pidfd = pidfd_open(pid).context(|| "pidfd_open of the command")?;
                watchdog::kill_on_death(&watchdog.channel, &pidfd)?;
            }
            (pid, None)
        } else {
            let (pid, reports) = init::start(command, &start.socket, theirs)?;
            // srt-init must fork the command before this process is busy with the network namespace: a scheduler that
            // keeps a new process on its parent's CPU would otherwise let both wait for this one, while another CPU is
            // idle.
            std::thread::yield_now();
            (pid, Some(reports))
        };
        let (child, start) = (Some(child), Some(start));
        let (progress, stops) = (Progress::default(), Stops::default());
        Ok(Self { run, signals, terminals, helpers, child, reports, start, command: None, progress, stops })
    }

    /// Creates the network namespace while the forked processes get ready.
    pub(super) fn make_network(&mut self) -> Result<()> {
        let network = namespaces::enter_network(self.run.plan.options.share)?;
        self.helpers.announce(network.as_ref())?;
        if let Some(start) = &mut self.start {
            start.network = network;
        }
        Ok(())
    }

    /// Continues the start when something that was missing has become ready.
    pub(super) fn step(&mut self) -> Result<()> {
        let Some(start) = &mut self.start else { return Ok(()) };
        if is_ready(&start.socket, libc::POLLIN) {
            let socket = &start.socket;
            match startup::receive(socket, libc::MSG_DONTWAIT).context(|| "recvmsg from the command")? {
                // The command has failed and printed why. Its end follows, which srt-init reports.
                Message { byte: None, .. } => {
                    self.start = None;
                    return Ok(());
                }
                Message { .. } if self.command.is_some() => start.joined = true,
                Message { pid, mut fds, .. } => {
                    let pid = pid.ok_or_else(|| Error::failed("no pid came from the command"))?;
                    let pidfd = match (self.run.plan.pid1, fds.pop()) {
                        // Only this process reaps the command. The descriptor may be the root directory meant for
                        // srt-init.
                        (Pid1::Command, _) => pidfd_open(pid).context(|| "pidfd_open of the command")?,
                        (_, pidfd) => pidfd.ok_or_else(|| Error::failed("no pidfd came from the command"))?,
                    };
                    self.command = Some(Leader { pid, pidfd });
                }
            }
        }
        self.helpers.look();
        let lost = self.helpers.lost();
        if lost.is_some() {
            // The helper has closed its pipe; its exit status, which follows, says more.
            start.deadline = start.deadline.min(Instant::now() + Duration::from_millis(500));
        }
        if self.start_deadline().is_some_and(|at| at <= Instant::now()) {
            return Err(Error::failed(match lost {
                None => format!("srt-relay is not ready after {} seconds", ACCEPT.as_secs()),
                Some(helper) => format!("{} ended before the command could start", helper.name),
            }));
        }
        if self.command.is_some() && self.helpers.are_ready()? { self.let_the_command_run() } else { Ok(()) }
    }

    /// Gives up all that the command could use, then lets the command run.
    fn let_the_command_run(&mut self) -> Result<()> {
        let what = || "sendmsg of the network namespace";
        let Some(start) = &mut self.start else { return Ok(()) };
        if !start.locked_down {
            // In this order, so that ptrace(2) access is refused throughout: first because of the capabilities, then
            // because the process is not dumpable.
            privileges::clear_dumpable()?;
            privileges::drop_held()?;
            fds::never_wait(std::mem::take(&mut self.terminals.own));
            start.locked_down = true;
            if let Some(network) = start.network.take_if(|_| !start.joined) {
                startup::answer(&start.socket, JOIN, Some(network.as_fd())).context(what)?;
            }
        }
        let Some(start) = self.start.take_if(|start| start.joined) else { return Ok(()) };
        let pid = self.command.as_ref().map_or(0, |command| command.pid);
        let tool = self.run.tool;
        tool.tell("started", |event| event.number("pid", pid).numbers("namespaces", namespaces::inodes()));
        if start.mount_stage {
            // It becomes srt-mount without waiting for this message.
            tool.tell("exec", |event| event);
        }
        let network = start.network.as_ref().map(AsFd::as_fd);
        startup::answer(&start.socket, GO, network).context(what)
    }

    /// When srt-relay must accept at the latest, or a helper that will not become ready must have ended.
    pub(super) fn start_deadline(&self) -> Option<Instant> {
        let start = self.start.as_ref()?;
        let waits = self.helpers.of(HelperKind::Relay).is_some_and(|relay| relay.ready != Some(true));
        (waits || self.helpers.lost().is_some()).then_some(start.deadline)
    }
}
