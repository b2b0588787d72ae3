//! The command starts as its caller would have started it: every probe must say inside what it says outside.

use srt_tests::{Ran, Who, both, chain, run};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Runs in the child, before the exec: async-signal-safe calls only.
type Prepare = fn();

fn prepared(mut command: Command, prepare: Prepare) -> Command {
    // SAFETY: see [`Prepare`].
    unsafe {
        command.pre_exec(move || {
            prepare();
            Ok(())
        })
    };
    command
}

/// What a probe says outside, in srt-ns alone with each option that changes who starts it, and in the chain.
fn everywhere(who: Who, work: &Path, probe: &[&str], prepare: Prepare) -> Vec<Ran> {
    let mut commands = vec![who.command("env")];
    for option in ["--outlive-parent", "--as-pid-1", "--wait-all", "--keep-session"] {
        commands.push(who.command("srt-ns"));
        commands.last_mut().expect("pushed").args([option, "--"]);
    }
    commands.push(chain(who, work));
    let run_one = |mut command: Command| {
        command.current_dir(work).args(probe);
        run(&mut prepared(command, prepare))
    };
    commands.into_iter().map(run_one).collect()
}

/// Fails the test unless the probe says the same everywhere; and something else where nothing was prepared.
#[track_caller]
fn same_inside(who: Who, work: &Path, probe: &[&str], prepare: Prepare) -> String {
    let all = everywhere(who, work, probe, prepare);
    let outside = all[0].ok().out.clone();
    for inside in &all {
        assert_eq!(inside.ok().out, outside);
    }
    let unprepared = run(who.command(probe[0]).args(&probe[1..]));
    assert_ne!(unprepared.ok().out, outside, "the preparation has no effect");
    outside
}

/// The mask in a line of /proc/self/status.
fn mask(ran: &Ran, name: &str) -> u64 {
    let line = ran.ok().out.lines().find(|line| line.starts_with(name)).expect("a line");
    u64::from_str_radix(line.rsplit('\t').next().expect("a field"), 16).expect("a mask")
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Words that lose something on the way if anybody looks at them too closely.
fn awkward_words() -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["", "--", "", "--help", "-", " ", "a b", "\n", "'\"$(x)`\\", "é", "--keep-fd", "help"]
            .map(OsString::from)
            .into();
    words.push(OsString::from_vec((1..=255).collect()));
    words.push(OsString::from_vec(vec![0xff, 0xfe, 0x80]));
    words.push(OsString::from_vec(vec![b'x'; 128 * 1024 - 1])); // execve(2): MAX_ARG_STRLEN
    words.extend((words.len()..5000).map(|number| OsString::from(format!("word {number}"))));
    words
}

/// A command that is started with exactly this environment, which std's could not have: entries may be repeated,
/// and need no `=`.
fn with_environment(command: Command, environment: &[&[u8]]) -> Command {
    let program = CString::new(command.get_program().as_bytes()).expect("no NUL");
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::as_bytes);
    let argv: Vec<_> = words.map(|word| CString::new(word).expect("no NUL")).collect();
    let envp: Vec<_> = environment.iter().map(|entry| CString::new(*entry).expect("no NUL")).collect();
    let mut command = command;
    let exec = move || {
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|entry| entry.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&argv), pointers(&envp));
        // SAFETY: a C string and two NULL-terminated arrays of C strings.
        unsafe { libc::execvpe(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Err(io::Error::last_os_error())
    };
    // SAFETY: after a fork glibc's malloc may be used.
    unsafe { command.pre_exec(exec) };
    command
}

