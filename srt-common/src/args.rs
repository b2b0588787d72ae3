//! Parses argv: splits it at `--`, and makes argh accept any bytes.

use crate::{Error, Result};
use argh::FromArgs;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

/// A stage's argv, split at the first `--`.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The words before `--`, without the tool's own name.
    pub options: Vec<OsString>,
    /// The words after `--`: PROGRAM and its arguments, unchanged. `None` if there is no `--`.
    pub program: Option<Vec<OsString>>,
}

impl CommandLine {
    /// Splits `args` (argv without argv\[0\]) at the first `--`.
    pub fn split(mut args: Vec<OsString>) -> Self {
        let separator = args.iter().position(|arg| arg == "--");
        let program = separator.map(|at| args.split_off(at + 1));
        args.truncate(separator.unwrap_or(args.len()));
        Self { options: args, program }
    }

    /// Whether the user asks for `--help` or `--version`, which need no `--`.
    pub fn asks(&self, option: &str) -> bool {
        self.options.first().is_some_and(|first| first == option)
            || self.program.is_none()
                && self.options.iter().take_while(|arg| *arg != "--").any(|arg| arg == option)
    }

    /// Adds a hint to an error about the options, if `--` is missing, or seems to be missing in front of a stage.
    pub fn explain(&self, tool: &str, error: Error) -> Error {
        let is_program = error.message.ends_with(UNEXPECTED);
        let stage = |word: &OsString| word.as_bytes().starts_with(b"srt-");
        let missing = self.program.is_none() || is_program || self.options.iter().any(stage);
        if missing && error.hint.is_none() { error.hint(form(tool)) } else { error }
    }

    /// PROGRAM and its arguments, at least one word.
    ///
    /// # Errors
    /// A usage error if `--` or PROGRAM is missing.
    pub fn program(self, tool: &str) -> Result<Vec<OsString>> {
        match self.program {
            Some(program) if !program.is_empty() => Ok(program),
            Some(_) => Err(Error::usage("nothing follows --: expected PROGRAM [args...]")),
            None => Err(Error::usage("missing -- before PROGRAM").hint(form(tool))),
        }
    }
}

/// The end of the message if PROGRAM, which is not an option, precedes `--`.
const UNEXPECTED: &str = ": unexpected argument";

fn form(tool: &str) -> String {
    format!("write {tool} [options] -- PROGRAM [args...]; what follows -- is passed on unchanged")
}

/// Encodes an argument as a string with one character per byte (ISO 8859-1), since argh accepts only UTF-8, and a path
/// may contain any bytes. A bare `help` is marked, since argh would take it as a request for help. So is an argument
/// that begins with `+`, which Rust's parsers would take as the sign of a number.
fn encode(arg: &OsString) -> String {
    let mark = if arg == "help" || arg.as_bytes().starts_with(b"+") { "\u{100}" } else { "" };
    mark.chars().chain(arg.as_bytes().iter().map(|&byte| char::from(byte))).collect()
}

/// Decodes a value from argh: the reverse of the encoding in [`parse`].
pub fn decode(value: &str) -> OsString {
    OsString::from_vec(value.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect())
}

/// An option's value as the bytes that the user gave, for options read by argh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub OsString);

impl FromStr for Raw {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        Ok(Self(decode(value)))
    }
}

/// Parses a number that consists of digits only: `parse` would also accept a `+`.
pub fn decimal<T: FromStr>(text: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Seconds, optionally with a fraction. `None` is 0, which means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Option<Duration>);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Not parsed as an f64: the standard library's parser for that would be a twelfth of a tool's size.
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}");
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let whole: Option<u64> = format!("0{whole}").parse().ok().filter(|_| plain);
        let nanoseconds: Option<u32> = format!("{fraction:0<9.9}").parse().ok();
        let time = whole.zip(nanoseconds).map(|(whole, nanoseconds)| Duration::new(whole, nanoseconds));
        // At most a year, so that no sum of times overflows.
        let time = time.filter(|time| *time <= Duration::from_secs(31_536_000));
        let time = time.ok_or("expected seconds, like 5 or 0.5")?;
        // A value too small to represent is not 0, which means never.
        let never = digits.bytes().all(|digit| digit == b'0');
        Ok(Self((!never).then(|| time.max(Duration::from_nanos(1)))))
    }
}

