//! The new root, and the resolution of destinations to descriptors.
//!
//! Destinations are resolved with openat2(2) `RESOLVE_IN_ROOT`: an absolute link, `..` and a `/proc` magic link
//! cannot lead out of the new root, even if another process changes the tree at the same time (an earlier command may
//! still run in it). Files are created by name in a directory held open; mounts are attached to a descriptor.

use crate::detached::{Tree, clone_tree, is_read_only, require_effect, tmpfs};
use crate::namespace;
use crate::source::{Directories, Host, may_be_written};
use srt_common::path_walk::{Walk, names, returns};
use srt_common::sys::c_path;
use srt_common::sys::file::{CWD, Stat, mkdirat, mknodat, openat2, readlinkat, statx, unlinkat};
use srt_common::sys::mount::{fchdir, move_mount, pivot_root, umount2};
use srt_common::{Context, Error, Result};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How every destination is resolved.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// How the last component is resolved: as a name in a directory that is held open.
const ONE_STEP: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

/// A destination: the directory that holds it, its name there (`.` for the root and for a path that ends in `..`),
/// and the file there. It is resolved once, and then created, opened or mounted on.
pub struct Dest {
    /// Its path in the new root, without links and `..`.
    pub path: PathBuf,
    /// The directory that holds it.
    pub parent: Rc<OwnedFd>,
    /// Its name there.
    pub name: CString,
    /// The file there, if any. Never a symbolic link.
    pub there: Option<Rc<OwnedFd>>,
    /// Whether it is the new root itself.
    pub is_root: bool,
}

/// What to create if the destination is missing.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// A directory or an empty file, according to the type bits, with its permissions.
    pub mode: u32,
    /// The user wants it created. A mount point may be created only on a file system that was created here, or if
    /// `--placeholders` allows it.
    pub asked_for: bool,
}

/// The tree under construction.
pub struct Root<'a> {
    /// The host, with the sources and the plan.
    pub host: &'a Host<'a>,
    /// The root of this process, on which the new one is stacked until the pivot.
    old: Rc<OwnedFd>,
    /// The new root. `None` before the first mount.
    top: Option<Tree>,
    /// How many mounts are stacked on the old root.
    stacked: usize,
    /// The file systems that this tool created: what is created in them is lost when the sandbox ends.
    pub own: BTreeSet<(u32, u32)>,
    /// The roots of mounts that show links of the host in places that this sandbox may write: of writable binds,
    /// whatever their paths lead to by now, and of overlays.
    pub shows_writable: Directories,
    /// What was created on other file systems, to be removed after a failure.
    made: Vec<Made>,
}

/// A name in a directory, and the file that was created there. The name may belong to another file by now.
struct Made {
    parent: Rc<OwnedFd>,
    name: CString,
    as_made: Stat,
    /// An empty file, to mount on.
    empty: bool,
}

impl<'a> Root<'a> {
    /// An empty root.
    pub fn new(host: &'a Host<'a>) -> Self {
        let (old, own) = (Rc::clone(&host.root), BTreeSet::new());
        Self { host, old, top: None, stacked: 0, own, shows_writable: Directories::new(), made: vec![] }
    }

    /// The new root. If nothing was mounted at `/` so far, an empty tmpfs is created.
    ///
    /// # Errors
    /// The tmpfs cannot be created.
    pub fn top(&mut self) -> Result<Rc<OwnedFd>> {
        if self.top.is_none() {
            let tree = tmpfs(0o755, None)?;
            self.own.insert(tree.stat.device());
            self.stack(tree)?;
        }
        self.top.as_ref().map(|top| Rc::clone(&top.fd)).ok_or_else(|| Error::failed("there is no root"))
    }

    /// Mounts `tree` as the new root.
    fn stack(&mut self, tree: Tree) -> Result<()> {
        self.mount_outside(&tree)?;
        self.top = Some(tree);
        Ok(())
    }

    /// Mounts `tree` at the existing `dest`, and checks that it is there.
    ///
    /// # Errors
    /// Those of move_mount(2).
    pub fn mount(&mut self, tree: &Tree, dest: &Dest) -> Result<()> {
        let (false, Some(onto)) = (dest.is_root, &dest.there) else { return self.stack(tree.clone()) };
        move_mount(&tree.fd, onto, c"").map_err(|error| namespace::refused("cannot mount", &error))?;
        let by_name = |fd: &OwnedFd, name| statx(fd, name).map(|stat| stat.mount).context(|| "statx");
        // `..` of an attached mount's root is in another mount.
        let is_there = match dest.name.as_c_str() {
            name if name == c"." => by_name(&tree.fd, c"..")? != tree.stat.mount,
            name => by_name(&dest.parent, name)? == tree.stat.mount,
        };
        require_effect("move_mount", is_there).context(|| "cannot mount")
    }

