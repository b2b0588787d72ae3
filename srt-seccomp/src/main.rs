//! Drops all privileges, installs a seccomp filter, and execs PROGRAM.

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::{self, CommandLine};
use srt_common::exec::Program;
use srt_common::fds::KeptFds;
use srt_common::sys::allocator::BumpAllocator;
use srt_common::sys::process::getpid;
use srt_common::tool::{self, ExitCodes, Spec, Tool};
use srt_common::{Result, privileges};
use srt_seccomp::options::{self, Options, Plan, Request};
use srt_seccomp::syscalls::Arch;
use srt_seccomp::{bpf, filter, rules};

#[global_allocator]
static MEMORY: BumpAllocator = BumpAllocator::new();

srt_common::main!(
    Spec { name: "srt-seccomp", exit_codes: ExitCodes::Stage, help: args::help::<Options> },
    answer
);

fn answer(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    match options::parse(tool, line)? {
        Request::List => tool.print(rules::list()),
        Request::Export(rules) => {
            let filter = bpf::to_bytes(&filter::build(&rules, Arch::NATIVE)?);
            tool.print(filter).map_err(|error| error.within("--export"))
        }
        Request::Run(plan) => run(tool, &plan),
    }
}

fn run(tool: &Tool, plan: &Plan) -> Result<u8> {
    tool::require_kernel()?;
    // 1. Everything that needs files, memory or other system calls comes first: the filters of step 5 may forbid it.
    let kept = KeptFds::new(plan.keep_fds.clone())?;
    let program = Program::new(&plan.program)?;
    // If PROGRAM itself is PID 1, there is no other PID 1 that it could keep from running.
    let rules: Vec<_> =
        plan.rules.iter().copied().filter(|rule| rule.name != "pid1" || getpid() != 1).collect();
    let own = filter::build(&rules, Arch::NATIVE)?;
    let loaded = plan.loads.iter().map(bpf::read).collect::<Result<Vec<_>>>()?;
    let fds: Vec<_> = (0..=2).chain(kept.numbers()).collect();
    let landlock = plan.landlock.ruleset(&fds)?;
    // Why PROGRAM cannot be run, if it fails: the user's filters may forbid finding out afterwards.
    let cause = if loaded.is_empty() { None } else { program.obstacle() };

    // 2. PROGRAM inherits 0, 1, 2 and the descriptors of --keep-fd.
    kept.close_others_on_exec()?;

    // 3. No capability in any set, and no_new_privs: without it the kernel accepts no filter from an ordinary user,
    //    since a filter could make a setuid program misbehave (seccomp(2), EACCES).
    privileges::drop_all()?;

    // 4. Landlock, then the rules. From here on no Unix socket, no io_uring, no foreign ABI.
    if let Some(ruleset) = landlock {
        ruleset.restrict()?;
    }
    bpf::install("cannot install the seccomp filter", &own)?;
    bpf::require_filter(&rules)?;

    // 5. The user's filters, in the order given. They may forbid write(2), so the event is sent first.
    tool.tell("exec", |event| event);
    let ready = program.ready(&program.candidates())?;
    loaded.iter().try_for_each(|(option, program)| bpf::install(option, program))?;

    // 6. The one system call that remains.
    let error = ready.exec();
    let cause = || if loaded.is_empty() { program.obstacle() } else { cause };
    Err(plan.landlock.explain(program.failure_with(&error, cause)))
}
