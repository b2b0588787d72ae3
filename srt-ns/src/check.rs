//! `--check`: tries everything that the five tools need, in child processes that leave nothing behind, and prints
//! remedies.

use crate::child;
use crate::empty_root::EmptyRoot;
use crate::namespaces::{self, SEE_CHECK, enter_network, forbid_user_namespaces, refused};
use srt_common::fds::{self, KeptFds};
use srt_common::sys::file::{CWD, fsetxattr, fstatfs, mkdirat, open, openat, openat2};
use srt_common::sys::landlock;
use srt_common::sys::mount::{OPEN_TREE_CLONE, fchdir, open_tree, unshare};
use srt_common::sys::privileges::{CAP_SETFCAP, prctl_set_seccomp};
use srt_common::sys::process::{self, Change, getpid, pidfd_open, pidfd_send_signal, prctl, waitid};
use srt_common::sys::signal::{Disposition, signal};
use srt_common::tool::{LANDLOCK_IS_OFF, Tool, require_kernel};
use srt_common::{Context, Error, Result, filesystem, privileges};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The result (ok, limited, no), the cause and the remedy.
type Told = [String; 3];

/// The result of a step. `Err` means `no`.
type Answer = Result<Told>;

/// One check, which runs in its own process.
type Trial = fn() -> Answer;

const NO_PRIVILEGES: Trial = || privileges::drop_held().map(ok);
const USER: Trial = || namespaces::enter_user_for_helpers().map(ok);
const PID: Trial = || enter(libc::CLONE_NEWPID, "pid");
const MOUNT: Trial = || enter(libc::CLONE_NEWNS, "mount");

const ALL_BUT_NS: &str = "srt-mount, srt-seccomp, srt-relay, srt-connect";
const ALL_BUT_LANDLOCK: &str = "all but srt-seccomp --landlock, --read, --write, --connect-tcp, --unix";
const NO_USER: &str = "srt-seccomp with --read, --write and --deny, srt-relay and srt-connect; for root, srt-ns --share user \
                       --allow-userns";
const HOSTS_PROC: &str = "srt-mount --ro-bind /proc /proc, which shows the processes outside";
const BY_PATH: &str = "srt-seccomp --read and --write";

/// How many of the rows, from the first on, the chain srt-ns, srt-mount, srt-seccomp needs.
const NEEDED: usize = 15;

/// The name of a row, its trials (the last one gives the result), and what still works if it fails.
const ROWS: [(&str, &[Trial], &str); 20] = [
    ("kernel", &[|| require_kernel().map(|release| told("ok", release, ""))], "nothing"),
    ("close_range", &[|| KeptFds::default().close_others_on_exec().map(ok)], "nothing"),
    ("pidfds", &[pidfds], ALL_BUT_NS),
    ("seccomp", &[NO_PRIVILEGES, seccomp], "srt-ns and srt-mount, without srt-seccomp"),
    ("session keyring", &[|| child::leave_keyring().map(ok)], ALL_BUT_NS),
    ("user namespace", &[USER, capability], NO_USER),
    ("max_user_namespaces", &[USER, || forbid_user_namespaces().map(ok)], "srt-ns --allow-userns"),
    ("pid namespace", &[USER, PID, || child::is_pid_1().map(ok)], "srt-seccomp, srt-relay and srt-connect"),
    ("net namespace", &[USER, || enter_network(0).map(ok)], "srt-ns --share net"),
    ("ipc namespace", &[USER, || enter(libc::CLONE_NEWIPC, "ipc")], "srt-ns --share ipc"),
    ("uts namespace", &[USER, || enter(libc::CLONE_NEWUTS, "uts")], "srt-ns --share uts"),
    ("cgroup namespace", &[USER, || enter(libc::CLONE_NEWCGROUP, "cgroup")], "srt-ns --share cgroup"),
    ("mount namespace", &[USER, MOUNT], BY_PATH),
    ("mount API", &[USER, mount_api], BY_PATH),
    ("procfs", &[USER, MOUNT, PID, || procfs(&[])], HOSTS_PROC),
    ("procfs subset=pid", &[USER, MOUNT, PID, || procfs(&["subset=pid"])], "srt-mount without --proc-pids"),
    ("overlay", &[USER, overlay], "srt-mount without overlays"),
    ("Landlock", &[NO_PRIVILEGES, landlock], ALL_BUT_LANDLOCK),
    ("user xattrs", &[xattrs], "all but srt-ns --placeholder in such a directory"),
    ("no outer filter", &[outer_filter], "what the other rows say"),
];

