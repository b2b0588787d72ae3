//! srt-init: PID 1 of the new pid namespace.
//!
//! Two regimes (catatonit's): until the command runs every failure is fatal; after that none may be, since the
//! end of PID 1 is the end of everything inside.
//!
//! The command is not srt-init's child but its neighbour: the supervisor forks both and so sees the command's
//! end, stops included, with its own waitid(2). What srt-init holds for the command is nothing: no capability,
//! no descriptor, no file, no memory that can be read.

use crate::companion;
use crate::empty_root::EmptyRoot;
use crate::lifeline::Lifeline;
use crate::pipe::{Gate, Opener};
use crate::sys::{self, Pid, Received, Side};
use srt_common::tool::Tool;
use srt_common::{Context, Result, privileges};

/// The second process of the namespace: pids are given out in order.
const COMMAND: Pid = 2;

/// From the supervisor, once the command has ended: leave when nobody is left. The command's side cannot
/// fake it: see [`Received::from_outside`].
pub fn leave_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Forks srt-init, the first child after [`crate::namespaces::enter_pid_for_children`]. It adds its byte to `go` when nothing
/// is left to it.
///
/// # Errors
/// What pidfd_open(2) or fork(2) says. What srt-init itself cannot do, it tells the user, and exits.
pub fn start(tool: &Tool, go: Gate) -> Result<(Pid, Gate)> {
    let life = Lifeline::new()?;
    match sys::fork().context(|| "cannot fork srt-init")? {
        Side::Parent(pid) => Ok((pid, go)),
        Side::Child => {
            // Held to the end: were it closed before the error is told, the command would end, and we with it.
            let go = go.opener();
            sys::exit(match lock_down(life, &go) {
                Ok(()) => {
                    go.open();
                    serve()
                }
                Err(error) => tool.fail(&error),
            })
        }
    }
}

/// Ends an srt-init beside which the command could not be forked; what it exited with, if it had failed before. Then
/// its failure is the cause, and told: no fork succeeds in a pid namespace whose PID 1 has ended (pid_namespaces(7)).
pub fn failure(pid: Pid) -> Option<u8> {
    sys::kill(pid, libc::SIGKILL);
    sys::reap(pid)
}

/// Should: leave PID 1 without anything the command could take. Mustn't: touch what the command inherits.
fn lock_down(life: Lifeline, go: &Opener) -> Result<()> {
    // Signals of the caller's terminal and process group are the supervisor's business.
    life.tie(companion::detach)?;
    EmptyRoot::new()?.enter()?;
    privileges::drop_held()?;
    sys::rename_process(c"srt-init").context(|| "cannot wipe the arguments")?;
    // prctl(2): from now on /proc/1 belongs to nobody inside, and ptrace(2), process_vm_readv(2) and
    // pidfd_getfd(2) are refused. Late, since it also shuts the supervisor out; before the command, of course.
    sys::undumpable().context(|| "prctl(PR_SET_DUMPABLE)")?;
    // Last: stderr goes too.
    sys::close_all_but(go.number()).context(|| "cannot close the descriptors")
}

/// Reaps whatever the kernel hands over, until told to leave and alone.
fn serve() -> u8 {
    let mut leaving = false;
    loop {
        match sys::next_signal() {
            Ok(Received { signal: libc::SIGCHLD, .. }) => {}
            Ok(received) if !received.from_outside() => {}
            Ok(Received { signal, .. }) if signal == leave_signal() => leaving = true,
            // Once the command is gone its number may be anybody's: then all get it.
            Ok(Received { signal, .. }) => sys::kill(if leaving { -1 } else { COMMAND }, signal),
            Err(_) => {}
        }
        if sys::reap_all() == sys::Children::None && leaving {
            return 0;
        }
    }
}
