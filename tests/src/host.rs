//! What stands on the host at the other end of a relay.

use crate::{READ_ONLY, Scratch, Who, run, tools};
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// A Unix socket on which everybody hears one word.
#[derive(Debug)]
pub struct Greeter {
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Greeter {
    /// Listens at `path`, as if its directory's owner did; everybody may connect.
    pub fn start(path: &Path, word: &'static str) -> Self {
        let listener = UnixListener::bind(path).expect("bind");
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("chmod");
        let owner = path.parent().and_then(|directory| directory.metadata().ok()).expect("a directory");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("chown");
        let serving = listener.try_clone().expect("dup");
        let thread = std::thread::spawn(move || {
            while let Ok((mut client, _)) = serving.accept() {
                let _gone = client.write_all(word.as_bytes());
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

/// Nobody listens afterwards; the path stays, as with a proxy that has crashed.
impl Drop for Greeter {
    fn drop(&mut self) {
        // SAFETY: two integers. accept(2) in the thread fails from now on.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// An srt-relay on the host: a Unix socket of the user's that leads to a TCP port.
#[derive(Debug)]
pub struct HostRelay {
    child: Child,
    /// The socket.
    pub socket: PathBuf,
}

impl HostRelay {
    /// Starts it, and waits for its `--ready-fd`.
    pub fn start(who: Who, socket: PathBuf, port: u16) -> Self {
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1"]).arg(format!("unix:{}", socket.display()));
        command.arg(format!("tcp:127.0.0.1:{port}")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("srt-relay");
        let mut word = String::new();
        let ready = child.stdout.take().expect("piped").read_to_string(&mut word);
        assert!(ready.is_ok() && word == "ready\n", "srt-relay is not ready: {word:?}");
        Self { child, socket }
    }
}

impl Drop for HostRelay {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A descriptor 9 of a command's, for `--status-fd 9`; what is written there is read with [`Events::text`].
#[derive(Debug)]
pub struct Events(PathBuf);

impl Events {
    /// Passes it to `command`.
    pub fn of(command: &mut Command, scratch: &Scratch) -> Self {
        let path = scratch.file("events", "");
        // Closed when the command object is: never, as far as a test is concerned.
        let file = std::mem::ManuallyDrop::new(File::options().append(true).open(&path).expect("events"));
        crate::pass_fd(command, file.as_raw_fd(), 9);
        Self(path)
    }

    /// All events so far.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.0).expect("events")
    }
}

/// A program of the tests' own, in a place where the user can run it.
pub fn own_program(scratch: &Scratch, built: &str) -> PathBuf {
    let path = scratch.join(Path::new(built).file_name().expect("a name"));
    // By cp(1): see [`tools`].
    run(Command::new("cp").args(["--no-target-directory", built]).arg(&path)).ok();
    path
}

/// A directory with srt-ns and, in srt-relay's place, another program; returns the path of that srt-ns.
pub fn with_another_relay(scratch: &Scratch, built: &str) -> PathBuf {
    let dir = scratch.dir("tools");
    run(Command::new("cp").arg(tools().join("srt-ns")).arg(&dir)).ok();
    run(Command::new("cp").args(["--no-target-directory", built]).arg(dir.join("srt-relay"))).ok();
    dir.join("srt-ns")
}

/// The chain with options for srt-ns: everything read-only, fresh /dev, /proc and /tmp, `work` writable, the tools
/// where they are outside.
pub fn chain_out<O: AsRef<str>>(who: Who, options: &[O], work: &Path) -> Command {
    let mut command = who.command("srt-ns");
    command.args(options.iter().map(AsRef::as_ref)).args(["--", "srt-mount"]);
    command.args(READ_ONLY).args(["--tmpfs", "/tmp"]);
    command.arg("--ro-bind").arg(tools()).arg(tools());
    command.arg("--bind").arg(work).arg(work).arg("--chdir").arg(work).args(["--", "srt-seccomp", "--"]);
    command
}

/// A file system of its own in a file, mounted until it is dropped. Tests that compare the mounts of before and after leave
/// out what is mounted on `…/mounted`: it comes, and with its mount point it goes from other mount namespaces, too.
#[derive(Debug)]
pub struct LoopMount(PathBuf);

impl LoopMount {
    /// Makes it with `mkfs` and mounts it with `options`. `None`: not on this machine.
    pub fn new(scratch: &Scratch, megabytes: u64, mkfs: &[&str], options: &str) -> Option<Self> {
        let (image, at) = (scratch.join("image"), scratch.dir("mounted"));
        File::create(&image).and_then(|file| file.set_len(megabytes << 20)).expect("an image");
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image)).ok();
        let mounted = run(Command::new("mount").args(["-o", options]).args([&image, &at]));
        (mounted.code == Some(0)).then_some(Self(at))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
