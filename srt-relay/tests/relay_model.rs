//! Random sequences of what two sides can do to a connection, on several connections at once, compared with a model:
//! all that was sent before an end arrives, and then the end; a reset is one for the other side; what nobody reads
//! holds nobody else up. Only what is drained is read at all: everything else is stalled. More: SRT_SEED=7
//! SRT_ROUNDS=1000.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use srt_tests::noise::Noise;
use srt_tests::random::{Random, rounds};
use srt_tests::{Who, both, wait_until};
use std::io::{self, ErrorKind};
use std::sync::OnceLock;

/// How many sequences the usual run goes through.
const SEQUENCES: u64 = 16;
/// Connections at the same time.
const MOST: usize = 5;
/// The last one is more than all buffers on the way hold (tcp(7): tcp_rmem, tcp_wmem).
const SIZES: [usize; 6] = [1, 1000, 70_000, 300_000, 3_000_000, 16_000_000];

/// One side of a connection, and the stream that it sends.
struct End {
    stream: Box<dyn Stream>,
    tcp: bool,
    /// What is to be sent, and how much of it the kernel has taken.
    queued: usize,
    sent: usize,
    /// An end is to follow; it has.
    ends: bool,
    ended: bool,
    /// Where in the noise its stream begins.
    start: usize,
    /// What it has received, and how that ended.
    got: usize,
    over: Option<Over>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    End,
    Reset,
}

/// A stream's bytes: a part of one noise that repeats after a prime number of bytes.
fn noise(from: usize) -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = NOISE.get_or_init(|| Noise::first(0x5eed_0f00_0d5e_ed01, 65_521));
    &noise[from % noise.len()..]
}

