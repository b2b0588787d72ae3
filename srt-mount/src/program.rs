//! Where PROGRAM comes from: the new root, or a read-only copy of a file of the host.

use crate::sys::{self, NO_DEV, NO_SUID, READ_ONLY, c_path};
use crate::tree::{self, Root};
use srt_common::exec::{self, Program};
use srt_common::{Context, Error, Result};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the host has under PROGRAM's name, opened before any of the new root exists.
#[derive(Debug)]
pub struct OnHost {
    /// The path of a stage that lies beside this tool: it goes before anything in PATH, whose first directory may be one
    /// that the last command could write.
    beside: Option<PathBuf>,
    file: Option<OwnedFd>,
}

/// What is executed.
#[derive(Debug)]
pub enum Origin {
    /// Whatever the new root has under PROGRAM's name.
    Inside,
    /// This path in the new root.
    At(PathBuf),
    /// A mount of that one file, read-only: /proc/PID/exe leads to this mount, and the file cannot be written
    /// through it (CVE-2019-5736 overwrote the container runtime that way).
    Host(OwnedFd),
}

/// Looks for PROGRAM on the host.
pub fn on_host(program: &Program) -> OnHost {
    if program.is_stage() {
        let beside = exec::beside(program.name());
        let file = beside.as_deref().and_then(executable);
        if file.is_some() {
            return OnHost { beside, file };
        }
    }
    OnHost { beside: None, file: program.candidates().iter().find_map(|path| executable(path)) }
}

fn executable(path: &Path) -> Option<OwnedFd> {
    let file = sys::openat2(sys::CWD, &c_path(path).ok()?, libc::O_PATH, 0).ok()?;
    let stat = sys::stat(file.as_raw_fd()).ok()?;
    (stat.is(libc::S_IFREG) && stat.mode & 0o111 != 0).then_some(file)
}

/// Decides, before the host's root goes away, where PROGRAM comes from.
///
/// # Errors
/// When the host's file cannot be copied.
pub fn choose(program: &Program, host: OnHost, root: &mut Root, directory: &Path) -> Result<Origin> {
    let Some(file) = host.file else { return Ok(Origin::Inside) };
    if let Some(path) = host.beside {
        if shows(root, &path, &file)? {
            return Ok(Origin::At(path));
        }
    } else {
        for path in program.candidates() {
            let path = c_path(directory.join(path)).context(|| "path")?;
            if tree::open_in_root(&*root.top()?, &path, libc::O_PATH).is_ok() {
                return Ok(Origin::Inside);
            }
        }
    }
    let cannot = || format!("cannot copy the mount of {}", program.name().display());
    let copy = sys::clone_tree(file.as_raw_fd(), c"", false).context(cannot)?;
    sys::set_attributes(&copy, NO_SUID | NO_DEV | READ_ONLY, false).context(cannot)?;
    // Mounted on the file itself in the old root, the copy is detached with that. A tree that never was mounted
    // would be torn down when the exec closes its descriptor, and the kernel takes its time for that.
    sys::attach(&copy, &file).context(cannot)?;
    Ok(Origin::Host(copy))
}

/// Whether the new root has the very same file at `path`, on a mount through which nobody can write it. A stage that
/// is run from there still finds its own neighbours: one sandbox inside another.
fn shows(root: &mut Root, path: &Path, file: &OwnedFd) -> Result<bool> {
    let Ok(inside) = tree::open_in_root(&*root.top()?, &c_path(path).context(|| "path")?, libc::O_PATH)
    else {
        return Ok(false);
    };
    let id = |fd: &OwnedFd| sys::stat(fd.as_raw_fd()).map(|stat| stat.id).context(|| "statx");
    Ok(id(&inside)? == id(file)? && sys::is_read_only(&inside).context(|| "fstatvfs")?)
}

/// Becomes PROGRAM. Returns only the error.
pub fn run(program: &Program, origin: &Origin) -> Error {
    match origin {
        Origin::Inside => program.exec(),
        Origin::At(path) => program.failure(&program.exec_path(path)),
        Origin::Host(file) => {
            let error = program.exec_fd(file.as_raw_fd());
            let failure = program.failure(&error);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOEXEC) => failure.hint(
                    "it is not in the new root; from outside, only a static program can run, and no #! script",
                ),
                _ => failure,
            }
        }
    }
}

/// The working directory in the new root: `--chdir`, or the first of the caller's own, `$HOME` and `/` that
/// exists there.
///
/// # Errors
/// `--chdir` does not exist.
pub fn choose_directory(chdir: Option<&Path>, root: &mut Root) -> Result<PathBuf> {
    let exists = |root: &mut Root, path: &Path| -> io::Result<()> {
        let top = root.top().map_err(|error| io::Error::other(error.message))?;
        tree::open_in_root(&top, &c_path(path)?, libc::O_PATH | libc::O_DIRECTORY).map(drop)
    };
    if let Some(directory) = chdir {
        let directory = Path::new("/").join(directory);
        exists(root, &directory).context(|| format!("--chdir {}: cannot enter it", directory.display()))?;
        return Ok(directory);
    }
    // getcwd(2) fails for a directory that was removed.
    let own = std::env::current_dir().ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let found =
        [own, home].into_iter().flatten().find(|path| path.is_absolute() && exists(root, path).is_ok());
    Ok(found.unwrap_or_else(|| PathBuf::from("/")))
}

/// Goes to `directory`, with the privileges that PROGRAM has. `required`: `--chdir` asked for it. Returns where
/// it has come to.
///
/// # Errors
/// It cannot be entered.
pub fn enter_directory(directory: &Path, required: bool) -> Result<PathBuf> {
    let entered = std::env::set_current_dir(directory);
    if required {
        entered.context(|| format!("--chdir {}: cannot enter it", directory.display()))?;
    } else if entered.is_err() {
        std::env::set_current_dir("/").context(|| "cannot enter /")?;
    }
    std::env::current_dir().context(|| "getcwd")
}
