//! `IP:PORT`, `[IPv6]:PORT`, `localhost:PORT`, and nothing else. Pure: a resolver would read files and open sockets, on
//! somebody else's word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One address; for `localhost` 127.0.0.1 and then ::1, as resolvers answer (RFC 6761, 6.3).
///
/// # Errors
/// What was expected.
pub fn parse(text: &[u8]) -> Result<Vec<SocketAddr>, &'static str> {
    let parts = std::str::from_utf8(text).ok().and_then(|text| text.rsplit_once(':'));
    let (host, port) = parts.ok_or("expected IP:PORT")?;
    let port = parse_port(port)?;
    let v4 = |text: &str| text.parse().map(IpAddr::V4).map_err(|_| "expected an IP address or localhost");
    let v6 = |text: &str| {
        text.parse().map(IpAddr::V6).map_err(|_| "expected an IPv6 address between the brackets")
    };
    let addresses = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => vec![v6(host)?],
        None if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        None if host.contains(':') => return Err("expected brackets around an IPv6 address: [::1]:PORT"),
        None => vec![v4(host)?],
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Digits alone: `+22`, `0x16` and ` 22` are numbers to some readers, and 022 is 18 to a few.
///
/// # Errors
/// What was expected.
pub fn parse_port(text: &str) -> Result<u16, &'static str> {
    let port = text.parse().ok().filter(|_| !text.starts_with(['+', '0']));
    port.ok_or("expected a port from 1 to 65535")
}
