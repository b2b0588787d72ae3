//! HTTP CONNECT (RFC 9110, 9.3.6; the format is that of RFC 9112). Does no I/O.

use crate::credentials::Credentials;
use crate::destination::Destination;
use crate::handshake::{Handshake, Step, readable};
use srt_common::{Error, Result};

/// The limit for all heads of an answer, in bytes. Proxies send less than 1 KiB; curl and browsers accept 64 to 300
/// KiB.
pub const HEAD_LIMIT: usize = 64 * 1024;

/// How much of a refusal's body is read, in bytes.
const BODY_LIMIT: usize = 1024;

/// The start of an answer; a digit follows.
const VERSION: &[u8] = b"HTTP/1.";

/// The end of a chunked body without trailer fields.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One CONNECT exchange.
pub struct Exchange {
    request: Vec<u8>,
    authorized: bool,
    /// The current line, without its end.
    line: Vec<u8>,
    /// The status of the current head; `None` before its first line.
    status: Option<u16>,
    refusal: Option<Refusal>,
    seen: usize,
}

/// The reason that a proxy gives for a refusal.
#[derive(Default)]
struct Refusal {
    /// The status line, then at most three reasons in header fields.
    reasons: Vec<String>,
    /// Proxy-Authenticate: the schemes that the proxy offers.
    schemes: Vec<String>,
    /// Whether the body is readable text. `None`: its type is not given.
    text: Option<bool>,
    /// The body is chunked (RFC 9112, 7.1).
    chunked: bool,
    /// How much of the body to wait for.
    length: usize,
    /// `None`: the head is not complete.
    body: Option<Vec<u8>>,
}

impl Exchange {
    /// # Errors
    /// Credentials that Basic authentication cannot carry (RFC 7617, 2).
    pub fn new(destination: &Destination, credentials: Option<&Credentials>) -> Result<Self> {
        let mut request = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n");
        if let Some(Credentials { user, password }) = credentials {
            if user.contains(&b':') {
                return Err(Error::usage("a user name with a colon cannot be sent in HTTP"));
            }
            if let Some(byte) = user.iter().chain(password).find(|byte| byte.is_ascii_control()) {
                let name = match byte {
                    b'\r' => "CR, carriage return".to_owned(),
                    b'\n' => "LF, line feed".to_owned(),
                    byte => format!("{byte:#04x}"),
                };
                return Err(Error::usage(format!(
                    "credentials with a control character ({name}) cannot be sent in HTTP"
                )));
            }
            let login = [user, b":".as_slice(), password].concat();
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64(&login)));
        }
        request.push_str("\r\n");
        let (request, authorized) = (request.into_bytes(), credentials.is_some());
        Ok(Self { request, authorized, line: vec![], status: None, refusal: None, seen: 0 })
    }

    /// Processes a complete line. True after the last one of a head.
    fn line_ended(&mut self) -> Result<bool> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match (self.status, line) {
            (None, _) => {
                let code = status_code(line).ok_or_else(|| not_http(line))?;
                if !matches!(code, 100 | 102..=299) {
                    let reasons = vec![readable(line, 200)];
                    self.refusal = Some(Refusal { reasons, length: BODY_LIMIT, ..Refusal::default() });
                }
                self.status = Some(code);
            }
            // 1xx: an interim head, and another follows (RFC 9110, 15.2).
            (Some(100 | 102..=199), []) => self.status = None,
            // A 2xx answer to CONNECT has no body, whatever Content-Length says (RFC 9110, 9.3.6): the peer's data
            // follows.
            (Some(_), []) => return Ok(true),
            (Some(_), field) => self.refusal.iter_mut().for_each(|refusal| refusal.note(field)),
        }
        Ok(false)
    }
}

impl Refusal {
    /// Records one header field of the answer.
    fn note(&mut self, field: &[u8]) {
        let Some(colon) = field.iter().position(|&byte| byte == b':') else { return };
        let (name, value) = field.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        match name.to_ascii_lowercase().as_slice() {
            // Used by many proxies, by Squid, and in RFC 9209.
            b"x-proxy-error" | b"x-squid-error" | b"proxy-status" if self.reasons.len() < 4 => {
                self.reasons.push(readable(value, 100));
            }
            b"content-type" => {
                let kind = value.to_ascii_lowercase();
                let known: [&[u8]; 3] = [b"text/plain", b"application/json", b"application/problem+json"];
                self.text = Some(known.iter().any(|known| kind.starts_with(known)));
            }
            b"content-length" => {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.length = length.filter(|_| !self.chunked).unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
            }
            b"transfer-encoding" => (self.chunked, self.length) = (true, BODY_LIMIT),
            b"proxy-authenticate" => self.schemes.extend(schemes(value)),
            _ => {}
        }
    }

