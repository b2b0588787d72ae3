//! /proc/self/mountinfo and /proc/self/mounts: any bytes are read or refused whole, and a mount point of any bytes comes
//! back from the form in which the kernel writes it.

use srt_common::mountinfo::{parse, writable};
use std::os::unix::ffi::OsStrExt;

pub fn check(input: &[u8]) {
    let lines = || input.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    if let Some(mounts) = parse(input) {
        assert_eq!(mounts.len(), lines().count());
        assert!(mounts.iter().all(|mount| mount.point.as_os_str().len() <= input.len()));
    }
    let points: Vec<_> = writable(input).collect();
    assert!(points.len() <= lines().filter(|line| line.windows(3).any(|part| part == b" rw")).count());
    assert!(points.iter().all(|point| point.as_os_str().len() <= input.len()));
    let mut escaped = vec![];
    for &byte in input {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => escaped.extend(format!("\\{byte:03o}").bytes()),
            byte => escaped.push(byte),
        }
    }
    let line = [b"36 35 98:0 / ", &*escaped, b" rw,nodev shared:1 - tmpfs tmpfs rw\n"].concat();
    assert_eq!(parse(&line).expect("a mount")[0].point.as_os_str().as_bytes(), input);
    let line = [b"tmpfs ", &*escaped, b" tmpfs rw,nodev 0 0\n"].concat();
    assert_eq!(writable(&line).next().expect("a mount").as_os_str().as_bytes(), input);
}
