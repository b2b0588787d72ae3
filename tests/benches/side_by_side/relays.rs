//! The relays that are compared: each leads a TCP port to a Unix socket, as its own manual says it should be run, with
//! a backlog of 4096 and TCP_NODELAY. Beside them the two direct ways, which no relay can beat.

use crate::report::{Bench, Result};
use crate::streams::{Duplex, Listener};
use srt_tests::DEADLINE;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough that nobody waits for a SYN to be sent again.
pub const BACKLOG: libc::c_int = 4096;

/// Descriptors for each process, where the kernel lets us: systemd-socket-proxyd takes six for a connection.
const DESCRIPTORS: u64 = 65_536;

/// How bytes get from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Relay,
    Socat,
    Proxyd,
    Nginx,
    /// No relay: over TCP, or over a Unix socket.
    DirectTcp,
    DirectUnix,
}

impl Way {
    pub const ALL: [Self; 6] =
        [Self::Relay, Self::Socat, Self::Proxyd, Self::Nginx, Self::DirectTcp, Self::DirectUnix];

    /// What it is called, which the longer name with its version begins with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "srt-relay",
            Self::Socat => "socat",
            Self::Proxyd => "systemd-socket-proxyd",
            Self::Nginx => "nginx stream",
            Self::DirectTcp => "direct TCP",
            Self::DirectUnix => "direct Unix",
        }
    }

    /// With its version.
    pub fn title(self) -> String {
        let version = match self {
            Self::Socat => word_after(&["socat", "-V"], "version"),
            Self::Proxyd => find("systemd-socket-proxyd")
                .and_then(|path| word_after(&[path.to_str()?, "--version"], "systemd")),
            Self::Nginx => find("nginx").and_then(|path| word_after(&[path.to_str()?, "-v"], "version:")),
            _ => None,
        };
        let version =
            version.map_or(String::new(), |version| format!(" {}", version.trim_start_matches("nginx/")));
        format!("{}{version}", self.name())
    }

    pub fn is_direct(self) -> bool {
        matches!(self, Self::DirectTcp | Self::DirectUnix)
    }

    /// What it takes to run it, and does not exist here.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::Socat if find("socat").is_none() => Some("socat (package socat)"),
            Self::Proxyd if find("systemd-socket-proxyd").is_none() => {
                Some("systemd-socket-proxyd (package systemd)")
            }
            Self::Nginx if find("nginx").is_none() => Some("nginx (package nginx-light)"),
            Self::Nginx if !Path::new(STREAM_MODULE).exists() => {
                Some("nginx's stream module (package libnginx-mod-stream)")
            }
            _ => None,
        }
    }
}

