//! What more of something costs: binds, mounts on the host, sandboxes at once; and a relay's own start.

use crate::peers::{self, Bubblewrap};
use crate::report::{Bench, Result, Row, Stats, Target};
use crate::sandboxes::{Caller, Place};
use crate::timing::{Contender, Run, Turns, at_once, each, interleave, run};
use srt_tests::host::Greeter;
use std::ffi::CString;
use std::fs;
use std::io::{Error, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NONE: [&str; 0] = [];

pub fn run_all(bench: &mut Bench) -> Result<()> {
    let place = Place::new(bench, Caller::Self_)?;
    let bwraps = peers::bubblewraps(bench);
    binds(bench, &place, &bwraps)?;
    mounts_on_the_host(bench, &place, &bwraps)?;
    sandboxes_at_once(bench, &place, &bwraps)?;
    relay_start(bench, &place)
}

/// The chain and each bubblewrap, with more options for the mounts.
fn starts<'a>(place: &'a Place, bwraps: &'a [Bubblewrap], options: &'a [PathBuf]) -> Vec<Contender<'a, Run>> {
    let mut all: Vec<Contender<'_, Run>> =
        vec![("the chain".into(), Box::new(|| run(place.chain(&NONE, options).arg("true"))))];
    for bwrap in bwraps {
        all.push((bwrap.name.clone(), Box::new(move || run(place.bwrap(bwrap, options)?.arg("true")))));
    }
    all
}

fn binds(bench: &mut Bench, place: &Place, bwraps: &[Bubblewrap]) -> Result<()> {
    for count in [1, 10, 100, 1000] {
        let options = read_only(bench, count)?;
        let seconds = if count == 1000 { bench.pick(9, 2) } else { bench.pick(4, 1) };
        let turns = Turns {
            rounds: bench.pick(100, if count == 1000 { 1 } else { 10 }),
            budget: Duration::from_secs(seconds),
        };
        let results = interleave(turns, starts(place, bwraps, &options))?;
        let row =
            Row::compare("growth", format!("time with binds: {count}"), "ms", each(&results, |run| run.wall));
        bench.add(match count {
            100 => row.target(Target::at_most(1.0 / 7.0, "bubblewrap 0.8.")),
            1000 => row.target(Target::at_most(1.0 / 60.0, "bubblewrap 0.8.")),
            _ => row,
        });
    }
    each_bind(bench, place)
}

/// What one more bind costs the chain, among many over among few. Linear growth is 1.
fn each_bind(bench: &mut Bench, place: &Place) -> Result<()> {
    let options = [1, 100, 1000].map(|count| read_only(bench, count));
    let all = options.iter().flatten().map(|options| -> Contender<'_, Run> {
        (String::new(), Box::new(|| run(place.chain(&NONE, options).arg("true"))))
    });
    let turns = Turns { rounds: bench.pick(60, 15), budget: Duration::from_secs(bench.pick(4, 1)) };
    let results = interleave(turns, all.collect())?;
    let [one, hundred, thousand] = &results[..] else { return Err("no directories to bind".into()) };
    let median = |of: &[Run]| Stats::of(of.iter().map(|run| run.cpu).collect()).median;
    let (one, hundred, thousand) = (median(&one.1), median(&hundred.1), median(&thousand.1));
    let growth = ((thousand - one) / 999.0) / ((hundred - one) / 99.0);
    let what = "CPU time of one more bind, up to 1000 over up to 100";
    let row = Row::compare("growth", what, "times", vec![("the chain".into(), vec![growth])]);
    bench.add(row.target(Target::own_at_most(1.5)));
    Ok(())
}

fn read_only(bench: &Bench, count: usize) -> Result<Vec<PathBuf>> {
    let directories = directories(&bench.work.path().join("binds"), count)?;
    Ok(directories.into_iter().flat_map(|dir| ["--ro-bind".into(), dir.clone(), dir]).collect())
}

