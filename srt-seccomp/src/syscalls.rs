//! The numbers of the system calls in the rules, on every supported architecture: a filter for one can be built and
//! tested on another.

/// The architecture that a filter is for: AUDIT_ARCH_* of linux/audit.h, as a filter sees it (the ELF machine, 64-bit,
/// little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Arch {
    /// AMD64, called x86-64 by the kernel.
    X86_64 = 0xc000_003e,
    /// 64-bit ARM.
    Aarch64 = 0xc000_00b7,
}

impl Arch {
    /// The architecture that this program is compiled for.
    pub const NATIVE: Self = if cfg!(target_arch = "x86_64") { Self::X86_64 } else { Self::Aarch64 };
}

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// Its name in the kernel's tables.
    pub name: &'static str,
    x86_64: u32,
    aarch64: Option<u32>,
}

impl Syscall {
    /// Its number on `arch`, or `None` if there is no such call: 64-bit ARM has only open**at** and the like.
    pub fn number(self, arch: Arch) -> Option<u32> {
        match arch {
            Arch::X86_64 => Some(self.x86_64),
            Arch::Aarch64 => self.aarch64,
        }
    }
}

/// `SYS_name x86_64 aarch64`, from the kernel's syscall_64.tbl and asm-generic/unistd.h.
macro_rules! syscalls {
    ($($name:ident $x86_64:literal $($aarch64:literal)?,)*) => { $(
        #[doc = concat!("`", stringify!($name), "`")]
        #[allow(non_upper_case_globals)]
        pub const $name: Syscall = {
            let aarch64: &[u32] = &[$($aarch64)?];
            Syscall { name: stringify!($name).split_at(4).1, x86_64: $x86_64, aarch64: aarch64.first().copied() }
        };
    )* };
}

syscalls! {
    SYS_socket 41 198, SYS_socketpair 53 199, SYS_ioctl 16 29, SYS_fcntl 72 25, SYS_prlimit64 302 261,
    SYS_listen 50 201, SYS_setsockopt 54 208, SYS_sendto 44 206, SYS_sendmsg 46 211, SYS_sendmmsg 307 269,
    SYS_io_uring_setup 425 425, SYS_io_uring_enter 426 426, SYS_io_uring_register 427 427,
    SYS_add_key 248 217, SYS_request_key 249 218, SYS_keyctl 250 219,
    SYS_setpriority 141 140, SYS_sched_setparam 142 118, SYS_sched_setscheduler 144 119,
    SYS_sched_setaffinity 203 122, SYS_sched_setattr 314 274,
    SYS_chmod 90, SYS_fchmod 91 52, SYS_fchmodat 268 53, SYS_fchmodat2 452 452, SYS_mknod 133, SYS_mknodat 259 33,
    SYS_open 2, SYS_openat 257 56, SYS_openat2 437 437, SYS_creat 85,
    SYS_unshare 272 97, SYS_clone 56 220, SYS_clone3 435 435, SYS_setns 308 268,
    SYS_mount 165 40, SYS_umount2 166 39, SYS_pivot_root 155 41, SYS_chroot 161 51, SYS_fchroot 472 472,
    SYS_open_tree 428 428, SYS_open_tree_attr 467 467, SYS_move_mount 429 429, SYS_mount_setattr 442 442,
    SYS_fsopen 430 430, SYS_fsconfig 431 431, SYS_fsmount 432 432, SYS_fspick 433 433,
    SYS_ptrace 101 117, SYS_process_vm_readv 310 270, SYS_process_vm_writev 311 271,
    SYS_kcmp 312 272, SYS_pidfd_getfd 438 438, SYS_get_robust_list 274 100, SYS_move_pages 279 239, SYS_migrate_pages 256 238,
    SYS_process_madvise 440 440,
    SYS_bpf 321 280, SYS_perf_event_open 298 241, SYS_userfaultfd 323 282,
    SYS_fanotify_init 300 262, SYS_fanotify_mark 301 263,
    SYS_name_to_handle_at 303 264, SYS_open_by_handle_at 304 265, SYS_syslog 103 116,
}
