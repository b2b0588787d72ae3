//! PROXY: what is taken has an address that connect(2) can be given, makes a request of as many lines as it should, and
//! shows no password.

use srt_connect::destination::Destination;
use srt_connect::proxy::{Address, Protocol, Proxy};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub fn check(input: &[u8]) {
    let proxy = match Proxy::parse(OsStr::from_bytes(input)) {
        Ok(proxy) => proxy,
        Err(error) => {
            let lines = error.lines("t");
            assert!(!lines.trim_end().contains(|c: char| c.is_control() && c != '\n'));
            // Everything before the last @ may be a password, but in a path.
            assert!(!lines.contains('@') || input.windows(6).any(|part| part == b"+unix:"), "{lines}");
            return;
        }
    };
    assert!(!proxy.addresses.is_empty());
    for address in &proxy.addresses {
        match address {
            Address::Tcp(address) => assert_ne!(address.port(), 0),
            Address::Unix(path) => assert!(!path.is_empty() && !path.contains(&0)),
        }
    }
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22")).expect("good");
    if let Ok(handshake) = proxy.handshake(&target) {
        let opening = handshake.opening();
        match proxy.protocol {
            Protocol::Http => {
                let text = String::from_utf8(opening).expect("ASCII");
                assert!((3..=4).contains(&text.matches("\r\n").count()) && text.ends_with("\r\n\r\n"));
                assert!(text.is_ascii() && text.matches('\n').count() == text.matches("\r\n").count());
            }
            Protocol::Socks5 => assert!(opening == [5, 1, 0] || opening == [5, 2, 0, 2]),
        }
    }
}
