//! The error type: what was tried, what the system reported, and a hint if the user can do something about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The result of anything that can make a tool fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means for the exit status. The tool chooses the number: see [`crate::tool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The tool could not do what it was asked.
    Failed,
    /// PROGRAM exists, but cannot be executed: 126, as in env(1).
    NotExecutable,
    /// PROGRAM does not exist: 127, as in env(1).
    NotFound,
}

/// An error to be reported to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it means for the exit status.
    pub kind: Kind,
    /// What was tried and what the system reported, without the tool's name.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The errno, if the system reported the error.
    pub errno: Option<i32>,
    /// The file that the error is about, if there is one.
    pub path: Option<PathBuf>,
}

impl Error {
    /// The tool could not do what it was asked.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into(), hint: None, errno: None, path: None }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::failed(message) }
    }

    /// A system call failed: `what: No such file or directory`.
    pub fn system(what: impl fmt::Display, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        let failed = Self { errno, ..Self::failed(format!("{what}: {}", strerror(error))) };
        match errno {
            // For any call: only the kernel, or a seccomp filter, returns this.
            Some(libc::ENOSYS) => failed.hint(
                "the kernel does not know a system call that Linux 5.12 has: is it older or built without it, or does \
                 a seccomp filter (a container's profile) hide it?",
            ),
            Some(libc::EMFILE) => failed.hint("RLIMIT_NOFILE allows no more descriptors: raise it (ulimit -n)"),
            Some(libc::ENFILE) => failed.hint("the sysctl fs.file-max allows no more open files on this host"),
            _ => failed,
        }
    }

    /// Adds a hint to the user.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint to the user if this is the errno.
    #[must_use]
    pub fn hint_for(self, errno: i32, hint: impl Into<String>) -> Self {
        if self.errno == Some(errno) { self.hint(hint) } else { self }
    }

    /// Names the file that the error is about, for scripts: the message has only the printable form of the name.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The option that the error is about, which is the first word of the message.
    pub fn option(&self) -> Option<&str> {
        let first = self.message.split([' ', ':']).next()?;
        first.strip_prefix("--").filter(|name| !name.is_empty()).map(|_| first)
    }

    /// Prefixes the message with the option or step that has failed: `--bind /a /b: cannot open /a: …`.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The message as it is shown: printable, and short enough for one line.
    pub fn shown_message(&self) -> String {
        shortened(&printable(&self.message), 3000)
    }

    /// The lines for the user, each ended by a newline. Control characters are escaped, so that a path cannot forge a
    /// second line or control the terminal.
    pub fn lines(&self, tool: &str) -> String {
        let mut lines = format!("{tool}: {}\n", self.shown_message());
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("{tool}: hint: {}\n", printable(hint)));
        }
        lines
    }
}

/// Turns a system call's error into an [`Error`] that says what was tried.
pub trait Context<T> {
    /// `what` names the step: `cannot open /a`. It is evaluated only on failure.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::system(what(), &error))
    }
}

/// Fails if `seen` is false: `call` has succeeded, but an outer filter has answered instead of the kernel
/// (SECCOMP_RET_ERRNO in seccomp(2)).
///
/// # Errors
/// The effect of `call` was not seen.
pub fn require_effect(call: &str, seen: bool) -> Result<()> {
    if seen { Ok(()) } else { Err(Error::failed(format!("{call} had no effect"))) }
}

/// The message of strerror(3), without the ` (os error 2)` that the standard library adds.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
        _ => text,
    }
}

/// Escapes every character that controls a terminal, or changes the order in which it shows others (Unicode's property
/// Bidi_Control).
fn printable(text: &str) -> String {
    let reorders = |c| matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || reorders(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

/// Removes the middle of a text of more than `most` bytes: an argument may have 128 KiB. A line this short is also
/// written atomically to a pipe with several writers (pipe(7), PIPE_BUF).
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(most / 3), text.ceil_char_boundary(text.len() - most / 3));
    format!("{} [...] {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_forge_a_second_line() {
        let error = Error::failed("cannot open /a\nsrt-ns: all is well\x1b[2J");
        assert_eq!(error.lines("srt-mount"), "srt-mount: cannot open /a\\nsrt-ns: all is well\\u{1b}[2J\n");
    }

    #[test]
    fn no_character_shows_others_in_another_order() {
        let error = Error::failed("cannot open a\u{202e}fdp.exe\u{2066}b\u{200f}\u{61c}é");
        assert_eq!(error.lines("t"), "t: cannot open a\\u{202e}fdp.exe\\u{2066}b\\u{200f}\\u{61c}é\n");
        // PropList.txt of the Unicode Character Database.
        let all = ['\u{61c}', '\u{200e}', '\u{200f}']
            .into_iter()
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}');
        for c in all {
            assert_eq!(printable(&c.to_string()), c.escape_default().to_string());
        }
        let others = "\u{61b}\u{200d}\u{2010}\u{2029}\u{202f}\u{2065}\u{206a}";
        assert_eq!(printable(others), others);
    }

    #[test]
    fn a_hint_is_a_line_of_its_own() {
        let error = Error::failed("no").within("--bind /a /b").hint("do this");
        assert_eq!(error.lines("t"), "t: --bind /a /b: no\nt: hint: do this\n");
    }

    #[test]
    fn what_is_too_long_keeps_its_beginning_and_its_end() {
        let line = Error::failed(format!("cannot open {}: too long", "é".repeat(70_000))).lines("t");
        assert!(
            line.starts_with("t: cannot open éé") && line.ends_with("éé: too long\n") && line.len() < 3000
        );
    }

    #[test]
    fn the_errno_is_said_in_words_alone() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(strerror(&error), "No such file or directory");
        assert_eq!(strerror(&io::Error::other("x (os error 2)")), "x (os error 2)");
    }
}
