//! Landlock: what the mounts or the user's list give, and nothing else. Each refusal stands beside the same thing done
//! without it.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::LoopMount;
use srt_tests::refusals::{in_front, refuse, with_mounts, with_none_of};
use srt_tests::talk::Talk;
use srt_tests::{Ran, Scratch, Who, both, has, landlock_abi as abi, pass_fd, run, skip, tool};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

/// Ends a test where the kernel has too old a Landlock: that the tool says so is another test's.
macro_rules! need {
    ($abi:literal) => {
        if abi() < $abi {
            skip!("this kernel's Landlock has ABI {}", abi());
        }
    };
}

/// A directory where no other mount lies over or under it.
fn project(who: Who) -> Scratch {
    who.scratch_in("/var/tmp")
}

/// `srt-seccomp OPTIONS -- sh -c SCRIPT sh WORK`, with WORK as the working directory.
fn shell(who: Who, work: &Path, options: &[&str], script: &str) -> Command {
    let mut command = who.command("srt-seccomp");
    command.args(options).args(["--", "sh", "-c", &format!("cd \"$1\" && {{ {script}\n}}"), "sh"]).arg(work);
    command
}

/// The same where everything is mounted read-only but WORK, /dev and /proc.
fn in_tree(who: Who, work: &Path, options: &[&str], script: &str) -> Command {
    let path = work.to_str().expect("UTF-8");
    let mounts = format!("mount --bind '{path}' '{path}'\nmount -o remount,bind,ro /");
    with_mounts(&mounts, &shell(who, work, options, script))
}

/// srt-seccomp on a kernel that says that its Landlock has this ABI.
fn of_abi(who: Who, abi: i32) -> Command {
    let mut command = who.command("strace");
    command.args(["--quiet=all", "--signal=none", "--output=/dev/null", "--trace=landlock_create_ruleset"]);
    command.args(["-e", &format!("inject=landlock_create_ruleset:retval={abi}:when=1")]);
    command.arg(tool("srt-seccomp"));
    command
}

/// By python, which tells errno: the statement ends, or its exception is printed.
fn python(statement: &str) -> String {
    python_each(&[statement])
}

/// The same of one statement after the other in one interpreter, whose start costs more than most of them: a line each.
fn python_each(statements: &[impl AsRef<str>]) -> String {
    let tries = statements.iter().map(|statement| {
        let statement = statement.as_ref();
        format!("try:\n  {statement}\nexcept OSError as e: print(e.errno, flush=True)\nelse: print(0, flush=True)\n")
    });
    let tries = tries.collect::<String>();
    let used = |name: &&str| tries.contains(&format!("{name}."));
    let modules = ["os", "socket", "fcntl", "resource"].into_iter().filter(used);
    let imports = modules.map(|name| format!("import {name}\n")).collect::<String>();
    format!("python3 -I -S -c '{imports}{tries}'")
}

#[track_caller]
fn answers(ran: &Ran, errno: i32) {
    ran.ok().says(&errno.to_string());
}

/// The answers to [`python_each`].
#[track_caller]
fn answers_each(ran: &Ran, attacks: &[String], errnos: &[i32]) {
    let answers: Vec<_> = ran.ok().out.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(
        attacks.iter().zip(&answers).collect::<Vec<_>>(),
        attacks.iter().zip(errnos).collect::<Vec<_>>()
    );
    assert_eq!((answers.len(), attacks.len()), (errnos.len(), errnos.len()), "{ran:#?}");
}

