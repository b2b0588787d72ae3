//! srt-relay beside other relays and beside no relay at all: throughput, short connections, round trips, memory, a
//! reader that stalls.
//!
//! Clients and servers are threads of this process, and every measurement has a relay of its own. On two processors the
//! three of them compete, as they do in use.

use crate::relays::{Route, Way, kernel_memory, raise_descriptor_limit, settled_kernel_memory};
use crate::report::{Bench, Result, Row, Target};
use crate::streams::{Duplex, Flows, Listener, Shared};
use crate::timing::{Contender, Turns, each, interleave_unrehearsed};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const GROUP: &str = "relay";

/// Before anything is counted: TCP's windows and the relay's buffers have their sizes by then.
fn warm(streams: usize) -> Duration {
    Duration::from_millis(if streams > 8 { 150 } else { 40 })
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let descriptors = raise_descriptor_limit()?;
    for missing in Way::ALL.iter().filter_map(|way| way.missing()) {
        bench.miss(missing);
    }
    throughput(bench)?;
    short_connections(bench)?;
    round_trips(bench)?;
    stalled_reader(bench)?;
    idle_connections(bench, descriptors)
}

/// The ways that can be gone here, ours first.
fn ways() -> impl Iterator<Item = Way> {
    Way::ALL.into_iter().filter(|way| way.missing().is_none())
}

/// Lets `ways` take turns at one measurement.
fn turns<T>(
    bench: &Bench,
    ways: impl Iterator<Item = Way>,
    rounds: usize,
    measure: impl Fn(Way) -> Result<T> + Copy,
) -> Result<Vec<(String, Vec<T>)>> {
    let contender = |way: Way| -> Contender<'_, T> { (way.title(), Box::new(move || measure(way))) };
    let budget = Duration::from_secs(bench.pick(10, 3));
    // Each has a relay of its own, which is warm by the time that it is measured.
    interleave_unrehearsed(Turns { rounds, budget }, ways.map(contender).collect())
}

/// The relay that is best in this row, ours and socat aside.
fn best_other(row: &Row) -> Option<&'static str> {
    let median =
        |way: Way| row.figures.iter().find(|f| f.who.starts_with(way.name())).map(|f| f.value.median);
    let others = [Way::Proxyd, Way::Nginx].into_iter().filter_map(|way| Some((way.name(), median(way)?)));
    others.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| name)
}

/// Which way bytes go, and what the project wants of it.
struct Direction {
    name: &'static str,
    /// From the TCP client to the Unix server, and back.
    flow: (bool, bool),
    over_socat: f64,
    of_direct: Option<f64>,
    cpu_of_socat: Option<f64>,
}

const DIRECTIONS: [Direction; 3] = [
    Direction {
        name: "TCP to Unix",
        flow: (true, false),
        over_socat: 3.5,
        of_direct: Some(0.35),
        cpu_of_socat: Some(0.25),
    },
    Direction {
        name: "Unix to TCP",
        flow: (false, true),
        over_socat: 1.8,
        of_direct: Some(0.28),
        cpu_of_socat: Some(0.5),
    },
    Direction {
        name: "both ways at once",
        flow: (true, true),
        over_socat: 2.5,
        of_direct: None,
        cpu_of_socat: None,
    },
];

