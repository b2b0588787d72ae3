//! What a file tree looks like, as text that can be compared: one fact a line, each under a key of its own.
//!
//! The program `show-tree` prints it from inside a sandbox; tests use it for what is left on the host.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `PATH: what` → value.
pub type Facts = BTreeMap<String, String>;

/// Nothing larger is read.
const CONTENT: u64 = 64 * 1024;

/// File systems that are made of processes and devices, which no two runs show alike.
const ENDLESS: [libc::c_long; 2] = [0x9fa0 /* proc */, 0x6265_6572 /* sysfs */];

/// How a tree is walked.
#[derive(Debug, Default)]
pub struct Walk {
    /// Directories (device, inode) that are shown but not entered.
    pub stops: HashSet<(u64, u64)>,
    /// What is known so far.
    pub facts: Facts,
}

impl Walk {
    /// Notes everything at and below `path`, `depth` levels deep.
    pub fn below(&mut self, path: &Path, depth: usize) {
        let Some(meta) = self.one(path) else { return };
        let stop =
            self.stops.contains(&(meta.dev(), meta.ino())) || file_system(path).is_some_and(is_endless);
        if !meta.is_dir() || depth == 0 || stop {
            return;
        }
        match children(path) {
            Ok(children) => children.iter().for_each(|child| self.below(child, depth - 1)),
            Err(error) => self.note(path, "list", errno(&error)),
        }
    }

    /// Notes the names in a directory and nothing else.
    pub fn names(&mut self, path: &Path) {
        let name = |child: &PathBuf| child.file_name().map(|name| name.as_bytes().escape_ascii().to_string());
        let names = children(path).map(|all| all.iter().filter_map(name).collect::<Vec<_>>().join(" "));
        self.note(path, "names", names.unwrap_or_else(|error| errno(&error)));
    }

    /// Notes what one path is.
    pub fn one(&mut self, path: &Path) -> Option<fs::Metadata> {
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) => {
                self.note(path, "type", errno(&error));
                return None;
            }
        };
        let kind = meta.file_type();
        self.note(path, "type", kind_of(kind));
        self.note(path, "owner", format!("{}:{}", meta.uid(), meta.gid()));
        if kind.is_symlink() {
            let target =
                fs::read_link(path).map(|target| target.as_os_str().as_bytes().escape_ascii().to_string());
            self.note(path, "target", target.unwrap_or_else(|error| errno(&error)));
            return Some(meta);
        }
        self.note(path, "mode", format!("{:o}", meta.mode() & 0o7777));
        for (what, mode) in
            [("may read", libc::R_OK), ("may write", libc::W_OK), ("may search or run", libc::X_OK)]
        {
            self.note(path, what, access(path, mode));
        }
        self.note(path, "mount flags", file_system(path).map_or_else(String::new, |fs| flags(fs.flags)));
        if kind.is_file() {
            self.note(path, "content", content(path, &meta));
        }
        if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            self.note(path, "device", format!("{major}:{minor}"));
            // Memory devices alone: to open a terminal or a disk may do things.
            if kind.is_char_device() && major == 1 {
                self.note(path, "opens", opens(path));
            }
        }
        Some(meta)
    }

    fn note(&mut self, path: &Path, what: &str, value: impl Into<String>) {
        self.facts.insert(format!("{}: {what}", path.as_os_str().as_bytes().escape_ascii()), value.into());
    }
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

fn kind_of(kind: fs::FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "character device",
        () => "block device",
    }
}

fn content(path: &Path, meta: &fs::Metadata) -> String {
    if meta.len() > CONTENT {
        return format!("{} bytes", meta.len());
    }
    let mut bytes = vec![];
    match open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() <= 80 => bytes.escape_ascii().to_string(),
        // FNV-1a: enough to tell files apart.
        Ok(_) => format!(
            "{} bytes, {:x}",
            bytes.len(),
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        ),
        Err(error) => errno(&error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn opens(path: &Path) -> String {
    open(path).map_or_else(|error| errno(&error), |_| "yes".to_owned())
}

/// What the kernel says to faccessat(2): EROFS for what would be writable but for the mount.
fn access(path: &Path, mode: libc::c_int) -> String {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return "NUL".to_owned() };
    // SAFETY: `path` is a C string that outlives the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, 0) } {
        0 => "yes".to_owned(),
        _ => errno(&io::Error::last_os_error()),
    }
}

/// What statfs(2) and statvfs(3) tell of a path's mount.
#[derive(Clone, Copy, Debug)]
struct FileSystem {
    magic: libc::c_long,
    flags: u64,
}

fn file_system(path: &Path) -> Option<FileSystem> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes is a valid statfs.
    let mut of: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string and `of` a statfs, both of which outlive the call.
    let failed = unsafe { libc::statfs(path.as_ptr(), &raw mut of) } != 0;
    // SAFETY: all zeroes is a valid statvfs.
    let mut with: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let failed = failed || unsafe { libc::statvfs(path.as_ptr(), &raw mut with) } != 0;
    // The types differ between C libraries and architectures.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    let read = FileSystem { magic: of.f_type as libc::c_long, flags: with.f_flag as u64 };
    (!failed).then_some(read)
}

fn is_endless(fs: FileSystem) -> bool {
    ENDLESS.contains(&fs.magic)
}

/// relatime and its relatives are the host's choice and no protection; mountinfo shows them too.
fn flags(bits: u64) -> String {
    let names = [
        (libc::ST_RDONLY, "ro"),
        (libc::ST_NOSUID, "nosuid"),
        (libc::ST_NODEV, "nodev"),
        (libc::ST_NOEXEC, "noexec"),
    ];
    #[allow(clippy::unnecessary_cast)]
    let set = names.iter().filter(|(bit, _)| bits & *bit as u64 != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

/// An error's name for the errors that trees give, else its number.
pub fn errno(error: &io::Error) -> String {
    let names = [
        (libc::EACCES, "EACCES"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EISDIR, "EISDIR"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOENT, "ENOENT"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::ENXIO, "ENXIO"),
        (libc::EPERM, "EPERM"),
        (libc::EROFS, "EROFS"),
        (libc::EXDEV, "EXDEV"),
    ];
    let number = error.raw_os_error();
    let known = names.iter().find(|(code, _)| Some(*code) == number);
    known.map_or_else(|| format!("error {number:?}"), |(_, name)| (*name).to_owned())
}
