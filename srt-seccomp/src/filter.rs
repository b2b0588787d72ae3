//! Compiles rules to the BPF program that the kernel runs at every system call of the command.
//!
//! seccompiler compiles the conditions on arguments. The code around them is our own: a check of the architecture,
//! then a binary search for the number, where seccompiler compares with one number after another. Loading a filter is
//! expensive mostly because the kernel runs it once for every number, to learn which calls it always allows
//! (`seccomp_cache_prepare` in kernel/seccomp.c): this takes about a microsecond for each instruction on the path of
//! an ordinary call, and a seventh of that for any other instruction. The default rules take 7 µs more than no rule;
//! the same rules as two filters in seccompiler's layout (one for each errno) take 40 µs more. Calls that the kernel
//! has found to be always allowed are not filtered again; these are all calls that no rule mentions.
//!
//! ```text
//!     another architecture                → KILL_PROCESS
//!     number in [0, first)                → ALLOW
//!     number = a call of a rule           → the clauses of that call, else ALLOW
//!     …
//!     x86_64: number has the x32 bit      → KILL_PROCESS
//! ```

use crate::rules::{Clause, Rule, Test};
use crate::syscalls::Arch;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};
use srt_common::{Error, Result};

/// `__X32_SYSCALL_BIT` of asm/unistd.h. On x86_64 the numbers from here on are the same calls again, for the x32 ABI.
/// (Without the bit, the numbers 512 to 547 are invalid since Linux 5.4.)
const X32: u32 = 0x4000_0000;

/// A number, and what is done with it and with all numbers after it, up to the next segment.
type Segment = (u32, BpfProgram);

/// Builds the filter for `rules` on `arch`.
///
/// # Errors
/// The program is too long for BPF's jumps: a mistake in the table of rules.
pub fn build(rules: &[&Rule], arch: Arch) -> Result<BpfProgram> {
    let mut program = vec![
        load(ARCH),
        jump(JEQ, arch as u32, 1)?,
        // i386 code by `int 0x80` and 32-bit ARM have other numbers and socketcall(2), which would bypass every rule.
        ret(&SeccompAction::KillProcess),
        load(NUMBER),
    ];
    program.extend(search(&segments(rules, arch)?)?);
    Ok(program)
}

/// The segments of all numbers, from 0 on, in order.
fn segments(rules: &[&Rule], arch: Arch) -> Result<Vec<Segment>> {
    let all = rules.iter().flat_map(|rule| rule.clauses);
    let mut clauses: Vec<(u32, &Clause)> =
        all.filter_map(|clause| Some((clause.syscall.number(arch)?, clause))).collect();
    clauses.sort_by_key(|clause| clause.0); // Stable: the clauses of one call stay in order.

    let allow = || vec![ret(&SeccompAction::Allow)];
    let mut segments = vec![];
    put(&mut segments, 0, allow());
    for of_call in clauses.chunk_by(|one, other| one.0 == other.0) {
        let number = of_call.first().map_or(0, |clause| clause.0);
        put(&mut segments, number, body(of_call.iter().map(|clause| clause.1))?);
        put(&mut segments, number + 1, allow());
    }
    if arch == Arch::X86_64 {
        put(&mut segments, X32, vec![ret(&SeccompAction::KillProcess)]);
        // -1 is not a call of any ABI: a tracer writes it to have a call skipped (seccomp(2)).
        put(&mut segments, u32::MAX, allow());
    }
    joined(segments)
}

/// Joins a call that may be allowed and the allowed numbers after it: these jump to the end of the call's body.
fn joined(segments: Vec<Segment>) -> Result<Vec<Segment>> {
    let mut joined: Vec<Segment> = vec![];
    for (first, body) in segments {
        match (joined.last_mut(), body.as_slice()) {
            (Some((_, before)), [allow]) if before.last() == Some(allow) => {
                before.insert(0, jump(JGE, first, before.len() - 1)?);
            }
            _ => joined.push((first, body)),
        }
    }
    Ok(joined)
}

