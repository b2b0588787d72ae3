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

use crate::child::{self, Run, is_ready};
use crate::command::Command;
use crate::empty_root::{self, EmptyRoot};
use crate::options::Pid1;
use srt_common::sys::fd::{close, pipe2, pollfd, ppoll};
use srt_common::sys::process::{self, Change, End, Pid, kill, prctl_set_name, waitid};
use srt_common::sys::signal::{SignalSet, sigtimedwait};
use srt_common::sys::socket::{Message, socketpair};
use srt_common::sys::start::overwrite_arguments;
use srt_common::{Context, Error, Result, handover, privileges};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

// What srt-init tells the supervisor, in two bytes. The second is 0 but for an end.
/// The command has entered the network namespace.
pub const JOINED: u8 = b'j';
/// The command has stopped.
pub const STOPPED: u8 = b's';
/// The command has exited, with this code.
pub const EXITED: u8 = b'e';
/// The command was killed, by this signal.
pub const KILLED: u8 = b'k';

/// Forks srt-init, the first child after [`crate::namespaces::enter_pid_for_children`], which forks the command before it
/// locks itself down. Both meet the supervisor at `socket`, the other end of which is `ours`: the command says its number
/// there, and srt-init waits there for the network namespace. The command waits for srt-init, at a socket of their own.
///
/// The answer: srt-init's number, and where it tells what becomes of the command.
///
/// # Errors
/// What fork(2), socketpair(2) or pipe2(2) says. What srt-init itself cannot do, it tells the user, and exits.
pub fn start(command: Command<'_>, ours: &OwnedFd, socket: OwnedFd) -> Result<(Pid, File)> {
    let (reports, tell) = pipe2(0).context(|| "pipe")?;
    let Run { tool, plan, life, .. } = command.run;
    let keep_session = plan.options.keep_session;
    let mount_stage = command.mount_stage.is_some();
    // The supervisor's ends: while a child has one, that child would wait for an end of the socket in vain.
    let supervisors = [ours.as_raw_fd(), reports.as_raw_fd()];
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
        let wait_all = plan.pid1 == Pid1::InitWaitsForAll;
        let mut init = Init { command, keep_session, wait_all, tell: tell.into(), ended: None };
        init.lock_down(socket, gate, mount_stage)?;
        init.serve()
    })?;
    Ok((pid, reports.into()))
}

/// How many children are reaped before signals are looked at again: the command can make them die without end.
const REAPED_AT_ONCE: usize = 64;

/// Between two looks whether the command has stopped, during the start, or its process group is empty, which no signal tells.
const GROUP_LOOK: Duration = Duration::from_millis(20);

struct Init {
    command: Pid,
    keep_session: bool,
    wait_all: bool,
    tell: File,
    /// The command is dead and reaped.
    ended: Option<End>,
}

impl Init {
    /// Should: leave PID 1 without anything the command could take, and let the command run. Mustn't: touch what the command
    /// inherits. Where the start has failed, the command learns that by the end of `gate`, and ends by itself.
    ///
    /// The root comes from srt-mount, which is where the mount namespace is: `gate` is its --join.
    fn lock_down(&mut self, from: OwnedFd, gate: OwnedFd, mount_stage: bool) -> Result<()> {
        let own = handover::own_namespaces()?;
        let root = if mount_stage {
            // Behind its look at the ways to the sockets of relays: nobody is told before it that the command has joined, upon
            // which the caller may remove their paths.
            let Some(mut hello) = self.receive(&gate, &gate)? else { return Ok(()) };
            Some(hello.fds.pop().ok_or_else(|| Error::failed("no root directory came from srt-mount"))?)
        } else {
            EmptyRoot::new()?.enter()?;
            None
        };
        let Some(mut answer) = self.receive(&from, &gate)? else { return Ok(()) };
        root.as_ref().map(empty_root::enter_detached).transpose()?;
        // proc(5): /proc/PID/net shows the network of the process to everybody.
        let network = answer.fds.pop();
        network.as_ref().map(|network| handover::enter(network, &own)).transpose()?;
        // From now on /proc/1 belongs to nobody inside, and ptrace(2), process_vm_readv(2) and pidfd_getfd(2) are refused.
        // Before the capabilities go, which have refused them so far (cap_ptrace_access_check() in security/commoncap.c).
        child::undumpable()?;
        privileges::drop_held()?;
        // Names this process in ps(1) and /proc, and wipes the caller's argv and environment from its memory.
        prctl_set_name(c"srt-init").context(|| "prctl(PR_SET_NAME)")?;
        overwrite_arguments(c"srt-init").context(|| "cannot wipe the arguments")?;
        let mut keep = vec![self.tell.as_raw_fd(), gate.as_raw_fd(), from.as_raw_fd()];
        keep.extend(network.iter().map(AsRawFd::as_raw_fd));
        drop((root, own));
        // Last: stderr goes too.
        child::close_all_but(&keep)?;
        let joins = answer.byte == Some(handover::JOIN);
        self.answer(&from, &gate, network.as_ref().map(AsFd::as_fd), joins).map_err(|error| {
            let errno = error.errno.unwrap_or(libc::EIO);
            process::exit(u8::try_from(errno).unwrap_or(libc::EIO as u8))
        })
    }

