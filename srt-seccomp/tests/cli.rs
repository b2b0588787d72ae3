//! The command line: what it prints, and what it refuses.

#![allow(clippy::expect_used)]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_srt-seccomp")).args(args).output().expect("srt-seccomp runs")
}

#[test]
fn help_and_version_go_to_stdout_with_status_0() {
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(help.status.success() && help.stderr.is_empty());
    for option in [
        "--allow",
        "--deny",
        "--load",
        "--load-fd",
        "--export",
        "--list",
        "--keep-fd",
        "--status-fd",
        "--version",
    ] {
        assert!(text.contains(option), "{option} is missing in\n{text}");
    }
    assert!(text.starts_with("Usage: srt-seccomp [options] -- PROGRAM"), "{text}");
    let version = run(&["--version"]);
    assert_eq!(version.stdout, format!("srt-seccomp {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}
