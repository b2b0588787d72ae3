//! All that runs beside the sandbox, started in the order in which it is needed, ended together.

use crate::guardian::Guardian;
use crate::options::{Pid1, Plan};
use crate::relays::{HostSide, Relay};
use crate::sidecar;
use crate::supervisor::End;
use crate::sys::{self, Inherited, Pid};
use srt_common::status::Event;
use srt_common::tool::Tool;
use srt_common::{Error, Result};
use std::os::fd::BorrowedFd;

/// The running companions.
#[derive(Debug, Default)]
pub struct Beside {
    host: Option<HostSide>,
    relay: Option<Relay>,
    sidecars: Vec<(Pid, String)>,
    guardian: Option<Guardian>,
    silent: bool,
}

impl Beside {
    /// Starts what the plan asks for. Comes after the namespaces, and before the pid namespace: companions stay in the
    /// host's.
    ///
    /// # Errors
    /// Whatever cannot be started; what was started before ends with this process.
    pub fn start(tool: &Tool, plan: &Plan, host: Option<HostSide>, inherited: Inherited) -> Result<Self> {
        let mut beside = Self::default();
        beside.host = host;
        beside.start_all(tool, plan, inherited)?;
        Ok(beside)
    }

    fn start_all(&mut self, tool: &Tool, plan: &Plan, inherited: Inherited) -> Result<()> {
        if !(plan.publish.is_empty() && plan.sidecars.is_empty()) || plan.pid1 == Pid1::Command {
            let published = self.host.as_ref().map_or(&[][..], |host| &host.published);
            self.guardian = Some(Guardian::start(tool, published)?);
        }
        if let Some(host) = &self.host {
            self.relay = Some(Relay::start(tool, plan, host, inherited)?);
        }
        for command in &plan.sidecars {
            let pid = sidecar::start(tool, command, inherited)?;
            self.sidecars.push((pid, format!("--sidecar {}", command.display())));
            self.shall_not_outlive(-pid)?;
        }
        Ok(())
    }

    /// A process (negative: a process group) that must not outlive the supervisor, however that ends; said again: it
    /// has ended.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub fn shall_not_outlive(&mut self, pid: Pid) -> Result<()> {
        self.guardian.as_mut().map_or(Ok(()), |guardian| guardian.shall_kill(pid))
    }

    /// The last look before the command may run: everything that was asked for is there.
    ///
    /// # Errors
    /// When something has ended already.
    pub fn ready(&mut self) -> Result<()> {
        if let Some(relay) = &mut self.relay {
            relay.wait_until_ready()?;
        }
        match self.sidecars.iter().find(|(pid, _)| sys::has_ended(*pid)) {
            Some((_, name)) => Err(Error::failed(format!("{name}: ended before the command could start"))),
            None => Ok(()),
        }
    }

    /// Readable when srt-relay has something to tell.
    pub fn news(&self) -> Option<BorrowedFd<'_>> {
        self.relay.as_ref().filter(|_| !self.silent).map(Relay::news)
    }

    /// Reads it.
    pub fn read_news(&mut self, tool: &Tool) {
        self.silent = self.relay.as_mut().is_none_or(|relay| !relay.read_news(tool));
    }

    /// A child was reaped while the command runs. False: it was the guardian, without which nothing is safe.
    pub fn ended(&mut self, pid: Pid, end: End, tool: &Tool) -> bool {
        if let Some(relay) = self.relay.take_if(|relay| relay.pid == pid) {
            relay.ended(end, tool);
        }
        if let Some(at) = self.sidecars.iter().position(|sidecar| sidecar.0 == pid) {
            let (group, name) = self.sidecars.remove(at);
            // What its shell has left running goes with it: nobody would know of it at the end.
            sys::kill(-group, libc::SIGKILL);
            let _gone = self.shall_not_outlive(-group);
            tool.warn(&Error::failed(format!("{name}: ended before the command: {end}")));
            if let Some(status) = tool.status {
                status.send(
                    &Event::new(tool.name, "relay-lost").text("relay", &name).text("message", "it ended"),
                );
            }
        }
        self.guardian.take_if(|guardian| guardian.pid() == pid).is_none()
    }

    /// Ends all, and waits for their ends.
    pub fn end(&mut self) {
        let sidecars = std::mem::take(&mut self.sidecars);
        sidecars.iter().for_each(|(group, _)| sys::kill(-group, libc::SIGKILL));
        let others =
            [self.relay.take().map(|relay| relay.pid), self.guardian.take().map(|guardian| guardian.pid())];
        let others: Vec<_> = others.into_iter().flatten().collect();
        others.iter().for_each(|&pid| sys::kill(pid, libc::SIGKILL));
        for pid in sidecars.iter().map(|sidecar| sidecar.0).chain(others) {
            sys::reap(pid);
        }
        self.host = None;
    }
}

/// Also after a start that fails half-way.
impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}
