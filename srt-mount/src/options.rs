//! argv → plan: what is to be mounted, in which order. Parsing makes no system calls, so any input can be tried
//! without privileges.

use srt_common::{Error, Result, args};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The options before `--`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations, in the order given.
    pub ops: Vec<Op>,
    /// `--placeholders`: missing mount points may be created on the host's file systems, where they stay.
    pub placeholders: bool,
    /// `--chdir`, relative to the new root.
    pub chdir: Option<PathBuf>,
    /// `--keep-fd`.
    pub keep: Vec<RawFd>,
    /// `--status-fd`.
    pub status_fd: Option<RawFd>,
    /// `--join`: the socket of the srt-ns that started this process, see `srt_common::startup`.
    pub join: Option<RawFd>,
    /// `--joined-path`: an option of that srt-ns, the path of the file that it has opened for this option, and the
    /// file's identity.
    pub joined_paths: Vec<(OsString, PathBuf, OsString)>,
}

/// One operation on the new tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The option's name, for messages.
    pub option: &'static str,
    /// The operands between the option's name and DEST, for messages.
    pub operands: Vec<OsString>,
    /// The destination, relative to the new root.
    pub dest: PathBuf,
    /// What to do there.
    pub action: Action,
}

/// What an operation does at its destination. Modes are permission bits; each `fd` is one of the caller's
/// descriptors.
#[allow(missing_docs, reason = "the fields are the option's words")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The `--bind` family. `optional`: a source that does not exist is skipped (`-try`).
    Bind { source: Source, access: Access, optional: bool },
    /// `--bind-data`, `--ro-bind-data`: a new file with the content of `fd`, mounted.
    BindData { fd: RawFd, mode: u32, access: Access },
    /// `--overlay`, `--tmp-overlay`, `--ro-overlay`; `layers` are in order from bottom to top, as in bubblewrap.
    Overlay { layers: Vec<PathBuf>, upper: Upper },
    /// A file with the content of `fd`.
    File { fd: RawFd, mode: u32 },
    /// A new, minimal /dev.
    Dev,
    /// A new sysfs with the cgroup file systems.
    Sys,
    /// A new tmpfs; its root's mode and its size in bytes (the kernel's default is half the memory).
    Tmpfs { mode: u32, size: Option<u64> },
    /// A new procfs.
    Proc,
    /// A new procfs that shows only processes.
    ProcPids,
    /// A new POSIX message queue file system.
    Mqueue,
    /// An empty read-only directory or file over an existing one. `optional`: skipped if there is none (`-try`).
    Mask { optional: bool },
    /// A directory.
    Dir { mode: u32 },
    /// A symbolic link.
    Symlink { target: PathBuf },
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
    /// The file that an inherited descriptor refers to.
    Fd(RawFd),
}

/// What the command may do below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, also on every submount.
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

/// Every option: its names, its operands, and the help for the first name. An option without help is not for users.
#[rustfmt::skip]
const OPTIONS: [(&str, &str, &str); 30] = [
    ("--bind --bind-try", "SRC DEST", "mount the host's SRC at DEST; --bind-try: skip a SRC that does not exist"),
    ("--ro-bind --ro-bind-try", "SRC DEST", "the same, read-only with all that is mounted below SRC; --ro-bind-try"),
    ("--dev-bind --dev-bind-try", "SRC DEST", "the same as --bind, with device nodes; --dev-bind-try"),
    ("--bind-fd --ro-bind-fd", "FD DEST", "mount the file that FD is open on; --ro-bind-fd: read-only"),
    ("--tmpfs", "DEST", "a new tmpfs"),
    ("--proc", "DEST", "a new procfs"),
    ("--proc-pids", "DEST", "a new procfs with only processes (subset=pid)"),
    ("--sys", "DEST", "a new sysfs with the cgroup file system, read-only: the sandbox's devices and limits"),
    ("--dev", "DEST", "a new /dev: the usual nodes, pts, shm"),
    ("--mqueue", "DEST", "a new mqueue file system"),
    ("--mask --mask-try", "PATH", "hide PATH behind an empty read-only directory or file; --mask-try: if it is there"),
    ("--dir", "DEST", "create a directory"),
    ("--file", "FD DEST", "create a file with the content of FD"),
    ("--bind-data --ro-bind-data", "FD DEST", "mount a file with the content of FD; --ro-bind-data: read-only"),
    ("--symlink", "TARGET DEST", "create a symbolic link to TARGET"),
    ("--chmod", "OCTAL PATH", "change the mode of PATH"),
    ("--remount-ro", "DEST", "make the mount at DEST read-only, not those below it"),
    ("--perms", "OCTAL", "the mode for the next --dir, --tmpfs, --file, --bind-data or --ro-bind-data"),
    ("--size", "BYTES", "the size of the next --tmpfs"),
    ("--overlay-src", "SRC", "a layer of the next overlay; the first is the lowest"),
    ("--overlay", "RW WORK DEST", "an overlay that writes into RW"),
    ("--tmp-overlay", "DEST", "an overlay whose writes are discarded"),
    ("--ro-overlay", "DEST", "an overlay that is read-only"),
    ("--placeholders", "", "create missing mount points on the host's file systems too; they remain"),
    ("--chdir", "DIR", "the working directory in the new root"),
    ("--args", "FD", "read more options from FD, NUL-separated"),
    ("--keep-fd", "N", "leave descriptor N open for PROGRAM (repeatable)"),
    ("--status-fd", "N", "write events to descriptor N, one JSON object a line"),
    ("--join", "FD", ""),
    ("--joined-path", "OPTION PATH ID", ""),
];

