//! Modes, options and limits by their value, on every road on which they are set: that something is there says little.

use srt_tests::host::{Greeter, chain_out};
use srt_tests::processes::child_named;
use srt_tests::servers::free_port;
use srt_tests::talk::Talk;
use srt_tests::{Who, both, chain, has, has_ipv6, pass_fd, run, skip, tools, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The most that listen(2) gives.
fn somaxconn() -> u32 {
    fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn").trim().parse().expect("a number")
}

/// The backlog of a listener, which ss(8) shows as its Send-Q.
fn backlog(ss: &str) -> u32 {
    let line = ss.lines().next().unwrap_or_else(|| panic!("no listener in {ss:?}"));
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = fields.iter().position(|field| *field == "LISTEN").expect("a listener");
    fields[state + 2].parse().unwrap_or_else(|_| panic!("{line}"))
}

/// An option of another process's socket: pidfd_getfd(2).
fn of_another(pid: i32, number: i32) -> OwnedFd {
    // SAFETY: integers; what comes back is a new descriptor of ours.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: the same.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0) };
    // SAFETY: it is ours, and nobody else's.
    unsafe { libc::close(pidfd as i32) };
    assert!(fd >= 0, "pidfd_getfd: {}", std::io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// getsockopt(2). `None`: it is no socket, or has no such option.
fn option(fd: &OwnedFd, level: i32, name: i32) -> Option<i32> {
    let (mut value, mut length) = (0i32, 4u32);
    // SAFETY: pointers to locals of the right size.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    (done == 0).then_some(value)
}

/// Every connection of these families that a process has.
fn connected(pid: i32, families: &'static [i32]) -> impl Iterator<Item = OwnedFd> {
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").filter_map(Result::ok);
    let sockets = numbers.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    });
    let sockets = sockets
        .map(move |entry| of_another(pid, entry.file_name().to_string_lossy().parse().expect("a number")));
    sockets.filter(|fd| {
        let of = |name| option(fd, libc::SOL_SOCKET, name);
        of(libc::SO_DOMAIN).is_some_and(|family| families.contains(&family))
            && of(libc::SO_ACCEPTCONN) == Some(0)
    })
}

/// The options of every TCP connection that a process has.
fn connections(pid: i32) -> Vec<[Option<i32>; 5]> {
    let options = |fd: OwnedFd| {
        let tcp = |name| option(&fd, libc::IPPROTO_TCP, name);
        let keepalive = option(&fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        let [idle, interval, count] = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT].map(tcp);
        [keepalive, idle, interval, count, tcp(libc::TCP_NODELAY)]
    };
    connected(pid, &[libc::AF_INET, libc::AF_INET6]).map(options).collect()
}

/// On, idle 10, interval 5, count 3, no delay.
const TUNED: [Option<i32>; 5] = [Some(1), Some(10), Some(5), Some(3), Some(1)];

/// Of each program that a process becomes in a log of strace(1): how, and whether SIGPIPE was at its default.
fn execs(log: &str) -> Vec<(String, String, bool)> {
    let mut sigpipe: BTreeMap<&str, bool> = BTreeMap::new();
    let mut execs = vec![];
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("rt_sigaction(SIGPIPE, {") {
            sigpipe.insert(pid, call.starts_with("rt_sigaction(SIGPIPE, {sa_handler=SIG_DFL"));
        } else if call.starts_with("exec") && !call.contains(" = -1 ") {
            let name = call.split(['[', ',']).find_map(|word| {
                word.trim()
                    .strip_prefix('"')
                    .map(|w| w.trim_end_matches([']', '"']).to_owned())
                    .filter(|w| !w.is_empty() && !w.starts_with('/'))
            });
            let how = call.split('(').next().unwrap_or_default().to_owned();
            execs.push((how, name.unwrap_or_default(), sigpipe.get(pid).copied().unwrap_or(true)));
        }
    }
    execs
}

