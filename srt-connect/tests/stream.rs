//! The tunnel: bytes both ways without loss, half-close, and who may be slow or gone.

#![allow(clippy::expect_used)]

mod common;

use common::{Call, Scripted, connect, start, start_with};
use srt_tests::noise::Noise;
use srt_tests::{
    DEADLINE, Scratch, both, is_ready, processes, run, run_with_input, unix_listener, wait, wait_until,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

const UP: u64 = 0x9e37_79b9_7f4a_7c15;
const DOWN: u64 = 0xc2b2_ae3d_27d4_eb4f;
/// 100 MB each way.
const BULK: usize = 100_000_000;

/// A peer that sends and receives so much at the same time, each with its own end.
fn exchange(call: &mut Call, length: usize) -> bool {
    let mut sender = call.stream.try_clone().expect("clone");
    let feeder = std::thread::spawn(move || {
        sender.write_all(&Noise::first(DOWN, length)).expect("write");
        sender.shutdown(Shutdown::Write).expect("shutdown");
    });
    let mut got = vec![];
    call.stream.read_to_end(&mut got).expect("read");
    feeder.join().expect("feeder");
    got == Noise::first(UP, length)
}

/// A proxy behind which is [`exchange`], and what came of it.
fn exchanging(length: usize) -> (Scripted, Receiver<bool>) {
    let (tell, told) = channel();
    let proxy = Scripted::start(move |mut call| {
        call.open();
        tell.send(exchange(&mut call, length)).expect("send");
    });
    (proxy, told)
}

fn feed(mut to: impl Write + Send + 'static, length: usize) -> JoinHandle<()> {
    std::thread::spawn(move || to.write_all(&Noise::first(UP, length)).expect("write"))
}

/// A proxy on a Unix socket, and what it does with a caller whose request has begun. Its URL.
fn unix_proxy(scratch: &Scratch, peer: impl FnOnce(UnixStream) + Send + 'static) -> String {
    let path = scratch.join("proxy");
    let listener = UnixListener::bind(&path).expect("bind");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        // All of it: a Unix socket that is closed with something unread in it is a reset for its peer.
        let mut request = vec![];
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("read");
            request.extend(byte);
        }
        peer(stream);
    });
    format!("http+unix:{}", path.display())
}

#[track_caller]
fn ended_well(child: &mut Child) {
    let status = wait(child, "srt-connect");
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint).expect("UTF-8");
    }
    assert!(status.success() && complaint.is_empty(), "{status:?} {complaint}");
}

fn is_asleep(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("stat");
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S "))
}

fn stays_asleep(child: &Child) -> bool {
    (0..20).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        is_asleep(child)
    })
}

fn idles_until_stdin_ends(mut child: Child) {
    wait_until("it to sleep", || is_asleep(&child));
    assert!(stays_asleep(&child), "it does something while nothing happens");
    drop(child.stdin.take());
    ended_well(&mut child);
}

