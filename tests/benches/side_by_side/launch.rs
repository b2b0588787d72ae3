//! The start of a sandbox: the chain beside bubblewrap, util-linux and the floor; with two relays, beside bubblewrap with
//! two socat and a helper for the filter, as sandbox runtimes start it from a shell.

use crate::peers;
use crate::report::{Bench, Result, Row, Target};
use crate::sandboxes::{Caller, Place};
use crate::timing::{Contender, Run, Turns, each, interleave, run};
use std::time::Duration;

const NONE: [&str; 0] = [];

pub fn run_all(bench: &mut Bench) -> Result<()> {
    let root = srt_tests::am_root();
    chain(bench, Caller::Self_, if root { "root" } else { "this user" }, bench.pick(30, 6))?;
    if root {
        chain(bench, Caller::User, "an ordinary user", bench.pick(20, 5))?;
    }
    Ok(())
}

fn chain(bench: &mut Bench, caller: Caller, whose: &str, seconds: u64) -> Result<()> {
    let place = Place::new(bench, caller)?;
    let place = &place;
    let mut all: Vec<Contender<'_, Run>> =
        vec![("the chain".into(), Box::new(|| run(place.chain(&NONE, &NONE).arg("true"))))];
    for bwrap in peers::bubblewraps(bench) {
        all.push((bwrap.name.clone(), Box::new(move || run(place.bwrap(&bwrap, true, &NONE).arg("true")))));
    }
    if peers::has(bench, "unshare") && peers::has(bench, "setpriv") {
        let name = "unshare + setpriv, less isolated".to_owned();
        all.push((name, Box::new(|| run(place.unshare().arg("true")))));
    }
    all.push(("floor: one process".into(), Box::new(|| run(place.floor().arg("true")))));
    all.push(("no sandbox".into(), Box::new(|| run(&mut place.settle(std::process::Command::new("true"))))));

    let turns = Turns { rounds: bench.pick(600, 80), budget: Duration::from_secs(seconds) };
    let results = interleave(turns, all)?;
    let row = |what: &str, figure: fn(&Run) -> f64| {
        Row::compare("launch", format!("{what} of the chain, {whose}"), "ms", each(&results, figure))
            .target(Target::at_most(0.62, "bubblewrap 0.8"))
            .target(Target::at_most(0.8, "bubblewrap 0.13"))
    };
    bench.add(row("time", |run| run.wall).target(Target::at_most(1.6, "floor")));
    bench.add(row("CPU time", |run| run.cpu));
    Ok(())
}
