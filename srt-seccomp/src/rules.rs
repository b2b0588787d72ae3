//! The rules of the filter: the table behind `--list`, `--allow` and `--deny`.

use crate::syscalls::*;
use libc::{
    AF_INET, AF_INET6, AF_IUCV, AF_NETLINK, AF_RDS, AF_TIPC, AF_UNIX, CLONE_NEWUSER, F_SETFL, F_SETLEASE,
    IPPROTO_TCP, MSG_FASTOPEN, O_ASYNC, O_CREAT, SOCK_SEQPACKET, SOCK_STREAM, SOL_ALG, TCP_ULP, c_int,
};
use seccompiler::SeccompAction::{self, Allow, Errno};
use seccompiler::SeccompCmpOp;
use srt_common::{Error, Result, args::decode};
use std::fmt::Write;

/// A rule, which the user turns on and off by name.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Its name in `--allow` and `--deny`.
    pub name: &'static str,
    /// Whether it is on by default.
    default: bool,
    /// Its clauses. Of those for one system call the first that matches decides; if none matches, the call is
    /// allowed.
    pub clauses: &'static [Clause],
}

/// A system call, and what the kernel does with it if all of `tests` hold.
#[derive(Debug, PartialEq)]
pub struct Clause {
    /// The system call.
    pub syscall: Syscall,
    /// The tests in words, for `--list`.
    uses: &'static str,
    /// If empty, the clause always matches.
    pub(crate) tests: &'static [Test],
    /// What the kernel does.
    pub action: SeccompAction,
}

/// The low 32 bits of argument `arg` (from 0), compared with `value`.
///
/// 32 bits, because the kernel takes each argument that is tested here as an int, or reads only these bits: it
/// ignores the high half, so garbage there would bypass a 64-bit comparison.
#[derive(Debug, PartialEq)]
pub(crate) struct Test {
    /// The number of the argument.
    pub arg: u8,
    /// The comparison.
    pub operator: SeccompCmpOp,
    /// The value to compare with.
    pub value: u32,
}

const EPERM: SeccompAction = Errno(libc::EPERM as u32);
/// For calls that programs probe for: they fall back as on a kernel without the call.
const ENOSYS: SeccompAction = Errno(libc::ENOSYS as u32);
const EOPNOTSUPP: SeccompAction = Errno(libc::EOPNOTSUPP as u32);

