//! However a connection ends, nothing of it is left: no descriptor, no memory, no stuck peer.

#![allow(clippy::expect_used)]

mod common;

use common::*;
use srt_tests::processes::Process;
use srt_tests::{Scratch, Who, am_root, both, has, has_ipv6, run, skip, wait_until};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A server whose behaviour the first byte of each request chooses.
fn serve(mut stream: Box<dyn Stream>) {
    let mut choice = [0];
    if stream.read_exact(&mut choice).is_err() {
        return;
    }
    let _gone = match choice[0] {
        b'e' => stream.write_all(b"echo"),
        b'c' => Ok(()),
        b'h' => stream.write_all(&[7; 100_000]).map(|()| stream.end()),
        b'w' => {
            let _end = stream.read_to_end(&mut Vec::new());
            stream.write_all(b"late")
        }
        _ => stream.read_to_end(&mut Vec::new()).map(drop),
    };
}

/// One client that ends in the given way; the request's first byte is the server's part.
fn visit(mut stream: TcpStream, way: usize) {
    stream.set_read_timeout(Some(srt_tests::DEADLINE)).expect("timeout");
    let mut answer = Vec::new();
    match way % 10 {
        // Nothing said at all: closed, reset.
        0 => drop(stream),
        1 => reset(stream),
        // A request, and gone without waiting for the answer.
        2 => {
            stream.write_all(b"e").expect("write");
            reset(stream);
        }
        3 => {
            stream.write_all(b"h").expect("write");
            drop(stream);
        }
        // The server closes first, with and without an answer.
        4 => {
            stream.write_all(b"c").expect("write");
            let _reset = stream.read_to_end(&mut answer);
        }
        5 => {
            stream.write_all(b"e").expect("write");
            stream.read_to_end(&mut answer).expect("read");
            assert_eq!(answer, b"echo");
        }
        // Half-closed by the client, answered; and reset after the half-close.
        6 => {
            stream.write_all(b"w").expect("write");
            stream.shutdown(Shutdown::Write).expect("shutdown");
            stream.read_to_end(&mut answer).expect("read");
            assert_eq!(answer, b"late");
        }
        7 => {
            stream.write_all(b"w").expect("write");
            stream.shutdown(Shutdown::Write).expect("shutdown");
            reset(stream);
        }
        // Half-closed by the server, then reset in the middle of the answer.
        8 => {
            stream.write_all(b"h").expect("write");
            stream.read_exact(&mut [0; 1000]).expect("read");
            reset(stream);
        }
        // In the middle of a request.
        _ => {
            let _stalls = stream.set_write_timeout(Some(Duration::from_millis(20)));
            let _some = stream.write_all(&[b'x'; 200_000]);
            reset(stream);
        }
    }
}

struct Served {
    relay: Relay,
    port: u16,
    scratch: Scratch,
}

fn start(who: Who, unix: bool, options: &[&str]) -> Served {
    let scratch = who.scratch();
    let target = if unix {
        let path = scratch.join("s");
        let listener = srt_tests::unix_listener(who, &path);
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(bounded(stream)))))
        });
        format!("unix:{}", path.display())
    } else {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(bounded(stream)))))
        });
        format!("tcp:127.0.0.1:{port}")
    };
    let port = free_port();
    let listen = format!("tcp:127.0.0.1:{port}");
    let args: Vec<&str> = options.iter().copied().chain([listen.as_str(), target.as_str()]).collect();
    Served { relay: Relay::start(who, &args), port, scratch }
}

impl Served {
    fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("connect")
    }
}

