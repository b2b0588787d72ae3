//! Feeds an answer whole and in pieces: it must mean the same.

use srt_common::Error;
use srt_connect::handshake::{Handshake, Step};

/// What was sent, and where the peer's bytes begin. `None` for an answer that is not complete.
type Outcome = Result<Option<(Vec<Vec<u8>>, usize)>, Error>;

fn feed<'a>(handshake: &mut dyn Handshake, segments: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let (mut sent, mut consumed) = (vec![], 0);
    for mut bytes in segments {
        while !bytes.is_empty() {
            let given = bytes.len();
            let step = handshake.feed(&mut bytes)?;
            assert!(bytes.len() < given);
            consumed += given - bytes.len();
            match step {
                Step::More => assert!(bytes.is_empty()),
                Step::Send(message) => sent.push(message),
                Step::Done => return Ok(Some((sent, consumed))),
            }
        }
    }
    Ok(None)
}

/// `input` is an answer, behind one byte that says how to cut it.
pub fn check(input: &[u8], fresh: impl Fn() -> Box<dyn Handshake>) {
    let Some((&size, answer)) = input.split_first() else { return };
    let whole = feed(fresh().as_mut(), [answer].into_iter());
    let pieces = feed(fresh().as_mut(), answer.chunks(usize::from(size).max(1)));
    match (&whole, &pieces) {
        (Err(one), Err(other)) => {
            for error in [one, other] {
                assert!(error.message.is_ascii() && !error.message.contains(|c: char| c.is_control()));
                assert!(error.message.len() < 500);
            }
        }
        _ => assert_eq!(whole, pieces),
    }
}
