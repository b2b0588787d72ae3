//! Input into a terminal that somebody else reads.

use crate::sys::{descriptor, open, sys};
use crate::{Outcome, number};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, Stdio};

pub fn attack(words: &[&str]) -> Option<Outcome> {
    Some(match *words {
        // REQUEST is TIOCSTI, with or without garbage in its high half.
        ["inject", fd, request] => inject(number(fd) as i32, number(request)),
        ["ioctl", fd, request, word] => {
            sys!(libc::SYS_ioctl, number(fd), number(request), number(word)).map(|_| "done".into())
        }
        // TIOCLINUX, subcode 3 (paste), and a selection: a request that no terminal but a console knows.
        ["paste", fd, request] => {
            let subcode = [3_u8; 8];
            sys!(libc::SYS_ioctl, number(fd), number(request), subcode.as_ptr()).map(|_| "done".into())
        }
        // By its name, and by opening the descriptor again.
        ["inject-dev-tty", request] => {
            open("/dev/tty", libc::O_RDWR).and_then(|tty| inject(tty.as_raw_fd(), number(request)))
        }
        ["inject-reopened", fd, request] => open(&format!("/proc/self/fd/{fd}"), libc::O_RDWR)
            .and_then(|tty| inject(tty.as_raw_fd(), number(request))),
        // Takes the terminal from its session, as root may.
        ["steal", fd, request] => sys!(libc::SYS_setsid)
            .or(Ok(0))
            .and_then(|_| sys!(libc::SYS_ioctl, number(fd), libc::TIOCSCTTY, 1))
            .and_then(|_| inject(number(fd) as i32, number(request))),
        ["foreground", fd, group] => {
            let group = number(group) as i32;
            sys!(libc::SYS_ioctl, number(fd), libc::TIOCSPGRP, &raw const group).map(|_| "done".into())
        }
        // One thing each that whoever has a terminal open may change about it. Without a word: it may be a terminal that
        // nobody can write to any more.
        ["spoil", fd, what] => spoil(number(fd) as i32, what).map(|()| std::process::exit(0)),
        // All of them, on 0, 1 and 2, in an order in which each can still be done.
        ["spoil-all"] => ["raw", "nonblock", "mode", "exclusive", "flow"]
            .iter()
            .try_for_each(|what| (0..3).try_for_each(|fd| spoil(fd, what)))
            .map(|()| std::process::exit(0)),
        // Gives the terminal's foreground to a process that stays, and leaves it with it.
        ["leave-foreground", fd] => leave_foreground(number(fd) as i32).map(|()| "left".into()),
        // Has the kernel send a signal to the terminal's foreground, of whatever session, at the next key: SETFL or IOCTL.
        ["async", fd, signal, how] => asynchronous(number(fd) as i32, number(signal), how),
        // Not an attack: the rest of the words run on a terminal of their own; then what was typed there is told.
        ["on-a-terminal", ref command @ ..] => on_a_terminal(command),
        _ => return None,
    })
}

fn inject(fd: i32, request: u64) -> Outcome {
    for byte in b"OWNED" {
        sys!(libc::SYS_ioctl, fd, request, &raw const *byte)?;
    }
    Ok("injected".into())
}

fn asynchronous(fd: i32, signal: u64, how: &str) -> Outcome {
    // Without it the signal is SIGIO.
    let _refused = sys!(libc::SYS_fcntl, fd, 10 /* F_SETSIG */, signal);
    let (flags, on) = (sys!(libc::SYS_fcntl, fd, libc::F_GETFL)?, 1);
    match how {
        "SETFL" => sys!(libc::SYS_fcntl, fd, libc::F_SETFL, flags | i64::from(libc::O_ASYNC))?,
        _ => sys!(libc::SYS_ioctl, fd, 0x5452 /* FIOASYNC */, &raw const on)?,
    };
    println!("armed");
    // Until there is input, whose signal it is.
    let time = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    let mut input = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    sys!(libc::SYS_ppoll, &raw mut input, 1, &raw const time, 0, 8)?;
    Ok("armed".into())
}