/// What `--help` prints.
pub fn help(_: &str) -> String {
    let mut text = String::from(
        "Usage: srt-mount [options] -- PROGRAM [args...]\n\n\
         Builds a private file tree from a list of mounts, in the order given, and runs PROGRAM in it.\n\
         Needs CAP_SYS_ADMIN: run it under srt-ns, or under unshare -Ur. DEST is a path in the new root.\n\n",
    );
    for (names, operands, about) in OPTIONS.iter().filter(|(_, _, about)| !about.is_empty()) {
        let name = names.split(' ').next().unwrap_or(names);
        text.push_str(&format!("  {:30}{about}\n", format!("{name} {operands}")));
    }
    text + "  --help, --version\n"
}

/// A function that reads all data of a descriptor.
pub type ReadAll<'a> = &'a mut dyn FnMut(RawFd) -> Result<Vec<u8>>;

/// Parses the options. `read_all` reads the data of `--args FD`.
///
/// # Errors
/// A usage error that names the option and what was expected, or an error of `read_all`.
pub fn parse(words: &[OsString], read_all: ReadAll) -> Result<Plan> {
    let mut parser = Parser::default();
    parser.words(&mut words.iter().cloned(), Some(read_all))?;
    parser.nothing_is_left()?;
    Ok(parser.plan)
}

#[derive(Default)]
struct Parser {
    plan: Plan,
    /// `--perms`, `--size`, `--overlay-src`: kept for the option that they modify.
    perms: Option<u32>,
    size: Option<u64>,
    layers: Vec<PathBuf>,
    /// Descriptors that were read to the end, with nothing left for a second file.
    read: BTreeSet<RawFd>,
}

impl Parser {
    fn words(&mut self, words: &mut dyn Iterator<Item = OsString>, mut read: Option<ReadAll>) -> Result<()> {
        while let Some(word) = words.next() {
            let named = |names: &'static str| names.split(' ').find(|name| word == *name);
            let found = OPTIONS.iter().find_map(|(names, operands, _)| Some((named(names)?, *operands)));
            let (option, names) = found.ok_or_else(|| unknown(&word))?;
            match (option, operands(option, names, words)?.as_slice()) {
                ("--args", [fd]) => {
                    let fd = descriptor(option, fd, self.plan.join)?;
                    let nested = || Error::usage("--args: not allowed in what --args reads");
                    let data = read.as_deref_mut().ok_or_else(nested).and_then(|read| {
                        if self.read.insert(fd) {
                            read(fd)
                        } else {
                            Err(Error::usage("an earlier option reads it"))
                        }
                    });
                    data.and_then(|data| self.words(&mut nul_separated(&data), None))
                        .map_err(|error| error.within(format!("--args {fd}")))?;
                }
                (_, operands) => self.option(option, operands)?,
            }
        }
        Ok(())
    }

