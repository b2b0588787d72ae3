//! No path leads through a symbolic link that an earlier run of the sandbox could have left.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{mount, words};
use srt_tests::{Ran, Scratch, Who, both, copy_program, has, pass_fd, run, skip, tool, wait_until};
use std::fs;
use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Stdio;

/// A directory W that the sandbox may write, in which an earlier run has replaced directories by links to SECRET.
fn planted(who: Who) -> Scratch {
    let scratch = who.scratch();
    scratch.dir("W/vendor");
    scratch.dir("W/real/sub");
    scratch.dir("W/work");
    scratch.dir("aside");
    scratch.file("SECRET/sub/secret", "secret");
    symlink("../SECRET", scratch.join("W/p")).expect("symlink");
    symlink(scratch.join("SECRET"), scratch.join("W/vendor/p")).expect("symlink");
    symlink("p", scratch.join("W/twice")).expect("symlink");
    scratch
}

/// Runs a script in a tree in which `W` of the options is that of `scratch`, started in `scratch`.
fn with(who: Who, scratch: &Scratch, options: &str, script: &str) -> Ran {
    let options = words(options).into_iter().map(|word| word.replace("DIR", scratch.text()));
    let base = ["--ro-bind", "/", "/"].map(str::to_owned);
    let mut command = mount(who, base.into_iter().chain(options));
    command.args(["--", "sh", "-c", script]).current_dir(scratch.path());
    run(&mut command)
}

const THROUGH: [&str; 19] = [
    "--bind DIR/W DIR/W --bind DIR/W/p/sub /mnt",
    "--bind DIR/W/p/sub /mnt --bind DIR/W DIR/W",
    "--bind DIR/W DIR/W --bind DIR/W/twice/sub /mnt",
    "--bind DIR/W /opt --bind DIR/W/p /mnt",
    "--bind W /opt --bind W/p/sub /mnt",
    "--bind DIR/W /opt --bind-try DIR/W/vendor/p/sub /mnt",
    "--bind DIR/W /opt --ro-bind DIR/W/p/sub /mnt",
    "--bind DIR/W /opt --ro-bind /proc/self/cwd/W/p/sub /mnt",
    "--bind DIR/W/vendor /opt --dev-bind DIR/W/real/../vendor/p/sub /mnt",
    "--overlay-src /usr --overlay DIR/W/real DIR/W/work /opt --bind DIR/W/real/../p/sub /mnt --bind DIR/W /mnt",
    "--bind DIR/W /opt --overlay-src DIR/W/p/sub --tmp-overlay /mnt",
    "--bind DIR/W /opt --overlay-src /usr --overlay DIR/W/p/sub DIR/W/work /mnt",
    "--bind DIR/W /opt --overlay-src /usr --overlay DIR/W/work DIR/W/p/sub /mnt",
    "--bind DIR/W DIR/W --tmpfs DIR/W/p/sub",
    "--bind DIR/W /opt --tmpfs DIR/W/p/sub",
    "--bind DIR/W /opt --tmpfs /opt/vendor/p/sub",
    "--bind DIR/W /opt --ro-bind DIR/W/vendor /mnt --mask /mnt/p/sub",
    "--overlay-src /usr/share --overlay DIR/W DIR/aside /opt --tmpfs /opt/vendor/p/sub",
    "--bind DIR/W /opt --overlay-src /usr/share --overlay-src DIR/W --ro-overlay /mnt --tmpfs /mnt/vendor/p/sub",
];