/// linux/socket.h; libc does not have it for every target.
const AF_QIPCRTR: c_int = 42;
/// The two bits in which AF_IUCV, AF_ISDN (34), AF_VSOCK (40) and AF_QIPCRTR differ from each other.
const BEYOND: c_int = AF_IUCV ^ AF_QIPCRTR;
/// linux/net.h; the other bits are SOCK_CLOEXEC and SOCK_NONBLOCK.
const SOCK_TYPE_MASK: c_int = 0xf;
/// The mask without the one bit in which SOCK_STREAM (1) and SOCK_SEQPACKET (5) differ.
const STREAM_OR_SEQPACKET: c_int = SOCK_TYPE_MASK & !(SOCK_STREAM ^ SOCK_SEQPACKET);
/// The one bit in which AF_INET (2) and AF_INET6 (10) differ.
const INET_BIT: c_int = AF_INET ^ AF_INET6;
const TIOCSTI: c_int = 0x5412;
const TIOCLINUX: c_int = 0x541c;
/// TIOCMBIC is the next number.
const TIOCMBIS: c_int = 0x5416;
const TIOCMSET: c_int = 0x5418;
/// linux/fcntl.h; libc does not have it for every target.
const F_SETSIG: c_int = 10;
/// linux/resource.h.
const PRIO_PROCESS: c_int = 0;
const PRIO_PGRP: c_int = 1;
const PRIO_USER: c_int = 2;
/// asm-generic/ioctls.h; libc does not have them for every target.
const TIOCSSERIAL: c_int = 0x541f;
const TIOCSETD: c_int = 0x5423;
const TIOCSRS485: c_int = 0x542f;
const FIOASYNC: c_int = 0x5452;
/// FS_IOC_ADD_ENCRYPTION_KEY of linux/fscrypt.h.
const ADD_KEY: c_int = 0xc050_6617_u32 as c_int;
/// FS_IOC_REMOVE_ENCRYPTION_KEY of linux/fscrypt.h.
const REMOVE_KEY: c_int = 0xc040_6618_u32 as c_int;
const KEY_SERIAL: c_int = libc::ALG_SET_KEY_BY_KEY_SERIAL;
/// linux/if_tun.h.
const TUNSETIFF: c_int = 0x4004_54ca;
/// `_IO(USERFAULTFD_IOC, 0)` of linux/userfaultfd.h.
const USERFAULTFD_IOC_NEW: c_int = 0xaa00;
/// F2FS_IOC_RELEASE_COMPRESS_BLOCKS of linux/f2fs.h; F2FS_IOC_RESERVE_COMPRESS_BLOCKS is the next number.
const COMPRESS_BLOCKS: c_int = 0x8008_f512_u32 as c_int;
/// BTRFS_IOC_SET_RECEIVED_SUBVOL of linux/btrfs.h, and the one bit in which the size of its argument differs from
/// that of BTRFS_IOC_SET_RECEIVED_SUBVOL_32 (fs/btrfs/ioctl.c), which a 64-bit kernel also accepts.
const RECEIVED_SUBVOL: (c_int, c_int) = (0xc0c0_9425_u32 as c_int, 0x0008_0000);
/// The common bits of the ioctls of linux/btrfs.h that take a name: `_IOW(0x94, …, struct btrfs_ioctl_vol_args)`.
const BTRFS_WITH_NAME: c_int = 0x5000_9400;
/// BTRFS_IOC_SNAP_CREATE of linux/btrfs.h.
const SNAP_CREATE: c_int = 0x5000_9401;
/// Mask and bits of BCH_IOCTL_SUBVOLUME_CREATE of fs/bcachefs/bcachefs_ioctl.h: `_IOW(0xbc, …)`, of any size.
const BCACHEFS: (c_int, c_int) = (0xc000_ff00_u32 as c_int, 0x4000_bc00);
/// The one bit in which F_SETLEASE (1024) and F_SETDELEG (1040, linux/fcntl.h) differ.
const DELEG_BIT: c_int = 16;
/// `__O_TMPFILE` of asm-generic/fcntl.h; O_TMPFILE is this bit and O_DIRECTORY.
const TMPFILE: c_int = 0o20_000_000;
const SETUID: c_int = libc::S_ISUID as c_int;
const SETGID: c_int = libc::S_ISGID as c_int;

const fn masked(arg: u8, mask: c_int, value: c_int) -> Test {
    Test { arg, operator: SeccompCmpOp::MaskedEq(mask as u32 as u64), value: value as u32 }
}

const fn flag(arg: u8, bit: c_int) -> Test {
    masked(arg, bit, bit)
}

const fn equal(arg: u8, value: c_int) -> Test {
    Test { arg, operator: SeccompCmpOp::Eq, value: value as u32 }
}

const fn differs(arg: u8, value: c_int) -> Test {
    Test { arg, operator: SeccompCmpOp::Ne, value: value as u32 }
}

/// All families except those that do not leave this machine: unix(7), which has its own rule, and netlink(7), which
/// programs ask for this machine's addresses.
const BEYOND_THIS_MACHINE: &[Test] = &[differs(0, AF_UNIX), differs(0, AF_NETLINK)];
/// A TCP socket: the protocol is 0 or IPPROTO_TCP; not MPTCP, which Landlock's rights do not cover.
const TCP: &[Test] =
    &[masked(0, !INET_BIT, AF_INET), masked(1, SOCK_TYPE_MASK, SOCK_STREAM), masked(2, !IPPROTO_TCP, 0)];