    fn option(&mut self, option: &'static str, operands: &[OsString]) -> Result<()> {
        let (join, plan) = (self.plan.join, &mut self.plan);
        let descriptor = |word| descriptor(option, word, join);
        match (option, operands) {
            ("--perms", [mode]) => return once(option, &mut self.perms, octal(option, mode)?),
            ("--size", [size]) => {
                let size = number(option, size, 10, 1..=i64::MAX as u64, "a number of bytes above 0")?;
                return once(option, &mut self.size, size);
            }
            ("--overlay-src", [layer]) => {
                self.layers.push(layer.into());
                return Ok(());
            }
            ("--placeholders", _) if plan.placeholders => {
                return Err(Error::usage(format!("{option}: given twice")));
            }
            ("--placeholders", _) => plan.placeholders = true,
            ("--chdir", [directory]) => once(option, &mut plan.chdir, directory.into())?,
            ("--status-fd", [fd]) => once(option, &mut plan.status_fd, descriptor(fd)?)?,
            ("--keep-fd", [fd]) => plan.keep.push(descriptor(fd)?),
            ("--join", [fd]) => once(option, &mut plan.join, descriptor(fd)?)?,
            ("--joined-path", [text, path, id]) => {
                plan.joined_paths.push((text.clone(), path.into(), id.clone()));
            }
            (_, [operands @ .., dest]) => {
                let action = self.action(option, operands)?;
                let op = Op { option, operands: operands.to_vec(), dest: dest.into(), action };
                if let Action::File { fd, .. } | Action::BindData { fd, .. } = op.action
                    && !self.read.insert(fd)
                {
                    return Err(Error::usage(format!("{op}: an earlier option reads {fd}")));
                }
                self.plan.ops.push(op);
            }
            _ => {}
        }
        self.nothing_is_left()
    }

    /// `--perms`, `--size` and `--overlay-src` modify the next option only, which must accept them.
    fn nothing_is_left(&self) -> Result<()> {
        let (modifier, takers) = match self {
            Self { perms: Some(_), .. } => ("--perms", "--dir --tmpfs --file --bind-data --ro-bind-data"),
            Self { size: Some(_), .. } => ("--size", "--tmpfs"),
            Self { layers, .. } if layers.is_empty() => return Ok(()),
            _ => ("--overlay-src", "--overlay-src --overlay --tmp-overlay --ro-overlay"),
        };
        Err(Error::usage(format!("{modifier}: expected one of {takers} next")))
    }

    /// The action of an option, from the operands before DEST.
    fn action(&mut self, option: &str, operands: &[OsString]) -> Result<Action> {
        let mut mode = |default| self.perms.take().unwrap_or(default);
        let optional = option.ends_with("-try");
        let join = self.plan.join;
        let descriptor = |word| descriptor(option, word, join);
        let access = match option {
            _ if option.starts_with("--ro-") => Access::ReadOnly,
            _ if option.starts_with("--dev-") => Access::Devices,
            _ => Access::Writable,
        };
        Ok(match (option, operands) {
            ("--bind-fd" | "--ro-bind-fd", [fd]) => {
                Action::Bind { source: Source::Fd(descriptor(fd)?), access, optional }
            }
            ("--bind-data" | "--ro-bind-data", [fd]) => {
                Action::BindData { fd: descriptor(fd)?, mode: mode(0o600), access }
            }
            ("--file", [fd]) => Action::File { fd: descriptor(fd)?, mode: mode(0o666) },
            ("--symlink", [target]) => Action::Symlink { target: target.into() },
            ("--chmod", [mode]) => Action::Chmod { mode: octal(option, mode)? },
            ("--overlay", [upper, work]) => {
                self.overlay(option, Upper::Host { upper: upper.into(), work: work.into() }, 1)?
            }
            ("--tmp-overlay", _) => self.overlay(option, Upper::Temporary, 1)?,
            ("--ro-overlay", _) => self.overlay(option, Upper::None, 2)?,
            ("--tmpfs", _) => Action::Tmpfs { mode: mode(0o755), size: self.size.take() },
            ("--dir", _) => Action::Dir { mode: mode(0o755) },
            ("--dev", _) => Action::Dev,
            ("--sys", _) => Action::Sys,
            ("--proc", _) => Action::Proc,
            ("--proc-pids", _) => Action::ProcPids,
            ("--mqueue", _) => Action::Mqueue,
            ("--mask" | "--mask-try", _) => Action::Mask { optional },
            (_, [path]) => Action::Bind { source: Source::Path(path.into()), access, optional },
            _ => Action::RemountReadOnly,
        })
    }

