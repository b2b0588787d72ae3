//! A listening Unix socket with a name in the file system: created with mode 0600, replaces only a dead one, and is
//! removed at the end if it is still the same.

use crate::sys::c_path;
use crate::sys::file::{FileId, open, openat, renameat2, statx, umask, unlinkat};
use crate::sys::socket::{self, SocketAddress, connect, listen, socket};
use crate::unique_name::token;
use crate::{Context, Error, Result, unix_socket};
use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The place of the socket: an open directory, and a name in it. It does not depend on the directory's own path.
#[derive(Debug)]
pub struct SocketPath {
    /// The directory.
    pub directory: OwnedFd,
    name: CString,
    /// The identity of the socket's file.
    pub id: FileId,
}

/// A listening socket, and the identity of its file.
type Bound = (OwnedFd, FileId);

/// How many connections may wait to be accepted; net.core.somaxconn limits it. With socat's 5, parallel clients wait.
pub const BACKLOG: i32 = 4096;

/// How many attempts are made while other processes change the entry.
const TRIES: u32 = 100;

/// Creates the socket at `path` and listens. A link at `path` itself is not followed.
///
/// There is no lock: a lock that two starting processes can take can be held by others (flock(2) needs only a
/// descriptor, and another user may be able to read the directory, or a sandbox to which it is read-only).
///
/// # Errors
/// Any error from the kernel. A file of another kind, or a socket with a listener, is left alone.
pub fn bind(path: &Path) -> Result<(OwnedFd, SocketPath)> {
    // A path that ends in a slash, or in `/.`, is a directory.
    let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let name = name.ok_or_else(|| Error::failed(format!("{}: not a file name", path.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = open(parent, libc::O_PATH | libc::O_DIRECTORY);
    let directory = directory.context(|| format!("cannot open {}", parent.display()))?;
    let what = || format!("cannot listen on {}", path.display());
    let name = c_path(name).context(what)?;
    for _ in 0..TRIES {
        let socket = match listen_at(&directory, &name) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                replace(&directory, &name).map_err(|error| error.within(what()))?
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(Error::failed(format!("{}: the name is too long for a socket", what())));
            }
            bound => Some(bound.context(what)?),
        };
        if let Some((socket, id)) = socket {
            return Ok((socket, SocketPath { directory, name, id }));
        }
    }
    Err(Error::failed(format!("{}: other processes keep changing what is there", what())))
}

impl SocketPath {
    /// Removes the socket, if the name still leads to the one that was created. Both system calls are in srt-relay's
    /// allow-list.
    ///
    /// # Errors
    /// The errno: the socket is gone, or stays.
    pub fn remove(&self) -> io::Result<()> {
        match statx(&self.directory, &self.name)?.id == self.id {
            true => unlinkat(&self.directory, &self.name, 0),
            false => Ok(()),
        }
    }
}

/// Creates a listening socket at a free name. The file has mode 0600 from the start: bind(2) applies the umask itself
/// (`unix_bind_bsd` in net/unix/af_unix.c), so that it takes effect even in a directory with a default ACL, which
/// replaces the umask for other files (acl(5)).
fn listen_at(directory: &OwnedFd, name: &CStr) -> io::Result<Bound> {
    // unix(7) has room for 107 bytes, so the path goes through the directory's descriptor.
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    let address = SocketAddress::unix(&path).ok_or(ErrorKind::InvalidInput)?;
    let socket = socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
    unix_socket::refuse_descriptors(&socket);
    let mask = umask(0o177);
    let bound = socket::bind(&socket, &address);
    umask(mask);
    bound?;
    let listening = statx(directory, name).and_then(|stat| listen(&socket, BACKLOG).map(|()| stat.id));
    let id = listening.inspect_err(|_| drop(unlinkat(directory, name, 0)))?;
    Ok((socket, id))
}

/// Replaces a dead socket, and nothing else, by a new one. `None`: the old one is gone; try again.
///
/// Two processes that find the same dead socket must not both replace it, or remove each other's. So the new one is
/// created under a private name, and the two names are exchanged: the process that then holds the dead socket has won.
/// A process that holds anything else has displaced a winner, and exchanges again until it holds its own socket.
fn replace(directory: &OwnedFd, name: &CStr) -> Result<Option<Bound>> {
    // Open until the end, so that its inode number is not reused.
    let there = match openat(directory, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.context(|| "cannot look at what is there")?,
    };
    let dead = statx(&there, c"").context(|| "cannot look at what is there")?;
    if !dead.is(libc::S_IFSOCK) {
        return Err(Error::failed("something that is not a socket is there")
            .hint("remove it, or choose another path"));
    }
    let what = || "cannot make a socket beside a dead one";
    let private = c_path(format!(".srt-{}", token())).context(what)?;
    let made = listen_at(directory, &private).context(what)?;
    let won = must_be_dead(&there).and_then(|()| exchange(directory, name, &private, made.1, dead.id));
    // The private name is now that of this process's own socket, or of the dead one.
    let _gone = unlinkat(directory, &private, 0);
    won.map(|won| won.then_some(made))
}

/// A datagram socket never waits to be accepted and takes no place in a backlog: connect(2) fails with EPROTOTYPE if a
/// socket of another type is bound, and with ECONNREFUSED if none is (`unix_find_bsd`).
///
/// That none will be bound later is certain only after another bind(2) in the directory: bind(2) creates the inode, and
/// assigns it to the socket before it unlocks the directory (`unix_bind_bsd`).
fn must_be_dead(there: &OwnedFd) -> Result<()> {
    let address = unix_socket::address(there)?;
    let probe = socket(libc::AF_UNIX, libc::SOCK_DGRAM).context(|| "socket")?;
    match connect(&probe, &address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => {
            Err(Error::system("a socket is there", &error))
        }
        _ => Err(another_listens()),
    }
}

fn another_listens() -> Error {
    Error::failed("another process listens there already")
}

/// False: nothing exists at `name` any more.
fn exchange(directory: &OwnedFd, name: &CStr, private: &CStr, own: FileId, dead: FileId) -> Result<bool> {
    let look = || statx(directory, private).context(|| "cannot look at a socket").map(|stat| stat.id);
    for _ in 0..TRIES {
        match renameat2(directory, private, name, libc::RENAME_EXCHANGE) {
            Err(error) if error.kind() == ErrorKind::NotFound && look()? == own => return Ok(false),
            exchanged => exchanged
                .context(|| "cannot replace a dead socket")
                .map_err(|error| error.hint("remove it, or choose another path"))?,
        }
        match look()? {
            held if held == dead => return Ok(true),
            held if held == own => return Err(another_listens()),
            _ => {}
        }
    }
    Err(another_listens())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::Mutex;

    /// The umask belongs to the process, and tests are threads of it.
    static UMASK: Mutex<()> = Mutex::new(());

    fn bind(path: &Path) -> Result<(OwnedFd, SocketPath)> {
        let _one = UMASK.lock();
        super::bind(path)
    }

    fn directory(test: &str) -> PathBuf {
        let _one = UMASK.lock();
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
        place.remove().expect("removed");
        assert!(!path.exists());
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn a_directory_s_name_is_no_socket_s() {
        let directory = directory("slash");
        for path in ["new/", "new/.", "new//", "..", "/"].map(|end| directory.join(end)) {
            let error = bind(&path).expect_err("no name");
            assert!(error.message.ends_with(": not a file name"), "{}", error.message);
        }
        assert!(std::fs::read_dir(&directory).expect("read").next().is_none());
    }

    #[test]
    fn a_dead_socket_is_replaced_a_living_one_is_not() {
        let directory = directory("dead");
        let path = directory.join("s");
        drop(UnixListener::bind(&path).expect("bind"));
        let (_living, _place) = bind(&path).expect("in place of a dead one");
        let error = bind(&path).expect_err("somebody is there");
        assert!(error.message.contains("another process listens"), "{}", error.message);
        std::fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn one_whose_backlog_is_full_is_not_waited_for() {
        let directory = directory("full");
        let path = directory.join("s");
        let full = UnixListener::bind(&path).expect("bind");
        listen(&full, 0).expect("listen");
        let _waiting = std::os::unix::net::UnixStream::connect(&path).expect("the one that has a place");
        let error = bind(&path).expect_err("somebody is there");
        assert!(error.message.contains("another process listens"), "{}", error.message);
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
        place.remove().expect("removed");
        assert!(path.exists());
        std::fs::remove_dir_all(directory).expect("clean");
    }
}
