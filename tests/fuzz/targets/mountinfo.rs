//! /proc/self/mountinfo: any bytes are read or refused whole, and a mount point of any bytes comes back from the form in
//! which the kernel writes it.

use srt_common::mountinfo::parse;
use std::os::unix::ffi::OsStrExt;

pub fn check(input: &[u8]) {
    if let Some(mounts) = parse(input) {
        let lines = input.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(mounts.len(), lines);
        assert!(mounts.iter().all(|mount| mount.point.as_os_str().len() <= input.len()));
    }
    let mut line = b"36 35 98:0 / ".to_vec();
    for &byte in input {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").bytes()),
            byte => line.push(byte),
        }
    }
    line.extend(b" rw,nodev shared:1 - tmpfs tmpfs rw\n");
    let mounts = parse(&line).expect("a mount");
    assert_eq!(mounts[0].point.as_os_str().as_bytes(), input);
    assert!(mounts[0].writable);
}