const fn when(syscall: Syscall, uses: &'static str, tests: &'static [Test], action: SeccompAction) -> Clause {
    Clause { syscall, uses, tests, action }
}

const fn always(syscall: Syscall, action: SeccompAction) -> Clause {
    when(syscall, "", &[], action)
}

/// These system calls always fail with this errno.
macro_rules! all {
    ($action:ident: $($syscall:ident)*) => { &[$(always($syscall, $action)),*] };
}

/// These system calls fail if this argument, a mode, has S_ISUID or S_ISGID; the last call always fails.
macro_rules! with_setid {
    ($($syscall:ident $mode:literal)*; $($open:ident $flags:literal $open_mode:literal)*; $action:ident: $last:ident) => { &[
        $(
            when($syscall, "S_ISUID or S_ISGID", &[flag($mode, SETUID)], EPERM),
            when($syscall, "S_ISUID or S_ISGID", &[flag($mode, SETGID)], EPERM),
        )*
        // open(2): without one of the two flags the mode is ignored, and may be anything.
        $(
            when($open, "O_CREAT, S_ISUID", &[flag($flags, O_CREAT), flag($open_mode, SETUID)], EPERM),
            when($open, "O_CREAT, S_ISGID", &[flag($flags, O_CREAT), flag($open_mode, SETGID)], EPERM),
            when($open, "O_TMPFILE, S_ISUID", &[flag($flags, TMPFILE), flag($open_mode, SETUID)], EPERM),
            when($open, "O_TMPFILE, S_ISGID", &[flag($flags, TMPFILE), flag($open_mode, SETGID)], EPERM),
        )*
        always($last, $action),
    ] };
}

const fn on(name: &'static str) -> Rule {
    Rule { name, default: true, clauses: &[] }
}

const fn off(name: &'static str) -> Rule {
    Rule { name, default: false, clauses: &[] }
}

impl Rule {
    const fn says(self, clauses: &'static [Clause]) -> Self {
        Self { clauses, ..self }
    }
}