/// Runs `count` visits from four threads.
fn visits(port: u16, count: usize) {
    let all: Vec<_> = (0..4)
        .map(|first| {
            thread::spawn(move || {
                for way in (first..count).step_by(4) {
                    visit(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect"), way / 4);
                }
            })
        })
        .collect();
    all.into_iter().for_each(|one| one.join().expect("visits"));
}

fn resident(relay: &Relay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.split_whitespace().next().expect("number").parse().expect("number")
}

#[test]
fn twenty_thousand_connections_that_end_in_ten_ways_leave_nothing() {
    for unix in [true, false] {
        let served = start(Who::User, unix, &[]);
        let before = served.relay.descriptors();
        visits(served.port, 400);
        served.relay.settles_at(before);
        let memory = resident(&served.relay);
        visits(served.port, 20_000);
        served.relay.settles_at(before);
        // The table grows with the connections that are open at once, not with those that have been.
        assert!(resident(&served.relay) <= memory + 256, "{} KiB, then {}", memory, resident(&served.relay));
        visit(served.connect(), 5);
    }
}

/// A relay between two Unix sockets, and both ends of a connection through it.
fn over_unix_sockets(who: Who, scratch: &Scratch) -> (Relay, UnixStream, UnixStream) {
    let (near, far) = (scratch.join("near"), scratch.join("far"));
    let listener = srt_tests::unix_listener(who, &far);
    let relay = Relay::start(who, &[&near, &far].map(|path| format!("unix:{}", path.display())));
    let client = UnixStream::connect(&near).expect("connect");
    client.set_write_timeout(Some(srt_tests::DEADLINE)).expect("timeout");
    client.set_read_timeout(Some(srt_tests::DEADLINE)).expect("timeout");
    let (server, _) = listener.accept().expect("accept");
    (relay, client, server)
}

/// Writes until there is an error, and returns it.
fn write_until_it_fails(stream: &mut UnixStream) -> std::io::Error {
    loop {
        if let Err(error) = stream.write_all(&[0; 4096]) {
            break error;
        }
    }
}

both! {
    fn a_refused_connection_is_reset_and_reported_once_until_one_works_again(who) {
        let port = free_port();
        let to = free_port();
        let (mut events, status) = pipe();
        let addresses = [format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{to}")];
        // On the status descriptor alone, where there is one; here stderr.
        {
            let args = [vec!["--status-fd".into(), "7".into()], addresses.to_vec()].concat();
            let relay = Relay::start_with(who, &args, &[(std::os::fd::AsRawFd::as_raw_fd(&status), 7)]);
            drop(status);
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            assert!(client.read(&mut [0]).is_err());
            let mut event = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(&mut events), &mut event).expect("an event");
            let start = format!(r#"{{"stage":"srt-relay","event":"connect-failed","listen":"tcp:127.0.0.1:{port}","#);
            assert!(event.starts_with(&start), "{event}");
            assert_eq!(relay.stderr(), "");
            assert_eq!(relay.terminate().code(), Some(0));
        }
        let relay = Relay::start_with(who, &addresses, &[]);
        let before = relay.descriptors();
        for _ in 0..50 {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            let error = client.read(&mut [0]).expect_err("a reset, since an end would look like an answer");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        relay.settles_at(before);
        let line = format!("srt-relay: tcp:127.0.0.1:{port}: cannot connect to tcp:127.0.0.1:{to}: Connection refused\n");
        wait_until("the report", || relay.stderr() == line);
        // It works again, and fails again.
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, to)).expect("bind");
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        drop(server.accept().expect("accept"));
        assert_eq!(read_all(&mut client), b"");
        drop((server, client));
        // More than once: a child that another test starts meanwhile keeps the listener until its exec.
        wait_until("the second report", || {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            assert!(client.read(&mut [0]).is_err());
            relay.stderr() == line.repeat(2)
        });
        assert_eq!(relay.terminate().code(), Some(0));
    }

    fn a_target_that_accepts_and_resets_at_once_was_connected_to(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let port = free_port();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let to = server.local_addr().expect("address").port();
        // Between its connect(2) and its next look there is time for all that the server does.
        let mut command = who.command("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", "trace=epoll_pwait", "-e", "inject=epoll_pwait:delay_enter=200000"]);
        command.arg(srt_tests::tool("srt-relay")).args(["--ready-fd", "1"]);
        command.args([format!("tcp:127.0.0.1:{port}"), format!("tcp:localhost:{to}")]);
        let relay = Relay::spawn(command, &[]);
        for answer in [&b""[..], b"answer"] {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            let (mut other, _) = server.accept().expect("accept");
            other.write_all(answer).expect("write");
            reset(other);
            let mut told = vec![];
            let error = client.read_to_end(&mut told).expect_err("a broken stream must not look complete");
            assert_eq!((error.kind(), told.as_slice()), (ErrorKind::ConnectionReset, answer));
        }
        // Behind its end a reset is told as EPIPE; the stream is complete.
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        let (mut other, _) = server.accept().expect("accept");
        other.write_all(b"answer").and_then(|()| other.shutdown(Shutdown::Write)).expect("an answer and its end");
        reset(other);
        assert_eq!(read_all(&mut client), b"answer");
        assert_eq!(relay.stderr(), "");
    }

    fn a_reset_by_one_side_is_a_reset_for_the_other(who) {
        for host in ["127.0.0.1", "[::1]"] {
            if host == "[::1]" && !has_ipv6() {
                skip!("no IPv6 here");
            }
            let (port, to) = (free_port(), free_port());
            let server = TcpListener::bind(format!("{host}:{to}")).expect("bind");
            let relay = Relay::start(who, &[format!("tcp:{host}:{port}"), format!("tcp:{host}:{to}")]);
            let before = relay.descriptors();
            for server_resets in [true, false] {
                let mut client = TcpStream::connect(format!("{host}:{port}")).expect("connect");
                let (mut other, _) = server.accept().expect("accept");
                client.write_all(b"x").expect("write");
                other.read_exact(&mut [0]).expect("read");
                let mut left = if server_resets {
                    reset(other);
                    client
                } else {
                    reset(client);
                    other
                };
                let error = left.read(&mut [0]).expect_err("a broken stream must not look complete");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            relay.settles_at(before);
        }
    }

    fn a_reset_is_one_for_the_other_side_also_where_a_write_meets_it_first(who) {
        let setup = Setup::new(who, Way::TcpToTcp);
        let before = setup.relay.descriptors();
        for client_resets in [true, false] {
            let (client, server) = setup.pair();
            let (mut gone, mut left) = if client_resets { (client, server) } else { (server, client) };
            // All is full: the relay reads no reset before it has written what comes the other way.
            while has_room(gone.as_ref(), Duration::from_millis(500)) {
                gone.write_all(&[7; 4096]).expect("write");
            }
            reset_on_close(gone.as_ref());
            drop(gone);
            left.write_all(b"x").expect("write");
            let error = left.read_to_end(&mut vec![]).expect_err("a broken stream must not look complete");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        setup.relay.settles_at(before);
    }

    fn a_stream_that_breaks_otherwise_does_not_look_complete_either(who) {
        if !am_root() {
            skip!("SOCK_DESTROY is root's");
        }
        let port = free_port();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let to = server.local_addr().expect("address").port();
        let _relay = Relay::start(who, &[format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{to}")]);
        for upload in [false, true] {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            let (mut other, _) = server.accept().expect("accept");
            other.write_all(b"a part").expect("write");
            client.read_exact(&mut [0; 6]).expect("read");
            while upload && has_room(&client, Duration::from_millis(500)) {
                client.write_all(&[7; 4096]).expect("write");
            }
            // The relay's socket is told ECONNABORTED, once: to a write if there is something to write.
            let killed = run(Command::new("ss").args(["-HtnK", "dst", &format!("127.0.0.1:{to}")]));
            assert!(killed.ok().out.contains("ESTAB"), "{killed:#?}");
            let error = client.read(&mut [0]).expect_err("a broken stream must not look complete");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }

    fn what_was_sent_before_a_server_closes_with_unread_bytes_is_delivered(who) {
        let served = start(who, true, &[]);
        // The server reads one byte, answers and closes: the rest of the request is unread, which is
        // ECONNRESET on a Unix socket, behind the answer.
        for _ in 0..100 {
            let mut client = served.connect();
            client.write_all(b"e and much more").expect("write");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).expect("the answer");
            assert_eq!(&answer, b"echo");
        }
    }

    fn a_reader_that_is_slow_loses_nothing_to_bytes_that_its_server_has_not_read(who) {
        let (scratch, answer) = (who.scratch(), vec![7; 150_000]);
        let listener = srt_tests::unix_listener(who, scratch.join("s"));
        let port = free_port();
        let target = format!("unix:{}", scratch.join("s").display());
        let _relay = Relay::start(who, &[format!("tcp:127.0.0.1:{port}"), target]);
        for unread in [&b""[..], b"unread"] {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
            let (mut server, _) = listener.accept().expect("accept");
            client.write_all(&[b"x", unread].concat()).expect("write");
            server.read_exact(&mut [0]).expect("a request");
            server.write_all(&answer).expect("the answer");
            drop(server);
            // Most of it is in the queue of the relay's socket by then.
            thread::sleep(Duration::from_millis(300));
            assert!(read_all(&mut client) == answer, "{unread:?}");
        }
    }

    fn a_target_where_nobody_listens_is_not_the_relay_itself(who) {
        // Of the two ports that the kernel gives away here one is the target.
        let outer = "ip link set lo up && echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
        let try_it = "
import socket, subprocess, sys, time
relay = subprocess.Popen(['srt-relay', '--ready-fd', '1', 'unix:' + sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
relay.stdout.read()
for _ in range(50):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    try:
        client.sendall(b'x')
        said = client.recv(1)
    except OSError: said = b''
    if said: print('it said', said)
for attempt in range(100):
    family, host = (socket.AF_INET6, '::1') if '::1' in sys.argv[2] else (socket.AF_INET, '127.0.0.1')
    try: socket.socket(family).bind((host, 40000))
    except OSError: time.sleep(0.01)
    else: break
else: print('the port is taken')
relay.terminate()";
        for target in ["tcp:127.0.0.1:40000", "tcp:0.0.0.0:40000", "tcp:[::1]:40000"] {
            if target.contains('[') && !has_ipv6() {
                skip!("no IPv6 here");
            }
            let scratch = who.scratch();
            let mut command = who.command("unshare");
            command.args(if who == Who::Root { &["--net"][..] } else { &["-Urn"] }).args(["sh", "-c", outer, "sh", "python3", "-c", try_it]);
            let ran = run(command.arg(scratch.join("p")).arg(target));
            // One failure that lasts is reported once.
            ran.ok().says("").complains("Connection refused");
        }
    }

    fn a_target_that_is_gone_altogether_frees_the_connection_while_the_client_is_still_there(who) {
        let served = start(who, true, &[]);
        let before = served.relay.descriptors();
        let mut clients: Vec<_> = (0..50).map(|_| served.connect()).collect();
        for client in &mut clients {
            client.write_all(b"e").expect("write");
            assert_eq!(read_all(client), b"echo");
        }
        served.relay.settles_at(before);
    }

    fn a_server_that_reads_no_more_is_told_to_its_client_and_goes_on_sending(who) {
        let scratch = who.scratch();
        let (_relay, mut client, mut server) = over_unix_sockets(who, &scratch);
        server.shutdown(Shutdown::Read).expect("shutdown");
        assert_eq!(write_until_it_fails(&mut client).kind(), ErrorKind::BrokenPipe);
        server.write_all(b"late").expect("write");
        drop(server);
        // Behind it comes an end, or a reset for what the client has sent in vain (unix_release_sock() in net/unix/af_unix.c).
        let mut late = [0; 4];
        client.read_exact(&mut late).expect("the answer");
        assert_eq!(&late, b"late");
    }

    fn a_server_that_has_closed_is_told_to_a_client_that_has_yet_to_read_its_answer(who) {
        let scratch = who.scratch();
        let (relay, mut client, mut server) = over_unix_sockets(who, &scratch);
        // All that there is room for: part of it has yet to leave the relay when the server closes.
        server.set_nonblocking(true).expect("O_NONBLOCK");
        let mut answer = 0;
        while has_room(&server, Duration::from_millis(300)) {
            while let Ok(count) = server.write(&[7; 4096]) {
                answer += count;
            }
        }
        drop(server);
        // The close has made it runnable. What the client sends before it has looked would tell it the same.
        let waits = || Process::find(relay.pid()).is_some_and(|relay| relay.state == 'S');
        wait_until("the relay to see the end", waits);
        assert_eq!(write_until_it_fails(&mut client).kind(), ErrorKind::BrokenPipe);
        let mut told = vec![0; answer];
        client.read_exact(&mut told).expect("the answer");
        assert!(told.iter().all(|byte| *byte == 7));
    }

    fn a_client_that_is_gone_after_its_half_close_frees_the_connection(who) {
        let scratch = who.scratch();
        let path = scratch.join("s");
        let listener = srt_tests::unix_listener(who, &path);
        let port = free_port();
        let relay = Relay::start(who, &[format!("tcp:127.0.0.1:{port}"), format!("unix:{}", path.display())]);
        let before = relay.descriptors();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(read_all(&mut server), b"");
        reset(client);
        // Nobody has said a word since.
        relay.settles_at(before);
        assert!(server.write_all(b"x").is_err());
    }

    fn a_client_may_close_after_the_servers_half_close(who) {
        let served = start(who, false, &[]);
        let before = served.relay.descriptors();
        for _ in 0..20 {
            let mut client = served.connect();
            client.write_all(b"h").expect("write");
            assert_eq!(read_all(&mut client).len(), 100_000);
            drop(client);
        }
        served.relay.settles_at(before);
        drop(served.scratch);
    }

    fn a_peer_that_is_silent_for_the_idle_timeout_is_dropped(who) {
        let served = start(who, true, &["--idle-timeout", "1"]);
        let before = served.relay.descriptors();
        // Kept alive by whatever it says, and dropped after a second, with the pipe that so much takes; unless this
        // process is late.
        let dropped_after = || {
            let mut client = served.connect();
            let mut start = Instant::now();
            for _ in 0..16 {
                thread::sleep(Duration::from_millis(150));
                start = Instant::now();
                client.write_all(&[b'x'; 1 << 20]).ok()?;
            }
            let error = client.read(&mut [0]).expect_err("dropped");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            Some(start.elapsed())
        };
        let in_time = |after: &Duration| (900..1800).contains(&after.as_millis());
        (0..5).filter_map(|_| dropped_after()).find(in_time).expect("one in time");
        served.relay.settles_at(before);
        served.relay.is_idle_for(Duration::from_millis(500), 1);
    }

    fn no_idle_timeout_drops_nobody(who) {
        let served = start(who, true, &["--idle-timeout", "0"]);
        let mut client = served.connect();
        client.write_all(b"w").expect("write");
        thread::sleep(Duration::from_millis(1500));
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(read_all(&mut client), b"late");
    }
}

#[test]
fn unix_clients_are_told_of_a_refusal_by_the_end_of_the_stream() {
    let scratch = Who::User.scratch();
    let path = scratch.join("listen");
    let relay = Relay::start(
        Who::User,
        &[format!("unix:{}", path.display()), format!("tcp:127.0.0.1:{}", free_port())],
    );
    let before = relay.descriptors();
    for _ in 0..50 {
        let mut client = UnixStream::connect(&path).expect("connect");
        // Unix sockets have no reset of their own.
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    }
    relay.settles_at(before);
}
