//! One connection: two sockets and the two flows of bytes between them.
//!
//! # Half-close
//!
//! A flow is in one of three states, and only moves down this list:
//!
//! - `Open`: its source may still send.
//! - `Draining`: its source has ended (a FIN, or SHUT_WR on a Unix socket), and bytes received before are still held
//!   here because its destination is slow.
//! - `Finished`: nothing more will pass. Either everything was delivered and the end was passed on with SHUT_WR, or
//!   the destination has refused bytes (EPIPE, ECONNRESET): its reader is gone.
//!
//! So a connection is in one of these states (client → target, target → client):
//!
//! - Open, Open: established.
//! - Draining or Finished, Open: the client has sent its request and waits. However long the target takes to answer,
//!   the flow back stays open: only `--idle-timeout` limits it.
//! - Open, Draining or Finished: the target has sent everything and may go on reading.
//! - Finished, Finished: done; both sockets are closed.
//!
//! It leaves them early in two cases:
//!
//! - A flow whose destination refuses bytes is Finished, but the other flow goes on: if a server answers "too large"
//!   and closes while the client still sends, its answer is delivered, as far as the client's kernel accepts it
//!   before both sockets are closed with unread data of the client (a reset, tcp(7)).
//! - Reading from TCP fails (a reset, a keepalive without an answer): what was sent before was delivered or is lost
//!   with its sender. Both sockets are closed, with a reset if the protocol has one, so that a broken stream is not
//!   mistaken for a complete one.
//!
//! A socket that has hung up or failed (EPOLLHUP, EPOLLERR) accepts no more bytes. Once its own flow is Finished, the
//! flow towards it is Finished too, since the socket can report nothing more; before, what it sent is read.

use crate::listener::reset_on_close;
use crate::pool::{COPY, Pipe, Pool};
use srt_common::sys::socket::shutdown;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// After a read of this many bytes, the next one uses a pipe.
const BULK: usize = 64 << 10;

/// How many pieces one flow moves before the next connection is served.
const ROUNDS: usize = 2;

/// One socket of a connection. Readiness is edge-triggered (epoll(7)): it is set here when it is reported, and
/// cleared when the kernel returns EAGAIN.
pub struct Peer {
    socket: File,
    readable: bool,
    writable: bool,
    /// epoll has reported a hangup or an error.
    gone: bool,
    /// Its reset was returned to a write, or to the attempt to connect. The kernel will not report it again.
    pub reset: bool,
    /// Its bytes are in pages that splice(2) can move: it is a TCP socket.
    splices: bool,
}

impl Peer {
    fn new(socket: OwnedFd, family: libc::c_int) -> Self {
        let splices = family != libc::AF_UNIX;
        Self { socket: socket.into(), readable: false, writable: false, gone: false, reset: false, splices }
    }

    /// Records what epoll reports about it.
    pub fn note(&mut self, events: u32) {
        let has = |flags: libc::c_int| events & flags as u32 != 0;
        let gone = has(libc::EPOLLHUP | libc::EPOLLERR);
        self.gone |= gone;
        // A socket in error counts as both, so that the next call returns the error.
        self.readable |= gone || has(libc::EPOLLIN);
        self.writable |= gone || has(libc::EPOLLOUT);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Draining,
    Finished,
}

/// What a flow has read but not written yet.
enum Held {
    Nothing,
    Pipe(Pipe),
    Bytes(Box<[u8]>, usize),
}

/// One direction.
struct Flow {
    state: State,
    held: Held,
    /// The last read was large: the next one uses a pipe.
    bulk: bool,
}

impl Flow {
    const NEW: Self = Self { state: State::Open, held: Held::Nothing, bulk: false };

