//! `--placeholder`: an empty file or directory on the host, where there is nothing, for as long as a sandbox uses it.
//!
//! One rule for every end: a placeholder that no process has locked is a leftover, and whoever comes across it removes it:
//! the watchdog, which has it locked, at the end or after the supervisor's death; the supervisor after the watchdog's; the
//! next run that names it. So the last of several sandboxes finds itself to be the last.
//!
//! The watchdog makes and locks it, since it forks nobody: flock(2) is shared by a fork, and the last processes of a
//! sandbox that was killed would hold it for a while.
//!
//! What makes an entry a placeholder is a mark in two places: on the inode, and, under the inode's number, on the directory
//! that it lies in. xattr(7): user attributes of a directory are for those who may write it, and they could remove the
//! entry themselves. So a sandbox that may write a file and not its directory gains nothing by marking it.
//!
//! The lock is flock(2), for which whoever can open the inode will do: mode 0600 or 0700 keeps other users out, and a
//! sandbox that uses it sees a mask or a bind in its place. A process of the user's own that holds the lock nonetheless
//! makes nobody wait for long, and may at most delay the removal until the next run.

use crate::child::{Lifeline, is_ready};
use crate::options::Plan;
use srt_common::args::{Raw, decimal};
use srt_common::sys::c_path;
use srt_common::sys::file::{self, FileId, Stat, fgetxattr, flock, openat, statx};
use srt_common::token::token;
use srt_common::{Context, Error, Result};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The option as the user wrote it, for messages.
    pub text: String,
    /// The directory that it lies in.
    pub parent: PathBuf,
    name: CString,
    directory: bool,
}

impl Placeholder {
    /// Reads PATH, or PATH/ for a directory.
    ///
    /// # Errors
    /// A path that does not end in a name.
    pub fn parse(Raw(value): &Raw) -> Result<Self> {
        let text = format!("--placeholder {}", value.display());
        // The last part as it is written: to Path `x/.` is `x`. Its parent() has no `/` and `/.` at the end, with which a
        // link would be followed.
        let name = value.as_bytes().rsplit(|&byte| byte == b'/').find(|part| !part.is_empty());
        let bad = Error::usage("expected a path that ends in a name (and / for a directory)").within(&text);
        let name = name.filter(|name| !matches!(*name, b"." | b"..")).ok_or(bad)?;
        let parent = Path::new(value).parent().filter(|parent| *parent != "").unwrap_or(Path::new("."));
        let name = c_path(OsStr::from_bytes(name)).context(|| &text)?;
        Ok(Self { text, parent: parent.to_owned(), name, directory: value.as_bytes().ends_with(b"/") })
    }
}

/// The place of a placeholder: a directory that is held open, and a name in it. What happens to the directory's own path
/// changes nothing.
#[derive(Debug)]
pub struct Place {
    /// What the user asked for.
    pub wanted: Placeholder,
    /// The directory.
    pub parent: OwnedFd,
    /// Which one it is.
    pub parent_id: FileId,
    /// The placeholder that stands there, for the supervisor. `None`: nothing yet, or what the user has there.
    inode: Option<FileId>,
}

/// What is found at a place.
enum There {
    Nothing,
    /// The user's own.
    Own,
    /// A placeholder, open, with what it is.
    Placeholder(OwnedFd, Stat),
}

/// The mark on the inode.
const MARK: &CStr = c"user.srt-placeholder";
/// What is made is marked under a name that begins so, before it gets its own name.
const PRIVATE: &str = ".srt-placeholder-";
/// How often something may change under this process before it gives up.
const TRIES: u32 = 150;
/// Of these, how many leave alone what somebody has locked exclusively.
const PATIENCE: u32 = 100;
/// The lock of those who use it.
const SHARED: libc::c_int = libc::LOCK_SH | libc::LOCK_NB;
const PAUSE: Duration = Duration::from_millis(5);
/// How many entries of a directory are looked at for leftovers, and how many of those are swept away at once.
const SEEN: usize = 10_000;
const SWEPT: usize = 100;
/// How often the end tries again: a process that was killed may not be dead yet.
const MORE_TRIES: u32 = 2;

/// Opens the directories, before anything is made.
///
/// # Errors
/// A directory that is missing, or a link; two options that name one entry.
pub fn prepare(plan: &Plan) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = vec![];
    for wanted in &plan.placeholders {
        let place = Place::open(wanted).map_err(|error| error.within(&wanted.text))?;
        if places.iter().any(|other| other.parent_id == place.parent_id && other.wanted.name == wanted.name) {
            return Err(Error::usage(format!("{}: the same place is named twice", wanted.text)));
        }
        places.push(place);
    }
    Ok(places)
}

