//! From argv to options: the split at `--`, and argh made to read any bytes.

use crate::{Error, Result};
use argh::FromArgs;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

/// A stage's argv, split at the first `--`.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What stands before `--`, without the tool's own name.
    pub options: Vec<OsString>,
    /// What stands after it: PROGRAM and its arguments, untouched. `None` when there is no `--`.
    pub program: Option<Vec<OsString>>,
}

impl CommandLine {
    /// Splits `args` (argv without argv\[0\]) at the first `--`.
    pub fn split(mut args: Vec<OsString>) -> Self {
        match args.iter().position(|arg| arg == "--") {
            None => Self { options: args, program: None },
            Some(at) => {
                let program = args.split_off(at + 1);
                args.truncate(at);
                Self { options: args, program: Some(program) }
            }
        }
    }

    /// Whether the user asks for `--help` or `--version`, which need no `--`.
    pub fn asks(&self, option: &str) -> bool {
        self.options.first().is_some_and(|first| first == option)
            || self.program.is_none() && self.options.iter().any(|arg| arg == option)
    }

    /// An error about the options, with a hint if they may be none: `--` is missing, or missing in front of a stage.
    pub fn explain(&self, tool: &str, error: Error) -> Error {
        let missing =
            self.program.is_none() || self.options.iter().any(|word| word.as_bytes().starts_with(b"srt-"));
        if missing && error.hint.is_none() { error.hint(form(tool)) } else { error }
    }

    /// PROGRAM and its arguments, at least one word.
    ///
    /// # Errors
    /// A usage error where `--` or PROGRAM is missing.
    pub fn program(self, tool: &str) -> Result<Vec<OsString>> {
        match self.program {
            Some(program) if !program.is_empty() => Ok(program),
            Some(_) => Err(Error::usage("nothing follows --: expected PROGRAM [args...]")),
            None => Err(missing_separator(tool)),
        }
    }
}

/// The error for a command line without `--`.
pub fn missing_separator(tool: &str) -> Error {
    Error::usage("missing -- before PROGRAM").hint(form(tool))
}

fn form(tool: &str) -> String {
    format!("write {tool} [options] -- PROGRAM [args...]; what follows -- goes through untouched")
}

/// The bytes of one argument as a string in which every byte is one character (ISO 8859-1), since argh takes
/// UTF-8 only and a path may be anything. A bare `help` is marked: argh would take it for a request for help.
fn encode(arg: &OsString) -> String {
    let mark = if arg == "help" { "\u{100}" } else { "" };
    mark.chars().chain(arg.as_bytes().iter().map(|&byte| char::from(byte))).collect()
}

/// The argument behind a value that argh hands out: the reverse of what [`parse`] did before.
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

/// What an argv means.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// Run with these options.
    Options(T),
    /// Print this on stdout and exit 0: `--help`.
    Help(String),
}

/// Reads `options` into an argh struct. Values come to the struct in the form that [`decode`] and [`Raw`] read.
///
/// # Errors
/// A usage error in one line, with what argh says.
pub fn parse<T: FromArgs>(tool: &str, options: &[OsString]) -> Result<Parsed<T>> {
    let words: Vec<String> = options.iter().map(encode).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match T::from_args(&[tool], &words) {
        Ok(parsed) => Ok(Parsed::Options(parsed)),
        Err(exit) if exit.status.is_ok() => Ok(Parsed::Help(exit.output)),
        Err(exit) => Err(Error::usage(one_line(&exit.output))),
    }
}

/// argh spreads its complaints over several lines, a list of what is missing among them.
fn one_line(output: &str) -> String {
    let text = decode(output).to_string_lossy().into_owned();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Where an argument cannot hold a NUL (argv never does, an `--args` file might).
///
/// # Errors
/// A usage error that shows the argument.
pub fn no_nul(arg: &OsStr) -> Result<&OsStr> {
    if arg.as_bytes().contains(&0) {
        return Err(Error::usage(format!("{}: contains a NUL byte", arg.display())));
    }
    Ok(arg)
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
        assert_eq!(parsed, Ok(Parsed::Options(Options { path: vec![Raw(bytes)], number: None })));
    }

    #[test]
    fn a_value_of_help_is_no_request_for_help() {
        let parsed = parse::<Options>("t", &words(&["--path", "help"]));
        let path = vec![Raw(OsString::from("help"))];
        assert_eq!(parsed, Ok(Parsed::Options(Options { path, number: None })));
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
        assert!(
            matches!(parse::<Options>("t", &words(&["--help"])), Ok(Parsed::Help(text)) if text.contains("--path"))
        );
    }
}
