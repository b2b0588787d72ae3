//! The frame of every tool's `main`: what is checked before anything else, what all five answer alike, and how an end
//! is told.

use crate::args::{CommandLine, decimal};
use crate::error::{Context, Error, Kind, Result};
use crate::exec::ignore_signals;
use crate::fds::{say, write_all};
use crate::parent::Parent;
use crate::status::{Event, StatusFd};
use crate::sys::{fd, file, process, start};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

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

/// What makes a tool this one.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name in front of every message.
    pub name: &'static str,
    /// What it exits with.
    pub manner: Manner,
    /// The text of `--help`.
    pub help: fn() -> String,
    /// Whether its life is bounded by its parent's.
    pub watches_parent: bool,
}

/// A running tool.
#[derive(Debug)]
pub struct Tool {
    /// The name in front of every message.
    pub name: &'static str,
    manner: Manner,
    /// Where `--status-fd` points: a guess until the options are read.
    pub status: Option<StatusFd>,
    /// The parent as it was first thing in `main`, for the tool that watches it.
    pub parent: Option<Parent>,
}

impl Tool {
    /// Runs `story` with the command line and turns its end into an exit status.
    pub fn run(spec: Spec, args: Vec<OsString>, story: fn(&mut Self, CommandLine) -> Result<u8>) -> u8 {
        let parent = spec.watches_parent.then(Parent::look);
        let mut tool = Self { name: spec.name, manner: spec.manner, status: None, parent };
        let line = match spec.manner {
            Manner::Stage => CommandLine::split(args),
            Manner::Plain => CommandLine { options: args, program: None },
        };
        let result = tool.prepare(&line).and_then(|()| {
            if line.asks("--help") {
                tool.print(&(spec.help)())
            } else if line.asks("--version") {
                tool.print(&format!("{} {}\n", tool.name, env!("CARGO_PKG_VERSION")))
            } else {
                story(&mut tool, line)
            }
        });
        result.unwrap_or_else(|error| tool.fail(&error))
    }

    /// 0, 1 and 2 are open before anything else is opened, or a file of ours would be the program's stdout; no write
    /// ends the process by a signal; and no tool runs with privileges that its caller does not have: it
    /// trusts argv, the environment and the descriptors, all of which come from the caller.
    fn prepare(&mut self, line: &CommandLine) -> Result<()> {
        open_standard_descriptors()?;
        ignore_signals()?;
        self.status = early_status(&line.options);
        if start::getauxval(libc::AT_SECURE) != 0 {
            return Err(Error::failed("refusing to run setuid, setgid or with file capabilities")
                .hint("remove the bits: chmod u-s,g-s and setcap -r; the tools need no privileges"));
        }
        Ok(())
    }

    /// Takes what `--status-fd` names.
    ///
    /// # Errors
    /// A usage error when it is not open.
    pub fn take_status(&mut self, fd: Option<RawFd>) -> Result<()> {
        self.status = fd.map(StatusFd::new).transpose()?;
        Ok(())
    }

    /// Tells the user and the status descriptor what went wrong; returns the exit status for it.
    pub fn fail(&self, error: &Error) -> u8 {
        let code = self.manner.code(error.kind);
        self.warn(error);
        if let Some(status) = self.status {
            status.send(&Event::failed(self.name, code, error));
        }
        code
    }

    /// Tells the user, on stderr, in one write. A closed stderr is no failure.
    pub fn warn(&self, error: &Error) {
        let _closed = say(2, error.lines(self.name).as_bytes());
    }

    /// Sends an event of this tool, if `--status-fd` is given.
    pub fn tell(&self, event: &str, fields: impl FnOnce(Event) -> Event) {
        if let Some(status) = self.status {
            status.send(&fields(Event::new(self.name, event)));
        }
    }

    /// Writes `text` to stdout.
    ///
    /// # Errors
    /// When stdout cannot be written, as for any other program.
    pub fn print(&self, text: &str) -> Result<u8> {
        write_all(1, text.as_bytes()).context(|| "cannot write to stdout")?;
        Ok(0)
    }
}

/// Opens /dev/null where 0, 1 or 2 is closed: poll(2) tells POLLNVAL.
fn open_standard_descriptors() -> Result<()> {
    let mut three = [0, 1, 2].map(|number| fd::pollfd(number, 0));
    let what = || "cannot open /dev/null in place of a closed descriptor";
    fd::ppoll(&mut three, Some(Duration::ZERO)).context(what)?;
    for closed in three.iter().filter(|entry| entry.revents & libc::POLLNVAL != 0) {
        // The lowest number that is free: those below are open by now.
        let null = file::openat(&file::CWD, c"/dev/null", libc::O_RDWR, 0).context(what)?;
        if null.as_raw_fd() != closed.fd {
            return Err(Error::failed(what()));
        }
        fd::fcntl_setfd(&null, 0).context(what)?;
        let _stays_open = null.into_raw_fd();
    }
    Ok(())
}

/// Where a wrong command line is told, too: its 125 must not be mistaken for the command's own.
fn early_status(options: &[OsString]) -> Option<StatusFd> {
    let of = |option| {
        let word = options.iter().skip_while(|word| *word != option).nth(1)?;
        decimal(word.as_bytes())
    };
    // srt-ns waits for other words at the socket that it gives its srt-mount.
    of("--status-fd").filter(|fd| Some(*fd) != of("--join")).and_then(|fd| StatusFd::new(fd).ok())
}

/// The oldest kernel that has the new mount API, `mount_setattr`, `close_range`, `openat2` and pidfds.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// The hint where landlock_create_ruleset(2) is refused.
pub const LANDLOCK_IS_OFF: &str =
    "Landlock is off in this kernel (lsm= on its command line), or a container's profile hides it";

/// The kernel's release, which must not be too old. After the options were read: `--help` and its like need none.
///
/// # Errors
/// The kernel is too old.
pub fn require_kernel() -> Result<String> {
    let release = process::uname().context(|| "uname")?;
    if is_too_old(&release) {
        let (major, minor) = OLDEST_KERNEL;
        let error = format!("kernel {release} is too old: Linux {major}.{minor} or newer is needed");
        return Err(
            Error::failed(error).hint("run a newer kernel; the tools do not fall back to weaker means")
        );
    }
    Ok(release)
}

/// Of `6.1.0-13-amd64` (6, 1) counts. What does not look like a release is not too old: the system calls will tell.
fn is_too_old(release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (old, release) in [
            (true, "5.11.22"),
            (true, "5.4.0"),
            (true, "5.9"),
            (true, "4.19"),
            (false, "5.12"),
            (false, "6.1.0-13-amd64"),
            (false, "10.0"),
            (false, "rolling"),
        ] {
            assert_eq!(is_too_old(release), old, "{release}");
        }
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
