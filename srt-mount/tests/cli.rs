//! What srt-mount says without mounting anything.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_srt-mount")).args(args).output().expect("srt-mount runs")
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--ro-bind SRC DEST"));
    let version = run(&["--version"]);
    assert!(version.status.success() && version.stdout.starts_with(b"srt-mount "));
}
