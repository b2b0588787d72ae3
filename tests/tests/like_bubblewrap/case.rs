//! What a case says: a world on the host, a list of mounts, and what is expected of the two programs.

use srt_tests::{Scratch, Who, dead_socket};
use std::ffi::OsString;
use std::os::fd::RawFd;

/// One list of mounts. In every text `$S` is the scratch directory and `$T` the path of `show-tree`.
pub struct Case {
    pub name: &'static str,
    pub options: Vec<OsString>,
    /// What bubblewrap gets instead, for what only srt-mount has a name.
    pub bwrap_options: Option<Vec<OsString>>,
    /// A shell script that builds the same tree by hand below the empty directory `$N`, where bubblewrap is too
    /// old to know an option.
    pub reference: Option<&'static str>,
    pub setup: fn(&World),
    pub fds: Vec<(RawFd, Given)>,
    pub program: Program,
    pub look: Vec<&'static str>,
    pub acts: Vec<(&'static str, &'static str)>,
    pub cwd: &'static str,
    pub home: &'static str,
    pub expect: Expect,
    pub differs: Vec<Difference>,
    /// Missing parents that bubblewrap 0.8 makes 0700: it takes a --perms that was not given for 0.
    pub parents: &'static [&'static str],
    pub only: Option<Who>,
}

/// What a descriptor is open on.
#[derive(Clone, Copy)]
pub enum Given {
    /// A file with this in it, read from its start; `$S` is replaced.
    Text(&'static str),
    /// The same without an end of file: a pipe.
    Pipe(&'static str),
    /// A path, with O_PATH.
    Path(&'static str),
    /// A directory, for reading.
    Directory(&'static str),
}

/// How `show-tree` gets into the sandbox.
#[derive(Clone, Copy)]
pub enum Program {
    /// Bound last, read-only, at `/.show-tree`.
    Last,
    /// Bound first there.
    First,
    /// It is visible where it lies on the host.
    Host,
    /// The setup put it there.
    At(&'static str),
}

/// How the two programs end.
#[derive(Clone, Copy)]
pub enum Expect {
    /// The same tree, but for the differences that are named.
    Same,
    /// Both refuse; srt-mount says this.
    BothRefuse(&'static str),
    /// srt-mount refuses what bubblewrap does, and says this.
    SrtRefuses { says: &'static str, why: &'static str },
    /// bubblewrap refuses what srt-mount does.
    BwrapRefuses { why: &'static str },
}

/// A fact that may differ. The texts are patterns in which `*` stands for anything; `-` is a fact that is absent.
#[derive(Clone, Copy)]
pub struct Difference {
    pub fact: &'static str,
    pub bwrap: &'static str,
    pub srt: &'static str,
    pub why: &'static str,
    /// Who sees it; `None`: both.
    pub who: Option<Who>,
}

/// Starts a case: the options are words with white space between them.
pub fn case(name: &'static str, options: &str) -> Case {
    Case {
        name,
        options: split(options),
        bwrap_options: None,
        reference: None,
        setup: |_| {},
        fds: vec![],
        program: Program::Last,
        look: vec![],
        acts: vec![],
        cwd: "/",
        home: "/nonexistent",
        expect: Expect::Same,
        differs: vec![],
        parents: &[],
        only: None,
    }
}

fn split(options: &str) -> Vec<OsString> {
    options.split_whitespace().map(OsString::from).collect()
}

impl Case {
    /// Adds words that white space cannot separate.
    pub fn words<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// What bubblewrap gets instead.
    pub fn bwrap(mut self, options: &str) -> Self {
        self.bwrap_options = Some(split(options));
        self
    }

    pub fn reference(mut self, script: &'static str) -> Self {
        self.reference = Some(script);
        self
    }

    pub fn setup(mut self, setup: fn(&World)) -> Self {
        self.setup = setup;
        self
    }

    pub fn fd(mut self, number: RawFd, given: Given) -> Self {
        self.fds.push((number, given));
        self
    }

    pub fn program(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// Looks at this path too, which the walk does not reach.
    pub fn look(mut self, path: &'static str) -> Self {
        self.look.push(path);
        self
    }

    /// Tries this inside, before the walk.
    pub fn act(mut self, verb: &'static str, path: &'static str) -> Self {
        self.acts.push((verb, path));
        self
    }

    pub fn cwd(mut self, path: &'static str) -> Self {
        self.cwd = path;
        self
    }

    pub fn home(mut self, path: &'static str) -> Self {
        self.home = path;
        self
    }

    pub fn both_refuse(mut self, says: &'static str) -> Self {
        self.expect = Expect::BothRefuse(says);
        self
    }

    pub fn srt_refuses(mut self, says: &'static str, why: &'static str) -> Self {
        self.expect = Expect::SrtRefuses { says, why };
        self
    }

    pub fn bwrap_refuses(mut self, why: &'static str) -> Self {
        self.expect = Expect::BwrapRefuses { why };
        self
    }

    pub fn differs(
        mut self,
        fact: &'static str,
        bwrap: &'static str,
        srt: &'static str,
        why: &'static str,
    ) -> Self {
        self.differs.push(Difference { fact, bwrap, srt, why, who: None });
        self
    }

    pub fn parents(mut self, paths: &'static [&'static str]) -> Self {
        self.parents = paths;
        self
    }

    /// The difference named last is seen by one user only.
    pub fn for_whom(mut self, who: Who) -> Self {
        if let Some(last) = self.differs.last_mut() {
            last.who = Some(who);
        }
        self
    }

    pub fn only(mut self, who: Who) -> Self {
        self.only = Some(who);
        self
    }
}

/// The host's side of a case: a scratch directory that belongs to the user.
pub struct World {
    pub scratch: Scratch,
    pub show_tree: std::path::PathBuf,
}

impl World {
    pub fn dir(&self, name: &str) {
        self.scratch.dir(name);
    }

    pub fn file(&self, name: &str) {
        self.scratch.file(name, name);
    }

    /// Several files, each with its own name in it, and the directories above them.
    pub fn files(&self, names: &[&str]) {
        names.iter().for_each(|name| self.file(name));
    }

    pub fn link(&self, target: &str, name: &str) {
        std::os::unix::fs::symlink(target, self.scratch.join(name)).expect("symlink");
    }

    pub fn mode(&self, name: &str, mode: u32) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(self.scratch.join(name), mode).expect("chmod");
    }

    /// Makes it root's.
    pub fn roots(&self, name: &str) {
        std::os::unix::fs::chown(self.scratch.join(name), Some(0), Some(0)).expect("chown");
    }

    pub fn socket(&self, name: &str) {
        dead_socket(self.scratch.join(name));
    }

    /// Runs a program of the system in the scratch directory, in the case's own mount namespace.
    pub fn run(&self, words: &str) {
        let mut words = words.split_whitespace();
        let mut command = std::process::Command::new(words.next().expect("a program"));
        let status = command.args(words).current_dir(self.scratch.path()).status().expect("run");
        assert!(status.success(), "{command:?}");
    }

    /// Puts `show-tree` there. By cp(1): a descriptor of ours that is open for writing would be in another case's
    /// child for a moment, and the file "busy" for execve(2).
    pub fn show_tree(&self, name: &str) {
        self.run(&format!("cp {} {name}", self.show_tree.display()));
    }
}
