//! /proc/self/mountinfo (proc_pid_mountinfo(5)): which mounts there are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Its number, as statx(2) has it.
    pub id: u64,
    /// Where it is, seen from this process's root.
    pub point: PathBuf,
    /// Neither the mount nor its file system is read-only.
    pub writable: bool,
    /// It has peers: what is mounted in it appears there, too.
    pub shared: bool,
    /// The type of its file system.
    pub kind: &'a [u8],
}

/// What the kernel tells this process, in one piece: a read(2) of a few bytes costs it as much as one of a page.
///
/// # Errors
/// errno; ENOENT where no procfs is mounted.
pub fn read() -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(16 << 10);
    File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(text)
}

/// Every mount, in the kernel's order. `None` for what is no such file.
pub fn parse(text: &[u8]) -> Option<Vec<Mount<'_>>> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(mount).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (id, point, of_mount) = (fields.next()?, fields.nth(3)?, fields.next()?);
    // Any number of optional fields, `-`, and three more.
    let tags = fields.by_ref().take_while(|field| *field != b"-");
    let shared = tags.filter(|tag| tag.starts_with(b"shared:")).count() > 0;
    let (kind, of_file_system) = (fields.next()?, fields.nth(1)?);
    let is_writable = |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"rw");
    Some(Mount {
        id: std::str::from_utf8(id).ok()?.parse().ok()?,
        point: path(point),
        writable: is_writable(of_mount) && is_writable(of_file_system),
        shared,
        kind,
    })
}

/// The path in a field: mangle() of fs/proc_namespace.c writes a space, a tab, a line feed, a backslash and `#` as three
/// octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut pieces = field.split(|&byte| byte == b'\\');
    let mut bytes = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        if let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] = piece {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            bytes.extend(rest);
        } else {
            bytes.push(b'\\');
            bytes.extend(piece);
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn one(line: &str) -> Mount<'_> {
        parse(line.as_bytes()).expect("a mount").remove(0)
    }

    #[test]
    fn a_mount_is_writable_if_itself_and_its_file_system_are() {
        for (mount, file_system, writable) in [
            ("rw", "rw", true),
            ("rw,nosuid", "ro,rw2", false),
            ("ro", "rw", false),
            ("nosuid,rw", "x,rw", true),
        ] {
            let line = format!("36 35 98:0 /a /b {mount} - ext3 /dev/root {file_system}\n");
            assert_eq!(one(&line).writable, writable, "{line}");
        }
    }

    #[test]
    fn optional_fields_are_passed_over_and_a_source_may_be_a_dash_or_nothing() {
        let line = "41 40 0:5 / /x ro shared:1 master:2 propagate_from:3 unbindable - tmpfs - rw";
        let mount = Mount { id: 41, point: "/x".into(), writable: false, shared: true, kind: b"tmpfs" };
        assert_eq!(one(line), mount);
        assert!(!one("41 40 0:5 / /x ro master:2 - tmpfs shared:1 rw").shared);
        assert!(one("41 40 0:5 / /x rw - tmpfs  rw").writable);
    }

    #[test]
    fn what_is_no_mountinfo_is_refused_whole() {
        for bad in
            ["x", "1 2 3", "36 35 98:0 /a /b rw - ext3", "x 35 98:0 /a /b rw - ext3 s rw", "1 0 0:1 / /b rw"]
        {
            let text = format!("36 35 98:0 /a /b rw - ext3 s rw\n{bad}\n");
            assert_eq!(parse(text.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b""), Some(vec![]));
    }

    #[test]
    fn octal_escapes_are_the_byte_that_they_stand_for_and_nothing_else_is_touched() {
        for (written, meant) in [
            (r"/a\040b", &b"/a b"[..]),
            (r"/\011\012\134\043", b"/\t\n\\#"),
            (r"/\134040", br"/\040"),
            (r"/a\", br"/a\"),
            (r"/\08\400\0", br"/\08\400\0"),
            (r"/\377", b"/\xff"),
            (r"/a\040b\134\011", b"/a b\\\t"),
            (r"/a\9\", br"/a\9\"),
        ] {
            assert_eq!(path(written.as_bytes()).as_os_str().as_bytes(), meant, "{written}");
        }
    }
}
