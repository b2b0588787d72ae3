//! The man pages and completions that are committed are those that `--help` and the pages make. After a change of either,
//! `SRT_UPDATE=1 cargo test -p srt-tests --test man_pages` writes them anew.

use srt_tests::manual::{DATE, TOOLS, Tool, overview};
use srt_tests::pages::workspace;
use srt_tests::{Who, has, run, run_with_input, skip};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// All that is generated, with its place.
fn generated() -> Vec<(PathBuf, String)> {
    let mut files = vec![("srt-common/srt.7".to_owned(), overview())];
    for name in TOOLS {
        let tool = Tool::of(name);
        files.push((format!("{name}/{name}.1"), tool.man_page()));
        files.push((format!("{name}/completions/{name}.bash"), tool.bash()));
        files.push((format!("{name}/completions/_{name}"), tool.zsh()));
        files.push((format!("{name}/completions/{name}.fish"), tool.fish()));
    }
    files.into_iter().map(|(path, text)| (workspace().join(path), text)).collect()
}

/// The day in a man page, if there is one.
fn day(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(".Dd "))
}

#[test]
fn what_is_committed_is_what_help_and_the_pages_make() {
    let mut stale = vec![];
    for (path, text) in generated() {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        // The day is that of the last change.
        if committed == text.replace(DATE, day(&committed).unwrap_or_default()) {
            continue;
        }
        if std::env::var_os("SRT_UPDATE").is_some() {
            let today =
                run(Command::new("date").env("LC_ALL", "C").args(["-u", "+%B %-d, %Y"])).ok().out.clone();
            fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
            fs::write(&path, text.replace(DATE, today.trim())).expect("write");
        } else {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "stale: {stale:#?}\nSRT_UPDATE=1 cargo test -p srt-tests --test man_pages");
}

#[test]
fn every_option_of_help_is_in_the_man_page_and_the_completions_and_no_other() {
    for name in TOOLS {
        let help = run(Who::Root.command(name).arg("--help")).ok().out.clone();
        // Not what other programs' are.
        let help = help.replace("bwrap --seccomp", "");
        let part = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        let is_option = |word: &&str| word.len() > 2 && word.starts_with("--");
        let expected: BTreeSet<&str> = help.split(part).filter(is_option).collect();
        let page = Tool::of(name).man_page().replace("\\-", "-");
        let items = page
            .lines()
            .filter(|line| line.starts_with(".It Fl Fl "))
            .flat_map(|item| item.split("Fl Fl ").skip(1));
        let in_page: BTreeSet<String> =
            items.map(|item| format!("--{}", item.split(' ').next().unwrap_or(item))).collect();
        let in_help = |option: &String| expected.contains(option.as_str());
        assert!(in_page.iter().all(in_help), "{name}: in the man page alone: {in_page:#?}");
        assert!(
            expected.iter().all(|option| in_page.contains(*option)),
            "{name}: {expected:#?}\n{in_page:#?}"
        );
        for text in [Tool::of(name).bash(), Tool::of(name).zsh(), Tool::of(name).fish()] {
            for option in &in_page {
                let fish = format!(" -l {} ", &option[2..]);
                assert!(text.contains(option) || text.contains(&fish), "{name}: no {option} in\n{text}");
            }
        }
    }
}

#[test]
fn mandoc_finds_nothing_wrong() {
    if !has("mandoc") {
        skip!("no mandoc");
    }
    for (path, text) in generated() {
        let is_page = path.extension().is_some_and(|end| end == "1" || end == "7");
        if is_page {
            let text = text.replace(DATE, "January 1, 2026");
            let ran = run_with_input(Command::new("mandoc").args(["-Tlint", "-Wwarning"]), text.as_bytes());
            assert!(ran.code == Some(0) && ran.out.is_empty(), "{}: {ran:#?}", path.display());
        }
    }
}