fn spoil(fd: i32, what: &str) -> io::Result<()> {
    match what {
        "flow" => sys!(libc::SYS_ioctl, fd, libc::TCXONC, libc::TCOOFF),
        "exclusive" => sys!(libc::SYS_ioctl, fd, libc::TIOCEXCL, 0),
        "mode" => sys!(libc::SYS_fchmod, fd, 0o666),
        "nonblock" => sys!(libc::SYS_fcntl, fd, libc::F_GETFL)
            .and_then(|flags| sys!(libc::SYS_fcntl, fd, libc::F_SETFL, flags | i64::from(libc::O_NONBLOCK))),
        "raw" => {
            // SAFETY: all-zero bytes are a valid termios.
            let mut modes: libc::termios = unsafe { std::mem::zeroed() };
            modes.c_cflag = libc::CS8 | libc::CREAD;
            sys!(libc::SYS_ioctl, fd, libc::TCSETS, &raw const modes)
        }
        // KDSKBMODE, K_OFF; KDSKBMETA, K_ESCPREFIX; KDSETMODE, KD_GRAPHICS.
        "keyboard" => sys!(libc::SYS_ioctl, fd, 0x4b45, 4),
        "meta" => sys!(libc::SYS_ioctl, fd, 0x4b63, 4),
        "graphics" => sys!(libc::SYS_ioctl, fd, 0x4b3a, 1),
        // VT_RESIZE, 10 rows of 20 columns.
        "size" => {
            let sizes = [10_u16, 20, 0];
            sys!(libc::SYS_ioctl, fd, 0x5609, &raw const sizes)
        }
        _ => panic!("{what}: no such thing of a terminal"),
    }
    .map(drop)
}

fn leave_foreground(fd: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN is no function. Whoever gives the foreground away is in the background then.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        std::thread::sleep(std::time::Duration::from_secs(1000));
        std::process::exit(0);
    }
    sys!(libc::SYS_setpgid, child, child)?;
    sys!(libc::SYS_ioctl, fd, libc::TIOCSPGRP, &raw const child).map(drop)
}

fn on_a_terminal(command: &[&str]) -> Outcome {
    let master = open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY)?;
    let (zero, mut number) = (0_i32, 0_i32);
    sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &raw const zero)?;
    sys!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTN, &raw mut number)?;
    let slave = format!("/dev/pts/{number}");
    let (mut report, reporter) = io::pipe()?;
    // SAFETY: this program has one thread.
    if unsafe { libc::fork() } == 0 {
        let told = session(&slave, command);
        let _reported = (&reporter).write_all(told.as_bytes());
        std::process::exit(0);
    }
    drop(reporter);
    // The terminal's output goes to nobody, but has to go.
    let mut shown = vec![];
    // SAFETY: a copy of a descriptor that lives on.
    let mut master = unsafe { std::fs::File::from_raw_fd(libc::dup(master.as_raw_fd())) };
    let _hung_up = master.read_to_end(&mut shown);
    let mut told = String::new();
    report.read_to_string(&mut told)?;
    print!("{}", String::from_utf8_lossy(&shown).replace('\r', ""));
    Ok(told)
}

/// The leader of the terminal's session: runs the command in it, as a shell does, and reads what is typed ahead.
fn session(slave: &str, command: &[&str]) -> String {
    sys!(libc::SYS_setsid).expect("setsid");
    let tty = open(slave, libc::O_RDWR).expect("open the slave");
    let fd = tty.as_raw_fd();
    let _already = sys!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0);
    // SAFETY: all-zero bytes are a valid termios: not canonical, no echo, VMIN and VTIME 0: read(2) never waits.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    modes.c_cflag = libc::CS8 | libc::CREAD;
    sys!(libc::SYS_ioctl, fd, libc::TCSETS, &raw const modes).expect("raw mode");
    // SAFETY: SIG_IGN is no function. A command that leaves us in the background must not stop us.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let stdio = || Stdio::from(descriptor(sys!(libc::SYS_dup, fd).expect("dup")));
    let mut ran = Command::new(command[0]);
    ran.args(&command[1..]).stdin(stdio()).stdout(stdio()).stderr(stdio());
    let status = ran.status();
    // SAFETY: no argument.
    let own = unsafe { libc::getpgrp() };
    let _mine = sys!(libc::SYS_ioctl, fd, libc::TIOCSPGRP, &raw const own);
    let _raw = sys!(libc::SYS_ioctl, fd, libc::TCSETS, &raw const modes);
    let mut typed = [0_u8; 256];
    let count = sys!(libc::SYS_read, fd, typed.as_mut_ptr(), typed.len()).unwrap_or(0);
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    format!("{status}, typed {:?}", String::from_utf8_lossy(&typed[..count as usize]))
}
