//! `--relay` and `--publish`: the one srt-relay process, and what it is given.
//!
//! All names are resolved before untrusted code runs: the sockets on the host are opened or created before the new
//! namespaces exist, and the ports are bound before the command runs. srt-relay gets descriptors, and a root that
//! contains only the inodes to which it connects, at the /proc paths of their descriptors.

use crate::child::{self, Run};
use crate::cleanup::remove_sockets;
use crate::empty_root::EmptyRoot;
use crate::options::{Plan, PortMapping};
use srt_common::exec::{Program, beside};
use srt_common::fds::KeptFds;
use srt_common::relay_report::Report;
use srt_common::startup;
use srt_common::sys::c_path;
use srt_common::sys::fd::pipe2;
use srt_common::sys::file::{FileId, mkdirat, mknodat, open, readlinkat, statx, umask};
use srt_common::sys::mount::{OPEN_TREE_CLONE, move_mount, open_tree};
use srt_common::sys::process::{self, Pid};
use srt_common::sys::socket::listen;
use srt_common::tcp_address::has_no_such_family;
use srt_common::unix_listener::{self, BACKLOG, SocketPath};
use srt_common::unix_socket;
use srt_common::{Context, Error, Result, privileges};
use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The sockets on the host, opened or created, and the program that will use them.
#[derive(Debug)]
pub struct HostSide {
    /// The sockets of `--relay`, and their identities.
    pub sockets: Vec<(OwnedFd, FileId)>,
    listeners: Vec<OwnedFd>,
    /// Where the published sockets are.
    pub published: Vec<SocketPath>,
    program: OwnedFd,
}

impl HostSide {
    /// Opens the sockets of `--relay` and creates those of `--publish`. `None`: neither option was given.
    ///
    /// # Errors
    /// A socket does not exist or cannot be created. Those created before are removed again.
    pub fn prepare(plan: &Plan) -> Result<Option<Self>> {
        if plan.port_mappings().next().is_none() {
            return Ok(None);
        }
        let path = beside("srt-relay").context(|| "cannot read /proc/self/exe")?;
        let program = open(&path, libc::O_PATH).map_err(|error| {
            Error::system(format!("cannot open {}", path.display()), &error)
                .hint_for(libc::ENOENT, "--relay and --publish need srt-relay beside srt-ns")
        })?;
        let sockets = plan.options.relay.iter().map(open_socket).collect::<Result<_>>()?;
        let mut host = Self { sockets, listeners: vec![], published: vec![], program };
        for mapping in &plan.options.publish {
            let (listener, place) =
                unix_listener::bind(&mapping.socket).map_err(|error| error.within(&mapping.text))?;
            host.listeners.push(listener);
            host.published.push(place);
        }
        Ok(Some(host))
    }
}

/// The published sockets are removed at the end of the sandbox, and if the start fails half-way. Child processes never
/// get here: they end in an exec or in _exit(2).
impl Drop for HostSide {
    fn drop(&mut self) {
        remove_sockets(&self.published);
    }
}

/// An O_PATH descriptor of the socket: the port leads to this inode, whatever happens to its path later. A symbolic
/// link is not followed: an earlier run could have left it there, to a socket that was not granted.
fn open_socket(mapping: &PortMapping) -> Result<(OwnedFd, FileId)> {
    let path = &mapping.socket;
    let about = |error: Error| error.within(&mapping.text).path(path);
    let socket = unix_socket::open(path).map_err(|error| {
        about(Error::system(format!("cannot open {}", path.display()), &error))
            .hint_for(libc::ENOENT, "start the proxy that makes this socket before the sandbox")
    })?;
    match statx(&socket, c"") {
        Ok(stat) if stat.is(libc::S_IFSOCK) => Ok((socket, stat.id)),
        Ok(stat) if stat.is(libc::S_IFLNK) => {
            let target = readlinkat(&socket, c"").unwrap_or_default();
            let what = format!("{} is a symbolic link to {}", path.display(), target.display());
            Err(about(Error::failed(what).hint("name the socket itself")))
        }
        _ => Err(about(Error::failed(format!("{} is not a Unix socket", path.display())))),
    }
}

