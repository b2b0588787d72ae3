//! Pipes for splice(2), lent to a direction only while bytes are in them.

use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

/// What one pipe is asked to hold, in bytes. An ordinary user's pipes may hold 64 MiB together before the
/// kernel makes new ones small (pipe(7), pipe-user-pages-soft), and other programs of that user need some.
const CAPACITY: usize = 1 << 20;

/// An empty pipe, or one with `held` bytes in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _counted: Rc<()>,
}

impl Pipe {
    /// Moves what `from` has into this empty pipe. 0 is the end of `from`.
    ///
    /// # Errors
    /// What splice(2) says of `from`.
    pub fn fill(&mut self, from: &impl AsRawFd) -> io::Result<usize> {
        self.held = sys::splice(from, &self.write, CAPACITY)?;
        Ok(self.held)
    }

    /// Moves what is held to `to`, and returns how much is left.
    ///
    /// # Errors
    /// What splice(2) says of `to`.
    pub fn drain(&mut self, to: &impl AsRawFd) -> io::Result<usize> {
        self.held -= sys::splice(&self.read, to, self.held)?.min(self.held);
        Ok(self.held)
    }
}

/// The pipes that are in nobody's use, and the bound on how many there are.
#[derive(Debug)]
pub struct Pipes {
    idle: Vec<Pipe>,
    most: usize,
    count: Rc<()>,
}

impl Pipes {
    /// At most `most` pipes, two descriptors each.
    pub fn new(most: usize) -> Self {
        Self { idle: Vec::new(), most, count: Rc::new(()) }
    }

    /// An empty pipe, or none: then bytes are copied instead.
    pub fn take(&mut self) -> Option<Pipe> {
        self.idle.pop().or_else(|| {
            let made = Rc::strong_count(&self.count) - 1;
            let (read, write) = if made < self.most { sys::pipe().ok()? } else { return None };
            // Refused to a user with many pipes: a small one works as well.
            let _small = sys::set_pipe_size(&write, CAPACITY);
            Some(Pipe { read, write, held: 0, _counted: Rc::clone(&self.count) })
        })
    }

    /// Takes an empty pipe back. One that still holds bytes is closed, so that nobody else gets them.
    pub fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.idle.push(pipe);
        }
    }

    /// Closes those that nobody uses.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}