    fn overlay(&mut self, option: &str, upper: Upper, least: usize) -> Result<Action> {
        let layers = std::mem::take(&mut self.layers);
        if layers.len() < least {
            return Err(Error::usage(format!("{option}: expected at least {least} --overlay-src before it")));
        }
        // OVL_MAX_STACK of fs/overlayfs/params.h.
        if layers.len() > 500 {
            return Err(Error::usage(format!("{option}: at most 500 --overlay-src")));
        }
        Ok(Action::Overlay { layers, upper })
    }
}

/// The words that follow an option, one for each of `names`.
fn operands(option: &str, names: &str, words: &mut dyn Iterator<Item = OsString>) -> Result<Vec<OsString>> {
    let names: Vec<&str> = names.split_whitespace().collect();
    let take = |(at, name): (usize, &&str)| match words.next() {
        None => Err(Error::usage(format!("{option}: expected {}", names[at..].join(" ")))),
        Some(word) if word.is_empty() => Err(Error::usage(format!("{option}: {name} is empty"))),
        Some(word) => Ok(word),
    };
    names.iter().enumerate().map(take).collect()
}

fn number(option: &str, word: &OsStr, radix: u32, range: RangeInclusive<u64>, what: &str) -> Result<u64> {
    // Digits only: from_str_radix would accept a sign.
    let digits = word.to_str().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|word| u64::from_str_radix(word, radix).ok());
    let number = number.filter(|number| range.contains(number));
    number.ok_or_else(|| Error::usage(format!("{option}: {} is not {what}", word.display())))
}

fn descriptor(option: &str, word: &OsStr, join: Option<RawFd>) -> Result<RawFd> {
    let fd = number(option, word, 10, 0..=i32::MAX as u64, "a descriptor number")? as RawFd;
    // This descriptor is not the user's: --args would wait for a message, and --keep-fd would pass it to PROGRAM.
    if join == Some(fd) {
        return Err(Error::usage(format!("{option} {fd}: not an open descriptor")));
    }
    Ok(fd)
}

fn octal(option: &str, word: &OsStr) -> Result<u32> {
    number(option, word, 8, 0..=0o7777, "an octal mode up to 7777").map(|mode| mode as u32)
}

fn once<T>(option: &str, slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::usage(format!("{option}: given twice"))),
    }
}

/// Splits NUL-terminated words; the last one may lack its NUL.
fn nul_separated(data: &[u8]) -> impl Iterator<Item = OsString> {
    let words = data.strip_suffix(b"\0").unwrap_or(data).split(|&byte| byte == 0);
    words.skip(usize::from(data.is_empty())).map(|word| OsStr::from_bytes(word).to_owned())
}

/// bubblewrap does more than mount: a hint tells its users which tool has the option that they look for.
#[rustfmt::skip]
const ELSEWHERE: [(&str, &str); 3] = [
    ("--unshare --share --uid --gid --hostname --as-pid-1 --new-session --die-with",
     "srt-ns, which runs srt-mount, has the options for namespaces and lifetime"),
    ("--setenv --unsetenv --clearenv",
     "env(1) sets variables: srt-mount ... -- env NAME=VALUE PROGRAM"),
    ("--seccomp --add-seccomp-fd",
     "srt-seccomp loads filters: srt-mount ... -- srt-seccomp --load-fd N -- PROGRAM"),
];

