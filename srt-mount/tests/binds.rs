//! `--bind` and its relatives.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{SYSTEM, mount, sh, sh_on, words};
use srt_tests::{Who, both, pass_fd, run};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

both! {
    fn a_bind_is_writable_and_a_ro_bind_is_not(who) {
        let scratch = who.scratch();
        scratch.file("f", "old");
        let dir = scratch.text();
        sh(who, &["--bind", dir, "/w", "--ro-bind", dir, "/r"], "cat /r/f; echo new > /w/f && cat /r/f")
            .ok()
            .says("oldnew");
        sh(who, &["--bind", dir, "/w", "--ro-bind", dir, "/r"], "echo bad > /r/f").complains("Read-only");
        assert_eq!(fs::read_to_string(scratch.join("f")).expect("read"), "new\n");
    }

    fn read_only_reaches_every_submount(who) {
        // /dev/shm is a mount of its own below /.
        let scratch = who.scratch();
        let name = format!("/dev/shm/{}", scratch.path().file_name().expect("name").display());
        let touch = format!("touch {name} && rm {name}");
        sh_on(who, "--ro-bind", &[""; 0], &touch).complains("Read-only");
        sh_on(who, "--bind", &[""; 0], &touch).ok();
    }

    fn setuid_and_devices_are_off_everywhere_but_for_dev_bind(who) {
        let flags = "grep -E ' (/a|/b|/c|/d) ' /proc/self/mountinfo | cut -d' ' -f5,6";
        let options = words("--proc /proc --bind /tmp /a --ro-bind /tmp /b --dev-bind /dev /c --tmpfs /d");
        let ran = sh(who, &options, flags);
        let all: Vec<&str> = ran.ok().out.lines().collect();
        assert_eq!(all.len(), 4, "{ran:#?}");
        assert!(all.iter().all(|line| line.contains("nosuid")), "{ran:#?}");
        assert!(all.iter().all(|line| line.starts_with("/c") != line.contains("nodev")), "{ran:#?}");
        sh(who, &options, "echo > /c/null; ! echo 2>/dev/null > /b/null").ok();
    }

    fn files_sockets_and_device_nodes_are_sources(who) {
        let scratch = who.scratch();
        let file = scratch.file("f", "content");
        let socket = scratch.join("s");
        let _listener = UnixListener::bind(&socket).expect("bind");
        let (file, socket) = (file.to_str().expect("text"), socket.to_str().expect("text"));
        sh(who, &["--bind", file, "/f", "--bind", socket, "/s", "--dev-bind", "/dev/null", "/n"],
            "cat /f; test -S /s && test -c /n && echo x > /n && echo ok").ok().says("contentok");
    }

    fn a_try_skips_what_is_missing_and_nothing_else(who) {
        sh(who, &words("--bind-try /no/such /a --ro-bind-try /no/such /b --dev-bind-try /no/such /c"),
            "test ! -e /a && test ! -e /b && test ! -e /c").ok();
        let ran = sh(who, &words("--ro-bind-try /etc/passwd/x /a"), "true");
        ran.code(125).one_clear_error("srt-mount").complains("Not a directory");
    }

    fn a_missing_source_is_named_with_its_option(who) {
        sh(who, &words("--bind /no/such /a"), "true").code(125).one_clear_error("srt-mount")
            .complains("srt-mount: --bind /no/such /a: cannot open /no/such: No such file or directory");
    }

    fn sources_are_those_of_the_host_whatever_was_mounted_before(who) {
        let scratch = who.scratch();
        scratch.file("f", "host");
        let dir = scratch.text();
        // The second one names a path that the first has replaced in the new root.
        sh(who, &["--tmpfs", dir, "--ro-bind", dir, "/x", "--ro-bind", &format!("{dir}/../{}/f", scratch.path().file_name().expect("name").to_str().expect("text")), "/y"],
            "cat /x/f /y").ok().says("hosthost");
    }

    fn dot_dot_at_the_top_of_a_source_stays_on_the_host(who) {
        sh(who, &words("--tmpfs / --ro-bind /usr/../../../usr /usr --ro-bind /bin /bin --ro-bind /lib /lib --ro-bind-try /lib64 /lib64 --ro-bind /usr/../etc/hosts /h"),
            "test -s /h && ls /").ok().says("bin\nh\nlib\nlib64\nusr");
    }

    fn a_relative_source_counts_from_the_callers_directory(who) {
        let scratch = who.scratch();
        scratch.file("sub/f", "here");
        let mut command = mount(who, SYSTEM.into_iter().chain(["--ro-bind", "sub/f", "/f"]));
        run(command.args(["--", "cat", "/f"]).current_dir(scratch.path())).ok().says("here");
    }

    fn a_path_may_be_any_bytes(who) {
        let scratch = who.scratch();
        let name = std::ffi::OsStr::from_bytes(b"a \xff\n\\:,'\"b");
        scratch.file(name, "odd");
        let mut command = mount(who, SYSTEM);
        let dest = std::path::Path::new("/d").join(name);
        command.arg("--ro-bind").arg(scratch.join(name)).arg(&dest).args(["--", "cat"]).arg(&dest);
        run(&mut command).ok().says("odd");
    }

    fn a_namespace_file_is_a_source(who) {
        sh(who, &words("--bind /proc/self/ns/net /net --ro-bind /proc/self/ns/uts /uts"), "stat -f -c %T /net /uts")
            .ok().says("nsfs\nnsfs");
    }

    fn a_descriptor_from_before_the_namespace_is_a_source(who) {
        let scratch = who.scratch();
        scratch.file("d/f", "by descriptor");
        let dir = File::open(scratch.join("d")).expect("open");
        let mut command = mount(who, SYSTEM.into_iter().chain(words("--bind-fd 7 /w --ro-bind-fd 7 /r")));
        command.args(["--", "sh", "-c", "cat /r/f; touch /w/new; ! touch /r/bad 2>/dev/null"]);
        // srt-ns has to pass it on.
        let text: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let at = text.iter().position(|word| word == "--").expect("--");
        let program = command.get_program().to_owned();
        let mut command = Command::new(program);
        if who == Who::User {
            let at = text.iter().rposition(|word| word.to_string_lossy().ends_with("srt-ns")).expect("srt-ns");
            command.args(&text[..=at]).args(["--keep-fd", "7"]).args(&text[at + 1..]);
        } else {
            command.args(["--keep-fd", "7"]).args(&text[at..]);
        }
        pass_fd(command.current_dir("/"), dir.as_raw_fd(), 7);
        run(&mut command).ok().says("by descriptor");
        assert!(scratch.join("d/new").exists());
    }

    fn a_descriptor_whose_path_leads_elsewhere_by_now_is_refused(who) {
        let scratch = who.scratch();
        scratch.dir("d");
        let dir = File::open(scratch.join("d")).expect("open");
        fs::rename(scratch.join("d"), scratch.join("gone")).expect("rename");
        fs::remove_dir(scratch.join("gone")).expect("rmdir");
        scratch.dir("d");
        let mut command = who.command("unshare");
        command.args(["-Ur"]).arg(srt_tests::tool("srt-mount")).args(words("--bind-fd 7 /w -- true"));
        pass_fd(&mut command, dir.as_raw_fd(), 7);
        run(&mut command).code(125).one_clear_error("srt-mount").complains("--bind-fd 7 /w");
    }

    fn a_descriptor_without_a_path_is_told_so(who) {
        let scratch = who.scratch();
        let removed = File::open(scratch.file("removed", "")).expect("open");
        fs::remove_file(scratch.join("removed")).expect("rm");
        let (reader, _writer) = std::io::pipe().expect("pipe");
        for fd in [removed.as_raw_fd(), reader.as_raw_fd()] {
            let mut command = who.command("srt-ns");
            command.args(words("--keep-fd 7 -- srt-mount --ro-bind / / --tmpfs /tmp --ro-bind-fd 7 /tmp/x -- true"));
            pass_fd(&mut command, fd, 7);
            run(&mut command).code(125).hints("srt-mount", "--ro-bind-fd 7 /tmp/x: cannot open", "a removed file");
        }
    }

    fn a_thousand_binds_are_no_problem(who) {
        let options = (0..1000).flat_map(|n| ["--ro-bind".to_owned(), "/etc".to_owned(), format!("/m/{n}/etc")]);
        let options: Vec<String> = options.collect();
        let limits = "ulimit -n";
        let expected = run(who.command("sh").args(["-c", limits]));
        sh(who, &options, "ls /m | wc -l; test -e /m/999/etc/passwd && ulimit -n").ok()
            .says(&format!("1000\n{}", expected.out.trim()));
    }

    fn a_descriptor_whose_path_is_another_files_is_refused(who) {
        let scratch = who.scratch();
        let file = scratch.file("f", "meant");
        let open = File::open(&file).expect("open");
        fs::remove_file(&file).expect("rm");
        scratch.file("f (deleted)", "another");
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", "--ro-bind-fd", "9", "/etc/hostname", "--", "cat", "/etc/hostname"]);
        pass_fd(&mut command, open.as_raw_fd(), 9);
        run(&mut command).code(125).says("").complains("is not the file that descriptor 9 is open on");
    }
}
