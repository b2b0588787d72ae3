//! Parses argv into a plan, without any system call.

use argh::FromArgs;
use libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUSER, CLONE_NEWUTS, c_int};
use srt_common::args::{self, CommandLine, Raw, Seconds, decode};
use srt_common::tcp_address::parse_port;
use srt_common::{Error, Result};
use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// srt-ns [options] -- PROGRAM [args...]
///
/// Runs PROGRAM in new user, pid, net, ipc, uts and cgroup namespaces, under a PID 1 and a supervisor that kill
/// everything when PROGRAM, the supervisor or the parent process dies. Exits with PROGRAM's status, 128+N for
/// signal N, 125 if srt-ns fails, 126 or 127 if PROGRAM cannot be run or is not found.
#[derive(FromArgs, Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// keep the caller's namespaces: a comma-separated list of net, ipc, uts, cgroup, user (user needs CAP_SYS_ADMIN
    /// and --allow-userns)
    #[argh(option, arg_name = "NS,...", from_str_fn(share), default = "0")]
    pub share: c_int,
    /// uid inside (default: the caller's). It is only shown: files are accessed with the caller's own uid
    #[argh(option, arg_name = "N", from_str_fn(id))]
    pub uid: Option<u32>,
    /// gid inside (default: the caller's)
    #[argh(option, arg_name = "N", from_str_fn(id))]
    pub gid: Option<u32>,
    /// host name inside
    #[argh(option, arg_name = "NAME")]
    pub hostname: Option<Raw>,
    /// let PROGRAM create user namespaces
    #[argh(switch)]
    pub allow_userns: bool,
    /// give PROGRAM CAP_SYS_ADMIN over its user namespace; srt-mount in srt-ns's own directory gets it in any case
    #[argh(switch)]
    pub keep_admin: bool,
    /// relay 127.0.0.1:PORT and [::1]:PORT inside to the Unix socket SOCKET outside (repeatable)
    #[argh(option, arg_name = "PORT=SOCKET", from_str_fn(relay))]
    pub relay: Vec<PortMapping>,
    /// make the Unix socket SOCKET outside and relay it to localhost:PORT inside (repeatable)
    #[argh(option, arg_name = "SOCKET=PORT", from_str_fn(publish))]
    pub publish: Vec<PortMapping>,
    /// run a shell command outside, in the network namespace of the sandbox (repeatable)
    #[argh(option, arg_name = "COMMAND")]
    pub sidecar: Vec<Raw>,
    /// stay in the caller's session: terminal and job control
    #[argh(switch)]
    pub keep_session: bool,
    /// keep running when the parent process dies
    #[argh(switch)]
    pub outlive_parent: bool,
    /// run PROGRAM itself as PID 1, without srt-init
    #[argh(switch, long = "as-pid-1")]
    as_pid_1: bool,
    /// wait for every process inside, not for PROGRAM alone
    #[argh(switch)]
    wait_all: bool,
    /// seconds from SIGTERM to SIGKILL, fractions allowed (default 10; 0: never)
    #[argh(option, arg_name = "SECONDS", default = "Seconds(Some(Duration::from_secs(10)))")]
    pub kill_after: Seconds,
    /// kill everything when the last writer of the pipe on descriptor N is gone (repeatable)
    #[argh(option, arg_name = "N")]
    pub lifetime_fd: Vec<RawFd>,
    /// while the sandbox runs, keep an empty file (PATH/: a directory) at PATH on the host if there is none (repeatable)
    #[argh(option, arg_name = "PATH")]
    pub placeholder: Vec<Placeholder>,
    /// test what the tools need on this host; print what is missing and the remedy; run no PROGRAM
    #[argh(switch)]
    check: bool,
    /// write events to descriptor N, one JSON object a line
    #[argh(option, arg_name = "N")]
    pub status_fd: Option<RawFd>,
    /// leave descriptor N open for PROGRAM (repeatable)
    #[argh(option, arg_name = "N")]
    pub keep_fd: Vec<RawFd>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// The namespaces for which /proc/self/ns shows whether they are new (namespaces(7)), by their names there and in
