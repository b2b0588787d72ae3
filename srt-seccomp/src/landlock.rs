//! landlock(7): what PROGRAM may do with files, whatever their modes and mounts say, and which TCP ports and Unix sockets
//! it may connect to.
//!
//! A rule gives rights to a file, or to a directory with all below it, mounts included; nothing takes rights away
//! again further down. So a read-only mount below a writable one is as read-only as the mount makes it, and no more.

use crate::load::reaches_the_kernel;
use crate::mounts::{self, Mount};
use srt_common::sys::landlock as sys;
use srt_common::sys::{fd, file};

use srt_common::sys::c_path;
use srt_common::{Context, Error, Result};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

/// What the user asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--landlock`: the rights that the mounts give.
    pub mounts: bool,
    /// `--read`
    pub read: Vec<PathBuf>,
    /// `--write`
    pub write: Vec<PathBuf>,
    /// `--unix`
    pub unix: Vec<PathBuf>,
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

/// What programs open whatever they do: the nodes that srt-mount's `--dev` makes.
const NODES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

impl Wanted {
    /// The ruleset, or `None` if nothing is asked for. `fds` are the descriptors that PROGRAM gets. All paths are opened
    /// here, before anything is restricted.
    ///
    /// # Errors
    /// A path that is not there; what this kernel's Landlock cannot do: nothing weaker takes its place.
    pub fn ruleset(&self, fds: &[RawFd]) -> Result<Option<Ruleset>> {
        let by_path = !self.read.is_empty() || !self.write.is_empty();
        let (files, unix, tcp) =
            (self.mounts || by_path, !self.unix.is_empty(), !self.connect_tcp.is_empty());
        let needs = [
            (unix, "--unix", 9, "7.1"),
            (self.mounts, "--landlock", 5, "6.10"),
            (!self.read.is_empty(), "--read", 5, "6.10"),
            (!self.write.is_empty(), "--write", 5, "6.10"),
            (tcp, "--connect-tcp", 4, "6.7"),
        ];
        let Some(&(_, option, least, linux)) = needs.iter().find(|need| need.0) else { return Ok(None) };
        let what = || format!("{option}: landlock_create_ruleset");
        let off =
            "Landlock is off in this kernel (lsm= on its command line), or a container's profile hides it";
        let abi = sys::landlock_create_ruleset_version().context(what).map_err(|error| error.hint(off))?;
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
        let fd = sys::landlock_create_ruleset(&attr).context(what)?;
        let ruleset = Ruleset { fd, files: attr.handled_access_fs };

        let mounts = if by_path || !files && !unix { vec![] } else { read_mounts(option)? };
        if by_path {
            for node in NODES {
                ruleset.add(Path::new(node), DEVICE, |_| true)?;
            }
        } else if self.mounts {
            ruleset.add_mounts(&mounts)?;
        } else if unix {
            ruleset.add(Path::new("/"), REFER, |_| true)?;
        }
        if files {
            for fd in fds {
                ruleset.add_open(*fd)?;
            }
        }
        // Where PROGRAM, and so an earlier run of it, may put a link.
        let written: Vec<PathBuf> = self.write.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let untrusted = |directory: &Path| {
            let mount =
                c_path(directory).and_then(|path| file::statx(&file::CWD, &path)).map(|stat| stat.mount);
            written.iter().any(|above| directory.starts_with(above))
                || mounts.iter().any(|m| m.writable && mount.as_ref().map_or(true, |mount| m.id == *mount))
        };
        for (option, paths, rights) in [
            ("--read", &self.read, READ),
            ("--write", &self.write, WRITE),
            ("--unix", &self.unix, RESOLVE_UNIX),
        ] {
            for path in paths {
                let added = ruleset.add_named(path, rights, &untrusted);
                added.map_err(|error| error.within(format!("{option} {}", path.display())).path(path))?;
            }
        }
        for &port in &self.connect_tcp {
            sys::landlock_add_rule_port(&ruleset.fd, port, CONNECT_TCP)
                .context(|| format!("--connect-tcp {port}: landlock_add_rule"))?;
        }
        Ok(Some(ruleset))
    }
}

/// What is about to be enforced.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    /// The rights to files that are denied unless they are given.
    files: u64,
}

impl Ruleset {
    /// Restricts this process and all that it becomes.
    ///
    /// # Errors
    /// What the kernel says; and when it is not the kernel that answers.
    pub fn restrict(&self) -> Result<()> {
        reaches_the_kernel(sys::landlock_restrict_self(&-1), libc::EBADF)
            .and_then(|()| sys::landlock_restrict_self(&self.fd))
            .context(|| "landlock_restrict_self")
    }

