//! Real servers on loopback for the tests: proxies and sshd, each ended with the test.

use crate::{Scratch, Who, run, wait_until};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A server that listens on 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its TCP port.
    pub port: u16,
    /// Its files.
    pub scratch: Scratch,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Server {
    /// Starts what `command` makes of a port and a directory, and waits until it accepts.
    fn start(who: Who, command: impl FnOnce(u16, &Scratch) -> Command) -> Self {
        let scratch = who.scratch();
        let port = free_port();
        let mut command = command(port, &scratch);
        let log = fs::File::create(scratch.join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("clone")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut server = Self { child, port, scratch };
        wait_until(&format!("{command:?} to accept on {port}"), || {
            let ended = server.child.try_wait().expect("wait");
            assert!(ended.is_none(), "{command:?} ended with {ended:?}: {}", server.log());
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        server
    }

    /// What it wrote to its log, stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.scratch.join("log")).unwrap_or_default()).into_owned()
    }
}

/// A port on which nothing listens now, of those that the kernel gives to nobody by itself. Not bound to find out: a child
/// that another thread starts meanwhile would hold the socket until its exec.
pub fn free_port() -> u16 {
    static BLOCK: OnceLock<(UnixListener, u16)> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // The block is this process's until its end.
    let block = |number: u16| {
        let name = SocketAddr::from_abstract_name(format!("srt-tests-ports-{number}")).ok()?;
        Some((UnixListener::bind_addr(&name).ok()?, 10_000 + number * 200))
    };
    let own = std::process::id() as u16 % 100;
    let (_, first) = BLOCK
        .get_or_init(|| (0..100).find_map(|number| block((own + number) % 100)).expect("a block of ports"));
    (0..)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 200)
        .find(|&port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err())
        .expect("a free port")
}

/// An HTTP proxy that forwards and tunnels (CONNECT) to everywhere; with a user name and a password, or without.
pub fn tinyproxy(who: Who, login: Option<(&str, &str)>) -> Server {
    Server::start(who, |port, scratch| {
        let auth = login.map_or(String::new(), |(user, password)| format!("BasicAuth {user} {password}\n"));
        let config =
            format!("Listen 127.0.0.1\nPort {port}\nTimeout 600\nMaxClients 200\nLogLevel Connect\n{auth}");
        let config = scratch.file("tinyproxy.conf", config);
        let mut command = who.command("tinyproxy");
        command.arg("-d").arg("-c").arg(config);
        command
    })
}

/// A SOCKS5 proxy to everywhere; with a user name and a password, or without.
pub fn microsocks(who: Who, login: Option<(&str, &str)>) -> Server {
    Server::start(who, |port, _| {
        let mut command = who.command("microsocks");
        command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
        if let Some((user, password)) = login {
            command.args(["-u", user, "-P", password]);
        }
        command
    })
}

/// A web server of the files in its scratch directory's `www`.
pub fn web(who: Who) -> Server {
    Server::start(who, |port, scratch| {
        let mut command = who.command("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(scratch.dir("www"));
        command.arg(port.to_string());
        command
    })
}

/// For sshd and ssh: the key exchange that both would choose costs a tenth of a second of computing, and no test is about
/// its strength.
const CHEAP: &str = "KexAlgorithms curve25519-sha256\nCiphers aes128-gcm@openssh.com\n";

/// An sshd of the user's own, on 127.0.0.1 and ::1, and all that its client needs.
#[derive(Debug)]
pub struct Sshd {
    who: Who,
    server: Server,
}

impl Sshd {
    /// Starts one that lets `who` in as `who`.
    pub fn start(who: Who) -> Self {
        let server = Server::start(who, |port, scratch| {
            let home = scratch.dir("home");
            passwd_files(who, scratch, &[name(who)]);
            for key in ["host_key", "user_key"] {
                run(who
                    .command("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(scratch.join(key)))
                .ok();
            }
            let host_key = fs::read_to_string(scratch.join("host_key.pub")).expect("the host's key");
            scratch.file("known_hosts", format!("srt-test {host_key}"));
            let dir = scratch.text();
            let config = scratch.file(
                "sshd_config",
                format!(
                    "Port {port}\nListenAddress 127.0.0.1\nListenAddress ::1\nHostKey {dir}/host_key\nPidFile none\n\
                     AuthorizedKeysFile {dir}/user_key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
                     PermitRootLogin prohibit-password\nPrintMotd no\nMaxStartups 100\n{CHEAP}"
                ),
            );
            // What noise is sent as need not be made smaller first, here or by the git that sshd starts.
            scratch.file("home/.gitconfig", "[core]\n\tcompression = 0\n[pack]\n\twindow = 0\n");
            scratch.file(
                "ssh_config",
                format!(
                    "User {}\nPort {port}\nIdentityFile {dir}/user_key\nIdentitiesOnly yes\nHostKeyAlias srt-test\n\
                     UserKnownHostsFile {dir}/known_hosts\nGlobalKnownHostsFile /dev/null\nBatchMode yes\n\
                     StrictHostKeyChecking yes\nConnectTimeout 20\nLogLevel ERROR\n{CHEAP}",
                    name(who)
                ),
            );
            let mut command = with_passwd(who, scratch, "/usr/sbin/sshd");
            command.current_dir(home).args(["-D", "-e", "-f"]).arg(config);
            command
        });
        Self { who, server }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The configuration file for ssh(1) that leads here, but for the way.
    pub fn client_config(&self) -> PathBuf {
        self.server.scratch.join("ssh_config")
    }

    /// A place for the test's files, where sshd's user can reach them.
    pub fn scratch(&self) -> &Scratch {
        &self.server.scratch
    }

    /// A command of the user's, who has an entry in /etc/passwd here: ssh(1) insists on one.
    pub fn command(&self, program: &str) -> Command {
        with_passwd(self.who, &self.server.scratch, program)
    }

    /// What sshd said.
    pub fn log(&self) -> String {
        self.server.log()
    }
}

fn name(who: Who) -> &'static str {
    if who == Who::Root { "root" } else { "srt-user" }
}

/// Files for /etc/passwd and /etc/shadow in which the test's user has a home, a shell and these names, whatever the
/// machine says.
pub fn passwd_files(who: Who, scratch: &Scratch, names: &[&str]) {
    let uid = who.uid().to_string();
    let others = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let others =
        others.lines().filter(|line| line.split(':').nth(2) != Some(&uid)).map(|line| format!("{line}\n"));
    let home = scratch.join("home");
    let own = names.iter().map(|name| format!("{name}:x:{uid}:{uid}::{}:/bin/sh\n", home.display()));
    scratch.file("passwd", others.chain(own).collect::<String>());
    let lines = names.iter().map(|name| format!("{name}:*:19000:0:99999:7:::\n"));
    let shadow = scratch.file("shadow", lines.collect::<String>());
    fs::set_permissions(shadow, fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// A command of `who`'s in a mount namespace with the files of [`passwd_files`] in their places.
fn with_passwd(who: Who, scratch: &Scratch, program: &str) -> Command {
    let inner = who.command(program);
    let mut command = Who::Root.command("unshare");
    let script = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/shadow\" /etc/shadow && \
                  mkdir -p /run/sshd && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(scratch.path());
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("HOME", scratch.join("home")).current_dir(scratch.path());
    command
}
