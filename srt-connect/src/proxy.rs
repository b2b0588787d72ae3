//! PROXY: what was asked for, in types. Pure.

use crate::credentials::Credentials;
use crate::handshake::Handshake;
use crate::target::{Target, parse_port};
use crate::{http, socks};
use srt_common::{Error, Result};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// What to speak to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 CONNECT (RFC 9110, 9.3.6).
    Http,
    /// SOCKS5 (RFC 1928), names resolved by the proxy.
    Socks5,
}

/// Where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path: 1 to 107 bytes, none of them NUL.
    Unix(Vec<u8>),
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it may be, in the order in which to try.
    pub addresses: Vec<Address>,
    /// How messages call it: PROXY without the credentials.
    pub name: String,
    credentials: Option<Credentials>,
}

/// sun_path's 108 bytes (unix(7)) with the NUL at the end.
const PATH_LIMIT: usize = 107;

const SCHEMES: [(&str, Protocol); 2] = [("http", Protocol::Http), ("socks5h", Protocol::Socks5)];

impl Proxy {
    /// Reads PROXY. No message shows more of it than what follows the credentials.
    ///
    /// # Errors
    /// A usage error.
    pub fn parse(text: &OsStr) -> Result<Self> {
        for (scheme, protocol) in SCHEMES {
            let Some(rest) = text.as_bytes().strip_prefix(scheme.as_bytes()) else { continue };
            if let Some(path) = rest.strip_prefix(b"+unix:") {
                return Self::unix(scheme, protocol, path);
            }
            if let Some(authority) = rest.strip_prefix(b"://") {
                return Self::tcp(scheme, protocol, authority);
            }
        }
        let error = Error::usage(
            "--proxy: expected http://IP:PORT, socks5h://IP:PORT, http+unix:PATH or socks5h+unix:PATH",
        );
        Err(match text.as_bytes() {
            [b's', b'o', b'c', b'k', b's', b'5', b':', ..] => {
                error.hint("write socks5h: the h says that the proxy resolves HOST, as it always does here")
            }
            _ => error,
        })
    }

    fn unix(scheme: &str, protocol: Protocol, path: &[u8]) -> Result<Self> {
        let name = format!("{scheme}+unix:{}", OsStr::from_bytes(path).display());
        if path.is_empty() || path.contains(&0) {
            return Err(Error::usage(format!("--proxy {name}: expected the path of a Unix socket")));
        }
        if path.len() > PATH_LIMIT {
            return Err(Error::usage(format!(
                "--proxy {name}: longer than the {PATH_LIMIT} bytes of an address"
            ))
            .hint("a path relative to the working directory may be shorter"));
        }
        Ok(Self { protocol, addresses: vec![Address::Unix(path.to_vec())], name, credentials: None })
    }

    fn tcp(scheme: &str, protocol: Protocol, authority: &[u8]) -> Result<Self> {
        // The last @: curl takes a password with a bare @ too.
        let (login, place) = match authority.iter().rposition(|&byte| byte == b'@') {
            Some(at) => (authority.get(..at), authority.get(at + 1..).unwrap_or_default()),
            None => (None, authority),
        };
        let place = place.strip_suffix(b"/").unwrap_or(place);
        let name = format!("{scheme}://{}", String::from_utf8_lossy(place));
        let addresses = std::str::from_utf8(place).ok().and_then(addresses).ok_or_else(|| {
            Error::usage(format!("--proxy {name}: expected IP:PORT, [IPv6]:PORT or localhost:PORT"))
                .hint("no name but localhost is looked up here: write the proxy's address")
        })?;
        let credentials = login.map(Credentials::from_url).transpose()?;
        Ok(Self { protocol, addresses: addresses.into_iter().map(Address::Tcp).collect(), name, credentials })
    }

    /// Takes what `--auth-fd` gave.
    ///
    /// # Errors
    /// A usage error when PROXY has credentials too.
    pub fn set_credentials(&mut self, credentials: Credentials) -> Result<()> {
        match self.credentials.replace(credentials) {
            None => Ok(()),
            Some(_) => Err(Error::usage("--auth-fd: --proxy has credentials too; give them once")),
        }
    }

    /// What to say to this proxy, and how to understand it.
    ///
    /// # Errors
    /// Credentials that the protocol cannot carry.
    pub fn handshake(&self, target: &Target) -> Result<Box<dyn Handshake>> {
        let credentials = self.credentials.as_ref();
        Ok(match self.protocol {
            Protocol::Http => Box::new(http::Exchange::new(target, credentials)?),
            Protocol::Socks5 => Box::new(socks::Exchange::new(target, credentials)?),
        })
    }
}

/// The addresses behind `IP:PORT`. `localhost` is both loopback addresses, as resolvers answer (RFC 6761, 6.3).
fn addresses(place: &str) -> Option<Vec<SocketAddr>> {
    let (host, port) = place.rsplit_once(':')?;
    let port = parse_port(port.as_bytes()).ok()?;
    let ips: Vec<IpAddr> = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bare) => vec![bare.parse::<Ipv6Addr>().ok()?.into()],
        None if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        None => vec![host.parse::<Ipv4Addr>().ok()?.into()],
    };
    Some(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}
