//! The helper processes: srt-relay, sidecars, the watchdog. They are in the host's pid namespace, so that the command
//! can neither see nor signal them. They are started before the command, and ended together.

use crate::child::{self, Leader, Run, gets_ready, is_ready};
use crate::options::{Pid1, Plan};
use crate::placeholder::{self, Place};
use crate::relay::{self, HostSide, Reports};
use crate::signals::Inherited;
use crate::watchdog::{self, Leftovers};
use srt_common::args::Raw;
use srt_common::error::strerror;
use srt_common::exec::Program;
use srt_common::fds::{KeptFds, open_again};
use srt_common::relay_report::Report;
use srt_common::startup;
use srt_common::sys::fd::{fcntl, pipe2, read, write};
use srt_common::sys::mount::unshare;
use srt_common::sys::process::{self, Change, End, Pid, kill, pidfd_open, waitid};
use srt_common::sys::socket::socketpair;
use srt_common::sys::tty::ioctl_get;
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, privileges};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// The kinds of helpers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperKind {
    /// srt-relay.
    Relay,
    /// A shell command that runs in the sandbox's network namespace, like the relays, but with the host's files.
    Sidecar,
    /// The watchdog.
    Watchdog,
}

/// How long the watchdog may take to create the placeholders.
const START: Duration = Duration::from_secs(10);

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    /// Its kind.
    pub kind: HelperKind,
    /// Its pid, which is also the id of its process group.
    pub pid: Pid,
    /// Its name in messages.
    pub name: String,
    /// Becomes readable when the helper is ready, or has ended.
    pub channel: OwnedFd,
    /// Whether the helper is ready. `None`: nothing could be read yet.
    pub ready: Option<bool>,
}

impl Helper {
    fn new(kind: HelperKind, name: impl Into<String>, pid: Pid, channel: OwnedFd) -> Self {
        Self { kind, pid, name: name.into(), channel, ready: None }
    }

    /// Waits up to `timeout` for the helper to become ready. If it has ended instead, it is not ready; its exit status
    /// shows why.
    pub fn look(&mut self, timeout: Duration) {
        if self.ready.is_none() && gets_ready(&self.channel, libc::POLLIN, timeout) {
            let expected: &[u8] = match self.kind {
                HelperKind::Relay => b"ready\n",
                // End of file: the pipe is close-on-exec, so the shell has been executed.
                HelperKind::Sidecar => b"",
                HelperKind::Watchdog => &[watchdog::LOCKED_DOWN],
            };
            let mut word = [0; 8];
            let length = read(&self.channel, &mut word);
            self.ready = Some(length.is_ok_and(|length| word.get(..length) == Some(expected)));
        }
    }

    /// Whether the helper itself has printed why it ended before the command could run. A sidecar's shell may exit with
    /// any status.
    pub fn has_told(&self, end: End) -> bool {
        if self.kind == HelperKind::Sidecar { self.ready == Some(false) } else { end == End::Exited(125) }
    }
}

/// The running helpers, and what they need.
#[derive(Debug)]
pub struct Helpers {
    /// What srt-relay uses on the host.
    host: Option<HostSide>,
    /// The placeholders, for the watchdog to create and to remove.
    placeholders: Vec<Place>,
    running: Vec<Helper>,
    /// The reports of srt-relay.
    pub reports: Option<Reports>,
    /// The sidecars' shells, for the watchdog.
    shells: Vec<Leader>,
    /// Our end of the socket pair on which helpers wait for the network namespace.
    network: Option<OwnedFd>,
    /// Their end, until all are forked: if another process had it open, a message that no helper is left to read could
    /// block.
    theirs: Option<OwnedFd>,
}

