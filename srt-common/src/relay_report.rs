//! The reports of srt-relay to the srt-ns that runs it (`--report-fd N`), one per line:
//!
//! - `lost PAIR ERRNO`: the pair's socket is gone, and cannot come back;
//! - `failed PAIR ERRNO`: a connection failed, the next one may succeed.
//!
//! PAIR counts the LISTEN CONNECT pairs of the command line from 0, so that the reader prints what *its* user wrote:
//! text from a process that reads untrusted bytes is not passed on. A failure that lasts is reported once.

use std::fmt;

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The index of the pair.
    pub pair: usize,
    /// Whether the failure is permanent.
    pub lost: bool,
    /// The errno of connect(2).
    pub errno: i32,
}

impl Report {
    /// The longest line, in bytes; two numbers of 20 digits fit.
    pub const LONGEST: usize = 50;

    /// Parses a line, with or without its newline. `None`: it is not a report.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.trim_end_matches('\n').split(' ');
        let lost = match words.next()? {
            "lost" => true,
            "failed" => false,
            _ => return None,
        };
        let report = Self { lost, pair: words.next()?.parse().ok()?, errno: words.next()?.parse().ok()? };
        words.next().is_none().then_some(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.lost { "lost" } else { "failed" };
        writeln!(f, "{word} {} {}", self.pair, self.errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for report in [Report { pair: 0, lost: true, errno: 111 }, Report { pair: 7, lost: false, errno: 2 }]
        {
            assert_eq!(Report::parse(report.to_string().as_bytes()), Some(report));
            assert!(report.to_string().len() <= Report::LONGEST);
        }
        for bad in
            ["", "lost", "lost 1", "lost 1 2 3", "gone 1 2", "lost -1 2", "lost 1 x", "lost  1 2", "\u{ff}"]
        {
            assert_eq!(Report::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
