//! `--load`: bytes become instructions and the same bytes again, or one clear line.

use srt_seccomp::bpf::{parse, to_bytes};

pub fn check(input: &[u8]) {
    match parse(input) {
        Ok(program) => {
            assert!((1..=4096).contains(&program.len()));
            assert_eq!(to_bytes(&program), input);
        }
        Err(error) => assert_eq!(error.lines("srt-seccomp").lines().count(), 1),
    }
}
