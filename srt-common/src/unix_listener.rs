//! A listening Unix socket with a name in the file system: made mode 0600, in place of a dead one at most, and
//! removed at the end if it still is the same.

use crate::{Context, Error, Result, sys};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's place: a directory that is held open, and a name in it. What happens to the directory's own path
/// changes nothing.
#[derive(Debug)]
pub struct Place {
    directory: File,
    name: PathBuf,
    inode: (u64, u64),
}

/// Connections that may wait to be accepted. socat's 5 makes parallel clients wait; net.core.somaxconn limits it.
const BACKLOG: i32 = 4096;

/// Makes the socket at `path` and listens.
///
/// # Errors
/// What the system says; a file of another kind, or a socket with somebody behind it, is left alone.
pub fn bind(path: &Path) -> Result<(UnixListener, Place)> {
    let name =
        path.file_name().ok_or_else(|| Error::failed(format!("{}: not a file name", path.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::from(
        sys::open_path(parent, libc::O_DIRECTORY).context(|| format!("cannot open {}", parent.display()))?,
    );
    // unix(7): 107 bytes at most, which a path through the descriptor keeps short.
    let address = through(&directory, name);
    let what = || format!("cannot listen on {}", path.display());
    let _lock = lock(&directory).map_err(|error| error.within(what()))?;
    let listener = match bind_private(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_dead(&directory, name, &address).map_err(|error| error.within(what()))?;
            bind_private(&address).context(what)?
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(Error::failed(format!("{}: the name is too long for a socket", what())));
        }
        bound => bound.context(what)?,
    };
    let inode = sys::inode(directory.as_fd(), name).context(what)?;
    let place = Place { directory, name: name.into(), inode };
    sys::listen(listener.as_fd(), BACKLOG).context(what).inspect_err(|_| place.remove())?;
    Ok((listener, place))
}

/// Binds a socket whose file has mode 0600 from the first moment. bind(2) applies the umask itself (`unix_bind_bsd`
/// in the kernel), so that it counts even in a directory with a default ACL, which takes the umask's place for
/// other files (acl(5)).
fn bind_private(address: &Path) -> io::Result<UnixListener> {
    sys::with_umask(0o177, || UnixListener::bind(address))
}

/// From the look at what is there until the new socket is in its place, nobody else does the same in this directory: two
/// who found the same dead socket would remove each other's new one, which may have its inode number. A directory that
/// cannot be read has no lock.
fn lock(directory: &File) -> Result<Option<File>> {
    let Ok(file) = File::open(through(directory, OsStr::new("."))) else { return Ok(None) };
    for _ in 0..200 {
        if file.try_lock().is_ok() {
            return Ok(Some(file));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::failed("another process keeps the directory locked"))
}

impl Place {
    /// Removes the socket, if the name still leads to the one that was made. Best effort: this is the end.
    pub fn remove(&self) {
        let name = self.name.as_os_str();
        if sys::inode(self.directory.as_fd(), name).is_ok_and(|inode| inode == self.inode) {
            let _gone = sys::unlink_at(self.directory.as_fd(), name);
        }
    }

    /// The directory's descriptor, for one who closes all others.
    pub fn descriptor(&self) -> i32 {
        self.directory.as_raw_fd()
    }
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_dead(directory: &File, name: &OsStr, address: &Path) -> Result<()> {
    let there = std::fs::symlink_metadata(address).context(|| "cannot look at what is there")?;
    if !there.file_type().is_socket() {
        return Err(Error::failed("something that is not a socket is there")
            .hint("remove it, or choose another path"));
    }
    // A datagram socket never waits for somebody to accept, and takes no place among those who do: where a socket of
    // another type is bound connect(2) says EPROTOTYPE, ECONNREFUSED where none is (`unix_find_bsd` in the kernel).
    match UnixDatagram::unbound().and_then(|socket| socket.connect(address)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => {
            return Err(Error::system("a socket is there", &error));
        }
        _ => return Err(Error::failed("somebody listens there already")),
    }
    // Between the look and the removal another may have taken the name: only what was looked at goes.
    if sys::inode(directory.as_fd(), name).is_ok_and(|inode| inode == (there.dev(), there.ino())) {
        sys::unlink_at(directory.as_fd(), name).context(|| "cannot remove a dead socket")?;
    }
    Ok(())
}

/// `name` in an open directory, as a path.
fn through(directory: &File, name: &OsStr) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.as_bytes());
    PathBuf::from(OsStr::from_bytes(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("srt-common-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    #[test]
    fn the_socket_is_private_and_removed() {
        let directory = directory("private");
        let path = directory.join("s");
        let (_listener, place) = bind(&path).expect("bind");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        place.remove();
        assert!(!path.exists());
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn a_dead_socket_is_replaced_a_living_one_is_not() {
        let directory = directory("dead");
        let path = directory.join("s");
        drop(UnixListener::bind(&path).expect("bind"));
        let (_living, _place) = bind(&path).expect("in place of a dead one");
        let error = bind(&path).expect_err("somebody is there");
        assert!(error.message.contains("somebody listens"), "{}", error.message);
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn one_whose_backlog_is_full_is_not_waited_for() {
        let directory = directory("full");
        let path = directory.join("s");
        let full = UnixListener::bind(&path).expect("bind");
        sys::listen(full.as_fd(), 0).expect("listen");
        let _waiting = std::os::unix::net::UnixStream::connect(&path).expect("the one that has a place");
        let error = bind(&path).expect_err("somebody is there");
        assert!(error.message.contains("somebody listens"), "{}", error.message);
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = directory("file");
        let path = directory.join("s");
        std::fs::write(&path, "precious").expect("write");
        let error = bind(&path).expect_err("a file is there");
        assert!(error.hint.is_some(), "{error:?}");
        assert_eq!(std::fs::read(&path).expect("there"), b"precious");
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn another_socket_of_the_same_name_is_not_removed() {
        let directory = directory("other");
        let path = directory.join("s");
        let (_listener, place) = bind(&path).expect("bind");
        std::fs::rename(&path, directory.join("away")).expect("rename");
        let _other = UnixListener::bind(&path).expect("another");
        place.remove();
        assert!(path.exists());
        std::fs::remove_dir_all(directory).expect("clean");
    }
}
