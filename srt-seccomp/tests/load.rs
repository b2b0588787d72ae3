//! Filters that the user brings (`--load`, `--load-fd`), and ours in the hands of others (`--export`).

#![allow(clippy::expect_used, clippy::panic, clippy::multiple_unsafe_ops_per_block)]

use srt_tests::refusals::{in_front, refuse, refuse_value};
use srt_tests::{DEFAULT_RULES, Scratch, Who, both, has, landlock_abi, pass_fd, run, run_bwrap, skip};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

/// A filter: `then` for these calls, `otherwise` for all others.
fn filter(calls: &[i64], then: u32, otherwise: u32) -> Vec<u8> {
    let mut program = vec![instruction(0x20, 0, 0, 0)];
    for (n, &call) in calls.iter().enumerate() {
        let over = u8::try_from(calls.len() - n).expect("few calls");
        program.push(instruction(0x15, over, 0, u32::try_from(call).expect("a number")));
    }
    program.extend([instruction(0x06, 0, 0, otherwise), instruction(0x06, 0, 0, then)]);
    program.concat()
}

/// A filter under which uname(2) fails with this errno.
fn no_uname(errno: i32) -> Vec<u8> {
    filter(&[libc::SYS_uname], ERRNO | errno as u32, ALLOW)
}

/// A filter as bytes.
fn to_bytes(program: &[libc::sock_filter]) -> Vec<u8> {
    program.iter().map(|i| instruction(i.code, i.jt, i.jf, i.k)).collect::<Vec<_>>().concat()
}

/// `srt-seccomp ARGS -- PROGRAM`, with the file as descriptor 7.
fn with_fd_7(who: Who, file: &PathBuf, args: &[&str]) -> Command {
    // The descriptor is opened by a shell of the user: `7<FILE`.
    let mut command = who.command("sh");
    command.args(["-c", "file=$1; shift; exec \"$@\" 7<\"$file\"", "sh"]).arg(file);
    command.arg(srt_tests::tool("srt-seccomp")).args(args);
    command
}

fn lab(who: Who) -> Scratch {
    let lab = who.scratch();
    lab.file("e7", no_uname(libc::E2BIG));
    lab.file("e8", no_uname(libc::ENOEXEC));
    lab
}

