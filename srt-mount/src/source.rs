//! Sources: everything that comes from the host, opened before any of the new root exists.

use crate::detached::{PLAIN, Tree};
use crate::links::{Directories, Walk};
use crate::options::{Access, Action, Inside, Op, Plan, Source, Upper};
use crate::sysfs::{self, Cgroups};
use srt_common::sys::c_path;
use srt_common::sys::fd::{borrowed, fcntl_dupfd_cloexec};
use srt_common::sys::file::{CWD, faccessat2, openat, openat2, readlinkat, statx};
use srt_common::sys::mount::{MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use srt_common::sys::process::{getrlimit, setrlimit};
use srt_common::{Context, Error, Result, handover};
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The host's files, as long as paths still mean what the caller means by them.
#[derive(Debug)]
pub struct Host<'a> {
    plan: &'a Plan,
    /// Its root directory.
    pub root: Rc<OwnedFd>,
    /// The caller's working directory. getcwd(2) fails for one that was removed.
    pub directory: Option<PathBuf>,
    /// Where message queues of another ipc namespace are mounted.
    queues: Vec<PathBuf>,
    writable: OnceCell<Directories>,
}

/// An operation with all that it takes from the host.
#[derive(Debug)]
pub enum Opened<'a> {
    /// Nothing to do: the source of a `-try` does not exist.
    Absent,
    /// A tree to mount, and whether the host's files can be written through it.
    Mount(Tree, bool),
    /// A new file with this content and mode, to be mounted.
    Data(OwnedFd, u32, Access),
    /// The same, to be made where it belongs.
    File(OwnedFd, u32),
    /// The layers of an overlay, from bottom to top.
    Overlay(Vec<OwnedFd>, Writes),
    /// The nodes of a /dev, with their names.
    Dev(Vec<(&'static str, Tree)>),
    /// A sysfs, and the cgroup file systems that belong in it.
    Sys(Tree, Cgroups),
    /// What takes nothing.
    Inside(&'a Inside),
}

/// Where an overlay's writes go.
#[derive(Debug)]
pub enum Writes {
    /// Nowhere.
    Nowhere,
    /// Into a tmpfs.
    Scratch,
    /// Into a directory of the host; the second is its work directory.
    Host([OwnedFd; 2]),
}

impl<'a> Host<'a> {
    /// # Errors
    /// The root cannot be opened.
    pub fn new(plan: &'a Plan, queues: Vec<PathBuf>) -> Result<Self> {
        let root = openat(&CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "cannot open /")?;
        let directory = std::env::current_dir().ok();
        Ok(Self { plan, root: Rc::new(root), directory, queues, writable: OnceCell::new() })
    }

    /// Opens what every operation needs, in order.
    ///
    /// # Errors
    /// The first source that cannot be had, with its option.
    pub fn open_all(&self) -> Result<Vec<Opened<'a>>> {
        let open = |op| self.open(op).map_err(|error: Error| error.within(op));
        // mountinfo lists mounts by their age (since Linux 6.8; before, as they are attached), and a JVM takes the first
        // cgroup file system that it finds there: this must not be one of the host's, in a copy that is covered.
        let first: Vec<_> = self
            .plan
            .ops
            .iter()
            .map(|op| (op.action == Action::Sys).then(|| open(op)).transpose())
            .collect::<Result<_>>()?;
        first.into_iter().zip(&self.plan.ops).map(|(first, op)| first.map_or_else(|| open(op), Ok)).collect()
    }

    /// Refuses what srt-ns has opened already, for its own options, where the way to it leads through a link that an earlier
    /// run could have left, or to something else now: srt-ns does not know what this sandbox may write, and another that
    /// runs now may have exchanged directories.
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
                Ok(there) if *id == *handover::identity(there.id) => return Ok(()),
                Ok(_) => {
                    Error::failed(format!("{} has been replaced during the start", path.display())).path(path)
                }
                Err(error) => error,
            };
            Err(error.within(option.display()))
        })
    }

    fn open(&self, op: &'a Op) -> Result<Opened<'a>> {
        Ok(match &op.action {
            Action::Bind { source: Source::Path(path), access, optional } => match self.find(path) {
                Ok(fd) => Opened::Mount(self.tree(&fd, path, *access)?, access.writes()),
                Err(error) if *optional && error.errno == Some(libc::ENOENT) => Opened::Absent,
                Err(error) => return Err(error),
            },
            Action::Bind { source: Source::Fd(fd), access, .. } => {
                Opened::Mount(self.of_descriptor(*fd, *access)?, access.writes())
            }
            Action::BindData { fd, mode, access } => Opened::Data(content(*fd)?, *mode, *access),
            Action::File { fd, mode } => Opened::File(content(*fd)?, *mode),
            Action::Overlay { layers, upper } => {
                let layers = layers.iter().map(|path| self.directory(path)).collect::<Result<_>>()?;
                let writes = match upper {
                    Upper::None => Writes::Nowhere,
                    Upper::Temporary => Writes::Scratch,
                    Upper::Host { upper, work } => {
                        Writes::Host([self.directory(upper)?, self.directory(work)?])
                    }
                };
                Opened::Overlay(layers, writes)
            }
            Action::Dev => Opened::Dev(self.nodes()?),
            Action::Sys => Opened::Sys(sysfs::new()?, sysfs::cgroups()?),
            Action::Inside(inside) => Opened::Inside(inside),
        })
    }

    /// What is at `path`, links followed but for those that an earlier run could have left.
    fn find(&self, path: &Path) -> Result<OwnedFd> {
        let open = |flags, resolve| openat2(&CWD, &c_path(path)?, libc::O_PATH | flags, resolve);
        // O_DIRECTORY also triggers an automount, as mount(2) does.
        let opened = match open(libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => open(0, libc::RESOLVE_NO_SYMLINKS),
            opened => opened,
        };
        match opened {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            opened => return opened.map_err(|error| cannot_open(path, &error)),
        }
        let walk = self.walk(path, self.writable()?).map_err(|error| match error.errno {
            Some(errno) => cannot_open(path, &io::Error::from_raw_os_error(errno)),
            None => error,
        })?;
        walk.end().fd.try_clone().map_err(|error| cannot_open(path, &error))
    }

    fn walk(&self, path: &Path, writable: &Directories) -> Result<Walk> {
        let path = self.directory.as_deref().unwrap_or(Path::new("/")).join(path);
        Walk::along(&self.root, &path, writable, true)
    }

    /// Whether the sandbox may write something of the host.
    pub fn is_writable(&self) -> bool {
        self.plan.ops.iter().any(|op| op.action.writes())
    }

    /// The directories that this sandbox may write, and the other sources that lie in one of them. Asked for only when
    /// a path has a link in it.
    ///
    /// # Errors
    /// A source cannot be looked at.
    pub fn writable(&self) -> Result<&Directories> {
        if let Some(known) = self.writable.get() {
            return Ok(known);
        }
        let mut all = Directories::new();
        for writes in [true, false] {
            if !writes && all.is_empty() {
                break;
            }
            for op in &self.plan.ops {
                let sources = op.action.sources(writes);
                for path in sources.iter().filter_map(|source| source.path()) {
                    let Ok(walk) = self.walk(&path, &Directories::new()) else { continue };
                    if writes || walk.is_in(&all) {
                        all.insert(walk.end().stat.id);
                    }
                }
            }
        }
        Ok(self.writable.get_or_init(|| all))
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let found = self.find(path)?;
        match statx(&found, c"").map_err(|error| cannot_open(path, &error))?.is(libc::S_IFDIR) {
            true => Ok(found),
            false => Err(cannot_open(path, &io::Error::from_raw_os_error(libc::ENOTDIR))),
        }
    }

    /// A copy of what is mounted at an open place, with everything below.
    fn tree(&self, fd: &OwnedFd, path: &Path, access: Access) -> Result<Tree> {
        let tree =
            Tree::copy(fd, c"", attributes(access), true).map_err(|error| cannot_open(path, &error))?;
        self.with_queues(tree, fd, access)
    }

    /// Notes where in a tree message queues are mounted. Where they are themselves the source, they were asked for; but no
    /// mount makes them read-only: to receive a message is to read (mq_receive(3)), and takes it away.
    fn with_queues(&self, mut tree: Tree, fd: &impl AsRawFd, access: Access) -> Result<Tree> {
        if tree.directory && !self.queues.is_empty() {
            let path = path_of(fd.as_raw_fd())?;
            let below = self.queues.iter().filter_map(|queue| queue.strip_prefix(&path).ok());
            let itself = (!access.writes()).then(|| Path::new("."));
            let place = |rest| if rest == Path::new("") { itself } else { Some(rest) };
            tree.queues = below.filter_map(place).filter_map(|place| c_path(place).ok()).collect();
        }
        Ok(tree)
    }

    /// A copy of what an inherited descriptor is open on. It was opened in another mount namespace, and the kernel
    /// copies no mount of another one (open_tree(2), EINVAL): its path is opened again, and must lead to the same file.
    fn of_descriptor(&self, fd: RawFd, access: Access) -> Result<Tree> {
        let wanted = statx(&fd, c"").map_err(|_| Error::usage(format!("{fd} is not an open descriptor")))?;
        match Tree::copy(&fd, c"", attributes(access), true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            tree => {
                let tree = tree.context(|| format!("cannot mount descriptor {fd}"))?;
                return self.with_queues(tree, &fd, access);
            }
        }
        let path = path_of(fd)?;
        let found = c_path(&path).and_then(|path| openat(&CWD, &path, libc::O_PATH | libc::O_NOFOLLOW, 0));
        let found = found.map_err(|error| cannot_open(&path, &error))?;
        if statx(&found, c"").context(|| "statx")?.id != wanted.id {
            let text = format!("{} is not the file that descriptor {fd} is open on", path.display());
            return Err(Error::failed(text).path(path));
        }
        self.tree(&found, &path, access)
    }

    /// The device nodes of a minimal /dev, and the caller's terminal.
    ///
    /// For uid 0 of the host read-only, which does not keep it from writing to a device. But the inodes are the host's:
    /// uid 0 owns them, and needs no capability to change their modes, owners and times.
    fn nodes(&self) -> Result<Vec<(&'static str, Tree)>> {
        let read_only = if is_root_of_the_host() { MOUNT_ATTR_RDONLY } else { 0 };
        let mut nodes = vec![];
        for (name, path) in [
            ("null", c"/dev/null"),
            ("zero", c"/dev/zero"),
            ("full", c"/dev/full"),
            ("random", c"/dev/random"),
            ("urandom", c"/dev/urandom"),
            ("tty", c"/dev/tty"),
        ] {
            let tree = Tree::copy(&CWD, path, MOUNT_ATTR_NOSUID | read_only, false);
            nodes.push((name, tree.map_err(|error| cannot_open(Path::new("/dev").join(name), &error))?));
        }
        // The command can use this terminal in any case; as /dev/console it has a name, which ttyname(3) needs.
        // A terminal of another mount namespace has no path here, and gets none.
        let terminal = [0, 1].into_iter().find(|&fd| borrowed(fd).is_ok_and(|fd| fd.is_terminal()));
        let console = terminal.and_then(|fd| self.of_descriptor(fd, Access::Devices).ok());
        nodes.extend(console.map(|tree| ("console", tree)));
        Ok(nodes)
    }
}

