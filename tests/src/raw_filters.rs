//! Filters of the tests' own, as files for `srt-seccomp --load`.

use crate::Scratch;
use std::path::PathBuf;

/// code, jt, jf, k of an instruction: linux/bpf_common.h, linux/seccomp.h.
type Instruction = (u16, u8, u8, u32);

const LOAD_NUMBER: Instruction = (0x20, 0, 0, 0);
/// The low half of the first argument, on little-endian machines.
const LOAD_FIRST: Instruction = (0x20, 0, 0, 16);
const ALLOW: Instruction = (0x06, 0, 0, 0x7fff_0000);
const ERRNO: u32 = 0x0005_0000;

fn file(scratch: &Scratch, name: &str, program: &[Instruction]) -> PathBuf {
    let bytes = program.iter().flat_map(|&(code, yes, no, k)| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([yes, no]);
        bytes.extend(k.to_ne_bytes());
        bytes
    });
    scratch.file(name, bytes.collect::<Vec<_>>())
}

/// A filter that refuses these system calls with EPERM and permits all others.
pub fn denying(scratch: &Scratch, name: &str, calls: &[libc::c_long]) -> PathBuf {
    let mut program = vec![LOAD_NUMBER];
    for call in calls {
        // If it is the one go on to the refusal, else over it.
        program.extend([(0x15, 0, 1, *call as u32), (0x06, 0, 0, ERRNO | 1)]);
    }
    program.push(ALLOW);
    file(scratch, name, &program)
}

/// A filter that says of seccomp(2), and of prctl(PR_SET_SECCOMP), that all went well, and lets neither be done.
pub fn lying(scratch: &Scratch, name: &str) -> PathBuf {
    let lie = (0x06, 0, 0, ERRNO);
    let (seccomp, prctl) = (libc::SYS_seccomp as u32, libc::SYS_prctl as u32);
    let program = [
        LOAD_NUMBER,
        (0x15, 3, 0, seccomp),
        (0x15, 0, 3, prctl),
        LOAD_FIRST,
        (0x15, 0, 1, libc::PR_SET_SECCOMP as u32),
        lie,
        ALLOW,
    ];
    file(scratch, name, &program)
}
