//! A proxy's answer that is cut at every byte: srt-connect ends with status 1 and one clear error, and never takes a
//! part of an answer for the peer's bytes. The same answers byte by byte lose nothing of what follows. Which of the
//! cuts are resets instead of ends is random: SRT_SEED=7.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{Scripted, connect};
use srt_tests::random::{Random, rounds};
use srt_tests::{Ran, Who, at_once, both, run};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the peer says behind a good answer.
const PAYLOAD: &[u8] = b"\r\n\0\xff\n";

/// An answer, and what it comes to.
struct Answer {
    scheme: &'static str,
    login: &'static str,
    /// How many bytes of it must be there before anything is known but that it is not whole.
    told: usize,
    head: Vec<u8>,
    /// The message; `None`: the tunnel stands.
    refused: Option<&'static str>,
}

fn http(head: &str, refused: Option<&'static str>) -> Answer {
    let told = if refused.is_some() { head.find('\n').expect("a line") + 1 } else { head.len() };
    Answer { scheme: "http", login: "", told, head: head.into(), refused }
}

/// The parts of a SOCKS5 proxy's answer; one that refuses does so in the second byte of the last.
fn socks(login: &'static str, parts: &[&[u8]], refused: Option<&'static str>) -> Answer {
    let head = parts.concat();
    let last = parts[parts.len() - 1].len();
    let told = if refused.is_some() { head.len() - last + 2 } else { head.len() };
    Answer { scheme: "socks5h", login, told, head, refused }
}

const LOGIN: &str = "user:secret@";

fn answers() -> Vec<Answer> {
    let named = [&[5, 0, 0, 3, 5][..], b"proxy", &[0, 22]].concat();
    let v6 = [&[5, 0, 0, 4][..], &[0x20; 16], &[0, 22]].concat();
    vec![
        http("HTTP/1.1 200 OK\r\nVia: proxy\r\n\r\n", None),
        http("HTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.0 200\n\n", None),
        http(
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno",
            Some("refused: HTTP/1.1 407 No"),
        ),
        http(
            "HTTP/1.1 502 Bad\r\nX-Proxy-Error: dns\r\nContent-Type: text/plain\r\n\r\nno",
            Some("refused: HTTP/1.1 502 Bad"),
        ),
        socks("", &[&[5, 0], &[5, 0, 0, 1, 127, 0, 0, 1, 0, 22]], None),
        socks("", &[&[5, 0], &named], None),
        socks("", &[&[5, 0], &[5, 0, 0, 3, 0, 0, 22]], None),
        socks("", &[&[5, 0], &v6], None),
        socks(LOGIN, &[&[5, 2], &[1, 0], &named], None),
        socks("", &[&[5, 0xff]], Some("this proxy wants authentication")),
        socks(LOGIN, &[&[5, 2], &[1, 1]], Some("wrong user name or password")),
        socks("", &[&[5, 0], &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0]], Some("general failure")),
        socks("", &[&[5, 0], &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]], Some("not allowed by the proxy's rules")),
        socks(LOGIN, &[&[5, 0], &[5, 5, 0, 3, 1, b'x', 0, 0]], Some("connection refused")),
        socks("", &[&[5, 0], &[5, 9, 0, 1]], Some("unknown reply")),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    End,
    Reset,
    ByteByByte,
}

/// A proxy that says to the next caller what it is told to.
struct Proxy {
    scripted: Scripted,
    next: Arc<Mutex<(Vec<u8>, How)>>,
}