fn unknown(word: &OsStr) -> Error {
    let text = word.to_string_lossy();
    let error = Error::usage(match text.starts_with("--") {
        true => format!("{text}: unknown option"),
        false => format!("{text}: expected an option; PROGRAM follows --"),
    });
    let elsewhere = ELSEWHERE.iter().find(|(names, _)| names.split(' ').any(|name| text.starts_with(name)));
    let hint = args::form_of(word).or_else(|| elsewhere.map(|(_, hint)| (*hint).to_owned()));
    Error { hint, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    /// Parses without a descriptor to read from.
    fn read(text: &str) -> Result<Plan> {
        parse(&words(text), &mut |_| Err(Error::usage("cannot be read here")))
    }

    fn ops(text: &str) -> Vec<Op> {
        read(text).unwrap_or_else(|error| panic!("{text}: {}", error.message)).ops
    }

    #[test]
    fn what_is_no_mount_counts_for_no_mount_namespace() {
        let most = std::fs::read_to_string("/proc/sys/fs/mount-max").expect("fs.mount-max");
        let more = 10_000.max(most.trim().parse::<usize>().expect("a number") + 1);
        let fits = |text: &str| crate::namespace::has_room_for(&vec![ops(text).remove(0); more]).is_ok();
        assert!(!fits("--tmpfs /d"));
        for text in ["--dir /d", "--symlink x /l", "--chmod 755 /d", "--remount-ro /"] {
            assert!(fits(text), "{text}");
        }
    }

    #[test]
    fn operations_keep_their_order_and_their_words() {
        let list = ops("--ro-bind /a /b --tmpfs c --symlink x /l --chmod 0711 /b --bind-fd 3 /d");
        let shown: Vec<String> = list.iter().map(Op::to_string).collect();
        let expected =
            ["--ro-bind /a /b", "--tmpfs c", "--symlink x /l", "--chmod 0711 /b", "--bind-fd 3 /d"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_bind_has_its_access() {
        for (option, access, optional) in [
            ("--bind", Access::Writable, false),
            ("--bind-try", Access::Writable, true),
            ("--ro-bind", Access::ReadOnly, false),
            ("--ro-bind-try", Access::ReadOnly, true),
            ("--dev-bind", Access::Devices, false),
            ("--dev-bind-try", Access::Devices, true),
        ] {
            let expected = Action::Bind { source: Source::Path("/a".into()), access, optional };
            assert_eq!(ops(&format!("{option} /a /b"))[0].action, expected);
        }
    }

    #[test]
    fn modifiers_go_to_the_next_option_alone() {
        let list = ops("--perms 700 --size 5 --tmpfs /a --tmpfs /b --perms 1777 --dir /c --dir /d");
        let actions: Vec<Action> = list.into_iter().map(|op| op.action).collect();
        let expected = [
            Action::Tmpfs { mode: 0o700, size: Some(5) },
            Action::Tmpfs { mode: 0o755, size: None },
            Action::Dir { mode: 0o1777 },
            Action::Dir { mode: 0o755 },
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn layers_go_to_the_next_overlay_alone() {
        let list =
            ops("--overlay-src /a --overlay-src /b --ro-overlay /o --overlay-src /c --overlay /u /w /p");
        let layers = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(list[0].action, Action::Overlay { layers: layers(&["/a", "/b"]), upper: Upper::None });
        let upper = Upper::Host { upper: "/u".into(), work: "/w".into() };
        assert_eq!(list[1].action, Action::Overlay { layers: layers(&["/c"]), upper });
        assert_eq!(list[1].to_string(), "--overlay /u /w /p");
    }

    #[test]
    fn an_operand_may_look_like_an_option() {
        assert_eq!(ops("--symlink --args --bind")[0].dest, PathBuf::from("--bind"));
    }

    #[test]
    fn args_are_put_in_where_they_stand() {
        let data = b"--tmpfs\0/in side\0--dir\0/d".to_vec();
        let plan = parse(&words("--proc /p --args 9 --dev /d"), &mut |_| Ok(data.clone())).expect("good");
        let options: Vec<&str> = plan.ops.iter().map(|op| op.option).collect();
        assert_eq!(options, ["--proc", "--tmpfs", "--dir", "--dev"]);
        assert_eq!(plan.ops[1].dest, PathBuf::from("/in side"));
    }

    #[test]
    fn a_descriptor_is_read_once() {
        assert!(read("--file 3 /a --bind-data 4 /b --bind-fd 5 /c --bind-fd 5 /d").is_ok());
        let error = read("--file 3 /a --bind-data 3 /b").expect_err("twice");
        assert!(
            error.message.starts_with("--bind-data 3 /b: an earlier option reads 3"),
            "{}",
            error.message
        );
        for text in ["--args 3 --file 3 /a", "--file 3 /a --args 3", "--args 3 --args 3"] {
            let error = parse(&words(text), &mut |_| Ok(vec![])).expect_err(text);
            assert!(error.message.contains("an earlier option reads"), "{}", error.message);
        }
        assert!(parse(&words("--args 3 --args 4"), &mut |_| Ok(vec![])).is_ok());
    }

    #[test]
    fn help_names_every_option() {
        let for_users = |option: &str| !option.starts_with("--join");
        let options = OPTIONS.iter().flat_map(|(names, _, _)| names.split(' '));
        assert!(options.into_iter().all(|option| help("").contains(option) == for_users(option)));
    }
}
