//! The loop: one thread, one epoll instance, every connection in a slot of a table.

use crate::connection::{Connection, Outcome, Stock};
use crate::life::Life;
use crate::listener::{self, Listener};
use crate::options::Limits;
use crate::pipes::Pipes;
use crate::sys::{self, Epoll, Event};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, status};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The relay's unit of time. Fine enough for timeouts, and a connection's age fits into 32 bits.
const TICK: Duration = Duration::from_millis(100);

/// What a connection's sockets report, each change once (EPOLLET): no system call is made to ask for less while
/// a direction is stalled, and a stalled one wakes nobody.
const EVERYTHING: libc::c_int = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// Between two attempts to connect to a Unix socket whose backlog is full, at first and at most. The kernel
/// reports no event for that: connect(2), EAGAIN.
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

/// A client that does not have its target yet.
struct Attempt {
    client: OwnedFd,
    socket: OwnedFd,
    listener: usize,
    /// Which of the target's addresses is tried.
    address: usize,
    deadline: Option<u32>,
    /// TCP: epoll reports the end of the attempt. Otherwise it is repeated.
    in_progress: bool,
    /// In its listener's list already.
    pending: bool,
}

enum Slot {
    Free,
    Connecting(Attempt),
    Open { connection: Connection, queued: bool },
}

