//! The frame of every tool's `main`: what is checked before anything else, and how an end is told.

use crate::error::{Context, Error, Kind, Result};
use crate::status::{Event, StatusFd};
use crate::sys;
use std::ffi::OsString;

/// What the tools exit with when they fail themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A stage: it runs a command, so every number but 125, 126 and 127 is the command's own (env(1)).
    Stage,
    /// A tool that runs no command: 1, and 2 for wrong usage.
    Plain,
}

impl Manner {
    fn code(self, kind: Kind) -> u8 {
        match (self, kind) {
            (Self::Stage, Kind::Usage | Kind::Failed) => 125,
            (Self::Stage, Kind::NotExecutable) => 126,
            (Self::Stage, Kind::NotFound) => 127,
            (Self::Plain, Kind::Usage) => 2,
            (Self::Plain, _) => 1,
        }
    }
}

/// A running tool: its name, and where its events go.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name in front of every message.
    pub name: &'static str,
    manner: Manner,
    /// Where `--status-fd` points: a guess until the options are read.
    pub status: Option<StatusFd>,
}

impl Tool {
    /// Runs `story` with `args` (argv without argv\[0\]) and turns its end into an exit status.
    pub fn run(
        name: &'static str,
        manner: Manner,
        args: Vec<OsString>,
        story: impl FnOnce(&mut Self, Vec<OsString>) -> Result<u8>,
    ) -> u8 {
        let mut tool = Self { name, manner, status: None };
        let ready = prepare_process().and_then(|()| {
            tool.status = if manner == Manner::Stage { early_status(&args) } else { None };
            refuse_unsafe_start()
        });
        match ready.and_then(|()| story(&mut tool, args)) {
            Ok(code) => code,
            Err(error) => tool.fail(&error),
        }
    }

    /// Tells the user and the status descriptor what went wrong; returns the exit status for it.
    pub fn fail(&self, error: &Error) -> u8 {
        let code = self.manner.code(error.kind);
        self.warn(error);
        if let Some(status) = self.status {
            status
                .send(&Event::new(self.name, "failed").number("code", code).text("message", &error.message));
        }
        code
    }

    /// Tells the user, on stderr, in one write. A closed stderr is nobody's failure.
    pub fn warn(&self, error: &Error) {
        let _closed = sys::write_all(2, error.lines(self.name).as_bytes());
    }

    /// `--help` and `--version`: `text` on stdout.
    ///
    /// # Errors
    /// When stdout cannot be written, as for any other program.
    pub fn print(&self, text: &str) -> Result<u8> {
        sys::write_all(1, text.as_bytes()).context(|| "cannot write to stdout")?;
        Ok(0)
    }

    /// The line of `--version`.
    pub fn version(&self) -> String {
        format!("{} {}\n", self.name, env!("CARGO_PKG_VERSION"))
    }
}

/// 0, 1 and 2 are open before anything else is opened, or a file of ours would be the program's stdout; and a closed
/// pipe is an error to be told, not a signal.
fn prepare_process() -> Result<()> {
    sys::open_standard_descriptors().context(|| "cannot open /dev/null in place of a closed descriptor")?;
    sys::ignore_sigpipe().context(|| "cannot ignore SIGPIPE")
}

/// Where a wrong command line is told, too: its 125 must not be mistaken for the command's own.
fn early_status(args: &[OsString]) -> Option<StatusFd> {
    let mut words = args.iter().take_while(|word| *word != "--");
    words.find(|word| *word == "--status-fd")?;
    StatusFd::new(words.next()?.to_str()?.parse().ok()?).ok()
}

/// The oldest kernel that has the new mount API, `mount_setattr`, `close_range`, `openat2` and pidfds.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// Refuses to run with privileges that the caller does not have, and on a kernel that is too old.
fn refuse_unsafe_start() -> Result<()> {
    // getauxval(3): set for setuid, setgid and file capabilities. The tools trust their argv, environment and
    // descriptors, all of which come from the caller.
    if sys::secure_exec() {
        return Err(Error::failed("refusing to run setuid, setgid or with file capabilities")
            .hint("remove the bits: chmod u-s,g-s and setcap -r; the tools need no privileges"));
    }
    let release = sys::kernel_release().context(|| "uname")?;
    match parse_release(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            Err(Error::failed(format!(
                "kernel {release} is too old: Linux {major}.{minor} or newer is needed"
            ))
            .hint("run a newer kernel; the tools do not fall back to weaker means"))
        }
        _ => Ok(()),
    }
}

/// `6.1.0-13-amd64` is (6, 1). `None` for what does not look like a release: the system calls will tell.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.9"), Some((5, 9)));
        assert!(parse_release("5.4.0") < Some(OLDEST_KERNEL) && Some((5, 12)) >= Some(OLDEST_KERNEL));
        assert_eq!(parse_release("rolling"), None);
    }

    #[test]
    fn a_stage_leaves_every_other_number_to_the_command() {
        assert_eq!(Manner::Stage.code(Kind::Usage), 125);
        assert_eq!(Manner::Stage.code(Kind::Failed), 125);
        assert_eq!(Manner::Stage.code(Kind::NotExecutable), 126);
        assert_eq!(Manner::Stage.code(Kind::NotFound), 127);
        assert_eq!(Manner::Plain.code(Kind::Usage), 2);
        assert_eq!(Manner::Plain.code(Kind::Failed), 1);
    }
}
