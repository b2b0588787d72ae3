//! Parses PROXY. Does no I/O.

use crate::credentials::Credentials;
use crate::destination::Destination;
use crate::handshake::Handshake;
use crate::{http, socks};
use srt_common::{Error, Result, tcp_address};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

/// The protocol of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 CONNECT (RFC 9110, 9.3.6).
    Http,
    /// SOCKS5 (RFC 1928); the proxy resolves names.
    Socks5,
}

/// Where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path, without a NUL byte.
    Unix(Vec<u8>),
}

/// A proxy.
pub struct Proxy {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its possible addresses, in the order in which to try them.
    pub addresses: Vec<Address>,
    /// Its name in messages: PROXY without the credentials.
    pub name: String,
    credentials: Option<Credentials>,
}

const SCHEMES: [(&str, Protocol); 2] = [("http", Protocol::Http), ("socks5h", Protocol::Socks5)];

impl Proxy {
    /// Parses PROXY. Messages show only what follows the credentials.
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
        let hint = "write socks5h: the h says that the proxy resolves HOST, as it always does here";
        Err(if text.as_bytes().starts_with(b"socks5:") { error.hint(hint) } else { error })
    }

    fn unix(scheme: &str, protocol: Protocol, path: &[u8]) -> Result<Self> {
        let name = format!("{scheme}+unix:{}", OsStr::from_bytes(path).display());
        if path.is_empty() || path.contains(&0) {
            return Err(Error::usage(format!("--proxy {name}: expected the path of a Unix socket")));
        }
        let first = path.split(|&byte| byte == b'/').next().unwrap_or_default();
        if first.contains(&b':') && first.contains(&b'@') {
            return Err(Error::usage(format!("--proxy {scheme}+unix: a path has no credentials"))
                .hint("--auth-fd N, with user:password in N; or ./PATH if it is one"));
        }
        Ok(Self { protocol, addresses: vec![Address::Unix(path.to_vec())], name, credentials: None })
    }

    fn tcp(scheme: &str, protocol: Protocol, authority: &[u8]) -> Result<Self> {
        // The last @: curl also accepts a password with an unencoded @.
        let mut parts = authority.rsplitn(2, |&byte| byte == b'@');
        let (place, login) = (parts.next().unwrap_or_default(), parts.next());
        let place = place.strip_suffix(b"/").unwrap_or(place);
        let name = format!("{scheme}://{}", String::from_utf8_lossy(place));
        let addresses = tcp_address::parse(place).map_err(|_| {
            Error::usage(format!("--proxy {name}: expected IP:PORT, [IPv6]:PORT or localhost:PORT"))
                .hint("no name but localhost is looked up here: write the proxy's address")
        })?;
        let credentials = login.map(Credentials::from_url).transpose()?;
        Ok(Self { protocol, addresses: addresses.into_iter().map(Address::Tcp).collect(), name, credentials })
    }

    /// Sets the credentials of `--auth-fd`.
    ///
    /// # Errors
    /// A usage error if PROXY has credentials too.
    pub fn set_credentials(&mut self, credentials: Credentials) -> Result<()> {
        match self.credentials.replace(credentials) {
            None => Ok(()),
            Some(_) => Err(Error::usage("--auth-fd: --proxy already contains credentials")),
        }
    }

    /// The handshake with this proxy.
    ///
    /// # Errors
    /// Credentials that the protocol cannot carry.
    pub fn handshake(&self, destination: &Destination) -> Result<Box<dyn Handshake>> {
        let credentials = self.credentials.as_ref();
        Ok(match self.protocol {
            Protocol::Http => Box::new(http::Exchange::new(destination, credentials)?),
            Protocol::Socks5 => Box::new(socks::Exchange::new(destination, credentials)?),
        })
    }
}