both! {
    fn the_umask_is_the_callers(who) {
        let work = who.scratch();
        let masks: [(&str, Prepare); 3] = [
            // SAFETY: umask takes an integer and cannot fail.
            ("0000", || unsafe { _ = libc::umask(0) }),
            // SAFETY: the same.
            ("0027", || unsafe { _ = libc::umask(0o027) }),
            // SAFETY: the same.
            ("0777", || unsafe { _ = libc::umask(0o777) }),
        ];
        for (mask, prepare) in masks {
            let said = same_inside(who, work.path(), &["sh", "-c", "umask"], prepare);
            assert_eq!(said.trim(), mask);
            // Its socket is made under another one.
            let mut command = who.command("srt-ns");
            command.arg("--publish").arg(format!("{}=1003", work.join("s").display()));
            command.args(["--", "sh", "-c", "umask"]);
            run(&mut prepared(command, prepare)).ok().says(mask);
        }
    }

    fn the_resource_limits_are_the_callers(who) {
        let work = who.scratch();
        let said = same_inside(who, work.path(), &["cat", "/proc/self/limits"], || {
            for (resource, soft, hard) in [
                (libc::RLIMIT_CORE, 0, 12_345),
                (libc::RLIMIT_CPU, 1000, 2000),
                (libc::RLIMIT_DATA, 1 << 30, 1 << 31),
                (libc::RLIMIT_FSIZE, 1 << 29, 1 << 30),
                (libc::RLIMIT_LOCKS, 100, 200),
                (libc::RLIMIT_MEMLOCK, 4096, 65_536),
                (libc::RLIMIT_MSGQUEUE, 1000, 2000),
                (libc::RLIMIT_NICE, 0, 0),
                (libc::RLIMIT_NOFILE, 321, 654),
                (libc::RLIMIT_NPROC, 40_000, 50_000), // All of the user's processes count, other tests' too.
                (libc::RLIMIT_RSS, 1 << 28, 1 << 29),
                (libc::RLIMIT_RTPRIO, 0, 0),
                (libc::RLIMIT_RTTIME, 5000, 6000),
                (libc::RLIMIT_SIGPENDING, 500, 600),
                (libc::RLIMIT_STACK, 4 << 20, 5 << 20),
                (libc::RLIMIT_AS, 1 << 32, 1 << 33),
            ] {
                // SAFETY: a pointer to an rlimit.
                unsafe { libc::setrlimit(resource, &libc::rlimit { rlim_cur: soft, rlim_max: hard }) };
            }
        });
        assert!(said.contains(" 321 ") && said.contains(" 50000 "), "{said}");
    }

    fn nice_scheduler_cpus_and_the_like_are_the_callers(who) {
        let work = who.scratch();
        let probe = "import os
for name in 'oom_score_adj', 'personality', 'timerslack_ns': print(name, open('/proc/self/' + name).read().strip())
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getaffinity(0))";
        let said = same_inside(who, work.path(), &["/usr/bin/python3", "-c", probe], || {
            // SAFETY: integers, and pointers to what lives through the call; none of them can do harm by failing.
            unsafe {
                let parameters: libc::sched_param = std::mem::zeroed();
                libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters);
                libc::setpriority(libc::PRIO_PROCESS, 0, 7);
                let mut cpus: libc::cpu_set_t = std::mem::zeroed();
                libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut cpus);
                let first = (0..1024).find(|&cpu| libc::CPU_ISSET(cpu, &cpus)).unwrap_or(0);
                libc::CPU_ZERO(&mut cpus);
                libc::CPU_SET(first, &mut cpus);
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cpus);
                let slack: libc::c_ulong = 77_777;
                libc::prctl(libc::PR_SET_TIMERSLACK, slack);
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
                libc::write(fd, c"345".as_ptr().cast(), 3);
                libc::close(fd);
            }
        });
        assert!(said.contains("oom_score_adj 345") && said.contains("\n7 3 "), "{said}");
    }

    fn ignored_signals_and_the_signal_mask_are_the_callers(who) {
        let work = who.scratch();
        let prepare: Prepare = || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGCHLD, libc::SIGUSR1, libc::SIGTSTP, libc::SIGTTOU, libc::SIGXFSZ, 50] {
                // SAFETY: SIG_IGN is no function that could be unsafe to run.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            // SAFETY: all-zero bytes are an empty set.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            for signal in [libc::SIGTERM, libc::SIGUSR2, libc::SIGCHLD, libc::SIGINT, libc::SIGALRM, 60] {
                // SAFETY: a pointer to a set.
                unsafe { libc::sigaddset(&mut set, signal) };
            }
            // SAFETY: a pointer to a set.
            unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) };
            // Those that the C library keeps for its threads, which its calls leave out.
            let threads: u64 = bit(32) | bit(33) | bit(34);
            // SAFETY: a pointer to a set of the kernel's size.
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const threads, std::ptr::null_mut::<u64>(), 8_usize) };
        };
        let all = everywhere(who, work.path(), &["grep", "Sig[BIC]", "/proc/self/status"], prepare);
        assert!(mask(&all[0], "SigIgn") & bit(50) != 0 && mask(&all[0], "SigBlk") & (bit(60) | bit(34)) == bit(60) | bit(34), "{all:#?}");
        for inside in &all {
            for name in ["SigIgn", "SigBlk", "SigCgt"] {
                assert_eq!(mask(inside, name), mask(&all[0], name), "{name} {inside:#?}");
            }
        }
        // An ignored SIGCHLD makes the kernel reap: the tools must see the command's status all the same.
        for ran in everywhere(who, work.path(), &["sh", "-c", "exit 7"], prepare) {
            ran.code(7);
        }
    }

    fn where_nothing_is_ignored_or_blocked_nothing_is_inside(who) {
        let work = who.scratch();
        let all = everywhere(who, work.path(), &["grep", "Sig[BI]", "/proc/self/status"], || {
            // All but the C library's own two: whoever runs the tests may ignore some.
            for signal in (1..=31).chain(34..=64) {
                // SAFETY: SIG_DFL is no function that could be unsafe to run.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
        });
        for inside in &all {
            assert_eq!(mask(inside, "SigBlk"), 0, "{inside:#?}");
            assert_eq!(mask(inside, "SigIgn") & !(bit(32) | bit(33)), 0, "{inside:#?}");
        }
    }

    fn sigpipe_is_at_its_default_even_where_the_caller_ignores_it(who) {
        let work = who.scratch();
        // SAFETY: SIG_IGN is no function that could be unsafe to run.
        let ignore: Prepare = || unsafe { _ = libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let probe = "yes 2>/dev/null | head -n 1; echo ${PIPESTATUS[0]}";
        for prepare in [ignore, || ()] {
            let all = everywhere(who, work.path(), &["bash", "-c", probe], prepare);
            all[1..].iter().for_each(|inside| _ = inside.ok().says("y\n141"));
        }
        let outside = &everywhere(who, work.path(), &["bash", "-c", probe], ignore)[0];
        outside.ok().says("y\n1");
    }

    fn argv_comes_through_byte_for_byte(who) {
        let work = who.scratch();
        let words = awkward_words();
        let mut expected = vec![];
        words.iter().for_each(|word| expected.extend([word.as_bytes(), b"\0"].concat()));
        let file = work.join("argv");
        let mut commands = vec![who.command("srt-ns"), who.command("srt-ns")];
        commands[0].arg("--");
        commands[1].args(["--as-pid-1", "--"]);
        commands.push(chain(who, work.path()));
        for mut command in commands {
            let script = "exec /usr/bin/printf '%s\\0' \"$@\" >argv";
            command.current_dir(work.path());
            run(command.args(["sh", "-c", script, "sh"]).args(&words)).ok();
            let same = std::fs::read(&file).expect("read") == expected;
            assert!(same, "{:.200}", format!("{command:?}"));
            std::fs::remove_file(&file).expect("remove");
        }
    }

    fn the_first_word_is_what_the_user_wrote(who) {
        let work = who.scratch();
        for name in ["cat", "/bin/cat", "/../bin/./cat"] {
            let mut command = chain(who, work.path());
            run(command.args([name, "/proc/self/cmdline"])).ok().says(&format!("{name}\0/proc/self/cmdline\0"));
        }
    }

    fn the_environment_goes_through_unchanged(who) {
        let work = who.scratch();
        let path = [b"PATH=", srt_tests::path_with_tools().as_bytes()].concat();
        let long = [b"LONG=".as_slice(), &[b'x'; 100_000]].concat();
        let environment: [&[u8]; 13] = [
            &path,
            b"A=1",
            b"A=2",
            b"no equals sign",
            b"",
            b"=starts with one",
            b"BYTES=\xff\xfe\x01\n",
            b"LD_PRELOAD=",
            b"IFS=x",
            b"HELP=--help",
            b"PWDX=like PWD",
            b"A=3",
            &long,
        ];
        let outside = run(&mut with_environment(prog(who, &["env"], &["-0"]), &environment));
        assert!(outside.ok().out.contains("no equals sign\0") && outside.out.contains("A=1\0A=2\0"), "{outside:#?}");
        for stages in [&["srt-ns", "--"][..], &["srt-ns", "--", "srt-seccomp", "--"]] {
            let inside = run(&mut with_environment(prog(who, stages, &["env", "-0"]), &environment));
            assert!(inside.ok().out == outside.out, "{:.2000}", inside.out);
        }
        // srt-mount adds PWD and nothing else.
        let mut command = chain(who, work.path());
        command.args(["env", "-0"]);
        let inside = run(&mut with_environment(command, &environment));
        let without: Vec<_> = inside.ok().out.split('\0').filter(|entry| !entry.starts_with("PWD=")).collect();
        assert!(without.join("\0") == outside.out, "{:.2000}", inside.out);
        assert!(inside.out.contains(&format!("PWD={}\0", work.text())), "{:.2000}", inside.out);
    }

    fn an_empty_environment_stays_empty(who) {
        let ran = run(&mut with_environment(prog(who, &["srt-ns", "--"], &["/usr/bin/env", "-0"]), &[]));
        ran.ok().says("");
    }
}

/// A command of this user, from words.
fn prog(who: Who, words: &[&str], more: &[&str]) -> Command {
    let mut command = who.command(words[0]);
    command.args(&words[1..]).args(more);
    command
}