/// The relay, ready to run.
pub struct Relay {
    tool: Tool,
    listeners: Vec<Listener>,
    limits: Limits,
    epoll: Epoll,
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

impl Relay {
    /// Takes the listeners; `descriptors` is how many this process may have.
    pub fn new(tool: Tool, epoll: Epoll, listeners: Vec<Listener>, limits: Limits, descriptors: u64) -> Self {
        // Pipes must not take the descriptors that connections need.
        let pipes = Pipes::new((descriptors / 16).clamp(1, 32) as usize);
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
            for slot in std::mem::take(&mut self.queue) {
                self.turn(slot);
            }
            for index in 0..self.listeners.len() {
                self.retry_pending(index);
            }
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
                let (in_progress, pending) = (false, false);
                self.open += 1;
                self.stock.divide(self.open);
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::Free);
                    self.slots.len() as u32 - 1
                });
                self.connect(
                    slot,
                    Attempt { client, socket, listener: index, address: 0, deadline, in_progress, pending },
                );
                if self.open >= self.limits.connections { self.pause() } else { Ok(()) }
            }
            Err(error) => {
                match error.raw_os_error().unwrap_or(0) {
                    libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => self.pause(),
                    // The client or its network has gone again (accept(2), Error handling), or a firewall refuses.
                    libc::EAGAIN
                    | libc::EINTR
                    | libc::ECONNABORTED
                    | libc::EPROTO
                    | libc::EPERM
                    | libc::ENETDOWN
                    | libc::ENOPROTOOPT
                    | libc::EHOSTDOWN
                    | libc::ENONET
                    | libc::EHOSTUNREACH
                    | libc::EOPNOTSUPP
                    | libc::ENETUNREACH => Ok(()),
                    _ => Err(Error::system(format!("cannot accept on {}", listener.name), &error)),
                }
            }
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

    /// Connects a client to its target, or leaves it pending.
    fn connect(&mut self, slot: u32, mut attempt: Attempt) {
        let Some(listener) = self.listeners.get_mut(attempt.listener) else { return };
        let target = Rc::clone(&listener.target);
        let result = match target.addresses.get(attempt.address) {
            Some(address) => sys::connect(&attempt.socket, address),
            None => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        };
        match result.as_ref().map_err(|error| error.raw_os_error().unwrap_or(0)) {
            Ok(()) => return self.establish(slot, attempt, 0),
            Err(libc::EINPROGRESS) => {
                attempt.in_progress = true;
                let token = Token::Socket(slot, 1).pack();
                if let Err(error) = self.epoll.add(&attempt.socket, EVERYTHING, token) {
                    return self.refuse(slot, &attempt, &error);
                }
            }
            Err(libc::EAGAIN) => attempt.in_progress = false,
            Err(code) => return self.try_next(slot, attempt, &io::Error::from_raw_os_error(code)),
        }
        if !std::mem::replace(&mut attempt.pending, true) {
            listener.pending.push_back(slot);
        }
        self.put(slot, Slot::Connecting(attempt));
    }

    /// One address has failed: `localhost` has another.
    fn try_next(&mut self, slot: u32, mut attempt: Attempt, error: &io::Error) {
        attempt.address += 1;
        let listener = self.listeners.get(attempt.listener);
        let next = listener.and_then(|listener| listener.target.addresses.get(attempt.address));
        match next.map(|address| sys::socket(address.family())) {
            Some(Ok(socket)) => self.connect(slot, Attempt { socket, in_progress: false, ..attempt }),
            _ => self.refuse(slot, &attempt, error),
        }
    }

    /// The target is reached; `events` is what epoll has said of its socket already.
    fn establish(&mut self, slot: u32, attempt: Attempt, events: u32) {
        let Some(listener) = self.listeners.get_mut(attempt.listener) else { return };
        listener.lost = false;
        self.retry = RETRY.0;
        let family = listener.target.addresses.first().map_or(libc::AF_UNIX, |address| address.family());
        if family != libc::AF_UNIX {
            let _best_effort = listener::tune(&attempt.socket);
        }
        let added = match attempt.in_progress {
            true => Ok(()),
            false => self.epoll.add(&attempt.socket, EVERYTHING, Token::Socket(slot, 1).pack()),
        };
        let added =
            added.and_then(|()| self.epoll.add(&attempt.client, EVERYTHING, Token::Socket(slot, 0).pack()));
        let (client, target) = ((attempt.client, listener.family), (attempt.socket, family));
        let mut connection = Connection::new(client, target, self.now);
        connection.note(1, events);
        if added.is_err() {
            connection.reset();
            return self.release(slot);
        }
        self.put(slot, Slot::Open { connection, queued: false });
    }

    /// The target cannot be reached. The client learns that by a reset, the user by one report per failure that
    /// lasts.
    fn refuse(&mut self, slot: u32, attempt: &Attempt, error: &io::Error) {
        let _unsupported = sys::reset_on_close(&attempt.client);
        self.release(slot);
        let Some(listener) = self.listeners.get_mut(attempt.listener) else { return };
        if std::mem::replace(&mut listener.lost, true) {
            return;
        }
        let error =
            Error::system(format!("{}: cannot connect to {}", listener.name, listener.target.name), error);
        let (event, error) = if listener.target.is_pinned() {
            (
                "relay-lost",
                error.hint(
                    "the program that made the socket has ended or made it anew: start srt-relay again",
                ),
            )
        } else {
            ("connect-failed", error)
        };
        self.tool.warn(&error);
        if let Some(status) = self.tool.status {
            let event = status::Event::new(self.tool.name, event).text("listen", &listener.name);
            status.send(&event.text("connect", &listener.target.name).text("message", &error.message));
        }
    }

    /// Repeats the attempts that had met a full backlog, and ends those that took too long. A listener's attempts
    /// are in the order of their deadlines.
    fn retry_pending(&mut self, index: usize) {
        while let Some(&slot) = self.listeners.get(index).and_then(|listener| listener.pending.front()) {
            match self.take(slot) {
                Slot::Connecting(attempt)
                    if attempt.deadline.is_some_and(|deadline| self.now >= deadline) =>
                {
                    self.refuse(slot, &attempt, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                Slot::Connecting(attempt) if !attempt.in_progress => {
                    self.retry = (self.retry * 2).min(RETRY.1);
                    self.connect(slot, attempt);
                }
                other => self.put(slot, other),
            }
            if matches!(self.slots.get(slot as usize), Some(Slot::Connecting(_))) {
                return;
            }
            if let Some(listener) = self.listeners.get_mut(index) {
                listener.pending.pop_front();
            }
        }
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
                match sys::socket_option(&attempt.socket, libc::SO_ERROR) {
                    Ok(0) => self.establish(slot, attempt, events),
                    Ok(code) => self.try_next(slot, attempt, &io::Error::from_raw_os_error(code)),
                    Err(error) => self.try_next(slot, attempt, &error),
                }
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

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
