//! The helper processes: srt-relay, sidecars, the watchdog. They are in the host's pid namespace, so that the command can
//! neither see nor signal them; they are started before the command, and ended together.

use crate::child::{self, Leader, Lifeline, is_ready};
use crate::options::{Pid1, Plan, Session};
use crate::placeholder::{self, Place};
use crate::relay::{HostSide, Relay};
use crate::signals::Inherited;
use crate::watchdog::{self, Charge, Watchdog};
use srt_common::error::strerror;
use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::handover;
use srt_common::sys::fd::{pipe2, write};
use srt_common::sys::file::statx;
use srt_common::sys::mount::unshare;
use srt_common::sys::process::{self, End, Pid, kill, pidfd_open, waitid};
use srt_common::sys::socket::socketpair;
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, privileges};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// A shell command that runs where the relays run, with the host's files.
#[derive(Debug)]
struct Sidecar {
    pid: Pid,
    name: String,
    /// Readable once the shell runs (its end, since it is close-on-exec), or could not be run. `None`: it was.
    exec: Option<File>,
    /// The shell runs.
    runs: bool,
    /// It could not be run, and has said why.
    told: bool,
}

/// The running helpers.
#[derive(Debug, Default)]
pub struct Helpers {
    host: Option<HostSide>,
    placeholders: Vec<Place>,
    /// srt-relay.
    pub relay: Option<Relay>,
    sidecars: Vec<Sidecar>,
    shells: Vec<Leader>,
    /// The watchdog.
    pub watchdog: Option<Watchdog>,
    /// Where helpers wait for the network namespace: ours, theirs, and how many wait.
    network: Option<(OwnedFd, OwnedFd)>,
    waiting: usize,
}

impl Helpers {
    /// Takes the sockets on the host that srt-relay will use.
    ///
    /// # Errors
    /// What socketpair(2) says.
    pub fn new(plan: &Plan, host: Option<HostSide>) -> Result<Self> {
        let mut helpers = Self::default();
        helpers.host = host;
        helpers.placeholders = placeholder::prepare(plan)?;
        if helpers.host.is_some() || !plan.sidecars.is_empty() {
            helpers.network = Some(socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?);
        }
        Ok(helpers)
    }

    /// What was opened on the host by its path, as srt-mount's `--joined-path`: it knows what the sandbox may write, and
    /// refuses a way there that leads elsewhere now or through a link that an earlier run could have left.
    ///
    /// # Errors
    /// statx(2).
    pub fn joined_paths(&self, plan: &Plan) -> Result<Vec<OsString>> {
        let mut words: Vec<OsString> = vec![];
        let mut add = |text: &str, path: &Path, id| {
            words.extend(["--joined-path".into(), text.into(), path.into(), handover::identity(id).into()]);
        };
        if let Some(host) = &self.host {
            for (link, pin) in plan.relays.iter().zip(&host.pins) {
                add(&link.text, &link.socket, statx(pin, c"").context(|| "statx")?.id);
            }
            for (link, place) in plan.publish.iter().zip(&host.published) {
                add(&link.text, &link.socket, place.id());
            }
        }
        for Place { wanted, parent_id, .. } in &self.placeholders {
            add(&wanted.text, &wanted.parent, *parent_id);
        }
        Ok(words)
    }

    /// Starts the sidecars, in the user namespace above the command's.
    ///
    /// # Errors
    /// What cannot be started; what was started before ends with this value.
    pub fn start_sidecars(
        &mut self,
        tool: &Tool,
        plan: &Plan,
        life: &Lifeline,
        inherited: Inherited,
    ) -> Result<()> {
        for command in &plan.sidecars {
            let Some((_, network)) = &self.network else { continue };
            let shell = Program::new(&["/bin/sh".into(), "-c".into(), command.clone()])?;
            let (exec, failed) = pipe2(0).context(|| "pipe")?;
            let pid = child::spawn(tool, "a sidecar", life, || {
                become_shell(&shell, network, inherited).map_err(|error| {
                    let _gone = write(&failed, b"!");
                    error.within("--sidecar")
                })
            })?;
            let name = format!("--sidecar {}", command.display());
            self.sidecars.push(Sidecar { pid, name, exec: Some(exec.into()), runs: false, told: false });
            self.shells.push(Leader { pid, pidfd: pidfd_open(pid).context(|| "pidfd_open of a sidecar")? });
            self.waiting += 1;
        }
        Ok(())
    }

