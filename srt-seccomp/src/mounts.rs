//! /proc/self/mountinfo (proc_pid_mountinfo(5)): which mounts there are, and which of them can be written.

use srt_common::mountinfo;
use std::path::PathBuf;

/// A mount, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as statx(2) has it.
    pub id: u64,
    /// Where it is, seen from this process's root.
    pub point: PathBuf,
    /// Neither the mount nor its file system is read-only.
    pub writable: bool,
}

/// Every mount, in the kernel's order. `None` for what is no such file.
pub fn parse(text: &[u8]) -> Option<Vec<Mount>> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(mount).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let id = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
    // Any number of optional fields, `-`, and three more.
    let separator = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    let (of_mount, of_file_system) = (fields.get(5)?, fields.get(separator + 3)?);
    let is_writable = |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"rw");
    let writable = is_writable(of_mount) && is_writable(of_file_system);
    Some(Mount { id, point: mountinfo::path(fields.get(4)?), writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Mount {
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
        assert_eq!(one(line), Mount { id: 41, point: "/x".into(), writable: false });
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
}
