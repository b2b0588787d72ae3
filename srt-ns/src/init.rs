//! srt-init: PID 1 of the new pid namespace, and the parent of the command.
//!
//! Failures are handled in two ways (as in catatonit): until the command runs, every failure is fatal; after that, none
//! may be, since the end of PID 1 kills everything inside.
//!
//! srt-init holds nothing that the command could take: no capability, no file, no readable memory, and no descriptor
//! except the write end of a pipe, on which it reports the command's stops and end to the supervisor. It obeys no
//! signal: one from inside cannot reliably be distinguished from one of the supervisor's (the kernel drops siginfo when
//! RLIMIT_SIGPENDING is reached). So the supervisor signals the command itself, and sends srt-init only SIGKILL or,
//! when the command is dead and --wait-all waits for other processes, signals that any of those could send to all.

use crate::child::{self, Run};
use crate::command::Command;
use crate::empty_root::{self, EmptyRoot};
use crate::options::Pid1;
use srt_common::startup::{self, GO};
use srt_common::sys::entry::overwrite_arguments;
use srt_common::sys::fd::{close, pipe2, pollfd, ppoll};
use srt_common::sys::process::{self, Change, End, Pid, kill, prctl_set_name, waitid};
use srt_common::sys::signal::{SignalSet, sigtimedwait};
use srt_common::sys::socket::{Message, socketpair};
use srt_common::{Context, Error, Result, privileges};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

// The reports of srt-init to the supervisor, two bytes each. The second byte is 0, except for an end.
/// The command has entered the network namespace.
pub const JOINED: u8 = b'j';
/// The command has stopped.
pub const STOPPED: u8 = b's';
/// The command has exited, with this code.
pub const EXITED: u8 = b'e';
/// The command was killed, by this signal.
pub const KILLED: u8 = b'k';

/// Forks srt-init, the first child after [`crate::namespaces::enter_pid_for_children`], which forks the command before
/// it locks itself down. Both communicate with the supervisor through `socket`, whose other end is `ours`: the command
/// sends its pid, and srt-init waits for the network namespace. The command waits for srt-init at another socket.
///
/// Returns srt-init's pid, and the pipe on which it reports what happens to the command.
///
/// # Errors
/// Any error from fork(2), socketpair(2) or pipe2(2). If srt-init itself fails, it prints the error and exits.
pub fn start(command: Command<'_>, ours: &OwnedFd, socket: OwnedFd) -> Result<(Pid, File)> {
    let (reports, tell) = pipe2(0).context(|| "pipe")?;
    let Run { tool, plan, supervisor_pidfd, .. } = command.run;
    let keep_session = plan.options.keep_session;
    let mount_stage = command.mount_stage.is_some();
    let pid = child::spawn_without_pdeathsig(tool, "srt-init", || {
        // The supervisor's ends: a child that kept one would wait in vain for the end of the socket.
        for end in [ours, &reports] {
            close(end.as_raw_fd()).context(|| "close")?;
        }
        child::is_pid_1()?;
        child::leave_keyring()?;
        let (gate, go) = socketpair(libc::SOCK_SEQPACKET).context(|| "socketpair")?;
        // While this process is in the caller's session, since the command may have to stay in it.
        let command = command.fork(&socket, &go, &gate)?;
        drop(go);
        // setpgid(2), tty_ioctl(4): if the command stays in the session, so must its parent, in another process group.
        // Otherwise the command's group is orphaned, and the kernel does not let the terminal stop it.
        let detach = if keep_session { child::leave_group } else { child::leave_session };
        child::arm_pdeathsig(supervisor_pidfd, detach)?;
        let wait_all = plan.pid1 == Pid1::InitWaitsForAll;
        let mut init = Init { command, keep_session, wait_all, tell: tell.into(), ended: None };
        init.lock_down(socket, gate, mount_stage)?;
        init.serve()
    })?;
    Ok((pid, reports.into()))
}

/// How many children are reaped before signals are checked again, since the command can create dying children without
/// end.
const REAPED_AT_ONCE: usize = 64;

/// The interval for checking whether the command has stopped, during the start, or whether its process group is empty,
/// which no signal reports.
const GROUP_LOOK: Duration = Duration::from_millis(20);

/// The interval for checking whether the pid namespace is empty, under --wait-all: the last process may have ended
/// without SIGCHLD (CLONE_AUTOREAP of clone3(2), which Linux 7.3 has).
const EMPTY_LOOK: Duration = Duration::from_millis(500);

struct Init {
    command: Pid,
    keep_session: bool,
    wait_all: bool,
    tell: File,
    /// Set when the command is dead and reaped.
    ended: Option<End>,
}

