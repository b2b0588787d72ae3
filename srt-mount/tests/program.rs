//! PROGRAM: where it comes from, what it inherits, and that it has no privileges.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{SYSTEM, mount, sh, sh_on, words};
use srt_tests::{Who, both, has, run, skip};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

/// A static program that shows what it can do with its own file.
fn static_program(scratch: &srt_tests::Scratch) -> Option<std::path::PathBuf> {
    let source = scratch.file(
        "p.c",
        r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/stat.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char path[64];
            if (argc > 1) { /* the second life: no longer the program itself, so ETXTBSY does not help */
                snprintf(path, sizeof path, "/proc/self/fd/%s", argv[1]);
                int w = open(path, O_WRONLY);
                if (w < 0) w = open(path, O_RDONLY | O_TRUNC);
                puts(w < 0 && truncate(path, 0) && chmod(path, 0777) ? "safe" : "overwritten");
                return 0;
            }
            int fd = open("/proc/self/exe", O_PATH);
            snprintf(path, sizeof path, "%d", fd);
            execl("/other", "other", path, (char *)0);
            puts("no exec");
            return 1;
        }"#,
    );
    let program = scratch.join("program");
    let built = Command::new("gcc").args(["-static", "-o"]).arg(&program).arg(&source).status().ok()?;
    built.success().then_some(program)
}

