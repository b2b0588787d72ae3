//! An interpreter of the BPF that seccomp(2) takes: a filter is tested for every architecture without being loaded.

use seccompiler::sock_filter;

/// SECCOMP_RET_ALLOW of linux/seccomp.h.
pub const ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_RET_KILL_PROCESS.
pub const KILL: u32 = 0x8000_0000;

/// struct seccomp_data of linux/seccomp.h.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data {
    /// The system call's number.
    pub nr: u32,
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// SECCOMP_RET_*.
    pub action: u32,
    /// Whether it looked at the number and the architecture alone. A call that is allowed without another look is never
    /// filtered again: seccomp_is_const_allow() in kernel/seccomp.c.
    pub constant: bool,
    /// How many instructions it took.
    pub steps: usize,
}

/// Runs the program as kernel/seccomp.c does.
///
/// # Panics
/// For what the kernel would not have taken as a filter.
pub fn interpret(program: &[sock_filter], data: &Data) -> Verdict {
    let (mut pc, mut accumulator, mut constant, mut steps) = (0, 0u32, true, 0);
    loop {
        let i = program.get(pc).expect("no jump leads out of the program");
        (pc, steps) = (pc + 1, steps + 1);
        let mut jump = |holds: bool| pc += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                accumulator = match i.k {
                    0 => data.nr,
                    4 => data.arch,
                    offset @ 16..64 if offset % 4 == 0 => {
                        constant = false;
                        let arg = data.args[(offset as usize - 16) / 8];
                        if offset % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
                    }
                    offset => panic!("load from {offset}"),
                }
            }
            0x54 => accumulator &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => jump(accumulator == i.k),
            0x25 => jump(accumulator > i.k),
            0x35 => jump(accumulator >= i.k),
            0x45 => jump(accumulator & i.k != 0),
            0x06 => return Verdict { action: i.k, constant, steps },
            code => panic!("seccomp does not take the instruction {code:#x}"),
        }
    }
}
