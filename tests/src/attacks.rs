//! Attacks: the program `attack` inside a sandbox and, as the positive control, outside.

use crate::{Ran, Who, run, tool};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Where the attacker's program lies inside.
pub const INSIDE: &str = "/tmp/attack";

/// The chain with an attacker as its command: everything read-only, fresh /dev, /proc and /tmp, `work` writable,
/// and what a test adds to the options of each stage.
#[derive(Debug, Clone)]
pub struct Sandbox {
    who: Who,
    ns: Vec<OsString>,
    mounts: Vec<OsString>,
    seccomp: Vec<OsString>,
}

fn owned(words: &[&str]) -> impl Iterator<Item = OsString> {
    words.iter().map(OsString::from)
}

impl Sandbox {
    /// Everything read-only but `work`.
    pub fn new(who: Who, work: &Path) -> Self {
        Self::bare(who).mounts(&["--bind", text(work), text(work), "--chdir", text(work)])
    }

    /// Nothing writable but a /tmp of its own.
    pub fn bare(who: Who) -> Self {
        let attack = tool("attack");
        let sandbox = Self { who, ns: vec![], mounts: vec![], seccomp: vec![] };
        sandbox
            .mounts(&["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"])
            .mounts(&["--ro-bind", text(&attack), INSIDE])
    }

    /// Adds options of srt-ns.
    #[must_use]
    pub fn ns(mut self, words: &[&str]) -> Self {
        self.ns.extend(owned(words));
        self
    }

    /// Adds options of srt-mount.
    #[must_use]
    pub fn mounts(mut self, words: &[&str]) -> Self {
        self.mounts.extend(owned(words));
        self
    }

    /// Adds options of srt-seccomp.
    #[must_use]
    pub fn seccomp(mut self, words: &[&str]) -> Self {
        self.seccomp.extend(owned(words));
        self
    }

    /// The whole command line, with `program` at its end.
    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = self.who.command("srt-ns");
        command.args(self.words()).args(program);
        command
    }

    /// The words behind srt-ns, for what is put in front of it.
    pub fn words(&self) -> Vec<OsString> {
        let mut words = self.ns.clone();
        words.extend(owned(&["--", "srt-mount"]));
        words.extend(self.mounts.iter().cloned());
        words.extend(owned(&["--", "srt-seccomp"]));
        words.extend(self.seccomp.iter().cloned());
        words.push("--".into());
        words
    }

    /// Runs one attack as the sandbox's command.
    #[track_caller]
    pub fn attack(&self, words: &[&str]) -> Tried {
        Tried::one(words, run(self.command(&[INSIDE]).args(words)))
    }

    /// Runs several, one after the other, in one sandbox.
    #[track_caller]
    pub fn each(&self, attacks: &[impl AsRef<str>]) -> Tried {
        Tried::new(attacks, run(self.command(&[INSIDE, "each"]).args(plain(attacks))))
    }
}

/// Runs several attacks without a sandbox.
#[track_caller]
pub fn outside(who: Who, attacks: &[impl AsRef<str>]) -> Tried {
    behind(who, &[], attacks)
}

/// Runs several attacks behind other programs (`unshare -m`, `sh -c …`) that run what follows them.
#[track_caller]
pub fn behind(who: Who, before: &[&str], attacks: &[impl AsRef<str>]) -> Tried {
    let attack = tool("attack");
    let words: Vec<&str> = before.iter().copied().chain([text(&attack), "each"]).collect();
    Tried::new(attacks, run(who.command(words[0]).args(&words[1..]).args(plain(attacks))))
}

/// Runs several attacks where this user may mount, so that mounting is no sandbox's doing.
#[track_caller]
pub fn where_one_may_mount(who: Who, script: &str, attacks: &[impl AsRef<str>]) -> Tried {
    let unshare = if who == Who::Root { "-m" } else { "-Urm" };
    let script = format!("{script}\nexec \"$@\"");
    behind(who, &["unshare", unshare, "--propagation", "private", "sh", "-ec", &script, "sh"], attacks)
}

fn plain(attacks: &[impl AsRef<str>]) -> impl Iterator<Item = &str> {
    attacks.iter().map(|attack| attack.as_ref().trim_start_matches("? "))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What became of each attack. One whose words begin with `? ` is one that not every file system or kernel knows:
/// it need not get through outside.
#[derive(Debug)]
pub struct Tried {
    results: Vec<(String, String)>,
    ran: Ran,
}

impl Tried {
    #[track_caller]
    fn new(attacks: &[impl AsRef<str>], ran: Ran) -> Self {
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!(lines.len(), attacks.len(), "{ran:#?}");
        let mut results = vec![];
        for (attack, line) in attacks.iter().zip(&lines) {
            let attack = attack.as_ref();
            let words = attack.trim_start_matches("? ");
            let said =
                line.strip_prefix(&format!("{words}: ")).unwrap_or_else(|| panic!("{line}: not of {words}"));
            results.push((attack.to_owned(), said.to_owned()));
        }
        Self { results, ran }
    }

    fn one(words: &[&str], ran: Ran) -> Self {
        let said = ran.out.lines().last().unwrap_or_default().to_owned();
        Self { results: vec![(words.join(" "), said)], ran }
    }

    /// The positive control.
    #[track_caller]
    pub fn all_got_through(&self) -> &Self {
        for (attack, said) in &self.results {
            match attack.strip_prefix("? ") {
                Some(attack) if !said.starts_with("succeeded") => {
                    eprintln!("not known here: {attack}: {said}");
                }
                _ => assert!(said.starts_with("succeeded"), "{attack}: {said}\n{:#?}", self.ran),
            }
        }
        self
    }

    /// Refused by an error, or killed by the filter (SIGSYS). An attack that broke is neither.
    #[track_caller]
    pub fn all_were_refused(&self) -> &Self {
        for (attack, said) in &self.results {
            let refused = said.starts_with("refused") || said.starts_with("ended: signal: 31");
            assert!(refused, "{attack}: {said}\n{:#?}", self.ran);
        }
        self
    }

    /// Every one with this errno.
    #[track_caller]
    pub fn all_were_refused_with(&self, errno: i32) -> &Self {
        for (attack, said) in &self.results {
            assert!(said.ends_with(&format!("(os error {errno})")), "{attack}: {said}\n{:#?}", self.ran);
        }
        self
    }

    /// What the last of them said.
    pub fn said(&self) -> &str {
        self.results.last().map(|(_, said)| said.trim_start_matches("succeeded: ")).unwrap_or_default()
    }
}
