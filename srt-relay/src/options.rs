//! The command line.

use crate::address::{Address, Endpoint};
use argh::FromArgs;
use srt_common::args::{self, Raw, Seconds};
use srt_common::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

/// Relay bytes between listening and connecting sockets: each LISTEN address accepts, and each of its
/// connections leads to the CONNECT address that follows it.
#[derive(FromArgs, Debug)]
#[argh(note = "Addresses:
  tcp:IP:PORT      tcp:[::1]:PORT for IPv6; tcp:localhost:PORT is 127.0.0.1, and ::1 too where it listens
  unix:PATH        to listen: made with mode 0600, replaces a dead socket, removed at exit;
                   to connect: the socket that exists at the start, not one that replaces it
  fd:N             to listen: an inherited listening socket;
                   to connect: an O_PATH descriptor of a Unix socket")]
#[argh(note = "On a host:     srt-relay unix:/run/proxy.sock tcp:127.0.0.1:3128
In a sandbox:  srt-relay tcp:127.0.0.1:3128 unix:/run/proxy.sock")]
#[argh(note = "Ends with its parent, or with SIGTERM, SIGINT or SIGHUP, and removes its sockets.
Exit status: 0 after such an end, 1 with a message, 2 for wrong usage.")]
pub struct Options {
    /// write "ready" and a newline to descriptor N and close it, once every LISTEN address accepts
    #[argh(option, arg_name = "N", from_str_fn(number))]
    pub ready_fd: Option<RawFd>,
    /// write events to descriptor N, one JSON object a line
    #[argh(option, arg_name = "N", from_str_fn(number))]
    pub status_fd: Option<RawFd>,
    /// instead of the events of clients that are refused: a line "lost PAIR ERRNO" to descriptor N where a Unix socket to
    /// connect to is gone, "failed PAIR ERRNO" otherwise; PAIR counts from 0
    #[argh(option, arg_name = "N", from_str_fn(number))]
    pub report_fd: Option<RawFd>,
    /// end when the last writer of the pipe N is gone (repeatable)
    #[argh(option, arg_name = "N", from_str_fn(number))]
    pub lifetime_fd: Vec<RawFd>,
    /// leave clients waiting while N connections are open (as many as descriptors allow)
    #[argh(option, arg_name = "N", default = "usize::MAX", from_str_fn(at_least_one))]
    pub max_connections: usize,
    /// give up on a CONNECT address after S seconds (10; 0: never)
    #[argh(option, arg_name = "S", default = "Seconds(Some(Duration::from_secs(10)))")]
    pub connect_timeout: Seconds,
    /// close connections on which nothing has moved for S seconds (0: never)
    #[argh(option, arg_name = "S", default = "Seconds(None)")]
    pub idle_timeout: Seconds,
    /// keep running when the parent process dies
    #[argh(switch)]
    pub outlive_parent: bool,
    /// print the version
    #[argh(switch)]
    #[allow(dead_code)] // Handled before argh parses anything; here for --help.
    version: bool,
    /// pairs of addresses
    #[argh(positional, arg_name = "LISTEN CONNECT")]
    addresses: Vec<Raw>,
}

fn number(text: &str) -> Result<i32, String> {
    args::decimal(text.as_bytes()).ok_or_else(|| "expected a number".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match number(text)? {
        0 => Err("expected 1 or more".to_owned()),
        most => Ok(most as usize),
    }
}

/// The parsed command line.
pub struct Plan {
    /// The pairs of LISTEN and CONNECT addresses.
    pub pairs: Vec<[Address; 2]>,
    /// The options that are used as they are given.
    pub options: Options,
}

impl Plan {
    /// Parses argv without argv\[0\].
    ///
    /// # Errors
    /// A usage error that names the option or address and what was expected.
    pub fn parse(words: &[OsString]) -> Result<Self> {
        let options: Options = args::parse("srt-relay", words)?;
        let addresses =
            options.addresses.iter().map(|raw| Address::parse(&raw.0)).collect::<Result<Vec<_>>>()?;
        let (pairs, rest) = addresses.as_chunks::<2>();
        match rest {
            [alone] => {
                return Err(Error::usage(format!("{}: no CONNECT address follows", alone.text.display())));
            }
            _ if pairs.is_empty() => return Err(Error::usage("expected LISTEN CONNECT")),
            _ => {}
        }
        let plan = Self { pairs: pairs.to_vec(), options };
        let mut used = BTreeSet::new();
        match plan.descriptors().into_iter().find(|(_, fd)| !used.insert(*fd)) {
            Some((_, fd)) => Err(Error::usage(format!("descriptor {fd} is used twice"))),
            None => Ok(plan),
        }
    }

    /// Every descriptor that the caller must have opened, and the words before its number. Several pairs may use one
    /// target socket, which is listed once; any other descriptor that is listed twice is a mistake.
    pub fn descriptors(&self) -> Vec<(&'static str, RawFd)> {
        let number = |address: &Address| match address.endpoint {
            Endpoint::Inherited(fd) => Some(("fd:", fd)),
            _ => None,
        };
        let Options { ready_fd, status_fd, report_fd, lifetime_fd, .. } = &self.options;
        let once = [("--ready-fd ", ready_fd), ("--status-fd ", status_fd), ("--report-fd ", report_fd)];
        let mut all: Vec<_> = once.into_iter().filter_map(|(name, fd)| Some((name, (*fd)?))).collect();
        all.extend(lifetime_fd.iter().map(|&fd| ("--lifetime-fd ", fd)));
        all.extend(self.pairs.iter().filter_map(|[listen, _]| number(listen)));
        let connect: BTreeSet<_> = self.pairs.iter().filter_map(|[_, connect]| number(connect)).collect();
        all.into_iter().chain(connect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Plan> {
        Plan::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn plan(words: &[&str]) -> Plan {
        parse(words).expect("options")
    }

    #[test]
    fn pairs_are_taken_in_order() {
        let plan = plan(&["fd:5", "fd:9", "--max-connections", "7", "fd:6", "fd:9"]);
        let names: Vec<_> = plan.pairs.iter().map(|[l, c]| (l.text.to_str(), c.text.to_str())).collect();
        assert_eq!(names, [(Some("fd:5"), Some("fd:9")), (Some("fd:6"), Some("fd:9"))]);
        assert_eq!(plan.options.max_connections, 7);
        assert_eq!(plan.descriptors(), [("fd:", 5), ("fd:", 6), ("fd:", 9)]);
    }

    #[test]
    fn times_are_seconds_and_zero_is_never() {
        let plan = plan(&["--connect-timeout", "0", "--idle-timeout", "0.25", "fd:3", "fd:4"]);
        let times = |options: Options| (options.connect_timeout.0, options.idle_timeout.0);
        assert_eq!(times(plan.options), (None, Some(Duration::from_millis(250))));
        assert_eq!(times(self::plan(&["fd:3", "fd:4"]).options), (Some(Duration::from_secs(10)), None));
        for bad in ["-1", "1e3", "inf", "nan", "", ".", "1s", "99999999999"] {
            assert!(parse(&["--idle-timeout", bad, "fd:3", "fd:4"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn senseless_lines_are_refused() {
        for bad in [
            &["fd:3"][..],
            &[],
            &["fd:3", "fd:4", "fd:5"],
            &["fd:3", "fd:4", "fd:3", "fd:5"],
            &["fd:3", "fd:3"],
            &["--ready-fd", "3", "fd:3", "fd:4"],
            &["--max-connections", "0", "fd:3", "fd:4"],
            &["--max-connections", "+1", "fd:3", "fd:4"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