    /// Refuses to protect a file that the command could use by another name: a hard link, as an earlier run may have
    /// left in the same writable mount, whatever is mounted between it and the file now (link(2) does not lead from one
    /// mount to another, and asks for no permission in the directory of the first name). `cover` is what the file is
    /// covered with; without, it becomes read-only. Directories have no hard links.
    ///
    /// # Errors
    /// The file has another name, and its own is below a writable directory.
    pub fn require_one_name(&mut self, dest: &Dest, cover: Option<&Tree>) -> Result<()> {
        let file = dest.there.as_ref().filter(|_| cover.is_none_or(|tree| !tree.stat.is(libc::S_IFDIR)));
        let Some(there) = file else { return Ok(()) };
        let stat = statx(there, c"").context(|| "statx")?;
        // A writable bind of the same file hides nothing.
        let shows =
            cover.filter(|tree| tree.stat.id == stat.id).map(|tree| is_read_only(&tree.fd)).transpose();
        if stat.links < 2 || stat.is(libc::S_IFDIR) || shows.context(|| "fstatvfs")? == Some(false) {
            return Ok(());
        }
        let (top, writable) = (self.top()?, self.writable());
        let walk = Walk::along(&top, &dest.path, &|_| true, false, &|error| cannot_open(&dest.path, &error))?;
        let mut below_writable = false;
        for step in walk.steps() {
            // What is read-only and comes from elsewhere ends it.
            let ends = step.stat.mount_root && is_read_only(&*step.fd).context(|| "fstatvfs")?;
            below_writable = writable.contains(&step.stat.id) || below_writable && !ends;
        }
        // proc_sys_fs(5): an ordinary user can link only what is the user's, or what the user can write.
        let any = fs::read("/proc/sys/fs/protected_hardlinks").ok().is_none_or(|text| text != b"1\n");
        if !below_writable || !any && !may_be_written(&walk, &writable) {
            return Ok(());
        }
        let error =
            format!("{} has another name, a hard link, by which PROGRAM may use it", dest.path.display());
        let hint = "find it with find -samefile and remove it, or put a copy in the place of the file";
        Err(Error::failed(error).path(&dest.path).hint(hint))
    }

    /// Mounts `tree` on the old root and not on another directory of the host, where it could cover what the sandbox
    /// may write, which [`Host::writable`] has yet to find. It is detached with the old root; copies of its parts
    /// remain.
    ///
    /// A lookup on the host that starts at `/` does not enter this mount, but one that comes to `/` by `..` does:
    /// from here on paths of the host are resolved only by [`Walk`] and `/proc/self/fd/N`.
    ///
    /// # Errors
    /// Those of move_mount(2).
    pub fn mount_outside(&mut self, tree: &Tree) -> Result<()> {
        move_mount(&tree.fd, &self.old, c"").map_err(|error| namespace::refused("cannot mount", &error))?;
        self.stacked += 1;
        Ok(())
    }

    /// The directories that this sandbox may write, where an earlier run may have left a link.
    pub fn writable(&self) -> Directories {
        let mut all = self.host.writable().clone();
        if self.host.is_writable() {
            all.extend(&self.shows_writable);
        }
        all
    }

