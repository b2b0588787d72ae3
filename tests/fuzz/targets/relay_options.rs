//! argv, its words separated by NUL, addresses among them: what is taken names real places, what is refused is one line
//! and a usage error.

use srt_common::Kind;
use srt_relay::address::{Address, Endpoint};
use srt_relay::options::Plan;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn is_real(address: &Address) {
    match &address.endpoint {
        Endpoint::Tcp(sockets) => {
            assert!(!sockets.is_empty() && sockets.iter().all(|socket| socket.port() != 0))
        }
        Endpoint::Unix(path) => assert!(!path.as_os_str().is_empty()),
        Endpoint::Inherited(fd) => assert!(*fd >= 0),
    }
    // What was understood is what was written: reading it again comes to the same.
    assert_eq!(Address::parse(&address.text).as_ref(), Ok(address));
}

pub fn check(input: &[u8]) {
    let words: Vec<_> =
        input.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    match Plan::parse(&words) {
        Ok(plan) => {
            assert!(!plan.pairs.is_empty() && plan.options.max_connections > 0);
            plan.pairs.as_flattened().iter().for_each(is_real);
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::Usage, "{error:?}");
            assert!(error.lines("srt-relay").lines().count() <= 2, "{error:?}");
        }
    }
}
