//! argv → plan: what is to be mounted, in which order. Pure: nothing here asks the system, so that any input
//! can be tried without privileges.

use srt_common::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Everything that stands before `--`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations, in the order given.
    pub ops: Vec<Op>,
    /// `--placeholders`: missing mount points may be made on the host's file systems, and stay there.
    pub placeholders: bool,
    /// `--chdir`: counted from the new root.
    pub chdir: Option<PathBuf>,
    /// `--keep-fd`.
    pub keep: Vec<RawFd>,
    /// `--status-fd`.
    pub status_fd: Option<RawFd>,
}

/// One operation on the new tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The option's name, for messages.
    pub option: &'static str,
    /// What stands between the name and DEST, for messages.
    pub operands: Vec<OsString>,
    /// Where, counted from the new root.
    pub dest: PathBuf,
    /// What.
    pub action: Action,
}

/// What an operation does at its destination. Modes are permission bits; each `fd` is the caller's.
#[allow(missing_docs, reason = "the fields are the option's words")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The `--bind` family. `optional`: a source that does not exist is skipped (`-try`).
    Bind { source: Source, access: Access, optional: bool },
    /// `--bind-data`, `--ro-bind-data`: a new file with what `fd` holds, mounted.
    BindData { fd: RawFd, mode: u32, access: Access },
    /// `--overlay`, `--tmp-overlay`, `--ro-overlay`; `layers` from bottom to top, as bubblewrap takes them.
    Overlay { layers: Vec<PathBuf>, upper: Upper },
    /// A new tmpfs; its root's mode and its size in bytes (the kernel's default is half the memory).
    Tmpfs { mode: u32, size: Option<u64> },
    /// A new procfs.
    Proc,
    /// A new, minimal /dev.
    Dev,
    /// A new POSIX message queue file system.
    Mqueue,
    /// An empty read-only directory or file over what is there.
    Mask,
    /// A directory.
    Dir { mode: u32 },
    /// A file with what `fd` holds.
    File { fd: RawFd, mode: u32 },
    /// A symbolic link.
    Symlink { target: OsString },
    /// chmod(2).
    Chmod { mode: u32 },
    /// Makes one mount read-only; those below it stay as they are.
    RemountReadOnly,
}

/// What a bind shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path on the host.
    Path(PathBuf),
    /// What an inherited descriptor is open on.
    Fd(RawFd),
}

/// What the command may do below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read. Every submount too.
    ReadOnly,
    /// Read and write.
    Writable,
    /// Read, write and open device nodes.
    Devices,
}

/// Where an overlay's writes go.
#[allow(missing_docs, reason = "the fields are the option's words")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Nowhere: the overlay is read-only.
    None,
    /// Into a tmpfs that goes away with the sandbox.
    Temporary,
    /// Into a directory on the host, with an empty work directory on the same file system.
    Host { upper: PathBuf, work: PathBuf },
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.option)?;
        self.operands.iter().try_for_each(|operand| write!(f, " {}", operand.display()))?;
        write!(f, " {}", self.dest.display())
    }
}

/// Reads the options. `--args` needs descriptors and is refused here: see [`parse_with`].
///
/// # Errors
/// A usage error that names the option and what was expected.
pub fn parse(words: &[OsString]) -> Result<Plan> {
    parse_with(words, &mut |_| Err(Error::usage("cannot be read here")))
}

/// Reads the options, with `read_all` to read what `--args FD` holds.
///
/// # Errors
/// A usage error that names the option and what was expected; whatever `read_all` says.
pub fn parse_with(words: &[OsString], read_all: &mut dyn FnMut(RawFd) -> Result<Vec<u8>>) -> Result<Plan> {
    let mut parser = Parser { plan: Plan::default(), perms: None, size: None, layers: vec![] };
    parser.words(&mut words.iter().map(OsString::as_os_str), Some(read_all))?;
    parser.no_modifier_is_left()?;
    Ok(parser.plan)
}

struct Parser {
    plan: Plan,
    /// `--perms`, `--size`, `--overlay-src`: kept for the option that they modify.
    perms: Option<u32>,
    size: Option<u64>,
    layers: Vec<PathBuf>,
}

