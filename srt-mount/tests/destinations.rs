//! Where things are mounted: what is made, what is refused, and that nothing leads out.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{mount, sh, sh_on, words};
use srt_tests::{Who, both, has, run, run_with_input, skip, wait, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

both! {
    fn missing_parents_and_mount_points_are_made(who) {
        sh(who, &words("--ro-bind /etc /a/b/c --ro-bind /etc/passwd /d/e/f --tmpfs /t/u"),
            "stat -c '%a %F' /a /a/b /d/e /t; test -e /a/b/c/passwd && test -s /d/e/f").ok()
            .says("755 directory\n755 directory\n755 directory\n755 directory");
    }

    fn placeholders_on_own_file_systems_have_mode_0755_and_0444(who) {
        // Seen without the mount on them: the tmpfs is shown a second time, not recursively possible, so by find -xdev.
        sh(who, &words("--tmpfs /t --ro-bind /etc/passwd /t/f --ro-bind /etc /t/d --remount-ro /t"),
            "test -e /t/f && test -d /t/d && ! touch /t/x 2>/dev/null").ok();
    }

    fn a_relative_destination_counts_from_the_root(who) {
        sh(who, &words("--ro-bind /etc e/tc --tmpfs ./t --dir t//d/ --chdir e"), "pwd; test -e tc/passwd && test -d /t/d")
            .ok().says("/e");
    }

    fn a_link_in_the_middle_is_followed_inside_the_new_root(who) {
        let scratch = who.scratch();
        scratch.dir("real");
        symlink("/inside", scratch.join("abs")).expect("symlink");
        symlink("../../../../../../inside", scratch.join("rel")).expect("symlink");
        let dir = scratch.text();
        sh(who, &["--ro-bind", dir, "/w", "--dir", "/inside", "--ro-bind", "/etc", "/w/abs/etc", "--ro-bind", "/etc", "/w/rel/two"],
            "ls /inside").ok().says("etc\ntwo");
        assert!(fs::read_dir(scratch.join("real")).expect("read").next().is_none());
    }

    fn nothing_is_mounted_or_made_through_a_link_that_is_the_destination(who) {
        let scratch = who.scratch();
        scratch.dir("target");
        scratch.file("file", "precious");
        symlink(scratch.join("target"), scratch.join("dirlink")).expect("symlink");
        symlink(scratch.join("file"), scratch.join("filelink")).expect("symlink");
        symlink("/nowhere", scratch.join("dangling")).expect("symlink");
        let dir = scratch.text();
        for options in [
            "--ro-bind /etc /w/dirlink", "--ro-bind /etc /w/dirlink/", "--ro-bind /etc /w/dirlink/.",
            "--tmpfs /w/dirlink", "--proc /w/dirlink", "--dev /w/dirlink", "--dir /w/dirlink", "--mask /w/dirlink",
            "--remount-ro /w/dirlink", "--chmod 700 /w/dirlink", "--ro-bind /etc/passwd /w/filelink",
            "--mask /w/filelink", "--chmod 600 /w/filelink", "--symlink other /w/filelink",
            "--ro-bind /etc/passwd /w/dangling", "--tmpfs /w/dangling", "--file 0 /w/filelink", "--file 0 /w/dangling",
            "--bind-data 0 /w/filelink",
        ] {
            for parent in ["/w", dir] {
                let options = options.replace("/w", parent);
                let mut all = vec!["--bind", dir, parent, "--placeholders"];
                all.extend(words(&options));
                let ran = sh(who, &all, "true");
                ran.code(125).one_clear_error("srt-mount").complains("is a symbolic link to");
            }
        }
        assert_eq!(fs::read_to_string(scratch.join("file")).expect("read"), "precious");
        assert!(fs::read_dir(scratch.join("target")).expect("read").next().is_none());
    }

    fn a_dangling_link_in_the_middle_is_an_error(who) {
        let scratch = who.scratch();
        symlink("/nowhere", scratch.join("link")).expect("symlink");
        sh(who, &["--ro-bind", scratch.text(), "/w", "--placeholders", "--tmpfs", "/w/link/x"], "true")
            .code(125).one_clear_error("srt-mount").complains("is a symbolic link to /nowhere");
    }

    fn a_magic_link_leads_nowhere(who) {
        let scratch = who.scratch();
        let to = format!("/proc/self/root{}", scratch.text());
        sh(who, &["--proc", "/proc", "--placeholders", "--tmpfs", &format!("{to}/new")], "true")
            .code(125).one_clear_error("srt-mount");
        assert!(fs::read_dir(scratch.path()).expect("read").next().is_none());
        // Nor to what is there by another name.
        sh_on(who, "--ro-bind", &["--proc", "/proc", "--tmpfs", "/proc/self/root/mnt"], "true")
            .code(125).one_clear_error("srt-mount").complains("Too many levels of symbolic links");
    }

    fn a_mount_point_is_not_made_on_the_host_unless_asked_for(who) {
        let scratch = who.scratch();
        let dir = scratch.text();
        for options in ["--tmpfs DIR/a/b", "--ro-bind /etc DIR/a/b", "--ro-bind /etc/passwd DIR/a/b", "--dev DIR/a/b"] {
            let options = options.replace("DIR", dir);
            let ran = sh_on(who, "--bind", &words(&options), "true");
            ran.code(125).one_clear_error("srt-mount").complains("--placeholders");
            assert!(fs::read_dir(dir).expect("read").next().is_none());
        }
        sh_on(who, "--bind", &["--placeholders", "--tmpfs", &format!("{dir}/a/b"), "--ro-bind", "/etc/passwd", &format!("{dir}/f")], "true").ok();
        assert!(scratch.join("a/b").is_dir());
        assert_eq!(fs::metadata(scratch.join("f")).expect("there").len(), 0);
    }

    fn after_a_failure_no_placeholder_is_left(who) {
        let scratch = who.scratch();
        let at = |name: &str| format!("{}/{name}", scratch.text());
        let file = at("f/g");
        for last in [["--mask", "/proc/no/such"], ["--chdir", "/no/such"], ["--remount-ro", "/etc/passwd"]] {
            let deep = at("a/b/c");
            let options = ["--bind", "/", "/", "--placeholders", "--tmpfs", &deep, "--ro-bind", "/etc/passwd", &file, "--dir", &at("d/e"), "--symlink", "x", &at("link"), "--file", "0", &at("data"), last[0], last[1]];
            let mut command = mount(who, options);
            run_with_input(command.args(["--", "true"]), b"content").code(125).one_clear_error("srt-mount");
            assert!(fs::read_dir(scratch.path()).expect("read").next().is_none(), "{last:?}");
        }
    }

    fn after_a_failure_what_another_has_put_there_stays(who) {
        for (by_rename, expected) in [(true, "precious"), (true, ""), (false, "more")] {
            let scratch = who.scratch();
            let file = scratch.join(".env");
            let options = ["--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--placeholders", "--mask", file.to_str().expect("UTF-8")];
            let mut command = mount(who, options);
            // It waits for the content of this file, and fails then.
            let data = scratch.join("data");
            command.args(["--file", "0"]).arg(&data).args(["--mask", "/proc/no/such", "--", "true"]);
            command.stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("srt-ns");
            wait_until("what is made after the mount point", || data.exists());
            if by_rename {
                let new = scratch.file("new", expected);
                fs::rename(new, &file).expect("rename");
            } else {
                fs::write(&file, expected).expect("write");
            }
            drop(child.stdin.take());
            assert_eq!(wait(&mut child, "srt-ns").code(), Some(125));
            assert_eq!(fs::read_to_string(&file).expect("it is there"), expected);
        }
    }

    fn after_a_failure_what_was_there_before_stays(who) {
        let scratch = who.scratch();
        let (file, directory, link) = (scratch.file("file", "before"), scratch.dir("directory"), scratch.join("link"));
        symlink("x", &link).expect("a link");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let options = ["--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--dir", &text(&directory), "--symlink", "x", &text(&link), "--file", "0", &text(&file), "--mask", "/proc/no/such"];
        run_with_input(mount(who, options).args(["--", "true"]), b"content").code(125).one_clear_error("srt-mount");
        // What it holds was asked for.
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "content");
        assert_eq!(fs::read_link(&link).expect("it is there"), Path::new("x"));
        assert!(directory.is_dir());
    }

    fn a_mount_point_that_another_makes_meanwhile_is_taken(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let late = ["--mask", "/proc/no/such"];
        // The other's stays, whatever comes of the start.
        for (call, option, last, code) in [("mknodat", "--mask", &[][..], 0), ("mkdirat", "--tmpfs", &[], 0), ("mknodat", "--mask", &late, 125), ("mkdirat", "--tmpfs", &late, 125)] {
            // This machine may be late: of five tries one in which the tool has met the other's.
            let met = (0..5).any(|_| {
                let scratch = who.scratch();
                let (place, log) = (scratch.join("new"), scratch.file("log", ""));
                let mut command = who.command("strace");
                command.args(["--follow-forks", "--quiet=all", &format!("--trace={call}"), "-e", &format!("inject={call}:delay_enter=500000"), "--output"]).arg(&log);
                command.args(["srt-ns", "--", "srt-mount", "--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--placeholders", option]);
                let mut child = command.arg(&place).args(last).args(["--", "true"]).stderr(Stdio::piped()).spawn().expect("strace");
                std::thread::sleep(std::time::Duration::from_millis(250));
                if call == "mkdirat" { drop(scratch.dir("new")) } else { drop(scratch.file("new", "")) }
                assert_eq!(wait(&mut child, "strace").code(), Some(code), "{call} {last:?}");
                let met = fs::read_to_string(log).expect("the log").lines().any(|line| line.contains("\"new\"") && line.contains("EEXIST"));
                assert!(!met || place.exists(), "{call} {last:?}");
                met
            });
            assert!(met, "{call} {last:?}");
        }
    }

    fn parents_may_lead_back_to_what_is_there(who) {
        run(mount(who, words("--bind / / --tmpfs /tmp --tmpfs /tmp/made/../../usr/share")).args(["--", "ls", "/usr/share", "/tmp"]))
            .ok()
            .says("/tmp:\nmade\n\n/usr/share:");
    }

    fn no_queue_is_made_as_a_mount_point(who) {
        let outer = if who == Who::Root { &["--mount", "--ipc"][..] } else { &["-Ur", "--mount", "--ipc"] };
        let mut command = who.command("unshare");
        command.args(outer).args(["srt-mount", "--ro-bind", "/", "/", "--mqueue", "/mnt", "--ro-bind", "/etc/passwd", "/mnt/q", "--", "true"]);
        run(&mut command).code(125).complains("/mnt/q does not exist");
    }

    fn after_a_failure_nothing_is_left_on_what_has_become_read_only(who) {
        let scratch = who.scratch();
        let at = |name: &str| format!("{}/{name}", scratch.text());
        scratch.dir("w/there");
        let (w, deep, file, there) = (at("w"), at("w/new/deep"), at("w/f"), at("w/there"));
        // A mount below, which no copy of the one above may leave out.
        let below = ["--ro-bind", "/etc", &there];
        let made = ["--placeholders", "--dir", &deep, "--ro-bind", "/etc/passwd", &file];
        let late = &["--mask", "/proc/no/such"][..];
        let closed = at("closed");
        fs::create_dir(&closed).expect("mkdir");
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("chmod");
        let script = at("script");
        scratch.file("script", "#!/no/such/interpreter\n");
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("chmod");
        // A program for its owner alone.
        let others = at("others");
        fs::copy("/bin/true", &others).expect("copy");
        std::os::unix::fs::chown(&others, Some(54321), Some(54321)).expect("chown");
        fs::set_permissions(&others, PermissionsExt::from_mode(0o700)).expect("chmod");
        // Found in one directory of PATH, and no program.
        scratch.file("bin/prog", "");
        let path = format!("{}:/usr/bin:/bin", at("bin"));
        for (program, last, code) in [("prog", &[][..], 126), ("true", late, 125), (&script, &[], 127), ("/no/such", &[], 127), ("no-such-program", &[], 127), ("/etc", &[], 126), ("/etc/passwd", &[], 126), ("./.", &[], 126), ("./no-such", &[], 127), (&others, &[], 126), ("true", &["--chdir", &closed], 125)] {
            if (program == others || program == "true" && last != late) && who == Who::Root {
                continue; // Nothing is closed to it while it has its capabilities.
            }
            for order in [[&below[..], &made], [&made, &below]] {
                let options = [&["--ro-bind", "/", "/", "--bind", &w, &w], &order.concat()[..], &["--remount-ro", &w, "--remount-ro", &w], last];
                run(mount(who, options.concat()).args(["--", program]).env("PATH", &path)).code(code).one_clear_error("srt-mount");
                let left: Vec<_> = fs::read_dir(&w).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
                assert_eq!(left, ["there"], "{program}");
            }
        }
    }

    fn what_was_made_in_one_directory_takes_one_copy_of_it(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // Each has all mounts below: a copy for every mount point would be their square.
        let copies = |count: usize| {
            let scratch = who.scratch();
            let directories: Vec<_> = (0..count).map(|n| format!("{}/{n}", scratch.text())).collect();
            let mut options = vec!["--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--placeholders"];
            options.extend(directories.iter().flat_map(|path| ["--dir", path]));
            options.extend(["--remount-ro", scratch.text(), "--", "true"]);
            let mut strace = who.command("strace");
            strace.args(["--follow-forks", "--quiet=all", "--trace=open_tree", "--signal=none", "srt-ns", "--", "srt-mount"]);
            let ran = run(strace.args(&options));
            ran.ok();
            ran.err.matches("AT_RECURSIVE").count()
        };
        let few = copies(2);
        assert!(few > 0);
        assert_eq!(copies(20), few);
    }

    fn on_a_read_only_mount_a_mount_point_must_exist(who) {
        sh_on(who, "--ro-bind", &["--tmpfs", "/no-such-directory"], "true").code(125)
            .hints("srt-mount", "Read-only file system", "a mount point on a read-only mount must exist already");
    }

    fn a_directory_does_not_go_onto_a_file_nor_a_file_onto_a_directory(who) {
        sh(who, &words("--ro-bind /etc/passwd /f --ro-bind /etc /f"), "true").code(125).one_clear_error("srt-mount");
        sh(who, &words("--dir /d --ro-bind /etc/passwd /d"), "true").code(125).one_clear_error("srt-mount");
        sh(who, &words("--ro-bind /etc/passwd /"), "true").code(125).one_clear_error("srt-mount");
    }

    fn a_later_root_covers_an_earlier_one(who) {
        for list in ["--tmpfs / --ro-bind / /", "--dir /x --ro-bind / /", "--ro-bind / / --ro-bind / / --ro-bind / /",
            "--mask /etc --ro-bind / /", "--dir /y --ro-bind / /y/.."]
        {
            let mut options = vec![];
            options.extend(words(list));
            let ran = sh(who, &options, "test -e /etc/passwd && ls -di /.. / /usr/.. | cut -d' ' -f1 | uniq | wc -l");
            ran.ok().says("1");
        }
    }

    fn dot_dot_never_leads_to_the_old_root(who) {
        let look = "cat /../canary ../canary /usr/../canary /proc/../canary 2>&1 | grep -c No; ls -di / /.. /usr/.. | cut -d' ' -f1 | uniq | wc -l";
        let _ = fs::metadata("/");
        for list in ["--dir /proc", "--dir /proc --mask /etc", "--tmpfs /proc --mask /usr/share --mask /etc/passwd", "--tmpfs /proc --tmp-overlay"] {
            let mut options = words(list);
            if list.ends_with("overlay") {
                options.pop();
                options.extend(words("--overlay-src /etc --tmp-overlay /o"));
            }
            sh(who, &options, look).ok().says("4\n1");
        }
    }

    fn a_chroot_gets_a_hint(who) {
        if who == Who::User {
            return; // chroot(1) needs root.
        }
        let scratch = who.scratch();
        srt_tests::copy_program(srt_tests::tool("srt-mount"), scratch.join("srt-mount"));
        let mut command = who.command("chroot");
        run(command.arg(scratch.path()).args(words("/srt-mount --tmpfs / -- true"))).code(125)
            .one_clear_error("srt-mount").complains("chroot");
    }
}
