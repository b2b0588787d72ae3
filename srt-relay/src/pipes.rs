//! Pipes for splice(2). A direction has one only while there are bytes in it.

use srt_common::sys::fd::{fcntl, pipe2, splice};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

/// The requested capacity of all pipes together, in bytes. An ordinary user may have 64 MiB before the kernel makes
/// new pipes small (pipe(7), pipe-user-pages-soft), and other programs of that user need some of it. Nor would more
/// stay in the processor's cache until it is read: with twice as much, 64 streams are half as fast.
const ALL: usize = 32 << 20;

/// The requested capacity of one pipe, at least and at most.
const CAPACITY: (usize, usize) = (512 << 10, 1 << 20);

/// How many pipes there may be: as many as hold the least. Each takes two descriptors, which connections then lack.
pub const MOST: usize = ALL / CAPACITY.0;

/// The flags of splice(2).
const MOVE: libc::c_uint = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;

/// An empty pipe, or one with `held` bytes in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
    _counted: Rc<()>,
}

impl Pipe {
    /// Moves the bytes that `from` has into this empty pipe. Returns 0 at the end of `from`.
    ///
    /// # Errors
    /// Errors of splice(2) that concern `from`.
    pub fn fill(&mut self, from: &impl AsRawFd) -> io::Result<usize> {
        self.held = splice(from, &self.write, self.capacity, MOVE)?;
        Ok(self.held)
    }

    /// Moves the bytes held to `to`, and returns how many are left.
    ///
    /// # Errors
    /// Errors of splice(2) that concern `to`.
    pub fn drain(&mut self, to: &impl AsRawFd) -> io::Result<usize> {
        self.held -= splice(&self.read, to, self.held, MOVE)?.min(self.held);
        Ok(self.held)
    }
}

/// The unused pipes, and the limit on how many pipes there are.
#[derive(Debug)]
pub struct Pipes {
    idle: Vec<Pipe>,
    most: usize,
    capacity: usize,
    count: Rc<()>,
}

impl Pipes {
    /// At most `most` pipes, two descriptors each.
    pub fn new(most: usize) -> Self {
        Self { idle: Vec::new(), most, capacity: CAPACITY.1, count: Rc::new(()) }
    }

    /// Divides the total capacity among the connections.
    pub fn divide(&mut self, connections: usize) {
        // In powers of two, as in the kernel, so that few changes of the number change the size.
        let each = (ALL / connections.max(1)).clamp(CAPACITY.0, CAPACITY.1);
        self.capacity = 1 << each.ilog2();
    }

    /// An empty pipe, or `None`: then bytes are copied instead.
    pub fn take(&mut self) -> Option<Pipe> {
        let mut pipe = self.idle.pop().or_else(|| self.make())?;
        if pipe.capacity != self.capacity {
            // Refused for a user with many pipes: a small pipe works, too.
            let _small = fcntl(&pipe.write, libc::F_SETPIPE_SZ, self.capacity as libc::c_int);
            pipe.capacity = self.capacity;
        }
        Some(pipe)
    }

    fn make(&self) -> Option<Pipe> {
        let made = Rc::strong_count(&self.count) - 1;
        let (read, write) = if made < self.most { pipe2(libc::O_NONBLOCK).ok()? } else { return None };
        Some(Pipe { read, write, capacity: 0, held: 0, _counted: Rc::clone(&self.count) })
    }

    /// Takes an empty pipe back. One that still holds bytes is closed, so that no other connection gets them.
    pub fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.idle.push(pipe);
        }
    }

    /// Closes the unused pipes.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_pipes_hold_is_divided() {
        let mut pipes = Pipes::new(1);
        let capacities = [0, 1, 32, 33, 100_000].map(|connections| {
            pipes.divide(connections);
            pipes.capacity
        });
        assert_eq!(capacities, [1 << 20, 1 << 20, 1 << 20, 512 << 10, 512 << 10]);
    }

    #[test]
    fn nobody_gets_a_pipe_with_anothers_bytes_in_it() {
        let mut pipes = Pipes::new(1);
        let (mut from, source) = UnixStream::pair().expect("a pair");
        let (mut to, sink) = UnixStream::pair().expect("a pair");
        let mut pipe = pipes.take().expect("a pipe");
        from.write_all(b"secret").expect("write");
        assert_eq!(pipe.fill(&source).expect("splice"), 6);
        assert!(pipes.take().is_none(), "there may be one");
        pipes.give(pipe);
        let mut pipe = pipes.take().expect("another");
        from.write_all(b"other").expect("write");
        assert_eq!(pipe.fill(&source).expect("splice"), 5);
        while pipe.drain(&sink).expect("splice") > 0 {}
        drop(sink);
        let mut said = String::new();
        to.read_to_string(&mut said).expect("read");
        assert_eq!(said, "other");
    }
}
