//! The tree that was built stays as it was built: no remount, no umount, no new mount, no way into another mount
//! namespace; not from a user namespace of the command's own either, where it may have one.

use srt_tests::attacks::{Sandbox, behind, outside, where_one_may_mount};
use srt_tests::{Scratch, Who, both, run, tool};
use std::fs;

/// A writable directory with a read-only and a masked part.
fn lay_out(who: Who) -> Scratch {
    let scratch = who.scratch();
    scratch.file("work/ro/file", "trusted\n");
    scratch.file("work/masked/file", "secret\n");
    scratch.dir("work/own");
    scratch.file("work/env", "secret\n");
    scratch
}

fn sandbox(who: Who, scratch: &Scratch) -> Sandbox {
    let at = |name: &str| format!("{}/work/{name}", scratch.text());
    Sandbox::new(who, &scratch.join("work")).mounts(&[
        "--ro-bind",
        &at("ro"),
        &at("ro"),
        "--mask",
        &at("masked"),
        "--mask",
        &at("env"),
    ])
}

/// Every call that changes mounts, on a mount where one may.
fn calls(work: &str) -> Vec<String> {
    vec![
        format!("remount {work}/ro"),
        format!("bind {work}/ro {work}/own"),
        format!("rbind {work} {work}/own"),
        format!("move {work}/masked {work}/own"),
        format!("tmpfs {work}/own"),
        format!("open-tree {work}"),
        format!("open-tree-recursive {work}"),
        format!("? open-tree-attr {work}"),
        format!("move-mount {work}/ro {work}/own"),
        format!("mount-setattr {work}/own"),
        format!("umount {work}/own"),
        "fsopen tmpfs".into(),
        format!("fspick {work}/own2"),
        format!("chroot {work}"),
        format!("pivot-root {work}/own"),
    ]
}

/// Ways to undo what protects a path, for one who has every capability over a *copy* of the mounts. Each ends in the
/// protected file, so that a step that works but leads nowhere is no success.
fn undoings(work: &str) -> Vec<String> {
    vec![
        format!("read-below-umount {work}/masked {work}/masked/file"),
        format!("umount {work}/masked"),
        format!("umount {work}/env"),
        format!("umount {work}/ro"),
        format!("umount {work}"),
        format!("read-below-clone {work} masked/file"),
        format!("open-tree {work}"),
        format!("bind {work} /mnt"),
        format!("move {work}/masked /mnt"),
        format!("move-mount {work}/masked /mnt"),
        format!("write-after-remount {work}/ro {work}/ro/file"),
        format!("mount-setattr {work}/ro"),
        format!("mount-setattr-recursive {work}"),
        format!("? open-tree-attr {work}"),
        format!("fspick-reconfigure {work}/ro"),
        "umount /proc".into(),
        "umount /dev".into(),
        "remount /".into(),
    ]
}

