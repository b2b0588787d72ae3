//! srt-relay beside socat and beside no relay at all: throughput, short connections, round trips, idle memory.
//!
//!     cargo bench -p srt-relay --bench relay [-- [--rounds N] [NAME...]]
//!
//! Peers take turns within a round, and a ratio is that of one round; what is printed is the median.

#![allow(clippy::print_stdout)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CHUNK: usize = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Relay,
    Socat,
    Direct,
}

const PEERS: [(Peer, &str); 3] =
    [(Peer::Relay, "srt-relay"), (Peer::Socat, "socat"), (Peer::Direct, "direct")];

/// A TCP port that leads to a Unix socket, through `peer`.
struct Path2 {
    port: u16,
    socket: PathBuf,
    peer: Peer,
    child: Option<Child>,
}

impl Path2 {
    fn new(peer: Peer, directory: &Path) -> Result<(Self, UnixListener)> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let socket = directory.join(format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let listener = UnixListener::bind(&socket)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = match peer {
            Peer::Direct => None,
            Peer::Relay => {
                let mut child = Command::new(env!("CARGO_BIN_EXE_srt-relay"))
                    .args([
                        "--ready-fd",
                        "1",
                        &format!("tcp:127.0.0.1:{port}"),
                        &format!("unix:{}", socket.display()),
                    ])
                    .stdout(Stdio::piped())
                    .spawn()?;
                let mut ready = [0; 6];
                child.stdout.take().ok_or("stdout")?.read_exact(&mut ready)?;
                Some(child)
            }
            Peer::Socat => {
                let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay");
                let child = Command::new("socat")
                    .args([&listen, &format!("UNIX-CONNECT:{}", socket.display())])
                    .spawn()?;
                while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                    thread::sleep(Duration::from_millis(5));
                }
                drop(listener.accept()?);
                Some(child)
            }
        };
        Ok((Self { port, socket, peer, child }, listener))
    }

    fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        if self.peer == Peer::Direct {
            return Ok(Box::new(UnixStream::connect(&self.socket)?));
        }
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// CPU seconds of the relay and of its children that have ended.
    fn cpu(&self) -> f64 {
        let Some(child) = &self.child else { return 0.0 };
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        fields
            .get(11..15)
            .map_or(0.0, |times| times.iter().filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0)
    }

    fn anonymous_memory(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Path2 {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

trait Duplex: Read + Write + Send {
    fn end(&self) -> io::Result<()>;
    fn copy(&self) -> io::Result<Box<dyn Duplex>>;
}

impl Duplex for TcpStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn copy(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Duplex for UnixStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn copy(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(Box::new(self.try_clone()?))
    }
}

fn send(mut stream: Box<dyn Duplex>, bytes: usize) -> io::Result<()> {
    let chunk = vec![7; CHUNK];
    for _ in 0..bytes / CHUNK {
        stream.write_all(&chunk)?;
    }
    stream.end()
}

fn receive(mut stream: Box<dyn Duplex>) -> io::Result<usize> {
    let (mut chunk, mut total) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(total),
            count => total += count,
        }
    }
}

/// Gigabytes a second over `streams` connections, `up` towards the server and `down` from it, and the relay's
/// CPU seconds per gigabyte.
fn throughput(peer: Peer, directory: &Path, up: usize, down: usize, streams: usize) -> Result<(f64, f64)> {
    let (path, listener) = Path2::new(peer, directory)?;
    let before = path.cpu();
    let start = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let mut all = Vec::new();
        for _ in 0..streams {
            let client = path.connect()?;
            let server: Box<dyn Duplex> = Box::new(listener.accept()?.0);
            let (client2, server2) = (client.copy()?, server.copy()?);
            all.push(scope.spawn(move || send(client, up)));
            all.push(scope.spawn(move || receive(server).map(|got| assert_eq!(got, up))));
            all.push(scope.spawn(move || send(server2, down)));
            all.push(scope.spawn(move || receive(client2).map(|got| assert_eq!(got, down))));
        }
        for one in all {
            one.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })?;
    let gigabytes = ((up + down) * streams) as f64 / 1e9;
    let rate = gigabytes / start.elapsed().as_secs_f64();
    Ok((rate, (path.cpu() - before) / gigabytes))
}

