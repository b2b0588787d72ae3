//! Builds a private file tree from a list of mounts, enters it, gives every privilege away, and becomes PROGRAM.

#![no_main]
#![deny(unsafe_code)]

use srt_common::exec::Program;
use srt_common::fds::Kept;
use srt_common::sys::file::umask;
use srt_common::sys::memory::Piece;
use srt_common::tool::{self, Manner, Spec, Tool};
use srt_common::{Result, args::CommandLine, handover, privileges};
use srt_mount::options::{self, Plan};
use srt_mount::source::Host;
use srt_mount::{dev, namespace, ops, program, source};

#[global_allocator]
static MEMORY: Piece = Piece::new();

srt_common::main!(
    Spec { name: "srt-mount", manner: Manner::Stage, help: options::help, watches_parent: false },
    read
);

fn read(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    let plan = options::parse(&line.options, &mut source::read_all);
    let plan = plan.map_err(|error| line.explain(tool.name, error))?;
    tool.take_status(plan.status_fd)?;
    tool::require_kernel()?;
    run(tool, &plan, Program::new(&line.program(tool.name)?)?)
}

fn run(tool: &Tool, plan: &Plan, mut program: Program) -> Result<u8> {
    // 1. What PROGRAM inherits: 0, 1, 2 and what --keep-fd names.
    source::refuse_standard_directories()?;
    let kept = Kept::new(plan.keep.clone())?;

    // 2. A mount namespace of our own. From here on nothing that is mounted shows on the host. A sysfs shows the network
    // namespace that srt-ns still may have to make.
    namespace::has_room_for(&plan.ops)?;
    namespace::make_private()?;
    let namespace = tool.status.map(|_| namespace::inode());
    let host = Host::new(plan, namespace::look()?)?;
    host.check_joined_paths()?;
    let mut join = plan.join.map(namespace::say_hello).transpose()?;
    if plan.shows_network() && !go_on(join.take())? {
        return Ok(125);
    }

    // 3. All that comes from the host, while paths still mean what the caller means by them.
    let descriptor_limit = source::raise_descriptor_limit(plan.ops.len())?;
    let own_umask = umask(0);
    let on_host = program::on_host(&program);
    let own_directory = program::own_directory(&host);
    let opened = ops::open_all(&host)?;
    dev::reopen(&host)?;

    // 4. The new tree, in the order given, and pins below what must not be moved away.
    let mut build = ops::build(&host, opened)?;
    let root = &mut build.root;

    // 5. Into it; the old root goes. What srt-ns makes at the same time must be there before PROGRAM runs.
    let chosen = program::choose_directory(plan.chdir.as_deref(), &own_directory, root)?;
    let origin = program::choose(&program, on_host, root, &chosen)?;
    root.enter()?;
    program::require(&program, &origin, root, &chosen, plan.chdir.is_some())?;
    if !go_on(join)? {
        return Ok(125);
    }
    tool.tell("started", |event| event.numbers("namespaces", namespace.map(|inode| ("mnt", inode))));

    // 6. No capabilities, no_new_privs. Only then the working directory: PROGRAM's own permissions count there.
    privileges::drop_all()?;
    let directory = program::enter_directory(&chosen, plan.chdir.is_some())?;
    if plan.chdir.is_none() {
        program::tell_of_fallback(tool, &own_directory, &chosen, &directory);
    }
    program.set_env("PWD", directory.as_os_str())?;

    // 7. Everything else as the caller had it, and exec.
    umask(own_umask);
    descriptor_limit.map(source::set_descriptor_limit).transpose()?;
    kept.alone_survive_exec()?;
    tool.tell("exec", |event| event);
    Err(program::run(&program, &origin))
}

/// Waits for srt-ns, where it is one that starts this. False: the start has failed, and srt-ns has said why.
fn go_on(join: Option<namespace::Join>) -> Result<bool> {
    join.map_or(Ok(true), |join| handover::wait(&join.socket, &join.namespaces))
}
