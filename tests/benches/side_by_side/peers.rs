//! What the tools are measured beside: where it is, which version.

use crate::report::Bench;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel and the processors.
pub fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {}, {}, {processors} processors", kernel.trim(), std::env::consts::ARCH)
}

/// How this was linked, and with it the tools, which cargo builds for the same target.
pub fn linkage() -> &'static str {
    match (cfg!(target_env = "musl"), cfg!(target_feature = "crt-static")) {
        (true, true) => "static, musl",
        (true, false) => "dynamic, musl",
        (false, true) => "static, glibc",
        (false, false) => "dynamic, glibc",
    }
}

/// A bubblewrap: its name for the table, and how it is started.
#[derive(Clone, Debug)]
pub struct Bubblewrap {
    pub name: String,
    words: Vec<OsString>,
}

impl Bubblewrap {
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }
}

/// The bubblewrap in PATH first, then those in `SRT_BENCH_BWRAP`, which are paths with colons between.
///
/// One that the system's C library is too old for may lie in a tree with its own: …/usr/bin/bwrap, beside it
/// …/usr/lib/TRIPLET/ld-linux*. That one is copied to where every user can run it.
pub fn bubblewraps(bench: &mut Bench) -> Vec<Bubblewrap> {
    let more = std::env::var_os("SRT_BENCH_BWRAP").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    let mut found: Vec<Bubblewrap> = vec![];
    for (number, path) in [PathBuf::from("bwrap")].into_iter().chain(more).enumerate() {
        let started = alone(&path)
            .or_else(|| with_its_libraries(&path, &bench.work.path().join(format!("bwrap{number}"))));
        match started {
            Some(one) if found.iter().any(|other| other.name == one.name) => {}
            Some(one) => found.push(one),
            None => bench.miss(format!("{} cannot be run", path.display())),
        }
    }
    // Those that the targets speak of.
    for (version, whence) in [
        ("0.8", "Debian 12's; name one in SRT_BENCH_BWRAP"),
        ("0.13", "tests/bench gets what is in Debian's sid; or name one in SRT_BENCH_BWRAP"),
    ] {
        let name = format!("bubblewrap {version}");
        if !found.iter().any(|one| one.name.starts_with(&format!("{name}."))) {
            bench.miss(format!("{name} ({whence})"));
        }
    }
    found
}

fn alone(path: &Path) -> Option<Bubblewrap> {
    named(vec![path.into()])
}

fn with_its_libraries(path: &Path, copy: &Path) -> Option<Bubblewrap> {
    let root = path.ancestors().nth(3)?;
    let copied =
        Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(root).arg(copy).status();
    let program = copy.join(path.strip_prefix(root).ok()?);
    let directories = std::fs::read_dir(copy.join("usr/lib")).ok()?.flatten();
    let mut files = directories.filter_map(|entry| std::fs::read_dir(entry.path()).ok()).flatten().flatten();
    let loader = files.find(|file| file.file_name().as_encoded_bytes().starts_with(b"ld-linux"))?.path();
    let libraries = loader.parent()?.into();
    copied
        .ok()?
        .success()
        .then(|| named(vec![loader.into(), "--library-path".into(), libraries, program.into()]))?
}

fn named(words: Vec<OsString>) -> Option<Bubblewrap> {
    let mut one = Bubblewrap { name: String::new(), words };
    let output = one.command().arg("--version").output().ok().filter(|output| output.status.success())?;
    one.name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(one)
}

/// Whether a program is there; one that is not is noted as missing.
pub fn has(bench: &mut Bench, program: &str) -> bool {
    let there = srt_tests::has(program);
    if !there {
        bench.miss(program);
    }
    there
}