/// Tries every row and prints its result.
///
/// # Errors
/// The chain does not work on this host.
pub fn run(tool: &mut Tool, status_fd: Option<RawFd>) -> Result<u8> {
    tool.take_status(status_fd)?;
    // As for a sandbox: see `signals::block`.
    signal(libc::SIGCHLD, Disposition::Default).context(|| "cannot reset SIGCHLD")?;
    // An empty string means that there is no remedy: it counts as already printed.
    let (mut missing, mut told) = (vec![], vec![String::new()]);
    for (at, (name, trials, without)) in ROWS.into_iter().enumerate() {
        let [result, cause, remedy] = in_children(tool, name, trials, Told::default()).unwrap_or_else(no);
        missing.extend((result == "no" && at < NEEDED).then_some(name));
        let remedy = if remedy == namespaces::APPARMOR { profile().unwrap_or(remedy) } else { remedy };
        let mut lines = vec![format!("{name:<20} {result:<8} {cause}").trim_end().to_owned()];
        lines.extend((!told.contains(&remedy)).then(|| format!("    remedy: {remedy}")));
        lines.extend((result != "ok").then(|| format!("    still works: {without}")));
        tool.print(lines.join("\n") + "\n")?;
        tool.tell("check", |event| {
            event.text("name", name).text("result", &result).text("cause", &cause).text("remedy", &remedy)
        });
        told.push(remedy);
    }
    let failed = || Error::failed(format!("not everything works on this host: {}", missing.join(", ")));
    if missing.is_empty() { Ok(0) } else { Err(failed()) }
}

/// Runs the trials, each in a child of the process that ran the trial before (in a new pid namespace, this child is PID
/// 1). Returns the result of the last trial, which comes through a pipe: there is none if a seccomp filter kills the
/// process.
fn in_children(tool: &Tool, name: &str, trials: &[Trial], told: Told) -> Answer {
    let [trial, later @ ..] = trials else { return Ok(told) };
    let (answers, answer) = io::pipe().context(|| "pipe")?;
    let pid = child::spawn_without_pdeathsig(tool, name, || {
        let told = trial().and_then(|told| in_children(tool, name, later, told)).unwrap_or_else(no);
        let _gone = fds::write_all(answer.as_raw_fd(), told.join("\0").as_bytes());
        process::exit(0)
    })?;
    drop(answer);
    let text = io::read_to_string(answers).context(|| "read")?;
    let Some((_, Change::Ended(end))) = waitid(Some(pid), libc::WEXITED).context(|| "waitid")? else {
        return Err(Error::failed("the process that tried it is not dead"));
    };
    let words: Vec<_> = text.split('\0').map(str::to_owned).collect();
    let silent = format!("the process that tried it gave no answer: {end}");
    let hint = "an outer seccomp filter may kill: see the container's profile";
    words.try_into().map_err(|_| Error::failed(silent).hint(hint))
}

fn enter(flag: libc::c_int, name: &str) -> Answer {
    unshare(flag).map_err(|error| refused(&format!("cannot create a {name} namespace"), &error)).map(ok)
}

fn no(error: Error) -> Told {
    let remedy = error.hint.as_deref().unwrap_or("");
    told("no", error.shown_message(), remedy.strip_suffix(SEE_CHECK).unwrap_or(remedy))
}

fn ok(_done: impl Sized) -> Told {
    told("ok", "", "")
}

fn told(result: &str, cause: impl Into<String>, remedy: &str) -> Told {
    [result.to_owned(), cause.into(), remedy.to_owned()]
}

fn pidfds() -> Answer {
    let own = pidfd_open(getpid()).context(|| "pidfd_open")?;
    pidfd_send_signal(&own, 0, 0).context(|| "pidfd_send_signal").map(ok)
}

