//! No path leads through a symbolic link that an earlier run of the sandbox could have left (as in CVE-2024-42472): a
//! link in a directory of the host that this sandbox may write.

use crate::sys::c_path;
use crate::sys::fd::given;
use crate::sys::file::{Stat, fstatfs, openat, openat2, readlinkat, statx};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// path_resolution(7): MAXSYMLINKS.
const MOST_LINKS: usize = 40;

/// One directory on the path.
#[derive(Debug)]
pub struct Step {
    name: OsString,
    /// The directory, or the file to which the path leads.
    pub fd: Rc<OwnedFd>,
    /// Its attributes.
    pub stat: Stat,
}

impl Step {
    fn new(name: OsString, fd: Rc<OwnedFd>) -> io::Result<Self> {
        let stat = statx(&fd, c"")?;
        Ok(Self { name, fd, stat })
    }
}

/// A walk from a root, one name at a time: the directories passed, with `..` and links resolved.
#[derive(Debug)]
pub struct Walk(Vec<Step>);

impl Walk {
    /// Walks from `root` along `path` to its end. A link is an error if `is_planted` is true for the walk to it. A
    /// magic link of a procfs is followed only if `magic`.
    ///
    /// # Errors
    /// Such a link, or a system error as converted by `cannot`, without errno before a `..`.
    pub fn along(
        root: &Rc<OwnedFd>,
        path: &Path,
        is_planted: &dyn Fn(&Self) -> bool,
        magic: bool,
        cannot: &dyn Fn(io::Error) -> Error,
    ) -> Result<Self> {
        let mut walk = Self(vec![Step::new(OsString::new(), Rc::clone(root)).map_err(cannot)?]);
        let mut ahead: VecDeque<OsString> = names(path).map(OsStr::to_owned).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let returns = name == ".." || ahead.iter().any(|name| name == "..");
            let cannot = |error| if returns { unknown(cannot(error)) } else { cannot(error) };
            if name == ".." {
                if !walk.end().stat.is(libc::S_IFDIR) {
                    return Err(cannot(io::Error::from_raw_os_error(libc::ENOTDIR)));
                }
                walk.0.truncate((walk.0.len() - 1).max(1));
                continue;
            }
            let c_name = c_path(&name).map_err(cannot)?;
            let here = Rc::clone(&walk.end().fd);
            let fd = open_path(&here, &c_name, libc::O_NOFOLLOW, 0);
            let next = fd.and_then(|fd| Step::new(name, Rc::new(fd))).map_err(cannot)?;
            if !next.stat.is(libc::S_IFLNK) {
                walk.0.push(next);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(cannot(io::Error::from_raw_os_error(libc::ELOOP)));
            }
            let target = readlinkat(&next.fd, c"").map_err(cannot)?;
            if is_planted(&walk) {
                return Err(planted(path, &walk.path().join(&next.name), &target));
            }
            if is_magic(&here, &c_name, &next.fd).map_err(cannot)? {
                if !magic {
                    return Err(cannot(io::Error::from_raw_os_error(libc::ELOOP)));
                }
                walk = walk.through_magic_link(next.name, &target, is_planted, &cannot)?;
                continue;
            }
            if target.is_absolute() {
                walk.0.truncate(1);
            }
            ahead = names(&target).map(OsStr::to_owned).chain(ahead).collect();
        }
        Ok(walk)
    }

    /// Follows the magic link `name`, whose text is `target`.
    fn through_magic_link(
        mut self,
        name: OsString,
        target: &Path,
        is_planted: &dyn Fn(&Self) -> bool,
        cannot: &dyn Fn(io::Error) -> Error,
    ) -> Result<Self> {
        if is_opened_here(self.end(), &name) {
            return Err(cannot(io::Error::from_raw_os_error(libc::ENOENT)));
        }
        let followed = c_path(&name).and_then(|name| openat(&*self.end().fd, &name, libc::O_PATH, 0));
        let end = followed.and_then(|fd| Step::new(name, Rc::new(fd))).map_err(cannot)?;
        self.0.truncate(1);
        if !target.is_absolute() {
            self.0.push(end);
            return Ok(self);
        }
        let walk = Self::along(&self.end().fd, target, is_planted, true, cannot)?;
        // The text of the link is a path only if it leads to the same file.
        if walk.end().stat.id != end.stat.id {
            return Err(Error::failed(format!("{} was replaced meanwhile", target.display())));
        }
        Ok(walk)
    }

    /// The file to which the path leads.
    #[allow(clippy::indexing_slicing, reason = "the root is never taken away")]
    pub fn end(&self) -> &Step {
        &self.0[self.0.len() - 1]
    }

    /// The path without links and `..`.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.0.iter().skip(1).map(|step| &step.name).collect::<PathBuf>())
    }

    /// The directories passed, from the root to the end.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// Whether a link is a magic link of a procfs (proc(5)): it leads to an open file or directory, whatever its text is.
fn is_magic(directory: &OwnedFd, name: &CStr, link: &OwnedFd) -> io::Result<bool> {
    let followed = || openat2(directory, name, libc::O_PATH, libc::RESOLVE_NO_MAGICLINKS);
    let is_refused = || followed().is_err_and(|error| error.raw_os_error() == Some(libc::ELOOP));
    Ok(fstatfs(link)? == libc::PROC_SUPER_MAGIC && is_refused())
}

/// Whether a name in a directory is that of a descriptor that this program has opened itself, although the user may
/// mean an inherited one.
fn is_opened_here(directory: &Step, name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
    // The directory is this process's, in any procfs and for any thread: it has the descriptor through which it is
    // examined.
    let this = c_path(directory.fd.as_raw_fd().to_string());
    let itself =
        this.and_then(|this| openat(&*directory.fd, &this, libc::O_PATH, 0)).and_then(|fd| statx(&fd, c""));
    let is_own = itself.is_ok_and(|itself| itself.id == directory.stat.id);
    is_own && number.is_some_and(|number| given(number).is_err())
}

/// openat2(2) with O_PATH, first with O_DIRECTORY, which also triggers an automount, as mount(2) does.
///
/// # Errors
/// The errno of the call.
pub fn open_path(from: &impl AsRawFd, path: &CStr, flags: libc::c_int, resolve: u64) -> io::Result<OwnedFd> {
    let open = |directory| openat2(from, path, libc::O_PATH | directory | flags, resolve);
    match open(libc::O_DIRECTORY) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => open(0),
        opened => opened,
    }
}

/// The names in a path, from its root. `.` and repeated or trailing slashes are dropped.
pub fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    })
}

/// Whether a path contains `..`: if what is before it is missing, [`Walk::along`] knows more than openat2(2).
pub fn returns(path: &Path) -> bool {
    names(path).any(|name| name == "..")
}

/// The error if something is missing before a `..`: without an errno, since nothing follows from it. If it is created
/// later, the path leads to another place, which may exist.
fn unknown(error: Error) -> Error {
    match error.errno {
        Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES) => {
            Error { errno: None, ..error }.hint("name the file by a path without .., also in links")
        }
        _ => error,
    }
}

fn planted(path: &Path, link: &Path, target: &Path) -> Error {
    let (path, link_text, target) = (path.display(), link.display(), target.display());
    let text = format!("{path} leads through the symbolic link {link_text}, which this sandbox may replace");
    let hint = "an earlier run may have created it: name the intended path; the link points to";
    Error::failed(text).path(link).hint(format!("{hint} {target}"))
}
