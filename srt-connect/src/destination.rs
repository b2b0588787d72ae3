//! HOST and PORT: what may be sent to a proxy. Does no I/O.
//!
//! Both may come from an attacker who can choose an ssh host name (for example in the URL of a submodule:
//! CVE-2017-1000117), and become part of a request line. So this is an allow-list.

use srt_common::tcp_address::parse_port;
use srt_common::{Error, Result};
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// The host and port that the proxy is to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The host, by name or by address.
    pub host: Host,
    /// The TCP port, not 0.
    pub port: u16,
}

/// A host, as both proxy protocols distinguish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, for the proxy to resolve: at most 254 letters, digits, `-`, `_` and `.`.
    Name(String),
}

/// Formats an authority (RFC 3986, 3.2): `name:22`, `192.0.2.1:22`, `[2001:db8::1]:22`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Destination {
    /// Parses HOST and PORT.
    ///
    /// # Errors
    /// A usage error that says which of them is wrong, and why.
    pub fn parse(host: &OsStr, port: &OsStr) -> Result<Self> {
        let refuse = |what: &str, word: &OsStr, why: &str| {
            let word = word.to_string_lossy();
            // If this is a proxy's URL, a password stands before the @.
            let word = word.rsplit_once('@').map_or(word.to_string(), |(_, rest)| format!("...@{rest}"));
            let word: String = word.chars().take(80).collect();
            Error::usage(format!("{what} {word:?}: {why}"))
        };
        Ok(Self {
            host: parse_host(host.as_bytes()).map_err(|why| refuse("HOST", host, &why))?,
            port: parse_port(port.as_bytes()).map_err(|why| refuse("PORT", port, why))?,
        })
    }
}

fn parse_host(bytes: &[u8]) -> Result<Host, String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text,
        _ => return Err("not ASCII; write an international name in its xn-- form".to_owned()),
    };
    if text.contains(':') || text.starts_with('[') {
        return parse_v6(text).map(|address| Host::Ip(address.into()));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(address.into()));
    }
    check_name(text)?;
    Ok(Host::Name(text.to_owned()))
}

fn parse_v6(text: &str) -> Result<Ipv6Addr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.contains('%') {
        // RFC 4007, 11.2. SOCKS5 has no field for a zone (RFC 1928, 5), and CONNECT's authority has no agreed form.
        return Err("a zone names an interface of this machine; it means nothing to a proxy".to_owned());
    }
    bare.parse().map_err(|_| "not an IPv6 address; HOST and PORT are two words".to_owned())
}

/// RFC 1123, 2.1, plus the `_` that some names contain, and a dot at the end for the root.
fn check_name(name: &str) -> Result<(), String> {
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.is_empty() {
        return Err("a host name is missing".to_owned());
    }
    if labels.len() > 253 {
        return Err("longer than the 253 characters of a host name".to_owned());
    }
    if let Some(bad) = labels.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-_.".contains(c)) {
        return Err(format!("{bad:?} cannot be part of a host name"));
    }
    if labels.split('.').any(|label| label.is_empty() || label.len() > 63 || label.starts_with('-')) {
        return Err("a label has 1 to 63 characters, the first of which is not a hyphen".to_owned());
    }
    // inet_aton(3) reads 127.1, 0177.0.0.1 and 2130706433 as 127.0.0.1, which bypasses a proxy that filters by name.
    // The URL standard decides by the last label, too.
    let last = labels.rsplit('.').next().unwrap_or(labels);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err("ends in a number, and is not an IPv4 address".to_owned());
    }
    Ok(())
}