impl Action {
    /// Whether the sandbox can write the host's files through it.
    pub fn writes(&self) -> bool {
        !self.sources(true).is_empty()
    }

    /// The paths and descriptors of the host that it shows writable, or those that it shows without.
    fn sources(&self, writable: bool) -> Vec<Source> {
        let path = |path: &PathBuf| Source::Path(path.clone());
        match self {
            Self::Bind { source, access, .. } if access.writes() == writable => vec![source.clone()],
            Self::Overlay { upper: Upper::Host { upper, work }, .. } if writable => {
                vec![path(upper), path(work)]
            }
            Self::Overlay { layers, .. } if !writable => layers.iter().map(path).collect(),
            _ => vec![],
        }
    }
}

impl Source {
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Fd(fd) => path_of(*fd).ok(),
        }
    }
}

/// Whether this process is uid 0 of the host, whatever its user namespace calls it: to it the kernel gives access to
/// /proc/sys (`test_perm()` in fs/proc/proc_sysctl.c) and all else that the host's root owns, without any capability.
/// Where it cannot be asked it is.
pub fn is_root_of_the_host() -> bool {
    let answer = faccessat2(&CWD, c"/proc/sys/kernel/overflowuid", libc::W_OK, libc::AT_EACCESS);
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
}

/// All that a descriptor holds, for `--args`.
///
/// # Errors
/// errno.
pub fn read_all(fd: RawFd) -> Result<Vec<u8>> {
    let own = fcntl_dupfd_cloexec(&fd, 3).map_err(|_| Error::usage("not an open descriptor"))?;
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
        if statx(&fd, c"").context(|| name)?.is(libc::S_IFDIR) {
            let text = format!("{name} is a directory: PROGRAM could leave its new root through it");
            return Err(Error::failed(text));
        }
    }
    Ok(())
}

