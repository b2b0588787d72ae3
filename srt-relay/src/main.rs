//! Bytes between listening and connecting sockets: one process, one thread, locked down before it takes its
//! first client.

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::CommandLine;
use srt_common::fds::Kept;
use srt_common::tool::{self, Manner, Spec, Tool};
use srt_common::{Context, Result};
use srt_relay::life::Life;
use srt_relay::listener::Listener;
use srt_relay::lockdown::{self, Needs};
use srt_relay::options::{self, Options};
use srt_relay::relay::Relay;
use srt_relay::sys::{self, Epoll};
use srt_relay::target::Targets;

srt_common::main!(
    Spec { name: "srt-relay", manner: Manner::Plain, help: options::help, watches_parent: true },
    relay
);

fn relay(tool: &mut Tool, line: CommandLine) -> Result<u8> {
    let options = Options::parse(&line.options)?;

    // 1. What the caller left open is not the relay's: only what the command line names stays.
    tool.take_status(options.status_fd)?;
    tool::require_kernel()?;
    Kept::default().close_others(&options.descriptors().collect::<Vec<_>>())?;
    let descriptors = sys::raise_descriptor_limit().context(|| "RLIMIT_NOFILE")?;
    let epoll = Epoll::new().context(|| "epoll_create1")?;
    let ready = options.ready_fd.map(|fd| sys::move_away(fd, &epoll).context(|| format!("--ready-fd {fd}")));
    let ready = ready.transpose()?;

    // 2. From here on a signal, or the end of the parent, ends the relay in order: sockets are removed.
    let life = Life::new(tool.parent.take().filter(|_| !options.outlive_parent))?;

    // 3. Where connections lead, before there can be any.
    let mut targets = Targets::default();
    let mut listeners = Vec::new();
    for (listen, connect) in &options.pairs {
        let target = targets.get(connect)?;
        listeners.extend(Listener::open(listen, &target)?);
    }

    // 4. Nothing that a client sends meets a process that can do more than relay.
    lockdown::lock_down(&Needs {
        families: targets.families(),
        directories: listeners.iter().filter_map(Listener::directory).collect(),
    })?;

    // 5. Every listener accepts by now: the kernel queues clients from listen(2) on.
    if let Some(fd) = ready {
        sys::announce(fd);
    }

    // 6. Relay, until life ends. Going out of scope, the listeners remove their sockets.
    Relay::new(tool, epoll, listeners, options.limits, descriptors).run(&life)?;
    Ok(0)
}
