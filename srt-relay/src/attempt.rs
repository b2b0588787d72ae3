//! From an accepted client to a connection: reaching the target, which may take time, several tries, or fail.

use crate::connection::Connection;
use crate::listener;
use crate::relay::{EVERYTHING, Relay, Slot, Token};
use crate::sys;
use srt_common::Error;
use srt_common::status::Event;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A client that does not have its target yet.
pub(crate) struct Attempt {
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

impl Attempt {
    /// The first of a client that `listener` has accepted, with a socket of the target's family.
    pub(crate) fn new(client: OwnedFd, socket: OwnedFd, listener: usize, deadline: Option<u32>) -> Self {
        Self { client, socket, listener, address: 0, deadline, in_progress: false, pending: false }
    }
}

impl Relay<'_> {
    /// Connects a client to its target, or leaves it pending.
    pub(crate) fn connect(&mut self, slot: u32, mut attempt: Attempt) {
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
            // A Unix socket's backlog is full. The kernel reports no event for its end.
            Err(libc::EAGAIN) => attempt.in_progress = false,
            Err(code) => return self.try_next(slot, attempt, &io::Error::from_raw_os_error(code)),
        }
        if !std::mem::replace(&mut attempt.pending, true) {
            listener.pending.push_back(slot);
        }
        self.put(slot, Slot::Connecting(attempt));
    }

    /// epoll reports the end of an attempt that was in progress (connect(2), EINPROGRESS).
    pub(crate) fn conclude(&mut self, slot: u32, attempt: Attempt, events: u32) {
        match sys::socket_option(&attempt.socket, libc::SO_ERROR) {
            Ok(0) => self.establish(slot, attempt, events),
            Ok(code) => self.try_next(slot, attempt, &io::Error::from_raw_os_error(code)),
            Err(error) => self.try_next(slot, attempt, &error),
        }
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
        let family = listener.target.addresses.first().map_or(libc::AF_UNIX, |address| address.family());
        let _best_effort = match family {
            libc::AF_UNIX => listener::tune_unix(&attempt.socket),
            _ => listener::tune_tcp(&attempt.socket),
        };
        // A TCP client has its listener's.
        if listener.family == libc::AF_UNIX {
            let _best_effort = listener::tune_unix(&attempt.client);
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
        let (listen, connect) = (&listener.name, &listener.target.name);
        let mut report = Error::system(format!("{listen}: cannot connect to {connect}"), error);
        let lost = listener.target.is_pinned() && error.kind() == ErrorKind::ConnectionRefused;
        if lost {
            report = report
                .hint("the program that made the socket has ended or made it anew: start srt-relay again");
        }
        // Whoever reads these may be slow; clients must not wait for that.
        if sys::takes_a_line(2) {
            self.tool.warn(&report);
        }
        if let Some(status) = self.tool.status.filter(|status| sys::takes_a_line(status.number())) {
            let event = Event::new(self.tool.name, if lost { "relay-lost" } else { "connect-failed" });
            status.send(
                &event.text("listen", listen).text("connect", connect).text("message", &report.message),
            );
        }
    }

    /// Repeats the attempts of one listener that had met a full backlog, and ends those that took too long. They are
    /// in the order of their deadlines. Says whether any are left.
    pub(crate) fn retry(&mut self, index: usize) -> bool {
        while let Some(&slot) = self.listeners.get(index).and_then(|listener| listener.pending.front()) {
            match self.take(slot) {
                Slot::Connecting(attempt)
                    if attempt.deadline.is_some_and(|deadline| self.now >= deadline) =>
                {
                    self.refuse(slot, &attempt, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                Slot::Connecting(attempt) if !attempt.in_progress => self.connect(slot, attempt),
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
}
