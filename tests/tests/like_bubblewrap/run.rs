//! Runs a case on one side and gathers the facts.

use crate::case::{Case, Expect, Given, Program, World};
use crate::mounts;
use srt_tests::tree::{Facts, Walk};
use srt_tests::{Who, pass_fd, run};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A descriptor number that no case uses: /proc, for the mounts of a sandbox that has none.
const PROC: i32 = 90;

/// Who builds the tree, and with which privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `bwrap --unshare-all`: what `srt-ns -- srt-mount` stands in for.
    Bwrap,
    /// `bwrap` in the caller's namespaces but for the mounts, and for an ordinary user the user and pid namespaces.
    BwrapAlone,
    /// `srt-ns -- srt-mount`.
    Chain,
    /// `srt-mount` by root without any other namespace, or under unshare(1) by an ordinary user.
    Alone,
    /// The case's own script under unshare(1).
    Reference,
}

/// What came out of it.
pub struct Outcome {
    /// `Err`: the exit code and stderr of a refusal.
    pub inside: Result<Facts, (Option<i32>, String)>,
    /// The scratch directory on the host afterwards.
    pub host: Facts,
    /// Whether the host's side is as the setup made it.
    pub untouched: bool,
}

pub fn outcome(case: &Case, who: Who, side: Side, world: &World) -> Outcome {
    world.wipe();
    (case.setup)(world);
    let before = world.facts();
    let mut command = command(case, who, side, world);
    let _open: Vec<OwnedFd> = descriptors(case, world, &mut command);
    let ran = run(&mut command);
    let host = world.facts();
    let inside = match ran.out.strip_suffix("end\n") {
        Some(lines) if ran.code == Some(0) => Ok(world.shorten_facts(mounts::facts(lines))),
        _ => Err((ran.code, world.shorten(&ran.err))),
    };
    Outcome { inside, untouched: before == host, host }
}

