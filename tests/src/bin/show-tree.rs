//! Prints what the process that runs it sees: its file tree, its mounts, and what some writes lead to. Static, so
//! that it runs in a root with nothing else in it.
//!
//!     show-tree [stop DEV:INO]… [below PATH DEPTH]… [at PATH]… [names PATH]… [mounts FD] [do VERB PATH]… [drop]
//!
//! The words are obeyed in order. `mounts FD` reads `self/mountinfo` below FD, an open /proc, since the
//! sandbox may have none. `drop` gives up all capabilities. The last line is `end`.

use srt_tests::tree::{Walk, errno};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::path::Path;

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let mut walk = Walk::default();
    let mut lines = vec![];
    let cwd = std::env::current_dir().map_or_else(|error| errno(&error), |cwd| cwd.display().to_string());
    let pwd = std::env::var("PWD").unwrap_or_default();
    lines.push(format!("fact\tworking directory: path\t{cwd}"));
    lines.push(format!("fact\tworking directory: PWD\t{pwd}"));
    while let Some(word) = words.next() {
        let mut next = || words.next().ok_or_else(|| io::Error::other(format!("{word}: a word is missing")));
        match word.as_str() {
            "stop" => {
                let pair = next()?;
                let (device, inode) = pair.split_once(':').ok_or_else(|| io::Error::other("stop"))?;
                walk.stops.insert((number(device)?, number(inode)?));
            }
            "below" => {
                let path = next()?;
                walk.below(Path::new(&path), usize::try_from(number(&next()?)?).map_err(io::Error::other)?);
            }
            "names" => walk.names(Path::new(&next()?)),
            "at" => {
                walk.one(Path::new(&next()?));
            }
            "mounts" => {
                let fd = i32::try_from(number(&next()?)?).map_err(io::Error::other)?;
                lines.extend(mountinfo(fd)?.lines().map(|line| format!("mount\t{line}")));
            }
            "do" => {
                let (verb, path) = (next()?, next()?);
                let done =
                    act(&verb, Path::new(&path)).map_or_else(|error| errno(&error), |()| "done".to_owned());
                lines.push(format!("fact\t{path}: {verb}\t{done}"));
            }
            "drop" => drop_capabilities()?,
            _ => return Err(io::Error::other(format!("{word}?"))),
        }
    }
    lines.extend(walk.facts.iter().map(|(key, value)| format!("fact\t{key}\t{value}")));
    lines.push("end\n".to_owned());
    io::stdout().write_all(lines.join("\n").as_bytes())
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::other(format!("{text}: not a number")))
}

fn act(verb: &str, path: &Path) -> io::Result<()> {
    let aside = path.with_extension("aside");
    match verb {
        "create" => File::options().write(true).create_new(true).open(path)?.write_all(b"made inside"),
        "overwrite" => File::options().write(true).truncate(true).open(path)?.write_all(b"changed inside"),
        "mkdir" => fs::create_dir(path),
        "unlink" => fs::remove_file(path),
        "rmdir" => fs::remove_dir(path),
        // Renames there and back, so that one word shows only whether it can be done.
        "rename" => fs::rename(path, &aside).and_then(|()| fs::rename(&aside, path)),
        "chmod" => fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)),
        _ => Err(io::Error::other(format!("{verb}?"))),
    }
}

fn mountinfo(proc_fd: i32) -> io::Result<String> {
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::openat(proc_fd, c"self/mountinfo".as_ptr(), libc::O_RDONLY) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut text = String::new();
    // SAFETY: `fd` was opened above and belongs to nobody else.
    unsafe { File::from_raw_fd(fd) }.read_to_string(&mut text)?;
    Ok(text)
}

fn drop_capabilities() -> io::Result<()> {
    // capget(2): version 3, two sets of 32 bits each.
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    // SAFETY: the header and the data have the layout that capset(2) describes for version 3.
    match unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
