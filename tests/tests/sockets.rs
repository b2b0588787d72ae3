//! Promise 2: no network but the sandbox's own loopback, and no Unix or vsock socket, by whatever way one is made.

use srt_tests::attacks::{INSIDE, Sandbox, behind, outside};
use srt_tests::{Who, both, run};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Stdio};

/// Every way to a Unix socket. The kernel reads the family as an int, so the high half of the word is anything.
#[cfg(target_arch = "x86_64")]
const UNIX: [&str; 14] = [
    "socket 1 1",
    "socket 1 2",
    "socket 1 5",
    "socket 1 0x80801",
    "socket 0x100000001 1",
    "socket 0xffffffff00000001 1",
    "socket 0x8000000000000001 0xffffffff00000002",
    "socketpair 1 2",
    "socketpair 1 3",
    "socketpair 0x700000001 0x100000002",
    "socketpair 1 0x80802",
    "socket-int80 1 1",
    "socketcall-int80",
    "? socket-uring 1 1",
];
#[cfg(not(target_arch = "x86_64"))]
const UNIX: [&str; 8] = [
    "socket 1 1",
    "socket 1 2",
    "socket 0x100000001 1",
    "socket 0xffffffff00000001 1",
    "socketpair 1 2",
    "socketpair 1 3",
    "socketpair 0x700000001 0x100000002",
    "? socket-uring 1 1",
];

/// A listener of the caller's, which ends with the test.
struct Listener(Child);

impl Listener {
    /// Returns when it is ready.
    fn new(who: Who, words: &[&str]) -> Self {
        let mut command = who.command(srt_tests::tool("attack"));
        let mut child =
            command.args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("listener");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("stdout")).read_line(&mut line).expect("read");
        assert_eq!(line, "listening\n");
        Self(child)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

both! {
    fn no_unix_socket_is_made_by_any_way(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&UNIX).all_were_refused();
        outside(who, &UNIX).all_got_through();
        // By x32 numbers the kernel itself refuses where it was built without them, by ENOSYS; the filter kills.
        let x32 = sandbox.each(&["socket-x32 1 1"]);
        assert!(!cfg!(target_arch = "x86_64") || x32.said().contains("signal: 31"), "{x32:?}");
        // What cannot leave the sandbox is left to it.
        sandbox.each(&["socketpair 1 1", "socketpair 1 5", "socketpair 0x100000001 0x80801", "socket 2 1", "socket 10 1", "socket 16 3"]).all_got_through();
        // Allowed, all of them work.
        sandbox.seccomp(&["--allow", "unix"]).each(&["socket 1 1", "socketpair 1 2"]).all_got_through();
    }

