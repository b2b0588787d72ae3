//! What is protected below a writable directory stays where it is: neither it nor a directory above it is renamed,
//! removed or replaced, whoever tries.

use srt_tests::attacks::{Sandbox, where_one_may_mount};
use srt_tests::host::LoopMount;
use srt_tests::{Scratch, Who, both, run, wait_until};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Stdio;

/// A work directory with a file to protect four levels down, and others beside it.
fn lay_out(who: Who) -> Scratch {
    let scratch = who.scratch();
    scratch.file("work/a/b/c/config", "trusted\n");
    scratch.file("work/a/b/other/file", "other\n");
    scratch.file("work/mine/c/config", "OWNED\n");
    scratch.file("work/mine/b/c/config", "OWNED\n");
    scratch
}

/// All ways to get the attacker's file to the protected name, or the protected file to another. `work/ROOM` is the
/// attacker's own directory with a `b`, a `c` and a `config` in it.
fn ways(work: &str) -> Vec<String> {
    let on = |attack: &str, directory: &str| match attack {
        "rename" => format!("rename {work}/{directory} {work}/moved"),
        "out" => format!("rename {work}/{directory} /tmp/moved"),
        "exchange" => format!("exchange {work}/{directory} {work}/mine"),
        "over" => format!("rename {work}/mine {work}/{directory}"),
        "whiteout" => format!("whiteout {work}/{directory} {work}/moved"),
        _ => format!("{attack} {work}/{directory}"),
    };
    let attacks = ["rename", "out", "exchange", "over", "whiteout", "rmdir"];
    let mut all: Vec<String> = attacks
        .iter()
        .flat_map(|attack| ["a", "a/b", "a/b/c"].map(|directory| on(attack, directory)))
        .collect();
    all.extend([
        format!("rename {work}/a/b/c/config {work}/moved"),
        format!("rename {work}/mine/c/config {work}/a/b/c/config"),
        format!("exchange {work}/a/b/c/config {work}/mine/c/config"),
        format!("unlink {work}/a/b/c/config"),
        format!("link {work}/a/b/c/config {work}/linked"),
        // By other names of the same directories.
        format!("rename /proc/self/root{work}/a {work}/moved"),
        format!("rename {work}/a/b/other/../../../a {work}/moved"),
        format!("rename {work}/mine/../a/b {work}/moved"),
        "exchange /proc/self/cwd/a /proc/self/cwd/mine".into(),
    ]);
    all
}

/// A rename from a mount namespace in which nothing of the tree is mounted any more.
fn detached(work: &str) -> Vec<String> {
    ["a moved", "a/b b-moved", "a/b/c c-moved"]
        .iter()
        .map(|names| format!("in-userns detach-and-rename {work} {names}"))
        .collect()
}

