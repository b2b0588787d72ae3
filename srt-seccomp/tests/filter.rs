//! The filter, evaluated for every architecture without loading it, by an interpreter of the BPF that seccomp takes.

#![allow(clippy::expect_used, clippy::panic)]

use seccompiler::sock_filter;
use srt_seccomp::filter::{Arch, build};
use srt_seccomp::load::{parse, to_bytes};
use srt_seccomp::rules::{RULES, Rule, select};
use srt_seccomp::syscalls::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// High halves that the kernel drops where it reads an int.
const GARBAGE: [u64; 4] = [0, 1 << 32, 0x8000_0000 << 32, 0xffff_ffff << 32];

/// linux/seccomp.h
#[derive(Clone, Copy, Default)]
struct Data {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

/// What a run came to, and whether it looked at anything but the number and the architecture. (A call that is allowed
/// without such a look is never filtered again: seccomp_is_const_allow in kernel/seccomp.c.)
struct Verdict {
    action: u32,
    constant: bool,
    steps: usize,
}

fn interpret(program: &[sock_filter], data: &Data) -> Verdict {
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

fn only(name: &str) -> Vec<&'static Rule> {
    RULES.iter().filter(|rule| rule.name == name).collect()
}

fn default() -> Vec<&'static Rule> {
    select(&[], &[]).expect("defaults")
}

/// The sets of rules under which most tests run: none, the default, all, and each alone.
fn sets() -> Vec<Vec<&'static Rule>> {
    let mut sets = vec![vec![], default(), RULES.iter().collect()];
    sets.extend(RULES.iter().map(|rule| vec![rule]));
    sets
}

fn eval(rules: &[&Rule], arch: Arch, nr: u32, args: [u64; 6]) -> u32 {
    let data = Data { nr, arch: arch.audit(), args };
    interpret(&build(rules, arch).expect("builds"), &data).action
}

#[test]
fn the_architectures_are_the_audit_numbers() {
    assert_eq!((Arch::X86_64.audit(), Arch::Aarch64.audit()), (X86_64, AARCH64));
}

#[test]
fn every_other_architecture_is_killed_at_every_number() {
    for arch in ARCHES {
        for rules in sets() {
            let program = build(&rules, arch).expect("builds");
            for other in [X86_64, I386, AARCH64, ARM, 0, u32::MAX].into_iter().filter(|&a| a != arch.audit())
            {
                for nr in (0..1024).chain([0x4000_0029, 0x7fff_ffff, u32::MAX]) {
                    let data = Data { nr, arch: other, args: [1; 6] };
                    assert_eq!(interpret(&program, &data).action, KILL, "{arch:?} {other:#x} {nr}");
                }
            }
        }
    }
}

#[test]
fn x32_numbers_are_killed_and_the_tracer_s_minus_one_is_not() {
    for rules in sets() {
        for nr in (0x4000_0000..0x4000_0400).chain([0x7fff_ffff, 0x8000_0000, 0xc000_0000, 0xffff_fffe]) {
            assert_eq!(eval(&rules, Arch::X86_64, nr, [0; 6]), KILL, "{nr:#x}");
            assert_eq!(eval(&rules, Arch::Aarch64, nr, [0; 6]), ALLOW, "arm64 has no x32: {nr:#x}");
        }
        for arch in ARCHES {
            assert_eq!(eval(&rules, arch, u32::MAX, [0; 6]), ALLOW);
            assert_eq!(eval(&rules, arch, 0x3fff_ffff, [0; 6]), ALLOW);
        }
    }
}

#[test]
fn what_no_rule_mentions_is_allowed_whatever_its_arguments_and_without_a_look_at_them() {
    for arch in ARCHES {
        for rules in sets() {
            let program = build(&rules, arch).expect("builds");
            let mentioned: Vec<u32> = rules
                .iter()
                .flat_map(|rule| rule.clauses)
                .map(|clause| clause.syscall.number(arch))
                .collect();
            for nr in (0..1024).filter(|nr| !mentioned.contains(nr)) {
                for args in [[0; 6], [1; 6], [40; 6], [0x5412; 6], [u64::MAX; 6]] {
                    let verdict = interpret(&program, &Data { nr, arch: arch.audit(), args });
                    assert_eq!(verdict.action, ALLOW, "{arch:?} {nr}");
                    assert!(verdict.constant, "the kernel cannot remember that {nr} is allowed");
                }
            }
        }
    }
}

