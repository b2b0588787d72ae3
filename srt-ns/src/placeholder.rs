//! `--placeholder`: an empty file or directory on the host, at a path that does not exist, while a sandbox uses it.
//!
//! One rule covers every way in which a sandbox can end: a placeholder that no process has locked is a leftover, and
//! each of these removes it: the watchdog, which holds a lock, at the end or after the supervisor's death; the
//! supervisor after the watchdog's death; the next run that names it. So the last of several sandboxes removes it.
//!
//! The watchdog creates and locks it, since it never forks: a child would share the flock(2), and the last processes of
//! a killed sandbox would hold it for a while.
//!
//! A placeholder is recognized by a mark in two places: on its inode and, under the inode's number, on its directory.
//! xattr(7): only those who may write a directory can set its user attributes, and they could remove the entry anyway.
//! So a sandbox that may write a file, but not its directory, gains nothing by marking the file.
//!
//! The lock is a flock(2), which any process that can open the inode can take: mode 0600 or 0700 keeps other users out,
//! and a sandbox that uses the placeholder sees a mask or a bind in its place. If another process of the same user
//! holds the lock, nothing waits long for it; at most, the removal is delayed until the next run.

use crate::child::is_ready;
use crate::cleanup::permitted;
use crate::options::Placeholder;
use srt_common::args::decimal;
use srt_common::sys::c_path;
use srt_common::sys::file::{self, FileId, Stat, fgetxattr, flock, openat, statx};
use srt_common::sys::process::geteuid;
use srt_common::unique_name::token;
use srt_common::{Context, Error, Result};
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The place of a placeholder: an open directory, and a name in it. It does not depend on the directory's own path.
#[derive(Debug)]
pub struct Place {
    /// What the user asked for.
    pub wanted: Placeholder,
    /// The directory.
    pub parent: OwnedFd,
    /// The device and inode of the directory.
    pub parent_id: FileId,
    /// The placeholder at this place, for the supervisor. `None`: there is none yet, or the entry is the user's own.
    inode: Option<FileId>,
}

/// What exists at a place.
enum There {
    Nothing,
    /// A file or directory of the user's own.
    Own,
    /// A placeholder, and its attributes.
    Placeholder(Entry, Stat),
}

/// An open entry with the mark of a placeholder.
#[derive(Debug)]
pub struct Entry {
    /// The entry.
    pub file: OwnedFd,
    /// Its directory has the mark, too. A sandbox that may write the directory can remove that one, and have its own
    /// watchdog remove the entry while another sandbox uses it. So an entry without it is locked as well, but not
    /// removed.
    listed: bool,
}

/// The mark on the inode.
const MARK: &CStr = c"user.srt-placeholder";
/// A new entry has a name with this prefix until it is marked and locked.
const PRIVATE: &str = ".srt-placeholder-";
/// How many attempts are made while other processes change the entry.
const TRIES: u32 = 150;
/// How often a start waits for entries that another process has locked exclusively.
const PATIENCE: u32 = 100;
/// The lock of the processes that use a placeholder.
const SHARED: libc::c_int = libc::LOCK_SH | libc::LOCK_NB;
const PAUSE: Duration = Duration::from_millis(5);
/// How many entries of a directory are searched for leftovers, and how many leftovers are removed at once.
const SEEN: usize = 10_000;
const SWEPT: usize = 100;
/// How often the removal at the end is retried: a process that was killed may not be dead yet.
const MORE_TRIES: u32 = 2;

/// Opens the directories, before anything is created.
///
/// # Errors
/// A directory is missing or is a link, or two options name the same entry.
pub fn prepare(options: &[Placeholder]) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = vec![];
    for wanted in options {
        let place = Place::open(wanted).map_err(|error| error.within(&wanted.text))?;
        if places.iter().any(|other| other.parent_id == place.parent_id && other.wanted.name == wanted.name) {
            return Err(Error::usage(format!("{}: the same place is named twice", wanted.text)));
        }
        places.push(place);
    }
    Ok(places)
}