    /// Resolves a destination, and gets its status. Its last component must not be a symbolic link: a process that
    /// could write there before would choose where files are created or mounts attached (CVE-2026-87766).
    ///
    /// # Errors
    /// It cannot be reached, or is a symbolic link.
    fn resolve(&mut self, dest: &Path, parents: Option<Missing>) -> Result<(Dest, Option<Stat>)> {
        let mut dest = self.place_of(dest, parents)?;
        let fd = match openat2(&dest.parent, &dest.name, libc::O_PATH | libc::O_NOFOLLOW, ONE_STEP) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok((dest, None)),
            fd => Rc::new(fd.map_err(|error| cannot_open(&dest.path, &error))?),
        };
        let stat = statx(&fd, c"").context(|| "statx")?;
        if stat.is(libc::S_IFLNK) {
            let target = readlinkat(&fd, c"").map_err(|error| cannot_open(&dest.path, &error))?;
            return Err(link(&dest.path, &target));
        }
        dest.is_root = stat.mount_root && self.top.as_ref().is_some_and(|top| top.stat.mount == stat.mount);
        dest.there = Some(fd);
        Ok((dest, Some(stat)))
    }

    /// The place at which to create `dest`; missing parents get the mode `parents`. An existing file is not checked.
    ///
    /// # Errors
    /// It cannot be reached, or does not end in a name.
    pub fn place(&mut self, dest: &Path, parents: u32) -> Result<Dest> {
        let place = self.place_of(dest, Some(Missing { mode: libc::S_IFDIR | parents, asked_for: true }))?;
        let nameless = place.name.as_c_str() == c".";
        if nameless { Err(Error::failed(format!("{} is a directory", dest.display()))) } else { Ok(place) }
    }

    fn place_of(&mut self, dest: &Path, parents: Option<Missing>) -> Result<Dest> {
        // Remove `.` and repeated slashes.
        let dest: PathBuf = Path::new("/").join(dest).components().collect();
        let (above, name) = match (dest.parent(), dest.file_name()) {
            (Some(above), Some(name)) => (above, name),
            _ => (&*dest, OsStr::new(".")),
        };
        let (parent, above) = self.directory(above, parents)?;
        let path = if name == "." { above } else { above.join(name) };
        let name = c_path(name).context(|| "path")?;
        Ok(Dest { path, parent, name, there: None, is_root: false })
    }

    /// Opens the file at `dest`.
    ///
    /// # Errors
    /// It is missing, or a symbolic link.
    pub fn find(&mut self, dest: &Path) -> Result<(Dest, Rc<OwnedFd>, Stat)> {
        let absent = || cannot_open(&Path::new("/").join(dest), &io::Error::from_raw_os_error(libc::ENOENT));
        let missing = |error: Error| if error.errno == Some(libc::ENOENT) { absent() } else { error };
        let (found, stat) = self.resolve(dest, None).map_err(missing)?;
        let (fd, stat) = found.there.clone().zip(stat).ok_or_else(absent)?;
        Ok((found, fd, stat))
    }

    /// The mount point at `dest`. If missing, it is created, and its parents with the mode `parents`.
    ///
    /// # Errors
    /// The file there has the wrong type, or is missing and may not be created.
    pub fn mount_point(&mut self, dest: &Path, directory: bool, parents: u32) -> Result<Dest> {
        if directory && self.top.is_none() && names(dest).next().is_none() {
            // The first root needs no tmpfs below it.
            let (path, parent, name) = (PathBuf::from("/"), Rc::clone(&self.old), c".".to_owned());
            return Ok(Dest { path, parent, name, there: None, is_root: true });
        }
        let mode = if directory { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o444 };
        self.at(dest, Missing { mode, asked_for: false }, parents)
    }

    /// The file at `dest`. If missing, it is created, and its parents with the mode `parents`.
    ///
    /// # Errors
    /// As for a mount point.
    pub fn at(&mut self, dest: &Path, what: Missing, parents: u32) -> Result<Dest> {
        let parents = Missing { mode: libc::S_IFDIR | parents, ..what };
        let (mut dest, stat) = self.resolve(dest, Some(parents))?;
        let directory = what.mode & libc::S_IFMT == libc::S_IFDIR;
        match stat {
            Some(stat) if stat.is(libc::S_IFDIR) != directory => {
                let not = if directory { "not " } else { "" };
                let text = format!("{} is {not}a directory", dest.path.display());
                return Err(Error::failed(text).path(dest.path));
            }
            Some(_) => {}
            None => dest.there = Some(self.make(&dest.parent, &dest.path, what)?),
        }
        Ok(dest)
    }

    /// Records a file that was created, if it would stay on the host.
    pub fn remember(&mut self, dest: &Dest) {
        if let Ok(as_made) = statx(&dest.parent, &dest.name)
            && !self.own.contains(&as_made.device())
        {
            let (parent, name) = (Rc::clone(&dest.parent), dest.name.clone());
            self.made.push(Made { parent, name, as_made, empty: false });
        }
    }

    /// Whether something was created on the host that must be removed after a failure.
    pub fn would_leave_something(&self) -> bool {
        !self.made.is_empty()
    }

    /// Keeps what was created on this mount, which becomes read-only, removable after a failure: through a writable
    /// copy.
    ///
    /// # Errors
    /// errno.
    pub fn keep_removable(&mut self, mount: u64) -> io::Result<()> {
        // One copy per directory, however many files were created in it: each copy contains all mounts below.
        let mut copies = BTreeMap::new();
        for Made { parent, .. } in &mut self.made {
            let stat = statx(&**parent, c"")?;
            if stat.mount == mount {
                let copy = match copies.entry(stat.id) {
                    Entry::Occupied(copy) => copy.into_mut(),
                    // With everything below: mounts made by others cannot be left out (`__do_loopback()`, EINVAL).
                    Entry::Vacant(free) => free.insert(Rc::new(clone_tree(&**parent, c"", true)?)),
                };
                *parent = Rc::clone(copy);
            }
        }
        Ok(())
    }

    /// Opens the directory at `path`, which is created with its parents if missing. Also returns its path without
    /// links and `..`.
    fn directory(&mut self, path: &Path, missing: Option<Missing>) -> Result<(Rc<OwnedFd>, PathBuf)> {
        let mut found = self.walk(path);
        // `..` leads back only from what exists: /a/../a/b.
        if let (Err(_), Some(_), Some(above), true) = (&found, missing, path.parent(), returns(path)) {
            self.directory(above, missing)?;
            found = self.walk(path);
        }
        match (found, missing, path.parent(), path.file_name()) {
            (Err(error), Some(missing), Some(above), Some(name)) if error.errno == Some(libc::ENOENT) => {
                let (parent, above) = self.directory(above, Some(missing))?;
                let path = above.join(name);
                Ok((self.make(&parent, &path, missing)?, path))
            }
            (found, ..) => found,
        }
    }

    fn walk(&mut self, path: &Path) -> Result<(Rc<OwnedFd>, PathBuf)> {
        let top = self.top()?;
        let cannot = |error: io::Error| cannot_open(path, &error);
        match open_in_root(&top, path, libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS) {
            // A link on the path, or an error that may concern what is before a `..`.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) || returns(path) => {}
            opened => {
                let fd = Rc::new(opened.map_err(cannot)?);
                let mut plain = PathBuf::from("/");
                for name in names(path) {
                    if name == ".." { _ = plain.pop() } else { plain.push(name) }
                }
                return Ok((fd, plain));
            }
        }
        let writable = self.writable();
        let walk = Walk::along(&top, path, &|walk| may_be_written(walk, &writable), false, &cannot)?;
        match walk.end().stat.is(libc::S_IFDIR) {
            true => Ok((Rc::clone(&walk.end().fd), walk.path())),
            false => Err(cannot(io::Error::from_raw_os_error(libc::ENOTDIR))),
        }
    }

    /// Creates a file or directory and opens it. On a file system of the host it would stay permanently.
    fn make(&mut self, parent: &Rc<OwnedFd>, path: &Path, what: Missing) -> Result<Rc<OwnedFd>> {
        let own = self.own.contains(&statx(parent, c"").context(|| "statx")?.device());
        if !own && !what.asked_for && !self.host.plan.placeholders {
            return Err(not_permitted(path, parent));
        }
        let name = c_path(path.file_name().unwrap_or_default()).context(|| "path")?;
        let directory = what.mode & libc::S_IFMT == libc::S_IFDIR;
        let cannot = |error: io::Error| cannot_make(parent, path, &error);
        let is_ours = match make_node(parent, &name, what.mode) {
            Ok(()) => true,
            // Another process may have created it at the same time.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
            Err(error) => return Err(cannot(error)),
        };
        let flags = libc::O_PATH | if directory { libc::O_DIRECTORY } else { 0 };
        let opened = openat2(parent, &name, flags, ONE_STEP).map_err(cannot)?;
        if is_ours && !own {
            let as_made = statx(&opened, c"").map_err(cannot)?;
            self.made.push(Made { parent: Rc::clone(parent), name, as_made, empty: !directory });
        }
        Ok(Rc::new(opened))
    }

    /// Makes the new root the process's root, and detaches the old one.
    ///
    /// # Errors
    /// pivot_root(2) fails, or does not lead into the new root.
    pub fn enter(&mut self) -> Result<()> {
        let top = self.top()?;
        fchdir(&top).context(|| "cannot enter the new root")?;
        // The working directory becomes the root, and the old root is stacked on top of it (pivot_root(2)).
        let refused = |what, error| namespace::refused(what, &error).hint_for(libc::EINVAL, namespace::ROOT);
        pivot_root(c".", c".").map_err(|error| refused("pivot_root", error))?;
        // On top of the old root are the mounts that were stacked on it. MNT_DETACH also detaches all mounts below
        // them.
        for _ in 0..std::mem::take(&mut self.stacked) {
            umount2(c".", libc::MNT_DETACH).map_err(|error| refused("cannot detach the old root", error))?;
        }
        // If anything were left there, `..` would lead into it.
        let mount = |name: &CStr| statx(&CWD, name).map(|stat| stat.mount).context(|| "statx");
        let new = statx(&top, c"").context(|| "statx")?.mount;
        if mount(c"/")? != new || mount(c"/..")? != new {
            return Err(Error::failed("the old root is not detached after pivot_root"));
        }
        Ok(())
    }

    /// Leaves the new root, for an empty one.
    fn leave(&mut self) -> Result<()> {
        let root = openat2(&CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0);
        self.old = Rc::new(root.context(|| "cannot open /")?);
        self.stack(tmpfs(0o755, None)?)?;
        self.enter()
    }
}

