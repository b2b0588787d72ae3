//! The operations, one function each.

use crate::detached::{INERT, PLAIN, Tree, new_filesystem, set_attributes, tmpfs};
use crate::options::{Access, Action, Inside, Op, Upper};
use crate::overlay;
use crate::pins::Pins;
use crate::source::{Host, Opened, Writes};
use crate::tree::{self, Dest, Missing, Root};
use crate::{dev, proc, sysfs};
use srt_common::sys::c_path;
use srt_common::sys::file::{
    CWD, fchmod, fchmodat, mkdirat, mknodat, openat, openat2, readlinkat, symlinkat,
};
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY, move_mount};
use srt_common::{Context, Error, Result};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The tree under construction, and what belongs to it.
#[derive(Debug)]
pub struct Build<'a> {
    /// The tree.
    pub root: Root<'a>,
    host: &'a Host<'a>,
    /// What must not be renamed in it.
    pins: Pins,
    /// A tmpfs that is never part of the new root: it holds what is bound from it.
    scratch: Option<Tree>,
    /// How many entries of the scratch file system are taken.
    taken: usize,
    /// The mounts of masks.
    masks: BTreeSet<u64>,
    /// Whether `--proc` shows no keys.
    hides_keys: bool,
}

impl<'a> Build<'a> {
    /// Starts with an empty tree, for these operations.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(host: &'a Host<'a>, ops: &[Op], sources: &[Opened], placeholders: bool) -> Result<Self> {
        let mut root = Root::new(host, placeholders);
        let hides_keys = ops.iter().any(|op| op.action == Action::Inside(Inside::Proc)) && proc::hides_keys();
        let uses_scratch = |op: &Op| match &op.action {
            Action::BindData { .. } | Action::Inside(Inside::Mask { .. }) => true,
            Action::Overlay { upper, .. } => *upper == Upper::Temporary,
            _ => false,
        };
        let has_queues =
            |source: &Opened| matches!(source, Opened::Mount(tree, _) if !tree.queues.is_empty());
        let needed = hides_keys || ops.iter().any(uses_scratch) || sources.iter().any(has_queues);
        let scratch = needed.then(|| tmpfs(0o755, None)).transpose()?;
        scratch.iter().try_for_each(|scratch| root.mount_outside(scratch))?;
        let (pins, masks) = (Pins::default(), BTreeSet::new());
        Ok(Self { root, host, pins, scratch, taken: 0, masks, hides_keys })
    }

    /// Does one operation.
    ///
    /// # Errors
    /// What failed, with the option in front.
    pub fn apply(&mut self, op: &Op, source: Opened) -> Result<()> {
        self.dispatch(&op.dest, source).map_err(|error| error.within(op))
    }

    /// Pins what must not be moved away, once the tree stands.
    ///
    /// # Errors
    /// When a directory cannot be pinned.
    pub fn set_pins(&mut self) -> Result<()> {
        self.pins.set(&mut self.root)
    }

    fn dispatch(&mut self, dest: &Path, source: Opened) -> Result<()> {
        match source {
            Opened::Absent => Ok(()),
            Opened::Mount(tree, writable) => self.bind(tree, dest, writable),
            Opened::Data(data, mode, access) => {
                let tree = self.data_file(data, mode, access)?;
                self.mount(&tree, dest, parents(mode))
            }
            Opened::File(data, mode) => self.file(dest, data, mode),
            Opened::Overlay(layers, writes) => self.overlay(dest, &layers, writes),
            Opened::Dev(nodes) => {
                let tree = self.own(tmpfs(0o755, None)?, dest, 0o755)?;
                dev::fill(&tree.fd, nodes)
            }
            Opened::Sys(tree, cgroups) => sysfs::mount_cgroups(&cgroups, &self.own(tree, dest, 0o755)?.fd),
            Opened::Inside(inside) => self.inside(dest, inside),
        }
    }

    fn inside(&mut self, dest: &Path, what: &Inside) -> Result<()> {
        match what {
            Inside::Tmpfs { mode, size } => self.own(tmpfs(*mode, *size)?, dest, parents(*mode)).map(drop),
            Inside::Proc => {
                let tree = self.own(proc::new(&[])?, dest, 0o755)?;
                proc::protect(&tree.fd, &self.host.root)?;
                let hidden = if self.hides_keys { &proc::KEYS[..] } else { &[] };
                for name in hidden {
                    match proc::attach(&self.empty(false)?, &tree.fd, name) {
                        // A kernel without keys.
                        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                        done => done.context(|| "cannot hide the keys of the caller")?,
                    }
                }
                Ok(())
            }
            Inside::ProcPids => self.own(proc::new(&[(c"subset", Some(c"pid"))])?, dest, 0o755).map(drop),
            Inside::Mqueue => {
                let tree =
                    new_filesystem("an mqueue file system", c"mqueue", &[], PLAIN | MOUNT_ATTR_NOEXEC)?;
                self.own(tree, dest, 0o755).map(drop)
            }
            Inside::Mask { optional } => self.mask(dest, *optional),
            Inside::Dir { mode } => self.directory(dest, *mode),
            Inside::Symlink { target } => self.symlink(target, dest),
            Inside::Chmod { mode } => {
                let (_, fd, _) = self.root.find(dest)?;
                // fchmod(2) does not take an O_PATH descriptor; its magic link leads to the very same file.
                let link = c_path(format!("/proc/self/fd/{}", fd.as_raw_fd())).context(|| "path")?;
                fchmodat(&CWD, &link, *mode).context(|| "chmod")
            }
            Inside::RemountReadOnly => {
                let (dest, fd, _) = self.root.find(dest)?;
                // nodev too, as bubblewrap has it: to open a device for writing is to write.
                set_attributes(&fd, PLAIN | MOUNT_ATTR_RDONLY, false).map_err(|error| {
                    match error.raw_os_error() {
                        Some(libc::EINVAL) => {
                            Error::failed(format!("{} is not a mount point", dest.path.display()))
                        }
                        _ => Error::system("cannot make it read-only", &error),
                    }
                })?;
                // It may be a mount that came along with a bind, above which nothing is pinned yet.
                self.pins.protect(&mut self.root, &dest)
            }
        }
    }

    fn mount(&mut self, tree: &Tree, dest: &Path, parents: u32) -> Result<()> {
        let dest = self.root.mount_point(dest, tree.directory, parents)?;
        self.mount_at(tree, &dest)
    }

    /// Mounts a tree, and makes sure that it stays where it is.
    fn mount_at(&mut self, tree: &Tree, dest: &Dest) -> Result<()> {
        self.pins.protect(&mut self.root, dest)?;
        self.root.mount(tree, dest)?;
        self.pins.mounted(tree, dest);
        Ok(())
    }

    /// Mounts a new file system.
    fn own(&mut self, tree: Tree, dest: &Path, parents: u32) -> Result<Tree> {
        self.root.owns(&tree);
        self.mount(&tree, dest, parents)?;
        Ok(tree)
    }

    fn bind(&mut self, tree: Tree, dest: &Path, writable: bool) -> Result<()> {
        self.mount(&tree, dest, 0o755)?;
        // Opening a queue is enough to take its messages, on a read-only mount too.
        for queue in &tree.queues {
            let onto = openat2(&tree.fd, queue, libc::O_PATH | libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS);
            let onto = onto.context(|| "cannot open a mount of message queues")?;
            move_mount(&self.empty(true)?.fd, &onto, c"").context(|| "cannot hide message queues")?;
        }
        if writable {
            self.pins.host_is_writable();
        }
        Ok(())
    }

    fn mask(&mut self, dest: &Path, optional: bool) -> Result<()> {
        let (found, directory) = match self.root.find(dest) {
            Ok((found, _, stat)) => (found, stat.is(libc::S_IFDIR)),
            Err(error) => match error.errno {
                // Nobody inside can reach it.
                Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES) if optional => return Ok(()),
                Some(libc::ENOENT) if self.is_masked(dest)? => return Ok(()),
                Some(libc::ENOENT) if self.root.placeholders => {
                    // A slash at the end says what is to be made.
                    let directory = dest.as_os_str().as_bytes().ends_with(b"/");
                    (self.root.mount_point(dest, directory, 0o755)?, directory)
                }
                Some(libc::ENOENT) => {
                    return Err(error.hint(
                        "--mask-try passes over what is not there; --placeholders makes it on the host, to stay there",
                    ));
                }
                _ => return Err(error),
            },
        };
        let tree = self.empty(directory)?;
        self.masks.insert(tree.mount);
        self.mount_at(&tree, &found)
    }

    /// Whether `dest`, which does not exist, would lie below a mask.
    fn is_masked(&mut self, dest: &Path) -> Result<bool> {
        for above in dest.ancestors().skip(1) {
            match self.root.find(above) {
                Ok((_, _, stat)) => return Ok(self.masks.contains(&stat.mount)),
                Err(error) if error.errno == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A mount of an empty directory or file, to hide something.
    fn empty(&mut self, directory: bool) -> Result<Tree> {
        let (scratch, name) = self.scratch()?;
        match directory {
            true => mkdirat(scratch, &name, 0o555).context(|| "cannot make an empty directory")?,
            false => {
                mknodat(scratch, &name, libc::S_IFREG | 0o444).context(|| "cannot make an empty file")?
            }
        }
        Tree::copy(scratch, &name, INERT, false).context(|| "cannot copy a mount of an empty file")
    }

    fn data_file(&mut self, data: OwnedFd, mode: u32, access: Access) -> Result<Tree> {
        let (scratch, name) = self.scratch()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = openat(scratch, &name, flags, 0o600).context(|| "cannot make a file")?;
        fchmod(&file, mode).context(|| "fchmod")?;
        copy(data, file)?;
        let read_only = if access.writes() { 0 } else { MOUNT_ATTR_RDONLY };
        Tree::copy(scratch, &name, PLAIN | read_only, false).context(|| "cannot copy the mount of a new file")
    }

    fn overlay(&mut self, dest: &Path, layers: &[OwnedFd], writes: Writes) -> Result<()> {
        let upper = match &writes {
            Writes::Nowhere => None,
            Writes::Scratch => Some(&[self.scratch_directory()?, self.scratch_directory()?]),
            Writes::Host(directories) => Some(directories),
        };
        let tree = overlay::new(layers, upper)?;
        self.root.shows_the_host(&tree)?;
        if let Writes::Host(_) = writes {
            return self.bind(tree, dest, true);
        }
        self.own(tree, dest, 0o755).map(drop)
    }

    fn file(&mut self, dest: &Path, data: OwnedFd, mode: u32) -> Result<()> {
        let dest = self.root.place(dest, Missing::Make(parents(mode)))?;
        // O_NONBLOCK: a FIFO that someone has put there would block for ever.
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match openat(&dest.parent, &dest.name, flags | libc::O_EXCL, mode) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if let Ok(target) = readlinkat(&dest.parent, &dest.name) {
                    return Err(tree::link(&dest.path, &target));
                }
                openat(&dest.parent, &dest.name, flags | libc::O_TRUNC, mode)
            }
            new => new.inspect(|_| self.root.remember(&dest)),
        };
        copy(data, file.map_err(|error| tree::cannot_make(&dest.path, &error))?)
    }

    fn directory(&mut self, dest: &Path, mode: u32) -> Result<()> {
        let dest = self.root.resolve(dest, Missing::Make(parents(mode)))?;
        match &dest.there {
            Some((_, stat)) if stat.is(libc::S_IFDIR) => Ok(()),
            Some(_) => Err(Error::failed(format!("{} is not a directory", dest.path.display()))),
            None => self.root.make(&dest.parent, &dest.path, libc::S_IFDIR | mode, true).map(drop),
        }
    }

    fn symlink(&mut self, target: &Path, dest: &Path) -> Result<()> {
        let dest = self.root.place(dest, Missing::Make(0o755))?;
        match symlinkat(&c_path(target).context(|| "path")?, &dest.parent, &dest.name) {
            Ok(()) => self.root.remember(&dest),
            Err(error) => match readlinkat(&dest.parent, &dest.name) {
                Ok(existing) if existing == target => {}
                Ok(existing) => {
                    let (link, existing) = (dest.path.display(), existing.display());
                    return Err(Error::failed(format!("{link} is a symbolic link to {existing} already")));
                }
                Err(_) => return Err(tree::cannot_make(&dest.path, &error)),
            },
        }
        Ok(())
    }

    /// The scratch file system, and a name that is free in it.
    fn scratch(&mut self) -> Result<(&OwnedFd, CString)> {
        self.taken += 1;
        let name = c_path(self.taken.to_string()).context(|| "path")?;
        let scratch = self.scratch.as_ref().ok_or_else(|| Error::failed("no scratch file system"))?;
        Ok((&scratch.fd, name))
    }

    fn scratch_directory(&mut self) -> Result<OwnedFd> {
        let (scratch, name) = self.scratch()?;
        mkdirat(scratch, &name, 0o755).context(|| "cannot make a directory")?;
        openat2(scratch, &name, libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "openat2")
    }
}

/// The mode of missing parents, as bubblewrap has it: whom DEST keeps out, they keep out too.
fn parents(mode: u32) -> u32 {
    let group = if mode & 0o070 == 0 { 0o050 } else { 0 };
    let others = if mode & 0o007 == 0 { 0o005 } else { 0 };
    0o755 & !(group | others)
}

fn copy(from: OwnedFd, to: OwnedFd) -> Result<()> {
    std::io::copy(&mut File::from(from), &mut File::from(to)).map(drop).context(|| "cannot copy the content")
}

#[cfg(test)]
mod tests {
    use super::parents;

    #[test]
    fn parents_keep_out_whom_the_destination_keeps_out() {
        let modes = [0o755, 0o750, 0o700, 0o600, 0o640, 0o666, 0, 0o1777, 0o705].map(parents);
        assert_eq!(modes, [0o755, 0o750, 0o700, 0o700, 0o750, 0o755, 0o700, 0o755, 0o705]);
    }
}
