//! Proxies that lie, stall, babble or are not there: each ends in one clear line and status 1, or does no harm.

#![allow(clippy::expect_used)]

mod common;

use common::{Call, Scripted, connect, start};
use srt_common::sys::socket::{SocketAddress, bind, socket};
use srt_tests::{Who, at_once, both, dead_socket, run, unix_listener, wait};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Runs srt-connect through an HTTP proxy that reads the request and then does this.
#[track_caller]
fn through(who: Who, script: impl Fn(&mut Call) + Send + Sync + 'static) -> srt_tests::Ran {
    let proxy = Scripted::start(move |mut call| {
        call.head();
        script(&mut call);
    });
    run(connect(who, &proxy.url("http")).args(["--timeout", "20", "example.org", "22"]))
}

#[track_caller]
fn refused(ran: &srt_tests::Ran, with: &str) {
    ran.code(1)
        .complains("srt-connect: proxy http://127.0.0.1:")
        .complains(with)
        .one_clear_error("srt-connect");
    assert_eq!(ran.out, "", "nothing of a refusal belongs to the peer: {ran:?}");
}

/// Says something, whether or not anybody still listens.
fn babble(call: &mut Call, bytes: &[u8]) {
    let _gone = call.stream.write_all(bytes);
}

/// Waits for the other side to hang up.
fn wait_for_the_end(call: &mut Call) {
    let _reset = call.stream.read_to_end(&mut vec![]);
}

