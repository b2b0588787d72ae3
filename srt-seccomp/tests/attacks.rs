//! Real attacks on each rule. Each is first made where it succeeds: outside, or with that one rule off.
//!
//! The attacker is this test binary itself: it runs again, with the attack in its environment.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use Outcome::{Killed, Returned};
use srt_tests::{DEFAULT_RULES, Scratch, Who, both, landlock_abi, run, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

const ATTACK: &str = "SRT_ATTACK";

/// How an attack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What the system call answered: -errno on failure.
    Returned(i64),
    /// The signal that ended the attacker.
    Killed(i32),
}

const EPERM: Outcome = Returned(-libc::EPERM as i64);
const ENOSYS: Outcome = Returned(-libc::ENOSYS as i64);
const EFAULT: Outcome = Returned(-libc::EFAULT as i64);
const EBADF: Outcome = Returned(-libc::EBADF as i64);
const EINVAL: Outcome = Returned(-libc::EINVAL as i64);
#[cfg(target_arch = "x86_64")]
const SIGSYS: Outcome = Killed(libc::SIGSYS);

impl Outcome {
    fn succeeded(self) -> bool {
        matches!(self, Returned(answer) if answer >= 0)
    }
}

/// An attacker whom its user can run, and a place for what is attacked.
struct Lab {
    who: Who,
    scratch: Scratch,
    attacker: PathBuf,
}

impl Lab {
    fn new(who: Who) -> Self {
        let scratch = who.scratch();
        let attacker = scratch.join("attacker");
        // By cp(1): a descriptor open for writing here could be inherited by another test's child: ETXTBSY.
        let exe = std::env::current_exe().expect("current_exe");
        run(Who::Root.command("cp").arg(exe).arg(&attacker)).ok();
        Self { who, scratch, attacker }
    }

    #[track_caller]
    fn attack(&self, options: Option<&[&str]>, attack: &str) -> Outcome {
        let mut command = match options {
            None => self.who.command(&self.attacker),
            Some(options) => {
                let mut command = self.who.command("srt-seccomp");
                command.args(options).arg("--").arg(&self.attacker);
                command
            }
        };
        command.args(["--exact", "attacker", "--nocapture"]).env(ATTACK, attack);
        let ran = run(&mut command);
        let answer = ran.out.lines().find_map(|line| line.split_once('@')).map(|(_, answer)| answer);
        let number = |text: &str| text.parse().expect("a number");
        match answer.and_then(|answer| answer.split_once(' ')) {
            Some(("returned", answer)) => Returned(number(answer)),
            Some(("killed", signal)) => Killed(i32::try_from(number(signal)).expect("a signal")),
            _ => panic!("no answer from the attacker: {ran:#?}"),
        }
    }

    /// The attack on an unprotected system.
    #[track_caller]
    fn outside(&self, attack: &str) -> Outcome {
        self.attack(None, attack)
    }

    /// The attack under srt-seccomp with these options.
    #[track_caller]
    fn under(&self, options: &[&str], attack: &str) -> Outcome {
        self.attack(Some(options), attack)
    }

    /// A path in the lab.
    fn path(&self, name: &str) -> String {
        self.scratch.join(name).to_str().expect("UTF-8").to_owned()
    }
}

#[test]
fn attacker() {
    let Ok(attack) = std::env::var(ATTACK) else { return };
    // A process of its own with one thread: unshare(2) wants that, and a filter may kill it.
    // SAFETY: the child is glibc's usual fork child; it ends with _exit below.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let words: Vec<&str> = attack.split_whitespace().collect();
        println!("@returned {}", perform(&words));
        exit();
    }
    let mut status = 0;
    // SAFETY: a pid and a pointer to an int.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        println!("@killed {}", libc::WTERMSIG(status));
    }
    exit();
}

fn exit() -> ! {
    // SAFETY: ends the process, nothing else.
    unsafe { libc::_exit(0) }
}

