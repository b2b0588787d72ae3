//! The new root, and the way from a destination to a descriptor.
//!
//! Destinations are walked with openat2(2) `RESOLVE_IN_ROOT`: an absolute link, `..` and a `/proc` magic link
//! cannot lead out of the new root, and it does not matter who changes the tree meanwhile (an earlier command may
//! still run in it). What is made is made by name in a directory held open, what is mounted goes onto a descriptor.

use crate::sys::{self, c_path};
use srt_common::{Context, Error, Result};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// How every destination is walked.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// How the last step is made, by a name in a directory that is held open.
const ONE_STEP: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For a mount whose root is a directory.
    Directory,
    /// For a mount whose root is anything else.
    File,
}

/// Where something can be mounted.
#[derive(Debug)]
pub enum Place {
    /// The new root itself.
    Root,
    /// Below it.
    Below(Rc<OwnedFd>),
}

/// The tree under construction.
#[derive(Debug)]
pub struct Root {
    /// The host's root, on which the new one is stacked until the pivot.
    host: Rc<OwnedFd>,
    /// The new root. `None` before the first mount.
    top: Option<Rc<OwnedFd>>,
    /// How many mounts are stacked on the host's root.
    stacked: usize,
    /// The file systems that this tool made: what is made there goes away with the sandbox.
    own: Vec<(u32, u32)>,
    /// Whether `--placeholders` allows to make mount points elsewhere.
    placeholders: bool,
    /// What was made elsewhere, to be removed after a failure.
    made: Vec<(Rc<OwnedFd>, CString, Kind)>,
}

impl Root {
    /// An empty root. Opens the host's.
    ///
    /// # Errors
    /// errno.
    pub fn new(placeholders: bool) -> Result<Self> {
        let host =
            sys::openat2(sys::CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "cannot open /")?;
        Ok(Self { host: Rc::new(host), top: None, stacked: 0, own: vec![], placeholders, made: vec![] })
    }

    /// Mounts `tree` on a directory of the old root, where it goes away with that: copies of its parts remain.
    /// No path of the host is resolved any more but `/proc/self/fd/N`.
    ///
    /// # Errors
    /// What move_mount(2) says.
    pub fn mount_outside(&mut self, tree: &OwnedFd) -> Result<()> {
        match sys::openat2(self.host.as_raw_fd(), c"dev", libc::O_PATH | libc::O_DIRECTORY, 0) {
            Ok(dev) => sys::attach(tree, &dev).map_err(|error| cannot_mount(&error)),
            // Then on the old root itself, which costs a umount of its own.
            Err(_) => {
                self.stacked += 1;
                sys::attach(tree, &*self.host).map_err(|error| cannot_mount(&error))
            }
        }
    }

    /// Remembers that `tree` is of a file system made here.
    pub fn owns(&mut self, tree: &OwnedFd) -> Result<()> {
        let device = sys::stat(tree.as_raw_fd()).context(|| "statx")?.device;
        if !self.own.contains(&device) {
            self.own.push(device);
        }
        Ok(())
    }

    /// Whether `device` is a file system made here.
    pub fn is_own(&self, device: (u32, u32)) -> bool {
        self.own.contains(&device)
    }

    /// The new root. Makes it, an empty tmpfs, if nothing was mounted at `/` so far.
    ///
    /// # Errors
    /// When that fails.
    pub fn top(&mut self) -> Result<Rc<OwnedFd>> {
        if let Some(top) = &self.top {
            return Ok(Rc::clone(top));
        }
        let tree = Rc::new(tmpfs(0o755, None)?);
        self.owns(&tree)?;
        self.mount(&tree, &Place::Root)?;
        Ok(tree)
    }

    /// Mounts `tree` at `place`.
    ///
    /// # Errors
    /// What move_mount(2) says.
    pub fn mount(&mut self, tree: &Rc<OwnedFd>, place: &Place) -> Result<()> {
        // The host's root leads to whatever is on top of it by now: an earlier root is covered.
        let onto = if let Place::Below(fd) = place { fd } else { &self.host };
        sys::attach(tree, onto).map_err(|error| cannot_mount(&error))?;
        if matches!(place, Place::Root) {
            self.stacked += 1;
            self.top = Some(Rc::clone(tree));
        }
        Ok(())
    }

