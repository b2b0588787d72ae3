//! `--publish`: a server in the sandbox is reached from the host, and the socket on the host is the sandbox's to make
//! and to remove, and nothing else is.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::chain_out;
use srt_tests::processes::{child_named, kill};
use srt_tests::talk::{Talk, code};
use srt_tests::{Who, both, has, run, wait, wait_until};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

fn curl(who: Who, socket: &Path, path: &str) -> srt_tests::Ran {
    let url = format!("http://sandbox/{path}");
    run(who.command("curl").args(["-sS", "-f", "--max-time", "20", "--unix-socket"]).arg(socket).arg(url))
}

/// proc_net_unix(5): the flags say whether somebody listens.
fn listens(socket: &Path) -> bool {
    let path = format!(" {}", socket.display());
    let all = fs::read_to_string("/proc/net/unix").expect("/proc/net/unix");
    all.lines().any(|line| line.ends_with(&path) && line.contains(" 00010000 "))
}

both! {
    fn a_dev_server_inside_is_reached_from_the_host_by_its_owner_alone(who) {
        if let Some(missing) = ["curl", "python3"].iter().find(|program| !has(program)) {
            srt_tests::skip!("no {missing}");
        }
        let scratch = who.scratch();
        scratch.file("work/page", "served from inside");
        let socket = scratch.join("dev.sock");
        let publish = format!("{}=8000", socket.display());
        let mut command = chain_out(who, &["--publish", &publish], &scratch.join("work"));
        let mut talk = Talk::over_pipes(command.args(["python3", "-m", "http.server", "--bind", "127.0.0.1", "8000"]));
        wait_until("the dev server", || socket.exists() && curl(who, &socket, "page").code == Some(0));
        curl(who, &socket, "page").ok().says("served from inside");
        curl(who, &socket, "nothing").code(22).complains("404");
        let there = fs::metadata(&socket).expect("the socket");
        assert!(there.file_type().is_socket());
        assert_eq!((there.mode() & 0o7777, there.uid()), (0o600, who.uid()));
        if who == Who::Root {
            curl(Who::User, &socket, "page").code(7);
        }
        // Nobody reaches it over the host's network.
        let direct = run(who.command("curl").args(["-sS", "-f", "http://127.0.0.1:8000/page"]));
        assert_ne!(direct.out, "served from inside");
        talk.signal(libc::SIGTERM);
        let _ended = talk.status();
        assert!(!socket.exists(), "the published socket is still there");
    }

    fn a_client_that_comes_before_the_server_is_let_go_and_may_come_again(who) {
        if let Some(missing) = ["curl", "socat"].iter().find(|program| !has(program)) {
            srt_tests::skip!("no {missing}");
        }
        let scratch = who.scratch();
        let socket = scratch.join("dev.sock");
        let mut command = who.command("srt-ns");
        command.arg("--publish").arg(format!("{}=8000", socket.display())).args(["--", "sh", "-c"]);
        let serve = "exec socat TCP-LISTEN:8000,bind=127.0.0.1,fork SYSTEM:'echo HTTP/1.0 200 OK; echo; echo late'";
        let mut talk = Talk::over_pipes(command.arg(format!("echo up; read -r _; {serve}")));
        assert_eq!(talk.line(), "up");
        assert_ne!(curl(who, &socket, "").code, Some(0));
        talk.send("\n");
        wait_until("the server", || curl(who, &socket, "").out == "late\n");
    }

    /// Node and Vite listen on ::1 alone where `localhost` is that first.
    fn a_server_on_ipv6s_loopback_alone_is_reached(who) {
        if !has("socat") || !srt_tests::has_ipv6() {
            srt_tests::skip!("no socat or no IPv6");
        }
        let scratch = who.scratch();
        let socket = scratch.join("dev.sock");
        let mut command = who.command("srt-ns");
        command.arg("--publish").arg(format!("{}=8000", socket.display())).args(["--", "socat"]);
        let mut talk = Talk::over_pipes(command.args(["TCP6-LISTEN:8000,bind=[::1],fork", "SYSTEM:echo six"]));
        let hears = || {
            let mut word = String::new();
            UnixStream::connect(&socket).and_then(|mut stream| stream.read_to_string(&mut word)).is_ok_and(|_| word == "six\n")
        };
        wait_until("the server", hears);
        talk.signal(libc::SIGTERM);
        let _ended = talk.status();
    }

    fn once_srt_relay_is_dead_nobody_is_left_waiting(who) {
        let scratch = who.scratch();
        let socket = scratch.join("p.sock");
        let publish = format!("{}=8000", socket.display());
        let mut talk = Talk::over_pipes(who.command("srt-ns").args(["--publish", &publish, "--", "sh", "-c", "echo up; exec sleep 60"]));
        talk.expect("up");
        UnixStream::connect(&socket).expect("connect");
        kill(child_named(talk.pid(), "srt-relay"), libc::SIGKILL);
        wait_until("a refusal", || UnixStream::connect(&socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        talk.signal(libc::SIGTERM);
        assert_eq!(code(talk.status()), 143);
        assert!(!socket.exists());
    }

    fn a_supervisor_that_is_killed_while_it_removes_the_socket_leaves_none(who) {
        if !has("strace") {
            srt_tests::skip!("no strace");
        }
        let scratch = who.scratch();
        let socket = scratch.join("s");
        // Of the supervisor alone: without -f.
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--output=/dev/null", "--trace=unlinkat", "-e", "inject=unlinkat:signal=KILL"]);
        command.arg(srt_tests::tool("srt-ns")).arg("--publish").arg(format!("{}=8000", socket.display()));
        run(command.args(["--", "test", "-S"]).arg(&socket));
        assert!(!socket.exists());
    }

    fn a_mode_that_the_command_leaves_does_not_keep_the_socket_there(who) {
        for mode in [0o555, 0o444, 0] {
            let scratch = who.scratch();
            let directory = scratch.dir("dir");
            let mut command = who.command("srt-ns");
            command.arg("--publish").arg(format!("{}=8000", directory.join("s").display()));
            run(command.args(["--", "chmod", &format!("{mode:o}")]).arg(&directory)).ok();
            let left = fs::metadata(&directory).expect("stat").permissions().mode();
            assert_eq!(left & 0o7777, mode, "it stays as the command has left it");
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("chmod");
            assert!(fs::read_dir(&directory).expect("a directory").next().is_none());
        }
    }

    fn a_socket_whose_directory_was_swapped_is_not_unlinked_elsewhere(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        // How the command leaves things for the one who tidies up; `precious` is what must not go.
        let swaps = [
            ("mv dir away; mv other dir", "dir/s"),
            ("mv dir away; ln -s other dir", "other/s"),
            ("mv dir/s dir/away; mv other/s dir/s", "dir/s"),
        ];
        for (swap, precious) in swaps {
            for by_socat in [false, true] {
                let scratch = who.scratch();
                for dir in ["dir", "other"] {
                    scratch.dir(dir);
                }
                let socket = scratch.join("dir/s");
                let _theirs = srt_tests::unix_listener(who, scratch.join("other/s"));
                if by_socat {
                    // The control: a program that unlinks by name.
                    let mut socat = who.command("socat");
                    socat.arg(format!("UNIX-LISTEN:{}", socket.display())).arg("OPEN:/dev/null");
                    let mut socat = socat.stderr(Stdio::null()).spawn().expect("socat");
                    wait_until("socat's socket", || listens(&socket));
                    run(who.command("sh").args(["-euc", swap]).current_dir(scratch.path())).ok();
                    srt_tests::processes::kill(socat.id().try_into().expect("a pid"), libc::SIGTERM);
                    let _ended = wait(&mut socat, "socat");
                    assert!(!scratch.join(precious).exists(), "the control, {swap}: it is still there");
                } else {
                    let mut command = who.command("srt-ns");
                    command.arg("--publish").arg(format!("{}=8000", socket.display()));
                    command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--bind"]);
                    command.args([scratch.path(), scratch.path()]).arg("--chdir").arg(scratch.path());
                    run(command.args(["--", "srt-seccomp", "--", "sh", "-euc", swap])).ok();
                    assert!(scratch.join(precious).exists(), "{swap}: it has gone");
                    // Its own directory is known by the descriptor: wherever that is now, nothing is left in it.
                    assert!(!scratch.join("away/s").exists(), "{swap}: the published socket is still there");
                }
            }
        }
    }

    fn what_is_there_already_is_left_alone(who) {
        let scratch = who.scratch();
        let file = scratch.file("file", "precious");
        let living = scratch.join("living");
        let _somebody = srt_tests::unix_listener(who, &living);
        for (path, words) in [(&file, "not a socket"), (&living, "listens there already")] {
            let publish = format!("{}=8000", path.display());
            // What was made before the failure goes, too.
            let first = format!("{}/first=8001", scratch.text());
            let ran = run(who.command("srt-ns").args(["--publish", &first, "--publish", &publish, "--", "echo", "it ran"]));
            ran.code(125).says("").complains(words).one_clear_error("srt-ns");
            assert!(!scratch.join("first").exists());
        }
        assert_eq!(fs::read(&file).expect("there"), b"precious");
        assert!(UnixStream::connect(&living).is_ok());
    }
}
