//! `--join`: srt-mount builds its tree while srt-ns makes what takes longer, and waits for it before PROGRAM runs.

#![allow(clippy::expect_used, clippy::panic)]

use srt_common::startup::{self, GO};
use srt_common::sys::file::{fstatvfs, statx};
use srt_common::sys::socket::{Message, recvmsg, socketpair};
use srt_tests::{Scratch, Who, both, wait_until};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// `srt-mount --join 9 --status-fd 8 OPTIONS`, and this end of the socket and of the status pipe.
fn start(command: &mut Command, options: &[&str], script: &str) -> (Child, OwnedFd, BufReader<File>) {
    let (ours, theirs) = socketpair(libc::SOCK_SEQPACKET).expect("socketpair");
    let (read, write) = srt_common::sys::fd::pipe2(0).expect("pipe");
    let [theirs, write] = [theirs, write].map(|fd| srt_tests::above(&fd));
    srt_tests::pass_fd(command, theirs.as_raw_fd(), 9);
    srt_tests::pass_fd(command, write.as_raw_fd(), 8);
    command.arg(srt_tests::tool("srt-mount")).args(["--join", "9", "--status-fd", "8"]).args(options);
    command.args(["--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command.spawn().expect("spawn"), ours, BufReader::new(File::from(read)))
}

fn under_unshare(who: Who) -> Command {
    let mut command = who.command("unshare");
    command.args(["-Ur", "--"]);
    command
}

fn end(child: Child) -> (Option<i32>, String, String) {
    let out = child.wait_with_output().expect("wait");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn line(status: &mut BufReader<File>) -> String {
    let mut line = String::new();
    status.read_line(&mut line).expect("read");
    line
}

both! {
    fn the_first_message_brings_an_empty_read_only_root(who) {
        let (child, socket, _) = start(&mut under_unshare(who), &["--ro-bind", "/", "/"], "ls /proc/self/fd; echo ran");
        let Message { byte, fds, .. } = recvmsg(&socket, 0).expect("hello");
        assert_eq!((byte, fds.len()), (Some(b'h'), 1));
        let stat = statx(&fds[0], c"").expect("statx");
        assert_eq!(stat.mode, libc::S_IFDIR | 0o555);
        let all = libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC;
        assert_eq!(fstatvfs(&fds[0]).expect("fstatvfs") & all, all);
        let link = format!("/proc/self/fd/{}", fds[0].as_raw_fd());
        assert_eq!(std::fs::read_dir(&link).expect("list").count(), 0);
        assert_eq!(std::fs::canonicalize(&link).expect("its path"), std::path::Path::new("/"), "it is attached somewhere");
        startup::answer(&socket, GO, None).expect("go");
        // ls has a descriptor of its own, on what it lists.
        assert_eq!(end(child), (Some(0), "0\n1\n2\n3\nran".to_owned(), String::new()));
    }

    fn without_an_answer_program_does_not_run_and_nothing_is_left_or_said(who) {
        let scratch: Scratch = who.scratch();
        scratch.dir("w");
        let at = |name: &str| format!("{}/w/{name}", scratch.text());
        let (deep, file, new) = (at("a/b/c"), at("f"), at("d"));
        let options = [
            "--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--placeholders", "--tmpfs", &deep,
            "--ro-bind", "/etc/passwd", &file, "--dir", &new,
        ];
        let marker = at("marker");
        let (child, socket, mut status) = start(&mut under_unshare(who), &options, &format!("touch {marker}"));
        recvmsg(&socket, 0).expect("hello");
        // The tree is built, and still PROGRAM waits.
        wait_until("the mount point", || std::path::Path::new(&deep).exists());
        drop(socket);
        assert_eq!(end(child), (Some(125), String::new(), String::new()));
        assert_eq!(line(&mut status), "");
        assert_eq!(std::fs::read_dir(scratch.join("w")).expect("list").count(), 0);
    }

    fn a_start_that_has_failed_by_then_adds_nothing(who) {
        // Where the network is asked for earlier: a sysfs shows it.
        let mut command = who.command("unshare");
        let (child, socket, _) = start(command.args(["-UrnC", "--"]), &["--ro-bind", "/", "/", "--sys", "/sys"], "echo ran");
        recvmsg(&socket, 0).expect("hello");
        drop(socket);
        assert_eq!(end(child), (Some(125), String::new(), String::new()));
        // Before the hello.
        let (child, socket, _) = start(under_unshare(who).arg("sh").args(["-c", "read -r _ <&9; exec \"$@\"", "sh"]), &["--ro-bind", "/", "/"], "echo ran");
        drop(socket);
        assert_eq!(end(child), (Some(125), String::new(), String::new()));
    }

    fn its_socket_is_no_descriptor_of_the_user(who) {
        for options in [&["--keep-fd", "9"][..], &["--args", "9"], &["--bind-fd", "9", "/x"], &["--file", "9", "/x"]] {
            let (child, socket, _) = start(&mut under_unshare(who), options, "true");
            assert_eq!(recvmsg(&socket, 0).expect("the end").byte, None);
            let (code, _, err) = end(child);
            assert!(code == Some(125) && err.contains("9: not an open descriptor"), "{options:?}: {err}");
        }
    }

    fn nor_is_it_the_descriptor_of_the_status(who) {
        // srt-ns waits for other words there.
        let (ours, theirs) = socketpair(libc::SOCK_SEQPACKET).expect("socketpair");
        let copy = srt_tests::above(&theirs);
        let mut command = under_unshare(who);
        srt_tests::pass_fd(&mut command, copy.as_raw_fd(), 9);
        command.arg(srt_tests::tool("srt-mount")).args(["--join", "9", "--status-fd", "9", "--", "true"]);
        srt_tests::run(&mut command).code(125);
        drop((command, copy, theirs));
        assert_eq!(recvmsg(&ours, 0).expect("the end").byte, None);
    }

    fn a_socket_that_is_not_there_is_an_error(who) {
        let mut command = under_unshare(who);
        command.arg(srt_tests::tool("srt-mount")).args(["--join", "9", "--", "true"]);
        srt_tests::run(&mut command).code(125).one_clear_error("srt-mount").complains("--join 9: Bad file descriptor");
    }
}

#[test]
fn the_answer_brings_the_network_namespace() {
    let mut sleeper =
        Command::new("unshare").args(["-n", "cat"]).stdin(Stdio::piped()).spawn().expect("spawn");
    let path = format!("/proc/{}/ns/net", sleeper.id());
    let own = std::fs::read_link("/proc/self/ns/net").expect("own");
    wait_until("a network namespace", || std::fs::read_link(&path).is_ok_and(|name| name != own));
    let network = File::open(&path).expect("open");
    let wanted = std::fs::read_link(&path).expect("its name");
    let options = ["--ro-bind", "/", "/"];
    let mut command = Command::new("env");
    let (child, socket, _) = start(&mut command, &options, "readlink /proc/self/ns/net");
    recvmsg(&socket, 0).expect("hello");
    startup::answer(&socket, GO, Some(network.as_fd())).expect("go");
    assert_eq!(end(child), (Some(0), wanted.display().to_string(), String::new()));
    drop(sleeper.stdin.take());
    sleeper.wait().expect("wait");
}
