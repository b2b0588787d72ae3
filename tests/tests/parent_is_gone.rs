//! `--lifetime-fd N`: a sandbox, or a relay, ends when the last writer of the pipe N has gone, whenever that was: before
//! the tool could look at its parent, too. Without it a caller that was gone so early cannot be told from init.
//!
//! `SRT_KILLS=1000` kills as many callers as the finding asked for.

use srt_tests::processes::{self, Family, Process};
use srt_tests::random::Random;
use srt_tests::talk::{Talk, code};
use srt_tests::{READ_ONLY, Who, both, pass_fd, run, tool, wait, wait_until};
use std::fs::File;
use std::io::{PipeWriter, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The options that change who must die with whom.
const LIVES: [&[&str]; 6] = [
    &[],
    &["--as-pid-1"],
    &["--wait-all"],
    &["--keep-session"],
    &["--outlive-parent"],
    &["--outlive-parent", "--as-pid-1"],
];

/// Whether a process with this name runs, among those that this one has adopted.
fn there_is(family: &Family, name: &str) -> bool {
    family.members().iter().any(|member| member.name == name)
}

/// A sandbox with a pipe's reader as descriptor 208, and the writer.
fn sandbox(who: Who, options: &[&str], program: &[&str]) -> (Command, PipeWriter) {
    let (reader, writer) = pipe().expect("pipe");
    let mut command = who.command("srt-ns");
    command.args(["--lifetime-fd", "208"]).args(options).args(["--", "srt-mount"]).args(READ_ONLY);
    command.args(["--", "srt-seccomp", "--"]).args(program);
    pass_fd(&mut command, reader.as_raw_fd(), 208);
    // As long as the command object, so that its descriptor stays.
    std::mem::forget(reader);
    (command, writer)
}

/// A relay on a socket in a scratch directory.
fn relay(who: Who, options: &[&str], socket: &std::path::Path) -> (Command, PipeWriter) {
    let (reader, writer) = pipe().expect("pipe");
    let mut command = who.command("srt-relay");
    command.args(["--lifetime-fd", "208", "--ready-fd", "1"]).args(options);
    command.arg(format!("unix:{}", socket.display())).arg("tcp:127.0.0.1:9");
    pass_fd(&mut command, reader.as_raw_fd(), 208);
    std::mem::forget(reader);
    (command, writer)
}

/// A caller that dies before its child execs: the child waits for that, and only then execs the words.
const GONE_BEFORE: &str = "
import os, sys, time
caller = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == caller:  # its files are closed before it is dead
    time.sleep(0.001)
if os.environ.get('LIFETIME'):
    lifetime, writer = os.pipe()
    os.dup2(lifetime, 208)
    os.close(writer)
os.execvp(sys.argv[1], sys.argv[1:])
";

/// A caller that starts the words with the pipe as descriptor 8, and whose death alone ends it.
const CALLER: &str = "
import os, sys
lifetime, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(writer)
    os.dup2(lifetime, 208)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(lifetime)
os.waitpid(child, 0)
";

fn python(script: &str, words: &Command) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script]).arg(words.get_program()).args(words.get_args());
    command.env("PATH", srt_tests::path_with_tools()).stdin(Stdio::null());
    command
}

/// Else the option is unknown, or ends everything: no test of an end would say anything.
#[track_caller]
fn a_living_writer_is_harmless(who: Who) {
    let (mut command, _writer) = sandbox(who, &[], &["true"]);
    run(&mut command).ok();
}

