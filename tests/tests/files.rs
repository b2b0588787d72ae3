//! Promise 1: no file is read or written that was not granted, by any path, link, descriptor or handle.

use srt_tests::attacks::{INSIDE, Sandbox, outside, where_one_may_mount};
use srt_tests::{Who, both, in_chain, pass_fd, run, tool};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// Every way to change what lies in `ro`, with a file or directory of its own for each. `work` is on the same file
/// system, so that links and renames between the two fail for no other reason than the mount.
fn changes(ro: &str, work: &str) -> Vec<String> {
    let on_files = [
        "write",
        "append",
        "truncate-open",
        "truncate",
        "chmod",
        "chown",
        "utime",
        "? setxattr",
        "? setflags",
        "unlink",
        "reopen",
        "reopen-path",
        "map",
    ];
    let mut all: Vec<String> =
        on_files.iter().map(|attack| format!("{attack} {ro}/{}", attack.trim_start_matches("? "))).collect();
    let made = ["create", "mkdir", "mkfifo"].map(|attack| format!("{attack} {ro}/new-{attack}"));
    all.extend(made);
    all.extend([
        format!("rmdir {ro}/directory"),
        format!("symlink /etc/passwd {ro}/new-link"),
        format!("rename {ro}/rename {ro}/renamed"),
        format!("rename {ro}/move {work}/moved"),
        format!("rename {work}/own {ro}/replaced"),
        format!("exchange {work}/other {ro}/exchange"),
        format!("link {ro}/link {ro}/linked"),
        format!("link {ro}/link {work}/linked"),
        format!("link-fd {ro}/link {work}/linked-fd"),
        format!("link {work}/third {ro}/linked-in"),
        format!("? link-tmpfile {work} {ro}/linked-tmpfile"),
        // Round about.
        format!("write {work}/../ro/dots"),
        format!("write {work}/symlink/through-symlink"),
        format!("write /proc/self/root{ro}/through-root"),
        format!("write /proc/thread-self/root{ro}/through-thread"),
    ]);
    all
}

/// The files that [`changes`] changes.
fn lay_out(who: Who) -> srt_tests::Scratch {
    let scratch = who.scratch();
    let names = [
        "write",
        "append",
        "truncate-open",
        "truncate",
        "chmod",
        "chown",
        "utime",
        "setxattr",
        "setflags",
        "unlink",
        "reopen",
        "reopen-path",
        "map",
        "rename",
        "move",
        "replaced",
        "exchange",
        "link",
        "dots",
        "through-symlink",
        "through-root",
        "through-thread",
    ];
    for name in names {
        scratch.file(format!("ro/{name}"), "unchanged\n");
    }
    scratch.dir("ro/directory");
    for name in ["own", "other", "third"] {
        scratch.file(format!("work/{name}"), "mine\n");
    }
    symlink("../ro", scratch.join("work/symlink")).expect("symlink");
    scratch
}

/// Names, types, modes, times and contents.
fn snapshot(directory: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(directory)
        .expect("read_dir")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let meta = fs::symlink_metadata(&path).expect("stat");
            let content =
                if meta.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
            format!("{} {:o} {} {} {content}", path.display(), meta.mode(), meta.ctime(), meta.ctime_nsec())
        })
        .collect();
    all.sort();
    all
}