fn command(case: &Case, who: Who, side: Side, world: &World) -> Command {
    let expand = |words: &[OsString]| words.iter().map(|word| world.expand(word)).collect::<Vec<_>>();
    let mut keep = vec![];
    for fd in case.fds.iter().map(|(number, _)| *number).chain([PROC]) {
        keep.extend(["--keep-fd".to_owned(), fd.to_string()]);
    }
    // In the caller's pid namespace bubblewrap takes the caller's /proc for a new one.
    let new_proc = case.options.iter().any(|word| word == "--proc");
    let mut words: Vec<OsString> = vec![];
    let mut say = |more: &[&str]| words.extend(more.iter().map(OsString::from));
    let program = match side {
        Side::Bwrap => {
            say(&["--unshare-all", "--cap-drop", "ALL"]);
            "bwrap"
        }
        Side::BwrapAlone if who == Who::Root => {
            say(if new_proc { &["--unshare-pid", "--cap-drop", "ALL"] } else { &["--cap-drop", "ALL"] });
            "bwrap"
        }
        Side::BwrapAlone => {
            say(&["--unshare-user", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"]);
            "bwrap"
        }
        Side::Chain => {
            words.extend(keep.iter().map(OsString::from));
            words.extend(["--", "srt-mount"].map(OsString::from));
            "srt-ns"
        }
        Side::Alone if who == Who::Root && new_proc => {
            say(&["--pid", "--fork", "--"]);
            words.push(srt_tests::tool("srt-mount").into());
            "unshare"
        }
        Side::Alone if who == Who::Root => "srt-mount",
        Side::Alone => {
            say(&["--user", "--map-current-user", "--keep-caps", "--ipc", "--pid", "--fork", "--"]);
            words.push(srt_tests::tool("srt-mount").into());
            "unshare"
        }
        Side::Reference => {
            say(&["--user", "--map-current-user", "--keep-caps", "--mount", "--propagation", "private"]);
            say(&["--", "sh", "-ec", case.reference.expect("a script"), "sh"]);
            "unshare"
        }
    };
    let ours = matches!(side, Side::Chain | Side::Alone);
    if side != Side::Reference {
        let bound = ["--ro-bind", "$T", "/.show-tree"].map(OsString::from);
        let options = case.bwrap_options.as_deref().filter(|_| !ours).unwrap_or(&case.options);
        if matches!(case.program, Program::First) {
            words.extend(expand(&bound));
        }
        words.extend(expand(options));
        if matches!(case.program, Program::Last) {
            words.extend(expand(&bound));
        }
        if ours {
            words.extend(keep.iter().map(OsString::from));
        }
        words.push("--".into());
        words.push(world.expand(OsStr::new(match case.program {
            Program::First | Program::Last => "/.show-tree",
            Program::Host => "$T",
            Program::At(path) => path,
        })));
    }
    let mut command = who.command(program);
    command.args(words).args(show_tree_words(case, side, world));
    command.current_dir(world.expand(OsStr::new(case.cwd))).env("HOME", world.expand(OsStr::new(case.home)));
    command.env_remove("PWD").env("S", world.scratch.path()).env("N", world.scratch.join("N"));
    command.env("T", &world.show_tree);
    command
}

/// What `show-tree` is to do.
fn show_tree_words(case: &Case, side: Side, world: &World) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![];
    let mut say = |more: &[&str]| words.extend(more.iter().map(|word| world.expand(OsStr::new(word))));
    if side == Side::Reference {
        say(&["drop"]);
    }
    for (verb, path) in &case.acts {
        say(&["do", verb, path]);
    }
    for (device, inode) in host_directories() {
        say(&["stop", &format!("{device}:{inode}")]);
    }
    // Nothing lies on the root, where `..` would lead into it.
    say(&["below", "/", "9", "below", "$S", "9", "names", "/.."]);
    for path in &case.look {
        say(&["at", path]);
    }
    say(&["mounts", &PROC.to_string()]);
    words
}

/// Opens what the case gives, and lets the command inherit it.
fn descriptors(case: &Case, world: &World, command: &mut Command) -> Vec<OwnedFd> {
    let path_of = |path: &str| world.expand(OsStr::new(path));
    let open = |path: &str, flags: i32| -> OwnedFd {
        File::options().read(true).custom_flags(flags).open(path_of(path)).expect("open").into()
    };
    let mut opened = vec![(PROC, open("/proc", libc::O_DIRECTORY))];
    for (number, given) in &case.fds {
        let text = |text: &str| world.expand(OsStr::new(text)).into_vec();
        let fd = match given {
            Given::Path(path) => open(path, libc::O_PATH),
            Given::Directory(path) => open(path, libc::O_DIRECTORY),
            Given::Text(content) => {
                let mut file = tempfile::tempfile().expect("tempfile");
                file.write_all(&text(content)).and_then(|()| file.rewind()).expect("write");
                file.into()
            }
            Given::Pipe(content) => {
                let (read, mut write) = std::io::pipe().expect("pipe");
                write.write_all(&text(content)).expect("write");
                read.into()
            }
        };
        opened.push((*number, fd));
    }
    // Above every number that a case uses, so that dup2 does not close one that is still needed.
    let opened = opened.into_iter().map(|(number, fd)| (number, srt_tests::above(&fd)));
    opened
        .map(|(number, fd)| {
            pass_fd(command, fd.as_raw_fd(), number);
            fd
        })
        .collect()
}

impl World {
    /// The text with `$S` and `$T` replaced.
    pub fn expand(&self, word: &OsStr) -> OsString {
        let replace = |bytes: Vec<u8>, name: &[u8], value: &OsStr| -> Vec<u8> {
            let mut out = vec![];
            let mut rest = bytes.as_slice();
            while let Some(at) = rest.windows(name.len()).position(|window| window == name) {
                out.extend(&rest[..at]);
                out.extend(value.as_bytes());
                rest = &rest[at + name.len()..];
            }
            out.extend(rest);
            out
        };
        let bytes = replace(word.as_bytes().to_vec(), b"$S", self.scratch.path().as_os_str());
        OsString::from_vec(replace(bytes, b"$T", self.show_tree.as_os_str()))
    }

    /// The reverse, for facts and messages.
    fn shorten(&self, text: &str) -> String {
        text.replace(self.scratch.text(), "$S").replace(self.show_tree.to_str().expect("UTF-8"), "$T")
    }

    fn shorten_facts(&self, facts: Facts) -> Facts {
        facts.into_iter().map(|(key, value)| (self.shorten(&key), self.shorten(&value))).collect()
    }

    /// Takes away what the setup mounted.
    pub fn unmount(&self) {
        let path = self.scratch.path();
        for line in fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo").lines().rev() {
            let point = line.split(' ').nth(4).expect("a mount point");
            if Path::new(point).starts_with(path) {
                self.run(&format!("umount --lazy {point}"));
            }
        }
    }

    /// An empty scratch directory, nothing mounted in it.
    fn wipe(&self) {
        self.unmount();
        let path = self.scratch.path();
        for entry in fs::read_dir(path).expect("read_dir") {
            let entry = entry.expect("entry").path();
            let _done = if entry.is_dir() && !entry.is_symlink() {
                fs::remove_dir_all(&entry)
            } else {
                fs::remove_file(&entry)
            };
        }
        assert_eq!(fs::read_dir(path).expect("read_dir").count(), 0, "the scratch directory is not empty");
    }

    fn facts(&self) -> Facts {
        let mut walk = Walk::default();
        walk.below(self.scratch.path(), 12);
        let host = |(key, value): (String, String)| (format!("host {}", self.shorten(&key)), value);
        // What root may do says nothing, nor do the numbers that an overlay gives to its whiteouts.
        let telling = |key: &str| !key.contains(": may ") && !key.contains("/work/#");
        walk.facts.into_iter().filter(|(key, _)| telling(key)).map(host).collect()
    }
}

/// The directories of the host that are no part of any case: those in `/` and in these.
fn host_directories() -> &'static [(u64, u64)] {
    static FOUND: OnceLock<Vec<(u64, u64)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let directories = |path: &Path| -> Vec<std::path::PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
        };
        let mut found = vec![];
        for top in directories(Path::new("/")) {
            let endless = ["/proc", "/sys", "/tmp"].iter().any(|name| top == Path::new(name));
            let below = if endless { vec![] } else { directories(&top) };
            for directory in [top].into_iter().chain(below) {
                found.extend(directory.metadata().map(|meta| (meta.dev(), meta.ino())));
            }
        }
        found
    })
}

/// Whether srt-mount is expected to refuse the case.
pub fn srt_refuses(case: &Case) -> Option<&'static str> {
    match case.expect {
        Expect::BothRefuse(says) | Expect::SrtRefuses { says, .. } => Some(says),
        Expect::Same | Expect::BwrapRefuses { .. } => None,
    }
}
