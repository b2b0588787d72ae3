//! The loop: one thread, one epoll instance, and two maps of all clients by number.

use crate::attempt::Attempt;
use crate::connection::{Connection, Outcome};
use crate::listener::{Listener, end_on_close, reset_on_close, tune_tcp, tune_unix};
use crate::options::Options;
use crate::pool::{self, Pool};
use srt_common::fds::write_all;
use srt_common::relay_report::Report;
use srt_common::sys::fd::{epoll_ctl, epoll_pwait, pollfd, ppoll};
use srt_common::sys::socket::accept4;
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The interval of checks for what no event reports: idle connections, and descriptors that another process has
/// closed.
const LOOK: Duration = Duration::from_millis(100);

/// The events of a connection's sockets, each change reported once (EPOLLET): no system call is needed to ask for
/// less while a direction is stalled, and a stalled direction causes no wakeups. The end of a peer's data is EPOLLIN
/// (`tcp_poll`, `unix_poll`).
const EVERYTHING: libc::c_int = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;

/// The events of a listener, reported as long as they hold.
const INCOMING: libc::c_int = libc::EPOLLIN | libc::EPOLLRDHUP;

/// The interval between attempts to connect, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

// What an event is about: the upper two of epoll's 64 bits are one of these, the others the number of a client or of
// a listener.
const CLIENT_SOCKET: u64 = 0;
const TARGET_SOCKET: u64 = 1;
const LISTENER: u64 = 2;
const LIFE: u64 = 3;
const NUMBER_BITS: u32 = 62;

/// The relay, ready to run.
pub struct Relay<'a> {
    tool: &'a Tool,
    options: &'a Options,
    listeners: Vec<Listener>,
    epoll: OwnedFd,
    /// The clients that are not connected to their target yet, by number. Numbers are not reused, so an event that is
    /// handled after its client was removed finds no client.
    attempts: BTreeMap<u64, Attempt>,
    /// The other clients, by number. Boxed, because a node of the map has room for eleven and is often half empty.
    connections: BTreeMap<u64, Box<Connection>>,
    next_number: u64,
    /// Clients that wait for a turn.
    queue: BTreeSet<u64>,
    /// Until when no clients are accepted.
    paused: Option<Instant>,
    /// How long to wait before the attempts to connect are checked again, if there are any.
    retry: Option<Duration>,
    pool: Pool,
    /// When the last call of epoll_pwait(2) returned.
    now: Instant,
    /// When idle connections were last looked for.
    swept: Instant,
}

impl<'a> Relay<'a> {
    /// Takes the listeners; `descriptors` is the limit on descriptors of this process.
    pub fn new(
        tool: &'a Tool,
        options: &'a Options,
        epoll: OwnedFd,
        listeners: Vec<Listener>,
        descriptors: u64,
    ) -> Self {
        // Pipes must not take the descriptors that connections need.
        let pipes = (descriptors / 16).clamp(1, pool::MOST as u64) as usize;
        Self {
            tool,
            options,
            listeners,
            epoll,
            attempts: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_number: 0,
            queue: BTreeSet::new(),
            paused: None,
            retry: None,
            pool: Pool::new(pipes),
            now: Instant::now(),
            swept: Instant::now(),
        }
    }

    /// Relays until one of `ends` reports an event; each is given with the events to ask epoll for.
    ///
    /// # Errors
    /// epoll or a listener fails permanently. A failure of a connection is not an error here.
    pub fn run(mut self, ends: &[(RawFd, libc::c_int)]) -> Result<()> {
        for (end, events) in ends {
            watch(&self.epoll, end, *events, LIFE, 0).context(|| "epoll_ctl")?;
        }
        self.watch_listeners(libc::EPOLL_CTL_ADD, INCOMING)?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        loop {
            let count = match epoll_pwait(&self.epoll, &mut events, self.timeout()) {
                // signal(7): stopping and continuing the process interrupts the call.
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                result => result.context(|| "epoll_pwait")?,
            };
            self.now = Instant::now();
            for event in events.iter().take(count) {
                let number = event.u64 & ((1 << NUMBER_BITS) - 1);
                match event.u64 >> NUMBER_BITS {
                    LIFE => return Ok(()),
                    LISTENER => self.accept(number as usize, event.events)?,
                    end => self.ready(number, end as usize, event.events),
                }
            }
            std::mem::take(&mut self.queue).into_iter().for_each(|number| self.turn(number));
            self.retry_pending();
            self.close_idle();
            if self.has_room() && self.paused.is_some_and(|until| self.now >= until) {
                self.paused = None;
                self.watch_listeners(libc::EPOLL_CTL_MOD, INCOMING)?;
            }
        }
    }

