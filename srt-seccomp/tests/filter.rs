//! The filter, evaluated for every architecture without loading it, by an interpreter of the BPF that seccomp takes.

#![allow(clippy::expect_used, clippy::panic)]

use srt_seccomp::bpf::{parse, to_bytes};
use srt_seccomp::filter::build;
use srt_seccomp::rules::{
    NET_BUT_TCP, NO_CHANGES_BY_IOCTL, NO_LIMITS_OF_OTHERS, NO_LISTEN, NO_TIPC_PAIRS, RULES, Rule, select,
};
use srt_seccomp::syscalls::*;
use srt_tests::DEFAULT_RULES;
use srt_tests::bpf::{ALLOW, Data, KILL, interpret};

const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// High halves that the kernel drops where it reads an int.
const GARBAGE: [u64; 4] = [0, 1 << 32, 0x8000_0000 << 32, 0xffff_ffff << 32];

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
    let data = Data { nr, arch: arch as u32, args };
    interpret(&build(rules, arch).expect("builds"), &data).action
}

/// The number of a call that both architectures have.
fn number(syscall: Syscall, arch: Arch) -> u32 {
    syscall.number(arch).expect("a call of both")
}

#[test]
fn the_architectures_are_the_audit_numbers() {
    assert_eq!((Arch::X86_64 as u32, Arch::Aarch64 as u32), (X86_64, AARCH64));
}

#[test]
fn the_numbers_of_this_machine_are_those_of_libc() {
    const NATIVE: Arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
    macro_rules! as_in_libc {
        ($($name:ident)*) => {
            $(assert_eq!(i64::from(number($name, NATIVE)), libc::$name, stringify!($name));)*
        };
    }
    as_in_libc!(SYS_socket SYS_socketpair SYS_ioctl SYS_fcntl SYS_prlimit64 SYS_listen SYS_sendto SYS_sendmsg SYS_sendmmsg SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_add_key SYS_request_key SYS_keyctl SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_mknodat SYS_openat SYS_openat2 SYS_unshare SYS_clone SYS_clone3 SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_mount_setattr SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_fanotify_init SYS_fanotify_mark SYS_name_to_handle_at SYS_open_by_handle_at SYS_syslog);
    #[cfg(target_arch = "x86_64")]
    as_in_libc!(SYS_chmod SYS_mknod SYS_open SYS_creat);
}

