//! `--relay` and `--publish`: the one srt-relay process, and what it is handed.
//!
//! Everything that has a name is resolved before anything untrusted runs: the sockets on the host are pinned or made
//! before the new namespaces exist, the ports are bound before the command does. srt-relay gets descriptors,
//! and a root with nothing in it but the inodes that it connects to, at the paths that it uses for descriptors.

use crate::companion;
use crate::empty_root::EmptyRoot;
use crate::options::{Link, Plan};
use crate::supervisor::End;
use crate::sys::{self, Inherited, Pid, Side};
use srt_common::exec::{Program, require_beside};
use srt_common::fds::Kept;
use srt_common::status::Event;
use srt_common::tool::Tool;
use srt_common::unix_listener::{self, Place};
use srt_common::{Context, Error, Result, privileges};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, pipe};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long srt-relay may take until it accepts.
const READY: Duration = Duration::from_secs(10);

/// The sockets on the host: pinned or made, and the program that will use them.
#[derive(Debug)]
pub struct HostSide {
    pins: Vec<File>,
    listeners: Vec<OwnedFd>,
    /// Where the published sockets are.
    pub published: Vec<Place>,
    program: File,
}

impl HostSide {
    /// Pins the sockets of `--relay` and makes those of `--publish`. `None`: neither is asked for.
    ///
    /// # Errors
    /// A socket that is not there, or a place where none can be made; those made before are removed again.
    pub fn prepare(plan: &Plan) -> Result<Option<Self>> {
        if plan.relays.is_empty() && plan.publish.is_empty() {
            return Ok(None);
        }
        let path = require_beside("srt-relay")?;
        let program = open_path(&path).map_err(|error| {
            Error::system(format!("cannot open {}", path.display()), &error)
                .hint("--relay and --publish need srt-relay beside srt-ns")
        })?;
        let pins = plan.relays.iter().map(pin).collect::<Result<_>>()?;
        let mut host = Self { pins, listeners: vec![], published: vec![], program };
        for link in &plan.publish {
            let (listener, place) =
                unix_listener::bind(&link.socket).map_err(|error| error.within(&link.text))?;
            host.listeners.push(listener.into());
            host.published.push(place);
        }
        Ok(Some(host))
    }
}

/// The published sockets go with the sandbox, and with a start that fails half-way. Children never get here: they end
/// in an exec or in _exit(2).
impl Drop for HostSide {
    fn drop(&mut self) {
        self.published.iter().for_each(Place::remove);
    }
}

fn open_path(path: &Path) -> std::io::Result<File> {
    srt_common::sys::open_path(path, 0).map(File::from)
}

/// An O_PATH descriptor of the socket: whatever happens to its path later, this is what the port leads to.
fn pin(link: &Link) -> Result<File> {
    let path = link.socket.display();
    let file = open_path(&link.socket).map_err(|error| {
        let failed = Error::system(format!("{}: cannot open {path}", link.text), &error);
        match error.raw_os_error() {
            Some(libc::ENOENT) => failed.hint("start the proxy that makes this socket before the sandbox"),
            _ => failed,
        }
    })?;
    let what = || format!("{}: cannot look at {path}", link.text);
    if !file.metadata().context(what)?.file_type().is_socket() {
        return Err(Error::failed(format!("{}: {path} is not a Unix socket", link.text)));
    }
    Ok(file)
}

/// A running srt-relay.
#[derive(Debug)]
pub struct Relay {
    /// Its number.
    pub pid: Pid,
    ready: File,
    news: BufReader<File>,
    /// Listening descriptor (as srt-relay names it) and what the user calls it.
    names: Vec<(RawFd, String)>,
}

impl Relay {
    /// Binds the ports inside and starts srt-relay; it may not accept yet.
    ///
    /// # Errors
    /// A port that cannot be bound; what the system says of the start.
    pub fn start(tool: &Tool, plan: &Plan, host: &HostSide, inherited: Inherited) -> Result<Self> {
        let mut ports = Vec::new();
        let mut names = Vec::new();
        let mut pairs = Vec::new();
        for (link, pin) in plan.relays.iter().zip(&host.pins) {
            for listener in bind(link)? {
                names.push((listener.as_raw_fd(), link.text.clone()));
                pairs.extend([format!("fd:{}", listener.as_raw_fd()), format!("fd:{}", pin.as_raw_fd())]);
                ports.push(listener);
            }
        }
        for (link, listener) in plan.publish.iter().zip(&host.listeners) {
            names.push((listener.as_raw_fd(), link.text.clone()));
            pairs.extend([format!("fd:{}", listener.as_raw_fd()), format!("tcp:127.0.0.1:{}", link.port)]);
        }
        let (ready, ready_writer) = pipe().context(|| "pipe")?;
        let (news, news_writer) = pipe().context(|| "pipe")?;
        match companion::start(tool, "srt-relay")? {
            Side::Parent(pid) => {
                let news = File::from(OwnedFd::from(news));
                sys::set_nonblocking(news.as_fd()).context(|| "fcntl")?;
                Ok(Self { pid, ready: File::from(OwnedFd::from(ready)), news: BufReader::new(news), names })
            }
            Side::Child => {
                let [ready, status] = [ready_writer.as_raw_fd(), news_writer.as_raw_fd()];
                let mut words = vec!["srt-relay".to_owned(), "--ready-fd".into(), ready.to_string()];
                words.extend(["--status-fd".into(), status.to_string()]);
                words.extend(pairs);
                let mut keep = vec![ready, status];
                keep.extend(ports.iter().map(AsRawFd::as_raw_fd));
                keep.extend(host.pins.iter().map(AsRawFd::as_raw_fd));
                keep.extend(host.listeners.iter().map(AsRawFd::as_raw_fd));
                companion::end(tool, become_relay(plan, host, &words, keep, inherited))
            }
        }
    }

