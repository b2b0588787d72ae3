//! Raw BPF: filters that the user brings, ours as bytes, and their way into the kernel.

use crate::sys;
use seccompiler::{BpfProgram, sock_filter};
use srt_common::{Context, Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;

/// Where a filter comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// `--load FILE`
    File(OsString),
    /// `--load-fd N`
    Fd(RawFd),
}

/// A filter that the user brings.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// The option that brought it, for messages.
    pub option: String,
    program: BpfProgram,
}

/// The kernel's `struct sock_filter`.
const INSTRUCTION: usize = size_of::<sock_filter>();
/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MOST: usize = 4096;

impl Filter {
    /// Reads all of it.
    ///
    /// # Errors
    /// What opening and reading say; and for what cannot be a filter.
    pub fn read(load: &Load) -> Result<Self> {
        let (option, opened) = match load {
            Load::File(path) => (format!("--load {}", path.display()), File::open(path)),
            Load::Fd(fd) => (format!("--load-fd {fd}"), sys::file(*fd)),
        };
        let mut bytes = vec![];
        // One byte more than the kernel takes is enough to know: the file may be endless.
        let limit = (MOST * INSTRUCTION + 1) as u64;
        opened
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .context(|| format!("{option}: cannot read the filter"))?;
        let program = parse(&bytes).map_err(|error| error.within(&option))?;
        Ok(Self { option, program })
    }

    /// Puts it around this process.
    ///
    /// # Errors
    /// What the kernel says of it.
    pub fn install(&self) -> Result<()> {
        install(&self.program).map_err(|error| error.within(&self.option))
    }
}

/// Bytes as instructions.
///
/// # Errors
/// When they are none, not whole, or more than the kernel takes.
pub fn parse(bytes: &[u8]) -> Result<BpfProgram> {
    let (instructions, rest) = bytes.as_chunks::<INSTRUCTION>();
    match (instructions.len(), rest.len()) {
        (0, 0) => Err(Error::failed("the filter is empty")),
        (MOST.., 1..) => Err(Error::failed(format!("a filter has at most {MOST} instructions"))),
        (_, 1..) => Err(Error::failed(format!(
            "{} bytes are no whole number of BPF instructions of {INSTRUCTION} bytes",
            bytes.len()
        ))),
        _ => Ok(instructions
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| sock_filter {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect()),
    }
}

/// Instructions as bytes: what `bwrap --seccomp` and `--load` read.
pub fn to_bytes(program: &[sock_filter]) -> Vec<u8> {
    let bytes = |i: &sock_filter| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
    program.iter().flat_map(bytes).collect()
}

/// Puts `program` around this process and all that it becomes.
///
/// # Errors
/// What the kernel says, with a hint.
pub fn install(program: &[sock_filter]) -> Result<()> {
    sys::seccomp(program).map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::EINVAL) => "the kernel does not take this program as a filter, or has no seccomp filters",
            Some(libc::ENOMEM) => "all filters around one process may have 32768 instructions together",
            _ => "a filter that is already in place forbids seccomp(2): load such a filter last; in a container, allow it in the container's profile",
        };
        Error::system("seccomp", &error).hint(hint)
    })
}
