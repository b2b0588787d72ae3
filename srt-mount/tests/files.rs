//! `--dir --file --bind-data --symlink --chmod --perms --size --args`.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{SYSTEM, give, sh, words};
use srt_tests::{Ran, Who, both, run};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

/// A script in a tree of `options`, with a descriptor 7 that holds `content`.
#[track_caller]
fn with_fd(who: Who, content: &[u8], options: &str, script: &str) -> Ran {
    let mut command = who.command("srt-ns");
    command.args(["--keep-fd", "7", "--", "srt-mount"]).args(SYSTEM).args(words(options));
    command.args(["--", "sh", "-c", script]);
    let _file = give(&mut command, content, 7);
    run(&mut command)
}

both! {
    fn a_fifo_in_the_place_of_a_file_holds_nobody_up(who) {
        let scratch = who.scratch();
        run(who.command("mkfifo").arg(scratch.join("fifo"))).ok();
        let options = format!("--bind {0} {0} --file 7 {0}/fifo", scratch.text());
        // run() waits for some seconds only. An open for writing waits for a reader otherwise (fifo(7)).
        let ran = with_fd(who, b"text", &options, "echo ran");
        ran.code(125).one_clear_error("srt-mount").complains("fifo: No such device or address").says("");
    }

    fn a_file_is_written_to_no_fifo_that_has_a_reader(who) {
        let scratch = who.scratch();
        let fifo = scratch.join("fifo");
        run(who.command("mkfifo").arg(&fifo)).ok();
        let mut reader = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("open");
        let options = format!("--bind {0} {0} --file 7 {0}/fifo", scratch.text());
        let ran = with_fd(who, b"text", &options, "echo ran");
        ran.code(125).one_clear_error("srt-mount").complains("fifo is not a regular file").says("");
        assert_eq!(reader.read(&mut [0; 8]).expect("read"), 0);
    }

    fn a_directory_has_the_mode_asked_for_and_so_have_its_parents(who) {
        sh(who, &words("--dir /a --perms 700 --dir /b/c --perms 0 --dir /d/e --perms 1777 --dir /f/g --perms 750 --tmpfs /h/i"),
            "stat -c '%a %n' /a /b /b/c /d /d/e /f /f/g /h /h/i").ok()
            .says("755 /a\n700 /b\n700 /b/c\n700 /d\n0 /d/e\n755 /f\n1777 /f/g\n750 /h\n750 /h/i");
    }

    fn a_directory_that_exists_stays_as_it_is(who) {
        sh(who, &words("--perms 700 --dir /a --perms 755 --dir /a --dir / --dir /etc"), "stat -c %a /a").ok().says("700");
    }

    fn the_callers_umask_does_not_count_and_is_put_back(who) {
        let mut command = who.command("sh");
        let tool = srt_tests::tool("srt-ns");
        command.args(["-c", "umask 077; \"$@\"", "sh"]).arg(tool).args(["--", "srt-mount"]).args(SYSTEM);
        command.args(words("--dir /a --tmpfs /t --ro-bind /etc/passwd /m/f -- sh -c"));
        run(command.arg("stat -c %a /a /t /m; umask")).ok().says("755\n755\n755\n0077");
    }

    fn a_file_gets_the_content_of_a_descriptor(who) {
        with_fd(who, b"content", "--perms 640 --file 7 /a/f", "stat -c %a /a /a/f; cat /a/f; echo more >> /a/f")
            .ok().says("750\n640\ncontent");
        with_fd(who, b"", "--file 7 /f", "stat -c '%a %s' /f").ok().says("666 0");
    }

    fn a_file_replaces_the_content_of_one_that_exists(who) {
        let scratch = who.scratch();
        scratch.file("f", "something much longer");
        let options = format!("--bind {} /w --perms 600 --file 7 /w/f", scratch.text());
        with_fd(who, b"short", &options, "cat /w/f; stat -c %a /w/f").ok().says("short644");
        assert_eq!(fs::read(scratch.join("f")).expect("read"), b"short");
    }

    fn bound_data_is_a_file_of_its_own(who) {
        with_fd(who, b"data", "--bind-data 7 /a/f", "stat -c %a /a /a/f; cat /a/f; echo x >> /a/f").ok().says("700\n600\ndata");
        let ran = with_fd(who, b"data", "--perms 644 --ro-bind-data 7 /f", "stat -c %a /f; cat /f; echo x >> /f");
        ran.says("644\ndata").complains("Read-only");
    }

    fn a_large_content_comes_through(who) {
        let content = vec![b'x'; 3_000_000];
        with_fd(who, &content, "--ro-bind-data 7 /f", "stat -c %s /f").ok().says("3000000");
    }

    fn a_symbolic_link_is_made_and_may_be_there_already(who) {
        sh(who, &words("--symlink /usr/bin/x /a/l --symlink /usr/bin/x /a/l"), "readlink /a/l").ok().says("/usr/bin/x");
        sh(who, &words("--symlink x /l --symlink y /l"), "true").code(125).one_clear_error("srt-mount")
            .complains("--symlink y /l: /l is a symbolic link to x already\n");
        sh(who, &words("--dir /l --symlink y /l"), "true").code(125).one_clear_error("srt-mount")
            .complains("--symlink y /l: cannot make /l: File exists");
    }

    fn a_link_below_proc_without_a_procfs_is_not_followed(who) {
        let scratch = who.scratch();
        let (file, victim) = (scratch.file("file", ""), scratch.file("victim", ""));
        let bare = "mount --rbind /proc /mnt && mount -t tmpfs tmpfs /proc";
        let fds = |at: &str| format!("mkdir -p {at}/fd && for n in $(seq 3 60); do ln -s {} {at}/fd/$n; done", victim.display());
        let fake = scratch.join("fake").display().to_string();
        for planted in [
            format!("{bare}; {}", fds("/proc/self")),
            format!("{bare}; {}; : >/proc/self/mountinfo", fds("/proc/self")),
            format!("{bare}; {}; ln -s /mnt/self/mountinfo /proc/self/mountinfo", fds("/proc/self")),
            // It leads nowhere until the new root is mounted on the old one.
            format!("{bare}; {}; ln -s ../mnt/fake /proc/self", fds(&fake)),
        ] {
            let script = format!("{planted}; exec srt-mount --ro-bind / / --bind \"$0\" \"$0\" --bind \"$0\" /mnt --chmod 0777 \"$1\" -- echo ran");
            let mut command = who.command("unshare");
            command.args(["-Urm", "sh", "-c", &script]).arg(scratch.path()).arg(&file);
            let ran = run(&mut command);
            ran.code(125).one_clear_error("srt-mount").complains("cannot read /proc/self/mountinfo").says("");
        }
        let mode = |path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!((mode(&victim), mode(&file)), (0o644, 0o644));
    }

    fn chmod_changes_what_is_there(who) {
        sh(who, &words("--dir /a --chmod 0711 /a --chmod 1700 /"), "stat -c %a /a /").ok().says("711\n1700");
        sh(who, &words("--chmod 0711 /nothing"), "true").code(125).one_clear_error("srt-mount")
            .complains("--chmod 0711 /nothing: cannot open /nothing");
    }

    fn a_tmpfs_has_the_size_asked_for(who) {
        sh(who, &words("--size 65536 --perms 1777 --tmpfs /t"), "stat -c %a /t; stat -f -c '%b %s' /t").ok().says("1777\n16 4096");
        sh(who, &words("--dev /dev --size 65536 --tmpfs /t"), "head -c 1000000 /dev/zero > /t/x").complains("No space");
    }

    fn options_come_from_a_descriptor(who) {
        let list = b"--tmpfs\0/t\0--symlink\0a b\nc\0/l\0--dir\0/d";
        with_fd(who, list, "--args 7 --dir /last", "readlink /l; ls -d /t /d /last").ok().says("a b\nc\n/d\n/last\n/t");
        with_fd(who, b"", "--args 7", "echo ok").ok().says("ok");
    }

    fn bad_lists_of_options_are_named(who) {
        for (list, complaint) in [
            (&b"--args\x007\0"[..], "--args 7: --args: not allowed in what --args reads"),
            (b"--tmpfs", "--args 7: --tmpfs: expected DEST"),
            (b"--tmpfs\0\0", "--args 7: --tmpfs: DEST is empty"),
            (b"--\0sh", "--args 7: --: unknown option"),
        ] {
            with_fd(who, list, "--args 7", "true").code(125).one_clear_error("srt-mount").complains(complaint);
        }
    }
}
