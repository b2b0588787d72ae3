//! Sources: everything that comes from the host. They are opened before any part of the new root exists.

use crate::detached::{PLAIN, Tree};
use crate::options::{Access, Action, Plan, Source, Upper};
use srt_common::path_walk::{Walk, open_path, returns};
use srt_common::sys::c_path;
use srt_common::sys::fd::given;
use srt_common::sys::file::{CWD, FileId, Stat, faccessat2, open, readlinkat, statx};
use srt_common::sys::mount::{MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, fchdir};
use srt_common::sys::process::geteuid;
use srt_common::{Context, Error, Result, procfs, startup};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Directories by device and inode.
pub type Directories = BTreeSet<FileId>;

/// The host's files, while paths still resolve as they do for the caller.
pub struct Host<'a> {
    /// What is to be mounted.
    pub plan: &'a Plan,
    /// The host's root directory.
    pub root: Rc<OwnedFd>,
    /// The path of the caller's working directory, or `None` if that was removed: getcwd(2) fails then.
    pub directory: Option<PathBuf>,
    /// The working directory itself. It may lack search permission.
    here: Option<OwnedFd>,
    /// The mount points of message queues of another ipc namespace.
    pub queues: Vec<PathBuf>,
    writable: OnceCell<Directories>,
    /// The usual devices of the first `--dev`, read-only for uid 0 of the host.
    pub nodes: OnceCell<Vec<(&'static str, Tree)>>,
}

impl<'a> Host<'a> {
    /// # Errors
    /// The root cannot be opened.
    pub fn new(plan: &'a Plan, queues: Vec<PathBuf>) -> Result<Self> {
        let root = open("/", libc::O_PATH | libc::O_DIRECTORY).context(|| "cannot open /")?;
        let (directory, here) = (std::env::current_dir().ok(), open(".", libc::O_PATH).ok());
        let (writable, nodes) = (OnceCell::new(), OnceCell::new());
        Ok(Self { plan, root: Rc::new(root), directory, here, queues, writable, nodes })
    }

    /// Returns to the caller's working directory, to which relative paths refer.
    ///
    /// # Errors
    /// errno.
    pub fn go_back(&self) -> Result<()> {
        self.here.as_ref().map_or(Ok(()), fchdir).context(|| "cannot enter the working directory again")
    }

