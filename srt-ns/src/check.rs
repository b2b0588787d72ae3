//! `--check`: what the five tools need, each tried in a child that leaves nothing behind, and what to do where it fails.

use crate::child::{self, Lifeline};
use crate::empty_root::EmptyRoot;
use crate::namespaces::{self, Caller, SEE_CHECK, refused};
use srt_common::sys::fd::{close_range, pipe2};
use srt_common::sys::file::{CWD, fsetxattr, fstatfs, mkdirat, openat, openat2};
use srt_common::sys::landlock::{
    RulesetAttr, landlock_create_ruleset, landlock_create_ruleset_version, landlock_restrict_self,
};
use srt_common::sys::mount::{
    FSCONFIG_CMD_CREATE, FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, OPEN_TREE_CLONE, fchdir, fsconfig, fsmount,
    fsopen, open_tree, unshare,
};
use srt_common::sys::privileges::{CAP_SETFCAP, prctl_set_seccomp};
use srt_common::sys::process::{
    self, Change, End, Fork, getpid, pidfd_open, pidfd_send_signal, prctl, waitid,
};
use srt_common::tool::{Tool, require_kernel};
use srt_common::{Context, Error, Result, fds};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Where a row is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Where the caller is.
    Host,
    /// In a new user namespace, with the capabilities that it gives.
    User,
    /// In a new pid namespace in that one, as PID 1.
    Pid,
}

/// What a row answers: `Err` is `no`.
type Answer = Result<Found>;

/// What works.
enum Found {
    /// With something worth knowing about it, or nothing.
    Ok(String),
    /// Not for everything.
    Limited(Error),
}

struct Row {
    name: &'static str,
    inside: Inside,
    probe: fn() -> Answer,
    /// Whether the chain srt-ns, srt-mount, srt-seccomp needs it.
    needed: bool,
    /// What still works without it.
    without: &'static str,
}

const fn needed(name: &'static str, inside: Inside, probe: fn() -> Answer, without: &'static str) -> Row {
    Row { name, inside, probe, needed: true, without }
}

const fn wanted(name: &'static str, inside: Inside, probe: fn() -> Answer, without: &'static str) -> Row {
    Row { name, inside, probe, needed: false, without }
}

const NO_USER: &str = "srt-seccomp with --read, --write and --deny, srt-relay and srt-connect; for root, srt-ns --share user \
                       --allow-userns";

const ROWS: [Row; 20] = [
    needed("kernel", Inside::Host, kernel, "nothing"),
    needed("close_range", Inside::Host, descriptors, "nothing"),
    needed("pidfds", Inside::Host, pidfds, "srt-mount, srt-seccomp, srt-relay, srt-connect"),
    needed("seccomp", Inside::Host, seccomp, "srt-ns and srt-mount, without srt-seccomp"),
    needed(
        "session keyring",
        Inside::Host,
        || child::leave_keyring().map(ok),
        "srt-mount, srt-seccomp, srt-relay, srt-connect",
    ),
    needed("user namespace", Inside::User, capability, NO_USER),
    needed(
        "max_user_namespaces",
        Inside::User,
        || namespaces::forbid_user_namespaces().map(ok),
        "srt-ns --allow-userns",
    ),
    needed("pid namespace", Inside::Pid, pid, "srt-seccomp, srt-relay and srt-connect"),
    needed("net namespace", Inside::User, net, "srt-ns --share net"),
    needed("ipc namespace", Inside::User, || namespace(libc::CLONE_NEWIPC, "ipc"), "srt-ns --share ipc"),
    needed("uts namespace", Inside::User, || namespace(libc::CLONE_NEWUTS, "uts"), "srt-ns --share uts"),
    needed(
        "cgroup namespace",
        Inside::User,
        || namespace(libc::CLONE_NEWCGROUP, "cgroup"),
        "srt-ns --share cgroup",
    ),
    needed(
        "mount namespace",
        Inside::User,
        || namespace(libc::CLONE_NEWNS, "mount"),
        "srt-seccomp --read and --write",
    ),
    needed("mount API", Inside::User, mount_api, "srt-seccomp --read and --write"),
    needed(
        "procfs",
        Inside::Pid,
        || procfs(&[]),
        "srt-mount --ro-bind /proc /proc, which shows the processes outside",
    ),
    wanted(
        "procfs subset=pid",
        Inside::Pid,
        || procfs(&[(c"subset", Some(c"pid"))]),
        "srt-mount without --proc-pids",
    ),
    wanted("overlay", Inside::User, overlay, "srt-mount without overlays"),
    wanted(
        "Landlock",
        Inside::Host,
        landlock,
        "all but srt-seccomp --landlock, --read, --write, --connect-tcp, --unix",
    ),
    wanted("user xattrs", Inside::Host, xattrs, "all but srt-ns --placeholder in such a directory"),
    wanted("no outer filter", Inside::Host, outer_filter, "what the other rows say"),
];

