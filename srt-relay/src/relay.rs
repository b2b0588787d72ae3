//! The loop: one thread, one epoll instance, every connection in a slot of a table.

use crate::attempt::{Attempt, Progress};
use crate::connection::{Connection, Outcome, Stock};
use crate::life::Life;
use crate::listener::{Listener, STREAM, reset_on_close, tune_tcp, tune_unix};
use crate::options::Limits;
use crate::pipes::{self, Pipes};
use crate::reports::Reports;
use srt_common::sys::fd::{epoll_ctl, epoll_pwait};
use srt_common::sys::socket::{accept4, socket};
use srt_common::{Context, Error, Result};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The relay's unit of time. Fine enough for timeouts, and a connection's age fits into 32 bits.
const TICK: Duration = Duration::from_millis(100);

/// What a connection's sockets report, each change once (EPOLLET): no system call is made to ask for less while
/// a direction is stalled, and a stalled one wakes nobody.
const EVERYTHING: libc::c_int = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// Between two looks at the attempts to connect, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// What an event is about, packed into epoll's 64 bits.
#[derive(Clone, Copy)]
enum Token {
    Life,
    Listener(usize),
    /// A connection's slot, and 0 for the client's socket or 1 for the target's.
    Socket(u32, usize),
}

impl Token {
    fn pack(self) -> u64 {
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

/// What a slot holds.
enum Slot {
    Free,
    Connecting(Pending),
    Open { connection: Connection, queued: bool },
}

/// A client of a listener, that is given up at a moment.
struct Pending {
    attempt: Attempt,
    listener: usize,
    deadline: Option<u32>,
}

/// The relay, ready to run.
pub struct Relay<'a> {
    reports: Reports<'a>,
    listeners: Vec<Listener>,
    limits: Limits,
    epoll: OwnedFd,
    slots: Vec<Slot>,
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
    now: u32,
    swept: u32,
}

impl<'a> Relay<'a> {
    /// Takes the listeners; `descriptors` is how many this process may have.
    pub fn new(
        reports: Reports<'a>,
        epoll: OwnedFd,
        listeners: Vec<Listener>,
        limits: Limits,
        descriptors: u64,
    ) -> Self {
        // Pipes must not take the descriptors that connections need.
        let pipes = Pipes::new((descriptors / 16).clamp(1, pipes::MOST as u64) as usize);
        Self {
            reports,
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
        for (end, events) in life.ends() {
            watch(&self.epoll, &end, events, Token::Life).context(|| "epoll_ctl")?;
        }
        self.resume()?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut turns = Vec::new();
        loop {
            let count = match epoll_pwait(&self.epoll, &mut events, self.patience()) {
                // signal(7): stopping and continuing the process interrupts it.
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                result => result.context(|| "epoll_pwait")?,
            };
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
        let Ok(socket) = socket(listener.target.family(), STREAM) else { return self.pause() };
        match accept4(&listener.socket, libc::SOCK_NONBLOCK) {
            Ok(client) => {
                let deadline = self.limits.connect.map(|limit| self.now + ticks(limit) + 1);
                self.open += 1;
                self.stock.divide(self.open);
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::Free);
                    self.slots.len() as u32 - 1
                });
                let attempt = Attempt::new(client, socket, Rc::clone(&listener.target));
                self.advance(slot, Pending { attempt, listener: index, deadline }, 0);
                if let (Some(Slot::Connecting(_)), Some(listener)) =
                    (self.slots.get(slot as usize), self.listeners.get_mut(index))
                {
                    listener.pending.push_back(slot);
                }
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
            .try_for_each(|listener| epoll_ctl(&self.epoll, libc::EPOLL_CTL_DEL, &listener.socket, 0, 0))
            .context(|| "epoll_ctl")
    }

    fn resume(&mut self) -> Result<()> {
        self.paused = None;
        for (index, listener) in self.listeners.iter().enumerate() {
            watch(&self.epoll, &listener.socket, libc::EPOLLIN, Token::Listener(index))
                .context(|| "epoll_ctl")?;
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
                let Slot::Connecting(pending) = self.take(slot) else { return };
                self.advance(slot, pending, events);
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

    /// Connects a client to its target, or leaves it pending. `events` is what epoll has said of the target's socket.
    fn advance(&mut self, slot: u32, mut pending: Pending, events: u32) {
        match pending.attempt.advance() {
            Progress::Connected => self.establish(slot, pending, events),
            Progress::Failed(error) => self.refuse(slot, &pending, &error),
            Progress::Pending => {
                let socket = &pending.attempt.socket;
                let watched = match pending.attempt.in_progress {
                    true => watch(&self.epoll, socket, EVERYTHING, Token::Socket(slot, 1)),
                    false => Ok(()),
                };
                match watched {
                    Ok(()) => self.put(slot, Slot::Connecting(pending)),
                    Err(error) => self.refuse(slot, &pending, &error),
                }
            }
        }
    }

    fn establish(&mut self, slot: u32, pending: Pending, events: u32) {
        let Some(listener) = self.listeners.get_mut(pending.listener) else { return };
        listener.lost = false;
        let Attempt { client, socket, in_progress, .. } = pending.attempt;
        let family = listener.target.family();
        let _best_effort = if family == libc::AF_UNIX { tune_unix(&socket) } else { tune_tcp(&socket) };
        // A TCP client has its listener's.
        if listener.family == libc::AF_UNIX {
            let _best_effort = tune_unix(&client);
        }
        let watched = match in_progress {
            true => Ok(()),
            false => watch(&self.epoll, &socket, EVERYTHING, Token::Socket(slot, 1)),
        };
        let watched = watched.and_then(|()| watch(&self.epoll, &client, EVERYTHING, Token::Socket(slot, 0)));
        let mut connection = Connection::new((client, listener.family), (socket, family), self.now);
        connection.note(1, events);
        if watched.is_err() {
            connection.reset();
            return self.release(slot);
        }
        self.put(slot, Slot::Open { connection, queued: false });
    }

    /// The target cannot be reached. The client learns that by a reset, the user by one report per failure that
    /// lasts.
    fn refuse(&mut self, slot: u32, pending: &Pending, error: &io::Error) {
        let _unsupported = reset_on_close(&pending.attempt.client);
        self.release(slot);
        let Some(listener) = self.listeners.get_mut(pending.listener) else { return };
        if !std::mem::replace(&mut listener.lost, true) {
            self.reports.refused(listener, error);
        }
    }

    /// Repeats the attempts of one listener that had met a full backlog, and ends those that took too long. They are
    /// in the order of their deadlines. Says whether any are left.
    fn retry(&mut self, index: usize) -> bool {
        while let Some(&slot) = self.listeners.get(index).and_then(|listener| listener.pending.front()) {
            match self.take(slot) {
                Slot::Connecting(pending)
                    if pending.deadline.is_some_and(|deadline| self.now >= deadline) =>
                {
                    self.refuse(slot, &pending, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                Slot::Connecting(pending) if !pending.attempt.in_progress => self.advance(slot, pending, 0),
                other => self.put(slot, other),
            }
            if matches!(self.slots.get(slot as usize), Some(Slot::Connecting(_))) {
                return true;
            }
            if let Some(listener) = self.listeners.get_mut(index) {
                listener.pending.pop_front();
            }
        }
        false
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

    fn put(&mut self, slot: u32, content: Slot) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = content;
        }
    }

    fn take(&mut self, slot: u32) -> Slot {
        self.slots.get_mut(slot as usize).map_or(Slot::Free, |place| std::mem::replace(place, Slot::Free))
    }

    /// Closes what is in `slot`.
    fn release(&mut self, slot: u32) {
        self.put(slot, Slot::Free);
        self.closed.push(slot);
        self.open -= 1;
        self.stock.divide(self.open);
        if self.open == 0 {
            self.stock.pipes.clear();
        }
    }
}

/// Watches `fd`; closing it ends that.
fn watch(epoll: &OwnedFd, fd: &impl AsRawFd, events: libc::c_int, token: Token) -> io::Result<()> {
    epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, events, token.pack())
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
