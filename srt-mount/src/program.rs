//! Where PROGRAM comes from: the new root, or a read-only mount of a file of the host.

use crate::detached::{PLAIN, Tree, is_read_only};
use crate::root::{Root, open_in_root};
use crate::source::{Host, leads_here};
use srt_common::exec::{self, Program};
use srt_common::sys::c_path;
use srt_common::sys::file::{CWD, faccessat2, open, statx};
use srt_common::sys::mount::{MOUNT_ATTR_RDONLY, move_mount};
use srt_common::tool::Tool;
use srt_common::{Context, Error, Result, interpreter};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::{env, io};

/// The host's file for PROGRAM's name, opened before any part of the new root exists.
pub struct OnHost {
    /// Where it may be. A stage in this tool's directory is looked for only there: an earlier command may have been
    /// able to write PATH's first directory.
    paths: Vec<PathBuf>,
    beside: bool,
    file: Option<(PathBuf, OwnedFd)>,
}

/// What is executed.
pub enum Origin {
    /// The first of these paths in the new root that can be run.
    Inside(Vec<PathBuf>),
    /// A read-only mount of that one file: /proc/PID/exe leads to this mount, and the file cannot be written through
    /// it (CVE-2019-5736 overwrote the container runtime that way).
    Host(Tree),
}

/// Looks for PROGRAM on the host.
pub fn on_host(program: &Program) -> OnHost {
    if exec::is_stage(&program.name)
        && let Ok(path) = exec::beside(&program.name)
        && let Some(file) = executable(&path)
    {
        return OnHost { paths: vec![path.clone()], beside: true, file: Some((path, file)) };
    }
    let paths = program.candidates();
    let file = paths.iter().find_map(|path| Some((path.clone(), executable(path)?)));
    OnHost { paths, beside: false, file }
}

fn executable(path: &Path) -> Option<OwnedFd> {
    open(path, libc::O_PATH).ok().filter(can_run)
}

/// Whether the file is executable for any user (execve(2), EACCES).
fn can_run(file: &OwnedFd) -> bool {
    statx(file, c"").is_ok_and(|stat| stat.is(libc::S_IFREG) && stat.mode & 0o111 != 0)
}

/// Decides, before the host's root is detached, where PROGRAM comes from.
///
/// # Errors
/// The host's file cannot be copied.
pub fn choose(program: &Program, host: OnHost, root: &mut Root, directory: &Path) -> Result<Origin> {
    let Some((found_at, file)) = host.file else { return Ok(Origin::Inside(host.paths)) };
    let top = root.top()?;
    let inside = match host.beside {
        true => shows(&top, &found_at, &file)?,
        false => host.paths.iter().any(|path| open_in_root(&top, &directory.join(path), 0, 0).is_ok()),
    };
    // If an earlier run may have left a link on the path, that run would choose the program.
    let is_meant = |root: &Root| {
        let walk = root.host.walk(&found_at, &root.writable());
        let id = statx(&file, c"").map(|stat| stat.id);
        walk.is_ok_and(|walk| id.is_ok_and(|id| id == walk.end().stat.id))
    };
    if inside || !host.beside && !is_meant(root) {
        return Ok(Origin::Inside(host.paths));
    }
    let cannot = || format!("cannot copy the mount of {}", program.name.display());
    let copy = Tree::copy(&file, c"", PLAIN | MOUNT_ATTR_RDONLY, false).context(cannot)?;
    // Mounted on the file itself in the old root, the copy is detached together with it. A tree that was never
    // mounted would be torn down when the exec closes its descriptor, which the kernel does slowly.
    move_mount(&copy.fd, &file, c"").context(cannot)?;
    Ok(Origin::Host(copy))
}

/// Called in the new root while the privileges are still there: without them, only part of what was created on the
/// host can be removed. If there is anything to remove, `--chdir` must lead to a directory, and PROGRAM must exist,
/// be executable, and have its interpreter.
///
/// # Errors
/// PROGRAM cannot be run.
pub fn require(program: &Program, origin: &Origin, root: &Root, directory: &Path, chdir: bool) -> Result<()> {
    if !root.would_leave_something() {
        return Ok(());
    }
    if chdir {
        // access(2), "the real user ID": capabilities count only for uid 0.
        let entered = c_path(directory).and_then(|path| faccessat2(&CWD, &path, libc::X_OK, 0));
        entered.map_err(|error| cannot_enter(directory, &error))?;
    }
    let Origin::Inside(paths) = origin else { return Ok(()) };
    let refusal = |path: &PathBuf| match open(directory.join(path), libc::O_PATH) {
        Ok(file) if !can_run(&file) => Some(libc::EACCES),
        // access(2) again; EACCES on a noexec mount, too.
        Ok(file) => {
            let answer = faccessat2(&file, c"", libc::X_OK, libc::AT_EMPTY_PATH);
            answer.err().and_then(|error| error.raw_os_error()).filter(|errno| *errno == libc::EACCES)
        }
        Err(error) => error.raw_os_error().filter(|errno| *errno == libc::ENOENT),
    };
    let refusals: Option<Vec<_>> = paths.iter().map(refusal).collect();
    // Of several errors, EACCES is reported (execvp(3)). An interpreter is required only of a single path: of
    // several, the exec may skip the first.
    let refused = refusals.and_then(|errnos| errnos.into_iter().max());
    let cause =
        if let [path] = paths.as_slice() { interpreter::missing(&directory.join(path)) } else { None };
    let Some(errno) = refused.or(cause.is_some().then_some(libc::ENOENT)) else { return Ok(()) };
    Err(program.failure_with(&io::Error::from_raw_os_error(errno), || cause))
}