/// Connections a second: connect, a request of 100 bytes, an answer of 100 bytes, end.
fn short(peer: Peer, directory: &Path, clients: usize, each: usize) -> Result<(f64, f64)> {
    let (path, listener) = Path2::new(peer, directory)?;
    let path = Arc::new(path);
    for _ in 0..clients.min(4) {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            let mut request = [0; 100];
            while let Ok((mut stream, _)) = listener.accept() {
                if stream.read_exact(&mut request).is_ok() {
                    let _gone = stream.write_all(&request);
                }
            }
        });
    }
    let before = path.cpu();
    let start = Instant::now();
    let all: Vec<_> = (0..clients)
        .map(|_| {
            let path = Arc::clone(&path);
            thread::spawn(move || -> io::Result<()> {
                let mut answer = Vec::new();
                for _ in 0..each {
                    let mut stream = path.connect()?;
                    stream.write_all(&[1; 100])?;
                    answer.clear();
                    stream.read_to_end(&mut answer)?;
                    assert_eq!(answer.len(), 100);
                }
                Ok(())
            })
        })
        .collect();
    for one in all {
        one.join().map_err(|_| "a thread panicked")??;
    }
    let count = (clients * each) as f64;
    Ok((count / start.elapsed().as_secs_f64(), (path.cpu() - before) / count * 1e6))
}

/// Microseconds of a round trip of 64 bytes: p50 and p99.
fn round_trip(peer: Peer, directory: &Path, count: usize) -> Result<(f64, f64)> {
    let (path, listener) = Path2::new(peer, directory)?;
    let mut client = path.connect()?;
    let (mut server, _) = listener.accept()?;
    thread::spawn(move || {
        let mut message = [0; 64];
        while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
    });
    let mut message = [3; 64];
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        client.write_all(&message)?;
        client.read_exact(&mut message)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[count / 2], times[count * 99 / 100]))
}

/// Bytes of the process's own memory per idle connection that has served a request.
fn idle(peer: Peer, directory: &Path, count: usize) -> Result<(f64, f64)> {
    if peer != Peer::Relay {
        return Ok((f64::NAN, f64::NAN));
    }
    let (path, listener) = Path2::new(peer, directory)?;
    let before = path.anonymous_memory();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut client = path.connect()?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"x")?;
        server.read_exact(&mut [0])?;
        all.push((client, server));
    }
    let used = path.anonymous_memory() - before;
    let cpu = path.cpu();
    thread::sleep(Duration::from_secs(1));
    Ok((used as f64 / count as f64, path.cpu() - cpu))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let mut rounds = 5;
    if let Some(at) = args.iter().position(|arg| arg == "--rounds") {
        rounds = args.get(at + 1).ok_or("--rounds N")?.parse()?;
        args.drain(at..at + 2);
    }
    let directory = std::env::temp_dir().join(format!("srt-relay-bench-{}", std::process::id()));
    fs::create_dir(&directory)?;
    const GB: usize = 1 << 30;
    type Measure = fn(Peer, &Path) -> Result<(f64, f64)>;
    let all: [(&str, &str, &str, Measure); 9] = [
        ("up", "GB/s", "CPU s/GB", |peer, d| throughput(peer, d, GB, 0, 1)),
        ("down", "GB/s", "CPU s/GB", |peer, d| throughput(peer, d, 0, GB, 1)),
        ("both", "GB/s", "CPU s/GB", |peer, d| throughput(peer, d, GB, GB, 1)),
        ("up8", "GB/s", "CPU s/GB", |peer, d| throughput(peer, d, GB / 4, 0, 8)),
        ("down8", "GB/s", "CPU s/GB", |peer, d| throughput(peer, d, 0, GB / 4, 8)),
        ("short1", "/s", "CPU us", |peer, d| short(peer, d, 1, 2000)),
        ("short16", "/s", "CPU us", |peer, d| short(peer, d, 16, 200)),
        ("rtt", "us p50", "us p99", |peer, d| round_trip(peer, d, 20000)),
        ("idle5000", "bytes each", "CPU s in 1 s", |peer, d| idle(peer, d, 5000)),
    ];
    for (name, unit, second_unit, measure) in all {
        if !args.is_empty() && !args.iter().any(|arg| arg == name) {
            continue;
        }
        let mut results = [const { (Vec::new(), Vec::new()) }; 3];
        for _ in 0..rounds {
            for (result, (peer, _)) in results.iter_mut().zip(PEERS) {
                let (first, second) = measure(peer, &directory)?;
                result.0.push(first);
                result.1.push(second);
            }
        }
        let own = results[0].clone();
        for (result, (_, peer)) in results.into_iter().zip(PEERS) {
            let ratio =
                |own: &[f64], other: &[f64]| median(own.iter().zip(other).map(|(a, b)| a / b).collect());
            println!(
                "{name:9} {peer:10} {:10.2} {unit:10} {:8.3} {second_unit:12} srt-relay/this {:.2} {:.2}",
                median(result.0.clone()),
                median(result.1.clone()),
                ratio(&own.0, &result.0),
                ratio(&own.1, &result.1),
            );
        }
    }
    fs::remove_dir_all(&directory)?;
    Ok(())
}
