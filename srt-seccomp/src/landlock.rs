//! landlock(7): what PROGRAM may do with files, in addition to their modes and mounts, and which TCP ports and Unix
//! sockets it may connect to.
//!
//! A rule grants rights to a file, or to a directory and everything below it, mounts included; no rule can take
//! rights away further down. So a read-only mount below a writable one is protected only by the mount.

use crate::bpf::reaches_the_kernel;
use srt_common::args::Raw;
use srt_common::path_walk::{Step, Walk};
use srt_common::sys::file::{self, CWD, Stat};
use srt_common::sys::landlock as sys;
use srt_common::sys::process::{exit, fork_without_signal, geteuid, waitid};
use srt_common::sys::{c_path, fd};
use srt_common::tool::LANDLOCK_IS_OFF;
use srt_common::{Context, Error, Result, mountinfo, procfs};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The restrictions that the user asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LandlockOptions {
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
/// The rights that can be granted to a file that is not a directory.
const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX;
const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const WRITE: u64 = FILES & !IOCTL_DEV;
const DEVICE: u64 = READ_FILE | WRITE_FILE | IOCTL_DEV;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
/// No connections to abstract Unix sockets of processes outside, and no signals to these processes.
const SCOPES: u64 = 1 | 1 << 1;
/// The seals with which the content of a memfd cannot change (fcntl(2)).
const SEALS: libc::c_int = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Devices that every program may open: nodes that srt-mount's `--dev` creates. A device can be written even on a
/// read-only mount, and for root of the host these are mounted read-only.
const NODES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

impl LandlockOptions {
    /// Whether `--read` or `--write` grants the rights to files.
    pub fn by_path(&self) -> bool {
        !(self.read.is_empty() && self.write.is_empty())
    }

    /// The ruleset, or `None` if nothing is asked for. `fds` are the descriptors that PROGRAM inherits. All paths are
    /// opened here, before anything is restricted.
    ///
    /// # Errors
    /// A path does not exist, or this kernel's Landlock lacks a restriction: nothing weaker replaces it.
    pub fn ruleset(&self, fds: &[RawFd]) -> Result<Option<Ruleset>> {
        let Some((option, abi)) = self.option_and_abi()? else { return Ok(None) };
        let files = self.mounts || self.by_path();
        let (unix, tcp) = (!self.unix.is_empty(), !self.connect_tcp.is_empty());
        // Whatever else is handled, REFER is denied unless it is granted.
        let rights = if files { FILES } else { 0 } | if unix { RESOLVE_UNIX | REFER } else { 0 };
        let ports = if tcp { BIND_TCP | CONNECT_TCP } else { 0 };
        let scopes = if abi >= 6 { SCOPES } else { 0 };
        let what = || format!("{option}: landlock_create_ruleset");
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
            // The terminal, if PROGRAM has one: with `--landlock`, but with `--read` and `--write` only if the user
            // names it.
            let mut nodes = NODES.iter().chain(self.mounts.then_some(&"/dev/tty"));
            nodes.try_for_each(|node| ruleset.add(node, DEVICE, is_device))?;
        }
        self.add_paths(&mut ruleset)?;
        for &port in &self.connect_tcp {
            sys::landlock_add_rule(&ruleset.fd, sys::LANDLOCK_RULE_NET_PORT, port.into(), CONNECT_TCP)
                .context(|| format!("--connect-tcp {port}: landlock_add_rule"))?;
        }
        Ok(Some(ruleset))
    }

    /// The option that needs the newest Landlock, and the ABI of this kernel's, which is new enough. `None`: nothing is
    /// asked for.
    fn option_and_abi(&self) -> Result<Option<(&'static str, libc::c_long)>> {
        let needs = [
            (!self.unix.is_empty(), "--unix", 9, "7.1"),
            (self.mounts, "--landlock", 5, "6.10"),
            (!self.read.is_empty(), "--read", 5, "6.10"),
            (!self.write.is_empty(), "--write", 5, "6.10"),
            (!self.connect_tcp.is_empty(), "--connect-tcp", 4, "6.7"),
        ];
        let Some(&(_, option, least, linux)) = needs.iter().find(|need| need.0) else { return Ok(None) };
        let abi = sys::landlock_create_ruleset_version();
        let abi = abi.context(|| format!("{option}: landlock_create_ruleset"));
        let abi = abi.map_err(|error| error.hint(LANDLOCK_IS_OFF))?;
        if abi < least {
            let error = Error::failed(format!("{option}: this kernel's Landlock is too old: ABI {abi}"));
            return Err(error.hint(format!("Linux {linux} or newer is needed, which has ABI {least}")));
        }
        Ok(Some((option, abi)))
    }

    /// Grants the rights of `--write`, `--read` and `--unix`.
    fn add_paths(&self, ruleset: &mut Ruleset) -> Result<()> {
        // --write first, since a --read path below one of its paths is refused: by inode, as Landlock attaches rules to
        // inodes (and holds them, get_inode_object() in security/landlock/fs.c). A directory that has several paths,
        // bind mounts or names in another case, is the same by each.
        let mut written = vec![];
        for (option, rights, paths) in [
            ("--write", WRITE, &self.write),
            ("--read", READ, &self.read),
            ("--unix", RESOLVE_UNIX, &self.unix),
        ] {
            for path in paths.iter().map(|Raw(path)| Path::new(path)) {
                let added = self.find(path).and_then(|(walk, opened)| {
                    let (real, steps) = (walk.path(), walk.steps());
                    // The same path may be given to both options.
                    let other = steps.len() - usize::from(ruleset.written.contains(&real));
                    let is_written = |step: &Step| written.contains(&step.stat.id);
                    if rights == READ && is_writable(&opened) && steps.iter().take(other).any(is_written) {
                        let error = Error::failed("it is below a --write, so it can be written");
                        return Err(error.hint(NOT_BELOW));
                    }
                    if rights == WRITE {
                        written.push(walk.end().stat.id);
                    }
                    ruleset.add_named(&real, &opened, rights)
                });
                added.map_err(|error| error.within(format!("{option} {}", path.display())).path(path))?;
            }
        }
        Ok(())
    }

    /// Adds a hint to PROGRAM's failure if Landlock may be the cause: PROGRAM, or its loader, is below no PATH.
    pub fn explain(&self, failure: Error) -> Error {
        let hint = "only what is below the paths of --read and --write can be run, loaders and libraries included: add --read /";
        let limits = self.by_path() && !self.read.iter().any(|Raw(path)| path == "/");
        if limits { failure.hint_for(libc::EACCES, hint) } else { failure }
    }

    /// Resolves a path of the user's: returns the walk to it, and the open file.
    fn find(&self, path: &Path) -> Result<(Walk, OwnedFd)> {
        let open = |path: &Path, how| file::openat2(&CWD, &c_path(path)?, libc::O_PATH, how);
        // The kernel reports a path that is missing, not a directory or out of reach. This is done first, while
        // /proc/self/fd contains only what the caller has opened.
        open(path, 0).context(CANNOT)?;
        // getcwd(2) fails in a directory that was removed.
        let path = std::path::absolute(path).context(|| "getcwd")?;
        let root = Rc::new(file::open("/", libc::O_PATH).context(CANNOT)?);
        let cannot = |error: io::Error| Error::system(CANNOT(), &error);
        let walk = Walk::along(&root, &path, &|walk| self.may_change(walk), true, &cannot)?;
        // A link that another process has put there since then is not followed.
        let opened = open(&walk.path(), libc::RESOLVE_NO_SYMLINKS).context(CANNOT)?;
        // A file without a path must not be confused with another that has this path: /proc/self/fd/1 does not lead
        // to /1.
        if file::statx(&opened, c"").context(|| "statx")?.id != walk.end().stat.id {
            return Err(cannot(io::Error::from_raw_os_error(libc::ENOENT)));
        }
        Ok((walk, opened))
    }

    /// Whether PROGRAM, and so an earlier run of it, may put a link where a path has led: below a `--write` path or,
    /// with `--landlock`, on any writable mount. (Modes may have been different then.)
    fn may_change(&self, walk: &Walk) -> bool {
        // While the walk holds its directories open, their inode numbers are not reused.
        let look = |Raw(path): &Raw| file::statx(&file::open(path, libc::O_PATH)?, c"");
        let is_above = |written: Stat| walk.steps().iter().any(|step| step.stat.id == written.id);
        match self.by_path() {
            true => self.write.iter().any(|path| look(path).map_or(true, is_above)),
            false => file::fstatvfs(&walk.end().fd).map_or(true, |flags| flags & libc::ST_RDONLY == 0),
        }
    }
}

