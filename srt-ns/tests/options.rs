//! Each option of srt-ns but for the relays': what it does, and what it does not take.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use srt_tests::{Ran, USER, Who, both, pass_fd, run, skip, wait};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Command, Stdio};

const NAMESPACES: [&str; 6] = ["user", "pid", "net", "ipc", "uts", "cgroup"];

/// `srt-ns OPTIONS -- sh -c SCRIPT`.
fn sh(who: Who, options: &[&str], script: &str) -> Command {
    let mut command = who.command("srt-ns");
    command.args(options).args(["--", "sh", "-c", script]);
    command
}

/// The same with the sandbox's own /proc, and the host's files.
fn sh_with_proc(who: Who, options: &[&str], script: &str) -> Command {
    let mut command = who.command("srt-ns");
    command.args(options).args(["--", "srt-mount", "--dev-bind", "/", "/", "--proc", "/proc"]);
    command.args(["--", "sh", "-c", script]);
    command
}

/// Which of the namespaces are not the caller's.
fn new_namespaces(who: Who, options: &[&str]) -> Vec<&'static str> {
    let links = NAMESPACES.map(|name| format!("/proc/self/ns/{name}")).join(" ");
    let read = format!("readlink {links}");
    let outside = run(who.command("sh").args(["-c", &read])).ok().out.clone();
    let inside = run(&mut sh(who, options, &read)).ok().out.clone();
    let pairs = outside.lines().zip(inside.lines());
    NAMESPACES.into_iter().zip(pairs).filter(|(_, (a, b))| a != b).map(|(name, _)| name).collect()
}

/// Each of these command lines ends in 125 and one clear error that names the option.
#[track_caller]
fn refuses(who: Who, lines: &[&[&str]]) {
    for line in lines {
        let ran = run(who.command("srt-ns").args(*line).args(["--", "echo", "it ran"]));
        ran.code(125).one_clear_error("srt-ns").complains(line[0]).says("");
    }
}

/// A sandbox that has said its first line.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    first: String,
}

impl Running {
    #[track_caller]
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut first = String::new();
        out.read_line(&mut first).expect("read");
        assert!(!first.is_empty(), "it ended before it said anything: {command:?}");
        Self { child, out, first: first.trim().to_owned() }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).expect("write");
    }

    #[track_caller]
    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("read");
        line.trim().to_owned()
    }

    /// Everything up to the end of the last process that could write.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("read");
        let _ended = wait(&mut self.child, "the end of the sandbox");
        rest.trim().to_owned()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("pid");
        // SAFETY: a signal to a child of ours that is not reaped yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill");
    }

    /// The child of the supervisor with this name, by its pid on the host.
    fn child_named(&self, name: &str) -> u32 {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("children");
        let named = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.find(named).unwrap_or_else(|| panic!("no {name} among {children}"))
    }
}

