//! The processes that bound the life of this one: its parent, and the writers of `--lifetime-fd`.

use crate::sys::process::{Pid, getppid, pidfd_open};
use crate::sys::{fd, file};
use crate::{Context, Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A pidfd of the process that started this one, which becomes readable when that process ends. PR_SET_PDEATHSIG
/// (prctl(2)) would act at the end of the *thread* that forked, which is not the end of the parent. `None`: the
/// parent's pid is 0, since it is outside this pid namespace.
///
/// # Errors
/// The parent is dead, or pidfd_open(2) is refused.
pub fn watch(parent: Pid) -> Result<Option<OwnedFd>> {
    if parent == 0 {
        return Ok(None);
    }
    let pidfd = pidfd_open(parent);
    // When the parent ends, getppid(2) changes: if it is the same after the open, the pidfd is the parent's.
    if getppid() != parent {
        return Err(Error::failed("the parent process is dead").hint("--outlive-parent runs without it"));
    }
    pidfd.map(Some).context(|| "pidfd_open of the parent")
}

/// linux/magic.h: the file system of the pipes of pipe(2), which have no name.
const PIPEFS_MAGIC: libc::c_long = 0x5049_5045;

/// The descriptor that `--lifetime-fd` names: the read end of a pipe, which poll(2) reports as hung up when its last
/// writer is gone. The next program does not get it ([`crate::fds::KeptFds`]). The caller closes its copy of the write
/// end in all its other children.
///
/// A FIFO with a name is refused: a process that may open it can become a writer (fifo(7)), the command included.
///
/// # Errors
/// A usage error if it is not the read end of a pipe.
pub fn lifetime_fd(number: RawFd) -> Result<BorrowedFd<'static>> {
    let wrong = |what: &str| Error::usage(format!("--lifetime-fd {number}: {what}"));
    let pipe = fd::given(number).map_err(|_| wrong("not an open descriptor"))?;
    let stat = file::statx(&pipe, c"").context(|| "statx")?;
    let reads =
        fd::fcntl(&pipe, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY);
    if number < 3 || !stat.is(libc::S_IFIFO) || !reads {
        return Err(wrong("expected the read end of a pipe, from 3 up"));
    }
    if stat.links > 0 && !file::fstatfs(&pipe).is_ok_and(|kind| kind == PIPEFS_MAGIC) {
        return Err(wrong("a named FIFO, which other processes could open for writing")
            .hint("remove the name once both ends are open, or use pipe(2)"));
    }
    Ok(pipe)
}