both! {
    fn no_path_leads_through_a_link_in_what_the_sandbox_may_write(who) {
        let scratch = planted(who);
        for options in THROUGH {
            let ran = with(who, &scratch, options, "true");
            ran.code(125).hints("srt-mount", "leads through the symbolic link", "an earlier run may have created it");
        }
        // The same links where nothing of it is writable.
        for options in THROUGH.iter().filter(|options| !options.contains("overlay DIR")) {
            let options = options.replace("--bind", "--ro-bind").replace("--dev-bind", "--ro-bind").replace("--ro-ro", "--ro");
            with(who, &scratch, &options.replace("--dev-ro", "--ro"), "true").ok();
        }
    }

    fn nor_in_what_a_descriptor_makes_writable(who) {
        let scratch = planted(who);
        let open = fs::File::open(scratch.join("W")).expect("open");
        for (bind, source, taken) in [
            ("--bind-fd", "p", false), ("--ro-bind-fd", "p", true), ("--bind-fd", "real", true),
        ] {
            let source = format!("{}/W/{source}/sub", scratch.text());
            let mut command = who.command("srt-ns");
            command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", bind, "9", "/opt", "--ro-bind", &source, "/mnt"]);
            pass_fd(command.args(["--", "true"]), open.as_raw_fd(), 9);
            let ran = run(&mut command);
            if taken { ran.ok(); } else { ran.code(125).hints("srt-mount", "leads through the symbolic link", "an earlier run"); }
        }
    }

    fn a_link_is_not_followed_from_where_the_working_directory_is_not(who) {
        let scratch = who.scratch();
        scratch.file("q/real/f", "meant");
        scratch.file("over/real/f", "another");
        symlink("real", scratch.join("q/l")).expect("symlink");
        symlink("real", scratch.join("over/l")).expect("symlink");
        scratch.dir("q/gone");
        scratch.dir("q/r");
        let mount = "srt-ns -- srt-mount --ro-bind / / --ro-bind";
        // What may be written is what it is, though its path leads elsewhere: a link in it is not followed by another name.
        scratch.dir("alias");
        symlink("../../over/real", scratch.join("q/real/out")).expect("symlink");
        let script = "cd q && unshare -Urm sh -c 'mount --bind . ../alias && mount --bind ../over ../q && exec srt-ns -- \\
            srt-mount --ro-bind / / --bind real /mnt --ro-bind '$0'/alias/real/out /opt -- echo ran'";
        let ran = run(who.command("sh").args(["-c", script, scratch.text()]).current_dir(scratch.path()));
        ran.code(125).one_clear_error("srt-mount").complains("leads through the symbolic link").says("");
        let mounted = "unshare -Urm sh -c 'mount --bind ../over ../q && exec";
        for (script, taken) in [
            (format!("cd q && {mount} l /mnt -- cat /mnt/f"), true),
            (format!("cd q && {mounted} {mount} real /mnt -- cat /mnt/f'"), true),
            (format!("cd q && {mounted} {mount} l /mnt -- cat /mnt/f'"), false),
            (format!("cd q/gone && rmdir ../gone && {mount} ../l /mnt -- cat /mnt/f"), false),
        ] {
            let ran = run(who.command("sh").args(["-c", &script]).current_dir(scratch.path()));
            if taken { ran.ok().says("meant"); }
            else { ran.code(125).hints("srt-mount", "the path of the working directory does not lead to it", "cd \"$PWD\"").says(""); }
        }
    }

    fn forty_links_are_followed_and_no_more(who) {
        let scratch = who.scratch();
        scratch.file("end/file", "end");
        symlink("end", scratch.join("1")).expect("symlink");
        (2..=41).for_each(|number| symlink((number - 1).to_string(), scratch.join(number.to_string())).expect("symlink"));
        with(who, &scratch, "--ro-bind DIR/40 /mnt", "cat /mnt/file").ok().says("end");
        with(who, &scratch, "--ro-bind DIR/41 /mnt", "true").code(125).one_clear_error("srt-mount").complains("Too many levels of symbolic links");
    }

    fn nor_through_one_that_it_may_not_write_now_but_could_again(who) {
        // An earlier run made the link and took the permission away: what one owns one can chmod(1).
        let scratch = planted(who);
        for directory in ["W/vendor", "W"] {
            let path = scratch.join(directory);
            // Of a group that is not mapped, no capability helps either.
            chown(&path, None, Some(4321)).expect("chown");
            fs::set_permissions(&path, Permissions::from_mode(0o555)).expect("chmod");
        }
        for options in ["--bind DIR/W DIR/W --ro-bind DIR/W/p/sub /mnt", "--bind DIR/W /opt --ro-bind DIR/W/vendor/p/sub /mnt"] {
            let ran = with(who, &scratch, options, "true");
            ran.code(125).hints("srt-mount", "leads through the symbolic link", "an earlier run may have created it");
        }
    }

    fn nor_through_one_in_a_directory_of_somebody_elses_that_it_may_write(who) {
        let scratch = planted(who);
        for directory in ["W/vendor", "W"] {
            let path = scratch.join(directory);
            chown(&path, Some(4321), None).expect("chown");
            fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("chmod");
        }
        // Where the mount is read-only the same directory is writable elsewhere.
        for options in ["--bind DIR/W /opt --bind DIR/W/vendor/p/sub /mnt", "--bind DIR/W /opt --ro-bind DIR/W/vendor /mnt --mask /mnt/p/sub"] {
            let ran = with(who, &scratch, options, "true");
            ran.code(125).hints("srt-mount", "leads through the symbolic link", "an earlier run may have created it");
        }
    }

    fn what_srt_ns_has_opened_is_still_there(who) {
        let scratch = planted(who);
        let stat = fs::metadata(scratch.join("SECRET/sub/secret")).expect("stat");
        let (major, minor) = (libc::major(stat.dev()), libc::minor(stat.dev()));
        let id = format!("{major}:{minor}:{}", stat.ino());
        let named = fs::metadata(scratch.file("name", "")).expect("stat");
        let named = format!("{major}:{minor}:{}", named.ino());
        for (path, id, error) in [
            ("DIR/SECRET/sub/secret", &*id, None),
            ("SECRET/sub/secret", &id, None),
            ("name", &named, None),
            ("DIR/SECRET/sub/secret", "1:2:3", Some("has been replaced during the start")),
            ("DIR/SECRET/sub", &id, Some("has been replaced during the start")),
            ("DIR/SECRET/sub/none", &id, Some("No such file or directory")),
            ("DIR/W/p/sub/secret", &id, Some("leads through the symbolic link")),
        ] {
            let ran = with(who, &scratch, &format!("--joined-path --relay {path} {id} --bind DIR/W /mnt"), "true");
            match error {
                None => drop(ran.ok()),
                Some(error) => drop(ran.code(125).one_clear_error("srt-mount").complains("--relay: ").complains(error)),
            }
        }
    }

    fn other_links_are_followed(who) {
        let scratch = planted(who);
        // A dotfile manager's, and one that leads into what is writable.
        symlink("W/real", scratch.join("real")).expect("symlink");
        symlink("SECRET", scratch.join("config")).expect("symlink");
        for (options, script) in [
            ("--bind DIR/W DIR/W --ro-bind DIR/config/sub /mnt", "cat /mnt/secret"),
            ("--bind DIR/W DIR/W --ro-bind config/sub /mnt", "cat /mnt/secret"),
            ("--bind DIR/W DIR/W --ro-bind DIR/W/real/../../config/sub /mnt", "cat /mnt/secret"),
            ("--bind DIR/W DIR/W --bind DIR/real/sub /mnt", "touch /mnt/x && printf secret"),
            ("--bind DIR/real /mnt", "touch /mnt/sub/y && printf secret"),
            ("--bind DIR/W DIR/W --mask DIR/real/sub --mask DIR/config/sub", "test -z \"$(ls DIR/SECRET/sub)$(ls DIR/W/real/sub)\" && printf secret"),
            ("--bind DIR/W DIR/W --tmpfs /var/run/lock --ro-bind /bin/sh /mnt/sh", "printf secret"),
            ("--bind DIR/W DIR/W --ro-bind /proc/self/ns/net /dev/null --ro-bind /dev/stdin /dev/zero", "printf secret"),
        ] {
            if options.contains("/var/run/lock") && !std::path::Path::new("/var/run/lock").is_dir() {
                continue;
            }
            let options = options.replace("/mnt/sh", "/dev/full");
            with(who, &scratch, &options, &script.replace("DIR", scratch.text())).ok().says("secret");
        }
    }

    fn no_source_leads_through_a_link_in_an_upper_layer(who) {
        let scratch = who.scratch();
        for name in ["lower", "upper", "work", "secret"] { scratch.dir(name); }
        scratch.file("secret/file", "secret");
        for layer in ["upper", "lower"] {
            symlink("../secret", scratch.join(layer).join("link")).expect("a link");
            let at = |name: &str| scratch.join(name).display().to_string();
            let mut command = who.command("srt-ns");
            command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--overlay-src", &at("lower"), "--overlay", &at("upper"), &at("work"), "/mnt"]);
            command.args(["--ro-bind", &at(&format!("{layer}/link/file")), "/etc/hostname", "--", "cat", "/etc/hostname"]);
            let ran = run(&mut command);
            let planted = ran.err.contains("leads through the symbolic link");
            assert_eq!(planted, layer == "upper", "{layer}: {ran:#?}");
        }
    }

    fn nor_does_that_of_a_program_which_the_tree_does_not_show(who) {
        let scratch = who.scratch();
        scratch.dir("W");
        scratch.dir("other");
        copy_program(tool("srt-connect"), scratch.dir("SECRET").join("tool"));
        for (directory, code) in [("other", 0), ("W", 127)] {
            let link = scratch.join(directory).join("tool");
            symlink(scratch.join("SECRET/tool"), &link).expect("symlink");
            let options = words("--ro-bind / / --mask DIR/SECRET --bind DIR/W DIR/W");
            let mut command = mount(who, options.into_iter().map(|word| word.replace("DIR", scratch.text())));
            run(command.arg("--").arg(&link).arg("--version")).code(code);
        }
    }

    fn what_a_relative_path_makes_writable_is_known_whatever_is_mounted_before_it(who) {
        let scratch = who.scratch();
        scratch.dir("W/sub");
        scratch.dir("lower");
        copy_program(tool("srt-connect"), scratch.dir("SECRET").join("tool"));
        symlink("../SECRET", scratch.join("W/tools")).expect("symlink");
        symlink("/victim", scratch.join("W/sub/link")).expect("symlink");
        // uid 0, of the host or of a container, and Linux before 6.8 (no "lowerdir+") have had another working directory by then.
        let old = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=fsconfig", "-e", "inject=fsconfig:error=EINVAL:when=5"];
        for (before, option) in [(&[][..], ""), (&["unshare", "-Ur"], "--proc /proc"), (&[], "--proc /proc"), (&old, "--overlay-src DIR/lower --overlay-src DIR/W/sub --ro-overlay /o")] {
            if before == old && !has("strace") {
                continue;
            }
            let chain = |options: &str, program: &str| {
                let mut command = who.command("env");
                command.args(before).arg(tool("srt-ns")).args(["--", "srt-mount"]);
                let mut text = format!("{options} -- {program}").replace("OPTION", option);
                text = text.replace("DIR", scratch.text());
                run(command.args(words(&text)).current_dir(scratch.join("W")))
            };
            for bind in ["DIR/W", "."] {
                let ran = chain(&format!("--tmpfs / OPTION --bind {bind} /work"), "DIR/W/tools/tool --version");
                ran.code(127).one_clear_error("srt-mount");
                let tree = "--tmpfs / --dir /victim/x OPTION";
                let source = bind.replace("DIR/W", "DIR/W/").trim_start_matches('.').to_owned() + "sub";
                let ran = chain(&format!("{tree} --bind {bind} /w --ro-bind {source} /s --tmpfs /s/link/x"), "DIR/W/none");
                ran.code(125).complains("leads through the symbolic link");
            }
            // Controls: nothing is writable; and a program that is named from the working directory.
            chain("--tmpfs / OPTION --ro-bind . /work", "DIR/W/tools/tool --version").ok();
            chain("--tmpfs / OPTION", "./tools/tool --version").ok();
        }
    }

    fn a_link_of_proc_leads_to_what_is_open_though_its_name_leads_elsewhere_by_then(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        scratch.file("s/d/x", "meant");
        scratch.file("SECRET/x", "secret");
        let open = fs::File::open(scratch.join("s/d")).expect("open");
        let mut command = who.command("strace");
        let log = scratch.join("log");
        // The log tells of a call before its delay.
        command.args(["--quiet=all", "--follow-forks", "--trace=readlinkat", "-e", "inject=readlinkat:delay_exit=500000", "--output"]).arg(&log);
        command.arg(tool("srt-ns")).args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", "--ro-bind", "/proc/self/fd/9", "/mnt", "--", "cat", "/mnt/x"]);
        pass_fd(&mut command, open.as_raw_fd(), 9);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace");
        wait_until("the name", || fs::read_to_string(&log).is_ok_and(|log| log.contains("/s/d\"")));
        fs::rename(scratch.join("s/d"), scratch.join("s/moved")).expect("rename");
        symlink(scratch.join("SECRET"), scratch.join("s/d")).expect("symlink");
        let ran = child.wait_with_output().expect("its end");
        assert!(!String::from_utf8_lossy(&ran.stdout).contains("secret"), "{ran:?}");
    }

    fn there_is_no_way_up_from_what_is_no_directory(who) {
        let scratch = who.scratch();
        scratch.file("d/f", "");
        symlink("d", scratch.join("l")).expect("symlink");
        for (path, code) in [("l/../d/f", 0), ("l/f/..", 125), ("l/f/../f", 125), ("/proc/self/fd/1/..", 125), ("/proc/self/fd/1/../etc", 125)] {
            let mut command = mount(who, ["--ro-bind", "/", "/", "--ro-bind"]);
            let ran = run(command.arg(scratch.join(path)).args(["/etc/hostname", "--", "true"]));
            ran.code(code);
            if code != 0 {
                ran.complains("Not a directory");
            }
        }
    }

    fn a_link_of_proc_whose_text_is_another_files_path_leads_to_no_other(who) {
        let scratch = who.scratch();
        let file = scratch.file("f", "meant");
        let open = fs::File::open(&file).expect("open");
        fs::remove_file(&file).expect("rm");
        scratch.file("f (deleted)", "another");
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", "--ro-bind", "/proc/self/fd/9", "/etc/hostname", "--", "cat", "/etc/hostname"]);
        pass_fd(&mut command, open.as_raw_fd(), 9);
        let ran = run(&mut command);
        assert!(!ran.out.contains("another"), "{ran:#?}");
    }
}

#[test]
fn a_link_that_the_user_cannot_replace_is_followed_in_a_writable_tree() {
    // /bin and /var/run are root's; an ordinary user's `--bind / /` does not make them writable.
    let mut command = mount(
        Who::User,
        words("--bind / / --ro-bind /bin/sh /dev/null --ro-bind /proc/self/mounts /dev/zero"),
    );
    run(command.args(["--", "true"])).ok();
    let mut command = mount(Who::Root, words("--bind / / --ro-bind /bin/sh /dev/null"));
    if fs::symlink_metadata("/bin").is_ok_and(|bin| bin.is_symlink()) {
        run(command.args(["--", "true"])).code(125).complains("the symbolic link /bin,");
    }
}
