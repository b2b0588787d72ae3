//! Whose life bounds this process's: the process that started it, and the writers of `--lifetime-fd`.

use crate::sys::{fd, file, process};
use crate::{Context, Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    /// 0: outside this pid namespace, without a number here.
    pid: process::Pid,
}

impl Parent {
    /// Looks at it. First thing in `main`: a parent that is dead by then is taken for the process that has adopted this
    /// one, and cannot be told from it (that is what `--lifetime-fd` is for).
    pub fn look() -> Self {
        Self { pid: process::getppid() }
    }

    /// A pidfd that becomes readable when the parent's process ends. PR_SET_PDEATHSIG (prctl(2)) would fire at the end of
    /// the *thread* that forked, which is no end of the parent. `None`: the parent is outside this pid namespace.
    ///
    /// # Errors
    /// When it is dead, or pidfd_open(2) is refused.
    pub fn watch(self) -> Result<Option<OwnedFd>> {
        if self.pid == 0 {
            return Ok(None);
        }
        let pidfd = process::pidfd_open(self.pid);
        // The end of a parent changes getppid(2): only if it is the same after the opening is the pidfd the parent's.
        if process::getppid() != self.pid {
            return Err(Error::failed("the parent process is dead").hint("--outlive-parent runs without it"));
        }
        pidfd.map(Some).context(|| "pidfd_open of the parent")
    }
}

/// linux/magic.h: where pipe(2) makes its pipes, which have no name.
const PIPEFS_MAGIC: libc::c_long = 0x5049_5045;

/// The descriptor that `--lifetime-fd` names: the reading end of a pipe, which poll(2) reports as hung up when its last
/// writer is gone. The next program does not get it ([`crate::fds::Kept`]). The caller closes its copy of the writing end
/// in all other children.
///
/// Not a FIFO that has a name: whoever may open that becomes a writer (fifo(7)), the command included.
///
/// # Errors
/// A usage error for what is no such end.
pub fn lifetime_fd(number: RawFd) -> Result<BorrowedFd<'static>> {
    let wrong = |what: &str| Error::usage(format!("--lifetime-fd {number}: {what}"));
    let pipe = fd::given(number).map_err(|_| wrong("not an open descriptor"))?;
    let stat = file::statx(&pipe, c"").map_err(|error| Error::system("statx", &error))?;
    let is_pipe = stat.is(libc::S_IFIFO);
    let reads = fd::fcntl_getfl(&pipe).is_ok_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY);
    if number < 3 || !is_pipe || !reads {
        return Err(wrong("expected the reading end of a pipe, from 3 up"));
    }
    if stat.links > 0 && !file::fstatfs(&pipe).is_ok_and(|kind| kind == PIPEFS_MAGIC) {
        return Err(wrong("a FIFO with a name, by which others could become writers")
            .hint("remove the name once both ends are open, or use pipe(2)"));
    }
    Ok(pipe)
}