impl Helpers {
    /// Opens or creates what the helpers will use on the host.
    ///
    /// # Errors
    /// A path that cannot be used, or any error from socketpair(2).
    pub fn new(plan: &Plan) -> Result<Self> {
        let host = HostSide::prepare(plan)?;
        let placeholders = placeholder::prepare(&plan.options.placeholder)?;
        let wanted = host.is_some() || !plan.options.sidecar.is_empty();
        let pair = wanted.then(|| socketpair(libc::SOCK_SEQPACKET)).transpose().context(|| "socketpair")?;
        let (network, theirs) = pair.unzip();
        Ok(Self { host, placeholders, running: vec![], reports: None, shells: vec![], network, theirs })
    }

    /// The running helper of this kind: the relay, or the watchdog.
    pub fn of(&self, kind: HelperKind) -> Option<&Helper> {
        self.running.iter().find(|helper| helper.kind == kind)
    }

    /// The paths that were opened on the host, as `--joined-path` options of srt-mount: it knows what the sandbox may
    /// write, and refuses a path that now leads elsewhere, or through a link that an earlier run could have left.
    pub fn joined_paths(&self, plan: &Plan) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![];
        let mut add = |text: &str, path: &Path, id| {
            words.extend(["--joined-path".into(), text.into(), path.into(), startup::identity(id).into()]);
        };
        if let Some(host) = &self.host {
            for (mapping, (_, id)) in plan.options.relay.iter().zip(&host.sockets) {
                add(&mapping.text, &mapping.socket, *id);
            }
            for (mapping, place) in plan.options.publish.iter().zip(&host.published) {
                add(&mapping.text, &mapping.socket, place.id);
            }
        }
        for Place { wanted, parent_id, .. } in &self.placeholders {
            add(&wanted.text, &wanted.parent, *parent_id);
        }
        words
    }

    /// Starts the sidecars, in the parent of the command's user namespace.
    ///
    /// # Errors
    /// A sidecar cannot be started. Those already running are killed when this value is dropped.
    pub fn start_sidecars(&mut self, run: Run<'_>) -> Result<()> {
        let Some(network) = &self.theirs else { return Ok(()) };
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
            self.running.push(Helper::new(HelperKind::Sidecar, name, pid, channel));
            self.shells.push(Leader { pid, pidfd: pidfd_open(pid).context(|| "pidfd_open of a sidecar")? });
        }
        Ok(())
    }

    /// Starts srt-relay and the watchdog, if they are needed. This comes before the new pid namespace, since helpers
    /// stay in the host's. False: the watchdog could not create a placeholder, and has printed why.
    ///
    /// # Errors
    /// A helper cannot be started. Those already running are killed when this value is dropped.
    pub fn start(&mut self, run: Run<'_>) -> Result<bool> {
        let options = &run.plan.options;
        let network = self.theirs.take();
        if let (Some(host), Some(network)) = (&mut self.host, network) {
            let (pid, channel, reports) = relay::start(run, host, &network)?;
            self.running.push(Helper::new(HelperKind::Relay, "srt-relay", pid, channel));
            self.reports = Some(reports);
        }
        if !(options.publish.is_empty() && options.sidecar.is_empty() && options.placeholder.is_empty())
            || run.plan.pid1 == Pid1::Command
            || options.keep_session
            || !options.lifetime_fd.is_empty()
        {
            let published = self.host.as_ref().map_or(&[][..], |host| &host.published);
            let leftovers = Leftovers { published, placeholders: &self.placeholders, shells: &self.shells };
            let (pid, channel) = watchdog::start(run, leftovers)?;
            let mut watchdog = Helper::new(HelperKind::Watchdog, "the watchdog", pid, channel);
            // srt-mount must find the placeholders.
            let stand = self.placeholders.is_empty() || wait_for_placeholders(&mut watchdog)?;
            self.placeholders.iter_mut().for_each(Place::remember);
            self.running.push(watchdog);
            return Ok(stand);
        }
        Ok(true)
    }

    /// Tells every helper that waits for the network namespace that it exists.
    ///
    /// # Errors
    /// Any error from sendmsg(2).
    pub fn announce(&mut self, network: Option<&File>) -> Result<()> {
        let Some(socket) = self.network.take() else { return Ok(()) };
        for _ in self.running.iter().filter(|helper| helper.kind != HelperKind::Watchdog) {
            startup::answer(&socket, startup::GO, network.map(AsFd::as_fd))
                .context(|| "sendmsg to a helper")?;
        }
        Ok(())
    }

    /// The descriptors that become readable when a helper becomes ready.
    pub fn getting_ready(&self) -> impl Iterator<Item = RawFd> {
        self.running.iter().filter(|helper| helper.ready.is_none()).map(|helper| helper.channel.as_raw_fd())
    }

    /// Checks which helpers are ready.
    pub fn look(&mut self) {
        self.running.iter_mut().for_each(|helper| helper.look(Duration::ZERO));
    }

    /// A helper that will never become ready.
    pub fn lost(&self) -> Option<&Helper> {
        self.running.iter().find(|helper| helper.ready == Some(false))
    }

    /// Whether all helpers are ready, so that the command may run.
    ///
    /// # Errors
    /// A sidecar has already ended.
    pub fn are_ready(&self) -> Result<bool> {
        if self.running.iter().any(|helper| helper.ready != Some(true)) {
            return Ok(false);
        }
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let is_dead =
            |sidecar: &&Helper| waitid(Some(sidecar.pid), options).map_or(true, |change| change.is_some());
        match self.running.iter().filter(|helper| helper.kind == HelperKind::Sidecar).find(is_dead) {
            Some(Helper { name, .. }) => {
                Err(Error::failed(format!("{name}: ended before the command could start")))
            }
            None => Ok(true),
        }
    }

    /// Reads the reports of srt-relay and passes them on: to the status descriptor if there is one, else to the user.
    pub fn read_reports(&mut self, run: Run<'_>) {
        let Some(reports) = &mut self.reports else { return };
        let Some(reports) = reports.read() else { return self.reports = None };
        for Report { pair, lost, errno } in reports {
            // The pairs of `become_relay`: with IPv6, each --relay has two.
            let Some(mapping) = run.plan.port_mappings().chain(&run.plan.options.relay).nth(pair) else {
                continue;
            };
            if lost {
                tell(run.tool, "relay-lost", "relay", &mapping.text, "its socket is gone or was replaced");
            } else {
                let why = strerror(&io::Error::from_raw_os_error(errno));
                tell(run.tool, "connect-failed", "relay", &mapping.text, &format!("cannot connect: {why}"));
            }
        }
    }

    /// Kills what a dead helper has left running in its process group, as a sidecar's shell may. Called before the
    /// helper is reaped, while its pid cannot be reused.
    pub fn end_group(&self, pid: Pid) {
        if self.running.iter().any(|helper| helper.pid == pid) {
            let _empty = kill(-pid, libc::SIGKILL);
        }
    }

    /// Removes a helper that was reaped. `None`: the child is not a helper, but one that this process had before it
    /// became srt-ns.
    pub fn forget(&mut self, pid: Pid) -> Option<Helper> {
        let at = self.running.iter().position(|helper| helper.pid == pid)?;
        let mut helper = self.running.remove(at);
        helper.look(Duration::ZERO);
        Some(helper)
    }

    /// Reports the placeholders that other processes have removed or replaced while the sandbox ran.
    pub fn report_lost_placeholders(&self, tool: &Tool) {
        for place in self.placeholders.iter().filter(|place| place.is_lost()) {
            tell(tool, "placeholder-lost", "placeholder", &place.wanted.text, LOST);
        }
    }
}