    /// Moves a bounded amount of bytes from `from` to `to`. True: there may be more, but other connections are served
    /// first. False: this flow waits for one of the two sockets, or is finished.
    ///
    /// # Errors
    /// `from` cannot be read: the connection is broken.
    fn pump(&mut self, from: &mut Peer, to: &mut Peer, pool: &mut Pool) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            // What the destination does not accept stays in the source's socket, whose window then slows the sender.
            if self.state == State::Finished || !to.writable {
                return Ok(false);
            }
            if let Err(error) = self.deliver(to, pool) {
                self.stalled_or_refused(&error, from, to);
                return Ok(false);
            }
            if self.state == State::Draining {
                // Fails only if the destination is gone, which its own flow detects.
                let _gone = shutdown(&to.socket, libc::SHUT_WR);
                self.state = State::Finished;
                return Ok(false);
            }
            if !from.readable {
                return Ok(false);
            }
            match self.fetch(from, to, pool) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    from.readable = false;
                    return Ok(false);
                }
                // unix(7): its peer has closed with unread bytes. The error comes after all that the peer sent, so
                // what has yet to be delivered must not be lost by a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset && !from.splices => {
                    self.state = State::Draining;
                }
                result => result?,
            }
        }
        Ok(true)
    }

    /// Reads once. The bytes are then held, or written already.
    fn fetch(&mut self, from: &mut Peer, to: &mut Peer, pool: &mut Pool) -> io::Result<()> {
        let pipe = if self.bulk && from.splices { pool.take_pipe() } else { None };
        // At TCP's urgent mark splice(2) stops permanently, with 0 or EAGAIN: only a read continues after it, or
        // reports that there is nothing (__tcp_read_sock() in net/ipv4/tcp.c).
        let count = match pipe.map(|pipe| self.splice(from, pipe, pool)) {
            Some(Ok(count @ 1..)) => count,
            Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => self.copy(from, to, pool)?,
        };
        self.bulk = count >= pool.share.min(BULK);
        if count == 0 {
            // The kernel reports a reset once; later calls see an end (sock_error() in include/net/sock.h).
            if from.reset {
                return Err(ErrorKind::ConnectionReset.into());
            }
            self.state = State::Draining;
        }
        Ok(())
    }

    fn splice(&mut self, from: &Peer, mut pipe: Pipe, pool: &mut Pool) -> io::Result<usize> {
        let result = pipe.fill(&from.socket);
        match result {
            Ok(1..) => self.held = Held::Pipe(pipe),
            _ => pool.give_pipe(pipe),
        }
        result
    }

    fn copy(&mut self, from: &mut Peer, to: &mut Peer, pool: &mut Pool) -> io::Result<usize> {
        let (buffer, _) = pool.buffer.split_at_mut(pool.share.min(COPY));
        let count = from.socket.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let result = if bytes.is_empty() { Ok(0) } else { to.socket.write(bytes) };
        let written = *result.as_ref().unwrap_or(&0);
        if let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            self.held = Held::Bytes(rest.into(), 0);
        }
        if let Err(error) = result {
            self.stalled_or_refused(&error, from, to);
        }
        Ok(count)
    }

    /// Writes what is held. On success nothing is left.
    fn deliver(&mut self, to: &mut Peer, pool: &mut Pool) -> io::Result<()> {
        match &mut self.held {
            Held::Nothing => {}
            Held::Pipe(pipe) => while pipe.drain(&to.socket)? > 0 {},
            Held::Bytes(bytes, sent) => {
                while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
                    *sent += to.socket.write(rest)?;
                }
            }
        }
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            pool.give_pipe(pipe);
        }
        Ok(())
    }

    /// Handles a failed write: `to` is full, or accepts nothing more.
    fn stalled_or_refused(&mut self, error: &io::Error, from: &Peer, to: &mut Peer) {
        if error.kind() == ErrorKind::WouldBlock {
            to.writable = false;
            return;
        }
        // The kernel reports an error only once, and a read would now see an orderly end. That is correct only after
        // EPIPE.
        to.reset |= error.kind() != ErrorKind::BrokenPipe;
        // Passed back to the sender as far as the protocol permits: its next write on a Unix socket fails.
        let _gone = shutdown(&from.socket, libc::SHUT_RD);
        *self = Self { state: State::Finished, ..Self::NEW };
    }
}

/// A connection through the relay.
pub struct Connection {
    /// The client and the target.
    pub ends: [Peer; 2],
    flows: [Flow; 2],
    /// When bytes last moved.
    pub active: Instant,
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until the next event.
    Idle,
    /// More can be moved at once.
    More,
    /// The connection has ended: drop it.
    Done,
}

impl Connection {
    /// A connection between an accepted and a connected socket, each with its address family.
    pub fn new(client: (OwnedFd, libc::c_int), target: (OwnedFd, libc::c_int), now: Instant) -> Self {
        let ends = [Peer::new(client.0, client.1), Peer::new(target.0, target.1)];
        Self { ends, flows: [Flow::NEW; 2], active: now }
    }

    /// Moves a bounded amount of bytes.
    pub fn turn(&mut self, pool: &mut Pool) -> Outcome {
        let [client, target] = &mut self.ends;
        let [request, reply] = &mut self.flows;
        let more =
            request.pump(client, target, pool).and_then(|more| Ok(reply.pump(target, client, pool)? || more));
        let Ok(more) = more else {
            self.reset();
            return Outcome::Done;
        };
        for (own, other, end) in [(0, 1, &*client), (1, 0, &*target)] {
            if end.gone && self.flows[own].state == State::Finished {
                self.flows[other].state = State::Finished;
            }
        }
        match self.flows.iter().all(|flow| flow.state == State::Finished) {
            true => Outcome::Done,
            false if more => Outcome::More,
            false => Outcome::Idle,
        }
    }

    /// Makes the closing of both sockets a reset.
    pub fn reset(&self) {
        for end in &self.ends {
            let _unsupported = reset_on_close(&end.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_turn_moves_two_pieces_and_leaves_the_rest_to_the_next() {
        let mut pool = Pool::new(1);
        pool.divide(4096);
        let [(mut client, near), (mut server, far)] = [(); 2].map(|()| UnixStream::pair().expect("a pair"));
        for socket in [&client, &near, &server, &far] {
            socket.set_nonblocking(true).expect("O_NONBLOCK");
        }
        client.write_all(&[b'x'; 100 << 10]).expect("write");
        let [near, far] = [near, far].map(|socket| (socket.into(), libc::AF_UNIX));
        let mut connection = Connection::new(near, far, Instant::now());
        connection.ends.iter_mut().for_each(|end| end.note((libc::EPOLLIN | libc::EPOLLOUT) as u32));
        server.write_all(b"reply").expect("write");
        assert_eq!(connection.turn(&mut pool), Outcome::More);
        client.read_exact(&mut [0; 5]).expect("the other direction has had its turn");
        let mut moved = vec![];
        let error = server.read_to_end(&mut moved).expect_err("no end");
        assert_eq!((error.kind(), moved.len()), (ErrorKind::WouldBlock, 2 * pool.share));
    }
}