/// A raw system call; -errno on failure.
fn syscall(number: i64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: none of the attacks lets the kernel write to memory that Rust knows, but through pointers made for it.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        answer
    }
}

fn call(number: i64, args: &[u64]) -> i64 {
    syscall(number, std::array::from_fn(|n| args.get(n).copied().unwrap_or(0)))
}

/// Ends the attack here, with errno, where a step fails.
macro_rules! step {
    ($call:expr) => {
        match $call {
            answer if answer < 0 => return answer,
            answer => answer,
        }
    };
}

fn perform(attack: &[&str]) -> i64 {
    let numbers: Vec<u64> = attack.iter().skip(1).filter_map(|word| parse(word)).collect();
    match *attack {
        // A system call with these arguments.
        ["call", ..] => call(numbers[0] as i64, &numbers[1..]),
        // The same with all capabilities over a new user and mount namespace.
        ["privileged-call", ..] => {
            step!(call(libc::SYS_unshare, &[(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64]));
            call(numbers[0] as i64, &numbers[1..])
        }
        // Connects to a Unix socket by path; the domain may have garbage in it.
        ["connect", domain, path] => {
            let domain = parse(domain).expect("a domain");
            let socket = step!(call(libc::SYS_socket, &[domain, libc::SOCK_STREAM as u64]));
            let (address, length) = address(path);
            call(libc::SYS_connect, &[socket as u64, address.as_ptr() as u64, length])
        }
        // Sends from one end of a pair to a datagram socket by path.
        ["pair-send", domain, kind, path] => {
            let mut pair = [0i32; 2];
            let (domain, kind) = (parse(domain).expect("a domain"), parse(kind).expect("a type"));
            step!(call(libc::SYS_socketpair, &[domain, kind, 0, pair.as_mut_ptr() as u64]));
            let (address, length) = address(path);
            let text = b"from inside";
            let (at, len) = (text.as_ptr() as u64, text.len() as u64);
            call(libc::SYS_sendto, &[pair[0] as u64, at, len, 0, address.as_ptr() as u64, length])
        }
        // A byte goes through a pair and back.
        ["pair", kind] => {
            let mut pair = [0i32; 2];
            let kind = parse(kind).expect("a type");
            step!(call(libc::SYS_socketpair, &[1, kind, 0, pair.as_mut_ptr() as u64]));
            let mut byte = [7u8];
            step!(call(libc::SYS_write, &[pair[0] as u64, byte.as_ptr() as u64, 1]));
            call(libc::SYS_read, &[pair[1] as u64, byte.as_mut_ptr() as u64, 1])
        }
        ["uring-socket"] => uring_socket(),
        ["inject", request] => inject(parse(request).expect("a request")),
        ["notify", directory] => notify(directory),
        // A child by clone(2): it ends at once.
        ["clone", flags] => {
            let child = step!(call(libc::SYS_clone, &[parse(flags).expect("flags")]));
            if child == 0 {
                exit();
            }
            child
        }
        // The file at `path` with this mode, or a new one at `new`.
        ["set-mode", how, mode, path, new] => {
            set_mode(how, u64::from_str_radix(mode, 8).expect("octal"), path, new)
        }
        ["thread"] => std::thread::spawn(|| 42).join().expect("a thread"),
        #[cfg(target_arch = "x86_64")]
        ["int80", ..] => int80(numbers[0] as u32, numbers[1] as u32, numbers[2] as u32, numbers[3] as u32),
        _ => panic!("no such attack: {attack:?}"),
    }
}

fn parse(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse::<u64>().or_else(|_| word.parse::<i64>().map(|n| n as u64)).ok(),
    }
}

/// A `sockaddr_un`, and its length.
fn address(path: &str) -> (Vec<u8>, u64) {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(path.bytes().chain([0]));
    let length = address.len() as u64;
    (address, length)
}

