//! What is scarce is shared out and not failed on: descriptors, connections, the target's backlog, time.

#![allow(clippy::expect_used)]

mod common;

use common::*;
use srt_tests::processes::{Process, status_field};
use srt_tests::refusals::{self, refuse_value};
use srt_tests::talk::Terminal;
use srt_tests::{DEADLINE, Who, at_once, both, has, has_ipv6, skip, wait_until};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A Unix server that says `hello` and then waits for the other side's end; counts who is there.
fn greeter(who: Who, path: &Path) -> Arc<AtomicUsize> {
    let listener = srt_tests::unix_listener(who, path);
    let present = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&present);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                let _gone = (stream.write_all(b"hello"), std::io::copy(&mut stream, &mut std::io::sink()));
                counter.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    present
}

/// Starts a relay to a Unix target under a limit on descriptors.
fn limited(who: Who, descriptors: u32, options: &[&str], target: &Path) -> (Relay, u16) {
    let port = free_port();
    let mut command = who.command("prlimit");
    command
        // It raises the soft limit itself.
        .args([&format!("--nofile=16:{descriptors}"), "srt-relay", "--ready-fd", "1"])
        .args(options);
    command.args([format!("tcp:127.0.0.1:{port}"), format!("unix:{}", target.display())]);
    (Relay::spawn(command, &[]), port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream
}

fn hears_hello(stream: &mut TcpStream) {
    let mut word = [0; 5];
    stream.read_exact(&mut word).expect("hello");
    assert_eq!(&word, b"hello");
}

fn hears_nothing(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let error = stream.read(&mut [0]).expect_err("nothing yet");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
}

/// Clients in excess wait, burn nothing, and are served when others leave.
fn excess_waits(relay: &Relay, port: u16, present: &AtomicUsize, most: usize) {
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..most + 30).map(|_| connect(port)).collect();
        wait_until("as many as there is room for", || present.load(Ordering::SeqCst) >= most - 2);
        hears_hello(clients.first_mut().expect("one"));
        hears_nothing(clients.last_mut().expect("one"));
        // Of fifty. A look ten times a second may meet the timer's tick more than once.
        relay.is_idle_for(Duration::from_millis(500), 5);
        assert!(present.load(Ordering::SeqCst) <= most);
        // Those who are served go on being served.
        let last = clients.split_off(most - 5);
        drop(clients);
        for mut client in last {
            hears_hello(&mut client);
        }
        wait_until("everybody has left", || present.load(Ordering::SeqCst) == 0);
    }
    hears_hello(&mut connect(port));
}

