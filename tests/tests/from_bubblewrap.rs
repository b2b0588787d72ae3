//! tests/from-bubblewrap.md: each sample does the same on both sides, and no option of bubblewrap's is left out.

use srt_tests::pages::page;
use srt_tests::{both, has, run, run_bwrap, skip};
use std::process::Command;

const PAGE: &str = "tests/from-bubblewrap.md";

/// The rows of `## Samples`: bubblewrap's command line, ours.
fn samples() -> Vec<(String, String)> {
    let section = page(PAGE).section("## Samples");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` |"));
    let rows: Vec<_> = rows
        .map(|row| row.split_once("` | `").unwrap_or_else(|| panic!("two commands in {row:?}")))
        .map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned()))
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    rows
}

both! {
    fn each_sample_prints_and_exits_the_same_on_both_sides(who) {
        if !has("bwrap") {
            skip!("no bwrap");
        }
        let scratch = who.scratch_in("/var/tmp");
        scratch.file("file", "its content\n");
        for (theirs, ours) in samples() {
            let [theirs, ours] = [theirs, ours].map(|line| {
                assert!(line.starts_with("bwrap ") || line.starts_with("srt-"), "{line}");
                let ran = run_bwrap(|| run(who.command("bash").args(["-euc", &line]).current_dir(scratch.path())));
                (ran.code, ran.signal, ran.out.clone(), ran)
            });
            assert_eq!((theirs.0, theirs.1, &theirs.2), (ours.0, ours.1, &ours.2), "{:#?}\n{:#?}", theirs.3, ours.3);
        }
    }
}

#[test]
fn every_option_of_bubblewraps_is_on_the_page() {
    if !has("bwrap") {
        skip!("no bwrap");
    }
    let text = page(PAGE).text;
    let help = run(Command::new("bwrap").arg("--help")).ok().out.clone();
    let options =
        help.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.starts_with("--"));
    // `--bind` and each with `-try`; `--unshare-user`, `-ipc`, …
    let said = |option: &str| {
        let stem = option.strip_suffix("-try").unwrap_or(option);
        let short = stem.strip_prefix("--unshare").unwrap_or(stem);
        [stem, short].iter().any(|name| text.contains(&format!("`{name}")))
    };
    let missing: Vec<_> =
        options.filter(|option| !["--help", "--version"].contains(option) && !said(option)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