    /// Whether no more data is needed.
    fn is_complete(&self) -> bool {
        let ended = |body: &[u8]| body.len() >= self.length || self.chunked && body.ends_with(LAST_CHUNK);
        self.body.as_ref().is_some_and(|body| ended(body) || self.text == Some(false))
    }

    /// The first line of the body, if it is text.
    fn first_line(&self) -> Option<String> {
        let body = self.body.as_deref().filter(|_| self.text != Some(false))?;
        let body = if self.chunked { without_chunks(body) } else { body.to_vec() };
        let lines = body.split(|&byte| byte == b'\n').map(|line| readable(line, 100));
        let first = lines.into_iter().find(|line| !line.trim().is_empty());
        // A body without a type may be HTML.
        first.filter(|line| self.text.is_some() || !line.trim().starts_with('<'))
    }

    fn error(&self, code: u16, authorized: bool) -> Error {
        let parts = self.reasons.iter().cloned().chain(self.first_line());
        let parts = parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.collect();
        let offer = readable(self.schemes.join(", ").as_bytes(), 60);
        let basic = self.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let offers = if offer.is_empty() { String::new() } else { format!("; it offers {offer}") };
        let error = Error::failed(format!("refused: {}{offers}", parts.join(": ")));
        match (code, authorized) {
            (407, _) if !offer.is_empty() && !basic => {
                error.hint("srt-connect supports only Basic, which this proxy does not accept")
            }
            (407, false) => error.hint("this proxy needs credentials: --auth-fd N, with user:password in N"),
            (401 | 407, true) => error.hint("this proxy rejects these credentials"),
            _ => error,
        }
    }
}

impl Handshake for Exchange {
    fn opening(&self) -> Vec<u8> {
        self.request.clone()
    }

    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Step> {
        while let Some(&byte) = bytes.split_off_first() {
            if let Some(Refusal { body: Some(body), .. }) = &mut self.refusal {
                body.push(byte);
            } else {
                self.seen += 1;
                if self.seen > HEAD_LIMIT {
                    let long = format!("the answer's head is longer than {HEAD_LIMIT} bytes");
                    return Err(self.refusal().unwrap_or_else(|| Error::failed(long)));
                }
                if byte != b'\n' {
                    self.line.push(byte);
                } else if self.line_ended()? {
                    match &mut self.refusal {
                        None => return Ok(Step::Done),
                        Some(refusal) => refusal.body = Some(vec![]),
                    }
                }
            }
            if self.refusal.as_ref().is_some_and(Refusal::is_complete)
                && let Some(refusal) = self.refusal()
            {
                return Err(refusal);
            }
        }
        // A server with another protocol may never send the end of the line.
        let common = self.line.len().min(VERSION.len());
        if self.status.is_none() && self.line.get(..common) != VERSION.get(..common) {
            return Err(not_http(&self.line));
        }
        Ok(Step::More)
    }

    fn refusal(&self) -> Option<Error> {
        Some(self.refusal.as_ref()?.error(self.status?, self.authorized))
    }
}

fn not_http(line: &[u8]) -> Error {
    Error::failed(format!("the answer is not HTTP/1: {:?}", readable(line, 200)))
        .hint("a SOCKS5 proxy is socks5h://IP:PORT")
}

/// The data in chunks (RFC 9112, 7.1). If one is wrong or cut short, the data before the error.
fn without_chunks(mut chunks: &[u8]) -> Vec<u8> {
    let mut data = vec![];
    while let Some(end) = chunks.iter().position(|&byte| byte == b'\n') {
        let (line, rest) = chunks.split_at(end + 1);
        let digits = line.split(|byte| !byte.is_ascii_hexdigit()).next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(size @ 1..) = size else { break };
        let (chunk, rest) = rest.split_at(size.min(rest.len()));
        data.extend(chunk);
        chunks = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")).unwrap_or_default();
    }
    data
}

/// The authentication schemes in a list of challenges (RFC 9110, 11.6.1): the first word of each part without `=`,
/// outside quoted strings.
fn schemes(value: &[u8]) -> Vec<String> {
    let bare = value.split(|&byte| byte == b'"').step_by(2).collect::<Vec<_>>().join(&b'"');
    let parts = bare.split(|&byte| byte == b',').map(|part| part.trim_ascii());
    let words = parts.filter_map(|part| part.split(|&byte| byte == b' ').next());
    let is_token = |word: &&[u8]| word.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    words.filter(|word| !word.is_empty()).filter(is_token).map(|word| readable(word, 20)).collect()
}

/// The code in a status line: `HTTP/1.1 200 Connection established`, where the last part is optional (RFC 9112, 4).
fn status_code(line: &[u8]) -> Option<u16> {
    let [b'0'..=b'9', b' ', rest @ ..] = line.strip_prefix(VERSION)? else { return None };
    let (code @ [b'1'..=b'5', _, _], [] | [b' ', ..]) = rest.split_at_checked(3)? else { return None };
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// Base64 (RFC 4648, 4).
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