#[test]
fn every_other_architecture_is_killed_at_every_number() {
    for arch in ARCHES {
        for rules in sets() {
            let program = build(&rules, arch).expect("builds");
            for other in [X86_64, I386, AARCH64, ARM, 0, u32::MAX].into_iter().filter(|&a| a != arch as u32) {
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
            // By the list below, not by the table that the filter is made of.
            let named = |refused: &&Refused| rules.iter().any(|rule| rule.name == refused.0);
            let number = |r: &Refused| if arch == Arch::X86_64 { r.1 } else { r.2 };
            let mentioned: Vec<u32> = REFUSED.iter().filter(named).map(number).collect();
            for nr in (0..1024).filter(|nr| !mentioned.contains(nr)) {
                for args in [[0; 6], [1; 6], [40; 6], [0x5412; 6], [u64::MAX; 6]] {
                    let verdict = interpret(&program, &Data { nr, arch: arch as u32, args });
                    assert_eq!(verdict.action, ALLOW, "{arch:?} {nr}");
                    assert!(verdict.constant, "the kernel cannot remember that {nr} is allowed");
                }
            }
        }
    }
}

/// The number of a call that 64-bit ARM does not have.
const NONE: u32 = u32::MAX;

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
    ("vsock", 41, 198, [21, 5, 0, 0, 0, 0], EPERM),
    ("vsock", 41, 198, [34, 2, 0, 0, 0, 0], EPERM),
    ("vsock", 41, 198, [32, 1, 0, 0, 0, 0], EPERM),
    ("io-uring", 425, 425, [8, 0, 0, 0, 0, 0], ENOSYS),
    ("io-uring", 426, 426, [3, 1, 0, 0, 0, 0], ENOSYS),
    ("io-uring", 427, 427, [3, 1, 0, 0, 0, 0], ENOSYS),
    ("tty-inject", 16, 29, [0, 0x5412, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x541c, 0, 0, 0, 0], EPERM),
    ("pid1", 144, 119, [1, 5, 0, 0, 0, 0], EPERM),
    ("pid1", 142, 118, [1, 0, 0, 0, 0, 0], EPERM),
    ("pid1", 314, 274, [1, 0, 0, 0, 0, 0], EPERM),
    ("pid1", 203, 122, [1, 8, 0, 0, 0, 0], EPERM),
    ("pid1", 141, 140, [0, 1, 19, 0, 0, 0], EPERM),
    ("pid1", 141, 140, [1, 1, 19, 0, 0, 0], EPERM),
    ("pid1", 141, 140, [2, 0, 19, 0, 0, 0], EPERM),
    ("pid1", 141, 140, [1, 0, 19, 0, 0, 0], EPERM),
    ("keyring", 248, 217, [0; 6], EPERM),
    ("keyring", 249, 218, [0; 6], EPERM),
    ("keyring", 250, 219, [0; 6], EPERM),
    ("keyring", 16, 29, [0, 0xc040_6618, 0, 0, 0, 0], EPERM),
    ("keyring", 16, 29, [0, 0xc050_6617, 0, 0, 0, 0], EPERM),
    ("keyring", 54, 208, [3, 279, 7, 0, 0, 0], EPERM),
    ("sigio", 72, 25, [0, 4, 0x2000, 0, 0, 0], EPERM),
    ("sigio", 72, 25, [0, 4, 0x2802, 0, 0, 0], EPERM),
    ("sigio", 72, 25, [0, 10, 9, 0, 0, 0], EPERM),
    ("sigio", 72, 25, [3, 1026, 0x8000_0004, 0, 0, 0], EPERM),
    ("sigio", 16, 29, [0, 0x5452, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x5416, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x5417, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x5418, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x541f, 0, 0, 0, 0], EPERM),
    ("tty-inject", 16, 29, [0, 0x5423, 0, 0, 0, 0], EPERM),
    ("lease", 72, 25, [3, 1024, 0, 0, 0, 0], EPERM),
    ("lease", 72, 25, [3, 1040, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x5000_9401, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x5000_9417, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x5000_940f, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x5000_943f, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x4020_bc10, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x4020_bc11, 0, 0, 0, 0], EPERM),
    ("snapshot", 16, 29, [3, 0x4030_bc1d, 0, 0, 0, 0], EPERM),
    ("net", 41, 198, [2, 1, 0, 0, 0, 0], EPERM),
    ("net", 41, 198, [10, 2, 0, 0, 0, 0], EPERM),
    ("net", 41, 198, [17, 3, 0, 0, 0, 0], EPERM),
    ("net", 16, 29, [3, 0x4004_54ca, 0, 0, 0, 0], EPERM),
    ("setid", 90, NONE, [0, 0o4755, 0, 0, 0, 0], EPERM),
    ("setid", 90, NONE, [0, 0o2000, 0, 0, 0, 0], EPERM),
    ("setid", 91, 52, [0, 0o4000, 0, 0, 0, 0], EPERM),
    ("setid", 91, 52, [0, 0o2755, 0, 0, 0, 0], EPERM),
    ("setid", 268, 53, [0, 0, 0o4755, 0, 0, 0], EPERM),
    ("setid", 268, 53, [0, 0, 0o2755, 0, 0, 0], EPERM),
    ("setid", 452, 452, [0, 0, 0o4755, 0, 0, 0], EPERM),
    ("setid", 452, 452, [0, 0, 0o2755, 0, 0, 0], EPERM),
    ("setid", 133, NONE, [0, 0o104755, 0, 0, 0, 0], EPERM),
    ("setid", 133, NONE, [0, 0o102755, 0, 0, 0, 0], EPERM),
    ("setid", 259, 33, [0, 0, 0o104755, 0, 0, 0], EPERM),
    ("setid", 259, 33, [0, 0, 0o102755, 0, 0, 0], EPERM),
    ("setid", 2, NONE, [0, 0o101, 0o4755, 0, 0, 0], EPERM),
    ("setid", 2, NONE, [0, 0o101, 0o2755, 0, 0, 0], EPERM),
    ("setid", 257, 56, [0, 0, 0o101, 0o4755, 0, 0], EPERM),
    ("setid", 257, 56, [0, 0, 0o20200001, 0o2755, 0, 0], EPERM),
    ("setid", 85, NONE, [0, 0o6755, 0, 0, 0, 0], EPERM),
    ("setid", 85, NONE, [0, 0o2755, 0, 0, 0, 0], EPERM),
    ("setid", 437, 437, [0; 6], ENOSYS),
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
    ("mount", 472, 472, [0; 6], EPERM),
    ("ptrace", 101, 117, [0; 6], EPERM),
    ("ptrace", 310, 270, [0; 6], EPERM),
    ("ptrace", 311, 271, [0; 6], EPERM),
    ("ptrace", 312, 272, [0; 6], EPERM),
    ("ptrace", 438, 438, [0; 6], EPERM),
    ("ptrace", 274, 100, [0; 6], EPERM),
    ("ptrace", 279, 239, [0; 6], EPERM),
    ("ptrace", 256, 238, [0; 6], EPERM),
    ("ptrace", 440, 440, [0; 6], EPERM),
    ("bpf", 321, 280, [0; 6], EPERM),
    ("perf", 298, 241, [0; 6], EPERM),
    ("userfaultfd", 323, 282, [0; 6], EPERM),
    ("userfaultfd", 16, 29, [3, 0xaa00, 0, 0, 0, 0], EPERM),
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
            if nr == NONE {
                continue;
            }
            for garbage in GARBAGE {
                let data = Data { nr, arch: arch as u32, args: args.map(|arg| arg | garbage) };
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
            // vsock's families are among those that net refuses.
            let same = |other: &Rule| other.name == rule || (rule, other.name) == ("vsock", "net");
            let others: Vec<&Rule> = RULES.iter().filter(|other| !same(other)).collect();
            let nr = if arch == Arch::X86_64 { x86_64 } else { aarch64 };
            if nr == NONE {
                continue;
            }
            assert_eq!(eval(&others, arch, nr, args), ALLOW, "{rule} {arch:?} {nr}");
        }
    }
}

