//! Signals, traces, memory and descriptors of processes that are not the attacker's; System V and POSIX IPC.

use crate::files::{handle_of, open_handle};
use crate::sys::{c, descriptor, open, sys, write};
use crate::{Outcome, number};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

const PTRACE_ATTACH: i32 = 16;
const PTRACE_SEIZE: i32 = 0x4206;
/// linux/fcntl.h: the file system of pidfds as a starting point.
const FD_PIDFS_ROOT: i32 = -10002;
/// The same of namespaces.
const FD_NSFS_ROOT: i32 = -10003;

pub fn attack(words: &[&str]) -> Option<Outcome> {
    let done = |result: io::Result<i64>| result.map(|_| "done".to_owned());
    Some(match *words {
        // The process goes on, as a zombie by its number (exit_group(2) would end it).
        ["first-thread-ends"] => {
            std::thread::spawn(|| {
                println!("ready");
                loop {
                    std::thread::park();
                }
            });
            done(sys!(libc::SYS_exit, 0))
        }
        ["kill", pid, signal] => done(sys!(libc::SYS_kill, number(pid), number(signal))),
        ["tgkill", pid, signal] => done(sys!(libc::SYS_tgkill, number(pid), number(pid), number(signal))),
        ["sigqueue", pid, signal] => {
            // A forged SI_USER from nobody, which is what a sender outside looks like.
            let mut info = [0_i32; 32];
            info[0] = number(signal) as i32;
            done(sys!(libc::SYS_rt_sigqueueinfo, number(pid), number(signal), info.as_ptr()))
        }
        // Without room for what comes with a signal: the kernel delivers it without its sender (`__send_signal_locked`).
        ["sigqueue-lost", pid, signal] => {
            let none = [0_u64; 2];
            sys!(libc::SYS_prlimit64, number(pid), libc::RLIMIT_SIGPENDING, none.as_ptr(), null::<u8>())
                .and_then(|_| {
                    let mut info = [0_i32; 32];
                    (info[0], info[2]) = (number(signal) as i32, libc::SI_QUEUE);
                    done(sys!(libc::SYS_rt_sigqueueinfo, number(pid), number(signal), info.as_ptr()))
                })
        }
        ["pidfd-signal", pid, signal] => pidfd(pid).and_then(|fd| {
            done(sys!(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), number(signal), null::<u8>(), 0))
        }),
        // The kernel sends for us, as whoever it likes: SIGIO of a pipe that belongs to PID.
        ["sigio", pid, signal] => sigio(pid, signal).map(|()| "sent".into()),
        ["ptrace-attach", pid] => done(sys!(libc::SYS_ptrace, PTRACE_ATTACH, number(pid), 0, 0)),
        ["ptrace-seize", pid] => done(sys!(libc::SYS_ptrace, PTRACE_SEIZE, number(pid), 0, 0)),
        // A bad address: EFAULT comes after the permission.
        ["vm-read", pid] => not_filtered(vm(libc::SYS_process_vm_readv, pid)),
        ["vm-write", pid] => not_filtered(vm(libc::SYS_process_vm_writev, pid)),
        ["pidfd-getfd", pid, fd] => {
            pidfd(pid).and_then(|pidfd| done(sys!(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number(fd), 0)))
        }
        ["kcmp", pid] => done(sys!(libc::SYS_kcmp, number(pid), number(pid), 1 /* KCMP_VM */, 0, 0)),
        ["robust-list", pid] => {
            let (mut head, mut size) = (0_u64, 0_u64);
            done(sys!(libc::SYS_get_robust_list, number(pid), &raw mut head, &raw mut size))
        }
        ["madvise", pid] => not_filtered(pidfd(pid).and_then(|fd| {
            let range = [8_usize, 4096];
            sys!(libc::SYS_process_madvise, fd.as_raw_fd(), range.as_ptr(), 1, 20 /* MADV_COLD */, 0)
        })),
        ["migrate-pages", pid] => {
            let nodes = [1_u64];
            done(sys!(libc::SYS_migrate_pages, number(pid), 64, nodes.as_ptr(), nodes.as_ptr()))
        }
        ["perf", pid] => perf(pid),
        ["pidfd-handle", pid] => pidfd(pid).and_then(|fd| handle_of(fd.as_raw_fd(), "", libc::AT_EMPTY_PATH)),
        ["pidfd-by-handle", handle] => open_handle(FD_PIDFS_ROOT, handle, 0).map(|_| "opened".into()),
        ["ns-handle", path] => handle_of(libc::AT_FDCWD, path, libc::AT_SYMLINK_FOLLOW),
        ["ns-by-handle", handle] => open_handle(FD_NSFS_ROOT, handle, 0).map(|_| "opened".into()),
        // Holds on to a running program's file, and writes it when it runs no more.
        ["overwrite-exe", pid] => overwrite_exe(pid),
        ["processes"] => std::fs::read_dir("/proc").map(|all| {
            let all = all.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            all.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect::<Vec<_>>().join(" ")
        }),
        // A child of the attacker's parent, which may be surprised by it.
        ["clone-parent", code] => match sys!(libc::SYS_clone, libc::CLONE_PARENT, 0, 0, 0, 0) {
            Ok(0) => std::process::exit(number(code) as i32),
            child => child.map(|_| "made".into()),
        },
        // Not an attack on its own: children that stay and endless streams of ends, all of them the attacker's parent's,
        // from processes that no signal but SIGKILL ends.
        ["flood-parent", sleepers, streams] => flood(libc::CLONE_PARENT, number(sleepers), number(streams)),
        // The same of children of the attacker's own, which it never reaps: their parent ends, and PID 1 gets them.
        ["flood-init"] => flood_with_orphans(),
        // An endless stream of stops and continuations, of the process that the attacker's parent waits for.
        ["flood-stops"] => flood_with_stops(),
        // The parent becomes the tracer, and sees stops that are none.
        ["traceme"] => done(sys!(libc::SYS_ptrace, 0, 0, 0, 0)),
        // The same, then one stop after the other, and the first line of stdin in between.
        ["traceme-and-stay"] => sys!(libc::SYS_ptrace, 0, 0, 0, 0).and_then(|_| {
            say("ready");
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            // A traced process stops at any signal, a harmless one too (ptrace(2)).
            sys!(libc::SYS_kill, std::process::id(), libc::SIGURG)?;
            Ok("went on".into())
        }),
        // A program that leaves its session, ignores what can be ignored, and stays.
        ["daemon", file] => daemon(file),

        ["shm-make", key] => done(sys!(libc::SYS_shmget, number(key), 4096, libc::IPC_CREAT | 0o666)),
        ["shm-get", key] => done(sys!(libc::SYS_shmget, number(key), 0, 0)),
        ["shm-remove", key] => sys!(libc::SYS_shmget, number(key), 0, 0)
            .and_then(|id| done(sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0))),
        ["sem-make", key] => done(sys!(libc::SYS_semget, number(key), 1, libc::IPC_CREAT | 0o666)),
        ["sem-get", key] => done(sys!(libc::SYS_semget, number(key), 0, 0)),
        ["sem-remove", key] => sys!(libc::SYS_semget, number(key), 0, 0)
            .and_then(|id| done(sys!(libc::SYS_semctl, id, 0, libc::IPC_RMID))),
        ["msg-make", key] => done(sys!(libc::SYS_msgget, number(key), libc::IPC_CREAT | 0o666)),
        ["msg-get", key] => done(sys!(libc::SYS_msgget, number(key), 0)),
        ["msg-remove", key] => sys!(libc::SYS_msgget, number(key), 0)
            .and_then(|id| done(sys!(libc::SYS_msgctl, id, libc::IPC_RMID, 0))),
        ["mq-make", name] => done(sys!(
            libc::SYS_mq_open,
            c(name).as_c_str(),
            libc::O_CREAT | libc::O_RDWR,
            0o666,
            null::<u8>()
        )),
        ["mq-get", name] => done(sys!(libc::SYS_mq_open, c(name).as_c_str(), libc::O_RDWR, 0, null::<u8>())),
        // By its name, or by its path where a file system of message queues is mounted.
        ["mq-send", name] => {
            let queue =
                sys!(libc::SYS_mq_open, c(name).as_c_str(), libc::O_WRONLY, 0, null::<u8>()).map(descriptor);
            queue.and_then(|queue| {
                let text = "secret";
                done(sys!(
                    libc::SYS_mq_timedsend,
                    queue.as_raw_fd(),
                    text.as_ptr(),
                    text.len(),
                    0,
                    null::<u8>()
                ))
            })
        }
        ["mq-take", path] => open(path, libc::O_RDONLY | libc::O_NONBLOCK).and_then(|queue| {
            let mut text = vec![0_u8; 65536];
            let (size, at) = (text.len(), text.as_mut_ptr());
            sys!(libc::SYS_mq_timedreceive, queue.as_raw_fd(), at, size, null::<u8>(), null::<u8>())
                .map(|length| String::from_utf8_lossy(&text[..length as usize]).into_owned())
        }),
        ["mq-remove", name] => done(sys!(libc::SYS_mq_unlink, c(name).as_c_str())),
        _ => return None,
    })
}

