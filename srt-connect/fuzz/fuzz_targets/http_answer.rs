//! The answer of an HTTP proxy.

#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;
use srt_connect::http::Exchange;
use srt_connect::destination::Destination;
use std::ffi::OsStr;

fuzz_target!(|input: &[u8]| {
    let target = Destination::parse(OsStr::new("example.org"), OsStr::new("22")).expect("good");
    segments::check(input, || Box::new(Exchange::new(&target, None).expect("good")));
});
