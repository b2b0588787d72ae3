//! HTTP CONNECT (RFC 9110, 9.3.6; RFC 9112 for the form). Pure.

use crate::credentials::Credentials;
use crate::destination::Destination;
use crate::handshake::{Handshake, Step, readable};
use srt_common::{Error, Result};

/// All heads of an answer together, bytes. What proxies send is under 1 KiB; curl and browsers stop at 64 to 300 KiB.
pub const HEAD_LIMIT: usize = 64 * 1024;

/// What is read of a refusal's body, bytes.
pub const BODY_LIMIT: usize = 1024;

/// What an answer begins with, and a digit.
const VERSION: &[u8] = b"HTTP/1.";

/// One CONNECT.
#[derive(Clone, Debug)]
pub struct Exchange {
    request: Vec<u8>,
    authorized: bool,
    /// The line under way, without its end.
    line: Vec<u8>,
    /// The status of the head under way; `None` before its first line.
    status: Option<u16>,
    refusal: Option<Refusal>,
    seen: usize,
}

/// What a proxy that refuses says of its reason.
#[derive(Clone, Debug, Default)]
struct Refusal {
    status_line: String,
    /// Proxy-Authenticate: the schemes that it offers.
    schemes: Vec<String>,
    /// X-Proxy-Error.
    header: String,
    plain_text: bool,
    /// How much of the body is awaited.
    length: usize,
    /// `None`: the head is under way.
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

    /// A line is complete. True after the last one of a head.
    fn line_ended(&mut self) -> Result<bool> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match (self.status, line) {
            (None, _) => {
                let code = status_code(line).ok_or_else(|| not_http(line))?;
                if !matches!(code, 100 | 102..=299) {
                    let status_line = readable(line, 200);
                    self.refusal = Some(Refusal { status_line, length: BODY_LIMIT, ..Refusal::default() });
                }
                self.status = Some(code);
            }
            // 1xx: an interim head, and another follows (RFC 9110, 15.2).
            (Some(100 | 102..=199), []) => self.status = None,
            // A 2xx answer to CONNECT has no body, whatever Content-Length says (RFC 9110, 9.3.6): what follows is the peer's.
            (Some(_), []) => return Ok(true),
            (Some(_), field) => {
                self.refusal.iter_mut().for_each(|refusal| refusal.note(field));
            }
        }
        Ok(false)
    }
}

impl Refusal {
    /// Takes one header field of the answer.
    fn note(&mut self, field: &[u8]) {
        let Some(colon) = field.iter().position(|&byte| byte == b':') else { return };
        let (name, value) = field.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        match name.to_ascii_lowercase().as_slice() {
            b"x-proxy-error" => self.header = readable(value, 100),
            b"content-type" => self.plain_text = value.to_ascii_lowercase().starts_with(b"text/plain"),
            b"content-length" => {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.length = length.unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
            }
            b"transfer-encoding" => self.length = 0,
            b"proxy-authenticate" => self.schemes.extend(schemes(value)),
            _ => {}
        }
    }

    /// No more is of interest.
    fn is_complete(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.len() >= self.length || !self.plain_text)
    }

    fn error(&self, code: u16, authorized: bool) -> Error {
        let body = self.body.iter().flat_map(|body| body.split(|&byte| byte == b'\n'));
        let body =
            body.map(|line| readable(line, 100)).find(|line| !line.trim().is_empty()).unwrap_or_default();
        let parts = [&self.status_line, &self.header, &body].map(|part| part.trim());
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let offer = readable(self.schemes.join(", ").as_bytes(), 60);
        let basic = self.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let offers = if offer.is_empty() { String::new() } else { format!("; it offers {offer}") };
        let error = Error::failed(format!("refused: {}{offers}", parts.join(": ")));
        match (code, authorized) {
            (407, _) if !offer.is_empty() && !basic => {
                error.hint("srt-connect can authenticate with Basic alone, which this proxy does not take")
            }
            (407, false) => error.hint("this proxy wants credentials: --auth-fd N, with user:password in N"),
            (401 | 407, true) => error.hint("this proxy does not take these credentials"),
            _ => error,
        }
    }
}

impl Handshake for Exchange {
    fn opening(&self) -> Vec<u8> {
        self.request.clone()
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Step> {
        for (at, &byte) in bytes.iter().enumerate() {
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
                        None => return Ok(Step::Done(at + 1)),
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
        // Something else than HTTP may never send the line's end.
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

/// The authentication schemes of a list of challenges (RFC 9110, 11.6.1): the first word of each part that has no `=`
/// in it, quoted strings left out.
fn schemes(value: &[u8]) -> Vec<String> {
    let mut quoted = false;
    let bare: Vec<u8> = value
        .iter()
        .copied()
        .filter(|&byte| {
            quoted ^= byte == b'"';
            !quoted
        })
        .collect();
    let parts = bare.split(|&byte| byte == b',').map(|part| part.trim_ascii());
    let words = parts.filter_map(|part| part.split(|&byte| byte == b' ').next());
    words
        .filter(|word| {
            !word.is_empty() && word.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
        .map(|word| readable(word, 20))
        .collect()
}

/// The code in a status line: `HTTP/1.1 200 Connection established`, the last word optional (RFC 9112, 4).
fn status_code(line: &[u8]) -> Option<u16> {
    let [b'0'..=b'9', b' ', rest @ ..] = line.strip_prefix(VERSION)? else { return None };
    let (code @ [b'1'..=b'5', _, _], [] | [b' ', ..]) = rest.split_at_checked(3)? else { return None };
    std::str::from_utf8(code).ok()?.parse().ok()
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
