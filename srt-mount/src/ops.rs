//! The operations, one function each.

use crate::options::{Access, Action, Op, Upper};
use crate::overlay;
use crate::pins::Pins;
use crate::source::{Prepared, Tree};
use crate::sys::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, c_path};
use crate::tree::{self, Kind, Place, Root};
use crate::{dev, proc};
use srt_common::{Context, Error, Result};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// The tree under construction, and what belongs to it.
#[derive(Debug)]
pub struct Build {
    /// The tree.
    pub root: Root,
    /// What must not be renamed in it.
    pins: Pins,
    /// A tmpfs that is never part of the new root: it holds what is bound from it.
    scratch: Option<OwnedFd>,
    /// How many entries of the scratch file system are taken.
    taken: usize,
}

impl Build {
    /// Starts with an empty tree, for these operations.
    ///
    /// # Errors
    /// errno.
    pub fn new(ops: &[Op], placeholders: bool) -> Result<Self> {
        let mut root = Root::new(placeholders)?;
        let needs_scratch = |op: &Op| {
            let temporary = |upper: &Upper| *upper == Upper::Temporary;
            matches!(&op.action, Action::BindData { .. } | Action::Mask)
                || matches!(&op.action, Action::Overlay { upper, .. } if temporary(upper))
        };
        let scratch = ops.iter().any(needs_scratch).then(|| tree::tmpfs(0o755, None)).transpose()?;
        scratch.iter().try_for_each(|scratch| root.mount_outside(scratch))?;
        Ok(Self { root, pins: Pins::default(), scratch, taken: 0 })
    }

    /// Does one operation.
    ///
    /// # Errors
    /// What failed, with the option in front.
    pub fn apply(&mut self, op: &Op, prepared: Prepared) -> Result<()> {
        self.dispatch(op, prepared).map_err(|error| error.within(op))
    }

    /// Pins what must not be moved away, once the tree stands.
    ///
    /// # Errors
    /// When a directory cannot be pinned.
    pub fn set_pins(&mut self) -> Result<()> {
        self.pins.set(&mut self.root)
    }

    fn dispatch(&mut self, op: &Op, prepared: Prepared) -> Result<()> {
        let dest = &op.dest;
        match (&op.action, prepared) {
            (_, Prepared::Absent) => Ok(()),
            (Action::Bind { access, .. }, Prepared::Tree(tree)) => {
                self.mount(tree, dest, 0o755)?;
                if *access != Access::ReadOnly {
                    self.pins.host_is_writable();
                }
                Ok(())
            }
            (Action::BindData { mode, access, .. }, Prepared::Data(data)) => {
                let tree = self.data_file(data, *mode, *access)?;
                self.mount(tree, dest, parents(*mode))
            }
            (Action::Overlay { upper, .. }, Prepared::Layers(layers, host)) => {
                self.overlay(dest, upper, &layers, host)
            }
            (Action::Dev, Prepared::Nodes(nodes)) => {
                let tree = self.own(tree::tmpfs(0o755, None)?, dest, 0o755)?;
                dev::fill(&tree, nodes)
            }
            (Action::Tmpfs { mode, size }, _) => {
                self.own(tree::tmpfs(*mode, *size)?, dest, parents(*mode)).map(drop)
            }
            (Action::Proc, _) => {
                let tree = self.own(proc::new()?, dest, 0o755)?;
                proc::protect(&tree)
            }
            (Action::Mqueue, _) => {
                let tree = sys::new_filesystem(c"mqueue", &[], NO_SUID | NO_DEV | NO_EXEC);
                self.own(tree.context(|| "cannot make an mqueue file system")?, dest, 0o755).map(drop)
            }
            (Action::Mask, _) => self.mask(dest),
            (Action::Dir { mode }, _) => self.root.make_directory(dest, *mode, parents(*mode)),
            (Action::File { mode, .. }, Prepared::Data(data)) => self.file(dest, data, *mode),
            (Action::Symlink { target }, _) => self.symlink(target, dest),
            (Action::Chmod { mode }, _) => {
                let (_, fd, _) = self.root.find(dest)?;
                // fchmod(2) does not take an O_PATH descriptor; its magic link leads to the very same file.
                let link = c_path(format!("/proc/self/fd/{}", fd.as_raw_fd())).context(|| "path")?;
                sys::chmod(&link, *mode).context(|| "chmod")
            }
            (Action::RemountReadOnly, _) => {
                let (place, fd, _) = self.root.find(dest)?;
                let fail = |error: std::io::Error| match error.raw_os_error() {
                    Some(libc::EINVAL) => Error::failed(format!("{} is not a mount point", dest.display())),
                    _ => Error::system("cannot make it read-only", &error),
                };
                // nodev too, as bubblewrap has it: to open a device for writing is to write.
                sys::set_attributes(&*fd, READ_ONLY | NO_SUID | NO_DEV, false).map_err(fail)?;
                // It may be a mount that came along with a bind, above which nothing is pinned yet.
                self.pins.protect(&mut self.root, dest, &place)
            }
            _ => Err(Error::failed("nothing was prepared for this operation")),
        }
    }

    fn mount(&mut self, tree: Tree, dest: &Path, parents: u32) -> Result<()> {
        let kind = if tree.directory { Kind::Directory } else { Kind::File };
        let place = self.root.mount_point(dest, kind, parents)?;
        self.mount_at(tree, dest, place)
    }

