//! `--placeholder`: an empty file or directory on the host, where there is nothing, for as long as a sandbox uses it.
//!
//! One rule for every end: a placeholder that no process has locked is a leftover, and whoever comes across it removes it:
//! the watchdog, which has the lock, at the end or after the supervisor's death; the supervisor after the watchdog's; the
//! next run that names it. So the last of several sandboxes finds itself to be the last.
//!
//! What makes an entry a placeholder is a mark in two places: on the inode, and, under the inode's number, on the directory
//! that it lies in. xattr(7): user attributes of a directory are for those who may write it, and they could remove the
//! entry themselves. So a sandbox that may write a file and not its directory gains nothing by marking it.
//!
//! The lock is flock(2), for which whoever can open the inode will do: mode 0600 or 0700 keeps other users out, and a
//! sandbox that uses it sees a mask or a bind in its place. A process of the user's own that holds the lock nonetheless
//! makes nobody wait for long, and may at most delay the removal until the next run.

use crate::options::Plan;
use crate::watchdog::Watchdog;
use srt_common::args::Raw;
use srt_common::sys::file::{
    CWD, Stat, fchmod, fgetxattr, flock, fremovexattr, fsetxattr, mkdirat, openat, readlinkat, renameat2,
    statx, umask, unlinkat,
};
use srt_common::sys::privileges::{Capabilities, capget, capset};
use srt_common::sys::{c_path, process::getpid};
use srt_common::{Context, Error, Result};
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The option as the user wrote it, for messages.
    pub text: String,
    parent: PathBuf,
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
        let bytes = value.as_bytes();
        let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        let (path, slashes) = bytes.split_at(end);
        let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let (parent, name) = path.split_at(start);
        if let b"" | b"." | b".." = name {
            return Err(Error::usage(format!(
                "{text}: expected a path that ends in a name (and / for a directory)"
            )));
        }
        // Without the `/` and `/.` at its end, with which a link would be followed.
        let parent: PathBuf = Path::new(OsStr::from_bytes(parent)).components().collect();
        let parent = if parent.as_os_str().is_empty() { ".".into() } else { parent };
        let name = c_path(OsStr::from_bytes(name)).context(|| &text)?;
        Ok(Self { text, parent, name, directory: !slashes.is_empty() })
    }

    /// Whether it is the same path, as far as the words tell.
    pub fn is(&self, other: &Self) -> bool {
        (&self.parent, &self.name) == (&other.parent, &other.name)
    }
}

/// The place of a placeholder: a directory that is held open, and a name in it. What happens to the directory's own path
/// changes nothing.
#[derive(Debug)]
pub struct Place {
    text: String,
    parent: OwnedFd,
    name: CString,
    directory: bool,
    /// What was made or is shared: the watchdog has it open. `None`: nothing yet, or what the user has there.
    inode: Option<(u32, u32, u64)>,
}

/// What is found at a place.
enum There {
    Nothing,
    /// The user's own.
    Own,
    /// A placeholder, open, with what it is.
    Placeholder(OwnedFd, Stat),
}

/// The mark on the inode; with a dot and the inode's number, the one on the directory.
const MARK: &CStr = c"user.srt-placeholder";
/// What is made is marked under a name that begins so, before it gets its own name.
const PRIVATE: &str = ".srt-placeholder-";
/// How often something may change under this process before it gives up.
const TRIES: u32 = 150;
/// Of these, how many leave alone what somebody has locked exclusively.
const PATIENCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);
/// How often the end tries: a process that was killed may not be dead yet.
const LAST_TRIES: u32 = 3;

/// Opens the directories, before anything is made.
///
/// # Errors
/// A directory that is missing, or a link; two options that name one entry.
pub fn prepare(plan: &Plan) -> Result<Vec<Place>> {
    let mut places: Vec<(Place, Stat)> = vec![];
    for wanted in &plan.placeholders {
        let (place, parent) = open(wanted).map_err(|error| error.within(&wanted.text))?;
        if places.iter().any(|(other, stat)| stat.id == parent.id && other.name == place.name) {
            return Err(Error::usage(format!("{}: the same place is named twice", wanted.text)));
        }
        places.push((place, parent));
    }
    Ok(places.into_iter().map(|(place, _)| place).collect())
}

