//! The seeds of the fuzz targets, and what lies next to them, on stable Rust: what once was found is found again.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every input of a target's.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("a seed")).collect()
}

#[test]
fn every_seed_keeps_the_promises_of_its_target() {
    for (name, check) in targets::TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name}");
        for seed in seeds {
            check(&seed);
        }
    }
}

#[test]
fn a_seed_cut_at_any_byte_or_with_one_byte_changed_keeps_them_too() {
    for (name, check) in targets::TARGETS {
        for seed in seeds(name) {
            // Long ones at some places, so that it stays quick.
            let step = (seed.len() / 500).max(1);
            for at in (0..seed.len()).step_by(step) {
                check(&seed[..at]);
                for byte in [0, b'\n', b'-', b'/', b':', b'=', 0x7f, 0xff, seed[at] ^ 1] {
                    let mut changed = seed.clone();
                    changed[at] = byte;
                    check(&changed);
                }
            }
        }
    }
}

#[test]
fn every_target_has_seeds_and_all_seeds_have_a_target() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = fs::read_dir(directory).expect("seeds");
    let found: BTreeSet<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    let known = targets::TARGETS.iter().map(|target| target.0.to_owned()).collect();
    assert_eq!(found, known);
}
