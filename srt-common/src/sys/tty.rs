//! Terminals: termios(3), tty_ioctl(4).

use super::check;
use crate::sys::process::Pid;
use std::io;
use std::os::fd::AsRawFd;

/// asm-generic/ioctls.h; libc does not have it for every target. The number of the terminal's device.
pub const TIOCGDEV: u32 = 0x8004_5432;

/// TCGETS2 of ioctl_tty(2): tcgetattr(3) with any speed. ENOTTY if it is not a terminal.
pub fn ioctl_tcgets2(tty: &impl AsRawFd) -> io::Result<libc::termios2> {
    // SAFETY: all-zero bytes are a valid termios2.
    let mut modes: libc::termios2 = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a termios2.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TCGETS2, &raw mut modes) })?;
    Ok(modes)
}

/// TCSETS2 of ioctl_tty(2): tcsetattr(3) with any speed, at once.
pub fn ioctl_tcsets2(tty: &impl AsRawFd, modes: &libc::termios2) -> io::Result<()> {
    // SAFETY: a pointer to a termios2.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TCSETS2, &raw const *modes) }).map(drop)
}

/// tcgetpgrp(3).
pub fn tcgetpgrp(tty: &impl AsRawFd) -> io::Result<Pid> {
    // SAFETY: one integer.
    check(unsafe { libc::tcgetpgrp(tty.as_raw_fd()) })
}

/// tcsetpgrp(3).
pub fn tcsetpgrp(tty: &impl AsRawFd, group: Pid) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::tcsetpgrp(tty.as_raw_fd(), group) }).map(drop)
}

/// tcgetwinsize(3): rows and columns.
pub fn tcgetwinsize(tty: &impl AsRawFd) -> io::Result<[u16; 2]> {
    // SAFETY: all-zero bytes are a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a winsize.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok([size.ws_row, size.ws_col])
}

/// VT_RESIZE of ioctl_console(2): sets the rows and columns of all virtual consoles.
pub fn ioctl_vt_resize(tty: &impl AsRawFd, [rows, columns]: [u16; 2]) -> io::Result<()> {
    const VT_RESIZE: u32 = 0x5609;
    let sizes = [rows, columns, 0];
    // SAFETY: a pointer to the three numbers of a struct vt_sizes (linux/vt.h).
    check(unsafe { libc::ioctl(tty.as_raw_fd(), VT_RESIZE as _, &raw const sizes) }).map(drop)
}

/// tcflow(3). `action`: TCOON, TCOOFF.
pub fn tcflow(tty: &impl AsRawFd, action: libc::c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::tcflow(tty.as_raw_fd(), action) }).map(drop)
}

/// ioctl(2) with an int or no argument: KDSKBMODE, KDSETMODE, TIOCEXCL, TIOCNXCL, TIOCCBRK.
pub fn ioctl(tty: &impl AsRawFd, request: u32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: used only for requests that take no pointer.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), request as _, libc::c_long::from(value)) }).map(drop)
}

/// ioctl(2) that writes an int: TIOCGDEV, TIOCGEXCL, TIOCGETD, KDGKBMODE, KDGETMODE, FIONREAD.
pub fn ioctl_get(tty: &impl AsRawFd, request: u32) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    // SAFETY: used only for requests that write one integer.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), request as _, &raw mut value) })?;
    Ok(value)
}

/// ioctl(2) on a terminal that reads an integer: TIOCSETD.
pub fn ioctl_set(tty: &impl AsRawFd, request: u32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: used only for requests that read one integer.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), request as _, &raw const value) }).map(drop)
}