/// `--share`.
pub const NAMESPACES: [(&str, c_int); 4] =
    [("net", CLONE_NEWNET), ("ipc", CLONE_NEWIPC), ("uts", CLONE_NEWUTS), ("cgroup", CLONE_NEWCGROUP)];

/// Which process is PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pid1 {
    /// srt-init, which exits with the command.
    Init,
    /// srt-init, which exits when no process is left.
    InitWaitsForAll,
    /// The command itself.
    Command,
}

/// A port inside and a Unix socket outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The option as the user wrote it, for messages.
    pub text: String,
    /// A TCP port, never 0.
    pub port: u16,
    /// The path of the socket.
    pub socket: PathBuf,
}

/// An empty file or directory for as long as the sandbox runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The option as the user wrote it, for messages.
    pub text: String,
    /// The directory that contains it.
    pub parent: PathBuf,
    /// Its name there, without `/`.
    pub name: CString,
    /// A directory, not a file.
    pub directory: bool,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A check of what the tools need on this host, with the descriptor for events.
    Check(Option<RawFd>),
    /// A sandbox.
    Run(Box<Plan>),
}

/// The sandbox that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which process is PID 1.
    pub pid1: Pid1,
    /// PROGRAM and its arguments.
    pub program: Vec<OsString>,
    /// The options.
    pub options: Options,
}

/// Reads argv (without argv\[0\]).
///
/// # Errors
/// A usage error that names the option and what was expected.
pub fn parse(tool: &str, line: CommandLine) -> Result<Request> {
    let options: Options = args::parse(tool, &line.options).map_err(|error| line.explain(tool, error))?;
    if options.check {
        let words = if options.status_fd.is_some() { 3 } else { 1 };
        if line.program.is_some() || line.options.len() != words {
            return Err(Error::usage("--check takes only --status-fd, and no PROGRAM"));
        }
        return Ok(Request::Check(options.status_fd));
    }
    let plan = Plan {
        pid1: match (options.as_pid_1, options.wait_all) {
            (false, false) => Pid1::Init,
            (false, true) => Pid1::InitWaitsForAll,
            (true, false) => Pid1::Command,
            (true, true) => {
                return Err(Error::usage("--wait-all needs srt-init, which --as-pid-1 leaves out"));
            }
        },
        program: line.program(tool)?,
        options,
    };
    plan.check()?;
    Ok(Request::Run(Box::new(plan)))
}

impl Plan {
    /// What srt-relay forwards, in the order of its command line.
    pub fn port_mappings(&self) -> impl Iterator<Item = &PortMapping> {
        self.options.publish.iter().chain(&self.options.relay)
    }

    /// Whether all these namespaces (`CLONE_NEW*`) are shared with the caller.
    pub fn shares(&self, namespaces: c_int) -> bool {
        self.options.share & namespaces == namespaces
    }

    /// Refuses invalid values and combinations.
    fn check(&self) -> Result<()> {
        let Options { uid, gid, hostname, sidecar, .. } = &self.options;
        let why = if self.shares(CLONE_NEWUSER) && !self.options.allow_userns {
            "--share user needs --allow-userns: the caller's own limit is never touched"
        } else if self.shares(CLONE_NEWUSER) && (uid.is_some() || gid.is_some()) {
            "--uid and --gid need a user namespace of their own, not --share user"
        } else if self.shares(CLONE_NEWUSER) && !sidecar.is_empty() {
            "--sidecar needs a new user namespace, not --share user: it keeps the command from reaching the sidecar"
        } else if sidecar.iter().any(|Raw(command)| command.is_empty()) {
            "--sidecar: expected a shell command"
        } else if self.shares(CLONE_NEWUTS) && hostname.is_some() {
            "--hostname needs a uts namespace of its own, not --share uts"
        } else if let Some(Raw(name)) = hostname
            && !(1..=64).contains(&name.len())
        {
            // sethostname(2): at most 64 bytes on Linux.
            return Err(Error::usage(format!("--hostname {}: expected 1 to 64 bytes", name.display())));
        } else if self.shares(CLONE_NEWNET) && self.port_mappings().next().is_some() {
            let why = "--relay and --publish need a net namespace of their own, not --share net";
            let hint = "in the caller's network everybody could use the port; run srt-relay if that is meant";
            return Err(Error::usage(why).hint(hint));
        } else {
            return Ok(());
        };
        Err(Error::usage(why))
    }
}

