//! Wrong command lines: one clear line each, 125, and nothing done.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{mount, words};
use srt_tests::{both, run};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

both! {
    fn every_wrong_option_is_named(who) {
        for (options, complaint) in [
            ("--nope", "--nope: unknown option"),
            ("-v", "-v: expected an option"),
            ("/etc", "/etc: expected an option"),
            ("--bind", "--bind: expected SRC DEST"),
            ("--bind /etc", "--bind: expected DEST"),
            ("--tmpfs", "--tmpfs: expected DEST"),
            ("--symlink", "--symlink: expected TARGET DEST"),
            ("--symlink x", "--symlink: expected DEST"),
            ("--chmod 8 /a", "--chmod: 8 is not an octal mode up to 7777"),
            ("--chmod 17777 /a", "--chmod: 17777 is not"),
            ("--perms +7 --dir /a", "--perms: +7 is not"),
            ("--perms 700", "--perms: expected one of --dir"),
            ("--perms 700 --proc /p", "--perms: expected one of --dir"),
            ("--perms 700 --perms 700 --dir /a", "--perms: given twice"),
            ("--size 0 --tmpfs /a", "--size: 0 is not"),
            ("--size 99999999999999999999 --tmpfs /a", "--size: 99999999999999999999 is not"),
            ("--size -1 --tmpfs /a", "--size: -1 is not"),
            ("--size 1 --dir /a", "--size: expected one of --tmpfs next"),
            ("--overlay-src /etc", "--overlay-src: expected one of"),
            ("--overlay-src /etc --dir /a", "--overlay-src: expected one of"),
            ("--tmp-overlay /a", "--tmp-overlay: expected at least 1 --overlay-src"),
            ("--overlay-src /etc --ro-overlay /a", "--ro-overlay: expected at least 2 --overlay-src"),
            ("--overlay /u", "--overlay: expected WORK DEST"),
            ("--file x /a", "--file: x is not a descriptor number"),
            ("--file -1 /a", "--file: -1 is not a descriptor number"),
            ("--file 99999999999 /a", "--file: 99999999999 is not a descriptor number"),
            ("--file 1234 /a", "--file 1234 /a: 1234 is not an open descriptor"),
            ("--bind-data 1234 /a", "1234 is not an open descriptor"),
            ("--bind-fd 1234 /a", "1234 is not an open descriptor"),
            ("--args 1234", "--args 1234: not an open descriptor"),
            ("--keep-fd 1234", "--keep-fd 1234: not an open descriptor"),
            ("--status-fd 1234", "--status-fd 1234: not an open descriptor"),
            ("--chdir /a --chdir /b", "--chdir: given twice"),
            ("--unshare-all", "srt-ns"),
            ("--die-with-parent", "srt-ns"),
            ("--setenv A B", "env(1)"),
            ("--seccomp 3", "srt-seccomp"),
        ] {
            let ran = run(mount(who, words(options)).args(["--", "true"]));
            ran.code(125).one_clear_error("srt-mount").complains(complaint);
        }
    }

    fn empty_words_are_refused(who) {
        for options in [&["--bind", "", "/a"][..], &["--bind", "/etc", ""], &["--tmpfs", ""], &["--chdir", ""], &["--symlink", "", "/a"], &["--keep-fd", ""], &[""]] {
            run(mount(who, options).args(["--", "true"])).code(125).one_clear_error("srt-mount");
        }
    }

    fn the_separator_and_the_program_are_needed(who) {
        run(&mut mount(who, words("--tmpfs /a"))).code(125).one_clear_error("srt-mount").complains("missing -- before PROGRAM");
        run(mount(who, words("--tmpfs /a")).arg("--")).code(125).one_clear_error("srt-mount").complains("nothing follows --");
    }

    fn paths_that_are_too_long_are_one_line(who) {
        let long = format!("/{}", "x/".repeat(2500));
        let name = format!("/{}", "x".repeat(300));
        for bad in [&long, &name] {
            for options in [["--bind", bad, "/a"], ["--bind", "/etc", bad], ["--symlink", "/x", bad]] {
                run(mount(who, options).args(["--", "true"])).code(125).one_clear_error("srt-mount").complains("File name too long");
            }
        }
    }

    fn a_path_cannot_forge_a_line(who) {
        let path = OsString::from_vec(b"/no\nsrt-mount: all is well\x1b[2J\xff".to_vec());
        run(mount(who, [OsString::from("--bind"), path, "/a".into(), "--".into(), "true".into()]).env("LC_ALL", "C"))
            .code(125).one_clear_error("srt-mount");
    }

    fn more_mounts_than_the_system_takes_end_in_one_line(who) {
        let many: Vec<u8> = (0..100_000).flat_map(|n| format!("--ro-bind\0/etc/passwd\0/d{}/{n}\0", n % 100).into_bytes()).collect();
        let mut command = who.command("srt-ns");
        command.args(words("--keep-fd 7 -- srt-mount --args 7 -- true"));
        let _file = common::give(&mut command, &many, 7);
        let ran = run(&mut command);
        ran.code(125).hints("srt-mount", "100000 mounts are more than a mount namespace holds", "fs.mount-max is ");
    }
}
