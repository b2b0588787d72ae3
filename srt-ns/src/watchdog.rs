//! The watchdog does what the kernel does not when the supervisor dies, and what the supervisor cannot do while
//! stopped.
//!
//! A SIGKILL for the supervisor ends srt-init (by its death signal), and with it all processes inside. Four things are
//! left, and a watchdog is started if one of them exists: a command that is PID 1 itself (--as-pid-1) and could have
//! disarmed its death signal (prctl(2)), the children of a sidecar's shell, the published sockets, and the
//! placeholders. Also, under --keep-session or --lifetime-fd, a stopped supervisor cannot see that its parent or the
//! last writer is gone, or that it is asked to end: the watchdog continues it.

use crate::child::{self, Leader, Run, gets_ready};
use crate::cleanup::remove_sockets;
use crate::placeholder::{self, Place};
use srt_common::sys::fd::{pollfd, ppoll};
use srt_common::sys::process::{self, Pid, pidfd_send_signal, prctl_set_name};
use srt_common::sys::socket::{recvmsg, sendmsg, shutdown, socketpair};
use srt_common::unix_listener::SocketPath;
use srt_common::{Context, Error, Result, privileges, startup};
use std::convert::Infallible;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// To the supervisor: the watchdog has given up all that the command could use.
pub const LOCKED_DOWN: u8 = b'l';

/// The supervisor is stopping; it continues; the message contains a pidfd of a process to kill.
const STOPS: u8 = b's';
const GOES_ON: u8 = b'g';
const KILL: u8 = b'k';

/// How long the supervisor waits for the placeholders to be removed.
const END: Duration = Duration::from_secs(2);

/// What the kernel does not end or remove with the supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Leftovers<'a> {
    /// Where the published sockets are.
    pub published: &'a [SocketPath],
    /// For the watchdog to create and to remove.
    pub placeholders: &'a [Place],
    /// The sidecars' shells.
    pub shells: &'a [Leader],
}

/// Starts the watchdog. Returns its pid and the channel that takes its orders.
///
/// # Errors
/// Any error from fork(2) or socketpair(2).
pub fn start(run: Run<'_>, leftovers: Leftovers<'_>) -> Result<(Pid, OwnedFd)> {
    let (orders, reader) = socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?;
    // Opened while still permitted: a process that is not dumpable is hidden under hidepid (proc(5)).
    let status = File::open("/proc/self/status").context(|| "cannot open /proc/self/status")?;
    let pid =
        child::spawn_without_pdeathsig(run.tool, "the watchdog", || guard(&reader, run, leftovers, &status))?;
    Ok((pid, orders))
}

/// Adds a process to those that must not outlive the supervisor.
///
/// # Errors
/// The watchdog is gone.
pub fn kill_on_death(orders: &OwnedFd, pidfd: &OwnedFd) -> Result<()> {
    sendmsg(orders, KILL, Some(pidfd.as_fd())).context(|| "the watchdog is gone")
}

/// Tells the watchdog to remove what it must and exit, as it also does by itself when the supervisor dies.
pub fn release(orders: &OwnedFd) {
    let _gone = shutdown(orders, libc::SHUT_WR);
    let _in_time = gets_ready(orders, 0, END);
}

/// Called before and after a stop of the supervisor. In between, the watchdog continues it if there is something to do.
pub fn supervisor_stops(orders: &OwnedFd, stops: bool) {
    let _gone = sendmsg(orders, if stops { STOPS } else { GOES_ON }, None);
}

