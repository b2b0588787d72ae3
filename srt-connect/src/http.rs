//! HTTP CONNECT (RFC 9110, 9.3.6; RFC 9112 for the form). Pure.

use crate::credentials::Credentials;
use crate::handshake::{Handshake, Step, readable};
use crate::target::Target;
use srt_common::{Error, Result};

/// All heads of an answer together, bytes. What proxies send is under 1 KiB; curl and browsers stop at 64 to 300 KiB.
pub const HEAD_LIMIT: usize = 64 * 1024;

/// One CONNECT.
#[derive(Clone, Debug)]
pub struct Exchange {
    request: Vec<u8>,
    authorized: bool,
    /// The line under way, without its end.
    line: Vec<u8>,
    /// The status of the head under way; `None` before its first line.
    status: Option<u16>,
    seen: usize,
}

impl Exchange {
    /// # Errors
    /// Credentials that Basic authentication cannot carry (RFC 7617, 2).
    pub fn new(target: &Target, credentials: Option<&Credentials>) -> Result<Self> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(Credentials { user, password }) = credentials {
            if user.contains(&b':') {
                return Err(Error::usage("a user name with a colon cannot be sent in HTTP"));
            }
            if user.iter().chain(password).any(u8::is_ascii_control) {
                return Err(Error::usage("credentials with a control character cannot be sent in HTTP"));
            }
            let login = [user, b":".as_slice(), password].concat();
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64(&login)));
        }
        request.push_str("\r\n");
        let authorized = credentials.is_some();
        Ok(Self { request: request.into_bytes(), authorized, line: vec![], status: None, seen: 0 })
    }

    /// A line is complete. True after the last one.
    fn line_ended(&mut self) -> Result<bool> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match (self.status, line) {
            (None, _) => self.status = Some(self.judge(line)?),
            // 1xx: an interim head, and another follows (RFC 9110, 15.2).
            (Some(100..=199), []) => self.status = None,
            // A 2xx answer to CONNECT has no body, whatever Content-Length says (RFC 9110, 9.3.6): what follows is the peer's.
            (Some(_), []) => return Ok(true),
            (Some(_), _) => {}
        }
        Ok(false)
    }

    /// Takes 1xx and 2xx. Anything else is reported at its first line: a proxy that refuses may send no more.
    fn judge(&self, line: &[u8]) -> Result<u16> {
        match status_code(line) {
            Some(code @ (100 | 102..=299)) => Ok(code),
            Some(code) => {
                let error = Error::failed(format!("refused: {}", readable(line)));
                Err(match (code, self.authorized) {
                    (407, false) => {
                        error.hint("this proxy wants credentials: --auth-fd N, with user:password in N")
                    }
                    (401 | 407, true) => error.hint("this proxy does not take these credentials"),
                    _ => error,
                })
            }
            None => Err(not_http(line)),
        }
    }
}

impl Handshake for Exchange {
    fn opening(&self) -> Vec<u8> {
        self.request.clone()
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Step> {
        for (at, &byte) in bytes.iter().enumerate() {
            self.seen += 1;
            if self.seen > HEAD_LIMIT {
                return Err(Error::failed(format!("the answer's head is longer than {HEAD_LIMIT} bytes")));
            }
            match byte {
                b'\n' if self.line_ended()? => return Ok(Step::Done(at + 1)),
                b'\n' => {}
                _ => self.line.push(byte),
            }
        }
        // Something else than HTTP may never send the line's end.
        let prefix = b"HTTP/1.";
        let common = self.line.len().min(prefix.len());
        if self.status.is_none() && self.line.get(..common) != prefix.get(..common) {
            return Err(not_http(&self.line));
        }
        Ok(Step::More)
    }
}

fn not_http(line: &[u8]) -> Error {
    Error::failed(format!("the answer is not HTTP/1: {:?}", readable(line)))
        .hint("a SOCKS5 proxy is socks5h://IP:PORT")
}

/// The code in a status line: `HTTP/1.1 200 Connection established`, the last word optional (RFC 9112, 4).
fn status_code(line: &[u8]) -> Option<u16> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', rest @ ..] = line else { return None };
    let (code, [] | [b' ', ..]) = rest.split_at_checked(3)? else { return None };
    let code = code
        .iter()
        .try_fold(0, |code, byte| byte.is_ascii_digit().then(|| code * 10 + u16::from(byte - b'0')));
    code.filter(|code| (100..600).contains(code))
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([&0; 2]).take(3).fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        for place in 0..4 {
            let letter = ALPHABET.get(bits >> (18 - 6 * place) & 63).filter(|_| place <= group.len());
            text.push(letter.map_or('=', |&letter| char::from(letter)));
        }
    }
    text
}
