//! `--status-fd`: one JSON object a line, for scripts.

use crate::sys;
use crate::{Error, Result};
use std::fmt::Write;
use std::os::fd::RawFd;

/// The descriptor that a script reads. Not owned: it is the caller's, and closed at the exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusFd(RawFd);

impl StatusFd {
    /// Takes an open descriptor, and keeps it from the program that follows.
    ///
    /// # Errors
    /// A usage error when `fd` is not open.
    pub fn new(fd: RawFd) -> Result<Self> {
        // 0, 1 and 2 are passed on to the program in any case.
        let taken = if fd > 2 { sys::set_cloexec(fd, true) } else { sys::fd_flags(fd).map(drop) };
        taken.map_err(|_| Error::usage(format!("--status-fd {fd}: not an open descriptor")))?;
        Ok(Self(fd))
    }

    /// The descriptor's number, for one who closes all others.
    pub fn number(self) -> RawFd {
        self.0
    }

    /// Writes one event. A reader that has gone away is not an error: the sandbox is not its business.
    pub fn send(self, event: &Event) {
        let _gone = sys::write_all(self.0, format!("{{{}}}\n", event.0).as_bytes());
    }
}

/// One JSON object under construction.
#[derive(Debug)]
pub struct Event(String);

impl Event {
    /// Starts with the two fields that every line has.
    pub fn new(stage: &str, event: &str) -> Self {
        Self(String::new()).text("stage", stage).text("event", event)
    }

    fn key(&mut self, key: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _infallible = write!(self.0, "{comma}\"{key}\":");
    }

    /// Adds a string.
    #[must_use]
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c.is_control() => {
                    let _infallible = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, key: &str, value: impl Into<i128>) -> Self {
        self.key(key);
        let _infallible = write!(self.0, "{}", value.into());
        self
    }

    /// Adds an object of numbers.
    #[must_use]
    pub fn numbers(mut self, key: &str, values: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        self.key(key);
        let inner =
            values.into_iter().fold(Self(String::new()), |inner, (key, value)| inner.number(key, value));
        let _infallible = write!(self.0, "{{{}}}", inner.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
