//! Why execve(2) fails with ENOENT for an existing file: its interpreter does not exist (execve(2), ERRORS).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind::NotFound;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The cause as text, if the interpreter of the file at `path` does not exist. An interpreter may itself be a script.
pub fn missing(path: &Path) -> Option<String> {
    let mut path = path.to_path_buf();
    // fs/exec.c exec_binprm() follows no more levels.
    for _ in 0..5 {
        if let Some(target) = missing_target(&path) {
            let (path, target) = (path.display(), target.display());
            return Some(format!("{path} is a symbolic link to {target}, which is not there"));
        }
        // Anything except a regular file may be endless.
        let file = fs::metadata(&path).is_ok_and(|meta| meta.is_file()).then(|| File::open(&path))?.ok()?;
        let mut head = [0; 4096];
        let length = file.read_at(&mut head, 0).ok()?;
        let (kind, interpreter) = match interpreter(head.get(..length)?)? {
            Interpreter::Script(path) => ("#! interpreter", PathBuf::from(OsStr::from_bytes(path))),
            Interpreter::Shell => ("shell (it has no #! line)", PathBuf::from("/bin/sh")),
            Interpreter::Loader(offset, length) => {
                let mut path = vec![0; length.min(libc::PATH_MAX as usize)];
                file.read_exact_at(&mut path, offset).ok()?;
                let path = path.split(|&byte| byte == 0).next()?;
                ("loader", PathBuf::from(OsStr::from_bytes(path)))
            }
        };
        if fs::metadata(&interpreter).is_err_and(|error| error.kind() == NotFound) {
            let (path, interpreter) = (path.display(), interpreter.display());
            return Some(format!("{path} is there, but its {kind} {interpreter} is not"));
        }
        path = interpreter;
    }
    None
}

/// The target of the last of the symbolic links that begin at `path`, if it does not exist.
fn missing_target(path: &Path) -> Option<PathBuf> {
    let target = |link: &Path| fs::read_link(link).ok().map(|target| link.with_file_name(target));
    // path_resolution(7): MAXSYMLINKS.
    let end = iter::successors(target(path), |link| target(link)).take(40).last()?;
    fs::symlink_metadata(&end).is_err_and(|error| error.kind() == NotFound).then_some(end)
}

#[derive(Debug, PartialEq, Eq)]
enum Interpreter<'a> {
    Script(&'a [u8]),
    /// execvp(3) executes the file with the shell.
    Shell,
    /// The path is a string in the file: its offset and its length.
    Loader(u64, usize),
}

/// Identifies the interpreter by the first bytes of a script (fs/binfmt_script.c) or program (elf(5)). `None`: a static
/// program.
fn interpreter(head: &[u8]) -> Option<Interpreter<'_>> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line).trim_ascii_start();
        let path = line.split(|byte| b" \t\0".contains(byte)).next().unwrap_or(line);
        return Some(Interpreter::Script(path));
    }
    match head.get(..5) {
        Some(b"\x7fELF\x02") => loader(head, [(32, 8), (54, 2), (56, 2), (8, 8), (32, 8)]),
        Some(b"\x7fELF\x01") => loader(head, [(28, 4), (42, 2), (44, 2), (4, 4), (16, 4)]),
        _ => Some(Interpreter::Shell),
    }
}

/// The offset of a number in a header, and its size.
type Field = (usize, usize);

/// PT_INTERP of a little-endian ELF file. The fields: e_phoff, e_phentsize, e_phnum; p_offset, p_filesz of a program
/// header.
fn loader(head: &[u8], [table, entry, count, offset, length]: [Field; 5]) -> Option<Interpreter<'static>> {
    const PT_INTERP: u64 = 3;
    let number = |base: usize, (at, size): Field| {
        let bytes = head.get(base.checked_add(at)?..)?.get(..size)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (table, entry) = (usize::try_from(number(0, table)?).ok()?, usize::try_from(number(0, entry)?).ok()?);
    for n in 0..usize::try_from(number(0, count)?).ok()? {
        let base = table.checked_add(n * entry)?;
        if number(base, (0, 4))? == PT_INTERP {
            let length = usize::try_from(number(base, length)?).ok()?;
            return Some(Interpreter::Loader(number(base, offset)?, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_script_is_its_interpreter() {
        for (head, path) in [
            (&b"#!/bin/sh\nx"[..], &b"/bin/sh"[..]),
            (b"#! \t/usr/bin/env python3\n", b"/usr/bin/env"),
            (b"#!/bin/sh\r\n", b"/bin/sh\r"),
            (b"#!/no-newline", b"/no-newline"),
            (b"#!", b""),
        ] {
            assert_eq!(interpreter(head), Some(Interpreter::Script(path)));
        }
        assert_eq!(interpreter(b"echo x\n"), Some(Interpreter::Shell));
        assert_eq!(interpreter(b""), Some(Interpreter::Shell));
    }

    /// A header whose only program header is at 64.
    fn elf(class: u8, kind: u8) -> Vec<u8> {
        let mut head = vec![0; 200];
        head[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
        let (table, entry, count, offset, length) =
            if class == 2 { (32, 54, 56, 8, 32) } else { (28, 42, 44, 4, 16) };
        (head[table], head[entry], head[count]) = (64, 56, 1);
        (head[64], head[64 + offset + 1], head[64 + length]) = (kind, 3, 28);
        head
    }

    #[test]
    fn the_loader_of_either_class_is_found_and_a_static_program_has_none() {
        for class in [1, 2] {
            assert_eq!(interpreter(&elf(class, 3)), Some(Interpreter::Loader(0x300, 28)));
            assert_eq!(interpreter(&elf(class, 1)), None);
        }
    }

    #[test]
    fn whatever_the_bytes_are_they_are_read_within_their_bounds() {
        for class in [1, 2] {
            let whole = elf(class, 3);
            for length in 0..whole.len() {
                let _any = interpreter(&whole[..length]);
            }
            for at in 5..whole.len() {
                let mut wild = whole.clone();
                wild[at..(at + 8).min(whole.len())].fill(0xff);
                let _any = interpreter(&wild);
            }
        }
    }
}
