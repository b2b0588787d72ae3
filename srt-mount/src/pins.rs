//! What is protected stays where it is.
//!
//! A read-only bind or a mask below a writable bind is worth nothing if the command can rename a directory above it
//! and put its own there, for the next one who looks. rename(2) and rmdir(2) of a directory that is a mount point
//! in the caller's mount namespace fail with EBUSY, and the kernel asks about the directory alone, not through which
//! mount it is reached (`is_local_mountpoint()` in fs/namei.c). So each directory between the root of a writable
//! mount and the mount point is made a mount point in a second copy of that mount, which no lookup can reach
//! since another mount covers it. In the tree that the command sees, no file system boundary appears.
//!
//! The same is done with symbolic links on the way: who can replace one decides what the user's name leads to.

use crate::source::Tree;
use crate::sys::{self, c_path};
use crate::tree::{self, Place, Root};
use srt_common::{Context, Error, Result};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// How a directory or link is reached: the links on the way were resolved before.
const RESOLVED: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;

/// path_resolution(7): MAXSYMLINKS.
const MOST_LINKS: usize = 40;

/// Where the copies can hide if no operation has mounted a directory: a directory that usually is a mount point.
const HIDING_PLACES: [&std::ffi::CStr; 10] =
    [c"proc", c"sys", c"dev", c"run", c"tmp", c"boot", c"mnt", c"media", c"srv", c"opt"];

/// What is to be pinned.
#[derive(Debug, Default)]
pub struct Pins {
    /// Whether the host's files are writable somewhere in the tree.
    needed: bool,
    /// Parents of mount points as the user wrote them, to ask only once.
    asked: BTreeSet<PathBuf>,
    /// The directories and links to pin, by the mount that they are in.
    mounts: BTreeMap<u64, Pinned>,
    /// The last mount of a directory below the root. No later mount covers it.
    cover: Option<Rc<OwnedFd>>,
}

/// What to pin in one mount.
#[derive(Debug)]
struct Pinned {
    /// The mount's root.
    root: OwnedFd,
    /// The paths, counted from that.
    below: BTreeSet<PathBuf>,
}

/// The mounts that a walk has come through, with the paths of their roots; `None`: nothing in it needs a pin.
type Roots = BTreeMap<u64, Option<(PathBuf, OwnedFd)>>;

impl Pins {
    /// From here on the command could rename directories of the host: those of what was mounted just now, too, which
    /// can be at paths that were asked for when something else was there.
    pub fn host_is_writable(&mut self) {
        self.needed = true;
        self.asked.clear();
    }

    /// Notes the directories above a mount point, and the links on the way to it, that are in writable mounts of
    /// the host.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn protect(&mut self, root: &mut Root, dest: &Path, place: &Place) -> Result<()> {
        let parent = dest.parent().unwrap_or(dest);
        if !self.needed || matches!(place, Place::Root) || !self.asked.insert(parent.to_owned()) {
            return Ok(());
        }
        let mut roots = Roots::new();
        let mut path = PathBuf::from("/");
        self.visit(root, &path, &mut roots)?;
        let mut ahead: VecDeque<OsString> = parent.components().filter_map(step).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                path.pop();
                continue;
            }
            path.push(name);
            if let Some(target) = self.visit(root, &path, &mut roots)? {
                links += 1;
                if links > MOST_LINKS {
                    let cannot = format!("cannot resolve {}", parent.display());
                    return Err(Error::system(cannot, &io::Error::from_raw_os_error(libc::ELOOP)));
                }
                path.pop();
                if target.is_absolute() {
                    path = PathBuf::from("/");
                }
                ahead = target.components().filter_map(step).chain(ahead).collect();
            }
        }
        Ok(())
    }

    /// Notes what lies at `path`, if it needs a pin. Tells where it leads if it is a link. What lies above was
    /// visited before.
    fn visit(&mut self, root: &mut Root, path: &Path, roots: &mut Roots) -> Result<Option<PathBuf>> {
        let cannot = || format!("cannot look at {}", path.display());
        let name = c_path(path).context(cannot)?;
        let fd = sys::openat2(root.top()?.as_raw_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, RESOLVED)
            .context(cannot)?;
        let stat = sys::stat(fd.as_raw_fd()).context(cannot)?;
        let link = stat.is(libc::S_IFLNK).then(|| sys::readlink(fd.as_raw_fd(), c""));
        if stat.mount_root || path == Path::new("/") {
            let pinnable = !root.is_own(stat.device) && !sys::is_read_only(&fd).context(cannot)?;
            roots.insert(stat.mount, pinnable.then(|| (path.to_owned(), fd)));
        } else if let Some(Some((mount_root, fd))) = roots.get(&stat.mount) {
            let root = fd.try_clone().context(cannot)?;
            let pinned = self.mounts.entry(stat.mount).or_insert(Pinned { root, below: BTreeSet::new() });
            pinned.below.insert(path.strip_prefix(mount_root).unwrap_or(path).to_owned());
        }
        link.transpose().context(cannot)
    }

    /// Notes what was mounted.
    pub fn mounted(&mut self, tree: Tree, place: &Place) {
        match place {
            Place::Root => self.cover = None,
            Place::Below(_) if tree.directory => self.cover = Some(tree.fd),
            Place::Below(_) => {}
        }
    }

    /// Sets the pins, once the tree stands.
    ///
    /// # Errors
    /// When a directory cannot be pinned.
    pub fn set(&self, root: &mut Root) -> Result<()> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        let cover = match &self.cover {
            Some(cover) => Rc::clone(cover),
            None => Rc::new(hiding_place(root)?),
        };
        // All copies first: one must not hold another.
        let visible = sys::clone_tree(cover.as_raw_fd(), c"", true).context(|| "open_tree")?;
        let copies = self.mounts.values().map(|pinned| copy(&pinned.root)).collect::<Result<Vec<_>>>()?;
        let mut pin: Option<OwnedFd> = None;
        for (copy, pinned) in copies.iter().zip(self.mounts.values()) {
            sys::attach(copy, &*cover).context(|| "cannot hide a mount")?;
            // The deepest first: nothing below a pin can be reached any more.
            for path in pinned.below.iter().rev() {
                pin = Some(set_pin(copy, path, pin)?);
            }
        }
        sys::attach(&visible, &*cover).context(|| "cannot cover a mount")
    }
}