/// Mounts on the host are those of a mount namespace of our own, which ends with its thread.
fn mounts_on_the_host(bench: &mut Bench, place: &Place, bwraps: &[Bubblewrap]) -> Result<()> {
    if !srt_tests::am_root() {
        bench.miss("mounts on the host: they need root");
        return Ok(());
    }
    for count in [20, 500, 1000] {
        let directories = directories(&bench.work.path().join("mounts"), count)?;
        let seconds = if count == 1000 { bench.pick(9, 2) } else { bench.pick(4, 1) };
        let turns = Turns { rounds: bench.pick(60, 5), budget: Duration::from_secs(seconds) };
        let results = std::thread::scope(|scope| {
            let host = scope.spawn(|| {
                mount_all(&directories).map_err(|error| error.to_string())?;
                interleave(turns, starts(place, bwraps, &[])).map_err(|error| error.to_string())
            });
            host.join().map_err(|_| "a thread panicked".to_owned())?
        })?;
        let what = format!("time with mounts added on the host: {count}");
        let row = Row::compare("growth", what, "ms", each(&results, |run| run.wall));
        bench.add(match count {
            1000 => row.target(Target::at_most(1.0 / 8.0, "bubblewrap 0.8.")),
            _ => row,
        });
    }
    Ok(())
}

/// In a new mount namespace of this thread's: a tmpfs on each of them.
fn mount_all(directories: &[PathBuf]) -> Result<()> {
    // SAFETY: a flag.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: a C string and null pointers.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
    for directory in directories {
        let directory = CString::new(directory.as_os_str().as_bytes())?;
        let kind = c"tmpfs".as_ptr();
        // SAFETY: C strings and a null pointer.
        check(unsafe { libc::mount(kind, directory.as_ptr(), kind, 0, none.cast()) })?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(Error::last_os_error().into()) }
}

fn sandboxes_at_once(bench: &mut Bench, place: &Place, bwraps: &[Bubblewrap]) -> Result<()> {
    for count in [1, 8, 32, 50] {
        // As many starts for each count.
        let rounds = bench.pick(600, 100) / count;
        let turns = Turns { rounds: rounds.max(3), budget: Duration::from_millis(bench.pick(4000, 500)) };
        let with = |mut command: Command| {
            command.arg("true");
            command
        };
        let mut all: Vec<Contender<'_, f64>> = vec![(
            "the chain".into(),
            Box::new(move || at_once(count, || Ok(with(place.chain(&NONE, &NONE))))),
        )];
        for bwrap in bwraps {
            let measure = move || at_once(count, || Ok(with(place.bwrap(bwrap, &NONE)?)));
            all.push((bwrap.name.clone(), Box::new(measure)));
        }
        let results = interleave(turns, all)?;
        let row = Row::compare(
            "growth",
            format!("sandboxes at once: {count}"),
            "a second",
            each(&results, |rate| *rate),
        );
        bench.add(if count == 50 { row.target(Target::at_least(1.4, "bubblewrap 0.8.")) } else { row });
    }
    Ok(())
}

/// A relay alone: from before its fork to the first byte through it, for a client that does not wait.
fn relay_start(bench: &mut Bench, place: &Place) -> Result<()> {
    let socket = &bench.work.path().join("greeter.sock");
    let _server = Greeter::start(socket, "!");
    let mut all: Vec<Contender<'_, f64>> = vec![(
        "srt-relay".into(),
        Box::new(|| {
            let port = srt_tests::servers::free_port();
            let mut command = Command::new(place.tool("srt-relay"));
            first_byte(
                port,
                command.arg(format!("tcp:127.0.0.1:{port}")).arg(format!("unix:{}", socket.display())),
            )
        }),
    )];
    if peers::has(bench, "socat") {
        let measure = || {
            let port = srt_tests::servers::free_port();
            let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
            first_byte(
                port,
                Command::new("socat").arg(listen).arg(format!("UNIX-CONNECT:{}", socket.display())),
            )
        };
        all.push(("socat".into(), Box::new(measure)));
    }
    let turns = Turns { rounds: bench.pick(300, 40), budget: Duration::from_secs(bench.pick(4, 1)) };
    let results = interleave(turns, all)?;
    bench.add(Row::compare(
        "growth",
        "first byte through a relay, from its exec",
        "ms",
        each(&results, |time| *time),
    ));
    Ok(())
}

fn first_byte(port: u16, command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let heard = loop {
        let mut byte = [0];
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut way| way.read_exact(&mut byte)) {
            Ok(()) => break Ok(start.elapsed().as_secs_f64() * 1e3),
            Err(error) if start.elapsed() > srt_tests::DEADLINE => break Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_micros(50)),
        }
    };
    child.kill()?;
    child.wait()?;
    heard
}

/// So many empty directories in one.
fn directories(parent: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let make = |number: usize| {
        let path = parent.join(number.to_string());
        fs::create_dir_all(&path).map(|()| path)
    };
    Ok((0..count).map(make).collect::<std::io::Result<_>>()?)
}