/// In the watchdog: ensures that every place has an entry, and holds those that are not the user's own. Stops when the
/// supervisor is dead. Runs without capabilities, since the removal at the end has none either.
///
/// # Errors
/// Any error from the kernel.
pub fn acquire<'a>(places: &'a [Place], supervisor_pidfd: &OwnedFd) -> Result<Vec<(&'a Place, Entry)>> {
    // Affects only this process, which creates nothing else.
    file::umask(0o077);
    let mut held = vec![];
    let mut timeout = PATIENCE;
    for place in places.iter().take_while(|_| !is_ready(supervisor_pidfd, libc::POLLIN)) {
        let entry = place.acquire(&mut timeout).map_err(|error| error.within(&place.wanted.text))?;
        held.extend(entry.map(|entry| (place, entry)));
    }
    Ok(held)
}

/// Removes what no other process uses. flock(2): the shared lock is converted to an exclusive one, or lost.
pub fn release(held: Vec<(&Place, Entry)>) {
    for (place, entry) in held.into_iter().filter(|(_, entry)| entry.listed) {
        let mut again = 0..MORE_TRIES;
        while place.sweep(&place.wanted.name, &entry.file).is_err() && again.next().is_some() {
            thread::sleep(PAUSE);
        }
    }
}

impl Place {
    fn open(wanted: &Placeholder) -> Result<Self> {
        let (path, shown) = (&wanted.parent, wanted.parent.display());
        let what = || format!("cannot open {shown}");
        // Opened for reading, since an O_PATH descriptor gives no access to marks. A symbolic link is not followed: an
        // earlier run could have left it there.
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let parent = file::open(path, flags).context(what).map_err(|error| {
            let hint = "its directory must exist: create it, or name it as a placeholder, too";
            let planted = "name the directory itself: a link could have been made by an earlier run";
            let link = |to: PathBuf| Error::failed(format!("{shown} is a symbolic link to {}", to.display()));
            let link = fs::read_link(path).map(|to| link(to).hint(planted));
            link.unwrap_or(error.hint_for(libc::ENOENT, hint)).path(path)
        })?;
        let parent_id = statx(&parent, c"").context(what)?.id;
        Ok(Self { wanted: wanted.clone(), parent, parent_id, inode: None })
    }

    /// In the supervisor, after the watchdog is ready: remembers the entry, if it is a placeholder.
    pub fn remember(&mut self) {
        let Ok(There::Placeholder(_, stat)) = self.look() else { return };
        self.inode = Some(stat.id);
    }

    /// Whether another process has removed or replaced it, and with it what the sandbox has mounted over it.
    pub fn is_lost(&self) -> bool {
        self.inode.is_some_and(|inode| !self.has(&self.wanted.name, inode))
    }