/// Every way to a mode.
fn set_mode(how: &str, mode: u64, path: &str, new: &str) -> i64 {
    let [path, new] = [path, new].map(|path| std::ffi::CString::new(path).expect("no NUL"));
    let (path, new, here) = (path.as_ptr() as u64, new.as_ptr() as u64, libc::AT_FDCWD as u64);
    call(libc::SYS_umask, &[0]);
    match how {
        #[cfg(target_arch = "x86_64")]
        "chmod" => call(libc::SYS_chmod, &[path, mode]),
        "fchmod" => {
            let file = step!(call(libc::SYS_openat, &[here, path, libc::O_RDONLY as u64]));
            call(libc::SYS_fchmod, &[file as u64, mode])
        }
        #[cfg(not(target_arch = "x86_64"))]
        "chmod" => call(libc::SYS_fchmodat, &[here, path, mode]),
        "fchmodat" => call(libc::SYS_fchmodat, &[here, path, mode]),
        "fchmodat2" => call(libc::SYS_fchmodat2, &[here, path, mode, 0]),
        "mknodat" => call(libc::SYS_mknodat, &[here, new, libc::S_IFREG as u64 | mode]),
        "openat" => call(libc::SYS_openat, &[here, new, (libc::O_CREAT | libc::O_WRONLY) as u64, mode]),
        "openat2" => {
            let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, mode, 0];
            call(libc::SYS_openat2, &[here, new, how.as_ptr() as u64, 24])
        }
        _ => panic!("{how}?"),
    }
}

/// IORING_OP_SOCKET of io_uring_enter(2): a Unix socket without socket(2).
fn uring_socket() -> i64 {
    let mut params = [0u32; 30]; // struct io_uring_params: 120 bytes
    let ring = step!(call(libc::SYS_io_uring_setup, &[1, params.as_mut_ptr() as u64])) as u64;
    let map = |offset: u64| {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        call(libc::SYS_mmap, &[0, 4096, protection as u64, flags as u64, ring, offset])
    };
    let (rings, entries) = (step!(map(0)) as u64, step!(map(0x1000_0000)) as u64);
    let at = |base: u64, offset: u32| (base + u64::from(offset)) as *mut u32;
    // params.sq_off is at byte 40 (head, tail, ring_mask, ring_entries, flags, dropped, array), params.cq_off at byte 80
    // (head, tail, ring_mask, ring_entries, overflow, cqes).
    let (tail, array, completions) = (params[11], params[16], params[25]);
    // opcode 45 with fd = domain, off = type, len = protocol.
    for (word, value) in [(0, 45u32), (1, libc::AF_UNIX as u32), (2, libc::SOCK_STREAM as u32)] {
        // SAFETY: the submission entries are mapped, 64 bytes each, and belong to this process until submitted.
        unsafe { at(entries, word * 4).write_volatile(value) };
    }
    // SAFETY: inside the mapped rings, at the offset that the kernel gave.
    unsafe { at(rings, array).write_volatile(0) };
    // SAFETY: the same.
    unsafe { at(rings, tail).write_volatile(1) };
    step!(call(libc::SYS_io_uring_enter, &[ring, 1, 1, 1])); // IORING_ENTER_GETEVENTS
    // SAFETY: the first completion: user_data (8 bytes), res, flags.
    i64::from(unsafe { at(rings, completions + 8).read_volatile() } as i32)
}

/// Puts a byte into the input of a terminal of our own, as a command does to its caller's.
fn inject(request: u64) -> i64 {
    step!(call(libc::SYS_setsid, &[]));
    let (mut master, mut terminal) = (0, 0);
    // SAFETY: two pointers to ints; no name, modes or size.
    let made = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut terminal,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    step!(i64::from(made));
    step!(call(libc::SYS_ioctl, &[terminal as u64, 0x540e, /* TIOCSCTTY */ 0]));
    call(libc::SYS_ioctl, &[terminal as u64, request, b"x".as_ptr() as u64])
}

