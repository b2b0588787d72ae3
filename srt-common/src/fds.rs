//! Which descriptors the next program gets: 0, 1, 2 and those that the user has named.

use crate::sys::tty::{TIOCGDEV, ioctl_get};
use crate::sys::{fd, file, process, socket};
use crate::{Context, Error, Result};
use std::io::{self, IsTerminal};
use std::iter;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

/// The descriptors that `--keep-fd` names, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptFds(Vec<RawFd>);

impl KeptFds {
    /// Checks that every descriptor is open.
    ///
    /// # Errors
    /// A usage error that names a descriptor that is not open.
    pub fn new(fds: Vec<RawFd>) -> Result<Self> {
        if let Some(fd) = fds.iter().find(|&&number| fd::given(number).is_err()) {
            return Err(Error::usage(format!("--keep-fd {fd}: not an open descriptor")));
        }
        Ok(fds.into_iter().fold(Self::default(), Self::and))
    }

    /// Adds a descriptor.
    #[must_use]
    pub fn and(mut self, number: RawFd) -> Self {
        if let Err(at) = self.0.binary_search(&number) {
            self.0.insert(at, number);
        }
        self
    }

    /// The descriptors from 3 up, in order.
    pub fn numbers(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.iter().copied().filter(|&fd| fd > 2)
    }

    /// Makes the next exec close every descriptor except 0, 1, 2 and these.
    ///
    /// # Errors
    /// Any error from close_range(2) (Linux 5.11 has `CLOSE_RANGE_CLOEXEC`).
    pub fn close_others_on_exec(&self) -> Result<()> {
        self.close_gaps(libc::CLOSE_RANGE_CLOEXEC)?;
        // Of 0, 1 and 2, those that the caller has closed have it.
        for number in (0..=2).chain(self.numbers()) {
            fd::fcntl(&number, libc::F_SETFD, 0).context(|| format!("descriptor {number}"))?;
        }
        Ok(())
    }

    /// Immediately closes every descriptor from 3 up except these and `also`.
    ///
    /// # Errors
    /// Any error from close_range(2).
    pub fn close_others(&self, also: impl IntoIterator<Item = RawFd>) -> Result<()> {
        also.into_iter().fold(self.clone(), Self::and).close_gaps(0)
    }

    fn close_gaps(&self, flags: libc::c_uint) -> Result<()> {
        let close = |(first, last)| fd::close_range(first, last, flags);
        self.gaps().try_for_each(close).context(|| "close_range")
    }

    /// Every range of numbers from 3 up that contains none of these: from the number after one to that before the next.
    fn gaps(&self) -> impl Iterator<Item = (u32, u32)> {
        let kept = || self.numbers().map(|fd| fd as u32);
        let first = iter::once(3).chain(kept().map(|fd| fd + 1));
        let last = kept().map(|fd| fd - 1).chain([u32::MAX]);
        first.zip(last).filter(|(first, last)| first <= last)
    }
}

/// Checks a descriptor that an option names to be written to.
///
/// # Errors
/// What is wrong with it.
pub fn can_be_written(number: RawFd) -> Result<(), &'static str> {
    let given = fd::given(number).map_err(|_| "not an open descriptor")?;
    // In musl, O_ACCMODE includes O_PATH.
    match fd::fcntl(&given, libc::F_GETFL, 0).unwrap_or(libc::O_PATH) & (libc::O_ACCMODE | libc::O_PATH) {
        libc::O_WRONLY | libc::O_RDWR => Ok(()),
        _ => Err("not open for writing"),
    }
}

/// Raises the soft limit on descriptors to the hard limit. Returns both as they were.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise_limit() -> Result<libc::rlimit> {
    let limit = process::getrlimit(libc::RLIMIT_NOFILE as i32).context(|| "getrlimit")?;
    if limit.rlim_cur != limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        process::setrlimit(libc::RLIMIT_NOFILE as i32, raised).context(|| "setrlimit")?;
    }
    Ok(limit)
}

/// If set, [`say`] must not block. Contains the terminals among the descriptors that it writes to, opened again.
static NEVER_WAIT: OnceLock<Vec<(RawFd, OwnedFd)>> = OnceLock::new();

