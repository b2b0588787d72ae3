//! The numbers of the system calls that rules speak of, on every architecture that the tool supports: a filter for
//! one can be built and tested on another. The host's are compared with libc's when this is compiled.

use crate::filter::Arch;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// Its name in the kernel's tables.
    pub name: &'static str,
    x86_64: u32,
    aarch64: u32,
}

impl Syscall {
    /// Its number on `arch`.
    pub fn number(self, arch: Arch) -> u32 {
        match arch {
            Arch::X86_64 => self.x86_64,
            Arch::Aarch64 => self.aarch64,
        }
    }
}

/// `NAME x86_64 aarch64 [libc's constant]`, from the kernel's syscall_64.tbl and asm-generic/unistd.h.
macro_rules! syscalls {
    ($($name:ident $x86_64:literal $aarch64:literal $($libc:ident)?;)*) => {
        $(
            #[doc = concat!(stringify!($name), "(2)")]
            #[allow(non_upper_case_globals)]
            pub const $name: Syscall = Syscall { name: stringify!($name), x86_64: $x86_64, aarch64: $aarch64 };
            $(const _: () = assert!(
                libc::$libc == if cfg!(target_arch = "x86_64") { $x86_64 } else { $aarch64 },
                stringify!($name)
            );)?
        )*
    };
}

syscalls! {
    socket 41 198 SYS_socket;
    socketpair 53 199 SYS_socketpair;
    ioctl 16 29 SYS_ioctl;
    io_uring_setup 425 425 SYS_io_uring_setup;
    io_uring_enter 426 426 SYS_io_uring_enter;
    io_uring_register 427 427 SYS_io_uring_register;
    add_key 248 217 SYS_add_key;
    request_key 249 218 SYS_request_key;
    keyctl 250 219 SYS_keyctl;
    unshare 272 97 SYS_unshare;
    clone 56 220 SYS_clone;
    clone3 435 435 SYS_clone3;
    setns 308 268 SYS_setns;
    mount 165 40 SYS_mount;
    umount2 166 39 SYS_umount2;
    pivot_root 155 41 SYS_pivot_root;
    chroot 161 51 SYS_chroot;
    open_tree 428 428 SYS_open_tree;
    move_mount 429 429 SYS_move_mount;
    fsopen 430 430 SYS_fsopen;
    fsconfig 431 431 SYS_fsconfig;
    fsmount 432 432 SYS_fsmount;
    fspick 433 433 SYS_fspick;
    mount_setattr 442 442 SYS_mount_setattr;
    open_tree_attr 467 467;
    ptrace 101 117 SYS_ptrace;
    process_vm_readv 310 270 SYS_process_vm_readv;
    process_vm_writev 311 271 SYS_process_vm_writev;
    kcmp 312 272 SYS_kcmp;
    pidfd_getfd 438 438 SYS_pidfd_getfd;
    bpf 321 280 SYS_bpf;
    perf_event_open 298 241 SYS_perf_event_open;
    userfaultfd 323 282 SYS_userfaultfd;
    fanotify_init 300 262 SYS_fanotify_init;
    fanotify_mark 301 263 SYS_fanotify_mark;
    name_to_handle_at 303 264 SYS_name_to_handle_at;
    open_by_handle_at 304 265 SYS_open_by_handle_at;
    init_module 175 105 SYS_init_module;
    finit_module 313 273 SYS_finit_module;
    delete_module 176 106 SYS_delete_module;
    kexec_load 246 104 SYS_kexec_load;
    kexec_file_load 320 294;
    reboot 169 142 SYS_reboot;
    swapon 167 224 SYS_swapon;
    swapoff 168 225 SYS_swapoff;
    settimeofday 164 170 SYS_settimeofday;
    clock_settime 227 112 SYS_clock_settime;
    clock_adjtime 305 266 SYS_clock_adjtime;
    adjtimex 159 171 SYS_adjtimex;
    syslog 103 116 SYS_syslog;
}
