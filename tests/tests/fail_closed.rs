//! If any part of the sandbox cannot be had, the command does not run: every system call of a start that builds or locks
//! something is made to fail, one after the other.

use srt_tests::host::Greeter;
use srt_tests::processes::{attach_strace, inside};
use srt_tests::{READ_ONLY, Ran, Who, both, run};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

/// The calls that make the sandbox what it is. (What reads and closes is left out: a failing close(2) weakens nothing.)
const PROTECTIVE: &str = "unshare,setsid,keyctl,capget,capset,prctl,close_range,pidfd_open,signalfd4,fsopen,fsconfig,fsmount,\
    open_tree,move_mount,mount_setattr,pivot_root,umount2,fchdir,getdents64,seccomp";

/// The whole chain under strace(1), around a command that says if it runs.
fn traced(who: Who, log: &str, inject: &[String]) -> Ran {
    let mut command = who.command("strace");
    command.args(["--follow-forks", "--quiet=all", "--output", log]).arg(format!("--trace={PROTECTIVE}"));
    command.args(inject.iter().flat_map(|what| ["-e", what])).arg(srt_tests::tool("srt-ns"));
    command.args(["--", "srt-mount"]).args(READ_ONLY).args(["--tmpfs", "/mnt"]);
    run(command.args(["--mask", "/etc/passwd", "--", "srt-seccomp", "--", "echo", "it ran"]))
}

/// Each call, and how often a process of the chain makes it. Of the many that empty the bounding set the first will do.
fn calls(log: &str) -> BTreeSet<(String, usize)> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut calls = BTreeSet::new();
    for line in log.lines() {
        let Some((process, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let count = seen.entry((process, name)).or_default();
        *count += 1;
        if !arguments.starts_with("PR_CAPBSET_DROP") || *count == 1 {
            calls.insert((name.to_owned(), *count));
        }
    }
    calls
}

both! {
    fn mounts_that_cannot_be_looked_at_are_an_error(who) {
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--output=/dev/null", "--trace-path=/proc/self/mountinfo"]);
        let refused = ["--inject=?open,openat:error=EACCES", "--", "srt-ns", "--", "srt-mount", "--ro-bind", "/", "/", "--", "echo", "it ran"];
        let ran = run(command.args(refused));
        ran.code(125).one_clear_error("srt-mount").complains("/proc/self/mountinfo: Permission denied").says("");
    }

    fn however_few_descriptors_there_are_nobody_is_in_the_network_of_the_host(who) {
        let host = std::fs::read_link("/proc/self/ns/net").expect("the host's");
        let host = host.to_str().expect("UTF-8");
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("s.sock"), "hello");
        let relay = ["--relay".to_owned(), format!("4000={}/s.sock", scratch.text())];
        let publish = |number| ["--publish".to_owned(), format!("{}/p{number}=500{number}", scratch.text())];
        // One that ends before the command has started ends the start.
        let sidecar = ["--sidecar".to_owned(), format!("readlink /proc/self/ns/net >>{}/sidecars; exec sleep 60", scratch.text())];
        for options in [
            publish(1).to_vec(),
            (1..=4).flat_map(publish).collect(),
            [relay, publish(1)].concat(),
            [publish(1), sidecar].concat(),
        ] {
            let mut ran_inside = 0;
            for limit in 8..42 {
                let mut command = who.command("prlimit");
                command.arg(format!("--nofile={limit}")).arg(srt_tests::tool("srt-ns")).args(&options);
                command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc"]);
                let ran = run(command.args(["--", "readlink", "/proc/self/ns/net"]));
                assert!(!ran.out.contains(host), "{options:?} {limit}: {ran:#?}");
                ran_inside += usize::from(ran.out.starts_with("net:["));
            }
            assert!(ran_inside > 5, "{options:?}: {ran_inside}");
        }
        let sidecars = std::fs::read_to_string(scratch.join("sidecars")).expect("they have run");
        assert!(sidecars.contains("net:[") && !sidecars.contains(host), "{host} {sidecars}");
    }

    fn a_message_of_the_start_that_cannot_be_sent_is_not_waited_for(who) {
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("s.sock"), "hello");
        let relay = format!("4000={}/s.sock", scratch.text());
        let placeholder = scratch.join("it").display().to_string();
        // The command's own, and its second; the supervisor's, which has sent one to srt-relay before; the watchdog's.
        for (when, options) in [(1, &[][..]), (2, &[]), (2, &["--relay", &relay]), (1, &["--placeholder", &placeholder])] {
            for failure in ["error=ETOOMANYREFS", "retval=0"] {
                let mut command = who.command("strace");
                command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--trace=sendmsg"]);
                command.args(["-e", &format!("inject=sendmsg:{failure}:when={when}")]).arg(srt_tests::tool("srt-ns"));
                let ran = run(command.args(options).args(["--status-fd", "1", "--", "echo", "it ran"]));
                assert!(ran.code == Some(125) && !ran.out.contains("it ran"), "{when} {failure}: {ran:#?}");
                ran.one_clear_error("srt-ns").complains("sendmsg");
            }
        }
    }

    fn a_read_of_the_start_that_fails_is_not_waited_for(who) {
        for options in [&["--as-pid-1"][..], &["--sidecar", "sleep 30"]] {
            let mut refused = 0;
            for when in 1..16 {
                let mut command = who.command("strace");
                command.args(["--quiet=all", "--signal=none", "--output=/dev/null", "--trace=read"]);
                command.args(["-e", &format!("inject=read:error=EIO:when={when}")]).arg(srt_tests::tool("srt-ns"));
                let ran = run(command.args(options).args(["--", "echo", "it ran"]));
                let told = ran.code == Some(125) && ran.err.starts_with("srt-ns: ");
                // One that has another way.
                assert!(told || ran.code == Some(0), "{options:?} {when}: {ran:#?}");
                refused += usize::from(told);
            }
            assert!(refused > 1, "{options:?}: {refused}");
        }
    }

    fn what_srt_init_cannot_do_without_a_stderr_is_told(who) {
        // Held open by srt-mount, which reads its options; then srt-init alone is traced.
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--args", "0", "--ro-bind", "/", "/", "--", "echo", "it ran"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("srt-ns");
        let mut strace = attach_strace(inside(child.id(), 1), "sendmsg", "error=ENOBUFS");
        drop(child.stdin.take());
        let ran = child.wait_with_output().expect("its end");
        let _ended = strace.wait();
        let told = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(told, "srt-ns: srt-init cannot let the command run: No buffer space available\n");
        assert!(ran.status.code() == Some(125) && ran.stdout.is_empty(), "{ran:?}");
    }

    fn whatever_is_refused_nothing_runs(who) {
        let scratch = who.scratch();
        let log = scratch.file("log", "");
        let log = log.to_str().expect("UTF-8");
        // The control, and what there is to refuse.
        traced(who, log, &[]).ok().says("it ran");
        let calls = calls(&std::fs::read_to_string(log).expect("the log"));
        assert!(calls.len() > 30, "{calls:?}");
        for (call, when) in calls {
            let ran = traced(who, log, &[format!("inject={call}:error=EPERM:when={when}")]);
            let told = ran.err.lines().all(|line| line.starts_with("srt-"));
            let message = format!("{call}, the {when}. time: {ran:#?}");
            assert!(ran.code == Some(125) && ran.out.is_empty() && told, "{message}");
            assert!(!ran.err.contains("panicked"), "{message}");
            // srt-init closes its stderr at last: what it cannot do then, it cannot tell.
            assert!(!ran.err.is_empty() || call == "close_range", "{message}");
        }
    }
}
