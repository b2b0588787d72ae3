//! `IP:PORT`, `[IPv6]:PORT`, `localhost:PORT`, and nothing else. Pure: a resolver would read files and open sockets, on
//! somebody else's word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// One address; for `localhost` 127.0.0.1 and then ::1, as resolvers answer (RFC 6761, 6.3).
///
/// # Errors
/// What was expected.
pub fn parse(text: &[u8]) -> Result<Vec<SocketAddr>, &'static str> {
    let colon = text.iter().rposition(|&byte| byte == b':').ok_or("expected IP:PORT")?;
    let (host, port) = text.split_at(colon);
    let port = parse_port(port.get(1..).unwrap_or_default())?;
    let addresses: Vec<IpAddr> = match host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        Some(host) => vec![ip::<Ipv6Addr>(host).ok_or("expected an IPv6 address between the brackets")?],
        None if host == b"localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        None if host.contains(&b':') => return Err("expected brackets around an IPv6 address: [::1]:PORT"),
        None => vec![ip::<Ipv4Addr>(host).ok_or("expected an IP address or localhost")?],
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Digits alone: `+22`, `0x16` and ` 22` are numbers to some readers, and 022 is 18 to a few.
///
/// # Errors
/// What was expected.
pub fn parse_port(text: &[u8]) -> Result<u16, &'static str> {
    let decimal = matches!(text, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    let port = std::str::from_utf8(text).ok().filter(|_| decimal).and_then(|digits| digits.parse().ok());
    port.ok_or("expected a port from 1 to 65535")
}

fn ip<T: FromStr + Into<IpAddr>>(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse::<T>().ok().map(Into::into)
}