const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A program by its name, in the directories of daemons too.
pub fn find(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/lib/systemd", "/lib/systemd"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

/// The word after another in what a command says.
fn word_after(command: &[&str], before: &str) -> Option<String> {
    let (program, args) = command.split_first()?;
    let output = Command::new(program).args(args).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Some(said.split_whitespace().skip_while(|word| *word != before).nth(1)?.to_owned())
}

/// One way, open: a relay that runs, and the server's listener behind it. Ends with all its processes when dropped.
pub struct Route {
    port: u16,
    socket: PathBuf,
    way: Way,
    /// The relay, which leads a process group of its own.
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Route {
    pub fn open(bench: &Bench, way: Way) -> Result<(Self, Listener)> {
        let directory = tempfile::tempdir_in(bench.work.path())?;
        let socket = directory.path().join("s");
        let port = free_port()?;
        let listener = match way {
            Way::DirectTcp => Listener::tcp(port)?,
            _ => Listener::unix(&socket)?,
        };
        let mut route = Self { port, socket, way, child: None, directory };
        match way {
            Way::Relay => route.srt_relay(&bench.tools.join("srt-relay"))?,
            Way::Socat => route.socat(&listener)?,
            Way::Proxyd => route.proxyd()?,
            Way::Nginx => route.nginx(&listener)?,
            Way::DirectTcp | Way::DirectUnix => {}
        }
        Ok((route, listener))
    }

    fn srt_relay(&mut self, program: &Path) -> Result<()> {
        let mut command = Command::new(program);
        command.args(["--ready-fd", "1", &format!("tcp:127.0.0.1:{}", self.port)]);
        command.arg(format!("unix:{}", self.socket.display()));
        let mut ready = [0; 6];
        let child = self.spawn(command.stdout(Stdio::piped()))?;
        child.stdout.take().ok_or("no stdout")?.read_exact(&mut ready)?;
        Ok(())
    }

    fn socat(&mut self, listener: &Listener) -> Result<()> {
        let mut command = Command::new("socat");
        command
            .arg(format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog={BACKLOG},nodelay", self.port));
        command.arg(format!("UNIX-CONNECT:{}", self.socket.display()));
        self.spawn(&mut command)?;
        self.wait_for_port(listener)
    }

    /// Socket activation (sd_listen_fds(3)): the listener is descriptor 3, and LISTEN_PID is the process that execs.
    fn proxyd(&mut self) -> Result<()> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        listen(&socket)?;
        // Inherited from here by what accept(2) returns (tcp(7)); this peer has no option for it.
        set_nodelay(&socket)?;
        let proxyd = find("systemd-socket-proxyd").ok_or("no systemd-socket-proxyd")?;
        let mut command = Command::new("sh");
        // SIGPIPE is ignored in services (systemd.exec(5), IgnoreSIGPIPE=), and otherwise ends this one.
        command.args(["-c", "trap '' PIPE; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
        command.arg(proxyd).arg("--connections-max=20000").arg(&self.socket);
        srt_tests::pass_fd(&mut command, socket.as_raw_fd(), 3);
        self.spawn(&mut command)?;
        Ok(())
    }

    /// One worker: one thread, like srt-relay. All else as nginx has it by default.
    fn nginx(&mut self, listener: &Listener) -> Result<()> {
        let directory = self.directory.path().display();
        // SAFETY: no argument, no failure.
        let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
        let config = format!(
            "load_module {STREAM_MODULE};\n{user}\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile {limit};\n\
             pid {directory}/pid;\nerror_log stderr;\nevents {{ worker_connections 30000; }}\n\
             stream {{ server {{ listen 127.0.0.1:{port} backlog={BACKLOG}; proxy_pass unix:{socket}; }} }}\n",
            limit = raise_descriptor_limit()?,
            port = self.port,
            socket = self.socket.display(),
        );
        let path = self.directory.path().join("nginx.conf");
        fs::write(&path, config)?;
        let mut command = Command::new(find("nginx").ok_or("no nginx")?);
        command.arg("-p").arg(self.directory.path()).arg("-c").arg(&path);
        command.args(["-e", "stderr"]);
        self.spawn(&mut command)?;
        self.wait_for_port(listener)
    }

    /// What it says: of clients that end early, too.
    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Leads a process group, so that what it forks ends with it, and ends with this benchmark.
    fn spawn(&mut self, command: &mut Command) -> Result<&mut Child> {
        command.stdin(Stdio::null()).stderr(fs::File::create(self.log())?).process_group(0);
        // SAFETY: prctl is async-signal-safe, and touches only the child.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.way.name()))?;
        Ok(self.child.insert(child))
    }

    /// Only by connecting is it known that these accept.
    fn wait_for_port(&mut self, listener: &Listener) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > DEADLINE {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(format!("{} does not start: {ended:?} {log}", self.way.name()).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        listener.accept()?;
        Ok(())
    }

    /// The client's side of a connection.
    pub fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        if self.way == Way::DirectUnix {
            let stream = UnixStream::connect(&self.socket)?;
            stream.bounded()?;
            return Ok(Box::new(stream));
        }
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.bounded()?;
        Ok(Box::new(stream))
    }

    /// A connection through: the client's side and the server's.
    pub fn pair(&self, listener: &Listener) -> Result<[Box<dyn Duplex>; 2]> {
        let client = self.connect().map_err(|error| format!("{}: connect: {error}", self.way.name()))?;
        let server = listener.accept().map_err(|error| format!("{}: accept: {error}", self.way.name()))?;
        Ok([client, server])
    }

    /// Every process of the relay: its group's.
    fn processes(&self) -> Vec<u32> {
        let Some(group) = self.child.as_ref().map(Child::id) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return vec![group] };
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| name.to_str()?.parse().ok())
            .filter(|pid| field_of_stat(*pid, 5) == Some(u64::from(group)))
            .collect()
    }

    /// CPU seconds that all processes of the relay that live have used, to the nanosecond.
    pub fn cpu(&self) -> f64 {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// Bytes of anonymous memory of all its processes, those that they share divided among them.
    pub fn memory(&self) -> f64 {
        self.processes().into_iter().map(memory_of).sum()
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let group = child.id() as libc::pid_t;
        // SAFETY: integers. The group is ours until its leader is reaped, below.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // Orphans of the group come to us: see `adopt_orphans`.
        // SAFETY: integers, and a null pointer that waitpid takes for "no status".
        while unsafe { libc::waitpid(-group, std::ptr::null_mut(), 0) } > 0 {}
    }
}

/// As many descriptors as are allowed, for this process and those that it starts. Returns how many.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to an rlimit that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let most = limit.rlim_max;
    // More than the hard limit is for root alone.
    for number in [most.max(DESCRIPTORS), most] {
        limit = libc::rlimit { rlim_cur: number, rlim_max: number };
        // SAFETY: a pointer to an rlimit that lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
            return Ok(number);
        }
    }
    Err(io::Error::last_os_error())
}

/// listen(2) again makes the backlog longer than the standard library's.
pub fn listen(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: integers.
    match unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_nodelay(socket: &TcpListener) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: a pointer to an integer of that size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A port below those that the kernel gives to outgoing connections, of which there are many here.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 200 * 100;
    loop {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_free) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

/// A field of /proc/PID/stat, counted as in proc_pid_stat(5).
fn field_of_stat(pid: u32, number: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second is the name in parentheses, which may hold anything.
    text.rsplit_once(") ")?.1.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

/// clock_getcpuclockid(3): /proc/PID/stat counts hundredths of a second.
fn cpu_of(pid: u32) -> f64 {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: a pointer to a clockid_t that lives through the call.
    if unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) } != 0 {
        return 0.0;
    }
    // SAFETY: a pointer to a timespec that lives through the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return 0.0;
    }
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn memory_of(pid: u32) -> f64 {
    // srt-relay is not dumpable: an ordinary user may not read its smaps, but it shares nothing, either.
    kilobytes(format!("/proc/{pid}/smaps_rollup"), &["Pss_Anon:"])
        .or_else(|| kilobytes(format!("/proc/{pid}/status"), &["RssAnon:"]))
        .unwrap_or(0.0)
}

/// Bytes that the kernel uses for itself: what is in its slabs, its stacks and its tables.
pub fn kernel_memory() -> f64 {
    let fields = ["Slab:", "KernelStack:", "PageTables:", "SecPageTables:", "Percpu:"];
    kilobytes("/proc/meminfo", &fields).unwrap_or(f64::NAN)
}

/// The same, once what was there before is gone: the kernel frees sockets some time after they are closed.
pub fn settled_kernel_memory() -> f64 {
    let (mut before, start) = (kernel_memory(), Instant::now());
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = kernel_memory();
        if (before - now).abs() < 128.0 * 1024.0 || start.elapsed() > Duration::from_secs(2) {
            return now;
        }
        before = now;
    }
}

/// The sum of some lines of `NAME NUMBER kB`, in bytes.
fn kilobytes(file: impl AsRef<OsStr>, names: &[&str]) -> Option<f64> {
    let text = fs::read_to_string(Path::new(file.as_ref())).ok()?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() * 1024.0)
}