    fn io_uring_is_no_way_around_the_filter(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&["uring-setup"]).all_were_refused_with(libc::ENOSYS);
        let attack = ["socket-uring 1 1"];
        if std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0") {
            srt_tests::skip!("the sysctl kernel.io_uring_disabled is set here");
        }
        outside(who, &attack).all_got_through();
        // It is: the worker's socket is a Unix socket, and no filter has seen it.
        sandbox.seccomp(&["--allow", "io-uring"]).each(&attack).all_got_through();
    }

    fn a_unix_socket_of_the_host_is_not_reached_by_path(who) {
        let scratch = who.scratch();
        let (stream, datagram) = (scratch.join("stream"), scratch.join("datagram"));
        let _server = Listener::new(who, &["listen-unix", stream.to_str().expect("UTF-8")]);
        let receiver = std::os::unix::net::UnixDatagram::bind(&datagram).expect("bind");
        std::os::unix::fs::chown(&datagram, Some(who.uid()), Some(who.uid())).expect("chown");
        let attacks = [
            format!("send-unix {}", datagram.display()),
            format!("pair-send 2 {}", datagram.display()),
            format!("pair-send 3 {}", datagram.display()),
            format!("connect-unix {}", stream.display()),
        ];
        let sandbox = Sandbox::new(who, scratch.path());
        sandbox.each(&attacks).all_were_refused_with(libc::EPERM);
        // Stream and seqpacket pairs are allowed, and stay connected to each other: one refuses an address, the other
        // ignores it.
        sandbox.each(&[format!("pair-send 1 {}", datagram.display())]).all_were_refused_with(libc::EISCONN);
        sandbox.each(&[format!("pair-send 5 {}", datagram.display())]).all_got_through();
        receiver.set_nonblocking(true).expect("nonblocking");
        assert!(receiver.recv(&mut [0; 8]).is_err());
        sandbox.seccomp(&["--allow", "unix"]).each(&attacks).all_got_through();
        let mut got = [0; 8];
        assert_eq!(receiver.recv(&mut got).expect("recv"), 5);
    }

    fn an_abstract_socket_of_the_host_is_in_another_network(who) {
        let work = who.scratch();
        let name = format!("srt-attack-{}-{}", std::process::id(), who.uid());
        let _server = Listener::new(who, &["listen-abstract", &name]);
        let attack = [format!("connect-abstract {name}")];
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&attack).all_were_refused_with(libc::EPERM);
        let allowed = sandbox.seccomp(&["--allow", "unix"]);
        allowed.each(&attack).all_were_refused_with(libc::ECONNREFUSED);
        allowed.ns(&["--share", "net"]).each(&attack).all_got_through();
    }

    fn services_on_the_hosts_loopback_are_not_reached(who) {
        let work = who.scratch();
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let connect = format!("connect-tcp {}", tcp.local_addr().expect("address").port());
        let send = format!("send-udp {}", udp.local_addr().expect("address").port());
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&[&connect]).all_were_refused_with(libc::ECONNREFUSED);
        sandbox.each(&[&send]).all_got_through(); // … into the sandbox's own loopback.
        udp.set_nonblocking(true).expect("nonblocking");
        assert!(udp.recv(&mut [0; 8]).is_err(), "a datagram came out");
        sandbox.ns(&["--share", "net"]).each(&[&connect, &send]).all_got_through();
        assert_eq!(udp.recv(&mut [0; 8]).expect("recv"), 5);
        outside(who, &[&connect]).all_got_through();
    }

    fn no_interface_and_no_packet_of_the_host_is_there(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&["interfaces"]).all_were_refused_with(libc::ENODEV);
        sandbox.each(&["packet", "raw"]).all_were_refused_with(libc::EPERM);
        if outside(who, &["interfaces"]).said().starts_with("refused") {
            srt_tests::skip!("this machine itself has no network interface");
        }
        sandbox.ns(&["--share", "net"]).each(&["interfaces"]).all_got_through();
        let one_may: &[&str] = if who == Who::Root { &["env"] } else { &["unshare", "-Urn"] };
        behind(who, one_may, &["packet", "raw"]).all_got_through();
    }

    fn vsock_reaches_no_hypervisor(who) {
        let work = who.scratch();
        let attacks = ["socket 40 1", "socket 0x100000028 1", "socket 40 2"];
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&attacks).all_were_refused_with(libc::EPERM);
        if outside(who, &attacks[..1]).said().starts_with("refused") {
            srt_tests::skip!("this kernel has no vsock");
        }
        outside(who, &attacks[..2]).all_got_through();
        sandbox.seccomp(&["--allow", "vsock"]).each(&attacks[..2]).all_got_through();
    }

    fn no_family_is_left_whose_addresses_are_those_of_all_network_namespaces(who) {
        let work = who.scratch();
        let attacks = ["socket 21 5", "socket 34 2", "socket 0x100000022 2", "socket 42 2"];
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&attacks).all_were_refused_with(libc::EPERM);
        // Few kernels have one of them: that it is the filter's doing shows by who says no.
        for attack in attacks {
            for tried in [outside(who, &[attack]), sandbox.clone().seccomp(&["--allow", "vsock"]).each(&[attack])] {
                assert!(!tried.said().contains("(os error 1)"), "{tried:?}");
            }
        }
    }

    fn a_foreign_abi_kills_even_for_a_harmless_call(who) {
        if cfg!(not(target_arch = "x86_64")) {
            srt_tests::skip!("int 0x80 is x86");
        }
        let work = who.scratch();
        // An inet socket would be allowed; the ABI is not.
        let ran = run(&mut Sandbox::new(who, work.path()).command(&[INSIDE, "socket-int80", "2", "1"]));
        ran.code(128 + libc::SIGSYS);
        outside(who, &["socket-int80 2 1"]).all_got_through();
    }

    fn the_filter_stays_for_every_descendant(who) {
        let work = who.scratch();
        let script = "(setsid /tmp/attack socket 1 1; /tmp/attack socketpair 1 2 & wait $!; nohup /tmp/attack socket 1 1) 2>/dev/null; true";
        let ran = run(&mut Sandbox::new(who, work.path()).command(&["sh", "-c", script]));
        assert_eq!(ran.ok().out.matches("refused").count(), 3, "{ran:#?}");
    }
}
