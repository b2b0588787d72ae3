//! LISTEN and CONNECT in all their forms: what they open, what they refuse, what they leave behind.

#![allow(clippy::expect_used)]

mod common;

use common::*;
use srt_tests::talk::Talk;
use srt_tests::{Who, both, has, nobody_listens, run, skip, wait_until};
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

fn unix(path: &Path) -> OsString {
    let mut text = OsString::from("unix:");
    text.push(path);
    text
}

fn tcp(port: u16) -> OsString {
    format!("tcp:127.0.0.1:{port}").into()
}

/// A TCP server that answers every connection with `word`.
fn tcp_server(word: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(word.as_bytes()))));
    port
}

fn unix_server(who: Who, path: &Path, word: &'static str) {
    let listener = srt_tests::unix_listener(who, path);
    thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(word.as_bytes()))));
}

fn open_path(path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    use srt_common::sys::{c_path, file};
    file::openat(&file::CWD, &c_path(path)?, libc::O_PATH, 0)
}

/// A socket that nothing is bound to any more. Made by another process: a child that another thread starts meanwhile
/// would keep one of ours alive.
fn dead_socket(who: Who, path: &Path) {
    let _gone = fs::remove_file(path);
    let script = "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])";
    run(who.command("python3").args(["-c", script]).arg(path)).ok();
}

