//! SOCKS5 (RFC 1928) with user name and password (RFC 1929). Does no I/O.

use crate::credentials::Credentials;
use crate::destination::{Destination, Host};
use crate::handshake::{Handshake, Step};
use srt_common::{Error, Result};
use std::net::IpAddr;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const GSSAPI: u8 = 1;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

/// RFC 1928, 6: the meanings of the REP field.
const REPLIES: [&str; 9] = [
    "succeeded",
    "general failure",
    "not allowed by the proxy's rules",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "TTL expired",
    "CONNECT not supported",
    "address type not supported",
];

/// Which of the proxy's three answers comes next.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    Method,
    Admission,
    Reply,
}

/// One CONNECT exchange.
pub struct Exchange {
    /// The messages are built before the proxy is called, so that they cannot fail later.
    request: Vec<u8>,
    login: Option<Vec<u8>>,
    awaited: Awaited,
    answer: Vec<u8>,
}

impl Exchange {
    /// # Errors
    /// Credentials that do not fit (RFC 1929, 2).
    pub fn new(destination: &Destination, credentials: Option<&Credentials>) -> Result<Self> {
        let (kind, address) = match &destination.host {
            Host::Ip(IpAddr::V4(address)) => (1, Some(address.octets().to_vec())),
            Host::Ip(IpAddr::V6(address)) => (4, Some(address.octets().to_vec())),
            Host::Name(name) => (3, counted(name.as_bytes())),
        };
        let address = address.ok_or_else(|| Error::usage("HOST: too long for SOCKS5"))?;
        let connect = [VERSION, 1, 0, kind]; // The command is CONNECT; a reserved byte.
        let request = [connect.as_slice(), &address, &destination.port.to_be_bytes()].concat();
        let login = credentials.map(login).transpose()?;
        Ok(Self { request, login, awaited: Awaited::Method, answer: vec![] })
    }

    /// The length of the awaited answer, as far as its first bytes determine it.
    fn length(&self) -> usize {
        match (self.awaited, self.answer.as_slice()) {
            (Awaited::Reply, [VERSION, 0, _, 1, ..]) => 10,
            (Awaited::Reply, [VERSION, 0, _, 4, ..]) => 22,
            (Awaited::Reply, [VERSION, 0, _, 3, length, ..]) => 7 + usize::from(*length),
            (Awaited::Reply, [VERSION, 0, _, 3]) => 5,
            (Awaited::Reply, [VERSION, 0, ..]) => 4,
            // Some proxies end a refusal here.
            _ => 2,
        }
    }

    /// The awaited answer is complete.
    fn answered(&mut self) -> Result<Step> {
        let answer = std::mem::take(&mut self.answer);
        match (self.awaited, answer.as_slice(), &self.login) {
            (Awaited::Method, [VERSION, NO_AUTHENTICATION], _) | (Awaited::Admission, [1, 0], _) => {
                self.awaited = Awaited::Reply;
                Ok(Step::Send(self.request.clone()))
            }
            (Awaited::Method, [VERSION, PASSWORD], Some(login)) => {
                self.awaited = Awaited::Admission;
                Ok(Step::Send(login.clone()))
            }
            (Awaited::Method, [VERSION, NONE_ACCEPTABLE | GSSAPI | PASSWORD], None) => {
                Err(Error::failed("refused: this proxy wants authentication")
                    .hint("give user:password with --auth-fd N; GSSAPI is not supported"))
            }
            (Awaited::Method, [VERSION, NONE_ACCEPTABLE | GSSAPI], Some(_)) => {
                Err(Error::failed("refused: this proxy accepts no user name and password"))
            }
            (Awaited::Method, [VERSION, other], _) => Err(Error::failed(format!(
                "the proxy chose authentication method {other}, which was not offered"
            ))),
            (Awaited::Admission, [1, _], _) => Err(Error::failed("refused: wrong user name or password")),
            (Awaited::Reply, [VERSION, 0, _, 1 | 3 | 4, ..], _) => Ok(Step::Done),
            (Awaited::Reply, [VERSION, 0, _, other], _) => {
                Err(Error::failed(format!("the answer has an address of unknown type {other}")))
            }
            (Awaited::Reply, [VERSION, code, ..], _) => {
                let words = REPLIES.get(usize::from(*code)).copied().unwrap_or("unknown reply");
                Err(Error::failed(format!("refused: {words} (SOCKS5 reply {code})")))
            }
            (_, answer, _) => {
                let first = answer.first().copied().unwrap_or_default();
                Err(Error::failed(format!("the answer is not SOCKS5: it begins with {first:#04x}"))
                    .hint("an HTTP proxy is http://IP:PORT"))
            }
        }
    }
}

impl Handshake for Exchange {
    fn opening(&self) -> Vec<u8> {
        match self.login {
            None => vec![VERSION, 1, NO_AUTHENTICATION],
            Some(_) => vec![VERSION, 2, NO_AUTHENTICATION, PASSWORD],
        }
    }

    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Step> {
        while let Some(&byte) = bytes.split_off_first() {
            self.answer.push(byte);
            if self.answer.len() >= self.length() {
                return self.answered();
            }
        }
        Ok(Step::More)
    }
}

/// RFC 1929, 2. An empty user name or password cannot be encoded.
fn login(Credentials { user, password }: &Credentials) -> Result<Vec<u8>> {
    let parts = counted(user).zip(counted(password));
    let (user, password) = parts
        .ok_or_else(|| Error::usage("SOCKS5 takes a user name and a password of 1 to 255 bytes each"))?;
    Ok([vec![1], user, password].concat())
}

/// The bytes, preceded by their number. `None` if that is not 1 to 255.
fn counted(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(bytes.len()).ok().filter(|&length| length > 0)?;
    Some([&[length], bytes].concat())
}
