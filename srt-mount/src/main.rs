//! Builds a private file tree from a list of mounts, enters it, gives every privilege away, and becomes PROGRAM.

#![no_main]
#![deny(unsafe_code)]

use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::tool::{self, Manner, Spec, Tool};
use srt_common::{Context, Result, args::CommandLine, privileges};
use srt_mount::ops::Build;
use srt_mount::options::{self, Plan};
use srt_mount::{namespace, program, source, sys};

srt_common::main!(
    Spec { name: "srt-mount", manner: Manner::Stage, help: options::help, watches_parent: false },
    read
);

fn read(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    let plan = options::parse_with(&line.options, &mut source::read_all)
        .map_err(|error| line.explain(tool.name, error))?;
    tool.take_status(plan.status_fd)?;
    tool::require_kernel()?;
    run(&plan, Program::new(&line.program(tool.name)?)?)
}

fn run(plan: &Plan, mut program: Program) -> Result<u8> {
    // 1. What PROGRAM inherits: 0, 1, 2 and what --keep-fd names.
    source::refuse_standard_directories()?;
    let kept = Kept::new(plan.keep.clone())?;

    // 2. A mount namespace of our own. From here on nothing that is mounted shows on the host.
    namespace::has_room_for(&plan.ops)?;
    namespace::make_private()?;

    // 3. All that comes from the host, while paths still mean what the caller means by them.
    let descriptor_limit = source::raise_descriptor_limit(plan.ops.len())?;
    let umask = sys::set_umask(0);
    let on_host = program::on_host(&program);
    let sources = source::open_all(plan)?;

    // 4. The new tree, in the order given, and pins below what must not be moved away.
    let mut build = Build::new(&plan.ops, plan.placeholders)?;
    plan.ops.iter().zip(sources).try_for_each(|(op, source)| build.apply(op, source))?;
    build.set_pins()?;

    // 5. Into it; the old root goes.
    let directory = program::choose_directory(plan.chdir.as_deref(), &mut build.root)?;
    let origin = program::choose(&program, on_host, &mut build.root, &directory)?;
    build.root.enter()?;

    // 6. No capabilities, no_new_privs. Only then the working directory: PROGRAM's own permissions count there.
    privileges::drop_all()?;
    let directory = program::enter_directory(&directory, plan.chdir.is_some())?;
    program.set_env("PWD", directory.as_os_str())?;

    // 7. Everything else as the caller had it, and exec.
    sys::set_umask(umask);
    descriptor_limit.map(sys::set_descriptor_limit).transpose().context(|| "setrlimit")?;
    kept.alone_survive_exec()?;
    Err(program::run(&program, &origin))
}