    /// Lets the command run; joins: once it has told that it is in its network namespace. A failure is this process's exit
    /// status, an errno, which the supervisor tells.
    fn answer(
        &mut self,
        from: &OwnedFd,
        gate: &OwnedFd,
        network: Option<BorrowedFd<'_>>,
        joins: bool,
    ) -> Result<()> {
        let what = || "sendmsg to the command";
        if !joins {
            return handover::go(gate, network).context(what);
        }
        let network =
            network.ok_or_else(|| Error::failed("no network namespace came from the supervisor"))?;
        handover::join(gate, network).context(what)?;
        if self.receive(gate, gate)?.is_none() {
            return Ok(());
        }
        self.tell(JOINED, 0);
        if self.receive(from, gate)?.is_none() {
            return Ok(());
        }
        handover::go(gate, None).context(what)
    }

    /// Waits for a message during the start, in which the terminal can stop the command, too. `None`: none will come, or the
    /// command, at the other end of `gate`, does not wait for it any more.
    fn receive(&mut self, from: &OwnedFd, gate: &OwnedFd) -> Result<Option<Message>> {
        let mut either = [pollfd(from.as_raw_fd(), libc::POLLIN), pollfd(gate.as_raw_fd(), 0)];
        let patience = self.keep_session.then_some(GROUP_LOOK);
        while ppoll(&mut either, patience).context(|| "poll during the start")? == 0 {
            self.reap();
        }
        if either[0].revents == 0 {
            return Ok(None);
        }
        let message = handover::receive(from, 0).context(|| "recvmsg during the start")?;
        Ok(message.byte.is_some().then_some(message))
    }

    /// Reaps whatever the kernel hands over, until nobody is left in the command's process group; `wait_all`: at all. The
    /// supervisor ends this process earlier, where what is left of the group has no time to get.
    fn serve(&mut self) -> ! {
        let (children, every) = (SignalSet::of([libc::SIGCHLD]), SignalSet::full());
        let mut told = false;
        loop {
            let more = self.reap();
            let over = self.is_over();
            // An end of both with 0 says all, and is one process less to wake.
            if let Some(end) = self.ended
                && !told
                && !(over && end == End::Exited(0))
            {
                told = true;
                match end {
                    End::Exited(code) => self.tell(EXITED, code),
                    End::Signaled(signal) => self.tell(KILLED, signal),
                }
            }
            if over {
                process::exit(0);
            }
            let dead = self.ended.is_some();
            let patience =
                if more { Some(Duration::ZERO) } else { (dead && !self.wait_all).then_some(GROUP_LOOK) };
            // Under --wait-all, once the command is dead: everybody gets what comes, as any of them could have sent it.
            let all = dead && self.wait_all;
            if let Ok(signal) = sigtimedwait(if all { &every } else { &children }, patience)
                && all
                && signal != libc::SIGCHLD
            {
                let _nobody_there = kill(-1, signal);
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
                Ok(Some((pid, Change::Stopped))) if pid == self.command => self.tell(STOPPED, 0),
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
    fn tell(&mut self, what: u8, detail: u8) {
        if what != STOPPED || is_ready(&self.tell, libc::POLLOUT) {
            // A supervisor that is gone has ended this process, too.
            let _gone = self.tell.write_all(&[what, detail]);
        }
    }
}
