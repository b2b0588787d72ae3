//! What proxies answer, in both protocols. Every answer is fed whole, byte by byte and cut in two at every place: how it
//! is cut makes no difference.

#![allow(clippy::expect_used, clippy::panic)]

use srt_connect::destination::Destination;
use srt_connect::handshake::{Handshake, Step};
use srt_connect::http::{self, HEAD_LIMIT};
use srt_connect::proxy::{Protocol, Proxy};
use srt_connect::socks;
use std::ffi::OsStr;

/// What came of an answer: what was sent meanwhile, and where the peer's bytes begin, unless the tunnel never stood.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    sent: Vec<Vec<u8>>,
    verdict: Result<Option<usize>, String>,
    hint: Option<String>,
}

fn feed<'a>(mut handshake: Box<dyn Handshake>, segments: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut outcome = Outcome { sent: vec![], verdict: Ok(None), hint: None };
    let mut consumed = 0;
    for mut bytes in segments {
        while !bytes.is_empty() {
            let given = bytes.len();
            let step = handshake.feed(&mut bytes);
            consumed += given - bytes.len();
            match step {
                Ok(Step::More) => assert!(bytes.is_empty()),
                Ok(Step::Send(message)) => outcome.sent.push(message),
                Ok(Step::Done) => return Outcome { verdict: Ok(Some(consumed)), ..outcome },
                Err(error) => return Outcome { verdict: Err(error.message), hint: error.hint, ..outcome },
            }
            assert!(bytes.len() < given);
        }
    }
    // Here the proxy says no more.
    match handshake.refusal() {
        Some(error) => Outcome { verdict: Err(error.message), hint: error.hint, ..outcome },
        None => outcome,
    }
}

fn handshake(proxy: &str, host: &str) -> Box<dyn Handshake> {
    let target = Destination::parse(OsStr::new(host), OsStr::new("22")).expect("target");
    Proxy::parse(OsStr::new(proxy)).expect("proxy").handshake(&target).expect("handshake")
}

#[track_caller]
fn told(proxy: &str, host: &str, answer: &[u8]) -> Outcome {
    let whole = feed(handshake(proxy, host), [answer].into_iter());
    if answer.len() < 1000 {
        let pieces = feed(handshake(proxy, host), answer.chunks(1));
        // What of a wrong answer is quoted depends on what has come of it.
        assert_eq!(whole.verdict.is_err(), pieces.verdict.is_err());
        if whole.verdict.is_ok() {
            assert_eq!(whole, pieces);
        }
        for at in 0..answer.len() {
            let halves = feed(handshake(proxy, host), [&answer[..at], &answer[at..]].into_iter());
            assert!(halves == whole || whole.verdict.is_err() && halves.verdict.is_err());
        }
    }
    whole
}

const HTTP: &str = "http://127.0.0.1:1";
const HTTP_LOGIN: &str = "http://user:secret@127.0.0.1:1";
const SOCKS: &str = "socks5h://127.0.0.1:1";
const SOCKS_LOGIN: &str = "socks5h://user:secret@127.0.0.1:1";

#[track_caller]
fn http(answer: &[u8]) -> Outcome {
    told(HTTP, "example.org", answer)
}

#[track_caller]
fn refused(answer: &[u8], with: &str) {
    let verdict = http(answer).verdict.expect_err("a refusal");
    assert_eq!(verdict, with);
}

#[test]
fn the_request_is_what_rfc_9110_asks_for() {
    assert_eq!(
        handshake(HTTP, "2001:db8::1").opening(),
        b"CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:db8::1]:22\r\n\r\n"
    );
}

