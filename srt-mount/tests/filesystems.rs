//! `--proc --dev --mqueue --overlay* --remount-ro`.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{SYSTEM, sh, words};
use srt_tests::{Who, both, has, run, skip};
use std::ffi::OsStr;
use std::fs;

both! {
    fn dev_has_what_programs_expect_and_nothing_else(who) {
        let ran = sh(who, &words("--proc /proc --dev /dev"),
            "cd /dev; for f in *; do echo $f $(stat -c '%A %t:%T' $f | cut -c1-1,11-) $(readlink $f); done");
        ran.ok().says(
            "core l 0:0 /proc/kcore\nfd l 0:0 /proc/self/fd\nfull c 1:7\nnull c 1:3\nptmx l 0:0 pts/ptmx\npts d 0:0\n\
             random c 1:8\nshm d 0:0\nstderr l 0:0 /proc/self/fd/2\nstdin l 0:0 /proc/self/fd/0\n\
             stdout l 0:0 /proc/self/fd/1\ntty c 5:0\nurandom c 1:9\nzero c 1:5");
        sh(who, &words("--proc /proc --dev /dev"),
            "echo > /dev/null; head -c 3 /dev/zero | wc -c; touch /dev/shm/x; echo out | cat /dev/stdin; ls /dev/pts").ok().says("3\nout\nptmx");
    }

    fn dev_makes_new_pseudo_terminals(who) {
        if !has("python3") {
            skip!("no python3");
        }
        sh(who, &words("--proc /proc --dev /dev"), "/usr/bin/python3 -c 'import os; print(os.ttyname(os.openpty()[1]))'")
            .ok().says("/dev/pts/0");
    }

    fn the_callers_terminal_is_the_console(who) {
        if !has("script") {
            skip!("no script(1)");
        }
        let list = SYSTEM.join(" ");
        let tool = srt_tests::tool("srt-ns");
        // That on 0, or else on 1; a device still.
        for input in ["", "< /dev/null"] {
            let inner = format!(
                "{} -- srt-mount {list} --proc /proc --dev /dev -- sh -c 'test -c /dev/console && echo said > /dev/console' {input}",
                tool.display()
            );
            run(who.command("script").args(["-qec", &inner, "/dev/null"])).ok().says("said");
        }
        // Without one there is none: see the list above. /dev/tty cannot be opened again in a session without a terminal.
        let inner = format!("{} -- srt-mount {list} --proc /proc --dev /dev -- echo ran </dev/tty", tool.display());
        run(who.command("script").args(["-qec", &inner, "/dev/null"])).ok().says("ran");
    }

    fn a_device_that_cannot_be_opened_again_read_only_is_an_error(who) {
        // Without a procfs the node is mounted in its own place for that, which is answered for and not done.
        if !has("strace") {
            skip!("no strace");
        }
        if who == Who::User {
            return; // What it has open is no device of its own.
        }
        let run_with = |inject: &[&str]| {
            let mut command = who.command("unshare");
            command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /proc && exec \"$@\"", "sh", "strace", "-qq", "-o", "/dev/null", "-e", "trace=move_mount"]);
            command.args(inject).arg(srt_tests::tool("srt-mount")).args(["--ro-bind", "/", "/", "--", "echo", "ran"]);
            run(command.stdin(std::process::Stdio::null()))
        };
        run_with(&[]).ok().says("ran");
        let ran = run_with(&["-e", "inject=move_mount:retval=0:when=1"]);
        ran.code(125).one_clear_error("srt-mount").complains("cannot open the device on descriptor 0 again").says("");
    }

    fn proc_shows_the_sandbox_alone(who) {
        sh(who, &words("--proc /proc"), "ls /proc | grep -c '^[0-9]'; readlink /proc/self").ok();
        let ran = sh(who, &words("--proc /proc"), "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done");
        assert!(ran.ok().out.lines().count() <= 3, "{ran:#?}");
    }

    fn what_in_proc_writes_to_the_host_is_read_only_for_those_who_could(who) {
        let covered = "awk '$5 ~ \"^/proc/\" { print $5 }' /proc/self/mountinfo";
        if who == Who::User {
            // Nothing: a procfs in a sandbox inside this one needs one of which nothing is covered. Where there can be no
            // such sandbox, what shows the caller's keys.
            sh(who, &words("--proc /proc"), covered).says("/proc/keys\n/proc/key-users");
            let mut command = who.command("srt-ns");
            command.args(["--allow-userns", "--", "srt-mount"]).args(SYSTEM).args(["--proc", "/proc", "--", "sh", "-c", covered]);
            run(&mut command).ok().says("");
        }
        // Every file that is no process's, tried to be opened for writing, without writing.
        let script = "cd /proc; find . -path './[0-9]*' -prune -o -path './*self' -prune -o -type f -print 2>/dev/null |
            while read f; do ( : >> $f ) 2>/dev/null && echo $f; done; test -w /proc/sys/vm && echo sys; true";
        let outside = run(who.command("sh").args(["-c", "test -w /proc/sys/vm/swappiness && echo open"]));
        assert_eq!(outside.out.trim() == "open", who == Who::Root, "control");
        let ran = sh(who, &words("--proc /proc --dev-bind /dev/null /dev/null"), script);
        // A file with mode 0666 is for everybody; so are those of the sandbox's own namespaces.
        let bad: Vec<&str> = ran.ok().out.lines().filter(|file| !file.starts_with("./pressure/") && *file != "./sys/kernel/ns_last_pid").collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(ran.err.is_empty(), "{ran:#?}");
    }

    fn proc_refused_has_a_hint(who) {
        if who == Who::Root {
            return; // Root on a bare host may.
        }
        // No pid namespace of its own.
        let mut command = who.command("unshare");
        command.arg("-Ur").arg(srt_tests::tool("srt-mount")).args(words("--proc /proc -- true"));
        run(&mut command).code(125).one_clear_error("srt-mount").complains("cannot make a procfs: Operation not permitted")
            .complains("--ro-bind /proc /proc");
    }

    fn a_masked_proc_has_the_same_hint(who) {
        // As in a container: part of the procfs that is there is covered, so no new one may show it.
        let script = "mount -t tmpfs none /proc/sys && exec setpriv --reuid $2 --regid $2 --clear-groups $1 --allow-userns -- srt-mount --proc /proc -- true";
        let mut command = Who::Root.command("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(srt_tests::tool("srt-ns")).arg(who.uid().to_string());
        run(&mut command).code(125).one_clear_error("srt-mount").complains("in a container, a /proc that is not masked");
    }

    fn mqueue_is_mounted(who) {
        sh(who, &words("--mqueue /q"), "stat -f -c %T /q; ls /q; touch /q/x").ok().says("mqueue");
    }

    fn mqueue_in_the_callers_ipc_namespace_is_explained(who) {
        let mut command = who.command("srt-ns");
        let ran = run(command.args(words("--share ipc -- srt-mount --mqueue /q -- true")));
        let error = "--mqueue /q: cannot make an mqueue file system: Operation not permitted";
        ran.code(125).hints("srt-mount", error, "leave out srt-ns --share ipc");
    }

    fn remount_ro_is_for_one_mount_alone(who) {
        sh(who, &words("--tmpfs /t --tmpfs /t/below --remount-ro /t"), "touch /t/below/x && ! touch /t/x 2>/dev/null && echo ok")
            .ok().says("ok");
        sh(who, &words("--dir /x --remount-ro /"), "touch /x/y").complains("Read-only");
        sh(who, &words("--dir /x --remount-ro /x"), "true").code(125).one_clear_error("srt-mount")
            .complains("--remount-ro /x: /x is not a mount point");
    }

    fn a_temporary_overlay_throws_its_writes_away(who) {
        let scratch = who.scratch();
        scratch.file("low/a", "low");
        scratch.file("high/a", "high");
        scratch.file("low/b", "b");
        let (low, high) = (scratch.join("low"), scratch.join("high"));
        let options = ["--overlay-src", low.to_str().expect("text"), "--overlay-src", high.to_str().expect("text"), "--tmp-overlay", "/o"];
        sh(who, &options, "cat /o/a /o/b; echo new > /o/a; rm /o/b; mkdir /o/d; cat /o/a; ls /o").ok().says("highbnew\na\nd");
        assert_eq!(fs::read(scratch.join("high/a")).expect("read"), b"high");
        assert!(scratch.join("low/b").exists());
    }

    fn an_overlay_writes_into_its_upper_directory(who) {
        let scratch = who.scratch();
        scratch.file("low/a", "low");
        scratch.file("low/d/old", "");
        let (low, up, work) = (scratch.join("low"), scratch.dir("up"), scratch.dir("work"));
        let mut command = common::mount(who, SYSTEM);
        command.arg("--overlay-src").arg(low).arg("--overlay").arg(up).arg(work).args(["/o", "--", "sh", "-c"]);
        // A directory that is made anew shows nothing of the one that was there: by an extended attribute.
        run(command.arg("cat /o/a; echo new > /o/a; rm -r /o/d; mkdir /o/d; ls /o/d")).ok().says("low");
        assert_eq!(fs::read(scratch.join("up/a")).expect("read"), b"new\n");
        assert_eq!(fs::read(scratch.join("low/a")).expect("read"), b"low");
    }

    fn a_read_only_overlay_has_its_last_layer_on_top(who) {
        let scratch = who.scratch();
        scratch.file("low/a", "low");
        scratch.file("high/a", "high");
        let (low, high) = (scratch.join("low"), scratch.join("high"));
        let options = ["--overlay-src", low.to_str().expect("text"), "--overlay-src", high.to_str().expect("text"), "--ro-overlay", "/o"];
        sh(who, &options, "cat /o/a; touch /o/x").says("high").complains("Read-only");
    }

    fn no_character_in_an_overlays_paths_has_a_meaning(who) {
        let scratch = who.scratch();
        let odd = "a:b,c\\d=e,lowerdir=\\:\\, f";
        scratch.file(format!("{odd}/low/a"), "low");
        let at = |name: &str| scratch.join(odd).join(name);
        let (up, work) = (scratch.dir(format!("{odd}/up")), scratch.dir(format!("{odd}/work")));
        let dest = format!("/o/{odd}");
        let mut command = common::mount(who, SYSTEM);
        command.arg("--overlay-src").arg(at("low")).arg("--overlay").arg(up).arg(work).arg(&dest);
        run(command.args(["--", "sh", "-c", "cat \"$1/a\"; echo new > \"$1/a\"", "sh"]).arg(OsStr::new(&dest))).ok().says("low");
        assert_eq!(fs::read(at("up/a")).expect("read"), b"new\n");
    }

    fn many_layers_are_possible(who) {
        let scratch = who.scratch();
        let mut command = common::mount(who, SYSTEM);
        for n in 0..40 {
            scratch.file(format!("{n}/f{n}"), "x");
            command.arg("--overlay-src").arg(scratch.join(n.to_string()));
        }
        run(command.args(["--tmp-overlay", "/o", "--", "sh", "-c", "ls /o | wc -l"])).ok().says("40");
    }

    fn an_overlay_has_at_most_the_layers_that_the_kernel_takes(who) {
        let scratch = who.scratch();
        let layer = |n: usize| ["--overlay-src".to_owned(), scratch.dir(n.to_string()).display().to_string()];
        let layers: Vec<_> = (0..501).map(layer).collect();
        let of = |count: usize| {
            let mut command = common::mount(who, SYSTEM);
            run(command.args(layers[..count].concat()).args(["--tmp-overlay", "/o", "--", "true"]))
        };
        of(501).code(125).one_clear_error("srt-mount").complains("--tmp-overlay: at most 500 --overlay-src");
        let most = of(500);
        if most.err.contains("need Linux 6.8") {
            skip!("this kernel takes them in one option alone");
        }
        most.ok();
    }

    fn an_overlay_that_the_kernel_refuses_is_explained(who) {
        let scratch = who.scratch();
        let (up, work) = (scratch.dir("up"), scratch.dir("work"));
        let (up, work) = (up.to_str().expect("text"), work.to_str().expect("text"));
        sh(who, &["--overlay-src", "/etc/passwd", "--tmp-overlay", "/o"], "true").code(125).one_clear_error("srt-mount")
            .complains("cannot open /etc/passwd: Not a directory");
        sh(who, &["--overlay-src", "/etc", "--overlay", up, "/dev/shm", "/o"], "true").code(125).one_clear_error("srt-mount");
        sh(who, &["--overlay-src", "/", "--overlay", up, work, "/o"], "true").code(125).one_clear_error("srt-mount");
        let below = scratch.dir("up/work");
        let below = below.to_str().expect("text");
        for (options, hint) in [
            (&["--overlay-src", up, "--overlay", up, work, "/o"][..], "may be another of them, or lie in one"),
            (&["--overlay-src", up, "--overlay-src", up, "--ro-overlay", "/o"], "may be another of them, or lie in one"),
            (&["--overlay-src", "/etc", "--overlay", up, below, "/o"], "neither below the other"),
            (&["--overlay-src", "/proc/self", "--tmp-overlay", "/o"], "on a procfs"),
        ] {
            sh(who, options, "true").code(125).hints("srt-mount", "cannot make an overlay", hint);
        }
    }
}