/// After a failure, removes what was created on the host.
impl Drop for Root<'_> {
    fn drop(&mut self) {
        if self.made.is_empty() {
            return;
        }
        // A directory that is a mount point in this namespace cannot be removed from here (rmdir(2), EBUSY). If the
        // privileges are dropped already, at least everything that is not a mount point is removed.
        let _no_failure_left_to_tell = self.leave();
        for Made { parent, name, as_made, empty } in self.made.iter().rev() {
            let directory = as_made.is(libc::S_IFDIR);
            // A file that another process has put there, or written into, stays. If a mount is still on it, it is the
            // file that was created: removing a name also detaches the mounts on it.
            let above = statx(&**parent, c"").map_or(0, |stat| stat.mount);
            let same = statx(parent, name)
                .is_ok_and(|stat| stat.mount != above || stat.id == as_made.id && !(*empty && stat.size > 0));
            if same {
                let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
                let _no_failure_left_to_tell = unlinkat(parent, name, flags);
            }
        }
    }
}

/// openat2(2) with O_PATH and `RESOLVE_IN_ROOT`.
///
/// # Errors
/// errno.
pub fn open_in_root(top: &OwnedFd, path: &Path, flags: libc::c_int, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // EAGAIN: something was renamed or mounted anywhere in the system while a `..` was resolved, and the kernel
    // cannot tell whether the path is still inside (openat2(2)). A busy host needs a few attempts.
    let mut attempts = 0;
    loop {
        match openat2(top, &path, libc::O_PATH | flags, IN_ROOT | resolve) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < 1000 => attempts += 1,
            result => return result,
        }
    }
}

