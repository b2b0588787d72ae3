//! The loop: one thread, one epoll instance, every connection in a slot of a table.

use crate::attempt::Attempt;
use crate::connection::{Connection, Outcome, Stock};
use crate::life::Life;
use crate::listener::Listener;
use crate::options::Limits;
use crate::pipes::{self, Pipes};
use crate::sys::{self, Epoll, Event};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::time::{Duration, Instant};

/// The relay's unit of time. Fine enough for timeouts, and a connection's age fits into 32 bits.
const TICK: Duration = Duration::from_millis(100);

/// What a connection's sockets report, each change once (EPOLLET): no system call is made to ask for less while
/// a direction is stalled, and a stalled one wakes nobody.
pub(crate) const EVERYTHING: libc::c_int = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// Between two looks at the attempts to connect, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// What an event is about, packed into epoll's 64 bits.
#[derive(Clone, Copy)]
pub(crate) enum Token {
    Life,
    Listener(usize),
    /// A connection's slot, and 0 for the client's socket or 1 for the target's.
    Socket(u32, usize),
}

impl Token {
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Life => u64::MAX,
            Self::Listener(index) => 1 << 62 | index as u64,
            Self::Socket(slot, end) => u64::from(slot) << 1 | end as u64,
        }
    }

    fn unpack(bits: u64) -> Self {
        match bits {
            u64::MAX => Self::Life,
            bits if bits >> 62 != 0 => Self::Listener((bits ^ 1 << 62) as usize),
            bits => Self::Socket((bits >> 1) as u32, (bits & 1) as usize),
        }
    }
}

pub(crate) enum Slot {
    Free,
    Connecting(Attempt),
    Open { connection: Connection, queued: bool },
}

/// The relay, ready to run.
pub struct Relay<'a> {
    pub(crate) tool: &'a Tool,
    pub(crate) listeners: Vec<Listener>,
    limits: Limits,
    pub(crate) epoll: Epoll,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose connection has ended. Not used again before the events at hand are dealt with: one of them
    /// may be about the connection that was there.
    closed: Vec<u32>,
    /// Slots that have a turn to come.
    queue: Vec<u32>,
    /// How many connections there are.
    open: usize,
    /// Since when nothing is accepted.
    paused: Option<u32>,
    retry: Duration,
    stock: Stock,
    start: Instant,
    pub(crate) now: u32,
    swept: u32,
}

impl<'a> Relay<'a> {
    /// Takes the listeners; `descriptors` is how many this process may have.
    pub fn new(
        tool: &'a Tool,
        epoll: Epoll,
        listeners: Vec<Listener>,
        limits: Limits,
        descriptors: u64,
    ) -> Self {
        // Pipes must not take the descriptors that connections need.
        let pipes = Pipes::new((descriptors / 16).clamp(1, pipes::MOST as u64) as usize);
        Self {
            tool,
            listeners,
            limits,
            epoll,
            slots: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            queue: Vec::new(),
            open: 0,
            paused: None,
            retry: RETRY.0,
            stock: Stock::new(pipes),
            start: Instant::now(),
            now: 0,
            swept: 0,
        }
    }

    /// Relays until `life` ends.
    ///
    /// # Errors
    /// When epoll or a listener fails for good. Whatever happens to a connection is not an error here.
    pub fn run(mut self, life: &Life) -> Result<()> {
        for end in life.ends() {
            self.epoll.add(end, libc::EPOLLIN, Token::Life.pack()).context(|| "epoll_ctl")?;
        }
        self.resume()?;
        let mut events = [Event { events: 0, u64: 0 }; 256];
        let mut turns = Vec::new();
        loop {
            let count = self.epoll.wait(&mut events, self.patience()).context(|| "epoll_wait")?;
            self.now = ticks(self.start.elapsed());
            for event in events.iter().take(count) {
                match Token::unpack(event.u64) {
                    Token::Life => return Ok(()),
                    Token::Listener(index) => self.accept(index)?,
                    Token::Socket(slot, end) => self.ready(slot, end, event.events),
                }
            }
            std::mem::swap(&mut self.queue, &mut turns);
            turns.drain(..).for_each(|slot| self.turn(slot));
            self.retry_pending();
            self.close_idle();
            // What was closed has made room. What another process has closed is not reported: look again later.
            let room = self.open < self.limits.connections;
            if room && self.paused.is_some_and(|since| !self.closed.is_empty() || since != self.now) {
                self.resume()?;
            }
            self.free.append(&mut self.closed);
        }
    }

