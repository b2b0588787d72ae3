//! The user name and password for a proxy, from PROXY or from `--auth-fd`.

use crate::deadline::Deadline;
use srt_common::sys::fd::{inherited, read};
use srt_common::{Context, Error, Result};
use std::os::fd::RawFd;

/// How much `--auth-fd` may hold, in bytes: enough for a token as a password.
const CREDENTIALS_LIMIT: usize = 8192;

/// A user name and a password. Never shown: there is no `Debug`.
pub struct Credentials {
    /// Any bytes.
    pub user: Vec<u8>,
    /// Any bytes.
    pub password: Vec<u8>,
}

impl Credentials {
    /// Parses `user:password` of a URL, each percent-encoded (RFC 3986, 2.1).
    ///
    /// # Errors
    /// A usage error for a `%` without two hexadecimal digits.
    pub fn from_url(login: &[u8]) -> Result<Self> {
        let mut parts = login.splitn(2, |&byte| byte == b':');
        let mut next = || percent_decoded(parts.next().unwrap_or_default());
        next().zip(next()).map(|(user, password)| Self { user, password }).ok_or_else(|| {
            Error::usage("--proxy: % in the credentials is not followed by two hexadecimal digits")
                .hint("write %25 for a % in a password")
        })
    }

    /// Reads `user:password` from `fd` to its end, strips one line break there (LF or CRLF), and closes `fd`.
    ///
    /// # Errors
    /// The descriptor is not open, or is stdin, stdout or stderr; no colon; too much data; the deadline.
    pub fn read(fd: RawFd, deadline: Deadline) -> Result<Self> {
        let source = if fd > 2 { inherited(fd).ok() } else { None };
        let source = source.ok_or_else(|| Error::usage("expected an open descriptor from 3 up"))?;
        let mut all = Vec::new();
        let mut chunk = [0; CREDENTIALS_LIMIT];
        loop {
            deadline.wait(&source, libc::POLLIN)?;
            match read(&source, &mut chunk).context(|| "cannot read")? {
                0 => break,
                count => all.extend(chunk.get(..count).unwrap_or_default()),
            }
            if all.len() > CREDENTIALS_LIMIT {
                return Err(Error::failed(format!("more than {CREDENTIALS_LIMIT} bytes")));
            }
        }
        let line = all.strip_suffix(b"\n").map_or(&*all, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut parts = line.splitn(2, |&byte| byte == b':').map(<[u8]>::to_vec);
        let login = parts.next().zip(parts.next()).map(|(user, password)| Self { user, password });
        login.ok_or_else(|| Error::failed("expected user:password"))
    }
}

/// `None` if a `%` is not followed by two hexadecimal digits.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut parts = text.split(|&byte| byte == b'%');
    let mut decoded = parts.next()?.to_vec();
    for part in parts {
        let digit = |at: usize| part.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        decoded.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        decoded.extend(part.get(2..)?);
    }
    Some(decoded)
}