/// What recv(2) or send(2) says.
fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl End {
    fn new(stream: Box<dyn Stream>, tcp: bool, start: usize) -> Self {
        let (queued, sent, got) = (0, 0, 0);
        Self { stream, tcp, queued, sent, ends: false, ended: false, start, got, over: None }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer and the length are those of `bytes`.
        count(unsafe { libc::send(self.stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
    }

    /// Sends what can be sent without waiting.
    fn push(&mut self) {
        while self.sent < self.queued {
            let bytes = noise(self.start + self.sent);
            match self.send(&bytes[..bytes.len().min(self.queued - self.sent)]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("sent {} of {}: {error}", self.sent, self.queued),
            }
        }
        if self.ends && !self.ended {
            self.stream.end();
            self.ended = true;
        }
    }

    /// Reads `most` bytes, as far as they are there, and compares them with what the other side sends from `start` on.
    fn pull(&mut self, start: usize, most: usize) {
        let mut bytes = vec![0; 65_536];
        let end = self.got + most;
        while self.over.is_none() && self.got < end {
            let wanted = bytes.len().min(end - self.got);
            // SAFETY: the buffer has room for so many.
            let result = unsafe {
                libc::recv(self.stream.as_raw_fd(), bytes.as_mut_ptr().cast(), wanted, libc::MSG_DONTWAIT)
            };
            match count(result) {
                Ok(0) => self.over = Some(Over::End),
                Ok(count) => {
                    let mut received = &bytes[..count];
                    while !received.is_empty() {
                        let expected = noise(start + self.got);
                        let part = received.len().min(expected.len());
                        assert!(
                            received[..part] == expected[..part],
                            "other bytes at {} or behind",
                            self.got
                        );
                        self.got += part;
                        received = &received[part..];
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.over = Some(Over::Reset),
                Err(error) => panic!("recv: {error}"),
            }
        }
    }
}

/// A connection: the client and the server.
struct Pair([End; 2]);

impl Pair {
    /// The other's bytes.
    fn pull(&mut self, end: usize, most: usize) {
        let start = self.0[1 - end].start;
        self.0[end].pull(start, most);
        assert!(self.0[end].got <= self.0[1 - end].sent, "more than was sent");
    }

    /// Lets one end read all that the other was to send, and its end.
    fn drain(&mut self, end: usize) {
        wait_until("all that was sent", || {
            self.0[1 - end].push();
            self.pull(end, usize::MAX >> 1);
            let (reader, writer) = (&self.0[end], &self.0[1 - end]);
            assert!(reader.over != Some(Over::Reset), "a reset that nobody made");
            assert!(
                reader.over.is_none() || writer.ended && reader.got == writer.queued,
                "an end after {} of {} bytes",
                reader.got,
                writer.queued
            );
            reader.got == writer.queued && (reader.over.is_some() || !writer.ends)
        });
    }

    /// Reads what is left and half-closes both directions.
    fn finish(mut self) {
        for end in [0, 1] {
            self.0[end].ends = true;
            self.drain(1 - end);
        }
        // The first one still takes what the other says.
        assert_eq!(self.0.each_ref().map(|end| end.over), [Some(Over::End); 2]);
    }

    /// One end has sent its last and read everything, and closes: the other gets all, the end, and can send no more.
    fn close(mut self, end: usize) {
        self.drain(end);
        wait_until("room for all", || {
            self.0[end].push();
            let all = self.0[end].sent == self.0[end].queued;
            if !all {
                self.pull(1 - end, 100_000);
            }
            all
        });
        let had_ended = self.0[1 - end].ended;
        let [client, server] = self.0;
        let (mut left, gone) = if end == 0 { (server, client) } else { (client, server) };
        let (start, queued) = (gone.start, gone.queued);
        drop(gone);
        wait_until("the end", || {
            left.pull(start, usize::MAX >> 1);
            left.over.is_some()
        });
        assert_eq!((left.got, left.over), (queued, Some(Over::End)), "closed");
        if !had_ended {
            refuses(&left);
        }
    }

    /// One end resets the connection (a Unix socket: closes it, whatever is unread). The other gets a part of what was
    /// sent at most, learns of it, and can send no more.
    fn reset(self, end: usize) {
        let [client, server] = self.0;
        let (mut left, gone) = if end == 0 { (server, client) } else { (client, server) };
        let (start, sent, ended) = (gone.start, gone.sent, gone.ended);
        // unix(7): closing with unread data is a reset too, but one that takes nothing away: it is passed on as an end.
        let broken = gone.tcp && !ended;
        if gone.tcp {
            reset_on_close(gone.stream.as_ref());
        }
        drop(gone);
        wait_until("the end of what was reset", || {
            left.pull(start, usize::MAX >> 1);
            left.over.is_some()
        });
        assert!(left.got <= sent);
        if broken && left.tcp {
            assert_eq!(
                left.over,
                Some(Over::Reset),
                "a broken stream looks complete: {} of {sent}",
                left.got
            );
        }
        if !left.ended {
            refuses(&left);
        }
    }
}

/// Waits until nothing can be sent any more.
fn refuses(end: &End) {
    wait_until("a refusal", || match end.send(b"x") {
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    });
}

/// One relay, and a sequence.
fn sequence(random: &mut Random, who: Who) {
    let way = random.one_of(&[Way::TcpToUnix, Way::UnixToTcp, Way::TcpToTcp]);
    println!("{way:?}");
    let setup = Setup::new(who, way);
    let before = setup.relay.descriptors();
    let mut pairs: Vec<Pair> = vec![];
    for _ in 0..30 {
        let step = random.below(16);
        if pairs.is_empty() || step == 0 && pairs.len() < MOST {
            let (client, server) = setup.pair();
            let client = End::new(client, way != Way::UnixToTcp, random.below(60_000));
            let server = End::new(server, way != Way::TcpToUnix, random.below(60_000));
            pairs.push(Pair([client, server]));
            continue;
        }
        let (at, end) = (random.below(pairs.len()), random.below(2));
        let what = match step {
            0..=7 => "send",
            8..=9 => "read",
            10..=11 => "drain",
            12 => "half-close",
            13 => "finish",
            14 => "close",
            _ => "reset",
        };
        println!("{what}: connection {at} of {}, end {end}", pairs.len());
        let one = &mut pairs[at].0[end];
        match what {
            "send" => {
                if !one.ends {
                    one.queued += random.one_of(&SIZES);
                }
                one.push();
            }
            "read" => pairs[at].pull(end, random.one_of(&SIZES)),
            "drain" => pairs[at].drain(end),
            "half-close" => {
                one.ends = true;
                one.push();
            }
            "finish" => pairs.swap_remove(at).finish(),
            "close" => pairs.swap_remove(at).close(end),
            _ => pairs.swap_remove(at).reset(end),
        }
    }
    for pair in pairs {
        match random.below(4) {
            0 => pair.reset(random.below(2)),
            1 => pair.close(random.below(2)),
            _ => pair.finish(),
        }
    }
    setup.relay.settles_at(before);
}

both! {
    fn random_sequences_on_several_connections_do_what_the_model_does(who) {
        rounds(SEQUENCES, |random| sequence(random, who));
    }
}