    /// How long to wait for events, in milliseconds.
    fn patience(&self) -> libc::c_int {
        let wait = if !self.queue.is_empty() {
            Duration::ZERO
        } else if self.listeners.iter().any(|listener| !listener.pending.is_empty()) {
            self.retry
        } else if self.paused.is_some() && self.open < self.limits.connections {
            TICK
        } else if let Some(idle) = self.limits.idle.filter(|_| self.open > 0) {
            (idle / 4).clamp(TICK, 10 * TICK)
        } else {
            return -1;
        };
        wait.as_millis() as libc::c_int
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        let Some(listener) = self.listeners.get_mut(index).filter(|_| self.paused.is_none()) else {
            return Ok(());
        };
        // The socket for the far side comes first: no client is taken in that cannot be served.
        let family = listener.target.addresses.first().map_or(libc::AF_UNIX, |address| address.family());
        let Ok(socket) = sys::socket(family) else { return self.pause() };
        match sys::accept(&listener.socket) {
            Ok(client) => {
                let deadline = self.limits.connect.map(|limit| self.now + ticks(limit) + 1);
                self.open += 1;
                self.stock.divide(self.open);
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::Free);
                    self.slots.len() as u32 - 1
                });
                self.connect(slot, Attempt::new(client, socket, index, deadline));
                if self.open >= self.limits.connections { self.pause() } else { Ok(()) }
            }
            Err(error) => match error.raw_os_error().unwrap_or(0) {
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => self.pause(),
                // Nothing that accepts any more: its owner has shut it down.
                libc::EINVAL | libc::EBADF | libc::ENOTSOCK => {
                    Err(Error::system(format!("cannot accept on {}", listener.name), &error))
                }
                // The client or its network has gone again, or a firewall refuses (accept(2), Error handling).
                _ => Ok(()),
            },
        }
    }

    /// Leaves clients in the listeners' backlogs. Without this a listener would be reported over and over.
    fn pause(&mut self) -> Result<()> {
        self.paused = Some(self.now);
        self.stock.pipes.clear();
        self.listeners
            .iter()
            .try_for_each(|listener| self.epoll.remove(&listener.socket))
            .context(|| "epoll_ctl")
    }

    fn resume(&mut self) -> Result<()> {
        self.paused = None;
        for (index, listener) in self.listeners.iter().enumerate() {
            let token = Token::Listener(index).pack();
            self.epoll.add(&listener.socket, libc::EPOLLIN, token).context(|| "epoll_ctl")?;
        }
        Ok(())
    }

    /// epoll reports something about a connection's socket.
    fn ready(&mut self, slot: u32, end: usize, events: u32) {
        match self.slots.get_mut(slot as usize) {
            Some(Slot::Open { connection, queued }) => {
                connection.note(end, events);
                if !std::mem::replace(queued, true) {
                    self.queue.push(slot);
                }
            }
            Some(Slot::Connecting(_)) => {
                let Slot::Connecting(attempt) = self.take(slot) else { return };
                self.conclude(slot, attempt, events);
            }
            _ => {}
        }
    }

    fn turn(&mut self, slot: u32) {
        let Some(Slot::Open { connection, queued }) = self.slots.get_mut(slot as usize) else { return };
        *queued = false;
        connection.active = self.now;
        match connection.turn(&mut self.stock) {
            Outcome::Idle => {}
            Outcome::More => {
                *queued = true;
                self.queue.push(slot);
            }
            Outcome::Done => self.release(slot),
        }
    }

    fn retry_pending(&mut self) {
        let pending = (0..self.listeners.len()).filter(|&index| self.retry(index)).count() > 0;
        self.retry = if pending { (self.retry * 2).min(RETRY.1) } else { RETRY.0 };
    }

    fn close_idle(&mut self) {
        let Some(limit) = self.limits.idle.filter(|_| self.now != self.swept) else { return };
        self.swept = self.now;
        let limit = ticks(limit) + 1;
        for slot in 0..self.slots.len() {
            if let Some(Slot::Open { connection, .. }) = self.slots.get(slot)
                && self.now - connection.active > limit
            {
                connection.reset();
                self.release(slot as u32);
            }
        }
    }

    pub(crate) fn put(&mut self, slot: u32, content: Slot) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = content;
        }
    }

    pub(crate) fn take(&mut self, slot: u32) -> Slot {
        self.slots.get_mut(slot as usize).map_or(Slot::Free, |place| std::mem::replace(place, Slot::Free))
    }

    /// Closes what is in `slot`.
    pub(crate) fn release(&mut self, slot: u32) {
        self.put(slot, Slot::Free);
        self.closed.push(slot);
        self.open -= 1;
        self.stock.divide(self.open);
        if self.open == 0 {
            self.stock.pipes.clear();
        }
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