    /// Starts the watchdog and srt-relay, where there is something for them to do. Before the pid namespace: helpers stay
    /// in the host's.
    ///
    /// # Errors
    /// What cannot be started; what was started before ends with this value. False: the watchdog could not make a
    /// placeholder, and has said why.
    pub fn start(
        &mut self,
        tool: &Tool,
        plan: &Plan,
        life: &Lifeline,
        inherited: Inherited,
        wakers: Vec<(RawFd, libc::c_short)>,
    ) -> Result<bool> {
        if let (Some(host), Some((_, network))) = (&self.host, &self.network) {
            self.relay = Some(Relay::start(tool, plan, host, life, network, inherited)?);
            self.waiting += 1;
        }
        if !(plan.publish.is_empty() && plan.sidecars.is_empty() && plan.placeholders.is_empty())
            || plan.pid1 == Pid1::Command
            || plan.session == Session::Keep
            || !plan.lifetime_fds.is_empty()
        {
            let published = self.host.as_ref().map_or(&[][..], |host| &host.published);
            let placeholders = &self.placeholders;
            let charge = Charge { published, placeholders, sidecars: &self.shells, wakers };
            self.watchdog = Some(Watchdog::start(tool, life, &charge)?);
        }
        match &mut self.watchdog {
            // srt-mount must find them.
            Some(watchdog) if !self.placeholders.is_empty() => {
                let stand = watchdog.wait()?;
                self.placeholders.iter_mut().for_each(Place::remember);
                Ok(stand)
            }
            _ => Ok(true),
        }
    }

    /// Tells every helper that waits for it that the network namespace is there.
    ///
    /// # Errors
    /// What sendmsg(2) says.
    pub fn announce(&mut self, network: Option<&File>) -> Result<()> {
        let Some((socket, _)) = self.network.take() else { return Ok(()) };
        for _ in 0..std::mem::take(&mut self.waiting) {
            handover::go(&socket, network.map(AsFd::as_fd)).context(|| "sendmsg to a helper")?;
        }
        Ok(())
    }

    /// What becomes readable when a helper gets ready.
    pub fn getting_ready(&self) -> impl Iterator<Item = RawFd> {
        let relay = self.relay.iter().filter_map(|relay| relay.ready.as_ref());
        let sidecars = self.sidecars.iter().filter_map(|sidecar| sidecar.exec.as_ref());
        let watchdog = self.watchdog.iter().filter(|watchdog| !watchdog.locked_down);
        let files = relay.chain(sidecars).map(AsRawFd::as_raw_fd);
        files.chain(watchdog.map(|watchdog| watchdog.orders.as_raw_fd()))
    }

    /// Looks which of them are. One that is gone instead is not: its end tells how. True: srt-relay will not be ready.
    pub fn look(&mut self) -> bool {
        let mut gone = false;
        if let Some(relay) = &mut self.relay
            && relay.ready.as_ref().is_some_and(|ready| is_ready(ready, libc::POLLIN))
        {
            relay.read_ready();
            gone = !relay.accepts;
        }
        for sidecar in &mut self.sidecars {
            if let Some(mut exec) = sidecar.exec.take_if(|exec| is_ready(exec, libc::POLLIN)) {
                sidecar.runs = exec.read(&mut [0]).is_ok_and(|length| length == 0);
                sidecar.told = !sidecar.runs;
            }
        }
        if let Some(watchdog) = &mut self.watchdog
            && !watchdog.locked_down
            && is_ready(&watchdog.orders, libc::POLLIN)
        {
            watchdog.read();
        }
        gone
    }

    /// Whether all that was asked for is there, before the command may run.
    ///
    /// # Errors
    /// A helper that is dead already.
    pub fn are_ready(&self) -> Result<bool> {
        if self.relay.as_ref().is_some_and(|relay| !relay.accepts)
            || self.watchdog.as_ref().is_some_and(|watchdog| !watchdog.locked_down)
            || self.sidecars.iter().any(|sidecar| !sidecar.runs)
        {
            return Ok(false);
        }
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let dead =
            |sidecar: &&Sidecar| waitid(Some(sidecar.pid), options).map_or(true, |change| change.is_some());
        match self.sidecars.iter().find(dead) {
            Some(Sidecar { name, .. }) => {
                Err(Error::failed(format!("{name}: ended before the command could start")))
            }
            None => Ok(true),
        }
    }

    /// Reads what srt-relay reports and passes it on: to the status descriptor if there is one, else to the user.
    pub fn read_reports(&mut self, tool: &Tool) {
        let reports = self.relay.as_mut().map_or(vec![], Relay::read_reports);
        for (name, report) in reports {
            let (event, why) = if report.lost {
                ("relay-lost", "its socket is gone or was made anew".to_owned())
            } else {
                let error = std::io::Error::from_raw_os_error(report.errno);
                ("connect-failed", format!("cannot connect: {}", strerror(&error)))
            };
            tell(tool, event, "relay", &name, &why);
        }
    }