/// Kills all helpers and waits for them: at the end, and if the start fails half-way. What they use on the host is
/// removed last.
impl Drop for Helpers {
    fn drop(&mut self) {
        let published = self.host.as_ref().is_some_and(|host| !host.published.is_empty());
        if published || !self.placeholders.is_empty() {
            self.of(HelperKind::Watchdog).inspect(|watchdog| watchdog::release(&watchdog.channel));
        }
        for Helper { pid, .. } in &self.running {
            // The process first: it may not lead its process group yet, and once killed it cannot fork any more.
            let _dead = kill(*pid, libc::SIGKILL);
            let _empty = kill(-pid, libc::SIGKILL);
        }
        for Helper { pid, .. } in &self.running {
            let _reaped = waitid(Some(*pid), libc::WEXITED);
        }
        // Only now: a killed watchdog holds its locks until it is dead.
        self.placeholders.iter().for_each(Place::clean);
    }
}

/// Waits until the watchdog has locked itself down, with every placeholder in place. False: it failed, and has printed
/// why.
///
/// # Errors
/// The watchdog is gone, or does not answer.
fn wait_for_placeholders(watchdog: &mut Helper) -> Result<bool> {
    watchdog.look(START);
    if watchdog.ready == Some(true) {
        return Ok(true);
    }
    let _dead = kill(watchdog.pid, libc::SIGKILL);
    match waitid(Some(watchdog.pid), libc::WEXITED | libc::WNOWAIT) {
        Ok(Some((_, Change::Ended(End::Exited(125))))) => Ok(false),
        _ => Err(watchdog::gone()),
    }
}

