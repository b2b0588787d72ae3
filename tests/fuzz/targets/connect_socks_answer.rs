//! The answers of a SOCKS5 proxy; an even first byte is for a caller with a password.

use srt_connect::credentials::Credentials;
use srt_connect::destination::Destination;
use srt_connect::socks::Exchange;
use std::ffi::OsStr;

pub fn check(input: &[u8]) {
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22")).expect("good");
    let credentials = Credentials { user: b"user".to_vec(), password: b"secret".to_vec() };
    let with_password = input.first().is_some_and(|byte| byte % 2 == 0);
    let credentials = with_password.then_some(&credentials);
    super::segments::check(input, || Box::new(Exchange::new(&target, credentials).expect("good")));
}
