//! argv, its words separated by NUL: what is taken keeps the order, what is refused is one line and a usage error.

use srt_common::{Error, Kind};
use srt_mount::options::parse;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

pub fn check(input: &[u8]) {
    let words: Vec<_> =
        input.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    match parse(&words, &mut |_| Err(Error::usage("cannot be read here"))) {
        Ok(plan) => {
            // Every operation is named by a word, and in the order of the words.
            let mut rest = words.iter();
            for op in &plan.ops {
                assert!(rest.any(|word| word == op.option), "{op} in {words:?}");
            }
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::Usage, "{error:?}");
            assert!(error.lines("srt-mount").lines().count() <= 2, "{error:?}");
        }
    }
}
