//! Man pages (mdoc) and completions, made of each tool's `--help` and its page.

use crate::pages::{Page, page};
use crate::{Who, run};
use std::fmt::Write;

/// The tools that ship.
pub const TOOLS: [&str; 5] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];

/// An option as `--help` and the page's table have it together.
#[derive(Clone, Debug)]
pub struct Opt {
    /// With its two dashes.
    pub name: String,
    /// The names of its words: none for a switch.
    pub words: Vec<String>,
    /// What `--help` says, for a completion.
    pub short: String,
    /// What the page says.
    pub long: String,
}

/// A tool, as it describes itself.
#[derive(Debug)]
pub struct Tool {
    name: &'static str,
    page: Page,
    /// In the order of the page; what `--help` alone has comes behind.
    pub options: Vec<Opt>,
}

/// The options that start a line of `--help`, with their words where they are named there, and the text behind.
fn in_help(help: &str) -> Vec<Opt> {
    let mut found: Vec<Opt> = vec![];
    let mut inside = false;
    for line in help.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if indent == 2 && text.starts_with("--") {
            let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
            let (words, short) = match rest.split_once("  ") {
                Some((words, short)) if !words.is_empty() => (words, short),
                _ => ("", rest),
            };
            let words = words.split_whitespace().map(str::to_owned).collect();
            let name = name.trim_end_matches(',').to_owned();
            found.push(Opt { name, words, short: short.trim().to_owned(), long: String::new() });
            inside = true;
        } else if inside && indent > 8 {
            let last = found.last_mut().expect("inside one");
            last.short = format!("{} {text}", last.short);
        } else {
            inside = false;
        }
    }
    found.retain(|option| option.name != "--help" && option.name != "--version");
    found
}

/// The words of an option in argh's line of usage: `[--uid <N>]`.
fn in_usage(help: &str, option: &str) -> Vec<String> {
    let rest = help.split_once(&format!("{option} <")).and_then(|(_, rest)| rest.split_once('>'));
    rest.map(|(words, _)| words.split(' ').map(|word| word.trim_end_matches("...").to_owned()).collect())
        .unwrap_or_default()
}

/// The cells of each row of a table, without its head.
fn rows(lines: &[&str]) -> Vec<Vec<String>> {
    let cells =
        |line: &&str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    lines.iter().skip(2).map(cells).collect()
}

impl Tool {
    /// Asks the tool, and reads its page.
    pub fn of(name: &'static str) -> Self {
        let help = run(Who::Root.command(name).arg("--help")).ok().out.clone();
        let page = page(&format!("{name}/README.md"));
        let known = in_help(&help);
        let short = |name: &str| {
            let exact = known.iter().find(|option| option.name == name);
            exact.map(|option| option.short.clone())
        };
        let section = page.section("## Options");
        let lines: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
        let mut options: Vec<Opt> = vec![];
        for row in rows(&lines) {
            let mut words: Vec<String> = vec![];
            let mut together = vec![];
            // From the last to the first: `--bind` `--ro-bind SRC DEST` have the same words.
            for form in row[0].split('`').filter(|form| form.starts_with("--")).rev() {
                let mut parts = form.split(' ').map(|word| word.replace('…', "..."));
                let name = parts.next().expect("a name");
                let own: Vec<String> = parts.collect();
                if !own.is_empty() {
                    words = own;
                }
                let long = row[1].clone();
                together.push(Opt {
                    short: short(&name).unwrap_or_else(|| plain(&long)),
                    name,
                    words: words.clone(),
                    long,
                });
            }
            options.extend(together.into_iter().rev());
        }
        // The page may be ahead of the tool.
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        options.retain(|option| help.split(|c| !is_part(c)).any(|word| word == option.name));
        // What the table leaves out. On a line of --help with `-try`, that is a variant of the line's first option.
        for option in &known {
            if !options.iter().any(|other| other.name == option.name) {
                let words = if option.words.is_empty() {
                    in_usage(&help, &option.name)
                } else {
                    option.words.clone()
                };
                options.push(Opt { words, long: option.short.clone(), ..option.clone() });
            }
            let variant = format!("{}-try", option.name);
            let is_variant = option.short.contains("-try") && !option.name.ends_with("-try");
            if let (true, Some(at)) = (is_variant, options.iter().position(|other| other.name == option.name))
            {
                options.insert(at + 1, Opt { name: variant, ..options[at].clone() });
            }
        }
        for (name, long) in [("--help", "prints the usage"), ("--version", "prints the version")] {
            options.push(Opt {
                name: name.to_owned(),
                words: vec![],
                short: long.to_owned(),
                long: long.to_owned(),
            });
        }
        Self { name, page, options }
    }