fn open(wanted: &Placeholder) -> Result<(Place, Stat)> {
    let Placeholder { text, parent: path, name, directory } = wanted.clone();
    let what = || format!("cannot open {}", path.display());
    // Readable, since there is no mark through an O_PATH descriptor. A link in its place is not followed: an earlier run
    // could have put it there.
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let parent = c_path(&path).and_then(|path| openat(&CWD, &path, flags, 0)).map_err(|error| {
        let failed = Error::system(what(), &error).path(&path);
        match c_path(&path).and_then(|path| readlinkat(&CWD, &path)) {
            Ok(target) => {
                Error::failed(format!("{} is a symbolic link to {}", path.display(), target.display()))
                    .path(&path)
                    .hint("name the directory itself: a link could have been made by an earlier run")
            }
            Err(_) if error.kind() == ErrorKind::NotFound => failed
                .hint("a placeholder needs its directory: make it, or a placeholder of the directory itself"),
            Err(_) => failed,
        }
    })?;
    let stat = statx(&parent, c"").context(what)?;
    Ok((Place { text, parent, name, directory, inode: None }, stat))
}

/// Sees to it that something stands at each place. Without capabilities: there are none at the end, and what was made with
/// their help would stay.
///
/// The locks go to the watchdog, which forks nobody: flock(2) is shared by a fork, and the last processes of a sandbox that
/// was killed would hold it for a while.
///
/// # Errors
/// What the system says.
pub fn stand(places: &mut [Place], watchdog: &Watchdog) -> Result<()> {
    let held = capget().context(|| "capget")?;
    capset(Capabilities { effective: 0, ..held }).context(|| "capset")?;
    let stood = places.iter_mut().try_for_each(|place| watchdog.hold(place.stand()?.as_ref()));
    capset(held).context(|| "capset")?;
    stood
}

/// Removes what nobody else uses. `locked`: what [`stand`] has locked, in the same order, as far as it came.
pub fn release(places: &[Place], locked: &mut Vec<Option<OwnedFd>>) {
    for (place, file) in places.iter().zip(locked.drain(..).chain(std::iter::repeat_with(|| None))) {
        place.release(file);
    }
}

impl Place {
    /// Sees to it that something stands there: makes a placeholder, or shares one. What the user has there stays as it is.
    fn stand(&mut self) -> Result<Option<OwnedFd>> {
        self.sweep();
        let file = self.find_or_make().map_err(|error| error.within(&self.text))?;
        self.inode = file.as_ref().and_then(|file| statx(file, c"").ok()).map(|stat| stat.id);
        Ok(file)
    }

    /// Whether somebody has removed or replaced it, and with it what the sandbox has mounted over it.
    pub fn is_lost(&self) -> bool {
        let is_here = |inode| statx(&self.parent, &self.name).is_ok_and(|here| here.id == inode);
        self.inode.is_some_and(|inode| !is_here(inode))
    }

    /// The user's option.
    pub fn name(&self) -> &str {
        &self.text
    }

    fn release(&self, file: Option<OwnedFd>) {
        if let Some(file) = file.filter(|file| !self.leads_to(file)) {
            self.remove(&self.name, &file);
        }
        self.remove_leftover();
        self.sweep();
    }

    /// The directory's descriptor, for one who closes all others.
    pub fn descriptor(&self) -> RawFd {
        self.parent.as_raw_fd()
    }

    fn find_or_make(&self) -> Result<Option<OwnedFd>> {
        for attempt in 0..TRIES {
            match self.look()? {
                There::Own => return Ok(None),
                There::Nothing => {
                    if let Some(file) = self.make()? {
                        return Ok(Some(file));
                    }
                }
                There::Placeholder(file, stat) => match lock(&file, libc::LOCK_SH) {
                    // Somebody has filled a leftover: it loses its mark.
                    Ok(true) if stat.is(libc::S_IFREG) && stat.size > 0 => self.remove(&self.name, &file),
                    Ok(true) if stat.is(libc::S_IFDIR) != self.directory => self.remove_other_kind(&file)?,
                    // Whoever removes it has it locked exclusively: so it stands, or is gone by now.
                    Ok(true) if self.leads_to(&file) => return Ok(Some(file)),
                    Ok(true) => {}
                    // Nobody who relies on it can have locked it at the same time: what takes so long does not remove it.
                    Ok(false) if attempt >= PATIENCE => self.remove(&self.name, &file),
                    Ok(false) => std::thread::sleep(PAUSE),
                    Err(error) => return Err(Error::system("cannot lock the placeholder", &error)),
                },
            }
        }
        Err(Error::failed("other processes keep changing what is there"))
    }

