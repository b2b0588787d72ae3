//! srt-ns: runs a program in new namespaces, under a PID 1 and a supervisor that end with it.
//!
//!     caller
//!      └─ srt-ns          this process: enters the new namespaces, but for pid and mount
//!          ├─ srt-relay   the sandbox's network, the host's pid namespace, an empty root
//!          ├─ srt-init    PID 1 of the new pid namespace, in an empty root
//!          └─ PROGRAM     the new pid namespace, the host's mounts until srt-mount makes its own

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::CommandLine;
use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::parent::Parent;
use srt_common::tool::{self, Manner, Spec, Tool};
use srt_common::{Context, Result, privileges};
use srt_ns::beside::Beside;
use srt_ns::namespaces::{self, Caller};
use srt_ns::options::{self, Pid1, Session};
use srt_ns::pipe::Gate;
use srt_ns::relays::HostSide;
use srt_ns::supervisor::Supervisor;
use srt_ns::terminal::Terminal;
use srt_ns::{command, init, sys};

srt_common::main!(
    Spec { name: "srt-ns", manner: Manner::Stage, help: options::help, watches_parent: true },
    run
);

fn run(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    // 1. What is asked for, and what the caller gave us: descriptors, signals, its own life.
    let plan = options::parse(tool.name, line)?;
    tool.take_status(plan.status_fd)?;
    tool::require_kernel()?;
    let kept = Kept::new(plan.keep_fds.clone())?;
    kept.close_others(&plan.status_fd.into_iter().collect::<Vec<_>>())?;
    let program = Program::new(&plan.program)?;
    let parent = tool.parent.take().filter(|_| !plan.outlive_parent);
    let caller = parent.map(Parent::watch).transpose()?.flatten();
    let inherited = sys::block_signals().context(|| "cannot block the signals")?;
    let signals = sys::signalfd().context(|| "signalfd")?;
    let mut terminal = if plan.session == Session::Keep { Terminal::controlling() } else { None };

    // 2. The namespaces, and the relays in them.
    let host = HostSide::prepare(&plan)?;
    namespaces::enter(&plan, Caller::current()?)?;
    namespaces::empty_bounding_set()?;
    let mut beside = Beside::start(tool, &plan, host, inherited)?;

    // 3. PID 1, then the command; both wait: PID 1 for us, the command for both of us.
    namespaces::enter_pid_for_children(&plan)?;
    let (init, go) = match plan.pid1 {
        Pid1::Command => (None, Gate::new()?),
        Pid1::Init | Pid1::InitWaitsForAll => {
            init::start(tool, Gate::new()?).map(|(pid, go)| (Some(pid), go))?
        }
    };
    let started = command::start(tool, &plan, &program, &kept, go, inherited);
    if started.is_err()
        && let Some(code) = init.and_then(init::failure)
    {
        return Ok(code);
    }
    let (command, go) = started?;
    if plan.session == Session::Keep {
        // Also here, since nobody knows who comes first; the terminal takes only a group that exists.
        let _done_by_the_command = sys::own_process_group(command);
        if let Some(terminal) = &mut terminal {
            terminal.hand_to(command)?;
        }
    }

    if plan.pid1 == Pid1::Command {
        beside.shall_not_outlive(command)?;
    }
    beside.ready()?;

    // 4. Nothing is left to us that the command could want; then it may go.
    privileges::drop_held()?;
    sys::undumpable().context(|| "prctl(PR_SET_DUMPABLE)")?;
    tool.tell("started", |event| event.number("pid", command).numbers("namespaces", namespaces::inodes()));
    go.opener().open();

    // 5. Until everything has ended.
    let supervisor = Supervisor {
        plan: &plan,
        tool,
        signals,
        caller,
        init,
        command: Some(command),
        terminal,
        beside,
        asked_to_stop: false,
    };
    supervisor.run()
}