/// Creates a directory or an empty file, according to the type bits of `mode`.
///
/// # Errors
/// errno.
pub fn make_node(parent: &OwnedFd, name: &CStr, mode: u32) -> io::Result<()> {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => mkdirat(parent, name, mode & !libc::S_IFMT),
        _ => mknodat(parent, name, mode),
    }
}

/// The error for a destination that is a symbolic link.
fn link(dest: &Path, target: &Path) -> Error {
    Error::failed(format!("{} is a symbolic link to {}", dest.display(), target.display()))
        .path(dest)
        .hint("name its target instead, if that is what is meant")
}

fn not_permitted(dest: &Path, parent: &OwnedFd) -> Error {
    if is_read_only(parent).unwrap_or(false) {
        let error = io::Error::from_raw_os_error(libc::EROFS);
        return Error::system(format!("cannot make {}", dest.display()), &error)
            .path(dest)
            .hint("a mount point on a read-only mount must exist already");
    }
    let text = format!("{} does not exist, and would be made on the host's file system", dest.display());
    Error::failed(text)
        .path(dest)
        .hint("create it first, or use --placeholders; it remains when the sandbox ends")
}

fn cannot_open(dest: &Path, error: &io::Error) -> Error {
    Error::system(format!("cannot open {} in the new root", dest.display()), error).path(dest)
}

/// The error if nothing can be created at `path`: a symbolic link is there, or the system's error.
pub fn cannot_make(parent: &OwnedFd, path: &Path, error: &io::Error) -> Error {
    match c_path(path.file_name().unwrap_or_default()).and_then(|name| readlinkat(parent, &name)) {
        Ok(target) => link(path, &target),
        Err(_) => Error::system(format!("cannot make {}", path.display()), error).path(path),
    }
}
