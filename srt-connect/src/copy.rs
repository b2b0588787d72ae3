//! Moves bytes between stdin and stdout and the tunnel, both ways, until both ends are done.
//!
//! There is one thread, so no call may block except poll(2): if a write to stdout blocks while its reader waits for
//! this process to read stdin, both wait forever. The tunnel's socket does not block. stdin and stdout are shared
//! with the caller and other processes (a shell's terminal, for example), which O_NONBLOCK would affect too, so:
//!
//! - a pipe is spliced, with SPLICE_F_NONBLOCK, which applies only to the one call;
//! - a socket is written with MSG_DONTWAIT;
//! - anything else is written after POLLOUT, PIPE_BUF bytes at a time, except a regular file, which never blocks. (A
//!   terminal may have less room, and blocks the write until it is read.)
//!
//! A direction moves bytes until its input ends, writes what it still holds, and then closes its output (SHUT_WR for
//! the tunnel, close(2) for stdout). The directions end independently of each other, in any order and at any time.

use crate::deadline::poll;
use crate::dial::Tunnel;
use srt_common::sys::fd::{self, pollfd, splice};
use srt_common::sys::file::statx;
use srt_common::sys::socket::{send, shutdown};
use srt_common::{Context, Error, Result};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

const STDIN: RawFd = 0;
const STDOUT: RawFd = 1;
/// How long a caller that exits takes between closing one of its two pipes and the other, on a busy machine.
const AFTER_THE_OTHER: Duration = Duration::from_millis(100);

/// The most bytes that a splice moves at once: as much as a pipe can be made to hold (pipe(7), pipe-max-size).
const SPLICE: usize = 1 << 20;

/// The size of the buffer for bytes that cannot be spliced. Pages that are never used take no memory.
const BUFFER: usize = 256 * 1024;

/// The type of a descriptor's file: an `S_IF*` of inode(7).
type FileType = libc::mode_t;

/// What a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

/// Which end of a direction failed, and why.
type Failure = (Side, io::Error);

/// One direction.
struct Flow {
    from: RawFd,
    to: RawFd,
    from_type: FileType,
    to_type: FileType,
    buffer: Vec<u8>,
    /// What is in the buffer and not written yet.
    held: Range<usize>,
    waits: Side,
    done: bool,
}

/// Moves bytes both ways until both ends are done.
///
/// The end of one direction does not affect the other, however long that continues. If stdout has no reader any more,
/// this ends without an error once stdin is done too; while stdin goes on, received bytes are lost, and that is an
/// error.
///
/// # Errors
/// The tunnel, stdin or stdout failed.
pub fn run(tunnel: Tunnel) -> Result<()> {
    let socket = tunnel.socket.as_raw_fd();
    let stdin = statx(&STDIN, c"").context(|| "stdin")?;
    let stdout = statx(&STDOUT, c"").context(|| "stdout")?;
    let mut up = Flow::new((STDIN, stdin.file_type()), (socket, libc::S_IFSOCK), vec![]);
    let mut down = Flow::new((socket, libc::S_IFSOCK), (STDOUT, stdout.file_type()), tunnel.early);
    let mut unsent = None;
    while !(up.done && down.done) {
        let ([from, to], [back_from, back_to]) = (up.polled(true), down.polled(up.done));
        let mut polled = [from, to, back_from, back_to];
        poll(&mut polled, None).context(|| "poll")?;
        let [up_ready, up_gone, down_ready, down_gone] = polled.map(|fd| fd.revents != 0);

        if up_ready {
            match up.advance() {
                Ok(false) => {}
                Ok(true) => {
                    // A failure means that the peer is gone, and does not matter.
                    let _gone = shutdown(&socket, libc::SHUT_WR);
                    up.done = true;
                }
                Err((Side::Input, error)) => return Err(Error::system("cannot read stdin", &error)),
                Err((Side::Output, error)) => {
                    // What the peer sent before it stopped reading is still delivered.
                    unsent = Some(Error::system("the peer closed before all of stdin was sent", &error));
                    up.done = true;
                }
            }
        } else if up_gone {
            // The peer accepts no more bytes, and there are none for it.
            up.done = true;
        }

        if down_ready {
            match down.advance() {
                Ok(false) => {}
                Ok(true) => {
                    if stdin.id == stdout.id && stdout.is(libc::S_IFSOCK) {
                        // stdin and stdout are one socket (inetd, a socketpair): closing 1 alone would not end the
                        // stream.
                        let _gone = shutdown(&STDOUT, libc::SHUT_WR);
                    }
                    fd::close(STDOUT).context(|| "cannot close stdout")?;
                    down.done = true;
                }
                Err((Side::Input, error)) => return Err(Error::system("the connection broke", &error)),
                Err((Side::Output, error))
                    if error.kind() == ErrorKind::BrokenPipe && (up.done || caller_is_gone()?) =>
                {
                    break;
                }
                Err((Side::Output, error)) => return Err(Error::system("cannot write to stdout", &error)),
            }
        }
        if down_gone {
            break;
        }
    }
    unsent.map_or(Ok(()), Err)
}