/// Reports that a helper has ended before the command. Not for the watchdog, without which the sandbox is not safe.
pub fn tell_end(run: Run<'_>, helper: &Helper, end: End) {
    if helper.kind == HelperKind::Sidecar {
        let why = format!("ended before the command: {end}");
        tell(run.tool, "sidecar-ended", "sidecar", &helper.name, &why);
    } else {
        for mapping in run.plan.port_mappings() {
            tell(run.tool, "relay-lost", "relay", &mapping.text, &format!("srt-relay ended: {end}"));
        }
    }
}

const LOST: &str = "it was removed or replaced while the sandbox ran: what was mounted over it is gone, too";

/// Whether the status descriptor has room for more than this event. The command can make any number of connections fail,
/// and the caller may read the events only at the end: `exited` must find room then.
fn has_room(status: RawFd) -> bool {
    let unread = ioctl_get(&status, libc::FIONREAD as u32).unwrap_or(0);
    // A stream socket is ready while at most a quarter of it is used (`unix_writable()` in net/unix/af_unix.c).
    // In a pipe that cannot be opened again, each event takes a buffer of a page ([`srt_common::fds::say`]), and those told
    // here have about 100 bytes at least.
    let is_full = |size| unread >= size / 64 && (unread >= size / 4 || open_again(status).is_err());
    is_ready(&status, libc::POLLOUT) && !fcntl(&status, libc::F_GETPIPE_SZ, 0).is_ok_and(is_full)
}

/// Writes only to the status descriptor if there is one, since the command also uses stderr.
fn tell(tool: &Tool, event: &str, key: &str, name: &str, why: &str) {
    match tool.status {
        Some(status) if has_room(status) => {
            tool.tell(event, |event| event.text(key, name).text("message", why));
        }
        Some(_) => {}
        None => tool.warn(&Error::failed(format!("{name}: {why}"))),
    }
}

/// Leaves `/bin/sh` no capability, only the descriptors 0, 1 and 2, and the sandbox's network. The shell must not enter
/// the command's user namespace, from which the shell's /proc/PID/root could be entered.
fn become_shell(shell: &Program, network: &OwnedFd, inherited: Inherited) -> Result<Infallible> {
    child::silence()?;
    unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP).context(|| "unshare")?;
    if !startup::wait(network, &startup::own_namespaces()?)? {
        process::exit(125);
    }
    inherited.restore()?;
    privileges::drop_all()?;
    KeptFds::default().close_others_on_exec()?;
    Err(shell.exec(&shell.candidates()))
}
