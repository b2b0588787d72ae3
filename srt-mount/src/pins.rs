//! Keeps protected paths in place.
//!
//! A read-only bind or a mask below a writable bind is useless if the command can rename a directory above it and put
//! another one in its place, for the next process that looks up the path. rename(2) and rmdir(2) of a directory that
//! is a mount point in the caller's mount namespace fail with EBUSY; the kernel checks the directory itself, whatever
//! mount it was reached through (`is_local_mountpoint()` in fs/namei.c). So each directory between the root of a
//! writable mount and the mount point is made a mount point in a second copy of that mount, which no path lookup can
//! reach because another mount covers it. The tree that the command sees has no additional file system boundary.
//!
//! Symbolic links on the path need no pin: no lookup follows a link that the command can replace (path_walk.rs).

use crate::detached::{attach_out_of_sight, clone_tree, is_read_only, require_effect, tmpfs};
use crate::root::{Dest, Root, make_node, open_in_root};
use srt_common::sys::c_path;
use srt_common::sys::file::statx;
use srt_common::sys::mount::move_mount;
use srt_common::{Context, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The copies are hidden below a mount on one of these directories, which no process is expected to remove.
///
/// When a mount point is removed, the kernel detaches all mounts on it, even if that happens in another mount
/// namespace (`detach_mounts()` in fs/namespace.c): outside, or in another sandbox that may write the parent
/// directory.
const HIDING_PLACES: [&str; 10] = ["proc", "dev", "sys", "tmp", "run", "boot", "mnt", "media", "srv", "opt"];

/// The directories to pin.
#[derive(Default)]
pub struct Pins {
    /// Whether the host's files are writable somewhere in the tree.
    needed: bool,
    /// The parents of mount points that have been checked.
    asked: BTreeSet<PathBuf>,
    /// The directories to pin, by the mount that they are in.
    mounts: BTreeMap<u64, Pinned>,
}

/// The directories to pin in one mount.
struct Pinned {
    /// Its mount point in the new root.
    at: PathBuf,
    /// The mount's root.
    root: Rc<OwnedFd>,
    /// Their paths, relative to that root.
    below: BTreeSet<PathBuf>,
}

impl Pins {
    /// Records that the command can rename directories of the host from now on. Those of the mount just made can be
    /// at paths that were checked when something else was there, so all paths are checked again.
    pub fn host_is_writable(&mut self) {
        self.needed = true;
        self.asked.clear();
    }

    /// Records the directories above a mount point that are in writable mounts of the host.
    ///
    /// # Errors
    /// A directory cannot be examined.
    pub fn protect(&mut self, root: &mut Root, dest: &Dest) -> Result<()> {
        let parent = dest.path.parent().unwrap_or(&dest.path);
        if !self.needed || dest.is_root || !self.asked.insert(parent.to_owned()) {
            return Ok(());
        }
        // The path and the root of the mount that the walk is in; `None` if nothing in it needs a pin.
        let mut mount: Option<(PathBuf, Rc<OwnedFd>)> = None;
        let mut ways: Vec<&Path> = parent.ancestors().collect();
        while let Some(path) = ways.pop() {
            let cannot = || format!("cannot look at {}", path.display());
            let fd = directory(&*root.top()?, path, 0).context(cannot)?;
            let stat = statx(&fd, c"").context(cannot)?;
            if stat.mount_root || path == Path::new("/") {
                let pinnable = !root.own.contains(&stat.device()) && !is_read_only(&fd).context(cannot)?;
                mount = pinnable.then(|| (path.to_owned(), Rc::new(fd)));
            } else if let Some((top, fd)) = &mount {
                let (at, root) = (top.clone(), Rc::clone(fd));
                let pinned = self.mounts.entry(stat.mount);
                let pinned = pinned.or_insert(Pinned { at, root, below: BTreeSet::new() });
                pinned.below.insert(path.strip_prefix(top).unwrap_or(path).to_owned());
            }
        }
        Ok(())
    }

    /// Sets the pins, after the tree is complete.
    ///
    /// # Errors
    /// A directory cannot be pinned.
    pub fn set(&self, root: &mut Root) -> Result<()> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        let top = root.top()?;
        match self.hiding_place(root, &top)? {
            Some(cover) => hide(&cover, self.mounts.values()),
            // If the mount that covers the pins is lost, the paths that they protect are lost with it.
            None => self.mounts.values().try_for_each(|pinned| {
                let cover = directory(&top, &pinned.at, 0);
                hide(&cover.context(|| "cannot open a mount to hide pins below it")?, [pinned])
            }),
        }
    }

    /// Finds a mount at one of the usual places whose file system was created here, so that its root is not removed.
    /// `None`: each copy is hidden below the mount that it copies. If one of these is `/`, all are hidden below a
    /// mount or directory of the host's at one of the usual places.
    fn hiding_place(&self, root: &Root, top: &OwnedFd) -> Result<Option<OwnedFd>> {
        let (mut mounted, mut there) = (None, None);
        for name in HIDING_PLACES {
            let Ok(fd) = directory(top, Path::new(name), 0) else { continue };
            let stat = statx(&fd, c"").context(|| "statx")?;
            match (stat.mount_root, root.own.contains(&stat.device())) {
                (true, true) => return Ok(Some(fd)),
                (true, false) => mounted = mounted.or(Some(fd)),
                (false, _) => there = there.or(Some(fd)),
            }
        }
        if self.mounts.values().all(|pinned| pinned.at != Path::new("/")) {
            return Ok(None);
        }
        mounted.or(there).map(Some).ok_or_else(|| {
            Error::failed("no directory below which the directories above a protected path can be pinned")
                .hint("add a mount of a directory: --proc /proc, --dev /dev, --tmpfs /tmp")
        })
    }
}

