//! Sources: everything that comes from the host, opened before any of the new root exists.

use crate::options::{Access, Action, Op, Plan, Source, Upper};
use crate::sys::{self, NO_DEV, NO_SUID, READ_ONLY, c_path};
use srt_common::{Context, Error, Result};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

/// What an operation takes from the host.
#[derive(Debug)]
pub enum Prepared {
    /// Nothing.
    Nothing,
    /// Nothing: the source of a `-try` does not exist, and the operation is skipped.
    Absent,
    /// A detached mount tree, attributes set.
    Tree(Tree),
    /// A descriptor to read a file's content from.
    Data(OwnedFd),
    /// The layers of an overlay from bottom to top, and its upper and work directories.
    Layers(Vec<OwnedFd>, Option<[OwnedFd; 2]>),
    /// Device nodes with their names in /dev.
    Nodes(Vec<(&'static str, Tree)>),
}

/// A detached mount tree.
#[derive(Debug)]
pub struct Tree {
    /// Its root.
    pub fd: Rc<OwnedFd>,
    /// Whether the root is a directory.
    pub directory: bool,
}

/// Opens what every operation needs, in order.
///
/// # Errors
/// The first source that cannot be had, with its option.
pub fn open_all(plan: &Plan) -> Result<Vec<Prepared>> {
    plan.ops.iter().map(|op| open(op).map_err(|error| error.within(op))).collect()
}

/// All that a descriptor holds, for `--args`.
///
/// # Errors
/// errno.
pub fn read_all(fd: RawFd) -> Result<Vec<u8>> {
    let own = sys::duplicate(fd).map_err(|_| Error::usage("not an open descriptor"))?;
    let mut data = vec![];
    File::from(own).read_to_end(&mut data).context(|| "cannot read")?;
    Ok(data)
}

/// A directory as stdin, stdout or stderr would be a way out of the new root (openat(2), fchdir(2)).
///
/// # Errors
/// One of the three is a directory.
pub fn refuse_standard_directories() -> Result<()> {
    for (fd, name) in [(0, "stdin"), (1, "stdout"), (2, "stderr")] {
        // Rust's start-up code has opened /dev/null where one was closed.
        if sys::stat(fd).context(|| name)?.is(libc::S_IFDIR) {
            return Err(Error::failed(format!(
                "{name} is a directory: PROGRAM could leave its new root through it"
            )));
        }
    }
    Ok(())
}

fn open(op: &Op) -> Result<Prepared> {
    match &op.action {
        Action::Bind { source: Source::Path(path), access, optional } => match clone(path, *access) {
            Ok(tree) => Ok(Prepared::Tree(tree)),
            Err(error) if *optional && error.raw_os_error() == Some(libc::ENOENT) => Ok(Prepared::Absent),
            Err(error) => Err(cannot_open(path, &error)),
        },
        Action::Bind { source: Source::Fd(fd), access, .. } => clone_fd(*fd, *access).map(Prepared::Tree),
        Action::BindData { fd, .. } | Action::File { fd, .. } => sys::duplicate(*fd)
            .map(Prepared::Data)
            .map_err(|_| Error::usage(format!("{fd} is not an open descriptor"))),
        Action::Overlay { layers, upper } => {
            let layers = layers.iter().map(|path| open_directory(path)).collect::<Result<_>>()?;
            let upper = match upper {
                Upper::Host { upper, work } => Some([open_directory(upper)?, open_directory(work)?]),
                _ => None,
            };
            Ok(Prepared::Layers(layers, upper))
        }
        Action::Dev => nodes().map(Prepared::Nodes),
        _ => Ok(Prepared::Nothing),
    }
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Error {
    let cannot = Error::system(format!("cannot open {}", path.display()), error);
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            cannot.hint("every source takes a descriptor: raise the hard limit (ulimit -Hn)")
        }
        _ => cannot,
    }
}

/// A copy of what is mounted at `path`, with everything below. The attributes go onto it while it is detached,
/// so no mount is ever writable for a moment.
fn clone(path: &Path, access: Access) -> std::io::Result<Tree> {
    let tree = sys::clone_tree(sys::CWD, &c_path(path)?, true)?;
    restrict(tree, access)
}

fn restrict(fd: OwnedFd, access: Access) -> std::io::Result<Tree> {
    let attributes = NO_SUID
        | match access {
            Access::ReadOnly => NO_DEV | READ_ONLY,
            Access::Writable => NO_DEV,
            Access::Devices => 0,
        };
    finish(fd, attributes)
}

fn finish(fd: OwnedFd, attributes: u64) -> std::io::Result<Tree> {
    sys::set_attributes(&fd, attributes, true)?;
    let directory = sys::stat(fd.as_raw_fd())?.is(libc::S_IFDIR);
    Ok(Tree { fd: Rc::new(fd), directory })
}

/// A copy of what an inherited descriptor is open on. It was opened in another mount namespace, and the kernel
/// copies no mount of another one (open_tree(2), EINVAL): its path is opened again, and must lead to the same file.
fn clone_fd(fd: RawFd, access: Access) -> Result<Tree> {
    let wanted = sys::stat(fd).map_err(|_| Error::usage(format!("{fd} is not an open descriptor")))?;
    if let Ok(tree) = sys::clone_tree(fd, c"", true) {
        return restrict(tree, access).context(|| format!("cannot mount descriptor {fd}"));
    }
    let link = c_path(format!("/proc/self/fd/{fd}")).context(|| "path")?;
    let path = sys::readlink(sys::CWD, &link).context(|| format!("cannot read /proc/self/fd/{fd}"))?;
    let tree = clone(&path, access).map_err(|error| cannot_open(&path, &error))?;
    if sys::stat(tree.fd.as_raw_fd()).context(|| "statx")?.id != wanted.id {
        return Err(Error::failed(format!(
            "{} is not the file that descriptor {fd} is open on",
            path.display()
        )));
    }
    Ok(tree)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    c_path(path)
        .and_then(|path| sys::openat2(sys::CWD, &path, libc::O_PATH | libc::O_DIRECTORY, 0))
        .map_err(|error| cannot_open(path, &error))
}

/// The device nodes of a minimal /dev, and the caller's terminal.
///
/// Read-only, which does not keep anybody from writing to a device. But the inodes are the host's: their modes,
/// owners and times could be changed by uid 0, which owns them and needs no capability for that.
fn nodes() -> Result<Vec<(&'static str, Tree)>> {
    let mut nodes = vec![];
    for (name, path) in [
        ("null", "/dev/null"),
        ("zero", "/dev/zero"),
        ("full", "/dev/full"),
        ("random", "/dev/random"),
        ("urandom", "/dev/urandom"),
        ("tty", "/dev/tty"),
    ] {
        let tree = c_path(path).and_then(|path| sys::clone_tree(sys::CWD, &path, false));
        let tree = tree.and_then(|tree| finish(tree, NO_SUID | READ_ONLY));
        nodes.push((name, tree.map_err(|error| cannot_open(Path::new(path), &error))?));
    }
    // The command can use this terminal in any case; as /dev/console it has a name, which ttyname(3) needs.
    // A terminal of another mount namespace has no path here, and gets none.
    let terminal = [0, 1].into_iter().find(|&fd| sys::is_terminal(fd));
    nodes.extend(terminal.and_then(|fd| clone_fd(fd, Access::Devices).ok()).map(|tree| ("console", tree)));
    Ok(nodes)
}

/// Every source is a descriptor until it is mounted. The caller's limit comes back, for the exec to restore.
///
/// # Errors
/// errno.
pub fn raise_descriptor_limit(sources: usize) -> Result<Option<libc::rlimit>> {
    if sources < 100 {
        return Ok(None);
    }
    let limit = sys::descriptor_limit().context(|| "getrlimit")?;
    sys::set_descriptor_limit(libc::rlimit { rlim_cur: limit.rlim_max, ..limit }).context(|| "setrlimit")?;
    Ok(Some(limit))
}
