//! The new namespaces of the supervisor: all except pid, which only its children enter, and mount, which is the host's
//! until srt-mount creates its own.

use crate::options::{NAMESPACES, Plan};
use libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUSER, CLONE_NEWUTS, c_int};
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

/// Enters a user namespace that maps the caller's ids to themselves, for helpers that have the host's files; the
/// command gets another one below it. A process in that one has no ptrace(2) access to the helpers, /proc/PID/root
/// included (cap_ptrace_access_check() in security/commoncap.c), whichever procfs is visible.
///
/// # Errors
/// Any error from the kernel, with a hint for the common ones.
pub fn enter_user_for_helpers() -> Result<()> {
    enter_mapped(None, None, 0)
}

/// Enters the user namespace of the sandbox, maps the ids, and forbids further user namespaces unless they are allowed.
/// Enters the ipc, uts and cgroup namespaces, which that user namespace owns.
///
/// # Errors
/// Any error from the kernel, with a hint for the common ones.
pub fn enter(plan: &Plan) -> Result<()> {
    let others = (CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) & !plan.options.share;
    if plan.shares(CLONE_NEWUSER) {
        unshare_seen(others).map_err(|error| refused_to(plan.options.share, OTHERS, &error))?;
    } else {
        enter_mapped(plan.options.uid, plan.options.gid, others)?;
        if !plan.options.allow_userns {
            forbid_user_namespaces()?;
        }
    }
    match &plan.options.hostname {
        Some(Raw(name)) => sethostname(name).context(|| format!("--hostname {}", name.display())),
        None => Ok(()),
    }
}

/// Enters the network namespace, brings up `lo` (the kernel then assigns 127.0.0.1 and ::1), and opens the namespace
/// for the processes that were forked before. The kernel takes longer to create it than all the others together, so
/// srt-init and srt-mount start before it exists. `None`: it is shared.
///
/// # Errors
/// Any error from the kernel, with a hint for the common ones.
pub fn enter_network(share: c_int) -> Result<Option<fs::File>> {
    if share & CLONE_NEWNET != 0 {
        return Ok(None);
    }
    let what = "cannot create a net namespace";
    unshare_seen(CLONE_NEWNET).map_err(|error| refused_to(share, what, &error))?;
    socket(libc::AF_INET, libc::SOCK_DGRAM)
        .and_then(|socket| ioctl_siocsifflags(&socket, b"lo", libc::IFF_UP | libc::IFF_RUNNING))
        .map_err(|error| refused_to(share, "cannot bring up the loopback interface", &error))?;
    fs::File::open("/proc/self/ns/net").map(Some).context(|| "cannot open /proc/self/ns/net")
}

/// The capabilities that srt-mount needs over the user namespace. CAP_DAC_OVERRIDE is for overlays with an upper layer:
/// overlayfs creates a directory with mode 0 in the work directory, and enters it with the rights of the mounting
/// process.
pub const FOR_SRT_MOUNT: [u32; 2] = [CAP_SYS_ADMIN, CAP_DAC_OVERRIDE];

/// Empties the bounding set once, for all children: no exec of theirs can gain a capability from a file or from uid 0.
///
/// capset(2): a capability must be in the bounding set when it is added to the inheritable set, and the command may be
/// the stage that gets some. So those are added first. All other children clear them.
///
/// # Errors
/// Any error from the kernel.
pub fn empty_bounding_set() -> Result<()> {
    let held = capget().context(|| "capget")?;
    let stage = FOR_SRT_MOUNT.iter().fold(0, |set, capability| set | 1 << capability);
    let inheritable = held.permitted & stage;
    capset(Capabilities { inheritable, ..held }).context(|| "capset")?;
    privileges::empty_bounding_set(held)?;
    // Under --share user the caller may lack CAP_SETPCAP. The bounding set then stays, and uid 0 would gain all of it
    // by an exec.
    if held.effective & (1 << CAP_SETPCAP) == 0 { privileges::no_new_privs() } else { Ok(()) }
}

/// The first child after this is PID 1 of a new pid namespace; later children are in the same namespace
/// (pid_namespaces(7)).
///
/// # Errors
/// Any error from unshare(2).
pub fn enter_pid_for_children(share: c_int) -> Result<()> {
    unshare(libc::CLONE_NEWPID).map_err(|error| refused_to(share, "cannot create a pid namespace", &error))
}