/// Tries every row, and prints a line each.
///
/// # Errors
/// The chain does not work on this host.
pub fn run(tool: &mut Tool, status_fd: Option<RawFd>) -> Result<u8> {
    tool.take_status(status_fd)?;
    // Without pidfds, which is what a row tells, a trial is not tied to this process: it ends by itself.
    let life = Lifeline::new().ok();
    let (mut missing, mut told) = (vec![], vec![]);
    for row in &ROWS {
        let [result, cause, remedy] = ask(tool, row, life.as_ref());
        if row.needed && result == "no" {
            missing.push(row.name);
        }
        let remedy = if remedy == namespaces::APPARMOR { profile().unwrap_or(remedy) } else { remedy };
        let mut text = format!("{:<20} {result:<8} {cause}", row.name).trim_end().to_owned();
        if result != "ok" {
            if !remedy.is_empty() && !told.contains(&remedy) {
                text.push_str(&format!("\n    remedy: {remedy}"));
            }
            text.push_str(&format!("\n    still works: {}", row.without));
        }
        tool.print(&(text + "\n"))?;
        tool.tell("check", |event| {
            let event = event.text("name", row.name).text("result", &result);
            event.text("cause", &cause).text("remedy", &remedy)
        });
        told.push(remedy);
    }
    match missing.as_slice() {
        [] => Ok(0),
        rows => Err(Error::failed(format!("the tools cannot do all on this host: {}", rows.join(", ")))),
    }
}

/// The result, the cause and the remedy of a row, from a child and a pipe.
fn ask(tool: &Tool, row: &Row, life: Option<&Lifeline>) -> [String; 3] {
    let asked = pipe2(0).context(|| "pipe").and_then(|(answers, answer)| {
        let pid = child::spawn_untied(tool, row.name, || {
            let told = match life.map_or(Ok(()), |life| life.arm_pdeathsig(child::leave_session)) {
                Ok(()) => enter(row, &answer),
                Err(error) => write(&answer, &Err(error)),
            };
            process::exit(u8::from(told.is_err()))
        })?;
        drop(answer);
        let mut text = String::new();
        let read = File::from(answers).read_to_string(&mut text);
        let end = waitid(Some(pid), libc::WEXITED);
        read.context(|| "read")?;
        let words: Vec<_> = text.split('\0').map(str::to_owned).collect();
        words.try_into().map_err(|_| match end {
            Ok(Some((_, Change::Ended(end)))) => no_answer(end),
            _ => Error::failed("the process that tried it gave no answer"),
        })
    });
    asked.unwrap_or_else(|error| parts(&Err(error)))
}

/// A filter may kill instead of refusing.
fn no_answer(end: End) -> Error {
    Error::failed(format!("the process that tried it gave no answer: {end}"))
        .hint("a seccomp filter in front may kill: see the container's profile")
}

fn parts(answer: &Answer) -> [String; 3] {
    let (result, error) = match answer {
        Ok(Found::Ok(detail)) => return ["ok".to_owned(), detail.clone(), String::new()],
        Ok(Found::Limited(error)) => ("limited", error),
        Err(error) => ("no", error),
    };
    let remedy = error.hint.as_deref().unwrap_or("");
    let remedy = remedy.strip_suffix(SEE_CHECK).unwrap_or(remedy);
    [result.to_owned(), error.shown_message(), remedy.to_owned()]
}

fn write(pipe: &OwnedFd, answer: &Answer) -> io::Result<()> {
    fds::write_all(pipe.as_raw_fd(), parts(answer).join("\0").as_bytes())
}