both! {
    fn the_nodes_and_directories_in_dev_have_their_modes(who) {
        let work = who.scratch();
        let script = "stat -c '%a %n' /dev/shm /dev/pts /dev/pts/ptmx
            exec /usr/bin/python3 -c 'import os; print(oct(os.stat(os.ttyname(os.openpty()[1])).st_mode))'";
        let ran = run(chain(who, work.path()).args(["sh", "-c", script]));
        ran.ok().says("755 /dev/shm\n755 /dev/pts\n666 /dev/pts/ptmx\n0o20620");
    }

    fn every_mount_has_its_flags(who) {
        let work = who.scratch();
        work.dir("plain");
        work.dir("masked");
        work.dir("sys");
        work.file("masked-file", "");
        let [plain, masked, masked_file, sys] =
            ["plain", "masked", "masked-file", "sys"].map(|name| work.join(name).display().to_string());
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--mqueue", "/mnt"]);
        command.args(["--bind", work.text(), work.text(), "--tmpfs", &plain, "--remount-ro", &plain, "--sys", &sys]);
        command.args(["--mask", &masked, "--mask", &masked_file, "--", "cat", "/proc/self/mountinfo"]);
        let ran = run(&mut command);
        let flags = |point: &str| {
            let line = ran.ok().out.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
            let flags = line.and_then(|line| line.split(' ').nth(5)).unwrap_or_else(|| panic!("no {point}: {ran:#?}"));
            flags.split(',').filter(|flag| ["ro", "rw", "nosuid", "nodev", "noexec"].contains(flag)).collect::<Vec<_>>().join(",")
        };
        for (point, expected) in [
            ("/", "ro,nosuid,nodev"),
            ("/dev", "rw,nosuid,nodev"),
            // Read-only for root alone, who could change the host's node.
            ("/dev/null", if who == Who::Root { "ro,nosuid" } else { "rw,nosuid" }),
            ("/dev/pts", "rw,nosuid,noexec"),
            ("/proc", "rw,nosuid,nodev,noexec"),
            ("/tmp", "rw,nosuid,nodev"),
            ("/mnt", "rw,nosuid,nodev,noexec"),
            (work.text(), "rw,nosuid,nodev"),
            (&plain, "ro,nosuid,nodev"),
            (&masked, "ro,nosuid,nodev,noexec"),
            (&masked_file, "ro,nosuid,nodev,noexec"),
            (&sys, "ro,nosuid,nodev,noexec"),
        ] {
            assert_eq!(flags(point), expected, "{point}");
        }
        // One cgroup file system, or a directory of them.
        let cgroups = format!("{sys}/fs/cgroup");
        let points = ran.out.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&cgroups));
        assert!(points.clone().next().is_some(), "{ran:#?}");
        points.for_each(|point| assert_eq!(flags(point), "ro,nosuid,nodev,noexec", "{point}"));
        // What devices came with is none any more once it is made read-only.
        for (options, expected) in [(&[][..], "rw,nosuid"), (&["--remount-ro", "/mnt"], "ro,nosuid,nodev")] {
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev-bind", work.text(), "/mnt"]).args(options);
            let ran = run(command.args(["--", "cat", "/proc/self/mountinfo"]));
            let line = ran.ok().out.lines().rfind(|line| line.split(' ').nth(4) == Some("/mnt")).expect("a mount");
            assert!(line.split(' ').nth(5).is_some_and(|flags| flags.replace(",relatime", "") == expected), "{line}");
        }
    }

    fn many_clients_may_wait_at_every_listener(who) {
        if !has("ss") {
            skip!("no ss");
        }
        let scratch = who.scratch();
        scratch.dir("work");
        // Known by its last name: bind(2) saw another path to the directory.
        let unique = |name: &str| scratch.join(format!("{name}-{}-{who:?}.sock", std::process::id()));
        let (socket, published) = (scratch.join("p.sock"), unique("published"));
        let _greeter = Greeter::start(&socket, "hello");
        // Inside, the listener of --relay; outside, the one of --publish.
        let options = ["--relay", &format!("8080={}", socket.display()), "--publish", &format!("{}=8000", published.display())];
        let mut talk = Talk::over_pipes(chain_out(who, &options, &scratch.join("work")).args([
            "sh", "-c", "cat /proc/sys/net/core/somaxconn; ss -Htln sport = :8080; echo end; read -r _",
        ]));
        let said = talk.expect("end\n");
        let (limit, ss) = said.split_once('\n').expect("two lines");
        assert_eq!(backlog(ss), limit.trim().parse::<u32>().expect("a number").min(4096), "{said}");
        let outside = |path: &Path| {
            let all = run(Command::new("ss").arg("-Hxln")).ok().out.clone();
            let path = path.file_name().expect("a name").to_string_lossy().into_owned();
            all.lines().find(|line| line.contains(&path)).unwrap_or_else(|| panic!("no {path} in {all}")).to_owned()
        };
        assert_eq!(backlog(&outside(&published)), somaxconn().min(4096));
        talk.close_input();
        talk.end();
        // srt-relay's own.
        let (own, port) = (unique("own"), free_port());
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{port}"), &format!("unix:{}", socket.display())]);
        command.args([format!("unix:{}", own.display()), format!("unix:{}", socket.display())]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "ready");
        let ss = run(Command::new("ss").args(["-Htln", "sport", "=", &format!(":{port}")]));
        assert_eq!(backlog(&ss.ok().out), somaxconn());
        assert_eq!(backlog(&outside(&own)), somaxconn().min(4096));
    }

    fn a_relayed_connection_has_keepalive_and_no_delay_on_both_sides(who) {
        let scratch = who.scratch();
        let socket = scratch.join("p.sock");
        let unix = srt_tests::unix_listener(who, &socket);
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = free_port();
        let (to_unix, to_tcp) = (format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{}", server.local_addr().expect("address").port()));
        let from = scratch.join("from.sock");
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1", &to_unix, &format!("unix:{}", socket.display()), &format!("unix:{}", from.display()), &to_tcp]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "ready");
        // Accepted, and connected.
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let _accepted = unix.accept().expect("accept");
        let pid = talk.pid();
        assert_eq!(connections(pid), [TUNED]);
        let _client = std::os::unix::net::UnixStream::connect(&from).expect("connect");
        let _accepted = server.accept().expect("accept");
        // It is tuned once it is connected, which the peer may see first.
        wait_until("both", || connections(pid) == [TUNED, TUNED]);
        // Of Unix sockets, the one of each side has room for twice what it has by itself.
        let room = || connected(pid, &[libc::AF_UNIX]).map(|fd| option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF)).collect::<Vec<_>>();
        wait_until("room", || room() == [Some(425_984); 2]);
        // Accepted over IPv6, and on a listener that the relay was given.
        if !has_ipv6() {
            skip!("no IPv6 here");
        }
        let port = free_port();
        let given = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let (copy, to_unix) = (srt_tests::above(&given), format!("unix:{}", socket.display()));
        let mut command = who.command("srt-relay");
        srt_tests::pass_fd(&mut command, copy.as_raw_fd(), 9);
        command.args(["--ready-fd", "1", &format!("tcp:[::1]:{port}"), &to_unix, "fd:9", &to_unix]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "ready");
        let _six = TcpStream::connect(("::1", port)).expect("connect");
        let _accepted = unix.accept().expect("accept");
        let _given = TcpStream::connect(given.local_addr().expect("address")).expect("connect");
        let _accepted = unix.accept().expect("accept");
        assert_eq!(connections(talk.pid()), [TUNED, TUNED]);
        // And connected over IPv6.
        let server = std::net::TcpListener::bind(("::1", free_port())).expect("bind");
        let (from, to) = (scratch.join("six.sock"), format!("tcp:[::1]:{}", server.local_addr().expect("address").port()));
        let mut command = who.command("srt-relay");
        command.args(["--ready-fd", "1", &format!("unix:{}", from.display()), &to]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "ready");
        let _client = std::os::unix::net::UnixStream::connect(&from).expect("connect");
        let _accepted = server.accept().expect("accept");
        wait_until("it to be tuned", || connections(talk.pid()) == [TUNED]);
    }

    fn a_connection_to_a_proxy_has_keepalive_and_no_delay(who) {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("http://127.0.0.1:{}", proxy.local_addr().expect("address").port());
        let mut command = who.command("srt-connect");
        let mut talk = Talk::over_pipes(command.args(["--proxy", &url, "example.org", "22"]));
        let (mut tunnel, _) = proxy.accept().expect("accept");
        std::io::Write::write_all(&mut tunnel, b"HTTP/1.1 200 OK\r\n\r\nready").expect("write");
        talk.expect("ready");
        let tuned: Vec<_> = connections(talk.pid()).into_iter().map(|all| (all[0], all[4])).collect();
        assert_eq!(tuned, [(Some(1), Some(1))]);
    }

    fn the_limit_of_descriptors_comes_back_where_it_was_raised(who) {
        // A hundred sources are as many descriptors: for them the soft limit is raised.
        let scratch = who.scratch();
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/"]);
        for number in 0..150 {
            let file = scratch.file(format!("d/{number}"), "");
            command.arg("--ro-bind").arg(&file).arg(&file);
        }
        command.args(["--", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
        // SAFETY: a pointer to an rlimit; async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 100, rlim_max: 1000 });
                Ok(())
            });
        }
        run(&mut command).ok().says("100\n1000");
    }

    fn sigpipe_is_at_its_default_on_every_road_to_an_exec(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        scratch.dir("work");
        let log = scratch.file("log", "");
        let socket = scratch.join("p.sock");
        let _greeter = Greeter::start(&socket, "hello");
        let traced = |options: &[&str], mount: &[&str], program: &[&str]| {
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--trace=execve,execveat,rt_sigaction", "--output"]).arg(&log);
            command.arg(tools().join("srt-ns")).args(options).args(["--", "srt-mount", "--ro-bind", "/", "/", "--tmpfs", "/tmp"]);
            run(command.args(mount).args(["--"]).args(program)).ok();
            fs::read_to_string(&log).expect("the log")
        };
        let tools = tools().to_str().expect("UTF-8");
        let relay = format!("8080={}", socket.display());
        let by = |log: &str, name: &str| {
            let all = execs(log);
            let found: Vec<_> = all.iter().filter(|(_, n, _)| n == name).collect();
            let [(how, _, default)] = &found[..] else { panic!("{name}: {all:?}") };
            assert!(default, "{name} gets an ignored SIGPIPE: {log}");
            how.clone()
        };
        // From a descriptor with words in front (srt-mount), and without (srt-relay; srt-seccomp, which is not inside); by
        // path where the new root shows it read-only; as the stage's PROGRAM.
        let hidden = traced(&["--relay", &relay], &[], &["srt-seccomp", "--", "sh", "-c", ":"]);
        for name in ["srt-mount", "srt-relay", "srt-seccomp"] {
            assert_eq!(by(&hidden, name), "execveat", "{name}: {hidden}");
        }
        assert_eq!(by(&hidden, "sh"), "execve");
        let shown = traced(&[], &["--ro-bind", tools, tools], &["srt-seccomp", "--", "sh", "-c", ":"]);
        assert_eq!(by(&shown, "srt-seccomp"), "execve", "{shown}");
        // What the command may write is not run: its copy from outside is.
        let writable = traced(&[], &["--bind", tools, tools], &["srt-seccomp", "--", "sh", "-c", ":"]);
        assert_eq!(by(&writable, "srt-seccomp"), "execveat", "{writable}");
        // Nor is another file in its place.
        let place = format!("{tools}/srt-seccomp");
        let other = traced(&[], &["--ro-bind", tools, tools, "--ro-bind", "/bin/echo", &place], &["srt-seccomp", "--", "sh", "-c", ":"]);
        assert_eq!(by(&other, "srt-seccomp"), "execveat", "{other}");
    }

    fn a_program_from_outside_runs_on_a_read_only_mount(who) {
        // It is static, and not inside: /proc/self/exe is the host's file, and leads to a copy of its mount.
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--"]);
        let mut talk = Talk::over_pipes(command.arg(tools().join("attack")).arg("traceme-and-stay"));
        talk.expect("ready");
        let flags = |path: &str| {
            let path = std::ffi::CString::new(path).expect("a path");
            // SAFETY: all-zero bytes are a valid statvfs.
            let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
            // SAFETY: a C string and a statvfs to fill.
            assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) }, 0, "{path:?}");
            stat.f_flag & (libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV)
        };
        let pid = child_named(talk.pid(), "attack");
        let all = libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV;
        assert_eq!(flags(&format!("/proc/{pid}/exe")), all);
        // The control: where it lies it can be written.
        assert_eq!(flags(tools().to_str().expect("UTF-8")) & libc::ST_RDONLY, 0);
        talk.signal(libc::SIGKILL);
    }

    fn a_status_fd_behind_the_separator_is_the_programs(who) {
        for stage in ["srt-ns", "srt-mount", "srt-seccomp"] {
            let told = |words: &[&str]| {
                let (mut reader, writer) = std::io::pipe().expect("pipe");
                let mut command = who.command(stage);
                command.args(words).stdout(Stdio::null());
                pass_fd(&mut command, writer.as_raw_fd(), 9);
                run(&mut command).code(125);
                drop((command, writer));
                let mut text = String::new();
                reader.read_to_string(&mut text).expect("read");
                text
            };
            assert_eq!(told(&["--nope", "--", "prog", "--status-fd", "9"]), "", "{stage}");
            // The control.
            assert!(told(&["--status-fd", "9", "--nope", "--", "prog"]).contains("\"failed\""), "{stage}");
        }
    }

    fn a_relay_listens_on_the_loopback_addresses_alone(who) {
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("s"), "word");
        let mut command = who.command("srt-ns");
        command.arg("--relay").arg(format!("4000={}", scratch.join("s").display()));
        let ran = run(command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"]));
        let listeners: Vec<_> = ran.ok().out.lines().filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words.get(3) == Some(&"0A")).then(|| words[1].to_owned())
        }).collect();
        assert_eq!(listeners, ["0100007F:0FA0", "00000000000000000000000001000000:0FA0"], "{ran:#?}");
    }
}

/// Who cannot ask whether it is root of the host, since there is no procfs, is taken for it.
#[test]
fn the_nodes_in_dev_are_read_only_where_nobody_can_tell_who_root_is() {
    let script =
        "mount -t tmpfs tmpfs /proc && exec srt-mount --ro-bind / / --dev /dev -- python3 -c 'import os
print([os.statvfs(node).f_flag & os.ST_RDONLY for node in (\"/dev/null\", \"/dev/tty\")])'";
    run(Who::Root.command("unshare").args(["--mount", "sh", "-c", script])).ok().says("[1, 1]");
}
