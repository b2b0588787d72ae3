//! Parses argv into a plan, without any system call.

use crate::placeholder::Placeholder;
use argh::FromArgs;
use srt_common::args::{self, CommandLine, Raw, Seconds};
use srt_common::tcp_address::parse_port;
use srt_common::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
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
    #[argh(option, arg_name = "NS,...")]
    share: Option<Raw>,
    /// uid inside (default: the caller's). A name for the same user, not another one: files are accessed as before
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
    #[argh(option, arg_name = "PORT=SOCKET")]
    relay: Vec<Raw>,
    /// make the Unix socket SOCKET outside and relay it to localhost:PORT inside (repeatable)
    #[argh(option, arg_name = "SOCKET=PORT")]
    publish: Vec<Raw>,
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
    placeholder: Vec<Raw>,
    /// try what the tools need on this host, say what is missing and the remedy; runs no PROGRAM
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
    #[allow(dead_code, reason = "answered before argh reads the options; here for --help")]
    version: bool,
}

/// Which namespaces are shared with the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The user namespace: no new one is created, and no id is mapped.
    pub user: bool,
    /// The network namespace.
    pub net: bool,
    /// The System V and POSIX IPC namespace.
    pub ipc: bool,
    /// The UTS namespace, which has the host name.
    pub uts: bool,
    /// The cgroup namespace.
    pub cgroup: bool,
}

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
pub struct Link {
    /// The option as the user wrote it, for messages.
    pub text: String,
    /// A TCP port, never 0.
    pub port: u16,
    /// The path of the socket.
    pub socket: PathBuf,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A check of what the tools need on this host.
    Check {
        /// The descriptor for events.
        status_fd: Option<RawFd>,
    },
    /// A sandbox.
    Run(Box<Plan>),
}

/// The sandbox that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which namespaces are shared with the caller.
    pub share: Share,
    /// Ports inside that are relayed to sockets outside.
    pub relays: Vec<Link>,
    /// Sockets outside that are relayed to ports inside.
    pub publish: Vec<Link>,
    /// Which process is PID 1.
    pub pid1: Pid1,
    /// The placeholders on the host.
    pub placeholders: Vec<Placeholder>,
    /// PROGRAM and its arguments.
    pub program: Vec<OsString>,
    /// The options that need no further parsing.
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
            return Err(Error::usage("--check goes with --status-fd alone: it runs no PROGRAM"));
        }
        return Ok(Request::Check { status_fd: options.status_fd });
    }
    let plan = Plan {
        share: share(options.share.as_ref())?,
        relays: options.relay.iter().map(relay).collect::<Result<_>>()?,
        publish: options.publish.iter().map(publish).collect::<Result<_>>()?,
        pid1: match (options.as_pid_1, options.wait_all) {
            (false, false) => Pid1::Init,
            (false, true) => Pid1::InitWaitsForAll,
            (true, false) => Pid1::Command,
            (true, true) => {
                return Err(Error::usage("--wait-all cannot go with --as-pid-1: it is srt-init that waits"));
            }
        },
        placeholders: options.placeholder.iter().map(Placeholder::parse).collect::<Result<_>>()?,
        program: line.program(tool)?,
        options,
    };
    plan.check()?;
    Ok(Request::Run(Box::new(plan)))
}

impl Plan {
    /// What srt-relay forwards, in the order of its command line.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.publish.iter().chain(&self.relays)
    }

    /// Whether there is something for srt-relay to forward.
    pub fn forwards(&self) -> bool {
        self.links().next().is_some()
    }

    /// Refuses invalid values and combinations.
    fn check(&self) -> Result<()> {
        let Options { uid, gid, hostname, sidecar, .. } = &self.options;
        let why = if self.share.user && !self.options.allow_userns {
            "--share user needs --allow-userns: the caller's own limit is never touched"
        } else if self.share.user && (uid.is_some() || gid.is_some()) {
            "--uid and --gid need a user namespace of their own, not --share user"
        } else if self.share.user && !sidecar.is_empty() {
            "--sidecar needs a user namespace of its own, not --share user: the command is kept out of its reach by one"
        } else if sidecar.iter().any(|Raw(command)| command.is_empty()) {
            "--sidecar: expected a shell command"
        } else if self.share.uts && hostname.is_some() {
            "--hostname needs a uts namespace of its own, not --share uts"
        } else if let Some(Raw(name)) = hostname
            && !(1..=64).contains(&name.len())
        {
            // sethostname(2): at most 64 bytes on Linux.
            return Err(Error::usage(format!("--hostname {}: expected 1 to 64 bytes", name.display())));
        } else if self.share.net && self.forwards() {
            let why = "--relay and --publish need a net namespace of their own, not --share net";
            let hint = "in the caller's network everybody could use the port; run srt-relay if that is meant";
            return Err(Error::usage(why).hint(hint));
        } else {
            return Ok(());
        };
        Err(Error::usage(why))
    }
}

