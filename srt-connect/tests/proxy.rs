//! PROXY: what is understood, and that no message shows a password.

#![allow(clippy::expect_used, clippy::panic)]

use srt_connect::destination::Destination;
use srt_connect::handshake::Handshake;
use srt_connect::proxy::{Address, Protocol, Proxy};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

fn parse(text: &[u8]) -> srt_common::Result<Proxy> {
    Proxy::parse(OsStr::from_bytes(text))
}

fn opening(text: &str) -> srt_common::Result<String> {
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22"))?;
    let handshake: Box<dyn Handshake> = parse(text.as_bytes())?.handshake(&target)?;
    Ok(String::from_utf8_lossy(&handshake.opening()).into_owned())
}

#[test]
fn a_proxy_has_half_a_minute_unless_it_is_told() {
    let timeout = |more: &[&str]| {
        let words = ["--proxy", "http://127.0.0.1:1"].iter().chain(more).chain(&["a", "1"]);
        srt_connect::options::parse(&words.map(Into::into).collect::<Vec<_>>()).expect("options").timeout.0
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(timeout(&[]), seconds(30));
    assert_eq!(timeout(&["--timeout", "0"]), None);
    assert_eq!(timeout(&["--timeout", "7"]), seconds(7));
}

#[test]
fn the_four_forms_are_understood() {
    let proxy = parse(b"http://127.0.0.1:3128").expect("good");
    assert_eq!(proxy.protocol, Protocol::Http);
    assert_eq!(proxy.addresses, [Address::Tcp(([127, 0, 0, 1], 3128).into())]);
    let proxy = parse(b"socks5h://[::1]:1080/").expect("good");
    assert_eq!(proxy.protocol, Protocol::Socks5);
    assert_eq!(proxy.addresses, [Address::Tcp("[::1]:1080".parse().expect("address"))]);
    for (text, path) in [
        (&b"http+unix:/run/p.sock"[..], &b"/run/p.sock"[..]),
        (b"socks5h+unix:p", b"p"),
        (b"http+unix:/a b@c:\xff%41", b"/a b@c:\xff%41"),
    ] {
        assert_eq!(parse(text).expect("good").addresses, [Address::Unix(path.to_vec())]);
    }
}

#[test]
fn localhost_is_both_loopback_addresses_and_no_other_name_is_looked_up() {
    let addresses = ["127.0.0.1:80", "[::1]:80"].map(|text| Address::Tcp(text.parse().expect("address")));
    assert_eq!(parse(b"http://localhost:80").expect("good").addresses, addresses);
    let error = parse(b"http://proxy.example:80").err().expect("a name");
    assert!(error.message.contains("http://proxy.example:80: expected IP:PORT"), "{}", error.message);
    assert!(error.hint.is_some_and(|hint| hint.contains("no name but localhost")));
}

#[test]
fn what_is_no_proxy_is_a_usage_error() {
    for text in [
        "",
        "--",
        "http",
        "http:",
        "http://",
        "http:///",
        "http://127.0.0.1",
        "http://127.0.0.1:",
        "http://127.0.0.1:0",
        "http://127.0.0.1:+80",
        "http://127.0.0.1:080",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:80//",
        "http://127.0.0.1:80/path",
        "http://127.1:80",
        "http://::1:80",
        "http://[::1%lo]:80",
        "http://[127.0.0.1]:80",
        "HTTP://127.0.0.1:80",
        "https://127.0.0.1:80",
        "socks4://127.0.0.1:80",
        "socks5://127.0.0.1:80",
        "http+unix:",
        "http+unix:a\0b",
        "127.0.0.1:80",
        "http://us%er:p@127.0.0.1:80",
        "http://user:p%4@127.0.0.1:80",
        "http://user:p%zz@127.0.0.1:80",
        "http://user:%c3%2@127.0.0.1:80",
        "http://user:%+1@127.0.0.1:80",
    ] {
        let error = parse(text.as_bytes()).err().expect(text);
        assert_eq!(error.kind, srt_common::Kind::Usage, "{text}");
        assert!(error.message.starts_with("--proxy"), "{}", error.message);
    }
    assert!(
        parse(b"socks5://127.0.0.1:80").err().expect("5").hint.is_some_and(|hint| hint.contains("socks5h"))
    );
    let percent = parse(b"http://user:p%4@127.0.0.1:80").err().expect("%");
    assert!(percent.hint.is_some_and(|hint| hint.contains("%25")));
}

#[test]
fn a_path_may_be_longer_than_a_socket_address() {
    assert!(parse(&[&b"http+unix:"[..], &[b'a'; 107]].concat()).is_ok());
    assert!(parse(&[&b"http+unix:"[..], &[b'a'; 108]].concat()).is_ok());
    assert!(parse(b"http+unix:a\0b").is_err());
}

#[test]
fn credentials_in_the_url_are_percent_decoded_and_sent() {
    // RFC 7617, 2: Aladdin and his password.
    let text = opening("http://Aladdin:open%20sesame@127.0.0.1:80").expect("good");
    assert!(text.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{text}");
    // `a:b@c`, `a:` and `:`, in all lengths of base64's last group.
    for (url, basic) in [
        ("a:b@c", "YTpiQGM="),
        ("a", "YTo="),
        (":", "Og=="),
        ("a:%62%63d", "YTpiY2Q="),
        ("a:b:c", "YTpiOmM="),
    ] {
        let text = opening(&format!("http://{url}@127.0.0.1:80")).expect("good");
        assert!(text.contains(&format!("Basic {basic}\r\n")), "{text}");
    }
}

#[test]
fn credentials_that_a_protocol_cannot_carry_are_refused_before_anything_is_sent() {
    for url in [
        "http://a%3Ab:c@127.0.0.1:80",
        "http://a:b%0d%0aX:%20y@127.0.0.1:80",
        "http://a:%00@127.0.0.1:80",
        "http://a%0d:b@127.0.0.1:80",
        "socks5h://:secret@127.0.0.1:80",
        "socks5h://user:@127.0.0.1:80",
        &format!("socks5h://{}:b@127.0.0.1:80", "a".repeat(256)),
        &format!("socks5h://a:{}@127.0.0.1:80", "b".repeat(256)),
    ] {
        assert_eq!(opening(url).expect_err(url).kind, srt_common::Kind::Usage, "{url}");
    }
    let long = "b".repeat(255);
    assert!(opening(&format!("socks5h://{long}:{long}@127.0.0.1:80")).is_ok());
}

#[test]
fn no_message_shows_a_password() {
    for url in [
        "http://user:hunter2@127.0.0.1",
        "http://user:hunter2@proxy.example:80",
        "http://user:hunter2%@127.0.0.1:80",
        "https://user:hunter2@127.0.0.1:80",
        "http:user:hunter2@127.0.0.1:80",
        "user:hunter2@127.0.0.1:80",
        "http://user:hunter2%00@127.0.0.1:80",
        "socks5h://:hunter2@127.0.0.1:80",
    ] {
        let lines = opening(url).expect_err(url).lines("t");
        assert!(!lines.contains("hunter2"), "{lines}");
    }
    let proxy = parse(b"http://user:hunter2@127.0.0.1:80").expect("good");
    assert_eq!(proxy.name, "http://127.0.0.1:80");
}

#[test]
fn credentials_of_a_unix_proxy_are_not_taken_for_its_path() {
    for proxy in [&b"http+unix:u:SECRET@/run/x"[..], b"socks5h+unix:u:SECRET@x"] {
        let lines = parse(proxy).map(drop).expect_err("credentials").lines("t");
        assert!(!lines.contains("SECRET") && lines.contains("--auth-fd"), "{lines}");
    }
    for path in ["http+unix:/run/user:1/a@b", "http+unix:./u:p@x", "http+unix:a@b", "http+unix:a:b"] {
        assert_eq!(parse(path.as_bytes()).expect("a path").name, path);
    }
}
