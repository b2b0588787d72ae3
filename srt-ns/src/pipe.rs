//! A pipe that holds a child back until everybody has let it go.

use crate::sys;
use srt_common::{Context, Result};
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// One pipe, both ends, before the fork.
#[derive(Debug)]
pub struct Gate {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Gate {
    /// A new pipe, both ends close-on-exec.
    ///
    /// # Errors
    /// What pipe2(2) says.
    pub fn new() -> Result<Self> {
        let (reader, writer) = pipe().context(|| "pipe")?;
        Ok(Self { reader: reader.into(), writer: writer.into() })
    }

    /// The side that waits.
    pub fn waiter(self) -> Waiter {
        Waiter(File::from(self.reader))
    }

    /// The side that lets go.
    pub fn opener(self) -> Opener {
        Opener(File::from(self.writer))
    }
}

/// The end that waits.
#[derive(Debug)]
pub struct Waiter(File);

impl Waiter {
    /// Waits for `count` bytes (at most 8). When every writer is gone this process ends here, without a word: who
    /// held the other end has said why, or nobody is left to listen.
    pub fn wait(mut self, count: usize) {
        let mut bytes = [0; 8];
        if bytes.get_mut(..count).is_none_or(|bytes| self.0.read_exact(bytes).is_err()) {
            sys::exit(125);
        }
    }
}

/// The end that lets go.
#[derive(Debug)]
pub struct Opener(File);

impl Opener {
    /// The descriptor, for one who closes all others.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Writes one byte. That nobody waits any more is not the writer's failure: waitid(2) tells it.
    pub fn open(mut self) {
        let _gone = self.0.write_all(b"!");
    }
}