impl Init {
    /// Drops everything that the command could take from PID 1, and lets the command run. Must not change what the
    /// command inherits. If the start has failed, the command sees the end of `gate` and exits.
    ///
    /// The root directory comes from srt-mount, which has the mount namespace: `gate` is the socket of its --join.
    fn lock_down(&mut self, from: OwnedFd, gate: OwnedFd, mount_stage: bool) -> Result<()> {
        let own = startup::own_namespaces()?;
        let root = if mount_stage {
            // srt-mount sends this after it has checked the paths to the relays' sockets. Until then, it must not be
            // reported that the command has joined, since the caller may then remove those paths.
            let Message { byte: Some(_), mut fds, .. } = self.receive(&gate, &gate)? else { return Ok(()) };
            Some(fds.pop().ok_or_else(|| Error::failed("no root directory came from srt-mount"))?)
        } else {
            EmptyRoot::new()?.enter()?;
            None
        };
        let Message { byte: Some(answer), mut fds, .. } = self.receive(&from, &gate)? else { return Ok(()) };
        root.as_ref().map(empty_root::enter_detached).transpose()?;
        // proc(5): /proc/PID/net shows the network of the process to every process.
        let network = fds.pop();
        network.as_ref().map(|network| startup::enter(network, &own)).transpose()?;
        // From now on, /proc/1 belongs to no user inside, and ptrace(2), process_vm_readv(2) and pidfd_getfd(2) are
        // refused. Must precede the drop of the capabilities, which have prevented them until now
        // (cap_ptrace_access_check() in security/commoncap.c).
        privileges::clear_dumpable()?;
        privileges::drop_held()?;
        // Names this process in ps(1) and /proc, and wipes the caller's argv and environment from its memory.
        prctl_set_name(c"srt-init").context(|| "prctl(PR_SET_NAME)")?;
        overwrite_arguments(c"srt-init").context(|| "cannot wipe the arguments")?;
        let mut keep = vec![self.tell.as_raw_fd(), gate.as_raw_fd(), from.as_raw_fd()];
        keep.extend(network.iter().map(AsRawFd::as_raw_fd));
        drop((root, own));
        // Last, since this closes stderr too.
        child::close_all_but(&keep)?;
        self.pass_on(answer, &from, &gate, network.as_ref().map(AsFd::as_fd)).map_err(|error| {
            let errno = error.errno.unwrap_or(libc::EIO);
            process::exit(u8::try_from(errno).unwrap_or(libc::EIO as u8))
        })
    }

    /// Passes the supervisor's answer on to the command. After JOIN, a second one comes when the command has reported
    /// that it is in its network namespace. If this fails, this process exits with an errno as its status, which the
    /// supervisor reports.
    fn pass_on(
        &mut self,
        answer: u8,
        from: &OwnedFd,
        gate: &OwnedFd,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let what = || "sendmsg to the command";
        startup::answer(gate, answer, network).context(what)?;
        if answer == GO || self.receive(gate, gate)?.byte.is_none() {
            return Ok(());
        }
        self.tell(JOINED, 0);
        match self.receive(from, gate)?.byte {
            Some(answer) => startup::answer(gate, answer, None).context(what),
            None => Ok(()),
        }
    }

    /// Waits for a message during the start, while the terminal can already stop the command. Without a byte: no
    /// message will come, or the command, at the other end of `gate`, no longer waits for it.
    fn receive(&mut self, from: &OwnedFd, gate: &OwnedFd) -> Result<Message> {
        let mut either = [pollfd(from.as_raw_fd(), libc::POLLIN), pollfd(gate.as_raw_fd(), 0)];
        let timeout = self.keep_session.then_some(GROUP_LOOK);
        while ppoll(&mut either, timeout).context(|| "poll during the start")? == 0 {
            self.reap();
        }
        if either[0].revents == 0 {
            return Ok(Message::default());
        }
        startup::receive(from, 0).context(|| "recvmsg during the start")
    }

    /// Reaps children until the command's process group is empty; with `wait_all`, until no process is left. The
    /// supervisor kills this process earlier if the rest of the group gets no more time.
    fn serve(&mut self) -> ! {
        let (children, every) = (SignalSet::of([libc::SIGCHLD]), SignalSet::full());
        let mut told = false;
        loop {
            let again = self.reap();
            let over = self.is_over();
            // If the command has exited with 0 and srt-init exits now, its own status 0 is enough: a report would only
            // wake the supervisor.
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
            let look = if self.wait_all { EMPTY_LOOK } else { GROUP_LOOK };
            let timeout = again.or(dead.then_some(look));
            // Under --wait-all, once the command is dead, every signal is passed to all processes: any could have sent
            // it.
            let all = dead && self.wait_all;
            if let Ok(signal) = sigtimedwait(if all { &every } else { &children }, timeout)
                && all
                && signal != libc::SIGCHLD
            {
                let _nobody_there = kill(-1, signal);
            }
        }
    }

    /// Returns when to look again even without a SIGCHLD.
    fn reap(&mut self) -> Option<Duration> {
        let stops = if self.keep_session { libc::WSTOPPED } else { 0 };
        for _ in 0..REAPED_AT_ONCE {
            match waitid(None, libc::WEXITED | libc::WNOHANG | stops) {
                Ok(Some((pid, Change::Ended(end)))) if pid == self.command && self.ended.is_none() => {
                    self.ended = Some(end);
                }
                Ok(Some((pid, Change::Stopped(signal)))) if pid == self.command => self.tell(STOPPED, signal),
                // Another process; or a ptrace(2) stop of a child that made this process its tracer and waits for it in
                // vain.
                Ok(Some(_)) => {}
                Ok(None) => return None,
                // ECHILD. Processes that were started outside, by nsenter(1) or the supervisor, may be left.
                Err(_) => return Some(GROUP_LOOK),
            }
        }
        Some(Duration::ZERO)
    }

    fn is_over(&self) -> bool {
        let group = if self.wait_all { -1 } else { -self.command };
        self.ended.is_some() && kill(group, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    /// Stops, which the command can cause without end, are reported only while the pipe has room; its end is always
    /// reported. A failed poll(2) counts as room: the command can take RLIMIT_NOFILE from this process (prlimit(2)).
    fn tell(&mut self, what: u8, detail: u8) {
        let room = || ppoll(&mut [pollfd(self.tell.as_raw_fd(), libc::POLLOUT)], Some(Duration::ZERO));
        if what != STOPPED || !matches!(room(), Ok(0)) {
            // If the supervisor is gone, this process is being killed, too.
            let _gone = self.tell.write_all(&[what, detail]);
        }
    }
}