/// F_NOTIFY of fcntl(2): what the kernel sends to another process group when a file is created. Its signal, or 0.
fn notify(directory: &str) -> i64 {
    let path = std::ffi::CString::new(directory).expect("no NUL");
    let here = libc::AT_FDCWD as u64;
    let directory =
        step!(call(libc::SYS_openat, &[here, path.as_ptr() as u64, libc::O_RDONLY as u64])) as u64;
    // The victim waits for a signal that none but the kernel sends, at most five seconds.
    let victim = step!(call(libc::SYS_clone, &[libc::SIGCHLD as u64]));
    if victim == 0 {
        call(libc::SYS_setpgid, &[]);
        std::thread::sleep(std::time::Duration::from_secs(5));
        exit();
    }
    call(libc::SYS_setpgid, &[victim as u64, victim as u64]);
    let owned = call(libc::SYS_fcntl, &[directory, libc::F_SETOWN as u64, -victim as u64]);
    let armed = call(libc::SYS_fcntl, &[directory, libc::F_NOTIFY as u64, 4 /* DN_CREATE */]);
    if owned < 0 || armed < 0 {
        call(libc::SYS_kill, &[victim as u64, libc::SIGKILL as u64]);
        return owned.min(armed);
    }
    step!(call(libc::SYS_mkdirat, &[directory, c"new".as_ptr() as u64, 0o700]));
    step!(call(libc::SYS_unlinkat, &[directory, c"new".as_ptr() as u64, libc::AT_REMOVEDIR as u64]));
    let mut status = 0;
    // SAFETY: a pid and a pointer to an int.
    unsafe { libc::waitpid(victim as i32, &raw mut status, 0) };
    libc::WTERMSIG(status).into()
}