both! {
    fn a_sandbox_ends_when_the_last_writer_has_gone(who) {
        let family = Family::new();
        for options in LIVES {
            let (mut command, writer) = sandbox(who, options, &["sh", "-c", "echo ready; sleep 1000 & cat"]);
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            // Another one has it as well.
            let other = writer.try_clone().expect("dup");
            drop(writer);
            talk.send("alive\n");
            talk.expect("alive");
            // What is written says nothing, however much it is.
            (&other).write_all(&[0; 4096]).expect("write");
            talk.send("still alive\n");
            talk.expect("still alive");
            drop(other);
            assert_eq!(code(talk.status()), 137, "{options:?}");
            family.ends();
        }
    }

    fn a_sandbox_that_is_stopped_ends_when_the_last_writer_has_gone(who) {
        let family = Family::new();
        for options in [&[][..], &["--as-pid-1"]] {
            let (mut command, writer) = sandbox(who, options, &["sh", "-c", "echo ready; exec sleep 1000"]);
            // A group of its own, which is not orphaned: the kernel lets it stop (setpgid(2)).
            let mut talk = Talk::over_pipes(command.process_group(0));
            talk.expect("ready");
            talk.signal(libc::SIGTSTP);
            let is_stopped = || Process::find(talk.pid()).is_some_and(|own| own.state == 'T');
            wait_until("the stop of the supervisor", is_stopped);
            drop(writer);
            assert_eq!(code(talk.status()), 137, "{options:?}");
            family.ends();
        }
    }

    fn a_sandbox_whose_last_writer_had_gone_before_it_started_ends_at_once(who) {
        let family = Family::new();
        a_living_writer_is_harmless(who);
        for options in LIVES {
            let (mut command, writer) = sandbox(who, options, &["sleep", "1000"]);
            drop(writer);
            let start = Instant::now();
            let ran = run(&mut command);
            ran.code(125).complains("--lifetime-fd").one_clear_error("srt-ns");
            assert!(start.elapsed() < Duration::from_secs(9), "{options:?}: {:?}", start.elapsed());
            family.ends();
        }
    }

    fn a_caller_that_was_gone_before_the_exec_has_a_sandbox_that_ends(who) {
        let family = Family::new();
        a_living_writer_is_harmless(who);
        for options in LIVES.iter().filter(|options| !options.contains(&"--outlive-parent")) {
            let sandbox = |lifetime: &[&str]| {
                let mut command = who.command(tool("srt-ns"));
                command.args(lifetime).args(*options).args(["--", "sleep", "1000"]);
                command
            };
            // The control: it took the reaper for its caller, as it must take init for one under systemd.
            let mut caller = python(GONE_BEFORE, &sandbox(&[])).spawn().expect("spawn");
            wait(&mut caller, "the caller");
            wait_until("the command", || there_is(&family, "sleep"));
            family.members().iter().filter(|member| member.name == "srt-ns").for_each(|member| processes::kill(member.pid, libc::SIGKILL));
            family.ends();
            let mut caller = python(GONE_BEFORE, &sandbox(&["--lifetime-fd", "208"])).env("LIFETIME", "1").spawn().expect("spawn");
            wait(&mut caller, "the caller");
            let took = family.ends();
            assert!(took < Duration::from_secs(9), "{options:?}: {took:?}");
        }
    }

    fn a_caller_killed_at_any_moment_leaves_nothing(who) {
        let family = Family::new();
        let kills: usize = std::env::var("SRT_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(60);
        let mut random = Random::unlike_before();
        let mut worst = Duration::ZERO;
        // From before the fork to some time after the command has started.
        let start = Instant::now();
        let mut talk = Talk::over_pipes(&mut python(CALLER, &sandbox(who, &[], &["sh", "-c", "echo ready; cat"]).0));
        talk.expect("ready");
        let limit = start.elapsed().mul_f64(1.5);
        drop(talk);
        family.ends();
        for number in 0..kills {
            let options = LIVES[number % LIVES.len()];
            let (sandbox, writer) = sandbox(who, options, &["sleep", "1000"]);
            drop(writer);
            let mut caller = python(CALLER, &sandbox).stderr(Stdio::null()).spawn().expect("spawn");
            std::thread::sleep(random.time_below(limit));
            caller.kill().expect("kill");
            wait(&mut caller, "the caller");
            worst = worst.max(family.ends());
        }
        eprintln!("{kills} callers within {limit:?}: all gone after {worst:?} at most");
    }

    fn the_command_has_no_hold_on_the_pipe(who) {
        let _family = Family::new();
        let script = "ls /proc/self/fd | tr '\\n' ' '; echo ready; cat";
        let (mut command, writer) = sandbox(who, &[], &["sh", "-c", script]);
        let mut talk = Talk::over_pipes(&mut command);
        let descriptors = talk.expect("ready");
        assert_eq!(descriptors.trim(), "0 1 2 3", "ls has the directory open");
        drop(writer);
        assert_eq!(code(talk.status()), 137);
    }

    fn several_pipes_can_end_a_sandbox(who) {
        let family = Family::new();
        for first in [true, false] {
            let (mut command, one) = sandbox(who, &["--lifetime-fd", "207"], &["sh", "-c", "echo ready; cat"]);
            let (reader, other) = pipe().expect("pipe");
            pass_fd(&mut command, reader.as_raw_fd(), 207);
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            let _kept = if first { drop(one); other } else { drop(other); one };
            assert_eq!(code(talk.status()), 137);
            family.ends();
        }
    }

    fn a_relay_ends_when_the_last_writer_has_gone(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let socket = scratch.join("s.sock");
        for options in [&[][..], &["--outlive-parent"]] {
            let (mut command, writer) = relay(who, options, &socket);
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            assert!(socket.exists());
            drop(writer);
            let start = Instant::now();
            talk.status();
            assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
            assert!(!socket.exists(), "its socket stays");
            // Before it has started, too.
            let (mut command, writer) = relay(who, options, &socket);
            drop(writer);
            let mut talk = Talk::over_pipes(&mut command);
            talk.status();
            assert!(!socket.exists(), "its socket stays");
            family.ends();
        }
    }

    fn a_relay_whose_caller_was_gone_before_the_exec_ends(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let socket = scratch.join("s.sock");
        let (mut command, _writer) = relay(who, &[], &socket);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("ready");
        talk.signal(libc::SIGTERM);
        talk.status();
        let start = |lifetime: &[&str]| {
            let mut command = who.command(tool("srt-relay"));
            command.args(lifetime).arg(format!("unix:{}", socket.display())).arg("tcp:127.0.0.1:9");
            command
        };
        // The control.
        let mut caller = python(GONE_BEFORE, &start(&[])).spawn().expect("spawn");
        wait(&mut caller, "the caller");
        wait_until("the relay's socket", || socket.exists());
        family.members().iter().filter(|member| member.name == "srt-relay").for_each(|member| processes::kill(member.pid, libc::SIGTERM));
        family.ends();
        assert!(!socket.exists());
        let mut caller = python(GONE_BEFORE, &start(&["--lifetime-fd", "208"])).env("LIFETIME", "1").spawn().expect("spawn");
        wait(&mut caller, "the caller");
        let took = family.ends();
        assert!(took < Duration::from_secs(9), "{took:?}");
        assert!(!socket.exists());
    }

    fn a_fifo_without_a_name_bounds_a_life_and_has_no_other_writer(who) {
        let family = Family::new();
        let scratch = who.scratch();
        let fifo = scratch.join("fifo");
        run(who.command("mkfifo").arg(&fifo)).ok();
        let path = fifo.display();
        // The attack: the command opens the FIFO for writing, and stays.
        let attack = format!("exec 5>{path} && echo a writer");
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("open");
        let inside = |options: &[&str], command: &str| {
            let mut sandbox = who.command("srt-ns");
            sandbox.args(options).args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
            sandbox.args(["--", "srt-seccomp", "--", "sh", "-c", command]);
            sandbox
        };
        run(&mut inside(&[], &attack)).ok().says("a writer");
        let writer = File::options().write(true).open(&fifo).expect("open");
        std::fs::remove_file(&fifo).expect("remove");
        let mut command = inside(&["--lifetime-fd", "208"], &format!("(exec 5<>{path}) 2>&- || echo none; exec sleep 1000"));
        pass_fd(&mut command, reader.as_raw_fd(), 208);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("none");
        drop(writer);
        talk.status();
        family.ends();
    }

    fn a_lifetime_fd_that_is_no_pipes_reader_is_an_error(who) {
        let _family = Family::new();
        a_living_writer_is_harmless(who);
        let scratch = who.scratch();
        let file = File::open(scratch.file("file", "")).expect("open");
        let (_reader, writer) = pipe().expect("pipe");
        let both = scratch.join("both");
        run(who.command("mkfifo").arg(&both)).ok();
        let ends = File::options().read(true).write(true).open(&both).expect("open");
        std::fs::remove_file(&both).expect("rm");
        for (fd, what) in [(None, "closed"), (Some(file.as_raw_fd()), "a file"), (Some(writer.as_raw_fd()), "a writer"), (Some(ends.as_raw_fd()), "both ends")] {
            for words in [&["srt-ns", "--lifetime-fd", "208", "--", "echo", "it ran"][..],
                          &["srt-relay", "--lifetime-fd", "208", "unix:/tmp/none/s.sock", "tcp:127.0.0.1:9"]] {
                let mut command = who.command(words[0]);
                if let Some(fd) = fd {
                    pass_fd(&mut command, fd, 208);
                }
                let ran = run(command.args(&words[1..]));
                ran.says("").complains("--lifetime-fd");
                assert!([Some(125), Some(2), Some(1)].contains(&ran.code), "{what}: {ran:#?}");
            }
        }
        // By its name the command could become a writer, and nobody's end would end the sandbox.
        let fifo = scratch.join("fifo");
        run(who.command("mkfifo").arg(&fifo)).ok();
        let open = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("open");
        let named = open();
        for words in [&["srt-ns", "--lifetime-fd", "208", "--", "echo", "it ran"][..],
                      &["srt-relay", "--lifetime-fd", "208", "unix:/tmp/none/s.sock", "tcp:127.0.0.1:9"]] {
            let mut command = who.command(words[0]);
            pass_fd(&mut command, named.as_raw_fd(), 208);
            let ran = run(command.args(&words[1..]));
            ran.says("").hints(words[0], "--lifetime-fd 208: a named FIFO", "remove the name once both ends are open");
        }
        // The sandbox would be a writer itself.
        let (reader, writer) = pipe().expect("pipe");
        let (reader, writer) = (srt_tests::above(&reader), srt_tests::above(&writer));
        let mut command = who.command("srt-ns");
        command.args(["--lifetime-fd", "208", "--status-fd", "207", "--", "echo", "it ran"]);
        pass_fd(&mut command, reader.as_raw_fd(), 208);
        pass_fd(&mut command, writer.as_raw_fd(), 207);
        run(&mut command).code(125).one_clear_error("srt-ns").complains("--lifetime-fd 208: the same pipe as --status-fd 207");
        // PROGRAM would have an end of it, and could open the other.
        let (reader, _writer) = pipe().expect("pipe");
        for (number, options) in [(0, &[][..]), (1, &[]), (2, &[]), (207, &["--keep-fd", "207"]), (208, &["--keep-fd", "208"])] {
            let (mut errors, stderr) = pipe().expect("pipe");
            let mut command = who.command("srt-ns");
            command.args(["--lifetime-fd", "208"]).args(options).args(["--", "sh", "-c", "exit 3"]).stderr(stderr);
            pass_fd(&mut command, reader.as_raw_fd(), 208);
            pass_fd(&mut command, reader.as_raw_fd(), number);
            assert_eq!(code(command.status().expect("spawn")), 125, "{number}");
            drop(command);
            let mut said = String::new();
            std::io::Read::read_to_string(&mut errors, &mut said).expect("read");
            let expected = format!("--lifetime-fd 208: PROGRAM gets the same pipe as descriptor {number}");
            assert!(number == 2 || said.contains(&expected), "{number}: {said}");
        }
        for wrong in ["", "-1", "x", "4294967296"] {
            run(who.command("srt-ns").args(["--lifetime-fd", wrong, "--", "echo", "it ran"])).code(125).says("").complains("--lifetime-fd");
        }
    }
}