both! {
    fn a_stderr_and_a_status_descriptor_that_nobody_reads_hold_up_nobody(who) {
        let scratch = who.scratch();
        greeter(who, &scratch.join("s"));
        for options in [&["--status-fd", "6"][..], &[]] {
            let ((_stderr, err), (_events, status), (mut ready, ready_writer)) = (pipe(), pipe(), pipe());
            for full in [&err, &status] {
                let mut file = std::fs::File::from(full.try_clone().expect("dup"));
                file.write_all(&[b'x'; 65536]).expect("fill the pipe");
            }
            let (port, dead) = (free_port(), free_port());
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd", "5"]).args(options);
            command.args([format!("tcp:127.0.0.1:{dead}"), "tcp:127.0.0.1:1".into()]);
            command.args([format!("tcp:127.0.0.1:{port}"), format!("unix:{}", scratch.join("s").display())]);
            let copies = [&err, &ready_writer, &status].map(srt_tests::above);
            for (fd, number) in copies.iter().zip([2, 5, 6]) {
                srt_tests::pass_fd(&mut command, fd.as_raw_fd(), number);
            }
            let mut child = command.spawn().expect("spawn");
            drop((command, ready_writer, copies));
            assert_eq!(read_all(&mut ready), b"ready\n");
            for _ in 0..3 {
                assert!(connect(dead).read(&mut [0]).is_err());
                hears_hello(&mut connect(port));
            }
            let _ended = (child.kill(), child.wait());
        }
    }

    fn a_terminal_that_nobody_reads_holds_up_nobody(who) {
        let scratch = who.scratch();
        greeter(who, &scratch.join("s"));
        let mut terminal = Terminal::new(who);
        let (port, (mut ready, ready_writer)) = (free_port(), pipe());
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "5", &format!("tcp:127.0.0.1:{port}")]);
        command.arg(format!("unix:{}", scratch.join("s").display()));
        // Each says once that its target cannot be reached.
        let dead: Vec<_> = (0..60).map(|_| free_port()).collect();
        for dead in &dead {
            command.args([format!("tcp:127.0.0.1:{dead}"), "tcp:127.0.0.1:1".into()]);
        }
        let copies = [terminal.fd(), ready_writer.as_raw_fd()].map(|fd| srt_tests::above(&fd));
        for (fd, number) in copies.iter().zip([2, 5]) {
            srt_tests::pass_fd(&mut command, fd.as_raw_fd(), number);
        }
        let mut child = command.spawn().expect("spawn");
        drop((command, ready_writer, copies));
        assert_eq!(read_all(&mut ready), b"ready\n");
        terminal.leave_little_room();
        for dead in dead {
            let error = connect(dead).read(&mut [0]).expect_err("a reset");
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "the relay waits");
        }
        assert!(!terminal.state().flows, "less was said than there was room for");
        hears_hello(&mut connect(port));
        let _ended = (child.kill(), child.wait());
    }

    fn reports_go_to_a_terminal_as_it_was_given(who) {
        // Opened again, the master of a terminal is that of a new one.
        let (terminal, dead) = (Terminal::new(who), free_port());
        let words = ["--report-fd", "6", &format!("tcp:127.0.0.1:{dead}"), "tcp:127.0.0.1:1"];
        let _relay = Relay::start_with(who, &words, &[(terminal.master(), 6)]);
        assert!(connect(dead).read(&mut [0]).is_err());
        let mut poll = libc::pollfd { fd: terminal.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "the report is what was typed");
    }

    fn a_listener_that_lingers_holds_up_nobody(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let server = srt_tests::unix_listener(who, &path);
        thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                let mut word = [0];
                // To the first more than it reads, and no end: it closes first.
                let answer = if stream.read(&mut word).is_ok_and(|_| word == *b"b") { 1 << 20 } else { 1 };
                thread::spawn(move || (stream.write_all(&vec![b'x'; answer]), stream.shutdown(Shutdown::Both)));
            }
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let linger = libc::linger { l_onoff: 1, l_linger: 60 };
        let length = size_of_val(&linger) as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
        // SAFETY: a linger and its size.
        assert_eq!(unsafe { libc::setsockopt(listener.as_raw_fd(), level, name, (&raw const linger).cast(), length) }, 0);
        let port = listener.local_addr().expect("an address").port();
        let target = format!("unix:{}", path.display());
        // One is connected before there is a relay.
        let early = connect(port);
        let _relay = Relay::start_with(who, &["fd:9", &target], &[(listener.as_raw_fd(), 9)]);
        for mut slow in [early, connect(port)] {
            slow.write_all(b"b").expect("write");
            slow.shutdown(Shutdown::Write).expect("shutdown");
            // Stays open.
            std::mem::forget(slow);
        }
        thread::sleep(Duration::from_millis(500));
        let mut other = connect(port);
        other.write_all(b"s").expect("write");
        assert_eq!(other.read(&mut [0]).expect("an answer"), 1);
    }

    fn out_of_descriptors_it_goes_on_and_accepts_again(who) {
        // A connection takes two: one of the numbers leaves one too few for the second.
        at_once(2, [64, 65], |all| {
            let scratch = who.scratch();
            let present = greeter(who, &scratch.join("s"));
            let (relay, port) = limited(who, all, &[], &scratch.join("s"));
            let before = relay.descriptors();
            excess_waits(&relay, port, &present, (all as usize - before) / 2);
            relay.settles_at(before);
        });
    }

    fn out_of_descriptors_nobody_is_refused_who_could_wait_for_the_other_address_of_localhost(who) {
        if !has_ipv6() {
            skip!("no IPv6 here");
        }
        // A connection takes two, and had a third for a moment: one of the numbers leaves exactly two.
        at_once(2, [20, 21], |all| {
            // Not a port that the kernel chooses: it may give the same one of 127.0.0.1 to somebody else.
            let (port, to) = (free_port(), free_port());
            let _server = TcpListener::bind((Ipv6Addr::LOCALHOST, to)).expect("bind");
            let limit = format!("--nofile={all}:{all}");
            let mut command = who.command("prlimit");
            command.args([&limit, "srt-relay", "--ready-fd", "1"]);
            command.args([format!("tcp:127.0.0.1:{port}"), format!("tcp:localhost:{to}")]);
            let relay = Relay::spawn(command, &[]);
            let before = relay.descriptors();
            let most = (all as usize - before) / 2;
            let mut clients: Vec<_> = (0..most + 3).map(|_| connect(port)).collect();
            clients.iter_mut().for_each(hears_nothing);
            // Who waits is looked at ten times a second, for which a descriptor is taken for a moment.
            relay.settles_at(before + 2 * most);
            assert_eq!(relay.stderr(), "");
        });
    }

    fn descriptors_that_another_connection_frees_are_used_at_once(who) {
        let scratch = who.scratch();
        let present = greeter(who, &scratch.join("s"));
        let (_relay, port) = limited(who, 24, &[], &scratch.join("s"));
        // Many more short visits than descriptors, eight at a time.
        let all: Vec<_> = (0..12)
            .map(|_| thread::spawn(move || (0..50).for_each(|_| hears_hello(&mut connect(port)))))
            .collect();
        all.into_iter().for_each(|one| one.join().expect("visits"));
        wait_until("everybody has left", || present.load(Ordering::SeqCst) == 0);
    }

    fn room_that_a_client_leaves_is_anothers_at_once(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let trace = scratch.join("trace");
        greeter(who, &scratch.join("s"));
        let (port, refused) = (free_port(), free_port());
        let mut command = who.command("strace");
        command.args(["-D", "-e", "trace=epoll_pwait", "-o"]).arg(&trace);
        command.args(["srt-relay", "--ready-fd", "1", "--max-connections", "1", &format!("tcp:127.0.0.1:{port}")]);
        command.arg(format!("unix:{}", scratch.join("s").display()));
        command.args([format!("tcp:127.0.0.1:{refused}"), format!("tcp:127.0.0.1:{}", free_port())]);
        let relay = Relay::spawn(command, &[]);
        let before = relay.descriptors();
        // Each finds the one before it still there.
        for _ in 0..5 {
            assert!(connect(refused).read(&mut [0]).is_err());
            hears_hello(&mut connect(port));
        }
        relay.settles_at(before);
        // It waits without a limit, or for the answer of a target; not until it looks for room by itself.
        let calls = std::fs::read_to_string(&trace).expect("trace");
        assert!(calls.contains(", -1, NULL"), "{calls}");
        assert!(!calls.contains(", 100, NULL"), "{calls}");
    }

    fn without_clients_it_sleeps(who) {
        let scratch = who.scratch();
        greeter(who, &scratch.join("s"));
        let (relay, port) = limited(who, 1024, &["--idle-timeout", "0.4"], &scratch.join("s"));
        let before = relay.descriptors();
        hears_hello(&mut connect(port));
        relay.settles_at(before);
        // Neither for an idle client nor for an attempt to connect does it wake up.
        wait_until("it to sleep", || {
            let woken = || status_field(relay.pid(), "voluntary_ctxt_switches");
            let before = woken();
            thread::sleep(Duration::from_millis(500));
            woken() == before
        });
    }

    fn descriptors_that_come_from_elsewhere_are_used_soon(who) {
        let scratch = who.scratch();
        let present = greeter(who, &scratch.join("s"));
        let (relay, port) = limited(who, 128, &[], &scratch.join("s"));
        // Of the same user, who may change it below the hard limit.
        let set_limit = |soft: &str| {
            let pid = relay.pid().to_string();
            srt_tests::run(who.command("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")])).ok();
        };
        set_limit("64");
        let most = (64 - relay.descriptors()) / 2;
        let mut clients: Vec<_> = (0..most + 1).map(|_| connect(port)).collect();
        wait_until("as many as there is room for", || present.load(Ordering::SeqCst) >= most - 1);
        hears_nothing(clients.last_mut().expect("one"));
        // Nobody of its own has left.
        set_limit("128");
        clients.iter_mut().for_each(hears_hello);
    }

    fn bulk_transfers_work_without_a_descriptor_for_a_pipe(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let listener = srt_tests::unix_listener(who, &path);
        let (relay, port) = limited(who, 16, &[], &path);
        let mut pairs = vec![];
        while relay.descriptors() + 2 <= 16 {
            pairs.push((bounded(connect(port)), bounded(listener.accept().expect("accept").0)));
        }
        let all: Vec<_> = pairs
            .into_iter()
            .map(|(mut client, mut server)| {
                let sender = thread::spawn(move || send_noise(&mut *client, 1, 5_000_000).expect("send"));
                let receiver = thread::spawn(move || receive_noise(&mut *server, 1).expect("receive"));
                (sender, receiver)
            })
            .collect();
        for (sender, receiver) in all {
            assert_eq!(sender.join().expect("thread"), receiver.join().expect("thread"));
        }
    }

    fn descriptors_of_a_pipe_that_nobody_uses_are_a_clients(who) {
        let scratch = who.scratch();
        greeter(who, &scratch.join("s"));
        let (relay, port) = limited(who, 24, &[], &scratch.join("s"));
        let before = relay.descriptors();
        let mut first = connect(port);
        hears_hello(&mut first);
        wait_until("a pipe beside the connection", || {
            first.write_all(&[0; 1 << 20]).expect("write");
            relay.descriptors() == before + 4
        });
        // As many as there is room for without it.
        let mut clients: Vec<_> = (0..(24 - before - 2) / 2).map(|_| connect(port)).collect();
        clients.iter_mut().for_each(hears_hello);
    }

    fn a_family_that_this_machine_does_not_have_is_told_at_the_start(who) {
        // The control: the same filter, another family.
        for (refused, code) in [(libc::AF_INET6, 1), (libc::AF_X25, 0)] {
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{}", free_port()), "tcp:[::1]:1"]);
            refusals::in_front(&mut command, &[refuse_value(libc::SYS_socket, 0, refused, libc::EAFNOSUPPORT)]);
            if code == 0 {
                assert_eq!(Relay::spawn(command, &[]).terminate().code(), Some(code));
            } else {
                let ran = srt_tests::run(&mut command);
                ran.code(code).says("").complains("cannot connect to tcp:[::1]:1: Address family not supported").one_clear_error("srt-relay");
            }
        }
    }

    fn what_happens_to_one_client_or_to_the_whole_system_ends_no_relay(who) {
        let waiting = [libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::EACCES, libc::ENOSYS];
        let cases = waiting.map(|errno| (errno, true)).into_iter().chain([(libc::ECONNABORTED, false)]);
        at_once(7, cases, |(errno, waits)| {
            let port = free_port();
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{port}"), "tcp:127.0.0.1:1"]);
            refusals::in_front(&mut command, &[refusals::refuse(libc::SYS_accept4, errno)]);
            let mut relay = Relay::spawn(command, &[]);
            let woken = || status_field(relay.pid(), "voluntary_ctxt_switches");
            // It waits for a client.
            wait_until("it to wait", || Process::find(relay.pid()).is_some_and(|relay| relay.state == 'S'));
            let before = woken();
            let _client = connect(port);
            wait_until("it to have met the client", || !waits || woken() != before);
            thread::sleep(Duration::from_millis(300));
            assert!(relay.child.try_wait().expect("wait").is_none(), "{errno}: {}", relay.stderr());
            if waits {
                relay.is_idle_for(Duration::from_millis(500), 5);
            }
        });
    }

    fn of_two_addresses_that_fail_the_last_ones_reason_is_told(who) {
        if !has_ipv6() {
            skip!("no IPv6 here");
        }
        let (port, dead) = (free_port(), free_port());
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{port}"), &format!("tcp:localhost:{dead}")]);
        // The length of the address is that of an IPv6 one.
        let length = size_of::<libc::sockaddr_in6>() as libc::c_int;
        refusals::in_front(&mut command, &[refuse_value(libc::SYS_connect, 2, length, libc::EPERM)]);
        let relay = Relay::spawn(command, &[]);
        assert!(connect(port).read(&mut [0]).is_err());
        wait_until("a report", || relay.stderr().ends_with('\n'));
        assert!(relay.stderr().contains("Operation not permitted"), "{}", relay.stderr());
    }

    fn a_connection_that_cannot_be_watched_is_reset_and_leaves_nothing(who) {
        let scratch = who.scratch();
        greeter(who, &scratch.join("s"));
        let start = |refused: Option<i32>| {
            let port = free_port();
            let mut command = who.command("srt-relay");
            command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{port}"), &format!("unix:{}", scratch.join("s").display())]);
            if let Some(number) = refused {
                // epoll_ctl(2): ENOSPC is the limit of /proc/sys/fs/epoll/max_user_watches.
                refusals::in_front(&mut command, &[refuse_value(libc::SYS_epoll_ctl, 2, number, libc::ENOSPC)]);
            }
            (Relay::spawn(command, &[]), port)
        };
        // The control, and the numbers that a connection has.
        let (control, port) = start(None);
        let before: BTreeSet<_> = control.open().collect();
        let mut client = connect(port);
        hears_hello(&mut client);
        let number = |link: PathBuf| -> i32 { link.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number") };
        let of_a_connection: Vec<_> = control.open().filter(|link| !before.contains(link)).map(number).collect();
        assert_eq!(of_a_connection.len(), 2);
        for number in of_a_connection {
            let (relay, port) = start(Some(number));
            for _ in 0..3 {
                let error = connect(port).read(&mut [0]).expect_err("reset");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            relay.settles_at(before.len());
        }
    }

    fn pipes_of_those_who_stall_leave_descriptors_for_the_others(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let listener = srt_tests::unix_listener(who, &path);
        let (relay, port) = limited(who, 64, &[], &path);
        let pipes = || -> BTreeSet<_> {
            let names = relay.open().filter_map(|link| std::fs::read_link(link).ok());
            names.filter(|name| name.to_string_lossy().starts_with("pipe:")).collect()
        };
        let before = pipes().len();
        let mut stalled = vec![];
        for _ in 0..10 {
            let client = connect(port);
            let server = listener.accept().expect("accept").0;
            // Until nothing more goes in: nobody reads.
            while has_room(&client, Duration::from_millis(100)) {
                client.set_nonblocking(true).expect("O_NONBLOCK");
                while (&client).write(&[0; 65536]).is_ok() {}
            }
            stalled.push((client, server));
        }
        // A sixteenth of the descriptors.
        let taken = pipes().len() - before;
        assert!((1..=4).contains(&taken), "{taken} pipes");
    }

    fn max_connections_leaves_the_rest_waiting(who) {
        let scratch = who.scratch();
        let present = greeter(who, &scratch.join("s"));
        let (relay, port) = limited(who, 1024, &["--max-connections", "20"], &scratch.join("s"));
        excess_waits(&relay, port, &present, 20);
        // One at a time is a limit too.
        let (_relay, port) = limited(who, 1024, &["--max-connections", "1"], &scratch.join("s"));
        for _ in 0..20 {
            let (mut first, mut second) = (connect(port), connect(port));
            hears_hello(&mut first);
            drop(first);
            hears_hello(&mut second);
        }
        // Two listeners are one limit, also where both have a client at the same moment.
        let ports = [free_port(), free_port()];
        let target = format!("unix:{}", scratch.join("s").display());
        let pairs = ports.map(|port| [format!("tcp:127.0.0.1:{port}"), target.clone()]).concat();
        let both = Relay::start(who, &[vec!["--max-connections".to_owned(), "1".to_owned()], pairs].concat());
        both.signal(libc::SIGSTOP);
        wait_until("it to stop", || Process::find(both.pid()).is_some_and(|relay| relay.state == 'T'));
        let mut clients = ports.map(connect);
        both.signal(libc::SIGCONT);
        let heard = |client: &mut TcpStream| {
            client.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
            client.read(&mut [0; 5]).is_ok_and(|count| count > 0)
        };
        let mut served = 0;
        wait_until("one of them", || {
            served = clients.iter_mut().map(heard).filter(|heard| *heard).count();
            served > 0
        });
        assert_eq!(served, 1);
        drop((clients, both));
        // Also where the relay is woken all the time, for longer than it waits until it looks for room by itself.
        let (mut first, mut second) = (connect(port), connect(port));
        hears_hello(&mut first);
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(50));
            first.write_all(b"x").expect("write");
        }
        hears_nothing(&mut second);
        drop(first);
        hears_hello(&mut second);
    }

    fn a_target_with_a_full_backlog_is_waited_for_without_spinning(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let listener = small_backlog(who, &path);
        // 0: without a limit.
        let (_patient, other) = limited(who, 1024, &["--connect-timeout", "0"], &path);
        let (relay, port) = limited(who, 1024, &[], &path);
        let mut clients: Vec<_> = (0..50).map(|_| connect(port)).chain((0..5).map(|_| connect(other))).collect();
        thread::sleep(Duration::from_millis(300));
        relay.is_idle_for(Duration::from_secs(1), 5);
        thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(b"hello"))));
        clients.iter_mut().for_each(hears_hello);
    }

    fn a_target_that_never_accepts_is_given_up_after_the_connect_timeout(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let _listener = small_backlog(who, &path);
        let (relay, port) = limited(who, 1024, &["--connect-timeout", "0.5"], &path);
        let before = relay.descriptors();
        let start = Instant::now();
        let mut clients: Vec<_> = (0..50).map(|_| connect(port)).collect();
        // Two found a place in the backlog: those are connected, as far as anybody can tell.
        let given_up = clients
            .iter_mut()
            .filter(|client| {
                client.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
                (&mut &**client).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
            })
            .count();
        assert!(given_up >= 40, "{given_up}");
        assert!(start.elapsed() < Duration::from_secs(25));
        wait_until("the report", || relay.stderr().contains("timed out"));
        drop(clients);
        relay.settles_at(before);
    }

    fn a_tcp_target_that_never_answers_is_given_up_after_the_connect_timeout(who) {
        // A full backlog: Linux drops the SYN.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        // SAFETY: two integers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let to = listener.local_addr().expect("address").port();
        let _fill: Vec<_> = (0..3)
            .map(|_| thread::spawn(move || TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, to).into(), Duration::from_secs(3))))
            .collect();
        thread::sleep(Duration::from_millis(200));
        let port = free_port();
        let args = ["--connect-timeout".into(), "1".into(), format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{to}")];
        let relay = Relay::start(who, &args);
        let before = relay.descriptors();
        let given_up_after = || {
            let start = Instant::now();
            let error = connect(port).read(&mut [0]).expect_err("given up");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            start.elapsed()
        };
        // This process may be late.
        let after = (0..5).map(|_| given_up_after()).find(|after| *after < Duration::from_millis(1800));
        assert!(after.is_some_and(|after| after >= Duration::from_secs(1)), "{after:?}");
        wait_until("the report", || relay.stderr().contains("timed out"));
        relay.settles_at(before);
    }

    fn nobody_waits_for_the_answer_to_those_who_came_before(who) {
        // A full backlog: Linux drops the SYNs of all but the first, or the first two.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        // SAFETY: two integers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let (port, to) = (free_port(), listener.local_addr().expect("address").port());
        let relay = Relay::start(who, &[format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{to}")]);
        let _clients: Vec<_> = (0..8).map(|_| connect(port)).collect();
        // proc_pid_net(5), tcp: the remote address, and the state 02 (TCP_SYN_SENT).
        let asked = format!(":{to:04X} 02 ");
        let table = || std::fs::read_to_string("/proc/thread-self/net/tcp").expect("tcp");
        wait_until("an attempt for each", || table().matches(&asked).count() >= 6);
        assert_eq!(relay.stderr(), "");
    }

    fn the_more_connections_there_are_the_less_is_read_of_each(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let (listen, to, trace) = (scratch.join("l"), scratch.join("s"), scratch.join("trace"));
        let listener = srt_tests::unix_listener(who, &to);
        let mut command = who.command("strace");
        command.args(["-D", "-s1", "-e", "trace=read", "-o"]).arg(&trace).args(["srt-relay", "--ready-fd", "1"]);
        command.args([&listen, &to].map(|path| format!("unix:{}", path.display())));
        let relay = Relay::spawn(command, &[]);
        // The size of the buffer, where one byte was read into it. An ordinary user's strace does not see the byte.
        let sizes = || -> Vec<usize> {
            let calls = std::fs::read_to_string(&trace).expect("trace");
            let calls = calls.lines().filter_map(|call| call.strip_suffix(" = 1")?.rsplit_once(", "));
            calls.filter_map(|(_, size)| size.trim_end().strip_suffix(')')?.parse().ok()).collect()
        };
        let say = |client: &mut UnixStream, count| {
            client.write_all(b"x").expect("write");
            wait_until("it to be read", || sizes().len() == count);
        };
        let mut first = UnixStream::connect(&listen).expect("connect");
        let _server = listener.accept().expect("accept");
        let before = relay.descriptors();
        say(&mut first, 1);
        // The others stay in the target's backlog.
        let others: Vec<_> = (1..300).map(|_| UnixStream::connect(&listen).expect("connect")).collect();
        relay.settles_at(before + 2 * others.len());
        say(&mut first, 2);
        drop((others, listener));
        relay.settles_at(before);
        say(&mut first, 3);
        assert_eq!(sizes(), [256 << 10, (64 << 20) / 300, 256 << 10]);
    }
}

/// A Unix listener whose backlog is as small as can be.
fn small_backlog(who: Who, path: &Path) -> UnixListener {
    let listener = srt_tests::unix_listener(who, path);
    // SAFETY: two integers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    // The control: nobody else gets in either.
    let mut streams = vec![];
    loop {
        // SAFETY: three integers.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
        assert!(fd >= 0);
        // SAFETY: new.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_un.
        let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_un>() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_encoded_bytes()) {
            *to = *from as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as u32;
        // SAFETY: an address and its size.
        if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
            break;
        }
        streams.push(UnixStream::from(socket));
    }
    // They are in the backlog until somebody accepts, closed or not.
    drop(streams);
    listener
}