/// Parses `options` into an argh struct, which gets the values in the form that [`Raw`] reads.
///
/// # Errors
/// A usage error in one line, with argh's message.
pub fn parse<T: FromArgs>(tool: &str, options: &[OsString]) -> Result<T> {
    let words: Vec<String> = options.iter().map(encode).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let parse = |words: &[&str]| {
        T::from_args(&[tool], words).map_err(|exit| match exit.status {
            Ok(()) => Error::usage("--help: expected it first, or without -- PROGRAM"),
            Err(()) => complaint(&exit.output),
        })
    };
    let parsed = parse(&words)?;
    // argh refuses a repeated option, but not a repeated switch.
    let is_switch = |word: &str| parse(&[word]).err().is_none_or(|error| !error.message.ends_with(NO_VALUE));
    let mut seen = BTreeSet::new();
    let again: BTreeSet<_> =
        words.iter().filter(|word| word.starts_with("--") && !seen.insert(**word)).collect();
    match again.into_iter().find(|word| is_switch(word)) {
        Some(switch) => Err(Error::usage(format!("{switch}: given twice"))),
        None => Ok(parsed),
    }
}

/// The end of the message for an option without its value.
const NO_VALUE: &str = ": expected a value";

/// The `--help` text of an argh struct.
pub fn help<T: FromArgs>(tool: &str) -> String {
    T::from_args(&[tool], &["--help"]).err().map_or_else(String::new, |exit| exit.output)
}