both! {
    fn a_fifo_on_a_read_only_mount_cannot_be_written(who) {
        need!(5);
        let (work, outside) = (project(who), project(who));
        let fifo = outside.join("fifo");
        run(who.command("mkfifo").args(["-m", "666"]).arg(&fifo)).ok();
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("open");
        let write = python(&format!("os.open(\"{}\", os.O_WRONLY | os.O_NONBLOCK)", fifo.display()));
        answers(&run(&mut in_tree(who, work.path(), &[], &write)), 0);
        answers(&run(&mut in_tree(who, work.path(), &["--landlock"], &write)), libc::EACCES);
        // In the project one works.
        let own = python("os.mkfifo(\"f\"); os.open(\"f\", os.O_RDWR)");
        answers(&run(&mut in_tree(who, work.path(), &["--landlock"], &own)), 0);
    }

    fn the_seventeenth_layer_is_refused_with_a_hint(who) {
        need!(5);
        let nested = |count: usize| {
            let words = ["srt-seccomp", "--read", "/", "--"].repeat(count);
            run(who.command(words[0]).args(&words[1..]).args(["echo", "ran"]))
        };
        nested(16).ok().says("ran");
        let error = "landlock_restrict_self: Argument list too long";
        nested(17).code(125).says("").hints("srt-seccomp", error, "at most 16 layers");
    }

    fn what_stdin_is_open_on_cannot_be_opened_again_for_more(who) {
        need!(5);
        let (work, outside) = (project(who), project(who));
        let file = outside.file("input", "input\n");
        let reopen = |flags: &str| python(&format!("os.open(\"/proc/self/fd/0\", os.{flags})"));
        let with_input = |mut command: Command| {
            // The test's descriptor is of the mount outside, which is writable.
            run(command.stdin(File::open(&file).expect("open")))
        };
        for flags in ["O_WRONLY", "O_RDWR", "O_WRONLY | os.O_TRUNC"] {
            let control = with_input(in_tree(who, work.path(), &[], &reopen(flags)));
            answers(&control, 0);
            fs::write(&file, "input\n").expect("write");
            answers(&with_input(in_tree(who, work.path(), &["--landlock"], &reopen(flags))), libc::EACCES);
            let path = work.path().to_str().expect("UTF-8");
            let by_path = ["--read", "/usr", "--read", "/etc", "--read", "/proc", "--write", path];
            answers(&with_input(shell(who, work.path(), &by_path, &reopen(flags))), libc::EACCES);
            assert_eq!(fs::read_to_string(&file).expect("read"), "input\n");
        }
        with_input(in_tree(who, work.path(), &["--landlock"], "cat /dev/stdin")).ok().says("input");
        // What is open for writing may be, again.
        let log = outside.file("log", "");
        let mut command = in_tree(who, work.path(), &["--landlock"], "echo one >/proc/self/fd/0; cat <&0");
        let both = OpenOptions::new().read(true).write(true).open(&log).expect("open");
        run(command.stdin(both)).ok().says("one");
    }

    fn a_file_without_a_name_is_not_written_through_a_descriptor(who) {
        need!(5);
        let (work, name) = (project(who), "before, and more of it\n");
        let attack = "chmod u+w /proc/self/fd/0; echo after >/proc/self/fd/0";
        // A shell's here-document is such a file, and the caller may go on to read it.
        for options in [&[][..], &["--landlock"], &["--read", "/", "--write", work.text()]] {
            let path = work.file("document", name);
            let (mut file, document) = (File::open(&path).expect("open"), path);
            fs::remove_file(document).expect("unlink");
            let ran = run(shell(who, work.path(), options, attack).stdin(file.try_clone().expect("dup")));
            let mut left = String::new();
            file.read_to_string(&mut left).expect("read");
            assert_eq!(left == name, !options.is_empty(), "{options:?} {left} {ran:#?}");
            if !options.is_empty() {
                ran.code(125).hints("srt-seccomp", "descriptor 0: PROGRAM could reopen it for writing, ", "give it by a pipe");
            }
        }
        // Where what it lay in cannot be written, nothing is lost.
        let other = project(who);
        let file = File::open(other.file("document", name)).expect("open");
        fs::remove_file(other.join("document")).expect("unlink");
        let script = format!("{attack}\ncat");
        let ran = run(shell(who, work.path(), &["--read", "/", "--write", work.text()], &script).stdin(file));
        ran.ok().says(name.trim_end());
    }

    fn a_file_of_no_mode_is_not_written_through_a_descriptor(who) {
        need!(5);
        let work = project(who);
        for mode in [0o000, 0o200, 0o400] {
            let file = work.file("d/file", "before");
            let open = File::open(&file).expect("open");
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("chmod");
            let (all, directory) = (work.text(), work.join("d"));
            for landlock in [&[][..], &["--landlock"]] {
                let mut command = who.command("srt-ns");
                command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", all, all, "--ro-bind"]);
                command.args([&directory, &directory]).args(["--", "srt-seccomp"]).args(landlock);
                command.args(["--", "sh", "-c", "chmod u+rw /proc/self/fd/0; echo after >/proc/self/fd/0"]);
                let ran = run(command.stdin(open.try_clone().expect("dup")));
                if landlock.is_empty() { ran.ok(); } else { ran.code(125).hints("srt-seccomp", "descriptor 0: PROGRAM could reopen it for writing", "give it by a pipe"); }
                let left = fs::read_to_string(&file).expect("read");
                assert_eq!(left, if landlock.is_empty() { "after\n" } else { "before" }, "{mode:o} {landlock:?}");
                fs::write(&file, "before").expect("write");
                fs::set_permissions(&file, Permissions::from_mode(mode)).expect("chmod");
            }
            fs::remove_file(file).expect("unlink");
        }
    }

    fn a_sealed_memfd_is_read(who) {
        need!(5);
        let work = project(who);
        let start = "import fcntl, os, subprocess, sys
fd = os.memfd_create('memory', os.MFD_ALLOW_SEALING)
os.write(fd, b'sealed')
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, int(sys.argv[1]))
sys.exit(subprocess.run(sys.argv[2:], stdin=os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)).returncode)";
        // F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE; or without one of them.
        for (seal, code) in [("14", 0), ("15", 0), ("0", 125), ("8", 125), ("12", 125), ("10", 125), ("6", 125)] {
            let mut command = who.command("/usr/bin/python3");
            command.args(["-c", start, seal]).arg(tool("srt-seccomp")).args(["--read", "/", "--write", work.text(), "--", "cat"]);
            let ran = run(&mut command);
            ran.code(code).says(if code == 0 { "sealed" } else { "" });
        }
    }

    fn a_block_device_that_is_open_for_reading_is_not_written(who) {
        need!(5);
        if who == Who::User {
            return; // It has none.
        }
        let work = project(who);
        let image = work.file("image", "before");
        File::options().write(true).open(&image).expect("open").set_len(1 << 20).expect("truncate");
        let attached = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        if attached.code != Some(0) {
            skip!("no loop device");
        }
        let device = attached.out.trim().to_owned();
        let tried = [&["--landlock"][..], &[]].map(|landlock| {
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "srt-seccomp"]).args(landlock);
            command.args(["--", "sh", "-c", "echo after >/proc/self/fd/0"]).stdin(File::open(&device).expect("open"));
            let ran = run(&mut command);
            (ran.code, run(Command::new("head").args(["-c", "5"]).arg(&device)).out.clone())
        });
        run(Command::new("losetup").arg("--detach").arg(&device)).ok();
        assert_eq!(tried, [(Some(125), "befor".to_owned()), (Some(0), "after".to_owned())]);
    }

    fn what_is_below_a_path_that_may_be_written_cannot_be_for_reading_alone(who) {
        need!(5);
        let work = project(who);
        let (below, link) = (work.dir("p/below"), work.join("link"));
        std::os::unix::fs::symlink(&below, &link).expect("link");
        let (all, above, below, link) = (work.text(), work.join("p"), below.display().to_string(), link.display().to_string());
        let above = above.display().to_string();
        for options in [["--write", &above, "--read", &below], ["--read", &below, "--write", &above], ["--write", &above, "--read", &link]] {
            let ran = run(&mut shell(who, work.path(), &[&["--read", "/"], &options[..]].concat(), "true"));
            ran.code(125).hints("srt-seccomp", "it is below a --write, so it can be written", "srt-mount --ro-bind");
        }
        for options in [["--read", all, "--write", &above], ["--read", &above, "--write", &above]] {
            run(&mut shell(who, work.path(), &[&["--read", "/"], &options[..]].concat(), ": >p/below/file")).ok();
        }
        // Of a directory that has two paths the one is below the other, as for Landlock.
        let alias = work.dir("alias").display().to_string();
        let below_alias = format!("{alias}/below");
        let mounts = format!("mount --bind {above} {alias}");
        let run_with = |options: &[&str]| run(&mut with_mounts(&mounts, &shell(who, work.path(), &[&["--read", "/"], options].concat(), ": >p/below/file")));
        for [write, read] in [[&*above, &*below_alias], [&alias, &below], [&alias, &link], [&alias, &above], [&above, &alias]] {
            run_with(&["--write", write, "--read", read]).code(125).hints("srt-seccomp", "it is below a --write, so it can be written", "srt-mount --ro-bind");
        }
        for options in [&["--write", &alias][..], &["--write", &below_alias, "--read", &above]] {
            run_with(options).ok();
        }
        // Where the mount is read-only, reading is all that its path gives.
        let mounts = format!("{mounts} && mount -o remount,bind,ro {alias}");
        let script = format!("(: >{below_alias}/file) || : >p/below/file && echo written");
        let command = shell(who, work.path(), &["--read", "/", "--write", &above, "--read", &alias], &script);
        run(&mut with_mounts(&mounts, &command)).ok().says("written");
    }

    fn what_stdout_and_stderr_are_open_on_can_be_opened_again(who) {
        need!(5);
        let (work, outside) = (project(who), project(who));
        let by_path = ["--read", "/usr", "--read", "/etc", "--read", "/proc", "--write", work.text()];
        for number in [1, 2] {
            let script = format!("echo again >>/proc/self/fd/{number}");
            for mut command in [in_tree(who, work.path(), &["--landlock"], &script), shell(who, work.path(), &by_path, &script)] {
                let log = outside.file("log", "once\n");
                let file = OpenOptions::new().append(true).open(&log).expect("open");
                pass_fd(&mut command, file.as_raw_fd(), number);
                run(&mut command).ok();
                assert_eq!(fs::read_to_string(&log).expect("read"), "once\nagain\n", "{number}");
            }
        }
    }

    fn a_file_that_is_read_only_or_hidden_is_not_written_through_a_descriptor(who) {
        need!(5);
        let work = project(who);
        let file = work.file("d/config", "before\n");
        let (name, directory) = (file.to_str().expect("UTF-8"), work.join("d"));
        let directory = directory.to_str().expect("UTF-8");
        let other = work.file("other", "");
        let other = other.to_str().expect("UTF-8");
        let script = "echo more >>/proc/self/fd/0";
        #[derive(PartialEq, Debug)]
        enum Is { Written, Denied, Refused }
        let (all, below) = (work.text(), ["--ro-bind", directory, "/mnt/d"]);
        let elsewhere = ["--tmpfs", all, "--bind", all, "/mnt"];
        for (options, expected) in [
            (vec![], Is::Written),
            (vec!["--ro-bind", directory, directory], Is::Refused),
            (vec!["--ro-bind", name, name], Is::Refused),
            (vec!["--mask", name], Is::Refused),
            (vec!["--bind", other, name], Is::Refused),
            // A directory of the sandbox's own in its place.
            (vec!["--tmpfs", all], Is::Denied),
            (vec!["--ro-bind", all, all], Is::Denied),
            // By another name.
            (vec!["--bind", all, "/mnt"], Is::Written),
            (vec!["--ro-bind", all, all, "--bind", all, "/mnt"], Is::Written),
            (vec!["--ro-bind", all, all, "--bind", name, other], Is::Written),
            (vec!["--ro-bind", all, all, "--bind", all, "/mnt", "--mask", "/mnt/d"], Is::Refused),
            (elsewhere.to_vec(), Is::Written),
            ([&elsewhere[..], &below].concat(), Is::Refused),
        ] {
            for landlock in [&[][..], &["--landlock"]] {
                fs::write(&file, "before\n").expect("write");
                let mut command = who.command("srt-ns");
                command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", all, all]);
                command.args(&options).args(["--", "srt-seccomp"]).args(landlock).args(["--", "sh", "-c", script]);
                let ran = run(command.stdin(File::open(&file).expect("open")));
                let written = fs::read_to_string(&file).expect("read") != "before\n";
                // Control: without Landlock all are.
                let expected = if landlock.is_empty() { &Is::Written } else { &expected };
                assert_eq!(written, *expected == Is::Written, "{options:?} {landlock:?} {ran:#?}");
                if *expected == Is::Refused {
                    ran.code(125).hints("srt-seccomp", "descriptor 0: PROGRAM could reopen it for writing, ", "give it by a pipe");
                } else {
                    assert_ne!(ran.code, Some(125), "{options:?} {landlock:?} {ran:#?}");
                }
            }
        }
        // The question that Landlock is asked leaves no child to PROGRAM.
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", all, all, "--tmpfs", all]);
        // 0x40000000: __WALL.
        let wait = "import os\ntry: print(os.waitid(os.P_ALL, 0, os.WEXITED | 0x40000000))\nexcept ChildProcessError: print('nobody')";
        command.args(["--", "srt-seccomp", "--landlock", "--", "/usr/bin/python3", "-c", wait]).stdin(File::open(&file).expect("open"));
        run(&mut command).ok().says("nobody");
        // Whoever is asked and cannot tell has not said no.
        if has("strace") {
            let mounts = format!("mount --bind {all} {all}; mount --bind {directory} {directory}
                for d in {directory} /; do mount -o remount,bind,ro $d; done");
            let log = work.file("log", "");
            let outside = project(who);
            let elsewhere = outside.file("elsewhere", "");
            let start = |inject: &[&str]| {
                let mut strace = who.command("strace");
                strace.args(["-f", "--quiet=all", "--trace=write"]).args(inject).arg("--output").arg(&log);
                strace.arg(tool("srt-seccomp")).args(["--landlock", "--", "true"]);
                run(with_mounts(&mounts, &strace).stdin(File::open(&elsewhere).expect("open")))
            };
            start(&[]).ok();
            let ran = start(&["-e", "inject=write:error=EIO:when=1"]);
            // What it writes to say so is the parent's first write.
            ran.code(125).says("");
            let log = fs::read_to_string(log).expect("the log");
            assert!(log.lines().any(|line| line.contains(", 1) ") && line.contains("(INJECTED)")), "the answer: {log}");
        }
        // Nor by a descriptor that is open for nothing.
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&file).expect("O_PATH");
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "208", "--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc", "--bind", all, all, "--ro-bind", directory, directory]);
        command.args(["--keep-fd", "208", "--", "srt-seccomp", "--keep-fd", "208", "--landlock", "--", "true"]);
        pass_fd(&mut command, path.as_raw_fd(), 208);
        run(&mut command).code(125).one_clear_error("srt-seccomp").complains("descriptor 208: PROGRAM could reopen it for writing");
        // Its owner may change the mode; nobody else.
        fs::set_permissions(&file, Permissions::from_mode(0o444)).expect("chmod");
        let start = || {
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", all, all, "--ro-bind", directory, directory]);
            command.args(["--", "srt-seccomp", "--landlock", "--", "cat"]).stdin(File::open(&file).expect("open"));
            run(&mut command)
        };
        start().code(125);
        std::os::unix::fs::chown(&file, Some(4321), None).expect("chown");
        start().ok().says("before");
    }

    fn the_question_that_landlock_is_asked_leaves_the_program_no_signal_and_no_child(who) {
        need!(5);
        let (work, other) = (project(who), project(who));
        let file = other.file("file", "");
        let start = "import os, signal, sys
caller, *words = sys.argv[1:]
if caller == 'ignores': signal.signal(signal.SIGCHLD, signal.SIG_IGN)
else: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
if caller == 'has': os.kill(os.getpid(), signal.SIGCHLD)
os.execvp(words[0], words)";
        let tell = "import os, signal
print(signal.SIGCHLD in signal.sigpending())
try: print(os.waitid(os.P_ALL, 0, os.WEXITED | 0x40000000))
except ChildProcessError: print('nobody')";
        // A signal that is pending before stays pending.
        for (caller, pending) in [("blocks", "False"), ("has", "True"), ("ignores", "False")] {
            let mut command = who.command("/usr/bin/python3");
            command.args(["-c", start, caller]).arg(tool("srt-seccomp")).args(["--read", "/", "--write", work.text()]);
            command.args(["--", "/usr/bin/python3", "-c", tell]).stdin(File::open(&file).expect("open"));
            run(&mut command).ok().says(&format!("{pending}\nnobody"));
        }
    }

    fn a_file_whose_path_no_procfs_tells_is_not_written_through_a_descriptor(who) {
        need!(5);
        let (work, other) = (project(who), project(who));
        let file = work.file("d/file", "before\n");
        let (all, directory) = (work.text(), work.join("d"));
        let elsewhere = other.file("file", "elsewhere");
        // A link that stands where a procfs would have one, to a file that may not be written.
        let planted = ["--dir", "/proc/self/fd", "--symlink", elsewhere.to_str().expect("UTF-8"), "/proc/self/fd/0"];
        let inside = |tree: &[&str], options: &[&str], input: Stdio, script: &str| {
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/proc", "--proc", "/mnt"]).args(tree);
            command.args(["--bind", all, all, "--ro-bind"]).args([&directory, &directory]).args(["--", "srt-seccomp"]);
            run(command.args(options).args(["--", "sh", "-c", script]).stdin(input))
        };
        let open = || Stdio::from(File::open(&file).expect("open"));
        for tree in [&[][..], &planted] {
            for options in [&[][..], &["--read", "/", "--write", all]] {
                let ran = inside(tree, options, open(), "echo after >/mnt/self/fd/0");
                let left = fs::read_to_string(&file).expect("read");
                // Control: without Landlock it is written.
                assert_eq!(left == "before\n", !options.is_empty(), "{tree:?} {options:?} {ran:#?}");
                if !options.is_empty() {
                    ran.code(125).hints("srt-seccomp", "descriptor 0: PROGRAM could reopen it for writing, ", "give it by a pipe");
                }
                fs::write(&file, "before\n").expect("write");
            }
            // Where nothing, or that file itself, may be written, and of what is no file, nothing is asked.
            inside(tree, &["--read", "/"], open(), "cat").ok().says("before");
            let own = File::open(work.file("own", "own")).expect("open");
            inside(tree, &["--read", "/", "--write", work.join("own").to_str().expect("UTF-8")], own.into(), "cat").ok().says("own");
            let (reader, writer) = std::io::pipe().expect("pipe");
            drop(writer);
            for input in [Stdio::null(), reader.into()] {
                inside(tree, &["--read", "/", "--write", all], input, "cat && echo empty").ok().says("empty");
            }
        }
    }

    fn what_may_be_written_is_known_though_the_way_to_it_cannot_be_searched(who) {
        need!(5);
        let (work, other) = (project(Who::User), who.scratch());
        let file = other.file("f", "read");
        fs::set_permissions(work.path(), Permissions::from_mode(0o700)).expect("chmod");
        work.dir("sub");
        let sub = work.join("sub");
        let inside = |given: &Path| {
            let mut command = who.command("srt-seccomp");
            command.args(["--read", "/", "--write"]).arg(&sub).args(["--", "cat"]);
            run(command.stdin(File::open(given).expect("open")))
        };
        inside(&file).ok().says("read");
        // Nor is what it holds refused: it may be written by its name.
        let hidden = work.file("sub/f", "written");
        fs::set_permissions(&hidden, Permissions::from_mode(0o666)).expect("chmod");
        if who == Who::User {
            inside(&hidden).ok().says("written");
        }
    }

    fn a_descriptor_gives_what_it_is_open_for_and_a_directory_nothing(who) {
        need!(5);
        let (work, outside) = (project(who), project(who));
        outside.file("secret", "secret");
        let log = outside.file("log", "log");
        let keep = ["--keep-fd", "208", "--keep-fd", "209", "--keep-fd", "210"];
        let by_path = ["--read", "/usr", "--read", "/etc", "--read", "/proc", "--write", work.text()];
        for (options, errno) in [(keep.to_vec(), 0), ([&keep[..], &by_path].concat(), libc::EACCES)] {
            let attacks = [
                "os.open(\"/proc/self/fd/208\", os.O_RDONLY)",
                "os.open(\"/proc/self/fd/208\", os.O_WRONLY)",
                "os.open(\"secret\", os.O_RDONLY, dir_fd=209)",
                "os.open(\"/proc/self/fd/210\", os.O_RDONLY)",
            ];
            let attacks = attacks.map(str::to_owned);
            let mut command = shell(who, work.path(), &options, &python_each(&attacks));
            let (writer, directory) = (OpenOptions::new().write(true).open(&log).expect("open"), File::open(outside.path()).expect("open"));
            pass_fd(&mut command, writer.as_raw_fd(), 208);
            pass_fd(&mut command, directory.as_raw_fd(), 209);
            // For nothing at all: O_PATH.
            let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&log).expect("O_PATH");
            pass_fd(&mut command, path.as_raw_fd(), 210);
            answers_each(&run(&mut command), &attacks, &[errno, 0, errno, errno]);
        }
    }

    fn a_terminal_that_is_open_for_both_is_one_when_it_is_opened_again(who) {
        need!(5);
        let work = project(who);
        for (how, expected) in [("0<>", 0), ("0<", 1)] {
            let mut command = who.command("sh");
            command.args(["-c", &format!("srt-seccomp --read / -- stty -F /proc/self/fd/0 {how}\"$(tty)\" >/dev/null 2>&1")]);
            let (code, said) = Talk::on_terminal(who, command.current_dir(work.path())).end();
            assert_eq!(code, expected, "{how}: {said}");
        }
    }

    fn what_stands_in_a_usual_devices_place_gives_nothing(who) {
        need!(5);
        let (work, outside) = (project(who), project(who));
        let node = outside.file("node", "");
        outside.file("null/secret", "secret");
        let node = node.display();
        let mounts = format!(
            "mount --bind /dev/full {node}; mount -t tmpfs tmpfs /dev; ln -s {node} /dev/zero; echo secret >/dev/full
             mkdir /dev/null; echo secret >/dev/null/secret; chmod 644 /dev/full"
        );
        // A link, a directory and a file; and the device itself, where one may write.
        let attacks = [
            format!("os.open(\"{node}\", os.O_WRONLY)"),
            "os.open(\"/dev/null/secret\", os.O_RDONLY)".into(),
            "os.open(\"/dev/full\", os.O_RDONLY)".into(),
        ];
        for (options, errno) in [(&[][..], 0), (&["--read", "/usr", "--read", "/etc", "--read", "/lib", "--read", "/lib64", "--write", work.text()], libc::EACCES)] {
            let mut command = with_mounts(&mounts, &shell(who, work.path(), options, &python_each(&attacks)));
            answers_each(&run(&mut command), &attacks, &[errno; 3]);
        }
    }

    fn the_project_and_dev_null_are_written_and_the_rest_is_read(who) {
        need!(5);
        let work = project(who);
        let script = "mkdir -p a/b && echo x >a/b/f && ln -s f a/b/l && cp a/b/f g && chmod 600 g && : >g && rm -r a g
            echo x >/dev/null && head -c 1 /dev/urandom >/dev/null && cat /etc/passwd >/dev/null && ls /usr >/dev/null
            echo 5 >/proc/self/oom_score_adj && cat /proc/self/oom_score_adj && test \"$(ls)\" = ''";
        let ran = run(&mut in_tree(who, work.path(), &["--landlock"], script));
        ran.ok().says("5");
        run(&mut in_tree(who, work.path(), &["--landlock"], "echo x >../y")).code(2);
    }

    fn a_usual_device_is_written_where_its_node_is_mounted_read_only(who) {
        need!(5);
        let work = project(who);
        // As srt-mount's --dev does for root of the host.
        let mounts = "mount --bind /dev/null /dev/null
            for path in /dev/null /dev /; do mount -o remount,bind,ro $path; done";
        let script = "for node in null zero full random urandom; do : <>/dev/$node || exit; done
            echo x >/dev/null && head -c 1 /dev/urandom >/dev/null && ! echo x >/dev/srt-new 2>/dev/null";
        for options in [&[][..], &["--landlock"]] {
            run(&mut with_mounts(mounts, &shell(who, work.path(), options, script))).ok();
            // tty(4): it is there for a session without a terminal, and says ENXIO.
            let tty = python("os.open(\"/dev/tty\", os.O_RDWR)");
            let command = shell(who, work.path(), options, &format!("setsid --wait {tty}"));
            answers(&run(&mut with_mounts(mounts, &command)), libc::ENXIO);
        }
    }

    fn a_rename_between_two_directories_of_the_project_works_and_one_out_of_it_does_not(who) {
        need!(5);
        let (work, other) = (project(who), project(who));
        let (path, out) = (work.text(), other.text());
        let inside = "mkdir a b && echo x >a/f && mv a/f b/f && ln b/f a/g && mv b a/c && cat a/c/f && rm -r a";
        for options in [&["--landlock"][..], &["--read", "/", "--write", path]] {
            run(&mut in_tree(who, work.path(), options, inside)).ok().says("x");
            run(&mut shell(who, work.path(), options, inside)).ok().says("x");
        }
        for verb in ["rename", "link"] {
            let _none = fs::remove_file(other.join("f"));
            let attack = python(&format!("open(\"f\", \"w\"); os.{verb}(\"f\", \"{out}/f\")"));
            answers(&run(&mut shell(who, work.path(), &[], &attack)), 0);
            fs::remove_file(other.join("f")).expect("control");
            let ran = run(&mut shell(who, work.path(), &["--read", "/", "--write", path], &attack));
            assert!(["13", "18"].contains(&ran.ok().out.trim()), "EACCES or EXDEV: {ran:#?}");
            assert!(!other.join("f").exists());
        }
    }

    fn paths_give_what_they_name_and_no_more(who) {
        need!(5);
        let work = project(who);
        let (read, write, none) = (work.dir("read"), work.dir("write"), work.dir("none"));
        for dir in [&read, &write, &none] {
            let name = dir.file_name().expect("a name").to_str().expect("UTF-8");
            work.file(format!("{name}/f"), "text");
            work.dir(format!("{name}/empty"));
            run(who.command("cp").arg("/bin/true").arg(dir.join("true"))).ok();
        }
        let [read, write] = [read, write].map(|path| path.to_str().expect("UTF-8").to_owned());
        let options = ["--allow", "unix", "--read", "/usr", "--read", "/etc", "--read", &read, "--write", &write];
        let attacks = [
            ("open(\"DIR/f\")", 0, 0, libc::EACCES),
            ("os.listdir(\"DIR\")", 0, 0, libc::EACCES),
            ("os.waitpid(os.posix_spawn(\"DIR/true\", [\"true\"], {}), 0)", 0, 0, libc::EACCES),
            ("open(\"DIR/f\", \"a\")", libc::EACCES, 0, libc::EACCES),
            ("os.truncate(\"DIR/f\", 0)", libc::EACCES, 0, libc::EACCES),
            ("os.mkdir(\"DIR/d\")", libc::EACCES, 0, libc::EACCES),
            ("os.mkfifo(\"DIR/p\")", libc::EACCES, 0, libc::EACCES),
            ("os.symlink(\"x\", \"DIR/s\")", libc::EACCES, 0, libc::EACCES),
            ("os.unlink(\"DIR/f\")", libc::EACCES, 0, libc::EACCES),
            ("os.rmdir(\"DIR/empty\")", libc::EACCES, 0, libc::EACCES),
            ("os.mknod(\"DIR/n\")", libc::EACCES, 0, libc::EACCES),
            ("socket.socket(socket.AF_UNIX).bind(\"DIR/socket\")", libc::EACCES, 0, libc::EACCES),
        ];
        let each = attacks.iter().flat_map(|&(attack, of_read, of_write, of_none)| {
            [("read", of_read), ("write", of_write), ("none", of_none)].map(|(dir, errno)| (attack.replace("DIR", dir), errno))
        });
        let (attacks, errnos): (Vec<_>, Vec<_>) = each.unzip();
        answers_each(&run(&mut shell(who, work.path(), &options, &python_each(&attacks))), &attacks, &errnos);
        // And without Landlock it works, if it has not been done.
        let refused: Vec<_> = attacks.into_iter().zip(errnos).filter(|(_, errno)| *errno != 0).map(|(attack, _)| attack).collect();
        answers_each(&run(&mut shell(who, work.path(), &["--allow", "unix"], &python_each(&refused))), &refused, &vec![0; refused.len()]);
        // A path may be a file.
        let file = work.file("none/one", "x");
        let file = file.to_str().expect("UTF-8");
        let to_one = ["--read", "/", "--write", file];
        run(&mut shell(who, work.path(), &to_one, "echo y >none/one; cat none/one")).ok().says("y");
        run(&mut shell(who, work.path(), &to_one, "echo y >none/two")).code(2);
        // Which can be read, and run.
        let program = work.join("none/true");
        let options = ["--read", "/usr", "--read", "/etc", "--read", file, "--read", program.to_str().expect("UTF-8")];
        run(&mut shell(who, work.path(), &options, "cat none/one && none/true")).ok().says("y");
    }

    fn what_may_only_be_read_is_not_changed_by_an_ioctl(who) {
        need!(5);
        // BTRFS_IOC_SUBVOL_CREATE, BTRFS_IOC_SUBVOL_CREATE_V2, BTRFS_IOC_SUBVOL_SETFLAGS (read-only, and as it was).
        let make = "fcntl.ioctl(os.open(\".\", os.O_RDONLY), 0x5000940e, bytearray(8) + b\"made\".ljust(4088, bytes(1)))";
        let make_v2 = "fcntl.ioctl(os.open(\".\", os.O_RDONLY), 0x50009418, bytearray(56) + b\"made-v2\".ljust(4040, bytes(1)))";
        let flags = |flags: u8| format!("fcntl.ioctl(os.open(\".\", os.O_RDONLY), 0x4008941a, bytes([{flags}]) + bytes(7))");
        let on_btrfs = [make.to_owned(), make_v2.to_owned(), flags(2), flags(0)];
        // FS_IOC_SET_ENCRYPTION_POLICY, version 0, AES-256 in XTS and CTS.
        let encrypt = "fcntl.ioctl(os.open(\".\", os.O_RDONLY), 0x800c6613, bytes([0, 1, 4, 0]) + b\"somebody\")";
        let kinds: [(&[&str], &[String]); 2] = [
            (&["mkfs.btrfs", "--quiet"], &on_btrfs),
            (&["mkfs.ext4", "-q", "-F", "-O", "encrypt"], &[encrypt.to_owned()]),
        ];
        for (mkfs, attacks) in kinds {
            if !has(mkfs[0]) {
                skip!("no {}", mkfs[0]);
            }
            let scratch = project(who);
            let Some(mounted) = LoopMount::new(&scratch, 120, mkfs, "loop") else {
                skip!("no file system of {} can be mounted here", mkfs[0]);
            };
            let own = |path: &Path| std::os::unix::fs::chown(path, Some(who.uid()), Some(who.uid())).expect("chown");
            own(mounted.path());
            let work = mounted.path().join("work");
            let new = if mkfs[0] == "mkfs.btrfs" { "btrfs subvolume create \"$1\"" } else { "mkdir \"$1\"" };
            run(Who::Root.command("sh").args(["-c", new, "sh"]).arg(&work)).ok();
            own(&work);
            let under = |options: &[&str]| run(&mut shell(who, &work, options, &python_each(attacks)));
            let is_empty = || fs::read_dir(&work).expect("ls").next().is_none();
            answers_each(&under(&["--read", "/"]), attacks, &[libc::EPERM; 4][..attacks.len()]);
            assert!(is_empty(), "{}", mkfs[0]);
            // The control. What is mounted read-only is not changed either.
            answers_each(&under(&["--landlock"]), attacks, &[0; 4][..attacks.len()]);
            assert_eq!(is_empty(), mkfs[0] != "mkfs.btrfs");
        }
    }

    fn mounts_of_every_name_and_kind_have_the_rights_that_they_have(who) {
        need!(5);
        let work = project(who);
        let path = work.text().to_owned();
        let names = [" a  b ", "tab\t", "back\\slash", "\\040", "line\nfeed", "#hash", "é\u{7f}"];
        for name in names {
            work.dir(format!("m/{name}"));
        }
        work.file("one", "x");
        work.file("two", "x");
        work.dir("hidden");
        work.dir("under");
        work.dir("ro");
        let script = format!(
            "cd '{path}'
            mount --bind one one
            for d in m/* ; do mount -t tmpfs -o mode=777 t \"$d\"; done
            # A writable mount below a read-only one, and one that another hides.
            mount --bind under under
            mount -t tmpfs -o mode=777 t hidden
            mount --bind ro hidden
            mount -o remount,bind,ro '{path}/hidden'
            mount -o remount,bind,ro /"
        );
        let attempt = "for f in m/*/ one two under/ hidden/; do
            [ -d \"$f\" ] && f=${f}f; { echo x >\"$f\"; } 2>/dev/null && printf y || printf n; done";
        for options in [&[][..], &["--landlock"]] {
            let ran = run(&mut with_mounts(&script, &shell(who, work.path(), options, attempt)));
            ran.ok().says(&format!("{}ynyn", "y".repeat(names.len())));
        }
        // A FIFO tells them apart where the mount's own word is not enough.
        let fifos = "cd '{path}'; for d in . under hidden ro; do mkfifo -m 666 $d/p; done".replace("{path}", &path);
        let fifos = format!("{fifos}\n{}\nmkfifo -m 666 hidden/p 2>/dev/null || :", script);
        let attempt = python("[os.open(p, os.O_RDWR) for p in (\"under/p\", \"PATH\")]");
        for (path, expected) in [("under/p", 0), ("p", libc::EACCES), ("hidden/p", libc::EACCES)] {
            for options in [&[][..], &["--landlock"]] {
                for dir in ["", "under/", "hidden/", "ro/"] {
                    let _none = fs::remove_file(work.join(format!("{dir}p")));
                }
                let command = shell(who, work.path(), options, &attempt.replace("PATH", path));
                let expected = if options.is_empty() { 0 } else { expected };
                answers(&run(&mut with_mounts(&fifos, &command)), expected);
            }
        }
    }

    fn a_root_that_is_no_mount_point_has_the_rights_of_its_mount(who) {
        need!(5);
        let root = project(who);
        run(who.command("mkfifo").arg(root.join("fifo"))).ok();
        let mounts = format!(
            "for d in usr bin lib lib64 etc proc dev tmp; do
                if [ -e /$d ]; then mkdir -p {0}/$d; mount --rbind /$d {0}/$d; mount --make-rprivate {0}/$d; fi; done
            mount -o remount,bind,MODE /; set -- chroot {0} \"$@\"", root.text());
        let attempt = python("os.open(\"fifo\", os.O_RDWR)");
        for (mode, errno) in [("rw", 0), ("ro", libc::EACCES)] {
            for options in [&[][..], &["--landlock"]] {
                let command = shell(who, Path::new("/"), options, &attempt);
                let ran = run(&mut with_mounts(&mounts.replace("MODE", mode), &command));
                answers(&ran, if options.is_empty() { 0 } else { errno });
            }
        }
    }

    fn a_mount_that_this_user_does_not_reach_is_passed_over(who) {
        need!(5);
        let work = project(who);
        let mounts = format!("cd '{}' && mkdir -m 700 closed && mkdir closed/m && mount -t tmpfs none closed/m && mount -o remount,bind,ro /", work.text());
        run(&mut with_mounts(&mounts, &shell(who, work.path(), &["--landlock"], "echo ran"))).ok().says("ran");
    }

    fn a_thousand_mounts_are_read(who) {
        need!(5);
        let work = project(who);
        let path = work.text();
        for n in 0..1000 {
            work.dir(format!("m/{n}"));
        }
        let script = format!(
            "cd '{path}/m'
            # In one process: a thousand of mount(8) would take longer than the test.
            python3 -c 'import ctypes\nlibc = ctypes.CDLL(None)\nfor n in range(1000):\n  d = b\"%d\" % n\n  assert libc.mount(d, d, None, 4096, None) == 0'
            mount -o remount,bind,ro /"
        ).replace("\\n", "\n");
        let attempt = "for d in m/0 m/500 m/999; do echo x >$d/f && cat $d/f; done; echo x >f";
        let ran = run(&mut with_mounts(&script, &shell(who, work.path(), &["--landlock"], attempt)));
        ran.code(2).says("x\nx\nx");
    }

    fn git_python_and_make_work_in_the_project(who) {
        need!(5);
        for program in ["git", "make", "python3"] {
            if !has(program) {
                skip!("{program} is not installed");
            }
        }
        let work = project(who);
        work.file("Makefile", "test: out\n\t@cat out 2>/dev/null\nout: in.py\n\tpython3 in.py >out\n");
        work.file("in.py", "import tempfile, subprocess, threading, multiprocessing
with tempfile.TemporaryDirectory(dir='.') as d, open(d + '/x', 'w') as f: f.write('x')
t = threading.Thread(target=lambda: subprocess.run(['true'], check=True)); t.start(); t.join()
p = multiprocessing.Process(target=print, args=('child',)); p.start(); p.join()
");
        let script = "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
            make -s -j2 test && git init -q . && git add . && git -c user.name=a -c user.email=a@b commit -qm one &&
            git mv in.py out.py && git -c user.name=a -c user.email=a@b commit -qam two && git log --format=%s && git gc -q && git status --short";
        let path = work.text();
        for (options, tree) in [(&["--landlock"][..], true), (&["--read", "/", "--write", path, "--deny", "net"], false)] {
            let command = if tree { in_tree(who, work.path(), options, script) } else { shell(who, work.path(), options, script) };
            let mut command = command;
            run(&mut command).ok().says("child\ntwo\none");
            run(Who::Root.command("sh").args(["-c", "cd \"$1\" && rm -rf .git out && mv out.py in.py", "sh", path])).ok();
        }
    }

    fn a_useful_sandbox_needs_no_namespace(who) {
        need!(5);
        if !has("make") {
            skip!("make is not installed");
        }
        let (work, other) = (project(who), project(who));
        let outside = other.join("out");
        work.file("Makefile", format!(
            "test:\n\t@echo a >f && cat f /etc/passwd >/dev/null && mktemp -p /tmp >t && rm $$(cat t) && echo done\n\t@! echo x >{} 2>/dev/null\n",
            outside.display()
        ));
        let sandbox = |options: &[&str]| shell(who, work.path(), options, "make -s test");
        let options = ["--read", "/", "--write", work.text(), "--write", "/tmp", "--deny", "net"];
        let refused = run(&mut with_none_of("max_user_namespaces", who.command("unshare").args(["--user", "true"])));
        assert_ne!(refused.code, Some(0), "control: there are no user namespaces");
        run(&mut with_none_of("max_user_namespaces", &sandbox(&options))).ok().says("done");
        assert!(!outside.exists());
        run(&mut sandbox(&[])).code(2).says("done");
        assert!(outside.exists(), "control: without Landlock the file is written");
    }

    fn signals_and_abstract_sockets_end_at_the_sandbox(who) {
        need!(6);
        let work = project(who);
        let mut sleeper = who.command("sleep").arg("100").spawn().expect("sleep");
        let name = format!("srt-landlock-{}-{who:?}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"));
        let attacks = [
            format!("os.kill({}, 0)", sleeper.id()),
            format!("socket.socket(socket.AF_UNIX).connect(\"\\0{name}\")"),
            // The kernel kills who has used more time than its limit.
            format!("resource.prlimit({}, resource.RLIMIT_CPU, (1000, 1000))", sleeper.id()),
        ];
        let own = "os.kill(os.fork() or os._exit(0), 0)".to_owned();
        let limit = "resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))".to_owned();
        let near = format!("a = socket.socket(socket.AF_UNIX); a.bind(\"\\0{name}-in\"); a.listen(); socket.socket(socket.AF_UNIX).connect(\"\\0{name}-in\")");
        for option in [&["--landlock"][..], &["--read", "/"], &["--connect-tcp", "9"]] {
            let under = |options: &[&str], all: &[String]| run(&mut shell(who, work.path(), &[&["--allow", "unix"], options].concat(), &python_each(all)));
            answers_each(&under(&[], &attacks), &attacks, &[0, 0, 0]);
            let all = [&attacks[..], &[own.clone(), near.clone(), limit.clone()]].concat();
            answers_each(&under(option, &all), &all, &[libc::EPERM, libc::EPERM, libc::EPERM, 0, 0, 0]);
        }
        if has("strace") {
            let mut command = of_abi(who, 6);
            command.args(["--allow", "unix", "--read", "/", "--", "sh", "-c", &python_each(&attacks)]);
            answers_each(&run(&mut command), &attacks, &[libc::EPERM; 3]);
        }
        sleeper.kill().expect("kill");
        sleeper.wait().expect("wait");
        drop(listener);
    }

    fn a_terminal_that_is_not_named_is_not_opened(who) {
        need!(5);
        let work = project(who);
        let open = format!("setsid --wait {}", python("os.open(\"/dev/tty\", os.O_RDWR)"));
        // No terminal is there: what Landlock refuses is refused before.
        for (options, expected) in [
            (&[][..], libc::ENXIO),
            (&["--landlock"], libc::ENXIO),
            (&["--read", "/"], libc::EACCES),
            (&["--read", "/", "--write", "/dev/tty"], libc::ENXIO),
        ] {
            answers(&run(&mut shell(who, work.path(), options, &open)), expected);
        }
    }

    fn device_ioctls_are_for_devices_in_dev(who) {
        need!(5);
        let work = project(who);
        // TIOCGPTN of a new terminal.
        let ioctl = python("fcntl.ioctl(os.open(\"/dev/ptmx\", os.O_RDONLY | os.O_NOCTTY), 0x80045430, bytes(4))");
        for (options, expected) in [
            (&[][..], 0),
            (&["--landlock"], 0),
            (&["--read", "/"], libc::EACCES),
            (&["--read", "/", "--read", "/dev"], libc::EACCES),
            (&["--read", "/", "--write", "/dev"], 0),
            (&["--read", "/", "--write", "/dev/ptmx"], 0),
            (&["--write", "/"], 0),
        ] {
            answers(&run(&mut shell(who, work.path(), options, &ioctl)), expected);
        }
        // The same of a device that is elsewhere.
        let pts = work.dir("pts");
        let ioctl = ioctl.replace("/dev/ptmx", &format!("{}/ptmx", pts.display()));
        for (options, expected) in [(&[][..], 0), (&["--read", "/", "--write", work.text()], libc::EACCES)] {
            let mounts = format!("mount -t devpts -o ptmxmode=0666 devpts {}", pts.display());
            answers(&run(&mut with_mounts(&mounts, &shell(who, work.path(), options, &ioctl))), expected);
        }
    }

    fn tcp_connects_to_the_ports_named_and_nothing_else_leaves(who) {
        need!(4);
        let work = project(who);
        let [open, closed] = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").expect("listen"));
        let [port, other] = [&open, &closed].map(|socket| socket.local_addr().expect("address").port());
        let (port, other) = (port.to_string(), other.to_string());
        let options = ["--connect-tcp", &port];
        let allowed = format!("socket.create_connection((\"127.0.0.1\", {port})).send(b\"x\")");
        let refused = format!("socket.create_connection((\"127.0.0.1\", {other})).send(b\"x\")");
        let fast_open = format!("socket.socket().sendto(b\"x\", 0x20000000, (\"127.0.0.1\", {other}))");
        let bind = format!("socket.socket().bind((\"127.0.0.2\", {port}))");
        let attacks = [
            (&*allowed, 0),
            (&*refused, libc::EACCES),
            (&*bind, libc::EACCES),
            (&*fast_open, libc::EOPNOTSUPP),
            ("socket.socket().bind((\"127.0.0.1\", 0))", libc::EACCES),
            // The kernel gives it a port, of every address.
            ("socket.socket().listen()", libc::EPERM),
            // It may be "smc", upon which Landlock knows the socket no more. This one no kernel has.
            ("try: socket.socket().setsockopt(6, 31, b\"none\")\n  except FileNotFoundError: pass", libc::EOPNOTSUPP),
            ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", libc::EPERM),
            ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", libc::EPERM),
            ("socket.socket(socket.AF_UNIX)", libc::EPERM),
        ];
        let (attacks, errnos): (Vec<_>, Vec<_>) = attacks.iter().map(|&(attack, errno)| (attack.to_owned(), errno)).unzip();
        let under = |options: &[&str], errnos: &[i32]| {
            answers_each(&run(&mut shell(who, work.path(), options, &python_each(&attacks))), &attacks, errnos);
        };
        under(&["--allow", "unix"], &[0; 10]);
        under(&options, &errnos);
        under(&[&options[..], &["--read", "/"]].concat(), &errnos);
        // It stands in place of the rule.
        under(&[&options[..], &["--deny", "net"]].concat(), &errnos);
        // Two ports are two ports, and a rename is nobody's business here.
        let both = [&options[..], &["--connect-tcp", &other]].concat();
        answers(&run(&mut shell(who, work.path(), &both, &python(&refused))), 0);
        run(&mut shell(who, work.path(), &options, "mkdir a b && echo x >a/f && mv a/f b && rm -r a b")).ok();
    }

    fn unix_sockets_by_path_need_linux_7_1(who) {
        let work = project(who);
        let listeners = ["agent", "other", "links"].map(|name| {
            let path = work.join(name);
            let listener = UnixListener::bind(&path).expect("bind");
            run(Who::Root.command("chmod").arg("777").arg(&path)).ok();
            listener
        });
        let agent = work.join("agent");
        let options = ["--unix", agent.to_str().expect("UTF-8")];
        if abi() < 9 {
            let ran = run(&mut shell(who, work.path(), &options, "echo ran"));
            ran.code(125).hints("srt-seccomp", "--unix: this kernel's Landlock is too old: ABI", "Linux 7.1 or newer is needed");
            ran.says("");
            return;
        }
        let connect = |path: &str| python(&format!("socket.socket(socket.AF_UNIX).connect(\"{path}\")"));
        let near = python("a = socket.socket(socket.AF_UNIX); a.bind(\"in\"); a.listen(); socket.socket(socket.AF_UNIX).connect(\"in\"); os.unlink(\"in\")");
        let pair = python("socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b\"x\", \"other\")");
        for more in [&[][..], &["--landlock"], &["--read", "/", "--write", work.text()]] {
            let under = |script: &str| run(&mut shell(who, work.path(), &[&options[..], more].concat(), script));
            answers(&run(&mut shell(who, work.path(), &["--allow", "unix"], &connect("other"))), 0);
            answers(&under(&connect("agent")), 0);
            answers(&under(&connect("other")), libc::EACCES);
            answers(&under(&near), 0);
            assert_ne!(under(&pair).out.trim(), "0");
            under("mkdir a b && echo x >a/f && mv a/f b && rm -r a b").ok();
        }
        drop(listeners);
    }

    fn what_landlock_cannot_mean_is_refused_and_nothing_runs(who) {
        let work = project(who);
        work.file("f", "");
        for (words, complaint) in [
            (&["--read", "none"][..], "--read none: cannot open it: No such file or directory"),
            (&["--write", ""], "--write : cannot open it: No such file or directory"),
            (&["--write", "f/x"], "--write f/x: cannot open it: Not a directory"),
            (&["--write", "f/.."], "--write f/..: cannot open it: Not a directory"),
            (&["--read", "f/"], "--read f/: cannot open it: Not a directory"),
            (&["--write", "/dev/stdout"], "--write /dev/stdout: cannot open it: No such file or directory"),
            // What has no path: not /mnt, which there is.
            (&["--write", "/proc/self/ns/mnt"], "--write /proc/self/ns/mnt: cannot open it: No such file or directory"),
            (&["--write", "/dev/stdout/.."], "--write /dev/stdout/..: cannot open it: Not a directory"),
            (&["--read", "/", "--read", "none"], "--read none: cannot open it"),
            (&["--connect-tcp", "0"], "--connect-tcp 0: expected a port from 1 to 65535"),
            (&["--connect-tcp", "65536"], "--connect-tcp 65536: expected a port from 1 to 65535"),
            (&["--connect-tcp", "+80"], "--connect-tcp +80: expected a port from 1 to 65535"),
            (&["--connect-tcp", "080"], "--connect-tcp 080: expected a port from 1 to 65535"),
            (&["--connect-tcp", "http"], "--connect-tcp http: expected a port from 1 to 65535"),
            (&["--landlock", "--write", "/"], "--landlock takes its rights from the mounts"),
            (&["--landlock", "--read", "/"], "--landlock takes its rights from the mounts"),
            (&["--landlock", "--landlock"], "--landlock: given twice"),
        ] {
            let ran = run(&mut shell(who, work.path(), words, "echo ran"));
            ran.code(125).one_clear_error("srt-seccomp").says("");
            // The shell's directory is not the tool's: try from there, too.
            let ran = run(who.command("srt-seccomp").current_dir(work.path()).args(words).args(["--", "echo", "ran"]));
            ran.code(125).one_clear_error("srt-seccomp").complains(complaint).says("");
        }
        for words in [["--export", "--landlock"], ["--list", "--landlock"]] {
            let ran = run(who.command("srt-seccomp").args(words));
            ran.code(125).one_clear_error("srt-seccomp").complains("nor with Landlock's options").says("");
        }
    }

    fn an_absolute_path_needs_no_working_directory(who) {
        need!(5);
        let work = project(who);
        let inside = |options: &str| {
            let line = format!("mkdir {0}/gone && cd {0}/gone && rmdir {0}/gone && exec \"$0\" {options} -- echo ran", work.text());
            run(who.command("sh").args(["-c", &line]).arg(tool("srt-seccomp")))
        };
        inside(&format!("--read / --write {}", work.text())).ok().says("ran");
        inside("--read / --write here").code(125).says("").one_clear_error("srt-seccomp");
    }

    fn a_program_that_no_path_lets_run_is_explained(who) {
        need!(5);
        let work = project(who);
        let script = work.file("script", "#!/bin/sh\necho it ran\n");
        let ran = |options: &[&str], mode: &str| {
            run(Who::Root.command("chmod").arg(mode).arg(&script)).ok();
            run(who.command("srt-seccomp").args(options).arg("--").arg(&script))
        };
        let hint = "loaders and libraries included: add --read /";
        for options in [&["--write", "/tmp"][..], &["--read", "/etc"], &["--write", work.text()]] {
            ran(options, "755").code(126).says("").hints("srt-seccomp", "script: Permission denied", hint);
            // With what it proposes it runs.
            ran(&[options, &["--read", "/"]].concat(), "755").ok().says("it ran");
        }
        // Where Landlock cannot be the cause, it is not named.
        for options in [&[][..], &["--landlock"], &["--read", "/", "--write", "/tmp"]] {
            let ran = ran(options, "644");
            ran.code(126).says("").one_clear_error("srt-seccomp");
            assert!(!ran.err.contains("hint"), "{ran:#?}");
        }
    }

    fn a_link_that_an_earlier_run_may_have_left_leads_nowhere(who) {
        need!(5);
        let (work, victim) = (project(who), project(who));
        let (path, out) = (work.text(), victim.text());
        let link = work.join("cache");
        run(who.command("ln").arg("-s").arg(victim.path()).arg(&link)).ok();
        victim.dir("sub");
        let deep = link.join("sub");
        let names = who.scratch();
        let alias = names.join("alias");
        std::os::unix::fs::symlink(work.path(), &alias).expect("symlink");
        let alias = alias.to_str().expect("UTF-8");
        for named in [link.to_str(), deep.to_str()].map(|path| path.expect("UTF-8")) {
            for options in [["--write", path, "--write", named], ["--write", named, "--write", path], ["--write", path, "--read", named]] {
                let ran = run(&mut shell(who, work.path(), &options, "echo ran"));
                ran.code(125).says("").hints("srt-seccomp", "cache, which this sandbox may replace", out);
            }
            // Nor by another name of what may be written, or on a way that goes up again.
            let around = named.replacen(path, &format!("{out}/../{}", work.path().file_name().and_then(OsStr::to_str).expect("UTF-8")), 1);
            for [written, read] in [[alias, named], [path, &around]] {
                let ran = run(&mut shell(who, work.path(), &["--write", written, "--read", read], "echo ran"));
                ran.code(125).says("").hints("srt-seccomp", "cache, which this sandbox may replace", out);
            }
            // Without rights to files it may put links wherever a mount is writable.
            if abi() >= 9 {
                let ran = run(&mut shell(who, work.path(), &["--unix", named], "echo ran"));
                ran.code(125).says("").hints("srt-seccomp", "cache, which this sandbox may replace", out);
            }
            // Where the link cannot have come from PROGRAM, it is followed.
            run(&mut shell(who, victim.path(), &["--read", "/", "--write", named], "echo x >sub/f && cat sub/f")).ok().says("x");
        }
        // Links of the system on the way.
        run(&mut shell(who, work.path(), &["--read", "/", "--write", path, "--read", "/var/run", "--read", "/bin"], "true")).ok();
    }

    fn a_kernel_without_landlock_or_one_that_is_answered_for_is_refused(who) {
        let work = project(who);
        let (create, restrict) = (libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self);
        for option in [&["--landlock"][..], &["--read", "/"], &["--write", "/tmp"], &["--connect-tcp", "9"], &["--unix", "/tmp"]] {
            let behind = |refusal| {
                let mut command = who.command("srt-seccomp");
                in_front(command.current_dir(work.path()).args(option).args(["--", "echo", "ran"]), &[refusal]);
                run(&mut command)
            };
            for errno in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM] {
                let ran = behind(refuse(create, errno));
                ran.code(125).says("").hints("srt-seccomp", &format!("{}: landlock_create_ruleset: ", option[0]), "Landlock is off");
            }
            behind(refuse(create, 0)).code(125).says("").hints("srt-seccomp", "ABI 0", "or newer is needed");
            if abi() >= 9 || abi() >= 5 && option[0] != "--unix" {
                let ran = behind(refuse(restrict, 0));
                ran.code(125).one_clear_error("srt-seccomp").says("").complains("an outer filter fakes the result");
                let ran = behind(refuse(restrict, libc::EPERM));
                ran.code(125).one_clear_error("srt-seccomp").says("").complains("landlock_restrict_self: Operation not permitted");
                let add = libc::SYS_landlock_add_rule;
                behind(refuse(add, libc::EPERM)).code(125).one_clear_error("srt-seccomp").says("").complains("Operation not permitted");
            }
        }
    }

    fn each_option_needs_its_abi_and_no_more(who) {
        need!(5);
        if !has("strace") {
            skip!("no strace");
        }
        for (option, least, linux) in [
            (&["--landlock"][..], 5, "6.10"),
            (&["--read", "/"], 5, "6.10"),
            (&["--write", "/"], 5, "6.10"),
            (&["--connect-tcp", "9"], 4, "6.7"),
            (&["--unix", "/tmp"], 9, "7.1"),
        ] {
            let ran = run(of_abi(who, least - 1).args(option).args(["--", "echo", "ran"]));
            ran.code(125).says("").hints("srt-seccomp", &format!("too old: ABI {}", least - 1), &format!("Linux {linux} or newer"));
            let ran = run(of_abi(who, least).args(option).args(["--", "echo", "ran"]));
            assert!(!ran.err.contains("too old") && ran.out.is_empty() == (abi() < least.into()), "{ran:#?}");
        }
    }

    fn what_landlock_opens_is_closed_and_one_sandbox_fits_into_another(who) {
        need!(5);
        let work = project(who);
        let list = "ls /proc/self/fd | tr '\\n' ' '";
        for options in [&["--landlock"][..], &["--read", "/", "--write", "/tmp"]] {
            run(&mut shell(who, work.path(), options, list)).ok().says("0 1 2 3");
            let inner = [options, &["--", "srt-seccomp", "--read", "/", "--", "srt-seccomp", "--landlock", "--", "sh", "-c", "echo x >/dev/null && echo in"]].concat();
            run(who.command("srt-seccomp").args(inner)).ok().says("in");
        }
        // A directory that is handed on gives no rights, a file those that it is open for.
        let file = work.file("f", "x");
        let mut command = shell(who, work.path(), &["--read", "/usr", "--read", "/etc", "--keep-fd", "7"], "cat /dev/fd/7 && echo y >/dev/fd/7");
        let open = File::open(file).expect("open");
        pass_fd(&mut command, open.as_raw_fd(), 7);
        run(&mut command).code(2).says("x");
    }
}
