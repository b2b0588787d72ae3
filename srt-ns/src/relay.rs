//! `--relay` and `--publish`: the one srt-relay process, and what it is handed.
//!
//! Everything that has a name is resolved before anything untrusted runs: the sockets on the host are pinned or made
//! before the new namespaces exist, the ports are bound before the command runs. srt-relay gets descriptors,
//! and a root with nothing in it but the inodes that it connects to, at the paths that it uses for descriptors.

use crate::child::{self, Run};
use crate::empty_root::EmptyRoot;
use crate::helpers::{Helper, Kind};
use crate::options::{Link, Plan};
use srt_common::exec::{Program, beside};
use srt_common::fds::Kept;
use srt_common::handover;
use srt_common::report::Report;
use srt_common::sys::c_path;
use srt_common::sys::fd::pipe2;
use srt_common::sys::file::{mkdirat, mknodat, open, readlinkat, statx, umask};
use srt_common::sys::mount::{OPEN_TREE_CLONE, move_mount, open_tree};
use srt_common::sys::process;
use srt_common::sys::socket::listen;
use srt_common::unix_listener::{self, Place};
use srt_common::unix_socket;
use srt_common::{Context, Error, Result, privileges};
use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Connections that may wait to be accepted. net.core.somaxconn limits it.
const BACKLOG: i32 = 4096;

/// The sockets on the host: pinned or made, and the program that will use them.
#[derive(Debug)]
pub struct HostSide {
    /// The sockets of `--relay`.
    pub pins: Vec<OwnedFd>,
    listeners: Vec<OwnedFd>,
    /// Where the published sockets are.
    pub published: Vec<Place>,
    program: OwnedFd,
}

