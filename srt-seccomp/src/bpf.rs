//! Raw BPF: the user's filters, our own as bytes, and how they are installed.

use crate::rules::Rule;
use seccompiler::{BpfProgram, sock_filter};
use srt_common::sys::{fd, file, mount, privileges, process, socket};
use srt_common::{Context, Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;

/// Where a filter comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// `--load FILE`
    File(OsString),
    /// `--load-fd N`
    Fd(RawFd),
}

/// The kernel's `struct sock_filter`.
const INSTRUCTION: usize = size_of::<sock_filter>();
/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MOST: usize = 4096;

/// Reads the whole filter, which is one of the user's. Returns it with the option that named it, for messages.
///
/// # Errors
/// The file cannot be opened or read, or cannot be a filter.
pub fn read(load: &Load) -> Result<(String, BpfProgram)> {
    let (option, opened) = match load {
        Load::File(path) => (format!("--load {}", path.display()), File::open(path)),
        Load::Fd(fd) => {
            // A duplicate, since 0, 1 and 2 must stay open.
            let own = fd::given(*fd).and_then(|fd| fd.try_clone_to_owned());
            (format!("--load-fd {fd}"), own.map(File::from))
        }
    };
    let mut bytes = vec![];
    // One byte more than the kernel accepts is enough to detect that it is too long: the file may be endless.
    let limit = (MOST * INSTRUCTION + 1) as u64;
    opened
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .context(|| format!("{option}: cannot read the filter"))
        .map_err(|error| if let Load::File(path) = load { error.path(path) } else { error })?;
    let program = parse(&bytes).map_err(|error| error.within(&option))?;
    Ok((option, program))
}

/// Parses bytes as instructions.
///
/// # Errors
/// There are no instructions, an incomplete one, or more than the kernel accepts.
pub fn parse(bytes: &[u8]) -> Result<BpfProgram> {
    let (instructions, rest) = bytes.as_chunks::<INSTRUCTION>();
    let instruction = |&[c0, c1, jt, jf, ref k @ ..]: &[u8; INSTRUCTION]| {
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes(*k));
        sock_filter { code, jt, jf, k }
    };
    match (instructions.len(), rest.len()) {
        (0, 0) => Err(Error::failed("the filter is empty")),
        (MOST.., 1..) => Err(Error::failed(format!("a filter has at most {MOST} instructions"))),
        (_, 1..) => Err(Error::failed(format!(
            "{} bytes are not a multiple of {INSTRUCTION}, the size of an instruction",
            bytes.len()
        ))),
        _ => Ok(instructions.iter().map(instruction).collect()),
    }
}

/// Instructions as bytes, as `bwrap --seccomp` and `--load` read them.
pub fn to_bytes(program: &[sock_filter]) -> Vec<u8> {
    let bytes = |i: &sock_filter| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
    program.iter().flat_map(bytes).collect()
}

/// Installs `program` as a filter of this process and of everything that it executes. `what` precedes the error.
///
/// # Errors
/// The kernel's error, with a hint.
pub fn install(what: &str, program: &[sock_filter]) -> Result<()> {
    // seccompiler has its own type, with the kernel's fields.
    let theirs = |&sock_filter { code, jt, jf, k }: &_| libc::sock_filter { code, jt, jf, k };
    let program: Vec<_> = program.iter().map(theirs).collect();
    let question = process::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER.into(), 0);
    let reached = reaches_the_kernel(question, libc::EFAULT); // For a null program: seccomp(2).
    reached.and_then(|()| privileges::prctl_set_seccomp(&program)).map_err(|error| {
        Error::system(format!("{what}: prctl(PR_SET_SECCOMP)"), &error)
            .hint("a filter that is already in place forbids prctl(2): load such a filter last; in a container, allow it in the container's profile")
            .hint_for(libc::EINVAL, "the kernel rejects this filter, or was built without CONFIG_SECCOMP_FILTER")
            .hint_for(libc::ENOMEM, "all filters around one process may have 32768 instructions together")
    })
}

/// Checks that a call reaches the kernel, which must fail with `errno` for these arguments. An outer filter may
/// return 0 instead (SECCOMP_RET_ERRNO), without executing the call.
///
/// # Errors
/// Any other result.
pub(crate) fn reaches_the_kernel<T>(answer: io::Result<T>, errno: i32) -> io::Result<()> {
    match answer {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("an outer filter fakes the result")),
    }
}

/// Checks that the filter of `rules` is in force: the kernel reports a filter, and a call that it must refuse fails.
/// The arguments are such that the call has no effect if it is not refused; unshare(2) has one, and then the tool
/// exits.
///
/// # Errors
/// The filter is not in force.
pub fn require_filter(rules: &[&Rule]) -> Result<()> {
    let tried = rules.iter().find_map(|rule| match rule.name {
        "unix" => Some(socket::socket(libc::AF_UNIX, -1).err()),
        "vsock" => Some(socket::socket(libc::AF_VSOCK, -1).err()),
        "net" => Some(socket::socket(libc::AF_PACKET, -1).err()),
        "keyring" => Some(privileges::keyctl(-1, 0, 0).err()),
        "setid" => Some(file::fchmod(&-1, libc::S_ISUID).err()),
        "userns" => Some(mount::unshare(libc::CLONE_NEWUSER).err()),
        _ => None,
    });
    let refused = tried.is_none_or(|error| error.and_then(|e| e.raw_os_error()) == Some(libc::EPERM));
    let mode = process::prctl(libc::PR_GET_SECCOMP, 0, 0).context(|| "prctl(PR_GET_SECCOMP)")?;
    if !refused || mode != libc::SECCOMP_MODE_FILTER as libc::c_int {
        return Err(Error::failed("the installed seccomp filter is not in force"));
    }
    Ok(())
}
