//! A proxy that does what a test says.

#![allow(dead_code, clippy::expect_used)] // Each test file uses its part.

use srt_tests::{DEADLINE, Who, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// One connection to the scripted proxy.
pub struct Call {
    pub stream: TcpStream,
}

impl Call {
    /// Reads a request's head, and nothing behind it.
    pub fn head(&mut self) -> String {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.exactly(1));
        }
        String::from_utf8(head).expect("ASCII")
    }

    /// Reads so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("as many bytes as expected");
        bytes
    }

    /// Reads the request, and lets the tunnel stand.
    pub fn open(&mut self) {
        self.head();
        self.say(b"HTTP/1.1 200 Connection established\r\n\r\n");
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
    }
}

/// A TCP listener on loopback whose every connection runs the script.
pub struct Scripted {
    port: u16,
    callers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Scripted {
    pub fn start(script: impl Fn(Call) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let callers = Arc::new(Mutex::new(vec![]));
        let (script, seen) = (Arc::new(script), callers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.lock().expect("lock").push(stream.peer_addr().expect("address"));
                stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
                stream.set_nodelay(true).expect("nodelay");
                let script = script.clone();
                std::thread::spawn(move || script(Call { stream }));
            }
        });
        Self { port, callers }
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// How many connections there were. Calls are accepted in their order: after one of our own all others are counted.
    pub fn connections(&self) -> usize {
        let own =
            TcpStream::connect(("127.0.0.1", self.port)).expect("connect").local_addr().expect("address");
        let position = || self.callers.lock().expect("lock").iter().position(|&caller| caller == own);
        wait_until("the listener", || position().is_some());
        position().expect("just seen")
    }
}

/// srt-connect through this proxy.
pub fn connect(who: Who, proxy: &str) -> Command {
    let mut command = who.command("srt-connect");
    command.args(["--proxy", proxy]);
    command
}

/// Starts it with all three standard descriptors piped.
pub fn start(command: &mut Command) -> Child {
    start_with(command, Stdio::piped())
}

/// The same with another stdin.
pub fn start_with(command: &mut Command, stdin: Stdio) -> Child {
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("srt-connect starts")
}

/// Makes the end of this connection a reset.
pub fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `linger`.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    };
    assert_eq!(result, 0);
}

/// Leaves a listener room for one connection that is not accepted yet.
pub fn shrink_backlog(listener: RawFd) {
    // SAFETY: two integers.
    assert_eq!(unsafe { libc::listen(listener, 0) }, 0);
}
