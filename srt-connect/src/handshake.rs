//! What both proxy protocols have in common: bytes are the input, the next step is the result.

use srt_common::{Error, Result};

/// What a handshake needs after the bytes that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes. All bytes given were used.
    More,
    /// These bytes must be sent to the proxy.
    Send(Vec<u8>),
    /// The tunnel is established. The bytes that are left are from the peer.
    Done,
}

/// The client's side of a proxy protocol, without I/O: it does not matter how the bytes are split into segments.
pub trait Handshake {
    /// The first message.
    fn opening(&self) -> Vec<u8>;

    /// Processes received bytes, up to the one that completes a step: the others stay in `bytes`.
    ///
    /// # Errors
    /// A refusal, or an answer that is not of this protocol.
    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Step>;

    /// The refusal, as far as it is known: the proxy may still be sending its reason.
    fn refusal(&self) -> Option<Error> {
        None
    }
}

/// Untrusted bytes for a message, `most` of them: only printable ASCII, nothing that a terminal would interpret or
/// show in another order.
pub fn readable(bytes: &[u8], most: usize) -> String {
    // A tab separates words.
    let shown = bytes.iter().map(|&byte| if byte == b'\t' { b' ' } else { byte });
    let shown = shown.filter(|byte| !byte.is_ascii_control()).take(most);
    shown.map(|byte| if byte.is_ascii() { char::from(byte) } else { '?' }).collect()
}