    /// How long to wait for events, in milliseconds.
    fn timeout(&self) -> libc::c_int {
        let wait = if !self.queue.is_empty() {
            Duration::ZERO
        } else if let Some(retry) = self.retry {
            retry
        } else if self.paused.is_some() && self.has_room() {
            LOOK
        } else if let Some(idle) = self.options.idle_timeout.0.filter(|_| self.clients() > 0) {
            (idle / 4).clamp(LOOK, 10 * LOOK)
        } else {
            return -1;
        };
        wait.as_millis() as libc::c_int
    }

    fn clients(&self) -> usize {
        self.attempts.len() + self.connections.len()
    }

    fn has_room(&self) -> bool {
        self.clients() < self.options.max_connections
    }

    fn accept(&mut self, index: usize, events: u32) -> Result<()> {
        let Some(listener) = self.listeners.get_mut(index).filter(|_| self.paused.is_none()) else {
            return Ok(());
        };
        // The socket for the target comes first: no client is accepted that cannot be served.
        let Ok(socket) = listener.target.socket(0) else { return self.pause() };
        match accept4(&listener.socket, libc::SOCK_NONBLOCK) {
            Ok(client) => {
                let attempt = Attempt {
                    client,
                    socket: Some(socket),
                    listener: index,
                    deadline: self.options.connect_timeout.0.map(|limit| self.now + limit),
                    in_progress: false,
                    target: Rc::clone(&listener.target),
                    address: 0,
                    reset: false,
                    failure: None,
                };
                let number = self.next_number;
                self.next_number += 1;
                self.attempts.insert(number, attempt);
                self.pool.divide(self.clients());
                self.advance(number, 0);
                if self.attempts.contains_key(&number)
                    && let Some(listener) = self.listeners.get_mut(index)
                {
                    listener.pending.push_back(number);
                }
                if self.has_room() { Ok(()) } else { self.pause() }
            }
            Err(error) => match error.raw_os_error().unwrap_or(0) {
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => self.pause(),
                // A seccomp filter or a security module refuses the call, which leaves the client in the queue.
                libc::EPERM | libc::EACCES | libc::ENOSYS => self.pause(),
                // The socket no longer listens: its owner has shut it down. For a Unix socket accept4(2) then returns
                // EAGAIN.
                errno if errno == libc::EINVAL || events & libc::EPOLLRDHUP as u32 != 0 => {
                    Err(Error::system(format!("cannot accept on {}", listener.name), &error))
                }
                // The client or its network is gone again, or a firewall refuses it (accept(2), Error handling).
                _ => Ok(()),
            },
        }
    }

    /// Leaves clients in the listeners' backlogs. Without this, epoll would report the listeners again and again.
    fn pause(&mut self) -> Result<()> {
        // What another process closes is not reported: check again later.
        self.paused = Some(self.now + LOOK);
        self.pool.close_unused_pipes();
        // EPOLLHUP cannot be disabled, but is reported once.
        self.watch_listeners(libc::EPOLL_CTL_MOD, libc::EPOLLET)
    }