    /// A child was reaped while the command runs. False: it was the watchdog, without which nothing is safe.
    pub fn ended(&mut self, pid: Pid, end: End, tool: &Tool) -> bool {
        if let Some(relay) = self.relay.take_if(|relay| relay.pid == pid) {
            for name in relay.names() {
                tell(tool, "relay-lost", "relay", name, &format!("srt-relay ended: {end}"));
            }
        }
        if let Some(at) = self.sidecars.iter().position(|sidecar| sidecar.pid == pid) {
            let Sidecar { name, .. } = self.sidecars.remove(at);
            tell(tool, "sidecar-ended", "sidecar", &name, &format!("ended before the command: {end}"));
        }
        self.watchdog.take_if(|watchdog| watchdog.pid == pid).is_none()
    }

    /// A child was reaped before the command could run: what it was called, and whether it has said why. `None`: it is none
    /// of ours, but one that this process had before it became srt-ns.
    pub fn forget(&mut self, pid: Pid, end: End) -> Option<(String, bool)> {
        let _too_late = self.look();
        let told = end == End::Exited(125);
        if self.relay.take_if(|relay| relay.pid == pid).is_some() {
            return Some(("srt-relay".to_owned(), told));
        }
        if self.watchdog.take_if(|watchdog| watchdog.pid == pid).is_some() {
            return Some(("the watchdog".to_owned(), told));
        }
        let sidecar = self.sidecars.iter().position(|sidecar| sidecar.pid == pid)?;
        let sidecar = self.sidecars.remove(sidecar);
        Some((format!("{}:", sidecar.name), sidecar.told))
    }

    /// What a sidecar's shell has left running goes with it. Before the shell is reaped, while its number is its own.
    pub fn sidecar_is_dead(&self, pid: Pid) {
        if self.sidecars.iter().any(|sidecar| sidecar.pid == pid) {
            let _empty = kill(-pid, libc::SIGKILL);
        }
    }

    /// Tells which placeholders others have removed while the sandbox ran.
    pub fn report_lost_placeholders(&self, tool: &Tool) {
        for place in self.placeholders.iter().filter(|place| place.is_lost()) {
            tell(tool, "placeholder-lost", "placeholder", &place.wanted.text, LOST);
        }
    }

    /// Ends all, and waits for their ends.
    pub fn end(&mut self) {
        let placeholders = std::mem::take(&mut self.placeholders);
        if !placeholders.is_empty() {
            self.watchdog.as_ref().inspect(|watchdog| watchdog.release());
        }
        let sidecars = std::mem::take(&mut self.sidecars);
        for Sidecar { pid, .. } in &sidecars {
            // The shell first: it may not lead its group yet, and cannot fork any more when it comes to do so.
            let _dead = kill(*pid, libc::SIGKILL);
            let _empty = kill(-pid, libc::SIGKILL);
        }
        let others =
            [self.relay.take().map(|relay| relay.pid), self.watchdog.take().map(|watchdog| watchdog.pid)];
        let others: Vec<_> = others.into_iter().flatten().collect();
        others.iter().for_each(|&pid| drop(kill(pid, libc::SIGKILL)));
        for pid in sidecars.iter().map(|sidecar| sidecar.pid).chain(others) {
            while waitid(Some(pid), libc::WEXITED)
                .is_err_and(|error| error.raw_os_error() == Some(libc::EINTR))
            {}
        }
        // Only now: a watchdog that was killed has its locks until it is dead.
        placeholders.iter().for_each(Place::clean);
        self.host = None;
    }
}

const LOST: &str = "it was removed or replaced while the sandbox ran: what was mounted over it is gone, too";

/// Also after a start that fails half-way.
impl Drop for Helpers {
    fn drop(&mut self) {
        self.end();
    }
}

/// On the status descriptor alone, where there is one: stderr is the command's, too.
fn tell(tool: &Tool, event: &str, key: &str, name: &str, why: &str) {
    match tool.status {
        Some(_) => tool.tell(event, |event| event.text(key, name).text("message", why)),
        None => tool.warn(&Error::failed(format!("{name}: {why}"))),
    }
}

/// Should: leave `/bin/sh` no capability, no descriptor but 0, 1, 2, and the sandbox's network. Mustn't: let it into the
/// command's user namespace, from which /proc/PID/root of it could be entered.
fn become_shell(shell: &Program, network: &OwnedFd, inherited: Inherited) -> Result<Infallible> {
    child::silence()?;
    unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP).context(|| "unshare")?;
    if !handover::wait(network, &handover::own_namespaces()?)? {
        process::exit(125);
    }
    inherited.restore()?;
    privileges::drop_all()?;
    Kept::default().alone_survive_exec()?;
    Err(shell.exec(&shell.candidates()))
}

/// The error for a watchdog that is gone.
pub fn watchdog_gone() -> Error {
    watchdog::gone()
}
