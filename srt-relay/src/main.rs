//! Relays bytes between listening and connecting sockets: one process with one thread, locked down before it accepts
//! its first client.

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::{self, CommandLine};
use srt_common::fds::{KeptFds, can_be_written, own_terminals, raise_limit, write_all};
use srt_common::sys::fd::{dup2, epoll_create1, given, inherited};
use srt_common::sys::socket::SocketAddress;
use srt_common::tool::{self, ExitCodes, Spec, Tool};
use srt_common::{Context, Error, Result};
use srt_relay::listener::Listener;
use srt_relay::options::{Options, Plan};
use srt_relay::relay::Relay;
use srt_relay::target::Target;
use srt_relay::{lockdown, shutdown};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

srt_common::main!(
    Spec { name: "srt-relay", exit_codes: ExitCodes::Plain, help: args::help::<Options> },
    relay
);

fn relay(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    let plan = Plan::parse(&line.options)?;

    // 1. Close everything that the caller left open, except what the command line names.
    tool.take_status(plan.options.status_fd)?;
    tool::require_kernel()?;
    let parent = (!plan.options.outlive_parent).then_some(tool.parent);
    // Checked before the relay opens any: a number that the caller forgot to open would be one of the relay's own.
    for (name, fd) in plan.descriptors() {
        let error = if name == "fd:" { Error::failed } else { Error::usage };
        let checked = match name {
            "--ready-fd " | "--report-fd " => can_be_written(fd),
            _ => given(fd).map(drop).map_err(|_| "not an open descriptor"),
        };
        checked.map_err(|why| error(format!("{name}{fd}: {why}")))?;
    }
    KeptFds::default().close_others(plan.descriptors().into_iter().map(|(_, fd)| fd))?;
    let descriptors = raise_limit()?.rlim_max;
    let epoll = epoll_create1().context(|| "epoll_create1")?;
    let ready = plan.options.ready_fd.map(|fd| move_away(fd, &epoll).context(|| format!("--ready-fd {fd}")));
    let ready = ready.transpose()?;
    // For a terminal POLLOUT does not mean room for a whole report: an open file of its own, which does not block, keeps
    // the relay from waiting for a user who reads none.
    let reports = [Some(2), plan.options.status_fd, plan.options.report_fd];
    for (number, own) in own_terminals(reports.into_iter().flatten()) {
        dup2(&own, number).context(|| "dup2 of a terminal")?;
    }

    // 2. From here on a signal, or the end of the parent or of a pipe's writers, ends the relay in order: its sockets
    // are removed.
    let ends = shutdown::events(parent, &plan.options.lifetime_fd)?;

    // 3. Prepare the targets before there can be connections.
    let mut listeners = Vec::new();
    for (pair, [listen, connect]) in plan.pairs.iter().enumerate() {
        let target = Rc::new(Target::new(connect)?);
        listeners.extend(Listener::open(pair, listen, &target)?);
    }
    let addresses = listeners.iter().flat_map(|listener| &listener.target.addresses);
    let families: BTreeSet<_> = addresses.map(SocketAddress::family).collect();

    // 4. Lock down: clients' data is handled only by a process that can do nothing but relay.
    let directories: Vec<_> = listeners.iter().filter_map(Listener::directory).collect();
    lockdown::lock_down(&Vec::from_iter(families), &directories)?;

    // 5. Every listener accepts now: the kernel queues clients from listen(2) on.
    if let Some(fd) = ready {
        // It does not matter if the reader is gone.
        let _gone = write_all(fd.as_raw_fd(), b"ready\n");
    }

    // 6. Relay until an end is reported. The listeners remove their sockets when they go out of scope.
    Relay::new(tool, &plan.options, epoll, listeners, descriptors).run(&ends)?;
    Ok(0)
}

/// Moves an inherited descriptor to a number above 2. If it was 0, 1 or 2, `filler` takes its place, so that no
/// connection ever becomes stdin, stdout or stderr.
fn move_away(fd: RawFd, filler: &OwnedFd) -> io::Result<OwnedFd> {
    if fd > 2 {
        return inherited(fd);
    }
    let moved = given(fd)?.try_clone_to_owned()?;
    dup2(filler, fd)?;
    Ok(moved)
}