/// Every rule, those on by default first.
pub const RULES: &[Rule] = &[
    // unix(7): a Unix socket can reach any other on the host by path. So can the ends of a datagram pair (a SOCK_RAW
    // pair is a datagram pair too): sendto(2) accepts any path. Stream and seqpacket ends stay connected to each
    // other.
    on("unix").says(&[
        when(SYS_socket, "AF_UNIX", &[equal(0, AF_UNIX)], EPERM),
        when(SYS_socketpair, "", &[masked(1, STREAM_OR_SEQPACKET, SOCK_STREAM)], Allow),
        when(SYS_socketpair, "AF_UNIX but SOCK_STREAM, SOCK_SEQPACKET", &[equal(0, AF_UNIX)], EPERM),
    ]),
    // Families that no network namespace isolates. vsock(7), like AF_IUCV, reaches the hypervisor and its other
    // guests. AF_QIPCRTR reaches modems and similar devices; its nodes and ports are one table for all namespaces
    // (net/qrtr/af_qrtr.c). So are the addresses of AF_RDS (net/rds/bind.c), and the lines of AF_ISDN
    // (drivers/isdn/mISDN/socket.c).
    on("vsock").says(&[
        when(SYS_socket, "AF_RDS", &[equal(0, AF_RDS)], EPERM),
        when(SYS_socket, "AF_VSOCK, AF_QIPCRTR, AF_ISDN, AF_IUCV", &[masked(0, !BEYOND, AF_IUCV)], EPERM),
    ]),
    // io_uring_enter(2): IORING_OP_SOCKET and the like are not system calls, so no filter sees them.
    on("io-uring").says(all!(ENOSYS: SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register)),
    // TIOCSTI(2const), TIOCLINUX(2const): put input into the terminal that the caller reads next (CVE-2017-5226).
    // TIOCMBIS and TIOCMSET with TIOCM_LOOP, TIOCSRS485 with SER_RS485_RX_DURING_TX: a serial line receives what it
    // sends. TIOCSSERIAL changes what its speed means, which outlasts the sandbox. After TIOCSETD a line whose output is
    // stopped (tcflow(3)) can stay so for good.
    on("tty-inject").says(&[
        when(SYS_ioctl, "TIOCSTI", &[equal(1, TIOCSTI)], EPERM),
        when(SYS_ioctl, "TIOCLINUX", &[equal(1, TIOCLINUX)], EPERM),
        when(SYS_ioctl, "TIOCMBIS or TIOCMBIC", &[masked(1, !1, TIOCMBIS)], EPERM),
        when(SYS_ioctl, "TIOCMSET", &[equal(1, TIOCMSET)], EPERM),
        when(SYS_ioctl, "TIOCSRS485", &[equal(1, TIOCSRS485)], EPERM),
        when(SYS_ioctl, "TIOCSSERIAL", &[equal(1, TIOCSSERIAL)], EPERM),
        when(SYS_ioctl, "TIOCSETD", &[equal(1, TIOCSETD)], EPERM),
    ]),
    // fcntl(2), O_ASYNC: for a terminal the kernel makes its foreground process group the owner (`__tty_fasync()` in
    // drivers/tty/tty_io.c), in whatever pid namespace it is, and sends any signal (F_SETSIG) to its processes with
    // the same uid. That signal stays set after the sandbox has ended, also for other processes that have the file
    // open. With F_NOTIFY a directory sends SIGIO to any process or group of the same user (F_SETOWN), without those
    // two (dnotify_handle_event() in fs/notify/dnotify/dnotify.c).
    on("sigio").says(&[
        when(SYS_fcntl, "F_SETFL, O_ASYNC", &[equal(1, F_SETFL), flag(2, O_ASYNC)], EPERM),
        when(SYS_fcntl, "F_SETSIG", &[equal(1, F_SETSIG)], EPERM),
        when(SYS_fcntl, "F_NOTIFY", &[equal(1, libc::F_NOTIFY)], EPERM),
        when(SYS_ioctl, "FIOASYNC", &[equal(1, FIOASYNC)], EPERM),
    ]),
    // keyrings(7): the kernel's keyrings belong to the uid and the session; namespaces hide few of them. The keys of
    // an encrypted file system (Documentation/filesystems/fscrypt.rst) are in its own keyring: a process that can
    // open a directory can remove the keys that its uid has added, so that no user can open the files, and can add
    // one from a keyring, which stays. AF_ALG uses a key of the caller's by its serial number (Linux 6.2).
    on("keyring").says(&[
        always(SYS_add_key, EPERM),
        always(SYS_request_key, EPERM),
        always(SYS_keyctl, EPERM),
        when(SYS_ioctl, "FS_IOC_ADD_ENCRYPTION_KEY", &[equal(1, ADD_KEY)], EPERM),
        when(SYS_ioctl, "FS_IOC_REMOVE_ENCRYPTION_KEY", &[equal(1, REMOVE_KEY)], EPERM),
        when(SYS_setsockopt, "ALG_SET_KEY_BY_KEY_SERIAL", &[equal(1, SOL_ALG), equal(2, KEY_SERIAL)], EPERM),
    ]),
    // sched(7): a process of the same user may be given SCHED_IDLE and one busy processor. The sandbox ends when its
    // PID 1 ends, which needs CPU time for that even after SIGKILL. setpriority(2) with PRIO_USER includes PID 1, and
    // so does PRIO_PGRP with the caller's own group if the caller has joined PID 1's (setpgid(2): with srt-ns
    // --keep-session both have one session).
    on("pid1").says(&[
        when(SYS_sched_setscheduler, "PID 1", &[equal(0, 1)], EPERM),
        when(SYS_sched_setparam, "PID 1", &[equal(0, 1)], EPERM),
        when(SYS_sched_setattr, "PID 1", &[equal(0, 1)], EPERM),
        when(SYS_sched_setaffinity, "PID 1", &[equal(0, 1)], EPERM),
        when(SYS_setpriority, "PID 1", &[equal(0, PRIO_PROCESS), equal(1, 1)], EPERM),
        when(SYS_setpriority, "PRIO_PGRP", &[equal(0, PRIO_PGRP)], EPERM),
        when(SYS_setpriority, "PRIO_USER", &[equal(0, PRIO_USER)], EPERM),
    ]),
    // fcntl(2), "Leases": a process that opens or executes such a file waits for up to 45 seconds
    // (/proc/sys/fs/lease-break-time). The file's owner only needs to read it, so a read-only mount does not help:
    // the stages of the next sandbox may be such files. F_SETDELEG (Linux 6.19): the same for a directory, and
    // processes that create or remove something in it.
    on("lease").says(&[
        when(SYS_fcntl, "F_SETLEASE or F_SETDELEG", &[masked(1, !DELEG_BIT, F_SETLEASE)], EPERM),
    ]),
    // linux/btrfs.h: to snapshot a subvolume, its owner only needs to open it (or any file in it, before Linux 6.8),
    // and the snapshot contains what masks hide; deleting a subvolume ignores mounts below it (user_subvol_rm_allowed
    // of btrfs(5)). The odd-numbered ioctls of this form are the four for these operations, and two that require
    // CAP_SYS_ADMIN. bcachefs (Linux 6.7 to 6.17) has the same two operations for every user
    // (fs/bcachefs/fs-ioctl.c); its other ioctls of this form require CAP_SYS_ADMIN.
    on("snapshot").says(&[
        when(SYS_ioctl, "BTRFS_IOC_SNAP_*", &[masked(1, !0xfe, SNAP_CREATE)], EPERM),
        when(SYS_ioctl, "BCH_IOCTL_SUBVOLUME_*", &[masked(1, BCACHEFS.0, BCACHEFS.1)], EPERM),
    ]),
    // A tun(4) interface that belongs to the user, or to no user, sends what is written to /dev/net/tun.
    off("net").says(&[
        when(SYS_socket, "all but AF_UNIX, AF_NETLINK", BEYOND_THIS_MACHINE, EPERM),
        when(SYS_ioctl, "TUNSETIFF", &[equal(1, TUNSETIFF)], EPERM),
    ]),
    // inode(7), for a caller who must be root: a setuid-root file that the command leaves in a directory of the host
    // gives root privileges to any user who executes it there. mkdir(2) clears both bits by itself (vfs_mkdir() in
    // fs/namei.c). open(2) ignores the mode if it creates no file; libc then passes 0. A filter cannot read openat2's
    // argument.
    off("setid").says(with_setid!(
        SYS_chmod 1 SYS_fchmod 1 SYS_fchmodat 2 SYS_fchmodat2 2 SYS_mknod 1 SYS_mknodat 2 SYS_creat 1;
        SYS_open 1 2 SYS_openat 2 3; ENOSYS: SYS_openat2)),
    // user_namespaces(7): all capabilities over whatever the new namespace owns. A filter cannot read clone3's
    // argument, a struct in memory; libc falls back to clone.
    off("userns").says(&[
        when(SYS_unshare, "CLONE_NEWUSER", &[flag(0, CLONE_NEWUSER)], EPERM),
        when(SYS_clone, "CLONE_NEWUSER", &[flag(0, CLONE_NEWUSER)], EPERM),
        always(SYS_clone3, ENOSYS),
        always(SYS_setns, EPERM),
    ]),
    off("mount").says(all!(EPERM:
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_fchroot SYS_open_tree SYS_open_tree_attr SYS_move_mount
        SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr)),
    // ptrace(2), "Ptrace access mode checking": the calls that depend on it.
    off("ptrace").says(all!(EPERM:
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_get_robust_list
        SYS_move_pages SYS_migrate_pages SYS_process_madvise)),
    off("bpf").says(all!(EPERM: SYS_bpf)),
    off("perf").says(all!(EPERM: SYS_perf_event_open)),
    // Linux 6.1: /dev/userfaultfd also creates one.
    off("userfaultfd").says(&[
        always(SYS_userfaultfd, EPERM),
        when(SYS_ioctl, "USERFAULTFD_IOC_NEW", &[equal(1, USERFAULTFD_IOC_NEW)], EPERM),
    ]),
    off("fanotify").says(all!(EPERM: SYS_fanotify_init SYS_fanotify_mark)),
    off("file-handle").says(all!(EPERM: SYS_name_to_handle_at SYS_open_by_handle_at)),
    off("syslog").says(all!(EPERM: SYS_syslog)),
];

