//! The new root, and the way from a destination to a descriptor.
//!
//! Destinations are walked with openat2(2) `RESOLVE_IN_ROOT`: an absolute link, `..` and a `/proc` magic link
//! cannot lead out of the new root, and it does not matter who changes the tree meanwhile (an earlier command may
//! still run in it). What is made is made by name in a directory held open, what is mounted goes onto a descriptor.

use crate::detached::{Tree, is_read_only, tmpfs};
use crate::links::{Directories, Walk, names};
use crate::namespace;
use crate::source::Host;
use srt_common::sys::c_path;
use srt_common::sys::file::{CWD, Stat, mkdirat, mknodat, openat2, readlinkat, statx, unlinkat};
use srt_common::sys::mount::{fchdir, move_mount, pivot_root, umount2};
use srt_common::{Context, Error, Result};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How every destination is walked.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// How the last step is made, by a name in a directory that is held open.
const ONE_STEP: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

/// A destination: the directory that holds it, its name there (`.` for the root and for a path that ends in `..`), and
/// what is there. Resolved once; then it is made, opened or mounted on.
#[derive(Debug)]
pub struct Dest {
    /// Its path in the new root, without links and `..`.
    pub path: PathBuf,
    /// The directory that holds it.
    pub parent: Rc<OwnedFd>,
    /// Its name there.
    pub name: CString,
    /// What is there. Never a symbolic link.
    pub there: Option<(Rc<OwnedFd>, Stat)>,
    /// Whether it is the new root itself.
    pub is_root: bool,
}

/// What may be made on the way to a destination.
#[derive(Clone, Copy, Debug)]
pub enum Missing {
    /// Nothing: it is an error.
    Refuse,
    /// Directories with this mode, where the file system was made here or `--placeholders` allows it.
    MountPoint(u32),
    /// Directories with this mode, anywhere: the user wants something made there.
    Make(u32),
}

/// The tree under construction.
#[derive(Debug)]
pub struct Root<'a> {
    host: &'a Host<'a>,
    /// The root of this process, on which the new one is stacked until the pivot.
    old: Rc<OwnedFd>,
    /// The new root. `None` before the first mount.
    top: Option<Tree>,
    /// How many mounts are stacked on the old root.
    stacked: usize,
    /// The file systems that this tool made: what is made there goes away with the sandbox.
    own: BTreeSet<(u32, u32)>,
    /// The roots of overlays that show links of the host which this sandbox may write.
    overlays: Directories,
    /// Whether `--placeholders` allows to make mount points elsewhere.
    pub placeholders: bool,
    /// What was made elsewhere, to be removed after a failure.
    made: Vec<(Rc<OwnedFd>, CString, bool)>,
}

impl<'a> Root<'a> {
    /// An empty root.
    pub fn new(host: &'a Host<'a>, placeholders: bool) -> Self {
        let (old, own, overlays) = (Rc::clone(&host.root), BTreeSet::new(), Directories::new());
        Self { host, old, top: None, stacked: 0, own, overlays, placeholders, made: vec![] }
    }

    /// The new root. Makes it, an empty tmpfs, if nothing was mounted at `/` so far.
    ///
    /// # Errors
    /// When that fails.
    pub fn top(&mut self) -> Result<Rc<OwnedFd>> {
        if self.top.is_none() {
            let tree = tmpfs(0o755, None)?;
            self.owns(&tree);
            self.stack(tree)?;
        }
        self.top.as_ref().map(|top| Rc::clone(&top.fd)).ok_or_else(|| Error::failed("there is no root"))
    }

    /// Mounts `tree` as the new root. A lookup on the host that starts at `/` does not meet it, one that comes to `/` by
    /// `..` does: from here on no path of the host is resolved but by [`Walk`] and `/proc/self/fd/N`.
    fn stack(&mut self, tree: Tree) -> Result<()> {
        move_mount(&tree.fd, &self.old, c"").map_err(|error| cannot_mount(&error))?;
        self.stacked += 1;
        self.top = Some(tree);
        Ok(())
    }

    /// Mounts `tree` at `dest`, which is there, and looks whether it is.
    ///
    /// # Errors
    /// What move_mount(2) says.
    pub fn mount(&mut self, tree: &Tree, dest: &Dest) -> Result<()> {
        let (false, Some((onto, _))) = (dest.is_root, &dest.there) else { return self.stack(tree.clone()) };
        move_mount(&tree.fd, onto, c"").map_err(|error| cannot_mount(&error))?;
        let by_name = |fd: &OwnedFd, name| statx(fd, name).map(|stat| stat.mount).context(|| "statx");
        // Above the root of a mount that is attached lies another mount.
        let is_there = match dest.name.as_c_str() {
            name if name == c"." => by_name(&tree.fd, c"..")? != tree.mount,
            name => by_name(&dest.parent, name)? == tree.mount,
        };
        if is_there { Ok(()) } else { Err(Error::failed("cannot mount: it is not there afterwards")) }
    }

