//! `srt-ns --placeholder`: what does not exist on the host can be masked, and nothing is left afterwards, however the
//! sandbox ended. What the user has there is never touched.

use srt_tests::host::Events;
use srt_tests::processes::{child_named, descendants, kill, wait_for_end};
use srt_tests::random::Random;
use srt_tests::refusals::with_mounts;
use srt_tests::talk::Talk;
use srt_tests::{READ_ONLY, Ran, Scratch, USER, Who, both, has, run, skip, tool, wait, wait_until};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often a test with chance in it tries. `SRT_KILLS=1000` for more.
fn tries() -> u64 {
    std::env::var("SRT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// A sandbox with placeholders (`P`, `P/`), without srt-mount.
fn sandbox(who: Who, paths: &[&str], script: &str) -> Command {
    let mut command = who.command("srt-ns");
    for path in paths {
        command.args(["--placeholder", path]);
    }
    command.args(["--", "sh", "-c", script]);
    command
}

/// One that runs until its stdin ends.
fn running(who: Who, paths: &[&str]) -> Talk {
    let mut talk = Talk::over_pipes(&mut sandbox(who, paths, "echo it runs; exec cat"));
    talk.expect("it runs\n");
    talk
}

fn finish(mut talk: Talk) {
    talk.close_input();
    let (code, said) = talk.end();
    assert_eq!((code, said.as_str()), (0, ""));
}

/// A directory of the user's, the path of an entry in it, and the same as text.
fn place(who: Who) -> (Scratch, PathBuf, String) {
    let scratch = who.scratch_in("/var/tmp");
    let path = scratch.dir("project").join("it");
    let text = path.to_str().expect("UTF-8").to_owned();
    (scratch, path, text)
}

/// Everything is as before: no entry in the directory, and no mark on it.
#[track_caller]
fn nothing_is_left(directory: &Path) {
    let names: Vec<_> =
        fs::read_dir(directory).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(marks(directory), "", "of the directory");
}

/// The names of the extended attributes.
fn marks(path: &Path) -> String {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let mut names = [0u8; 4096];
    // SAFETY: a C string, a buffer and its length.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let names = String::from_utf8_lossy(&names[..usize::try_from(length).expect("llistxattr")]).into_owned();
    names.split_terminator('\0').filter(|name| name.starts_with("user.")).collect::<Vec<_>>().join(" ")
}

/// The supervisor and the watchdog at once: nobody is left to remove anything.
fn kill_both(talk: Talk) {
    let watchdog = child_named(talk.pid(), "srt-watchdog");
    // Stopped first, so that it cannot be faster.
    kill(watchdog, libc::SIGSTOP);
    talk.signal(libc::SIGKILL);
    kill_for_good(watchdog);
    talk.end();
}

/// A lock is held until its process is dead, for which a busy machine takes longer than the next run's end waits.
fn kill_for_good(pid: i32) {
    kill(pid, libc::SIGKILL);
    wait_for_end(pid);
}

/// A sandbox with one placeholder under strace(1), which holds processes up as `inject` says, and its supervisor once the
/// moment has come.
fn held_up(who: Who, inject: &[String], log: &Path, text: &str, moment: impl Fn() -> bool) -> (Child, i32) {
    let mut command = who.command("strace");
    command.args(["-f", "-e", "trace=openat,setsid,sendmsg,fgetxattr", "-o"]).arg(log);
    for call in inject {
        command.args(["-e", &format!("inject={call}")]);
    }
    command.arg(srt_tests::tool("srt-ns")).args(["--placeholder", text, "--", "test", "-e", text]);
    let strace = command.stdout(Stdio::null()).spawn().expect("strace");
    wait_until("the moment", moment);
    let own = i32::try_from(strace.id()).expect("a pid");
    let mut children = descendants(own).into_iter().filter(|child| child.parent == own);
    let supervisor = children.next().expect("the supervisor").pid;
    (strace, supervisor)
}

/// Runs a program with srt-ns's exit status 125 and one clear line; it has not run.
#[track_caller]
fn refused(ran: &Ran, error: &str) {
    ran.code(125).says("").one_clear_error("srt-ns").complains(error);
}

both! {
    fn what_is_not_there_can_be_masked_and_is_gone_afterwards(who) {
        let (scratch, path, _) = place(who);
        let project = path.parent().expect("a directory");
        let chain = |options: &[&str], masked: &str| {
            let mut command = who.command("srt-ns");
            command.current_dir(project).args(options);
            command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind"]);
            command.arg(project).arg(project);
            for name in masked.split(' ').filter(|name| !name.is_empty()) {
                command.arg("--mask").arg(project.join(name));
            }
            let script = "mkdir -p .git/hooks; echo {} >.mcp.json; echo work >file; rm -rf .git .mcp.json; true";
            run(command.args(["--", "srt-seccomp", "--", "sh", "-c", script]))
        };
        // The controls: unmasked, the command makes both; and what is not there cannot be masked.
        chain(&[], "").ok();
        fs::remove_file(project.join("file")).expect("it was written");
        chain(&[], ".git .mcp.json").code(125);
        // As git's and an agent's configuration is protected where there is none yet. Relative names, too.
        let ran = chain(&["--placeholder", ".git/", "--placeholder", ".mcp.json"], ".git .mcp.json");
        ran.ok().complains("Read-only file system");
        assert_eq!(fs::read_to_string(project.join("file")).expect("written"), "work\n");
        fs::remove_file(project.join("file")).expect("rm");
        nothing_is_left(project);
        drop(scratch);
    }

    fn the_kind_is_as_asked_for_and_nobody_else_can_open_it(who) {
        let (_scratch, path, text) = place(who);
        for (suffix, mode) in [("", 0o100_600), ("/", 0o40_700)] {
            let talk = running(who, &[&format!("{text}{suffix}")]);
            let meta = path.symlink_metadata().expect("it stands");
            assert_eq!((meta.mode(), meta.uid()), (mode, who.uid()));
            finish(talk);
            nothing_is_left(path.parent().expect("a directory"));
        }
    }

    fn a_umask_and_a_default_acl_change_nothing(who) {
        let (_scratch, path, text) = place(who);
        let project = path.parent().expect("a directory");
        run(Command::new("setfacl").args(["-d", "-m", "u:2000:rwx,o::rwx"]).arg(project)).ok();
        for (suffix, mode) in [("", 0o600), ("/", 0o700)] {
            let script = format!("umask 0777; exec srt-ns --placeholder {text}{suffix} -- sh -c 'umask; echo it runs; exec cat'");
            let mut talk = Talk::over_pipes(who.command("sh").args(["-c", &script]));
            talk.expect("0777\nit runs\n");
            assert_eq!(path.symlink_metadata().expect("it stands").mode() & 0o777, mode);
            finish(talk);
            nothing_is_left(project);
        }
    }

    fn what_the_user_has_there_stays_even_if_it_is_empty(who) {
        let (scratch, path, text) = place(who);
        scratch.file("project/it", "");
        // Named almost like what a killed run can leave.
        let similar = scratch.file("project/.srt-placeholder-mine", "");
        for asked in [&text, &format!("{text}/")] {
            run(&mut sandbox(who, &[asked], "true")).ok();
            assert!(similar.exists());
            kill_both(running(who, &[asked, &format!("{text}2")]));
            run(&mut sandbox(who, &[asked, &format!("{text}2")], "true")).ok();
            assert_eq!(path.metadata().expect("it stays").len(), 0);
        }
        fs::remove_file(&path).expect("rm");
        scratch.dir("project/it");
        for asked in [&text, &format!("{text}/")] {
            run(&mut sandbox(who, &[asked], "true")).ok();
            assert!(path.is_dir());
        }
        fs::remove_dir(&path).expect("rmdir");
        symlink("/nowhere", &path).expect("symlink");
        run(&mut sandbox(who, &[&text], "true")).ok();
        assert!(path.is_symlink() && marks(path.parent().expect("a directory")).is_empty());
    }

    fn what_somebody_has_put_into_it_stays_and_is_the_users(who) {
        let (scratch, path, text) = place(who);
        let talk = running(who, &[&text]);
        fs::write(&path, "precious").expect("write");
        finish(talk);
        assert_eq!(fs::read(&path).expect("it stays"), b"precious");
        assert_eq!(marks(&path) + &marks(path.parent().expect("a directory")), "");
        // Emptied later, it still is the user's; after a SIGKILL as well.
        fs::write(&path, "").expect("write");
        kill_both(running(who, &[&text]));
        run(&mut sandbox(who, &[&text], "true")).ok();
        fs::remove_file(&path).expect("it stays");
        kill_both(running(who, &[&text]));
        fs::write(&path, "precious").expect("write");
        run(&mut sandbox(who, &[&text], "true")).ok();
        assert_eq!(fs::read(&path).expect("it stays"), b"precious");
        fs::remove_file(&path).expect("rm");
        let talk = running(who, &[&format!("{text}/")]);
        scratch.file("project/it/precious", "");
        finish(talk);
        assert!(path.join("precious").exists() && marks(&path).is_empty());
    }

    fn it_goes_with_a_supervisor_or_a_watchdog_that_is_killed(who) {
        let (_scratch, path, text) = place(who);
        let project = path.parent().expect("a directory");
        for asked in [&text, &format!("{text}/")] {
            let talk = running(who, &[asked]);
            talk.signal(libc::SIGKILL);
            talk.end();
            wait_until("the watchdog", || !path.exists() && marks(project).is_empty());
            nothing_is_left(project);
            let talk = running(who, &[asked]);
            kill(child_named(talk.pid(), "srt-watchdog"), libc::SIGKILL);
            talk.end();
            nothing_is_left(project);
        }
    }

    fn after_both_are_killed_the_next_run_removes_it(who) {
        let (_scratch, path, text) = place(who);
        for (left, next) in [("", ""), ("/", "/"), ("", "/"), ("/", "")] {
            kill_both(running(who, &[&format!("{text}{left}")]));
            assert!(path.exists(), "the control");
            let kind = if next.is_empty() { "test -f" } else { "test -d" };
            run(&mut sandbox(who, &[&format!("{text}{next}")], &format!("{kind} {text}"))).ok();
            nothing_is_left(path.parent().expect("a directory"));
        }
    }

    fn after_a_kill_at_any_moment_of_anybody_nothing_is_left_by_the_next_run(who) {
        let (_scratch, path, text) = place(who);
        let project = path.parent().expect("a directory");
        let asked = [text.clone(), format!("{text}.d/")];
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let mut random = Random::unlike_before();
        for turn in 0..tries() {
            let mut child = sandbox(who, &asked, "exec sleep 0.01").stderr(Stdio::null()).spawn().expect("spawn");
            let pid = i32::try_from(child.id()).expect("a pid");
            std::thread::sleep(random.time_below(Duration::from_millis(20)));
            let watchdog = || {
                let children = descendants(pid);
                children.iter().find(|child| child.name == "srt-watchdog").map(|child| child.pid)
            };
            match turn % 3 {
                0 => kill(pid, libc::SIGKILL),
                1 => { watchdog().inspect(|&watchdog| kill(watchdog, libc::SIGKILL)); }
                _ => {
                    let watchdog = watchdog();
                    kill(pid, libc::SIGKILL);
                    watchdog.inspect(|&watchdog| kill_for_good(watchdog));
                }
            }
            wait(&mut child, "its end");
            if turn % 3 == 2 {
                run(&mut sandbox(who, &asked, "true")).ok();
            }
            // One of the two was left, and sees to it, a watchdog too that was not there yet when it was looked for. A mark
            // without an entry may be left on the directory: it means nothing.
            wait_until("who is left", || fs::read_dir(project).expect("a directory").next().is_none());
        }
    }

    fn a_watchdog_that_begins_after_the_supervisors_death_removes_it(who) {
        let (scratch, path, text) = place(who);
        let log = scratch.file("log", "");
        // The watchdog is held up in setsid(2), the supervisor after it has handed over the lock: it dies at the end of that,
        // before the watchdog tells that it is ready, or after. Then that stays unread (unix(7), ECONNRESET).
        for [begins, dies] in [[1_000_000, 300_000], [300_000, 1_000_000]] {
            let inject = [format!("setsid:delay_enter={begins}"), format!("sendmsg:delay_exit={dies}:when=1")];
            let (mut strace, supervisor) = held_up(who, &inject, &log, &text, || path.exists());
            kill(supervisor, libc::SIGKILL);
            // It ends as what it runs does, and after all of them.
            assert_eq!(wait(&mut strace, "strace").signal(), Some(libc::SIGKILL));
            nothing_is_left(path.parent().expect("a directory"));
        }
    }

    fn one_that_is_removed_while_another_sandbox_looks_at_it_is_made_again(who) {
        let (scratch, path, text) = place(who);
        let first = running(who, &[&text]);
        let log = scratch.file("log", "");
        // It has the entry open, and has not asked for its mark.
        let (mut strace, _) = held_up(who, &["fgetxattr:delay_enter=1000000:when=1".to_owned()], &log, &text, || {
            let log = fs::read_to_string(&log).expect("a log");
            log.lines().any(|line| line.contains("\"it\"") && line.contains("O_PATH"))
        });
        finish(first);
        assert_eq!(wait(&mut strace, "its end").code(), Some(0), "it ran without a placeholder");
        nothing_is_left(path.parent().expect("a directory"));
    }

    fn eight_share_it_and_the_last_one_removes_it_in_whatever_order_they_end(who) {
        let (_scratch, path, text) = place(who);
        let project = path.parent().expect("a directory");
        let mut random = Random::unlike_before();
        for turn in 0..(tries() / 8).max(2) {
            let asked = if turn % 2 == 0 { text.clone() } else { format!("{text}/") };
            let mut all: Vec<Talk> = (0..8).map(|_| running(who, &[&asked])).collect();
            let inode = path.metadata().expect("it stands").ino();
            while !all.is_empty() {
                assert_eq!(path.metadata().expect("it stands").ino(), inode);
                let ends = all.swap_remove(random.below(all.len()));
                if random.one_in(2) {
                    finish(ends);
                } else {
                    ends.signal(libc::SIGKILL);
                    ends.end();
                }
            }
            wait_until("the last one", || !path.exists());
            nothing_is_left(project);
        }
    }

    fn eight_that_start_and_end_at_once_have_it_as_long_as_they_run(who) {
        let (_scratch, path, text) = place(who);
        for turn in 0..(tries() / 8).max(2) {
            let asked = if turn % 2 == 0 { text.clone() } else { format!("{text}/") };
            let script = format!("for i in 1 2 3 4 5; do test -e {text} || echo it is gone; done");
            let all: Vec<_> = (0..8)
                .map(|_| sandbox(who, &[&asked], &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
                .collect();
            for child in all {
                let mut child = child.expect("spawn");
                wait(&mut child, "its end");
                let output = child.wait_with_output().expect("its output");
                let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                assert_eq!((output.status.code(), said.concat().as_str()), (Some(0), ""));
            }
            nothing_is_left(path.parent().expect("a directory"));
        }
    }

    fn a_directory_that_is_renamed_meanwhile_is_cleaned_where_it_is(who) {
        let (scratch, path, text) = place(who);
        for killed in [false, true] {
            let talk = running(who, &[&text]);
            fs::rename(scratch.join("project"), scratch.join("elsewhere")).expect("rename");
            scratch.file("project/it", "");
            if killed {
                talk.signal(libc::SIGKILL);
                talk.end();
            } else {
                finish(talk);
            }
            wait_until("the removal", || !scratch.join("elsewhere/it").exists());
            wait_until("the removal", || marks(&scratch.join("elsewhere")).is_empty());
            nothing_is_left(&scratch.join("elsewhere"));
            assert!(path.exists(), "the user's own, under the old name");
            fs::remove_dir(scratch.join("elsewhere")).expect("rmdir");
            fs::remove_file(&path).expect("rm");
        }
    }

    fn a_removal_or_replacement_from_outside_is_told(who) {
        let (scratch, path, text) = place(who);
        let mut talk = running(who, &[&text]);
        fs::remove_file(&path).expect("rm");
        talk.close_input();
        let (code, said) = talk.end();
        assert_eq!(code, 0);
        assert!(said.contains(&format!("srt-ns: --placeholder {text}: it was removed or replaced")), "{said}");
        nothing_is_left(path.parent().expect("a directory"));
        // To a script alone, where there is one; and what has come in its place is the user's.
        let script = format!("rm {text}; echo other >{text}");
        let mut command = who.command("srt-ns");
        let events = Events::of(&mut command, &scratch);
        command.args(["--status-fd", "9", "--placeholder", &text, "--", "sh", "-c", &script]);
        let ran = run(&mut command);
        assert_eq!((ran.ok().err.as_str(), fs::read_to_string(&path).expect("it stays").as_str()), ("", "other\n"));
        let events = events.text();
        assert!(events.contains(r#""event":"placeholder-lost""#) && events.contains(&text), "{events}");
        assert_eq!(marks(path.parent().expect("a directory")), "");
    }

    fn marks_that_are_not_of_one_placeholder_make_none(who) {
        // The directory's is of one that was lost, and the inode's number is another file's by now.
        let (scratch, path, text) = place(who);
        scratch.file("project/it", "");
        let mark = "import os, sys
path, *own = sys.argv[1:]
os.setxattr(os.path.dirname(path), 'user.srt-placeholder.%d' % os.stat(path).st_ino, b'1-1')
for value in own: os.setxattr(path, 'user.srt-placeholder', value.encode())";
        for own in [&[][..], &["2-2"]] {
            run(who.command("python3").args(["-c", mark, &text]).args(own)).ok();
            run(&mut sandbox(who, &[&text], "true")).ok();
            assert!(path.exists(), "{own:?}");
        }
    }

    fn whatever_lies_under_a_private_name_does_no_harm(who) {
        let (scratch, path, text) = place(who);
        let directory = path.parent().expect("a directory");
        // A FIFO, which nobody writes, and a link to what is marked elsewhere.
        run(who.command("mkfifo").arg(directory.join(".srt-placeholder-1-2"))).ok();
        let marked = scratch.file("marked", "");
        let mark = "import os, sys; os.setxattr(sys.argv[1], 'user.srt-placeholder', b'1-1')";
        run(who.command("python3").args(["-c", mark]).arg(&marked)).ok();
        symlink(&marked, directory.join(".srt-placeholder-3-4")).expect("symlink");
        run(&mut sandbox(who, &[&text], "true")).ok();
        assert_eq!(marks(&marked), "user.srt-placeholder");
        assert!(directory.join(".srt-placeholder-3-4").is_symlink() && !directory.join(".srt-placeholder-1-2").exists());
    }

    fn what_cannot_be_removed_now_is_removed_by_the_next_run(who) {
        let (_scratch, path, text) = place(who);
        let directory = path.parent().expect("a directory");
        // Somebody else's, so that the watchdog cannot change the mode.
        let other = if who == Who::Root { USER } else { 0 };
        chown(directory, Some(other), None).expect("chown");
        let mode = |mode| fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("chmod");
        mode(0o777);
        let talk = running(who, &[&text]);
        mode(0o555);
        finish(talk);
        assert!(path.exists());
        mode(0o777);
        run(&mut sandbox(who, &[&text], "true")).ok();
        nothing_is_left(directory);
    }

    fn a_mode_that_the_command_leaves_does_not_keep_it_there(who) {
        let (_scratch, path, text) = place(who);
        let directory = path.parent().expect("a directory");
        for (entry, mode) in [("", 0o555), ("/", 0o444), ("", 0)] {
            let script = format!("chmod {mode:o} {}", directory.display());
            run(&mut sandbox(who, &[&format!("{text}{entry}")], &script)).ok();
            let left = fs::metadata(directory).expect("stat").permissions().mode();
            assert_eq!(left & 0o7777, mode, "it stays as the command has left it");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("chmod");
            nothing_is_left(directory);
        }
    }

    fn a_mark_on_the_users_file_gives_a_command_no_hold_on_it(who) {
        let (scratch, _, _) = place(who);
        // A command that may write a file, but not its directory, can mark it.
        let mark = "import os, sys
for path in sys.argv[1:]: os.setxattr(path, 'user.srt-placeholder', b'1-1')";
        let lock = "import fcntl, sys
files = [open(path) for path in sys.argv[1:]]
for file in files: fcntl.flock(file, fcntl.LOCK_EX)
print('locked', flush=True)
input()";
        for (name, text, mode) in [("full", "mine", 0o644), ("secret", "mine", 0o600), ("empty", "", 0o600)] {
            let paths: Vec<_> = (0..30)
                .map(|n| {
                    let path = scratch.file(format!("project/{name}-{n}"), text);
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
                    path.display().to_string()
                })
                .collect();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            run(who.command("python3").args(["-c", mark]).args(&paths)).ok();
            // Neither does its lock keep a sandbox from starting,
            let mut owner = Talk::over_pipes(who.command("python3").args(["-c", lock]).args(&paths));
            assert_eq!(owner.line(), "locked");
            run(&mut sandbox(who, &paths, "true")).ok().says("");
            owner.send("\n");
            assert_eq!(owner.end().0, 0);
            // nor does a sandbox keep the user's own lock from the file, unless it could be a placeholder.
            let talk = running(who, &paths);
            let free = run(who.command("flock").args(["-n", "-x", paths[0], "true"])).code == Some(0);
            assert_eq!(free, name != "empty", "{name}");
            finish(talk);
            assert!(paths.iter().all(|path| fs::read(path).expect("it stays") == text.as_bytes()));
        }
    }

    fn one_sandbox_has_no_other_ones_mask_removed(who) {
        let (scratch, path, text) = place(who);
        let directory = scratch.join("project").display().to_string();
        let masked = |script: &str| {
            let mut command = who.command("srt-ns");
            command.args(["--placeholder", &text, "--", "srt-mount"]).args(READ_ONLY);
            command.args(["--bind", &directory, &directory, "--mask", &text, "--", "srt-seccomp", "--"]);
            Talk::over_pipes(command.args(["python3", "-c", script, &directory, &text]))
        };
        // The first takes the mark off the directory, and with `back` sets it again once the second runs: that it was a
        // placeholder for the second, too, must not depend on either.
        let hostile = "import os, sys
directory = sys.argv[1]
marks = {name: os.getxattr(directory, name) for name in os.listxattr(directory)}
for name in marks: os.removexattr(directory, name)
print('removed', len(marks), flush=True)
if input() == 'back':
    for name in marks: os.setxattr(directory, name, marks[name])
print('done', flush=True)
input()";
        let victim = "import sys
def write():
    try: open(sys.argv[2], 'w').write('evil'); return 'written'
    except OSError as error: return error.strerror
print(write(), flush=True)
input()
print(write(), flush=True)";
        for back in ["back\n", "no\n"] {
            let mut first = masked(hostile);
            assert_eq!(first.line(), "removed 1");
            let mut second = masked(victim);
            assert_eq!(second.line(), "Read-only file system");
            first.send(back);
            assert_eq!(first.line(), "done");
            first.close_input();
            assert_eq!(first.end().0, 1, "python3 at the end of its input");
            second.send("\n");
            assert_eq!(second.line(), "Read-only file system", "{back}");
            assert_eq!(second.end().0, 0);
            // Without both marks it cannot be told from the user's own.
            if back == "no\n" {
                assert_eq!(fs::read(&path).expect("it stays"), b"");
                fs::remove_file(&path).expect("rm");
            }
            nothing_is_left(&scratch.join("project"));
        }
    }

    fn what_the_user_makes_at_the_last_moment_is_not_replaced(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let (_scratch, path, text) = place(who);
        let directory = path.parent().expect("a directory");
        let mut command = who.command("strace");
        command.args(["-f", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=renameat2"]);
        command.args(["-e", "inject=renameat2:delay_enter=1000000:when=1"]).arg(srt_tests::tool("srt-ns"));
        let talk = Talk::over_pipes(command.args(["--placeholder", &text, "--", "cat", &text]));
        wait_until("the placeholder under its first name", || fs::read_dir(directory).expect("a directory").next().is_some());
        fs::write(&path, "mine\n").expect("write");
        srt_tests::chown_to(who, &path);
        assert_eq!(talk.end(), (0, "mine\n".into()));
        fs::remove_file(&path).expect("it stays");
        nothing_is_left(directory);
    }

    fn a_mark_that_is_forged_on_a_file_alone_deletes_nothing(who) {
        // The sandbox may write the file, and sees a real placeholder with its marks; it could not remove the file.
        let (scratch, path, text) = place(who);
        for kind in ["", "/"] {
            let precious = if kind.is_empty() { scratch.file("project/precious", "") } else { scratch.dir("project/precious") };
            let asked = format!("{}{kind}", precious.display());
            let forge = format!("
import os, sys
real, victim = '{text}', '{}'
done = 0
for name in os.listxattr(real):
    os.setxattr(victim, name, os.getxattr(real, name)); done += 1
parent = os.path.dirname(real)
for name in os.listxattr(parent):
    value = os.getxattr(parent, name)
    os.setxattr(victim, name, value)
    number = name.rpartition('.')[0] + '.' + str(os.stat(victim).st_ino)
    try: os.setxattr(parent, number, value); sys.exit('the directory is writable')
    except OSError: done += 1
try: (os.rmdir if os.path.isdir(victim) else os.unlink)(victim); sys.exit('it could be removed anyway')
except OSError: pass
print('forged', done)
", precious.display());
            let mut command = who.command("srt-ns");
            command.args(["--placeholder", &format!("{text}{kind}"), "--", "srt-mount", "--ro-bind", "/", "/", "--bind"]);
            command.arg(&precious).arg(&precious).args(["--", "srt-seccomp", "--", "python3", "-c", &forge]);
            run(&mut command).ok().says("forged 2");
            assert!(marks(&precious).contains("user.srt-placeholder"));
            for _ in 0..2 {
                run(&mut sandbox(who, &[&asked], "true")).ok();
                assert!(precious.exists());
            }
            // The control: who may write the directory can mark a file for removal, and could remove it.
            let mark = format!("
import os
victim = '{}'
os.setxattr(victim, 'user.srt-placeholder', b'x')
os.setxattr(os.path.dirname(victim), 'user.srt-placeholder.' + str(os.stat(victim).st_ino), b'x')
", precious.display());
            run(who.command("python3").args(["-c", &mark])).ok();
            run(&mut sandbox(who, &[&asked], "true")).ok();
            assert!(!precious.exists());
        }
        nothing_is_left(path.parent().expect("a directory"));
    }

    fn a_lock_that_a_stranger_holds_stands_in_nobodys_way(who) {
        let (_scratch, path, text) = place(who);
        let hold = |how: &str| {
            kill_both(running(who, &[&text]));
            let mut holder = Talk::over_pipes(who.command("flock").args([how]).arg(&path).args(["sh", "-c", "echo held; exec cat"]));
            holder.expect("held");
            holder
        };
        let mut holder = hold("--exclusive");
        run(&mut sandbox(who, &[&text], &format!("test -f {text}"))).ok();
        nothing_is_left(path.parent().expect("a directory"));
        holder.close_input();
        holder.end();
        // A shared one looks like a sandbox that uses it: the next run after it removes it.
        let mut holder = hold("--shared");
        run(&mut sandbox(who, &[&text], &format!("test -f {text}"))).ok();
        holder.close_input();
        holder.end();
        run(&mut sandbox(who, &[&text], "true")).ok();
        nothing_is_left(path.parent().expect("a directory"));
    }

    fn another_kind_that_a_sandbox_uses_is_a_clear_error(who) {
        let (_scratch, path, text) = place(who);
        let talk = running(who, &[&text]);
        refused(&run(&mut sandbox(who, &[&format!("{text}/")], "echo it ran")), "another sandbox has a file there");
        finish(talk);
        nothing_is_left(path.parent().expect("a directory"));
    }

    fn a_file_system_without_user_attributes_is_refused_where_something_must_be_made(who) {
        let scratch = who.scratch();
        let mounted = scratch.dir("ramfs");
        let (at, id) = (mounted.display(), who.uid());
        let with_ramfs = |prepare: &str, kind: &str| {
            let asked = format!("{at}/it{kind}");
            let script = format!("mount -t ramfs ramfs {at}; chown {id}:{id} {at}; {prepare}");
            let check = format!("test -e {at}/it && ls -A {at}");
            run(&mut with_mounts(&script, &sandbox(who, &[&asked], &check)))
        };
        for kind in ["", "/"] {
            let ran = with_ramfs("", kind);
            ran.code(125).says("").hints("srt-ns", "cannot mark it: Operation not supported", "no user extended attributes");
            with_ramfs(&format!("touch {at}/it"), kind).ok().says("it");
        }
        // Nothing is left of the attempt: the shell that looks is the one that tried.
        let srt_ns = srt_tests::tool("srt-ns");
        let script = format!("mount -t ramfs ramfs {at}; {} --placeholder {at}/it -- true || ls -A {at}; false", srt_ns.display());
        let looked = run(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        assert_eq!(looked.out, "", "{looked:#?}");
    }

    fn leftovers_that_another_makes_without_end_hold_up_no_start(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let (scratch, _, text) = place(who);
        for number in 0..1000 {
            scratch.file(format!("project/.srt-placeholder-{number}-1/full"), "");
        }
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["-f", "-o"]).arg(&log).args(["--trace=flock"]).arg(srt_tests::tool("srt-ns"));
        run(command.args(["--placeholder", &text, "--", "true"])).ok();
        let locked = fs::read_to_string(&log).expect("the log").lines().filter(|line| line.contains("flock(")).count();
        assert!((100..500).contains(&locked), "{locked}");
    }

    fn a_watchdog_that_dies_before_the_placeholder_stands_is_told(who) {
        if !srt_tests::has("strace") {
            srt_tests::skip!("no strace");
        }
        let (_scratch, path, text) = place(who);
        let mut command = who.command("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsetxattr", "-e", "inject=fsetxattr:signal=SIGKILL:when=1"]);
        command.arg(srt_tests::tool("srt-ns")).args(["--placeholder", &text, "--", "echo", "it ran"]);
        refused(&run(&mut command), "the watchdog was killed");
        // What it has left goes with the next run.
        run(&mut sandbox(who, &[&text], "echo it ran")).ok().says("it ran");
        nothing_is_left(path.parent().expect("a directory"));
    }

    fn what_cannot_be_a_placeholder_is_one_clear_error(who) {
        let (scratch, path, text) = place(who);
        let project = path.parent().expect("a directory").to_path_buf();
        symlink(&project, scratch.join("link")).expect("symlink");
        scratch.file("file", "");
        let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
        run(who.command("mkfifo").arg(at("fifo"))).ok();
        for (asked, error) in [
            (vec![at("link/it")], "is a symbolic link to"),
            (vec![at("link/./it/")], "is a symbolic link to"),
            (vec![at("missing/it")], "No such file or directory"),
            (vec![at("file/it")], "Not a directory"),
            (vec![at("fifo/it")], "Not a directory"),
            (vec!["/proc/it".to_owned()], "cannot make it: No such file or directory"),
            (vec!["/proc/it/".to_owned()], "cannot make it: "),
            (vec![text.clone(), text.clone()], "named twice"),
            (vec![text.clone(), format!("{text}/")], "named twice"),
            (vec![text.clone(), at("project/../project/it")], "named twice"),
            (vec![String::new()], "expected a path"),
            (vec!["/".to_owned()], "expected a path"),
            (vec![at("project/..")], "expected a path"),
            (vec![text.clone(), at("missing/it")], "No such file or directory"),
            (vec![text.clone(), at(&format!("project/{}", "n".repeat(256)))], "name too long"),
        ] {
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            let ran = run(&mut sandbox(who, &asked, "echo it ran"));
            refused(&ran, "--placeholder");
            assert!(ran.err.to_lowercase().contains(&error.to_lowercase()), "{asked:?}: {error}: {ran:#?}");
            nothing_is_left(&project);
        }
        for (asked, hint) in [("link/it", "name the directory itself"), ("missing/it", "its directory must exist")] {
            run(&mut sandbox(who, &[&at(asked)], "true")).code(125).hints("srt-ns", "--placeholder", hint);
        }
        // A directory that was removed takes no entries.
        let inside = sandbox(who, &["it"], "echo it ran");
        let line = format!("mkdir {0} && cd {0} && rmdir {0} && exec \"$@\"", at("gone"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, "sh"]).arg(inside.get_program()).args(inside.get_args());
        shell.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        refused(&run(&mut shell), "cannot make it: No such file or directory");
    }

    fn a_start_that_fails_leaves_none(who) {
        let (_scratch, path, text) = place(who);
        let project = path.parent().expect("a directory");
        run(who.command("srt-ns").args(["--placeholder", &text, "--", "/missing"])).code(127);
        nothing_is_left(project);
        run(who.command("srt-ns").args(["--placeholder", &text, "--relay", "80=/missing", "--", "true"])).code(125);
        nothing_is_left(project);
        run(who.command("srt-ns").args(["--placeholder", &text, "--sidecar", "exit 3", "--", "true"]));
        nothing_is_left(project);
    }

    fn the_same_name_in_two_directories_is_two_placeholders(who) {
        let scratch = who.scratch_in("/var/tmp");
        let (one, two) = (scratch.dir("one").join(".x"), scratch.dir("two").join(".x"));
        let mut command = who.command("srt-ns");
        command.arg("--placeholder").arg(&one).arg("--placeholder").arg(&two).args(["--", "ls"]).args([&one, &two]);
        run(&mut command).ok();
        assert!(!one.exists() && !two.exists());
    }

    fn one_that_goes_while_another_sandbox_takes_it_is_made_anew(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch_in("/var/tmp");
        let (place, log) = (scratch.join(".x"), scratch.file("log", ""));
        let mut first = Talk::over_pipes(who.command("srt-ns").arg("--placeholder").arg(&place).args(["--", "sh", "-c", "echo up; exec sleep 1000"]));
        first.expect("up");
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--trace=flock", "--output"]).arg(&log);
        // The second of the watchdog's: the shared one.
        command.args(["-e", "inject=flock:delay_enter=4000000:when=2"]).arg(tool("srt-ns"));
        let mut second = Talk::over_pipes(command.arg("--placeholder").arg(&place).args(["--", "sh", "-c", "test -f \"$0\" && echo there"]).arg(&place));
        wait_until("the first flock", || fs::read_to_string(&log).expect("the log").contains("LOCK_EX"));
        first.signal(libc::SIGTERM);
        first.status();
        assert!(!place.exists());
        let text = fs::read_to_string(&log).expect("the log");
        assert!(!text.contains("LOCK_SH|LOCK_NB) = 0"), "it came too late: {text}");
        second.expect("there");
        assert_eq!(srt_tests::talk::code(second.status()), 0);
        assert!(!place.exists());
    }

    fn it_goes_with_a_watchdog_that_is_stopped(who) {
        let scratch = who.scratch_in("/var/tmp");
        let mut talk = Talk::over_pipes(who.command("srt-ns").arg("--placeholder").arg(scratch.join(".x")).args(["--", "sh", "-c", "echo up; read x"]));
        talk.expect("up");
        assert!(scratch.join(".x").exists());
        kill(child_named(talk.pid(), "srt-watchdog"), libc::SIGSTOP);
        talk.send("\n");
        talk.end();
        assert!(!scratch.join(".x").exists());
    }

    fn a_watchdog_that_comes_after_the_supervisors_death_makes_nothing(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch_in("/var/tmp");
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--follow-forks", "--signal=none", "--trace=setsid,mknodat", "--output"]).arg(&log);
        command.args(["-e", "inject=setsid:delay_enter=2000000:when=1"]).arg(tool("srt-ns")).arg("--placeholder").arg(scratch.join(".x"));
        let talk = Talk::over_pipes(command.args(["--", "true"]));
        let supervisor = child_named(talk.pid(), "srt-ns");
        wait_until("the watchdog's process", || !descendants(supervisor).is_empty());
        kill(supervisor, libc::SIGKILL);
        talk.end();
        let log = fs::read_to_string(&log).expect("the log");
        assert!(log.contains("setsid(") && !log.contains("mknodat("), "{log}");
    }
}

/// What root makes by a capability, it could not remove at the end, without one.
#[test]
fn root_makes_none_where_only_a_capability_lets_it() {
    let (_scratch, path, text) = place(Who::User);
    refused(&run(&mut sandbox(Who::Root, &[&text], "echo it ran")), "Permission denied");
    nothing_is_left(path.parent().expect("a directory"));
}

/// The mark of another user's sandbox is seen; its lock cannot be taken.
#[test]
fn one_of_another_users_is_a_clear_error() {
    let (_scratch, path, text) = place(Who::User);
    let project = path.parent().expect("a directory");
    fs::set_permissions(project, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let talk = running(Who::User, &[&text]);
    let mut other = Command::new("setpriv");
    other.args(["--reuid=2000", "--regid=2000", "--clear-groups", "--"]).arg(srt_tests::tool("srt-ns"));
    other.current_dir("/").args(["--placeholder", &text, "--", "echo", "it ran"]);
    let ran = run(&mut other);
    let error = "cannot open the placeholder that is there: Permission denied";
    ran.code(125).says("").hints("srt-ns", error, "wait until that sandbox has ended");
    finish(talk);
    nothing_is_left(project);
}

/// xattr(7): a directory with the sticky bit can be marked by its owner alone.
#[test]
fn a_sticky_directory_of_somebody_elses_is_refused() {
    let text = format!("/var/tmp/srt-placeholder-test-{}", std::process::id());
    let ran = run(&mut sandbox(Who::User, &[&text], "echo it ran"));
    ran.code(125).says("").hints("srt-ns", "cannot mark it", "a directory of your own");
    assert!(!Path::new(&text).exists());
}
