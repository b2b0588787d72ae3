//! Builds a private file tree from a list of mounts, enters it, drops all privileges, and execs PROGRAM.

#![no_main]
#![deny(unsafe_code)]

use srt_common::exec::Program;
use srt_common::fds::{KeptFds, raise_limit};
use srt_common::sys::allocator::BumpAllocator;
use srt_common::sys::file::umask;
use srt_common::sys::process::setrlimit;
use srt_common::tool::{self, ExitCodes, Spec, Tool};
use srt_common::{Context, Result, args::CommandLine, privileges, startup};
use srt_mount::options::{self, Action, Plan};
use srt_mount::source::Host;
use srt_mount::{dev, namespace, ops, program, source};

#[global_allocator]
static MEMORY: BumpAllocator = BumpAllocator::new();

srt_common::main!(Spec { name: "srt-mount", exit_codes: ExitCodes::Stage, help: options::help }, read);

fn read(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    let plan = options::parse(&line.options, &mut source::read_all);
    let plan = plan.map_err(|error| line.explain(tool.name, error))?;
    tool.take_status(plan.status_fd)?;
    tool::require_kernel()?;
    run(tool, &plan, Program::new(&line.program(tool.name)?)?)
}

fn run(tool: &Tool, plan: &Plan, mut program: Program) -> Result<u8> {
    // 1. What PROGRAM inherits: 0, 1, 2 and the descriptors of --keep-fd.
    source::refuse_standard_directories()?;
    let kept = KeptFds::new(plan.keep.clone())?;

    // 2. Create a mount namespace. From here on no mount appears on the host. A sysfs shows the network namespace,
    // which srt-ns may still have to create.
    namespace::has_room_for(&plan.ops)?;
    namespace::make_private()?;
    let namespace = tool.status.map(|_| namespace::inode());
    let host = Host::new(plan, namespace::look()?)?;
    host.check_joined_paths()?;
    let mut join = plan.join.map(namespace::say_hello).transpose()?;
    if plan.ops.iter().any(|op| op.action == Action::Sys) && !go_on(join.take())? {
        return Ok(125);
    }

    // 3. Open everything that comes from the host, while paths still resolve as they do for the caller.
    // Every source needs a descriptor until it is mounted.
    let limit = (plan.ops.len() >= 100).then(raise_limit).transpose()?;
    let own_umask = umask(0);
    let on_host = program::on_host(&program);
    let own_directory = program::own_directory(&host);
    let opened = ops::open_all(&host)?;
    dev::reopen(&host)?;

    // 4. Build the new tree, in the order given, and set the pins that keep protected paths in place.
    let mut build = ops::build(&host, opened)?;
    let root = &mut build.root;

    // 5. Enter it and detach the old root. What srt-ns creates at the same time must exist before PROGRAM runs.
    let chosen = program::choose_directory(plan.chdir.as_deref(), &own_directory, root)?;
    let origin = program::choose(&program, on_host, root, &chosen)?;
    root.enter()?;
    program::require(&program, &origin, root, &chosen, plan.chdir.is_some())?;
    if !go_on(join)? {
        return Ok(125);
    }
    tool.tell("started", |event| event.numbers("namespaces", namespace.map(|inode| ("mnt", inode))));

    // 6. Drop all capabilities and set no_new_privs. Enter the working directory only then, with PROGRAM's own
    // permissions.
    privileges::drop_all()?;
    let directory = program::enter_directory(&chosen, plan.chdir.is_some())?;
    if plan.chdir.is_none() {
        program::tell_of_fallback(tool, &own_directory, &chosen, &directory);
    }
    program::set_pwd(&mut program, &directory)?;

    // 7. Restore everything else as the caller had it, and exec.
    umask(own_umask);
    limit.map_or(Ok(()), |limit| setrlimit(libc::RLIMIT_NOFILE as i32, limit)).context(|| "setrlimit")?;
    kept.close_others_on_exec()?;
    tool.tell("exec", |event| event);
    Err(program::run(&program, &origin))
}

/// Waits for srt-ns, if it has started this process. False: the start has failed, and srt-ns has reported why.
fn go_on(join: Option<namespace::Join>) -> Result<bool> {
    join.map_or(Ok(true), |(socket, namespaces)| startup::wait(&socket, &namespaces))
}
