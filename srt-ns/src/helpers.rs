//! The helper processes: srt-relay, sidecars, the watchdog. They are in the host's pid namespace, so that the command can
//! neither see nor signal them; they are started before the command, and ended together.

use crate::child::{self, Leader, Life, Run, gets_ready};
use crate::options::{Pid1, Plan};
use crate::placeholder::{self, Place};
use crate::relay::{self, HostSide, Reports};
use crate::signals::Inherited;
use crate::watchdog::{self, Charge};
use srt_common::args::Raw;
use srt_common::error::strerror;
use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::handover;
use srt_common::report::Report;
use srt_common::sys::fd::{pipe2, read, write};
use srt_common::sys::file::statx;
use srt_common::sys::mount::unshare;
use srt_common::sys::process::{self, End, Pid, kill, pidfd_open, waitid};
use srt_common::sys::socket::socketpair;
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, privileges};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// What a helper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// srt-relay.
    Relay,
    /// A shell command that runs where the relays run, with the host's files.
    Sidecar,
    /// The watchdog.
    Watchdog,
}

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    /// What it is.
    pub kind: Kind,
    /// Its number, and its process group's.
    pub pid: Pid,
    /// What messages call it.
    pub name: String,
    /// Readable once it is ready, or gone.
    pub channel: OwnedFd,
    /// Whether it is. `None`: there was nothing to read yet.
    pub ready: Option<bool>,
}

impl Helper {
    /// One that was just forked.
    pub fn new(kind: Kind, pid: Pid, name: impl Into<String>, channel: OwnedFd) -> Self {
        Self { kind, pid, name: name.into(), channel, ready: None }
    }

    /// Looks, for so long, whether it is ready. One that is gone instead is not: its end tells how.
    pub fn look(&mut self, patience: Duration) {
        if self.ready.is_none() && gets_ready(&self.channel, libc::POLLIN, patience) {
            let expected: &[u8] = match self.kind {
                Kind::Relay => b"ready\n",
                // The end of the pipe, which is close-on-exec: the shell runs.
                Kind::Sidecar => b"",
                Kind::Watchdog => &[watchdog::LOCKED_DOWN],
            };
            let mut word = [0; 8];
            let length = read(&self.channel, &mut word);
            self.ready = Some(length.is_ok_and(|length| word.get(..length) == Some(expected)));
        }
    }

    /// Whether it has said itself why it ended before the command could run. A sidecar's shell may exit as it likes.
    pub fn has_told(&self, end: End) -> bool {
        if self.kind == Kind::Sidecar { self.ready == Some(false) } else { end == End::Exited(125) }
    }
}

/// The running helpers, and what they need.
#[derive(Debug)]
pub struct Helpers {
    host: Option<HostSide>,
    placeholders: Vec<Place>,
    running: Vec<Helper>,
    /// What srt-relay reports.
    pub reports: Option<Reports>,
    /// The sidecars' shells, for the watchdog.
    shells: Vec<Leader>,
    /// Where helpers wait for the network namespace: ours, theirs.
    network: Option<(OwnedFd, OwnedFd)>,
}

impl Helpers {
    /// Takes the places on the host that they will use.
    ///
    /// # Errors
    /// A place that cannot be had, or what socketpair(2) says.
    pub fn new(plan: &Plan) -> Result<Self> {
        let host = HostSide::prepare(plan)?;
        let placeholders = placeholder::prepare(plan)?;
        let wanted = host.is_some() || !plan.options.sidecar.is_empty();
        let network =
            wanted.then(|| socketpair(libc::SOCK_SEQPACKET)).transpose().context(|| "socketpair")?;
        Ok(Self { host, placeholders, running: vec![], reports: None, shells: vec![], network })
    }

