//! How the tests run srt-mount.

#![allow(dead_code, reason = "every test file uses its own part")]

use srt_tests::{Ran, Who, run};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;

/// What a shell needs, read-only, on an otherwise empty root.
pub const SYSTEM: [&str; 15] = [
    "--ro-bind",
    "/usr",
    "/usr",
    "--ro-bind-try",
    "/lib64",
    "/lib64",
    "--ro-bind",
    "/lib",
    "/lib",
    "--ro-bind",
    "/bin",
    "/bin",
    "--ro-bind",
    "/etc",
    "/etc",
];

/// `srt-ns -- srt-mount OPTIONS`, without `--` and PROGRAM.
pub fn mount<S: AsRef<std::ffi::OsStr>>(who: Who, options: impl IntoIterator<Item = S>) -> Command {
    let mut command = who.command("srt-ns");
    command.args(["--", "srt-mount"]).args(options);
    command
}

/// A shell script in a tree of `options`, on top of [`SYSTEM`].
#[track_caller]
pub fn sh<S: AsRef<str>>(who: Who, options: &[S], script: &str) -> Ran {
    let options = SYSTEM.into_iter().chain(options.iter().map(AsRef::as_ref));
    run(mount(who, options).args(["--", "/bin/sh", "-c", script]))
}

/// A shell script with the host's whole tree as a base.
#[track_caller]
pub fn sh_on<S: AsRef<str>>(who: Who, base: &str, options: &[S], script: &str) -> Ran {
    let options = [base, "/", "/"].into_iter().chain(options.iter().map(AsRef::as_ref));
    run(mount(who, options).args(["--", "/bin/sh", "-c", script]))
}

/// The options of a text, split at spaces.
pub fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Lets the command inherit a file with this content as descriptor `number`.
pub fn give(command: &mut Command, content: &[u8], number: i32) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("write");
    std::io::Seek::rewind(&mut file).expect("rewind");
    srt_tests::pass_fd(command, file.as_raw_fd(), number);
    file
}