#[test]
fn every_rule_and_every_call_of_the_table_is_tested_above() {
    for rule in RULES {
        for syscall in rule.clauses.iter().map(|clause| clause.syscall) {
            let numbers = (number(syscall, Arch::X86_64), syscall.number(Arch::Aarch64).unwrap_or(NONE));
            let tested = REFUSED.iter().any(|r| r.0 == rule.name && (r.1, r.2) == numbers);
            assert!(tested, "{} {}", rule.name, syscall.name);
        }
    }
}

#[test]
fn of_the_internet_s_sockets_tcp_s_alone_are_left_where_landlock_knows_the_ports() {
    const EOPNOTSUPP: u32 = 0x0005_005f;
    // The kernel's tables (the others of these calls have their numbers in REFUSED).
    let sends = [SYS_sendto, SYS_sendmsg, SYS_sendmmsg].map(|call| ARCHES.map(|arch| number(call, arch)));
    assert_eq!(sends, [[44, 206], [46, 211], [307, 269]]);
    for arch in ARCHES {
        let program = build(&[&NET_BUT_TCP], arch).expect("builds");
        let eval = |syscall, args| {
            interpret(&program, &Data { nr: number(syscall, arch), arch: arch as u32, args }).action
        };
        for garbage in GARBAGE {
            for domain in 0..64 {
                for kind in (0..16).flat_map(|kind| [kind, kind | 0o4000, kind | 0o2004000]) {
                    for protocol in [0, 1, 6, 17, 132, 255, 256, 262] {
                        let args = [domain, kind, protocol, 0, 0, 0].map(|arg: u64| arg | garbage);
                        let tcp = [2, 10].contains(&domain) && kind & 15 == 1 && [0, 6].contains(&protocol);
                        let expected = if tcp || [1, 16].contains(&domain) { ALLOW } else { EPERM };
                        assert_eq!(eval(SYS_socket, args), expected, "{domain} {kind} {protocol}");
                    }
                }
            }
            for (level, option) in [(6, 31), (6, 30), (6, 1), (1, 31), (0, 31), (282, 31)] {
                let args = [3, level, option, 0, 0, 0].map(|arg: u64| arg | garbage);
                let expected = if (level, option) == (6, 31) { EOPNOTSUPP } else { ALLOW };
                assert_eq!(eval(SYS_setsockopt, args), expected, "{level} {option}");
            }
            for (request, expected) in [(0x4004_54ca, EPERM), (0x4004_54cb, ALLOW), (0x54ca, ALLOW)] {
                let got = eval(SYS_ioctl, [3, request | garbage, 0, 0, 0, 0]);
                assert_eq!(got, expected, "{request:#x}");
            }
            for (syscall, at) in [(SYS_sendto, 3), (SYS_sendmsg, 2), (SYS_sendmmsg, 3)] {
                for bit in 0..32 {
                    let mut args = [0; 6];
                    args[at] = 1 << bit | garbage;
                    assert_eq!(eval(syscall, args), if bit == 29 { EOPNOTSUPP } else { ALLOW }, "{bit}");
                }
            }
        }
    }
}

