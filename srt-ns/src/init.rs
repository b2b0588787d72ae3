//! srt-init: PID 1 of the new pid namespace, and the parent of the command.
//!
//! Two regimes (catatonit's): until the command runs every failure is fatal; after that none may be, since the
//! end of PID 1 is the end of everything inside.
//!
//! What srt-init holds is nothing that the command could take: no capability, no file, no memory that can be read, and no
//! descriptor but the writing end of a pipe, on which it tells the supervisor of the command's stops and end. And it
//! obeys nobody: a signal that comes from inside cannot be told for certain from one of the supervisor's (the kernel
//! drops siginfo where RLIMIT_SIGPENDING is reached), so the supervisor signals the command itself, and srt-init alone
//! by SIGKILL; and, where the command is dead and --wait-all waits for others, by what any of them could send to all.

use crate::child;
use crate::command::Command;
use crate::empty_root::{self, EmptyRoot};
use crate::options::{Pid1, Session};
use srt_common::sys::fd::{close, pipe2, pollfd, ppoll};
use srt_common::sys::process::{self, Change, End, Pid, kill, prctl_set_name, waitid};
use srt_common::sys::signal::{SignalSet, sigtimedwait};
use srt_common::sys::socket::socketpair;
use srt_common::sys::start::overwrite_arguments;
use srt_common::{Context, Error, Result, handover, privileges};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// srt-init as the supervisor sees it.
#[derive(Debug)]
pub struct Init {
    /// Its number.
    pub pid: Pid,
    /// What it tells: see [`Report`].
    pub reports: File,
}

/// What srt-init tells the supervisor, in two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// srt-mount has looked at the ways to the sockets of relays, which its options name.
    SocketsSeen,
    /// The command has entered the network namespace.
    Joined,
    /// The command has stopped.
    Stopped,
    /// The command is dead.
    Ended(End),
}

impl Report {
    fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::SocketsSeen => [b'r', 0],
            Self::Joined => [b'j', 0],
            Self::Stopped => [b's', 0],
            Self::Ended(End::Exited(code)) => [b'e', code],
            Self::Ended(End::Signaled(signal)) => [b'k', signal],
        }
    }

    /// `None` for bytes that no report has.
    pub fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [b'r', _] => Some(Self::SocketsSeen),
            [b'j', _] => Some(Self::Joined),
            [b's', _] => Some(Self::Stopped),
            [b'e', code] => Some(Self::Ended(End::Exited(code))),
            [b'k', signal] => Some(Self::Ended(End::Signaled(signal))),
            _ => None,
        }
    }
}

/// Forks srt-init, the first child after [`crate::namespaces::enter_pid_for_children`], which forks the command before it
/// locks itself down. Both meet the supervisor at `socket`, the other end of which is `ours`: the command says its number
/// there, and srt-init waits there for the network namespace. The command waits for srt-init, at a socket of their own.
///
/// # Errors
/// What fork(2), socketpair(2) or pipe2(2) says. What srt-init itself cannot do, it tells the user, and exits.
pub fn start(command: Command<'_>, ours: &OwnedFd, socket: OwnedFd) -> Result<Init> {
    let (reports, tell) = pipe2(0).context(|| "pipe")?;
    let tool = command.tool;
    let (keep_session, wait_all) =
        (command.plan.session == Session::Keep, command.plan.pid1 == Pid1::InitWaitsForAll);
    let detached_root = command.mount_stage.is_some();
    let sockets = command.plan.forwards();
    // The supervisor's ends: while a child has one, that child would wait for an end of the socket in vain.
    let supervisors = [ours.as_raw_fd(), reports.as_raw_fd()];
    let life = command.life;
    let pid = child::spawn_untied(tool, "srt-init", || {
        for number in supervisors {
            close(number).context(|| "close")?;
        }
        child::is_pid_1()?;
        child::leave_keyring()?;
        let (gate, go) = socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?;
        // While this process is in the caller's session: the command may be one that stays in it.
        let number = gate.as_raw_fd();
        let command = child::spawn_untied(tool, "the command", || {
            close(number).context(|| "close")?;
            command.run(&socket, &go)
        })?;
        drop(go);
        // setpgid(2), tty_ioctl(4): then its parent must stay there, too, in another group. Otherwise the command's group is
        // orphaned, which the kernel does not let the terminal stop.
        life.arm_pdeathsig(if keep_session { child::leave_group } else { child::leave_session })?;
        let mut init =
            Serving { command, keep_session, wait_all, tell: tell.into(), ended: None, reported: false };
        lock_down(socket, gate, detached_root, sockets, &mut init)?;
        init.serve()
    })?;
    Ok(Init { pid, reports: reports.into() })
}

