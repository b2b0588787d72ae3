//! The command line: what it prints, what it refuses, and that a refusal comes before the proxy hears anything.

#![allow(clippy::expect_used)]

mod common;

use common::{Scripted, connect};
use srt_tests::{both, pass_fd, run};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

both! {
    fn help_and_version_go_to_stdout_with_status_0(who) {
        let help = run(who.command("srt-connect").arg("--help"));
        help.ok();
        for word in ["--proxy", "--timeout", "--auth-fd", "--version", "HOST", "PORT", "socks5h+unix:PATH", "ProxyCommand"] {
            assert!(help.out.contains(word), "{word} is missing in\n{}", help.out);
        }
        let version = format!("srt-connect {}", env!("CARGO_PKG_VERSION"));
        run(who.command("srt-connect").arg("--version")).ok().says(&version);
        run(who.command("srt-connect").args(["--proxy", "x", "a", "1", "--version"])).ok().says(&version);
    }

    fn wrong_usage_is_one_line_and_status_2(who) {
        let good = ["--proxy", "http://127.0.0.1:1"];
        for (args, complaint) in [
            (vec![], "--proxy"),
            (vec!["example.org", "22"], "--proxy"),
            (vec!["--proxy"], "--proxy"),
            (vec!["--proxy"], "--proxy: expected a value"),
            (vec![], "expected HOST PORT --proxy"),
            (vec!["--proxy", "http://127.0.0.1:1"], "expected HOST PORT"),
            ([&good[..], &["example.org"]].concat(), "expected PORT"),
            ([&good[..], &["example.org", "22", "23"]].concat(), "23: unexpected argument"),
            ([&good[..], &good[..], &["example.org", "22"]].concat(), "--proxy"),
            ([&good[..], &["--nope", "example.org", "22"]].concat(), "--nope"),
            ([&good[..], &["--timeout", "x", "example.org", "22"]].concat(), "--timeout"),
            ([&good[..], &["--timeout", "-1", "example.org", "22"]].concat(), "--timeout -1: expected seconds, like 5 or 0.5"),
            ([&good[..], &["--auth-fd", "x", "example.org", "22"]].concat(), "--auth-fd"),
            ([&good[..], &["--auth-fd", "99", "example.org", "22"]].concat(), "--auth-fd 99: expected an open descriptor"),
            ([&good[..], &["--auth-fd", "0", "example.org", "22"]].concat(), "--auth-fd 0: expected an open descriptor from 3 up"),
            ([&good[..], &["--auth-fd", "1", "example.org", "22"]].concat(), "--auth-fd 1: expected an open descriptor from 3 up"),
            ([&good[..], &["--auth-fd", "2", "example.org", "22"]].concat(), "--auth-fd 2: expected an open descriptor from 3 up"),
            ([&good[..], &["--auth-fd", "-1", "example.org", "22"]].concat(), "--auth-fd -1"),
            (vec!["--proxy=http://127.0.0.1:1", "example.org", "22"], "--proxy="),
            (vec!["--proxy", "socks5://127.0.0.1:1", "example.org", "22"], "socks5h"),
        ] {
            run(who.command("srt-connect").args(&args)).code(2).complains(complaint).one_clear_error("srt-connect");
        }
    }

    /// The list of issue 3, and what else could be more than a host and a port to a proxy.
    fn a_hostile_host_or_port_ends_before_the_proxy_is_called(who) {
        let hosts: Vec<OsString> = [
            &b""[..], b"a b", b" a", b"a\rb", b"a\nb", b"a\r\nX-Injected: yes", b"a\tb", b"a\x1b[2J", b"a\x7f", b"user@host", b"a/b",
            b"h%00", b"\xff\xfe", b"b\xc3\xbccher", b"-oProxyCommand=id", b"host:22", b"[::1", b"::1]", b"[::1]:22", b"fe80::1%lo",
            b"[fe80::1%lo]", b"1:2", b"--help", b"--version", b"127.1", b"0x7f.1", b"017700000001", &[b'a'; 300], &[b'a'; 64], b"a..b",
        ]
        .iter()
        .map(|host| OsStr::from_bytes(host).to_os_string())
        .collect();
        let ports = ["", "0", "65536", "0x16", "+22", "-22", "022", " 22", "22 ", "22\r\n", "ssh", "1e1", "99999999999999999999999"];
        for scheme in ["http", "socks5h"] {
            let proxy = Scripted::start(|_| {});
            let cases = hosts.iter().map(|host| (host.clone(), OsString::from("22")));
            for (host, port) in cases.chain(ports.iter().map(|port| ("example.org".into(), port.into()))) {
                let ran = run(connect(who, &proxy.url(scheme)).arg("--").args([&host, &port]));
                ran.code(2).one_clear_error("srt-connect");
                assert!(!ran.err.trim_end().contains(|c: char| c.is_control() && c != '\n'), "{ran:?}");
            }
            // The positive control: the same listener does see a good call.
            run(connect(who, &proxy.url(scheme)).args(["example.org", "22"])).code(1);
            assert_eq!(proxy.connections(), 1, "a bad HOST or PORT reached the proxy");
        }
    }

    fn a_word_that_is_not_understood_does_not_give_the_password_away(who) {
        let url = "http://user:hunter2@127.0.0.1:1";
        for args in [
            vec![format!("--proxy={url}"), "a".into(), "1".into()],
            vec!["--proxi".into(), url.into(), "a".into(), "1".into()],
            vec!["a".into(), "1".into(), url.into()],
            vec!["--proxy".into(), url.into(), "a".into(), "1".into(), url.into()],
            vec!["--proxy".into(), "http://user:hunter2@proxy.example:1".into(), "a".into(), "1".into()],
            vec!["--proxy".into(), url.into(), "a".into(), "1".into()],
        ] {
            let ran = run(who.command("srt-connect").args(&args));
            ran.one_clear_error("srt-connect");
            assert!(!ran.err.contains("hunter2"), "{ran:?}");
        }
    }

    fn credentials_come_from_a_descriptor_less_the_line_break_at_their_end(who) {
        let longest = format!("dXNlcjp4{}eHg=", "eHh4".repeat(2728));
        for (content, basic) in [
            (&b"user:secret"[..], "dXNlcjpzZWNyZXQ="),
            (b"user:secret\n", "dXNlcjpzZWNyZXQ="),
            (b"user:secret\r\n", "dXNlcjpzZWNyZXQ="),
            (b"user:a:b@c/%41", "dXNlcjphOmJAYy8lNDE="),
            (b"user:\n", "dXNlcjo="),
            // As much as there may be.
            (&[&b"user:"[..], &[b'x'; 8187]].concat(), &longest),
        ] {
            let (seen, head) = std::sync::mpsc::channel();
            let proxy = Scripted::start(move |mut call| {
                seen.send(call.head()).expect("send");
                let _gone = call.stream.write_all(b"HTTP/1.1 403 enough\r\n\r\n");
            });
            let (reader, mut writer) = std::io::pipe().expect("pipe");
            writer.write_all(content).expect("write");
            drop(writer);
            let mut command = connect(who, &proxy.url("http"));
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            run(command.args(["--auth-fd", "9", "a", "1"])).code(1).complains("403 enough");
            let head = head.recv_timeout(srt_tests::DEADLINE).expect("a head");
            assert!(head.contains(&format!("\r\nProxy-Authorization: Basic {basic}\r\n")), "{head}");
        }
    }

    fn bad_credentials_end_before_the_proxy_is_called(who) {
        let proxy = Scripted::start(|_| {});
        let long = [&b"user:"[..], &[b'x'; 8188]].concat();
        for (scheme, content) in [
            ("http", &b""[..]),
            ("http", b"\n"),
            ("http", b"no colon"),
            ("http", b"user:two\nlines\n"),
            ("http", b"user:carriage return\r"),
            ("http", b"user:carriage return\r\r\n"),
            ("http", &long),
            ("socks5h", b"user:"),
            ("socks5h", &long[..300]),
        ] {
            let (reader, mut writer) = std::io::pipe().expect("pipe");
            writer.write_all(content).expect("write");
            drop(writer);
            let mut command = connect(who, &proxy.url(scheme));
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            let ran = run(command.args(["--auth-fd", "9", "a", "1"]));
            ran.code(1).one_clear_error("srt-connect").complains("--auth-fd 9: ");
            assert!(!content.contains(&b'\r') || ran.err.contains("CR, carriage return"), "{ran:?}");
            assert!(!ran.err.contains("user") || !ran.err.contains("two"), "{ran:?}");
        }
        let url = proxy.url("http").replace("//", "//user:hunter2@");
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        writer.write_all(b"user:other").expect("write");
        drop(writer);
        let mut command = connect(who, &url);
        pass_fd(&mut command, reader.as_raw_fd(), 9);
        run(command.args(["--auth-fd", "9", "a", "1"])).code(2).complains("--proxy already contains credentials").one_clear_error("srt-connect");
        assert_eq!(proxy.connections(), 0);
    }

    fn a_descriptor_whose_writer_never_ends_is_left_at_the_time_limit(who) {
        let proxy = Scripted::start(|_| {});
        let (reader, _writer) = std::io::pipe().expect("pipe");
        for (limit, shown) in [("1", "1 s"), ("0.25", "0.250 s")] {
            let mut command = connect(who, &proxy.url("http"));
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            run(command.args(["--auth-fd", "9", "--timeout", limit, "a", "1"]))
                .code(1)
                .complains(&format!("--auth-fd 9: not done within {shown}"))
                .one_clear_error("srt-connect");
        }
        assert_eq!(proxy.connections(), 0);
    }

    fn credentials_that_are_late_leave_the_proxy_no_more_time_than_there_is(who) {
        // This machine may stand still: one of five in time.
        let in_time = || {
            let proxy = Scripted::start(|mut call| drop(call.stream.read_to_end(&mut vec![])));
            let (reader, mut writer) = std::io::pipe().expect("pipe");
            let mut command = connect(who, &proxy.url("http"));
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            let start = Instant::now();
            let late = thread::spawn(move || {
                thread::sleep(Duration::from_millis(1500));
                writer.write_all(b"user:secret").expect("write");
            });
            let ran = run(command.args(["--auth-fd", "9", "--timeout", "2", "a", "1"]));
            late.join().expect("the writer");
            ran.code(1).complains("not done within 2 s").one_clear_error("srt-connect");
            start.elapsed() < Duration::from_secs(3)
        };
        assert!((0..5).any(|_| in_time()));
    }

    fn the_environment_is_no_configuration(who) {
        let proxy = Scripted::start(|_| {});
        let url = proxy.url("http");
        let mut command = who.command("srt-connect");
        for name in ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"] {
            command.env(name, &url);
        }
        run(command.args(["example.org", "22"])).code(2).complains("--proxy");
        assert_eq!(proxy.connections(), 0);
    }
}