/// Gigabytes a second each way, and what they cost the relay.
fn throughput(bench: &mut Bench) -> Result<()> {
    // Streams, milliseconds, rounds. One stream has two speeds, by where the kernel's scheduler puts its three threads;
    // what 64 streams have on its way takes long to arrive.
    let plan: &[(usize, u64, usize)] =
        bench.pick(&[(1, 300, 6), (8, 130, 4), (64, 130, 3)], &[(1, 100, 2), (8, 50, 2)]);
    for direction in &DIRECTIONS {
        for &(streams, milliseconds, rounds) in plan {
            let window = Duration::from_millis(milliseconds);
            let results = turns(bench, ways(), rounds, |way| {
                let (route, listener) = Route::open(bench, way)?;
                let shared = Shared::default();
                thread::scope(|scope| {
                    let flows = Flows::start(scope, &shared, (&route, &listener), streams, direction.flow)?;
                    thread::sleep(warm(streams));
                    let measured = flows.measure(&route, window);
                    flows.end()?;
                    Ok(measured)
                })
            })?;
            let what = format!("{}, {streams} stream{}", direction.name, if streams == 1 { "" } else { "s" });
            let mut row = Row::compare(GROUP, &what, "GB/s", each(&results, |(rate, _)| *rate))
                .target(Target::at_least(direction.over_socat, Way::Socat.name()));
            if let Some(best) = best_other(&row) {
                row = row.target(Target::at_least(0.85, best));
            }
            if let Some(bound) = direction.of_direct {
                row = row.target(Target::at_least(bound, Way::DirectTcp.name()));
                // Several Unix streams stay in the cache of a processor that sender and receiver share: no TCP socket,
                // direct or not, comes near.
                if streams == 1 {
                    row = row.target(Target::at_least(bound, Way::DirectUnix.name()));
                }
            }
            bench.add(row);
            let relays = each(&results, |(_, cpu)| *cpu);
            let relays = relays.into_iter().filter(|(name, _)| !name.starts_with("direct")).collect();
            let mut row = Row::compare(GROUP, format!("{what}: the relay's CPU"), "s/GB", relays);
            if let Some(bound) = direction.cpu_of_socat {
                row = row.target(Target::at_most(bound, Way::Socat.name()));
            }
            bench.add(row);
        }
    }
    Ok(())
}

/// Connections a second: connect, a request of 100 bytes, an answer of 100 bytes, end.
fn short_connections(bench: &mut Bench) -> Result<()> {
    let (window, rounds) = bench.pick((Duration::from_millis(200), 4), (Duration::from_millis(80), 2));
    for (clients, over_socat) in [(1, 2.5), (16, 3.5)] {
        let results = turns(bench, ways(), rounds, |way| exchange(bench, way, clients, window))?;
        let what = format!("short connections, {clients} client{}", if clients == 1 { "" } else { "s" });
        let row = Row::compare(GROUP, &what, "/s", each(&results, |(rate, _)| *rate));
        bench.add(row.target(Target::at_least(over_socat, Way::Socat.name())));
        // All that there were, not the median: one is too many.
        let errors: Vec<_> = each(&results, |(_, errors)| *errors as f64)
            .into_iter()
            .map(|(name, errors)| (name, vec![errors.iter().sum()]))
            .collect();
        let ours = errors.first().map_or(0.0, |(_, errors)| errors.iter().sum::<f64>());
        bench.add(
            Row::compare(GROUP, format!("{what}: errors"), "in all", errors).target(Target::own_at_most(0.0)),
        );
        if ours > 0.0 {
            return Err(format!("{ours} of srt-relay's short connections failed").into());
        }
    }
    Ok(())
}

fn exchange(bench: &Bench, way: Way, clients: usize, window: Duration) -> Result<(f64, usize)> {
    let (route, listener) = Route::open(bench, way)?;
    let (done, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = || -> io::Result<()> {
        let mut answer = Vec::new();
        let mut stream = route.connect()?;
        stream.write_all(&[1; 100])?;
        stream.read_to_end(&mut answer)?;
        if answer == [1; 100] { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    };
    let start = Instant::now();
    let took = thread::scope(|scope| {
        for _ in 0..clients.min(4) {
            scope.spawn(|| {
                let mut request = [0; 100];
                while let Ok(mut stream) = listener.accept_whenever() {
                    let _client_has_gone =
                        stream.read_exact(&mut request).and_then(|()| stream.write_all(&request));
                }
            });
        }
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    while start.elapsed() < window {
                        let counter = if one().is_ok() { &done } else { &errors };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for client in clients {
            let _joined = client.join();
        }
        listener.shut_down();
        start.elapsed()
    });
    Ok((done.into_inner() as f64 / took.as_secs_f64(), errors.into_inner()))
}

/// A message of 64 bytes there and back.
fn round_trips(bench: &mut Bench) -> Result<()> {
    // Where the scheduler puts the three processes is most of the spread: short windows, many rounds.
    let (window, rounds) = bench.pick((Duration::from_millis(100), 11), (Duration::from_millis(60), 3));
    let results = turns(bench, ways(), rounds, |way| {
        let (route, listener) = Route::open(bench, way)?;
        let [mut client, mut server] = route.pair(&listener)?;
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut message = [0; 64];
                while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
            });
            let (mut times, begin) = (Vec::new(), Instant::now());
            while begin.elapsed() < window {
                let (sent, mut message) = ([times.len() as u8; 64], [0; 64]);
                let start = Instant::now();
                client.write_all(&sent)?;
                client.read_exact(&mut message)?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
                if message != sent {
                    return Err("not what was sent has come back".into());
                }
            }
            drop(client);
            times.sort_by(f64::total_cmp);
            let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
            Ok((at(0.5), at(0.99)))
        })
    })?;
    let row = Row::compare(GROUP, "round trip, p50", "us", each(&results, |(p50, _)| *p50));
    bench.add(row.target(Target::at_most(1.15, Way::Socat.name())));
    bench.add(Row::compare(GROUP, "round trip, p99", "us", each(&results, |(_, p99)| *p99)));
    Ok(())
}