/// A ruleset that is about to be enforced.
pub struct Ruleset {
    fd: OwnedFd,
    /// The rights to files that are denied unless they are granted.
    rights: u64,
    /// The directories and files that may be written.
    written: Vec<PathBuf>,
    /// Descriptors of PROGRAM that are not open for writing but could be reopened: regular files on writable mounts.
    read_alone: Vec<(RawFd, Stat)>,
    /// If there are any: another ruleset, which permits reading only files that may be written.
    written_alone: Option<OwnedFd>,
}

impl Ruleset {
    /// Restricts this process and everything that it executes.
    ///
    /// # Errors
    /// The kernel's error, an answer that does not come from the kernel, or a file that PROGRAM receives for reading
    /// only but could write.
    pub fn restrict(&self) -> Result<()> {
        self.read_alone.iter().try_for_each(|(fd, stat)| self.refuse_more(*fd, stat))?;
        let reached = reaches_the_kernel(sys::landlock_restrict_self(&-1), libc::EBADF);
        let restricted = reached.and_then(|()| sys::landlock_restrict_self(&self.fd));
        // LANDLOCK_MAX_NUM_LAYERS of security/landlock/limits.h.
        let hint = "a process has at most 16 layers of Landlock, and those around this one are as many: leave one out";
        restricted.context(|| "landlock_restrict_self").map_err(|error| error.hint_for(libc::E2BIG, hint))
    }

