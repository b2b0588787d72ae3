//! The answers of a SOCKS5 proxy; an even first byte is for a caller with a password.

#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;
use srt_connect::credentials::Credentials;
use srt_connect::socks::Exchange;
use srt_connect::destination::Destination;
use std::ffi::OsStr;

fuzz_target!(|input: &[u8]| {
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22")).expect("good");
    let credentials = Credentials { user: b"user".to_vec(), password: b"secret".to_vec() };
    let with_password = input.first().is_some_and(|byte| byte % 2 == 0);
    let credentials = with_password.then_some(&credentials);
    segments::check(input, || Box::new(Exchange::new(&target, credentials).expect("good")));
});
