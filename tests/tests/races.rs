//! Traps that an earlier run, or one that runs at the same time, sets for the next start: symbolic links in the
//! place of destinations, and names that change while they are walked.

use srt_tests::attacks::{Sandbox, where_one_may_mount};
use srt_tests::{Scratch, Who, both, run, tool};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// `outside` with a file in it, and `work`, all of the user.
fn lay_out(who: Who) -> Scratch {
    let scratch = who.scratch();
    scratch.file("outside/file", "trusted\n");
    scratch.dir("work");
    scratch.file("source/file", "source\n");
    scratch
}

fn names(directory: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .expect("read_dir")
        .map(|entry| format!("{:?}", entry.expect("entry").file_name()))
        .collect();
    all.sort();
    all
}

/// A program that exchanges two names until it is killed.
fn swapper(who: Who, one: &Path, other: &Path) -> Child {
    who.command(tool("attack")).arg("swap").arg(one).arg(other).spawn().expect("swap")
}

both! {
    fn nothing_is_made_or_mounted_through_a_link_that_is_the_destination(who) {
        let scratch = lay_out(who);
        let (work, outside) = (scratch.join("work"), scratch.join("outside"));
        let at = |name: &str| format!("{}/work/{name}", scratch.text());
        symlink(&outside, at("link")).expect("symlink");
        symlink("../outside", at("relative")).expect("symlink");
        symlink(outside.join("file"), at("file")).expect("symlink");
        symlink(outside.join("new"), at("dangling")).expect("symlink");
        let source = format!("{}/source", scratch.text());
        let source_file = format!("{source}/file");
        // The host's path is inside, too, as with `--bind / /`: the link leads somewhere.
        let outside_text = outside.to_str().expect("UTF-8");
        let everywhere = Sandbox::bare(who).mounts(&["--bind", outside_text, outside_text, "--bind", work.to_str().expect("UTF-8"), work.to_str().expect("UTF-8")]);
        for link in ["link", "relative", "dangling"] {
            let link = at(link);
            for options in [
                vec!["--bind", &source, &link],
                vec!["--ro-bind", &source, &link],
                vec!["--tmpfs", &link],
                vec!["--dir", &link],
                vec!["--proc", &link],
                vec!["--dev", &link],
                vec!["--mask", &link],
                vec!["--mqueue", &link],
                vec!["--symlink", "/etc", &link],
                vec!["--overlay-src", &source, "--ro-overlay", &link],
                vec!["--overlay-src", &source, "--tmp-overlay", &link],
                vec!["--bind", &source, &format!("{link}/")],
                vec!["--bind", &source, &format!("{link}/.")],
            ] {
                let sandbox = everywhere.clone().mounts(&["--placeholders"]).mounts(&options);
                let ran = run(&mut sandbox.command(&["true"]));
                // A trailing /. leads through the link on purpose; then only within the new root.
                if !options.last().is_some_and(|word| word.ends_with("/.")) {
                    assert!(ran.code == Some(125) && ran.err.starts_with("srt-mount: "), "{options:?} {ran:#?}");
                }
                assert_eq!(names(&outside), ["\"file\""], "{options:?}");
            }
        }
        let file = at("file");
        for options in [vec!["--bind", &source_file, &file], vec!["--ro-bind", &source_file, &file], vec!["--mask", &file]] {
            run(&mut everywhere.clone().mounts(&options).command(&["true"])).code(125).complains("symbolic link");
        }
        assert_eq!(fs::read_to_string(outside.join("file")).expect("file"), "trusted\n");
        // What most tools do: mount and make through the link.
        let script = format!("mount --bind {source} {}; test -e {}/made-by-source", at("link"), outside.display());
        scratch.file("source/made-by-source", "");
        where_one_may_mount(who, &script, &["userns-unshare"]).all_got_through();
        run(who.command("mkdir").arg("-p").arg(at("link/made"))).ok();
        assert!(outside.join("made").exists());
    }

    fn a_link_in_the_middle_of_a_destination_leads_nowhere_outside_the_new_root(who) {
        let scratch = lay_out(who);
        let (work, outside) = (scratch.join("work"), scratch.join("outside"));
        // What lies there is not granted: /tmp is the sandbox's own.
        symlink(&outside, work.join("link")).expect("symlink");
        symlink("../../../../../../../..", work.join("up")).expect("symlink");
        symlink("/proc/self/root", work.join("magic")).expect("symlink");
        let work_text = work.to_str().expect("UTF-8");
        for link in ["link/made", "link/a/b/c", "magic/made"] {
            let dest = format!("{work_text}/{link}");
            for options in [vec!["--dir", dest.as_str()], vec!["--tmpfs", &dest], vec!["--bind", work_text, &dest]] {
                // It fails, or happens in the new tree alone.
                let _either = run(&mut Sandbox::new(who, &work).mounts(&["--placeholders"]).mounts(&options).command(&["true"]));
                assert_eq!(names(&outside), ["\"file\""], "{options:?}");
                assert!(!Path::new("/made").exists(), "{options:?}");
            }
        }
    }

    fn a_destination_that_changes_while_it_is_walked_leads_nowhere_outside(who) {
        let scratch = lay_out(who);
        let (work, outside) = (scratch.join("work"), scratch.join("outside"));
        scratch.dir("work/real");
        symlink(&outside, work.join("link")).expect("symlink");
        let dest = work.join("real/made/deeper");
        let mut swapper = swapper(who, &work.join("real"), &work.join("link"));
        // Both outcomes are seen, or the race is none: the directory as it should be, and the link, refused or followed
        // within the new root.
        let (mut done, mut refused) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) && (done < 30 || refused < 30) {
            let sandbox = Sandbox::new(who, &work).mounts(&["--placeholders", "--dir", dest.to_str().expect("UTF-8")]);
            match run(&mut sandbox.command(&["true"])).code {
                Some(0) => done += 1,
                Some(125) => refused += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!(names(&outside), ["\"file\""], "after {done} and {refused}");
            for name in ["real", "link"] {
                let _not_there = fs::remove_dir_all(work.join(name).join("made"));
            }
        }
        assert!(done > 0 && refused > 0, "{done} done, {refused} refused: no race");
        // What walks by path falls for it soon.
        let start = Instant::now();
        while !outside.join("made").exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "the control never lost the race");
            let _either = run(who.command("sh").args(["-c", "for i in 1 2 3 4 5 6 7 8 9; do mkdir -p \"$0\"; done"]).arg(&dest));
        }
        swapper.kill().expect("kill");
        swapper.wait().expect("wait");
    }

    fn a_mask_holds_whatever_the_names_do_meanwhile(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let secret = scratch.file("work/a/secret", "secret\n");
        scratch.file("work/b/secret", "decoy\n");
        // Another sandbox with the same directory exchanges the two while this one starts.
        let mut swapper = swapper(who, &work.join("a"), &work.join("b"));
        let sandbox = Sandbox::new(who, &work).mounts(&["--mask", secret.to_str().expect("UTF-8")]);
        let script = format!("cat {}/a/secret", work.display());
        for _ in 0..40 {
            let ran = run(&mut sandbox.command(&["sh", "-c", &script]));
            // Masked is what lay there when it was looked at; the start may fail, but never halfway.
            assert!(ran.code == Some(0) || ran.code == Some(125), "{ran:#?}");
        }
        swapper.kill().expect("kill");
        swapper.wait().expect("wait");
    }

    fn a_fifo_in_the_place_of_a_file_does_not_block_the_start(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let fifo = work.join("file");
        srt_tests::attacks::outside(who, &[format!("mkfifo {}", fifo.display())]).all_got_through();
        let fifo = fifo.to_str().expect("UTF-8");
        for options in [vec!["--mask", fifo], vec!["--ro-bind", "/etc/passwd", fifo], vec!["--file", "0", fifo], vec!["--bind", fifo, "/tmp/fifo"]] {
            let ran = run(&mut Sandbox::new(who, &work).mounts(&options).command(&["true"]));
            assert!(ran.code.is_some(), "{options:?} {ran:#?}");
        }
    }

    fn a_file_handed_over_as_data_is_never_the_hosts_own(who) {
        let scratch = lay_out(who);
        let work = scratch.join("work");
        let file = scratch.file("outside/data", "data\n");
        for option in ["--bind-data", "--file"] {
            let data = fs::File::options().read(true).write(true).open(&file).expect("open");
            let sandbox = Sandbox::new(who, &work).ns(&["--keep-fd", "9"]).mounts(&[option, "9", "/tmp/data"]);
            let mut command = sandbox.command(&["sh", "-c", "echo OWNED >>/tmp/data; cat /tmp/data; echo OWNED >&9"]);
            srt_tests::pass_fd(&mut command, std::os::fd::AsRawFd::as_raw_fd(&data), 9);
            // The copy is the command's; the descriptor ends with srt-mount.
            let ran = run(&mut command);
            assert!(ran.out == "data\nOWNED\n" && ran.code != Some(0), "{ran:#?}");
            assert_eq!(fs::read_to_string(&file).expect("file"), "data\n");
        }
        let ran = run(who.command("sh").args(["-c", "echo OWNED >>\"$0\""]).arg(&file));
        assert_eq!((ran.code, fs::read_to_string(&file).expect("file").as_str()), (Some(0), "data\nOWNED\n"));
    }
}