/// Whether the new root has the same file at `path`, on a read-only mount. A stage that is run from there still finds
/// the tools in its directory, so one sandbox can run inside another.
fn shows(top: &OwnedFd, path: &Path, file: &OwnedFd) -> Result<bool> {
    let Ok(inside) = open_in_root(top, path, 0, 0) else { return Ok(false) };
    let id = |fd: &OwnedFd| statx(fd, c"").map(|stat| stat.id).context(|| "statx");
    Ok(id(&inside)? == id(file)? && is_read_only(&inside).context(|| "fstatvfs")?)
}

/// Executes PROGRAM. Returns only if that fails.
pub fn run(program: &Program, origin: &Origin) -> Error {
    match origin {
        Origin::Inside(paths) => program.exec(paths),
        Origin::Host(file) => {
            let hint =
                "it is not in the new root; from outside, only a static program can run, and no #! script";
            program.exec_fd(&file.fd).hint_for(libc::ENOENT, hint).hint_for(libc::ENOEXEC, hint)
        }
    }
}

/// The working directory in the new root: `--chdir`, or the first of the caller's own, `$HOME` and `/` that exists
/// there. The caller's own is looked up by its name in `PWD`, which is what the user has bound, then by that of
/// getcwd(2).
///
/// # Errors
/// `--chdir` does not exist.
pub fn choose_directory(chdir: Option<&Path>, own: &[PathBuf], root: &mut Root) -> Result<PathBuf> {
    let top = root.top()?;
    let exists = |path: &Path| open_in_root(&top, path, libc::O_DIRECTORY, 0).map(drop);
    if let Some(directory) = chdir {
        let directory = Path::new("/").join(directory);
        exists(&directory).map_err(|error| cannot_enter(&directory, &error))?;
        return Ok(directory);
    }
    let found = own.iter().cloned().chain(home()).find(|path| path.is_absolute() && exists(path).is_ok());
    Ok(found.unwrap_or_else(|| PathBuf::from("/")))
}

fn cannot_enter(directory: &Path, error: &io::Error) -> Error {
    Error::system(format!("--chdir {}: cannot enter it", directory.display()), error).path(directory)
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

/// The names of the caller's working directory, the preferred one first: that in `PWD`, then that of getcwd(2).
pub fn own_directory(host: &Host) -> Vec<PathBuf> {
    let named = env::var_os("PWD").map(PathBuf::from).filter(|path| {
        let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
        plain && leads_here(path)
    });
    named.into_iter().chain(host.directory.clone()).collect()
}

/// Enters `chosen` with PROGRAM's privileges or, if that is refused, `$HOME` or `/`, except if `required`: then
/// `--chdir` asked for it. Returns the name of the directory entered.
///
/// # Errors
/// The directory cannot be entered.
pub fn enter_directory(chosen: &Path, required: bool) -> Result<PathBuf> {
    if required {
        env::set_current_dir(chosen).map_err(|error| cannot_enter(chosen, &error))?;
        return env::current_dir().context(|| "getcwd");
    }
    let mut wanted = [chosen.to_owned()].into_iter().chain(home());
    if let Some(entered) = wanted.find(|directory| env::set_current_dir(directory).is_ok()) {
        return Ok(entered);
    }
    env::set_current_dir("/").context(|| "cannot enter /").map(|()| PathBuf::from("/"))
}

/// Sets PROGRAM's environment variable PWD.
///
/// # Errors
/// A NUL byte, which no path has.
pub fn set_pwd(program: &mut Program, directory: &Path) -> Result<()> {
    let pwd = CString::new([b"PWD=", directory.as_os_str().as_bytes()].concat());
    program.envp.retain(|other| !other.as_bytes().starts_with(b"PWD="));
    program.envp.push(pwd.map_err(|_| Error::failed("PWD: NUL byte"))?);
    Ok(())
}

/// Prints one line if the command starts in another directory than the caller's.
pub fn tell_of_fallback(tool: &Tool, own: &[PathBuf], chosen: &Path, directory: &Path) {
    if own.iter().any(|own| own == directory) {
        return;
    }
    let why = match own.first() {
        Some(_) if own.iter().any(|own| own == chosen) => format!("{} cannot be entered", chosen.display()),
        Some(own) => format!("{} is not in the new root", own.display()),
        None => "the working directory no longer exists".to_owned(),
    };
    tool.warn(&Error::failed(format!("{why}: PROGRAM starts in {}", directory.display())));
}