/// In the child: to where the row is tried, the trial, the answer.
fn enter(row: &Row, pipe: &OwnedFd) -> io::Result<()> {
    let entered = match row.inside {
        Inside::Host => Ok(()),
        Inside::User => user(),
        Inside::Pid => user().and_then(|()| {
            unshare(libc::CLONE_NEWPID).map_err(|error| refused("cannot create a pid namespace", &error))
        }),
    };
    let answer = match (entered, row.inside) {
        (Err(error), _) => Err(error),
        (Ok(()), Inside::Pid) => match process::fork() {
            Ok(Fork::Parent(pid)) => match waitid(Some(pid), libc::WEXITED)? {
                Some((_, Change::Ended(end @ End::Signaled(_)))) => Err(no_answer(end)),
                _ => return Ok(()),
            },
            Ok(Fork::Child) => {
                // The end of PID 1 is the end of the namespace, and it ends with its parent.
                let tied = prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0);
                tied.context(|| "prctl(PR_SET_PDEATHSIG)").and_then(|_| (row.probe)())
            }
            Err(error) => Err(Error::system("cannot fork PID 1", &error)),
        },
        (Ok(()), _) => (row.probe)(),
    };
    write(pipe, &answer)
}

fn user() -> Result<()> {
    namespaces::enter_user_for_helpers(Caller::current()?).map(drop)
}

fn ok(_done: impl Sized) -> Found {
    Found::Ok(String::new())
}

fn kernel() -> Answer {
    require_kernel()?;
    process::uname().context(|| "uname").map(Found::Ok)
}

fn descriptors() -> Answer {
    close_range(1 << 30, u32::MAX, libc::CLOSE_RANGE_CLOEXEC).context(|| "close_range").map(ok)
}

fn pidfds() -> Answer {
    let own = pidfd_open(getpid()).context(|| "pidfd_open")?;
    pidfd_send_signal(&own, 0, 0).context(|| "pidfd_send_signal").map(ok)
}