both! {
    fn a_hundred_megabytes_go_each_way_through_pipes(who) {
        let (proxy, told) = exchanging(BULK);
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let feeder = feed(child.stdin.take().expect("stdin"), BULK);
        let mut got = vec![];
        child.stdout.take().expect("stdout").read_to_end(&mut got).expect("read");
        feeder.join().expect("feeder");
        assert!(got == Noise::first(DOWN, BULK), "{} bytes came", got.len());
        assert!(told.recv_timeout(DEADLINE).expect("the peer's word"));
        ended_well(&mut child);
    }

    fn the_same_through_one_socket_as_stdin_and_stdout(who) {
        const LENGTH: usize = 20_000_000;
        let (proxy, told) = exchanging(LENGTH);
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let both = [theirs.try_clone().expect("clone"), theirs].map(OwnedFd::from);
        let [stdin, stdout] = both.map(Stdio::from);
        let mut command = connect(who, &proxy.url("http"));
        let mut child = command.args(["a", "1"]).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().expect("spawn");
        let mut sender = ours.try_clone().expect("clone");
        let feeder = std::thread::spawn(move || {
            sender.write_all(&Noise::first(UP, LENGTH)).expect("write");
            sender.shutdown(Shutdown::Write).expect("shutdown");
        });
        // `command` has its copies of the socket open: the end comes by shutdown(2), or not at all.
        let mut got = vec![];
        (&ours).read_to_end(&mut got).expect("read");
        feeder.join().expect("feeder");
        assert!(got == Noise::first(DOWN, LENGTH), "{} bytes came", got.len());
        assert!(told.recv_timeout(DEADLINE).expect("the peer's word"));
        ended_well(&mut child);
    }

    fn the_same_through_files(who) {
        const LENGTH: usize = 20_000_000;
        let (proxy, told) = exchanging(LENGTH);
        let scratch = who.scratch();
        let (input, output) = (scratch.file("in", Noise::first(UP, LENGTH)), scratch.file("out", ""));
        let open = std::fs::File::options().append(true).open(&output).expect("open");
        let mut command = connect(who, &proxy.url("http"));
        command.args(["a", "1"]).stdin(std::fs::File::open(input).expect("open")).stdout(open).stderr(Stdio::piped());
        ended_well(&mut command.spawn().expect("spawn"));
        assert!(std::fs::read(output).expect("read") == Noise::first(DOWN, LENGTH));
        assert!(told.recv_timeout(DEADLINE).expect("the peer's word"));
    }

    fn the_same_through_a_proxy_on_a_unix_socket(who) {
        const LENGTH: usize = 20_000_000;
        let scratch = who.scratch();
        let path = scratch.join("proxy");
        let listener = unix_listener(who, &path);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("read");
                head.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("write");
            let mut sender = stream.try_clone().expect("clone");
            let feeder = std::thread::spawn(move || {
                sender.write_all(&Noise::first(DOWN, LENGTH)).expect("write");
                sender.shutdown(Shutdown::Write).expect("shutdown");
            });
            let mut got = vec![];
            stream.read_to_end(&mut got).expect("read");
            feeder.join().expect("feeder");
            got == Noise::first(UP, LENGTH)
        });
        let mut child = start(connect(who, &format!("http+unix:{}", path.display())).args(["a", "1"]));
        let feeder = feed(child.stdin.take().expect("stdin"), LENGTH);
        let mut got = vec![];
        child.stdout.take().expect("stdout").read_to_end(&mut got).expect("read");
        feeder.join().expect("feeder");
        assert!(got == Noise::first(DOWN, LENGTH), "{} bytes came", got.len());
        assert!(server.join().expect("server"));
        ended_well(&mut child);
    }

    /// socat cuts this reply after half a second.
    fn a_reply_that_comes_long_after_the_requests_end_comes(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            let mut request = String::new();
            call.stream.read_to_string(&mut request).expect("read");
            std::thread::sleep(std::time::Duration::from_millis(1500));
            call.say(format!("you said {request}").as_bytes());
        });
        run_with_input(connect(who, &proxy.url("http")).args(["a", "1"]), b"hello").ok().says("you said hello");
    }

    fn the_peers_end_is_told_while_stdin_goes_on(who) {
        let (tell, told) = channel();
        let proxy = Scripted::start(move |mut call| {
            call.open();
            call.say(b"the last word");
            call.stream.shutdown(Shutdown::Write).expect("shutdown");
            let mut rest = String::new();
            call.stream.read_to_string(&mut rest).expect("read");
            tell.send(rest).expect("send");
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
        assert_eq!(out, "the last word");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"and yet I speak").expect("write");
        drop(stdin);
        assert_eq!(told.recv_timeout(DEADLINE).expect("the rest"), "and yet I speak");
        ended_well(&mut child);
    }

    /// With a blocking write to stdout this stands still for ever: the one who should read it is busy writing.
    fn a_reader_that_writes_first_is_no_deadlock(who) {
        const LENGTH: usize = 10_000_000;
        let (proxy, told) = exchanging(LENGTH);
        for socket in [false, true] {
            let mut command = connect(who, &proxy.url("http"));
            command.args(["a", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
            if socket {
                command.stdout(OwnedFd::from(theirs));
            }
            let mut child = command.spawn().expect("spawn");
            // Only when all of stdin is gone is the first byte of stdout read.
            feed(child.stdin.take().expect("stdin"), LENGTH).join().expect("all of stdin is taken");
            drop(command);
            let mut got = vec![];
            match child.stdout.take() {
                Some(mut stdout) => stdout.read_to_end(&mut got),
                None => ours.read_to_end(&mut got),
            }
            .expect("read");
            assert!(got == Noise::first(DOWN, LENGTH), "{} bytes came", got.len());
            assert!(told.recv_timeout(DEADLINE).expect("the peer's word"));
            ended_well(&mut child);
        }
    }

    fn a_peer_that_reads_nothing_holds_up_nobody_else(who) {
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        let proxy = Scripted::start(move |mut call| {
            call.open();
            for _ in 0..1000 {
                call.say(&[b'x'; 10_000]);
            }
            gone.lock().expect("lock").recv().expect("go");
            let mut rest = vec![];
            call.stream.read_to_end(&mut rest).expect("read");
            call.say(rest.len().to_string().as_bytes());
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let feeder = feed(child.stdin.take().expect("stdin"), 20_000_000);
        let mut stdout = child.stdout.take().expect("stdout");
        let mut got = vec![0; 10_000_000];
        stdout.read_exact(&mut got).expect("all comes down while nothing goes up");
        go.send(()).expect("send");
        let mut out = String::new();
        stdout.read_to_string(&mut out).expect("UTF-8");
        assert_eq!(out, "20000000");
        feeder.join().expect("feeder");
        ended_well(&mut child);
    }

    /// splice(2) stops at a TCP urgent mark for ever, while poll(2) reports what is behind it.
    fn urgent_data_stops_nothing(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            for _ in 0..3 {
                call.say(b"before ");
                // SAFETY: one byte of a static string.
                let sent = unsafe { libc::send(call.stream.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
                assert_eq!(sent, 1);
                call.say(b"after ");
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
        assert_eq!(out.replace('!', ""), "before after before after before after ");
        drop(child.stdin.take());
        ended_well(&mut child);
    }

    /// Behind an urgent mark and before the end: splice(2) says 0 at the mark once the peer has closed.
    fn what_follows_urgent_data_at_the_end_is_not_lost(who) {
        let (closed, has_closed) = channel();
        let proxy = Scripted::start(move |mut call| {
            call.open();
            // More than the pipe that nobody reads takes.
            call.say(&[b'x'; 100_000]);
            // SAFETY: one byte of a static string.
            let sent = unsafe { libc::send(call.stream.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
            assert_eq!(sent, 1);
            call.say(b"after");
            call.stream.shutdown(Shutdown::Write).expect("shutdown");
            closed.send(()).expect("send");
            let mut rest = vec![];
            call.stream.read_to_end(&mut rest).expect("read");
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        has_closed.recv_timeout(DEADLINE).expect("the peer has closed");
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
        assert_eq!(out.trim_start_matches('x').replace('!', ""), "after");
        drop(child.stdin.take());
        ended_well(&mut child);
    }

    /// What splice(2) does not move is written as far as there is room.
    fn what_is_written_to_a_pipe_with_little_room_holds_up_nobody_else(who) {
        const FULL: usize = 65536;
        let ((all_is_sent, sent), (tell, told)) = (channel(), channel());
        let proxy = Scripted::start(move |mut call| {
            call.open();
            // SAFETY: one byte of a static string.
            let sent = unsafe { libc::send(call.stream.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
            assert_eq!(sent, 1);
            call.say(&[b'x'; 10_000]);
            all_is_sent.send(()).expect("send");
            tell.send(call.exactly(4)).expect("send");
        });
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(&[b'p'; FULL]).expect("fill the pipe");
        let held = |reader: &std::io::PipeReader| {
            let mut count: libc::c_int = 0;
            // SAFETY: FIONREAD fills an integer.
            assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut count) }, 0);
            count as usize
        };
        let mut command = connect(who, &proxy.url("http"));
        command.args(["a", "1"]).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        drop(command);
        sent.recv_timeout(DEADLINE).expect("the peer has sent all");
        // Of sixteen pages one.
        reader.read_exact(&mut [0; 4096]).expect("read");
        wait_until("a full pipe", || held(&reader) == FULL);
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"ping").expect("write");
        assert_eq!(told.recv_timeout(DEADLINE).expect("what stdin said"), b"ping");
        let mut rest = vec![];
        reader.read_to_end(&mut rest).expect("read");
        assert_eq!(rest.iter().filter(|&&byte| byte == b'x').count(), 10_000);
        drop(stdin);
        ended_well(&mut child);
    }

    fn an_idle_tunnel_uses_no_cpu(who) {
        let (tell, told) = channel();
        let proxy = Scripted::start(move |mut call| {
            call.open();
            call.say(b"hello");
            // Urgent data is what would make it spin.
            // SAFETY: one byte of a static string.
            unsafe { libc::send(call.stream.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
            call.say(b"there");
            tell.send(()).expect("send");
            call.stream.read_to_end(&mut vec![]).expect("read");
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        told.recv_timeout(DEADLINE).expect("the tunnel");
        let mut hello = [0; 10];
        child.stdout.as_mut().expect("stdout").read_exact(&mut hello).expect("read");
        idles_until_stdin_ends(child);
    }

    fn a_tunnel_that_was_slower_than_stdin_uses_no_cpu_once_all_is_out(who) {
        const LENGTH: usize = 4 << 20;
        let (go, told) = channel();
        let told = Mutex::new(told);
        let (tell, done) = channel();
        let proxy = Scripted::start(move |mut call| {
            call.open();
            told.lock().expect("lock").recv_timeout(DEADLINE).expect("the pipe to be full");
            call.exactly(LENGTH);
            tell.send(()).expect("send");
            call.stream.read_to_end(&mut vec![]).expect("read");
        });
        let child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let feeder = feed(child.stdin.as_ref().expect("stdin").as_fd().try_clone_to_owned().map(std::fs::File::from).expect("clone"), LENGTH);
        wait_until("it to wait for the tunnel", || stays_asleep(&child));
        go.send(()).expect("send");
        done.recv_timeout(DEADLINE).expect("all of it");
        feeder.join().expect("feeder");
        idles_until_stdin_ends(child);
    }

    /// O_NONBLOCK is a property of the open file, not of the descriptor: the shell's terminal would get it too.
    fn what_the_caller_shares_stays_blocking(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            call.say(b"hello");
            call.stream.read_to_end(&mut vec![]).expect("read");
        });
        let (stdin, writer) = std::io::pipe().expect("pipe");
        let (mut reader, stdout) = std::io::pipe().expect("pipe");
        let mut command = connect(who, &proxy.url("http"));
        let copies = (stdin.try_clone().expect("clone"), stdout.try_clone().expect("clone"));
        let mut child = command.args(["a", "1"]).stdin(copies.0).stdout(copies.1).stderr(Stdio::piped()).spawn().expect("spawn");
        let mut hello = [0; 5];
        reader.read_exact(&mut hello).expect("read");
        for fd in [stdin.as_raw_fd(), stdout.as_raw_fd()] {
            // SAFETY: no pointer.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
            assert!(flags >= 0 && flags & libc::O_NONBLOCK == 0);
        }
        drop((writer, command));
        ended_well(&mut child);
    }

    /// And what the caller made not to block is no reason to fail or to spin.
    fn what_the_caller_made_nonblocking_works(who) {
        let (proxy, told) = exchanging(3_000_000);
        let (stdin, writer) = std::io::pipe().expect("pipe");
        let (mut reader, stdout) = std::io::pipe().expect("pipe");
        for fd in [stdin.as_raw_fd(), stdout.as_raw_fd()] {
            // SAFETY: an integer.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        }
        let mut command = connect(who, &proxy.url("http"));
        let mut child = command.args(["a", "1"]).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().expect("spawn");
        drop(command);
        let feeder = feed(writer, 3_000_000);
        let mut got = vec![];
        reader.read_to_end(&mut got).expect("read");
        assert!(got == Noise::first(DOWN, 3_000_000));
        feeder.join().expect("feeder");
        assert!(told.recv_timeout(DEADLINE).expect("the peer's word"));
        ended_well(&mut child);
    }

    fn an_output_that_takes_no_more_is_an_error_after_the_end_of_stdin_too(who) {
        let scratch = who.scratch();
        let file = scratch.join("out");
        for (before, output, complaint) in [
            ("", "/dev/full", "cannot write to stdout: No space left on device"),
            ("ulimit -f 50; trap '' XFSZ;", file.to_str().expect("UTF-8"), "cannot write to stdout: File too large"),
        ] {
            let proxy = Scripted::start(|mut call| {
                call.open();
                let _gone = call.stream.write_all(&[7; 300_000]);
            });
            let script = format!("{before} exec srt-connect --proxy {} a 1 </dev/null >{output}", proxy.url("http"));
            run(who.command("sh").args(["-c", &script])).code(1).complains(complaint).one_clear_error("srt-connect");
        }
    }

    fn an_input_that_cannot_be_read_is_an_error(who) {
        for (input, code) in [("/", 1), ("/dev/null", 0)] {
            let proxy = Scripted::start(|mut call| {
                call.open();
                let _all = call.stream.read_to_end(&mut vec![]);
            });
            let script = format!("exec srt-connect --proxy {} a 1 <{input}", proxy.url("http"));
            let ran = run(who.command("sh").args(["-c", &script]));
            ran.code(code);
            if code != 0 {
                ran.one_clear_error("srt-connect").complains("cannot read stdin: Is a directory");
            }
        }
    }

    fn bytes_that_nobody_reads_are_an_error(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            while call.stream.write_all(&[b'x'; 10_000]).is_ok() {}
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let mut stdout = child.stdout.take().expect("stdout");
        stdout.read_exact(&mut [0; 10]).expect("read");
        drop(stdout);
        assert_eq!(wait(&mut child, "srt-connect").code(), Some(1), "though stdin is open");
        let mut complaint = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("UTF-8");
        assert_eq!(complaint, "srt-connect: cannot write to stdout: Broken pipe\n");
    }

    fn bytes_that_nobody_reads_are_no_error_once_stdin_is_done(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            while call.stream.write_all(&[b'x'; 10_000]).is_ok() {}
        });
        let mut child = start_with(connect(who, &proxy.url("http")).args(["a", "1"]), Stdio::null());
        let mut stdout = child.stdout.take().expect("stdout");
        stdout.read_exact(&mut [0; 10]).expect("read");
        drop(stdout);
        ended_well(&mut child);
    }

    fn what_stdin_says_is_sent_though_nobody_reads_stdout_any_more(who) {
        let (tell, told) = channel();
        let proxy = Scripted::start(move |mut call| {
            call.open();
            call.say(b"hello");
            let mut all = String::new();
            call.stream.read_to_string(&mut all).expect("read");
            tell.send(all).expect("send");
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        child.stdout.as_mut().expect("stdout").read_exact(&mut [0; 5]).expect("read");
        drop(child.stdout.take());
        wait_until("it to wait for stdin", || stays_asleep(&child));
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"late").expect("it is still there");
        drop(stdin);
        assert_eq!(told.recv_timeout(DEADLINE).expect("all"), "late");
        ended_well(&mut child);
    }

    /// What an ssh client leaves behind that was killed: nobody, on both sides.
    fn a_caller_that_is_gone_is_a_quiet_end(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            call.say(b"hello");
            // The peer does not care for the end that it reads.
            call.stream.read_to_end(&mut vec![]).expect("read");
            std::thread::sleep(10 * DEADLINE);
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        child.stdout.as_mut().expect("stdout").read_exact(&mut [0; 5]).expect("read");
        drop((child.stdin.take(), child.stdout.take()));
        ended_well(&mut child);
    }

    /// It closes the one and then the other: the peer's next words may come between.
    fn a_caller_that_takes_its_time_to_go_is_a_quiet_end(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            while call.stream.write_all(b"hello").is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        // On a busy machine it may take too long.
        let is_quiet = || {
            let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
            let (stdin, mut stdout) = (child.stdin.take(), child.stdout.take().expect("stdout"));
            stdout.read_exact(&mut [0; 5]).expect("read");
            drop(stdout);
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(stdin);
            wait(&mut child, "srt-connect").success()
        };
        assert!((0..10).any(|_| is_quiet()));
    }

    fn a_peer_that_is_gone_ends_it_though_stdin_is_open(who) {
        // A Unix socket tells a closed peer from one that only stopped sending.
        let scratch = who.scratch();
        let url = unix_proxy(&scratch, |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbye").expect("write");
        });
        let mut child = start(connect(who, &url).args(["example.org", "22"]));
        let mut out = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
        assert_eq!(out, "bye");
        // Stdin still is open.
        ended_well(&mut child);
    }

    fn stopped_while_it_connects_it_goes_on(who) {
        let scratch = who.scratch();
        let path = scratch.join("proxy");
        let listener = unix_listener(who, &path);
        // SAFETY: integers. Room for one client, which is the first.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let _first = UnixStream::connect(&path).expect("connect");
        let mut child = start(connect(who, &format!("http+unix:{}", path.display())).args(["example.org", "22"]));
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
        let connects = || of("syscall").starts_with(&format!("{} ", libc::SYS_connect));
        wait_until("the call of connect(2)", connects);
        processes::kill(child.id() as i32, libc::SIGSTOP);
        wait_until("the stop", || of("stat").contains(") T "));
        processes::kill(child.id() as i32, libc::SIGCONT);
        wait_until("the call of connect(2), again", connects);
        let _second = listener.accept().expect("accept");
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        let mut accepted = None;
        wait_until("its connection", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (mut stream, _) = accepted.expect("it is there");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("write");
        drop(child.stdin.take());
        stream.shutdown(Shutdown::Write).expect("shutdown");
        stream.read_to_end(&mut vec![]).expect("read");
        ended_well(&mut child);
    }

    fn stopped_while_it_connects_it_has_no_more_time(who) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        // SAFETY: integers. Room for one; the SYN of the next is dropped.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().expect("address");
        let _first = std::net::TcpStream::connect(address).expect("connect");
        let mut child = start(connect(who, &format!("http://{address}")).args(["--timeout", "2", "example.org", "22"]));
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
        wait_until("the call of connect(2)", || of("syscall").starts_with(&format!("{} ", libc::SYS_connect)));
        processes::kill(child.id() as i32, libc::SIGSTOP);
        wait_until("the stop", || of("stat").contains(") T "));
        std::thread::sleep(std::time::Duration::from_millis(1700));
        let went_on = std::time::Instant::now();
        processes::kill(child.id() as i32, libc::SIGCONT);
        assert_eq!(wait(&mut child, "srt-connect").code(), Some(1));
        // Not two more seconds.
        assert!(went_on.elapsed() < std::time::Duration::from_millis(1900), "{:?}", went_on.elapsed());
        let mut said = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut said).expect("UTF-8");
        assert!(said.contains("not done within 2 s\nsrt-connect: hint: --timeout"), "{said}");
    }

    fn a_descriptor_that_the_proxy_sends_is_refused(who) {
        // Closing it may take as long as its SO_LINGER says. Linux 6.16 has SO_PASSRIGHTS.
        let scratch = who.scratch();
        let path = scratch.join("proxy");
        let proxy = "import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print('bound', flush=True)
peer = server.accept()[0]
peer.recv(1000)
pair = socket.socketpair()
for peer in peer, pair[0]:
    try: print(socket.send_fds(peer, [b'x'], [0]))
    except OSError as error: print(-error.errno)";
        let mut python = start(who.command("/usr/bin/python3").args(["-c", proxy]).arg(&path));
        let mut said = std::io::BufReader::new(python.stdout.take().expect("stdout"));
        std::io::BufRead::read_line(&mut said, &mut String::new()).expect("bound");
        let ran = run(connect(who, &format!("http+unix:{}", path.display())).args(["example.org", "22"]));
        ran.code(1).one_clear_error("srt-connect");
        let mut answers = String::new();
        said.read_to_string(&mut answers).expect("UTF-8");
        wait(&mut python, "python3");
        assert_eq!(answers, if srt_tests::linux_at_least([6, 16]) { "-1\n1\n" } else { "1\n1\n" });
    }

    fn what_a_peer_that_listens_no_more_has_not_taken_is_an_error(who) {
        let scratch = who.scratch();
        let url = unix_proxy(&scratch, |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("write");
            // Some of stdin has come, and more is at hand than a socket holds. What is unread would be a reset.
            stream.read_exact(&mut [0; 100]).expect("read");
            stream.shutdown(Shutdown::Read).expect("shutdown");
            stream.read_to_end(&mut vec![]).expect("read");
            stream.write_all(b"bye").expect("write");
        });
        // Of a file there is always something at hand.
        let input = std::fs::File::open(scratch.file("input", vec![b'x'; 4 << 20])).expect("open");
        let ran = run(connect(who, &url).args(["example.org", "22"]).stdin(input));
        ran.code(1).says("bye").one_clear_error("srt-connect").complains("the peer closed before all of stdin was sent: Broken pipe");
    }

    fn a_reset_is_an_error(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            call.say(b"hello");
            call.exactly(5);
            common::reset(&call.stream);
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        child.stdout.as_mut().expect("stdout").read_exact(&mut [0; 5]).expect("read");
        child.stdin.as_mut().expect("stdin").write_all(b"hello").expect("write");
        assert_eq!(wait(&mut child, "srt-connect").code(), Some(1));
        let mut complaint = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("UTF-8");
        assert_eq!(complaint, "srt-connect: the connection broke: Connection reset by peer\n");
    }

    fn a_reset_while_stdin_has_more_says_what_was_not_sent(who) {
        let (go, told) = channel();
        let told = Mutex::new(told);
        let proxy = Scripted::start(move |mut call| {
            call.open();
            told.lock().expect("lock").recv_timeout(DEADLINE).expect("the pipe to be full");
            common::reset(&call.stream);
        });
        let mut child = start(connect(who, &proxy.url("http")).args(["a", "1"]));
        let mut stdin = child.stdin.take().expect("stdin");
        let pipe = stdin.as_fd().try_clone_to_owned().expect("dup");
        let feeder = std::thread::spawn(move || stdin.write_all(&vec![0; 64 << 20]).is_err());
        // Until the socket and the pipe are full.
        wait_until("it to wait for the tunnel", || stays_asleep(&child) && !is_ready(&pipe, libc::POLLOUT));
        go.send(()).expect("send");
        assert_eq!(wait(&mut child, "srt-connect").code(), Some(1));
        assert!(feeder.join().expect("feeder"));
        let mut complaint = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("UTF-8");
        assert_eq!(complaint, "srt-connect: the peer closed before all of stdin was sent: Connection reset by peer\n");
    }

    fn closed_standard_descriptors_are_an_end_not_a_crash(who) {
        let proxy = Scripted::start(|mut call| {
            call.open();
            call.stream.read_to_end(&mut vec![]).expect("read");
            call.say(b"hello");
        });
        for redirections in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec \"$@\" {redirections}");
            let tool = srt_tests::tool("srt-connect");
            let mut command = who.command("sh");
            command.args(["-c", &script, "sh"]).arg(tool).args(["--proxy", &proxy.url("http"), "a", "1"]);
            run(&mut command).ok();
        }
    }

    fn it_has_no_privileges_once_the_proxy_is_called(who) {
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        let proxy = Scripted::start(move |mut call| {
            assert!(call.head().contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="));
            gone.lock().expect("lock").recv().expect("go");
            call.say(b"HTTP/1.1 200 Connection established\r\n\r\nhello");
            call.stream.read_to_end(&mut vec![]).expect("read");
        });
        let scratch = who.scratch();
        let secret = scratch.file("secret", "user:secret");
        let mut command = connect(who, &proxy.url("http"));
        srt_tests::pass_fd(&mut command, std::fs::File::open(&secret).map(|file| srt_tests::above(&file)).expect("open").into_raw_fd(), 9);
        let mut child = start(command.args(["--auth-fd", "9", "a", "1"]));
        // Before the proxy has said a word.
        for line in ["NoNewPrivs:\t1", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"] {
            let status = || std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
            wait_until(line, || status().contains(line));
        }
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).expect("fd").flatten();
        let open: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        assert!(!open.contains(&secret), "the password can be read again: {open:?}");
        go.send(()).expect("send");
        child.stdout.as_mut().expect("stdout").read_exact(&mut [0; 5]).expect("read");
        drop(child.stdin.take());
        ended_well(&mut child);
    }

    fn a_terminal_works_as_stdin_and_stdout(who) {
        if !srt_tests::has("script") {
            srt_tests::skip!("no script(1)");
        }
        let proxy = Scripted::start(|mut call| {
            call.open();
            let line = call.exactly(6);
            call.say(&[b"you typed ", line.as_slice()].concat());
            call.stream.read_to_end(&mut vec![]).expect("read");
        });
        let tool = srt_tests::tool("srt-connect");
        let line = format!("{} --proxy {} a 1", tool.display(), proxy.url("http"));
        let mut child = start(who.command("script").args(["-q", "-e", "-c", &line, "/dev/null"]));
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"hello\n").expect("write");
        let mut stdout = child.stdout.take().expect("stdout");
        let mut seen = vec![];
        while !String::from_utf8_lossy(&seen).contains("you typed hello") {
            let mut chunk = [0; 100];
            let count = stdout.read(&mut chunk).expect("read");
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend(&chunk[..count]);
        }
        stdin.write_all(b"\x04").expect("write");
        drop(stdin);
        assert!(wait(&mut child, "script").success());
    }
    fn a_proxy_is_reached_at_its_ipv6_address(who) {
        let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else { srt_tests::skip!("no IPv6 here") };
        let port = listener.local_addr().expect("address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            stream.read_exact(&mut [0; 20]).expect("read");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsix").expect("write");
            stream.shutdown(Shutdown::Write).expect("shutdown");
            stream.read_to_end(&mut vec![]).expect("read");
        });
        run(connect(who, &format!("http://[::1]:{port}")).args(["a", "1"])).ok().says("six");
    }
}