impl Proxy {
    fn start() -> Self {
        let next = Arc::new(Mutex::new((vec![], How::End)));
        let said = Arc::clone(&next);
        let scripted = Scripted::start(move |mut call| {
            let (bytes, how) = said.lock().expect("lock").clone();
            // Whoever knows a refusal may be gone before the rest of it.
            let step = if how == How::ByteByByte { 1 } else { bytes.len().max(1) };
            for bytes in bytes.chunks(step) {
                let _gone = call.stream.write_all(bytes);
                if how == How::ByteByByte {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
            if how == How::Reset {
                return common::reset(&call.stream);
            }
            // Not with unread bytes: that would be a reset.
            let _gone = call.stream.shutdown(Shutdown::Write);
            let _end = call.stream.read_to_end(&mut vec![]);
        });
        Self { scripted, next }
    }

    /// Runs srt-connect through it.
    fn run(&self, who: Who, answer: &Answer, bytes: &[u8], how: How) -> Ran {
        *self.next.lock().expect("lock") = (bytes.to_vec(), how);
        let url = self.scripted.url(answer.scheme).replace("://", &format!("://{}", answer.login));
        run(connect(who, &url).args(["--timeout", "25", "example.org", "22"]))
    }
}

/// The first bytes of an answer and of what follows, and no more.
fn cut(who: Who, proxy: &Proxy, answer: &Answer, at: usize, how: How) {
    let all = [&answer.head, PAYLOAD].concat();
    let ran = proxy.run(who, answer, &all[..at], how);
    let context = || format!("{how:?} after {at} of {:?}: {ran:#?}", String::from_utf8_lossy(&answer.head));
    assert!(!ran.err.contains("not done within") && !ran.err.contains("secret"), "{}", context());
    if answer.refused.is_none() && at >= answer.head.len() {
        let payload = String::from_utf8_lossy(&PAYLOAD[..at - answer.head.len()]);
        match how {
            // What the peer said before the connection broke may be lost.
            How::Reset => assert!(payload.starts_with(&ran.out), "{}", context()),
            _ => assert!(ran.code == Some(0) && ran.out == payload && ran.err.is_empty(), "{}", context()),
        }
        return;
    }
    assert!(ran.code == Some(1) && ran.out.is_empty(), "{}", context());
    ran.one_clear_error("srt-connect");
    let says = match answer.refused {
        _ if how == How::Reset => "srt-connect: proxy ",
        Some(refused) if at >= answer.told => refused,
        _ => "closed the connection before the end of its answer",
    };
    assert!(ran.err.contains(says), "expected {says:?}: {}", context());
}

/// All of a list, a few at a time, each through a proxy that is nobody else's meanwhile.
fn each<T: Send>(all: Vec<T>, test: impl Fn(&Proxy, T) + Sync) {
    let idle = Mutex::new(vec![]);
    at_once(4, all, |one| {
        let proxy = idle.lock().expect("lock").pop();
        let proxy = proxy.unwrap_or_else(Proxy::start);
        test(&proxy, one);
        idle.lock().expect("lock").push(proxy);
    });
}

both! {
    fn an_answer_that_is_cut_at_any_byte_is_an_error_and_nothing_of_it_is_the_peers(who) {
        rounds(1, |random: &mut Random| {
            let answers = answers();
            let mut cuts = vec![];
            for answer in &answers {
                let last = answer.head.len() + if answer.refused.is_none() { PAYLOAD.len() } else { 0 };
                let how = |_| if random.one_in(4) { How::Reset } else { How::End };
                cuts.extend((0..=last).map(how).enumerate().map(|(at, how)| (answer, at, how)));
            }
            each(cuts, |proxy, (answer, at, how)| cut(who, proxy, answer, at, how));
        });
    }

    fn an_answer_byte_by_byte_is_the_same_and_nothing_behind_it_is_lost(who) {
        each(answers(), |proxy, answer| {
            let all = [&answer.head, PAYLOAD].concat();
            let ran = proxy.run(who, &answer, &all, How::ByteByByte);
            match answer.refused {
                None => assert!(ran.ok().out == String::from_utf8_lossy(PAYLOAD) && ran.err.is_empty(), "{ran:#?}"),
                Some(refused) => {
                    ran.code(1).complains(refused).one_clear_error("srt-connect").says("");
                }
            }
        });
    }
}