    fn remove_other_kind(&self, file: &OwnedFd) -> Result<()> {
        if lock(file, libc::LOCK_EX).unwrap_or(false) {
            self.remove(&self.name, file);
            return Ok(());
        }
        let [this, other] = if self.directory { ["directory", "file"] } else { ["file", "directory"] };
        Err(Error::failed(format!("a {this} is asked for, and another sandbox has a {other} there")))
    }

    /// What is there.
    fn look(&self) -> Result<There> {
        let what = || "cannot look at what is there";
        let there = match openat(&self.parent, &self.name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
            opened => opened.context(what)?,
        };
        let stat = statx(&there, c"").context(what)?;
        if !(stat.is(libc::S_IFDIR) || stat.is(libc::S_IFREG)) {
            return Ok(There::Own);
        }
        // Without a mark: the user's own, or one that was removed meanwhile, which loses its name before its marks.
        let unmarked = || {
            let is_here = statx(&self.parent, &self.name).is_ok_and(|here| here.id == stat.id);
            Ok(if is_here { There::Own } else { There::Nothing })
        };
        let Ok(mark) = fgetxattr(&self.parent, &mark_of(&stat)) else { return unmarked() };
        match open_entry(&self.parent, &self.name) {
            Ok(file) if statx(&file, c"").context(what)?.id != stat.id => Ok(There::Nothing),
            Ok(file) if fgetxattr(&file, MARK).is_ok_and(|own| own == mark) => {
                Ok(There::Placeholder(file, stat))
            }
            Ok(_) => unmarked(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(There::Nothing),
            Err(error) => Err(Error::system("cannot open the placeholder that is there", &error)
                .hint("it is another user's; wait until that sandbox has ended")),
        }
    }

    /// A marked and locked entry under its name. `None`: somebody else was faster, or has swept it away; try again.
    ///
    /// renameat2(2) gives it the name, so that a SIGKILL leaves no entry there without its mark.
    fn make(&self) -> Result<Option<OwnedFd>> {
        let mask = umask(0o077);
        let made = self.make_privately();
        umask(mask);
        let (private, file) = made.context(|| "cannot make it")?;
        let named = self.mark(&file).and_then(|()| {
            let renamed = renameat2(&self.parent, &private, &self.name, libc::RENAME_NOREPLACE);
            match renamed {
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    Ok(false)
                }
                renamed => renamed.map(|()| true).context(|| "cannot name it"),
            }
        });
        if named != Ok(true) {
            self.remove(&private, &file);
        }
        named.map(|named| named.then_some(file))
    }

    fn make_privately(&self) -> io::Result<(CString, OwnedFd)> {
        for number in 0..TRIES {
            let name = c_path(format!("{PRIVATE}{}-{number}", getpid()))?;
            let made = if self.directory {
                mkdirat(&self.parent, &name, 0o700).and_then(|()| open_entry(&self.parent, &name))
            } else {
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                openat(&self.parent, &name, flags, 0o600)
            };
            match made {
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    // acl(5): in a directory with a default ACL the umask counts for nothing.
                    fchmod(&file, if self.directory { 0o700 } else { 0o600 })?;
                    if lock(&file, libc::LOCK_SH)? {
                        return Ok((name, file));
                    }
                }
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn mark(&self, file: &OwnedFd) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let token = format!("{}-{now}", getpid());
        let marked = fsetxattr(file, MARK, token.as_bytes(), 0).and_then(|()| {
            let name = mark_of(&statx(file, c"")?);
            fsetxattr(&self.parent, &name, token.as_bytes(), 0)
        });
        marked.map_err(|error| {
            let failed = Error::system("cannot mark it", &error);
            match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => failed.hint(
                    "this file system has no user extended attributes (tmpfs has them since Linux 6.6): without a mark \
                     it could not be told from a file of yours",
                ),
                // xattr(7): only for its owner.
                Some(libc::EPERM) => failed.hint(
                    "in a directory with the sticky bit (/tmp) that belongs to somebody else there is no placeholder: \
                     use a directory of your own",
                ),
                _ => failed,
            }
        })
    }