/// In the watchdog: sees to it that something stands at each place, and holds what is not the user's own. Nothing more once
/// the supervisor is dead. Without capabilities: there are none at the end, and what was made with their help would stay.
///
/// # Errors
/// What the system says.
pub fn stand<'a>(places: &'a [Place], life: &Lifeline) -> Result<Vec<(&'a Place, OwnedFd)>> {
    // The one of this process, which makes nothing else.
    file::umask(0o077);
    let mut held = vec![];
    for place in places.iter().take_while(|_| !is_ready(life.pidfd(), libc::POLLIN)) {
        let file = place.stand().map_err(|error| error.within(&place.wanted.text))?;
        held.extend(file.map(|file| (place, file)));
    }
    Ok(held)
}

/// Removes what nobody else uses. flock(2): the shared lock becomes an exclusive one, or is lost.
pub fn release(held: Vec<(&Place, OwnedFd)>) {
    for (place, file) in held {
        let mut again = 0..MORE_TRIES;
        while place.sweep(&place.wanted.name, &file).is_err() && again.next().is_some() {
            thread::sleep(PAUSE);
        }
    }
}

impl Place {
    fn open(wanted: &Placeholder) -> Result<Self> {
        let (path, shown) = (&wanted.parent, wanted.parent.display());
        let what = || format!("cannot open {shown}");
        // Readable, since there is no mark through an O_PATH descriptor. A link in its place is not followed: an earlier
        // run could have put it there.
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let parent = file::open(path, flags).context(what).map_err(|error| {
            let hint = "a placeholder needs its directory: make it, or a placeholder of the directory itself";
            let planted = "name the directory itself: a link could have been made by an earlier run";
            let link = |to: PathBuf| Error::failed(format!("{shown} is a symbolic link to {}", to.display()));
            let link = fs::read_link(path).map(|to| link(to).hint(planted));
            link.unwrap_or(error.hint_for(libc::ENOENT, hint)).path(path)
        })?;
        let parent_id = statx(&parent, c"").context(what)?.id;
        Ok(Self { wanted: wanted.clone(), parent, parent_id, inode: None })
    }

    /// In the supervisor, once it stands: remembers it, if it is a placeholder.
    pub fn remember(&mut self) {
        let Ok(There::Placeholder(_, stat)) = self.look() else { return };
        self.inode = Some(stat.id);
    }

    /// Whether somebody has removed or replaced it, and with it what the sandbox has mounted over it.
    pub fn is_lost(&self) -> bool {
        self.inode.is_some_and(|inode| !self.has(&self.wanted.name, inode))
    }

    /// Removes what one who was killed has left, if nobody uses it; what somebody has filled loses its marks. That what lies
    /// under a private name is a leftover the name says, which only those can give who could remove it.
    pub fn clean(&self) {
        if let Ok(There::Placeholder(file, _)) = self.look() {
            let _in_use = self.sweep(&self.wanted.name, &file);
        }
        let entries = fs::read_dir(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Whoever may write the directory can leave any number.
        let names = names.take(SEEN).filter(|name| name.to_str().is_some_and(is_private)).take(SWEPT);
        for name in names.flat_map(c_path) {
            let _in_use = self.open_entry(&name).and_then(|file| self.sweep(&name, &file));
        }
    }

    /// Removes what nobody uses. An error: somebody has it locked.
    fn sweep(&self, name: &CStr, file: &OwnedFd) -> io::Result<()> {
        flock(file, libc::LOCK_EX | libc::LOCK_NB).map(|()| self.remove(name, file))
    }

    /// Makes a placeholder, or shares one that is in use. `None`: what the user has there stays as it is.
    fn stand(&self) -> Result<Option<OwnedFd>> {
        let Placeholder { name, directory, .. } = &self.wanted;
        let mut failed = Error::failed("other processes keep changing what is there");
        for attempt in 0..TRIES {
            self.clean();
            match self.look()? {
                There::Own => return Ok(None),
                There::Nothing => match self.make() {
                    // Somebody else was faster.
                    Err(Error { errno: Some(libc::EEXIST | libc::EAGAIN), .. }) => {}
                    // Or has swept it away; or the directory takes no entries: a procfs, or one that was removed itself.
                    Err(error) if error.errno == Some(libc::ENOENT) => failed = error,
                    made => return made.map(Some),
                },
                There::Placeholder(file, _) if flock(&file, SHARED).is_err() => match attempt {
                    ..PATIENCE => thread::sleep(PAUSE),
                    // Nobody who relies on it can have locked it at the same time: what takes so long does not remove it.
                    _ => self.remove(name, &file),
                },
                There::Placeholder(_, stat) if stat.is(libc::S_IFDIR) != *directory => {
                    let (new, old) = if *directory { ("directory", "file") } else { ("file", "directory") };
                    let text = format!("a {new} is asked for, and another sandbox has a {old} there");
                    return Err(Error::failed(text));
                }
                // Whoever removes it has it locked exclusively: so it stands, or is gone by now.
                There::Placeholder(file, stat) if self.has(name, stat.id) => return Ok(Some(file)),
                There::Placeholder(..) => {}
            }
        }
        Err(failed)
    }

    /// What is there.
    fn look(&self) -> Result<There> {
        let what = || "cannot look at what is there";
        let hint = "it is another user's; wait until that sandbox has ended";
        let there = match openat(&self.parent, &self.wanted.name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
            opened => opened.context(what)?,
        };
        let stat = statx(&there, c"").context(what)?;
        let can_be = stat.is(libc::S_IFDIR) || stat.is(libc::S_IFREG);
        let mark = can_be.then(|| fgetxattr(&self.parent, &mark_of(&stat)).ok()).flatten();
        let opened = mark.is_some().then(|| self.open_entry(&self.wanted.name)).transpose();
        match opened.context(|| "cannot open the placeholder that is there") {
            // No two have the same, so it is what was looked at.
            Ok(Some(file)) if fgetxattr(&file, MARK).ok() == mark => Ok(There::Placeholder(file, stat)),
            Err(error) if error.errno != Some(libc::ENOENT) => Err(error.hint(hint)),
            // Without a mark: the user's own, or one that was removed meanwhile, which loses its name before its marks.
            _ if self.has(&self.wanted.name, stat.id) => Ok(There::Own),
            _ => Ok(There::Nothing),
        }
    }

    /// A marked and locked entry under its name.
    ///
    /// renameat2(2) gives it the name, so that a SIGKILL leaves no entry there without its mark.
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
        // xattr(7): only for its owner.
        let sticky = "in a sticky directory (/tmp) of somebody else's there is no placeholder: use a directory of your own";
        let marked = marked.context(|| "cannot mark it");
        marked.map_err(|error| error.hint_for(libc::EOPNOTSUPP, none).hint_for(libc::EPERM, sticky))
    }