impl HostSide {
    /// Pins the sockets of `--relay` and makes those of `--publish`. `None`: neither is asked for.
    ///
    /// # Errors
    /// A socket that is not there, or a place where none can be made; those made before are removed again.
    pub fn prepare(plan: &Plan) -> Result<Option<Self>> {
        if !plan.forwards() {
            return Ok(None);
        }
        let path = beside("srt-relay").context(|| "cannot read /proc/self/exe")?;
        let program = open(&path, libc::O_PATH).map_err(|error| {
            Error::system(format!("cannot open {}", path.display()), &error)
                .hint_for(libc::ENOENT, "--relay and --publish need srt-relay beside srt-ns")
        })?;
        let pins = plan.relays.iter().map(pin).collect::<Result<_>>()?;
        let mut host = Self { pins, listeners: vec![], published: vec![], program };
        for link in &plan.publish {
            let (listener, place) =
                unix_listener::bind(&link.socket).map_err(|error| error.within(&link.text))?;
            host.listeners.push(listener);
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

/// An O_PATH descriptor of the socket: whatever happens to its path later, this is what the port leads to. A link in its
/// place is not followed: an earlier run could have put it there, to a socket that was not granted.
fn pin(link: &Link) -> Result<OwnedFd> {
    let path = &link.socket;
    let about = |error: Error| error.within(&link.text).path(path);
    let pin = unix_socket::pin(path).map_err(|error| {
        about(Error::system(format!("cannot open {}", path.display()), &error))
            .hint_for(libc::ENOENT, "start the proxy that makes this socket before the sandbox")
    })?;
    match statx(&pin, c"").map(|stat| stat.file_type()) {
        Ok(libc::S_IFSOCK) => Ok(pin),
        Ok(libc::S_IFLNK) => {
            let target = readlinkat(&pin, c"").unwrap_or_default();
            let what = format!("{} is a symbolic link to {}", path.display(), target.display());
            Err(about(Error::failed(what).hint("name the socket itself")))
        }
        _ => Err(about(Error::failed(format!("{} is not a Unix socket", path.display())))),
    }
}

/// Forks the process that becomes srt-relay, which waits at `network` for the network namespace, and binds the ports inside.
///
/// # Errors
/// What the system says of the start.
pub fn start(run: Run<'_>, host: &mut HostSide, network: &OwnedFd) -> Result<(Helper, Reports)> {
    let (channel, ready) = pipe2(0).context(|| "pipe")?;
    let (pipe, reports) = pipe2(libc::O_NONBLOCK).context(|| "pipe")?;
    let pid = child::spawn(run, "srt-relay", || become_relay(run, host, network, [&ready, &reports]))?;
    // Once it is dead, clients are to be refused.
    host.listeners.clear();
    Ok((Helper::new(Kind::Relay, pid, "srt-relay", channel), Reports { pipe: pipe.into(), line: vec![] }))
}

/// What srt-relay reports, a line each.
#[derive(Debug)]
pub struct Reports {
    /// Where they come.
    pub pipe: File,
    /// The beginning of one.
    line: Vec<u8>,
}

impl Reports {
    /// What there is, a bounded piece of it. `None`: the end. srt-relay reads bytes of untrusted peers: nothing is taken from
    /// what it says but numbers.
    pub fn read(&mut self) -> Option<Vec<Report>> {
        let mut piece = [0; 4096];
        match self.pipe.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(vec![]),
            Ok(0) | Err(_) => return None,
            Ok(length) => self.line.extend(piece.get(..length).unwrap_or_default()),
        }
        let end = self.line.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.line.drain(..end).collect();
        self.line.truncate(Report::LONGEST);
        Some(whole.split(|&byte| byte == b'\n').filter_map(Report::parse).collect())
    }
}

/// The option that a pair of srt-relay's command line is about: see `become_relay`. Where there is IPv6, what leads out has
/// a second round.
pub fn link_of(plan: &Plan, pair: usize) -> Option<&Link> {
    plan.links().chain(&plan.relays).nth(pair)
}

/// Should: leave srt-relay its descriptors, stderr and an empty root.
fn become_relay(
    run: Run<'_>,
    host: &HostSide,
    network: &OwnedFd,
    [ready, reports]: [&OwnedFd; 2],
) -> Result<Infallible> {
    child::silence()?;
    let plan = run.plan;
    let own = handover::own_namespaces()?;
    let root = EmptyRoot::new()?;
    // The caller's may take away what srt-relay needs to search them.
    umask(0o022);
    for path in [c"proc", c"proc/self", c"proc/self/fd"] {
        mkdirat(root.directory(), path, 0o755).context(|| "mkdir in the relay's root")?;
    }
    for (link, pin) in plan.relays.iter().zip(&host.pins) {
        expose(&root, link, pin)?;
    }
    root.enter()?;
    if !handover::wait(network, &own)? {
        process::exit(125);
    }
    let mut keep: Vec<RawFd> = vec![];
    let mut number = |fd: &dyn AsRawFd| {
        keep.push(fd.as_raw_fd());
        fd.as_raw_fd().to_string()
    };
    let (ready, reports) = (number(ready).into(), number(reports).into());
    let mut words = vec!["srt-relay".into(), "--ready-fd".into(), ready, "--report-fd".into(), reports];
    let mut pair = |listen: String, connect: String| words.extend([listen.into(), connect.into()]);
    for (link, listener) in plan.publish.iter().zip(&host.listeners) {
        // Both families: a server may listen on one of them alone.
        pair(format!("fd:{}", number(listener)), format!("tcp:localhost:{}", link.port));
    }
    let mut ports = vec![];
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        for (link, pin) in plan.relays.iter().zip(&host.pins) {
            let Some(listener) = bind(link, loopback)? else { continue };
            pair(format!("fd:{}", number(&listener)), format!("fd:{}", number(pin)));
            ports.push(listener);
        }
    }
    // Nothing of the caller's environment is a relay's business.
    let program = Program::new(&words)?.without_environment();
    run.inherited.restore()?;
    privileges::drop_held()?;
    keep.into_iter().fold(Kept::default(), Kept::and).alone_survive_exec()?;
    Err(program.failure(&program.exec_fd(&host.program, &[])))
}

/// Puts the pinned inode into the root, where srt-relay finds what its descriptor is open on: /proc/self/fd/N.
///
/// open_tree(2) clones only mounts of this namespace, and the pin is older than that: so the path is opened again, and
/// must still lead to the same inode.
fn expose(root: &EmptyRoot, link: &Link, pin: &OwnedFd) -> Result<()> {
    let what = || format!("{}: cannot expose the socket to srt-relay", link.text);
    let again = unix_socket::pin(&link.socket).context(what)?;
    if statx(pin, c"").context(what)?.id != statx(&again, c"").context(what)?.id {
        return Err(Error::failed(format!("{}: the socket was replaced during the start", link.text)));
    }
    let path = c_path(format!("proc/self/fd/{}", pin.as_raw_fd())).context(what)?;
    mknodat(root.directory(), &path, libc::S_IFREG | 0o444).context(what)?;
    let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as libc::c_uint;
    let mount = open_tree(&again, c"", flags).context(what)?;
    move_mount(&mount, root.directory(), &path).context(what)
}

/// Listens on the option's port. `None`: ::1 on a machine without IPv6.
fn bind(link: &Link, address: IpAddr) -> Result<Option<TcpListener>> {
    let what = || format!("{}: cannot listen on port {}", link.text, link.port);
    let none = |error: &std::io::Error| {
        address.is_ipv6() && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
    };
    let hint = "ports below 1024 are root's: take a higher one";
    let listener = match TcpListener::bind((address, link.port)) {
        Err(error) if none(&error) => return Ok(None),
        // Under --share user the caller may lack CAP_NET_BIND_SERVICE; a user namespace of our own gives it.
        bound => bound.context(what).map_err(|error| error.hint_for(libc::EACCES, hint))?,
    };
    listen(&listener, BACKLOG).context(what)?;
    Ok(Some(listener))
}