/// Should: leave PID 1 without anything the command could take, and let the command run. Mustn't: touch what the command
/// inherits. Where the start has failed, the command learns that by the end of `gate`, and ends by itself.
///
/// The root comes from srt-mount, which is where the mount namespace is: `gate` is its --join.
fn lock_down(
    from: OwnedFd,
    gate: OwnedFd,
    detached_root: bool,
    sockets: bool,
    init: &mut Serving,
) -> Result<()> {
    let own = handover::own_namespaces()?;
    let root = if detached_root {
        init.wait(&mut [pollfd(gate.as_raw_fd(), libc::POLLIN)])?;
        let mut hello = handover::receive(&gate, 0).context(|| "recvmsg from srt-mount")?;
        if hello.byte.is_none() {
            return Ok(());
        }
        if sockets {
            init.report(Report::SocketsSeen);
        }
        Some(hello.fds.pop().ok_or_else(|| Error::failed("no root directory came from srt-mount"))?)
    } else {
        EmptyRoot::new()?.enter()?;
        None
    };
    // Whichever is first: the answer, or the end of a command that does not wait for it any more.
    let mut either = [pollfd(from.as_raw_fd(), libc::POLLIN), pollfd(gate.as_raw_fd(), 0)];
    init.wait(&mut either)?;
    if either[0].revents == 0 {
        return Ok(());
    }
    let mut answer = handover::receive(&from, 0).context(|| "recvmsg from the supervisor")?;
    if answer.byte.is_none() {
        return Ok(());
    }
    root.as_ref().map(empty_root::enter_detached).transpose()?;
    // proc(5): /proc/PID/net shows the network of the process to everybody.
    let network = answer.fds.pop();
    network.as_ref().map(|network| handover::enter(network, &own)).transpose()?;
    // From now on /proc/1 belongs to nobody inside, and ptrace(2), process_vm_readv(2) and pidfd_getfd(2) are refused. Before
    // the capabilities go, which have refused them so far (cap_ptrace_access_check() in security/commoncap.c).
    child::undumpable()?;
    privileges::drop_held()?;
    // Names this process in ps(1) and /proc, and wipes the caller's argv and environment from its memory.
    prctl_set_name(c"srt-init").context(|| "prctl(PR_SET_NAME)")?;
    overwrite_arguments(c"srt-init").context(|| "cannot wipe the arguments")?;
    let mut keep = vec![init.tell.as_raw_fd(), gate.as_raw_fd(), from.as_raw_fd()];
    keep.extend(network.iter().map(AsRawFd::as_raw_fd));
    drop((root, own));
    // Last: stderr goes too.
    child::close_all_but(&keep)?;
    let mut network = network.as_ref().map(AsFd::as_fd);
    if answer.byte == Some(handover::JOIN) {
        network.take().map(|network| handover::join(&gate, network));
        init.wait(&mut [pollfd(gate.as_raw_fd(), libc::POLLIN)])?;
        if !handover::receive(&gate, 0).is_ok_and(|joined| joined.byte.is_some()) {
            return Ok(());
        }
        init.report(Report::Joined);
        init.wait(&mut either)?;
        if either[0].revents == 0 || !handover::receive(&from, 0).is_ok_and(|go| go.byte.is_some()) {
            return Ok(());
        }
    }
    // Should the command be gone, its end tells it.
    let _gone = handover::go(&gate, network);
    Ok(())
}

/// How many children are reaped before signals are looked at again: the command can make them die without end.
const REAPED_AT_ONCE: usize = 64;

/// Between two looks whether the command has stopped, during the start, or its process group is empty, which no signal tells.
const GROUP_LOOK: Duration = Duration::from_millis(20);

struct Serving {
    command: Pid,
    keep_session: bool,
    wait_all: bool,
    tell: File,
    /// The command is dead and reaped.
    ended: Option<End>,
    /// The supervisor knows that.
    reported: bool,
}

impl Serving {
    /// Waits for one of these during the start, in which the terminal can stop the command, too.
    fn wait(&mut self, files: &mut [libc::pollfd]) -> Result<()> {
        let patience = self.keep_session.then_some(GROUP_LOOK);
        while ppoll(files, patience).context(|| "poll during the start")? == 0 {
            self.reap();
        }
        Ok(())
    }

    /// Reaps whatever the kernel hands over, until nobody is left in the command's process group; `wait_all`: at all. The
    /// supervisor ends this process earlier, where what is left of the group has no time to get.
    fn serve(&mut self) -> ! {
        let (children, every) = (SignalSet::of([libc::SIGCHLD]), SignalSet::full());
        loop {
            let more = self.reap();
            let over = self.is_over();
            // An end of both with 0 says all, and is one process less to wake.
            if let Some(end) = self.ended
                && !self.reported
                && !(over && end == End::Exited(0))
            {
                self.reported = true;
                self.report(Report::Ended(end));
            }
            if over {
                process::exit(0);
            }
            let patience = match more {
                true => Some(Duration::ZERO),
                false if self.ended.is_some() && !self.wait_all => Some(GROUP_LOOK),
                false => None,
            };
            // Under --wait-all, once the command is dead: everybody gets what comes, as any of them could have sent it.
            let all = self.ended.is_some() && self.wait_all;
            match sigtimedwait(if all { &every } else { &children }, patience) {
                Ok(signal) if all && signal != libc::SIGCHLD => drop(kill(-1, signal)),
                _ => {}
            }
        }
    }

    /// True: there may be more.
    fn reap(&mut self) -> bool {
        let stops = if self.keep_session { libc::WSTOPPED } else { 0 };
        for _ in 0..REAPED_AT_ONCE {
            match waitid(None, libc::WEXITED | libc::WNOHANG | stops) {
                Ok(Some((pid, Change::Ended(end)))) if pid == self.command && self.ended.is_none() => {
                    self.ended = Some(end);
                }
                Ok(Some((pid, Change::Stopped))) if pid == self.command => self.report(Report::Stopped),
                // Of anybody else; or a ptrace(2) stop of a child that made us its tracer: it waits for us in vain.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    fn is_over(&self) -> bool {
        let group = if self.wait_all { -1 } else { -self.command };
        self.ended.is_some() && kill(group, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    /// Stops, which the command can make without end, are told while the pipe has room; its end in any case.
    fn report(&mut self, report: Report) {
        let room = || {
            let mut pipe = [pollfd(self.tell.as_raw_fd(), libc::POLLOUT)];
            ppoll(&mut pipe, Some(Duration::ZERO)).is_ok_and(|ready| ready == 1)
        };
        if report != Report::Stopped || room() {
            // A supervisor that is gone has ended this process, too.
            let _gone = self.tell.write_all(&report.to_bytes());
        }
    }
}