fn share(list: Option<&Raw>) -> Result<Share> {
    let mut share = Share::default();
    for name in list.into_iter().flat_map(|Raw(list)| list.as_bytes().split(|&byte| byte == b',')) {
        let Share { user, net, ipc, uts, cgroup } = &mut share;
        let known = [("user", user), ("net", net), ("ipc", ipc), ("uts", uts), ("cgroup", cgroup)];
        let Some((_, is_shared)) = known.into_iter().find(|(known, _)| known.as_bytes() == name) else {
            let name = OsStr::from_bytes(name).display();
            let what = format!("--share {name}: expected a list of net, ipc, uts, cgroup, user");
            return Err(Error::usage(what));
        };
        *is_shared = true;
    }
    Ok(share)
}

/// -1 is not an id: to the kernel it means "unchanged".
fn id(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(u32::MAX) => Err("expected a number below it".to_owned()),
        id => id.map_err(|_| "expected a number".to_owned()),
    }
}

fn relay(Raw(value): &Raw) -> Result<Link> {
    let parts = value.as_bytes().splitn(2, |&byte| byte == b'=');
    link(format!("--relay {}", value.display()), "PORT=SOCKET", parts)
}

fn publish(Raw(value): &Raw) -> Result<Link> {
    let parts = value.as_bytes().rsplitn(2, |&byte| byte == b'=');
    link(format!("--publish {}", value.display()), "SOCKET=PORT", parts)
}

/// `parts`: the port, then the socket.
fn link<'a>(text: String, form: &str, mut parts: impl Iterator<Item = &'a [u8]>) -> Result<Link> {
    match (parts.next().map(parse_port), parts.next()) {
        (Some(Ok(port)), Some(socket)) if !socket.is_empty() => {
            Ok(Link { text, port, socket: OsStr::from_bytes(socket).into() })
        }
        _ => Err(Error::usage(format!("{text}: expected {form}, with a port from 1 to 65535"))),
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
            check @ Request::Check { .. } => panic!("{check:?}"),
        }
    }

    #[test]
    fn a_check_goes_with_a_status_descriptor_alone() {
        let words = |words: &[&str]| request(words.iter().map(OsString::from).collect());
        assert_eq!(words(&["--check"]), Ok(Request::Check { status_fd: None }));
        let with_status = Ok(Request::Check { status_fd: Some(3) });
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
        assert_eq!(plan.share, Share::default());
        assert_eq!(plan.pid1, Pid1::Init);
        assert_eq!(plan.options.kill_after, Seconds(Some(Duration::from_secs(10))));
    }

    #[test]
    fn a_relay_splits_at_the_first_equals_and_a_publish_at_the_last() {
        let plan = plan(&["--relay", "80=/a=b", "--publish", "/c=d=81", "--", "true"]).expect("a plan");
        assert_eq!((plan.relays[0].port, plan.relays[0].socket.as_path()), (80, "/a=b".as_ref()));
        assert_eq!((plan.publish[0].port, plan.publish[0].socket.as_path()), (81, "/c=d".as_ref()));
    }

    #[test]
    fn a_path_may_be_any_bytes() {
        let value = OsString::from_vec(b"80=/\xff\xfe".to_vec());
        let words = vec!["--relay".into(), value, "--".into(), "true".into()];
        let Ok(Request::Run(plan)) = request(words) else { panic!("no plan") };
        assert_eq!(plan.relays[0].socket.as_os_str().as_bytes(), b"/\xff\xfe");
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
    }
}