    /// The mount point at `dest`, made if it is missing; its parents with `parents` as their mode.
    ///
    /// # Errors
    /// What is there does not fit, or it is missing and may not be made.
    pub fn mount_point(&mut self, dest: &Path, kind: Kind, parents: u32) -> Result<Place> {
        let names = names(dest);
        let Some((name, above)) = names.split_last() else {
            let fits = kind == Kind::Directory;
            return fits.then_some(Place::Root).ok_or_else(|| Error::failed("/ must be a directory"));
        };
        match self.existing(&names, kind) {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        let permitted = self.placeholders;
        let parent = self.directories(above, parents, permitted)?;
        self.may_make(&parent, permitted, dest)?;
        let name = c_path(name).context(|| "path")?;
        let (made, flags) = match kind {
            Kind::Directory => (sys::mkdir(&parent, &name, 0o755), libc::O_DIRECTORY),
            Kind::File => (sys::mkfile(&parent, &name, 0o444), 0),
        };
        made.context(|| cannot_make(dest))?;
        self.remember(&parent, &name, kind)?;
        let fd = sys::openat2(parent.as_raw_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW | flags, ONE_STEP);
        fd.map(|fd| Place::Below(Rc::new(fd))).context(|| cannot_open(dest))
    }

    /// What is at `dest`, as a place to mount on. Never a symbolic link.
    ///
    /// # Errors
    /// It is missing, or a symbolic link.
    pub fn find(&mut self, dest: &Path) -> Result<(Place, Rc<OwnedFd>)> {
        let names = names(dest);
        let top = self.top()?;
        if names.is_empty() {
            return Ok((Place::Root, top));
        }
        let fd = walk(&top, &names, libc::O_PATH | libc::O_NOFOLLOW).context(|| cannot_open(dest))?;
        refuse_link(&fd, dest)?;
        let fd = Rc::new(fd);
        Ok((Place::Below(Rc::clone(&fd)), fd))
    }

    /// The mount point at `names` if there is one of that kind.
    fn existing(&mut self, names: &[&OsStr], kind: Kind) -> Result<Option<Place>> {
        let directory = if kind == Kind::Directory { libc::O_DIRECTORY } else { 0 };
        let path = || join(names);
        let top = self.top()?;
        let fd = match walk(&top, names, libc::O_PATH | libc::O_NOFOLLOW | directory) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
                // Either the last step or one before it. The last one might be a link, which has its own message.
                if let Ok(fd) = walk(&top, names, libc::O_PATH | libc::O_NOFOLLOW) {
                    refuse_link(&fd, &path())?;
                }
                return Err(Error::system(cannot_open(&path()), &error));
            }
            Err(error) => return Err(Error::system(cannot_open(&path()), &error)),
        };
        if kind == Kind::File {
            refuse_link(&fd, &path())?;
            if sys::stat(fd.as_raw_fd()).context(|| "statx")?.is(libc::S_IFDIR) {
                return Err(Error::failed(format!(
                    "{} is a directory, and what goes there is not",
                    path().display()
                )));
            }
        }
        // With `..` in it, a path can lead to the root after all.
        if names.contains(&OsStr::new("..")) && self.is_top(&fd)? {
            return Ok(Some(Place::Root));
        }
        Ok(Some(Place::Below(Rc::new(fd))))
    }

    fn is_top(&mut self, fd: &OwnedFd) -> Result<bool> {
        let top = sys::stat(self.top()?.as_raw_fd()).context(|| "statx")?;
        let other = sys::stat(fd.as_raw_fd()).context(|| "statx")?;
        Ok((top.mount, top.id) == (other.mount, other.id))
    }

    /// The directory that holds `dest`, made with its parents if missing, and the last name of `dest`: for what
    /// the user wants made there, on whatever file system.
    ///
    /// # Errors
    /// It is missing and cannot be made, or `dest` has no last name.
    pub fn parent(&mut self, dest: &Path, parents: u32) -> Result<(Rc<OwnedFd>, CString)> {
        let names = names(dest);
        match names.split_last() {
            Some((name, above)) if *name != ".." => {
                Ok((self.directories(above, parents, true)?, c_path(name).context(|| "path")?))
            }
            _ => Err(Error::failed(format!("{} is a directory", dest.display()))),
        }
    }

    /// `--dir`.
    ///
    /// # Errors
    /// As [`Self::parent`]; or something else is there.
    pub fn make_directory(&mut self, dest: &Path, mode: u32, parents: u32) -> Result<()> {
        let names = names(dest);
        if names.is_empty() || self.existing(&names, Kind::Directory)?.is_some() {
            return Ok(());
        }
        let (parent, name) = self.parent(dest, parents)?;
        sys::mkdir(&parent, &name, mode).context(|| cannot_make(dest))?;
        self.remember(&parent, &name, Kind::Directory)
    }

    /// The directory at `names`, made with its parents if missing.
    fn directories(&mut self, names: &[&OsStr], mode: u32, permitted: bool) -> Result<Rc<OwnedFd>> {
        let top = self.top()?;
        let Some((name, above)) = names.split_last() else {
            return Ok(top);
        };
        let path = || join(names);
        match walk(&top, names, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result.map(Rc::new).context(|| cannot_open(&path())),
        }
        let parent = self.directories(above, mode, permitted)?;
        if *name == ".." {
            return walk(&top, names, libc::O_PATH | libc::O_DIRECTORY)
                .map(Rc::new)
                .context(|| cannot_open(&path()));
        }
        self.may_make(&parent, permitted, &path())?;
        let name = c_path(name).context(|| "path")?;
        sys::mkdir(&parent, &name, mode).map_err(|error| {
            // Not found, and yet there: a symbolic link that leads nowhere.
            let link = sys::readlink(parent.as_raw_fd(), &name);
            link.map_or_else(
                |_| Error::system(cannot_make(&path()), &error),
                |target| dangling(&path(), &target),
            )
        })?;
        self.remember(&parent, &name, Kind::Directory)?;
        sys::openat2(parent.as_raw_fd(), &name, libc::O_PATH | libc::O_DIRECTORY, ONE_STEP)
            .map(Rc::new)
            .context(|| cannot_open(&path()))
    }

    /// Whether a mount point may be made in `parent`. On a file system of the host it would stay there for good.
    fn may_make(&self, parent: &OwnedFd, permitted: bool, dest: &Path) -> Result<()> {
        let device = sys::stat(parent.as_raw_fd()).context(|| "statx")?.device;
        if permitted || self.is_own(device) {
            return Ok(());
        }
        if sys::is_read_only(parent).context(|| "fstatvfs")? {
            return Err(Error::system(cannot_make(dest), &io::Error::from_raw_os_error(libc::EROFS)).hint(
                format!("{} must exist before it can be a mount point on a read-only mount", dest.display()),
            ));
        }
        Err(Error::failed(format!(
            "{} does not exist, and would be made on the host's file system",
            dest.display()
        ))
        .hint("make it first, or let --placeholders make it; it stays there when the sandbox ends"))
    }

    /// Remembers what was made on a file system of the host.
    pub fn remember(&mut self, parent: &Rc<OwnedFd>, name: &CString, kind: Kind) -> Result<()> {
        if !self.is_own(sys::stat(parent.as_raw_fd()).context(|| "statx")?.device) {
            self.made.push((Rc::clone(parent), name.clone(), kind));
        }
        Ok(())
    }

    /// Makes the new root the process's root, and lets go of the old one.
    ///
    /// # Errors
    /// What pivot_root(2) says.
    pub fn enter(&mut self) -> Result<()> {
        sys::fchdir(&*self.top()?).context(|| "cannot enter the new root")?;
        sys::pivot_root_here().context(|| "pivot_root").map_err(|error| {
            error.hint("pivot_root(2) needs a root that is a mount, and not the initial RAM file system")
        })?;
        // The old root lies on the new one now, and on it what was stacked there. Lazily: all below goes too.
        for _ in 0..std::mem::take(&mut self.stacked) {
            sys::detach_here().context(|| "cannot detach the old root")?;
        }
        // Whatever still lay there, `..` would lead into it.
        let above = sys::openat2(sys::CWD, c"/..", libc::O_PATH, 0).context(|| "cannot open /..")?;
        if !self.is_top(&above)? {
            return Err(Error::failed("something is mounted on the new root"));
        }
        self.made.clear();
        Ok(())
    }
}

