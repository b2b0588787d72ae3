//! What the flows of all connections share: pipes for splice(2), of which a flow has one only while there are bytes in
//! it, and a buffer to copy through.

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

/// The most pipes: as many as have the least capacity together. Each takes two descriptors from the connections.
pub const MOST: usize = ALL / CAPACITY.0;

/// How much is copied at once, in bytes. Also the most that a flow holds in memory while its reader is stalled. (64
/// KiB would take 2.3 times the CPU time per byte from a Unix socket to TCP.)
pub const COPY: usize = 256 << 10;

/// An empty pipe, or one with `held` bytes in it.
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
        self.held = splice(from, &self.write, self.capacity, libc::SPLICE_F_NONBLOCK)?;
        Ok(self.held)
    }

    /// Moves the bytes held to `to`, and returns how many are left.
    ///
    /// # Errors
    /// Errors of splice(2) that concern `to`.
    pub fn drain(&mut self, to: &impl AsRawFd) -> io::Result<usize> {
        self.held -= splice(&self.read, to, self.held, libc::SPLICE_F_NONBLOCK)?.min(self.held);
        Ok(self.held)
    }
}

/// The unused pipes, the limit on how many pipes there are, and the buffer.
pub struct Pool {
    idle: Vec<Pipe>,
    most: usize,
    capacity: usize,
    count: Rc<()>,
    /// One buffer to copy through.
    pub buffer: Box<[u8]>,
    /// How much of the buffer one flow may fill.
    pub share: usize,
}

impl Pool {
    /// At most `most` pipes, two descriptors each.
    pub fn new(most: usize) -> Self {
        let (idle, count, buffer) = (Vec::new(), Rc::new(()), vec![0; COPY].into());
        Self { idle, most, capacity: CAPACITY.1, count, buffer, share: COPY }
    }

    /// Divides the total capacity of the pipes among the connections, and 64 MiB of memory among the flows, so that
    /// even thousands of stalled readers do not fill it.
    pub fn divide(&mut self, connections: usize) {
        // In powers of two, as in the kernel, so that few changes of the number change the size.
        let each = (ALL / connections.max(1)).clamp(CAPACITY.0, CAPACITY.1);
        self.capacity = 1 << each.ilog2();
        self.share = ((64 << 20) / connections.max(1)).clamp(16 << 10, COPY);
    }

    /// An empty pipe, or `None`: then bytes are copied instead.
    pub fn take_pipe(&mut self) -> Option<Pipe> {
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
        let (read, write) = if made < self.most { pipe2(0).ok()? } else { return None };
        Some(Pipe { read, write, capacity: 0, held: 0, _counted: Rc::clone(&self.count) })
    }

    /// Takes an empty pipe back. One that still holds bytes is closed, so that no other connection gets them.
    pub fn give_pipe(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.idle.push(pipe);
        }
    }

    /// Closes the unused pipes.
    pub fn close_unused_pipes(&mut self) {
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
        let mut pool = Pool::new(1);
        let capacities = [0, 1, 32, 33, 100_000].map(|connections| {
            pool.divide(connections);
            pool.capacity
        });
        assert_eq!(capacities, [1 << 20, 1 << 20, 1 << 20, 512 << 10, 512 << 10]);
    }

    #[test]
    fn nobody_gets_a_pipe_with_anothers_bytes_in_it() {
        let mut pool = Pool::new(1);
        let (mut from, source) = UnixStream::pair().expect("a pair");
        let (mut to, sink) = UnixStream::pair().expect("a pair");
        let mut pipe = pool.take_pipe().expect("a pipe");
        from.write_all(b"secret").expect("write");
        assert_eq!(pipe.fill(&source).expect("splice"), 6);
        assert!(pool.take_pipe().is_none(), "there may be one");
        pool.give_pipe(pipe);
        let mut pipe = pool.take_pipe().expect("another");
        from.write_all(b"other").expect("write");
        assert_eq!(pipe.fill(&source).expect("splice"), 5);
        while pipe.drain(&sink).expect("splice") > 0 {}
        drop(sink);
        let mut said = String::new();
        to.read_to_string(&mut said).expect("read");
        assert_eq!(said, "other");
    }
    #[test]
    fn however_many_connections_there_are_they_hold_64_mib_and_each_16_kib() {
        let mut pool = Pool::new(1);
        for (connections, share) in
            [(0, COPY), (1, COPY), (256, COPY), (512, 128 << 10), (4096, 16 << 10), (100_000, 16 << 10)]
        {
            pool.divide(connections);
            assert_eq!(pool.share, share, "{connections}");
        }
    }
}
