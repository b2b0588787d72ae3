//! Parses LISTEN and CONNECT addresses. Nothing is opened or resolved here.

use srt_common::{Error, Result, args::decimal, tcp_address};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// An address, and the text that the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As the user wrote it.
    pub text: OsString,
    /// What it names.
    pub endpoint: Endpoint,
}

/// Where to listen or to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `tcp:IP:PORT`: one socket address, or for `localhost` 127.0.0.1 and then ::1.
    Tcp(Vec<SocketAddr>),
    /// `unix:PATH`: a stream socket's path, of any bytes and any length.
    Unix(PathBuf),
    /// `fd:N`: an inherited descriptor.
    Inherited(RawFd),
}

impl Address {
    /// Parses one address.
    ///
    /// # Errors
    /// A usage error that shows the address and says what was expected.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let endpoint = if let Some(rest) = bytes.strip_prefix(b"tcp:") {
            tcp_address::parse(rest).map(Endpoint::Tcp)
        } else if let Some(path) = bytes.strip_prefix(b"unix:") {
            // NUL would end the path for the kernel; argv contains none.
            let path = Some(path).filter(|path| !path.is_empty() && !path.contains(&0));
            path.map(|path| Endpoint::Unix(OsStr::from_bytes(path).into())).ok_or("expected unix:PATH")
        } else if let Some(number) = bytes.strip_prefix(b"fd:") {
            decimal(number).map(Endpoint::Inherited).ok_or("expected fd:N, N a descriptor")
        } else {
            Err("expected tcp:IP:PORT, unix:PATH or fd:N")
        };
        match endpoint {
            Ok(endpoint) => Ok(Self { text: text.to_owned(), endpoint }),
            Err(expected) => Err(Error::usage(format!("{}: {expected}", text.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Option<Endpoint> {
        Address::parse(OsStr::new(text)).ok().map(|address| address.endpoint)
    }

    fn sockets(list: &[&str]) -> Option<Endpoint> {
        Some(Endpoint::Tcp(list.iter().map(|text| text.parse().expect("address")).collect()))
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(endpoint("tcp:127.0.0.1:80"), sockets(&["127.0.0.1:80"]));
        assert_eq!(endpoint("tcp:[::1]:65535"), sockets(&["[::1]:65535"]));
        assert_eq!(endpoint("tcp:localhost:1"), sockets(&["127.0.0.1:1", "[::1]:1"]));
        assert_eq!(endpoint("unix:a:b"), Some(Endpoint::Unix(PathBuf::from("a:b"))));
        assert_eq!(endpoint("unix:@a"), Some(Endpoint::Unix(PathBuf::from("@a"))));
        assert_eq!(endpoint("fd:0"), Some(Endpoint::Inherited(0)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "tcp",
            "tcp:",
            "tcp:80",
            "tcp::80",
            "tcp:127.0.0.1",
            "tcp:127.0.0.1:",
            "tcp:127.0.0.1:0",
            "tcp:127.0.0.1:65536",
            "tcp:127.0.0.1:+80",
            "tcp:127.0.0.1:0x50",
            "tcp:127.0.0.1: 80",
            "tcp:::1:80",
            "tcp:[::1]80",
            "tcp:[::1:80",
            "tcp:[127.0.0.1]:80",
            "tcp:[::1%lo]:80",
            "tcp:example.org:80",
            "tcp:127.1:80",
            "tcp:0127.0.0.1:80",
            "unix:",
            "unix:a\0b",
            "fd:",
            "fd:-1",
            "fd:+3",
            "fd:2147483648",
            "fd:99999999999999999999",
            "udp:127.0.0.1:80",
            "TCP:127.0.0.1:80",
            "/run/sock",
        ] {
            let error = Address::parse(OsStr::new(text)).expect_err(text);
            assert!(error.message.starts_with(text) && error.message.contains("expected"));
        }
    }

    #[test]
    fn a_path_may_hold_any_bytes() {
        let bytes: Vec<u8> = b"unix:".iter().copied().chain(1..=255).collect();
        let address = Address::parse(OsStr::from_bytes(&bytes)).expect("address");
        assert_eq!(address.endpoint, Endpoint::Unix(PathBuf::from(OsStr::from_bytes(&bytes[5..]))));
    }
}
