//! The new namespaces of the supervisor: all but pid, which only its children enter, and mount, which is the
//! host's until srt-mount makes its own.

use crate::options::{Plan, Share};
use libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS};
use srt_common::args::Raw;
use srt_common::privileges;
use srt_common::sys::mount::{sethostname, unshare};
use srt_common::sys::privileges::{
    CAP_DAC_OVERRIDE, CAP_SETFCAP, CAP_SETPCAP, CAP_SYS_ADMIN, Capabilities, capget, capset,
};
use srt_common::sys::process::{getegid, geteuid};
use srt_common::sys::socket::{ioctl_siocsifflags, socket};
use srt_common::{Context, Error, Result};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What the caller was before it entered its own user namespace, after which nobody can tell.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    uid: u32,
    gid: u32,
    setfcap: bool,
}

impl Caller {
    /// Reads the effective ids and capabilities.
    ///
    /// # Errors
    /// What capget(2) says.
    pub fn current() -> Result<Self> {
        let held = capget().context(|| "capget")?;
        Ok(Self { uid: geteuid(), gid: getegid(), setfcap: held.effective & (1 << CAP_SETFCAP) != 0 })
    }
}

/// Enters a user namespace that maps the caller's ids to themselves: the one of the helpers that have the host's files,
/// when the command gets one below it. ptrace(2) access, /proc/PID/root included, does not reach from the one below
/// (cap_ptrace_access_check() in security/commoncap.c), whatever procfs is visible.
///
/// # Errors
/// What the kernel says, with a hint for the refusals that users meet.
pub fn enter_user_for_helpers(caller: Caller) -> Result<Caller> {
    enter_mapped(caller, caller.uid, caller.gid, 0)?;
    Ok(Caller { setfcap: true, ..caller })
}

/// Enters the user namespace of the sandbox, ids mapped, no further ones unless they are allowed; and the ipc, uts and
/// cgroup namespaces, which it owns.
///
/// # Errors
/// What the kernel says, with a hint for the refusals that users meet.
pub fn enter(plan: &Plan, caller: Caller) -> Result<()> {
    let others = flags(plan.share);
    if plan.share.user {
        unshare_seen(others).map_err(|error| refused_to(plan.share, OTHERS, &error))?;
    } else {
        let (uid, gid) = (plan.options.uid.unwrap_or(caller.uid), plan.options.gid.unwrap_or(caller.gid));
        enter_mapped(caller, uid, gid, others)?;
        if !plan.options.allow_userns {
            forbid_user_namespaces()?;
        }
    }
    match &plan.options.hostname {
        Some(Raw(name)) => sethostname(name).context(|| format!("--hostname {}", name.display())),
        None => Ok(()),
    }
}

/// Enters the network namespace, `lo` up (upon which the kernel gives it 127.0.0.1 and ::1), and opens it for those that
/// have been forked before. It takes the kernel longer than all others together: so srt-init and srt-mount start
/// before it is there. `None`: it is shared.
///
/// # Errors
/// What the kernel says, with a hint for the refusals that users meet.
pub fn enter_network(share: Share) -> Result<Option<fs::File>> {
    if share.net {
        return Ok(None);
    }
    let what = "cannot create a net namespace";
    unshare_seen(CLONE_NEWNET).map_err(|error| refused_to(share, what, &error))?;
    socket(libc::AF_INET, libc::SOCK_DGRAM)
        .and_then(|socket| ioctl_siocsifflags(&socket, b"lo", libc::IFF_UP | libc::IFF_RUNNING))
        .map_err(|error| refused_to(share, "cannot bring up the loopback interface", &error))?;
    fs::File::open("/proc/self/ns/net").map(Some).context(|| "cannot open /proc/self/ns/net")
}

/// What srt-mount needs over the user namespace. CAP_DAC_OVERRIDE is for overlays with an upper layer: overlayfs makes a
/// directory with mode 0 in the work directory, and enters it with the rights of whoever mounts.
pub const FOR_SRT_MOUNT: [u32; 2] = [CAP_SYS_ADMIN, CAP_DAC_OVERRIDE];