#[test]
fn any_2xx_opens_the_tunnel_and_what_follows_is_the_peers() {
    for (head, rest) in [
        (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], &b"SSH-2.0"[..]),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\n\r\n", b"\r\n\r\n"),
        (b"HTTP/1.1 200 \r\nA: b\r\n\r\n", b"\n"),
        (b"HTTP/1.1 299 x\r\n\r\n", b"\0"),
        (b"HTTP/1.1 200 OK\n\n", b"HTTP/1.1 403 no\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\xff\r\n folded\r\n\r\n", b"\xff"),
    ] {
        let answer = [head, rest].concat();
        assert_eq!(http(&answer).verdict, Ok(Some(head.len())), "{}", String::from_utf8_lossy(head));
    }
}

#[test]
fn a_length_or_an_encoding_in_a_2xx_answer_means_nothing() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(http(&[&head[..], b"hello"].concat()).verdict, Ok(Some(head.len())));
}

#[test]
fn interim_answers_are_passed_over() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let all = [&interim[..], b"HTTP/1.1 200 OK\r\n\r\n"].concat();
    assert_eq!(http(&all).verdict, Ok(Some(all.len())));
    assert_eq!(http(interim).verdict, Ok(None));
    refused(&[&interim[..], b"HTTP/1.1 403 No\r\n"].concat(), "refused: HTTP/1.1 403 No");
    refused(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "refused: HTTP/1.1 101 Switching Protocols");
}