both! {
    fn an_answer_byte_by_byte_is_an_answer(who) {
        let ran = through(who, |call| {
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: 1.1 slow\r\n\r\nthe peer's own" {
                call.say(&[*byte]);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        ran.ok().says("the peer's own");
        assert_eq!(ran.err, "");
    }

    fn what_comes_in_the_answers_segment_is_the_peers_and_is_not_lost(who) {
        through(who, |call| call.say(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-peer\r\n")).ok().says("SSH-2.0-peer");
        // More than is read at once, and more than a pipe holds.
        let body = "0123456789abcdef".repeat(20_000);
        let (answer, expected) = ([b"HTTP/1.1 200 OK\r\n\r\n", body.as_bytes()].concat(), body);
        let ran = through(who, move |call| call.say(&answer));
        assert!(ran.ok().out == expected, "{} bytes of {}", ran.out.len(), expected.len());
    }

    fn interim_answers_come_before_the_200(who) {
        through(who, |call| {
            call.say(b"HTTP/1.1 100 Continue\r\n\r\n");
            call.say(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello");
        })
        .ok()
        .says("hello");
    }

    fn a_megabyte_of_headers_is_too_much(who) {
        let ran = through(who, |call| {
            babble(call, b"HTTP/1.1 200 OK\r\n");
            babble(call, "X-Filler: aaaaaaaaaaaaaaaaaaaa\r\n".repeat(33_000).as_bytes());
            babble(call, b"\r\nhello");
        });
        refused(&ran, "the answer's head is longer than 65536 bytes");
    }

    fn a_head_without_an_end_ends_with_the_connection_or_the_time(who) {
        refused(
            &through(who, |call| call.say(b"HTTP/1.1 200 OK\r\nX: y\r\n")),
            "closed the connection before the end of its answer",
        );
        let proxy = Scripted::start(|mut call| {
            babble(&mut call, b"HTTP/1.1 200 OK\r\nX: y\r\n");
            wait_for_the_end(&mut call);
        });
        refused(&run(connect(who, &proxy.url("http")).args(["--timeout", "1", "a", "1"])), "not done within 1 s");
    }

    fn rubbish_is_said_to_be_rubbish(who) {
        for rubbish in [
            &b"<html>It works!</html>\n"[..],
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"\x05\x00",
            b"\x15\x03\x01\0\x02\x02\x28",
            b"\0\0\0\0",
            b"no end of line",
        ] {
            let ran = through(who, |call| {
                babble(call, rubbish);
                wait_for_the_end(call);
            });
            refused(&ran, "the answer is not HTTP/1");
        }
    }

    fn a_refusal_is_told_with_the_proxys_reason_and_nothing_that_a_terminal_obeys(who) {
        refused(&through(who, |call| call.say(b"HTTP/1.1 403 Filtered: no games\r\n\r\n<h1>")), "refused: HTTP/1.1 403 Filtered: no games\n");
        let ran = through(who, |call| call.say(b"HTTP/1.1 403 \0a\x1b]0;title\x07\x1b[2J\x9b\x08b\r\n\r\n"));
        refused(&ran, "refused: HTTP/1.1 403 a]0;title[2J?b\n");
        let ran = through(who, |call| call.say(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
        refused(&ran, "srt-connect: hint: this proxy needs credentials: --auth-fd");
        // A proxy that refuses and then hangs is not waited for.
        refused(&through(who, |call| { babble(call, b"HTTP/1.1 502 Bad Gateway\r\n"); wait_for_the_end(call); }), "502 Bad Gateway");
    }

    fn the_reason_of_a_refusal_is_awaited_but_not_for_long(who) {
        let answer = b"HTTP/1.1 403 Forbidden\r\nX-Proxy-Error: blocked-by-allowlist\r\nContent-Type: text/plain\r\n\
            Content-Length: 33\r\n\r\nhost example.org is not permitted";
        let whole = "refused: HTTP/1.1 403 Forbidden: blocked-by-allowlist: host example.org is not permitted\n";
        // In two pieces; and by one that does not hang up, or resets the connection.
        for reset in [false, true] {
            let again = || through(who, move |call| {
                babble(call, &answer[..60]);
                std::thread::sleep(Duration::from_millis(20));
                babble(call, &answer[60..]);
                if reset { common::reset(&call.stream) } else { wait_for_the_end(call) }
            });
            // Half a second is not for ever, and the second piece may be late.
            let ran = std::iter::repeat_with(again).take(5).find(|ran| ran.err.contains("not permitted"));
            refused(&ran.unwrap_or_else(again), whole);
        }
        let ran = through(who, |call| { babble(call, &answer[..answer.len() - 4]); common::reset(&call.stream) });
        refused(&ran, "refused: HTTP/1.1 403 Forbidden: blocked-by-allowlist: host example.org is not perm");
        // A trickle does not stretch it, with or without a limit of the caller's.
        for timeout in ["20", "0"] {
            let proxy = Scripted::start(|mut call| {
                call.head();
                call.say(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nslow");
                while call.stream.write_all(b".").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let start = std::time::Instant::now();
            let ran = run(connect(who, &proxy.url("http")).args(["--timeout", timeout, "a", "1"]));
            refused(&ran, "refused: HTTP/1.1 403 Forbidden: slow");
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }

    fn a_sockets_path_may_be_longer_than_an_address(who) {
        let scratch = who.scratch();
        let long = scratch.dir(format!("{}/{}", "n".repeat(120), "m".repeat(120))).join("proxy");
        let listener = UnixListener::bind(scratch.join("s")).expect("bind");
        std::fs::set_permissions(scratch.join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
        std::fs::rename(scratch.join("s"), &long).expect("rename");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _gone = (stream.read(&mut [0; 1000]), stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello"));
            }
        });
        let url = |path: &std::path::Path| format!("http+unix:{}", path.display());
        run(connect(who, &url(&long)).args(["a", "1"])).ok().says("hello");
        // Around the longest one that an address has room for.
        for length in 106..110 {
            let path = scratch.join("x".repeat(length - scratch.text().len() - 1));
            std::fs::hard_link(&long, &path).expect("link");
            run(connect(who, &url(&path)).args(["a", "1"])).ok().says("hello");
        }
        run(connect(who, &url(&long.with_extension("missing"))).args(["a", "1"]))
            .code(1)
            .complains("cannot connect: No such file or directory")
            .one_clear_error("srt-connect");
        let file = long.with_extension("file");
        std::fs::write(&file, "").expect("write");
        run(connect(who, &url(&file)).args(["a", "1"])).code(1).complains("not a socket").one_clear_error("srt-connect");
    }

    fn a_proxy_that_hangs_up_at_once_is_told(who) {
        let proxy = Scripted::start(drop);
        let ran = run(connect(who, &proxy.url("http")).args(["a", "1"]));
        ran.code(1).one_clear_error("srt-connect");
        refused(&through(who, |_| {}), "closed the connection before the end of its answer");
        let ran = through(who, |call| common::reset(&call.stream));
        refused(&ran, "cannot receive: Connection reset by peer");
    }

    fn a_proxy_that_never_answers_is_left_at_the_time_limit(who) {
        at_once(2, ["http", "socks5h"], |scheme| {
            let proxy = Scripted::start(|mut call| wait_for_the_end(&mut call));
            run(connect(who, &proxy.url(scheme)).args(["--timeout", "1", "a", "1"]))
                .code(1)
                .complains("not done within 1 s")
                .complains("--timeout")
                .one_clear_error("srt-connect");
        });
    }

    fn a_trickle_does_not_stretch_the_time_limit(who) {
        let proxy = Scripted::start(|mut call| {
            call.head();
            call.say(b"HTTP/1.1 200 OK\r\nX: ");
            while call.stream.write_all(b"y").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        run(connect(who, &proxy.url("http")).args(["--timeout", "1", "a", "1"]))
            .code(1)
            .complains("not done within 1 s");
    }

    fn without_a_time_limit_a_late_answer_is_an_answer(who) {
        let proxy = Scripted::start(|mut call| {
            call.head();
            std::thread::sleep(Duration::from_millis(3000));
            babble(&mut call, b"HTTP/1.1 200 OK\r\n\r\nlate");
        });
        // With one it is none.
        at_once(2, ["0", "1"], |timeout| {
            let ran = run(connect(who, &proxy.url("http")).args(["--timeout", timeout, "a", "1"]));
            if timeout == "0" { ran.ok().says("late") } else { ran.code(1).says("") };
        });
    }

    fn being_stopped_and_continued_changes_nothing(who) {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let (asked, request) = std::sync::mpsc::channel();
        let proxy = Scripted::start(move |mut call| {
            call.head();
            asked.send(()).expect("send");
            gone.lock().expect("lock").recv().expect("go");
            call.say(b"HTTP/1.1 200 OK\r\n\r\nhello");
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        request.recv_timeout(srt_tests::DEADLINE).expect("a request");
        for signal in ["-STOP", "-CONT"] {
            run(Who::Root.command("kill").args([signal, &child.id().to_string()])).ok();
        }
        go.send(()).expect("send");
        drop(child.stdin.take());
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
        assert!(wait(&mut child, "srt-connect").success());
        assert_eq!(out, "hello");
    }

    fn a_proxy_that_is_not_there_is_told(who) {
        run(connect(who, "http://127.0.0.1:1").args(["a", "1"]))
            .code(1)
            .complains("proxy http://127.0.0.1:1: cannot connect: Connection refused")
            .one_clear_error("srt-connect");
        let scratch = who.scratch();
        let file = scratch.file("file", "");
        dead_socket(scratch.join("dead"));
        for (path, why) in [
            (scratch.join("nothing"), "No such file or directory"),
            (file, "not a socket"),
            (scratch.path().to_path_buf(), "not a socket"),
            (scratch.join("dead"), if who == Who::Root { "Connection refused" } else { "Permission denied" }),
        ] {
            let url = format!("socks5h+unix:{}", path.display());
            run(connect(who, &url).args(["a", "1"])).code(1).complains(why).one_clear_error("srt-connect");
        }
    }

    fn a_proxy_that_accepts_nobody_is_left_at_the_time_limit(who) {
        let scratch = who.scratch();
        let path = scratch.join("socket");
        let unix = unix_listener(who, &path);
        common::shrink_backlog(unix.as_raw_fd());
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        common::shrink_backlog(tcp.as_raw_fd());
        // A backlog of 0 has room for one.
        let _fills = UnixStream::connect(&path).expect("connect");
        let address = tcp.local_addr().expect("address");
        let _fills = std::net::TcpStream::connect(address).expect("connect");
        at_once(2, [format!("http+unix:{}", path.display()), format!("http://{address}")], |url| {
            run(connect(who, &url).args(["--timeout", "1", "a", "1"]))
                .code(1)
                .complains("not done within 1 s")
                .one_clear_error("srt-connect");
        });
    }

    fn localhost_is_tried_in_both_families(who) {
        let (listener, port, _refuses) = loop {
            let Ok(listener) = TcpListener::bind("[::1]:0") else { srt_tests::skip!("no IPv6 here") };
            let port = listener.local_addr().expect("address").port();
            // In the other family the port must be nobody's: it is bound, and nothing listens.
            let other = socket(libc::AF_INET, libc::SOCK_STREAM).expect("socket");
            if bind(&other, &SocketAddress::tcp(([127, 0, 0, 1], port).into())).is_ok() {
                break (listener, port, other);
            }
        };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _gone = stream.write_all(b"HTTP/1.1 403 here\r\n\r\n");
                let _gone = stream.read_to_end(&mut vec![]);
            }
        });
        for host in ["localhost", "[::1]"] {
            run(connect(who, &format!("http://{host}:{port}")).args(["a", "1"])).code(1).complains("403 here");
        }
    }

    fn a_socks_proxy_may_answer_byte_by_byte_and_with_the_peers_bytes_behind(who) {
        let proxy = Scripted::start(|mut call| {
            assert_eq!(call.exactly(3), [5, 1, 0]);
            call.say(&[5]);
            std::thread::sleep(Duration::from_millis(5));
            call.say(&[0]);
            assert_eq!(call.exactly(10), [5, 1, 0, 3, 3, b'a', b'.', b'b', 0, 22]);
            for byte in [5, 0, 0, 3, 2, b'x', b'y', 0] {
                call.say(&[byte]);
                std::thread::sleep(Duration::from_millis(1));
            }
            call.say(b"\0SSH-2.0-peer");
        });
        run(connect(who, &proxy.url("socks5h")).args(["a.b", "22"])).ok().says("SSH-2.0-peer");
    }

    fn hostile_socks_proxies_are_told_apart(who) {
        for (answer, complaint) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the answer is not SOCKS5: it begins with 0x48"),
            (&[4, 0x5a, 0, 0, 0, 0, 0, 0], "the answer is not SOCKS5: it begins with 0x04"),
            (&[5, 0xff], "refused: this proxy wants authentication"),
            (&[5, 1], "GSSAPI is not supported"),
            (&[5, 9], "method 9, which was not offered"),
            (&[5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0], "refused: not allowed by the proxy's rules (SOCKS5 reply 2)"),
            (&[5, 0, 5, 0, 0, 9], "address of unknown type 9"),
            (&[5, 0, 1, 0], "the answer is not SOCKS5: it begins with 0x01"),
            (&[5], "closed the connection before the end of its answer"),
            (&[5, 0, 5, 0, 0, 3, 255, 1, 2], "closed the connection before the end of its answer"),
            (&[], "closed the connection before the end of its answer"),
        ] {
            let proxy = Scripted::start(move |mut call| {
                call.exactly(3);
                babble(&mut call, answer);
                call.stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
                wait_for_the_end(&mut call);
            });
            run(connect(who, &proxy.url("socks5h")).args(["a", "1"]))
                .code(1)
                .complains(complaint)
                .one_clear_error("srt-connect");
        }
    }
}