    /// Whether another program's words follow a `--`.
    fn has_program(&self) -> bool {
        self.page.section("## Synopsis").contains("-- PROGRAM")
    }

    /// Its man page of section 1.
    pub fn man_page(&self) -> String {
        let intro = intro(&self.page);
        let (first, rest) =
            intro.split_once(".\n").or_else(|| intro.split_once(". ")).unwrap_or((&intro, ""));
        let first = first.replace('\n', " ").trim_end_matches('.').to_owned();
        let mut out = head(self.name, 1, &(first[..1].to_lowercase() + &first[1..]));
        let synopsis = self.page.section("## Synopsis");
        let (forms, described) =
            synopsis.trim().trim_start_matches("```text\n").split_once("```").expect("a block");
        out += ".Sh SYNOPSIS\n";
        for form in forms.lines() {
            let form = form.strip_prefix(self.name).expect("the tool's name").trim();
            let _infallible = writeln!(out, ".Nm\n{}", inline(form));
        }
        out += ".Sh DESCRIPTION\n";
        let _infallible = write!(out, ".Nm\n{}.\n", inline(&(first[..1].to_lowercase() + &first[1..])));
        out += &body(rest, true);
        out += &body(described, true);
        out += ".Sh OPTIONS\n.Bl -tag -width Ds\n";
        for same in self.options.chunk_by(|one, next| one.long == next.long) {
            let form = |option: &Opt| {
                let words = if option.words.is_empty() { "" } else { " Ar " };
                format!("Fl Fl {}{words}{}", option.name[2..].replace('-', "\\-"), option.words.join(" "))
            };
            let forms: Vec<String> = same.iter().map(form).collect();
            let _infallible = write!(out, ".It {}\n{}", forms.join(" , "), sentences(&same[0].long));
        }
        out += ".El\n";
        let headings: Vec<&str> = self.page.prose().filter_map(|line| line.strip_prefix("## ")).collect();
        let placed = ["Synopsis", "Options", "Exit status", "Examples"];
        let own = headings.iter().filter(|heading| !placed.contains(heading));
        for heading in own.chain(&["Exit status", "Examples"]) {
            let _infallible = writeln!(out, ".Sh {}", heading.to_uppercase());
            out += &body(&self.page.section(&format!("## {heading}")), false);
        }
        out + &see_also(self.name)
    }

