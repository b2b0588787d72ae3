//! The last step of a stage: executing the next program.

use crate::sys::c_path;
use crate::sys::entry::environ;
use crate::sys::file::{fstatvfs, open, readlinkat};
use crate::sys::process::{self, Pointers};
use crate::sys::signal::{self, Disposition};
use crate::{Context, Error, Kind, Result, interpreter, procfs};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// If named without a slash, these are searched for in the running tool's directory before PATH.
const STAGES: [&str; 3] = ["srt-ns", "srt-mount", "srt-seccomp"];

/// argv and the environment in the form that execve(2) takes.
#[derive(Debug)]
pub struct Program {
    /// PROGRAM as the user wrote it.
    pub name: OsString,
    argv: Vec<CString>,
    /// The environment, as execve(2) takes it.
    pub envp: Vec<CString>,
}

impl Program {
    /// PROGRAM and its arguments, with this process's environment.
    ///
    /// # Errors
    /// A usage error for an empty list or a NUL byte; neither can come from argv.
    pub fn new(words: &[OsString]) -> Result<Self> {
        let name = words.first().ok_or_else(|| Error::usage("PROGRAM is missing"))?.clone();
        let argv: io::Result<_> = words.iter().map(c_path).collect();
        let argv = argv.map_err(|_| Error::usage("NUL byte in an argument"))?;
        Ok(Self { name, argv, envp: environ() })
    }

    /// The paths at which PROGRAM may be, in the order in which they are tried: its name if that contains a slash;
    /// else, for a stage, the running tool's directory, then each directory of PATH, as in execvp(3).
    pub fn candidates(&self) -> Vec<PathBuf> {
        if self.name.as_bytes().contains(&b'/') {
            return vec![PathBuf::from(&self.name)];
        }
        if self.name.is_empty() {
            return vec![];
        }
        // PATH is not trusted for a stage: its first directory may be one that the previous command could write.
        let beside = if is_stage(&self.name) { beside(&self.name).ok() } else { None };
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
        let in_path = std::env::split_paths(&path).map(|directory| directory.join(&self.name));
        beside.into_iter().chain(in_path).collect()
    }

    /// Executes the first of these paths that can be executed: [`Program::candidates`], or other paths of the same
    /// program. Returns only on failure.
    pub fn exec(&self, paths: &[PathBuf]) -> Error {
        self.ready(paths).map_or_else(|error| error, |ready| self.failure(&ready.exec()))
    }

    /// Does everything that precedes the exec itself, including the reset of SIGPIPE and SIGXFSZ.
    ///
    /// # Errors
    /// The kernel refuses to reset a signal.
    pub fn ready(&self, paths: &[PathBuf]) -> Result<Ready<'_>> {
        restore_signals().context(|| "cannot restore SIGPIPE and SIGXFSZ")?;
        let paths = paths.iter().filter_map(|path| c_path(path).ok()).collect();
        Ok(Ready { program: self, paths, argv: Pointers::new(&self.argv), envp: Pointers::new(&self.envp) })
    }

    /// Executes the file that `fd` refers to. Returns only on failure.
    pub fn exec_fd(&self, fd: &impl AsRawFd) -> Error {
        self.failure(&match restore_signals() {
            Ok(()) => process::execveat(fd, &Pointers::new(&self.argv), &Pointers::new(&self.envp)),
            Err(error) => error,
        })
    }

    /// The error of a failed exec: 127 for ENOENT, else 126, as in env(1).
    fn failure(&self, error: &io::Error) -> Error {
        self.failure_with(error, || self.obstacle())
    }

    /// The same, with a cause that the caller knows or has determined while it could.
    pub fn failure_with(&self, error: &io::Error, cause: impl FnOnce() -> Option<String>) -> Error {
        let failure = Error::system(format!("cannot run {}", self.name.display()), error).path(&self.name);
        match error.raw_os_error() {
            Some(libc::ENOENT) => Error { kind: Kind::NotFound, hint: cause(), ..failure },
            Some(libc::EACCES) => Error { kind: Kind::NotExecutable, hint: cause(), ..failure },
            _ => Error { kind: Kind::NotExecutable, ..failure },
        }
    }

    /// Why an existing file of PROGRAM cannot be executed, if its mode does not show that.
    pub fn obstacle(&self) -> Option<String> {
        let paths = self.candidates();
        let missing = paths.iter().find_map(|path| interpreter::missing(path));
        missing.or_else(|| {
            let path = paths.iter().find(|path| path.is_file() && is_noexec(path))?;
            Some(format!("{} is on a mount that lets nothing be run (noexec)", path.display()))
        })
    }
}

