//! Nothing is forgotten: the options in each tool's --help are those of the table on its page, are mentioned in the
//! tests, and refuse what they cannot mean. The pages name nothing that does not exist.

use srt_tests::pages::{Page, blocks, page, pages, workspace as root};
use srt_tests::{Who, both, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const TOOLS: [&str; 5] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];

/// These take no words; all others do.
const SWITCHES: [&str; 13] = [
    "--check",
    "--allow-userns",
    "--keep-admin",
    "--keep-session",
    "--outlive-parent",
    "--as-pid-1",
    "--wait-all",
    "--placeholders",
    "--export",
    "--landlock",
    "--list",
    "--help",
    "--version",
];

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

fn first_column(table: &str) -> Vec<&str> {
    table.lines().filter_map(|line| line.split(" | ").next()).collect()
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
fn a_tools_page_and_its_help_name_the_same_options() {
    for tool in TOOLS {
        let section = page(&format!("{tool}/README.md")).section("## Options");
        let table: String =
            section.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n");
        let variant = |option: &String| option.ends_with("-try");
        let mut in_help = options_in_help(tool);
        assert_eq!(
            in_help.iter().any(variant),
            table.contains("-try"),
            "{tool}: its page or --help is silent about -try"
        );
        in_help.retain(|option| !variant(option));
        let on_page: BTreeSet<String> = first_column(&table)
            .iter()
            .flat_map(|cell| options(cell))
            .filter(|option| !variant(option))
            .collect();
        let missing: Vec<_> = in_help.difference(&on_page).collect();
        let invented: Vec<_> = on_page.difference(&in_help).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "{tool}: its page lacks {missing:?} and invents {invented:?}"
        );
    }
}

#[test]
fn every_tool_has_a_page_with_the_same_sections() {
    for tool in TOOLS {
        let page = page(&format!("{tool}/README.md"));
        for section in ["Synopsis", "Options", "Exit status", "Promises", "Limits", "Examples"] {
            page.section(&format!("## {section}"));
        }
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
fn no_page_uses_an_option_that_does_not_exist() {
    let known: BTreeMap<&str, BTreeSet<String>> = TOOLS.map(|tool| (tool, options_in_help(tool))).into();
    for block in blocks() {
        let mut tool = "";
        for raw in block.text.split_whitespace() {
            let word = raw.trim_matches(|c: char| "'\"()[],;".contains(c));
            if ["--", "&", "|", "do", "bwrap"].contains(&word) {
                tool = "";
            } else if TOOLS.contains(&word) && !raw.starts_with("(\"") {
                // (Not the name that a program compares an event's stage with.)
                tool = word;
            }
            let ours = word.starts_with("--") && !["--help", "--version"].contains(&word);
            if let Some(known) = known.get(tool)
                && ours
            {
                assert!(known.contains(word), "{}:{}: {word} is no option of {tool}", block.page, block.line);
            }
            if raw.ends_with(';') {
                tool = "";
            }
        }
    }
}

/// A recipe that is copied shows the host's /run or /tmp, and only the filter keeps the command from their sockets.
#[test]
fn no_recipe_is_without_a_filter() {
    for page in ["README.md", "tests/recipes.md", "tests/from-a-program.md"].map(page) {
        for block in page.blocks().iter().filter(|block| block.text.contains("srt-mount")) {
            assert!(block.text.contains("srt-seccomp"), "{}:{}: {}", block.page, block.line, block.text);
        }
    }
}

/// A link between pages leads to a file that is there, and to a heading that it has.
#[test]
fn every_link_between_pages_leads_somewhere() {
    let all = pages();
    for from in &all {
        let prose = from.prose().collect::<Vec<_>>().join("\n");
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = root().join(&from.name).parent().expect("a directory").to_path_buf();
            let target = if path.is_empty() { root().join(&from.name) } else { directory.join(path) };
            let target =
                target.canonicalize().unwrap_or_else(|error| panic!("{}: {link}: {error}", from.name));
            let lies_at =
                |page: &&Page| root().join(&page.name).canonicalize().is_ok_and(|path| path == target);
            let anchors = all.iter().find(lies_at).map(Page::anchors);
            assert!(
                anchor.is_empty() || anchors.is_some_and(|all| all.iter().any(|one| one == anchor)),
                "{}: {link}: there is no such heading",
                from.name
            );
        }
    }
}

/// The tests that SECURITY.md names, which are what its promises rest on.
#[test]
fn security_names_tests_that_exist() {
    let mut functions = String::new();
    for directory in TOOLS.iter().map(|tool| root().join(tool)).chain([root().join("tests")]) {
        for path in rust_files(&directory) {
            functions.push_str(&fs::read_to_string(path).expect("read"));
        }
    }
    let table = page("SECURITY.md").section("## Attacks and their tests");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a cell");
        let tests: Vec<_> = cell.split('`').skip(1).step_by(2).filter(|name| !TOOLS.contains(name)).collect();
        assert!(!tests.is_empty(), "no test in {row}");
        for test in tests {
            assert!(functions.contains(&format!("fn {test}(")), "there is no test {test}");
            named += 1;
        }
    }
    assert!(named > 20, "the table is not found");
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