/// Empties the bounding set, once for all children: no exec below can gain a capability from a file or from uid 0.
///
/// capset(2): what is to be inheritable must be in the bounding set while it is added, and the command may be
/// the stage that gets some: so those are added first. Everybody else clears them.
///
/// # Errors
/// What the kernel says of the step.
pub fn empty_bounding_set() -> Result<()> {
    let held = capget().context(|| "capget")?;
    let stage = FOR_SRT_MOUNT.iter().fold(0, |set, capability| set | 1 << capability);
    let inheritable = held.permitted & stage;
    capset(Capabilities { inheritable, ..held }).context(|| "capset")?;
    privileges::empty_bounding_set(held)?;
    // Under --share user a caller may lack CAP_SETPCAP: the set stays, of which uid 0 would gain all by an exec.
    if held.effective & (1 << CAP_SETPCAP) == 0 { privileges::no_new_privs() } else { Ok(()) }
}

/// The first child after this is PID 1 of a new pid namespace, later ones its neighbours (pid_namespaces(7)).
///
/// # Errors
/// What unshare(2) says.
pub fn enter_pid_for_children(share: Share) -> Result<()> {
    unshare(libc::CLONE_NEWPID).map_err(|error| refused_to(share, "cannot create a pid namespace", &error))
}

/// Those of which /proc/self/ns shows whether they are new.
const SHOWN: [(&str, libc::c_int); 4] =
    [("net", CLONE_NEWNET), ("ipc", CLONE_NEWIPC), ("uts", CLONE_NEWUTS), ("cgroup", CLONE_NEWCGROUP)];

/// unshare(2), seen to have been done: an outer filter may answer for the kernel. What else is made here shows by what
/// comes after it: the id maps, PID 1.
fn unshare_seen(flags: libc::c_int) -> io::Result<()> {
    let wanted = SHOWN.iter().filter(|(_, flag)| flags & flag != 0);
    let before = wanted.map(|&(name, _)| Ok((name, inode(name)?))).collect::<io::Result<Vec<_>>>()?;
    unshare(flags)?;
    for (name, before) in before {
        if inode(name)? == before {
            return Err(io::Error::other("unshare had no effect"));
        }
    }
    Ok(())
}

/// The number of one of this process's namespaces, by which it is told from others (namespaces(7)).
fn inode(name: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/self/ns/{name}")).map(|meta| meta.ino())
}

const OTHERS: &str = "cannot create the ipc, uts and cgroup namespaces";

fn flags(share: Share) -> libc::c_int {
    let Share { ipc, uts, cgroup, .. } = share;
    let all = [(ipc, CLONE_NEWIPC), (uts, CLONE_NEWUTS), (cgroup, CLONE_NEWCGROUP)];
    all.iter().filter(|(shared, _)| !shared).fold(0, |flags, (_, flag)| flags | flag)
}

/// A user namespace with one id each, the caller's, and `others` in the same call, which makes it first and all or none.
/// That it was made, the maps show: a namespace takes one once. user_namespaces(7): without CAP_SETGID outside, the gid map
/// can be written only after setgroups is denied; it is denied for everybody, so that a group that takes rights away stays.
fn enter_mapped(caller: Caller, uid: u32, gid: u32, others: libc::c_int) -> Result<()> {
    if unshare(libc::CLONE_NEWUSER | others).is_err() {
        // One after the other, to tell which of them is refused.
        unshare(libc::CLONE_NEWUSER).map_err(|error| refused_user(&error))?;
        unshare_seen(others).map_err(|error| refused(OTHERS, &error))?;
    }
    let write = |path: &str, text: &str| {
        fs::write(path, text).map_err(|error| {
            let failed = refused(&format!("cannot write {path}"), &error);
            // Linux 5.12: a map of the parent's uid 0 needs CAP_SETFCAP there, or the files' capabilities of the
            // new namespace would be root's.
            let setfcap = "uid 0 needs CAP_SETFCAP to be mapped (Linux 5.12): grant it to the container, give an outer \
                           srt-ns --uid and --gid, or run srt-ns as an ordinary user";
            if caller.uid == 0 && !caller.setfcap { failed.hint_for(libc::EPERM, setfcap) } else { failed }
        })
    };
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {} 1", caller.uid))?;
    write("/proc/self/gid_map", &format!("{gid} {} 1", caller.gid))
}

