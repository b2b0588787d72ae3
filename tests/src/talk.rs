//! Conversations with a running program, over pipes or on a terminal of its own: what it says is awaited with a
//! deadline, never slept for.

use crate::{DEADLINE, Patience, Who, is_ready, wait};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program that runs, and both directions of the talk with it.
#[derive(Debug)]
pub struct Talk {
    child: Child,
    input: Option<File>,
    output: File,
    seen: Vec<u8>,
}

impl Talk {
    /// Starts it with pipes; its stderr comes in the same stream as its stdout.
    #[track_caller]
    pub fn over_pipes(command: &mut Command) -> Self {
        let (output, writer) = std::io::pipe().expect("pipe");
        let (reader, input) = std::io::pipe().expect("pipe");
        command.stdin(reader).stdout(writer.try_clone().expect("dup")).stderr(writer);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        // The command object holds our copies of the program's ends.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (input, output) = (OwnedFd::from(input).into(), OwnedFd::from(output).into());
        Self { child, input: Some(input), output, seen: vec![] }
    }

    /// Starts it as the leader of a new session whose controlling terminal is a new pty, without echo.
    #[track_caller]
    pub fn on_terminal(who: Who, command: &mut Command) -> Self {
        let (master, slave) = terminal();
        // As login(1) does.
        fchown(&slave, Some(who.uid()), None).expect("chown of the terminal");
        let mut modes = modes(&slave);
        modes.c_lflag &= !libc::ECHO;
        set_modes(&slave, &modes);
        command.stdin(slave.try_clone().expect("dup")).stdout(slave.try_clone().expect("dup")).stderr(slave);
        // SAFETY: both calls are async-signal-safe, and act on the child alone.
        unsafe {
            command.pre_exec(|| {
                let done = libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let input = master.try_clone().expect("dup");
        Self { child, input: Some(input), output: master, seen: vec![] }
    }

    /// The program's number.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().expect("a pid")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        crate::processes::kill(self.pid(), signal);
    }

    /// Writes to its stdin or terminal.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.input.as_mut().expect("its input is open").write_all(text.as_bytes()).expect("write");
    }

    /// Ends its stdin, or hangs up its terminal.
    pub fn hang_up(&mut self) {
        self.input = None;
        if let Ok(null) = File::open("/dev/null") {
            self.output = null;
        }
    }

    /// Ends its stdin; what it says can still be read.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until it says `text`; returns what it said before that. What is awaited next must come after it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let mut patience = Patience::default();
        loop {
            let found = self.seen.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let rest = self.seen.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.seen, rest);
                before.truncate(at);
                return String::from_utf8_lossy(&before).into_owned();
            }
            let more = self.more(Duration::from_millis(500));
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(
                more.is_some() || patience.spent() < DEADLINE,
                "waited {DEADLINE:?} in vain for {text:?}; it said {seen:?}"
            );
            assert!(more != Some(0), "it ended before it said {text:?}; it said {seen:?}");
        }
    }

    /// Waits for its next line, and returns it without the newline.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.expect("\n")
    }

    /// Whether it says nothing for `time`.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.seen.is_empty() && self.more(time).is_none()
    }

    /// Reads what there is: the number of bytes, 0 at the end, `None` if none come in time.
    fn more(&mut self, time: Duration) -> Option<usize> {
        let mut poll = libc::pollfd { fd: self.output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: one pollfd.
        if unsafe { libc::poll(&mut poll, 1, time) } < 1 {
            return None;
        }
        let mut bytes = [0; 4096];
        // A terminal that nobody has open any more is EIO.
        let count = self.output.read(&mut bytes).unwrap_or(0);
        self.seen.extend(&bytes[..count]);
        Some(count)
    }

    /// Waits for its end; returns its exit code, or 128+N for a signal, and what it said since the last
    /// [`Talk::expect`].
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        // The end may wait for somebody to read.
        let mut patience = Patience::default();
        loop {
            let more = self.more(Duration::from_millis(500));
            let late = patience.spent() >= DEADLINE;
            if more == Some(0) || more.is_none() && late {
                break;
            }
            assert!(!late, "it goes on and on: {:?}", String::from_utf8_lossy(&self.seen));
        }
        let status = self.status();
        (code(status), String::from_utf8_lossy(&self.seen).into_owned())
    }

    /// Waits for its end alone: others may hold its output open.
    #[track_caller]
    pub fn status(&mut self) -> ExitStatus {
        wait(&mut self.child, "the end of the program")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// The terminal's modes, as numbers.
    pub fn modes(&self) -> [u64; 4] {
        let modes = modes(&self.output);
        [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag].map(u64::from)
    }

    /// Which process group has the terminal's foreground.
    pub fn foreground(&self) -> i32 {
        // SAFETY: one integer.
        unsafe { libc::tcgetpgrp(self.output.as_raw_fd()) }
    }

    /// Changes the terminal's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads a winsize.
        assert_eq!(unsafe { libc::ioctl(self.output.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// An exit status as a shell has it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().expect("a signal"))
}

/// A terminal whose slave the test keeps, as the shell does that has started a program on it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: File,
}

/// All of a terminal that a program could leave in another state than it was.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// termios(3): input, output, control, local.
    pub modes: [u64; 4],
    /// termios(3): c_cc.
    pub characters: Vec<u8>,
    /// Input and output, in bits a second.
    pub speeds: [u32; 2],
    /// Output is not stopped (TCOOFF): it can be written.
    pub flows: bool,
    /// TIOCEXCL: nobody but root may open it.
    pub exclusive: bool,
    /// Permission bits of the device.
    pub mode: u32,
    /// The flags of the shared open file description, O_NONBLOCK among them (fcntl(2), F_GETFL).
    pub flags: i32,
    /// The rows and columns.
    pub size: (u16, u16),
}

impl Terminal {
    /// A new one that belongs to `who`, mode 0620, with a speed that has no constant.
    pub fn new(who: Who) -> Self {
        let (master, slave) = terminal();
        fchown(&slave, Some(who.uid()), None).expect("chown of the terminal");
        let mut modes = modes(&slave);
        modes.c_cflag = modes.c_cflag & !libc::CBAUD | libc::BOTHER;
        (modes.c_ispeed, modes.c_ospeed) = (12345, 12345);
        set_modes(&slave, &modes);
        Self { master, slave }
    }

    /// The slave, for a program's 0, 1 or 2: the same open file description.
    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().expect("dup").into()
    }

    /// The descriptor of the master.
    pub fn master(&self) -> i32 {
        self.master.as_raw_fd()
    }

    /// The descriptor of the slave.
    pub fn fd(&self) -> i32 {
        self.slave.as_raw_fd()
    }

    /// How it is now.
    pub fn state(&self) -> State {
        let fd = self.slave.as_raw_fd();
        let modes = modes(&self.slave);
        let mut exclusive: libc::c_int = 0;
        // SAFETY: TIOCGEXCL writes an integer.
        assert_eq!(unsafe { libc::ioctl(fd, TIOCGEXCL, &raw mut exclusive) }, 0);
        let flows = is_ready(&self.slave, libc::POLLOUT);
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCGWINSZ writes a winsize.
        assert_eq!(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) }, 0);
        State {
            modes: [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag].map(u64::from),
            characters: modes.c_cc.to_vec(),
            speeds: [modes.c_ispeed, modes.c_ospeed],
            flows,
            exclusive: exclusive != 0,
            mode: self.slave.metadata().expect("fstat").mode() & 0o7777,
            // SAFETY: one integer.
            flags: unsafe { libc::fcntl(fd, libc::F_GETFL) },
            size: (size.ws_row, size.ws_col),
        }
    }

    /// Reads so many bytes of what was written.
    pub fn read(&mut self, count: usize) {
        self.master.read_exact(&mut vec![0; count]).expect("read");
    }

    /// Fills it in pieces, of which nothing is read but as much as makes room.
    pub fn leave_little_room(&mut self) {
        while self.state().flows {
            fill_by(self.fd(), 256);
        }
        while !self.state().flows {
            self.read(64);
        }
    }

    /// Reads away what was written.
    pub fn drain(&mut self) {
        let mut poll = libc::pollfd { fd: self.master.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        while unsafe { libc::poll(&raw mut poll, 1, 0) } == 1 && poll.revents & libc::POLLIN != 0 {
            let _said = self.master.read(&mut [0; 4096]);
        }
    }
}