/// Forks the process that becomes srt-relay. It waits at `network` for the network namespace and binds the ports in it.
/// Returns its pid, the pipe on which it reports that it accepts, and its reports.
///
/// # Errors
/// Any error of the start.
pub fn start(run: Run<'_>, host: &mut HostSide, network: &OwnedFd) -> Result<(Pid, OwnedFd, Reports)> {
    let (channel, ready) = pipe2(0).context(|| "pipe")?;
    let (pipe, reports) = pipe2(libc::O_NONBLOCK).context(|| "pipe")?;
    let pid = child::spawn(run, "srt-relay", || become_relay(run, host, network, [&ready, &reports]))?;
    // When srt-relay is dead, clients must be refused.
    host.listeners.clear();
    Ok((pid, channel, Reports { pipe: pipe.into(), line: vec![] }))
}

/// The reports of srt-relay, one per line.
#[derive(Debug)]
pub struct Reports {
    /// The pipe with the reports.
    pub pipe: File,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
}

impl Reports {
    /// Reads a bounded amount. `None`: end of file. srt-relay reads data from untrusted peers, so only numbers are
    /// taken from its reports.
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

/// Executes srt-relay with only its descriptors, stderr and an empty root.
fn become_relay(
    run: Run<'_>,
    host: &HostSide,
    network: &OwnedFd,
    [ready, reports]: [&OwnedFd; 2],
) -> Result<Infallible> {
    child::silence()?;
    let plan = run.plan;
    let own = startup::own_namespaces()?;
    let root = EmptyRoot::new()?;
    // With the caller's umask, srt-relay might lack search permission on these directories.
    umask(0o022);
    for path in [c"proc", c"proc/self", c"proc/self/fd"] {
        mkdirat(root.directory(), path, 0o755).context(|| "mkdir in the relay's root")?;
    }
    for (mapping, (socket, id)) in plan.options.relay.iter().zip(&host.sockets) {
        expose(&root, mapping, socket, *id)?;
    }
    root.enter()?;
    if !startup::wait(network, &own)? {
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
    for (mapping, listener) in plan.options.publish.iter().zip(&host.listeners) {
        // Both address families: a server may listen on only one of them.
        pair(format!("fd:{}", number(listener)), format!("tcp:localhost:{}", mapping.port));
    }
    let mut ports = vec![];
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        for (mapping, (socket, _)) in plan.options.relay.iter().zip(&host.sockets) {
            let Some(listener) = bind(mapping, loopback)? else { continue };
            pair(format!("fd:{}", number(&listener)), format!("fd:{}", number(socket)));
            ports.push(listener);
        }
    }
    // srt-relay needs nothing from the caller's environment.
    let mut program = Program::new(&words)?;
    program.envp.clear();
    run.inherited.restore()?;
    privileges::drop_held()?;
    keep.into_iter().fold(KeptFds::default(), KeptFds::and).close_others_on_exec()?;
    Err(program.exec_fd(&host.program))
}

/// Mounts the inode in the root, at the path by which srt-relay reaches its descriptor: /proc/self/fd/N.
///
/// open_tree(2) clones only mounts of the current mount namespace, and the socket was opened in the previous one. So the
/// path is opened again, and must still lead to the same inode.
fn expose(root: &EmptyRoot, mapping: &PortMapping, socket: &OwnedFd, id: FileId) -> Result<()> {
    let what = || format!("{}: cannot expose the socket to srt-relay", mapping.text);
    let again = unix_socket::open(&mapping.socket).context(what)?;
    if statx(&again, c"").context(what)?.id != id {
        return Err(Error::failed(format!("{}: the socket was replaced during the start", mapping.text)));
    }
    let path = c_path(format!("proc/self/fd/{}", socket.as_raw_fd())).context(what)?;
    mknodat(root.directory(), &path, libc::S_IFREG | 0o444).context(what)?;
    let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as libc::c_uint;
    let mount = open_tree(&again, c"", flags).context(what)?;
    move_mount(&mount, root.directory(), &path).context(what)
}

/// Listens on the option's port. `None`: ::1 on a host without IPv6.
fn bind(mapping: &PortMapping, address: IpAddr) -> Result<Option<TcpListener>> {
    let what = || format!("{}: cannot listen on port {}", mapping.text, mapping.port);
    let hint = "ports below 1024 are privileged: use a higher one";
    let listener = match TcpListener::bind((address, mapping.port)) {
        Err(error) if address.is_ipv6() && has_no_such_family(error.raw_os_error()) => return Ok(None),
        // Under --share user the caller may lack CAP_NET_BIND_SERVICE; a new user namespace gives it.
        bound => bound.context(what).map_err(|error| error.hint_for(libc::EACCES, hint))?,
    };
    listen(&listener, BACKLOG).context(what)?;
    Ok(Some(listener))
}
