//! The answer of an HTTP proxy.

use srt_connect::destination::Destination;
use srt_connect::http::Exchange;
use std::ffi::OsStr;

pub fn check(input: &[u8]) {
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22")).expect("good");
    super::segments::check(input, || Box::new(Exchange::new(&target, None).expect("good")));
}