/// Without this a command could make a user namespace, be root in it, and detach, in its copy of the mounts,
/// what protects a path: the kernel refuses rename and unlink of mount points in the caller's own mount
/// namespace only. namespaces(7): the sysctl is the one of the writer's user namespace, and only CAP_SYS_RESOURCE over
/// that namespace can raise it again.
pub(crate) fn forbid_user_namespaces() -> Result<()> {
    let path = "/proc/sys/user/max_user_namespaces";
    let what = || format!("cannot forbid further user namespaces: {path}");
    fs::write(path, "0").map_err(|error| {
        Error::system(what(), &error).hint(format!(
            "/proc/sys must be writable here (in a container it often is not); or use --allow-userns and forbid \
             them with srt-seccomp --deny userns,mount{SEE_CHECK}"
        ))
    })?;
    match fs::read(path).context(what)?.trim_ascii() {
        b"0" => Ok(()),
        _ => Err(Error::failed(format!("{}: the write had no effect", what()))),
    }
}

fn refused_user(error: &io::Error) -> Error {
    let reached = "user.max_user_namespaces is reached or 0 (an outer srt-ns sets it to 0: give that one --allow-userns), \
                   sysctl user.max_user_namespaces shows it; or more than 32 are nested";
    refused("cannot create a user namespace", error)
        .hint_for(libc::ENOSPC, format!("{reached}{SEE_CHECK}"))
        .hint_for(libc::EINVAL, format!("the kernel was built without CONFIG_USER_NS{SEE_CHECK}"))
}

/// [`refused`] to a caller who may have kept its own user namespace, and with it no more than its own capabilities.
fn refused_to(share: Share, what: &str, error: &io::Error) -> Error {
    let own = "--share user is for a caller with CAP_SYS_ADMIN, and CAP_NET_ADMIN unless --share net: leave it out, or run \
               srt-ns as root";
    let failed = refused(what, error);
    if share.user { failed.hint_for(libc::EPERM, own) } else { failed }
}

/// The end of a hint that is a guess.
pub(crate) const SEE_CHECK: &str = "; srt-ns --check tries all that is needed";

/// The hint where AppArmor takes the capabilities in its user namespace from a program without a profile.
pub(crate) const APPARMOR: &str = "AppArmor restricts user namespaces here (Ubuntu 24.04): give srt-ns a profile with \
                                   `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0";

/// Why a namespace is refused, as far as one can see from here.
pub(crate) fn refused(what: &str, error: &io::Error) -> Error {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let failed = Error::system(what, error);
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
                APPARMOR
            } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                "sysctl kernel.unprivileged_userns_clone=1 allows user namespaces"
            } else {
                "something refuses this: in a container its profiles (docker run --security-opt seccomp=unconfined \
                 --security-opt apparmor=unconfined), a chroot, or a security module"
            }
        }
        Some(libc::ENOSPC) => {
            "a limit of namespaces is reached: sysctl -a --pattern '^user.max_.*_namespaces'"
        }
        Some(libc::ENOENT) => "srt-ns needs /proc: mount a procfs there",
        Some(libc::EINVAL) => {
            "the kernel may be built without one of these namespaces (CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS, \
             CONFIG_CGROUPS, CONFIG_PID_NS)"
        }
        _ => return failed,
    };
    failed.hint(format!("{hint}{SEE_CHECK}"))
}

/// The inode numbers under /proc/self/ns, which name namespaces on the host (namespaces(7)).
pub fn inodes() -> Vec<(&'static str, u64)> {
    let names = ["user", "pid_for_children", "net", "ipc", "uts", "cgroup"];
    let named = |name: &'static str| Some((name.trim_end_matches("_for_children"), inode(name).ok()?));
    names.into_iter().filter_map(named).collect()
}