/// Converts argh's message, which has several lines, may list what is missing, and quotes Rust's parsers about a value.
fn complaint(output: &str) -> Error {
    let text = decode(output).to_string_lossy().into_owned();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(word) = words.strip_prefix("Unrecognized argument:").map(str::trim_start) {
        let word = if word.is_empty() { "an empty word" } else { word };
        let what = if word.starts_with('-') { ": unknown option" } else { UNEXPECTED };
        return Error { hint: form_of(OsStr::new(word)), ..Error::usage(format!("{word}{what}")) };
    }
    if let Some(option) = words.strip_prefix("No value provided for option '") {
        return Error::usage(format!("{}{NO_VALUE}", option.trim_end_matches(['.', '\''])));
    }
    if words.starts_with("Required ") {
        let [positional, options] = ["Required positional arguments", "Required options"];
        let names = words.replace(positional, "").replace(options, "").replace("not provided:", "");
        return Error::usage(format!("expected {}", names.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    if let Some((option, rest)) =
        words.strip_prefix("Error parsing option '").and_then(|rest| rest.split_once("' with value '"))
        && let Some((value, why)) = rest.rsplit_once("': ")
    {
        let number = ["digit", "integer", "number too", "float"].iter().any(|word| why.contains(word));
        let why = match why {
            "duplicate values provided" => "given twice",
            _ if number => "expected a number",
            why => why,
        };
        return Error::usage(format!("{option} {value}: {why}"));
    }
    let mut chars = words.chars();
    Error::usage(chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect()))
}

/// What to write instead of an unknown option in a common form: `-h`, `--uid=1000`.
pub fn form_of(word: &OsStr) -> Option<String> {
    let word = word.to_string_lossy();
    match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") => {
            Some(format!("write {option} {value}: two words, without ="))
        }
        _ if word.starts_with('-') && !word.starts_with("--") => {
            Some("long options only: see --help".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[derive(FromArgs, Debug, PartialEq, Eq)]
    /// a test
    struct Options {
        /// a path
        #[argh(option)]
        path: Vec<Raw>,
        /// a number
        #[argh(option)]
        number: Option<u16>,
    }

    #[test]
    fn seconds_are_decimal_and_only_zero_is_never() {
        let time = |text: &str| text.parse::<Seconds>().map(|seconds| seconds.0);
        for (text, nanoseconds) in [
            ("5", 5_000_000_000),
            ("5.", 5_000_000_000),
            (".5", 500_000_000),
            ("0.25", 250_000_000),
            ("1.0000000019", 1_000_000_001),
            ("0.0000000001", 1),
            ("31536000", 31_536_000_000_000_000),
        ] {
            assert_eq!(time(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text}");
        }
        for never in ["0", "0.0", ".0", "00."] {
            assert_eq!(time(never), Ok(None), "{never}");
        }
        for bad in
            ["", ".", "-1", "+1", "1e3", "1.2.3", "1,5", " 1", "0.é", "31536000.1", "99999999999999999999"]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_separator_splits_and_later_ones_belong_to_the_program() {
        let line = CommandLine::split(words(&["--a", "--", "p", "--", "q"]));
        assert_eq!(line.options, words(&["--a"]));
        assert_eq!(line.program, Some(words(&["p", "--", "q"])));
    }

    #[test]
    fn a_missing_separator_is_not_an_empty_program() {
        assert_eq!(CommandLine::split(words(&["a"])).program, None);
        assert_eq!(CommandLine::split(words(&["--"])).program, Some(vec![]));
        assert!(CommandLine::split(words(&["a"])).program("t").is_err());
        assert!(CommandLine::split(words(&["--"])).program("t").is_err());
    }

    #[test]
    fn every_byte_comes_through_argh() {
        let bytes = OsString::from_vec((1..=255).collect());
        let parsed = parse::<Options>("t", &[OsString::from("--path"), bytes.clone()]);
        assert_eq!(parsed, Ok(Options { path: vec![Raw(bytes)], number: None }));
    }

    #[test]
    fn a_value_of_help_is_no_request_for_help() {
        let parsed = parse::<Options>("t", &words(&["--path", "help"]));
        let path = vec![Raw(OsString::from("help"))];
        assert_eq!(parsed, Ok(Options { path, number: None }));
    }

    #[test]
    fn a_value_that_is_no_number_may_begin_with_a_plus() {
        let parsed = parse::<Options>("t", &words(&["--path", "+7"]));
        assert_eq!(parsed, Ok(Options { path: vec![Raw(OsString::from("+7"))], number: None }));
    }

    #[test]
    fn a_complaint_is_one_line_and_names_the_option() {
        for bad in
            [vec!["--nope"], vec!["--number"], vec!["--number", "x"], vec!["--number", "1", "--number", "2"]]
        {
            let error = parse::<Options>("t", &words(&bad)).expect_err("bad options");
            assert!(error.message.contains(bad[0]) && !error.message.contains('\n'), "{}", error.message);
        }
    }

    #[test]
    fn help_is_text() {
        assert!(help::<Options>("t").contains("--path"));
    }

    #[test]
    fn a_value_that_is_no_number_and_the_usual_other_forms_are_told_in_words() {
        let of = |bad: &[&str]| parse::<Options>("t", &words(bad)).expect_err("bad options");
        assert_eq!(of(&["--number", "x"]).message, "--number x: expected a number");
        assert_eq!(of(&["--number", "+7"]).message, "--number +7: expected a number");
        assert_eq!(of(&["--number", "70000"]).message, "--number 70000: expected a number");
        assert_eq!(of(&["--number=7"]).message, "--number=7: unknown option");
        assert_eq!(of(&["--number=7"]).hint.as_deref(), Some("write --number 7: two words, without ="));
        assert_eq!(of(&["--number"]).message, "--number: expected a value");
        assert_eq!(of(&["--number", "1", "--number", "2"]).message, "--number 2: given twice");
        assert_eq!(of(&["x"]).message, "x: unexpected argument");
        assert_eq!(of(&[""]).message, "an empty word: unexpected argument");
        assert_eq!(of(&["-h"]).hint.as_deref(), Some("long options only: see --help"));
    }
}
