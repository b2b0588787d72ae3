//! What the filter can refuse: the table behind `--list`, `--allow` and `--deny`.

use crate::syscalls::{self as call, Syscall};
use seccompiler::SeccompAction::{self, Allow, Errno};
use srt_common::{Error, Result};
use std::fmt::Write;

/// A rule: what the user turns on and off by name.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Its name in `--allow` and `--deny`.
    pub name: &'static str,
    /// Whether it holds without being asked for.
    pub default: bool,
    /// The system calls that it refuses.
    pub calls: &'static [Call],
}

/// What a rule says of one system call. The clauses are tried in order and the first that matches decides; where
/// none matches, the call is allowed.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// The system call.
    pub syscall: Syscall,
    /// Which uses of it are refused, for `--list`; empty for all.
    pub uses: &'static str,
    /// What decides.
    pub clauses: &'static [Clause],
}

/// When all of `tests` hold, `action` is taken.
#[derive(Debug, PartialEq)]
pub struct Clause {
    /// On the arguments; empty for: always.
    pub tests: &'static [Test],
    /// What the kernel does then.
    pub action: SeccompAction,
}

/// Argument `arg` (from 0), its low 32 bits masked by `mask`, equals `value`.
///
/// 32 bits, because the kernel takes each argument that is tested here as an int, or looks at these bits only:
/// it drops the high half, so a comparison of 64 bits would be passed by any garbage up there.
#[derive(Debug, PartialEq)]
pub struct Test {
    /// Which argument.
    pub arg: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

const EPERM: SeccompAction = Errno(libc::EPERM as u32);
/// For what programs probe for: they fall back as on a kernel that does not have it.
const ENOSYS: SeccompAction = Errno(libc::ENOSYS as u32);

const fn rule(name: &'static str, default: bool, calls: &'static [Call]) -> Rule {
    Rule { name, default, calls }
}

const fn some(syscall: Syscall, uses: &'static str, clauses: &'static [Clause]) -> Call {
    Call { syscall, uses, clauses }
}

const fn all(syscall: Syscall) -> Call {
    some(syscall, "", &[Clause { tests: &[], action: EPERM }])
}

const fn absent(syscall: Syscall) -> Call {
    some(syscall, "", &[Clause { tests: &[], action: ENOSYS }])
}

const fn when(tests: &'static [Test], action: SeccompAction) -> Clause {
    Clause { tests, action }
}

const fn equal(arg: u8, value: u32) -> Test {
    masked(arg, u32::MAX, value)
}

const fn masked(arg: u8, mask: u32, value: u32) -> Test {
    Test { arg, mask, value }
}

const AF_UNIX: u32 = libc::AF_UNIX as u32;
const AF_VSOCK: u32 = libc::AF_VSOCK as u32;
const STREAM: u32 = libc::SOCK_STREAM as u32;
/// SOCK_TYPE_MASK of linux/net.h (the rest are SOCK_CLOEXEC and SOCK_NONBLOCK), without the one bit in which
/// SOCK_STREAM (1) and SOCK_SEQPACKET (5) differ.
const STREAM_OR_SEQPACKET: u32 = 0xf & !((libc::SOCK_STREAM ^ libc::SOCK_SEQPACKET) as u32);
const NEWUSER: u32 = libc::CLONE_NEWUSER as u32;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// Every rule, the ones that hold by default first.
pub const RULES: &[Rule] = &[
    // unix(7): a Unix socket reaches any other of the host by path. So do the ends of a datagram pair (a SOCK_RAW one
    // is a datagram pair too): sendto(2) takes any path. Stream and seqpacket ends stay connected to each other.
    rule(
        "unix",
        true,
        &[
            some(call::socket, "AF_UNIX", &[when(&[equal(0, AF_UNIX)], EPERM)]),
            some(
                call::socketpair,
                "AF_UNIX but SOCK_STREAM, SOCK_SEQPACKET",
                &[when(&[masked(1, STREAM_OR_SEQPACKET, STREAM)], Allow), when(&[equal(0, AF_UNIX)], EPERM)],
            ),
        ],
    ),
    // vsock(7): the way to the hypervisor and its other guests, which no network namespace closes.
    rule("vsock", true, &[some(call::socket, "AF_VSOCK", &[when(&[equal(0, AF_VSOCK)], EPERM)])]),
    // io_uring_enter(2): IORING_OP_SOCKET and its kind are no system calls: no filter sees them.
    rule(
        "io-uring",
        true,
        &[absent(call::io_uring_setup), absent(call::io_uring_enter), absent(call::io_uring_register)],
    ),
    // TIOCSTI(2const), TIOCLINUX(2const): put input into the terminal that the caller reads next (CVE-2017-5226).
    rule(
        "tty-inject",
        true,
        &[some(
            call::ioctl,
            "TIOCSTI, TIOCLINUX",
            &[when(&[equal(1, TIOCSTI)], EPERM), when(&[equal(1, TIOCLINUX)], EPERM)],
        )],
    ),
    // keyrings(7): the kernel's keyrings belong to the uid and the session; namespaces hide few of them.
    rule("keyring", true, &[all(call::add_key), all(call::request_key), all(call::keyctl)]),
    // user_namespaces(7): all capabilities, over whatever the new namespace gets to own. A filter cannot look into
    // clone3's argument, a struct in memory; libc falls back to clone.
    rule(
        "userns",
        false,
        &[
            some(call::unshare, "CLONE_NEWUSER", &[when(&[masked(0, NEWUSER, NEWUSER)], EPERM)]),
            some(call::clone, "CLONE_NEWUSER", &[when(&[masked(0, NEWUSER, NEWUSER)], EPERM)]),
            absent(call::clone3),
            all(call::setns),
        ],
    ),
    rule(
        "mount",
        false,
        &[
            all(call::mount),
            all(call::umount2),
            all(call::pivot_root),
            all(call::chroot),
            all(call::open_tree),
            all(call::open_tree_attr),
            all(call::move_mount),
            all(call::fsopen),
            all(call::fsconfig),
            all(call::fsmount),
            all(call::fspick),
            all(call::mount_setattr),
        ],
    ),
    // ptrace(2) "Ptrace access mode checking": the calls that rest on it.
    rule(
        "ptrace",
        false,
        &[
            all(call::ptrace),
            all(call::process_vm_readv),
            all(call::process_vm_writev),
            all(call::kcmp),
            all(call::pidfd_getfd),
        ],
    ),
    rule("bpf", false, &[all(call::bpf)]),
    rule("perf", false, &[all(call::perf_event_open)]),
    rule("userfaultfd", false, &[all(call::userfaultfd)]),
    rule("fanotify", false, &[all(call::fanotify_init), all(call::fanotify_mark)]),
    rule("file-handle", false, &[all(call::name_to_handle_at), all(call::open_by_handle_at)]),
    rule("syslog", false, &[all(call::syslog)]),
    // What follows needs a capability over the host, which this tool leaves to nobody: for exported filters.
    rule("module", false, &[all(call::init_module), all(call::finit_module), all(call::delete_module)]),
    rule("kexec", false, &[all(call::kexec_load), all(call::kexec_file_load)]),
    rule("reboot", false, &[all(call::reboot)]),
    rule("swap", false, &[all(call::swapon), all(call::swapoff)]),
    rule(
        "clock",
        false,
        &[all(call::settimeofday), all(call::clock_settime), all(call::clock_adjtime), all(call::adjtimex)],
    ),
];

/// The rules that hold under these `--allow` and `--deny` values, each a list of names with commas.
///
/// # Errors
/// A usage error for a name that is no rule, and for one in both.
pub fn select(allow: &[String], deny: &[String]) -> Result<Vec<&'static Rule>> {
    let (allowed, denied) = (find("--allow", allow)?, find("--deny", deny)?);
    if let Some(both) = allowed.iter().find(|rule| denied.contains(rule)) {
        return Err(Error::usage(format!("{}: in both --allow and --deny", both.name)));
    }
    let holds = |rule: &&Rule| denied.contains(rule) || rule.default && !allowed.contains(rule);
    Ok(RULES.iter().filter(holds).collect())
}

fn find(option: &str, lists: &[String]) -> Result<Vec<&'static Rule>> {
    let names = lists.iter().flat_map(|list| list.split(','));
    names
        .map(|name| {
            RULES.iter().find(|rule| rule.name == name).ok_or_else(|| {
                let known = RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ");
                Error::usage(format!("{option}: there is no rule \"{name}\"; expected any of {known}"))
            })
        })
        .collect()
}

/// The text of `--list`.
pub fn list() -> String {
    let mut text = "RULE         DEFAULT  SYSTEM CALLS\n".to_owned();
    for rule in RULES {
        let calls = rule.calls.iter().map(|call| match call.uses {
            "" => call.syscall.name.to_owned(),
            uses => format!("{}({uses})", call.syscall.name),
        });
        let (default, calls) =
            (if rule.default { "on" } else { "off" }, calls.collect::<Vec<_>>().join(", "));
        let _infallible = writeln!(text, "{:<12} {default:<8} {calls}", rule.name);
    }
    text
}