    /// Removes the placeholder there, if nobody has it locked.
    fn remove_leftover(&self) {
        for attempt in 1..=LAST_TRIES {
            let Ok(There::Placeholder(file, _)) = self.look() else { return };
            match lock(&file, libc::LOCK_EX) {
                Ok(true) => return self.remove(&self.name, &file),
                Ok(false) if attempt < LAST_TRIES => std::thread::sleep(PAUSE),
                _ => return,
            }
        }
    }

    /// Removes what was left under a private name by one who was killed. That it is a leftover its name says, which only
    /// those can give who could remove it.
    fn sweep(&self) {
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names.filter(|name| is_private(name.as_bytes())) {
            if let Ok(name) = c_path(name)
                && let Ok(file) = open_entry(&self.parent, &name)
                && lock(&file, libc::LOCK_EX).unwrap_or(false)
            {
                self.remove(&name, &file);
            }
        }
    }

    /// Removes an entry if it still is this inode and empty. If it is not empty any more, it is the user's from now on.
    fn remove(&self, name: &CStr, file: &OwnedFd) {
        let Ok(stat) = statx(file, c"") else { return };
        let is_here = statx(&self.parent, name).is_ok_and(|there| there.id == stat.id);
        let removed = if !is_here || stat.size > 0 && !stat.is(libc::S_IFDIR) {
            Ok(())
        } else {
            unlinkat(&self.parent, name, if stat.is(libc::S_IFDIR) { libc::AT_REMOVEDIR } else { 0 })
        };
        match removed.map_err(|error| error.raw_os_error()) {
            Ok(()) | Err(Some(libc::ENOENT | libc::ENOTEMPTY | libc::EEXIST)) => {
                let _none = fremovexattr(file, MARK);
                let _none = fremovexattr(&self.parent, &mark_of(&stat));
            }
            Err(_) => {}
        }
    }

    fn leads_to(&self, file: &OwnedFd) -> bool {
        let here = statx(&self.parent, &self.name);
        here.is_ok_and(|here| statx(file, c"").is_ok_and(|stat| stat.id == here.id))
    }
}

/// The names that make_privately() gives, and no others with that beginning.
fn is_private(name: &[u8]) -> bool {
    let numbers = name.strip_prefix(PRIVATE.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
    let numbers = numbers.and_then(|rest| rest.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(pid, number)| is_number(pid) && is_number(number))
}

/// The name of the mark that the directory has for an inode.
fn mark_of(stat: &Stat) -> CString {
    let (_, _, inode) = stat.id;
    let mut name = MARK.to_bytes().to_vec();
    name.extend(format!(".{inode}").bytes());
    CString::new(name).unwrap_or_default()
}

/// For flock(2), which O_PATH does not do. Whatever lies there is opened without effect on it.
fn open_entry(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    openat(parent, name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
}

/// False: somebody has it locked.
fn lock(file: &OwnedFd, operation: libc::c_int) -> io::Result<bool> {
    match flock(file, operation | libc::LOCK_NB) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        locked => locked.map(|()| true),
    }
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
        assert!(parse("/p/./x/").expect("one").is(&parse("/p//x").expect("the same")));
    }

    #[test]
    fn only_a_name_that_is_made_here_is_swept_away() {
        assert!(is_private(b".srt-placeholder-17-0"));
        for own in ["", "mine", "17", "17-", "-0", "17-0-1", "17-0.bak"] {
            assert!(!is_private(format!("{PRIVATE}{own}").as_bytes()), "{own}");
        }
    }

    #[test]
    fn a_path_that_ends_in_no_name_is_refused() {
        for bad in ["", "/", "//", ".", "..", "/p/..", "/p/.", "../"] {
            assert!(parse(bad).is_err_and(|error| error.message.contains("--placeholder")), "{bad}");
        }
    }
}
