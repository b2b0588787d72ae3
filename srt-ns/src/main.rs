//! srt-ns: runs a program in new namespaces, under a PID 1 and a supervisor that end when it ends.
//!
//!     caller
//!      └─ srt-ns          the supervisor, this process: in the new namespaces, except pid and mount
//!          ├─ helpers     srt-relay, sidecars, the watchdog: in the host's pid namespace
//!          └─ srt-init    PID 1 of the new pid namespace, in an empty root
//!              └─ PROGRAM in the new pid namespace, with the host's mounts until srt-mount makes its own

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::{self, CommandLine};
use srt_common::exec::Program;
use srt_common::fds::KeptFds;
use srt_common::lifetime::{lifetime_fd, watch};
use srt_common::sys::allocator::BumpAllocator;
use srt_common::sys::file::statx;
use srt_common::sys::process::{getpid, pidfd_open};
use srt_common::tool::{self, ExitCodes, Spec, Tool};
use srt_common::{Context, Error, Result};
use srt_ns::check;
use srt_ns::child::Run;
use srt_ns::helpers::Helpers;
use srt_ns::namespaces;
use srt_ns::options::{self, Options, Request};
use srt_ns::signals;
use srt_ns::supervisor::Supervisor;
use srt_ns::terminal::Terminals;
use std::os::fd::{AsFd, AsRawFd, RawFd};

#[global_allocator]
static MEMORY: BumpAllocator = BumpAllocator::new();

srt_common::main!(Spec { name: "srt-ns", exit_codes: ExitCodes::Stage, help: args::help::<Options> }, run);

fn run(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    // 1. The options, and what comes from the caller: descriptors, signals, terminals, its own life.
    let plan = match options::parse(tool.name, line)? {
        Request::Check(status_fd) => return check::run(tool, status_fd),
        Request::Run(plan) => *plan,
    };
    tool.take_status(plan.options.status_fd)?;
    tool::require_kernel()?;
    let kept = KeptFds::new(plan.options.keep_fd.clone())?;
    let lifetimes = plan.options.lifetime_fd.iter().map(|&fd| Ok((lifetime_fd(fd)?, 0)));
    let mut lifetimes = lifetimes.collect::<Result<Vec<_>>>()?;
    refuse_shared_pipes(&plan.options)?;
    let parent = if plan.options.outlive_parent { None } else { watch(tool.parent)? };
    lifetimes.extend(parent.iter().map(|parent| (parent.as_fd(), libc::POLLIN)));
    let own = plan.options.status_fd.into_iter().chain(lifetimes.iter().map(|(fd, _)| fd.as_raw_fd()));
    kept.close_others(own)?;
    let program = Program::new(&plan.program)?;
    let (inherited, signals) = signals::block()?;
    let terminals = Terminals::look(plan.options.keep_session, plan.pid1, plan.options.status_fd);
    let supervisor_pidfd = &pidfd_open(getpid()).context(|| "pidfd_open of the supervisor")?;
    let run = Run { tool, plan: &plan, supervisor_pidfd, lifetimes: &lifetimes, inherited };

    // 2. The user namespaces: the sidecars' first, then the command's below it.
    let mut helpers = Helpers::new(&plan)?;
    if !plan.options.sidecar.is_empty() {
        namespaces::enter_user_for_helpers()?;
        helpers.start_sidecars(run)?;
    }
    namespaces::enter(&plan)?;
    namespaces::empty_bounding_set()?;

    // 3. The helpers, which stay in the host's pid namespace.
    if !helpers.start(run)? {
        return Ok(125);
    }
    namespaces::enter_pid_for_children(plan.options.share)?;

    // 4. PID 1 and the command, which get ready while the network namespace is created. Then serve until everything is
    // dead.
    Supervisor::launch(run, &program, kept, signals, terminals, helpers)?.serve()
}

/// Refuses a --lifetime-fd pipe of which PROGRAM has an end: through its /proc/self/fd, PROGRAM could become a writer
/// and outlive the intended writers. Also refuses a pipe to which this process writes.
fn refuse_shared_pipes(options: &Options) -> Result<()> {
    let same = |one: &RawFd, other: &RawFd| matches!((statx(one, c""), statx(other, c"")), (Ok(one), Ok(other)) if one.id == other.id);
    for pipe in &options.lifetime_fd {
        if let Some(other) = [0, 1, 2].iter().chain(&options.keep_fd).find(|other| same(pipe, other)) {
            let what = format!("--lifetime-fd {pipe}: PROGRAM gets the same pipe as descriptor {other}");
            return Err(Error::usage(what));
        }
        if let Some(status) = options.status_fd.iter().find(|status| same(pipe, status)) {
            return Err(Error::usage(format!("--lifetime-fd {pipe}: the same pipe as --status-fd {status}")));
        }
    }
    Ok(())
}
