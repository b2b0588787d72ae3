//! landlock(7): what PROGRAM may do with files, whatever their modes and mounts say, and which TCP ports and Unix sockets
//! it may connect to.
//!
//! A rule gives rights to a file, or to a directory with all below it, mounts included; nothing takes rights away
//! again further down. So a read-only mount below a writable one is as read-only as the mount makes it, and no more.

use crate::load::reaches_the_kernel;
use srt_common::args::Raw;
use srt_common::links::{Directories, Walk};
use srt_common::sys::file::{self, Stat};
use srt_common::sys::landlock as sys;
use srt_common::sys::process::{Fork, exit, fork, geteuid, waitid};
use srt_common::sys::{c_path, fd};
use srt_common::tool::LANDLOCK_IS_OFF;
use srt_common::{Context, Error, Result, mountinfo};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the user asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--landlock`: the rights that the mounts give.
    pub mounts: bool,
    /// `--read`
    pub read: Vec<Raw>,
    /// `--write`
    pub write: Vec<Raw>,
    /// `--unix`
    pub unix: Vec<Raw>,
    /// `--connect-tcp`
    pub connect_tcp: Vec<u16>,
}

// linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const RESOLVE_UNIX: u64 = 1 << 16;
/// All of ABI 5.
const FILES: u64 = (1 << 16) - 1;
/// What can be given to what is no directory.
const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX;
const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const WRITE: u64 = FILES & !IOCTL_DEV;
const DEVICE: u64 = READ_FILE | WRITE_FILE | IOCTL_DEV;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
/// Abstract Unix sockets and signals of who is outside.
const SCOPES: u64 = 1 | 1 << 1;

/// What programs open whatever they do: the nodes that srt-mount's `--dev` makes. A device is written whatever its mount
/// says, and for root of the host these are mounted read-only.
const NODES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// The terminal, if PROGRAM has one: of the mounts, but not of the paths, where the user has not named it.
const TERMINAL: &str = "/dev/tty";

impl Wanted {
    /// Whether the user's list gives the rights to files.
    pub fn by_path(&self) -> bool {
        !(self.read.is_empty() && self.write.is_empty())
    }

    /// The ruleset, or `None` if nothing is asked for. `fds` are the descriptors that PROGRAM gets. All paths are opened
    /// here, before anything is restricted.
    ///
    /// # Errors
    /// A path that is not there; what this kernel's Landlock cannot do: nothing weaker takes its place.
    pub fn ruleset(&self, fds: &[RawFd]) -> Result<Option<Ruleset>> {
        let files = self.mounts || self.by_path();
        let (unix, tcp) = (!self.unix.is_empty(), !self.connect_tcp.is_empty());
        let needs = [
            (unix, "--unix", 9, "7.1"),
            (self.mounts, "--landlock", 5, "6.10"),
            (!self.read.is_empty(), "--read", 5, "6.10"),
            (!self.write.is_empty(), "--write", 5, "6.10"),
            (tcp, "--connect-tcp", 4, "6.7"),
        ];
        let Some(&(_, option, least, linux)) = needs.iter().find(|need| need.0) else { return Ok(None) };
        let what = || format!("{option}: landlock_create_ruleset");
        let abi = sys::landlock_create_ruleset_version().context(what);
        let abi = abi.map_err(|error| error.hint(LANDLOCK_IS_OFF))?;
        if abi < least {
            let error = Error::failed(format!("{option}: this kernel's Landlock is too old: ABI {abi}"));
            return Err(error.hint(format!("Linux {linux} or newer is needed, which has ABI {least}")));
        }
        let attr = sys::RulesetAttr {
            // Whatever else is handled, REFER is denied unless it is given.
            handled_access_fs: if files { FILES } else { 0 } | if unix { RESOLVE_UNIX | REFER } else { 0 },
            handled_access_net: if tcp { BIND_TCP | CONNECT_TCP } else { 0 },
            scoped: if abi >= 6 { SCOPES } else { 0 },
        };
        let mut ruleset = Ruleset::new(attr).context(what)?;
        if files {
            fds.iter().try_for_each(|&fd| ruleset.add_open(fd).context(|| format!("descriptor {fd}")))?;
        } else if unix {
            ruleset.add("/", REFER, |_| true)?;
        }
        let covers_dev = self.mounts && ruleset.add_mounts()?;
        if files && !covers_dev {
            let is_device =
                |opened: &OwnedFd| file::statx(opened, c"").is_ok_and(|stat| stat.is(libc::S_IFCHR));
            let mut nodes = NODES.iter().chain(self.mounts.then_some(&TERMINAL));
            nodes.try_for_each(|node| ruleset.add(node, DEVICE, is_device).map(drop))?;
        }
        let paths = [
            ("--read", READ, &self.read),
            ("--write", WRITE, &self.write),
            ("--unix", RESOLVE_UNIX, &self.unix),
        ];
        // Where PROGRAM may put a link: without rights to files, wherever it likes.
        let written = self.write.iter().map(|Raw(path)| Path::new(path));
        let written = written.chain(ruleset.written.iter().map(PathBuf::as_path));
        let written = written.chain((!files).then_some(Path::new("/")));
        let ids =
            written.filter_map(|path| Some(file::statx(&file::open(path, libc::O_PATH).ok()?, c"").ok()?.id));
        let writable = if unix || self.by_path() { ids.collect() } else { Directories::new() };
        for (option, rights, paths) in paths {
            for path in paths.iter().map(|Raw(path)| Path::new(path)) {
                let added = self.find(path, &writable).and_then(|way| {
                    let device = rights & WRITE_FILE != 0 && way.path().starts_with("/dev");
                    let rights = if device { rights | IOCTL_DEV } else { rights };
                    ruleset.give_at(&way.path(), &way.end().fd, rights).context(CANNOT)
                });
                added.map_err(|error| error.within(format!("{option} {}", path.display())).path(path))?;
            }
        }
        for &port in &self.connect_tcp {
            sys::landlock_add_rule(&ruleset.fd, sys::LANDLOCK_RULE_NET_PORT, port.into(), CONNECT_TCP)
                .context(|| format!("--connect-tcp {port}: landlock_add_rule"))?;
        }
        Ok(Some(ruleset))
    }

    /// Why PROGRAM cannot be run, if that may be Landlock's doing: what it needs, its loader included, is below no PATH.
    pub fn explain(&self, failure: Error) -> Error {
        let hint = "only what is below the paths of --read and --write can be run, loaders and libraries included: add --read /";
        let limits = self.by_path() && !self.read.iter().any(|Raw(path)| path == "/");
        if limits { failure.hint_for(libc::EACCES, hint) } else { failure }
    }

    /// The way to what the user names. A link on it that PROGRAM, and so an earlier run of it, could have put there may lead
    /// anywhere.
    fn find(&self, path: &Path, writable: &Directories) -> Result<Walk> {
        // Which fails in a directory that was removed.
        let path = std::path::absolute(path).context(CANNOT)?;
        let root = file::open("/", libc::O_PATH).context(CANNOT)?;
        Walk::along(&Rc::new(root), &path, writable, true, &|error| Error::system(CANNOT(), error))
    }
}

/// What is about to be enforced.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    /// The rights to files that are denied unless they are given.
    files: u64,
    /// The directories and files that may be written.
    written: Vec<PathBuf>,
    /// What PROGRAM gets that is not open for writing, and could be opened again: named files on mounts that can be written.
    read_alone: Vec<(RawFd, Stat)>,
}

impl Ruleset {
    fn new(attr: sys::RulesetAttr) -> io::Result<Self> {
        let (fd, files) = (sys::landlock_create_ruleset(&attr)?, attr.handled_access_fs);
        Ok(Self { fd, files, written: vec![], read_alone: vec![] })
    }

    /// Restricts this process and all that it becomes.
    ///
    /// # Errors
    /// What the kernel says; and when it is not the kernel that answers. A file that PROGRAM gets for reading alone, and could
    /// write.
    pub fn restrict(&self) -> Result<()> {
        self.read_alone.iter().try_for_each(|(fd, stat)| self.refuse_more(*fd, stat))?;
        reaches_the_kernel(sys::landlock_restrict_self(&-1), libc::EBADF)
            .and_then(|()| sys::landlock_restrict_self(&self.fd))
            .context(|| "landlock_restrict_self")
    }

    /// Refuses a file that PROGRAM gets for reading alone and could open again to write, though its name inside is read-only or
    /// hidden. For Landlock it lies where it was opened: on mounts outside, without those of the sandbox, and below a directory
    /// that may be written here.
    fn refuse_more(&self, number: RawFd, stat: &Stat) -> Result<()> {
        let link = format!("/proc/self/fd/{number}");
        let name = match fs::read_link(&link) {
            Ok(name) => name,
            // Nobody opens it again.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::system(link, &error)),
        };
        let is_it = |path: &Path| {
            let opened = file::openat2(&file::CWD, &c_path(path)?, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS)?;
            Ok::<_, io::Error>(file::statx(&opened, c"")?.id == stat.id && is_writable(&opened))
        };
        // As a file that is mounted; or below a directory that is, maybe under another name than outside.
        let rests = || name.ancestors().filter_map(|above| name.strip_prefix(above).ok());
        let below = |point: &PathBuf| rests().any(|rest| is_it(&point.join(rest)).unwrap_or(false));
        if self.written.iter().any(|point| is_it(point).unwrap_or(false) || below(point)) {
            return Ok(());
        }
        // access(2): its mode forbids it, and is not PROGRAM's to change.
        let mode_allows =
            file::faccessat2(&file::CWD, &c_path(&link).context(CANNOT)?, libc::W_OK, 0).is_ok();
        if !mode_allows && stat.uid != geteuid() || !self.is_below_what_is_written(&link)? {
            return Ok(());
        }
        let error = format!(
            "descriptor {number}: PROGRAM could open it again and write, which it may not by its name"
        );
        Err(Error::failed(error).path(name.clone()).hint("give it by a pipe: cat FILE | ..."))
    }

    /// Whether a file that can be read is below a directory that may be written, as Landlock sees it: a child may read what is
    /// there alone, and tries. To try to write would tell watchers of the file, break leases, and copy it up in an overlay.
    fn is_below_what_is_written(&self, link: &str) -> Result<bool> {
        let what = || "cannot ask Landlock where a descriptor lies";
        let (answer, tell) = fd::pipe2(0).context(what)?;
        let read_alone = || {
            let alone = Self::new(sys::RulesetAttr { handled_access_fs: READ_FILE, ..Default::default() })?;
            for point in &self.written {
                alone.give(&file::open(point, libc::O_PATH | libc::O_NOFOLLOW)?, READ_FILE)?;
            }
            sys::landlock_restrict_self(&alone.fd)
        };
        let child = match fork().context(what)? {
            Fork::Child => {
                let opened = || file::open(link, libc::O_RDONLY | libc::O_NONBLOCK);
                // What is no answer is a failure.
                let byte = read_alone().map(|()| u8::from(opened().is_ok()));
                let _told = byte.and_then(|byte| fd::write(&tell, &[byte]));
                exit(0)
            }
            Fork::Parent(pid) => pid,
        };
        drop(tell);
        let mut byte = [0];
        let told = fd::read(&answer, &mut byte);
        // ECHILD where the caller ignores SIGCHLD.
        let _reaped = waitid(Some(child), libc::WEXITED);
        match told.context(what)? {
            1 => Ok(byte != [0]),
            _ => Err(Error::failed(what())),
        }
    }

    /// Gives the rights that the mounts give. A mount that another one hides gives none. True: all that is in /dev can be
    /// written.
    fn add_mounts(&mut self) -> Result<bool> {
        let text =
            mountinfo::read("/proc/self/mounts").context(|| "--landlock: cannot read /proc/self/mounts")?;
        let mut points: Vec<_> = mountinfo::writable(&text).collect();
        // By bytes: a directory comes before all that is below it.
        points.sort_unstable();
        self.add("/", READ, |_| true)?;
        self.add("/dev", IOCTL_DEV, |_| true)?;
        // What is below a directory has its rights: a mount below one that was given them needs no rule.
        let (mut above, mut covers_dev): (Option<&Path>, _) = (None, false);
        for point in points {
            let written = Path::new(OsStr::from_bytes(point));
            if above.is_some_and(|above| written.starts_with(above)) {
                continue;
            }
            let path = mountinfo::path(point);
            if self.add(&path, WRITE, is_writable)? {
                above = Some(written);
                covers_dev |= Path::new("/dev").starts_with(path);
            }
        }
        Ok(covers_dev)
    }

    /// Gives `rights` to `path`, if this user reaches it and it is what is meant: whether that is so.
    fn add(&mut self, path: impl AsRef<Path>, rights: u64, meant: impl Fn(&OwnedFd) -> bool) -> Result<bool> {
        let path = path.as_ref();
        let what = || format!("cannot open {}", path.display());
        let opened = match file::open(path, libc::O_PATH | libc::O_NOFOLLOW).context(what) {
            Err(Error { errno: Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES), .. }) => return Ok(false),
            opened => opened?,
        };
        Ok(meant(&opened) && self.give_at(path, &opened, rights).context(what).map(|()| true)?)
    }

    /// Lets what a descriptor is open on be opened again (/dev/stdin, /proc/self/fd/0) for no more than it is open for.
    /// A directory gives nothing.
    fn add_open(&mut self, number: RawFd) -> io::Result<()> {
        let rights = match fd::fcntl_getfl(&number)? & (libc::O_ACCMODE | libc::O_PATH) {
            libc::O_RDONLY => READ_FILE,
            libc::O_WRONLY => WRITE_FILE | TRUNCATE,
            libc::O_RDWR => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
            _ => 0,
        };
        let stat = file::statx(&number, c"")?;
        if rights & WRITE_FILE == 0 && stat.is(libc::S_IFREG) && stat.links > 0 && is_writable(&number) {
            self.read_alone.push((number, stat));
        }
        if rights == 0 || stat.is(libc::S_IFDIR) { Ok(()) } else { self.give(&number, rights) }
    }

    /// Gives `rights` to what is open, and has this path.
    fn give_at(&mut self, path: &Path, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        if rights & WRITE == WRITE {
            self.written.push(path.to_owned());
        }
        self.give(to, rights)
    }

    /// Gives `rights` to what is open: those of a file alone where it is no directory.
    fn give(&self, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        let fd = to.as_raw_fd() as u64;
        let add = |rights| {
            sys::landlock_add_rule(&self.fd, sys::LANDLOCK_RULE_PATH_BENEATH, fd, rights & self.files)
        };
        let added = add(rights);
        match added.as_ref().map_err(io::Error::raw_os_error) {
            // Rights of a directory (landlock_append_fs_rule() in security/landlock/fs.c).
            Err(Some(libc::EINVAL)) => add(rights & OF_A_FILE),
            // It has no path (a pipe), and is not restricted.
            Err(Some(libc::EBADFD)) => Ok(()),
            _ => added,
        }
    }
}

/// Whether the mount of what is open can be written.
fn is_writable(opened: &impl AsRawFd) -> bool {
    file::fstatvfs(opened).is_ok_and(|flags| flags & libc::ST_RDONLY == 0)
}

const CANNOT: fn() -> &'static str = || "cannot open it";
