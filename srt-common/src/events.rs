//! `--status-fd`: one JSON object per line, for scripts.

use crate::Error;
use crate::error::shortened;
use crate::fds::say;
use std::fmt::{Display, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One JSON object under construction.
#[derive(Debug)]
pub struct Event(String);

impl Event {
    /// Starts with the two fields that every line has.
    pub fn new(stage: &str, event: &str) -> Self {
        Self(String::new()).text("stage", stage).text("event", event)
    }

    /// Adds the parts of an error. A path that does not fit into PIPE_BUF bytes is left out: the message also contains
    /// it.
    #[must_use]
    pub fn error(self, code: u8, error: &Error) -> Self {
        self.number("code", code)
            .text("message", &error.shown_message())
            .if_it_fits(error.option(), |event, option| event.text("option", option))
            .if_it_fits(error.errno, |event, errno| event.number("errno", errno))
            .if_it_fits(error.path.as_deref(), |event, path| event.path("path", path))
            .if_it_fits(error.hint.as_deref(), |event, hint| event.text("hint", hint))
    }

    /// Writes the event to a descriptor, in one write. It has at most PIPE_BUF bytes, so it stays whole if several
    /// stages share a pipe, or if the pipe has no room for more (pipe(7)). A reader that is gone is not an error: the
    /// sandbox does not depend on it.
    pub fn send(&self, to: RawFd) {
        let _gone = say(to, format!("{{{}}}\n", self.0).as_bytes());
    }

    fn if_it_fits<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        let Some(value) = value else { return self };
        let before = self.0.clone();
        let after = add(self, value);
        if after.0.len() + "{}\n".len() <= libc::PIPE_BUF { after } else { Self(before) }
    }

    fn field(mut self, key: &str, json: impl Display) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _infallible = write!(self.0, "{comma}\"{key}\":{json}");
        self
    }

    /// Adds a string. Its middle is removed if the event would have more than PIPE_BUF bytes.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let room = libc::PIPE_BUF.saturating_sub(self.0.len()) / 4 * 3;
        let (mut most, mut text) = (value.len(), escaped(value));
        while text.len() > room && most > 0 {
            most = most * 3 / 4;
            text = escaped(&shortened(value, most));
        }
        self.field(key, format_args!("\"{text}\""))
    }

    /// Adds a path, which may contain any bytes: those that are not UTF-8 become `\xNN`, a backslash is doubled.
    #[must_use]
    pub fn path(self, key: &str, path: &Path) -> Self {
        let mut text = String::new();
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
        }
        self.field(key, format_args!("\"{}\"", escaped(&text)))
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, key: &str, value: impl Into<i128> + Display) -> Self {
        self.field(key, value)
    }

    /// Adds an object of numbers.
    #[must_use]
    pub fn numbers(self, key: &str, values: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        let all = values.into_iter().fold(Self(String::new()), |all, (key, value)| all.number(key, value));
        self.field(key, format_args!("{{{}}}", all.0))
    }
}

/// The text as it appears between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_control() => {
                let _infallible = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_path_of_any_bytes_comes_back() {
        let event = Event::new("t", "e").path("path", Path::new(OsStr::from_bytes(b"/a\xff\\\"\n")));
        assert_eq!(event.0, r#""stage":"t","event":"e","path":"/a\\xff\\\\\"\u000a""#);
    }

    #[test]
    fn a_failure_has_its_parts_and_fits_into_one_write() {
        let error = std::io::Error::from_raw_os_error(libc::ENOENT);
        let error = Error::system("cannot open /a", &error).path("/a").within("--bind /a /b").hint("x");
        let text = Event::new("srt-mount", "failed").error(125, &error).0;
        assert!(text.contains(r#""option":"--bind","errno":2,"path":"/a","hint":"x""#), "{text}");
        let long = error.path("x".repeat(4000)).hint("y".repeat(4000));
        let text =
            Event::new("srt-mount", "failed").error(125, &Error { message: "é".repeat(9000), ..long }).0;
        assert!(text.len() < libc::PIPE_BUF - 3, "{}", text.len());
    }

    #[test]
    fn an_event_fits_into_one_write_whatever_its_texts_are() {
        for text in ["x", "\"", "é", "\u{1}"].map(|character| character.repeat(100_000)) {
            let event = Event::new("srt-relay", "relay-lost").text("listen", &text).text("connect", &text);
            let event = event.text("message", &text).0;
            assert!(event.len() < libc::PIPE_BUF - 3 && event.ends_with('"'), "{}", event.len());
            assert!(event.len() > libc::PIPE_BUF / 2 && event.matches(" [...] ").count() == 3, "{event}");
        }
    }

    #[test]
    fn what_is_written_is_json() {
        let event = Event::new("srt-ns", "failed").number("code", 125).text("message", "a \"b\\\"\n\u{7f}é");
        let event = event.numbers("namespaces", [("user", 1), ("net", 2)]);
        assert_eq!(
            event.0,
            "\"stage\":\"srt-ns\",\"event\":\"failed\",\"code\":125,\
             \"message\":\"a \\\"b\\\\\\\"\\u000a\\u007fé\",\"namespaces\":{\"user\":1,\"net\":2}"
        );
    }
}
