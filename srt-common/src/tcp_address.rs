//! Parses `IP:PORT`, `[IPv6]:PORT`, `localhost:PORT`, and nothing else. Pure code: a resolver would read files, open
//! sockets, and trust the answers of others.

use crate::args::decimal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One address; for `localhost` 127.0.0.1 and then ::1, as resolvers answer (RFC 6761, 6.3).
///
/// # Errors
/// The expected form.
pub fn parse(text: &[u8]) -> Result<Vec<SocketAddr>, &'static str> {
    let parts = std::str::from_utf8(text).ok().and_then(|text| text.rsplit_once(':'));
    let (host, port) = parts.ok_or("expected IP:PORT")?;
    let port = parse_port(port.as_bytes())?;
    let addresses = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => {
            vec![host.parse().map(IpAddr::V6).map_err(|_| "expected an IPv6 address between the brackets")?]
        }
        None if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        None if host.contains(':') => return Err("expected brackets around an IPv6 address: [::1]:PORT"),
        None => vec![host.parse().map(IpAddr::V4).map_err(|_| "expected an IP address or localhost")?],
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Whether an error only means that an address family is disabled here, as may be true of one address of `localhost`.
pub fn has_no_such_family(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Digits only: some parsers accept `+22`, `0x16` and ` 22`, and a few read 022 as 18.
///
/// # Errors
/// The expected form.
pub fn parse_port(text: &[u8]) -> Result<u16, &'static str> {
    let port = decimal(text).filter(|_| !text.starts_with(b"0"));
    port.ok_or("expected a port from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_digits_alone_and_does_not_begin_with_a_zero() {
        for (text, port) in [("1", 1), ("80", 80), ("65535", 65535)] {
            assert_eq!(parse_port(text.as_bytes()), Ok(port));
        }
        for bad in [
            "",
            "0",
            "00",
            "080",
            "022",
            "65536",
            "99999999999",
            "+80",
            "-80",
            " 80",
            "80 ",
            "0x50",
            "8o",
            "http",
        ] {
            assert_eq!(parse_port(bad.as_bytes()), Err("expected a port from 1 to 65535"), "{bad:?}");
            assert!(parse(format!("127.0.0.1:{bad}").as_bytes()).is_err(), "{bad:?}");
        }
    }
}
