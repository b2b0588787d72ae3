//! What runs on this machine, and what a sandbox has left.

use crate::{DEADLINE, Patience, Who, wait_until};
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A line of ps(1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number here, outside.
    pub pid: i32,
    /// Its parent's number.
    pub parent: i32,
    /// proc_pid_stat(5): `R`, `S`, `D`, `T`, `Z`…
    pub state: char,
    /// What `ps -o comm` shows.
    pub name: String,
}

impl Process {
    /// The process with this number, if there is one.
    pub fn find(pid: i32) -> Option<Self> {
        // pid (name) state parent …, and the name may hold anything.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (head, tail) = stat.rsplit_once(") ")?;
        let name = head.split_once(" (")?.1.to_owned();
        let mut fields = tail.split(' ');
        let state = fields.next()?.chars().next()?;
        Some(Self { pid, parent: fields.next()?.parse().ok()?, state, name })
    }

    /// Whether it can still do something.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// All processes.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Process::find).collect()
}

/// The children of a process, their children, and so on; zombies too.
pub fn descendants(of: i32) -> Vec<Process> {
    let mut rest = all();
    let mut found = vec![];
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<_>, _) = rest.into_iter().partition(|process| process.parent == parent);
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        rest = others;
    }
    found
}

/// A process and its descendants, a line each: where in the kernel each one is, for the message of a failed test.
pub fn tree(of: u32) -> String {
    let own = i32::try_from(of).ok().and_then(Process::find);
    let all = own.into_iter().chain(i32::try_from(of).map(descendants).unwrap_or_default());
    let line = |process: Process| {
        let read = |what| fs::read_to_string(format!("/proc/{}/{what}", process.pid)).unwrap_or_default();
        let (wchan, call) = (read("wchan"), read("syscall"));
        format!("{} {} {} {wchan} {}\n", process.pid, process.name, process.state, call.trim_end())
    };
    all.map(line).collect()
}

/// The living child of `parent` with this name, which must come within the deadline; or of its srt-init, whose child the
/// command is.
#[track_caller]
pub fn child_named(parent: i32, name: &str) -> i32 {
    let mut patience = Patience::default();
    loop {
        let all_now = all();
        let init = all_now.iter().find(|p| p.parent == parent && p.name == "srt-init").map(|p| p.pid);
        let is_child = |p: &&Process| p.parent == parent || Some(p.parent) == init;
        if let Some(found) = all_now.iter().filter(is_child).find(|p| p.name == name && p.is_alive()) {
            return found.pid;
        }
        let children = || all().into_iter().filter(|p| p.parent == parent).collect::<Vec<_>>();
        assert!(patience.spent() < DEADLINE, "{parent} has no child {name}, but {:?}", children());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The number that a process has in its own pid namespace (proc_pid_status(5), NSpid).
pub fn number_inside(pid: i32) -> Option<i32> {
    status_field(pid, "NSpid")?.split_whitespace().last()?.parse().ok()
}

/// A line of /proc/PID/status.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Whether a process is in a pid namespace below this process's.
pub fn is_inside(pid: i32) -> bool {
    status_field(pid, "NSpid").is_some_and(|numbers| numbers.split_whitespace().count() > 1)
}

/// Who below a process has this number in its pid namespace, as soon as somebody has.
pub fn inside(below: u32, number: i32) -> i32 {
    let mut found = None;
    wait_until("a process inside", || {
        let members = descendants(below as i32);
        found = members
            .iter()
            .map(|member| member.pid)
            .find(|&pid| is_inside(pid) && number_inside(pid) == Some(number));
        found.is_some()
    });
    found.expect("it was found")
}

/// strace(1) with an `inject`, attached to one process alone: when this returns, its next calls are.
pub fn attach_strace(pid: i32, call: &str, how: &str) -> Child {
    let mut command = Who::Root.command("strace");
    command
        .arg("--output=/dev/null")
        .arg(format!("--trace={call}"))
        .args(["-e", &format!("inject={call}:{how}")]);
    let mut strace = command.arg(format!("--attach={pid}")).stderr(Stdio::piped()).spawn().expect("strace");
    let said = strace.stderr.as_mut().expect("a pipe").read(&mut [0; 8]);
    assert!(said.is_ok_and(|length| length > 0), "strace does not say that it is attached");
    strace
}

/// kill(2). That the target is gone is no failure.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: two integers.
    let _gone = unsafe { libc::kill(pid, signal) };
}

/// Takes the status of every child that has ended in a pid namespace below: a supervisor's, which this process adopted
/// when the supervisor was killed ([`Family`]). A PID 1 that is killed waits until all in its namespace are reaped.
pub fn reap_inside() {
    let own = i32::try_from(std::process::id()).expect("a pid");
    let ended = |process: &Process| process.parent == own && !process.is_alive() && is_inside(process.pid);
    for process in all().into_iter().filter(ended) {
        // SAFETY: a null status is not written.
        unsafe { libc::waitpid(process.pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// Waits until a process that is no child of this one is dead, reaped or not: its locks and sockets are closed then.
#[track_caller]
pub fn wait_for_end(pid: i32) {
    wait_until("its end", || !Process::find(pid).is_some_and(|process| process.is_alive()));
}

/// All that a test starts, however it detaches itself: the test process adopts every orphan below it.
///
/// One at a time in a test process: the others wait for their turn.
#[derive(Debug)]
pub struct Family {
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Family {
    /// Waits for its turn, and begins with nobody.
    pub fn new() -> Self {
        crate::reset_inherited();
        // Whoever copies them is nobody's.
        let _made = crate::tools();
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: integers.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, yes, none, none, none) };
        let family = Self { _turn: turn };
        assert_eq!(family.members(), [], "the last test has left something");
        family
    }

    /// Who is alive, threads aside.
    pub fn members(&self) -> Vec<Process> {
        let own = std::process::id().try_into().expect("a pid");
        descendants(own).into_iter().filter(Process::is_alive).collect()
    }

    /// Waits until nobody is alive, and reaps. Returns how long it took. Whoever was started with
    /// [`std::process::Command`] must have been waited for.
    ///
    /// The promise is a second; ten are for a machine that has other things to do.
    #[track_caller]
    pub fn ends(&self) -> Duration {
        let mut patience = Patience::default();
        loop {
            // In the loop: a PID 1 that is killed waits until all in its namespace are reaped, and those that were the
            // supervisor's children are ours now.
            reap();
            let members = self.members();
            if members.is_empty() {
                break;
            }
            let took = patience.spent();
            assert!(took < Duration::from_secs(10), "still there after {took:?}: {members:#?}");
            std::thread::sleep(Duration::from_micros(200));
        }
        patience.spent()
    }
}

impl Default for Family {
    fn default() -> Self {
        Self::new()
    }
}

/// A failed test leaves nobody either.
impl Drop for Family {
    fn drop(&mut self) {
        for _ in 0..1000 {
            reap();
            let members = self.members();
            if members.is_empty() {
                break;
            }
            members.iter().for_each(|member| kill(member.pid, libc::SIGKILL));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes the status of every child that has ended.
fn reap() {
    // SAFETY: a null status is not written.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}