fn content(fd: RawFd) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(&fd, 3).map_err(|_| Error::usage(format!("{fd} is not an open descriptor")))
}

fn path_of(fd: RawFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{fd}");
    c_path(&link).and_then(|link| readlinkat(&CWD, &link)).context(|| format!("cannot read {link}"))
}

fn cannot_open(path: impl AsRef<Path>, error: &io::Error) -> Error {
    let path = path.as_ref();
    let cannot = Error::system(format!("cannot open {}", path.display()), error).path(path);
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            cannot.hint("every source takes a descriptor: raise the hard limit (ulimit -Hn)")
        }
        _ => cannot,
    }
}

fn attributes(access: Access) -> u64 {
    match access {
        Access::ReadOnly => PLAIN | MOUNT_ATTR_RDONLY,
        Access::Writable => PLAIN,
        Access::Devices => MOUNT_ATTR_NOSUID,
    }
}

/// Every source is a descriptor until it is mounted. The caller's limit comes back, for the exec to restore.
///
/// # Errors
/// errno.
pub fn raise_descriptor_limit(sources: usize) -> Result<Option<libc::rlimit>> {
    if sources < 100 {
        return Ok(None);
    }
    let limit = getrlimit(libc::RLIMIT_NOFILE as i32).context(|| "getrlimit")?;
    set_descriptor_limit(libc::rlimit { rlim_cur: limit.rlim_max, ..limit })?;
    Ok(Some(limit))
}

/// # Errors
/// errno.
pub fn set_descriptor_limit(limit: libc::rlimit) -> Result<()> {
    setrlimit(libc::RLIMIT_NOFILE as i32, limit).context(|| "setrlimit")
}