    /// Refuses a file that srt-ns has opened already, for its own options, if its path leads through a link that an
    /// earlier run could have left, or to another file by now: srt-ns does not know what this sandbox may write, and
    /// another sandbox that runs at the same time may have exchanged directories.
    ///
    /// # Errors
    /// Such a link or change, with the option.
    pub fn check_joined_paths(&self) -> Result<()> {
        self.plan.joined_paths.iter().try_for_each(|(option, path, id)| {
            let (parent, name) = match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => (Path::new(".").join(parent), name),
                _ => (path.clone(), OsStr::new(".")),
            };
            let there = || statx(&self.find(&parent)?, &c_path(name).context(|| "path")?).context(|| "statx");
            let error = match there() {
                Ok(there) if *id == *startup::identity(there.id) => return Ok(()),
                Ok(_) => {
                    Error::failed(format!("{} has been replaced during the start", path.display())).path(path)
                }
                Err(error) => error,
            };
            Err(error.within(option.display()))
        })
    }

    /// Opens `path`. Links are followed, except those that an earlier run could have left.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn find(&self, path: &Path) -> Result<Rc<OwnedFd>> {
        match c_path(path).and_then(|path| open_path(&CWD, &path, 0, libc::RESOLVE_NO_SYMLINKS)) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) || returns(path) => {
                Ok(Rc::clone(&self.walk(path, self.writable())?.end().fd))
            }
            opened => opened.map(Rc::new).map_err(|error| cannot_open(path, &error)),
        }
    }

    /// Resolves `path`, and refuses a link in one of the `writable` directories.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn walk(&self, path: &Path, writable: &Directories) -> Result<Walk> {
        let absolute = match &self.directory {
            _ if path.is_absolute() => path.to_owned(),
            Some(directory) if leads_here(directory) => directory.join(path),
            _ => {
                let why = "the path of the working directory does not lead to it";
                let error = Error::failed(format!("cannot open {}: {why}", path.display())).path(path);
                return Err(
                    error.hint("the path contains a link or ..: use an absolute path, or cd \"$PWD\"")
                );
            }
        };
        let is_planted = |walk: &Walk| may_be_written(walk, writable);
        Walk::along(&self.root, &absolute, &is_planted, true, &|error| cannot_open(path, &error))
    }

    /// Whether the sandbox may write any file of the host.
    pub fn is_writable(&self) -> bool {
        self.plan.ops.iter().any(|op| match &op.action {
            Action::Bind { access, .. } => access.writes(),
            Action::Overlay { upper, .. } => matches!(upper, Upper::Host { .. }),
            _ => false,
        })
    }

    /// The directories that this sandbox may write, and the other sources that lie in one of them. They are
    /// determined only when a path contains a link.
    pub fn writable(&self) -> &Directories {
        self.writable.get_or_init(|| {
            let mut all = Directories::new();
            for writes in [true, false] {
                if !writes && all.is_empty() {
                    break;
                }
                for path in self.plan.ops.iter().flat_map(|op| op.action.sources(writes)) {
                    let is_in = |walk: &Walk| walk.steps().iter().any(|step| all.contains(&step.stat.id));
                    match self.walk(&path, &Directories::new()) {
                        Ok(walk) if writes || is_in(&walk) => _ = all.insert(walk.end().stat.id),
                        Ok(_) => {}
                        // A missing source is left out. One that exists is included, because its location is unknown.
                        Err(_) => all.extend(look_at(&path).map(|stat| stat.id)),
                    }
                }
            }
            all
        })
    }

    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// It cannot be reached, or is not a directory.
    pub fn directory(&self, path: &Path) -> Result<Rc<OwnedFd>> {
        let found = self.find(path)?;
        match statx(&found, c"").map_err(|error| cannot_open(path, &error))?.is(libc::S_IFDIR) {
            true => Ok(found),
            false => Err(cannot_open(path, &io::Error::from_raw_os_error(libc::ENOTDIR))),
        }
    }

    /// A copy of the mount tree that starts at an open file.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn tree(&self, fd: &impl AsRawFd, path: &Path, access: Access) -> Result<Tree> {
        self.copy(fd, access).map_err(|error| cannot_open(path, &error))
    }

    /// Records where message queues are mounted in the copy. If such a mount is itself the source, it is shown only
    /// if it is writable: no mount makes queues read-only, since receiving a message (mq_receive(3)) reads and
    /// removes it.
    fn copy(&self, fd: &impl AsRawFd, access: Access) -> io::Result<Tree> {
        let mut tree = Tree::copy(fd, c"", access.attributes(), true)?;
        if tree.stat.is(libc::S_IFDIR) && !self.queues.is_empty() {
            let path = path_of(fd.as_raw_fd())?;
            let below = self.queues.iter().filter_map(|queue| queue.strip_prefix(&path).ok());
            let itself = (!access.writes()).then(|| Path::new("."));
            let place = |rest| if rest == Path::new("") { itself } else { Some(rest) };
            tree.queues = below.filter_map(place).filter_map(|place| c_path(place).ok()).collect();
        }
        Ok(tree)
    }

    /// A copy of the mount tree that starts at an inherited descriptor's file. The descriptor was opened in another
    /// mount namespace, whose mounts the kernel does not copy (open_tree(2), EINVAL): its path is opened again, and
    /// must lead to the same file.
    ///
    /// # Errors
    /// The descriptor is not open, or its file cannot be copied.
    pub fn of_descriptor(&self, fd: RawFd, access: Access) -> Result<Tree> {
        let wanted = given(fd)
            .and_then(|fd| statx(&fd, c""))
            .map_err(|_| Error::usage(format!("{fd} is not an open descriptor")))?;
        match self.copy(&fd, access) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            tree => return tree.context(|| format!("cannot mount descriptor {fd}")),
        }
        let path = path_of(fd).context(|| format!("cannot read /proc/self/fd/{fd}"))?;
        let found = open(&path, libc::O_PATH | libc::O_NOFOLLOW).map_err(|error| {
            let hint = "a file without a path in this mount namespace cannot be mounted: a pipe, a socket, a removed file";
            cannot_open(&path, &error).hint_for(libc::ENOENT, hint)
        })?;
        if statx(&found, c"").context(|| "statx")?.id != wanted.id {
            let text = format!("{} is not the file that descriptor {fd} is open on", path.display());
            return Err(Error::failed(text).path(path));
        }
        self.tree(&found, &path, access)
    }
}