/// One use of a system call, written down apart from the product's table: rule, number on x86_64 and on aarch64,
/// arguments that are refused, and with what.
type Refused = (&'static str, u32, u32, [u64; 6], u32);

const REFUSED: &[Refused] = &[
    ("unix", 41, 198, [1, 1, 0, 0, 0, 0], EPERM),
    ("unix", 41, 198, [1, 5 | 0o2000000, 0, 0, 0, 0], EPERM),
    ("unix", 53, 199, [1, 2, 0, 0, 0, 0], EPERM),
    ("unix", 53, 199, [1, 3 | 0o4000, 0, 0, 0, 0], EPERM),
    ("vsock", 41, 198, [40, 1, 0, 0, 0, 0], EPERM),
    ("vsock", 41, 198, [42, 2, 0, 0, 0, 0], EPERM),
    ("io-uring", 425, 425, [8, 0, 0, 0, 0, 0], ENOSYS),
    ("io-uring", 426, 426, [3, 1, 0, 0, 0, 0], ENOSYS),
    ("io-uring", 427, 427, [3, 1, 0, 0, 0, 0], ENOSYS),
    ("tty-inject", 16, 29, [0, 0x5412, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x541c, 0, 0, 0, 0], EPERM),
    ("keyring", 248, 217, [0; 6], EPERM),
    ("keyring", 249, 218, [0; 6], EPERM),
    ("keyring", 250, 219, [0; 6], EPERM),
    ("userns", 272, 97, [0x1000_0000, 0, 0, 0, 0, 0], EPERM),
    ("userns", 272, 97, [0x7c02_0000, 0, 0, 0, 0, 0], EPERM),
    ("userns", 56, 220, [0x1000_0011, 0, 0, 0, 0, 0], EPERM),
    ("userns", 435, 435, [0; 6], ENOSYS),
    ("userns", 308, 268, [0; 6], EPERM),
    ("mount", 165, 40, [0; 6], EPERM),
    ("mount", 166, 39, [0; 6], EPERM),
    ("mount", 155, 41, [0; 6], EPERM),
    ("mount", 161, 51, [0; 6], EPERM),
    ("mount", 428, 428, [0; 6], EPERM),
    ("mount", 429, 429, [0; 6], EPERM),
    ("mount", 430, 430, [0; 6], EPERM),
    ("mount", 431, 431, [0; 6], EPERM),
    ("mount", 432, 432, [0; 6], EPERM),
    ("mount", 433, 433, [0; 6], EPERM),
    ("mount", 442, 442, [0; 6], EPERM),
    ("mount", 467, 467, [0; 6], EPERM),
    ("ptrace", 101, 117, [0; 6], EPERM),
    ("ptrace", 310, 270, [0; 6], EPERM),
    ("ptrace", 311, 271, [0; 6], EPERM),
    ("ptrace", 312, 272, [0; 6], EPERM),
    ("ptrace", 438, 438, [0; 6], EPERM),
    ("bpf", 321, 280, [0; 6], EPERM),
    ("perf", 298, 241, [0; 6], EPERM),
    ("userfaultfd", 323, 282, [0; 6], EPERM),
    ("fanotify", 300, 262, [0; 6], EPERM),
    ("fanotify", 301, 263, [0; 6], EPERM),
    ("file-handle", 303, 264, [0; 6], EPERM),
    ("file-handle", 304, 265, [0; 6], EPERM),
    ("syslog", 103, 116, [0; 6], EPERM),
];

#[test]
fn each_rule_refuses_its_calls_alone_and_with_all_others_and_garbage_in_the_high_halves_does_not_help() {
    for arch in ARCHES {
        let everything = build(&RULES.iter().collect::<Vec<_>>(), arch).expect("builds");
        for &(rule, x86_64, aarch64, args, action) in REFUSED {
            let alone = build(&only(rule), arch).expect("builds");
            let nr = if arch == Arch::X86_64 { x86_64 } else { aarch64 };
            for garbage in GARBAGE {
                let data = Data { nr, arch: arch.audit(), args: args.map(|arg| arg | garbage) };
                assert_eq!(interpret(&alone, &data).action, action, "{rule} {arch:?} {nr} {garbage:#x}");
                assert_eq!(interpret(&everything, &data).action, action, "all {arch:?} {nr} {garbage:#x}");
            }
        }
    }
}

#[test]
fn a_rule_that_is_off_refuses_nothing() {
    for arch in ARCHES {
        for &(rule, x86_64, aarch64, args, _) in REFUSED {
            let others: Vec<&Rule> = RULES.iter().filter(|other| other.name != rule).collect();
            let nr = if arch == Arch::X86_64 { x86_64 } else { aarch64 };
            assert_eq!(eval(&others, arch, nr, args), ALLOW, "{rule} {arch:?} {nr}");
        }
    }
}

#[test]
fn every_rule_and_every_call_of_the_table_is_tested_above() {
    for rule in RULES {
        for syscall in rule.clauses.iter().map(|clause| clause.syscall) {
            let numbers = (syscall.number(Arch::X86_64), syscall.number(Arch::Aarch64));
            let tested = REFUSED.iter().any(|r| r.0 == rule.name && (r.1, r.2) == numbers);
            assert!(tested, "{} {}", rule.name, syscall.name);
        }
    }
}

#[test]
fn of_all_socket_families_unix_vsock_and_qipcrtr_alone_are_refused() {
    for arch in ARCHES {
        for domain in (0..256).chain([0x7fff_ffff, 0xffff_ffff]) {
            for garbage in GARBAGE {
                let args = [domain | garbage, u64::MAX, u64::MAX, 0, 0, 0];
                let got = |rules: &[&Rule]| eval(rules, arch, SYS_socket.number(arch), args);
                assert_eq!(got(&default()), if [1, 40, 42].contains(&domain) { EPERM } else { ALLOW });
                assert_eq!(got(&only("unix")), if domain == 1 { EPERM } else { ALLOW });
                assert_eq!(got(&only("vsock")), if [40, 42].contains(&domain) { EPERM } else { ALLOW });
            }
        }
    }
}

#[test]
fn of_all_unix_pairs_stream_and_seqpacket_alone_are_allowed() {
    let nr = |arch| SYS_socketpair.number(arch);
    for arch in ARCHES {
        for domain in [0, 1, 2, 16, 40] {
            for kind in 0..16 {
                for flags in [0, 0o4000, 0o2000000, 0o2004000, 0x10, 0x8000_0000] {
                    for garbage in GARBAGE {
                        let args = [domain | garbage, kind | flags | garbage, 0, 0, 0, 0];
                        let refused = domain == 1 && ![1, 5].contains(&kind);
                        let expected = if refused { EPERM } else { ALLOW };
                        assert_eq!(eval(&default(), arch, nr(arch), args), expected, "{domain} {kind}");
                    }
                }
            }
        }
    }
}

#[test]
fn of_all_ioctls_the_two_that_inject_are_refused() {
    for arch in ARCHES {
        for request in (0x5400..0x5500).chain([0, 0x4004_5412, 0xffff_5412, 0xffff_ffff]) {
            for garbage in GARBAGE {
                let args = [0, request | garbage, 0x5412, 0x5412, 0, 0];
                let refused = [0x5412, 0x541c].contains(&request);
                let got = eval(&default(), arch, SYS_ioctl.number(arch), args);
                assert_eq!(got, if refused { EPERM } else { ALLOW }, "{request:#x}");
            }
        }
    }
}

#[test]
fn clone_and_unshare_without_a_user_namespace_are_allowed() {
    for arch in ARCHES {
        for bit in (0..32).filter(|&bit| bit != 28) {
            for garbage in GARBAGE {
                for syscall in [SYS_clone, SYS_unshare] {
                    let args = [1 << bit | garbage, 0x1000_0000, 0x1000_0000, 0, 0, 0];
                    assert_eq!(eval(&only("userns"), arch, syscall.number(arch), args), ALLOW);
                }
            }
        }
    }
}

#[test]
fn a_call_with_an_exception_belongs_to_one_rule() {
    // The first clause that matches decides: an Allow would also end what another rule says of the same call.
    let all = || RULES.iter().flat_map(|rule| rule.clauses.iter().map(move |clause| (rule.name, clause)));
    for (rule, exception) in all().filter(|(_, clause)| u32::from(clause.action.clone()) == ALLOW) {
        let mut same = all().filter(|(_, clause)| clause.syscall == exception.syscall);
        assert!(same.all(|(other, _)| other == rule), "{}", exception.syscall.name);
    }
}

#[test]
fn the_filter_is_short_and_the_way_of_an_allowed_call_through_it_shorter() {
    for arch in ARCHES {
        for (rules, length, way) in [(default(), 52, 9), (RULES.iter().collect(), 200, 12)] {
            let program = build(&rules, arch).expect("builds");
            assert!(program.len() <= length, "{arch:?}: {} instructions", program.len());
            let steps = (0..512)
                .map(|nr| interpret(&program, &Data { nr, arch: arch.audit(), args: [0; 6] }))
                .filter(|verdict| verdict.constant && verdict.action == ALLOW)
                .map(|verdict| verdict.steps)
                .max();
            assert!(steps <= Some(way), "{arch:?}: {steps:?} steps");
        }
    }
}

#[test]
fn every_set_of_default_rules_is_a_program_that_comes_back_from_its_bytes() {
    for arch in ARCHES {
        for rules in sets() {
            let program = build(&rules, arch).expect("builds");
            assert_eq!(parse(&to_bytes(&program)).expect("parses"), program);
            assert_eq!(
                program.last().map(|last| last.code),
                Some(0x06),
                "the kernel wants a return at the end"
            );
        }
    }
}

#[test]
fn what_cannot_be_a_filter_is_refused_before_the_kernel_sees_it() {
    for (length, words) in
        [(0, "is empty"), (7, "7 bytes"), (12, "12 bytes"), (4096 * 8 + 1, "at most 4096 instructions")]
    {
        let error = parse(&vec![0; length]).expect_err("no filter");
        assert!(error.message.contains(words), "{length}: {}", error.message);
    }
    assert_eq!(parse(&vec![0; 4096 * 8]).expect("the most there can be").len(), 4096);
}

#[test]
fn lists_of_rules_accumulate_and_contradictions_and_unknown_names_are_errors() {
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let names = |allow: &[&str], deny: &[&str]| {
        select(&words(allow), &words(deny))
            .map(|rules| rules.iter().map(|rule| rule.name).collect::<Vec<_>>())
    };
    assert_eq!(names(&[], &[]).expect("ok"), ["unix", "vsock", "io-uring", "tty-inject", "keyring"]);
    assert_eq!(
        names(&["unix,vsock", "keyring"], &["userns", "mount,bpf"]).expect("ok"),
        ["io-uring", "tty-inject", "userns", "mount", "bpf"]
    );
    assert_eq!(
        names(&["ptrace", "ptrace"], &["unix,unix"]),
        names(&[], &[]),
        "what is so already is no error"
    );
    for bad in [&["nope"][..], &[""], &["unix,"], &["unix,,vsock"], &["UNIX"], &[" unix"]] {
        for (allow, deny) in [(bad, &[][..]), (&[], bad)] {
            let error = names(allow, deny).expect_err("unknown");
            assert!(error.message.contains("there is no rule"), "{}", error.message);
            assert!(RULES.iter().all(|rule| error.message.contains(rule.name)), "{}", error.message);
        }
    }
    let error = names(&["vsock", "bpf"], &["mount,bpf"]).expect_err("both");
    assert_eq!(error.message, "bpf: in both --allow and --deny");
}
