//! What `--args FD` reads: the same as on the command line, whatever the bytes.

use srt_common::Kind;
use srt_mount::options::parse;

pub fn check(input: &[u8]) {
    let words = ["--tmpfs", "/", "--args", "9", "--proc", "/proc"].map(Into::into);
    match parse(&words, &mut |_| Ok(input.to_vec())) {
        // What stands before and after --args stays where it is.
        Ok(plan) => {
            assert_eq!(plan.ops.first().map(|op| op.option), Some("--tmpfs"));
            assert_eq!(plan.ops.last().map(|op| op.option), Some("--proc"));
        }
        Err(error) => {
            assert_eq!(error.kind, Kind::Usage, "{error:?}");
            assert!(error.lines("srt-mount").lines().count() <= 2, "{error:?}");
        }
    }
}