/// Appends a segment. It replaces one that starts at the same number, and extends one with the same body.
fn put(segments: &mut Vec<Segment>, first: u32, body: BpfProgram) {
    segments.pop_if(|last| last.0 == first);
    if segments.last().is_none_or(|last| last.1 != body) {
        segments.push((first, body));
    }
}

/// Finds the segment of the number in the accumulator, and runs its body.
fn search(segments: &[Segment]) -> Result<BpfProgram> {
    let (low, high) = segments.split_at(segments.len() / 2);
    match high {
        [] => Ok(vec![]),
        [(_, body)] if low.is_empty() => Ok(body.clone()),
        [(middle, _), ..] => {
            let (low, high) = (search(low)?, search(high)?);
            let over = match u32::try_from(low.len()).map_err(broken)? {
                near @ ..=0xff => vec![jump(JGE, *middle, near as usize)?],
                // A comparison can jump over at most 255 instructions.
                far => vec![
                    sock_filter { code: JGE, jt: 0, jf: 1, k: *middle },
                    sock_filter { code: JA, jt: 0, jf: 0, k: far },
                ],
            };
            Ok([over, low, high].concat())
        }
    }
}

/// The clauses of one system call. The first that matches decides.
fn body<'a>(clauses: impl Iterator<Item = &'a Clause>) -> Result<BpfProgram> {
    let mut program: BpfProgram = vec![];
    let mut held = None;
    // Comparisons of clauses whose action is that of the next clause: a match jumps to the next clause's instruction.
    let mut matches = vec![];
    let mut clauses = clauses.peekable();
    while let Some(clause) = clauses.next() {
        if clause.tests.is_empty() {
            program.push(ret(&clause.action));
            return Ok(program);
        }
        let conditions = clause.tests.iter().map(condition).collect::<Result<_>>()?;
        let rule = BpfProgram::from(SeccompRule::new(conditions).map_err(broken)?);
        // A rule begins with two jumps: to the instruction after them, and, for a rule too long for one jump, out of
        // it. After a match the next instruction is executed, which a mismatch skips. The accumulator may already
        // hold the value that the rule loads first: a mismatch changes it only if there is a mask.
        let load = rule.get(2).cloned();
        program.extend(rule.into_iter().skip(if load == held { 3 } else { 2 }));
        held = load.filter(|_| matches!(clause.tests, [Test { operator: SeccompCmpOp::Eq, .. }]));
        let end = program.len();
        if let ([_], Some(next), Some(last @ sock_filter { code: JEQ, jt: 0, jf: 1, .. })) =
            (clause.tests, clauses.peek(), program.last_mut())
            && next.action == clause.action
            && !next.tests.is_empty()
        {
            last.jf = 0;
            matches.push(end - 1);
            continue;
        }
        for at in matches.drain(..) {
            let over = u8::try_from(end - at - 1).map_err(broken)?;
            program.get_mut(at).into_iter().for_each(|jump| jump.jt = over);
        }
        program.push(ret(&clause.action));
    }
    program.push(ret(&SeccompAction::Allow));
    Ok(program)
}

fn condition(test: &Test) -> Result<SeccompCondition> {
    SeccompCondition::new(test.arg, SeccompCmpArgLen::Dword, test.operator.clone(), test.value.into())
        .map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::failed(format!("cannot build the seccomp filter: {error}"))
}

// linux/bpf_common.h: the instructions that the layout uses.
const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JA: u16 = 0x05;
const RET: u16 = 0x06;
// linux/seccomp.h: struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LD_W_ABS, jt: 0, jf: 0, k: offset }
}

/// Skips `over` instructions if the comparison of the accumulator with `k` holds.
fn jump(comparison: u16, k: u32, over: usize) -> Result<sock_filter> {
    Ok(sock_filter { code: comparison, jt: u8::try_from(over).map_err(broken)?, jf: 0, k })
}

fn ret(action: &SeccompAction) -> sock_filter {
    sock_filter { code: RET, jt: 0, jf: 0, k: action.clone().into() }
}