#[test]
fn a_refusal_is_reported_at_its_first_line() {
    refused(b"HTTP/1.1 403 Forbidden by policy 7\r\n", "refused: HTTP/1.1 403 Forbidden by policy 7");
    refused(b"HTTP/1.0 502 Bad Gateway\nbody", "refused: HTTP/1.0 502 Bad Gateway");
    refused(b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\n\r\n", "refused: HTTP/1.1 301 Moved");
    refused(b"HTTP/1.1 407\r\n", "refused: HTTP/1.1 407");
}

#[test]
fn control_characters_and_what_is_not_ascii_do_not_reach_the_terminal() {
    refused(b"HTTP/1.1 403 a\0b\x1b[2J\x07\r\x7f\x9b1m\xe2\x80\xae\r\n", "refused: HTTP/1.1 403 ab[2J?1m???");
    let long = [b"HTTP/1.1 403 ", &[b'x'; 5000][..], b"\r\n"].concat();
    assert!(http(&long).verdict.expect_err("refused").len() < 300);
}

#[test]
fn a_407_says_what_to_do() {
    let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n";
    assert!(http(answer).hint.is_some_and(|hint| hint.contains("--auth-fd")));
    let hint = told(HTTP_LOGIN, "a", answer).hint;
    assert!(hint.is_some_and(|hint| hint.contains("rejects these")));
    let answer = b"HTTP/1.1 401 Unauthorized\r\n";
    assert_eq!(http(answer).hint, None);
    let hint = told(HTTP_LOGIN, "a", answer).hint;
    assert!(hint.is_some_and(|hint| hint.contains("rejects these")));
}

#[test]
fn a_407_says_what_the_proxy_offers_and_asks_for_no_password_that_it_does_not_take() {
    let ask = |fields: &str, proxy: &str| {
        let answer = format!("HTTP/1.1 407 Authenticate\r\n{fields}\r\n\r\n");
        let outcome = told(proxy, "a", answer.as_bytes());
        (outcome.verdict.expect_err("refused"), outcome.hint.expect("a hint"))
    };
    for proxy in [HTTP, HTTP_LOGIN] {
        let (message, hint) = ask("Proxy-Authenticate: Negotiate\r\nproxy-authenticate:NTLM", proxy);
        assert_eq!(message, "refused: HTTP/1.1 407 Authenticate; it offers Negotiate, NTLM");
        assert!(hint.contains("only Basic") && !hint.contains("--auth-fd"), "{hint}");
    }
    let both = "Proxy-Authenticate: Digest realm=\"a, Basic b\", qop=auth, nonce=\"x\", BASIC realm=c";
    let (message, hint) = ask(both, HTTP);
    assert_eq!(message, "refused: HTTP/1.1 407 Authenticate; it offers Digest, BASIC");
    assert!(hint.contains("--auth-fd"), "{hint}");
    let (_, hint) = ask("Proxy-Authenticate: Digest realm=\"a, Basic b\"", HTTP);
    assert!(hint.contains("only Basic"), "{hint}");
    assert!(ask(both, HTTP_LOGIN).1.contains("rejects these"));
}

#[test]
fn the_proxys_reason_is_told_and_is_short() {
    let head =
        b"HTTP/1.1 403 Forbidden\r\nX-Proxy-Error: blocked-\x1bby-allowlist\r\nContent-Type: text/plain\r\n";
    let text = b"\r\n  \r\nhost example.org\x07 is not permitted\nask somebody";
    let all = "refused: HTTP/1.1 403 Forbidden: blocked-by-allowlist: host example.org is not permitted";
    refused(&[&head[..], format!("Content-Length: {}\r\n\r\n", text.len()).as_bytes(), text].concat(), all);
    // To the end of the connection; and more than is announced is none of it.
    refused(&[&head[..], b"\r\n", text].concat(), all);
    refused(
        &[&head[..], b"Content-Length: 4\r\n\r\nhost example.org"].concat(),
        &all[..all.find(" example").expect("there")],
    );
    // No text, no reason.
    for (kind, body) in [
        ("Content-Type: text/html", "text"),
        ("A: b", "\n <!DOCTYPE html>\ntext"),
        ("Content-Type: text/plain\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Content-Type: text/plain\r\nTransfer-Encoding: chunked", "text\r\n"),
        ("Content-Type: text/plain\r\nTransfer-Encoding: chunked", "ffffffffffffffffff\r\ntext"),
    ] {
        let answer = format!("HTTP/1.1 403 No\r\n{kind}\r\n\r\n{body}");
        refused(answer.as_bytes(), "refused: HTTP/1.1 403 No");
    }
    let long = [&head[..], b"\r\n", &[b'x'; 1 << 20]].concat();
    assert!(http(&long).verdict.expect_err("refused").len() < 300);
    // What would be a reason is not one in an answer that opens the tunnel.
    let ok = b"HTTP/1.1 200 OK\r\nX-Proxy-Error: none\r\nContent-Type: text/plain\r\n\r\nhello";
    assert_eq!(http(ok).verdict, Ok(Some(ok.len() - 5)));
}

#[test]
fn the_reason_is_told_in_whatever_form_a_proxy_gives_it() {
    const CHUNKED: &str = "Content-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked";
    for (fields, body) in [
        (CHUNKED, "9\r\nnot on th\r\n6;a=b\r\ne list\r\n0\r\n\r\n"),
        (CHUNKED, "F\nnot on the list\n0\n\n"),
        // Cut short, and with a length that does not count then (RFC 9112, 6.3).
        (CHUNKED, "ff\r\nnot on the list"),
        (
            &format!("Content-Length: 3\r\n{CHUNKED}\r\nContent-Length: 3"),
            "f\r\nnot on the list\r\n0\r\n\r\n",
        ),
        ("A: b", "not on the list"),
        ("Content-Type: Application/JSON", "not on the list"),
        ("content-type: application/problem+json; charset=utf-8", "\n\nnot on the list\n"),
        ("Content-Type: text/plain", "not\ton the list"),
        ("Content-Length: 0\r\nX-Squid-Error: not on the list", ""),
        ("Content-Length: 0\r\nproxy-status:not on the list", ""),
    ] {
        let answer = format!("HTTP/1.1 403 No\r\n{fields}\r\n\r\n{body}");
        refused(answer.as_bytes(), "refused: HTTP/1.1 403 No: not on the list");
    }
    let two = "HTTP/1.1 403 No\r\nProxy-Status: a; error=b\r\nX-Proxy-Error: c\r\nContent-Length: 0\r\n\r\n";
    refused(two.as_bytes(), "refused: HTTP/1.1 403 No: a; error=b: c");
    // Neither more fields nor more text make it longer.
    let many =
        [b"HTTP/1.1 403 No\r\n", &b"X-Proxy-Error: x\r\n".repeat(1000)[..], b"\r\n", &[b'y'; 2000]].concat();
    let text = format!("refused: HTTP/1.1 403 No: x: x: x: {}", "y".repeat(100));
    refused(&many, &text);
}

#[test]
fn what_is_not_http_1_is_said_so_at_once() {
    for answer in [
        &b"S"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05\xff",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"<html>no end of line",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\n\r\n",
        b"HTTP/1.x 200 OK\r\n\r\n",
        b"HTTP/1. 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"\n",
    ] {
        let verdict = http(answer).verdict.expect_err("not HTTP");
        assert!(verdict.starts_with("the answer is not HTTP/1: "), "{verdict}");
        assert!(!verdict.contains(char::is_control), "{verdict:?}");
    }
    assert!(http(b"\x05\xff").hint.is_some_and(|hint| hint.contains("socks5h://")));
}

#[test]
fn no_more_of_a_refusals_body_is_awaited_than_is_shown() {
    for length in ["A: b", "Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let mut exchange = handshake(HTTP, "a");
        let head = format!("HTTP/1.1 403 No\r\nContent-Type: text/plain\r\n{length}\r\n\r\n");
        assert_eq!(exchange.feed(&mut head.as_bytes()), Ok(Step::More), "{length}");
        assert_eq!(exchange.feed(&mut &[b'x'; 1023][..]), Ok(Step::More), "{length}");
        exchange.feed(&mut &b"x"[..]).expect_err(length);
    }
}

#[test]
fn an_endless_head_has_an_end() {
    let start = b"HTTP/1.1 200 OK\r\n".to_vec();
    for filler in ["X: y\r\n", "x"] {
        let answer = [&start[..], filler.repeat(1 << 20).as_bytes()].concat();
        let verdict = http(&answer).verdict.expect_err("too long");
        assert_eq!(verdict, format!("the answer's head is longer than {HEAD_LIMIT} bytes"));
    }
    // A refusal is one nonetheless.
    refused(&[b"HTTP/1.1 403 No\r\n", &b"X: y\r\n".repeat(1 << 14)[..]].concat(), "refused: HTTP/1.1 403 No");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    assert!(http(interim.as_bytes()).verdict.is_err());
    let mut longest = start;
    longest.resize(HEAD_LIMIT - 4, b'x');
    longest.extend(b"\r\n\r\n");
    assert_eq!(http(&longest).verdict, Ok(Some(HEAD_LIMIT)));
    longest.insert(HEAD_LIMIT - 4, b'x');
    assert!(http(&longest).verdict.is_err(), "one byte more");
}

/// The answer of a SOCKS5 proxy that wants no authentication and then replies with this.
#[track_caller]
fn socks(reply: &[u8]) -> Outcome {
    told(SOCKS, "example.org", &[&[5, 0], reply].concat())
}

#[test]
fn a_socks_request_carries_a_name_as_a_name_and_an_address_as_an_address() {
    let name = [&[5, 1, 0, 3, 11][..], b"example.org", &[0, 22]].concat();
    let v4 = vec![5, 1, 0, 1, 192, 0, 2, 1, 0, 22];
    let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 22]].concat();
    for (host, request) in [("example.org", name), ("192.0.2.1", v4), ("[::1]", v6)] {
        assert_eq!(handshake(SOCKS, host).opening(), [5, 1, 0]);
        assert_eq!(told(SOCKS, host, &[5, 0]).sent, [request]);
    }
}