/// The interval for checking the signals pending for a stopped supervisor, which no descriptor reports to other
/// processes.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// Creates the placeholders; holds them, the ends of pipes and the directories of the published sockets; and waits.
/// Must not do anything else while the supervisor lives and runs.
fn guard(orders: &OwnedFd, run: Run<'_>, leftovers: Leftovers<'_>, status: &File) -> Result<Infallible> {
    let Run { supervisor_pidfd, lifetimes, .. } = run;
    let Leftovers { published, placeholders, shells } = leftovers;
    // Unlike all other processes, the watchdog outlives the supervisor: the end of the socket tells it of the death,
    // and orders stay in the socket until it reads them, however late.
    child::leave_session()?;
    child::leave_keyring()?;
    prctl_set_name(c"srt-watchdog").context(|| "prctl(PR_SET_NAME)")?;
    privileges::drop_held()?;
    // While an error can still be reported: the status descriptor is closed next.
    let held = placeholder::acquire(placeholders, supervisor_pidfd)?;
    privileges::clear_dumpable()?;
    let mut keep = vec![orders.as_raw_fd(), supervisor_pidfd.as_raw_fd(), status.as_raw_fd(), 2];
    keep.extend(published.iter().map(|place| place.directory.as_raw_fd()));
    keep.extend(shells.iter().map(|shell| shell.pidfd.as_raw_fd()));
    keep.extend(held.iter().flat_map(|(place, entry)| [&place.parent, &entry.file]).map(AsRawFd::as_raw_fd));
    keep.extend(lifetimes.iter().map(|(fd, _)| fd.as_raw_fd()));
    child::close_all_but(&keep)?;
    // Even if the supervisor is already dead, its orders must be read.
    startup::unless_gone(sendmsg(orders, LOCKED_DOWN, None)).context(|| "sendmsg to srt-ns")?;
    let condemned = take_orders(orders, run, status);
    condemned.iter().for_each(|pidfd| drop(pidfd_send_signal(pidfd, libc::SIGKILL, 0)));
    for shell in shells {
        shell.signal_group(libc::SIGKILL);
    }
    remove_sockets(published);
    placeholder::release(held);
    process::exit(0)
}

/// Continues a stopped supervisor if there is something to do. Returns at its end, or when it orders that: the pidfds of
/// what must be killed then.
fn take_orders(orders: &OwnedFd, run: Run<'_>, status: &File) -> Vec<OwnedFd> {
    let Run { supervisor_pidfd, lifetimes, .. } = run;
    let mut condemned: Vec<OwnedFd> = Vec::new();
    let mut stopped = false;
    loop {
        // The pidfd too: a process that the supervisor has sent inside may have a copy of the socket's other end.
        let supervisor = pollfd(supervisor_pidfd.as_raw_fd(), libc::POLLIN);
        let mut watched = vec![supervisor, pollfd(orders.as_raw_fd(), libc::POLLIN)];
        if stopped {
            watched.extend(lifetimes.iter().map(|(fd, events)| pollfd(fd.as_raw_fd(), *events)));
        }
        let woken = ppoll(&mut watched, stopped.then_some(STOP_LOOK));
        let [dead, told] = [0, 1].map(|at: usize| watched.get(at).is_some_and(|entry| entry.revents != 0));
        if woken.is_ok() && !dead && !told && stopped {
            if watched.iter().any(|entry| entry.revents != 0) || is_signalled(status) {
                let _gone = pidfd_send_signal(supervisor_pidfd, libc::SIGCONT, 0);
                stopped = false;
            }
            continue;
        }
        match recvmsg(orders, if dead { libc::MSG_DONTWAIT } else { 0 }) {
            Ok(message) => match message.byte {
                Some(STOPS) => stopped = true,
                Some(KILL) => condemned.extend(message.fds),
                Some(_) => stopped = false,
                None => return condemned,
            },
            // net/unix/af_unix.c, unix_release_sock(): if the supervisor died with unread messages, this error comes
            // once, before the orders that are still in the socket.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::Interrupted) => {}
            Err(_) => return condemned,
        }
    }
}

/// proc(5), ShdPnd: whether a signal is pending for the stopped supervisor that it would forward.
fn is_signalled(status: &File) -> bool {
    let mut text = [0; 4096];
    let length = status.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
    let pending = text.lines().find_map(|line| line.strip_prefix("ShdPnd:\t"));
    let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let others = [libc::SIGCHLD, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];
    let others = others.iter().fold(0, |mask, signal| mask | 1u64 << (signal - 1));
    pending & !others != 0
}

/// The error for a watchdog that was ended from outside.
pub fn gone() -> Error {
    Error::failed("the watchdog was killed")
}