/// The rule `net` if TCP connections are left to Landlock, which checks ports: of the internet sockets it allows only
/// TCP's. It refuses a send that connects, since tcp_sendmsg_fastopen() in net/ipv4/tcp.c calls no security module.
/// Programs fall back if there is no Fast Open.
pub const NET_BUT_TCP: Rule = off("net").says(&[
    when(SYS_socket, "", TCP, Allow),
    when(SYS_socket, "", BEYOND_THIS_MACHINE, EPERM),
    when(SYS_ioctl, "", &[equal(1, TUNSETIFF)], EPERM),
    when(SYS_sendto, "", &[flag(3, MSG_FASTOPEN)], EOPNOTSUPP),
    when(SYS_sendmsg, "", &[flag(2, MSG_FASTOPEN)], EOPNOTSUPP),
    when(SYS_sendmmsg, "", &[flag(3, MSG_FASTOPEN)], EOPNOTSUPP),
    // The protocol "smc" turns a TCP socket into one of AF_SMC (smc_ulp_init() in net/smc/af_smc.c, Linux 5.17),
    // whose connections are TCP's, but not TCP to Landlock (sk_is_tcp() in security/landlock/net.c). TLS works
    // without TCP_ULP.
    when(SYS_setsockopt, "", &[equal(1, IPPROTO_TCP), equal(2, TCP_ULP)], EOPNOTSUPP),
]);

