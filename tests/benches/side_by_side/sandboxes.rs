//! The same sandbox, made by the chain and by its peers: commands that lack only what is to run inside.
//!
//! Everything read-only, fresh /dev, /proc and /tmp, one writable directory, no namespace of the caller's, a session of
//! its own, the end with the caller, srt-seccomp's filter.

use crate::peers::Bubblewrap;
use crate::report::{Bench, Result};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Who starts sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever runs the benchmark.
    Self_,
    /// uid 1000, for a benchmark that runs as root.
    User,
}

/// What all sandboxes of a caller have in common.
pub struct Place {
    caller: Caller,
    tools: PathBuf,
    /// The directory that can be written inside.
    pub writable: PathBuf,
    /// srt-seccomp's filter, raw.
    pub filter: PathBuf,
    /// The same, open for the bubblewrap that is started next, and inherited by all that is started: to hand it down to
    /// one alone would make its start a slower one (no vfork).
    open_filter: Mutex<Option<File>>,
}

impl Place {
    pub fn new(bench: &Bench, caller: Caller) -> Result<Self> {
        let name = if caller == Caller::User { "user" } else { "self" };
        let directory = bench.work.path().join(name);
        let (writable, filter) = (directory.join("writable"), directory.join("filter"));
        fs::create_dir_all(&writable)?;
        let exported = Command::new(bench.tools.join("srt-seccomp")).arg("--export").output()?;
        fs::write(&filter, exported.stdout)?;
        fs::set_permissions(&filter, fs::Permissions::from_mode(0o644))?;
        if caller == Caller::User {
            chown(&writable, Some(srt_tests::USER), Some(srt_tests::USER))?;
        }
        Ok(Self { caller, tools: bench.tools.clone(), writable, filter, open_filter: Mutex::default() })
    }

    /// The same with tools built with musl, where there are some.
    pub fn with_musl(&self, bench: &mut Bench) -> Option<Self> {
        let Some(tools) = bench.musl.clone() else {
            bench.miss(
                "the chain built with musl: the full tests/bench builds it where rustup has that target",
            );
            return None;
        };
        let (writable, filter) = (self.writable.clone(), self.filter.clone());
        Some(Self { caller: self.caller, tools, writable, filter, open_filter: Mutex::default() })
    }

    /// A program of ours.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// Any command of the caller's.
    pub fn settle(&self, mut command: Command) -> Command {
        command.current_dir(&self.writable).stdin(Stdio::null());
        if self.caller == Caller::User {
            command.uid(srt_tests::USER).gid(srt_tests::USER);
        }
        command
    }

    /// Three stages, with more options for the first two.
    pub fn chain(&self, for_ns: &[impl AsRef<OsStr>], for_mount: &[impl AsRef<OsStr>]) -> Command {
        self.stages(for_ns, for_mount, &[])
    }

    /// The same with Landlock.
    pub fn chain_with_landlock(&self) -> Command {
        self.stages(&[""; 0], &[""; 0], &["--landlock"])
    }

    fn stages(
        &self,
        for_ns: &[impl AsRef<OsStr>],
        for_mount: &[impl AsRef<OsStr>],
        for_seccomp: &[&str],
    ) -> Command {
        let mut command = Command::new(self.tool("srt-ns"));
        command.args(for_ns).args(["--", "srt-mount"]).args(MOUNTS).args(self.bind());
        command.args(for_mount).args(["--", "srt-seccomp"]).args(for_seccomp).arg("--");
        self.settle(command)
    }

    /// bubblewrap with the same; it is started before the next one is asked for.
    pub fn bwrap(&self, bwrap: &Bubblewrap, more: &[impl AsRef<OsStr>]) -> Result<Command> {
        let mut command = self.bwrap_without_filter(bwrap, more);
        let filter = File::open(&self.filter)?;
        // SAFETY: integers.
        if unsafe { libc::fcntl(filter.as_raw_fd(), libc::F_SETFD, 0) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        command.arg("--seccomp").arg(filter.as_raw_fd().to_string()).arg("--");
        *self.open_filter.lock().map_err(|error| error.to_string())? = Some(filter);
        Ok(command)
    }

    /// What sandbox runtimes start today: bash in bubblewrap, which starts a socat for each relay, then a helper that
    /// loads the filter and becomes the command, and ends the socats after it. (They have the command itself run by one
    /// more bash, and the whole by another: not here.)
    pub fn stack(&self, bwrap: &Bubblewrap, relays: &[(u16, PathBuf)]) -> Command {
        let listen = relays.iter().map(|(port, socket)| {
            let socket = socket.display();
            format!("socat TCP-LISTEN:{port},fork,reuseaddr UNIX-CONNECT:{socket} >/dev/null 2>&1 &\n")
        });
        let script = listen.collect::<String>() + "trap 'kill %1 %2 2>/dev/null' EXIT\n\"$@\"";
        let mut command = self.bwrap_without_filter(bwrap, &["--", "bash", "-c", &script, "bash"]);
        command.arg(self.tool("load-filter")).arg(&self.filter);
        command
    }

    /// bubblewrap with the same but for the filter; it may end in `--`.
    pub fn bwrap_without_filter(&self, bwrap: &Bubblewrap, more: &[impl AsRef<OsStr>]) -> Command {
        let mut command = bwrap.command();
        command.args(["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]);
        command.args(["--unshare-cgroup-try", "--new-session", "--die-with-parent"]);
        command.args(MOUNTS).args(self.bind()).args(more);
        self.settle(command)
    }

    /// util-linux: the same namespaces, of the mounts /proc and /tmp alone, no filter (its setpriv has none).
    pub fn unshare(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-current-user",
            "--keep-caps",
            "--ipc",
            "--pid",
            "--net",
            "--uts",
            "--cgroup",
        ]);
        command.args(["--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        command.arg("mount -t tmpfs tmpfs /tmp && exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- \"$@\"");
        command.arg("sh");
        self.settle(command)
    }

    /// The same namespaces and mounts, and nothing else.
    pub fn floor(&self) -> Command {
        let mut command = Command::new(self.tool("floor"));
        command.arg(&self.writable);
        self.settle(command)
    }

    fn bind(&self) -> [&Path; 3] {
        [Path::new("--bind"), &self.writable, &self.writable]
    }
}

/// What every sandbox has.
pub const MOUNTS: [&str; 9] = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"];