#[test]
fn a_socks_reply_of_every_address_type_opens_the_tunnel() {
    for (bound, length) in [
        (vec![1, 0, 0, 0, 0, 0, 0], 10),
        (vec![3, 0, 0, 0], 7),
        ([&[3, 3][..], b"abc", &[0, 0]].concat(), 10),
        ([&[4][..], &[0; 18]].concat(), 22),
    ] {
        let reply = [&[5, 0, 0][..], &bound, b"SSH-2.0"].concat();
        assert_eq!(socks(&reply).verdict, Ok(Some(2 + length)));
        assert_eq!(socks(&reply[..length - 1]).verdict, Ok(None), "not yet");
    }
}

#[test]
fn user_name_and_password_are_sent_when_asked_for() {
    assert_eq!(handshake(SOCKS_LOGIN, "a").opening(), [5, 2, 0, 2]);
    let answer = [&[5, 2, 1, 0][..], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let outcome = told(SOCKS_LOGIN, "a", &answer);
    assert_eq!(outcome.verdict, Ok(Some(14)));
    assert_eq!(outcome.sent, [&b"\x01\x04user\x06secret"[..], &[5, 1, 0, 3, 1, b'a', 0, 22]]);
    // A proxy that wants none does not hear them.
    assert_eq!(told(SOCKS_LOGIN, "a", &[5, 0]).sent, [[5, 1, 0, 3, 1, b'a', 0, 22]]);
}

#[test]
fn every_socks_refusal_is_said_in_words() {
    for (code, words) in [
        (1, "general failure"),
        (2, "not allowed by the proxy's rules"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "TTL expired"),
        (7, "CONNECT not supported"),
        (8, "address type not supported"),
        (9, "unknown reply"),
        (255, "unknown reply"),
    ] {
        // Two bytes are enough: some proxies send no more.
        assert_eq!(socks(&[5, code]).verdict, Err(format!("refused: {words} (SOCKS5 reply {code})")));
    }
}

#[test]
fn a_socks_proxy_that_wants_other_authentication_is_a_refusal() {
    for method in [0xff, 1, 2] {
        let outcome = told(SOCKS, "a", &[5, method]);
        assert_eq!(outcome.verdict, Err("refused: this proxy wants authentication".into()));
        assert!(outcome.hint.is_some_and(|hint| hint.contains("--auth-fd")));
    }
    for method in [0xff, 1] {
        let verdict = told(SOCKS_LOGIN, "a", &[5, method]).verdict.expect_err("refused");
        assert_eq!(verdict, "refused: this proxy accepts no user name and password");
    }
    for method in 3..0xff {
        let not_offered = format!("the proxy chose authentication method {method}, which was not offered");
        for way in [SOCKS, SOCKS_LOGIN] {
            assert_eq!(told(way, "a", &[5, method]).verdict, Err(not_offered.clone()));
        }
    }
    let verdict = told(SOCKS_LOGIN, "a", &[5, 2, 1, 1]).verdict;
    assert_eq!(verdict, Err("refused: wrong user name or password".into()));
}

#[test]
fn what_is_not_socks5_is_said_so() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n"[..], &[4, 0], &[0, 0x5a], &[5, 0, 4, 0], &[5, 0, 0, 0]] {
        let outcome = told(SOCKS, "a", answer);
        assert!(
            outcome.verdict.is_err_and(|message| message.starts_with("the answer is not SOCKS5: it begins"))
        );
        assert!(outcome.hint.is_some_and(|hint| hint.contains("http://")));
    }
    assert!(told(SOCKS_LOGIN, "a", &[5, 2, 5, 0]).verdict.is_err());
    assert!(socks(&[5, 0, 0, 2]).verdict.is_err_and(|message| message.contains("unknown type 2")));
    assert!(socks(&[5, 0, 0, 0]).verdict.is_err());
}

#[test]
fn the_parsers_are_what_the_proxy_url_names() {
    assert_eq!(Proxy::parse(OsStr::new(HTTP)).map(|proxy| proxy.protocol), Ok(Protocol::Http));
    let target = Destination::parse(OsStr::new("a"), OsStr::new("1")).expect("target");
    assert!(http::Exchange::new(&target, None).is_ok() && socks::Exchange::new(&target, None).is_ok());
}