both! {
    fn no_privilege_is_left(who) {
        let ran = sh(who, &words("--proc /proc"), "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'");
        ran.ok().says("CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\n\
            CapBnd:0000000000000000\nCapAmb:0000000000000000\nNoNewPrivs:1");
    }

    fn bare_root_gives_everything_away_too(who) {
        if who == Who::User {
            return;
        }
        run(who.command("srt-mount").args(words("--ro-bind / / -- grep -E ^Cap...:.*[1-9a-f] /proc/self/status"))).code(1).says("");
    }

    fn under_unshare_it_works_as_well(who) {
        for how in ["-Ur", "-U --map-current-user", "-Urpf", "-Um --map-root-user"] {
            let mut command = who.command("unshare");
            command.args(words(how)).arg(srt_tests::tool("srt-mount")).args(SYSTEM);
            let ran = run(command.args(["--tmpfs", "/t", "--", "sh", "-c", "touch /t/x && ls /"]));
            if how.contains("current") && who == Who::User {
                // The kernel takes the capabilities away at the exec of a uid that is not 0 (capabilities(7)).
                ran.code(125).one_clear_error("srt-mount").complains("CAP_SYS_ADMIN").complains("unshare -Ur");
            } else {
                assert!(ran.ok().out.contains("usr"), "{ran:#?}");
            }
        }
    }

    fn without_the_capability_there_is_a_hint(who) {
        let mut command = Command::new("setpriv");
        let uid = who.uid().to_string();
        command.args(["--reuid", &uid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
        run(command.arg(srt_tests::tool("srt-mount")).args(["--", "true"])).code(125).one_clear_error("srt-mount")
            .complains("cannot make a mount namespace: Operation not permitted").complains("under the srt-ns beside it");
    }

    fn the_working_directory_is_kept_if_it_exists_inside(who) {
        let scratch = who.scratch();
        scratch.dir("d");
        let mut command = mount(who, SYSTEM.into_iter().chain(["--ro-bind", scratch.text(), scratch.text()]));
        command.args(["--", "sh", "-c", "echo $PWD; /bin/pwd"]).current_dir(scratch.join("d")).env("PWD", "/lie");
        let here = format!("{0}/d\n{0}/d", scratch.text());
        run(&mut command).ok().says(&here);
        // In the new root `..` may lead elsewhere; and the name must be that directory's.
        scratch.dir("e");
        for lie in ["d/../d", "e", "../d"] {
            let mut command = mount(who, SYSTEM.into_iter().chain(["--ro-bind", scratch.text(), scratch.text()]));
            command.args(["--", "printenv", "PWD"]).current_dir(scratch.join("d")).env("PWD", scratch.join(lie));
            run(&mut command).ok().says(&format!("{}/d", scratch.text()));
        }
    }

    fn the_working_directory_falls_back_to_home_and_to_the_root(who) {
        let scratch = who.scratch();
        let script = ["--", "sh", "-c", "echo $PWD; /bin/pwd"];
        let mut command = mount(who, SYSTEM.into_iter().chain(["--dir", "/home/me"]));
        run(command.args(script).current_dir(scratch.path()).env("HOME", "/home/me")).ok().says("/home/me\n/home/me");
        let mut command = mount(who, SYSTEM);
        run(command.args(script).current_dir(scratch.path()).env("HOME", "/home/me")).ok().says("/\n/");
        let mut command = mount(who, SYSTEM);
        run(command.args(script).current_dir(scratch.path()).env_remove("HOME")).ok().says("/\n/");
    }

    fn chdir_goes_where_it_says_or_nowhere(who) {
        sh(who, &words("--dir /a/b --chdir /a/b"), "pwd; echo $PWD").ok().says("/a/b\n/a/b");
        sh(who, &words("--chdir /no/such"), "true").code(125).one_clear_error("srt-mount").complains("--chdir /no/such");
        sh(who, &words("--chdir /etc/passwd"), "true").code(125).one_clear_error("srt-mount").complains("Not a directory");
        // A link of procfs that is a path, and one that is none.
        sh(who, &words("--proc /proc --chdir /proc/self"), "true").ok();
        sh(who, &words("--proc /proc --chdir /proc/self/cwd"), "true").code(125).one_clear_error("srt-mount")
            .complains("--chdir /proc/self/cwd: cannot enter it");
        sh(who, &words("--perms 0 --dir /locked --chdir /locked"), "true").code(125).one_clear_error("srt-mount")
            .complains("Permission denied");
    }

    fn the_environment_goes_through_but_for_pwd(who) {
        let mut command = mount(who, SYSTEM);
        command.args(["--", "env"]).env_clear().envs([("A", "1"), ("PATH", "/bin"), ("odd", "a\nb")]);
        // setpriv is found by our own PATH.
        if who == Who::User {
            command.env("PATH", srt_tests::path_with_tools());
        }
        let ran = run(&mut command);
        for expected in ["A=1\n", "odd=a\nb\n", "PWD=/\n"] {
            assert!(ran.ok().out.contains(expected), "{ran:#?}");
        }
        assert_eq!(ran.out.matches('=').count(), 4, "{ran:#?}");
    }

    fn a_static_program_of_the_host_runs_where_the_root_is_empty(who) {
        let scratch = who.scratch();
        let Some(program) = static_program(&scratch) else { skip!("no gcc that links statically") };
        let mut command = mount(who, ["--ro-bind", program.to_str().expect("text"), "/other", "--proc", "/proc"]);
        run(command.arg("--").arg(&program)).ok().says("safe");
        let intact = fs::metadata(&program).expect("there");
        assert!(intact.len() > 1000 && intact.permissions().mode() & 0o777 != 0o777);
        // One of the same name that cannot be executed is passed over.
        scratch.file("first/program", "");
        let mut command = mount(who, ["--ro-bind", program.to_str().expect("text"), "/other", "--proc", "/proc"]);
        let path = format!("{0}/first:{0}:{1}", scratch.text(), srt_tests::path_with_tools().display());
        run(command.args(["--", "program"]).env("PATH", path)).ok().says("safe");
        // Control: the same through a writable bind, which the user has granted.
        let copy = scratch.join("copy");
        srt_tests::copy_program(&program, &copy);
        std::os::unix::fs::chown(&copy, Some(who.uid()), Some(who.uid())).expect("chown");
        let mut command = mount(who, ["--ro-bind", program.to_str().expect("text"), "/other", "--proc", "/proc"]);
        run(command.arg("--bind").arg(&copy).args(["/writable", "--", "/writable"])).ok().says("overwritten");
    }

    fn a_stage_comes_from_beside_the_tool_whatever_path_and_the_tree_say(who) {
        let scratch = who.scratch();
        scratch.script("srt-seccomp", "#!/bin/sh\necho planted\n");
        let path = format!("{}:{}", scratch.text(), srt_tests::path_with_tools().to_string_lossy());
        let options = ["--bind", scratch.text(), "/bin/../evil"];
        let mut command = mount(who, SYSTEM.into_iter().chain(options));
        command.args(["--", "srt-seccomp", "--", "grep", "-c", "^Seccomp:.*2", "/proc/self/status"]).env("PATH", &path);
        run(&mut command).code(2).complains("/proc/self/status"); // grep ran, and there is no /proc
        // Control: any other name is found in PATH.
        scratch.script("other", "#!/bin/sh\necho planted\n");
        let mut command = mount(who, SYSTEM.into_iter().chain(["--ro-bind", scratch.text(), scratch.text()]));
        run(command.args(["--", "other"]).env("PATH", &path)).ok().says("planted");
    }

    fn a_program_that_is_not_there_is_127_and_one_that_cannot_run_126(who) {
        let ran = run(mount(who, SYSTEM).args(["--", "/no/such/program"]));
        ran.code(127).one_clear_error("srt-mount").complains("cannot run /no/such/program: No such file or directory");
        run(mount(who, SYSTEM).args(["--", "no-such-program"])).code(127).one_clear_error("srt-mount");
        run(mount(who, SYSTEM).args(["--", "/etc/passwd"])).code(126).one_clear_error("srt-mount").complains("Permission denied");
        run(mount(who, SYSTEM).args(["--", "/etc"])).code(126).one_clear_error("srt-mount");
        run(mount(who, SYSTEM).args(["--", ""])).code(127).one_clear_error("srt-mount");
        // On the host, and no static program: the hint says so.
        run(mount(who, ["--dir", "/x"]).args(["--", "/bin/sh"])).code(127).one_clear_error("srt-mount").complains("static");
        let scratch = who.scratch();
        let text = scratch.script("text", "echo it ran\n");
        run(mount(who, ["--dir", "/x"]).arg("--").arg(&text)).code(126).hints("srt-mount", "Exec format error", "static");
        // A shell runs it, where there is one.
        let text = text.to_str().expect("UTF-8");
        run(mount(who, ["--ro-bind", text, "/s"]).args(["--", "/s"])).code(127).hints("srt-mount", "cannot run /s", "no #! line");
        run(mount(who, SYSTEM.into_iter().chain(["--ro-bind", text, "/s"])).args(["--", "/s"])).ok().says("it ran");
    }

    fn arguments_come_through_byte_for_byte(who) {
        let mut command = mount(who, SYSTEM);
        command.args(["--", "printf", "<%s>", "", "--", "--bind", "a b", "*", "\u{e9}"]);
        run(&mut command).ok().says("<><--><--bind><a b><*><\u{e9}>");
    }

    fn every_descriptor_but_the_three_and_the_kept_ones_is_closed(who) {
        let scratch = who.scratch();
        let dir = File::open(scratch.path()).expect("open");
        let mut command = who.command("srt-ns");
        command.args(words("--keep-fd 20 --keep-fd 21 -- srt-mount --keep-fd 21 --ro-bind / / --tmpfs /tmp -- sh -c"));
        command.arg("ls /proc/self/fd; cd /proc/self/fd/20/ 2>&1 || true");
        srt_tests::pass_fd(&mut command, dir.as_raw_fd(), 20);
        srt_tests::pass_fd(&mut command, dir.as_raw_fd(), 21);
        let ran = run(&mut command);
        // 3 is the directory that ls itself has open.
        assert!(ran.ok().out.starts_with("0\n1\n2\n21\n3\n"), "{ran:#?}");
    }

    fn a_directory_as_a_standard_descriptor_is_refused(who) {
        let directory = || Stdio::from(File::open("/tmp").expect("open"));
        let mut command = Command::new("unshare");
        let _ = who;
        command.arg("-Ur").arg(srt_tests::tool("srt-mount")).args(words("--ro-bind / / -- true"));
        let ended = command.stdin(directory()).stderr(Stdio::piped()).output().expect("run");
        assert_eq!(ended.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("stdin is a directory"));
        let ended = command.stdin(Stdio::null()).stdout(directory()).output().expect("run");
        assert_eq!(ended.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("stdout is a directory"));
        // Nobody can read what is said of stderr itself.
        let ended = command.stdout(Stdio::null()).stderr(directory()).output().expect("run");
        assert_eq!(ended.status.code(), Some(125));
        let control = command.stderr(Stdio::piped()).output().expect("run");
        assert_eq!(control.status.code(), Some(0), "{control:?}");
    }

    fn closed_standard_descriptors_do_no_harm(who) {
        let tool = srt_tests::tool("srt-ns");
        let list = SYSTEM.join(" ");
        let line = format!("{} -- srt-mount {list} --bind /tmp /w -- /bin/sh -c 'exit 7' <&- >&- 2>&-", tool.display());
        run(who.command("sh").args(["-c", &line])).code(7);
    }

    fn limits_signals_and_sigpipe_are_the_callers(who) {
        let show = "ulimit -n; ulimit -c; grep -E '^Sig(Ign|Blk)' /proc/self/status";
        let mut command = who.command("sh");
        command.args(["-c", "ulimit -n 300; ulimit -c 0; trap '' USR1; sh -c \"$0\"; echo and; exec \"$@\"", show]);
        command.arg(srt_tests::tool("srt-ns")).args(["--", "srt-mount"]).args(SYSTEM);
        for n in 0..120 {
            command.args(["--tmpfs", &format!("/t/{n}")]);
        }
        let ran = run(command.args(["--proc", "/proc", "--", "sh", "-c", show]));
        let (outside, inside) = ran.ok().out.split_once("and\n").expect("both");
        assert!(inside.starts_with("300\n0\n") && inside == outside, "{ran:#?}");
    }

    fn a_relative_program_is_that_of_the_new_root(who) {
        let scratch = who.scratch();
        let script = |name: &str, said: &str| scratch.script(name, format!("#!/bin/sh\necho {said}\n")).display().to_string();
        let (program, other) = (script("program", "host"), script("other", "inside"));
        scratch.script("broken", "#!/no/such/interpreter\n");
        scratch.dir("W");
        let (dir, new) = (scratch.text(), format!("{}/W/new", scratch.text()));
        // And where something was made on the host, which is then looked for before it is too late to remove it.
        let made = ["--bind", dir, dir, "--placeholders", "--mask", &new];
        for (options, said) in [(&[][..], "host"), (&["--ro-bind", &other, &program], "inside")] {
            for more in [&[][..], &made] {
                let mut command = mount(who, [&["--ro-bind", "/", "/"], more, options].concat());
                run(command.args(["--", "./program"]).current_dir(scratch.path())).ok().says(said);
            }
        }
        fs::remove_file(&new).expect("what was made");
        let mut command = mount(who, [&["--ro-bind", "/", "/"], &made[..]].concat());
        run(command.args(["--", "./broken"]).current_dir(scratch.path())).code(127).one_clear_error("srt-mount");
        assert!(!scratch.join("W/new").exists());
    }

    fn a_failure_is_told_on_the_status_descriptor(who) {
        let told = |options: &str| {
            let mut command = who.command("srt-ns");
            command.args(words(&format!("--keep-fd 9 -- srt-mount --status-fd 9 {options}")));
            let file = common::give(&mut command, b"", 9);
            let code = run(&mut command).code;
            let mut text = String::new();
            std::io::Seek::rewind(&mut &file).expect("rewind");
            std::io::Read::read_to_string(&mut &file, &mut text).expect("read");
            let text = text.lines().last().expect("an event").to_owned();
            assert!(text.starts_with(&format!("{{\"stage\":\"srt-mount\",\"event\":\"failed\",\"code\":{},", code.expect("a code"))), "{text}");
            text
        };
        let text = told("--bind /no/such /a -- true");
        assert_eq!(text, "{\"stage\":\"srt-mount\",\"event\":\"failed\",\"code\":125,\"message\":\"--bind /no/such /a: cannot open /no/such: No such file or directory\",\"option\":\"--bind\",\"errno\":2,\"path\":\"/no/such\"}");
        // Which path it is about is a field of its own, whatever is wrong with it.
        let scratch = who.scratch();
        scratch.dir("W");
        symlink("/etc", scratch.join("W/link")).expect("symlink");
        let link = format!("{}/W/link", scratch.text());
        let (dir, root) = (scratch.text(), "--ro-bind / /");
        for (options, path) in [
            (format!("{root} --chdir /no/such -- true"), "/no/such"),
            (format!("{root} --tmpfs {link} -- true"), &link),
            (format!("{root} --tmpfs /usr/no-such -- true"), "/usr/no-such"),
            (format!("{root} --bind {dir}/W {dir}/W --tmpfs {dir}/W/new -- true"), &format!("{dir}/W/new")),
            (format!("{root} --mask /no/such -- true"), "/no/such"),
            (format!("{root} --bind {dir}/W {dir}/W --ro-bind {link}/ssl /mnt -- true"), &link),
            (format!("{root} -- /no/such"), "/no/such"),
            (format!("{root} -- /etc/passwd"), "/etc/passwd"),
        ] {
            let text = told(&options);
            assert!(text.contains(&format!(",\"path\":\"{path}\"")), "{options}: {text}");
        }
    }

    fn nothing_can_be_mounted_or_unmounted_inside(who) {
        if !has("mount") {
            skip!("no mount(8)");
        }
        sh_on(who, "--ro-bind", &words("--tmpfs /tmp --mask /etc/shadow"),
            "mount -t tmpfs none /tmp; umount /tmp; umount /etc/shadow; mount -o remount,rw /; mount --bind /tmp /mnt; unshare -m true; touch /tmp/still /x; ls /tmp")
            .says("still").complains("cannot touch '/x': Read-only").complains("unshare: unshare failed");
    }
}
