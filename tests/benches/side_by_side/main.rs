//! The tools beside what people use today: run by `tests/bench`, which explains the options.
//!
//! Peers take turns within a round, in another order each round, and a ratio is that of one round. Nothing here asserts
//! anything about time; a wrong result (a start that fails, a byte that is lost) ends the benchmark.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod binaries;
mod connect;
mod growth;
mod launch;
mod peers;
mod relay;
mod relays;
mod report;
mod sandboxes;
mod streams;
mod timing;

use report::{Bench, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// A part of the benchmark, by the name that `--only` takes.
type Group = (&'static str, fn(&mut Bench) -> Result<()>);

const GROUPS: &[Group] = &[
    ("launch", launch::run_all),
    ("growth", growth::run_all),
    ("relay", relay::run),
    ("connect", connect::run),
    ("binaries", binaries::run_all),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut bench = Bench::new(options.quick)?;
    timing::adopt_orphans()?;
    println!("{}", peers::machine());
    println!("the tools: {} ({})\n", bench.built.display(), peers::linkage());
    for (name, run) in GROUPS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            run(&mut bench).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    bench.print_end();
    if let Some(path) = options.json {
        std::fs::write(&path, bench.json()).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("JSON: {}", path.display());
    }
    Ok(())
}

struct Options {
    quick: bool,
    json: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { quick: false, json: None, only: vec![] };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = Some(args.next().ok_or("--json FILE")?.into()),
                "--only" => options.only.push(args.next().ok_or("--only GROUP")?),
                "--bench" => {} // From cargo.
                other => return Err(format!("{other}: an option that is none").into()),
            }
        }
        let known = |name: &String| GROUPS.iter().any(|(group, _)| group == name);
        match options.only.iter().find(|name| !known(name)) {
            Some(name) => Err(format!(
                "--only {name}: there are {:?}",
                GROUPS.iter().map(|(group, _)| group).collect::<Vec<_>>()
            )
            .into()),
            None => Ok(options),
        }
    }
}
