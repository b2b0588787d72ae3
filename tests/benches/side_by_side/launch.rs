//! The start of a sandbox: the chain beside bubblewrap, util-linux and the floor; with two relays, beside bubblewrap with
//! two socat and a helper for the filter, as sandbox runtimes start it from a shell.

use crate::peers;
use crate::report::{Bench, Result, Row, Target};
use crate::sandboxes::{Caller, Place};
use crate::timing::{Contender, Run, Turns, each, interleave, run, run_reading};
use srt_tests::host::Greeter;
use std::process::{Command, Stdio};
use std::time::Duration;

const NONE: [&str; 0] = [];

pub fn run_all(bench: &mut Bench) -> Result<()> {
    let root = srt_tests::am_root();
    chain(bench, Caller::Self_, if root { "root" } else { "this user" }, bench.pick(18, 3))?;
    if root {
        chain(bench, Caller::User, "an ordinary user", bench.pick(14, 3))?;
    } else {
        bench.miss("rows for root: the benchmark does not run as root");
    }
    with_landlock(bench)?;
    with_relays(bench)
}

fn with_landlock(bench: &mut Bench) -> Result<()> {
    if srt_tests::landlock_abi() < 5 {
        bench.miss("the cost of Landlock: this kernel's is too old");
        return Ok(());
    }
    let place = &Place::new(bench, Caller::Self_)?;
    let all: Vec<Contender<'_, Run>> = vec![
        ("the chain with --landlock".into(), Box::new(|| run(place.chain_with_landlock().arg("true")))),
        ("the chain".into(), Box::new(|| run(place.chain(&NONE, &NONE).arg("true")))),
    ];
    let turns = Turns { rounds: bench.pick(600, 80), budget: Duration::from_secs(bench.pick(12, 2)) };
    let results = interleave(turns, all)?;
    let row = Row::compare("launch", "time of the chain with Landlock", "ms", each(&results, |run| run.wall));
    bench.add(row.target(Target::at_most(1.03, "the chain")));
    Ok(())
}

fn chain(bench: &mut Bench, caller: Caller, whose: &str, seconds: u64) -> Result<()> {
    let place = Place::new(bench, caller)?;
    let place = &place;
    let musl = place.with_musl(bench);
    let mut all: Vec<Contender<'_, Run>> =
        vec![("the chain".into(), Box::new(|| run(place.chain(&NONE, &NONE).arg("true"))))];
    if let Some(place) = &musl {
        let name = "the chain, built with musl".to_owned();
        all.push((name, Box::new(|| run(place.chain(&NONE, &NONE).arg("true")))));
    }
    for bwrap in peers::bubblewraps(bench) {
        all.push((bwrap.name.clone(), Box::new(move || run(place.bwrap(&bwrap, &NONE)?.arg("true")))));
    }
    if peers::has(bench, "unshare") && peers::has(bench, "setpriv") {
        let name = "unshare + setpriv, less isolated".to_owned();
        all.push((name, Box::new(|| run(place.unshare().arg("true")))));
    }
    all.push(("floor: one process".into(), Box::new(|| run(place.floor().arg("true")))));
    all.push(("no sandbox".into(), Box::new(|| run(&mut place.settle(Command::new("true"))))));

    let turns = Turns { rounds: bench.pick(600, 80), budget: Duration::from_secs(seconds) };
    let results = interleave(turns, all)?;
    let row = |what: &str, figure: fn(&Run) -> f64| {
        Row::compare("launch", format!("{what} of the chain, {whose}"), "ms", each(&results, figure))
            .target(Target::at_most(if caller == Caller::Self_ { 0.74 } else { 0.8 }, "bubblewrap 0.8."))
            .target(Target::at_most(if caller == Caller::Self_ { 0.91 } else { 0.95 }, "bubblewrap 0.13."))
    };
    bench.add(row("time", |run| run.wall).target(Target::at_most(1.6, "floor")));
    bench.add(row("CPU time", |run| run.cpu));
    if caller == Caller::Self_ {
        let gone = each(&results, |run| run.gone);
        bench.add(Row::compare(
            "launch",
            format!("time until nothing is left of the chain, {whose}"),
            "ms",
            gone,
        ));
        let faults = each(&results, |run| run.faults);
        bench.add(Row::compare("launch", format!("minor page faults of the chain, {whose}"), "", faults));
    }
    Ok(())
}