    /// Refuses a file that PROGRAM receives for reading only but could open again for writing, though its path inside
    /// is read-only or hidden: Landlock uses the path by which the file was opened, on the mounts outside, and that may
    /// be below a directory that may be written here.
    fn refuse_more(&self, number: RawFd, stat: &Stat) -> Result<()> {
        // PROGRAM may have a procfs at another place. An earlier run may have created something else at /proc.
        let link = |flags| file::openat(&procfs::open()?, &c_path(format!("self/fd/{number}"))?, flags, 0);
        let name = link(libc::O_PATH | libc::O_NOFOLLOW).and_then(|link| file::readlinkat(&link, c""));
        let name = name.unwrap_or_else(|_| format!("/dev/fd/{number}").into());
        let open = |path: &Path| file::openat2(&CWD, &c_path(path)?, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS);
        let is_it = |fd: OwnedFd| file::statx(&fd, c"").is_ok_and(|it| it.id == stat.id) && is_writable(&fd);
        // As a mounted file, or below a mounted directory, perhaps under another name than outside.
        let rests = || name.ancestors().filter_map(|above| name.strip_prefix(above).ok());
        let below = |point: &PathBuf| rests().any(|rest| open(&point.join(rest)).is_ok_and(is_it));
        let by_its_name = self.written.iter().any(|point| open(point).is_ok_and(is_it) || below(point));
        // access(2): its mode forbids writing, and PROGRAM cannot change it.
        let access = || file::faccessat2(&number, c"", libc::W_OK, libc::AT_EMPTY_PATH);
        let mode_forbids = || access().is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
        if by_its_name || mode_forbids() && stat.uid != geteuid() || !self.is_below_what_is_written(link)? {
            return Ok(());
        }
        let error = Error::failed("PROGRAM could reopen it for writing, though its path is read-only");
        Err(error.within(format!("descriptor {number}")).path(name).hint("give it by a pipe: cat FILE | ..."))
    }

    /// Whether Landlock regards a readable file as below a directory that may be written: a child process that may
    /// read only such files tries to open it. An open for writing would notify watchers of the file, break leases,
    /// and copy the file up in an overlay. `link` opens it.
    fn is_below_what_is_written(&self, link: impl Fn(libc::c_int) -> io::Result<OwnedFd>) -> Result<bool> {
        let what = || "cannot ask Landlock where a descriptor lies";
        let open = || link(libc::O_RDONLY | libc::O_NONBLOCK);
        // If it cannot be opened anyway, EACCES in the child says nothing.
        if open().is_err() {
            return Ok(!self.written.is_empty());
        }
        let (answer, tell) = fd::pipe2(0).context(what)?;
        let Some(child) = fork_without_signal().context(what)? else {
            let restricted = self.written_alone.as_ref().map(sys::landlock_restrict_self);
            let is_denied = || open().is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
            // A missing answer, whatever the reason, counts as a yes.
            let _told = (matches!(restricted, Some(Ok(()))) && is_denied()).then(|| fd::write(&tell, &[0]));
            exit(0)
        };
        drop(tell);
        let denied = fd::read(&answer, &mut [0]);
        let _reaped = waitid(Some(child), libc::WEXITED | libc::__WALL);
        Ok(denied.context(what)? == 0)
    }