/// Writes so many bytes at a time until there is no room, without waiting for a reader.
pub fn fill_by(fd: i32, count: usize) {
    // SAFETY: integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    // SAFETY: a buffer and its length.
    while unsafe { libc::write(fd, [0u8; 4096].as_ptr().cast(), count) } > 0 {}
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
}

/// asm-generic/ioctls.h; libc has it not for every C library.
const TIOCGEXCL: libc::Ioctl = 0x8004_5440_u32 as libc::Ioctl;

/// Both sides of a new pty, close-on-exec from the first moment: another test may fork at any time.
fn terminal() -> (File, File) {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    let master =
        File::options().read(true).write(true).custom_flags(flags).open("/dev/ptmx").expect("/dev/ptmx");
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an integer.
    assert_eq!(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) }, 0);
    // SAFETY: TIOCGPTPEER takes the flags of open(2).
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags | libc::O_RDWR) };
    assert!(slave >= 0, "TIOCGPTPEER: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    (master, unsafe { File::from_raw_fd(slave) })
}

fn set_modes(terminal: &File, modes: &libc::termios2) {
    // SAFETY: a pointer to a termios2.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TCSETS2, &raw const *modes) };
    assert_eq!(set, 0, "TCSETS2: {}", std::io::Error::last_os_error());
}

/// With TCGETS2, since tcgetattr(3) does not tell every speed.
fn modes(terminal: &File) -> libc::termios2 {
    let mut modes = std::mem::MaybeUninit::<libc::termios2>::zeroed();
    // SAFETY: a pointer to a termios2.
    let got = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TCGETS2, modes.as_mut_ptr()) };
    assert_eq!(got, 0, "TCGETS2: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has filled it.
    unsafe { modes.assume_init() }
}