    /// The one of this kind, if there is one: the relay, or the watchdog.
    pub fn of(&self, kind: Kind) -> Option<&Helper> {
        self.running.iter().find(|helper| helper.kind == kind)
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
    pub fn start_sidecars(&mut self, run: Run<'_>) -> Result<()> {
        let Some((_, network)) = &self.network else { return Ok(()) };
        for Raw(command) in &run.plan.options.sidecar {
            let shell = Program::new(&["/bin/sh".into(), "-c".into(), command.clone()])?;
            let (channel, failed) = pipe2(0).context(|| "pipe")?;
            let pid = child::spawn(run, "a sidecar", || {
                become_shell(&shell, network, run.inherited).map_err(|error| {
                    let _gone = write(&failed, b"!");
                    error.within("--sidecar")
                })
            })?;
            let name = format!("--sidecar {}", command.display());
            self.running.push(Helper::new(Kind::Sidecar, pid, name, channel));
            self.shells.push(Leader { pid, pidfd: pidfd_open(pid).context(|| "pidfd_open of a sidecar")? });
        }
        Ok(())
    }

    /// Starts srt-relay and the watchdog, where there is something for them to do. Before the pid namespace: helpers stay
    /// in the host's.
    ///
    /// # Errors
    /// What cannot be started; what was started before ends with this value. False: the watchdog could not make a
    /// placeholder, and has said why.
    pub fn start(&mut self, run: Run<'_>, lives: &[Life<'_>]) -> Result<bool> {
        let plan = run.plan;
        if let (Some(host), Some((_, network))) = (&mut self.host, &self.network) {
            let (relay, reports) = relay::start(run, host, network)?;
            self.running.push(relay);
            self.reports = Some(reports);
        }
        if !(plan.publish.is_empty() && plan.options.sidecar.is_empty() && plan.placeholders.is_empty())
            || plan.pid1 == Pid1::Command
            || plan.options.keep_session
            || !plan.options.lifetime_fd.is_empty()
        {
            let published = self.host.as_ref().map_or(&[][..], |host| &host.published);
            let placeholders = &self.placeholders;
            let charge = Charge { published, placeholders, sidecars: &self.shells, lives };
            self.running.push(watchdog::start(run, &charge)?);
        }
        // srt-mount must find them.
        match self.running.last_mut() {
            Some(watchdog) if !self.placeholders.is_empty() => {
                let stand = watchdog::wait(watchdog)?;
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
        for _ in self.running.iter().filter(|helper| helper.kind != Kind::Watchdog) {
            handover::go(&socket, network.map(AsFd::as_fd)).context(|| "sendmsg to a helper")?;
        }
        Ok(())
    }

    /// What becomes readable when a helper gets ready.
    pub fn getting_ready(&self) -> impl Iterator<Item = RawFd> {
        self.running.iter().filter(|helper| helper.ready.is_none()).map(|helper| helper.channel.as_raw_fd())
    }

    /// Looks which of them are.
    pub fn look(&mut self) {
        self.running.iter_mut().for_each(|helper| helper.look(Duration::ZERO));
    }

    /// One that is not ready and will not be.
    pub fn lost(&self) -> Option<&Helper> {
        self.running.iter().find(|helper| helper.ready == Some(false))
    }

    /// Whether all that was asked for is there, before the command may run.
    ///
    /// # Errors
    /// A sidecar that is dead already.
    pub fn are_ready(&self) -> Result<bool> {
        if self.running.iter().any(|helper| helper.ready != Some(true)) {
            return Ok(false);
        }
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let is_dead =
            |sidecar: &&Helper| waitid(Some(sidecar.pid), options).map_or(true, |change| change.is_some());
        match self.running.iter().filter(|helper| helper.kind == Kind::Sidecar).find(is_dead) {
            Some(Helper { name, .. }) => {
                Err(Error::failed(format!("{name}: ended before the command could start")))
            }
            None => Ok(true),
        }
    }

    /// Reads what srt-relay reports and passes it on: to the status descriptor if there is one, else to the user.
    pub fn read_reports(&mut self, run: Run<'_>) {
        let Some(reports) = &mut self.reports else { return };
        let Some(reports) = reports.read() else { return self.reports = None };
        for Report { pair, lost, errno } in reports {
            let Some(link) = relay::link_of(run.plan, pair) else { continue };
            if lost {
                tell(run.tool, "relay-lost", "relay", &link.text, "its socket is gone or was made anew");
            } else {
                let why = strerror(&io::Error::from_raw_os_error(errno));
                tell(run.tool, "connect-failed", "relay", &link.text, &format!("cannot connect: {why}"));
            }
        }
    }

    /// What a helper that is dead has left running goes with it: a sidecar's shell. Before it is reaped, while its number is
    /// its own.
    pub fn end_group(&self, pid: Pid) {
        if self.running.iter().any(|helper| helper.pid == pid) {
            let _empty = kill(-pid, libc::SIGKILL);
        }
    }

    /// A child was reaped: which helper it was. `None`: it is none, but one that this process had before it became srt-ns.
    pub fn forget(&mut self, pid: Pid) -> Option<Helper> {
        let at = self.running.iter().position(|helper| helper.pid == pid)?;
        let mut helper = self.running.remove(at);
        helper.look(Duration::ZERO);
        Some(helper)
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
            self.of(Kind::Watchdog).inspect(|watchdog| watchdog::release(watchdog));
        }
        let running = std::mem::take(&mut self.running);
        for Helper { pid, .. } in &running {
            // Itself first: it may not lead its group yet, and cannot fork any more when it comes to do so.
            let _dead = kill(*pid, libc::SIGKILL);
            let _empty = kill(-pid, libc::SIGKILL);
        }
        for Helper { pid, .. } in &running {
            let _reaped = waitid(Some(*pid), libc::WEXITED);
        }
        // Only now: a watchdog that was killed has its locks until it is dead.
        placeholders.iter().for_each(Place::clean);
        self.host = None;
    }
}

/// Tells that a helper has ended before the command. Not of the watchdog: without it nothing is safe.
pub fn tell_end(run: Run<'_>, helper: &Helper, end: End) {
    if helper.kind == Kind::Sidecar {
        let why = format!("ended before the command: {end}");
        tell(run.tool, "sidecar-ended", "sidecar", &helper.name, &why);
    } else {
        for link in run.plan.links() {
            tell(run.tool, "relay-lost", "relay", &link.text, &format!("srt-relay ended: {end}"));
        }
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
