//! The CPU share of the caller's session, to be restored.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

/// sched(7), "The autogroup feature": the nice value of the session, which any process in it may change.
#[derive(Debug)]
pub(super) struct Autogroup {
    /// Opened while this process still owns it: the /proc files of a process that is not dumpable are root's (proc(5)).
    file: File,
    nice: String,
}

impl Autogroup {
    /// `None`: the kernel has none, or no procfs is there.
    pub(super) fn look() -> Option<Self> {
        let file = File::options().read(true).write(true).open("/proc/self/autogroup").ok()?;
        Some(Self { nice: Self::nice(&file)?, file })
    }

    /// Parses the nice value in `/autogroup-25 nice 0`.
    fn nice(file: &File) -> Option<String> {
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).ok()?;
        String::from_utf8_lossy(text.get(..length)?).split_whitespace().last().map(str::to_owned)
    }

    /// Best effort. EAGAIN: the kernel accepts one change every tenth of a second, for all sessions together
    /// (`proc_sched_autogroup_set_nice()` in kernel/sched/autogroup.c).
    pub(super) fn restore(&self, attempts: usize) {
        for attempt in 0..attempts {
            if attempt > 0 {
                thread::sleep(Duration::from_millis(40));
            }
            let is_as_before = Self::nice(&self.file).is_none_or(|nice| nice == self.nice);
            let again = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if is_as_before || !(&self.file).write(self.nice.as_bytes()).is_err_and(again) {
                return;
            }
        }
    }
}