fn seccomp() -> Answer {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
    let allow = (libc::BPF_RET | libc::BPF_K) as u16;
    let all = [libc::sock_filter { code: allow, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    prctl_set_seccomp(&all)
        .context(|| "prctl(PR_SET_SECCOMP)")
        .map_err(|error| match error.errno {
            Some(libc::EINVAL) => error.hint("the kernel was built without CONFIG_SECCOMP_FILTER"),
            _ => error.hint("a seccomp filter in front refuses further ones: see the container's profile"),
        })
        .map(ok)
}

/// user_namespaces(7), and AppArmor's `unprivileged_userns`: the namespace can be had, and no capability in it works.
fn capability() -> Answer {
    let what = "no capability works in the user namespace";
    prctl(libc::PR_CAPBSET_DROP, CAP_SETFCAP.into(), 0).map_err(|error| refused(what, &error)).map(ok)
}

fn pid() -> Answer {
    if getpid() == 1 {
        Ok(ok(()))
    } else {
        Err(Error::failed("the first process of the pid namespace is not PID 1"))
    }
}

fn namespace(flag: libc::c_int, name: &str) -> Answer {
    unshare(flag).map_err(|error| refused(&format!("cannot create a {name} namespace"), &error)).map(ok)
}

fn net() -> Answer {
    namespace(libc::CLONE_NEWNET, "net")?;
    namespaces::loopback_up()
        .map_err(|error| refused("cannot bring up the loopback interface", &error))
        .map(ok)
}

/// What srt-init's root and srt-mount's trees are made with.
fn mount_api() -> Answer {
    let root = EmptyRoot::new()?;
    openat2(&CWD, c"/", libc::O_PATH, 0).context(|| "openat2")?;
    open_tree(&CWD, c"/", OPEN_TREE_CLONE | libc::AT_RECURSIVE as libc::c_uint)
        .map_err(|error| refused("open_tree", &error))?;
    root.enter().map(ok)
}

fn mount(kind: &CStr, options: &[(&CStr, Option<&CStr>)]) -> io::Result<OwnedFd> {
    let context = fsopen(kind)?;
    for (key, value) in options {
        let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
        fsconfig(&context, command, Some(key), *value)?;
    }
    fsconfig(&context, FSCONFIG_CMD_CREATE, None, None)?;
    fsmount(&context, 0)
}

fn procfs(options: &[(&CStr, Option<&CStr>)]) -> Answer {
    namespace(libc::CLONE_NEWNS, "mount")?;
    let made = mount(c"proc", options);
    made.context(|| "cannot make a procfs").map_err(|error| match error.errno {
        // mount_too_revealing() in fs/namespace.c: there must be a procfs already of which nothing is covered.
        Some(libc::EPERM) => error.hint(
            "nothing may be mounted over parts of /proc, as a container's masks are (docker run --security-opt \
             systempaths=unconfined); srt-mount --proc-pids may work there (Linux 7.2)",
        ),
        _ => error,
    }).map(ok)
}

fn overlay() -> Answer {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    let host = openat(&CWD, c"/", libc::O_PATH, 0).and_then(|root| fstatfs(&root)).context(|| "/")?;
    let tmpfs = EmptyRoot::new()?;
    fchdir(tmpfs.directory()).context(|| "fchdir")?;
    for name in [c"lower", c"upper", c"work"] {
        mkdirat(tmpfs.directory(), name, 0o700).context(|| "mkdir")?;
    }
    let layers = [(c"lowerdir", Some(c"lower")), (c"upperdir", Some(c"upper")), (c"workdir", Some(c"work"))];
    let made = mount(c"overlay", &[&layers[..], &[(c"userxattr", None)]].concat());
    made.context(|| "cannot make an overlay").map_err(|error| match error.errno {
        Some(libc::ENODEV) => {
            error.hint("the kernel has no overlayfs, or has not loaded it: modprobe overlay")
        }
        _ => error,
    })?;
    if host == OVERLAYFS_SUPER_MAGIC {
        let error = Error::failed("the root is an overlay, on which no overlay's RWSRC can lie");
        return Ok(Found::Limited(error.hint("--tmp-overlay, or RWSRC and WORKDIR on another file system")));
    }
    Ok(ok(()))
}

fn landlock() -> Answer {
    let off = "Landlock is off in this kernel (lsm= on its command line), or a container's profile hides it";
    let failed = |error: Error| error.hint(off);
    let abi = landlock_create_ruleset_version().context(|| "landlock_create_ruleset").map_err(failed)?;
    // LANDLOCK_ACCESS_FS_EXECUTE: the first that there was.
    let all = RulesetAttr { handled_access_fs: 1, ..RulesetAttr::default() };
    let ruleset = landlock_create_ruleset(&all).context(|| "landlock_create_ruleset").map_err(failed)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
    landlock_restrict_self(&ruleset).context(|| "landlock_restrict_self").map_err(failed)?;
    match abi {
        ..5 => Ok(Found::Limited(
            Error::failed(format!("ABI {abi}: no --landlock, --read and --write"))
                .hint("Linux 6.10 or newer, which has ABI 5"),
        )),
        5..9 => Ok(Found::Ok(format!("ABI {abi}; --unix needs ABI 9 (Linux 7.1)"))),
        _ => Ok(Found::Ok(format!("ABI {abi}"))),
    }
}

/// The mark of a placeholder, on a file that has no name.
fn xattrs() -> Answer {
    let what = || "no user xattrs in /tmp";
    let file = openat(&CWD, c"/tmp", libc::O_TMPFILE | libc::O_RDWR, 0o600).context(what)?;
    fsetxattr(&file, c"user.srt-check", b"1", 0)
        .context(what)
        .map_err(|error| {
            error.hint("Linux 6.6 has them on tmpfs; other directories may be on a file system that has them")
        })
        .map(ok)
}

/// seccomp(2): filters are inherited, and what one refuses no other gives back. proc(5), /proc/PID/status.
fn outer_filter() -> Answer {
    let status = fs::read_to_string("/proc/self/status").context(|| "cannot read /proc/self/status")?;
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match mode {
        Some("2") => {
            Ok(Found::Limited(Error::failed("a seccomp filter is in front of the tools already").hint(
                "none, if all else is ok; in a container, docker run --security-opt seccomp=unconfined",
            )))
        }
        _ => Ok(ok(())),
    }
}

/// A profile that gives this very file user namespaces with their capabilities (apparmor.d(5)), as shell lines. `None`
/// for a path that cannot be written in one.
fn profile() -> Option<String> {
    let path = fs::read_link("/proc/self/exe").ok()?;
    let path = std::str::from_utf8(path.as_os_str().as_bytes())
        .ok()
        .filter(|path| !path.contains(char::is_control))?;
    let quoted: String = path
        .chars()
        .flat_map(|c| [Some('\\').filter(|_| "\\\"*?[]{}^@".contains(c)), Some(c)].into_iter().flatten())
        .collect();
    Some(format!(
        "as root, or sysctl kernel.apparmor_restrict_unprivileged_userns=0:\n\
         cat >/etc/apparmor.d/srt-ns <<'END'\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         profile srt-ns \"{quoted}\" flags=(unconfined) {{\n  userns,\n}}\n\
         END\n\
         apparmor_parser -r /etc/apparmor.d/srt-ns"
    ))
}
