//! LISTEN and CONNECT addresses, from text to what they name. Pure: nothing is opened or resolved here.

use srt_common::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// An address and the words that the user knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As the user wrote it.
    pub text: OsString,
    /// What it names.
    pub place: Place,
}

/// Where to listen or to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `tcp:IP:PORT`: one socket address, or for `localhost` 127.0.0.1 and then ::1.
    Tcp(Vec<SocketAddr>),
    /// `unix:PATH`: a stream socket's path, of any bytes and any length.
    Unix(PathBuf),
    /// `fd:N`: an inherited descriptor.
    Descriptor(RawFd),
}

impl Address {
    /// Reads one address.
    ///
    /// # Errors
    /// A usage error that shows the address and says what was expected.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let place = if let Some(rest) = bytes.strip_prefix(b"tcp:") {
            tcp(rest)
        } else if let Some(path) = bytes.strip_prefix(b"unix:") {
            unix(path)
        } else if let Some(number) = bytes.strip_prefix(b"fd:") {
            decimal(number, i32::MAX as u32)
                .map(|n| Place::Descriptor(n as RawFd))
                .ok_or("expected fd:N, N a descriptor's number")
        } else {
            Err("expected tcp:IP:PORT, unix:PATH or fd:N")
        };
        match place {
            Ok(place) => Ok(Self { text: text.to_owned(), place }),
            Err(expected) => Err(Error::usage(format!("{}: {expected}", text.display()))),
        }
    }
}

fn tcp(rest: &[u8]) -> Result<Place, &'static str> {
    let colon = rest.iter().rposition(|&byte| byte == b':').ok_or("expected tcp:IP:PORT")?;
    let (host, port) = (&rest[..colon], &rest[colon + 1..]);
    // Port 0 asks the kernel for any port: nobody could tell which.
    let port =
        decimal(port, 65535).filter(|&port| port != 0).ok_or("expected a port from 1 to 65535")? as u16;
    let addresses: Vec<IpAddr> = match host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        Some(host) => vec![number::<Ipv6Addr>(host).ok_or("expected an IPv6 address between the brackets")?],
        None if host == b"localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        None if host.contains(&b':') => {
            return Err("expected brackets around an IPv6 address: tcp:[::1]:PORT");
        }
        // No names but localhost: a resolver would read files and open sockets, on somebody else's word.
        None => vec![number::<Ipv4Addr>(host).ok_or("expected an IP address or localhost")?],
    };
    Ok(Place::Tcp(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()))
}

fn unix(path: &[u8]) -> Result<Place, &'static str> {
    match path {
        b"" => Err("expected unix:PATH"),
        path if path.contains(&0) => Err("the path contains a NUL byte"),
        path => Ok(Place::Unix(PathBuf::from(OsStr::from_bytes(path)))),
    }
}

fn number<T: std::str::FromStr + Into<IpAddr>>(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse::<T>().ok().map(Into::into)
}

/// Digits alone: `parse` would take a `+` as well.
fn decimal(text: &[u8], max: u32) -> Option<u32> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|&number| number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<Place> {
        Address::parse(OsStr::new(text)).ok().map(|address| address.place)
    }

    fn sockets(list: &[&str]) -> Option<Place> {
        Some(Place::Tcp(list.iter().map(|text| text.parse().expect("address")).collect()))
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(place("tcp:127.0.0.1:80"), sockets(&["127.0.0.1:80"]));
        assert_eq!(place("tcp:[::1]:65535"), sockets(&["[::1]:65535"]));
        assert_eq!(place("tcp:localhost:1"), sockets(&["127.0.0.1:1", "[::1]:1"]));
        assert_eq!(place("unix:a:b"), Some(Place::Unix(PathBuf::from("a:b"))));
        assert_eq!(place("unix:@a"), Some(Place::Unix(PathBuf::from("@a"))));
        assert_eq!(place("fd:0"), Some(Place::Descriptor(0)));
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
            assert!(
                error.message.starts_with(text) && error.message.contains("expected") || text.contains('\0')
            );
        }
    }

    #[test]
    fn a_path_may_hold_any_bytes() {
        let bytes: Vec<u8> = b"unix:".iter().copied().chain(1..=255).collect();
        let address = Address::parse(OsStr::from_bytes(&bytes)).expect("address");
        assert_eq!(address.place, Place::Unix(PathBuf::from(OsStr::from_bytes(&bytes[5..]))));
    }
}