fn say(word: &str) {
    let _nobody = write(&io::stdout(), &format!("{word}\n"));
}

/// A process of its own that does `what`.
fn forked(flags: i32, what: impl FnOnce()) {
    match sys!(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) {
        Ok(0) => {
            what();
            std::process::exit(0);
        }
        child => drop(child.expect("clone")),
    }
}

/// All but one, by which a test sees that signals arrive.
fn ignore_signals() {
    for number in (1..64).filter(|number| ![libc::SIGCHLD, libc::SIGUSR1].contains(number)) {
        // SAFETY: SIG_IGN is no function.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

fn stay() {
    loop {
        // SAFETY: no argument.
        unsafe { libc::pause() };
    }
}

/// Ends at once, without anything that a C library does at an end.
fn vanish() {
    let _never = sys!(libc::SYS_exit_group, 0);
}

/// A reader that gets no turn must not cost the host all its process numbers (`kernel.pid_max` is 32768): waits while it has
/// many threads (sysinfo(2)).
fn leave_some_numbers() {
    // SAFETY: all-zero bytes are a valid sysinfo.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: a sysinfo to fill.
    while unsafe { libc::sysinfo(&raw mut info) } == 0 && info.procs > 8000 {
        std::thread::yield_now();
    }
}

fn flood(flags: i32, sleepers: u64, streams: u64) -> Outcome {
    ignore_signals();
    for _ in 0..sleepers {
        forked(flags, stay);
    }
    for _ in 0..streams {
        forked(flags, move || {
            loop {
                leave_some_numbers();
                let _limit = sys!(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0).map(|child| {
                    if child == 0 {
                        vanish();
                    }
                });
            }
        });
    }
    say("ready");
    stay();
    Ok("never".into())
}

fn flood_with_orphans() -> Outcome {
    ignore_signals();
    for _ in 0..3 {
        forked(0, || {
            loop {
                leave_some_numbers();
                // vfork(2)'s way: the child has made its own child, and has ended, when this goes on.
                let mut status = 0_i32;
                match sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
                    Ok(0) => {
                        let _limit = sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
                        vanish();
                    }
                    Ok(child) => drop(sys!(libc::SYS_wait4, child, &raw mut status, 0, null::<u8>())),
                    Err(_) => {}
                }
            }
        });
    }
    say("ready");
    stay();
    Ok("never".into())
}

fn flood_with_stops() -> Outcome {
    ignore_signals();
    let own = std::process::id();
    for _ in 0..3 {
        forked(0, move || {
            loop {
                let _gone = sys!(libc::SYS_kill, own, libc::SIGSTOP);
                let _gone = sys!(libc::SYS_kill, own, libc::SIGCONT);
            }
        });
    }
    say("ready");
    stay();
    Ok("never".into())
}

/// EFAULT and EINVAL are complaints about the arguments: the attacker may.
fn not_filtered(result: io::Result<i64>) -> Outcome {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EINVAL)) => Err(error),
        _ => Ok("allowed".into()),
    }
}