/// After a failure nothing is left behind.
impl Drop for Root {
    fn drop(&mut self) {
        if self.made.is_empty() {
            return;
        }
        // A directory that is a mount point in this namespace cannot be removed from here (rmdir(2), EBUSY).
        let _no_failure_left_to_tell = sys::fchdir(&self.host);
        for _ in 0..self.stacked {
            let _no_failure_left_to_tell = sys::detach_here();
        }
        for (parent, name, kind) in self.made.iter().rev() {
            let _no_failure_left_to_tell = sys::unlink(parent, name, *kind == Kind::Directory);
        }
    }
}

/// A new tmpfs, detached.
///
/// # Errors
/// errno.
pub fn tmpfs(mode: u32, size: Option<u64>) -> Result<OwnedFd> {
    let mode = c_path(format!("{mode:o}")).context(|| "mode")?;
    let size = size.map(|size| c_path(size.to_string())).transpose().context(|| "size")?;
    let mut options = vec![(c"mode", Some(mode.as_c_str()))];
    options.extend(size.as_ref().map(|size| (c"size", Some(size.as_c_str()))));
    sys::new_filesystem(c"tmpfs", &options, sys::NO_SUID | sys::NO_DEV).context(|| "cannot make a tmpfs")
}

/// The names that make up a destination, counted from the root. `.` and doubled or trailing slashes go: a
/// trailing slash would make the kernel follow a link that is the destination itself.
fn names(dest: &Path) -> Vec<&OsStr> {
    let names = dest.components();
    names
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::ParentDir => Some(OsStr::new("..")),
            _ => None,
        })
        .collect()
}

