//! A relay that was taken over can relay and nothing else. Shown on the running process: what /proc says of it,
//! and system calls that a privileged debugger makes it run.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::*;
use srt_tests::refusals::{in_front, refuse_value};
use srt_tests::{Scratch, Who, both, run, skip};
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::thread;

/// A relay from TCP to an echoing Unix server, and the directory of the latter.
fn relay(who: Who, extra: &[String]) -> (Relay, u16, Scratch) {
    let scratch = who.scratch();
    let path = scratch.join("s");
    let listener = srt_tests::unix_listener(who, &path);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            let _gone = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        }
    });
    let port = free_port();
    let mut args = extra.to_vec();
    args.extend([format!("tcp:127.0.0.1:{port}"), format!("unix:{}", path.display())]);
    (Relay::start(who, &args), port, scratch)
}

fn serves(port: u16) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    stream.write_all(b"x").expect("write");
    assert_eq!(read_all(&mut stream), b"x");
}

fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("{field} in {text}")).trim().to_owned()
}

both! {
    fn a_step_that_is_answered_for_and_not_done_is_an_error(who) {
        for (step, error) in [(libc::PR_SET_DUMPABLE, "PR_SET_DUMPABLE had no effect"), (libc::PR_SET_SECCOMP, "an outer filter fakes prctl(PR_SET_SECCOMP)")] {
            let mut command = who.command("srt-relay");
            let listen = format!("tcp:127.0.0.1:{}", free_port());
            in_front(command.args(["--ready-fd", "1", &listen, "tcp:127.0.0.1:9"]), &[refuse_value(libc::SYS_prctl, 0, step, 0)]);
            // Nor is it ready.
            run(&mut command).code(1).one_clear_error("srt-relay").complains(error).says("");
        }
    }

    fn it_has_no_privileges_and_a_filter(who) {
        let (relay, port, _scratch) = relay(who, &[]);
        serves(port);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(relay.pid(), set), "0000000000000000", "{set}");
        }
        if who == Who::Root {
            assert_eq!(status(relay.pid(), "CapBnd"), "0000000000000000");
        }
        assert_eq!(status(relay.pid(), "NoNewPrivs"), "1");
        assert_eq!(status(relay.pid(), "Seccomp"), "2");
        assert_eq!(status(relay.pid(), "Threads"), "1");
        // Not dumpable: its files in /proc belong to root, and so no process of its user can look into it.
        assert_eq!(fs::metadata(format!("/proc/{}/mem", relay.pid())).expect("mem").uid(), 0);
        if who == Who::User {
            let look = format!("cat /proc/{}/maps", relay.pid());
            let ran = run(who.command("sh").args(["-c", &look]));
            assert_ne!(ran.code, Some(0));
        }
    }

    fn it_serves_from_an_empty_root_that_holds_its_target_alone(who) {
        // As srt-ns starts it: no /proc, no /dev, the pinned socket bound where the relay connects to.
        let scratch = who.scratch();
        let path = scratch.join("s");
        let listener = srt_tests::unix_listener(who, &path);
        thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(b"hello"))));
        let inside = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = inside.local_addr().expect("address").port();
        let program = fs::File::open(srt_tests::tool("srt-relay")).expect("open");
        let script = "
            import ctypes, os, sys
            libc = ctypes.CDLL(None, use_errno=True)
            def check(result):
                if result != 0: sys.exit(os.strerror(ctypes.get_errno()))
            root, uid = sys.argv[1].encode(), int(sys.argv[2])
            if uid: # a user namespace in which this user may mount
                check(libc.unshare(0x10000000))
                open('/proc/self/setgroups', 'w').write('deny')
                open('/proc/self/uid_map', 'w').write(f'{uid} {uid} 1')
                open('/proc/self/gid_map', 'w').write(f'{uid} {uid} 1')
            check(libc.unshare(0x20000))
            check(libc.mount(None, b'/', None, 0x44000, None)) # MS_REC|MS_PRIVATE
            # Opened here: a mount is made from one in its own namespace.
            os.dup2(os.open(sys.argv[3], os.O_PATH), 19)
            check(libc.mount(b'none', root, b'tmpfs', 0, None))
            os.makedirs(root + b'/proc/self/fd')
            open(root + b'/proc/self/fd/19', 'w').close()
            check(libc.mount(b'/proc/self/fd/19', root + b'/proc/self/fd/19', None, 0x1000, None))
            check(libc.mount(None, root, None, 0x1021, None)) # MS_REMOUNT|MS_BIND|MS_RDONLY
            os.chroot(root); os.chdir('/')
            argv = (ctypes.c_char_p * 6)(b'srt-relay', b'--ready-fd', b'1', b'fd:15', b'fd:19', None)
            libc.syscall(322 if os.uname().machine == 'x86_64' else 281, 20, b'', argv, (ctypes.c_char_p * 1)(None), 0x1000)
            sys.exit('exec: ' + os.strerror(ctypes.get_errno()))
        ";
        let script = script.lines().map(|line| line.strip_prefix("            ").unwrap_or("")).collect::<Vec<_>>().join("\n");
        let mut command = who.command("python3");
        command.args(["-c", &script]).arg(scratch.dir("root")).arg(who.uid().to_string()).arg(&path);
        let relay = Relay::spawn(command, &[(inside.as_raw_fd(), 15), (program.as_raw_fd(), 20)]);
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        assert_eq!(read_all(&mut client), b"hello");
        let root: Vec<_> = fs::read_dir(format!("/proc/{}/root", relay.pid())).expect("root").flatten().collect();
        assert_eq!(root.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["proc"]);
    }
}