/// Whether stdin has no writer any more, now that stdout has no reader: a caller that exits (ssh, while the peer's
/// last bytes are in transit) closes both, one after the other, and that is no error.
fn caller_is_gone() -> Result<bool> {
    let mut stdin = [pollfd(STDIN, 0)];
    poll(&mut stdin, Some(AFTER_THE_OTHER)).context(|| "poll")?;
    Ok(stdin.iter().any(|fd| fd.revents & libc::POLLHUP != 0))
}

impl Flow {
    fn new((from, from_type): (RawFd, FileType), (to, to_type): (RawFd, FileType), early: Vec<u8>) -> Self {
        let waits = if early.is_empty() { Side::Input } else { Side::Output };
        Self { from, to, from_type, to_type, held: 0..early.len(), buffer: early, waits, done: false }
    }

    /// What to poll: the side that is waited for and, on request, whether the output is gone while the input is idle
    /// (poll(2) always reports POLLERR and POLLHUP).
    fn polled(&self, watch_output: bool) -> [libc::pollfd; 2] {
        match self.waits {
            _ if self.done => [pollfd(-1, 0); 2],
            Side::Input => {
                [pollfd(self.from, libc::POLLIN), pollfd(if watch_output { self.to } else { -1 }, 0)]
            }
            Side::Output => [pollfd(self.to, libc::POLLOUT), pollfd(-1, 0)],
        }
    }

    /// Moves what can be moved without waiting, once the side `waits` is ready. True at the end of the input.
    fn advance(&mut self) -> Result<bool, Failure> {
        if !self.held.is_empty() {
            self.write().map_err(|error| (Side::Output, error))
        } else if [self.from_type, self.to_type].contains(&libc::S_IFIFO) {
            self.splice()
        } else {
            self.read().map_err(|error| (Side::Input, error))
        }
    }

    fn write(&mut self) -> io::Result<bool> {
        let bytes = self.buffer.get(self.held.clone()).unwrap_or_default();
        let count = if_ready(write(self.to, self.to_type, bytes))?.unwrap_or(0);
        self.hold(self.held.start + count..self.held.end);
        Ok(false)
    }

    fn read(&mut self) -> io::Result<bool> {
        self.buffer.resize(BUFFER, 0);
        let count = if_ready(fd::read(&self.from, &mut self.buffer))?;
        self.hold(0..count.unwrap_or(0));
        Ok(count == Some(0))
    }

    fn hold(&mut self, held: Range<usize>) {
        self.waits = if held.is_empty() { Side::Input } else { Side::Output };
        self.held = held;
    }

    fn splice(&mut self) -> Result<bool, Failure> {
        match if_ready(splice(&self.from, &self.to, SPLICE, libc::SPLICE_F_NONBLOCK)) {
            Ok(Some(1..)) => Ok(false),
            // The input was ready, so the output is not. After a success `waits` stays the same: it is the slower
            // side.
            Ok(None) if self.waits == Side::Input => {
                self.waits = Side::Output;
                Ok(false)
            }
            // The output was ready, so the input is at its end, or not ready, or at a TCP urgent mark, which
            // splice(2) never passes: it returns 0 once the peer has closed, else EAGAIN, while poll(2) reports the
            // data after the mark (tcp_splice_read() in net/ipv4/tcp.c). read(2) passes it.
            Ok(_) if self.from_type == libc::S_IFSOCK => self.read().map_err(|error| (Side::Input, error)),
            Ok(Some(_)) => Ok(true),
            Ok(None) => {
                self.waits = Side::Input;
                Ok(false)
            }
            // Reading a pipe does not fail, and only writing returns EPIPE.
            Err(error) if self.from_type == libc::S_IFIFO || error.kind() == ErrorKind::BrokenPipe => {
                Err((Side::Output, error))
            }
            Err(error) => Err((Side::Input, error)),
        }
    }
}

/// Writes as much as possible without waiting, to a descriptor that poll(2) has reported as writable.
fn write(to: RawFd, to_type: FileType, bytes: &[u8]) -> io::Result<usize> {
    match to_type {
        libc::S_IFSOCK => send(&to, bytes, libc::MSG_DONTWAIT),
        libc::S_IFREG => fd::write(&to, bytes),
        // A terminal or another device; for a pipe POLLOUT guarantees room for PIPE_BUF bytes (pipe(7)).
        _ => fd::write(&to, bytes.get(..libc::PIPE_BUF).unwrap_or(bytes)),
    }
}

/// `None` for a call that would have blocked, or that a signal interrupted.
fn if_ready(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        result => result.map(Some),
    }
}
