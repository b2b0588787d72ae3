//! What both proxy protocols have in common: bytes in, what to do next out.

use srt_common::{Error, Result};

/// What a handshake wants after the bytes that it was fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes. All that were fed are used.
    More,
    /// These bytes must go to the proxy. So many of those fed are used.
    Send(Vec<u8>, usize),
    /// The tunnel stands. So many of the bytes fed are used; the rest is the peer's.
    Done(usize),
}

/// One side of a conversation with a proxy. Pure: how its bytes are cut into segments makes no difference.
pub trait Handshake {
    /// What is sent first.
    fn opening(&self) -> Vec<u8>;

    /// Reads what came.
    ///
    /// # Errors
    /// A refusal, or an answer that is not of this protocol.
    fn feed(&mut self, bytes: &[u8]) -> Result<Step>;

    /// The proxy has refused, and may go on with its reason: what is known by now.
    fn refusal(&self) -> Option<Error> {
        None
    }
}

/// Foreign bytes for a message, `most` of them: printable ASCII alone, nothing that a terminal would obey or show in
/// another order.
pub fn readable(bytes: &[u8], most: usize) -> String {
    // A tab stands between words.
    let shown = bytes.iter().map(|&byte| if byte == b'\t' { b' ' } else { byte });
    let shown = shown.filter(|byte| !byte.is_ascii_control()).take(most);
    shown.map(|byte| if byte.is_ascii() { char::from(byte) } else { '?' }).collect()
}
