//! The command line: help, version, and what is refused before anything is opened.

use srt_tests::{Who, run};

fn relay(args: &[&str]) -> srt_tests::Ran {
    run(Who::Root.command("srt-relay").args(args))
}

#[test]
fn help_names_every_option_and_address() {
    let help = relay(&["--help"]);
    help.ok();
    for word in [
        "--ready-fd",
        "--status-fd",
        "--report-fd",
        "--lifetime-fd",
        "--max-connections",
        "--connect-timeout",
        "--idle-timeout",
        "--outlive-parent",
        "--version",
        "LISTEN",
        "CONNECT",
        "tcp:IP:PORT",
        "unix:PATH",
        "fd:N",
    ] {
        assert!(help.out.contains(word), "{word}");
    }
}

#[test]
fn version_is_one_line_on_stdout() {
    relay(&["--version"]).ok().says(&format!("srt-relay {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_2_with_one_clear_error() {
    for (args, complaint) in [
        (&[][..], "LISTEN CONNECT"),
        (&["fd:3"], "fd:3: no CONNECT address follows"),
        (&["tcp:127.0.0.1:80"], "no CONNECT"),
        (&["tcp:127.0.0.1:80", "udp:1"], "udp:1: expected tcp:IP:PORT, unix:PATH or fd:N"),
        (&["tcp:example.org:80", "unix:/x"], "tcp:example.org:80: expected an IP address"),
        (&["--nope", "fd:3", "fd:4"], "--nope"),
        (&["--max-connections", "0", "fd:3", "fd:4"], "--max-connections 0"),
        (&["--max-connections", "many", "fd:3", "fd:4"], "--max-connections"),
        (&["--connect-timeout", "-1", "fd:3", "fd:4"], "--connect-timeout"),
        (&["--ready-fd", "x", "fd:3", "fd:4"], "--ready-fd"),
        (&["--ready-fd", "1", "--ready-fd", "2", "fd:3", "fd:4"], "--ready-fd"),
        (&["--ready-fd", "4", "fd:3", "fd:4"], "descriptor 4 is used twice"),
        (&["--ready-fd", "5", "--status-fd", "5", "fd:3", "fd:4"], "descriptor 5 is used twice"),
        (&["--lifetime-fd", "4", "fd:3", "fd:4"], "descriptor 4 is used twice"),
        (&["--outlive-parent", "--outlive-parent", "fd:3", "fd:4"], "--outlive-parent: given twice"),
        (&["--report-fd", "99", "fd:3", "fd:4"], "--report-fd 99: not an open descriptor"),
        (&["--status-fd", "99", "fd:3", "fd:4"], "--status-fd 99: not an open descriptor"),
    ] {
        relay(args).code(2).one_clear_error("srt-relay").complains(complaint).says("");
    }
}

#[test]
fn a_descriptor_that_is_not_open_is_an_error() {
    // The lowest that are free would be the relay's own.
    for fd in 3..10 {
        for words in [
            "fd:N tcp:127.0.0.1:1",
            "tcp:127.0.0.1:1 fd:N",
            "--ready-fd N tcp:127.0.0.1:1 tcp:127.0.0.1:2",
            "--report-fd N tcp:127.0.0.1:1 tcp:127.0.0.1:2",
            "--lifetime-fd N tcp:127.0.0.1:1 tcp:127.0.0.1:2",
        ] {
            let script = format!("exec srt-relay {words} N>&-").replace('N', &fd.to_string());
            let ran = run(Who::Root.command("sh").args(["-c", &script]));
            ran.code(if words.contains("fd:") { 1 } else { 2 }).one_clear_error("srt-relay");
            ran.complains(&format!("{fd}: not an open descriptor")).says("");
        }
    }
}

#[test]
fn an_address_that_this_machine_does_not_have_is_an_error() {
    // RFC 5737: for documentation.
    let elsewhere = relay(&["tcp:192.0.2.1:4000", "tcp:127.0.0.1:1"]);
    elsewhere.code(1).one_clear_error("srt-relay").complains("cannot listen on tcp:192.0.2.1:4000");
}