    /// Grants the rights that the mounts give. A mount that is hidden by another one gives none. Returns whether
    /// everything in /dev can be written.
    fn add_mounts(&mut self) -> Result<bool> {
        let text =
            mountinfo::read("/proc/self/mounts").context(|| "--landlock: cannot read /proc/self/mounts")?;
        // The mount of a root that is no mount point is not listed (chroot(2); show_vfsmnt() in fs/proc_namespace.c).
        let mut points: Vec<_> = mountinfo::writable(&text).chain(["/".into()]).collect();
        points.sort();
        self.add("/", READ, |_| true)?;
        self.add("/dev", IOCTL_DEV, |_| true)?;
        // A rule for a directory also covers the mounts below it, so these need no rule.
        for point in &points {
            if self.written.last().is_none_or(|above| !point.starts_with(above)) {
                self.add(point, WRITE, is_writable)?;
            }
        }
        Ok(self.written.iter().any(|point| Path::new("/dev").starts_with(point)))
    }

    /// Grants the rights of `--write`, `--read` or `--unix` to what is open and has this path.
    fn add_named(&mut self, path: &Path, to: &OwnedFd, rights: u64) -> Result<()> {
        let has_devices = path.starts_with("/dev") || path == Path::new("/");
        let devices = if rights == WRITE && has_devices { IOCTL_DEV } else { 0 };
        self.give_at(path, to, rights | devices).context(CANNOT)
    }

    /// Grants `rights` to `path`, if this user can reach it and `meant` accepts it.
    fn add(&mut self, path: impl AsRef<Path>, rights: u64, meant: impl Fn(&OwnedFd) -> bool) -> Result<()> {
        let path = path.as_ref();
        let what = || format!("cannot open {}", path.display());
        match file::open(path, libc::O_PATH | libc::O_NOFOLLOW).context(what) {
            Err(Error { errno: Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES), .. }) => Ok(()),
            Ok(opened) if !meant(&opened) => Ok(()),
            opened => self.give_at(path, &opened?, rights).context(what),
        }
    }

    /// Permits opening a descriptor's file again (/dev/stdin, /proc/self/fd/0), with no more access than it is open
    /// for. A directory gets no rights.
    fn add_open(&mut self, number: RawFd) -> io::Result<()> {
        let rights = match fd::fcntl(&number, libc::F_GETFL, 0)? & (libc::O_ACCMODE | libc::O_PATH) {
            libc::O_RDONLY => READ_FILE,
            libc::O_WRONLY => WRITE_FILE | TRUNCATE,
            libc::O_RDWR => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
            _ => 0,
        };
        let stat = file::statx(&number, c"")?;
        let is_data = stat.is(libc::S_IFREG) || stat.is(libc::S_IFBLK);
        let is_sealed = || fd::fcntl(&number, libc::F_GET_SEALS, 0).is_ok_and(|all| all & SEALS == SEALS);
        if rights & WRITE_FILE == 0 && is_data && is_writable(&number) && !is_sealed() {
            self.read_alone.push((number, stat));
            self.written_alone = Some(sys::landlock_create_ruleset(READ_FILE, 0, 0)?);
        }
        if rights == 0 || stat.is(libc::S_IFDIR) { Ok(()) } else { self.give(&number, rights) }
    }

    /// Grants `rights` to an open file with this path.
    fn give_at(&mut self, path: &Path, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        if rights & WRITE == WRITE {
            self.written.push(path.to_owned());
            let alone = self.written_alone.as_ref();
            alone.map_or(Ok(()), |alone| add_rule(alone, to, READ_FILE))?;
        }
        self.give(to, rights)
    }

    /// Grants `rights` to an open file: only those of a file if it is not a directory.
    fn give(&self, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
        let add = |rights| add_rule(&self.fd, to, rights & self.rights);
        match add(rights) {
            // `rights` include rights of a directory (landlock_append_fs_rule() in security/landlock/fs.c).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => add(rights & OF_A_FILE),
            // A file without a path (a pipe) is not restricted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(()),
            added => added,
        }
    }
}

fn add_rule(ruleset: &OwnedFd, to: &impl AsRawFd, rights: u64) -> io::Result<()> {
    sys::landlock_add_rule(ruleset, sys::LANDLOCK_RULE_PATH_BENEATH, to.as_raw_fd() as u64, rights)
}

/// Whether the mount of an open file is writable.
fn is_writable(opened: &impl AsRawFd) -> bool {
    file::fstatvfs(opened).is_ok_and(|flags| flags & libc::ST_RDONLY == 0)
}

const CANNOT: fn() -> &'static str = || "cannot open it";
const NOT_BELOW: &str =
    "Landlock cannot take a right away below: use a read-only mount (srt-mount --ro-bind)";