/// Whether the command may change what a name leads to at the end of this walk: it can write a directory between the
/// first writable mount and this place, or owns one, since an earlier run may have removed the permission after it made
/// the link, and the command can restore it. EROFS is returned only if the permissions alone would suffice
/// (`do_faccessat()` in fs/open.c), and the same directory is writable elsewhere.
pub fn may_be_written(walk: &Walk, writable: &Directories) -> bool {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    walk.steps().iter().skip_while(|step| !writable.contains(&step.stat.id)).any(|step| {
        match faccessat2(&*step.fd, c"", libc::W_OK, flags) {
            _ if step.stat.uid == geteuid() => true,
            Err(error) => error.raw_os_error() != Some(libc::EACCES),
            Ok(()) => true,
        }
    })
}

impl Action {
    /// The host paths that this action shows writable or, if not `writable`, the others that it shows.
    fn sources(&self, writable: bool) -> Vec<PathBuf> {
        match self {
            Self::Bind { access, .. } if access.writes() != writable => vec![],
            Self::Bind { source: Source::Path(path), .. } => vec![path.clone()],
            Self::Bind { source: Source::Fd(fd), .. } => path_of(*fd).into_iter().collect(),
            Self::Overlay { upper: Upper::Host { upper, work }, .. } if writable => {
                vec![upper.clone(), work.clone()]
            }
            Self::Overlay { layers, .. } if !writable => layers.clone(),
            _ => vec![],
        }
    }
}

impl Access {
    /// Whether it permits writing.
    pub fn writes(self) -> bool {
        self != Self::ReadOnly
    }

    /// The attributes of the mount.
    pub fn attributes(self) -> u64 {
        match self {
            Access::ReadOnly => PLAIN | MOUNT_ATTR_RDONLY,
            Access::Writable => PLAIN,
            Access::Devices => MOUNT_ATTR_NOSUID,
        }
    }
}

/// Whether this process is uid 0 of the host, whatever its uid in its user namespace: the kernel gives it access to
/// /proc/sys (`test_perm()` in fs/proc/proc_sysctl.c) and all other files of the host's root, without any capability.
/// If this cannot be determined, the answer is yes.
pub fn is_root_of_the_host() -> bool {
    let file = c"sys/kernel/overflowuid";
    let answer = procfs::open().and_then(|proc| faccessat2(&proc, file, libc::W_OK, libc::AT_EACCESS));
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
}

/// Reads all data of a descriptor, for `--args`.
///
/// # Errors
/// errno.
pub fn read_all(fd: RawFd) -> Result<Vec<u8>> {
    let own = content(fd).map_err(|_| Error::usage("not an open descriptor"))?;
    let mut data = vec![];
    File::from(own).read_to_end(&mut data).context(|| "cannot read")?;
    Ok(data)
}

/// Refuses a directory as stdin, stdout or stderr, which would be a way out of the new root (openat(2), fchdir(2)).
///
/// # Errors
/// One of the three is a directory.
pub fn refuse_standard_directories() -> Result<()> {
    for (fd, name) in [(0, "stdin"), (1, "stdout"), (2, "stderr")] {
        if statx(&fd, c"").context(|| name)?.is(libc::S_IFDIR) {
            let text = format!("{name} is a directory: PROGRAM could leave its new root through it");
            return Err(Error::failed(text));
        }
    }
    Ok(())
}

/// Duplicates the descriptor that holds a file's content.
///
/// # Errors
/// The descriptor is not open.
pub fn content(fd: RawFd) -> Result<OwnedFd> {
    let own = given(fd).and_then(|fd| fd.try_clone_to_owned());
    own.map_err(|_| Error::usage(format!("{fd} is not an open descriptor")))
}

/// Whether `path` leads to the working directory, which may have been removed or covered by another mount.
pub fn leads_here(path: &Path) -> bool {
    let here = look_at(Path::new("."));
    look_at(path).is_ok_and(|there| here.is_ok_and(|here| there.id == here.id))
}

/// What is at `path`. Links are followed.
///
/// # Errors
/// errno.
pub fn look_at(path: &Path) -> io::Result<Stat> {
    statx(&open(path, libc::O_PATH)?, c"")
}

fn path_of(fd: RawFd) -> io::Result<PathBuf> {
    readlinkat(&CWD, &c_path(format!("/proc/self/fd/{fd}"))?)
}

/// The error if a source cannot be opened.
pub fn cannot_open(path: &Path, error: &io::Error) -> Error {
    let hint =
        "every source takes a descriptor: raise the limit (ulimit -Hn; below 100 sources ulimit -Sn, too)";
    Error::system(format!("cannot open {}", path.display()), error).path(path).hint_for(libc::EMFILE, hint)
}
