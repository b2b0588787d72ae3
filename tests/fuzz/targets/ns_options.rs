//! argv, its words separated by NUL: what is taken keeps its promises, what is refused is one line and a usage error.

use srt_common::Kind;
use srt_common::args::CommandLine;
use srt_ns::options::{Request, parse};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// linux/sched.h.
const CLONE_NEWUSER: i32 = 0x1000_0000;

pub fn check(input: &[u8]) {
    let words: Vec<_> =
        input.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let separator = words.iter().position(|word| word == "--");
    match parse("srt-ns", CommandLine::split(words.clone())) {
        Ok(Request::Check(_)) => assert!(words.iter().any(|word| word == "--check")),
        Ok(Request::Run(plan)) => {
            assert_eq!(plan.program, words[separator.expect("--") + 1..], "goes through untouched");
            assert!(plan.port_mappings().all(|mapping| mapping.port != 0));
            assert!(plan.options.allow_userns || !plan.shares(CLONE_NEWUSER));
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::Usage, "{error:?}");
            let lines = error.lines("srt-ns");
            assert!(lines.lines().count() <= 2 && lines.ends_with('\n'), "{lines:?}");
        }
    }
}