both! {
    fn every_namespace_is_new_by_default(who) {
        assert_eq!(new_namespaces(who, &[]), NAMESPACES);
    }

    fn the_mount_namespace_is_the_callers_until_srt_mount_makes_one(who) {
        let outside = run(who.command("readlink").arg("/proc/self/ns/mnt"));
        run(&mut sh(who, &[], "readlink /proc/self/ns/mnt")).ok().says(outside.out.trim());
    }

    fn share_keeps_exactly_what_it_names(who) {
        for shared in ["net", "ipc", "uts", "cgroup", "net,ipc", "net,ipc,uts,cgroup", "cgroup,net"] {
            let expected: Vec<&str> =
                NAMESPACES.into_iter().filter(|name| shared.split(',').all(|shared| shared != *name)).collect();
            assert_eq!(new_namespaces(who, &["--share", shared]), expected, "--share {shared}");
        }
    }

    fn share_user_is_for_a_caller_that_has_cap_sys_admin(who) {
        let options = ["--share", "user", "--allow-userns"];
        match who {
            Who::Root => {
                assert_eq!(new_namespaces(who, &options), ["pid", "net", "ipc", "uts", "cgroup"]);
                run(&mut sh(who, &options, "grep ^Cap /proc/self/status"))
                    .ok()
                    .says(&no_capabilities());
            }
            Who::User => {
                let mut refused = sh(who, &options, "echo it ran");
                run(&mut refused).code(125).one_clear_error("srt-ns").complains("Operation not permitted").says("");
            }
        }
    }

    fn share_takes_known_names_only(who) {
        refuses(who, &[
            &["--share", "nett"],
            &["--share", ""],
            &["--share", "net,"],
            &["--share", "pid"],
            &["--share", "mnt"],
            &["--share", "NET"],
            &["--share", "net", "--share", "ipc"],
            &["--share", "user"],
        ]);
        run(who.command("srt-ns").arg("--share")).code(125).one_clear_error("srt-ns");
    }

    fn the_callers_ids_map_to_themselves(who) {
        let id = who.uid();
        run(&mut sh(who, &[], "id -u; id -g; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map"))
            .ok()
            .says(&format!("{id}\n{id}\n {id} {id} 1\n {id} {id} 1"));
    }

    fn uid_and_gid_say_who_the_command_is_inside(who) {
        let scratch = who.scratch();
        let (uid, gid) = if who == Who::Root { ("1234", "0") } else { ("0", "4321") };
        let file = scratch.join("made-inside");
        let script = format!("id -u; id -g; : > {}", file.display());
        run(&mut sh(who, &["--uid", uid, "--gid", gid], &script)).ok().says(&format!("{uid}\n{gid}"));
        // On the host nothing has changed: the file is the caller's.
        let meta = file.metadata().expect("the file");
        assert_eq!((meta.uid(), meta.gid()), (who.uid(), who.uid()));
    }

    fn the_largest_id_is_taken(who) {
        run(&mut sh(who, &["--uid", "4294967294", "--gid", "4294967294"], "id -u; id -g"))
            .ok()
            .says("4294967294\n4294967294");
    }

    fn groups_cannot_be_changed_inside(who) {
        run(&mut sh(who, &[], "cat /proc/self/setgroups")).ok().says("deny");
    }

    fn uid_and_gid_take_numbers_below_minus_one_only(who) {
        for option in ["--uid", "--gid"] {
            refuses(who, &[
                &[option, "-1"],
                &[option, "4294967295"],
                &[option, "4294967296"],
                &[option, "root"],
                &[option, ""],
                &[option, "0x1"],
                &[option, " 1"],
                &[option, "1", option, "1"],
                &[option, "1", "--share", "user", "--allow-userns"],
            ]);
        }
    }

    fn hostname_is_the_name_inside_alone(who) {
        let outside = run(who.command("uname").arg("-n")).out;
        run(&mut sh(who, &["--hostname", "a-sandbox"], "uname -n")).ok().says("a-sandbox");
        let long = "h".repeat(64);
        run(&mut sh(who, &["--hostname", &long], "uname -n")).ok().says(&long);
        run(&mut sh(who, &[], "uname -n")).ok().says(outside.trim());
        assert_eq!(run(who.command("uname").arg("-n")).out, outside);
    }

    fn hostname_takes_1_to_64_bytes_and_a_namespace_of_its_own(who) {
        refuses(who, &[
            &["--hostname", ""],
            &["--hostname", &"h".repeat(65)],
            &["--hostname", "a", "--hostname", "b"],
            &["--hostname", "a", "--share", "uts"],
        ]);
    }

    fn no_further_user_namespace_unless_allowed(who) {
        let host = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").expect("the sysctl");
        // The control: outside, and with the option, it can be done.
        run(who.command("unshare").args(["--user", "true"])).ok();
        run(&mut sh(who, &["--allow-userns"], "unshare --user echo made")).ok().says("made");
        run(&mut sh(who, &[], "unshare --user echo made")).code(1).complains("No space left on device").says("");
        // Nor can the command raise the limit again.
        let raise = "echo 100 > /proc/sys/user/max_user_namespaces; unshare --user echo made";
        run(&mut sh(who, &[], raise)).code(1).complains("No space left on device").says("");
        assert_eq!(std::fs::read_to_string("/proc/sys/user/max_user_namespaces").expect("the sysctl"), host);
    }

    fn without_options_the_command_has_no_capability_in_any_set(who) {
        run(&mut sh(who, &[], "grep ^Cap /proc/self/status")).ok().says(&no_capabilities());
        run(&mut sh(who, &["--uid", "0"], "grep ^Cap /proc/self/status")).ok().says(&no_capabilities());
    }

    fn keep_admin_leaves_cap_sys_admin_alone(who) {
        // Not in the bounding set: that is where a later exec would find more.
        let sets = ["Inh", "Prm", "Eff", "Amb"].map(|set| format!("Cap{set}:\t0000000000200000")).join("\n");
        let script = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status; grep ^CapBnd /proc/self/status";
        run(&mut sh(who, &["--keep-admin"], script)).ok().says(&format!("{sets}\nCapBnd:\t0000000000000000"));
        // It is worth something inside, and nothing outside.
        let mount = "unshare --mount mount -t tmpfs tmpfs /mnt && echo inside\n\
                     mount -t tmpfs tmpfs /mnt || echo not outside";
        run(&mut sh(who, &["--keep-admin"], mount)).ok().says("inside\nnot outside");
    }

    fn a_program_named_srt_mount_gets_no_capability_unless_it_is_the_one_beside_srt_ns(who) {
        let scratch = who.scratch();
        let planted = scratch.script("srt-mount", "#!/bin/sh\ngrep ^CapEff /proc/self/status\n");
        let first_in_path = format!("{}:/usr/bin:/bin", scratch.text());
        for program in [planted.as_os_str(), OsStr::new("./srt-mount")] {
            let mut command = who.command("srt-ns");
            command.arg("--").arg(program).current_dir(scratch.path());
            run(&mut command).ok().says("CapEff:\t0000000000000000");
        }
        // Named without a slash, the real one is taken, whatever PATH says.
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--version"]).env("PATH", first_in_path);
        run(&mut command).ok().says(&format!("srt-mount {}", env!("CARGO_PKG_VERSION")));
    }

    fn switches_take_no_value(who) {
        let switches =
            ["--allow-userns", "--keep-admin", "--keep-session", "--outlive-parent", "--as-pid-1", "--wait-all"];
        for option in switches {
            let mut with_value = OsString::from(option);
            with_value.push("=yes");
            refuses(who, &[&[with_value.to_str().expect("UTF-8")]]);
            let mut apart = who.command("srt-ns");
            apart.args([option, "yes", "--", "echo", "it ran"]);
            run(&mut apart).code(125).one_clear_error("srt-ns").complains("yes").says("");
        }
    }

    fn the_command_is_in_a_session_of_its_own_without_the_callers_terminal(who) {
        // stat(5): pid (comm) state ppid pgrp session tty_nr
        let script = "read -r pid comm state parent group session tty rest </proc/self/stat; echo $session $group $tty";
        let ran = run(&mut sh(who, &[], script));
        let words: Vec<i32> = ran.ok().out.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        // SAFETY: no pointers.
        let ours = unsafe { libc::getsid(0) };
        assert!(words[0] != ours && words[0] == words[1] && words[2] == 0, "{words:?}, the caller's session is {ours}");
    }

    fn keep_session_keeps_the_session_but_not_the_process_group(who) {
        let script = "read -r pid comm state parent group session tty rest </proc/self/stat; echo $session $group";
        let ran = run(&mut sh(who, &["--keep-session"], script));
        let words: Vec<i32> = ran.ok().out.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        // SAFETY: no pointers.
        let session = unsafe { libc::getsid(0) };
        // SAFETY: as above.
        let group = unsafe { libc::getpgrp() };
        assert!(words[0] == session && words[1] != group, "{words:?}, not {session} {group}");
    }

    fn the_sandbox_ends_with_the_process_that_started_it(who) {
        let mut caller = who.command("sh");
        caller.args(["-c", "srt-ns -- sh -c 'echo up; exec sleep 1000' & wait"]);
        let mut running = Running::start(caller);
        assert_eq!(running.first, "up");
        running.child.kill().expect("kill");
        // The end of the pipe is the end of everybody who could write to it.
        assert_eq!(running.rest(), "");
    }

    fn outlive_parent_lets_the_sandbox_go_on(who) {
        let mut caller = who.command("sh");
        caller.args([
            "-c",
            "exec 3<&0; srt-ns --outlive-parent -- \
             sh -c 'echo up; read line; echo still here: $line' <&3 & wait",
        ]);
        let mut running = Running::start(caller);
        running.child.kill().expect("kill");
        wait(&mut running.child, "the caller's end");
        running.say("hello");
        assert_eq!(running.next_line(), "still here: hello");
    }

    fn the_command_is_pid_2_and_as_pid_1_makes_it_pid_1(who) {
        run(&mut sh(who, &[], "echo $$")).ok().says("2");
        run(&mut sh(who, &["--as-pid-1"], "echo $$; exit 7")).code(7).says("1");
        // What it leaves behind ends with it.
        run(&mut sh(who, &["--as-pid-1"], "sleep 1000 & exit 8")).code(8);
    }

    fn without_wait_all_what_the_command_leaves_behind_ends_with_it(who) {
        // A fifo keeps the command until what it leaves behind is there.
        let scratch = who.scratch();
        let script = format!(
            "mkfifo {0}/f; exec 3<&0; \
             (trap '' HUP; setsid sh -c 'echo up; : >{0}/f; read line; echo late' <&3) & : <{0}/f; exit 3",
            scratch.text()
        );
        let mut running = Running::start(sh(who, &[], &script));
        assert_eq!(wait(&mut running.child, "the command's end").code(), Some(3));
        // All who could write are gone, though nobody told them to be.
        assert_eq!(running.rest(), "");
    }

    fn wait_all_waits_for_daemons_and_gives_the_commands_status(who) {
        let daemon = "exec 3<&0; (trap '' HUP; setsid sh -c 'read line <&3; echo late: $line') & echo up; exit 3";
        let mut running = Running::start(sh(who, &["--wait-all"], daemon));
        running.say("hello");
        assert_eq!(running.next_line(), "late: hello");
        assert_eq!(wait(&mut running.child, "the last process").code(), Some(3));
    }

    fn wait_all_needs_srt_init(who) {
        refuses(who, &[&["--wait-all", "--as-pid-1"]]);
    }

    fn a_command_that_ignores_sigterm_is_killed_after_kill_after(who) {
        let stubborn = "trap '' TERM; echo up; while read line; do echo $line; done; sleep 1000";
        let mut mortal = Running::start(sh(who, &["--kill-after", "1"], stubborn));
        let mut immortal = Running::start(sh(who, &["--kill-after", "0"], stubborn));
        immortal.signal(libc::SIGTERM);
        mortal.signal(libc::SIGTERM);
        assert_eq!(wait(&mut mortal.child, "the kill").code(), Some(128 + libc::SIGKILL));
        immortal.say("alive");
        assert_eq!(immortal.next_line(), "alive");
        immortal.signal(libc::SIGKILL);
        assert_eq!(immortal.rest(), "");
    }

    fn a_command_that_obeys_sigterm_is_not_killed(who) {
        let mut running = Running::start(sh(who, &[], "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"));
        running.signal(libc::SIGTERM);
        assert_eq!(wait(&mut running.child, "the end").code(), Some(5));
    }

    fn kill_after_takes_seconds_and_fractions_of_them(who) {
        for seconds in ["0", "1", "0.25", "31536000"] {
            run(who.command("srt-ns").args(["--kill-after", seconds, "--", "true"])).ok();
        }
        refuses(who, &[
            &["--kill-after", "-1"],
            &["--kill-after", "1,5"],
            &["--kill-after", "1s"],
            &["--kill-after", "soon"],
            &["--kill-after", ""],
            &["--kill-after", "4294967296"],
            &["--kill-after", "1", "--kill-after", "2"],
        ]);
    }

    fn status_fd_tells_the_start_and_the_end(who) {
        let (code, lines) = status_of(who, &["sh", "-c", "exit 9"]);
        assert_eq!((code, lines.len()), (Some(9), 3), "{lines:?}");
        assert!(lines[0].starts_with(r#"{"stage":"srt-ns","event":"started","pid":"#), "{lines:?}");
        for name in NAMESPACES {
            assert!(lines[0].contains(&format!("\"{name}\":")), "{name} in {lines:?}");
        }
        assert_eq!(lines[1], r#"{"stage":"srt-ns","event":"exec"}"#);
        assert_eq!(lines[2], r#"{"stage":"srt-ns","event":"exited","code":9}"#);
        let (code, lines) = status_of(who, &["sh", "-c", "kill -KILL $$"]);
        assert_eq!((code, lines[2].as_str()), (Some(137), r#"{"stage":"srt-ns","event":"exited","signal":9}"#));
    }

    fn status_fd_tells_a_failure_of_srt_ns_from_the_commands_own_125(who) {
        let (code, lines) = status_of(who, &["sh", "-c", "exit 125"]);
        assert_eq!((code, lines[2].as_str()), (Some(125), r#"{"stage":"srt-ns","event":"exited","code":125}"#));
        for (program, number) in [("/nonexistent", 127), ("/etc/passwd", 126)] {
            let (code, lines) = status_of(who, &[program]);
            assert_eq!(code, Some(number));
            let failed = format!(r#"{{"stage":"srt-ns","event":"failed","code":{number},"message":"cannot run {program}: "#);
            assert!(lines.iter().any(|line| line.starts_with(&failed)), "{lines:?}");
        }
    }

    fn the_pid_and_the_namespaces_of_the_start_event_are_the_hosts(who) {
        let (read, write) = std::io::pipe().expect("pipe");
        let mut command = who.command("srt-ns");
        command.args(["--status-fd", "7", "--", "sh", "-c", "echo up; read line"]);
        pass_fd(&mut command, write.as_raw_fd(), 7);
        let running = Running::start(command);
        drop(write);
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).expect("read");
        let number = |key: &str| -> u64 {
            let after = line.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {line}")).1;
            after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().expect("a number")
        };
        let pid = number("pid");
        for name in NAMESPACES {
            let inode = std::fs::metadata(format!("/proc/{pid}/ns/{name}")).expect("namespace").ino();
            // The first "pid" in the line is the process.
            let said = if name == "pid" { inode_of_pid_namespace(&line) } else { number(name) };
            assert_eq!(said, inode, "{name} in {line}");
        }
        running.signal(libc::SIGKILL);
        assert_eq!(running.rest(), "");
    }

    fn the_command_is_in_its_network_when_its_pid_is_told(who) {
        for options in [&[][..], &["--as-pid-1"]] {
            for program in [&["sleep", "1000"][..], &["srt-mount", "--ro-bind", "/", "/", "--", "sleep", "1000"]] {
                for _ in 0..5 {
                    let (read, write) = std::io::pipe().expect("pipe");
                    let mut command = who.command("srt-ns");
                    command.args(["--status-fd", "7"]).args(options).arg("--").args(program);
                    pass_fd(&mut command, write.as_raw_fd(), 7);
                    let mut supervisor = command.spawn().expect("srt-ns");
                    drop(write);
                    let mut line = String::new();
                    BufReader::new(read).read_line(&mut line).expect("read");
                    let number = |key: &str| line.split_once(key).expect("a key").1.split([',', '}']).next().expect("a number");
                    let link = std::fs::read_link(format!("/proc/{}/ns/net", number("\"pid\":")));
                    supervisor.kill().expect("kill");
                    supervisor.wait().expect("wait");
                    assert_eq!(link.expect("it runs").display().to_string(), format!("net:[{}]", number("\"net\":")), "{program:?}");
                }
            }
        }
    }

    fn status_fd_and_keep_fd_take_open_descriptors_only(who) {
        for option in ["--status-fd", "--keep-fd"] {
            refuses(who, &[
                &[option, "99"],
                &[option, "-1"],
                &[option, "x"],
                &[option, ""],
                &[option, "2147483647"],
                &[option, "2147483648"],
            ]);
        }
        // The failure goes to the first one.
        let mut twice = who.command("srt-ns");
        twice.args(["--status-fd", "2", "--status-fd", "2", "--", "echo", "it ran"]);
        run(&mut twice).code(125).complains("--status-fd").says("");
    }

    fn keep_fd_passes_exactly_what_it_names(who) {
        let file = std::fs::File::open("/dev/zero").expect("open");
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "8", "--keep-fd", "5", "--keep-fd", "5", "--keep-fd", "0"]);
        command.args(["--", "sh", "-c", "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done"]);
        for number in 3..12 {
            pass_fd(&mut command, file.as_raw_fd(), number);
        }
        run(&mut command).ok().says("0\n1\n2\n5\n8");
    }

    fn the_status_descriptor_does_not_reach_the_command(who) {
        let (_code, lines) = status_of(who, &["sh", "-c", "echo forged >&7"]);
        assert!(lines.iter().all(|line| !line.contains("forged")), "{lines:?}");
    }

    fn pid_1_shows_its_name_and_nothing_else(who) {
        let script = "tr '\\0' '|' </proc/1/cmdline; echo; cat /proc/1/comm; grep -E '^(Cap|NoNewPrivs|Uid)' /proc/1/status";
        let id = who.uid();
        run(&mut sh_with_proc(who, &[], script)).ok().says(&format!(
            "srt-init|\nsrt-init\nUid:\t{id}\t{id}\t{id}\t{id}\n{}\nNoNewPrivs:\t1",
            no_capabilities()
        ));
        for secret in [
            "cat /proc/1/environ",
            "readlink /proc/1/fd/*",
            "ls /proc/1/root/",
            "ls /proc/1/cwd/",
            "readlink /proc/1/exe",
            "cat /proc/1/mem",
            "cat /proc/1/maps",
            "ls /proc/1/map_files",
            "cat /proc/1/syscall",
        ] {
            // The control: of itself, and of a process beside it, the command may know.
            let of_another = secret.replace("/proc/1/", "/proc/$!/");
            if !secret.contains("/mem") && !secret.contains("map_files") {
                // Again: before its exec and in its loader it has descriptors that are closed between two looks.
                let control = format!("sleep 1000 & for i in $(seq 100); do {of_another} >/dev/null && exit; sleep 0.05; done; exit 1");
                run(&mut sh_with_proc(who, &[], &control)).ok();
            }
            let ran = run(&mut sh_with_proc(who, &[], secret));
            assert!(ran.code != Some(0) && ran.out.is_empty(), "{secret}: {ran:#?}");
        }
    }

    fn pid_1_does_not_obey_the_command(who) {
        let script = "for signal in TERM INT HUP QUIT KILL STOP USR1 SEGV RTMIN; do kill -s $signal 1; done\n\
                      echo alive; exit 4";
        run(&mut sh(who, &[], script)).code(4).says("alive");
    }

    fn pid_1_has_one_pipe_and_an_empty_read_only_root(who) {
        let file = std::fs::File::open("/dev/zero").expect("open");
        let mut command = sh(who, &["--keep-fd", "8"], "echo up; read line");
        pass_fd(&mut command, file.as_raw_fd(), 8);
        let running = Running::start(command);
        let init = running.child_named("srt-init");
        // Root on the host sees everything.
        let entries = |what: &str| {
            let entries = std::fs::read_dir(format!("/proc/{init}/{what}")).expect("read_dir");
            entries.map(|entry| entry.expect("entry").path()).collect::<Vec<_>>()
        };
        let is_pipe = |path: &std::path::PathBuf| std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"));
        // It lets the command run over a socket, which it closes then.
        srt_tests::wait_until("one pipe", || matches!(entries("fd").as_slice(), [fd] if is_pipe(fd)));
        assert!(entries("root/").is_empty() && entries("cwd/").is_empty());
        let mounts = std::fs::read_to_string(format!("/proc/{init}/mountinfo")).expect("mountinfo");
        assert!(mounts.lines().count() == 1 && mounts.contains(" / / ro,"), "{mounts}");
        let write = std::fs::write(format!("/proc/{init}/root/new"), "").expect_err("read-only");
        assert_eq!(write.raw_os_error(), Some(libc::EROFS));
        let environ = std::fs::read(format!("/proc/{init}/environ")).expect("environ");
        assert!(environ.iter().all(|&byte| byte == 0), "{}", String::from_utf8_lossy(&environ));
        running.signal(libc::SIGKILL);
        assert_eq!(running.rest(), "");
    }

    fn the_callers_session_keyring_stays_with_the_caller(who) {
        // add_key(2), keyctl(2): KEYCTL_JOIN_SESSION_KEYRING 1, KEYCTL_SEARCH 10, KEY_SPEC_SESSION_KEYRING -3.
        let python = |last: &str| format!(
            "import ctypes, os, platform, sys\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             add_key, keyctl = (248, 250) if platform.machine() == 'x86_64' else (217, 219)\n\
             {last}"
        );
        let search = python("print('found' if libc.syscall(keyctl, 10, -3, b'user', b'srt-secret', 0) > 0 else 'none')");
        let caller = python(
            "libc.syscall(keyctl, 1, None)\n\
             if libc.syscall(add_key, b'user', b'srt-secret', b'x', 1, -3) < 0: sys.exit('no keyring: errno %d' % ctypes.get_errno())\n\
             os.execvp(sys.argv[1], sys.argv[1:])",
        );
        let with_key = |more: &[&str]| {
            run(who.command("python3").args(["-c", &caller]).args(more).args(["python3", "-c", &search]))
        };
        let control = with_key(&["env"]);
        if control.err.contains("no keyring") {
            skip!("{}", control.err);
        }
        control.ok().says("found");
        let ns = srt_tests::tool("srt-ns");
        with_key(&[ns.to_str().expect("UTF-8"), "--"]).ok().says("none");
    }

    fn the_loopback_interface_is_up_and_the_only_one(who) {
        let script = "import socket\n\
            for family, address in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'):\n\
            \x20   server = socket.socket(family); server.bind((address, 0)); server.listen()\n\
            \x20   client = socket.create_connection(server.getsockname()[:2], 5)\n\
            \x20   client.sendall(b'x'); print(address, server.accept()[0].recv(1) == b'x')\n\
            print([name for _, name in socket.if_nameindex()])";
        let mut command = who.command("srt-ns");
        command.args(["--", "python3", "-c", script]);
        if !srt_tests::has_ipv6() {
            skip!("no IPv6");
        }
        run(&mut command).ok().says("127.0.0.1 True\n::1 True\n['lo']");
    }

    fn the_hosts_loopback_is_out_of_reach_unless_the_network_is_shared(who) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let script = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('through')");
        let with = |options: &[&str]| {
            run(who.command("srt-ns").args(options).args(["--", "python3", "-c", &script]))
        };
        with(&["--share", "net"]).ok().says("through");
        with(&[]).code(1).complains("ConnectionRefusedError").says("");
    }

    fn an_option_value_may_be_any_bytes_where_the_kernel_takes_them(who) {
        let name = OsString::from_vec(b"h\xff".to_vec());
        let mut command = who.command("srt-ns");
        command.arg("--hostname").arg(&name).args(["--", "sh", "-c", "uname -n | od -An -tx1"]);
        run(&mut command).ok().says(" 68 ff 0a");
    }
}

/// The five sets in /proc/PID/status, all empty.
fn no_capabilities() -> String {
    ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:\t0000000000000000")).join("\n")
}

/// Runs a program with `--status-fd 7`; its exit code and what was written there.
fn status_of(who: Who, program: &[&str]) -> (Option<i32>, Vec<String>) {
    let (mut read, write) = std::io::pipe().expect("pipe");
    let mut command = who.command("srt-ns");
    command.args(["--status-fd", "7", "--"]).args(program);
    pass_fd(&mut command, write.as_raw_fd(), 7);
    let ran: Ran = run(&mut command);
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("read");
    (ran.code, text.lines().map(str::to_owned).collect())
}

/// `"namespaces":{…"pid":N…}`.
fn inode_of_pid_namespace(line: &str) -> u64 {
    let inner = line.split_once("\"namespaces\":").expect("namespaces").1;
    let number = inner.split_once("\"pid\":").expect("pid").1;
    number.split(|c: char| !c.is_ascii_digit()).next().expect("digits").parse().expect("a number")
}

/// The harness plays both parts, so it must be the user that it says.
#[test]
fn the_ordinary_user_is_one() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    run(Who::User.command("id").arg("-u")).ok().says(&USER.to_string());
}