/// A step of a path. `..` goes up, at the root it stays there.
fn step(component: Component) -> Option<OsString> {
    match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    }
}

/// A second copy of a mount: alone, or with all below it where the kernel demands that (mounts that came from a
/// more privileged namespace can only be copied together).
fn copy(root: &OwnedFd) -> Result<OwnedFd> {
    let alone = sys::clone_tree(root.as_raw_fd(), c"", false);
    alone.or_else(|_| sys::clone_tree(root.as_raw_fd(), c"", true)).context(|| "open_tree")
}

/// Makes the directory or link at `path` in `copy` a mount point. What is mounted there does not matter: all pins
/// of directories are mounts of the same empty file system, and a link is bound onto itself.
fn set_pin(copy: &OwnedFd, path: &Path, previous: Option<OwnedFd>) -> Result<OwnedFd> {
    let pin = match previous {
        None => tree::tmpfs(0, None)?,
        Some(pin) => sys::clone_tree(pin.as_raw_fd(), c"", false).context(|| "open_tree")?,
    };
    let cannot = || format!("cannot pin {}", path.display());
    let path = c_path(path).context(cannot)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match sys::openat2(copy.as_raw_fd(), &path, flags, RESOLVED | libc::RESOLVE_NO_XDEV) {
        Ok(entry) if sys::stat(entry.as_raw_fd()).context(cannot)?.is(libc::S_IFLNK) => {
            let link = sys::clone_tree(entry.as_raw_fd(), c"", false).context(cannot)?;
            sys::attach(&link, &entry).context(cannot)?;
        }
        Ok(directory) => sys::attach(&pin, &directory).context(cannot)?,
        // A later operation has mounted something there, or above it.
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {}
        Err(error) => return Err(Error::system(cannot(), &error)),
    }
    Ok(pin)
}

fn hiding_place(root: &mut Root) -> Result<OwnedFd> {
    let top = root.top()?;
    let mut second_best = None;
    for name in HIDING_PLACES {
        let Ok(fd) = sys::openat2(top.as_raw_fd(), name, libc::O_PATH | libc::O_DIRECTORY, RESOLVED) else {
            continue;
        };
        if sys::stat(fd.as_raw_fd()).context(|| "statx")?.mount_root {
            return Ok(fd);
        }
        second_best = second_best.or(Some(fd));
    }
    second_best.ok_or_else(|| {
        Error::failed("no mounted directory below which the directories above a protected path can be pinned")
            .hint("add a mount of a directory: --proc /proc, --dev /dev, --tmpfs /tmp")
    })
}
