//! The common part of every tool's `main`: the first checks, the options that all five have, and how the end is
//! reported.

use crate::args::{CommandLine, decimal};
use crate::error::{Context, Error, Kind, Result};
use crate::events::Event;
use crate::exec::ignore_signals;
use crate::fds::{can_be_written, say, write_all};
use crate::sys::process::{Pid, getppid, uname};
use crate::sys::{entry, fd, file};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The exit statuses for a tool's own failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCodes {
    /// A stage runs a command, so every status except 125, 126 and 127 is the command's own (env(1)).
    Stage,
    /// A tool that runs no command: 1, or 2 for wrong usage.
    Plain,
}

impl ExitCodes {
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

/// What distinguishes a tool from the others.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name in front of every message.
    pub name: &'static str,
    /// Its exit statuses.
    pub exit_codes: ExitCodes,
    /// The text of `--help`, for a tool of this name.
    pub help: fn(&str) -> String,
}

/// A running tool.
#[derive(Debug)]
pub struct Tool {
    /// The name in front of every message.
    pub name: &'static str,
    exit_codes: ExitCodes,
    /// The descriptor of `--status-fd`: a guess until the options are parsed. It is not owned: it is the caller's, and
    /// is closed at the exec.
    pub status: Option<RawFd>,
    /// The parent as recorded first of all in `main`, for the tool that watches it: if the parent is already dead, the
    /// process that adopted this one is taken for it, as the two cannot be distinguished (that is what `--lifetime-fd`
    /// is for).
    pub parent: Pid,
}

impl Tool {
    /// Runs `body` with the command line and converts its result into an exit status.
    pub fn run(spec: Spec, args: Vec<OsString>, body: fn(&mut Self, CommandLine) -> Result<u8>) -> u8 {
        let mut tool = Self { name: spec.name, exit_codes: spec.exit_codes, status: None, parent: getppid() };
        let line = match spec.exit_codes {
            ExitCodes::Stage => CommandLine::split(args),
            ExitCodes::Plain => CommandLine { options: args, program: None },
        };
        let result = tool.prepare(&line).and_then(|()| {
            if line.asks("--help") {
                tool.print((spec.help)(spec.name))
            } else if line.asks("--version") {
                tool.print(format!("{} {}\n", tool.name, env!("CARGO_PKG_VERSION")))
            } else {
                body(&mut tool, line)
            }
        });
        result.unwrap_or_else(|error| tool.fail(&error))
    }

    /// Opens 0, 1 and 2 before anything else, or a file of the tool could become the program's stdout. Prevents a write
    /// from killing the process by a signal. Refuses privileges that the caller does not have: the tool trusts argv,
    /// the environment and the descriptors, which all come from the caller.
    fn prepare(&mut self, line: &CommandLine) -> Result<()> {
        open_standard_descriptors()?;
        ignore_signals()?;
        self.status = early_status(&line.options);
        if entry::getauxval(libc::AT_SECURE) != 0 {
            return Err(Error::failed("refusing to run setuid, setgid or with file capabilities")
                .hint("remove the bits: chmod u-s,g-s and setcap -r; the tools need no privileges"));
        }
        Ok(())
    }

    /// Takes the descriptor that `--status-fd` names. The program that follows gets it if it is 0, 1 or 2, or if
    /// `--keep-fd` names it ([`crate::fds::KeptFds`]).
    ///
    /// # Errors
    /// A usage error if it is not open for writing.
    pub fn take_status(&mut self, number: Option<RawFd>) -> Result<()> {
        if let Some(number) = number {
            can_be_written(number).map_err(|why| Error::usage(format!("--status-fd {number}: {why}")))?;
        }
        self.status = number;
        Ok(())
    }

    /// Reports an error to the user and to the status descriptor; returns the exit status for it.
    pub fn fail(&self, error: &Error) -> u8 {
        let code = self.exit_codes.code(error.kind);
        self.warn(error);
        self.tell("failed", |event| event.error(code, error));
        code
    }