    /// Mounts `tree` on a directory of the old root, where it goes away with that: copies of its parts remain.
    ///
    /// # Errors
    /// What move_mount(2) says.
    pub fn mount_outside(&mut self, tree: &Tree) -> Result<()> {
        match openat2(&self.old, c"dev", libc::O_PATH | libc::O_DIRECTORY, 0) {
            Ok(dev) => move_mount(&tree.fd, &dev, c""),
            // Then on the old root itself, which costs a umount of its own.
            Err(_) => {
                self.stacked += 1;
                move_mount(&tree.fd, &self.old, c"")
            }
        }
        .map_err(|error| cannot_mount(&error))
    }

    /// Remembers that `tree` is of a file system made here.
    pub fn owns(&mut self, tree: &Tree) {
        self.own.insert(tree.device);
    }

    /// Whether `device` is a file system made here.
    pub fn is_own(&self, device: (u32, u32)) -> bool {
        self.own.contains(&device)
    }

    /// Remembers that `tree` is an overlay of directories of the host.
    ///
    /// # Errors
    /// statx(2).
    pub fn shows_the_host(&mut self, tree: &Tree) -> Result<()> {
        self.overlays.insert(statx(&tree.fd, c"").context(|| "statx")?.id);
        Ok(())
    }

    /// Resolves a destination. Its last name is no symbolic link: whoever could write there before would choose the
    /// place for what is made or mounted through it (CVE-2026-87766).
    ///
    /// # Errors
    /// It cannot be reached, or is a symbolic link.
    pub fn resolve(&mut self, dest: &Path, missing: Missing) -> Result<Dest> {
        let mut dest = self.place_of(dest, missing)?;
        match openat2(&dest.parent, &dest.name, libc::O_PATH | libc::O_NOFOLLOW, ONE_STEP) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            fd => {
                let fd = Rc::new(fd.map_err(|error| cannot_open(&dest.path, &error))?);
                let stat = statx(&fd, c"").context(|| "statx")?;
                if stat.is(libc::S_IFLNK) {
                    let target = readlinkat(&fd, c"").map_err(|error| cannot_open(&dest.path, &error))?;
                    return Err(link(&dest.path, &target));
                }
                dest.is_root =
                    stat.mount_root && self.top.as_ref().is_some_and(|top| top.mount == stat.mount);
                dest.there = Some((fd, stat));
            }
        }
        Ok(dest)
    }

    /// Where `dest` is to be made. What is there is not looked at.
    ///
    /// # Errors
    /// It cannot be reached, or has no name of its own.
    pub fn place(&mut self, dest: &Path, missing: Missing) -> Result<Dest> {
        match self.place_of(dest, missing)? {
            place if place.name.as_c_str() == c"." => {
                Err(Error::failed(format!("{} is a directory", dest.display())))
            }
            place => Ok(place),
        }
    }

    fn place_of(&mut self, dest: &Path, missing: Missing) -> Result<Dest> {
        let names: Vec<&OsStr> = names(dest).collect();
        let (above, name) = match names.split_last() {
            Some((name, above)) if *name != ".." => (above, *name),
            _ => (names.as_slice(), OsStr::new(".")),
        };
        let (parent, above) = self.directory(above, missing)?;
        let path = if name == "." { above } else { above.join(name) };
        let name = c_path(name).context(|| "path")?;
        Ok(Dest { path, parent, name, there: None, is_root: false })
    }

    /// What is at `dest`.
    ///
    /// # Errors
    /// It is missing, or a symbolic link.
    pub fn find(&mut self, dest: &Path) -> Result<(Dest, Rc<OwnedFd>, Stat)> {
        match self.resolve(dest, Missing::Refuse) {
            Ok(Dest { there: Some((fd, stat)), path, parent, name, is_root }) => {
                let there = Some((Rc::clone(&fd), stat));
                Ok((Dest { path, parent, name, there, is_root }, fd, stat))
            }
            Err(error) if error.errno != Some(libc::ENOENT) => Err(error),
            _ => Err(cannot_open(&Path::new("/").join(dest), &io::Error::from_raw_os_error(libc::ENOENT))),
        }
    }

    /// The mount point at `dest`, made if it is missing; its parents with `parents` as their mode.
    ///
    /// # Errors
    /// What is there does not fit, or it is missing and may not be made.
    pub fn mount_point(&mut self, dest: &Path, directory: bool, parents: u32) -> Result<Dest> {
        if directory && self.top.is_none() && names(dest).next().is_none() {
            // The first root needs no tmpfs below it.
            let (path, parent, name) = (PathBuf::from("/"), Rc::clone(&self.old), c".".to_owned());
            return Ok(Dest { path, parent, name, there: None, is_root: true });
        }
        let mut dest = self.resolve(dest, Missing::MountPoint(parents))?;
        let shown = dest.path.display();
        match (directory, dest.there.as_ref().map(|(_, stat)| stat.is(libc::S_IFDIR))) {
            (false, Some(true)) => Err(Error::failed(format!("{shown} is a directory")).path(&dest.path)),
            (true, Some(false)) => Err(Error::failed(format!("{shown} is not a directory")).path(&dest.path)),
            (_, Some(_)) => Ok(dest),
            (_, None) => {
                let mode = if directory { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o444 };
                let fd = self.make(&dest.parent, &dest.path, mode, self.placeholders)?;
                let stat = statx(&fd, c"").context(|| "statx")?;
                dest.there = Some((fd, stat));
                Ok(dest)
            }
        }
    }

    /// Remembers what was made, if it would stay on the host.
    pub fn remember(&mut self, dest: &Dest) {
        if !statx(&dest.parent, c"").is_ok_and(|stat| self.is_own(stat.device)) {
            self.made.push((Rc::clone(&dest.parent), dest.name.clone(), false));
        }
    }

    /// The directory at `names`, made with its parents if missing, and its path.
    fn directory(&mut self, names: &[&OsStr], missing: Missing) -> Result<(Rc<OwnedFd>, PathBuf)> {
        let mut depth = names.len();
        let mut found = loop {
            match self.walk(&names[..depth]) {
                Err(error) if error.errno == Some(libc::ENOENT) && depth > 0 => depth -= 1,
                found => break found?,
            }
        };
        for end in depth + 1..=names.len() {
            let permitted = match missing {
                Missing::Refuse => {
                    let path = Path::new("/").join(names.iter().collect::<PathBuf>());
                    return Err(cannot_open(&path, &io::Error::from_raw_os_error(libc::ENOENT)));
                }
                Missing::MountPoint(mode) => (mode, self.placeholders),
                Missing::Make(mode) => (mode, true),
            };
            // `..` can lead back to a directory that has just been made for it: /a/../a/b.
            found = match names[end - 1] {
                name if name == ".." => self.walk(&names[..end])?,
                name => {
                    let path = found.1.join(name);
                    let mode = libc::S_IFDIR | permitted.0;
                    (self.make(&found.0, &path, mode, permitted.1)?, path)
                }
            };
        }
        Ok(found)
    }

    /// The directory at `names`, and its path without links and `..`.
    fn walk(&mut self, names: &[&OsStr]) -> Result<(Rc<OwnedFd>, PathBuf)> {
        let top = self.top()?;
        let path = Path::new("/").join(names.iter().collect::<PathBuf>());
        let cannot = |error: io::Error| cannot_open(&path, &error);
        let c_name = c_path(&path).map_err(cannot)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match open_in_root(&top, &c_name, flags, libc::RESOLVE_NO_SYMLINKS) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            fd => {
                let plain = names.iter().fold(PathBuf::from("/"), |mut path, name| {
                    if *name == ".." {
                        _ = path.pop()
                    } else {
                        path.push(name)
                    }
                    path
                });
                return Ok((Rc::new(fd.map_err(cannot)?), plain));
            }
        }
        if !self.host.is_writable() {
            return Ok((Rc::new(open_in_root(&top, &c_name, flags, 0).map_err(cannot)?), path));
        }
        let mut writable = self.host.writable()?.clone();
        writable.extend(&self.overlays);
        let walk = Walk::along(&top, &path, &writable, false).map_err(|error| match error.errno {
            Some(errno) => cannot_open(&path, &io::Error::from_raw_os_error(errno)),
            None => error,
        })?;
        match walk.end().stat.is(libc::S_IFDIR) {
            true => Ok((Rc::clone(&walk.end().fd), walk.path())),
            false => Err(cannot(io::Error::from_raw_os_error(libc::ENOTDIR))),
        }
    }

    /// Makes a directory or an empty file, as the type in `mode` says, and opens it. On a file system of the host it would
    /// stay there for good, so there it must be `permitted`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(
        &mut self,
        parent: &Rc<OwnedFd>,
        path: &Path,
        mode: u32,
        permitted: bool,
    ) -> Result<Rc<OwnedFd>> {
        let own = self.is_own(statx(parent, c"").context(|| "statx")?.device);
        if !own && !permitted {
            return Err(not_permitted(path, parent));
        }
        let name = c_path(path.file_name().unwrap_or_default()).context(|| "path")?;
        let directory = mode & libc::S_IFMT == libc::S_IFDIR;
        let made = match directory {
            true => mkdirat(parent, &name, mode & 0o7777),
            false => mknodat(parent, &name, mode),
        };
        if let Err(error) = made {
            if let Ok(target) = readlinkat(parent, &name) {
                return Err(link(path, &target));
            }
            // Somebody else may have made the directory meanwhile.
            if !directory || error.raw_os_error() != Some(libc::EEXIST) {
                return Err(cannot_make(path, &error));
            }
        } else if !own {
            self.made.push((Rc::clone(parent), name.clone(), directory));
        }
        let flags = libc::O_PATH | if directory { libc::O_DIRECTORY } else { 0 };
        openat2(parent, &name, flags, ONE_STEP).map(Rc::new).map_err(|error| cannot_open(path, &error))
    }

    /// Makes the new root the process's root, and lets go of the old one.
    ///
    /// # Errors
    /// What pivot_root(2) says.
    pub fn enter(&mut self) -> Result<()> {
        let top = self.top()?;
        fchdir(&top).context(|| "cannot enter the new root")?;
        // The working directory becomes the root, and the old root lies on top of it (pivot_root(2)).
        pivot_root(c".", c".").map_err(|error| namespace::refused("pivot_root", &error))?;
        // On it lies what was stacked there. Lazily: all below goes too.
        for _ in 0..std::mem::take(&mut self.stacked) {
            umount2(c".", libc::MNT_DETACH)
                .map_err(|error| namespace::refused("cannot detach the old root", &error))?;
        }
        // Whatever still lay there, `..` would lead into it.
        let mount = |name: &CStr| statx(&CWD, name).map(|stat| stat.mount).context(|| "statx");
        let new = statx(&top, c"").context(|| "statx")?.mount;
        if mount(c"/")? != new || mount(c"/..")? != new {
            return Err(Error::failed("pivot_root has not led into the new root alone"));
        }
        Ok(())
    }

    /// Out of the new root, into an empty one.
    fn leave(&mut self) -> Result<()> {
        let root = openat2(&CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0);
        self.old = Rc::new(root.context(|| "cannot open /")?);
        self.stack(tmpfs(0o755, None)?)?;
        self.enter()
    }
}