/// The words that follow an option.
struct Operands<'a, 'w> {
    option: &'static str,
    words: &'a mut dyn Iterator<Item = &'w OsStr>,
}

impl<'w> Operands<'_, 'w> {
    fn word(&mut self, expected: &str) -> Result<&'w OsStr> {
        match self.words.next() {
            None => Err(Error::usage(format!("{}: expected {expected}", self.option))),
            Some(word) if word.is_empty() => {
                Err(Error::usage(format!("{}: {expected} is empty", self.option)))
            }
            Some(word) => Ok(word),
        }
    }

    fn path(&mut self, expected: &str) -> Result<PathBuf> {
        self.word(expected).map(PathBuf::from)
    }

    /// A number in the form of which `what` speaks.
    fn number<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        let word = self.word(what)?;
        word.to_str()
            .and_then(read)
            .ok_or_else(|| Error::usage(format!("{}: {} is not {what}", self.option, word.display())))
    }

    fn fd(&mut self) -> Result<RawFd> {
        self.number("a descriptor number", |word| {
            // No sign: `parse` would take one.
            word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
        })
    }

    fn mode(&mut self) -> Result<u32> {
        self.number("an octal mode up to 7777", |word| {
            let octal = word.bytes().all(|byte| byte.is_ascii_digit());
            octal.then(|| u32::from_str_radix(word, 8).ok()).flatten().filter(|&mode| mode <= 0o7777)
        })
    }

    fn size(&mut self) -> Result<u64> {
        self.number("a number of bytes above 0", |word| {
            // The kernel's limit is the largest loff_t.
            let decimal = word.bytes().all(|byte| byte.is_ascii_digit());
            decimal.then(|| word.parse().ok()).flatten().filter(|size| (1..=i64::MAX as u64).contains(size))
        })
    }
}

impl Parser {
    fn words(
        &mut self,
        words: &mut dyn Iterator<Item = &OsStr>,
        mut read_all: Option<&mut dyn FnMut(RawFd) -> Result<Vec<u8>>>,
    ) -> Result<()> {
        while let Some(word) = words.next() {
            let option = known(word)?;
            let mut operands = Operands { option, words };
            if option == "--args" {
                let fd = operands.fd()?;
                let read_all = read_all
                    .as_deref_mut()
                    .ok_or_else(|| Error::usage("--args: not allowed in what --args reads"))?;
                read_all(fd)
                    .and_then(|data| self.words(&mut nul_separated(&data), None))
                    .map_err(|error| error.within(format!("--args {fd}")))?;
            } else {
                self.option(&mut operands)?;
            }
        }
        Ok(())
    }

    fn option(&mut self, operands: &mut Operands) -> Result<()> {
        let option = operands.option;
        match option {
            "--perms" if self.perms.is_some() => {
                return Err(Error::usage("--perms: given twice for one option"));
            }
            "--size" if self.size.is_some() => {
                return Err(Error::usage("--size: given twice for one option"));
            }
            "--perms" => self.perms = Some(operands.mode()?),
            "--size" => self.size = Some(operands.size()?),
            "--overlay-src" => {
                self.modifiers_fit(option)?;
                self.layers.push(operands.path("SRC")?);
            }
            _ => {
                self.modifiers_fit(option)?;
                return self.complete(operands);
            }
        }
        Ok(())
    }

    /// `--perms`, `--size` and `--overlay-src` say something about the very next option only.
    fn modifiers_fit(&self, option: &str) -> Result<()> {
        let makes = ["--dir", "--tmpfs", "--file", "--bind-data", "--ro-bind-data"];
        let overlays = ["--overlay-src", "--overlay", "--tmp-overlay", "--ro-overlay"];
        if self.perms.is_some() && !makes.contains(&option) {
            return Err(Error::usage(format!("--perms: expected one of {} next", makes.join(" "))));
        }
        if self.size.is_some() && option != "--tmpfs" {
            return Err(Error::usage("--size: expected --tmpfs next"));
        }
        if !self.layers.is_empty() && !overlays.contains(&option) {
            return Err(Error::usage(format!("--overlay-src: expected one of {} next", overlays.join(" "))));
        }
        Ok(())
    }

    fn no_modifier_is_left(&self) -> Result<()> {
        self.modifiers_fit("the end")
    }