/// A program that is ready for execve(2): [`Ready::exec`] makes no other system call, and allocates memory only for a
/// script without `#!`, so it works under a seccomp filter that allows nothing else.
#[derive(Debug)]
pub struct Ready<'a> {
    program: &'a Program,
    paths: Vec<CString>,
    argv: Pointers<'a>,
    envp: Pointers<'a>,
}

impl Ready<'_> {
    /// Executes the first candidate that can be executed. Returns only on failure.
    pub fn exec(&self) -> io::Error {
        if let [path] = self.paths.as_slice() {
            return self.exec_path(path);
        }
        let mut refused = None;
        for path in &self.paths {
            let error = self.exec_path(path);
            match error.raw_os_error() {
                // As in execvp(3): continue the search, but remember an error from a file that exists.
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => refused = Some(error),
                _ => return error,
            }
        }
        refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn exec_path(&self, path: &CStr) -> io::Error {
        let error = process::execve(path, &self.argv, &self.envp);
        // A stage is never a script: the shell would succeed with an empty one, and PROGRAM would not have run.
        let stage = Path::new(&self.program.name).file_name().is_some_and(is_stage);
        if stage || error.raw_os_error() != Some(libc::ENOEXEC) {
            return error;
        }
        // A script without #!: execvp(3), and so env(1) and nice(1), execute it with the shell.
        let rest = self.program.argv.iter().skip(1).map(CString::as_c_str);
        let argv: Vec<&CStr> = [c"/bin/sh", path].into_iter().chain(rest).collect();
        process::execve(c"/bin/sh", &Pointers::new(&argv), &self.envp)
    }
}

/// Whether PROGRAM is a stage named without a slash.
pub fn is_stage(name: &OsStr) -> bool {
    STAGES.iter().any(|stage| name == *stage)
}

/// Whether a path is on a mount with MS_NOEXEC (mount(2)).
fn is_noexec(path: &Path) -> bool {
    let flags = open(path, libc::O_PATH).and_then(|file| fstatvfs(&file));
    flags.is_ok_and(|flags| flags & libc::ST_NOEXEC != 0)
}

/// Whether the caller ignores SIGXFSZ.
static IGNORES_SIGXFSZ: AtomicBool = AtomicBool::new(false);

/// Makes a write to a closed pipe (SIGPIPE), or to a file at its limit (SIGXFSZ, RLIMIT_FSIZE), return an error that
/// can be reported, instead of killing the process.
///
/// # Errors
/// The errno of the call.
pub(crate) fn ignore_signals() -> Result<()> {
    let what = || "cannot ignore SIGPIPE and SIGXFSZ";
    signal::signal(libc::SIGPIPE, Disposition::Ignored).context(what)?;
    let before = signal::signal(libc::SIGXFSZ, Disposition::Ignored).context(what)?;
    IGNORES_SIGXFSZ.store(before == Disposition::Ignored, Relaxed);
    Ok(())
}

/// For the next program, since an ignored signal stays ignored across exec (signal(7)): resets SIGPIPE to its default,
/// and SIGXFSZ to what the caller had.
fn restore_signals() -> io::Result<()> {
    if !IGNORES_SIGXFSZ.load(Relaxed) {
        signal::signal(libc::SIGXFSZ, Disposition::Default)?;
    }
    signal::signal(libc::SIGPIPE, Disposition::Default).map(drop)
}

/// The path of `name` in the directory of the running tool.
///
/// # Errors
/// /proc/self/exe cannot be read because /proc is not mounted, or it does not show the directory: in a root without
/// procfs, an earlier run may have left a file there, and a program run from a mount of its file alone, as srt-mount
/// permits, has the path `/`.
pub fn beside(name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
    let own = readlinkat(&procfs::open()?, c"self/exe")?;
    let named = own.file_name().map(|_| own.with_file_name(name));
    named.ok_or_else(|| io::ErrorKind::NotFound.into())
}