/// What a reader that reads nothing costs eight others, and the processor.
fn stalled_reader(bench: &mut Bench) -> Result<()> {
    const OTHERS: usize = 8;
    let (window, rounds) = bench.pick((Duration::from_millis(120), 3), (Duration::from_millis(80), 1));
    for (direction, up) in [("TCP to Unix", true), ("Unix to TCP", false)] {
        let relays = ways().filter(|way| !way.is_direct());
        let results = turns(bench, relays, rounds, |way| {
            let (route, listener) = Route::open(bench, way)?;
            // While nothing moves but into the full buffers of the stalled one.
            let stalled = stall(&route, &listener, up)?;
            let before = route.cpu();
            thread::sleep(window);
            let spun = (route.cpu() - before) / window.as_secs_f64();
            drop(stalled);

            let shared = Shared::default();
            thread::scope(|scope| {
                let flows = Flows::start(scope, &shared, (&route, &listener), OTHERS, (up, !up))?;
                thread::sleep(warm(OTHERS));
                let (first, _) = flows.measure(&route, window);
                let stalled = stall(&route, &listener, up)?;
                let (beside, _) = flows.measure(&route, window);
                drop(stalled);
                thread::sleep(warm(OTHERS));
                let (last, _) = flows.measure(&route, window);
                flows.end()?;
                Ok((beside / ((first + last) / 2.0), spun))
            })
        })?;
        let what = format!("a stalled reader, {direction}");
        let kept = each(&results, |(kept, _)| *kept);
        let row = Row::compare(
            GROUP,
            format!("{what}: what {OTHERS} others keep of their throughput"),
            "of 1",
            kept,
        );
        bench.add(row.target(Target::own_at_least(0.67)));
        let spun = each(&results, |(_, spun)| *spun);
        let row = Row::compare(GROUP, format!("{what}: CPU while nothing moves"), "s/s", spun);
        bench.add(row.target(Target::own_at_most(0.01)));
    }
    Ok(())
}

