//! Nothing is forgotten: the options in each tool's --help are those of README's table, are mentioned in the tests,
//! and refuse what they cannot mean.

use srt_tests::{Who, both, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TOOLS: [&str; 5] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];

/// These take no words; all others do.
const SWITCHES: [&str; 11] = [
    "--allow-userns",
    "--keep-admin",
    "--keep-session",
    "--outlive-parent",
    "--as-pid-1",
    "--wait-all",
    "--placeholders",
    "--export",
    "--list",
    "--help",
    "--version",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn help(tool: &str) -> String {
    run(Who::Root.command(tool).arg("--help")).ok().out.clone()
}

/// Every `--word` in a text, but for other programs'.
fn options(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut found = BTreeSet::new();
    let mut previous = "";
    for word in text.split(|c: char| !part(c)).filter(|word| !word.is_empty()) {
        if word.len() > 2 && word.starts_with("--") && word.as_bytes()[2] != b'-' && previous != "bwrap" {
            found.insert(word.to_owned());
        }
        previous = word;
    }
    found
}

/// The options of a tool, `--help` and `--version` aside. `-try` on a line adds the variant of the option that the
/// line starts with.
fn options_in_help(tool: &str) -> BTreeSet<String> {
    let help = help(tool);
    let mut found = options(&help);
    for line in help.lines().filter(|line| line.contains("-try")) {
        let option = line.split_whitespace().next().unwrap_or_default();
        if option.starts_with("--") {
            found.insert(format!("{option}-try"));
        }
    }
    found.remove("--help");
    assert!(found.remove("--version"), "{tool} --help does not name --version");
    assert!(!found.is_empty(), "{tool} --help names no option");
    found
}

/// The text from `## TOOL` to the next heading.
fn section(readme: &str, tool: &str) -> String {
    let lines = readme.lines().skip_while(|line| *line != format!("## {tool}")).skip(1);
    lines.take_while(|line| !line.starts_with("## ")).collect::<Vec<_>>().join("\n")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of the tests in which a tool's options must occur: its own, those of the workspace, and the unit tests.
fn tests_of(tool: &str) -> String {
    let mut text = String::new();
    let own = rust_files(&root().join(tool).join("tests"));
    let all = rust_files(&root().join("tests/tests"));
    for path in own.iter().chain(&all).filter(|path| !path.ends_with("inventory.rs")) {
        text.push_str(&fs::read_to_string(path).expect("read"));
    }
    for path in rust_files(&root().join(tool).join("src")) {
        let source = fs::read_to_string(path).expect("read");
        text.push_str(source.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests));
    }
    text
}

#[test]
fn readme_and_help_name_the_same_options() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    for tool in TOOLS {
        let section = section(&readme, tool);
        assert!(!section.is_empty(), "README has no section ## {tool}");
        let table: String =
            section.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n");
        let variant = |option: &String| option.ends_with("-try");
        let mut in_help = options_in_help(tool);
        assert_eq!(
            in_help.iter().any(variant),
            table.contains("-try"),
            "{tool}: README or --help is silent about -try"
        );
        in_help.retain(|option| !variant(option));
        let in_readme: BTreeSet<String> =
            options(&table).into_iter().filter(|option| !variant(option)).collect();
        let missing: Vec<_> = in_help.difference(&in_readme).collect();
        let invented: Vec<_> = in_readme.difference(&in_help).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "{tool}: README lacks {missing:?} and invents {invented:?}"
        );
    }
}

#[test]
fn every_option_is_mentioned_in_a_test() {
    let mut forgotten = vec![];
    for tool in TOOLS {
        let tested = options(&tests_of(tool));
        forgotten.extend(
            options_in_help(tool)
                .into_iter()
                .filter(|option| !tested.contains(option))
                .map(|option| format!("{tool} {option}")),
        );
    }
    assert!(forgotten.is_empty(), "no test mentions {forgotten:#?}");
}

#[test]
fn readme_uses_no_option_that_does_not_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let known: BTreeSet<String> = TOOLS.iter().flat_map(|tool| options_in_help(tool)).collect();
    for block in readme.split("```sh").skip(1).filter_map(|block| block.split("```").next()) {
        let mut tool = "";
        for word in block.split_whitespace() {
            if TOOLS.contains(&word) || word == "bwrap" {
                tool = word;
            } else if word == "--" || word == "&" {
                tool = "";
            }
            let foreign = tool.is_empty()
                || tool == "bwrap"
                || !word.starts_with("--")
                || ["--", "--help", "--version"].contains(&word);
            assert!(foreign || known.contains(word), "{word} is no option of {tool}: {block}");
        }
    }
}

both! {
    /// What no option can mean: no word where one is needed, a word where none is, a name that is nearly right.
    fn every_option_refuses_what_it_cannot_mean(who) {
        for tool in TOOLS {
            // The three stages run a program; the others take none.
            let (code, rest): (i32, &[&str]) = match tool {
                "srt-relay" | "srt-connect" => (2, &[]),
                _ => (125, &["--", "echo", "it ran"]),
            };
            for option in options_in_help(tool) {
                let mut lines = vec![vec![format!("{option}=x")], vec![format!("{option}x"), "1".to_owned()]];
                if !SWITCHES.contains(&option.as_str()) {
                    lines.push(vec![option.clone()]);
                }
                for words in lines {
                    let ran = run(who.command(tool).args(&words).args(rest));
                    ran.code(code).one_clear_error(tool).complains(&option).says("");
                }
            }
        }
    }
}
