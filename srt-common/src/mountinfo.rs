//! /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The path in a field: mangle() of fs/proc_namespace.c writes a space, a tab, a line feed, a backslash and `#` as three
/// octal digits.
pub fn path(field: &[u8]) -> PathBuf {
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