/// The same if only TCP sockets are left: no listen(2), which assigns a port to a socket that has none
/// (`inet_csk_listen_start()` in net/ipv4/inet_connection_sock.c), while Landlock checks only bind(2).
pub const NO_LISTEN: Rule = off("net").says(all!(EPERM: SYS_listen));

/// The other way to a network socket: TIPC pairs (tipc_socketpair() in net/tipc/socket.c), whose ends can send to any
/// address unless they are stream or seqpacket ones. For the rule `net`, but not in it: the rule `unix` has an
/// exception for this call. No other family except AF_UNIX has pairs.
pub const NO_TIPC_PAIRS: Rule =
    off("net").says(&[when(SYS_socketpair, "AF_TIPC", &[equal(0, AF_TIPC)], EPERM)]);

/// What Landlock's signal scope does not cover: a process that sets another's RLIMIT_CPU can have the kernel kill it
/// (getrlimit(2)).
pub const NO_LIMITS_OF_OTHERS: Rule =
    off("landlock").says(&[when(SYS_prlimit64, "of another process", &[differs(0, 0)], EPERM)]);

/// What Landlock's rights by path permit with read access only, since of all ioctls they cover only those of devices
/// (landlock.rst, `LANDLOCK_ACCESS_FS_IOCTL_DEV`): creating a directory (`btrfs_mksubvol()` in fs/btrfs/ioctl.c);
/// making a subvolume read-only, a file permanently read-only (fsverity.rst), or an empty directory one that needs a
/// key (fscrypt.rst); copying one path to another (`ocfs2_reflink_ioctl()` in fs/ocfs2/refcounttree.c); rewriting
/// data that is shared with another file (`btrfs_ioctl_defrag()`); keeping a file in its place, or from being written
/// (fs/f2fs/file.c). On a read-only mount they fail by themselves.
pub const NO_CHANGES_BY_IOCTL: Rule = off("landlock").says(&[
    // BTRFS_IOC_SUBVOL_SETFLAGS of linux/btrfs.h.
    when(SYS_ioctl, "", &[equal(1, 0x4008_941a)], EPERM),
    // FS_IOC_ENABLE_VERITY of linux/fsverity.h.
    when(SYS_ioctl, "", &[equal(1, 0x4080_6685)], EPERM),
    // FS_IOC_SET_ENCRYPTION_POLICY of linux/fscrypt.h.
    when(SYS_ioctl, "", &[equal(1, 0x800c_6613_u32 as c_int)], EPERM),
    // FS_IOC_SETVERSION of linux/fs.h.
    when(SYS_ioctl, "", &[equal(1, 0x4008_7602)], EPERM),
    // EXT4_IOC_SETVERSION of fs/ext4/ext4.h.
    when(SYS_ioctl, "", &[equal(1, 0x4008_6604)], EPERM),
    // OCFS2_IOC_REFLINK of fs/ocfs2/ocfs2_ioctl.h.
    when(SYS_ioctl, "", &[equal(1, 0x4018_6f04)], EPERM),
    // BTRFS_IOC_DEFRAG_RANGE of linux/btrfs.h.
    when(SYS_ioctl, "", &[equal(1, 0x4030_9410)], EPERM),
    // F2FS_IOC_SET_PIN_FILE of linux/f2fs.h.
    when(SYS_ioctl, "", &[equal(1, 0x4004_f50d)], EPERM),
    when(SYS_ioctl, "", &[masked(1, !1, COMPRESS_BLOCKS)], EPERM),
    when(SYS_ioctl, "", &[masked(1, !RECEIVED_SUBVOL.1, RECEIVED_SUBVOL.0)], EPERM),
    when(SYS_ioctl, "", &[masked(1, !0xff, BTRFS_WITH_NAME)], EPERM),
]);