fn pidfd(pid: &str) -> io::Result<OwnedFd> {
    sys!(libc::SYS_pidfd_open, number(pid), 0).map(descriptor)
}

fn vm(call: libc::c_long, pid: &str) -> io::Result<i64> {
    let mut buffer = [0_u8; 8];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: 8 as *mut libc::c_void, iov_len: 8 };
    sys!(call, number(pid), &raw const local, 1, &raw const remote, 1, 0)
}

fn sigio(pid: &str, signal: &str) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let fd = reader.as_raw_fd();
    sys!(libc::SYS_fcntl, fd, libc::F_SETOWN, number(pid))?;
    sys!(libc::SYS_fcntl, fd, 10 /* F_SETSIG */, number(signal))?;
    sys!(libc::SYS_fcntl, fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
    write(&writer, "x")
}

/// A counter of a process's instructions, or of a whole CPU (-1).
fn perf(pid: &str) -> Outcome {
    let mut attr = [0_u64; 16];
    attr[0] = 128 << 32 | 1; // type PERF_TYPE_SOFTWARE, size
    let of_cpu = if pid == "-1" { 0_i32 } else { -1 };
    sys!(libc::SYS_perf_event_open, attr.as_ptr(), number(pid), of_cpu, -1, 0).map(|_| "counting".into())
}

fn overwrite_exe(pid: &str) -> Outcome {
    let held = open(&format!("/proc/{pid}/exe"), libc::O_PATH)?;
    let _gone = sys!(libc::SYS_kill, number(pid), libc::SIGKILL);
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    for _ in 0..200 {
        match open(&again, libc::O_WRONLY) {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other.and_then(|file| write(&file, "OWNED\n")).map(|()| "wrote".into()),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ETXTBSY))
}

/// Returns in the first process at once. The last keeps `file` locked as long as it lives.
fn daemon(file: &str) -> Outcome {
    let lock = open(file, libc::O_RDWR | libc::O_CREAT)?;
    let (mut ready, signal) = io::pipe()?;
    // SAFETY: this program has one thread.
    if unsafe { libc::fork() } != 0 {
        drop(signal);
        // Until the last one has the lock.
        return io::Read::read_exact(&mut ready, &mut [0]).map(|()| "running".into());
    }
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
    // SAFETY: as above.
    if unsafe { libc::fork() } != 0 {
        std::process::exit(0);
    }
    for number in 1..64 {
        // SAFETY: SIG_IGN is no function.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    sys!(libc::SYS_flock, lock.as_raw_fd(), libc::LOCK_EX).expect("flock");
    write(&signal, "x").expect("write");
    drop((ready, signal));
    for fd in 0..3 {
        let _closed = sys!(libc::SYS_close, fd);
    }
    std::thread::sleep(std::time::Duration::from_secs(60));
    std::process::exit(0)
}