/// A system call of the i386 ABI.
#[cfg(target_arch = "x86_64")]
fn int80(number: u32, first: u32, second: u32, third: u32) -> i64 {
    let answer: i32;
    // SAFETY: the kernel keeps every register but rax, and r8 to r11 on older kernels; rbx, which LLVM reserves, is
    // put back.
    unsafe {
        core::arch::asm!(
            "xchg {first}, rbx", "int 0x80", "xchg {first}, rbx",
            first = inout(reg) u64::from(first) => _,
            inlateout("eax") number as i32 => answer,
            in("ecx") second, in("edx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(answer)
}

/// A listening Unix socket that everybody may connect to.
fn listener(lab: &Lab) -> (UnixListener, String) {
    let path = lab.path("listening");
    let listener = UnixListener::bind(&path).expect("bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    (listener, path)
}

/// A datagram socket that everybody may send to, and its path.
fn mailbox(lab: &Lab) -> (UnixDatagram, String) {
    let path = lab.path("mailbox");
    let mailbox = UnixDatagram::bind(&path).expect("bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    mailbox.set_nonblocking(true).expect("nonblocking");
    (mailbox, path)
}

fn received(mailbox: &UnixDatagram) -> bool {
    mailbox.recv(&mut [0; 64]).is_ok()
}

both! {
    fn a_unix_socket_on_the_host_cannot_be_reached(who) {
        let lab = Lab::new(who);
        let (_listener, path) = listener(&lab);
        for domain in ["0x1", "0x100000001", "0xffffffff00000001"] {
            let attack = format!("connect {domain} {path}");
            assert_eq!(lab.outside(&attack), Returned(0), "control: the kernel drops the high half of {domain}");
            assert_eq!(lab.under(&["--allow", "unix"], &attack), Returned(0), "control");
            assert_eq!(lab.under(&[], &attack), EPERM, "{domain}");
        }
    }

    fn the_ends_of_a_datagram_pair_cannot_reach_a_socket_on_the_host(who) {
        let lab = Lab::new(who);
        let (mailbox, path) = mailbox(&lab);
        let (datagram, raw) = (libc::SOCK_DGRAM as u64, libc::SOCK_RAW as u64);
        let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
        for kind in [datagram, raw, datagram | flags, raw | flags, datagram | 7 << 32] {
            for domain in ["1", "0x100000001"] {
                let attack = format!("pair-send {domain} {kind} {path}");
                assert!(lab.outside(&attack).succeeded() && received(&mailbox), "control: {attack}");
                let allowed = lab.under(&["--allow", "unix"], &attack);
                assert!(allowed.succeeded() && received(&mailbox), "control: {attack}");
                assert_eq!(lab.under(&[], &attack), EPERM, "{attack}");
                assert!(!received(&mailbox));
            }
        }
    }

    fn stream_and_seqpacket_pairs_work_and_reach_nobody(who) {
        let lab = Lab::new(who);
        let (mailbox, path) = mailbox(&lab);
        for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
            for flags in [0, libc::SOCK_CLOEXEC, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK] {
                assert_eq!(lab.under(&[], &format!("pair {}", kind | flags)), Returned(1));
            }
            // The pair is made, and the kernel sends nowhere but to the other end.
            lab.under(&[], &format!("pair-send 1 {kind} {path}"));
            assert!(!received(&mailbox));
        }
        for kind in [4, 6, 10, 15] {
            assert_eq!(lab.under(&[], &format!("pair {kind}")), EPERM, "type {kind}");
        }
    }

    fn other_families_are_left_alone(who) {
        let lab = Lab::new(who);
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
            let attack = format!("call {} {family} {} 0", libc::SYS_socket, libc::SOCK_DGRAM);
            assert_eq!(lab.outside(&attack).succeeded(), lab.under(&[], &attack).succeeded(), "{family}");
        }
    }

    fn a_vsock_socket_cannot_be_made(who) {
        let lab = Lab::new(who);
        for domain in ["40", "0x100000028"] {
            let attack = format!("call {} {domain} {} 0", libc::SYS_socket, libc::SOCK_STREAM);
            // A kernel without vsock says EAFNOSUPPORT: not filtered is what counts.
            assert_ne!(lab.outside(&attack), EPERM, "control");
            assert_ne!(lab.under(&["--allow", "vsock"], &attack), EPERM, "control");
            assert_eq!(lab.under(&[], &attack), EPERM, "{domain}");
        }
    }

    fn io_uring_makes_no_socket_behind_the_filter(who) {
        let lab = Lab::new(who);
        let outside = lab.outside("uring-socket");
        if outside == ENOSYS || outside == EPERM {
            skip!("this kernel has io_uring off");
        }
        assert!(outside.succeeded(), "control: {outside:?}");
        let behind = lab.under(&["--allow", "io-uring"], "uring-socket");
        assert!(behind.succeeded(), "control: io_uring goes around the rule unix: {behind:?}");
        assert_eq!(lab.under(&[], "uring-socket"), ENOSYS);
    }

    fn every_io_uring_call_is_as_if_the_kernel_had_none(who) {
        let lab = Lab::new(who);
        for number in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
            let attack = format!("call {number} -1 -1 -1 -1 -1");
            assert_eq!(lab.under(&[], &attack), ENOSYS, "{number}");
        }
    }

    fn nothing_can_be_typed_into_a_terminal(who) {
        let lab = Lab::new(who);
        let (sti, linux) = (0x5412u64, 0x541cu64);
        for garbage in [0, 1 << 32, 0xffff_ffff << 32] {
            // A pty is no console: TIOCLINUX says ENOTTY.
            let attack = format!("inject {}", linux | garbage);
            assert_eq!(lab.outside(&attack), Returned(-libc::ENOTTY as i64), "control");
            assert_eq!(lab.under(&[], &attack), EPERM);
            let attack = format!("inject {}", sti | garbage);
            assert_eq!(lab.under(&[], &attack), EPERM);
            // Where dev.tty.legacy_tiocsti is 0 the kernel says EIO to all but CAP_SYS_ADMIN: not filtered, either.
            for control in [lab.outside(&attack), lab.under(&["--allow", "tty-inject"], &attack)] {
                assert!(control == Returned(0) || control == Returned(-libc::EIO as i64), "{control:?}");
            }
        }
    }

    fn a_change_in_a_directory_sends_no_signal_to_another_process(who) {
        let lab = Lab::new(who);
        let directory = lab.scratch.dir("watched").display().to_string();
        let attack = format!("notify {directory}");
        if lab.outside(&attack) == EINVAL {
            skip!("this kernel was built without CONFIG_DNOTIFY");
        }
        assert_eq!(lab.outside(&attack), Returned(libc::SIGIO.into()), "control");
        assert_eq!(lab.under(&["--allow", "sigio"], &attack), Returned(libc::SIGIO.into()), "control");
        assert_eq!(lab.under(&[], &attack), EPERM);
    }

    fn the_keyrings_are_out_of_reach(who) {
        let lab = Lab::new(who);
        // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING; bad pointers for the other two.
        let read = format!("call {} 0 -3 1", libc::SYS_keyctl);
        if lab.outside(&read) == ENOSYS {
            skip!("this kernel has no keyrings");
        }
        assert!(lab.outside(&read).succeeded(), "control");
        assert!(lab.under(&["--allow", "keyring"], &read).succeeded(), "control");
        assert_eq!(lab.under(&[], &read), EPERM);
        for number in [libc::SYS_add_key, libc::SYS_request_key] {
            let attack = format!("call {number} -1 -1 -1 8 -3");
            assert_eq!(lab.outside(&attack), EFAULT, "control");
            assert_eq!(lab.under(&[], &attack), EPERM, "{number}");
        }
    }

    fn a_user_namespace_cannot_be_made_where_userns_is_denied(who) {
        let lab = Lab::new(who);
        let (newuser, sigchld) = (libc::CLONE_NEWUSER as u64, libc::SIGCHLD as u64);
        let attacks = [
            format!("call {} {newuser}", libc::SYS_unshare),
            format!("call {} {}", libc::SYS_unshare, newuser | libc::CLONE_NEWNET as u64),
            format!("clone {}", newuser | sigchld),
            format!("clone {}", newuser | sigchld | 1 << 40),
        ];
        for attack in attacks {
            if lab.outside(&attack) == EPERM {
                skip!("this machine lets nobody make user namespaces");
            }
            assert!(lab.outside(&attack).succeeded(), "control: {attack}");
            assert!(lab.under(&[], &attack).succeeded(), "control: the rule is off by default: {attack}");
            assert_eq!(lab.under(&["--deny", "userns"], &attack), EPERM, "{attack}");
        }
        for (attack, outside, inside) in [
            (format!("call {} -1 64", libc::SYS_clone3), EFAULT, ENOSYS),
            (format!("call {} -1 0", libc::SYS_setns), EBADF, EPERM),
        ] {
            assert_eq!(lab.outside(&attack), outside, "control");
            assert_eq!(lab.under(&["--deny", "userns"], &attack), inside);
        }
    }

    fn threads_and_children_work_where_userns_is_denied(who) {
        let lab = Lab::new(who);
        assert_eq!(lab.under(&["--deny", "userns"], "thread"), Returned(42));
        assert!(lab.under(&["--deny", "userns"], &format!("clone {}", libc::SIGCHLD)).succeeded());
        let unshare = format!("call {} {}", libc::SYS_unshare, libc::CLONE_FS);
        assert_eq!(lab.under(&["--deny", "userns"], &unshare), Returned(0));
    }

    fn nothing_can_be_mounted_where_mount_is_denied(who) {
        let lab = Lab::new(who);
        let bad = "-1 -1 -1 -1 -1";
        // With all capabilities over a namespace of the attacker's own, so that the kernel itself does not say EPERM.
        for (number, args, outside) in [
            (libc::SYS_mount, bad, EFAULT),
            (libc::SYS_umount2, "-1 0", EFAULT),
            (libc::SYS_pivot_root, bad, EFAULT),
            (libc::SYS_chroot, bad, EFAULT),
            (libc::SYS_open_tree, "-100 -1 0", EFAULT),
            (libc::SYS_move_mount, "-100 -1 -100 -1 0", EFAULT),
            (libc::SYS_fsopen, "-1 0", EFAULT),
            (libc::SYS_fsconfig, "-1 0 0 0 0", EINVAL),
            (libc::SYS_fsmount, "-1 0 0", EBADF),
            (libc::SYS_fspick, "-100 -1 0", EFAULT),
            (libc::SYS_mount_setattr, "-1 -1 0 -1 0", EINVAL),
        ] {
            let attack = format!("privileged-call {number} {args}");
            assert_eq!(lab.under(&[], &attack), outside, "control: {number}");
            assert_eq!(lab.under(&["--deny", "mount"], &attack), EPERM, "{number}");
        }
    }

    fn no_file_becomes_setuid_or_setgid_where_setid_is_denied(who) {
        let lab = Lab::new(who);
        let file = lab.path("file");
        let none = lab.path("none");
        for mode in ["4755", "2755", "6711"] {
            for attack in ["chmod", "fchmod", "fchmodat", "fchmodat2", "mknodat", "openat", "openat2"] {
                let attack = format!("set-mode {attack} {mode} {file} {none}");
                let clean = || {
                    let _none = fs::remove_file(&none);
                    let _none = fs::remove_file(&file);
                    lab.scratch.file("file", "");
                };
                clean();
                let outside = lab.outside(&attack);
                if outside == ENOSYS {
                    continue; // fchmodat2 is Linux 6.6's.
                }
                assert!(outside.succeeded(), "control: {attack}: {outside:?}");
                let made = |path: &str| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o6000 != 0);
                assert!(made(&file) || made(&none), "control: {attack}");
                clean();
                let refused = if attack.contains("openat2") { ENOSYS } else { EPERM };
                assert_eq!(lab.under(&["--deny", "setid"], &attack), refused, "{attack}");
                assert!(!made(&file) && !made(&none), "{attack}");
            }
        }
        // mkdir(2) drops both bits by itself; other modes, and files without one, are as ever.
        let script = "umask 022; cd \"$1\" && touch a && chmod 755 a && mkdir -m 1777 d && cp -p a b && install -m 644 a c && stat -c %a a b c d";
        let mut command = who.command("srt-seccomp");
        run(command.args(["--deny", "setid", "--", "sh", "-c", script, "sh"]).arg(lab.scratch.path())).ok().says("755\n755\n644\n1777");
    }

    fn no_socket_of_a_network_can_be_made_where_net_is_denied(who) {
        let lab = Lab::new(who);
        let families = [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, 38 /* AF_ALG */, libc::AF_BLUETOOTH];
        for (family, kind) in families.iter().flat_map(|f| [1, 2, 3].map(|kind| (f, kind))) {
            for garbage in [0, 1u64 << 32] {
                let attack = format!("call {} {} {kind} 0", libc::SYS_socket, *family as u64 | garbage);
                assert_eq!(lab.under(&["--deny", "net"], &attack), EPERM, "{attack}");
            }
        }
        let tcp = format!("call {} 2 1 0", libc::SYS_socket);
        assert!(lab.outside(&tcp).succeeded() && lab.under(&[], &tcp).succeeded(), "control");
        let netlink = format!("call {} 16 3 0", libc::SYS_socket);
        assert!(lab.under(&["--deny", "net"], &netlink).succeeded());
        // The ends of such a pair send to any TIPC address. A kernel without TIPC says so outside.
        for kind in [libc::SOCK_DGRAM, libc::SOCK_RDM] {
            let pair = format!("call {} {} {kind} 0 0", libc::SYS_socketpair, libc::AF_TIPC);
            assert_ne!(lab.outside(&pair), EPERM, "control");
            assert_eq!(lab.under(&["--deny", "net"], &pair), EPERM);
            assert_eq!(lab.under(&["--deny", "net", "--allow", "unix"], &pair), EPERM);
            if landlock_abi() >= 4 {
                assert_eq!(lab.under(&["--connect-tcp", "9"], &pair), EPERM);
                assert_eq!(lab.under(&["--connect-tcp", "9", "--allow", "unix"], &pair), EPERM);
            }
        }
    }

    fn each_rule_on_request_refuses_what_works_without_it(who) {
        let lab = Lab::new(who);
        for (rule, number, args) in [
            ("ptrace", libc::SYS_ptrace, "0 0 0 0"), // PTRACE_TRACEME
            ("ptrace", libc::SYS_process_vm_readv, "1 0 0 0 0 0"),
            ("ptrace", libc::SYS_process_vm_writev, "1 0 0 0 0 0"),
            ("ptrace", libc::SYS_pidfd_getfd, "-1 0 0"),
            ("bpf", libc::SYS_bpf, "0 -1 8"),
            ("perf", libc::SYS_perf_event_open, "-1 0 0 0 0"),
            ("userfaultfd", libc::SYS_userfaultfd, "0xffff"),
            ("fanotify", libc::SYS_fanotify_mark, "-1 -1 -1 -1 -1"),
            ("file-handle", libc::SYS_name_to_handle_at, "-100 -1 -1 -1 0"),
        ] {
            let attack = format!("call {number} {args}");
            assert_ne!(lab.under(&[], &attack), EPERM, "control: {rule} {number}");
            assert_eq!(lab.under(&["--deny", rule], &attack), EPERM, "{rule} {number}");
        }
    }

    fn a_number_with_garbage_in_its_high_half_is_the_number(who) {
        let lab = Lab::new(who);
        let attack = format!("call {} 1 1 0", libc::SYS_socket | 1 << 32);
        // aarch64 and x86_64 take the number as an int; should a kernel take all of it, it is ENOSYS.
        assert!(lab.outside(&attack).succeeded() || lab.outside(&attack) == ENOSYS, "control");
        let inside = lab.under(&[], &attack);
        assert!(inside == EPERM || inside == ENOSYS, "{inside:?}");
    }

    fn a_number_that_means_nothing_is_left_to_the_kernel(who) {
        let lab = Lab::new(who);
        for number in [-1, 514, 1023] {
            assert_eq!(lab.outside(&format!("call {number}")), ENOSYS, "control");
            assert_eq!(lab.under(&[], &format!("call {number}")), ENOSYS);
        }
    }
}

#[cfg(target_arch = "x86_64")]
both! {
    fn i386_calls_kill(who) {
        let lab = Lab::new(who);
        if lab.outside("int80 20 0 0 0") == Killed(libc::SIGSEGV) {
            eprintln!("this kernel has no i386 ABI, and so no way around by it");
            return;
        }
        assert!(lab.outside("int80 20 0 0 0").succeeded(), "control: getpid");
        assert!(lab.outside("int80 359 1 1 0").succeeded(), "control: socket(AF_UNIX)");
        assert_eq!(lab.outside("int80 102 1 0xffffffff 0"), EFAULT, "control: socketcall");
        for attack in ["int80 20 0 0 0", "int80 359 1 1 0", "int80 102 1 0xffffffff 0"] {
            assert_eq!(lab.under(&[], attack), SIGSYS, "{attack}");
            // Whatever is allowed: the ABI would be a way around the other rules.
            assert_eq!(lab.under(&["--allow", DEFAULT_RULES], attack), SIGSYS);
        }
    }

    fn x32_numbers_kill(who) {
        let lab = Lab::new(who);
        for number in [39, 41, 53, 514, 0x3fff_ffff] {
            let attack = format!("call {} 1 1 0", 0x4000_0000u32 | number);
            // A kernel without the ABI says ENOSYS; one with it does what is asked.
            assert!(matches!(lab.outside(&attack), Returned(_)), "control");
            assert_eq!(lab.under(&[], &attack), SIGSYS, "{number}");
        }
        assert_eq!(lab.under(&[], "call 0xfffffffe"), SIGSYS);
    }
}