/// Sets the pins of these mounts in copies of them, hidden below `cover`, which is visible in its place again
/// afterwards.
fn hide<'a>(cover: &OwnedFd, mounts: impl IntoIterator<Item = &'a Pinned>) -> Result<()> {
    let mounts: Vec<_> = mounts.into_iter().collect();
    // Make all copies first: none must contain another.
    let visible = clone_tree(cover, c"", true).context(|| "cannot copy a mount to cover the pins")?;
    let copies = mounts.iter().map(|pinned| copy(&pinned.root)).collect::<Result<Vec<_>>>()?;
    // Attach each to a directory of our own: other processes may be able to remove the root of a copy.
    let hidden = tmpfs(0o755, None)?.fd;
    attach_out_of_sight(&hidden, cover).context(|| "cannot hide a mount")?;
    let own = |number: usize| {
        let name = number.to_string();
        make_node(&hidden, &c_path(&name)?, libc::S_IFDIR)?;
        directory(&hidden, Path::new(&name), 0)
    };
    let pin = own(0).context(|| "cannot make a directory for pins")?;
    for (number, (copy, pinned)) in (1..).zip(copies.iter().zip(mounts)) {
        let place = own(number);
        place.and_then(|place| attach_out_of_sight(copy, &place)).context(|| "cannot hide a mount")?;
        // The deepest first: nothing below a pin can be reached any more.
        for path in pinned.below.iter().rev() {
            set_pin(copy, path, &pin)?;
        }
    }
    attach_out_of_sight(&visible, &hidden).context(|| "cannot cover a mount")
}

/// Makes a second copy of a mount: of the mount alone, or with all mounts below it if the kernel demands that (mounts
/// that came from a more privileged namespace can only be copied together: EINVAL, `has_locked_children()` in
/// fs/namespace.c).
fn copy(root: &OwnedFd) -> Result<OwnedFd> {
    match clone_tree(root, c"", false) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => clone_tree(root, c"", true),
        copy => copy,
    }
    .context(|| "cannot copy a mount to pin directories in it")
}

/// Makes the directory at `path` in `copy` a mount point. The content of the mount does not matter: all pins are
/// mounts of the same empty directory. (Before Linux 6.15 only mounts attached in the caller's namespace can be
/// copied.)
fn set_pin(copy: &OwnedFd, path: &Path, pin: &OwnedFd) -> Result<()> {
    let cannot = || format!("cannot pin {}", path.display());
    let directory = match directory(copy, path, libc::RESOLVE_NO_XDEV) {
        // A later operation has mounted something on this directory, or above it.
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Ok(()),
        directory => directory.context(cannot)?,
    };
    let tree = clone_tree(pin, c"", false).context(cannot)?;
    move_mount(&tree, &directory, c"").context(cannot)?;
    let seen = c_path(path).and_then(|path| statx(copy, &path)).context(cannot)?.mount_root;
    require_effect("move_mount", seen).context(cannot)
}

/// Opens a directory below `root`. The links on the path have been resolved before.
fn directory(root: &OwnedFd, path: &Path, resolve: u64) -> io::Result<OwnedFd> {
    open_in_root(root, path, libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS | resolve)
}