    /// Removes an entry if it still is this inode and empty. If it is not empty any more, it is the user's from now on.
    fn remove(&self, name: &CStr, file: &OwnedFd) {
        let Ok(stat) = statx(file, c"") else { return };
        let flags = if stat.is(libc::S_IFDIR) { libc::AT_REMOVEDIR } else { 0 };
        if (stat.is(libc::S_IFDIR) || stat.size == 0) && self.has(name, stat.id) {
            match file::unlinkat(&self.parent, name, flags).map_err(|error| error.raw_os_error()) {
                Ok(()) | Err(Some(libc::ENOENT | libc::ENOTEMPTY | libc::EEXIST)) => {}
                // It cannot be removed now, and still is a placeholder.
                Err(_) => return,
            }
        }
        let _none = file::fremovexattr(file, MARK);
        let _none = file::fremovexattr(&self.parent, &mark_of(&stat));
    }

    fn has(&self, name: &CStr, inode: FileId) -> bool {
        statx(&self.parent, name).is_ok_and(|there| there.id == inode)
    }

    /// For flock(2), which O_PATH does not do. Whatever lies there is opened without effect on it.
    fn open_entry(&self, name: &CStr) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        openat(&self.parent, name, flags, 0)
    }
}

/// The names that make() gives, and no others with that beginning.
fn is_private(name: &str) -> bool {
    let numbers = name.strip_prefix(PRIVATE).and_then(|token| token.split_once('-'));
    numbers.is_some_and(|(pid, now)| [pid, now].iter().all(|text| decimal::<u128>(text.as_bytes()).is_some()))
}

/// The name of the mark that the directory has for an inode.
fn mark_of(stat: &Stat) -> CString {
    CString::new(format!("user.srt-placeholder.{}", stat.id.1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Placeholder> {
        Placeholder::parse(&Raw(path.into()))
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_directory_and_is_no_part_of_the_name() {
        let file = parse("/p/.mcp.json").expect("a file");
        assert_eq!(
            (file.parent.as_path(), &*file.name, file.directory),
            ("/p".as_ref(), c".mcp.json", false)
        );
        let directory = parse("p//.git//").expect("a directory");
        assert_eq!(
            (directory.parent.as_path(), &*directory.name, directory.directory),
            ("p".as_ref(), c".git", true)
        );
        assert_eq!(parse("x").expect("a file").parent.as_path(), Path::new("."));
        assert_eq!(parse("/x").expect("a file").parent.as_path(), Path::new("/"));
        // A `.` at the end would follow a link.
        assert_eq!(parse("link/./x").expect("a file").parent.as_path(), Path::new("link"));
    }

    #[test]
    fn only_a_name_that_is_made_here_is_swept_away() {
        assert!(is_private(".srt-placeholder-17-0"));
        for own in ["", "mine", "17", "17-", "-0", "17-0-1", "17-0.bak", "+17-0", "17-+0"] {
            assert!(!is_private(&format!("{PRIVATE}{own}")), "{own}");
        }
    }

    #[test]
    fn a_path_that_ends_in_no_name_is_refused() {
        for bad in ["", "/", "//", ".", "..", "/p/..", "/p/.", "../"] {
            assert!(parse(bad).is_err_and(|error| error.message.contains("--placeholder")), "{bad}");
        }
    }
}