both! {
    fn what_is_read_only_cannot_be_changed_in_any_way(who) {
        let scratch = lay_out(who);
        let (ro, work) = (scratch.join("ro"), scratch.join("work"));
        let (ro_text, work_text) = (ro.to_str().expect("UTF-8"), work.to_str().expect("UTF-8"));
        let attacks = changes(ro_text, work_text);
        let before = snapshot(&ro);
        Sandbox::new(who, &work)
            .mounts(&["--ro-bind", ro_text, ro_text])
            .each(&attacks)
            .all_were_refused();
        assert_eq!(before, snapshot(&ro));
        outside(who, &attacks).all_got_through();
        assert_ne!(before, snapshot(&ro));
    }

    fn a_read_only_directory_below_a_writable_one_cannot_be_changed_either(who) {
        let scratch = lay_out(who);
        let (ro, work) = (scratch.join("ro"), scratch.join("work"));
        let (ro_text, work_text) = (ro.to_str().expect("UTF-8"), work.to_str().expect("UTF-8"));
        let attacks = changes(ro_text, work_text);
        let before = snapshot(&ro);
        let sandbox = Sandbox::new(who, scratch.path());
        sandbox.clone().mounts(&["--ro-bind", ro_text, ro_text]).each(&attacks).all_were_refused();
        assert_eq!(before, snapshot(&ro));
        sandbox.each(&attacks).all_got_through();
    }

    fn what_is_not_granted_cannot_be_read_by_any_path(who) {
        let scratch = who.scratch();
        let secret = scratch.file("secret", "secret\n");
        let work = scratch.dir("work");
        symlink(&secret, work.join("absolute")).expect("symlink");
        symlink("../secret", work.join("relative")).expect("symlink");
        symlink("/proc/self/root/../../../..", work.join("root")).expect("symlink");
        let (secret, work_text) = (secret.to_str().expect("UTF-8"), work.to_str().expect("UTF-8"));
        let mut victim = who.command("sleep").arg("60").current_dir(scratch.path()).spawn().expect("sleep");
        let attacks = |pid: u32| {
            [
                format!("read {secret}"),
                format!("read {work_text}/../secret"),
                format!("read {work_text}/absolute"),
                format!("read {work_text}/relative"),
                format!("read {work_text}/root{secret}"),
                format!("read /proc/self/root{secret}"),
                format!("read /proc/self/cwd/../../../../../../..{secret}"),
                format!("read /proc/{pid}/root{secret}"),
                format!("read /proc/{pid}/cwd/secret"),
                format!("write {secret}"),
                format!("stat {secret}"),
                format!("reopen-path {secret}"),
                format!("link {secret} {work_text}/linked"),
            ]
        };
        Sandbox::new(who, &work).each(&attacks(1)).all_were_refused();
        outside(who, &attacks(victim.id())).all_got_through();
        victim.kill().expect("kill");
        victim.wait().expect("wait");
    }

    fn a_mask_hides_a_file_and_a_directory(who) {
        let scratch = who.scratch();
        let env = scratch.file("work/a/.env", "secret\n");
        let other = scratch.file("work/a/other", "secret\n");
        let other = other.to_str().expect("UTF-8");
        scratch.file("work/a/keys/key", "secret\n");
        let (work, keys) = (scratch.join("work"), scratch.join("work/a/keys"));
        symlink("a/.env", work.join("symlink")).expect("symlink");
        let (env, keys, work_text) = (env.to_str().expect("UTF-8"), keys.to_str().expect("UTF-8"), work.to_str().expect("UTF-8"));
        let masked = Sandbox::new(who, &work).mounts(&["--mask", env, "--mask", keys, "--mask", other]);
        let reads = [
            format!("read {env}"),
            format!("read {work_text}/symlink"),
            format!("read {work_text}/a/keys/../.env"),
            format!("read /proc/self/root{env}"),
            format!("list {keys}"),
        ];
        for attack in &reads {
            assert_eq!(masked.each(&[attack]).said(), "", "{attack}");
            assert_ne!(outside(who, &[attack]).all_got_through().said(), "", "{attack}");
        }
        let changes = [
            format!("read {keys}/key"),
            format!("write {env}"),
            format!("create {keys}/new"),
            format!("reopen {env}"),
            format!("chmod {env}"),
            format!("chmod {keys}"),
            format!("link {env} {work_text}/out"),
            format!("link-fd {env} {work_text}/out-fd"),
            format!("exchange {env} {work_text}/symlink"),
            format!("exchange {env} {work_text}/symlink"),
            format!("rename {env} {work_text}/env"),
            format!("rename {keys} {work_text}/out-keys"),
            format!("unlink {other}"),
        ];
        masked.each(&changes).all_were_refused();
        outside(who, &changes).all_got_through();
    }

    fn a_descriptor_that_the_caller_left_open_is_not_inherited(who) {
        let scratch = who.scratch();
        scratch.file("secret", "secret\n");
        let work = scratch.dir("work");
        let directory = fs::File::open(scratch.path()).expect("open");
        let attacks = ["read-at 9 secret", "create-at 9 planted", "reopen-at 9 planted-too"];
        let sandbox = Sandbox::new(who, &work);
        let with_descriptor = |sandbox: &Sandbox| {
            let mut command = sandbox.command(&[INSIDE, "each"]);
            pass_fd(&mut command, std::os::fd::AsRawFd::as_raw_fd(&directory), 9);
            run(command.args(attacks)).ok().out.clone()
        };
        let said = with_descriptor(&sandbox);
        assert_eq!(said.matches("refused: Bad file descriptor").count(), 3, "{said}");
        assert!(!scratch.join("planted").exists());
        let keep: &[&str] = &["--keep-fd", "9"];
        let said = with_descriptor(&sandbox.ns(keep).mounts(keep).seccomp(keep));
        assert_eq!(said.matches("succeeded").count(), 3, "{said}");
    }

    fn the_callers_working_directory_is_no_way_out(who) {
        let scratch = who.scratch();
        scratch.file("hidden/secret", "secret\n");
        let (work, hidden) = (scratch.dir("work"), scratch.join("hidden"));
        let attacks = ["read secret", "read ../hidden/secret", "read ./secret"];
        let sandbox = Sandbox::bare(who).mounts(&["--bind", work.to_str().expect("UTF-8"), "/mnt"]);
        let ran = run(sandbox.command(&[INSIDE, "each"]).args(attacks).current_dir(&hidden));
        assert_eq!(ran.ok().out.matches("refused").count(), 3, "{ran:#?}");
        let covered = format!("cd {0}; mount -t tmpfs none {0}", hidden.display());
        where_one_may_mount(who, &covered, &["read secret", "read ./secret"]).all_got_through();
    }

    fn a_device_node_opens_nothing(who) {
        let scratch = who.scratch();
        let work = scratch.dir("work");
        let node = scratch.file("work/null", "");
        fs::remove_file(&node).expect("rm");
        outside(Who::Root, &[format!("mknod {} 1 3", node.display())]).all_got_through();
        chown(&node, Some(who.uid()), Some(who.uid())).expect("chown");
        let attack = [format!("device {}", node.display())];
        Sandbox::new(who, &work).each(&attack).all_were_refused_with(libc::EACCES);
        outside(who, &attack).all_got_through();
        let work = work.to_str().expect("UTF-8");
        Sandbox::bare(who).mounts(&["--dev-bind", work, work]).each(&attack).all_got_through();
        // A new one; an ordinary user cannot make one anywhere.
        let make = [format!("mknod {work}/new 1 3")];
        Sandbox::new(who, Path::new(work)).each(&make).all_were_refused_with(libc::EPERM);
        if who == Who::Root {
            outside(who, &make).all_got_through();
        }
    }

    fn a_file_handle_opens_nothing(who) {
        let scratch = who.scratch();
        let secret = scratch.file("secret", "secret\n");
        let work = scratch.dir("work");
        let handle = outside(who, &[format!("handle-of {}", secret.display())]);
        let attack = [format!("open-handle {} {}", work.display(), handle.all_got_through().said())];
        Sandbox::new(who, &work).each(&attack).all_were_refused_with(libc::EPERM);
        // CAP_DAC_READ_SEARCH is asked for: an ordinary user can do it nowhere.
        if who == Who::Root {
            outside(who, &attack).all_got_through();
        }
    }

    fn a_mount_made_on_the_host_later_does_not_appear_inside(who) {
        let scratch = who.scratch();
        let (work, late) = (scratch.dir("work"), scratch.dir("work/late"));
        scratch.dir("tools");
        let (start, go) = (scratch.join("start"), scratch.join("go"));
        for fifo in [&start, &go] {
            outside(who, &[format!("mkfifo {}", fifo.display())]).all_got_through();
        }
        // The sandbox is up (start), then the host mounts on a shared mount and writes, then the sandbox looks (go).
        let host = format!(
            "mount --bind {0} {0}; mount --make-shared {0}; \"$@\" & read started <{1}; \
             mount -t tmpfs none {2}; echo late >{2}/file; echo go >{3}; wait $!",
            work.display(), start.display(), late.display(), go.display()
        );
        let looks = format!("echo started >{}; read go <{}; cat {}/file", start.display(), go.display(), late.display());
        let unshare = if who == Who::Root { "-m" } else { "-Urm" };
        let mut protected = who.command("unshare");
        protected.args([unshare, "--propagation", "private", "sh", "-ec", &host, "sh"]).arg(tool("srt-ns"));
        let path = scratch.text();
        let sandbox = Sandbox::new(who, &work).mounts(&["--bind", path, path, "--bind", work.to_str().expect("UTF-8"), work.to_str().expect("UTF-8")]);
        let ran = run(protected.args(sandbox.words()).args(["sh", "-c", &looks]));
        assert!(ran.err.contains("No such file") && !ran.out.contains("late"), "{ran:#?}");
        let mut control = who.command("unshare");
        control.args([unshare, "--propagation", "private", "sh", "-ec", &host, "sh"]);
        control.args(["unshare", "-m", "--propagation", "slave", "sh", "-c", &looks]);
        run(&mut control).ok().says("late");
    }

    fn nothing_that_the_command_makes_in_its_own_tmp_and_dev_is_left_behind(who) {
        let scratch = who.scratch();
        let work = scratch.dir("work");
        let name = format!("left-behind-{}-{}", std::process::id(), who.uid());
        let places = [format!("/tmp/{name}"), format!("/dev/shm/{name}"), format!("/tmp/{name}-directory/file")];
        let script = format!("mkdir /tmp/{name}-directory; for file in {}; do echo x >$file && cat $file; done", places.join(" "));
        in_chain(who, &work, &script).ok().says("x\nx\nx");
        for place in &places {
            assert!(!Path::new(place).exists(), "{place}");
        }
        // What is bound stays, of course.
        in_chain(who, &work, "echo kept >file").ok();
        assert_eq!(fs::read_to_string(work.join("file")).expect("file"), "kept\n");
        assert_eq!(fs::metadata(work.join("file")).expect("file").permissions().mode() & 0o777, 0o644);
    }
}
