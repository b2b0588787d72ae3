//! The mount table: /proc/self/mountinfo (proc_pid_mountinfo(5)) and /proc/self/mounts (proc_pid_mounts(5)).

use crate::procfs;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount, one line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The mount point, as seen from this process's root.
    pub point: PathBuf,
    /// Whether mounts propagate to others from it, or to it from others (mount_namespaces(7)).
    pub propagates: bool,
    /// Its file system type.
    pub kind: &'a [u8],
}

/// Reads a mount table below /proc in large pieces: for the kernel, a read(2) of a few bytes takes as long as one of a
/// page.
///
/// # Errors
/// The errno; ENOENT if no procfs is mounted.
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(16 << 10);
    procfs::open().and_then(|_| File::open(path))?.read_to_end(&mut text)?;
    Ok(text)
}

/// All mounts in mountinfo, in the kernel's order. `None` if the text is not in that format.
pub fn parse(text: &[u8]) -> Option<Vec<Mount<'_>>> {
    lines(text).map(mount).collect()
}

/// The mount points of the writable mounts in /proc/self/mounts. A line is
/// `/dev/root /mnt2 ext3 rw,noatime,errors=continue 0 0`, whose options begin with `ro` if the mount or its file system
/// is read-only (`show_vfsmnt()` in fs/proc_namespace.c). The kernel generates this file in two thirds of the time of
/// mountinfo. Other lines are ignored.
pub fn writable(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (point, options) = (fields.nth(1)?, fields.nth(1)?);
        (options.split(|&byte| byte == b',').next() == Some(b"rw")).then(|| path(point))
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// Parses `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = fields.nth(4)?;
    fields.next()?;
    // Any number of optional fields, `-`, and three more.
    let tags = fields.by_ref().take_while(|field| *field != b"-");
    let propagates =
        tags.filter(|tag| tag.starts_with(b"shared:") || tag.starts_with(b"master:")).count() > 0;
    let kind = fields.next()?;
    fields.nth(1)?;
    Some(Mount { point: path(point), propagates, kind })
}

/// Decodes a path: seq_path() in fs/seq_file.c writes a space, a tab, a line feed and a backslash as `\` and three
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

    #[test]
    fn a_mount_is_writable_if_its_first_option_says_so() {
        for (line, expected) in [
            ("/dev/root /a ext3 rw,noatime 0 0", &["/a"][..]),
            ("/dev/root /a ext3 rw 0 0", &["/a"]),
            ("/dev/root /a ext3 ro,x=1,rw 0 0", &[]),
            (" /a ext3 rw2,rw 0 0", &[]),
            (" /a ext3 rw 0 0\nnone /b\\040c fuse.x rw,ro 0 0\n", &["/a", "/b c"]),
            ("x /a ext3\nx\nx /b ext3 rw 0 0", &["/b"]),
            ("", &[]),
        ] {
            let points: Vec<_> = writable(line.as_bytes()).collect();
            assert_eq!(points, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn optional_fields_are_passed_over_and_a_source_may_be_a_dash_or_nothing() {
        let one = |line: &'static str| parse(line.as_bytes()).expect("a mount").remove(0);
        let line = "41 40 0:5 / /x ro shared:1 master:2 propagate_from:3 unbindable - tmpfs - rw";
        assert_eq!(one(line), Mount { point: "/x".into(), propagates: true, kind: b"tmpfs" });
        assert!(one("41 40 0:5 / /x ro master:2 - tmpfs - rw").propagates);
        assert!(!one("41 40 0:5 / /x ro unbindable - tmpfs shared:1 rw").propagates);
        assert_eq!(one("41 40 0:5 / /x rw - mqueue  rw").kind, b"mqueue");
    }

    #[test]
    fn what_is_no_mountinfo_is_refused_whole() {
        for bad in ["x", "1 2 3", "36 35 98:0 /a /b rw - ext3", "1 0 0:1 / /b rw", "1 0 0:1 / /b"] {
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