#[test]
fn listen_is_refused_by_a_rule_of_its_own() {
    for (arch, nr) in ARCHES.into_iter().zip([50, 201]) {
        for args in [[0; 6], [3, 128, 0, 0, 0, 0], [u64::MAX; 6]] {
            assert_eq!(eval(&[&NO_LISTEN], arch, nr, args), EPERM);
            assert_eq!(eval(&[&NET_BUT_TCP], arch, nr, args), ALLOW);
            assert_eq!(eval(&[&NET_BUT_TCP, &NO_LISTEN], arch, nr, args), EPERM);
        }
    }
}

#[test]
fn of_the_pairs_that_unix_leaves_net_refuses_those_of_tipc() {
    for (arch, nr) in ARCHES.into_iter().zip([53, 199]) {
        for (domain, garbage) in (0..64).flat_map(|domain| GARBAGE.map(|garbage| (domain, garbage))) {
            for kind in [2, 4, 4 | 0o2_000_000] {
                let args = [domain | garbage, kind | garbage, 0, 0, 0, 0];
                let expected = if domain == 30 { EPERM } else { ALLOW };
                assert_eq!(eval(&[&NO_TIPC_PAIRS], arch, nr, args), expected, "{domain} {kind}");
                let both = [&default()[..], &[&NO_TIPC_PAIRS]].concat();
                let expected = if [1, 30].contains(&domain) { EPERM } else { ALLOW };
                assert_eq!(eval(&both, arch, nr, args), expected, "{domain} {kind}");
            }
        }
    }
}

#[test]
fn of_all_ioctls_those_that_change_what_may_only_be_read_are_refused_under_landlock() {
    #[rustfmt::skip]
    const CHANGE: [u64; 12] = [
        0x4008_941a, 0xc0c0_9425, 0xc0c8_9425, 0x4080_6685, 0x800c_6613, 0x4008_7602, 0x4008_6604, 0x4018_6f04, 0x4030_9410,
        0x4004_f50d, 0x8008_f512, 0x8008_f513,
    ];
    let others = CHANGE.into_iter().flat_map(|request| [request - 1, request + 1, request ^ 0xc000_0000]);
    let others: Vec<_> = others.chain([0x5413]).filter(|request| !CHANGE.contains(request)).collect();
    for arch in ARCHES {
        for request in (0x5000_9300..0x5000_9600).chain(CHANGE).chain(others.iter().copied()) {
            for garbage in GARBAGE {
                let refused = request & !0xff == 0x5000_9400 || CHANGE.contains(&request);
                let got = eval(
                    &[&NO_CHANGES_BY_IOCTL],
                    arch,
                    number(SYS_ioctl, arch),
                    [3, request | garbage, 0, 0, 0, 0],
                );
                assert_eq!(got, if refused { EPERM } else { ALLOW }, "{request:#x}");
            }
        }
    }
}

#[test]
fn of_all_socket_options_a_key_that_is_named_to_af_alg_alone_is_refused() {
    for arch in ARCHES {
        for (level, option) in
            [1, 6, 278, 279, 280].into_iter().flat_map(|level| (0..64).map(move |o| (level, o)))
        {
            for garbage in GARBAGE {
                let args = [3, level, option, 0, 0, 0].map(|arg: u64| arg | garbage);
                let expected = if (level, option) == (279, 7) { EPERM } else { ALLOW };
                assert_eq!(
                    eval(&default(), arch, number(SYS_setsockopt, arch), args),
                    expected,
                    "{level} {option}"
                );
            }
        }
    }
}

#[test]
fn limits_of_oneself_are_set_and_of_nobody_else() {
    for (arch, nr) in ARCHES.into_iter().zip([302, 261]) {
        for garbage in GARBAGE {
            for pid in [0, 1, 7, 0x7fff_ffff, 0xffff_ffff] {
                let got = eval(&[&NO_LIMITS_OF_OTHERS], arch, nr, [pid | garbage, 0, 1, 0, 0, 0]);
                assert_eq!(got, if pid == 0 { ALLOW } else { EPERM }, "{pid}");
            }
        }
    }
}

#[test]
fn modes_without_setuid_and_setgid_are_left_alone() {
    for arch in ARCHES {
        for (syscall, at) in [
            (SYS_chmod, 1),
            (SYS_fchmod, 1),
            (SYS_fchmodat, 2),
            (SYS_fchmodat2, 2),
            (SYS_mknod, 1),
            (SYS_mknodat, 2),
            (SYS_open, 2),
            (SYS_openat, 3),
            (SYS_creat, 1),
        ] {
            let Some(nr) = syscall.number(arch) else { continue };
            for mode in [0, 0o777, 0o1777, 0o100644, 0o010600, 0x1_0000_0000] {
                let mut args = [0o6000; 6];
                args[at] = mode;
                assert_eq!(eval(&only("setid"), arch, nr, args), ALLOW, "{} {mode:o}", syscall.name);
            }
        }
    }
}