both! {
    fn loaded_filters_act_in_the_order_given_whichever_option_brings_them(who) {
        // Of filters that answer alike, the one installed last gives the errno (seccomp(2)).
        let lab = lab(who);
        let (e7, e8) = (lab.join("e7"), lab.join("e8"));
        let e7_path = e7.to_str().expect("UTF-8");
        for (args, says) in [
            (vec!["--load", e7_path, "--load-fd", "7"], "Exec format error"),
            (vec!["--load-fd", "7", "--load", e7_path], "Argument list too long"),
            (vec!["--load-fd", "7", "--deny", "bpf", "--load", e7_path, "--keep-fd", "2"], "Argument list too long"),
        ] {
            let ran = run(with_fd_7(who, &e8, &args).args(["--", "uname"]));
            ran.complains(says);
            if landlock_abi() >= 5 {
                // A switch has no value that could be one of them.
                let ran = run(with_fd_7(who, &e8, &[&["--landlock"][..], &args].concat()).args(["--", "uname"]));
                ran.complains(says);
            }
        }
        run(who.command("srt-seccomp").args(["--", "uname"])).ok();
    }

    fn a_filter_comes_from_any_path_and_any_descriptor(who) {
        let lab = lab(who);
        for name in ["--load-fd", " ", "é\n", "-"] {
            lab.file(name, no_uname(libc::EDOM));
            let mut command = who.command("srt-seccomp");
            command.current_dir(lab.path()).args(["--load", name, "--", "uname"]);
            run(&mut command).complains("Numerical argument out of domain");
        }
        // 0 too: the program then finds it read to its end.
        let file = File::open(lab.join("e7")).expect("open");
        let mut command = who.command("srt-seccomp");
        command.args(["--load-fd", "0", "--", "sh", "-c", "wc -c; uname"]).stdin(file);
        let ran = run(&mut command);
        ran.complains("Argument list too long");
        assert!(ran.out.starts_with('0'), "{ran:#?}");
    }

    fn the_descriptor_of_a_filter_does_not_reach_the_program(who) {
        let lab = lab(who);
        let script = "test -e /proc/self/fd/7 && echo open || echo closed";
        let e7 = lab.join("e7");
        run(&mut with_fd_7(who, &e7, &["--load-fd", "7", "--", "sh", "-c", script])).ok().says("closed");
        let args = ["--load-fd", "7", "--keep-fd", "7", "--", "sh", "-c", script];
        run(&mut with_fd_7(who, &e7, &args)).ok().says("open");
    }

    fn a_filter_may_forbid_all_that_srt_seccomp_itself_uses(who) {
        let lab = who.scratch();
        let calls = [libc::SYS_prctl, libc::SYS_seccomp, libc::SYS_execveat, libc::SYS_capset, libc::SYS_close_range];
        let file = lab.file("f", filter(&calls, KILL, ALLOW));
        run(who.command("srt-seccomp").arg("--load").arg(&file).args(["--", "true"])).ok();
    }

    fn behind_the_last_filter_srt_seccomp_calls_execve_alone(who) {
        // All but the failing exec, the message about it and the exit would kill.
        let lab = who.scratch();
        let end = [libc::SYS_write, libc::SYS_exit_group, libc::SYS_sigaltstack, libc::SYS_munmap];
        let calls = [&[libc::SYS_execve][..], &end].concat();
        let file = lab.file("f", filter(&calls, ALLOW, KILL));
        for program in ["no-such-program", "srt-mount-is-not-there"] {
            let many = "x".repeat(100_000);
            let mut command = who.command("srt-seccomp");
            command.arg("--load").arg(&file).args(["--", program, &many]);
            run(&mut command).code(127).one_clear_error("srt-seccomp");
        }
        run(who.command("srt-seccomp").args(["--", "/no/such/program"])).code(127);
    }

    fn a_filter_that_forbids_seccomp_need_not_be_the_last(who) {
        let lab = lab(who);
        for action in [KILL, ERRNO | libc::EACCES as u32] {
            let first = lab.file("first", filter(&[libc::SYS_seccomp], action, ALLOW));
            let mut command = who.command("srt-seccomp");
            command.arg("--load").arg(&first).arg("--load").arg(lab.join("e7")).args(["--", "uname"]);
            run(&mut command).complains("Argument list too long");
        }
    }

    fn a_filter_that_forbids_prctl_has_to_be_the_last(who) {
        let lab = lab(who);
        let first = lab.file("first", filter(&[libc::SYS_prctl], ERRNO | libc::EACCES as u32, ALLOW));
        let mut command = who.command("srt-seccomp");
        command.arg("--load").arg(&first).arg("--load").arg(lab.join("e7")).args(["--", "true"]);
        let ran = run(&mut command);
        ran.code(125).one_clear_error("srt-seccomp").complains("e7: prctl(PR_SET_SECCOMP): Permission denied");
        ran.complains("load such a filter last");
    }

    fn a_filter_that_forbids_execve_ends_in_126(who) {
        let lab = who.scratch();
        let file = lab.file("f", filter(&[libc::SYS_execve], ERRNO | libc::EPERM as u32, ALLOW));
        let ran = run(who.command("srt-seccomp").arg("--load").arg(&file).args(["--", "true"]));
        ran.code(126).one_clear_error("srt-seccomp").complains("cannot run true: Operation not permitted");
    }

    /// Why it cannot be run is looked for before the filter is loaded.
    fn a_program_that_is_a_link_to_itself_ends_in_126(who) {
        let lab = lab(who);
        let circle = lab.join("circle");
        std::os::unix::fs::symlink(&circle, &circle).expect("a link");
        let ran = run(who.command("srt-seccomp").arg("--load").arg(lab.join("e7")).arg("--").arg(&circle));
        ran.code(126).one_clear_error("srt-seccomp").complains("cannot run");
    }

    fn a_program_whose_interpreter_is_a_fifo_ends_in_126(who) {
        let scratch = who.scratch();
        run(who.command("mkfifo").arg(scratch.join("fifo"))).ok();
        let program = scratch.script("p", format!("#!{}\n", scratch.join("fifo").display()));
        run(who.command("srt-seccomp").arg("--").arg(&program)).code(126).says("").one_clear_error("srt-seccomp");
        let well = scratch.script("well", "#!/bin/sh\necho ran\n");
        run(who.command("srt-seccomp").arg("--").arg(&well)).ok().says("ran");
    }

    fn what_is_no_filter_is_an_error_and_nothing_runs(who) {
        let lab = who.scratch();
        let nonsense = instruction(0xffff, 0, 0, 0);
        let long = vec![0; 4097 * 8];
        for (name, content, words) in [
            ("empty", &[][..], "the filter is empty"),
            ("7", &[0; 7], "7 bytes are not a multiple of 8"),
            ("9", &[0; 9], "9 bytes"),
            ("long", &long, "at most 4096 instructions"),
            ("nonsense", &nonsense, "prctl(PR_SET_SECCOMP): Invalid argument"),
            ("no return", &filter(&[], ALLOW, ALLOW)[..8], "prctl(PR_SET_SECCOMP): Invalid argument"),
        ] {
            let file = lab.file(name, content);
            let ran = run(who.command("srt-seccomp").arg("--load").arg(&file).args(["--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains(words).complains("--load /").says("");
            let ran = run(&mut with_fd_7(who, &file, &["--load-fd", "7", "--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains(words).complains("--load-fd 7: ").says("");
        }
        for (path, words) in [
            ("/nonexistent/f", "No such file or directory"),
            ("/", "Is a directory"),
            ("", "No such file or directory"),
            ("/dev/zero", "at most 4096 instructions"),
            ("/dev/null", "the filter is empty"),
        ] {
            let ran = run(who.command("srt-seccomp").args(["--load", path, "--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains(words).says("");
        }
        for fd in ["99", "-1", "2147483647", "2147483648", "", "x", "7 "] {
            let ran = run(who.command("srt-seccomp").args(["--load-fd", fd, "--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains("--load-fd").says("");
        }
    }

    fn one_descriptor_is_one_filter(who) {
        let lab = lab(who);
        let args = ["--load-fd", "7", "--load-fd", "7", "--", "echo", "ran"];
        let ran = run(&mut with_fd_7(who, &lab.join("e7"), &args));
        ran.code(125).one_clear_error("srt-seccomp").complains("--load-fd 7: an earlier option reads it");
    }

    fn too_many_filters_are_an_error(who) {
        // MAX_INSNS_PER_PATH of kernel/seccomp.c.
        let lab = who.scratch();
        let mut long = vec![instruction(0x20, 0, 0, 0); 4095];
        long.push(instruction(0x06, 0, 0, ALLOW));
        let file = lab.file("long", long.concat());
        let mut command = who.command("srt-seccomp");
        for _ in 0..8 {
            command.arg("--load").arg(&file);
        }
        let ran = run(command.args(["--", "echo", "ran"]));
        ran.code(125).one_clear_error("srt-seccomp").complains("Cannot allocate memory").complains("32768");
    }

    fn a_filter_around_us_that_refuses_filters_is_an_error_with_a_hint(who) {
        for (errno, says) in [(libc::EPERM, "Operation not permitted"), (libc::ENOSYS, "Function not implemented")] {
            let mut command = who.command("srt-seccomp");
            in_front(command.args(["--", "echo", "ran"]), &[refuse_value(libc::SYS_prctl, 0, libc::PR_SET_SECCOMP, errno)]);
            let ran = run(&mut command);
            ran.code(125).one_clear_error("srt-seccomp").says("");
            ran.complains(&format!("cannot install the seccomp filter: prctl(PR_SET_SECCOMP): {says}")).complains("hint: ");
        }
    }

    fn a_filter_that_is_answered_for_and_not_installed_is_an_error(who) {
        let lie = || refuse_value(libc::SYS_prctl, 0, libc::PR_SET_SECCOMP, 0);
        for rules in [&[][..], &["--deny", "userns,mount,net,setid"], &["--allow", DEFAULT_RULES], &["--allow", DEFAULT_RULES, "--deny", "bpf"]] {
            let command = || {
                let mut command = who.command("srt-seccomp");
                command.args(rules).args(["--", "echo", "ran"]);
                command
            };
            run(&mut command()).ok().says("ran");
            // A lie to all, and one to a srt-seccomp that is in another one and its filter.
            let mut lied_to = command();
            in_front(&mut lied_to, &[lie()]);
            let liar = lab(who);
            let liar = liar.file("liar", to_bytes(&srt_tests::refusals::filter(&[lie()])));
            let mut inner = who.command("srt-seccomp");
            inner.args(rules).arg("--load").arg(&liar).args(["--", "srt-seccomp"]).args(rules).args(["--", "echo", "ran"]);
            for mut command in [lied_to, inner] {
                let ran = run(&mut command);
                ran.code(125).one_clear_error("srt-seccomp").says("");
                ran.complains("cannot install the seccomp filter: prctl(PR_SET_SECCOMP): an outer filter fakes the result");
            }
            // The same between two filters of the user's.
            let lab = lab(who);
            let mut command = who.command("srt-seccomp");
            command.args(rules).arg("--load").arg(&liar).arg("--load").arg(lab.join("e7")).args(["--", "echo", "ran"]);
            run(&mut command).code(125).complains("e7: prctl(PR_SET_SECCOMP): an outer filter fakes the result").says("");
        }
    }

    fn a_filter_that_is_installed_for_us_and_does_not_hold_is_an_error(who) {
        // The tracer lets the question through that the kernel answers with EFAULT, and then lies: of the prctl calls
        // with PR_SET_SECCOMP, the second.
        if !has("strace") {
            skip!("strace is not installed");
        }
        let count = |name: &str| {
            let mut command = who.command("strace");
            command.args(["-qq", "-e", "trace=prctl"]).arg(srt_tests::tool("srt-seccomp"));
            let ran = run(command.args(["--", "true"]));
            let calls: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("prctl(")).collect();
            calls.iter().rposition(|call| call.contains(name)).expect("a call") + 1
        };
        let last = count("PR_SET_SECCOMP");
        for rules in [&[][..], &["--allow", "unix,vsock"], &["--allow", DEFAULT_RULES]] {
            let mut command = who.command("strace");
            command.args(["-qq", "-o", "/dev/null", "-e", "trace=prctl", "-e"]);
            command.arg(format!("inject=prctl:retval=0:when={last}")).arg(srt_tests::tool("srt-seccomp"));
            let ran = run(command.args(rules).args(["--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains("is not in force").says("");
        }
        // Behind another filter the kernel says that there is one: then only a call that is refused tells.
        let but = |rule| ["--deny", rule, "--allow", "unix,vsock,keyring"];
        for rules in [&[][..], &["--allow", "unix"], &["--allow", "vsock,keyring"], &["--allow", "unix,keyring"], &["--allow", "unix,vsock"], &but("setid"), &but("net"), &but("userns")] {
            let mut command = who.command("strace");
            command.args(["-qq", "-o", "/dev/null", "-e", "trace=prctl", "-e"]);
            command.arg(format!("inject=prctl:retval=0:when={last}")).arg(srt_tests::tool("srt-seccomp"));
            command.args(rules).args(["--", "echo", "ran"]);
            in_front(&mut command, &[refuse(libc::SYS_swapoff, libc::EPERM)]);
            run(&mut command).code(125).one_clear_error("srt-seccomp").complains("is not in force").says("");
        }
    }

    fn the_exported_filter_is_what_srt_seccomp_installs(who) {
        let lab = who.scratch();
        for options in [&[][..], &["--deny", "userns"], &["--allow", DEFAULT_RULES]] {
            let out = lab.file("filter", "");
            let mut command = who.command("srt-seccomp");
            command.args(options).arg("--export").stdout(File::create(&out).expect("create"));
            // `run` would read stdout as text.
            assert!(command.status().expect("runs").success());
            let exported = fs::read(&out).expect("read");
            assert!(exported.len().is_multiple_of(8) && !exported.is_empty());
            let mut command = who.command("srt-seccomp");
            command.args(["--allow", "unix"]).arg("--load").arg(&out).args(["--", "python3", "-c"]);
            let ran = run(command.arg("import socket; socket.socket(socket.AF_UNIX)"));
            if options.contains(&"--allow") {
                ran.ok();
            } else {
                ran.code(1).complains("Operation not permitted");
            }
        }
    }

    fn bwrap_takes_the_exported_filter(who) {
        if !has("bwrap") {
            skip!("bwrap is not installed");
        }
        let lab = who.scratch();
        let out = lab.file("filter", "");
        let mut export = who.command("srt-seccomp");
        assert!(export.arg("--export").stdout(File::create(&out).expect("create")).status().expect("runs").success());
        let connect = "import socket; socket.socket(socket.AF_UNIX); print('made')";
        let bwrap = |filter: bool| {
            let mut command = who.command("bwrap");
            let file = File::open(&out).expect("open");
            if filter {
                pass_fd(&mut command, file.as_raw_fd(), 7);
                command.args(["--seccomp", "7"]);
            }
            command.args(["--dev-bind", "/", "/", "--", "python3", "-c", connect]);
            run_bwrap(|| run(&mut command))
        };
        bwrap(false).ok().says("made");
        bwrap(true).code(1).complains("Operation not permitted");
    }
}

both! {
    fn it_runs_from_a_descriptor_in_a_root_that_holds_the_program_alone(who) {
        if who == Who::User {
            return; // chroot(2) takes privileges, which the next line gives up.
        }
        let lab = who.scratch();
        let srt = srt_tests::tool("srt-seccomp");
        run(Who::Root.command("cp").arg(&srt).arg(lab.join("program"))).ok();
        let (root, tool) = (lab.path().to_path_buf(), File::open(&srt).expect("open"));
        let path = std::ffi::CString::new(root.to_str().expect("UTF-8")).expect("no NUL");
        let argv = [c"srt-seccomp", c"--deny", c"userns,mount", c"--", c"/program", c"--version"];
        let mut command = Command::new("/bin/true");
        // SAFETY: chroot, chdir and execveat are async-signal-safe; nothing is allocated but one small array.
        unsafe {
            command.pre_exec(move || {
                let argv: [*const libc::c_char; 7] =
                    std::array::from_fn(|n| argv.get(n).map_or(std::ptr::null(), |arg| arg.as_ptr()));
                libc::chroot(path.as_ptr());
                libc::chdir(c"/".as_ptr());
                let none: *const *const libc::c_char = std::ptr::null();
                let empty = c"".as_ptr();
                libc::syscall(libc::SYS_execveat, tool.as_raw_fd(), empty, argv.as_ptr(), none, libc::AT_EMPTY_PATH);
                Err(std::io::Error::last_os_error())
            });
        }
        run(&mut command).ok().says(&format!("srt-seccomp {}", env!("CARGO_PKG_VERSION")));
    }
}