    /// Waits until every port accepts.
    ///
    /// # Errors
    /// When srt-relay ends instead, or takes too long.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let [ready] = sys::poll([Some(self.ready.as_fd())], Some(READY)).context(|| "poll")?;
        let mut word = String::new();
        if !ready {
            return Err(Error::failed(format!(
                "srt-relay does not accept after {} seconds",
                READY.as_secs()
            )));
        }
        match (&self.ready).take(16).read_to_string(&mut word) {
            Ok(_) if word == "ready\n" => Ok(()),
            _ => Err(Error::failed("srt-relay ended before the command could start")),
        }
    }

    /// Readable when srt-relay has something to tell.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.get_ref().as_fd()
    }

    /// Passes on which relay has lost its socket. Only descriptor numbers are taken from what is read: srt-relay
    /// reads bytes of untrusted peers, and what it says is not ours to repeat. False: there will be no more.
    pub fn read_news(&mut self, tool: &Tool) -> bool {
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut self.news).take(4096).read_until(b'\n', &mut line) {
                Ok(0) => return false,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let said =
                        |name: &&(RawFd, String)| text.contains(&format!("\"listen\":\"fd:{}\"", name.0));
                    // A published port on which nothing listens yet (connect-failed) is not lost.
                    let lost_one = text.contains("\"event\":\"relay-lost\"");
                    if let Some((_, name)) = self.names.iter().find(said).filter(|_| lost_one) {
                        lost(tool, name, "its socket is gone or was made anew");
                    }
                }
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    /// srt-relay has ended while the command runs.
    pub fn ended(&self, end: End, tool: &Tool) {
        tool.warn(&Error::failed(format!("srt-relay ended before the command: {end}")));
        let mut names: Vec<_> = self.names.iter().map(|(_, name)| name).collect();
        names.dedup();
        names.into_iter().for_each(|name| lost(tool, name, "srt-relay ended"));
    }
}

fn lost(tool: &Tool, name: &str, why: &str) {
    if let Some(status) = tool.status {
        status.send(&Event::new(tool.name, "relay-lost").text("relay", name).text("message", why));
    }
}

/// 127.0.0.1 and, where there is IPv6, ::1.
fn bind(link: &Link) -> Result<Vec<TcpListener>> {
    let what = || format!("{}: cannot listen on port {}", link.text, link.port);
    let mut listeners = Vec::new();
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let listener = match TcpListener::bind((address, link.port)) {
            Err(error)
                if address.is_ipv6()
                    && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
            {
                continue;
            }
            // Under --share user the caller may lack CAP_NET_BIND_SERVICE; a user namespace of our own gives it.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                return Err(
                    Error::system(what(), &error).hint("ports below 1024 are root's: take a higher one")
                );
            }
            bound => bound.context(what)?,
        };
        srt_common::sys::listen(listener.as_fd(), BACKLOG).context(what)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Should: leave srt-relay its descriptors, stderr and an empty root. Returns only the error.
fn become_relay(
    plan: &Plan,
    host: &HostSide,
    words: &[String],
    keep: Vec<RawFd>,
    inherited: Inherited,
) -> Result<u8> {
    let words: Vec<_> = words.iter().map(std::ffi::OsString::from).collect();
    // Nothing of the caller's environment is a relay's business.
    let program = Program::new(&words)?.without_environment();
    companion::quiet(inherited)?;
    let root = EmptyRoot::new()?;
    for path in [c"proc", c"proc/self", c"proc/self/fd"] {
        sys::mkdir_at(root.directory(), path).context(|| "mkdir in the relay's root")?;
    }
    for (link, pin) in plan.relays.iter().zip(&host.pins) {
        expose(&root, link, pin)?;
    }
    root.enter()?;
    privileges::drop_held()?;
    Kept::new(keep)?.alone_survive_exec()?;
    Err(program.failure(&program.exec_fd(host.program.as_fd())))
}

/// Puts the pinned inode into the root, where srt-relay finds what its descriptor is open on: /proc/self/fd/N.
///
/// open_tree(2) clones only mounts of this namespace, and the pin is older than that: so the path is opened again, and
/// must still lead to the same inode.
fn expose(root: &EmptyRoot, link: &Link, pin: &File) -> Result<()> {
    let what = || format!("{}: cannot expose the socket to srt-relay", link.text);
    let again = open_path(&link.socket).context(what)?;
    let (pinned, now) = (pin.metadata().context(what)?, again.metadata().context(what)?);
    if (pinned.dev(), pinned.ino()) != (now.dev(), now.ino()) {
        return Err(Error::failed(format!("{}: the socket was replaced during the start", link.text)));
    }
    let path = CString::new(format!("proc/self/fd/{}", pin.as_raw_fd())).map_err(|_| Error::failed("NUL"))?;
    sys::make_file_at(root.directory(), &path).context(what)?;
    let mount = sys::clone_mount(again.as_fd()).context(what)?;
    sys::attach_at(mount.as_fd(), root.directory(), &path).context(what)
}