fn join(names: &[&OsStr]) -> PathBuf {
    Path::new("/").join(names.iter().collect::<PathBuf>())
}

fn walk(top: &OwnedFd, names: &[&OsStr], flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(names.join(OsStr::new("/")).as_bytes())?;
    open_in_root(top, &path, flags)
}

/// openat2(2) with `RESOLVE_IN_ROOT`.
///
/// # Errors
/// errno.
pub fn open_in_root(top: &OwnedFd, path: &CString, flags: libc::c_int) -> io::Result<OwnedFd> {
    // EAGAIN: something was renamed or mounted anywhere in the system while a `..` was resolved, and the kernel
    // cannot tell whether it still is inside (openat2(2)). A busy host needs a few attempts.
    let mut attempts = 0;
    loop {
        match sys::openat2(top.as_raw_fd(), path, flags, IN_ROOT) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < 1000 => attempts += 1,
            result => return result,
        }
    }
}

/// Nothing is made or mounted through a link that is the destination itself: whoever could write there before
/// would choose the place (CVE-2026-87766).
fn refuse_link(fd: &OwnedFd, dest: &Path) -> Result<()> {
    if !sys::stat(fd.as_raw_fd()).context(|| "statx")?.is(libc::S_IFLNK) {
        return Ok(());
    }
    let target = sys::readlink(fd.as_raw_fd(), c"").context(|| cannot_open(dest))?;
    Err(link(dest, &target))
}

/// The error for a destination that is a symbolic link.
pub fn link(dest: &Path, target: &Path) -> Error {
    Error::failed(format!("{} is a symbolic link to {}", dest.display(), target.display()))
        .hint("name the place that it leads to, if that is what is meant")
}

fn dangling(dest: &Path, target: &Path) -> Error {
    Error::failed(format!(
        "{} is a symbolic link to {}, which does not exist",
        dest.display(),
        target.display()
    ))
}

fn cannot_mount(error: &io::Error) -> Error {
    let cannot = Error::system("cannot mount", error);
    match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            cannot.hint("a mount namespace holds no more than the sysctl fs.mount-max mounts")
        }
        _ => cannot,
    }
}

fn cannot_open(dest: &Path) -> String {
    format!("cannot open {} in the new root", dest.display())
}

/// What is said when something cannot be made.
pub fn cannot_make(dest: &Path) -> String {
    format!("cannot make {}", dest.display())
}