/// Selects the rules for these `--allow` and `--deny` values, each a comma-separated list of names.
///
/// # Errors
/// A usage error for a name that is not a rule, or that is in both.
pub fn select(allow: &[String], deny: &[String]) -> Result<Vec<&'static Rule>> {
    let (allowed, denied) = (find("--allow", allow)?, find("--deny", deny)?);
    if let Some(both) = allowed.iter().find(|rule| denied.contains(rule)) {
        return Err(Error::usage(format!("{}: in both --allow and --deny", both.name)));
    }
    let holds = |rule: &&Rule| denied.contains(rule) || rule.default && !allowed.contains(rule);
    Ok(RULES.iter().filter(holds).collect())
}

fn find(option: &str, lists: &[String]) -> Result<Vec<&'static Rule>> {
    let rule = |name: &str| {
        RULES.iter().find(|rule| rule.name == name).ok_or_else(|| {
            let known = RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ");
            let name = decode(name).to_string_lossy().into_owned();
            Error::usage(format!("{option}: there is no rule \"{name}\"; expected any of {known}"))
        })
    };
    lists.iter().flat_map(|list| list.split(',')).map(rule).collect()
}

/// The text of `--list`.
pub fn list() -> String {
    let mut text = "RULE         DEFAULT  SYSTEM CALLS\n".to_owned();
    let shown = |clause: &Clause| match clause.uses {
        "" => clause.syscall.name.to_owned(),
        uses => format!("{}({uses})", clause.syscall.name),
    };
    for rule in RULES {
        let parts = [rule, &NO_TIPC_PAIRS].into_iter().filter(|part| part.name == rule.name);
        let refused = parts.flat_map(|part| part.clauses).filter(|clause| clause.action != Allow);
        let mut calls: Vec<String> = refused.map(shown).collect();
        calls.dedup();
        let (default, calls) = (if rule.default { "on" } else { "off" }, calls.join(", "));
        let _infallible = writeln!(text, "{:<12} {default:<8} {calls}", rule.name);
    }
    text
}