    fn complete(&mut self, operands: &mut Operands) -> Result<()> {
        let option = operands.option;
        let plan = &mut self.plan;
        match option {
            "--placeholders" => plan.placeholders = true,
            "--chdir" => plan.chdir = Some(once(option, &plan.chdir, operands.path("DIR")?)?),
            "--status-fd" => plan.status_fd = Some(once(option, &plan.status_fd, operands.fd()?)?),
            "--keep-fd" => plan.keep.push(operands.fd()?),
            _ => {
                let op = self.op(operands)?;
                self.plan.ops.push(op);
            }
        }
        Ok(())
    }

    fn op(&mut self, operands: &mut Operands) -> Result<Op> {
        let option = operands.option;
        let mut shown: Vec<OsString> = vec![];
        let perms = self.perms.take();
        let mode = |default| perms.unwrap_or(default);
        let action = match option {
            "--bind" | "--bind-try" | "--ro-bind" | "--ro-bind-try" | "--dev-bind" | "--dev-bind-try" => {
                let source = operands.path("SRC DEST")?;
                shown.push(source.clone().into());
                Action::Bind {
                    source: Source::Path(source),
                    access: access(option),
                    optional: option.ends_with("-try"),
                }
            }
            "--bind-fd" | "--ro-bind-fd" => {
                let fd = operands.fd()?;
                shown.push(fd.to_string().into());
                Action::Bind { source: Source::Fd(fd), access: access(option), optional: false }
            }
            "--bind-data" | "--ro-bind-data" => {
                let fd = operands.fd()?;
                shown.push(fd.to_string().into());
                Action::BindData { fd, mode: mode(0o600), access: access(option) }
            }
            "--file" => {
                let fd = operands.fd()?;
                shown.push(fd.to_string().into());
                Action::File { fd, mode: mode(0o666) }
            }
            "--symlink" => {
                let target = operands.word("SRC DEST")?.to_owned();
                shown.push(target.clone());
                Action::Symlink { target }
            }
            "--chmod" => {
                let mode = operands.mode()?;
                shown.push(format!("{mode:o}").into());
                Action::Chmod { mode }
            }
            "--overlay" => {
                let (upper, work) = (operands.path("RWSRC WORKDIR DEST")?, operands.path("WORKDIR DEST")?);
                shown.extend([upper.clone().into(), work.clone().into()]);
                self.overlay(option, Upper::Host { upper, work }, 1)?
            }
            "--tmp-overlay" => self.overlay(option, Upper::Temporary, 1)?,
            "--ro-overlay" => self.overlay(option, Upper::None, 2)?,
            "--tmpfs" => Action::Tmpfs { mode: mode(0o755), size: self.size.take() },
            "--dir" => Action::Dir { mode: mode(0o755) },
            "--proc" => Action::Proc,
            "--dev" => Action::Dev,
            "--mqueue" => Action::Mqueue,
            "--mask" => Action::Mask,
            _ => Action::RemountReadOnly,
        };
        Ok(Op { option, operands: shown, dest: operands.path("DEST")?, action })
    }

    fn overlay(&mut self, option: &str, upper: Upper, least: usize) -> Result<Action> {
        let layers = std::mem::take(&mut self.layers);
        if layers.len() < least {
            return Err(Error::usage(format!("{option}: expected at least {least} --overlay-src before it")));
        }
        Ok(Action::Overlay { layers, upper })
    }
}

fn access(option: &str) -> Access {
    if option.starts_with("--ro-") {
        Access::ReadOnly
    } else if option.starts_with("--dev-") {
        Access::Devices
    } else {
        Access::Writable
    }
}

fn once<T>(option: &str, previous: &Option<T>, value: T) -> Result<T> {
    if previous.is_some() { Err(Error::usage(format!("{option}: given twice"))) } else { Ok(value) }
}

/// Words that end in a NUL each; the last one may lack it.
fn nul_separated(data: &[u8]) -> impl Iterator<Item = &OsStr> {
    let data = data.strip_suffix(b"\0").unwrap_or(data);
    let mut words = data.split(|&byte| byte == 0).map(OsStr::from_bytes);
    if data.is_empty() {
        words.next();
    }
    words
}