fn seccomp() -> Answer {
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let all = [libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let outer = "an outer seccomp filter refuses others: see the container's profile";
    let without = "the kernel was built without CONFIG_SECCOMP_FILTER";
    let loaded = prctl_set_seccomp(&all).context(|| "prctl(PR_SET_SECCOMP)").map(ok);
    loaded.map_err(|error| error.hint(outer).hint_for(libc::EINVAL, without))
}

/// With AppArmor's `unprivileged_userns` profile, a user namespace (user_namespaces(7)) can be created, but no
/// capability works in it.
fn capability() -> Answer {
    let what = "no capability works in the user namespace";
    prctl(libc::PR_CAPBSET_DROP, CAP_SETFCAP.into(), 0).map_err(|error| refused(what, &error)).map(ok)
}

/// The system calls with which srt-init's root and srt-mount's mount trees are made.
fn mount_api() -> Answer {
    let root = EmptyRoot::new()?;
    openat2(&CWD, c"/", libc::O_PATH, 0).context(|| "openat2")?;
    open_tree(&CWD, c"/", OPEN_TREE_CLONE | libc::AT_RECURSIVE as libc::c_uint)
        .map_err(|error| refused("open_tree", &error))?;
    root.enter().map(ok)
}

fn procfs(option: &[&str]) -> Answer {
    // mount_too_revealing() in fs/namespace.c: a procfs must already be mounted, and no part of it covered.
    let hint = "nothing may be mounted over parts of /proc, as a container's masks are (docker run --security-opt \
                systempaths=unconfined); srt-mount --proc-pids may work there (Linux 7.2)";
    filesystem::new("a procfs", c"proc", option, 0).map_err(|error| error.hint_for(libc::EPERM, hint)).map(ok)
}

fn overlay() -> Answer {
    let root = open("/", libc::O_PATH).and_then(|root| fstatfs(&root)).context(|| "/")?;
    let tmpfs = EmptyRoot::new()?;
    fchdir(tmpfs.directory()).context(|| "fchdir")?;
    [c"lower", c"upper", c"work"].iter().try_for_each(|dir| mkdirat(&CWD, dir, 0o700)).context(|| "mkdir")?;
    let options = ["lowerdir=lower", "upperdir=upper", "workdir=work", "userxattr"];
    let hint = "the kernel has no overlayfs, or has not loaded it: modprobe overlay";
    filesystem::new("an overlay", c"overlay", &options, 0)
        .map_err(|error| error.hint_for(libc::ENODEV, hint))?;
    let on_overlay = "the root is an overlay, on which no overlay's RW can lie";
    let elsewhere = "--tmp-overlay, or RW and WORK on another file system";
    Ok(if root == libc::OVERLAYFS_SUPER_MAGIC { told("limited", on_overlay, elsewhere) } else { ok(()) })
}

fn landlock() -> Answer {
    // LANDLOCK_ACCESS_FS_EXECUTE, the first access right, which every ABI has.
    let ruleset = landlock::landlock_create_ruleset(1, 0, 0).context(|| "landlock_create_ruleset");
    let restrict = |fd| landlock::landlock_restrict_self(&fd).context(|| "landlock_restrict_self");
    ruleset.and_then(restrict).map_err(|error| error.hint(LANDLOCK_IS_OFF))?;
    let abi = landlock::landlock_create_ruleset_version().context(|| "landlock_create_ruleset")?;
    let too_old = format!("ABI {abi}: no --landlock, --read and --write");
    Ok(match abi {
        ..5 => told("limited", too_old, "Linux 6.10 or newer, which has ABI 5"),
        5..9 => told("ok", format!("ABI {abi}; --unix needs ABI 9 (Linux 7.1)"), ""),
        _ => told("ok", format!("ABI {abi}"), ""),
    })
}

/// Sets a user xattr, which marks a placeholder, on a file that has no name.
fn xattrs() -> Answer {
    let file = openat(&CWD, c"/tmp", libc::O_TMPFILE | libc::O_RDWR, 0o600);
    let set = file.and_then(|file| fsetxattr(&file, c"user.srt-check", b"1", 0));
    let hint = "Linux 6.6 has them on tmpfs; other directories may be on a file system that has them";
    set.context(|| "no user xattrs in /tmp").map_err(|error| error.hint(hint)).map(ok)
}

/// seccomp(2): filters are inherited, and no later filter can allow what one refuses. A filter may also refuse this
/// prctl.
fn outer_filter() -> Answer {
    let remedy = "none, if all else is ok; in a container, docker run --security-opt seccomp=unconfined";
    Ok(match prctl(libc::PR_GET_SECCOMP, 0, 0).map_err(|error| error.raw_os_error()) {
        // EINVAL: a kernel without seccomp.
        Ok(0) | Err(Some(libc::EINVAL)) => ok(()),
        _ => told("limited", "an outer seccomp filter is already in force", remedy),
    })
}

/// The package's AppArmor profile, which allows user namespaces with their capabilities (apparmor.d(5)), for this
/// executable. `None` if its path cannot be written in a profile.
fn profile() -> Option<String> {
    let path = std::env::current_exe().ok()?.into_os_string().into_string().ok();
    let path = path.filter(|path| !path.contains(char::is_control))?;
    let escape = |c: char| if "\\\"*?[]{}^@".contains(c) { format!("\\{c}") } else { c.to_string() };
    let quoted: String = path.chars().map(escape).collect();
    let profile = include_str!("../debian/apparmor").replace("/usr/bin/srt-ns", &format!("\"{quoted}\""));
    Some(format!(
        "as root, or sysctl kernel.apparmor_restrict_unprivileged_userns=0:\n\
         cat >/etc/apparmor.d/srt-ns <<'END'\n{profile}END\napparmor_parser -r /etc/apparmor.d/srt-ns"
    ))
}
