//! The command line.

use argh::FromArgs;
use srt_common::Result;
use srt_common::args::{self, Raw, Seconds};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// The tool's name.
pub const NAME: &str = "srt-connect";

/// Connects stdin and stdout to HOST PORT through an HTTP CONNECT or SOCKS5 proxy.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    note = "PROXY is one of\n\n  \
            http://IP:PORT       HTTP CONNECT\n  \
            socks5h://IP:PORT    SOCKS5\n  \
            http+unix:PATH       HTTP CONNECT on a Unix socket\n  \
            socks5h+unix:PATH    SOCKS5 on a Unix socket\n\n\
            IP may be localhost, or an IPv6 address in brackets. USER:PASSWORD@ may precede it, percent-encoded,\n\
            but every user of the machine can read a command line: --auth-fd hides the password.\n\n\
            The proxy resolves HOST. Half-close works both ways.",
    example = "ssh -o ProxyCommand='srt-connect --proxy http://127.0.0.1:3128 %h %p' git@example.org",
    example = "srt-connect --proxy socks5h://[::1]:1080 --auth-fd 3 example.org 22 3<password-file",
    error_code(0, "both directions have ended"),
    error_code(1, "no connection, or it broke; a message says why"),
    error_code(2, "wrong usage: an option, HOST or PORT is malformed; nothing was sent")
)]
pub struct Options {
    /// the proxy: see below
    #[argh(option, arg_name = "PROXY")]
    pub proxy: Raw,
    /// time limit for the connection, in seconds (default 30; 0: no limit)
    #[argh(option, arg_name = "S", default = "Seconds(Some(Duration::from_secs(30)))")]
    pub timeout: Seconds,
    /// descriptor to read USER:PASSWORD from, to its end
    #[argh(option, arg_name = "N")]
    pub auth_fd: Option<RawFd>,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// name or IP address, resolved by the proxy
    #[argh(positional, arg_name = "HOST")]
    pub host: Raw,
    /// TCP port, 1 to 65535
    #[argh(positional, arg_name = "PORT")]
    pub port: Raw,
}

/// Parses argv, without argv\[0\].
///
/// # Errors
/// A usage error of one line.
pub fn parse(words: &[OsString]) -> Result<Options> {
    // argh quotes a word that it does not know, and `--proxy=http://user:password@…` is such a word.
    args::parse::<Options>(NAME, words)
        .or_else(|_| args::parse(NAME, &words.iter().map(without_secret).collect::<Vec<_>>()))
}

/// The word, truncated if it may contain a password.
fn without_secret(word: &OsString) -> OsString {
    if !word.as_bytes().contains(&b'@') {
        return word.clone();
    }
    let plain = word.as_bytes().iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-');
    OsString::from_vec(plain.copied().chain(*b"...").collect())
}