    /// Removes what a killed process has left, if no process uses it; if it is not empty, only the marks are removed. A
    /// private name is enough to recognize a leftover: only those who could remove the entry can give it such a name.
    pub fn clean(&self) {
        if let Ok(There::Placeholder(Entry { file, listed: true }, _)) = self.look() {
            let _in_use = self.sweep(&self.wanted.name, &file);
        }
        let entries = fs::read_dir(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Anyone who may write the directory can leave any number of entries.
        let names = names.take(SEEN).filter(|name| name.to_str().is_some_and(is_private)).take(SWEPT);
        for name in names.flat_map(c_path) {
            let _in_use = self.open_entry(&name).and_then(|file| self.sweep(&name, &file));
        }
    }

    /// Removes an entry that no process uses. An error means that another process has locked it.
    fn sweep(&self, name: &CStr, file: &OwnedFd) -> io::Result<()> {
        flock(file, libc::LOCK_EX | libc::LOCK_NB).map(|()| self.remove(name, file))
    }

    /// Creates a placeholder, or shares one that is in use. `None`: an entry of the user's own, which stays as it is.
    fn acquire(&self, timeout: &mut u32) -> Result<Option<Entry>> {
        let Placeholder { name, directory, .. } = &self.wanted;
        let mut failed = Error::failed("other processes keep changing what is there");
        for _ in 0..TRIES {
            self.clean();
            match self.look()? {
                There::Own => return Ok(None),
                There::Nothing => match self.make() {
                    // Another process was faster.
                    Err(Error { errno: Some(libc::EEXIST | libc::EAGAIN), .. }) => {}
                    // Another process has removed it; or the directory takes no entries: a procfs, or one that was
                    // removed itself.
                    Err(error) if error.errno == Some(libc::ENOENT) => failed = error,
                    made => return made.map(|file| Some(Entry { file, listed: true })),
                },
                There::Placeholder(entry, _) if flock(&entry.file, SHARED).is_err() => match *timeout {
                    1.. => {
                        *timeout -= 1;
                        thread::sleep(PAUSE);
                    }
                    // It may be the user's own.
                    0 if !entry.listed => return Ok(None),
                    // While it is locked exclusively, no sandbox can rely on it; and a removal does not take so long.
                    0 => self.remove(name, &entry.file),
                },
                There::Placeholder(entry, stat) if entry.listed && stat.is(libc::S_IFDIR) != *directory => {
                    let (new, old) = if *directory { ("directory", "file") } else { ("file", "directory") };
                    let text = format!("another sandbox has a {old} there, not a {new}");
                    return Err(Error::failed(text));
                }
                // A removal needs the exclusive lock, so the entry either stays now or is already gone.
                There::Placeholder(entry, stat) if self.has(name, stat.id) => return Ok(Some(entry)),
                There::Placeholder(..) => {}
            }
        }
        Err(failed)
    }

    /// Finds out what exists at the place.
    fn look(&self) -> Result<There> {
        let what = || "cannot look at what is there";
        let hint = "it is another user's; wait until that sandbox has ended";
        let there = match openat(&self.parent, &self.wanted.name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
            opened => opened.context(what)?,
        };
        let stat = statx(&there, c"").context(what)?;
        let can_be = stat.is(libc::S_IFDIR) || stat.is(libc::S_IFREG);
        let listed = can_be.then(|| fgetxattr(&self.parent, &mark_of(&stat)).ok()).flatten();
        let opened = listed.is_some() || is_as_made(&stat);
        let file = match opened.then(|| self.open_entry(&self.wanted.name)).transpose() {
            Err(error) if listed.is_some() && error.kind() != ErrorKind::NotFound => {
                return Err(Error::system("cannot open the placeholder that is there", &error).hint(hint));
            }
            opened => opened.ok().flatten(),
        };
        let mark = file.as_ref().and_then(|file| fgetxattr(file, MARK).ok());
        match file {
            Some(file) if mark.is_some() => {
                let stat = statx(&file, c"").context(what)?;
                // Every mark is unique, so this is the file whose mark the directory has.
                Ok(There::Placeholder(Entry { file, listed: mark == listed }, stat))
            }
            // Without a mark: the user's own, or a placeholder that was just removed: it loses its name before its
            // marks.
            _ if self.has(&self.wanted.name, stat.id) => Ok(There::Own),
            _ => Ok(There::Nothing),
        }
    }

    /// Creates a marked and locked entry.
    ///
    /// It gets its name by renameat2(2), so that a SIGKILL never leaves an unmarked entry there.
    fn make(&self) -> Result<OwnedFd> {
        let token = token();
        let what = || "cannot make it";
        let private = c_path(format!("{PRIVATE}{token}")).context(what)?;
        let made = match self.wanted.directory {
            true => file::mkdirat(&self.parent, &private, 0o700),
            false => file::mknodat(&self.parent, &private, libc::S_IFREG | 0o600),
        };
        let file = made.and_then(|()| self.open_entry(&private)).context(what)?;
        let locked = flock(&file, SHARED).context(|| "cannot lock it");
        let marked = locked.and_then(|()| self.mark(&file, &token));
        let rename = || file::renameat2(&self.parent, &private, &self.wanted.name, libc::RENAME_NOREPLACE);
        let named = marked.and_then(|()| rename().context(|| "cannot name it"));
        named.inspect_err(|_| self.remove(&private, &file)).map(|()| file)
    }

    fn mark(&self, file: &OwnedFd, token: &str) -> Result<()> {
        let set = |on: &OwnedFd, name: &CStr| file::fsetxattr(on, name, token.as_bytes(), 0);
        let marked = set(file, MARK).and_then(|()| set(&self.parent, &mark_of(&statx(file, c"")?)));
        let none = "this file system has no user extended attributes (tmpfs: since Linux 6.6) to tell it from a file of yours";
        // xattr(7): only the owner of a sticky directory may set its user attributes.
        let sticky =
            "another user's sticky directory (/tmp) cannot have a placeholder: use a directory of your own";
        let marked = marked.context(|| "cannot mark it");
        marked.map_err(|error| error.hint_for(libc::EOPNOTSUPP, none).hint_for(libc::EPERM, sticky))
    }

    /// Removes an entry if it is still this inode and empty. If it is not empty any more, it belongs to the user from
    /// now on. If it cannot be removed now, it remains a placeholder.
    fn remove(&self, name: &CStr, file: &OwnedFd) {
        let _remains = permitted(&self.parent, || {
            let stat = statx(file, c"")?;
            let (flags, empty) =
                if stat.is(libc::S_IFDIR) { (libc::AT_REMOVEDIR, true) } else { (0, stat.size == 0) };
            let removed = match statx(&self.parent, name) {
                Ok(there) if empty && there.id == stat.id => file::unlinkat(&self.parent, name, flags),
                there => there.map(drop),
            };
            match removed.map_err(|error| error.raw_os_error().unwrap_or(0)) {
                Ok(()) | Err(libc::ENOENT | libc::ENOTEMPTY | libc::EEXIST) => {}
                Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
            let _none = file::fremovexattr(file, MARK);
            let _none = file::fremovexattr(&self.parent, &mark_of(&stat));
            Ok(())
        });
    }

    fn has(&self, name: &CStr, inode: FileId) -> bool {
        statx(&self.parent, name).is_ok_and(|there| there.id == inode)
    }

    /// Opens an entry for flock(2), which refuses O_PATH descriptors. The flags prevent any side effect of the open.
    fn open_entry(&self, name: &CStr) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        openat(&self.parent, name, flags, 0)
    }
}

/// Matches the names that make() creates, and no others with that prefix.
fn is_private(name: &str) -> bool {
    let numbers = name.strip_prefix(PRIVATE).and_then(|token| token.split_once('-'));
    numbers.is_some_and(|(pid, now)| [pid, now].iter().all(|text| decimal::<u128>(text.as_bytes()).is_some()))
}

/// Whether it is what `make` creates, and nothing else has been done to it: nobody else can open and lock it.
fn is_as_made(stat: &Stat) -> bool {
    let as_made = match stat.file_type() {
        libc::S_IFREG => stat.mode & 0o777 == 0o600 && stat.size == 0,
        libc::S_IFDIR => stat.mode & 0o777 == 0o700,
        _ => false,
    };
    as_made && stat.uid == geteuid()
}

/// The name of a directory's mark for an inode.
fn mark_of(stat: &Stat) -> CString {
    CString::new(format!("user.srt-placeholder.{}", stat.id.1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_made_here_is_swept_away() {
        assert!(is_private(".srt-placeholder-17-0"));
        for own in ["", "mine", "17", "17-", "-0", "17-0-1", "17-0.bak", "+17-0", "17-+0"] {
            assert!(!is_private(&format!("{PRIVATE}{own}")), "{own}");
        }
    }
}
