//! The one program of all targets, since each would be built with all tools: `SRT_FUZZ` names the one that runs.

#![no_main]

mod targets;

use std::sync::OnceLock;

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let check = CHOSEN.get_or_init(|| {
        let name = std::env::var("SRT_FUZZ").expect("SRT_FUZZ");
        targets::TARGETS.iter().find(|target| target.0 == name).expect("a target").1
    });
    check(input);
});
