//! Each binary by itself: its size, the system calls and page faults of its start, what a stage alone costs.

use crate::peers;
use crate::report::{Bench, Result, Row, TOOLS};
use crate::sandboxes::{Caller, MOUNTS, Place};
use crate::timing::{Contender, Run, Turns, each, interleave, run};
use srt_tests::host::Greeter;
use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const NONE: [&str; 0] = [];

pub fn run_all(bench: &mut Bench) -> Result<()> {
    let place = &Place::new(bench, Caller::Self_)?;
    let size =
        |name: &str| Ok((name.to_owned(), vec![fs::metadata(place.tool(name))?.len() as f64 / 1024.0]));
    bench.add(Row::list(
        "binaries",
        "size",
        "KiB",
        TOOLS.iter().map(|name| size(name)).collect::<Result<_>>()?,
    ));

    alone(bench, place)?;
    stages(bench, place)?;
    if peers::has(bench, "strace") {
        calls(bench, place)?;
    }
    Ok(())
}

/// What it takes to be started and to say one's version.
fn alone(bench: &mut Bench, place: &Place) -> Result<()> {
    let mut programs: Vec<(String, Command)> =
        TOOLS.iter().map(|name| ((*name).to_owned(), Command::new(place.tool(name)))).collect();
    programs.extend(peers::bubblewraps(bench).into_iter().map(|bwrap| (bwrap.name.clone(), bwrap.command())));
    let runs = programs.into_iter().map(|(name, mut command)| -> Contender<'_, Run> {
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
        (name, Box::new(move || run(&mut command)))
    });
    let turns = Turns { rounds: bench.pick(200, 30), budget: Duration::from_secs(bench.pick(4, 1)) };
    let runs = interleave(turns, runs.collect())?;
    bench.add(Row::list("binaries", "time of --version", "ms", each(&runs, |run| run.wall)));
    bench.add(Row::list("binaries", "minor page faults of --version", "", each(&runs, |run| run.faults)));
    Ok(())
}

/// Each stage of the chain without the others.
fn stages(bench: &mut Bench, place: &Place) -> Result<()> {
    let stage = |name: &'static str, options: &'static [&'static str]| -> Contender<'_, Run> {
        let start = move || {
            let mut command = Command::new(place.tool(name));
            command.args(options).args(["--", "true"]);
            run(&mut place.settle(command))
        };
        (format!("{name} -- true"), Box::new(start))
    };
    let mut all = vec![stage("srt-ns", &[]), stage("srt-seccomp", &[])];
    if srt_tests::am_root() {
        all.insert(1, stage("srt-mount", &MOUNTS));
    } else {
        bench.miss("srt-mount alone: it needs root");
    }
    all.push(("all three -- true".into(), Box::new(|| run(place.chain(&NONE, &NONE).arg("true")))));
    all.push(("true".into(), Box::new(|| run(&mut place.settle(Command::new("true"))))));
    let turns = Turns { rounds: bench.pick(300, 40), budget: Duration::from_secs(bench.pick(6, 1)) };
    let runs = interleave(turns, all)?;
    bench.add(Row::list("binaries", "time of a stage alone", "ms", each(&runs, |run| run.wall)));
    bench.add(Row::list("binaries", "CPU time of a stage alone", "ms", each(&runs, |run| run.cpu)));
    bench.add(Row::list("binaries", "minor page faults of a stage alone", "", each(&runs, |run| run.faults)));
    Ok(())
}

/// The system calls of --version, and of the chain with a relay, by the program that makes them.
fn calls(bench: &mut Bench, place: &Place) -> Result<()> {
    let mut versions = vec![];
    for name in TOOLS {
        let calls = traced(bench, name, &[place.tool(name).display().to_string(), "--version".into()])?;
        versions.push((name.to_owned(), vec![calls[name]]));
    }
    bench.add(Row::list("binaries", "system calls of --version", "", versions));

    let socket = bench.work.path().join("calls.sock");
    let _server = Greeter::start(&socket, "!");
    let relay = ["--relay".to_owned(), format!("3128={}", socket.display())];
    let chain = words(place.chain(&relay, &NONE).arg("true"));
    let mut calls = traced(bench, "srt-ns", &chain)?;
    let mut starts: Vec<(String, Vec<f64>)> = vec![];
    for name in &TOOLS[..4] {
        let count = calls.remove(*name).ok_or_else(|| format!("{name} made no system call"))?;
        starts.push(((*name).to_owned(), vec![count]));
    }
    for bwrap in peers::bubblewraps(bench) {
        // Without the filter, for which a descriptor would have to be handed down.
        let calls = traced(bench, "bwrap", &words(place.bwrap_without_filter(&bwrap, &["--"]).arg("true")))?;
        starts.push((format!("{}, without a filter", bwrap.name), vec![calls["bwrap"]]));
    }
    let calls = traced(bench, "floor", &words(place.floor().arg("true")))?;
    starts.push(("floor: one process".into(), vec![calls["floor"]]));
    bench.add(Row::list(
        "binaries",
        "system calls of the chain with a relay, until true is started",
        "",
        starts,
    ));
    Ok(())
}

/// A command's words, for strace.
fn words(command: &Command) -> Vec<String> {
    [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into())
        .collect()
}

/// How many system calls each program makes, forks included, by the name that it is started with; the first one is
/// `first`.
fn traced(bench: &Bench, first: &str, words: &[String]) -> Result<HashMap<String, f64>> {
    let log = bench.work.path().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(&log).args(words).stdin(Stdio::null()).stdout(Stdio::null());
    run(&mut strace)?;
    Ok(count(&fs::read_to_string(&log)?, first))
}

/// Counts in what `strace -f -o` wrote: `PID call(…) = …`, or `PID call(… <unfinished ...>` and later
/// `PID <... call resumed>…) = …`. The exec that starts a program is its caller's.
fn count(log: &str, first: &str) -> HashMap<String, f64> {
    let mut programs: HashMap<&str, String> = HashMap::new();
    let mut starting: HashMap<&str, String> = HashMap::new();
    let mut counts = HashMap::new();
    for (number, line) in log.lines().enumerate() {
        let Some((pid, call)) = line.split_once(' ').map(|(pid, call)| (pid, call.trim_start())) else {
            continue;
        };
        let begins = call.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if begins && number > 0 {
            // Only the first program has children of its own code here.
            let program = programs.entry(pid).or_insert_with(|| first.to_owned());
            *counts.entry(program.clone()).or_insert(0.0) += 1.0;
        }
        if call.starts_with("execve") && number > 0 {
            let name =
                call.split_once("[\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
            starting.insert(pid, name.rsplit('/').next().unwrap_or_default().to_owned());
        }
        if call.contains("execve")
            && call.ends_with(" = 0")
            && let Some(name) = starting.remove(pid)
        {
            programs.insert(pid, name);
        }
    }
    counts
}
