//! The kernel's keyrings.

use crate::sys::{c, open, sys};
use crate::{Outcome, number};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

const KEY_SPEC_SESSION_KEYRING: i32 = -3;
const KEY_SPEC_USER_KEYRING: i32 = -4;
const JOIN_SESSION_KEYRING: i32 = 1;
const SETPERM: i32 = 5;
const UNLINK: i32 = 9;
const SEARCH: i32 = 10;
const READ: i32 = 11;
/// What the caller keeps.
const SECRET: &str = "secret of the caller";

pub fn attack(words: &[&str]) -> Option<Outcome> {
    Some(match *words {
        // Not an attack: runs the rest of the words with a key in a new session keyring, its number in $KEY.
        ["with-key", ref command @ ..] => with_key(command),
        ["key-by-name"] => {
            let (kind, name) = (c"user", c"srt-attack");
            sys!(libc::SYS_keyctl, SEARCH, KEY_SPEC_SESSION_KEYRING, kind, name, 0).and_then(read_key)
        }
        ["key-by-number"] => {
            let number = number(&std::env::var("KEY").expect("KEY is set"));
            read_key(number as i64)
        }
        ["request-key"] => sys!(libc::SYS_request_key, c"user", c"srt-attack", 0, 0).and_then(read_key),
        ["add-key"] => {
            let (text, ring) = (c("x"), KEY_SPEC_USER_KEYRING);
            sys!(libc::SYS_add_key, c"user", c"srt-attack-added", text.as_ptr(), 1, ring).map(|key| {
                let _tidy = sys!(libc::SYS_keyctl, UNLINK, key, ring);
                "added".into()
            })
        }
        // Not an attack: adds a key to a file system, and encrypts an empty directory with it.
        ["encrypt", directory] => encrypt(directory),
        // Takes the key of an encrypted directory away.
        ["lock", directory] => lock(directory),
        _ => return None,
    })
}

// linux/fscrypt.h. The key's specifier: what kind of name, 4 bytes of nothing, and the name.
const ADD_ENCRYPTION_KEY: u64 = 0xc050_6617;
const REMOVE_ENCRYPTION_KEY: u64 = 0xc040_6618;
const SET_ENCRYPTION_POLICY: u64 = 0x800c_6613;
const GET_ENCRYPTION_POLICY_EX: u64 = 0xc009_6616;
const IDENTIFIER: u8 = 2;

fn encrypt(directory: &str) -> Outcome {
    let fd = open(directory, libc::O_RDONLY)?;
    // struct fscrypt_add_key_arg, and a key of 64 bytes.
    let mut key = [0_u8; 80 + 64];
    (key[0], key[40]) = (IDENTIFIER, 64);
    key[80..].fill(7);
    sys!(libc::SYS_ioctl, fd.as_raw_fd(), ADD_ENCRYPTION_KEY, key.as_mut_ptr())?;
    // struct fscrypt_policy_v2: AES-256-XTS, AES-256-CTS, padding 32.
    let policy = [&[2, 1, 4, 3, 0, 0, 0, 0][..], &key[8..24]].concat();
    sys!(libc::SYS_ioctl, fd.as_raw_fd(), SET_ENCRYPTION_POLICY, policy.as_ptr()).map(|_| "encrypted".into())
}

fn lock(directory: &str) -> Outcome {
    let fd = open(directory, libc::O_RDONLY)?;
    // struct fscrypt_get_policy_ex_arg: the room for the policy, and the policy.
    let mut policy = [0_u8; 32];
    policy[0] = 24;
    sys!(libc::SYS_ioctl, fd.as_raw_fd(), GET_ENCRYPTION_POLICY_EX, policy.as_mut_ptr())?;
    // struct fscrypt_remove_key_arg.
    let mut key = [0_u8; 64];
    key[0] = IDENTIFIER;
    key[8..24].copy_from_slice(&policy[16..]);
    sys!(libc::SYS_ioctl, fd.as_raw_fd(), REMOVE_ENCRYPTION_KEY, key.as_mut_ptr()).map(|_| "locked".into())
}

fn with_key(command: &[&str]) -> Outcome {
    sys!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0)?;
    let (name, text, ring) = (c"srt-attack", SECRET, KEY_SPEC_SESSION_KEYRING);
    let key = sys!(libc::SYS_add_key, c"user", name, text.as_ptr(), text.len(), ring)?;
    // All rights for whoever holds it and for its uid: the second is what a number alone gives.
    sys!(libc::SYS_keyctl, SETPERM, key, 0x3f3f_0000_u32)?;
    Err(Command::new(command[0]).args(&command[1..]).env("KEY", key.to_string()).exec())
}

fn read_key(key: i64) -> Outcome {
    let mut text = [0_u8; 64];
    let length = sys!(libc::SYS_keyctl, READ, key, text.as_mut_ptr(), text.len())?;
    Ok(String::from_utf8_lossy(&text[..length as usize]).into_owned())
}