    /// Prints an error on stderr, in one write. A closed stderr is not an error.
    pub fn warn(&self, error: &Error) {
        let _closed = say(2, error.lines(self.name).as_bytes());
    }

    /// Sends an event of this tool, if `--status-fd` was given.
    pub fn tell(&self, event: &str, fields: impl FnOnce(Event) -> Event) {
        if let Some(status) = self.status {
            fields(Event::new(self.name, event)).send(status);
        }
    }

    /// Writes `bytes` to stdout.
    ///
    /// # Errors
    /// Stdout cannot be written, or was closed, as for any other program.
    pub fn print(&self, bytes: impl AsRef<[u8]>) -> Result<u8> {
        let written = fd::given(1).and_then(|_| write_all(1, bytes.as_ref()));
        written.context(|| "cannot write to stdout")?;
        Ok(0)
    }
}

/// Opens /dev/null for each of 0, 1 and 2 that is closed: poll(2) reports POLLNVAL. It has FD_CLOEXEC until an exec
/// ([`crate::fds::KeptFds`]), so that no option can name it: [`fd::given`].
fn open_standard_descriptors() -> Result<()> {
    let mut three = [0, 1, 2].map(|number| fd::pollfd(number, 0));
    let what = || "cannot open /dev/null in place of a closed descriptor";
    fd::ppoll(&mut three, Some(Duration::ZERO)).context(what)?;
    for closed in three.iter().filter(|entry| entry.revents & libc::POLLNVAL != 0) {
        // The lowest free number, since those below are open by now.
        let null = file::open("/dev/null", libc::O_RDWR).context(what)?;
        if null.as_raw_fd() != closed.fd {
            return Err(Error::failed(what()));
        }
        let _stays_open = null.into_raw_fd();
    }
    Ok(())
}

/// The status descriptor for errors in the command line, whose status 125 must not be mistaken for the command's own.
fn early_status(options: &[OsString]) -> Option<RawFd> {
    let of = |option| {
        let word = options.iter().skip_while(|word| *word != option).nth(1)?;
        decimal(word.as_bytes())
    };
    // srt-ns expects other data on the socket that it gives its srt-mount.
    of("--status-fd").filter(|fd| Some(*fd) != of("--join") && fd::given(*fd).is_ok())
}

/// The oldest kernel that has the new mount API, `mount_setattr`, `close_range`, `openat2` and pidfds.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// The hint if landlock_create_ruleset(2) is refused.
pub const LANDLOCK_IS_OFF: &str =
    "Landlock is off in this kernel (lsm= on its command line), or a container's profile hides it";

/// The kernel's release, which must not be too old. Called after the options are parsed, since `--help` does not need
/// it.
///
/// # Errors
/// The kernel is too old.
pub fn require_kernel() -> Result<String> {
    let release = uname().context(|| "uname")?;
    if is_too_old(&release) {
        let (major, minor) = OLDEST_KERNEL;
        let error = format!("kernel {release} is too old: Linux {major}.{minor} or newer is needed");
        let hint = "run a newer kernel; the tools do not fall back to weaker means";
        return Err(Error::failed(error).hint(hint));
    }
    Ok(release)
}

/// Only (6, 1) of `6.1.0-13-amd64` counts. Other text does not count as too old: missing system calls will show it.
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
        assert_eq!(ExitCodes::Stage.code(Kind::Usage), 125);
        assert_eq!(ExitCodes::Stage.code(Kind::Failed), 125);
        assert_eq!(ExitCodes::Stage.code(Kind::NotExecutable), 126);
        assert_eq!(ExitCodes::Stage.code(Kind::NotFound), 127);
        assert_eq!(ExitCodes::Plain.code(Kind::Usage), 2);
        assert_eq!(ExitCodes::Plain.code(Kind::Failed), 1);
    }
}
