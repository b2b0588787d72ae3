//! The new root, and the way from a destination to a descriptor.
//!
//! Destinations are walked with openat2(2) `RESOLVE_IN_ROOT`: an absolute link, `..` and a `/proc` magic link
//! cannot lead out of the new root, and it does not matter who changes the tree meanwhile (an earlier command may
//! still run in it). What is made is made by name in a directory held open, what is mounted goes onto a descriptor.

use crate::namespace;
use crate::sys::{self, Stat, c_path};
use srt_common::{Context, Error, Result};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// How every destination is walked.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// How the last step is made, by a name in a directory that is held open.
const ONE_STEP: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

/// What is made, or mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else.
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
    own: BTreeSet<(u32, u32)>,
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
        let host = sys::openat2(sys::CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0);
        let host = Rc::new(host.context(|| "cannot open /")?);
        Ok(Self { host, top: None, stacked: 0, own: BTreeSet::new(), placeholders, made: vec![] })
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

    /// Mounts `tree` at `place`. A lookup on the host that starts at `/` does not meet what is mounted on that, one
    /// that comes to `/` by `..` does: from here on no path of the host is resolved but `/proc/self/fd/N`.
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

    /// Mounts `tree` on a directory of the old root, where it goes away with that: copies of its parts remain.
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
    ///
    /// # Errors
    /// errno.
    pub fn owns(&mut self, tree: &OwnedFd) -> Result<()> {
        self.own.insert(sys::stat(tree.as_raw_fd()).context(|| "statx")?.device);
        Ok(())
    }

    /// Whether `device` is a file system made here.
    pub fn is_own(&self, device: (u32, u32)) -> bool {
        self.own.contains(&device)
    }

    /// The mount point at `dest`, made if it is missing; its parents with `parents` as their mode.
    ///
    /// # Errors
    /// What is there does not fit, or it is missing and may not be made.
    pub fn mount_point(&mut self, dest: &Path, kind: Kind, parents: u32) -> Result<Place> {
        let names = names(dest);
        if names.is_empty() && kind == Kind::Directory {
            return Ok(Place::Root);
        }
        let Some((place, _, stat)) = self.look(&names)? else {
            let mode = if kind == Kind::Directory { 0o755 } else { 0o444 };
            return self.make(&names, kind, mode, parents, self.placeholders).map(Place::Below);
        };
        match (kind, stat.is(libc::S_IFDIR)) {
            (Kind::File, true) => Err(Error::failed(format!("{} is a directory", dest.display()))),
            (Kind::Directory, false) => Err(Error::failed(format!("{} is not a directory", dest.display()))),
            _ => Ok(place),
        }
    }

    /// What is at `dest`, as a place to mount on. Never a symbolic link.
    ///
    /// # Errors
    /// It is missing, or a symbolic link.
    pub fn find(&mut self, dest: &Path) -> Result<(Place, Rc<OwnedFd>, Stat)> {
        let missing = || Error::system(cannot_open(dest), &io::Error::from_raw_os_error(libc::ENOENT));
        self.look(&names(dest))?.ok_or_else(missing)
    }

    /// `--dir`: leaves a directory that exists as it is.
    ///
    /// # Errors
    /// Something else is there, or it cannot be made.
    pub fn make_directory(&mut self, dest: &Path, mode: u32, parents: u32) -> Result<()> {
        let names = names(dest);
        match self.look(&names)? {
            Some((_, _, stat)) if stat.is(libc::S_IFDIR) => Ok(()),
            Some(_) => Err(Error::failed(format!("{} is not a directory", dest.display()))),
            None => self.make(&names, Kind::Directory, mode, parents, true).map(drop),
        }
    }

    /// The directory that holds `dest`, made with its parents if missing, and the last name of `dest`: for what
    /// the user wants made there, on whatever file system.
    ///
    /// # Errors
    /// It is missing and cannot be made, or `dest` has no last name.
    pub fn parent(&mut self, dest: &Path, parents: u32) -> Result<(Rc<OwnedFd>, CString)> {
        match names(dest).split_last() {
            Some((name, above)) if *name != ".." => {
                Ok((self.directories(above, parents, true)?, c_path(name).context(|| "path")?))
            }
            _ => Err(Error::failed(format!("{} is a directory", dest.display()))),
        }
    }

    /// Remembers what was made, if it would stay on the host.
    ///
    /// # Errors
    /// errno.
    pub fn remember(&mut self, parent: &Rc<OwnedFd>, name: &CStr, kind: Kind) -> Result<()> {
        if !self.is_own(sys::stat(parent.as_raw_fd()).context(|| "statx")?.device) {
            self.made.push((Rc::clone(parent), name.to_owned(), kind));
        }
        Ok(())
    }

    /// What is at `names`, if anything is. Never a symbolic link: whoever could write there before would choose the
    /// place for what is made or mounted through it (CVE-2026-87766).
    fn look(&mut self, names: &[&OsStr]) -> Result<Option<(Place, Rc<OwnedFd>, Stat)>> {
        let top = self.top()?;
        let fd = match walk(&top, names, libc::O_PATH | libc::O_NOFOLLOW) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            result => Rc::new(result.context(|| cannot_open(&join(names)))?),
        };
        let stat = sys::stat(fd.as_raw_fd()).context(|| "statx")?;
        if stat.is(libc::S_IFLNK) {
            let target = sys::readlink(fd.as_raw_fd(), c"").context(|| cannot_open(&join(names)))?;
            return Err(link(&join(names), &target));
        }
        // With `..` in it, a path can lead to the root after all.
        let root = stat.mount_root && stat.mount == sys::stat(top.as_raw_fd()).context(|| "statx")?.mount;
        let place = if root { Place::Root } else { Place::Below(Rc::clone(&fd)) };
        Ok(Some((place, fd, stat)))
    }

    /// Makes what is missing at `names`, and opens it. On a file system of the host it would stay there for good,
    /// so there it must be `permitted`.
    fn make(
        &mut self,
        names: &[&OsStr],
        kind: Kind,
        mode: u32,
        parents: u32,
        permitted: bool,
    ) -> Result<Rc<OwnedFd>> {
        let path = || join(names);
        let Some((name, above)) = names.split_last() else { return self.top() };
        let parent = self.directories(above, parents, permitted)?;
        if above.contains(&OsStr::new("..")) {
            // Such a path can lead back to a directory that has just been made for it: /a/../a/b.
            match self.look(names)? {
                Some((_, fd, stat)) if kind == Kind::Directory && stat.is(libc::S_IFDIR) => return Ok(fd),
                _ => {}
            }
        }
        let own = self.is_own(sys::stat(parent.as_raw_fd()).context(|| "statx")?.device);
        if !own && !permitted {
            return Err(not_permitted(&path(), &parent));
        }
        let name = c_path(name).context(|| "path")?;
        let made = match kind {
            Kind::Directory => sys::mkdir(&parent, &name, mode),
            Kind::File => sys::mkfile(&parent, &name, mode),
        };
        made.map_err(|error| match sys::readlink(parent.as_raw_fd(), &name) {
            // Not found, and yet there: a symbolic link that leads nowhere.
            Ok(target) => link(&path(), &target),
            Err(_) => Error::system(cannot_make(&path()), &error),
        })?;
        if !own {
            self.made.push((Rc::clone(&parent), name.clone(), kind));
        }
        let fd = sys::openat2(parent.as_raw_fd(), &name, libc::O_PATH, ONE_STEP);
        fd.map(Rc::new).context(|| cannot_open(&path()))
    }

    /// The directory at `names`, made with its parents if missing.
    fn directories(&mut self, names: &[&OsStr], mode: u32, permitted: bool) -> Result<Rc<OwnedFd>> {
        let top = self.top()?;
        let open = || walk(&top, names, libc::O_PATH | libc::O_DIRECTORY);
        let opened = match open() {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => match names.split_last() {
                Some((name, above)) if *name == ".." => {
                    self.directories(above, mode, permitted)?;
                    open()
                }
                _ => return self.make(names, Kind::Directory, mode, mode, permitted),
            },
            result => result,
        };
        opened.map(Rc::new).context(|| cannot_open(&join(names)))
    }

    /// Makes the new root the process's root, and lets go of the old one.
    ///
    /// # Errors
    /// What pivot_root(2) says.
    pub fn enter(&mut self) -> Result<()> {
        let top = self.top()?;
        sys::fchdir(&*top).context(|| "cannot enter the new root")?;
        sys::pivot_root_here().map_err(|error| namespace::refused("pivot_root", &error))?;
        // The old root lies on the new one now, and on it what was stacked there. Lazily: all below goes too.
        for _ in 0..std::mem::take(&mut self.stacked) {
            sys::detach_here().map_err(|error| namespace::refused("cannot detach the old root", &error))?;
        }
        // Whatever still lay there, `..` would lead into it.
        let above = sys::openat2(sys::CWD, c"/..", libc::O_PATH, 0).context(|| "cannot open /..")?;
        let mount = |fd: &OwnedFd| sys::stat(fd.as_raw_fd()).map(|stat| stat.mount).context(|| "statx");
        if mount(&above)? != mount(&top)? {
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
        let _no_failure_left_to_tell = sys::fchdir(&*self.host);
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

/// openat2(2) with `RESOLVE_IN_ROOT`.
///
/// # Errors
/// errno.
pub fn open_in_root(top: &OwnedFd, path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
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

/// The names that make up a destination, counted from the root. `.` and doubled or trailing slashes go: a
/// trailing slash would make the kernel follow a link that is the destination itself.
fn names(dest: &Path) -> Vec<&OsStr> {
    let name = |component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    };
    dest.components().filter_map(name).collect()
}

fn join(names: &[&OsStr]) -> PathBuf {
    Path::new("/").join(names.iter().collect::<PathBuf>())
}

fn walk(top: &OwnedFd, names: &[&OsStr], flags: libc::c_int) -> io::Result<OwnedFd> {
    open_in_root(top, &CString::new(join(names).as_os_str().as_bytes())?, flags)
}

/// The error for a destination that is a symbolic link.
pub fn link(dest: &Path, target: &Path) -> Error {
    Error::failed(format!("{} is a symbolic link to {}", dest.display(), target.display()))
        .hint("name the place that it leads to, if that is what is meant")
}

fn not_permitted(dest: &Path, parent: &OwnedFd) -> Error {
    if sys::is_read_only(parent).unwrap_or(false) {
        let error = io::Error::from_raw_os_error(libc::EROFS);
        return Error::system(cannot_make(dest), &error)
            .hint("a mount point on a read-only mount must exist before");
    }
    Error::failed(format!("{} does not exist, and would be made on the host's file system", dest.display()))
        .hint("make it first, or let --placeholders make it; it stays there when the sandbox ends")
}

fn cannot_mount(error: &io::Error) -> Error {
    let cannot = Error::system("cannot mount", error);
    match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            cannot.hint("a mount namespace holds no more than the sysctl fs.mount-max mounts")
        }
        Some(libc::EACCES) => namespace::refused("cannot mount", error),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_counts_from_the_root_however_it_is_written() {
        for (dest, expected) in [
            ("/", "/"),
            (".", "/"),
            ("//a/./b//", "/a/b"),
            ("a/b/.", "/a/b"),
            ("/a/../b", "/a/../b"),
            ("..", "/.."),
        ] {
            assert_eq!(join(&names(Path::new(dest))), Path::new(expected), "{dest}");
        }
    }
}
