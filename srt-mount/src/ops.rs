//! The operations, in two halves: the first opens everything that comes from the host, the second builds the new
//! tree.

use crate::detached::{INERT, PLAIN, Tree, set_attributes, tmpfs};
use crate::options::{Access, Action, Op, Source, Upper};
use crate::pins::Pins;
use crate::root::{Dest, Missing, Root, cannot_make, make_node};
use crate::source::{Host, content};
use crate::sysfs::{self, Cgroups};
use crate::{dev, overlay, proc};
use srt_common::filesystem::NO_OPTIONS;
use srt_common::path_walk::open_path;
use srt_common::sys::c_path;
use srt_common::sys::file::{Stat, fchmod, openat, readlinkat, statx, symlinkat};
use srt_common::sys::mount::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY, move_mount};
use srt_common::sys::process::geteuid;
use srt_common::{Context, Error, Result};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

/// The second half of an operation, which holds what the first half has opened. It is called with the destination.
pub type Half<'a> = Box<dyn FnOnce(&mut Build, &Path) -> Result<()> + 'a>;

/// What comes from the host: the cgroup file systems of each `--sys`, and the result of the first half of every
/// operation.
pub type Opened<'a> = (Vec<Cgroups>, Vec<Half<'a>>);

/// Runs the first half of every operation, while paths still resolve as they do for the caller.
///
/// # Errors
/// The first source that cannot be opened, with its option.
pub fn open_all<'a>(host: &Host<'a>) -> Result<Opened<'a>> {
    // mountinfo lists mounts by age (before Linux 6.8, in the order in which they are attached), and a JVM uses the
    // first cgroup file system listed. This must not be one of the host's, in a copy that is covered.
    let ops = &host.plan.ops;
    let views = ops.iter().filter(|op| op.action == Action::Sys);
    let cgroups =
        views.map(|op| sysfs::cgroups().map_err(|error| error.within(op))).collect::<Result<_>>()?;
    let halves = ops.iter().map(|op| open(host, op).map_err(|error| error.within(op)));
    Ok((cgroups, halves.collect::<Result<_>>()?))
}

fn open<'a>(host: &Host, op: &'a Op) -> Result<Half<'a>> {
    let half: Half = match &op.action {
        Action::Bind { source, access, optional } => {
            let tree = match source {
                Source::Fd(fd) => host.of_descriptor(*fd, *access)?,
                Source::Path(path) => match host.find(path) {
                    Err(error) if *optional && error.errno == Some(libc::ENOENT) => {
                        return Ok(Box::new(|_, _| Ok(())));
                    }
                    found => host.tree(&found?, path, *access)?,
                },
            };
            Box::new(move |build, dest| build.bind(&tree, dest, access.writes()))
        }
        Action::BindData { fd, mode, access } => {
            let data = content(*fd)?;
            Box::new(move |build, dest| {
                let tree = build.data_file(data, *mode, *access)?;
                build.mount(&tree, dest, parents(*mode))
            })
        }
        Action::Overlay { layers, upper } => {
            let layers: Vec<_> = layers.iter().map(|path| host.directory(path)).collect::<Result<_>>()?;
            let on_host = match upper {
                Upper::Host { upper, work } => Some([host.directory(upper)?, host.directory(work)?]),
                _ => None,
            };
            Box::new(move |build, dest| {
                let scratch = match upper {
                    Upper::Temporary => Some([build.scratch_directory()?, build.scratch_directory()?]),
                    _ => None,
                };
                let tree = overlay::new(&layers, on_host.as_ref().or(scratch.as_ref()))?;
                build.root.host.go_back()?;
                build.root.shows_writable.insert(tree.stat.id);
                match on_host {
                    Some(_) => build.bind(&tree, dest, true),
                    None => build.own(&tree, dest, 0o755),
                }
            })
        }
        Action::File { fd, mode } => {
            let data = content(*fd)?;
            Box::new(move |build, dest| build.file(dest, data, *mode))
        }
        Action::Dev => {
            let nodes = dev::open_nodes(host)?;
            Box::new(move |build, dest| {
                let tree = tmpfs(0o755, None)?;
                build.own(&tree, dest, 0o755)?;
                dev::fill(&tree.fd, nodes)
            })
        }
        Action::Sys => {
            let tree = sysfs::new()?;
            Box::new(move |build, dest| {
                build.own(&tree, dest, 0o755)?;
                let cgroups = build.cgroups.pop().ok_or_else(|| Error::failed("no cgroup file systems"))?;
                sysfs::mount_cgroups(&cgroups, &tree.fd)
            })
        }
        Action::Tmpfs { mode, size } => {
            Box::new(|build, dest| build.own(&tmpfs(*mode, *size)?, dest, parents(*mode)))
        }
        Action::Proc => Box::new(|build, dest| build.proc(dest, &[])),
        Action::ProcPids => Box::new(|build, dest| build.proc(dest, &["subset=pid"])),
        Action::Mqueue => Box::new(|build, dest| {
            let attributes = PLAIN | MOUNT_ATTR_NOEXEC;
            // Not one of our own file systems: what is created in it lasts as long as the ipc namespace.
            let tree = Tree::make("an mqueue file system", c"mqueue", &NO_OPTIONS, attributes);
            let hint =
                "it needs an ipc namespace of its own: leave out srt-ns --share ipc, or add unshare -i";
            let tree = tree.map_err(|error| error.hint_for(libc::EPERM, hint))?;
            build.mount(&tree, dest, 0o755)
        }),
        Action::Mask { optional } => Box::new(|build, dest| build.mask(dest, *optional)),
        Action::Dir { mode } => Box::new(move |build, dest| {
            let directory = Missing { mode: libc::S_IFDIR | mode, asked_for: true };
            build.root.at(dest, directory, parents(*mode)).map(drop)
        }),
        Action::Symlink { target } => Box::new(|build, dest| build.symlink(target, dest)),
        Action::Chmod { mode } => Box::new(|build, dest| build.chmod(dest, *mode)),
        Action::RemountReadOnly => Box::new(|build, dest| build.remount_read_only(dest)),
    };
    Ok(half)
}