fn share(list: &str) -> Result<c_int, String> {
    let all = || NAMESPACES.iter().chain([&("user", CLONE_NEWUSER)]);
    let flag = |name: &str| all().find(|(known, _)| *known == name).map(|(_, flag)| flag);
    let shared = list.split(',').try_fold(0, |shared, name| Some(shared | flag(name)?));
    shared.ok_or("expected a list of net, ipc, uts, cgroup, user".to_owned())
}

/// -1 is not an id: to the kernel it means "unchanged".
fn id(text: &str) -> Result<u32, String> {
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| "expected a number from 0 to 4294967294".to_owned())
}

fn relay(value: &str) -> Result<PortMapping, String> {
    let (port, socket) = value.split_once('=').unwrap_or_default();
    let text = format!("--relay {}", decode(value).display());
    mapping(text, port, socket).ok_or("expected PORT=SOCKET, with a port from 1 to 65535".to_owned())
}

fn publish(value: &str) -> Result<PortMapping, String> {
    let (socket, port) = value.rsplit_once('=').unwrap_or_default();
    let text = format!("--publish {}", decode(value).display());
    mapping(text, port, socket).ok_or("expected SOCKET=PORT, with a port from 1 to 65535".to_owned())
}

fn mapping(text: String, port: &str, socket: &str) -> Option<PortMapping> {
    let port = parse_port(port.as_bytes()).ok().filter(|_| !socket.is_empty())?;
    Some(PortMapping { text, port, socket: decode(socket).into() })
}

