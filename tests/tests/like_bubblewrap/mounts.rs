//! From what `show-tree` prints to facts: /proc/self/mountinfo without what differs from run to run.

use srt_tests::tree::Facts;

/// One line of mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    device: &'a str,
    root: &'a str,
    point: &'a str,
    options: &'a str,
    propagation: String,
    kind: &'a str,
    super_options: &'a str,
}

fn read(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ');
    let mut next = || words.next();
    let (id, parent, device, root, point, options) = (next()?, next()?, next()?, next()?, next()?, next()?);
    // Peer group numbers differ; whether there is a group does not.
    let tags = words.map(|tag| tag.split(':').next().unwrap_or(tag));
    let propagation = tags.collect::<Vec<_>>().join(",");
    let mut words = after.splitn(3, ' ');
    let (kind, _source, super_options) = (words.next()?, words.next()?, words.next()?);
    Some(Mount { id, parent, device, root, point, options, propagation, kind, super_options })
}

/// All facts of one sandbox.
pub fn facts(lines: &str) -> Facts {
    let mut facts = Facts::new();
    for line in lines.lines().filter_map(|line| line.strip_prefix("fact\t")) {
        if let Some((key, value)) = line.split_once('\t') {
            facts.insert(key.to_owned(), value.to_owned());
        }
    }
    let mounts: Vec<Mount> =
        lines.lines().filter_map(|line| line.strip_prefix("mount\t")).filter_map(read).collect();
    let host = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let host: Vec<Mount> = host.lines().filter_map(read).collect();
    for mount in mounts.iter().filter(|mount| visible(mount, &mounts)) {
        // The number of a file system that a setup made is another in each run: it is called by its place.
        let on_host = host.iter().find(|other| other.device == mount.device).map(|other| other.point);
        let mut note = |what: &str, value: &str| {
            facts.insert(format!("mount {}: {what}", mount.point), value.to_owned());
        };
        note("type", mount.kind);
        note("flags", &sorted(mount.options));
        note("propagation", &mount.propagation);
        note(
            "file system",
            &on_host.map_or_else(|| "a new one".to_owned(), |point| format!("the host's at {point}")),
        );
        // An overlay's are its layers, under whatever name they were reached: its content tells. A tmpfs's mode is
        // that of its first directory, which the tree shows.
        let telling = |option: &&str| {
            mount.kind != "overlay" && !(mount.kind == "tmpfs" && option.starts_with("mode="))
        };
        let options = mount.super_options.split(',').filter(telling).collect::<Vec<_>>().join(",");
        note("file system's options", &sorted(&options));
        // Where a tool keeps things in a tmpfs of its own is its own business.
        note("directory", if on_host.is_some() || mount.kind != "tmpfs" { mount.root } else { "any" });
    }
    facts
}

fn sorted(options: &str) -> String {
    let mut options: Vec<&str> = options.split(',').collect();
    options.sort_unstable();
    options.join(",")
}

/// Whether a path leads to the mount's root. What lies under another mount is not compared: nobody gets there.
fn visible(mount: &Mount, all: &[Mount]) -> bool {
    let covered = all.iter().any(|other| other.parent == mount.id && other.point == mount.point);
    !covered && reachable(mount, all)
}

fn reachable(mount: &Mount, all: &[Mount]) -> bool {
    let Some(parent) = all.iter().find(|other| other.id == mount.parent && other.id != mount.id) else {
        return true;
    };
    let above = |other: &&Mount| {
        let below_it = mount
            .point
            .strip_prefix(other.point)
            .is_some_and(|rest| !rest.is_empty() && (other.point == "/" || rest.starts_with('/')));
        other.parent == parent.id && other.id != mount.id && below_it
    };
    !all.iter().any(|other| above(&other)) && reachable(parent, all)
}
