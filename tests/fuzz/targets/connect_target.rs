//! HOST and PORT, cut at the first line break of the input: what is taken is harmless in a request, and means the same
//! when it is read again.

use srt_connect::destination::{Destination, Host};
use srt_connect::handshake::Handshake;
use srt_connect::{http, socks};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub fn check(input: &[u8]) {
    let mut parts = input.splitn(2, |&byte| byte == b'\n').map(OsStr::from_bytes);
    let (host, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(OsStr::new("22")));
    let target = match Destination::parse(host, port) {
        Ok(target) => target,
        Err(error) => {
            let lines = error.lines("t");
            assert!(lines.len() < 2000 && !lines.trim_end().contains(|c: char| c.is_control() && c != '\n'));
            return;
        }
    };
    let authority = target.to_string();
    assert!(authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)));
    assert!(authority.len() <= 254 + 6 && !authority.starts_with('-'));
    let (host, port) = authority.rsplit_once(':').expect("a port");
    assert_eq!(Destination::parse(OsStr::new(host), OsStr::new(port)).as_ref(), Ok(&target));
    if let Host::Name(name) = &target.host {
        assert!(!name.contains(':') && name.parse::<std::net::IpAddr>().is_err());
    }
    let request = http::Exchange::new(&target, None).expect("no credentials").opening();
    assert_eq!(request.iter().filter(|&&byte| byte == b'\n').count(), 3);
    socks::Exchange::new(&target, None).expect("every target fits");
}