/// Runs the second half of every operation, in the order given.
///
/// # Errors
/// What failed, with its option.
pub fn build<'a>(host: &'a Host<'a>, (cgroups, halves): Opened<'a>) -> Result<Build<'a>> {
    let mut root = Root::new(host);
    let has = |action| host.plan.ops.iter().any(|op| op.action == action);
    let covers_proc = (has(Action::Proc) || has(Action::ProcPids)) && proc::may_be_covered();
    let uses_scratch = |op: &Op| match &op.action {
        Action::BindData { .. } | Action::Mask { .. } | Action::Sys => true,
        Action::Overlay { upper, .. } => *upper == Upper::Temporary,
        // Message queues may be mounted below the source.
        Action::Bind { .. } => !host.queues.is_empty(),
        _ => false,
    };
    let needed = covers_proc && has(Action::Proc) || host.plan.ops.iter().any(uses_scratch);
    let scratch = needed.then(|| tmpfs(0o755, None)).transpose()?;
    scratch.iter().try_for_each(|scratch| root.mount_outside(scratch))?;
    let (pins, masks) = (Pins::default(), BTreeSet::new());
    let mut build = Build { root, pins, scratch, taken: 0, masks, covers_proc, cgroups: vec![] };
    for (_, tree) in cgroups.iter().flatten() {
        let onto = build.scratch_directory()?;
        move_mount(&tree.fd, &onto, c"").context(|| "cannot mount a cgroup file system")?;
    }
    build.cgroups = cgroups;
    for (op, half) in host.plan.ops.iter().zip(halves) {
        half(&mut build, &op.dest).map_err(|error| error.within(op))?;
    }
    build.pins.set(&mut build.root)?;
    Ok(build)
}

/// The tree under construction, and what belongs to it.
pub struct Build<'a> {
    /// The tree.
    pub root: Root<'a>,
    /// The directories in it that must not be renamed.
    pins: Pins,
    /// A tmpfs that is never part of the new root: it holds the files and directories that are bound from it.
    scratch: Option<Tree>,
    /// How many names are used in the scratch file system.
    taken: usize,
    /// The mount IDs of the masks.
    masks: BTreeSet<u64>,
    /// Whether entries of `--proc` and `--proc-pids` are covered for every user.
    covers_proc: bool,
    /// The cgroup file systems that each `--sys` has yet to mount.
    cgroups: Vec<Cgroups>,
}

