//! srt-connect: connects stdin and stdout through a proxy to HOST PORT, for ssh's `ProxyCommand`.

#![no_main]
#![deny(unsafe_code)]

use srt_common::args::{self, CommandLine};
use srt_common::tool::{self, ExitCodes, Spec, Tool};
use srt_common::{Error, Kind, Result, privileges};
use srt_connect::credentials::Credentials;
use srt_connect::deadline::Deadline;
use srt_connect::destination::Destination;
use srt_connect::options::{self, Options};
use srt_connect::proxy::Proxy;
use srt_connect::{copy, dial};

srt_common::main!(
    Spec { name: options::NAME, exit_codes: ExitCodes::Plain, help: args::help::<Options> },
    run
);

fn run(_: &mut Tool, line: CommandLine) -> Result<u8> {
    let options = options::parse(&line.options)?;
    tool::require_kernel()?;
    let deadline = Deadline::after(options.timeout.0);

    // 1. Check everything that the caller wrote before connecting to the proxy: a line break in HOST would be a
    //    second request, in the caller's name, to anything that the proxy can reach.
    let destination = Destination::parse(&options.host.0, &options.port.0)?;
    let mut proxy = Proxy::parse(&options.proxy.0)?;
    let given = |error: Error| match options.auth_fd {
        Some(fd) => error.within(format!("--auth-fd {fd}")),
        None => error,
    };
    if let Some(fd) = options.auth_fd {
        proxy.set_credentials(Credentials::read(fd, deadline).map_err(given)?)?;
    }
    // Credentials that do not fit are wrong usage only on the command line.
    let kind = if options.auth_fd.is_some() { Kind::Failed } else { Kind::Usage };
    let handshake = proxy.handshake(&destination).map_err(|error| Error { kind, ..given(error) })?;

    // 2. Connect to the proxy, and send the first message.
    let called = |error: Error| error.within(format!("proxy {}", proxy.name));
    let call = dial::call(&proxy.addresses, handshake, deadline).map_err(called)?;

    // 3. Drop privileges while the proxy works: nothing from here on needs one, and the input is untrusted. (The
    //    bounding set matters only for an exec, and there is none.)
    privileges::drop_held()?;
    let tunnel = call.answer(deadline).map_err(called)?;

    // 4. Move bytes both ways, until both ends are done.
    copy::run(tunnel)?;
    Ok(0)
}
