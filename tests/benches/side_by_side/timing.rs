//! Runs of a command, measured, and peers that take turns.

use crate::report::Result;
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// From before the fork to the end of the process that was started, milliseconds.
    pub wall: f64,
    /// The same, to the end of the last process that was left of it.
    pub gone: f64,
    /// Of all its processes, user and system, milliseconds. What the kernel does later for a namespace that is gone, in
    /// threads of its own, is in nobody's.
    pub cpu: f64,
    /// Minor page faults of all its processes.
    pub faults: f64,
}

/// Makes this process the parent of every orphan below it, so that [`run`] sees what all processes of a sandbox used,
/// also those that nobody in it waits for.
pub fn adopt_orphans() -> Result<()> {
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: integers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, yes, none, none, none) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Runs a command, which must succeed, and waits until none of its processes is left. No other child may be alive.
pub fn run(command: &mut Command) -> Result<Run> {
    run_reading(command).map(|(run, _)| run)
}

/// The same; returns what it wrote to a stdout that is a pipe, too.
pub fn run_reading(command: &mut Command) -> Result<(Run, String)> {
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    let first = i32::try_from(child.id())?;
    let (mut run, mut ended) = (Run::default(), None);
    while let Some((pid, status, usage)) = wait_any()? {
        if pid == first {
            run.wall = start.elapsed().as_secs_f64() * 1e3;
            ended = Some(status);
        }
        run.cpu += milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime);
        run.faults += usage.ru_minflt as f64;
    }
    run.gone = start.elapsed().as_secs_f64() * 1e3;
    match ended {
        Some(status) if status.success() => Ok((run, said)),
        _ => Err(format!("{command:?}: {ended:?}").into()),
    }
}

/// Starts as many at once as one process can, waits for all, which must succeed; how many that are in a second.
pub fn at_once(count: usize, mut command: impl FnMut() -> Result<Command>) -> Result<f64> {
    let start = Instant::now();
    let mut started = HashSet::new();
    for _ in 0..count {
        started.insert(i32::try_from(command()?.spawn()?.id())?);
    }
    let mut seconds = f64::NAN;
    while let Some((pid, status, _)) = wait_any()? {
        if started.remove(&pid) {
            if !status.success() {
                return Err(format!("one of {count} at once: {status}").into());
            }
            seconds = start.elapsed().as_secs_f64();
        }
    }
    Ok(count as f64 / seconds)
}

/// wait4(2) for any child: its use of the machine includes that of the children that it waited for.
fn wait_any() -> Result<Option<(i32, ExitStatus, libc::rusage)>> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that outlive the call.
        let pid = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
        if pid > 0 {
            return Ok(Some((pid, ExitStatus::from_raw(status), usage)));
        }
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error.into()),
        }
    }
}

fn milliseconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3
}

/// How often peers take turns: until `rounds` are done, or until `budget` is used up and three are.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    pub rounds: usize,
    pub budget: Duration,
}

/// One who takes turns, by name.
pub type Contender<'a, T> = (String, Box<dyn FnMut() -> Result<T> + 'a>);

/// Lets all take turns, each round beginning with another one; returns what each one's rounds gave. One round before
/// all is not counted.
pub fn interleave<T>(turns: Turns, all: Vec<Contender<'_, T>>) -> Result<Vec<(String, Vec<T>)>> {
    take_turns(turns, 0, all)
}

/// The same without that first round.
pub fn interleave_unrehearsed<T>(turns: Turns, all: Vec<Contender<'_, T>>) -> Result<Vec<(String, Vec<T>)>> {
    take_turns(turns, 1, all)
}

fn take_turns<T>(
    turns: Turns,
    first: usize,
    mut all: Vec<Contender<'_, T>>,
) -> Result<Vec<(String, Vec<T>)>> {
    let mut results: Vec<(String, Vec<T>)> = all.iter().map(|(name, _)| (name.clone(), vec![])).collect();
    let start = Instant::now();
    for round in first..=turns.rounds {
        if round > 3 && start.elapsed() > turns.budget {
            break;
        }
        for place in 0..all.len() {
            let place = (place + round) % all.len();
            let (name, measure) = &mut all[place];
            let result = measure().map_err(|error| format!("{name}: {error}"))?;
            if round > 0 {
                results[place].1.push(result);
            }
        }
    }
    Ok(results)
}

/// One figure of each result.
pub fn each<T>(results: &[(String, Vec<T>)], figure: impl Fn(&T) -> f64) -> Vec<(String, Vec<f64>)> {
    results.iter().map(|(name, all)| (name.clone(), all.iter().map(&figure).collect())).collect()
}
