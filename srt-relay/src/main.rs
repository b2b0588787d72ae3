//! Bytes between listening and connecting sockets: one process, one thread, locked down before it takes its
//! first client.

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::Parsed;
use srt_common::fds::Kept;
use srt_common::status::StatusFd;
use srt_common::tool::{Manner, Tool};
use srt_common::{Context, Result};
use srt_relay::life::Life;
use srt_relay::listener::Listener;
use srt_relay::lockdown::{self, Needs};
use srt_relay::options::Options;
use srt_relay::relay::Relay;
use srt_relay::sys::{self, Epoll};
use srt_relay::target::Targets;
use std::ffi::OsString;

srt_common::main!("srt-relay", Manner::Plain, relay);

fn relay(tool: &mut Tool, args: Vec<OsString>) -> Result<u8> {
    if args.iter().any(|arg| arg == "--version") {
        return tool.print(&tool.version());
    }
    let options = match Options::parse(&args)? {
        Parsed::Options(options) => options,
        Parsed::Help(text) => return tool.print(&text),
    };

    // 1. What the caller left open is not the relay's: only what the command line names stays.
    tool.status = options.status_fd.map(StatusFd::new).transpose()?;
    Kept::default().close_others(&options.descriptors().collect::<Vec<_>>())?;
    let descriptors = sys::raise_descriptor_limit().context(|| "RLIMIT_NOFILE")?;
    let epoll = Epoll::new().context(|| "epoll_create1")?;
    let ready = options.ready_fd.map(|fd| sys::move_away(fd, &epoll).context(|| format!("--ready-fd {fd}")));
    let ready = ready.transpose()?;

    // 2. From here on a signal, or the end of the parent, ends the relay in order: sockets are removed.
    let life = Life::new(options.outlive_parent)?;

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
    Relay::new(*tool, epoll, listeners, options.limits, descriptors).run(&life)?;
    Ok(0)
}
