//! `--sys`: the devices of the network namespace and the limits of the cgroup namespace, read-only.

use crate::detached::{INERT, Tree, set_attributes, tmpfs};
use srt_common::sys::c_path;
use srt_common::sys::file::{mkdirat, symlinkat};
use srt_common::sys::mount::move_mount;
use srt_common::{Context, Error, Result, filesystem::NO_OPTIONS};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// The cgroup file systems of a sysfs, each with its name.
pub type Cgroups = Vec<(String, Tree)>;

/// PROC_CGROUP_INIT_INO of linux/proc_ns.h.
const INITIAL: u64 = 0xefff_fffb;

/// A new sysfs, detached. It shows the network namespace of the process that creates it.
///
/// # Errors
/// EPERM, with a hint.
pub fn new() -> Result<Tree> {
    // sysfs_init_fs_context() in fs/sysfs/mount.c requires CAP_SYS_ADMIN over the network namespace,
    // mount_too_revealing() in fs/namespace.c an existing sysfs with no part of it covered.
    let hint = "a sysfs needs a network namespace of its own (srt-ns without --share net) and a /sys that is there and, in a \
                container, not masked; or show the host's: --ro-bind /sys /sys";
    Tree::make("a sysfs", c"sysfs", &NO_OPTIONS, INERT).map_err(|error| error.hint_for(libc::EPERM, hint))
}

/// The cgroup file systems of a sysfs, detached: that of version 2, or each hierarchy of version 1, named by its
/// controllers as systemd does (cgroups(7)). Their roots are those of the cgroup namespace.
///
/// # Errors
/// A file system cannot be created, with a hint.
pub fn cgroups() -> Result<Cgroups> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context(|| "cannot read /proc/self/cgroup")?;
    hierarchies(&text).into_iter().map(hierarchy).collect()
}

/// `name=systemd` has no controllers. The empty string stands for version 2.
fn hierarchy(controllers: &str) -> Result<(String, Tree)> {
    // cgroup_init_fs_context() in kernel/cgroup/cgroup.c requires CAP_SYS_ADMIN over the cgroup namespace.
    let hint = "--sys needs a cgroup namespace of its own: srt-ns without --share cgroup; or show the host's: --ro-bind \
                /sys /sys";
    // In the initial one the options of a new mount replace the host's (`apply_cgroup_root_flags()` there).
    let namespace = || std::fs::metadata("/proc/self/ns/cgroup").context(|| "/proc/self/ns/cgroup");
    let (what, kind) = match controllers {
        "" if namespace()?.ino() == INITIAL => {
            return Err(Error::failed("cannot make a cgroup2 file system").hint(hint));
        }
        "" => ("a cgroup2 file system".to_owned(), c"cgroup2"),
        _ => (format!("a cgroup file system of {controllers}"), c"cgroup"),
    };
    let options: Vec<&str> = controllers.split(',').filter(|word| !word.is_empty()).collect();
    let name = controllers.strip_prefix("name=").unwrap_or(controllers).to_owned();
    let tree = Tree::make(&what, kind, &options, INERT).map(|tree| (name, tree));
    tree.map_err(|error| error.hint_for(libc::EPERM, hint))
}

/// Mounts the cgroup file systems at `fs/cgroup`.
///
/// # Errors
/// A file system cannot be mounted.
pub fn mount_cgroups(cgroups: &[(String, Tree)], sys: &OwnedFd) -> Result<()> {
    let attach = |root: &OwnedFd| move_mount(root, sys, c"fs/cgroup").context(|| "cannot mount on fs/cgroup");
    let directory = match cgroups {
        [(name, tree)] if name.is_empty() => return attach(&tree.fd),
        _ => tmpfs(0o755, None)?.fd,
    };
    attach(&directory)?;
    for (name, tree) in cgroups {
        let name = if name.is_empty() { "unified" } else { name };
        let mount = || {
            let c_name = c_path(name)?;
            mkdirat(&directory, &c_name, 0o755)?;
            move_mount(&tree.fd, &directory, &c_name)?;
            let mut aliases = name.split(',').filter(|alias| *alias != name);
            aliases.try_for_each(|alias| symlinkat(&c_name, &directory, &c_path(alias)?))
        };
        mount().context(|| format!("cannot mount on fs/cgroup/{name}"))?;
    }
    set_attributes(&directory, INERT, false).context(|| "mount_setattr of fs/cgroup")
}

/// The controllers of each hierarchy in /proc/self/cgroup.
fn hierarchies(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split(':').nth(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::hierarchies;

    #[test]
    fn each_hierarchy_is_known_by_its_controllers() {
        assert_eq!(hierarchies("0::/user.slice\n"), [""]);
        let mixed = "9:name=systemd:/\n8:pids:/\n3:cpu,cpuacct:/a:b\n0::/\n";
        assert_eq!(hierarchies(mixed), ["name=systemd", "pids", "cpu,cpuacct", ""]);
        assert_eq!(hierarchies(""), [""; 0]);
    }
}