    /// For bash, with the package bash-completion.
    pub fn bash(&self) -> String {
        let function = format!("_{}", self.name.replace('-', "_"));
        let mut cases = String::new();
        for option in self.options.iter().filter(|option| !option.words.is_empty()) {
            let kinds: Vec<&str> =
                option.words.iter().map(|word| if is_path(word) { "file" } else { "value" }).collect();
            let _infallible = writeln!(cases, "        {}) kinds=({}) ;;", option.name, kinds.join(" "));
        }
        let program = if self.has_program() {
            "        --)
            # Its place in COMP_WORDS, where bash has split the words at = and : too.
            local dashes=0 j
            for ((j = 1; j <= i; j++)); do [[ ${words[j]} == -- ]] && ((++dashes)); done
            for ((j = 1; j < ${#COMP_WORDS[@]}; j++)); do
                [[ ${COMP_WORDS[j]} == -- ]] && ((--dashes == 0)) && break
            done
            _command_offset $((j + 1))
            return
            ;;\n"
        } else {
            ""
        };
        let names: Vec<&str> = self.options.iter().map(|option| option.name.as_str()).collect();
        format!(
            "# bash completion of {tool}
{function}() {{
    local cur prev words cword i=1 kinds
    _init_completion -n =: || return
    while ((i < cword)); do
        kinds=()
        case ${{words[i]}} in
{program}{cases}        esac
        if ((i + ${{#kinds[@]}} >= cword)); then
            [[ ${{kinds[cword - i - 1]}} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${{#kinds[@]}}))
    done
    mapfile -t COMPREPLY < <(compgen -W '{names}' -- \"$cur\")
}} && complete -F {function} {tool}
",
            tool = self.name,
            names = names.join(" ") + if self.has_program() { " --" } else { "" },
        )
    }

    /// For zsh.
    pub fn zsh(&self) -> String {
        let mut out = format!("#compdef {}\n\n_arguments -S \\\n", self.name);
        for option in &self.options {
            let text: String = plain(&option.short).chars().filter(|c| !matches!(c, '[' | ']')).collect();
            let mut spec = format!("*{}[{}]", option.name, text.replace('\'', "'\\''"));
            for word in &option.words {
                let action = if is_path(word) { "_files" } else { "" };
                let _infallible = write!(spec, ":{}:{action}", word.replace(':', "\\:"));
            }
            let _infallible = writeln!(out, "    '{spec}' \\");
        }
        if self.has_program() {
            out += "    '*:::PROGRAM:_normal' \\\n";
        }
        out.truncate(out.trim_end_matches(" \\\n").len());
        out + "\n"
    }

    /// For fish.
    pub fn fish(&self) -> String {
        let (tool, function) = (self.name, format!("__{}_program", self.name.replace('-', "_")));
        let mut out = format!("# fish completion of {tool}\n");
        let (mut before, mut after) = (String::new(), String::new());
        if self.has_program() {
            let _infallible = write!(
                out,
                "function {function} -d 'completes the program after --'
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -l program $words[(math $at + 1)..-1] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $program[1..-2]) $program[-1])
end
"
            );
            before = " -n 'not contains -- -- (commandline -opc)'".to_owned();
            after =
                format!("complete -c {tool} -f -n 'contains -- -- (commandline -opc)' -a '({function})'\n");
        }
        for option in &self.options {
            let kind = match option.words.first() {
                None => "",
                Some(word) if is_path(word) => " -r",
                Some(_) => " -x",
            };
            let text = plain(&option.short).replace('\\', "\\\\").replace('\'', "\\'");
            let _infallible =
                writeln!(out, "complete -c {tool}{before} -l {}{kind} -d '{text}'", &option.name[2..]);
        }
        out + &after
    }
}

/// The overview, srt(7).
pub fn overview() -> String {
    let page = page("README.md");
    let title = page.text.lines().next().expect("a title").trim_start_matches("# srt: ").to_owned();
    let mut out = head("srt", 7, &title) + ".Sh DESCRIPTION\n";
    // Up to the first thing to build: whoever reads this has it installed.
    let paragraph = intro(&page).split("\n\n").next().expect("a paragraph").to_owned();
    out += &body(&paragraph, false);
    out += &body(&page.section("## The picture"), true);
    out += ".Sh EXAMPLES\n";
    out += &body(&page.section("## What it looks like"), false);
    out + &see_also("srt")
}

/// What stands between the title and the first section.
fn intro(page: &Page) -> String {
    let lines = page.text.lines().skip(1).take_while(|line| !line.starts_with("## "));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn head(name: &str, section: u8, what: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let what = inline(what);
    format!(
        ".\\\" Made by the test man_pages; edit the tool's --help and page instead.\n.Dd {DATE}\n\
         .Dt {} {section}\n.Os srt {version}\n.Sh NAME\n.Nm {name}\n.Nd {what}\n",
        name.to_uppercase()
    )
}

/// Takes the place of the day until a page is compared or written.
pub const DATE: &str = "@date@";

fn see_also(own: &str) -> String {
    let mut others: Vec<(&str, u8)> = TOOLS.map(|tool| (tool, 1)).to_vec();
    others.sort_unstable();
    others.push(("srt", 7));
    others.retain(|(name, _)| *name != own);
    let last = others.len() - 1;
    let line = |(at, (name, section)): (usize, &(&str, u8))| {
        format!(".Xr {name} {section}{}\n", if at == last { "" } else { " ," })
    };
    format!(".Sh SEE ALSO\n{}", others.iter().enumerate().map(line).collect::<String>())
}

/// Whether a word of this name is a path.
fn is_path(word: &str) -> bool {
    let paths = ["SRC", "DEST", "PATH", "FILE", "DIR", "RW", "WORK", "SOCKET=PORT"];
    paths.contains(&word)
}

/// Text without marks, for a completion: its first statement.
fn plain(text: &str) -> String {
    let first = text.split("; ").next().unwrap_or_default();
    // Not half of what is in parentheses.
    let first =
        first.rsplit_once(" (").filter(|(_, rest)| !rest.contains(')')).map_or(first, |(first, _)| first);
    first.replace(['`', '*'], "").replace('…', "...").trim_end_matches('.').to_owned()
}

/// Paragraphs, lists, tables and blocks. `more`: it follows other text.
fn body(text: &str, more: bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut more = more;
    while at < lines.len() {
        let line = lines[at];
        let run = |is: &dyn Fn(&str) -> bool| lines[at..].iter().take_while(|line| is(line)).count();
        if line.trim().is_empty() {
            at += 1;
            continue;
        }
        if line.starts_with("```") {
            let length = lines[at + 1..].iter().take_while(|line| !line.starts_with("```")).count();
            out +=
                if more { ".Bd -literal -offset indent\n" } else { ".Bd -literal -offset indent -compact\n" };
            lines[at + 1..=at + length].iter().for_each(|line| out += &(literal(line) + "\n"));
            out += ".Ed\n";
            at += length + 2;
        } else if line.starts_with('|') {
            let length = run(&|line| line.starts_with('|'));
            let table = &lines[at..at + length];
            let heads: Vec<&str> = table[0].trim_matches('|').split(" | ").map(str::trim).collect();
            out += ".Bl -tag -width Ds\n";
            for row in rows(table) {
                let _infallible = writeln!(out, ".It {}", inline(&row[0]).trim_start_matches("\\&"));
                let cells: Vec<String> = match row.len() {
                    2 => vec![row[1].clone()],
                    _ => heads[1..]
                        .iter()
                        .zip(&row[1..])
                        .map(|(head, cell)| format!("{head}: {cell}."))
                        .collect(),
                };
                out += &sentences(&cells.join(" "));
            }
            out += ".El\n";
            at += length;
        } else if line.starts_with("- ") {
            let length = run(&|line| line.starts_with("- ") || line.starts_with("  "));
            out += ".Bl -bullet\n";
            let items = lines[at..at + length].join("\n");
            for item in items.strip_prefix("- ").expect("an item").split("\n- ") {
                let _infallible = write!(out, ".It\n{}", sentences(item));
            }
            out += ".El\n";
            at += length;
        } else {
            let length = run(&|line| {
                !line.trim().is_empty() && !["```", "|", "- "].iter().any(|start| line.starts_with(start))
            });
            if more {
                out += ".Pp\n";
            }
            out += &sentences(&lines[at..at + length].join("\n"));
            at += length;
        }
        more = true;
    }
    out
}

/// A paragraph, each sentence on a line of its own, as mdoc(7) wants it.
fn sentences(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    for sentence in text.replace(". ", ".\n").replace("? ", "?\n").lines() {
        out += &(inline(sentence) + "\n");
    }
    out
}

/// A line with Markdown's `code`, *emphasis* and [links](to) in it.
fn inline(text: &str) -> String {
    // Strong emphasis is emphasis.
    let text = &text.replace("**", "*");
    let mut text = text.to_owned();
    while let Some(middle) = text.find("](") {
        let (Some(start), Some(end)) = (text[..middle].rfind('['), text[middle..].find(')')) else { break };
        text = text[..start].to_owned() + &text[start + 1..middle] + &text[middle + end + 1..];
    }
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            let _infallible = write!(out, "\\fB{}\\fP", escaped(part));
            continue;
        }
        for (at, part) in part.split('*').enumerate() {
            out += &if at % 2 == 1 { format!("\\fI{}\\fP", escaped(part)) } else { escaped(part) };
        }
    }
    guarded(out)
}

fn literal(line: &str) -> String {
    guarded(escaped(line))
}

/// A line that starts like a request is none.
fn guarded(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// Every character as itself: roff makes other ones of some (groff_char(7)).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '\'' => out += "\\(aq",
            '`' => out += "\\(ga",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            '…' => out += "...",
            c if c.is_ascii() => out.push(c),
            c => {
                let _infallible = write!(out, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    out
}