impl Build<'_> {
    fn mount(&mut self, tree: &Tree, dest: &Path, parents: u32) -> Result<()> {
        let dest = self.root.mount_point(dest, tree.stat.is(libc::S_IFDIR), parents)?;
        self.mount_at(tree, &dest)
    }

    /// Mounts a tree, and pins the directories above its mount point.
    fn mount_at(&mut self, tree: &Tree, dest: &Dest) -> Result<()> {
        self.pins.protect(&mut self.root, dest)?;
        self.root.require_one_name(dest, Some(tree))?;
        self.root.mount(tree, dest)
    }

    /// Mounts a new file system.
    fn own(&mut self, tree: &Tree, dest: &Path, parents: u32) -> Result<()> {
        self.root.own.insert(tree.stat.device());
        self.mount(tree, dest, parents)
    }

    fn bind(&mut self, tree: &Tree, dest: &Path, writable: bool) -> Result<()> {
        self.mount(tree, dest, 0o755)?;
        // A process that can open a queue can take its messages, also on a read-only mount.
        for queue in &tree.queues {
            let onto = open_path(&tree.fd, queue, 0, libc::RESOLVE_NO_SYMLINKS);
            let onto = onto.context(|| "cannot open a mount of message queues")?;
            move_mount(&self.empty(true)?.fd, &onto, c"").context(|| "cannot hide message queues")?;
        }
        if writable {
            self.root.shows_writable.insert(tree.stat.id);
            self.pins.host_is_writable();
        }
        Ok(())
    }

    fn proc(&mut self, dest: &Path, options: &[&str]) -> Result<()> {
        let tree = proc::new(options)?;
        self.own(&tree, dest, 0o755)?;
        proc::protect(&tree.fd, self.covers_proc)?;
        self.root.host.go_back()?;
        // Of a procfs with an option, only processes are shown.
        let hidden = if self.covers_proc && options.is_empty() { &proc::KEYS[..] } else { &[] };
        for name in hidden {
            match proc::attach(&self.empty(false)?, &tree.fd, name) {
                // This kernel has no keys.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                done => done.context(|| "cannot hide the keys of the caller")?,
            }
        }
        Ok(())
    }

    fn chmod(&mut self, dest: &Path, mode: u32) -> Result<()> {
        let (_, fd, _) = self.root.find(dest)?;
        // fchmod(2) does not accept an O_PATH descriptor; its magic link leads to the same file.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        fs::set_permissions(link, Permissions::from_mode(mode)).context(|| "chmod")
    }

    fn remount_read_only(&mut self, dest: &Path) -> Result<()> {
        let (dest, fd, stat) = self.root.find(dest)?;
        self.root.require_one_name(&dest, None)?;
        self.root.keep_removable(stat.mount).context(|| "cannot copy its mount")?;
        // Also nodev, as in bubblewrap: a read-only mount permits writing to a device.
        set_attributes(&fd, PLAIN | MOUNT_ATTR_RDONLY, false).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => Error::failed(format!("{} is not a mount point", dest.path.display())),
                _ => Error::system("cannot make it read-only", &error),
            }
        })?;
        // It may be a mount that was copied as part of a bind, above which nothing is pinned yet.
        self.pins.protect(&mut self.root, &dest)
    }

    fn mask(&mut self, dest: &Path, optional: bool) -> Result<()> {
        let missing =
            "--mask-try skips a missing PATH; --placeholders creates it on the host, where it remains";
        let closed = "mask the directory above it that cannot be searched";
        let (found, directory) = match self.root.find(dest) {
            Ok((found, _, stat)) => (found, stat.is(libc::S_IFDIR)),
            Err(error) => match error.errno {
                // No process inside can reach the path. A relative path, however, was probably meant from the working
                // directory.
                Some(libc::ENOENT | libc::ENOTDIR) if optional && dest.is_absolute() => return Ok(()),
                // As the owner of the directory that prevents the search, PROGRAM could make it searchable (chmod(2)).
                Some(libc::EACCES) if optional && self.nearest(dest)?.uid != geteuid() => return Ok(()),
                Some(libc::ENOENT) if self.is_masked(dest)? => return Ok(()),
                Some(libc::ENOENT | libc::ENOTDIR) if optional => {
                    return Err(error.hint("PATH is relative to the new root: write an absolute path"));
                }
                Some(libc::ENOENT) if self.root.host.plan.placeholders => {
                    // A slash at the end asks for a directory.
                    let directory = dest.as_os_str().as_bytes().ends_with(b"/");
                    (self.root.mount_point(dest, directory, 0o755)?, directory)
                }
                _ => return Err(error.hint_for(libc::ENOENT, missing).hint_for(libc::EACCES, closed)),
            },
        };
        let tree = self.empty(directory)?;
        self.masks.insert(tree.stat.mount);
        self.mount_at(&tree, &found)
    }

    /// The status of the nearest directory above `dest` that can be reached, although `dest` cannot.
    fn nearest(&mut self, dest: &Path) -> Result<Stat> {
        for above in dest.ancestors().skip(1) {
            match self.root.find(above) {
                Err(Error { errno: Some(libc::ENOENT | libc::EACCES), .. }) => {}
                found => return Ok(found?.2),
            }
        }
        Ok(self.root.find(Path::new("/"))?.2)
    }

    /// Whether `dest`, which does not exist, would lie below a mask.
    fn is_masked(&mut self, dest: &Path) -> Result<bool> {
        let above = self.nearest(dest)?.mount;
        Ok(self.masks.contains(&above))
    }

    /// A mount of an empty directory or file, to hide a path.
    fn empty(&mut self, directory: bool) -> Result<Tree> {
        let (scratch, name) = self.scratch()?;
        let mode = if directory { libc::S_IFDIR | 0o555 } else { libc::S_IFREG | 0o444 };
        make_node(scratch, &name, mode).context(|| "cannot make an empty file or directory")?;
        Tree::copy(scratch, &name, INERT, false).context(|| "cannot copy a mount of an empty file")
    }

    fn data_file(&mut self, data: OwnedFd, mode: u32, access: Access) -> Result<Tree> {
        let (scratch, name) = self.scratch()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = openat(scratch, &name, flags, 0o600).context(|| "cannot make a file")?;
        fchmod(&file, mode).context(|| "fchmod")?;
        copy(data, file)?;
        let tree = Tree::copy(scratch, &name, access.attributes(), false);
        tree.context(|| "cannot copy the mount of a new file")
    }

    fn file(&mut self, dest: &Path, data: OwnedFd, mode: u32) -> Result<()> {
        let dest = self.root.place(dest, parents(mode))?;
        // O_NONBLOCK: opening a FIFO that another process has put there would block forever.
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match openat(&dest.parent, &dest.name, flags | libc::O_EXCL, mode) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                openat(&dest.parent, &dest.name, flags | libc::O_TRUNC, mode)
            }
            new => new.inspect(|_| self.root.remember(&dest)),
        };
        let file = file.map_err(|error| cannot_make(&dest.parent, &dest.path, &error))?;
        if !statx(&file, c"").context(|| "statx")?.is(libc::S_IFREG) {
            return Err(
                Error::failed(format!("{} is not a regular file", dest.path.display())).path(dest.path)
            );
        }
        copy(data, file)
    }

    fn symlink(&mut self, target: &Path, dest: &Path) -> Result<()> {
        let dest = self.root.place(dest, 0o755)?;
        match symlinkat(&c_path(target).context(|| "path")?, &dest.parent, &dest.name) {
            Ok(()) => self.root.remember(&dest),
            Err(error) => match readlinkat(&dest.parent, &dest.name) {
                Ok(existing) if existing == target => {}
                Ok(existing) => {
                    let (link, existing) = (dest.path.display(), existing.display());
                    return Err(Error::failed(format!("{link} is a symbolic link to {existing} already")));
                }
                Err(_) => return Err(cannot_make(&dest.parent, &dest.path, &error)),
            },
        }
        Ok(())
    }

    /// The scratch file system, and an unused name in it.
    fn scratch(&mut self) -> Result<(&OwnedFd, CString)> {
        self.taken += 1;
        let name = c_path(self.taken.to_string()).context(|| "path")?;
        let scratch = self.scratch.as_ref().ok_or_else(|| Error::failed("no scratch file system"))?;
        Ok((&scratch.fd, name))
    }

    fn scratch_directory(&mut self) -> Result<Rc<OwnedFd>> {
        let (scratch, name) = self.scratch()?;
        make_node(scratch, &name, libc::S_IFDIR | 0o755).context(|| "cannot make a directory")?;
        open_path(scratch, &name, 0, 0).map(Rc::new).context(|| "openat2")
    }
}

/// The mode of missing parents, as in bubblewrap: users that DEST's mode excludes are excluded by them too.
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