/// Every option that takes part in the plan.
const OPTIONS: [&str; 31] = [
    "--bind",
    "--bind-try",
    "--ro-bind",
    "--ro-bind-try",
    "--dev-bind",
    "--dev-bind-try",
    "--bind-fd",
    "--ro-bind-fd",
    "--bind-data",
    "--ro-bind-data",
    "--overlay-src",
    "--overlay",
    "--tmp-overlay",
    "--ro-overlay",
    "--tmpfs",
    "--proc",
    "--dev",
    "--mqueue",
    "--mask",
    "--dir",
    "--file",
    "--symlink",
    "--chmod",
    "--remount-ro",
    "--perms",
    "--size",
    "--placeholders",
    "--chdir",
    "--args",
    "--keep-fd",
    "--status-fd",
];

/// The option that `word` is.
fn known(word: &OsStr) -> Result<&'static str> {
    OPTIONS.iter().copied().find(|option| word == *option).ok_or_else(|| unknown(word))
}

/// bubblewrap does more than mount; its users get told which tool has the option that they look for.
fn unknown(word: &OsStr) -> Error {
    let text = word.to_string_lossy();
    if !text.starts_with("--") {
        return Error::usage(format!("{text}: expected an option; PROGRAM stands after --"));
    }
    let error = Error::usage(format!("{text}: unknown option"));
    let starts = |names: &[&str]| names.iter().any(|name| text.starts_with(name));
    if starts(&[
        "--unshare-",
        "--share-",
        "--uid",
        "--gid",
        "--hostname",
        "--as-pid-1",
        "--new-session",
        "--die-with",
    ]) {
        error.hint("namespaces and lifetime are the business of srt-ns, which runs srt-mount")
    } else if starts(&["--setenv", "--unsetenv", "--clearenv"]) {
        error.hint("env(1) sets variables: srt-mount ... -- env NAME=VALUE PROGRAM")
    } else if starts(&["--seccomp", "--add-seccomp-fd"]) {
        error.hint("srt-seccomp loads filters: srt-mount ... -- srt-seccomp --load-fd N -- PROGRAM")
    } else {
        error
    }
}

/// What `--help` prints.
pub const HELP: &str = "\
Usage: srt-mount [options] -- PROGRAM [args...]

Builds a private file tree from a list of mounts, in the order given, and runs PROGRAM in it.
Needs CAP_SYS_ADMIN: run it under srt-ns, or under unshare -Ur. DEST counts from the new root.

  --bind SRC DEST          show the host's SRC at DEST; -try: nothing where SRC does not exist
  --ro-bind SRC DEST       the same, read-only with all that is mounted below SRC (-try too)
  --dev-bind SRC DEST      the same as --bind, device nodes work (-try too)
  --bind-fd FD DEST        show what the descriptor FD is open on; --ro-bind-fd: read-only
  --tmpfs DEST             a new tmpfs
  --proc DEST              a new procfs
  --dev DEST               a new /dev with the usual nodes, pts and shm
  --mqueue DEST            a new mqueue file system
  --mask PATH              hide PATH behind an empty read-only directory or file
  --dir DEST               make a directory
  --file FD DEST           make a file with what FD holds
  --bind-data FD DEST      mount a new file with what FD holds; --ro-bind-data: read-only
  --symlink SRC DEST       make a symbolic link to SRC
  --chmod OCTAL PATH       change the mode of PATH
  --remount-ro DEST        make the mount at DEST read-only, not those below it
  --perms OCTAL            the mode for the next --dir --tmpfs --file --bind-data --ro-bind-data
  --size BYTES             the size of the next --tmpfs
  --overlay-src SRC        a layer of the next overlay; the first is the lowest
  --overlay RWSRC WORKDIR DEST   an overlay that writes into RWSRC
  --tmp-overlay DEST       an overlay whose writes are thrown away
  --ro-overlay DEST        an overlay that is read-only
  --placeholders           make missing mount points on the host's file systems too; they stay there
  --chdir DIR              the working directory, counted from the new root
  --args FD                read more options from FD, NUL-separated
  --keep-fd N              leave the descriptor N open for PROGRAM (repeatable)
  --status-fd N            write a JSON object a line about failures to N
  --help, --version
";
