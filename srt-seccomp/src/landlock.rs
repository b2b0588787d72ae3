//! landlock(7): what PROGRAM may do with files, whatever their modes and mounts say, and which TCP ports and Unix sockets
//! it may connect to.
//!
//! A rule gives rights to a file, or to a directory with all below it, mounts included; nothing takes rights away
//! again further down. So a read-only mount below a writable one is as read-only as the mount makes it, and no more.

use crate::load::reaches_the_kernel;
use srt_common::args::Raw;
use srt_common::links::{Directories, Walk};
use srt_common::sys::file::{self, CWD, Stat};
use srt_common::sys::landlock as sys;
use srt_common::sys::process::{Fork, exit, fork, geteuid, waitid};
use srt_common::sys::{c_path, fd};
use srt_common::tool::LANDLOCK_IS_OFF;
use srt_common::{Context, Error, Result, mountinfo};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
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
        // Whatever else is handled, REFER is denied unless it is given.
        let rights = if files { FILES } else { 0 } | if unix { RESOLVE_UNIX | REFER } else { 0 };
        let ports = if tcp { BIND_TCP | CONNECT_TCP } else { 0 };
        let scopes = if abi >= 6 { SCOPES } else { 0 };
        let fd = sys::landlock_create_ruleset(rights, ports, scopes).context(what)?;
        let mut ruleset = Ruleset { fd, rights, written: vec![], read_alone: vec![], written_alone: None };
        if files {
            fds.iter().try_for_each(|&fd| ruleset.add_open(fd).context(|| format!("descriptor {fd}")))?;
        } else if unix {
            ruleset.add("/", REFER, |_| true)?;
        }
        let covers_dev = self.mounts && ruleset.add_mounts()?;
        if files && !covers_dev {
            let is_device = |node: &OwnedFd| file::statx(node, c"").is_ok_and(|stat| stat.is(libc::S_IFCHR));
            // The terminal, if PROGRAM has one: of the mounts, but not of the paths, where the user has not named it.
            let mut nodes = NODES.iter().chain(self.mounts.then_some(&"/dev/tty"));
            nodes.try_for_each(|node| ruleset.add(node, DEVICE, is_device))?;
        }
        // --write first: where links may be an earlier run's, its paths say.
        for (option, rights, paths) in [
            ("--write", WRITE, &self.write),
            ("--read", READ, &self.read),
            ("--unix", RESOLVE_UNIX, &self.unix),
        ] {
            for path in paths.iter().map(|Raw(path)| Path::new(path)) {
                let added = self.find(path).and_then(|(real, opened)| {
                    let is_above = |written: &PathBuf| real.starts_with(written) && real != *written;
                    if rights == READ && ruleset.written.iter().any(is_above) {
                        return Err(Error::failed("it can be written, being below a --write").hint(NOT_BELOW));
                    }
                    let has_devices = real.starts_with("/dev") || real == Path::new("/");
                    let device = rights & WRITE_FILE != 0 && has_devices;
                    let rights = if device { rights | IOCTL_DEV } else { rights };
                    ruleset.give_at(&real, &opened, rights).context(CANNOT)
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

    /// What a path that the user names leads to, and its path without links.
    fn find(&self, path: &Path) -> Result<(PathBuf, OwnedFd)> {
        let open = |path: &Path, how| file::openat2(&CWD, &c_path(path)?, libc::O_PATH, how);
        // What is missing, no directory or out of reach the kernel tells, and before /proc/self/fd has more than was given.
        open(path, 0).context(CANNOT)?;
        // getcwd(2) fails in a directory that was removed.
        let path = std::path::absolute(path).context(|| "getcwd")?;
        let root = Rc::new(file::open("/", libc::O_PATH).context(CANNOT)?);
        let cannot = |error: &io::Error| Error::system(CANNOT(), error);
        let walk = Walk::along(&root, &path, &|walk| self.may_change(walk), true, &cannot)?;
        // Whoever has put a link there since then gains nothing.
        let opened = open(&walk.path(), libc::RESOLVE_NO_SYMLINKS).context(CANNOT)?;
        // What has no path has that of nothing else: /1 is not what /proc/self/fd/1 leads to.
        if file::statx(&opened, c"").context(|| "statx")?.id != walk.end().stat.id {
            return Err(cannot(&io::Error::from_raw_os_error(libc::ENOENT)));
        }
        Ok((walk.path(), opened))
    }

    /// Whether PROGRAM, and so an earlier run of it, may put a link where a path has led: below a `--write`, or, where the
    /// mounts give the rights, on any that is writable. (Modes may have been others then.)
    fn may_change(&self, walk: &Walk) -> bool {
        // While the walk holds its directories, their numbers are theirs.
        let look = |Raw(path): &Raw| file::statx(&file::open(path, libc::O_PATH)?, c"");
        let is_above = |written: Stat| walk.is_in(&Directories::from([written.id]));
        match self.by_path() {
            true => self.write.iter().any(|path| look(path).map_or(true, is_above)),
            false => file::fstatvfs(&walk.end().fd).map_or(true, |flags| flags & libc::ST_RDONLY == 0),
        }
    }
}

/// What is about to be enforced.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    /// The rights to files that are denied unless they are given.
    rights: u64,
    /// The directories and files that may be written.
    written: Vec<PathBuf>,
    /// What PROGRAM gets that is not open for writing, and could be opened again: named files on mounts that can be written.
    read_alone: Vec<(RawFd, Stat)>,
    /// With such: another ruleset, which lets files be read that may be written, and no others.
    written_alone: Option<OwnedFd>,
}

impl Ruleset {
    /// Restricts this process and all that it becomes.
    ///
    /// # Errors
    /// What the kernel says; and when it is not the kernel that answers. A file that PROGRAM gets for reading alone, and could
    /// write.
    pub fn restrict(&self) -> Result<()> {
        self.read_alone.iter().try_for_each(|(fd, stat)| self.refuse_more(*fd, stat))?;
        let reached = reaches_the_kernel(sys::landlock_restrict_self(&-1), libc::EBADF);
        reached.and_then(|()| sys::landlock_restrict_self(&self.fd)).context(|| "landlock_restrict_self")
    }

    /// Refuses a file that PROGRAM gets for reading alone and could open again to write, though its name inside is read-only or
    /// hidden. For Landlock it lies where it was opened: on mounts outside, without those of the sandbox, and below a directory
    /// that may be written here.
    fn refuse_more(&self, number: RawFd, stat: &Stat) -> Result<()> {
        let link = format!("/proc/self/fd/{number}");
        let name = match fs::read_link(&link).context(|| &link) {
            // Nobody opens it again.
            Err(Error { errno: Some(libc::ENOENT), .. }) => return Ok(()),
            name => name?,
        };
        let open = |path: &Path| file::openat2(&CWD, &c_path(path)?, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS);
        let is_it = |fd: OwnedFd| file::statx(&fd, c"").is_ok_and(|it| it.id == stat.id) && is_writable(&fd);
        // As a file that is mounted; or below a directory that is, maybe under another name than outside.
        let rests = || name.ancestors().filter_map(|above| name.strip_prefix(above).ok());
        let below = |point: &PathBuf| rests().any(|rest| open(&point.join(rest)).is_ok_and(is_it));
        let by_its_name = self.written.iter().any(|point| open(point).is_ok_and(is_it) || below(point));
        // access(2): its mode forbids it, and is not PROGRAM's to change.
        let access = || file::faccessat2(&number, c"", libc::W_OK, libc::AT_EMPTY_PATH);
        let mode_forbids = || access().is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
        if by_its_name || mode_forbids() && stat.uid != geteuid() || !self.is_below_what_is_written(&link)? {
            return Ok(());
        }
        let error = Error::failed("PROGRAM could open it again and write, which it may not by its name");
        Err(error.within(format!("descriptor {number}")).path(name).hint("give it by a pipe: cat FILE | ..."))
    }

    /// Whether a file that can be read is below a directory that may be written, as Landlock sees it: a child may read what is
    /// there alone, and tries. To try to write would tell watchers of the file, break leases, and copy it up in an overlay.
    fn is_below_what_is_written(&self, link: &str) -> Result<bool> {
        let what = || "cannot ask Landlock where a descriptor lies";
        let (answer, tell) = fd::pipe2(0).context(what)?;
        let Fork::Parent(child) = fork().context(what)? else {
            let opened = || file::open(link, libc::O_RDONLY | libc::O_NONBLOCK);
            let restricted = self.written_alone.as_ref().map(sys::landlock_restrict_self);
            // What is no answer is a failure.
            let byte = restricted.and_then(io::Result::ok).map(|()| u8::from(opened().is_ok()));
            let _told = byte.map(|byte| fd::write(&tell, &[byte]));
            exit(0)
        };
        drop(tell);
        let mut byte = [0];
        let told = fd::read(&answer, &mut byte);
        // ECHILD where the caller ignores SIGCHLD.
        let _reaped = waitid(Some(child), libc::WEXITED);
        if told.context(what)? == 1 { Ok(byte != [0]) } else { Err(Error::failed(what())) }
    }

    /// Gives the rights that the mounts give. A mount that another one hides gives none. True: all that is in /dev can be
    /// written.
    fn add_mounts(&mut self) -> Result<bool> {
        let text =
            mountinfo::read("/proc/self/mounts").context(|| "--landlock: cannot read /proc/self/mounts")?;
        let mut points: Vec<_> = mountinfo::writable(&text).collect();
        points.sort();
        self.add("/", READ, |_| true)?;
        self.add("/dev", IOCTL_DEV, |_| true)?;
        // What is below a directory has its rights: a mount below one that was given them needs no rule.
        for point in &points {
            if self.written.last().is_none_or(|above| !point.starts_with(above)) {
                self.add(point, WRITE, is_writable)?;
            }
        }
        Ok(self.written.iter().any(|point| Path::new("/dev").starts_with(point)))
    }

    /// Gives `rights` to `path`, if this user reaches it and it is what is meant.
    fn add(&mut self, path: impl AsRef<Path>, rights: u64, meant: impl Fn(&OwnedFd) -> bool) -> Result<()> {
        let path = path.as_ref();
        let what = || format!("cannot open {}", path.display());
        match file::open(path, libc::O_PATH | libc::O_NOFOLLOW).context(what) {
            Err(Error { errno: Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES), .. }) => Ok(()),
            Ok(opened) if !meant(&opened) => Ok(()),
            opened => self.give_at(path, &opened?, rights).context(what),
        }
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
        if rights & WRITE_FILE == 0 && stat.is(libc::S_IFREG) && is_writable(&number) {
            self.read_alone.push((number, stat));
            self.written_alone = Some(sys::landlock_create_ruleset(READ_FILE, 0, 0)?);
        }
        if rights == 0 || stat.is(libc::S_IFDIR) { Ok(()) } else { self.give(&number, rights) }
    }

    /// Gives `rights` to what is open, and has this path.
    fn give_at(&mut self, path: &Path, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        if rights & WRITE == WRITE {
            self.written.push(path.to_owned());
            let alone = self.written_alone.as_ref();
            alone.map_or(Ok(()), |alone| add_rule(alone, to, READ_FILE))?;
        }
        self.give(to, rights)
    }

    /// Gives `rights` to what is open: those of a file alone where it is no directory.
    fn give(&self, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        let add = |rights| add_rule(&self.fd, to, rights & self.rights);
        match add(rights) {
            // Rights of a directory (landlock_append_fs_rule() in security/landlock/fs.c).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => add(rights & OF_A_FILE),
            // It has no path (a pipe), and is not restricted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(()),
            added => added,
        }
    }
}

fn add_rule(ruleset: &OwnedFd, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
    sys::landlock_add_rule(ruleset, sys::LANDLOCK_RULE_PATH_BENEATH, to.as_raw_fd() as u64, rights)
}

/// Whether the mount of what is open can be written.
fn is_writable(opened: &impl AsRawFd) -> bool {
    file::fstatvfs(opened).is_ok_and(|flags| flags & libc::ST_RDONLY == 0)
}

const CANNOT: fn() -> &'static str = || "cannot open it";
const NOT_BELOW: &str =
    "Landlock takes no right away again further down: a read-only mount does (srt-mount --ro-bind)";
