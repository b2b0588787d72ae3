//! The command line.

use crate::bpf::Load;
use crate::landlock::LandlockOptions;
use crate::rules::{self, Rule};
use argh::FromArgs;
use srt_common::args::{self, CommandLine, Raw};
use srt_common::tool::Tool;
use srt_common::{Error, Result, tcp_address};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;

/// What the user asks for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// `--list`
    List,
    /// `--export`: the filter of these rules.
    Export(Vec<&'static Rule>),
    /// Run PROGRAM.
    Run(Plan),
}

/// How to run PROGRAM.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The rules to enforce.
    pub rules: Vec<&'static Rule>,
    /// The Landlock restrictions.
    pub landlock: LandlockOptions,
    /// The user's own filters, in order.
    pub loads: Vec<Load>,
    /// The descriptors that PROGRAM inherits besides 0, 1 and 2.
    pub keep_fds: Vec<RawFd>,
    /// PROGRAM and its arguments.
    pub program: Vec<OsString>,
}

/// The options before `--`.
#[derive(FromArgs)]
#[argh(
    usage = "[options] -- PROGRAM [args...]\n       srt-seccomp [--allow RULE,...] [--deny RULE,...] --export >FILE\n       srt-seccomp --list",
    description = "Runs PROGRAM with no capabilities, no_new_privs, and a seccomp filter that refuses what the rules name. Foreign ABIs (i386, x32, 32-bit ARM) kill the process.",
    note = "Refused calls fail with EPERM, those that programs probe for with ENOSYS.\nExit status: PROGRAM's own; 125 if srt-seccomp fails, 126 if PROGRAM cannot be run, 127 if it is not found."
)]
pub struct Options {
    /// RULE,...: turn off rules that are on by default (repeatable; see --list)
    #[argh(option, arg_name = "RULE,...")]
    allow: Vec<String>,
    /// RULE,...: turn rules on (repeatable; see --list)
    #[argh(option, arg_name = "RULE,...")]
    deny: Vec<String>,
    /// FILE: add a raw BPF filter after all other steps; --load and --load-fd act in the order given (repeatable)
    #[argh(option, arg_name = "FILE")]
    load: Vec<Raw>,
    /// the same, read from descriptor N to its end (repeatable)
    #[argh(option, arg_name = "N")]
    load_fd: Vec<RawFd>,
    /// use Landlock to permit only what PROGRAM's mounts permit, so that a read-only mount also protects FIFOs
    #[argh(switch)]
    landlock: bool,
    /// let PROGRAM read and execute what is below PATH, and open nothing that no --read or --write names (repeatable)
    #[argh(option, arg_name = "PATH")]
    read: Vec<Raw>,
    /// the same, and write below PATH (repeatable)
    #[argh(option, arg_name = "PATH")]
    write: Vec<Raw>,
    /// in place of the rule unix: connect only to Unix sockets created inside, and to PATH or below it (repeatable)
    #[argh(option, arg_name = "PATH")]
    unix: Vec<Raw>,
    /// in place of the rule net: permit no network but TCP connections to PORT (repeatable)
    #[argh(option, arg_name = "PORT", from_str_fn(port))]
    connect_tcp: Vec<u16>,
    /// write the rules' filter to stdout as raw BPF, for --load or bwrap --seccomp, and run nothing
    #[argh(switch)]
    export: bool,
    /// print the rules, their defaults and their system calls
    #[argh(switch)]
    list: bool,
    /// leave descriptor N open for PROGRAM (repeatable)
    #[argh(option, arg_name = "N")]
    keep_fd: Vec<RawFd>,
    /// write events to descriptor N, one JSON object a line
    #[argh(option, arg_name = "N")]
    status_fd: Option<RawFd>,
    /// print the version
    #[argh(switch)]
    #[allow(dead_code)]
    version: bool,
}

fn port(text: &str) -> std::result::Result<u16, String> {
    tcp_address::parse_port(text.as_bytes()).map_err(str::to_owned)
}

/// Parses the command line. `tool.status` is set as soon as it is known.
///
/// # Errors
/// Usage errors.
pub fn parse(tool: &mut Tool, line: CommandLine) -> Result<Request> {
    let options = args::parse::<Options>(tool.name, &line.options);
    let options = options.map_err(|error| line.explain(tool.name, error))?;
    tool.take_status(options.status_fd)?;
    let mut read = BTreeSet::new();
    if let Some(fd) = options.load_fd.iter().find(|fd| !read.insert(**fd)) {
        return Err(Error::usage(format!("--load-fd {fd}: an earlier option reads it")));
    }
    let mut rules = rules::select(&options.allow, &options.deny)?;
    let Options { read, write, unix, connect_tcp, .. } = options;
    let landlock = LandlockOptions { mounts: options.landlock, read, write, unix, connect_tcp };
    if landlock.mounts && landlock.by_path() {
        return Err(Error::usage(
            "--landlock takes its rights from the mounts: leave out --read and --write",
        ));
    }
    // Landlock checks paths and ports, which a filter cannot see.
    let (unix, tcp) = (!landlock.unix.is_empty(), !landlock.connect_tcp.is_empty());
    rules.retain(|rule| !(unix && rule.name == "unix" || tcp && rule.name == "net"));
    let holds = |name| rules.iter().any(|rule| rule.name == name);
    let further = [
        (landlock != LandlockOptions::default(), &rules::NO_LIMITS_OF_OTHERS),
        (landlock.by_path(), &rules::NO_CHANGES_BY_IOCTL),
        (tcp, &rules::NET_BUT_TCP),
        (tcp && holds("unix"), &rules::NO_LISTEN),
        (tcp || holds("net"), &rules::NO_TIPC_PAIRS),
    ];
    rules.extend(further.into_iter().filter(|(wanted, _)| *wanted).map(|(_, rule)| rule));
    let (alone, request) = match (options.list, options.export) {
        (false, false) => {
            let (loads, keep_fds) = (loads(&line.options), options.keep_fd);
            let program = line.program(tool.name)?;
            return Ok(Request::Run(Plan { rules, landlock, loads, keep_fds, program }));
        }
        (true, false) => ("--list", Request::List),
        (false, true) => ("--export", Request::Export(rules)),
        _ => return Err(Error::usage("--list, --export: expected one of them")),
    };
    if line.program.is_some() {
        return Err(Error::usage(format!("{alone} runs no program: leave out -- and what follows")));
    }
    // Only one filter can be exported, and Landlock is not a filter.
    if !options.load.is_empty() || !options.load_fd.is_empty() || landlock != LandlockOptions::default() {
        return Err(Error::usage(format!(
            "{alone} cannot be combined with --load or --load-fd, nor with Landlock's options"
        )));
    }
    Ok(request)
}

/// `--load` and `--load-fd` in their order, which argh does not preserve. argh has parsed these words before, so
/// every option has its value and every number is valid.
fn loads(options: &[OsString]) -> Vec<Load> {
    let mut words = options.iter();
    let mut loads = vec![];
    while let Some(option) = words.next() {
        let switch = ["--export", "--landlock", "--list", "--version"].iter().any(|switch| option == switch);
        let value = if switch { None } else { words.next() };
        match (option.to_str(), value) {
            (Some("--load"), Some(path)) => loads.push(Load::File(path.clone())),
            (Some("--load-fd"), Some(fd)) => {
                loads.extend(fd.to_str().and_then(|fd| fd.parse().ok()).map(Load::Fd))
            }
            _ => {}
        }
    }
    loads
}