    /// Gives the rights that the mounts give. A mount that another one hides gives none.
    fn add_mounts(&self, mounts: &[Mount]) -> Result<()> {
        self.add(Path::new("/"), READ, |_| true)?;
        self.add(Path::new("/dev"), IOCTL_DEV, |_| true)?;
        // What is below a directory has its rights: a mount below one that was given them needs no rule.
        let mut sorted: Vec<&Mount> = mounts.iter().collect();
        sorted.sort_by_key(|mount| &mount.point);
        let mut above = None;
        for mount in sorted {
            if above.is_some_and(|above| mount.point.starts_with(above)) {
                continue;
            }
            if mount.writable && self.add(&mount.point, WRITE, |stat| stat.mount == mount.id)? {
                above = Some(&mount.point);
            } else if mount.devices && mount.point.starts_with("/dev") {
                // A node that is a mount of its own, as `--dev` makes them: a device is written whatever its mount says.
                self.add(&mount.point, DEVICE, |stat| stat.mount == mount.id && stat.is(libc::S_IFCHR))?;
            }
        }
        Ok(())
    }

    /// Gives `rights` to `path`, if this user reaches it and it is what is meant: whether that is so.
    fn add(&self, path: &Path, rights: u64, meant: impl Fn(&file::Stat) -> bool) -> Result<bool> {
        let what = || format!("cannot open {}", path.display());
        let path = c_path(path).context(what)?;
        match file::openat(&file::CWD, &path, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Err(error)
                if [libc::ENOENT, libc::ENOTDIR, libc::EACCES].map(Some).contains(&error.raw_os_error()) =>
            {
                Ok(false)
            }
            opened => opened.and_then(|opened| self.give(&opened, rights, meant)).context(what),
        }
    }

    /// Gives `rights` to a path that the user names.
    fn add_named(&self, path: &Path, rights: u64, untrusted: &dyn Fn(&Path) -> bool) -> Result<bool> {
        let directory = std::env::current_dir().context(|| "getcwd")?;
        let path = if path == "" { Err(io::Error::from_raw_os_error(libc::ENOENT)) } else { Ok(path) };
        let real = without_links(directory, path.context(CANNOT)?, untrusted, 40)?;
        let rights = if real.starts_with("/dev") { rights | IOCTL_DEV } else { rights };
        // Whoever has put a link there since then gains nothing.
        c_path(&real)
            .and_then(|path| file::openat2(&file::CWD, &path, libc::O_PATH, libc::RESOLVE_NO_SYMLINKS))
            .and_then(|opened| self.give(&opened, rights, |_| true))
            .context(CANNOT)
    }

    /// Lets what a descriptor is open on be opened again (/dev/stdin, /proc/self/fd/0) for no more than it is open for.
    /// A directory gives nothing.
    fn add_open(&self, number: RawFd) -> Result<bool> {
        let add = || {
            let open = fd::borrowed(number)?;
            let rights = match fd::fcntl_getfl(&open)? & (libc::O_ACCMODE | libc::O_PATH) {
                libc::O_RDONLY => READ_FILE,
                libc::O_WRONLY => WRITE_FILE | TRUNCATE,
                libc::O_RDWR => READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
                _ => return Ok(false),
            };
            self.give(&open, rights, |stat| !stat.is(libc::S_IFDIR))
        };
        add().context(|| format!("descriptor {number}"))
    }

    fn give(&self, to: &impl AsRawFd, rights: u64, meant: impl Fn(&file::Stat) -> bool) -> io::Result<bool> {
        let stat = file::statx(to, c"")?;
        if !meant(&stat) {
            return Ok(false);
        }
        let fitting = if stat.is(libc::S_IFDIR) { self.files } else { self.files & OF_A_FILE };
        match sys::landlock_add_rule_path(&self.fd, to, rights & fitting) {
            // It has no path (a pipe), and is not restricted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(true),
            result => result.map(|()| true),
        }
    }
}

fn read_mounts(option: &str) -> Result<Vec<Mount>> {
    let what = || format!("{option}: cannot read /proc/self/mountinfo");
    // The kernel gives a page at a time, and std asks for less unless there is room.
    let mut text = Vec::with_capacity(1 << 16);
    fs::File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut text)).context(what)?;
    mounts::parse(&text).ok_or_else(|| Error::failed(what()))
}

const CANNOT: fn() -> &'static str = || "cannot open it";

/// `path`, seen from `directory`, without the symbolic links on its way. None of them may stand where it is not trusted:
/// it could lead anywhere (the kind of CVE-2024-42472).
fn without_links(
    directory: PathBuf,
    path: &Path,
    untrusted: &dyn Fn(&Path) -> bool,
    depth: u32,
) -> Result<PathBuf> {
    path.components().try_fold(directory, |mut real, part| {
        match part {
            Component::RootDir => real = PathBuf::from("/"),
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => match fs::read_link(real.join(name)) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => real.push(name),
                Ok(target) if untrusted(&real) => {
                    let link = real.join(name);
                    let error = format!("{} is a symbolic link that PROGRAM may replace", link.display());
                    let hint = format!("name what it leads to, if that is meant: {}", target.display());
                    return Err(Error::failed(error).hint(hint));
                }
                Ok(target) if depth > 0 => return without_links(real, &target, untrusted, depth - 1),
                target => {
                    let error = target.err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::ELOOP));
                    return Err(Error::system(CANNOT(), &error));
                }
            },
            _ => {}
        }
        Ok(real)
    })
}