    /// Listeners are watched from start to end: other processes of this user may use up all watches that the user may
    /// have (ENOSPC, epoll_ctl(2)).
    fn watch_listeners(&self, op: libc::c_int, events: libc::c_int) -> Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let data = LISTENER << NUMBER_BITS | index as u64;
            epoll_ctl(&self.epoll, op, &listener.socket, events, data).context(|| "epoll_ctl")?;
        }
        Ok(())
    }

    /// Handles what epoll reports about the socket at one end of a connection.
    fn ready(&mut self, number: u64, end: usize, events: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return self.advance(number, events) };
        connection.ends.get_mut(end).into_iter().for_each(|end| end.note(events));
        self.queue.insert(number);
    }

    fn turn(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.active = self.now;
        match connection.turn(&mut self.pool) {
            Outcome::Idle => {}
            Outcome::More => _ = self.queue.insert(number),
            Outcome::Done => {
                self.connections.remove(&number);
                self.after_removal();
            }
        }
    }

    /// Connects a client to its target, or leaves it connecting. `events` is epoll's report on the target's socket.
    fn advance(&mut self, number: u64, events: u32) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        let error = match attempt.advance() {
            Poll::Ready(Ok(())) => return self.establish(number, events),
            Poll::Ready(Err(error)) => error,
            Poll::Pending => {
                let Some(socket) = attempt.socket.as_ref().filter(|_| attempt.in_progress) else { return };
                let watched = watch(&self.epoll, socket, EVERYTHING, TARGET_SOCKET, number);
                let Err(error) = watched else { return };
                error
            }
        };
        self.refuse(number, &error);
    }

    fn establish(&mut self, number: u64, events: u32) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        let Attempt { client, socket, in_progress, reset, .. } = attempt;
        let (Some(socket), Some(listener)) = (socket, self.listeners.get_mut(attempt.listener)) else {
            return;
        };
        listener.told = None;
        let family = listener.target.family();
        let _best_effort = if family == libc::AF_UNIX { tune_unix(&socket) } else { tune_tcp(&socket) };
        // A TCP client's socket has the options that its listener had when the client connected. With SO_LINGER, which
        // an inherited listener may have, close(2) would wait for the client (socket(7)).
        let _best_effort = match listener.family {
            libc::AF_UNIX => tune_unix(&client),
            _ => end_on_close(&client),
        };
        let watched =
            if in_progress { Ok(()) } else { watch(&self.epoll, &socket, EVERYTHING, TARGET_SOCKET, number) };
        let watched = watched.and_then(|()| watch(&self.epoll, &client, EVERYTHING, CLIENT_SOCKET, number));
        let mut connection = Connection::new((client, listener.family), (socket, family), self.now);
        connection.ends[1].reset = reset;
        connection.ends[1].note(events);
        if watched.is_err() {
            connection.reset();
            self.after_removal();
            return;
        }
        self.connections.insert(number, Box::new(connection));
    }

    /// Handles a target that cannot be reached. The client gets a reset; the user gets one report per failure that
    /// lasts, as soon as there is room for it.
    fn refuse(&mut self, number: u64, error: &io::Error) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        self.after_removal();
        let _unsupported = reset_on_close(&attempt.client);
        let Some(listener) = self.listeners.get_mut(attempt.listener) else { return };
        let lost = listener.target.is_lost(error);
        if listener.told < Some(lost) && report(self.tool, self.options, listener, lost, error) {
            listener.told = Some(lost);
        }
    }

    /// Repeats the attempts of one listener that found a full backlog, and ends those that took too long. They are in
    /// the order of their deadlines. Returns whether any are left.
    fn retry(&mut self, index: usize) -> bool {
        while let Some(&number) = self.listeners.get(index).and_then(|listener| listener.pending.front()) {
            if let Some(attempt) = self.attempts.get(&number) {
                if attempt.deadline.is_some_and(|deadline| self.now >= deadline) {
                    self.refuse(number, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
                } else if !attempt.in_progress {
                    self.advance(number, 0);
                }
            }
            if self.attempts.contains_key(&number) {
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
        let longer = self.retry.map_or(RETRY.0, |retry| (retry * 2).min(RETRY.1));
        self.retry = pending.then_some(longer);
    }

    fn close_idle(&mut self) {
        let Some(limit) = self.options.idle_timeout.0.filter(|_| self.now >= self.swept + LOOK) else {
            return;
        };
        self.swept = self.now;
        let idle = self.connections.extract_if(.., |_, connection| self.now - connection.active > limit);
        if idle.inspect(|(_, connection)| connection.reset()).count() > 0 {
            self.after_removal();
        }
    }

    /// To be called when a client has been removed: it leaves room for others.
    fn after_removal(&mut self) {
        self.paused = self.paused.map(|_| self.now);
        self.pool.divide(self.clients());
        if self.clients() == 0 {
            self.pool.close_unused_pipes();
        }
    }
}

/// Reports that a client of `listener` was refused: to `--report-fd`, else to `--status-fd`, else to stderr. `error` is
/// that of the target's last address. Returns whether there was room for the report.
fn report(tool: &Tool, options: &Options, listener: &Listener, lost: bool, error: &io::Error) -> bool {
    let fd = options.report_fd.or(tool.status).unwrap_or(2);
    // The reader may be slow, and clients must not wait for it. On a pipe POLLOUT means room for PIPE_BUF, 4096
    // bytes (pipe(7)).
    if !matches!(ppoll(&mut [pollfd(fd, libc::POLLOUT)], Some(Duration::ZERO)), Ok(1)) {
        return false;
    }
    if options.report_fd.is_some() {
        let report = Report { pair: listener.pair, lost, errno: error.raw_os_error().unwrap_or(0) };
        let _gone = write_all(fd, report.to_string().as_bytes());
        return true;
    }
    let (listen, connect) = (&listener.name, &listener.target.name);
    let message = Error::system(format!("{listen}: cannot connect to {connect}"), error);
    if tool.status.is_some() {
        let event = if lost { "relay-lost" } else { "connect-failed" };
        tool.tell(event, |event| {
            event.text("listen", listen).text("connect", connect).text("message", &message.message)
        });
    } else {
        let hint = "the program that created the socket has ended or replaced it: restart srt-relay";
        tool.warn(&if lost { message.hint(hint) } else { message });
    }
    true
}

/// Watches `fd`, until it is closed.
fn watch(epoll: &OwnedFd, fd: &impl AsRawFd, events: libc::c_int, kind: u64, number: u64) -> io::Result<()> {
    epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, events, kind << NUMBER_BITS | number)
}