both! {
    fn no_snapshot_shows_what_a_mask_hides_and_no_subvolume_is_deleted_under_a_read_only_bind(who) {
        let scratch = who.scratch_in("/var/tmp");
        let mkfs = ["mkfs.btrfs", "--quiet"];
        let Some(mounted) = LoopMount::new(&scratch, 120, &mkfs, "loop,user_subvol_rm_allowed") else {
            srt_tests::skip!("no btrfs can be mounted here");
        };
        chown(mounted.path(), Some(who.uid()), Some(who.uid())).expect("chown");
        let home = mounted.path().join("home");
        let script = "btrfs subvolume create \"$1\" && mkdir -p \"$1/ssh\" \"$1/work\" && echo secret >\"$1/ssh/id\" &&
            btrfs subvolume create \"$1/work/repo\" && mkdir \"$1/work/repo/git\"";
        run(who.command("sh").args(["-c", script, "sh"]).arg(&home)).ok();
        let at = |name: &str| home.join(name).to_str().expect("UTF-8").to_owned();
        let (work, git, ssh) = (at("work"), at("work/repo/git"), at("ssh"));
        let sandbox = Sandbox::new(who, Path::new(&work)).mounts(&["--ro-bind", &git, &git, "--mask", &ssh]);
        let attacks = [
            format!("snapshot {} {work} one", home.display()),
            format!("snapshot-v2 {} {work} two", home.display()),
            format!("delete-subvolume {work} repo"),
            format!("delete-subvolume-v2 {work} repo"),
        ];
        sandbox.each(&attacks).all_were_refused_with(libc::EPERM);
        assert!(Path::new(&git).exists());
        // The control: the one shows what the mask hides, the other takes away what the bind protects.
        let unprotected = sandbox.seccomp(&["--allow", "snapshot"]);
        let reads = ["one", "two"].map(|name| format!("read {work}/{name}/ssh/id"));
        unprotected.each(&[&attacks[..2], &reads, &attacks[3..]].concat()).all_got_through();
        assert!(!Path::new(&git).exists());
    }

    fn no_directory_above_a_mask_or_a_read_only_bind_can_be_renamed_or_removed(who) {
        for protect in ["--mask", "--ro-bind"] {
            let scratch = lay_out(who);
            let work = scratch.join("work");
            let (work_text, config) = (work.to_str().expect("UTF-8"), work.join("a/b/c/config"));
            let config = config.to_str().expect("UTF-8");
            let options: &[&str] = if protect == "--mask" { &[protect, config] } else { &[protect, config, config] };
            let sandbox = Sandbox::new(who, &work).mounts(options);
            sandbox.each(&ways(work_text)).all_were_refused();
            sandbox.each(&detached(work_text)).all_were_refused_with(libc::ENOSPC);
            assert_eq!(fs::read_to_string(config).expect("config"), "trusted\n");
        }
    }

    fn each_of_the_ways_is_open_without_protection(who) {
        // A way for each tree: they get in each other's way.
        let shape = ways("WORK").into_iter().filter(|way| !way.starts_with("rmdir") && !way.contains("/tmp/moved"));
        for way in shape.filter(|way| !way.starts_with("rename WORK/mine WORK/a") && !way.starts_with("whiteout")) {
            let scratch = lay_out(who);
            let work = scratch.join("work");
            let way = way.replace("WORK", work.to_str().expect("UTF-8"));
            Sandbox::new(who, &work).each(&[way]).all_got_through();
        }
        // The rest needs a directory that is empty, another file system or a capability: only what stands in its
        // place tells that it is refused for another reason.
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let rest = [format!("rmdir {}/a/b/c", work.display()), format!("rename {0}/mine {0}/a/b/c", work.display())];
        fs::remove_file(work.join("a/b/c/config")).expect("rm");
        Sandbox::new(who, &work).each(&rest[..1]).all_got_through();
        fs::create_dir(work.join("a/b/c")).expect("mkdir");
        std::os::unix::fs::chown(work.join("a/b/c"), Some(who.uid()), Some(who.uid())).expect("chown");
        Sandbox::new(who, &work).each(&rest[1..]).all_got_through();
    }

    fn a_mask_alone_is_not_enough_which_is_why_the_directories_are_pinned(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        // A mount over the file, as a mask without pins is: the name can be taken.
        let script = format!("mount --bind /dev/null {}/a/b/c/config", work.display());
        let way = [format!("exchange {0}/a/b {0}/mine", work.display())];
        where_one_may_mount(who, &script, &way).all_got_through();
        assert_eq!(fs::read_to_string(work.join("a/b/c/config")).expect("config"), "OWNED\n");
    }

    fn an_open_user_namespace_undoes_the_pins_which_is_why_it_is_closed_by_default(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let config = work.join("a/b/c/config");
        let sandbox = Sandbox::new(who, &work).mounts(&["--mask", config.to_str().expect("UTF-8")]);
        let attack = format!("in-userns detach-and-rename {} a moved", work.display());
        sandbox.each(&[&attack]).all_were_refused_with(libc::ENOSPC);
        assert!(config.exists());
        sandbox.clone().ns(&["--allow-userns"]).each(&[&attack]).all_got_through();
        assert!(!config.exists() && work.join("moved/b/c/config").exists());
    }

    fn pins_hold_below_every_writable_bind_and_through_every_name_of_a_directory(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        let config = format!("{work}/a/b/c/config");
        let inner = format!("{work}/a/b");
        // The same directory is bound twice, once from within.
        let nested = Sandbox::new(who, std::path::Path::new(work))
            .mounts(&["--bind", &inner, &inner, "--mask", &config, "--bind", work, "/mnt"]);
        let mut all = ways(work);
        all.extend([
            "rename /mnt/a /mnt/moved".into(),
            "rename /mnt/a/b /mnt/moved".into(),
            "rename /mnt/a/b/c /mnt/moved".into(),
            "exchange /mnt/a /mnt/mine".into(),
        ]);
        nested.each(&all).all_were_refused();
        assert_eq!(fs::read_to_string(&config).expect("config"), "trusted\n");
    }

    fn a_link_on_the_way_to_a_protected_path_cannot_be_replaced(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        // Relative, absolute, and one after the other: HOST/short → HOST/links/to-b → WORK/a/b. They lie where the
        // command cannot write.
        scratch.dir("host/links");
        symlink("../../work/a/b", scratch.join("host/links/to-b")).expect("symlink");
        symlink(scratch.join("host/links/to-b"), scratch.join("host/short")).expect("symlink");
        let host = format!("{}/host", scratch.text());
        let name = format!("{host}/short/c/config");
        let work_text = work.to_str().expect("UTF-8");
        let mut attacks = ways(work_text);
        for link in ["short", "links/to-b", "links"] {
            let link = format!("{host}/{link}");
            attacks.extend([
                format!("unlink {link}"),
                format!("rename {link} {work_text}/moved"),
                format!("exchange {link} {work_text}/mine"),
            ]);
        }
        let sandbox = Sandbox::new(who, &work).mounts(&["--ro-bind", &host, &host]);
        for protect in [vec!["--mask", &name], vec!["--ro-bind", &name, &name]] {
            sandbox.clone().mounts(&protect).each(&attacks).all_were_refused();
            assert_eq!(fs::read_to_string(&name).expect("config"), "trusted\n");
        }
        // Where the command can replace it no path leads through it.
        symlink("../a/b", work.join("to-b")).expect("symlink");
        let name = format!("{work_text}/to-b/c/config");
        for protect in [vec!["--mask", &name], vec!["--ro-bind", &name, &name]] {
            let refused = run(sandbox.clone().mounts(&protect).command(&["true"]).stdin(std::process::Stdio::null()));
            refused.code(125).one_clear_error("srt-mount").complains(&format!("the symbolic link {work_text}/to-b"));
        }
        sandbox.each(&[format!("exchange {work_text}/to-b {work_text}/mine")]).all_got_through();
    }

    fn pins_hold_in_a_bind_that_comes_in_place_of_another(who) {
        let scratch = lay_out(who);
        scratch.file("later/a/b/c/config", "trusted\n");
        scratch.file("inner/c/config", "trusted\n");
        let path = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
        let [work, config, later] = ["work", "work/a/b/c/config", "later"].map(path);
        let [inside, inner] = ["work/a/b", "inner"].map(path);
        // What was protected at the same path before is another directory.
        let sandbox = Sandbox::new(who, std::path::Path::new(&work)).mounts(&["--mask", &config]);
        for second in [["--bind", &later, &work], ["--bind", &inner, &inside]] {
            let attacks = [format!("rename {inside}/c {inside}/moved"), format!("exchange {inside}/c {work}/mine/c")];
            sandbox.clone().mounts(&second).mounts(&["--mask", &config]).each(&attacks).all_were_refused();
            sandbox.clone().mounts(&second).each(&attacks[..1]).all_got_through();
        }
    }

    fn a_mount_that_came_along_and_is_made_read_only_stays_where_it_is(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        let ran = |protect: &str| {
            let script = format!(
                "mount -t tmpfs tmpfs {work}/a/b/c && exec srt-ns -- srt-mount --ro-bind / / --proc /proc \
                 --bind {work} {work} {protect} -- mv {work}/a {work}/moved"
            );
            let mut command = who.command("unshare");
            command.args(if who == Who::Root { &["-m"][..] } else { &["-Urm"] }).args(["sh", "-c", &script]);
            run(&mut command)
        };
        ran(&format!("--remount-ro {work}/a/b/c")).code(1).complains("Device or resource busy");
        ran("").ok();
    }

    fn pins_are_passed_over_where_something_else_is_mounted_by_then(who) {
        let scratch = lay_out(who);
        scratch.dir("work/own");
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        // With a mount of the host's below it the kernel copies a tree with all its mounts or not at all.
        let script = format!(
            "mount -t tmpfs tmpfs {work}/own && exec srt-ns -- srt-mount --ro-bind / / --proc /proc --bind {work} {work} \
             --mask {work}/a/b/c/config --tmpfs {work}/a/b -- mv {work}/a {work}/moved"
        );
        let mut command = who.command("unshare");
        command.args(if who == Who::Root { &["-m"][..] } else { &["-Urm"] }).args(["sh", "-c", &script]);
        run(&mut command).code(1).complains("Device or resource busy");
    }

    fn pins_hold_in_a_writable_root_that_comes_in_place_of_another(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let work = work.to_str().expect("UTF-8");
        let ran = |protect: &[String]| {
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--proc", "/proc", "--bind", "/", "/"]).args(protect);
            run(command.args(["--", "mv"]).arg(format!("{work}/a")).arg(format!("{work}/moved")))
        };
        ran(&["--mask".into(), format!("{work}/a/b/c/config")]).code(1).complains("Device or resource busy");
        ran(&[]).ok();
    }

    fn pins_hold_though_a_mount_point_is_removed_outside(who) {
        let usual = &["--ro-bind", "/", "/"][..];
        let proc = &["--ro-bind", "/", "/", "--proc", "/proc"][..];
        let own = &["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"];
        // What is removed: a masked directory; the root of another writable bind with something to pin; that of a bound /tmp.
        for (root, work_inside, last) in [
            (usual, None, "--mask"),
            (usual, None, "--tmpfs"),
            (usual, None, "another"),
            (proc, None, "another"),
            (usual, None, "/tmp"),
            (own, Some("/work"), "--mask"),
            (own, Some("/deep/work"), "--tmpfs"),
            (own, Some("/work"), "another"),
            (own, Some("/work"), "/tmp"),
        ] {
            let scratch = who.scratch_in("/var/tmp");
            scratch.dir("work/a/b/c");
            scratch.dir("work/mine");
            let built = scratch.dir("work/built");
            let other = scratch.dir("other");
            scratch.dir("other/d/e");
            let work = scratch.join("work").display().to_string();
            let inside = work_inside.unwrap_or(&work);
            let mut command = who.command("srt-ns");
            let (other, e) = (other.to_str().expect("UTF-8"), scratch.join("other/d/e"));
            command.args(["--", "srt-mount"]).args(root);
            match last {
                "another" if work_inside.is_none() => command.args(["--bind", other, other, "--ro-bind"]).args([&e, &e]),
                "another" => command.args(["--bind", other, "/a", "--ro-bind"]).arg(&e).arg("/a/d/e"),
                "/tmp" => command.args(["--bind", other, "/tmp"]),
                _ => &mut command,
            };
            command.args(["--bind", &work, inside, "--ro-bind"]);
            command.args([format!("{work}/a/b/c"), format!("{inside}/a/b/c")]);
            if last.starts_with("--") {
                command.args([last, &format!("{inside}/built")]);
            }
            let script = "mv a moved; touch ready; while test -e ready; do sleep 0.01; done; mv a moved; ls";
            command.args(["--chdir", inside, "--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().expect("srt-ns");
            let ready = scratch.join("work/ready");
            wait_until("the first attempt", || ready.exists());
            fs::remove_dir(built).expect("rmdir");
            fs::remove_dir_all(other).expect("rm -r");
            fs::remove_file(ready).expect("unlink");
            let ran = child.wait_with_output().expect("its end");
            let told = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(told.matches("Device or resource busy").count(), 2, "{root:?} {last}: {ran:?}");
            // That it was removed shows that it could take something with it.
            assert_eq!(String::from_utf8_lossy(&ran.stdout), "a\nmine\n", "{root:?} {last}");
        }
    }

    fn what_lies_beside_the_protected_path_can_still_be_changed(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let config = work.join("a/b/c/config");
        let work_text = work.to_str().expect("UTF-8");
        let attacks = [
            format!("create {work_text}/a/b/c/new"),
            format!("rename {work_text}/a/b/other {work_text}/a/renamed"),
            format!("rename {work_text}/a/b/c/new {work_text}/a/b/new"),
            format!("link {work_text}/a/b/new {work_text}/mine/linked"),
            format!("mkdir {work_text}/a/b/directory"),
        ];
        Sandbox::new(who, &work)
            .mounts(&["--mask", config.to_str().expect("UTF-8")])
            .each(&attacks)
            .all_got_through();
    }

    fn what_lies_in_a_file_system_of_the_sandboxs_own_needs_no_pin(who) {
        let scratch = who.scratch();
        let work = scratch.dir("work");
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--bind"]).args([&work, &work]);
        command.args(["--tmpfs", "/mnt", "--ro-bind", "/etc", "/mnt/a/b", "--", "mv", "/mnt/a", "/mnt/c"]);
        run(&mut command).ok();
    }
}