/// O_NONBLOCK on the caller's own open file description would affect all processes that share it.
const OWN: libc::c_int = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens the terminals among these descriptors again for [`never_wait`], while this process may do so, and before a
/// process inside can prevent it (TIOCEXCL).
pub fn own_terminals(numbers: impl IntoIterator<Item = RawFd>) -> Vec<(RawFd, OwnedFd)> {
    let terminal = |number| {
        let given = fd::borrowed(number).ok().filter(IsTerminal::is_terminal)?;
        let own = open_again(number).ok()?;
        // /dev/tty may lead to another terminal than when it was opened, and the master of a pty to a new one.
        let same = ioctl_get(&given, TIOCGDEV).ok()? == ioctl_get(&own, TIOCGDEV).ok()?;
        same.then_some((number, own))
    };
    numbers.into_iter().filter_map(terminal).collect()
}

/// Opens a terminal or pipe again, for writing without blocking.
///
/// # Errors
/// Any error from open(2): the pipe may belong to another user.
pub fn open_again(number: RawFd) -> io::Result<OwnedFd> {
    file::open(format!("/proc/self/fd/{number}"), OWN)
}

/// From now on, [`say`] drops what cannot be written immediately: this process must not be blocked by others that can
/// fill the pipe, or stop the terminal.
pub fn never_wait(terminals: Vec<(RawFd, OwnedFd)>) {
    let _first = NEVER_WAIT.set(terminals);
}

/// Writes a message, in one write.
///
/// # Errors
/// The errno; EAGAIN after [`never_wait`].
pub fn say(number: RawFd, bytes: &[u8]) -> io::Result<()> {
    let Some(terminals) = NEVER_WAIT.get() else { return write_all(number, bytes) };
    if let Some((_, own)) = terminals.iter().find(|(other, _)| *other == number) {
        return fd::write(own, bytes).map(drop);
    }
    match file::statx(&number, c"")?.file_type() {
        libc::S_IFSOCK => socket::send(&number, bytes, libc::MSG_DONTWAIT).map(drop),
        libc::S_IFREG => write_all(number, bytes),
        // If it cannot be opened again (the command may change its mode), a pipe accepts data from another pipe without
        // blocking (splice(2)).
        libc::S_IFIFO => match open_again(number) {
            Ok(own) => fd::write(&own, bytes).map(drop),
            Err(_) => splice_from_own_pipe(number, bytes),
        },
        // For a terminal that could not be opened again, poll(2) is the next best check.
        _ => match fd::ppoll(&mut [fd::pollfd(number, libc::POLLOUT)], Some(Duration::ZERO))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => fd::write(&number, bytes).map(drop),
        },
    }
}

/// Fails with EAGAIN if the pipe `number` has no room.
fn splice_from_own_pipe(number: RawFd, bytes: &[u8]) -> io::Result<()> {
    let (from, to) = fd::pipe2(libc::O_NONBLOCK)?;
    let count = fd::write(&to, bytes)?;
    fd::splice(&from, &number, count, libc::SPLICE_F_NONBLOCK).map(drop)
}

/// Calls write(2) until everything is written.
///
/// # Errors
/// Any errno except EINTR.
pub fn write_all(number: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match fd::write(&number, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_gaps_leave_out_what_is_kept() {
        let gaps = |fds: &[RawFd]| KeptFds(fds.to_vec()).gaps().collect::<Vec<_>>();
        assert_eq!(gaps(&[0, 3, 5, 6, 9]), [(4, 4), (7, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[4, RawFd::MAX]), [(3, 3), (5, (1 << 31) - 2), (1 << 31, u32::MAX)]);
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
    }

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (reader, writer) = fd::pipe2(0).expect("a pipe that blocks");
        let (mut told, number) = (0, writer.as_raw_fd());
        let full = loop {
            match splice_from_own_pipe(number, b"word\n") {
                Ok(()) => told += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((full.kind(), told > 0), (io::ErrorKind::WouldBlock, true));
        drop(writer);
        let all = io::read_to_string(std::fs::File::from(reader)).expect("read");
        assert_eq!(all, "word\n".repeat(told));
    }

    #[test]
    fn a_closed_descriptor_is_named() {
        let error = KeptFds::new(vec![0, 1_000_000]).expect_err("not open");
        assert!(error.message.contains("--keep-fd 1000000"), "{}", error.message);
    }
}
