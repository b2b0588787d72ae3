//! HOST and PORT: what is taken, in which form it is sent, and what is refused.

#![allow(clippy::expect_used, clippy::panic)]

use srt_connect::destination::{Destination, Host};
use std::ffi::OsStr;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;

fn parse(host: &[u8], port: &[u8]) -> Result<Destination, String> {
    Destination::parse(OsStr::from_bytes(host), OsStr::from_bytes(port)).map_err(|error| error.message)
}

#[test]
fn names_and_addresses_are_sent_in_their_usual_form() {
    for (host, authority) in [
        ("example.org", "example.org:22"),
        ("example.org.", "example.org.:22"),
        ("localhost", "localhost:22"),
        ("my_host-1", "my_host-1:22"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example:22"),
        ("192.0.2.1", "192.0.2.1:22"),
        ("1e100.net", "1e100.net:22"),
        ("4.example", "4.example:22"),
        ("2001:db8::1", "[2001:db8::1]:22"),
        ("[2001:DB8:0::1]", "[2001:db8::1]:22"),
        ("::", "[::]:22"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:22"),
    ] {
        assert_eq!(parse(host.as_bytes(), b"22").map(|target| target.to_string()).as_deref(), Ok(authority));
    }
}

#[test]
fn an_address_is_told_from_a_name() {
    assert_eq!(parse(b"127.0.0.1", b"1").map(|t| t.host), Ok(Host::Ip([127, 0, 0, 1].into())));
    assert_eq!(parse(b"[::1]", b"1").map(|t| t.host), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
    assert_eq!(parse(b"a", b"1").map(|t| t.host), Ok(Host::Name("a".into())));
}

/// Every HOST that must not reach a proxy.
fn hostile_hosts() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 42] = [
        b"",
        b".",
        b"..",
        b" ",
        b"a b",
        b" a",
        b"a ",
        b"a\tb",
        b"a\rb",
        b"a\nb",
        b"a\r\nX-Injected: yes\r\n\r\n",
        b"a\0b",
        b"a\x1b[2J",
        b"a\x7f",
        b"user@host",
        b"a/b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"a%b",
        b"a,b",
        b"a*b",
        b"\"a\"",
        b"-oProxyCommand=x",
        b"a..b",
        b".a",
        b"a.-b",
        b"b\xc3\xbccher.example",
        b"\xff",
        b"example.org:22",
        b"[::1",
        b"::1]",
        b"[]",
        b"[192.0.2.1]",
        b"[example.org]",
        b"fe80::1%eth0",
        b"[fe80::1%25eth0]",
        b"1::2::3",
        b"127.1",
        b"0x7f000001",
        b"2130706433",
        b"0177.0.0.1",
    ];
    let mut all: Vec<Vec<u8>> = texts.map(<[u8]>::to_vec).to_vec();
    all.push(vec![b'a'; 64]);
    all.push(vec![b'a'; 300]);
    all.push(["a.".repeat(126).as_bytes(), b"ab"].concat()); // 254
    all.extend(
        [&b"192.0.2.1."[..], b"192.0.2.01", b"1.2.3.4.5", b"256.0.0.1", b"a.0x", b"a.0X7f", b"0X7F000001"]
            .map(<[u8]>::to_vec),
    );
    all
}

#[test]
fn a_hostile_host_is_a_usage_error_that_quotes_it_harmlessly() {
    for host in hostile_hosts() {
        let error = Destination::parse(OsStr::from_bytes(&host), OsStr::new("22")).expect_err("hostile");
        assert_eq!(error.kind, srt_common::Kind::Usage);
        let lines = error.lines("t");
        assert!(
            lines.starts_with("t: HOST \"") && lines.lines().count() == 1 && lines.len() < 400,
            "{lines}"
        );
        assert!(!lines.trim_end().contains(char::is_control), "{lines:?}");
    }
}

#[test]
fn a_proxys_url_in_the_place_of_a_host_is_quoted_without_its_password() {
    for host in ["http://u:SECRET@127.0.0.1:1", "u:SEC@RET@h", &format!("u:SECRET{}@h", "x".repeat(100))] {
        let error = Destination::parse(OsStr::new(host), OsStr::new("22")).expect_err("an @");
        assert!(!error.lines("t").contains("RET"), "{}", error.lines("t"));
    }
    assert_eq!(parse(b"user@h", b"22"), Err("HOST \"...@h\": '@' cannot be part of a host name".to_owned()));
}

#[test]
fn of_all_bytes_a_name_has_letters_digits_and_three_others() {
    for byte in 0..=u8::MAX {
        let taken = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        assert_eq!(parse(&[b'a', byte, b'b'], b"1").is_ok(), taken, "{byte:#04x}");
    }
}

#[test]
fn the_longest_name_of_the_dns_is_taken() {
    let longest = ["a.".repeat(126).as_bytes(), b"a"].concat();
    assert_eq!(longest.len(), 253);
    assert!(parse(&longest, b"22").is_ok());
    assert!(parse(&[&longest[..], b"."].concat(), b"22").is_ok());
    assert!(parse(&[b'a'; 63], b"22").is_ok());
    assert!(parse(&[b'a'; 64], b"22").is_err());
}

#[test]
fn a_port_is_decimal_digits_from_1_to_65535() {
    for port in ["1", "22", "65535"] {
        assert_eq!(parse(b"a", port.as_bytes()).map(|target| target.port.to_string()).as_deref(), Ok(port));
    }
    for port in [
        "",
        "0",
        "65536",
        "99999999999999999999",
        "0x16",
        "+22",
        "-22",
        "022",
        " 22",
        "22 ",
        "22\n",
        "2 2",
        "ssh",
        "２２",
    ] {
        let error = parse(b"a", port.as_bytes()).expect_err("hostile");
        assert!(error.starts_with("PORT ") && error.ends_with("expected a port from 1 to 65535"), "{error}");
    }
}