/// Two relays, as for an HTTP proxy and a SOCKS proxy: a run that needs neither, and one that wants a byte at once.
fn with_relays(bench: &mut Bench) -> Result<()> {
    if !peers::has(bench, "socat") {
        return Ok(());
    }
    let place = &Place::new(bench, Caller::Self_)?;
    let relays = [(3128, "http.sock"), (1080, "socks.sock")];
    let relays = &relays.map(|(port, socket)| (port, bench.work.path().join(socket)));
    let _servers: Vec<_> = relays.iter().map(|(_, socket)| Greeter::start(socket, "!")).collect();
    let for_ns: Vec<String> = relays
        .iter()
        .flat_map(|(port, socket)| ["--relay".to_owned(), format!("{port}={}", socket.display())])
        .collect();
    let for_ns = &for_ns;

    let mut starts: Vec<(String, Box<dyn Fn() -> Command + '_>)> =
        vec![("the chain, 2 × --relay".into(), Box::new(move || place.chain(for_ns, &NONE)))];
    for bwrap in peers::bubblewraps(bench) {
        let name = format!("{} + 2 × socat + helper", bwrap.name);
        starts.push((name, Box::new(move || place.stack(&bwrap, relays))));
    }
    let turns = Turns { rounds: bench.pick(300, 40), budget: Duration::from_secs(bench.pick(12, 2)) };

    let runs = starts.iter().map(|(name, start)| -> Contender<'_, Run> {
        (name.clone(), Box::new(move || run(start().arg("true"))))
    });
    let runs = interleave(turns, runs.collect())?;
    bench.add(
        Row::compare("launch", "time of the chain with two relays", "ms", each(&runs, |run| run.wall))
            .target(Target::at_most(0.42, "bubblewrap 0.8.")),
    );
    bench.add(Row::compare(
        "launch",
        "CPU time of the chain with two relays",
        "ms",
        each(&runs, |run| run.cpu),
    ));

    let bytes = starts.iter().enumerate().map(|(number, (name, start))| -> Contender<'_, FirstByte> {
        let client = place.tool("first-byte");
        let always_first = number == 0;
        (name.clone(), Box::new(move || first_byte(start().arg(&client).arg("3128"), always_first)))
    });
    let bytes = interleave(turns, bytes.collect())?;
    bench.add(
        Row::compare(
            "launch",
            "first relayed byte of the chain with two relays",
            "ms",
            each(&bytes, |byte| byte.after),
        )
        .target(Target::at_most(0.31, "bubblewrap 0.8.")),
    );
    bench.add(
        Row::compare("launch", "connections tried until it came", "tries", each(&bytes, |byte| byte.tries))
            .target(Target::own_at_most(1.0)),
    );
    bench.add(
        Row::compare("launch", "time of the run with that byte", "ms", each(&bytes, |byte| byte.run.wall))
            .target(Target::at_most(0.36, "bubblewrap 0.8.")),
    );
    Ok(())
}

/// A run of the program first-byte, and what it said.
struct FirstByte {
    run: Run,
    /// Milliseconds from before the fork.
    after: f64,
    tries: f64,
}

fn first_byte(command: &mut Command, always_first: bool) -> Result<FirstByte> {
    let start = srt_tests::monotonic_nanos();
    let (run, said) = run_reading(command.stdout(Stdio::piped()))?;
    let (tries, at) = said.trim().split_once(' ').ok_or_else(|| format!("first-byte said {said:?}"))?;
    let (tries, at): (f64, u64) = (tries.parse()?, at.parse()?);
    if always_first && tries > 1.0 {
        return Err(format!(
            "the first byte came at try {tries}: the port did not accept from the first instruction on"
        )
        .into());
    }
    Ok(FirstByte { run, after: (at - start) as f64 / 1e6, tries })
}