/// A connection whose reader reads nothing, once nothing more can be written into it.
fn stall(route: &Route, listener: &Listener, up: bool) -> Result<[Box<dyn Duplex>; 2]> {
    let [mut client, mut server] = route.pair(listener)?;
    let writer = if up { &mut client } else { &mut server };
    writer.patience(Duration::from_millis(50))?;
    let chunk = vec![5; 64 << 10];
    loop {
        match writer.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok([client, server])
}

/// What each connection takes that has served a request and now waits, and whether all still answer.
fn idle_connections(bench: &mut Bench, descriptors: u64) -> Result<()> {
    let (counts, rounds): (&[usize], _) = bench.pick((&[1000, 5000, 9900], 2), (&[1000, 9900], 1));
    let most = *counts.last().ok_or("no counts")?;
    let relays: Vec<Way> = ways().filter(|way| !way.is_direct()).collect();
    let mut results: Vec<(String, Vec<Idle>)> = relays.iter().map(|way| (way.title(), Vec::new())).collect();
    for _ in 0..rounds {
        let ends = ends(bench, most.min(descriptors as usize / 4))?;
        for (way, (_, results)) in relays.iter().zip(&mut results) {
            let (can, why) = match way {
                Way::Socat => (1000, "it takes a process for each"),
                Way::Proxyd => (descriptors as usize / 6 - 10, "it takes six descriptors for each"),
                _ => (usize::MAX, ""),
            };
            if can < most {
                bench.miss(format!("{} with more than {can} idle connections: {why}", way.name()));
            }
            let counts: Vec<usize> = counts.iter().copied().filter(|count| *count <= can).collect();
            results.push(idle(bench, *way, &counts, ends)?);
        }
    }
    type OfStep = fn(&Step) -> f64;
    let at = |count: usize, figure: OfStep| -> Vec<(String, Vec<f64>)> {
        let of = |idle: &Idle| idle.steps.iter().find(|step| step.count == count).map(figure);
        let all =
            results.iter().map(|(name, all)| (name.clone(), all.iter().filter_map(of).collect::<Vec<_>>()));
        all.filter(|(_, values)| !values.is_empty()).collect()
    };
    let empty = results
        .iter()
        .map(|(name, all)| (name.clone(), all.iter().map(|idle| idle.empty / 1024.0).collect()));
    bench.add(Row::compare(GROUP, "no connection: the process's memory", "KiB", empty.collect()));
    for &count in counts {
        let (own, kernel) = (at(count, |step| step.own), at(count, |step| step.kernel));
        let what = format!("{count} idle connections");
        let row = Row::compare(GROUP, format!("{what}: the process's memory, each"), "KiB", own);
        bench.add(row.target(Target::own_at_most(1.0)));
        let row = Row::compare(
            GROUP,
            format!("{what}: the kernel's, each, beside client and server"),
            "KiB",
            kernel,
        );
        bench.add(row.target(Target::own_at_most(8.0)));
    }
    let row = Row::compare(
        GROUP,
        format!("{most} idle connections: answer at the end"),
        "of them",
        at(most, |step| step.answers),
    );
    bench.add(row.target(Target::own_at_least(most as f64)));
    Ok(())
}

struct Idle {
    empty: f64,
    steps: Vec<Step>,
}

/// What `count` connections take, KiB for each, and how many of them answer.
struct Step {
    count: usize,
    own: f64,
    kernel: f64,
    answers: f64,
}

fn idle(bench: &Bench, way: Way, counts: &[usize], ends: f64) -> Result<Idle> {
    let (route, listener) = Route::open(bench, way)?;
    // The first connection is what makes some of them start in earnest.
    serve(&mut route.pair(&listener)?)?;
    let (empty, kernel) = (route.memory(), settled_kernel_memory());
    let (mut all, mut steps) = (Vec::new(), Vec::new());
    for &count in counts {
        while all.len() < count {
            let mut pair = route.pair(&listener)?;
            serve(&mut pair)?;
            all.push(pair);
        }
        let each = |bytes: f64| bytes / count as f64 / 1024.0;
        let (own, kernel) = (each(route.memory() - empty), each(kernel_memory() - kernel) - ends);
        for (number, pair) in all.iter_mut().enumerate() {
            serve(pair)
                .map_err(|error| format!("{}: connection {number} of {count}: {error}", way.name()))?;
        }
        steps.push(Step { count, own, kernel, answers: count as f64 });
    }
    Ok(Idle { empty, steps })
}

/// A byte there and another back.
fn serve([client, server]: &mut [Box<dyn Duplex>; 2]) -> io::Result<()> {
    let mut byte = [0];
    client.write_all(b"?")?;
    server.read_exact(&mut byte)?;
    server.write_all(b"!")?;
    client.read_exact(&mut byte)?;
    if byte == *b"!" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// KiB that the kernel holds for the client's TCP socket and the server's Unix socket, which are there with every
/// relay: half of a TCP connection and half of a Unix connection.
fn ends(bench: &Bench, count: usize) -> Result<f64> {
    let mut sum = 0.0;
    for way in [Way::DirectTcp, Way::DirectUnix] {
        let (route, listener) = Route::open(bench, way)?;
        let (before, mut all) = (settled_kernel_memory(), Vec::new());
        for _ in 0..count {
            let mut pair = route.pair(&listener)?;
            serve(&mut pair)?;
            all.push(pair);
        }
        sum += (kernel_memory() - before) / count as f64 / 1024.0 / 2.0;
    }
    Ok(sum)
}