both! {
    fn the_command_can_change_no_mount(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        sandbox(who, &scratch).each(&calls(work)).all_were_refused();
        // Where one may, each gets through, on a tree like that one.
        for call in calls(work) {
            let script = format!(
                "mkdir -p {work}/own2; for name in ro masked own own2; do mount -t tmpfs none {work}/$name; done"
            );
            where_one_may_mount(who, &script, &[call]).all_got_through();
        }
    }

    fn the_command_gets_no_user_namespace_by_any_call(who) {
        let scratch = lay_out(who);
        let attacks =
            ["userns-unshare", "userns-clone", "userns-clone3", "userns-loop", "in-userns capabilities", "in-userns tmpfs /mnt"];
        let sandbox = sandbox(who, &scratch);
        sandbox.each(&attacks).all_were_refused_with(libc::ENOSPC);
        // … and cannot raise the limit: an ordinary user is not even shown it writable.
        sandbox.each(&["userns-raise-limit"]).all_were_refused();
        outside(who, &attacks).all_got_through();
        sandbox.clone().ns(&["--allow-userns"]).each(&attacks).all_got_through();
        // The same from srt-seccomp, for chains without srt-ns.
        let denied = sandbox.ns(&["--allow-userns"]).seccomp(&["--deny", "userns"]);
        denied.each(&attacks).all_were_refused();
    }

    fn the_command_gets_no_other_namespace_either(who) {
        let scratch = lay_out(who);
        let flags = ["0x20000", "0x20000000", "0x40000000", "0x8000000", "0x4000000", "0x2000000", "0x80"];
        let attacks = flags.map(|flag| format!("unshare {flag}"));
        sandbox(who, &scratch).each(&attacks).all_were_refused_with(libc::EPERM);
        let unshare: &[&str] = if who == Who::Root { &["env"] } else { &["unshare", "-Ur"] };
        behind(who, unshare, &attacks).all_got_through();
    }

    fn a_user_namespace_of_its_own_does_not_help_the_command(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        let attacks: Vec<String> = undoings(work).iter().map(|way| {
            let (optional, way) = way.strip_prefix("? ").map_or(("", way.as_str()), |way| ("? ", way));
            format!("{optional}in-userns {way}")
        }).collect();
        sandbox(who, &scratch).ns(&["--allow-userns"]).each(&attacks).all_were_refused();
        assert_eq!(fs::read_to_string(scratch.join("work/ro/file")).expect("file"), "trusted\n");
        // One who made the mounts can undo them: they are locked only in a copy for a lesser namespace.
        let script = format!(
            "mount --bind {work} {work}; cd {work}; mount --bind ro ro; mount -o remount,bind,ro ro; \
             mount -t tmpfs none masked; mount --bind /dev/null env"
        );
        for way in undoings(work).iter().filter(|way| {
            // Busy, or the host's own mounts, which are locked for an ordinary user here too.
            !["umount /proc", "umount /dev", "remount /", "fspick-reconfigure"].iter().any(|rest| way.starts_with(rest))
        }) {
            where_one_may_mount(who, &script, &[way]).all_got_through();
        }
    }

    fn a_procfs_or_sysfs_of_its_own_shows_and_opens_no_more(who) {
        let scratch = lay_out(who);
        let attacks = [
            "in-userns-pid mount-and-write proc /mnt sys/kernel/core_pattern",
            "in-userns-pid mount-and-write proc /mnt sysrq-trigger",
            "in-userns-net mount-and-write sysfs /mnt kernel/uevent_helper",
        ];
        sandbox(who, &scratch).ns(&["--allow-userns"]).each(&attacks).all_were_refused();
        // uid 0 of the host needs no capability for it. (An ordinary user can do it nowhere.)
        if who == Who::Root {
            outside(who, &attacks[..1]).all_got_through();
        }
    }

    fn no_other_mount_namespace_can_be_found_listed_or_entered(who) {
        let scratch = lay_out(who);
        let host = outside(who, &["mountns-id"]).said().to_owned();
        let attacks = [
            "? ns-next".to_owned(),
            "? ns-previous".to_owned(),
            format!("? listmount {host}"),
            "setns /proc/1/ns/mnt".to_owned(),
            "setns /proc/1/ns/user".to_owned(),
            "setns-pidfd 1".to_owned(),
            "ns-parent /proc/self/ns/user".to_owned(),
            "ns-parent /proc/self/ns/pid".to_owned(),
            "ns-userns /proc/self/ns/user".to_owned(),
        ];
        sandbox(who, &scratch).each(&attacks).all_were_refused();
        // The host's root can do each with a namespace of its own making, and anybody sees what is below.
        let unshare = if who == Who::Root { "-mnpf" } else { "-Umnpf" };
        let mut child = who.command("unshare").args([unshare, "--kill-child", "sleep", "60"]).spawn().expect("unshare");
        let ns = format!("/proc/{}/ns", child.id());
        srt_tests::wait_until("the namespaces", || {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            link(&child.id().to_string()).is_some_and(|theirs| Some(theirs) != link("self"))
        });
        if who == Who::Root {
            outside(who, &attacks[..3]).all_got_through();
            outside(who, &[format!("setns {ns}/mnt"), format!("setns-pidfd {}", child.id())]).all_got_through();
        } else {
            outside(who, &[format!("ns-userns {ns}/net"), format!("ns-parent {ns}/user")]).all_got_through();
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    fn chroot_is_no_way_out(who) {
        let scratch = lay_out(who);
        let attack = [format!("chroot {}/work", scratch.text())];
        sandbox(who, &scratch).each(&attack).all_were_refused_with(libc::EPERM);
        // Nor from a user namespace, where it is allowed: there is nothing above the root.
        let shell = format!(
            "unshare -Ur sh -c 'cd / && chroot {0}/work/own /bin/true; cat {0}/work/../secret'", scratch.text()
        );
        scratch.file("secret", "secret\n");
        let ran = run(&mut sandbox(who, &scratch).ns(&["--allow-userns"]).command(&["sh", "-c", &shell]));
        assert!(!ran.out.contains("secret\n"), "{ran:#?}");
        where_one_may_mount(who, "true", &attack).all_got_through();
    }

    fn the_sandbox_changes_no_mount_of_the_caller(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let script = format!(
            "mount --bind {0} {0}; mount --make-rshared /; grep -v '/mounted ' /proc/self/mountinfo >{0}/before; \
             \"$@\" true || exit; \"$1\" --share user --allow-userns -- true || exit; grep -v '/mounted ' /proc/self/mountinfo >{0}/after; cmp {0}/before {0}/after", work.display()
        );
        let unshare = if who == Who::Root { "-m" } else { "-Urm" };
        let mut command = who.command("unshare");
        command.args([unshare, "--propagation", "private", "sh", "-c", &script, "sh"]).arg(tool("srt-ns"));
        run(command.args(sandbox(who, &scratch).words())).ok();
    }
}