#[cfg(target_arch = "x86_64")]
mod injected {
    use super::*;

    /// Where strings for the injected call lie: far below the red zone of the stack.
    const BELOW_STACK: u64 = 0x2000;

    /// What became of an injected call.
    #[derive(Debug, PartialEq, Eq)]
    enum Fate {
        /// It returned this.
        Returned(i64),
        /// The process died of this signal.
        Died(i32),
    }

    /// An argument of an injected call.
    #[derive(Clone, Copy, Debug)]
    enum Arg {
        Number(i64),
        /// A path that the test chooses.
        Path,
    }

    use Arg::{Number, Path};

    fn ptrace(request: impl Into<i64>, pid: i32, address: u64, data: u64) -> i64 {
        // SAFETY: the requests used here take numbers, or pointers to structures of the right size.
        unsafe { libc::ptrace(request.into() as _, pid, address, data) }
    }

    fn wait_for(pid: i32) -> i32 {
        let mut status = 0;
        // SAFETY: a pointer to an int.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }, pid);
        status
    }

    /// Lets a process that sits in a system call make another, with `entry` the two bytes that make it, and
    /// puts everything back.
    fn inject(pid: i32, call: i64, args: &[Arg], path: &std::path::Path, entry: Option<[u8; 2]>) -> Fate {
        // In epoll_pwait or clock_nanosleep.
        srt_tests::wait_until("a process that waits", || {
            let text = fs::read_to_string(format!("/proc/{pid}/syscall")).expect("syscall");
            text.starts_with("281 ") || text.starts_with("230 ")
        });
        assert_eq!(ptrace(libc::PTRACE_SEIZE, pid, 0, 0), 0, "{}", std::io::Error::last_os_error());
        assert_eq!(ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0), 0);
        assert!(libc::WIFSTOPPED(wait_for(pid)));
        // SAFETY: all-zero bytes are valid registers.
        let mut saved = unsafe { std::mem::zeroed::<libc::user_regs_struct>() };
        assert_eq!(ptrace(libc::PTRACE_GETREGS, pid, 0, (&raw mut saved) as u64), 0);
        let mut regs = saved;
        let string = (saved.rsp - BELOW_STACK) & !7;
        let mut bytes = CString::new(path.as_os_str().as_bytes()).expect("path").into_bytes_with_nul();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        for (index, word) in bytes.chunks(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            assert_eq!(ptrace(libc::PTRACE_POKEDATA, pid, string + index as u64 * 8, word), 0);
        }
        let value = |index: usize| match args.get(index) {
            Some(&Number(number)) => number as u64,
            Some(Path) => string,
            None => 0,
        };
        if let Some(entry) = entry {
            let word = ptrace(libc::PTRACE_PEEKTEXT, pid, saved.rip - 2, 0) as u64;
            let word = word & !0xffff | u64::from(u16::from_le_bytes(entry));
            assert_eq!(ptrace(libc::PTRACE_POKETEXT, pid, saved.rip - 2, word), 0);
        }
        // The instruction before is `syscall`. orig_rax -1: nothing to restart.
        (regs.rip, regs.rax, regs.orig_rax) = (saved.rip - 2, call as u64, u64::MAX);
        (regs.rdi, regs.rsi, regs.rdx) = (value(0), value(1), value(2));
        (regs.r10, regs.r8, regs.r9) = (value(3), value(4), value(5));
        assert_eq!(ptrace(libc::PTRACE_SETREGS, pid, 0, (&raw const regs) as u64), 0);
        // A stop that was on its way already may come before the step.
        while regs.rip == saved.rip - 2 {
            assert_eq!(ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0), 0);
            let status = wait_for(pid);
            if libc::WIFSIGNALED(status) {
                return Fate::Died(libc::WTERMSIG(status));
            }
            assert!(libc::WIFSTOPPED(status), "{status:x}");
            assert_eq!(ptrace(libc::PTRACE_GETREGS, pid, 0, (&raw mut regs) as u64), 0);
        }
        // Back into the call that was interrupted: EINTR, which every loop understands.
        (saved.rax, saved.orig_rax) = (-i64::from(libc::EINTR) as u64, u64::MAX);
        assert_eq!(ptrace(libc::PTRACE_SETREGS, pid, 0, (&raw const saved) as u64), 0);
        assert_eq!(ptrace(libc::PTRACE_DETACH, pid, 0, 0), 0);
        Fate::Returned(regs.rax as i64)
    }

    const HERE: Arg = Number(libc::AT_FDCWD as i64);
    const RW: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
    const ANON: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
    const STREAM: i64 = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as i64;

    /// Every kind of call that a relay to a Unix socket has no use for.
    fn forbidden() -> Vec<(&'static str, i64, Vec<Arg>)> {
        let n = Number;
        let create = i64::from(libc::O_CREAT | libc::O_WRONLY);
        vec![
            ("open", libc::SYS_open, vec![Path, n(create), n(0o600)]),
            ("openat", libc::SYS_openat, vec![HERE, Path, n(create), n(0o600)]),
            ("openat2", libc::SYS_openat2, vec![HERE, Path, Path, n(24)]),
            ("creat", libc::SYS_creat, vec![Path, n(0o600)]),
            ("mkdir", libc::SYS_mkdir, vec![Path, n(0o700)]),
            ("mkdirat", libc::SYS_mkdirat, vec![HERE, Path, n(0o700)]),
            ("symlink", libc::SYS_symlinkat, vec![Path, HERE, Path]),
            ("mknod", libc::SYS_mknodat, vec![HERE, Path, n(i64::from(libc::S_IFIFO | 0o600))]),
            ("unlink", libc::SYS_unlink, vec![Path]),
            ("unlinkat", libc::SYS_unlinkat, vec![HERE, Path]),
            ("rename", libc::SYS_rename, vec![Path, Path]),
            ("chmod", libc::SYS_chmod, vec![Path, n(0o777)]),
            ("stat", libc::SYS_newfstatat, vec![HERE, Path]),
            ("statx", libc::SYS_statx, vec![HERE, Path]),
            ("chroot", libc::SYS_chroot, vec![Path]),
            ("chdir", libc::SYS_chdir, vec![Path]),
            ("execve", libc::SYS_execve, vec![Path]),
            ("execveat", libc::SYS_execveat, vec![HERE, Path]),
            ("fork", libc::SYS_fork, vec![]),
            ("vfork", libc::SYS_vfork, vec![]),
            ("clone", libc::SYS_clone, vec![n(i64::from(libc::SIGCHLD))]),
            ("clone3", libc::SYS_clone3, vec![n(0), n(0)]),
            ("unshare", libc::SYS_unshare, vec![n(i64::from(libc::CLONE_NEWUSER))]),
            ("setns", libc::SYS_setns, vec![n(0), n(0)]),
            ("socket inet", libc::SYS_socket, vec![n(libc::AF_INET.into()), n(STREAM), n(0)]),
            ("socket inet6", libc::SYS_socket, vec![n(libc::AF_INET6.into()), n(STREAM), n(0)]),
            ("socket netlink", libc::SYS_socket, vec![n(libc::AF_NETLINK.into()), n(STREAM), n(0)]),
            ("socket vsock", libc::SYS_socket, vec![n(libc::AF_VSOCK.into()), n(STREAM), n(0)]),
            (
                "socket datagram",
                libc::SYS_socket,
                vec![n(libc::AF_UNIX.into()), n(libc::SOCK_DGRAM.into()), n(0)],
            ),
            ("socket protocol", libc::SYS_socket, vec![n(libc::AF_UNIX.into()), n(STREAM), n(1)]),
            ("socketpair", libc::SYS_socketpair, vec![n(libc::AF_UNIX.into()), n(STREAM), n(0), Path]),
            ("bind", libc::SYS_bind, vec![n(0), Path, n(16)]),
            ("listen", libc::SYS_listen, vec![n(0), n(1)]),
            ("sendmsg", libc::SYS_sendmsg, vec![n(0), Path]),
            ("recvmsg", libc::SYS_recvmsg, vec![n(0), Path]),
            ("sendto", libc::SYS_sendto, vec![n(0), Path, n(1)]),
            ("ioctl", libc::SYS_ioctl, vec![n(0), n(libc::TIOCSTI as i64), Path]),
            ("dup2", libc::SYS_dup2, vec![n(0), n(1)]),
            ("fcntl dup", libc::SYS_fcntl, vec![n(0), n(libc::F_DUPFD.into())]),
            ("fcntl flags", libc::SYS_fcntl, vec![n(0), n(libc::F_SETFL.into())]),
            ("kill", libc::SYS_kill, vec![n(-1), n(0)]),
            ("tgkill", libc::SYS_tgkill, vec![n(1), n(1), n(0)]),
            ("pidfd_open", libc::SYS_pidfd_open, vec![n(1), n(0)]),
            ("ptrace", libc::SYS_ptrace, vec![n(0)]),
            ("process_vm_readv", libc::SYS_process_vm_readv, vec![n(1)]),
            ("process_vm_writev", libc::SYS_process_vm_writev, vec![n(1)]),
            ("mmap executable", libc::SYS_mmap, vec![n(0), n(4096), n(RW | 4), n(ANON), n(-1), n(0)]),
            ("mmap file", libc::SYS_mmap, vec![n(0), n(4096), n(RW), n(libc::MAP_SHARED.into()), n(0), n(0)]),
            ("mmap here", libc::SYS_mmap, vec![n(0x10000), n(4096), n(RW), n(ANON), n(-1), n(0)]),
            ("mprotect", libc::SYS_mprotect, vec![n(0), n(4096), n(7)]),
            ("mremap to", libc::SYS_mremap, vec![n(0), n(4096), n(4096), n(3)]),
            ("prctl", libc::SYS_prctl, vec![n(libc::PR_SET_DUMPABLE.into()), n(1)]),
            ("seccomp", libc::SYS_seccomp, vec![n(0)]),
            ("setuid", libc::SYS_setuid, vec![n(0)]),
            ("capset", libc::SYS_capset, vec![Path, Path]),
            ("mount", libc::SYS_mount, vec![Path, Path, Path]),
            ("umount2", libc::SYS_umount2, vec![Path]),
            ("open_tree", libc::SYS_open_tree, vec![HERE, Path]),
            ("bpf", libc::SYS_bpf, vec![n(0)]),
            ("perf_event_open", libc::SYS_perf_event_open, vec![Path]),
            ("io_uring_setup", libc::SYS_io_uring_setup, vec![n(1), Path]),
            ("keyctl", libc::SYS_keyctl, vec![n(0)]),
            ("memfd_create", libc::SYS_memfd_create, vec![Path]),
            ("userfaultfd", libc::SYS_userfaultfd, vec![n(0)]),
            ("rt_sigaction", libc::SYS_rt_sigaction, vec![n(0)]),
            ("sendfile", libc::SYS_sendfile, vec![n(0), n(1)]),
            ("vmsplice", libc::SYS_vmsplice, vec![n(0)]),
            ("pidfd_getfd", libc::SYS_pidfd_getfd, vec![n(0), n(0), n(0)]),
            ("reboot", libc::SYS_reboot, vec![n(0)]),
            // The x32 ABI's numbers, and one that no kernel has.
            ("x32 openat", 0x4000_0000 | libc::SYS_openat, vec![HERE, Path, n(create), n(0o600)]),
            ("x32 read", 0x4000_0000, vec![n(-1)]),
            ("none", 4000, vec![]),
        ]
    }

    both! {
        fn any_other_call_kills_the_relay_and_does_nothing(who) {
            for (name, call, args) in forbidden() {
                let (relay, _, scratch) = relay(who, &[]);
                let path = scratch.join("injected");
                assert_eq!(inject(relay.pid(), call, &args, &path, None), Fate::Died(libc::SIGSYS), "{name}");
                assert!(fs::symlink_metadata(&path).is_err(), "{name} made {}", path.display());
            }
        }

        fn the_same_calls_return_in_a_process_without_a_filter(who) {
            // The control: the injection works, and would have made the file.
            let scratch = who.scratch();
            let path = scratch.join("injected");
            let mut made = 0;
            for (name, call, args) in forbidden() {
                // What would end or block any process, and what reaches others.
                if ["vfork", "none", "kill", "tgkill", "reboot", "ptrace", "fork", "clone"].contains(&name) {
                    continue;
                }
                let mut sleep = who.command("sleep").arg("1000").spawn().expect("sleep");
                let pid = sleep.id() as i32;
                let fate = inject(pid, call, &args, &path, None);
                assert!(matches!(fate, Fate::Returned(_)), "{name}: {fate:?}");
                made += usize::from(fs::symlink_metadata(&path).is_ok());
                let _gone = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                let _ended = (sleep.kill(), sleep.wait());
            }
            assert!(made >= 7, "{made}");
        }

        fn calls_of_the_loop_return_and_the_relay_goes_on(who) {
            let (relay, port, scratch) = relay(who, &[]);
            let n = Number;
            for (call, args) in [
                (libc::SYS_read, vec![n(-1)]),
                (libc::SYS_socket, vec![n(libc::AF_UNIX.into()), n(STREAM), n(0)]),
                (libc::SYS_mmap, vec![n(0), n(4096), n(RW), n(ANON), n(-1), n(0)]),
            ] {
                let fate = inject(relay.pid(), call, &args, scratch.path(), None);
                assert!(matches!(fate, Fate::Returned(_)), "{fate:?}");
                serves(port);
            }
        }

        fn the_32_bit_entry_kills_it(who) {
            let (relay, _, scratch) = relay(who, &[]);
            // int 0x80, getpid of i386.
            let fate = inject(relay.pid(), 20, &[], scratch.path(), Some([0xcd, 0x80]));
            if fate == Fate::Died(libc::SIGSEGV) {
                skip!("a kernel without the 32-bit entry");
            }
            assert_eq!(fate, Fate::Died(libc::SIGSYS));
        }

        fn a_unix_listener_can_be_removed_from_its_directory_and_no_other(who) {
            let own = who.scratch();
            let extra = [format!("unix:{}", own.join("listen").display()), "tcp:127.0.0.1:1".into()];
            let (one, port, scratch) = relay(who, &extra);
            let victim = scratch.file("victim", "");
            serves(port);
            let unlink = vec![HERE, Path, Number(0)];
            assert_eq!(inject(one.pid(), libc::SYS_unlinkat, &unlink, &victim, None), Fate::Died(libc::SIGSYS));
            assert!(victim.exists());
            // An address family for each kind of target.
            let (two, _, scratch) = relay(who, &[format!("unix:{}", own.join("other").display()), "tcp:127.0.0.1:1".into()]);
            let inet = vec![Number(libc::AF_INET.into()), Number(STREAM), Number(0)];
            assert!(matches!(inject(two.pid(), libc::SYS_socket, &inet, scratch.path(), None), Fate::Returned(0..)));
            let inet6 = vec![Number(libc::AF_INET6.into()), Number(STREAM), Number(0)];
            assert_eq!(inject(two.pid(), libc::SYS_socket, &inet6, scratch.path(), None), Fate::Died(libc::SIGSYS));
            let three = Relay::start(who, &[format!("tcp:127.0.0.1:{}", free_port()), "tcp:127.0.0.1:1".into()]);
            let unix = vec![Number(libc::AF_UNIX.into()), Number(STREAM), Number(0)];
            assert_eq!(inject(three.pid(), libc::SYS_socket, &unix, scratch.path(), None), Fate::Died(libc::SIGSYS));
        }
    }
}
