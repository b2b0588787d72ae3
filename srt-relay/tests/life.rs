//! What ends the relay and what does not.

#![allow(clippy::expect_used)]

mod common;

use common::*;
use srt_tests::talk::Talk;
use srt_tests::{Who, am_root, both, is_ready, skip, wait_until};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

fn lives(pid: i32) -> bool {
    // A zombie has ended; its parent is not the matter here.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// A shell that starts a relay in the background, says its pid once it is ready, and waits.
fn shell(who: Who, options: &str, socket: &Path) -> (std::process::Child, i32) {
    // The relay is the shell's own child; a FIFO tells that it is ready.
    let fifo = socket.with_extension("fifo");
    let script = format!(
        "mkfifo {0}; srt-relay --ready-fd 7 {options} unix:{1} tcp:127.0.0.1:1 7>{0} & read ready <{0}; echo $!; read end",
        fifo.display(),
        socket.display()
    );
    let mut child = who
        .command("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("pid");
    (child, line.trim().parse().expect("a pid"))
}

both! {
    fn it_ends_with_its_parent_and_removes_its_socket(who) {
        let scratch = who.scratch();
        let socket = scratch.join("s");
        let (mut parent, relay) = shell(who, "", &socket);
        assert!(lives(relay) && socket.exists());
        parent.kill().expect("kill");
        parent.wait().expect("wait");
        wait_until("the relay's end", || !lives(relay));
        assert!(!socket.exists());
    }

    fn told_to_outlive_its_parent_it_does(who) {
        let scratch = who.scratch();
        let socket = scratch.join("s");
        let (mut parent, relay) = shell(who, "--outlive-parent", &socket);
        parent.kill().expect("kill");
        parent.wait().expect("wait");
        thread::sleep(Duration::from_millis(300));
        assert!(lives(relay) && socket.exists());
        // SAFETY: two integers.
        assert_eq!(unsafe { libc::kill(relay, libc::SIGTERM) }, 0);
        wait_until("the relay's end", || !lives(relay));
        assert!(!socket.exists());
    }

    fn it_ends_when_the_last_writer_of_a_lifetime_pipe_is_gone(who) {
        let scratch = who.scratch();
        let socket = scratch.join("s");
        let args = [&format!("unix:{}", socket.display()), "tcp:127.0.0.1:1", "--lifetime-fd", "207", "--lifetime-fd", "208", "--outlive-parent"];
        for which in 0..2 {
            let (readers, mut writers): (Vec<_>, Vec<_>) =
                (0..2).map(|_| pipe()).map(|(reader, writer)| (reader, fs::File::from(writer))).unzip();
            // Numbers that no reader has already: it would be replaced before its own turn.
            let fds = [(readers[0].as_raw_fd(), 207), (readers[1].as_raw_fd(), 208)];
            let mut relay = Relay::start_with(who, &args, &fds);
            let another = writers[which].try_clone().expect("dup");
            // What is written is no end, nor is the end of one of two writers.
            writers[which].write_all(b"x").expect("write");
            drop(writers.swap_remove(which));
            thread::sleep(Duration::from_millis(100));
            assert!(relay.child.try_wait().expect("wait").is_none() && socket.exists());
            drop(another);
            assert_eq!(relay.wait().code(), Some(0));
            assert!(!socket.exists());
        }
        // The writer may be gone before the relay has looked.
        let (reader, writer) = pipe();
        drop(writer);
        let mut command = who.command("srt-relay");
        srt_tests::pass_fd(&mut command, reader.as_raw_fd(), 7);
        srt_tests::run(command.arg(args[0]).args(["tcp:127.0.0.1:1", "--lifetime-fd", "7"])).ok();
        assert!(!socket.exists());
    }

    fn what_is_no_reading_end_of_a_pipe_bounds_no_life(who) {
        let (_reader, writer) = pipe();
        let null = fs::File::open("/dev/null").expect("open");
        for (fd, words) in [(writer.as_raw_fd(), "expected the read end of a pipe"), (null.as_raw_fd(), "expected the read end of a pipe"), (-1, "not an open descriptor")] {
            let mut command = who.command("srt-relay");
            if fd >= 0 {
                srt_tests::pass_fd(&mut command, fd, 7);
            }
            let ran = srt_tests::run(command.args(["tcp:127.0.0.1:1", "tcp:127.0.0.1:1", "--lifetime-fd", "7"]));
            ran.code(2).one_clear_error("srt-relay").complains("--lifetime-fd 7").complains(words);
        }
        // One of the three is not a caller's to give.
        let (reader, _writer) = pipe();
        let mut command = who.command("srt-relay");
        srt_tests::pass_fd(&mut command, reader.as_raw_fd(), 0);
        let ran = srt_tests::run(command.args(["tcp:127.0.0.1:1", "tcp:127.0.0.1:1", "--lifetime-fd", "0"]));
        ran.code(2).one_clear_error("srt-relay").complains("--lifetime-fd 0: expected the read end of a pipe, from 3 up");
    }

    fn the_end_of_the_thread_that_started_it_is_not_its_parents(who) {
        // Where PR_SET_PDEATHSIG would kill it.
        let scratch = who.scratch();
        let socket = format!("unix:{}", scratch.join("s").display());
        let mut relay = thread::spawn(move || Relay::start(who, &[socket.as_str(), "tcp:127.0.0.1:1"]))
            .join()
            .expect("thread");
        thread::sleep(Duration::from_millis(300));
        assert!(relay.child.try_wait().expect("wait").is_none());
    }

    fn a_parent_outside_the_pid_namespace_is_watched_too(who) {
        let scratch = who.scratch();
        let (socket, fifo) = (scratch.join("s"), scratch.join("fifo"));
        let mut probe = who.command("unshare");
        if !probe.args(["--user", "--map-current-user", "--pid", "--fork", "true"]).status().expect("unshare").success() {
            skip!("no user namespaces");
        }
        // unshare's child is PID 1 of its namespace: its parent has no number there.
        let script = format!(
            "mkfifo {1}; unshare --user --map-current-user --pid --fork srt-relay --ready-fd 7 unix:{0} tcp:127.0.0.1:1 7>{1} & \
             read ready <{1}; echo $!; read end",
            socket.display(), fifo.display(),
        );
        let mut child = who.command("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("pid");
        let unshare: i32 = line.trim().parse().expect("a pid");
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("children");
        let relay: i32 = children.trim().parse().expect("one child");
        assert!(lives(relay) && socket.exists());
        // SAFETY: two integers.
        assert_eq!(unsafe { libc::kill(unshare, libc::SIGKILL) }, 0);
        wait_until("the relay's end", || !lives(relay));
        assert!(!socket.exists());
        let _ended = (child.kill(), child.wait());
    }

    fn a_signal_that_was_ignored_stays_ignored(who) {
        // nohup(1), and shells' background jobs.
        let scratch = who.scratch();
        let mut command = who.command("sh");
        let script = format!("trap '' HUP INT; exec srt-relay --ready-fd 1 unix:{} tcp:127.0.0.1:1", scratch.join("s").display());
        command.args(["-c", &script]);
        let mut relay = Relay::spawn(command, &[]);
        relay.signal(libc::SIGHUP);
        relay.signal(libc::SIGINT);
        thread::sleep(Duration::from_millis(200));
        assert!(relay.child.try_wait().expect("wait").is_none());
        assert_eq!(relay.terminate().code(), Some(0));
    }

    fn what_its_caller_left_open_is_closed(who) {
        let scratch = who.scratch();
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let socket = format!("unix:{}", scratch.join("s").display());
        let mut relay = Relay::start_with(who, &[socket.as_str(), "tcp:127.0.0.1:1"], &[(writer.as_raw_fd(), 207)]);
        drop(writer);
        // Who reads meets the end, which a writer that is left would keep away.
        wait_until("the end", || is_ready(&reader, libc::POLLIN));
        assert_eq!(reader.read(&mut [0]).expect("read"), 0);
        assert!(relay.child.try_wait().expect("wait").is_none(), "the relay still runs");
    }

    fn a_terminal_that_stops_who_writes_in_the_background_does_not_stop_it(who) {
        let port = free_port();
        let script = format!("set -m; stty tostop; srt-relay tcp:127.0.0.1:{port} tcp:127.0.0.1:1 & read x");
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
        let refused = || {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            Some(client.read(&mut [0]).expect_err("nobody listens there").kind())
        };
        wait_until("the first", || refused() == Some(ErrorKind::ConnectionReset));
        talk.expect("cannot connect to tcp:127.0.0.1:1");
        assert_eq!(refused(), Some(ErrorKind::ConnectionReset));
        // The control: others are stopped.
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", "set -m; stty tostop; echo told & while sleep 0.2; do jobs; done"]));
        talk.expect("Stopped");
    }

    fn stopped_and_continued_it_goes_on(who) {
        let scratch = who.scratch();
        let socket = format!("unix:{}", scratch.join("s").display());
        let mut relay = Relay::start(who, &[socket.as_str(), "tcp:127.0.0.1:1"]);
        for _ in 0..5 {
            relay.signal(libc::SIGSTOP);
            thread::sleep(Duration::from_millis(20));
            relay.signal(libc::SIGCONT);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(relay.child.try_wait().expect("wait").is_none());
        assert_eq!(relay.terminate().code(), Some(0));
    }
}

#[test]
fn a_start_takes_few_system_calls() {
    let scratch = Who::User.scratch();
    let trace = scratch.join("trace");
    let mut command = Who::User.command("strace");
    command.arg("-f").arg("-o").arg(&trace).args(["srt-relay", "--ready-fd", "1"]);
    command.args([format!("tcp:127.0.0.1:{}", free_port()), "tcp:127.0.0.1:1".into()]);
    drop(Relay::spawn(command, &[]));
    let calls = fs::read_to_string(trace).expect("trace");
    assert!(calls.lines().count() < 80, "{calls}");
}

#[test]
fn a_setuid_copy_refuses_to_run() {
    if !am_root() {
        skip!("the tests do not run as root");
    }
    use std::os::unix::fs::PermissionsExt;
    let scratch = Who::Root.scratch();
    let copy = scratch.join("relay");
    srt_tests::copy_program(srt_tests::tool("srt-relay"), &copy);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("chmod");
    let ran = srt_tests::run(&mut {
        let mut command: Command = Who::User.command(&copy);
        command.args(["tcp:127.0.0.1:9", "tcp:127.0.0.1:9"]);
        command
    });
    ran.code(1).one_clear_error("srt-relay").complains("setuid");
}