/// Calls unshare(2) and verifies its effect, since an outer seccomp filter may fake the result. The other new
/// namespaces are verified by later steps: the id maps, PID 1.
fn unshare_seen(flags: c_int) -> io::Result<()> {
    let wanted = NAMESPACES.iter().filter(|(_, flag)| flags & flag != 0);
    let before = wanted.map(|&(name, _)| Ok((name, inode(name)?))).collect::<io::Result<Vec<_>>>()?;
    unshare(flags)?;
    for (name, before) in before {
        if inode(name)? == before {
            return Err(io::Error::other("unshare had no effect"));
        }
    }
    Ok(())
}

/// The inode number of one of this process's namespaces, which identifies it (namespaces(7)).
fn inode(name: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/self/ns/{name}")).map(|meta| meta.ino())
}

const OTHERS: &str = "cannot create the ipc, uts and cgroup namespaces";

/// Creates a user namespace with one uid and one gid, the caller's (`None`: mapped to itself), and `others` in the same
/// call, which creates the user namespace first, and all namespaces or none. The maps verify it: each can be written
/// only once. user_namespaces(7): without CAP_SETGID outside, the gid map can be written only after setgroups is
/// denied. It is always denied, so that a group that restricts access cannot be dropped.
fn enter_mapped(uid: Option<u32>, gid: Option<u32>, others: c_int) -> Result<()> {
    // A process in the new user namespace can no longer determine these.
    let (own_uid, own_gid, held) = (geteuid(), getegid(), capget().context(|| "capget")?);
    if unshare(CLONE_NEWUSER | others).is_err() {
        // One after the other, to find out which one is refused.
        unshare(CLONE_NEWUSER).map_err(|error| refused_user(&error))?;
        unshare_seen(others).map_err(|error| refused(OTHERS, &error))?;
    }
    let write = |path: &str, text: &str| {
        fs::write(path, text).map_err(|error| {
            let failed = refused(&format!("cannot write {path}"), &error);
            // Linux 5.12: mapping the parent's uid 0 needs CAP_SETFCAP there; otherwise file capabilities of the new
            // namespace would be root's.
            let setfcap = "uid 0 needs CAP_SETFCAP to be mapped (Linux 5.12): grant it to the container, give an outer \
                           srt-ns --uid and --gid, or run srt-ns as an ordinary user";
            let has_setfcap = held.effective & (1 << CAP_SETFCAP) != 0;
            if own_uid == 0 && !has_setfcap { failed.hint_for(libc::EPERM, setfcap) } else { failed }
        })
    };
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{} {own_uid} 1", uid.unwrap_or(own_uid)))?;
    write("/proc/self/gid_map", &format!("{} {own_gid} 1", gid.unwrap_or(own_gid)))
}

/// Without this, a command could create a user namespace, be root in it, and, in its copy of the mounts, detach what
/// protects a path: the kernel refuses rename and unlink of mount points only in the caller's own mount namespace.
/// namespaces(7): the sysctl belongs to the writer's user namespace, and only CAP_SYS_RESOURCE over that namespace can
/// raise it again.
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

/// [`refused`] for a caller that may have kept its own user namespace, and therefore has only its own capabilities.
fn refused_to(share: c_int, what: &str, error: &io::Error) -> Error {
    let own = "--share user is for a caller with CAP_SYS_ADMIN, and CAP_NET_ADMIN unless --share net: leave it out, or run \
               srt-ns as root";
    let failed = refused(what, error);
    if share & CLONE_NEWUSER != 0 { failed.hint_for(libc::EPERM, own) } else { failed }
}

/// The end of a hint that is only a guess.
pub(crate) const SEE_CHECK: &str = "; srt-ns --check tries all that is needed";

/// The hint for hosts where AppArmor removes the capabilities in a user namespace from programs without a profile.
pub(crate) const APPARMOR: &str = "AppArmor restricts user namespaces here (Ubuntu 24.04): give srt-ns a profile with \
                                   `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0";

/// Why a namespace is refused, as far as this process can find out.
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
        Some(libc::ENOSPC) => "a namespace limit is reached: sysctl -a --pattern '^user.max_.*_namespaces'",
        Some(libc::ENOENT) => "srt-ns needs /proc: mount a procfs there",
        Some(libc::EINVAL) => {
            "the kernel may be built without one of these namespaces (CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS, \
             CONFIG_CGROUPS, CONFIG_PID_NS)"
        }
        _ => return failed,
    };
    failed.hint(format!("{hint}{SEE_CHECK}"))
}

/// The inode numbers in /proc/self/ns, which identify namespaces on the host (namespaces(7)).
pub fn inodes() -> Vec<(&'static str, u64)> {
    let names = ["user", "pid_for_children", "net", "ipc", "uts", "cgroup"];
    let named = |name: &'static str| Some((name.trim_end_matches("_for_children"), inode(name).ok()?));
    names.into_iter().filter_map(named).collect()
}