/// Parses PATH, or PATH/ for a directory.
impl FromStr for Placeholder {
    type Err = &'static str;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let value = decode(value);
        let text = format!("--placeholder {}", value.display());
        // The last component as written: for Path, `x/.` is `x`. Its parent() drops a final `/` or `/.`, with which a
        // link would be followed.
        let name = value.as_bytes().rsplit(|&byte| byte == b'/').find(|part| !part.is_empty());
        let name =
            name.filter(|name| !matches!(*name, b"." | b"..")).and_then(|name| CString::new(name).ok());
        let name = name.ok_or("expected a path that ends in a name (and / for a directory)")?;
        let parent = Path::new(&value).parent().filter(|parent| *parent != "").unwrap_or(Path::new("."));
        Ok(Self { text, parent: parent.to_owned(), name, directory: value.as_bytes().ends_with(b"/") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn request(words: Vec<OsString>) -> Result<Request> {
        parse("srt-ns", CommandLine::split(words))
    }

    fn plan(words: &[&str]) -> Result<Plan> {
        match request(words.iter().map(OsString::from).collect())? {
            Request::Run(plan) => Ok(*plan),
            check @ Request::Check(_) => panic!("{check:?}"),
        }
    }

    #[test]
    fn a_check_goes_with_a_status_descriptor_alone() {
        let words = |words: &[&str]| request(words.iter().map(OsString::from).collect());
        assert_eq!(words(&["--check"]), Ok(Request::Check(None)));
        let with_status = Ok(Request::Check(Some(3)));
        assert_eq!(words(&["--check", "--status-fd", "3"]), with_status);
        assert_eq!(words(&["--status-fd", "3", "--check"]), with_status);
        for bad in [
            &["--check", "--", "true"][..],
            &["--check", "--"],
            &["--check", "--check"],
            &["--check", "--uid", "1"],
            &["--check", "--status-fd", "3", "--keep-session"],
        ] {
            let error = words(bad).expect_err("a usage error");
            assert!(error.kind == srt_common::Kind::Usage && error.message.contains("--check"), "{error:?}");
        }
        // Here, --check is the value of another option.
        assert!(words(&["--hostname", "--check"]).is_err_and(|error| error.message.contains("missing --")));
    }

    #[test]
    fn without_options_nothing_is_shared() {
        let plan = plan(&["--", "true"]).expect("a plan");
        assert_eq!(plan.options.share, 0);
        assert_eq!(plan.pid1, Pid1::Init);
        assert_eq!(plan.options.kill_after, Seconds(Some(Duration::from_secs(10))));
    }

    #[test]
    fn a_relay_splits_at_the_first_equals_and_a_publish_at_the_last() {
        let plan = plan(&["--relay", "80=/a=b", "--publish", "/c=d=81", "--", "true"]).expect("a plan");
        assert_eq!(
            (plan.options.relay[0].port, plan.options.relay[0].socket.as_path()),
            (80, "/a=b".as_ref())
        );
        assert_eq!(
            (plan.options.publish[0].port, plan.options.publish[0].socket.as_path()),
            (81, "/c=d".as_ref())
        );
    }

    #[test]
    fn a_path_may_be_any_bytes() {
        let value = OsString::from_vec(b"80=/\xff\xfe".to_vec());
        let words = vec!["--relay".into(), value, "--".into(), "true".into()];
        let Ok(Request::Run(plan)) = request(words) else { panic!("no plan") };
        assert_eq!(plan.options.relay[0].socket.as_os_str().as_bytes(), b"/\xff\xfe");
    }

    #[test]
    fn bad_options_are_named() {
        for bad in [
            &["--share", "nett"][..],
            &["--share", ""],
            &["--uid", "-1"],
            &["--uid", "4294967295"],
            &["--gid", "x"],
            &["--hostname", ""],
            &["--relay", "0=/s"],
            &["--relay", "65536=/s"],
            &["--relay", "+80=/s"],
            &["--relay", "080=/s"],
            &["--publish", "/s=080"],
            &["--relay", "80="],
            &["--relay", "80"],
            &["--publish", "/s="],
            &["--publish", "=80"],
            &["--sidecar", ""],
            &["--kill-after", "-1"],
            &["--wait-all", "--as-pid-1"],
            &["--share", "user"],
            &["--uid", "1", "--share", "user", "--allow-userns"],
            &["--gid", "1", "--share", "user", "--allow-userns"],
            &["--sidecar", "x", "--share", "user", "--allow-userns"],
            &["--hostname", "a", "--share", "uts"],
            &["--relay", "80=/s", "--share", "net"],
            &["--placeholder", "/a/.."],
            &["--nope"],
            &["--uid", "1", "--uid", "2"],
        ] {
            let words = [bad, &["--", "true"]].concat();
            let error = plan(&words).expect_err("a usage error");
            assert_eq!(error.kind, srt_common::Kind::Usage);
            assert!(error.message.contains(bad[0]), "{bad:?}: {}", error.message);
        }
        for bad in ["x", "-1", "4294967295", "4294967296"] {
            let error = plan(&["--uid", bad, "--", "true"]).expect_err("a usage error");
            assert_eq!(error.message, format!("--uid {bad}: expected a number from 0 to 4294967294"));
        }
    }

    fn placeholder(path: &str) -> Result<Placeholder, &'static str> {
        path.parse()
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_directory_and_is_no_part_of_the_name() {
        let file = placeholder("/p/.mcp.json").expect("a file");
        assert_eq!(
            (file.parent.as_path(), &*file.name, file.directory),
            ("/p".as_ref(), c".mcp.json", false)
        );
        let directory = placeholder("p//.git//").expect("a directory");
        assert_eq!(
            (directory.parent.as_path(), &*directory.name, directory.directory),
            ("p".as_ref(), c".git", true)
        );
        assert_eq!(placeholder("x").expect("a file").parent.as_path(), Path::new("."));
        assert_eq!(placeholder("/x").expect("a file").parent.as_path(), Path::new("/"));
        // With a `.` at the end, a link would be followed.
        assert_eq!(placeholder("link/./x").expect("a file").parent.as_path(), Path::new("link"));
    }

    #[test]
    fn a_path_that_ends_in_no_name_is_refused() {
        for bad in ["", "/", "//", ".", "..", "/p/..", "/p/.", "../"] {
            let why = "expected a path that ends in a name (and / for a directory)";
            assert_eq!(placeholder(bad), Err(why), "{bad}");
        }
    }
}