fn ask_tcp(port: u16) -> String {
    String::from_utf8(read_all(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect")))
        .expect("text")
}

fn ask_unix(path: &Path) -> String {
    String::from_utf8(read_all(&mut UnixStream::connect(path).expect("connect"))).expect("text")
}

both! {
    fn a_descriptor_that_a_peer_sends_is_refused(who) {
        // Closing it is the reader's, which may wait (SO_LINGER). Linux 6.16 has SO_PASSRIGHTS.
        let expected = if srt_tests::linux_at_least([6, 16]) { "1" } else { "sent" };
        let scratch = who.scratch();
        let (from, to, made) = (scratch.join("from"), scratch.join("to"), scratch.join("made"));
        let inherited = UnixListener::bind(&made).expect("bind");
        fs::set_permissions(&made, fs::Permissions::from_mode(0o666)).expect("chmod");
        let send = "import socket, sys
def send(peer):
    try: socket.send_fds(peer, [b'x'], [0])
    except OSError as error: return error.errno
    return 'sent'
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[2])
server.listen()
print('bound', flush=True)
input()
for path in sys.argv[1], sys.argv[3]:
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    print(send(client), send(server.accept()[0]), flush=True)
pair = socket.socketpair()
print(send(pair[0]))";
        let mut talk = Talk::over_pipes(who.command("python3").args(["-c", send]).args([&from, &to, &made]));
        talk.expect("bound");
        let addresses = [unix(&from), unix(&to), "fd:15".into(), unix(&to)];
        let _relay = Relay::start_with(who, &addresses, &[(inherited.as_raw_fd(), 15)]);
        talk.send("\n");
        talk.expect(&format!("{expected} {expected}\n{expected} {expected}\nsent"));
    }

    fn a_unix_listener_is_private_and_removed_at_the_end(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let mut relay = Relay::start(who, &[unix(&path), tcp(tcp_server("hello"))]);
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
            assert_eq!(ask_unix(&path), "hello");
            relay.signal(signal);
            assert_eq!(relay.wait().code(), Some(0));
            assert!(!path.exists(), "{signal}");
        }
    }

    fn a_unix_listener_is_private_whatever_the_umask_and_the_default_acl(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        if !has("setfacl") {
            skip!("no setfacl");
        }
        run(who.command("setfacl").args(["-d", "-m", "u::rwx,g::rwx,o::rwx,u:4242:rwx", scratch.text()])).ok();
        // The control: a socket made without care is open to others.
        let plain = scratch.join("plain");
        let script = "import os,socket,sys; os.umask(0); socket.socket(socket.AF_UNIX).bind(sys.argv[1])";
        run(who.command("python3").args(["-c", script]).arg(&plain)).ok();
        assert_ne!(fs::metadata(&plain).expect("there").permissions().mode() & 0o077, 0);

        let mut command = who.command("sh");
        command.args(["-c", "umask 000; exec \"$@\"", "sh", "srt-relay", "--ready-fd", "1"]).arg(unix(&path));
        let relay = Relay::spawn({ command.arg(tcp(1)); command }, &[]);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        drop(relay);
    }

    fn a_socket_on_which_it_cannot_listen_is_removed_again(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--output=/dev/null", "--trace=listen", "-e", "inject=listen:error=ENOBUFS"]);
        command.arg(srt_tests::tool("srt-relay")).arg(unix(&scratch.join("s"))).arg(tcp(9));
        run(&mut command).code(1).one_clear_error("srt-relay").complains("No buffer space available");
        assert_eq!(fs::read_dir(scratch.path()).expect("list").count(), 0);
    }

    fn a_dead_socket_is_replaced(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let port = tcp_server("hello");
        let mut relay = Relay::start(who, &[unix(&path), tcp(port)]);
        relay.signal(libc::SIGKILL);
        relay.wait();
        assert!(path.exists(), "nobody was left to remove it");
        let _relay = Relay::start(who, &[unix(&path), tcp(port)]);
        assert_eq!(ask_unix(&path), "hello");
    }

    fn a_dead_socket_that_is_gone_when_it_is_to_be_replaced_is_no_error_and_what_is_one_is_told(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let path = scratch.join("s");
        let under = |lie: &str| {
            let mut command = who.command("strace");
            command.args(["-D", "-o", "/dev/null", "-e", &format!("inject={lie}")]);
            command.arg(srt_tests::tool("srt-relay")).args(["--ready-fd", "1"]);
            command.arg(unix(&path)).arg(tcp(tcp_server("hello")));
            command
        };
        dead_socket(who, &path);
        for (lie, told) in [
            ("renameat2:error=EINVAL", "cannot replace a dead socket: Invalid argument"),
            ("connect:error=EACCES", "a socket is there: Permission denied"),
        ] {
            run(&mut under(lie)).code(1).one_clear_error("srt-relay").complains(told);
            let names: Vec<_> = fs::read_dir(scratch.path()).expect("list").flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["s"], "{lie}");
        }
        let _relay = Relay::spawn(under("renameat2:error=ENOENT:when=1"), &[]);
        assert_eq!(ask_unix(&path), "hello");
    }

    fn nothing_but_a_dead_socket_is_replaced(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let refused = |what: &str| {
            let ran = run(who.command("srt-relay").arg(unix(&path)).arg(tcp(1)));
            ran.code(1).one_clear_error("srt-relay").complains(what);
            ran.complains(&format!("cannot listen on {}: ", path.display()));
        };
        // A living socket goes on serving.
        unix_server(who, &path, "alive");
        refused("listens there");
        assert_eq!(ask_unix(&path), "alive");
        fs::remove_file(&path).expect("rm");
        // A datagram socket, a file, a directory, a link to each and to nowhere, a FIFO.
        let datagram = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
        std::os::unix::fs::chown(&path, Some(who.uid()), None).expect("chown");
        refused("");
        assert!(fs::metadata(&path).expect("there").file_type().is_socket());
        drop(datagram);
        fs::remove_file(&path).expect("rm");
        fs::write(&path, "precious").expect("write");
        refused("not a socket");
        assert_eq!(fs::read(&path).expect("there"), b"precious");
        let link = scratch.join("link");
        for target in [path.clone(), scratch.path().to_path_buf(), scratch.join("nowhere")] {
            symlink(&target, &link).expect("symlink");
            let ran = run(who.command("srt-relay").arg(unix(&link)).arg(tcp(1)));
            ran.code(1).one_clear_error("srt-relay").complains("not a socket");
            assert_eq!(fs::read_link(&link).expect("still a link"), target);
            fs::remove_file(&link).expect("rm");
        }
        assert!(!scratch.join("nowhere").exists());
        fs::remove_file(&path).expect("rm");
        fs::create_dir(&path).expect("mkdir");
        refused("not a socket");
        fs::remove_dir(&path).expect("rmdir");
        run(who.command("mkfifo").arg(&path)).ok();
        refused("not a socket");
    }

    fn what_took_the_sockets_place_is_not_removed(who) {
        let scratch = who.scratch();
        let (path, directory) = (scratch.dir("d").join("s"), scratch.join("d"));
        let relay = Relay::start(who, &[unix(&path), tcp(1)]);
        fs::remove_file(&path).expect("rm");
        fs::write(&path, "another's").expect("write");
        assert_eq!(relay.terminate().code(), Some(0));
        assert_eq!(fs::read(&path).expect("there"), b"another's");
        fs::remove_file(&path).expect("rm");
        // The directory is swapped: what lies at the old path is another's, what was made is removed.
        let relay = Relay::start(who, &[unix(&path), tcp(1)]);
        fs::rename(&directory, scratch.join("moved")).expect("rename");
        fs::create_dir(&directory).expect("mkdir");
        let _other = UnixListener::bind(&path).expect("bind");
        assert_eq!(relay.terminate().code(), Some(0));
        assert!(path.exists());
        assert!(!scratch.join("moved/s").exists());
    }

    fn of_twenty_relays_started_at_once_on_a_dead_socket_one_serves(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let port = tcp_server("hello");
        for _ in 0..5 {
            dead_socket(who, &path);
            let mut all: Vec<_> = (0..20)
                .map(|_| {
                    let mut command = who.command("srt-relay");
                    command.arg(unix(&path)).arg(tcp(port)).stderr(std::process::Stdio::null()).spawn().expect("spawn")
                })
                .collect();
            wait_until("nineteen refusals", || {
                all.iter_mut().filter_map(|child| child.try_wait().expect("wait")).count() >= 19
            });
            assert_eq!(ask_unix(&path), "hello");
            for child in &mut all {
                let _ended = (child.kill(), child.wait());
            }
        }
    }

    fn of_starters_that_have_all_found_the_same_socket_dead_one_serves(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let (path, traces) = (scratch.join("s"), scratch.dir("traces"));
        let port = tcp_server("hello");
        dead_socket(who, &path);
        // The window between the look and the exchange of the names is held open until all are in it.
        let mut all: Vec<_> = (0..4)
            .map(|number| {
                let mut command = who.command("strace");
                command.args(["-f", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=800000", "-o"]);
                command.arg(traces.join(number.to_string())).arg(srt_tests::tool("srt-relay"));
                command.arg(unix(&path)).arg(tcp(port));
                command.stderr(std::process::Stdio::piped()).spawn().expect("spawn")
            })
            .collect();
        let mut refused = vec![];
        wait_until("three refusals", || {
            all.retain_mut(|child| {
                let ended = child.try_wait().expect("wait").is_some();
                if ended {
                    refused.push(String::from_utf8(read_all(child.stderr.as_mut().expect("stderr"))).expect("text"));
                }
                !ended
            });
            all.len() <= 1
        });
        assert_eq!(all.len(), 1, "one is left");
        assert!(refused.iter().all(|text| text.contains("listens there already")), "{refused:?}");
        // Both outcomes have occurred: more than one was in the window, and exchanged what another had put there.
        let exchanges = |number: i32| fs::read_to_string(traces.join(number.to_string())).expect("trace").matches("RENAME_EXCHANGE").count();
        assert!((0..4).filter(|&number| exchanges(number) > 0).count() > 1);
        assert_eq!(ask_unix(&path), "hello");
        // Nothing is left of the others.
        let names: Vec<_> = fs::read_dir(scratch.path()).expect("directory").flatten().map(|entry| entry.file_name()).collect();
        assert!(names.iter().all(|name| name == "s" || name == "traces"), "{names:?}");
        for child in &mut all {
            // strace passes the signal on; its own end would leave the relay behind.
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).expect("children");
            run(Who::Root.command("kill").args(children.split_whitespace())).ok();
            child.wait().expect("wait");
        }
        assert!(!path.exists(), "the one that serves has removed its own");
    }

    fn a_lock_that_another_holds_on_the_directory_hinders_nobody(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let locked = fs::File::open(scratch.path()).expect("open");
        locked.lock().expect("flock");
        // The control: it is held.
        assert!(fs::File::open(scratch.path()).expect("open").try_lock().is_err());
        dead_socket(who, &path);
        for _ in 0..2 {
            let relay = Relay::start(who, &[unix(&path), tcp(tcp_server("hello"))]);
            assert_eq!(ask_unix(&path), "hello");
            assert_eq!(relay.terminate().code(), Some(0));
        }
    }

    fn a_link_in_the_targets_place_is_not_followed_and_one_on_the_way_is(who) {
        let scratch = who.scratch();
        let (path, link) = (scratch.dir("d").join("target"), scratch.join("link"));
        unix_server(who, &path, "hello");
        symlink(&path, &link).expect("symlink");
        // The control: it leads to the socket.
        assert_eq!(ask_unix(&link), "hello");
        let ran = run(who.command("srt-relay").arg(tcp(free_port())).arg(unix(&link)));
        ran.code(1).hints("srt-relay", "a symbolic link, which is not followed", "name the socket itself");
        let (way, port) = (scratch.join("way"), free_port());
        symlink(scratch.join("d"), &way).expect("symlink");
        let _relay = Relay::start(who, &[tcp(port), unix(&way.join("target"))]);
        assert_eq!(ask_tcp(port), "hello");
    }

    fn any_path_will_do_however_long_or_strange(who) {
        let scratch = who.scratch();
        let long = scratch.dir(format!("{}/{}", "a".repeat(200), "b".repeat(200)));
        let strange = OsString::from_vec((1..=255).filter(|&byte| byte != b'/').take(80).collect());
        for (listen, target) in [
            (long.join("listen"), long.join("target")),
            (scratch.join(&strange), scratch.join(OsString::from_vec(vec![0xff, 0xfe, b' ', b'\n']))),
        ] {
            // Bound by a shorter way: the server's own limit is not the matter here.
            let short = scratch.join("t");
            unix_server(who, &short, "hello");
            fs::rename(&short, &target).expect("rename");
            let port = free_port();
            let relay = Relay::start(who, &[unix(&listen), unix(&target), tcp(port), unix(&target)]);
            assert_eq!(ask_tcp(port), "hello");
            assert!(fs::metadata(&listen).expect("there").file_type().is_socket());
            assert_eq!(relay.terminate().code(), Some(0));
            assert!(!listen.exists());
        }
    }

    fn a_directory_that_cannot_be_listed_will_do(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("d");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o300)).expect("chmod");
        // The control: only root lists it.
        let listed = run(who.command("ls").arg(&directory));
        assert_eq!(listed.code == Some(0), who == Who::Root, "{listed:#?}");
        let relay = Relay::start(who, &[unix(&directory.join("s")), tcp(tcp_server("hello"))]);
        assert_eq!(ask_unix(&directory.join("s")), "hello");
        assert_eq!(relay.terminate().code(), Some(0));
        assert!(!directory.join("s").exists());
    }

    fn a_name_alone_is_one_in_the_working_directory(who) {
        let scratch = who.scratch();
        unix_server(who, &scratch.join("to"), "served");
        let mut command = who.command("srt-relay");
        command.current_dir(scratch.path()).args(["--ready-fd", "1", "unix:from", "unix:to"]);
        let relay = Relay::spawn(command, &[]);
        assert_eq!(ask_unix(&scratch.join("from")), "served");
        relay.terminate();
        assert!(!scratch.join("from").exists());
    }

    fn a_name_that_no_address_can_hold_is_an_error(who) {
        let scratch = who.scratch();
        let ran = run(who.command("srt-relay").arg(unix(&scratch.join("n".repeat(150)))).arg(tcp(1)));
        ran.code(1).one_clear_error("srt-relay").complains("too long");
        for path in ["/", "..", "/nonexistent/s", "/etc/passwd/s"] {
            run(who.command("srt-relay").arg(unix(Path::new(path))).arg(tcp(1))).code(1).one_clear_error("srt-relay");
        }
    }

    fn localhost_listens_and_connects_on_both_families(who) {
        let (port, to) = (free_port(), free_port());
        let Ok(six) = TcpListener::bind((Ipv6Addr::LOCALHOST, to)) else { skip!("no IPv6 loopback") };
        // The server listens on ::1 alone, as development servers do.
        thread::spawn(move || six.incoming().flatten().for_each(|mut s| drop(s.write_all(b"six"))));
        let _relay = Relay::start(who, &[format!("tcp:localhost:{port}"), format!("tcp:localhost:{to}")]);
        assert_eq!(ask_tcp(port), "six");
        assert_eq!(read_all(&mut TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("connect")), b"six");
        // 127.0.0.1 comes first.
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, to)).expect("bind");
        thread::spawn(move || four.incoming().flatten().for_each(|mut s| drop(s.write_all(b"four"))));
        assert_eq!(ask_tcp(port), "four");
    }

    fn all_addresses_of_one_family_are_not_the_others(who) {
        let port = free_port();
        let args = [format!("tcp:[::]:{port}"), "tcp:127.0.0.1:9".into(), format!("tcp:0.0.0.0:{port}"), "tcp:127.0.0.1:9".into()];
        assert_eq!(Relay::start(who, &args).terminate().code(), Some(0));
    }

    fn a_port_can_be_had_again_at_once(who) {
        let (port, to) = (free_port(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"));
        let target = to.local_addr().expect("address").port();
        for _ in 0..2 {
            let relay = Relay::start(who, &[tcp(port), tcp(target)]);
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            let (mut other, _) = to.accept().expect("accept");
            other.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).expect("it is relayed");
            // Its end comes first: its side of the connection waits (tcp(7), SO_REUSEADDR).
            assert_eq!(relay.terminate().code(), Some(0));
            assert_eq!(read_all(&mut client), b"");
        }
    }

    fn a_taken_port_is_an_error_that_names_it(who) {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = taken.local_addr().expect("address").port();
        let scratch = who.scratch();
        let path = scratch.join("s");
        // The pair before it has made its socket by then.
        let ran = run(who.command("srt-relay").arg(unix(&path)).arg(tcp(1)).arg(tcp(port)).arg(tcp(1)));
        ran.code(1).hints("srt-relay", &format!("tcp:127.0.0.1:{port}: Address"), "ss -ltnp").complains("in use");
        assert!(!path.exists(), "nothing is left behind");
    }

    fn localhost_is_one_address_where_there_is_no_other(who) {
        if !has("strace") {
            skip!("no strace");
        }
        for (call, which, errno) in [("bind", 1, "EADDRNOTAVAIL"), ("bind", 2, "EADDRNOTAVAIL"), ("bind", 2, "EACCES"), ("socket", 3, "EAFNOSUPPORT")] {
            let mut command = who.command("strace");
            command.args(["-D", "-o", "/dev/null", "-e", &format!("inject={call}:error={errno}:when={which}")]);
            command.arg(srt_tests::tool("srt-relay")).args(["--ready-fd", "1"]);
            let mut talk = Talk::over_pipes(command.args([&format!("tcp:localhost:{}", free_port()), "tcp:127.0.0.1:1"]));
            let first = talk.line();
            if which == 1 || errno == "EACCES" {
                assert!(first.starts_with("srt-relay: cannot listen on tcp:localhost:"), "{call} {which} {errno}: {first}");
                continue;
            }
            assert_eq!(first, "ready", "{call} {which} {errno}");
            talk.signal(libc::SIGTERM);
            talk.end();
        }
    }

    fn inherited_listeners_share_an_inherited_target(who) {
        let scratch = who.scratch();
        let path = scratch.join("target");
        unix_server(who, &path, "hello");
        let pinned = open_path(&path).expect("O_PATH");
        let (one, two) =
            (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"));
        let three = UnixListener::bind(scratch.join("three")).expect("bind");
        // As it may be given already.
        two.set_nonblocking(true).expect("O_NONBLOCK");
        let fds = [(one.as_raw_fd(), 15), (two.as_raw_fd(), 16), (three.as_raw_fd(), 17), (pinned.as_raw_fd(), 19)];
        let relay = Relay::start_with(who, &["fd:15", "fd:19", "fd:16", "fd:19", "fd:17", "fd:19"], &fds);
        for listener in [&one, &two] {
            assert_eq!(ask_tcp(listener.local_addr().expect("address").port()), "hello");
        }
        assert_eq!(ask_unix(&scratch.join("three")), "hello");
        // Another process may have taken a connection before accept4(2) comes to it.
        for (listener, _) in &fds[..3] {
            assert_ne!(srt_common::sys::fd::fcntl(listener, libc::F_GETFL, 0).expect("F_GETFL") & libc::O_NONBLOCK, 0);
        }
        // Swapping the path redirects nothing.
        fs::rename(&path, scratch.join("away")).expect("rename");
        unix_server(who, &path, "evil");
        assert_eq!(ask_tcp(one.local_addr().expect("address").port()), "hello");
        assert_eq!(relay.terminate().code(), Some(0));
        assert!(scratch.join("three").exists(), "an inherited socket's name is not the relay's");
    }

    fn a_listener_that_its_owner_has_shut_down_is_the_end(who) {
        for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
            let scratch = who.scratch();
            let (tcp_listener, unix_listener) =
                (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"), UnixListener::bind(scratch.join("s")).expect("bind"));
            for fd in [tcp_listener.as_raw_fd(), unix_listener.as_raw_fd()] {
                let mut relay = Relay::start_with(who, &[OsString::from("fd:15"), tcp(free_port())], &[(fd, 15)]);
                srt_common::sys::socket::shutdown(&fd, how).expect("shutdown");
                assert_eq!(relay.wait().code(), Some(1));
                wait_until("the reason", || relay.stderr().contains("cannot accept on fd:15: "));
            }
        }
        // Where there is no room at that moment it waits for that, and does nothing.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let scratch = who.scratch();
        let path = scratch.join("target");
        let target = srt_tests::unix_listener(who, &path);
        let args = ["--max-connections".into(), "1".into(), OsString::from("fd:15"), unix(&path)];
        let mut relay = Relay::start_with(who, &args, &[(listener.as_raw_fd(), 15)]);
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let _far = target.accept().expect("accept");
        srt_common::sys::socket::shutdown(&listener.as_raw_fd(), libc::SHUT_RDWR).expect("shutdown");
        relay.is_idle_for(std::time::Duration::from_millis(500), 5);
        drop((client, _far));
        assert_eq!(relay.wait().code(), Some(1));
    }

    fn descriptors_that_are_something_else_are_refused(who) {
        let scratch = who.scratch();
        let path = scratch.join("target");
        unix_server(who, &path, "hello");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        let file = fs::File::open("/etc/passwd").expect("open");
        let file_path = open_path(Path::new("/etc/passwd")).expect("O_PATH");
        let unix_connected = UnixStream::connect(&path).expect("connect");
        let packets = srt_common::sys::socket::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET).expect("socket");
        let address = scratch.join("packets").into_os_string().into_vec();
        let address = srt_common::sys::socket::SocketAddress::unix(&address).expect("an address");
        srt_common::sys::socket::bind(&packets, &address).expect("bind");
        srt_common::sys::socket::listen(&packets, 1).expect("listen");
        for (args, fd, complaint) in [
            ([OsString::from("fd:9"), tcp(1)], file.as_raw_fd(), "not a socket"),
            ([OsString::from("fd:9"), tcp(1)], connected.as_raw_fd(), "not a listening stream socket"),
            ([OsString::from("fd:9"), tcp(1)], packets.as_raw_fd(), "not a listening stream socket"),
            ([tcp(free_port()), OsString::from("fd:9")], file.as_raw_fd(), "not opened with O_PATH"),
            ([tcp(free_port()), OsString::from("fd:9")], file_path.as_raw_fd(), "not a socket"),
            ([tcp(free_port()), OsString::from("fd:9")], unix_connected.as_raw_fd(), "not opened with O_PATH"),
        ] {
            let mut command = who.command("srt-relay");
            srt_tests::pass_fd(&mut command, fd, 9);
            run(command.args(args)).code(1).one_clear_error("srt-relay").complains("fd:9").complains(complaint);
        }
    }

    fn a_listener_of_another_family_is_refused(who) {
        let Ok(socket) = srt_common::sys::socket::socket(libc::AF_VSOCK, libc::SOCK_STREAM) else {
            skip!("no AF_VSOCK");
        };
        // SAFETY: of a sockaddr_vm (vsock(7)) every value is one.
        let mut any: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        any.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        (any.svm_port, any.svm_cid) = (libc::VMADDR_PORT_ANY, libc::VMADDR_CID_ANY);
        let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        // SAFETY: `any` is as long as is said.
        assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const any).cast(), length) }, 0);
        srt_common::sys::socket::listen(&socket, 1).expect("listen");
        let mut command = who.command("srt-relay");
        srt_tests::pass_fd(&mut command, socket.as_raw_fd(), 9);
        let ran = run(command.args([OsString::from("fd:9"), tcp(1)]));
        ran.code(1).one_clear_error("srt-relay").complains("fd:9").complains("neither a Unix nor a TCP socket");
    }

    fn a_proc_that_leads_to_another_file_is_an_error(who) {
        let scratch = who.scratch();
        for name in ["granted", "other"] {
            unix_server(who, &scratch.join(name), "hello");
        }
        let pinned = open_path(&scratch.join("granted")).expect("O_PATH");
        let leads_to = |name: &str| {
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd".into(), "1".into(), tcp(free_port()), OsString::from("fd:9")]);
            let to = scratch.join(name);
            let mounts = format!("mount -t tmpfs tmpfs /proc; mkdir -p /proc/self/fd; ln -s {} /proc/self/fd/9", to.display());
            srt_tests::refusals::with_mounts(&mounts, &command)
        };
        let relay = Relay::spawn(leads_to("granted"), &[(pinned.as_raw_fd(), 9)]);
        assert_eq!(relay.terminate().code(), Some(0));
        let mut command = leads_to("other");
        srt_tests::pass_fd(&mut command, pinned.as_raw_fd(), 9);
        run(&mut command).code(1).one_clear_error("srt-relay").complains("/proc/self/fd/9 is another file");
    }

    fn a_target_that_is_not_there_is_an_error_with_a_hint(who) {
        let scratch = who.scratch();
        let ran = run(who.command("srt-relay").arg(tcp(free_port())).arg(unix(&scratch.join("none"))));
        ran.code(1).one_clear_error("srt-relay").complains("No such file").complains("hint: first start the program");
        for path in [scratch.file("file", ""), scratch.dir("dir")] {
            let ran = run(who.command("srt-relay").arg(tcp(free_port())).arg(unix(&path)));
            ran.code(1).one_clear_error("srt-relay").complains("not a socket");
        }
    }

    fn a_target_made_anew_is_reported_as_lost_and_not_followed(who) {
        // To stderr; where a script listens, to it alone, not into what may be a command's stderr.
        for told in ["stderr", "--status-fd", "--report-fd"] {
            let scratch = who.scratch();
            let path = scratch.join("target");
            let listener = srt_tests::unix_listener(who, &path);
            let (port, other, other_port) = (free_port(), tcp_server("other"), free_port());
            let (mut events, writer) = pipe();
            let mut args = vec![tcp(other_port), tcp(other), tcp(port), unix(&path)];
            if told != "stderr" {
                args.extend([told.into(), "7".into()]);
            }
            let relay = Relay::start_with(who, &args, &[(writer.as_raw_fd(), 7)]);
            drop(writer);
            drop(listener);
            nobody_listens(&path);
            fs::remove_file(&path).expect("rm");
            unix_server(who, &path, "anew");
            for _ in 0..3 {
                let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
                assert!(client.read(&mut [0]).is_err());
            }
            assert_eq!(ask_tcp(other_port), "other", "the other pair goes on");
            let message = format!("tcp:127.0.0.1:{port}: cannot connect to unix:{}: Connection refused", path.display());
            if told == "stderr" {
                wait_until("the report", || relay.stderr().lines().count() == 2);
                assert!(relay.stderr().starts_with(&format!("srt-relay: {message}\nsrt-relay: hint: ")), "{}", relay.stderr());
            } else {
                assert_eq!(relay.stderr(), "");
            }
            relay.terminate();
            let mut text = String::new();
            events.read_to_string(&mut text).expect("events");
            match told {
                "--status-fd" => assert_eq!(text, format!(
                    "{{\"stage\":\"srt-relay\",\"event\":\"relay-lost\",\"listen\":\"tcp:127.0.0.1:{port}\",\"connect\":\"unix:{}\",\
                     \"message\":\"{message}\"}}\n", path.display())),
                "--report-fd" => assert_eq!(text, format!("lost 1 {}\n", libc::ECONNREFUSED)),
                _ => assert_eq!(text, ""),
            }
        }
    }

    fn a_failure_that_may_pass_is_reported_once_until_it_has_passed(who) {
        let (port, to) = (free_port(), free_port());
        let ((mut reports, writer), (mut events, status)) = (pipe(), pipe());
        let to_both = ["--report-fd", "7", "--status-fd", "8"].map(OsString::from);
        let args = [&[tcp(port), format!("tcp:localhost:{to}").into()][..], &to_both].concat();
        let relay = Relay::start_with(who, &args, &[(writer.as_raw_fd(), 7), (status.as_raw_fd(), 8)]);
        drop((writer, status));
        for _ in 0..2 {
            for _ in 0..3 {
                assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect").read(&mut [0]).is_err());
            }
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, to)).expect("bind");
            let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            server.accept().expect("it has passed");
        }
        assert_eq!(relay.stderr(), "");
        relay.terminate();
        assert_eq!(String::from_utf8(read_all(&mut reports)).expect("text"), format!("failed 0 {}\n", libc::ECONNREFUSED).repeat(2));
        // In place of the events, not beside them.
        assert_eq!(read_all(&mut events), b"");
    }

    fn a_target_that_is_lost_is_reported_after_a_failure_that_might_have_passed(who) {
        let scratch = who.scratch();
        let path = scratch.join("target");
        let listener = srt_tests::unix_listener(who, &path);
        // Room for one.
        srt_common::sys::socket::listen(&listener, 0).expect("listen");
        let first = UnixStream::connect(&path).expect("connect");
        let port = free_port();
        let (mut reports, writer) = pipe();
        let args = [tcp(port), unix(&path), "--report-fd".into(), "7".into(), "--connect-timeout".into(), "0.1".into()];
        let relay = Relay::start_with(who, &args, &[(writer.as_raw_fd(), 7)]);
        drop(writer);
        let refused = || assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect").read(&mut [0]).is_err());
        (0..2).for_each(|_| refused());
        drop((listener, first));
        nobody_listens(&path);
        (0..3).for_each(|_| refused());
        relay.terminate();
        let told = format!("failed 0 {}\nlost 0 {}\n", libc::ETIMEDOUT, libc::ECONNREFUSED);
        assert_eq!(String::from_utf8(read_all(&mut reports)).expect("text"), told);
    }

    fn a_failure_is_reported_once_there_is_room(who) {
        let (port, to) = (free_port(), free_port());
        let (mut reports, writer) = pipe();
        let mut filler = fs::File::from(writer.try_clone().expect("dup"));
        filler.write_all(&[b'x'; 65536]).expect("fill the pipe");
        let relay = Relay::start_with(who, &[tcp(port), tcp(to), "--report-fd".into(), "7".into()], &[(writer.as_raw_fd(), 7)]);
        drop((writer, filler));
        let refused = || assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect").read(&mut [0]).is_err());
        refused();
        reports.read_exact(&mut [0; 65536]).expect("what was there");
        (0..2).for_each(|_| refused());
        relay.terminate();
        assert_eq!(String::from_utf8(read_all(&mut reports)).expect("text"), format!("failed 0 {}\n", libc::ECONNREFUSED));
    }

    fn a_target_of_another_type_is_reported(who) {
        let scratch = who.scratch();
        let path = scratch.join("target");
        let _datagram = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
        std::os::unix::fs::chown(&path, Some(who.uid()), None).expect("chown");
        let port = free_port();
        let relay = Relay::start(who, &[tcp(port), unix(&path)]);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect").read(&mut [0]).is_err());
        wait_until("the report", || relay.stderr().contains("Protocol wrong type for socket"));
    }

    fn ready_may_be_any_descriptor_and_stdin_stdout_and_stderr_may_be_closed(who) {
        let port = free_port();
        let to = tcp_server("hello");
        for number in [0, 2, 5] {
            let (mut ready, write) = pipe();
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd", &number.to_string()]).args([tcp(port), tcp(to)]);
            srt_tests::pass_fd(&mut command, write.as_raw_fd(), number);
            let mut child = command.spawn().expect("spawn");
            drop((write, command));
            let mut text = String::new();
            ready.read_to_string(&mut text).expect("read");
            assert_eq!(text, "ready\n");
            assert_eq!(ask_tcp(port), "hello");
            // No connection has become one of the three.
            for three in 0..3 {
                let link = fs::read_link(format!("/proc/{}/fd/{three}", child.id())).expect("open");
                assert!(!link.as_os_str().as_bytes().starts_with(b"socket:"), "{three} is {}", link.display());
            }
            let _ended = (child.kill(), child.wait());
        }
        let (mut ready, write) = pipe();
        let mut command = who.command("sh");
        let script = format!("exec srt-relay --ready-fd 5 tcp:127.0.0.1:{port} tcp:127.0.0.1:{to} <&- >&- 2>&-");
        command.args(["-c", &script]);
        srt_tests::pass_fd(&mut command, write.as_raw_fd(), 5);
        let mut child = command.spawn().expect("spawn");
        drop((write, command));
        let mut text = String::new();
        ready.read_to_string(&mut text).expect("read");
        assert_eq!(text, "ready\n");
        assert_eq!(ask_tcp(port), "hello");
        let _ended = (child.kill(), child.wait());
    }

    fn what_else_is_inherited_is_closed(who) {
        let port = free_port();
        let secret = fs::File::open("/etc/passwd").expect("open");
        let relay = Relay::start_with(who, &[tcp(port), tcp(1)], &[(secret.as_raw_fd(), 50), (secret.as_raw_fd(), 900)]);
        for link in relay.open() {
            assert_ne!(fs::read_link(link).expect("link"), Path::new("/etc/passwd"));
        }
    }
}
