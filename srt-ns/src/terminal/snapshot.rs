//! The state of one terminal, to be restored.

use srt_common::sys::file::{Stat, fchmod, statx};
use srt_common::sys::process::getpgrp;
use srt_common::sys::tty::{
    TIOCGDEV, ioctl, ioctl_get, ioctl_set, ioctl_tcgets2, ioctl_tcsets2, ioctl_vt_resize, tcflow, tcgetpgrp,
    tcgetwinsize,
};
use std::os::fd::RawFd;

// asm-generic/ioctls.h, the same on both architectures; libc lacks some of them.
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSETD: u32 = 0x5423;
const TIOCGETD: u32 = 0x5424;
const TIOCCBRK: u32 = 0x5428;
/// `_IOR('T', 0x40, int)`
const TIOCGEXCL: u32 = 0x8004_5440;

/// ioctl_console(2): the keyboard mode of a virtual console, its meta key, and whether it shows text; KDGKBMODE and
/// KDSKBMODE, KDGKBMETA and KDSKBMETA, KDGETMODE and KDSETMODE. A process on a console may leave it without keyboard
/// input and display.
const CONSOLE: [(u32, u32); 3] = [(0x4b44, 0x4b45), (0x4b62, 0x4b63), (0x4b3b, 0x4b3a)];

/// A terminal that the command gets as 0, 1 or 2, with its state before.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) number: RawFd,
    pub(super) modes: libc::termios2,
    file: Option<Stat>,
    exclusive: Option<libc::c_int>,
    discipline: Option<libc::c_int>,
    console: [Option<libc::c_int>; 3],
    /// Rows and columns of a virtual console. The kernel does not determine those of other terminals.
    size: Option<[u16; 2]>,
}

impl Snapshot {
    /// `None`: not a terminal.
    pub(super) fn look(number: RawFd) -> Option<Self> {
        let modes = ioctl_tcgets2(&number).ok()?;
        let get = |request| ioctl_get(&number, request).ok();
        let (exclusive, discipline) = (get(TIOCGEXCL), get(TIOCGETD));
        let (file, console) = (statx(&number, c"").ok(), CONSOLE.map(|(request, _)| get(request)));
        let size = console[0].and_then(|_| tcgetwinsize(&number).ok());
        Some(Self { number, modes, file, exclusive, discipline, console, size })
    }

    /// Best effort: the terminal may be gone.
    pub(super) fn restore(&self, modes_are_ours: bool) {
        let number = &self.number;
        if let Some(discipline) = self.discipline
            && ioctl_get(number, TIOCGETD).ok() != Some(discipline)
            && holds_no_output(number)
        {
            let _gone = ioctl_set(number, TIOCSETD, discipline);
        }
        // For a serial line: the break of TIOCSBRK lasts until it is ended.
        let _gone = ioctl(number, TIOCCBRK, 0);
        // tcflow(3) undoes TCOOFF, but not a stop key (^S).
        let _gone = tcflow(number, libc::TCOON);
        // The modes belong to the foreground: while this was a background job, the shell has set its own.
        if tcgetpgrp(number).map_or(true, |foreground| foreground == getpgrp() && modes_are_ours) {
            let _gone = ioctl_tcsets2(number, &self.modes);
        }
        if let Some(exclusive) = self.exclusive {
            let _gone = ioctl(number, if exclusive == 0 { TIOCNXCL } else { TIOCEXCL }, 0);
        }
        for ((_, set), mode) in CONSOLE.iter().zip(self.console) {
            let _gone = mode.map(|mode| ioctl(number, *set, mode));
        }
        // VT_RESIZE changes all consoles, and so does this call.
        if let Some(before) = self.size
            && tcgetwinsize(number).is_ok_and(|now| now != before)
        {
            let _gone = ioctl_vt_resize(number, before);
        }
        if let (Some(before), Ok(now)) = (self.file, statx(number, c""))
            && before.mode != now.mode
        {
            let _not_ours = fchmod(number, before.mode & 0o7777);
        }
    }
}

/// Whether this is a virtual console or a pseudoterminal (Documentation/admin-guide/devices.txt). TIOCSETD waits
/// without a limit until all output is sent (`tty_wait_until_sent()` in drivers/tty/tty_ioctl.c), and on a serial line
/// the command can have stopped it so that nobody can start it again.
fn holds_no_output(number: &RawFd) -> bool {
    // makedev(3): the kernel's numbers have the major in bits 8 to 19.
    ioctl_get(number, TIOCGDEV).is_ok_and(|device| match device >> 8 & 0xfff {
        4 => device & 0xff < 64,
        major => (136..=143).contains(&major),
    })
}