/// After a failure nothing is left behind.
impl Drop for Root<'_> {
    fn drop(&mut self) {
        if self.made.is_empty() {
            return;
        }
        // A directory that is a mount point in this namespace cannot be removed from here (rmdir(2), EBUSY). Once the
        // privileges are gone, what is no mount point goes at least.
        let _no_failure_left_to_tell = self.leave();
        for (parent, name, directory) in self.made.iter().rev() {
            let flags = if *directory { libc::AT_REMOVEDIR } else { 0 };
            let _no_failure_left_to_tell = unlinkat(parent, name, flags);
        }
    }
}

/// openat2(2) with `RESOLVE_IN_ROOT`.
///
/// # Errors
/// errno.
pub fn open_in_root(top: &OwnedFd, path: &CStr, flags: libc::c_int, resolve: u64) -> io::Result<OwnedFd> {
    // EAGAIN: something was renamed or mounted anywhere in the system while a `..` was resolved, and the kernel
    // cannot tell whether it still is inside (openat2(2)). A busy host needs a few attempts.
    let mut attempts = 0;
    loop {
        match openat2(top, path, flags, IN_ROOT | resolve) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < 1000 => attempts += 1,
            result => return result,
        }
    }
}

/// The error for a destination that is a symbolic link.
pub fn link(dest: &Path, target: &Path) -> Error {
    Error::failed(format!("{} is a symbolic link to {}", dest.display(), target.display()))
        .path(dest)
        .hint("name the place that it leads to, if that is what is meant")
}

fn not_permitted(dest: &Path, parent: &OwnedFd) -> Error {
    if is_read_only(parent).unwrap_or(false) {
        return cannot_make(dest, &io::Error::from_raw_os_error(libc::EROFS))
            .hint("a mount point on a read-only mount must exist before");
    }
    let text = format!("{} does not exist, and would be made on the host's file system", dest.display());
    Error::failed(text)
        .path(dest)
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

fn cannot_open(dest: &Path, error: &io::Error) -> Error {
    Error::system(format!("cannot open {} in the new root", dest.display()), error).path(dest)
}

/// What is said when something cannot be made.
pub fn cannot_make(dest: &Path, error: &io::Error) -> Error {
    Error::system(format!("cannot make {}", dest.display()), error).path(dest)
}