    /// Mounts a tree, and makes sure that it stays where it is.
    fn mount_at(&mut self, tree: Tree, dest: &Path, place: Place) -> Result<()> {
        self.pins.protect(&mut self.root, dest, &place)?;
        self.root.mount(&tree.fd, &place)?;
        self.pins.mounted(tree, &place);
        Ok(())
    }

    /// Mounts a new file system, whose root is a directory.
    fn own(&mut self, fd: OwnedFd, dest: &Path, parents: u32) -> Result<Rc<OwnedFd>> {
        self.root.owns(&fd)?;
        let fd = Rc::new(fd);
        self.mount(Tree { fd: Rc::clone(&fd), directory: true }, dest, parents)?;
        Ok(fd)
    }

    fn mask(&mut self, dest: &Path) -> Result<()> {
        let (place, _, hidden) = self.root.find(dest)?;
        let directory = hidden.is(libc::S_IFDIR);
        let (scratch, name) = self.scratch()?;
        if directory {
            sys::mkdir(scratch, &name, 0o555).context(|| "cannot make an empty directory")?;
        } else {
            sys::mkfile(scratch, &name, 0o444).context(|| "cannot make an empty file")?;
        }
        let fd = sys::clone_tree(scratch.as_raw_fd(), &name, false).context(|| "open_tree")?;
        sys::set_attributes(&fd, NO_SUID | NO_DEV | NO_EXEC | READ_ONLY, false)
            .context(|| "mount_setattr")?;
        self.mount_at(Tree { fd: Rc::new(fd), directory }, dest, place)
    }

    fn data_file(&mut self, data: OwnedFd, mode: u32, access: Access) -> Result<Tree> {
        let (scratch, name) = self.scratch()?;
        let file = sys::create(scratch, &name, libc::O_WRONLY | libc::O_EXCL, 0o600)
            .context(|| "cannot make a file")?;
        sys::fchmod(&file, mode).context(|| "fchmod")?;
        copy(data, file)?;
        let fd = sys::clone_tree(scratch.as_raw_fd(), &name, false).context(|| "open_tree")?;
        let read_only = if access == Access::ReadOnly { READ_ONLY } else { 0 };
        sys::set_attributes(&fd, NO_SUID | NO_DEV | read_only, false).context(|| "mount_setattr")?;
        Ok(Tree { fd: Rc::new(fd), directory: false })
    }

    fn overlay(
        &mut self,
        dest: &Path,
        upper: &Upper,
        layers: &[OwnedFd],
        host: Option<[OwnedFd; 2]>,
    ) -> Result<()> {
        let directories = match upper {
            Upper::Temporary => Some([self.scratch_directory()?, self.scratch_directory()?]),
            _ => host,
        };
        let fd = overlay::new(layers, directories.as_ref())?;
        if matches!(upper, Upper::Host { .. }) {
            self.mount(Tree { fd: Rc::new(fd), directory: true }, dest, 0o755)?;
            self.pins.host_is_writable();
            return Ok(());
        }
        self.own(fd, dest, 0o755).map(drop)
    }

    fn file(&mut self, dest: &Path, data: OwnedFd, mode: u32) -> Result<()> {
        let (parent, name) = self.root.parent(dest, parents(mode))?;
        // O_NONBLOCK: a FIFO that someone has put there would block for ever.
        let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let new = sys::create(&parent, &name, flags | libc::O_EXCL, mode);
        let file = match new {
            Ok(file) => {
                self.root.remember(&parent, &name, Kind::File)?;
                file
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if let Ok(target) = sys::readlink(parent.as_raw_fd(), &name) {
                    return Err(tree::link(dest, &target));
                }
                sys::create(&parent, &name, flags | libc::O_TRUNC, mode)
                    .context(|| tree::cannot_make(dest))?
            }
            Err(error) => return Err(Error::system(tree::cannot_make(dest), &error)),
        };
        copy(data, file)
    }

    fn symlink(&mut self, target: &Path, dest: &Path) -> Result<()> {
        let (parent, name) = self.root.parent(dest, 0o755)?;
        match sys::symlink(&c_path(target).context(|| "path")?, &parent, &name) {
            Ok(()) => self.root.remember(&parent, &name, Kind::File),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                match sys::readlink(parent.as_raw_fd(), &name) {
                    Ok(existing) if existing == target => Ok(()),
                    Ok(existing) => Err(Error::failed(format!(
                        "{} is a symbolic link to {} already",
                        dest.display(),
                        existing.display()
                    ))),
                    Err(_) => Err(Error::system(tree::cannot_make(dest), &error)),
                }
            }
            Err(error) => Err(Error::system(tree::cannot_make(dest), &error)),
        }
    }

    /// The scratch file system, and a name that is free in it.
    fn scratch(&mut self) -> Result<(&OwnedFd, std::ffi::CString)> {
        self.taken += 1;
        let name = c_path(self.taken.to_string()).context(|| "path")?;
        Ok((self.scratch.as_ref().ok_or_else(|| Error::failed("no scratch file system"))?, name))
    }

    fn scratch_directory(&mut self) -> Result<OwnedFd> {
        let (scratch, name) = self.scratch()?;
        sys::mkdir(scratch, &name, 0o755).context(|| "cannot make a directory")?;
        sys::openat2(scratch.as_raw_fd(), &name, libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "openat2")
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