#[test]
fn of_all_socket_families_unix_vsock_iucv_qipcrtr_rds_and_isdn_alone_are_refused() {
    for arch in ARCHES {
        for domain in (0..256).chain([0x7fff_ffff, 0xffff_ffff]) {
            for garbage in GARBAGE {
                let args = [domain | garbage, u64::MAX, u64::MAX, 0, 0, 0];
                let got = |rules: &[&Rule]| eval(rules, arch, number(SYS_socket, arch), args);
                assert_eq!(
                    got(&default()),
                    if [1, 21, 32, 34, 40, 42].contains(&domain) { EPERM } else { ALLOW }
                );
                assert_eq!(got(&only("unix")), if domain == 1 { EPERM } else { ALLOW });
                assert_eq!(
                    got(&only("vsock")),
                    if [21, 32, 34, 40, 42].contains(&domain) { EPERM } else { ALLOW }
                );
            }
        }
    }
}

#[test]
fn of_all_unix_pairs_stream_and_seqpacket_alone_are_allowed() {
    let nr = |arch| number(SYS_socketpair, arch);
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
fn of_all_ioctls_those_that_inject_send_signals_change_keys_or_make_and_delete_snapshots_are_refused() {
    const KEYS: [u64; 4] = [0xc040_6618, 0xc050_6617, 0xc040_6619, 0x6618];
    const BCACHEFS: [u64; 7] =
        [0x4020_bc10, 0x4020_bc11, 0x4030_bc1d, 0x8020_bc10, 0xc020_bc10, 0xbc10, 0x4020_bb10];
    for arch in ARCHES {
        for request in (0x5400..0x5500)
            .chain([0, 0x4004_5412, 0xffff_5412, 0xffff_ffff])
            .chain(KEYS)
            .chain(0x5000_9400..0x5000_9500)
            .chain(BCACHEFS)
        {
            for garbage in GARBAGE {
                let args = [0, request | garbage, 0x5412, 0x5412, 0, 0];
                let refused = [0x5412, 0x541c, 0x5416, 0x5417, 0x5418, 0x541f, 0x5423, 0x542f, 0x5452]
                    .contains(&request)
                    || KEYS[..2].contains(&request)
                    || request & !0xfe == 0x5000_9401
                    || BCACHEFS[..3].contains(&request);
                let got = eval(&default(), arch, number(SYS_ioctl, arch), args);
                assert_eq!(got, if refused { EPERM } else { ALLOW }, "{request:#x}");
            }
        }
    }
}

#[test]
fn of_all_commands_of_fcntl_leases_delegations_and_signals_to_others_alone_are_refused() {
    for arch in ARCHES {
        for command in (0..64).chain(1024..1100).chain([0xffff_ffff]) {
            for garbage in GARBAGE {
                for (flags, asynchronous) in
                    [(1024, false), (0xdfff, false), (0x2000, true), (0xffff_ffff, true)]
                {
                    let args = [1024, command | garbage, flags | garbage, 0x2000, 0, 0];
                    let refused = [10, 1024, 1026, 1040].contains(&command) || command == 4 && asynchronous;
                    let expected = if refused { EPERM } else { ALLOW };
                    assert_eq!(eval(&default(), arch, number(SYS_fcntl, arch), args), expected, "{command}");
                }
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
                    assert_eq!(eval(&only("userns"), arch, number(syscall, arch), args), ALLOW);
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
        for (rules, length, way) in [(default(), 115, 10), (RULES.iter().collect(), 360, 12)] {
            let program = build(&rules, arch).expect("builds");
            assert!(program.len() <= length, "{arch:?}: {} instructions", program.len());
            let steps = (0..512)
                .map(|nr| interpret(&program, &Data { nr, arch: arch as u32, args: [0; 6] }))
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
    assert_eq!(names(&[], &[]).expect("ok").join(","), DEFAULT_RULES);
    assert_eq!(
        names(&["unix,vsock", "keyring"], &["userns", "mount,bpf"]).expect("ok"),
        ["io-uring", "tty-inject", "sigio", "pid1", "lease", "snapshot", "userns", "mount", "bpf"]
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
