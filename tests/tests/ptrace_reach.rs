//! Everything beside the sandbox is out of ptrace's reach, even where a procfs that shows the host is visible inside:
//! /proc/PID/root is the host's files, /proc/PID/mem a process's memory.

use srt_tests::attacks::{Sandbox, outside};
use srt_tests::host::Greeter;
use srt_tests::processes::{self, Process, child_named, is_inside};
use srt_tests::talk::Talk;
use srt_tests::{Scratch, Who, both, run, tool, wait_until};
use std::process::Command;
use std::time::Duration;

/// What ptrace(2)'s access check guards in a process's directory: `@` is the directory.
const GUARDED: [&str; 11] = [
    "list @/root",
    "read @/root/proc/version",
    "list @/cwd",
    "list @/map_files",
    "open-read @/exe",
    "open-read @/mem",
    "open-write @/mem",
    "open-read @/ns/net",
    "open-read @/ns/user",
    "read @/environ",
    "read @/maps",
];

/// Those that ask for the right to trace when they are read.
const READ: [&str; 2] = ["read @/syscall", "read @/stack"];

fn attacks(directory: &str) -> Vec<String> {
    GUARDED.iter().map(|attack| attack.replace('@', directory)).collect()
}

/// How the host's processes become visible inside: options of srt-mount, and where its procfs is then.
fn views(scratch: &Scratch) -> Vec<(Vec<String>, String)> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let chroot = scratch.join("chroot/proc").display().to_string();
    vec![
        (words("--ro-bind / / --dev /dev"), "/proc".into()),
        (words("--ro-bind / / --dev /dev --ro-bind /proc /proc"), "/proc".into()),
        (words("--bind / / --dev-bind /dev /dev"), "/proc".into()),
        // The procfs of a chroot somewhere in the tree.
        (words("--ro-bind / / --dev /dev --proc /proc"), chroot),
    ]
}

/// srt-ns in a mount namespace in which `chroot/proc` is a procfs of the host.
fn with_a_chroot(who: Who, scratch: &Scratch) -> Command {
    let mut command = Who::Root.command("unshare");
    let script = "mount -t proc proc \"$0\" && exec \"$@\"";
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .arg(scratch.dir("chroot/proc"));
    if who == Who::User {
        command.args(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
    }
    command.arg(tool("srt-ns"));
    command
}

/// The chain with options for srt-ns, its command being a shell that reads one word of its attacks after the other.
fn start(who: Who, scratch: &Scratch, ns: &[&str], mounts: &[String], before: &[&str]) -> Talk {
    let mut command = with_a_chroot(who, scratch);
    command.args(ns).args(["--", "srt-mount"]).args(mounts);
    command.args(["--", "srt-seccomp", "--"]).args(before);
    // The host's /tmp is visible in each of the views, and the attacker's program in it.
    let script = "echo ready; while read -r attack; do $0 $attack; done";
    let mut talk = Talk::over_pipes(command.args(["sh", "-c", script]).arg(tool("attack")));
    talk.expect("ready\n");
    talk
}

/// Who of a sandbox is to be out of reach: everybody but the command and what it has started.
fn beside(talk: &Talk) -> Vec<Process> {
    let all = std::iter::once(Process::find(talk.pid()).expect("the supervisor"))
        .chain(processes::descendants(talk.pid()));
    all.filter(|process| process.is_alive() && (!is_inside(process.pid) || process.name == "srt-init"))
        .collect()
}

#[track_caller]
fn all_refused(talk: &mut Talk, target: &Process, attacks: &[String], how: &str) {
    for attack in attacks {
        talk.send(&format!("{attack}\n"));
        let said = talk.line();
        assert!(said.starts_with("refused"), "{how}: {attack} of {}: {said}", target.name);
    }
}

/// The options that put something beside the sandbox; a socket each. The `number` of a start: the relay of the one before
/// may still listen.
fn company(scratch: &Scratch, number: usize) -> Vec<Vec<String>> {
    let socket = scratch.join("host.sock").display().to_string();
    let published = scratch.join(format!("dev{number}.sock")).display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let relay = format!("8080={socket}");
    let publish = format!("{published}=8000");
    vec![
        words(&["--sidecar", "exec sleep 1000"]),
        words(&["--sidecar", "exec sleep 1000", "--allow-userns"]),
        words(&["--sidecar", "exec sleep 1000", "--as-pid-1"]),
        words(&["--relay", &relay, "--publish", &publish]),
        words(&["--relay", &relay, "--sidecar", "exec sleep 1000", "--as-pid-1"]),
    ]
}

/// A process of the user's that has nothing to do with a sandbox.
fn victim(who: Who) -> Talk {
    let mut talk = Talk::over_pipes(who.command("sh").args(["-c", "echo ready; exec cat"]));
    talk.expect("ready");
    srt_tests::wait_until("the victim", || {
        Process::find(talk.pid()).is_some_and(|process| process.name == "cat")
    });
    talk
}

fn options(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

both! {
    fn nobody_beside_the_sandbox_can_be_looked_into_through_the_hosts_procfs(who) {
        let scratch = who.scratch();
        let _host = Greeter::start(&scratch.join("host.sock"), "host");
        for (number, (mounts, proc)) in views(&scratch).into_iter().enumerate() {
            for ns in company(&scratch, number) {
                let mut talk = start(who, &scratch, &options(&ns), &mounts, &[]);
                // A sidecar is its shell at first.
                let sidecars = ns.iter().filter(|word| *word == "--sidecar").count();
                srt_tests::wait_until("the sidecar", || {
                    beside(&talk).iter().filter(|process| process.name == "sleep").count() == sidecars
                });
                let targets = beside(&talk);
                for target in &targets {
                    let directory = format!("{proc}/{}", target.pid);
                    all_refused(&mut talk, target, &attacks(&directory), &format!("{ns:?} {mounts:?}"));
                    for attack in READ.map(|attack| attack.replace('@', &directory)) {
                        // A kernel without one of these has no such file: refused as well.
                        all_refused(&mut talk, target, &[attack], &format!("{ns:?} {mounts:?}"));
                    }
                }
                // The control, of the view: the host is visible.
                talk.send(&format!("read {proc}/{}/comm\n", talk.pid()));
                assert!(talk.line().starts_with("succeeded"), "{mounts:?} shows no host");
            }
        }
    }

    fn a_user_namespace_inside_is_no_way_to_a_sidecar(who) {
        let scratch = who.scratch();
        let (mounts, proc) = views(&scratch).swap_remove(3);
        let ns = ["--sidecar", "exec sleep 1000", "--allow-userns"];
        let mut talk = start(who, &scratch, &ns, &mounts, &["unshare", "--user"]);
        let sidecar = Process::find(child_named(talk.pid(), "sleep")).expect("the sidecar");
        all_refused(&mut talk, &sidecar, &attacks(&format!("{proc}/{}", sidecar.pid)), "in a user namespace");
    }

    fn an_admin_of_the_sandbox_is_none_of_a_sidecars(who) {
        let scratch = who.scratch();
        let mut command = with_a_chroot(who, &scratch);
        command.args(["--sidecar", "exec sleep 1000", "--keep-admin", "--", "sh", "-c"]);
        let attack = tool("attack");
        let script = format!("echo ready; while read -r attack; do {} $attack; done", attack.display());
        let mut talk = Talk::over_pipes(command.arg(script));
        talk.expect("ready\n");
        let sidecar = Process::find(child_named(talk.pid(), "sleep")).expect("the sidecar");
        all_refused(&mut talk, &sidecar, &attacks(&format!("/proc/{}", sidecar.pid)), "--keep-admin");
    }

    fn of_a_process_of_ones_own_all_of_it_can_be_had(who) {
        // The control: the same uid, started outside, attacked from outside.
        let victim = victim(who);
        outside(who, &attacks(&format!("/proc/{}", victim.pid()))).all_got_through();
        outside(who, &[format!("ptrace-attach {}", victim.pid())]).all_got_through();
    }

    fn of_an_ordinary_process_outside_nothing_can_be_had_from_inside(who) {
        // What protects it is the user namespace that the sandbox has: a sidecar must have no worse protection.
        let scratch = who.scratch();
        let (mounts, proc) = views(&scratch).swap_remove(0);
        let victim = victim(who);
        let mut talk = start(who, &scratch, &[], &mounts, &[]);
        let target = Process::find(victim.pid()).expect("the victim");
        all_refused(&mut talk, &target, &attacks(&format!("{proc}/{}", target.pid)), "without company");
    }

    fn a_sidecar_works_as_before_beside_a_command_in_a_namespace_of_its_own(who) {
        // The same network, and the command cannot tell the difference: its uid, its mounts, its way out.
        if !srt_tests::has("socat") {
            srt_tests::skip!("no socat");
        }
        let scratch = who.scratch();
        let socket = scratch.join("host.sock");
        let _host = Greeter::start(&socket, "from the host");
        let sidecar = format!("exec socat TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,fork UNIX-CONNECT:{}", socket.display());
        let script = "id -u; touch written && echo written; until exec 3<>/dev/tcp/127.0.0.1/8080; do :; done; cat <&3";
        let work = scratch.dir("work");
        let sandbox = Sandbox::new(who, &work).ns(&["--sidecar", &sidecar]);
        let ran = run(&mut sandbox.command(&["bash", "-c", &format!("{{ {script}; }} 2>/dev/null")]));
        ran.ok().says(&format!("{}\nwritten\nfrom the host", who.uid()));
        assert!(work.join("written").exists());
    }

    fn a_command_that_makes_its_parent_its_tracer_waits_in_vain_and_is_not_taken_for_dead(who) {
        let script = "
import ctypes, os, signal
assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0  # PTRACE_TRACEME
os.write(1, b'ready')
os.kill(os.getpid(), signal.SIGUSR1)
";
        for options in [&[][..], &["--as-pid-1"], &["--keep-session"], &["--wait-all"]] {
            let mut talk = Talk::over_pipes(who.command("srt-ns").args(options).args(["--", "/usr/bin/python3", "-c", script]));
            talk.expect("ready");
            let is_trapped = |process: &Process| process.name.starts_with("python3") && process.state == 't';
            let find = || processes::descendants(talk.pid()).into_iter().find(is_trapped);
            wait_until("the stop", || find().is_some());
            let command = find().expect("the command").pid;
            assert!(talk.is_silent_for(Duration::from_millis(200)), "{options:?}: it ended");
            processes::kill(command, libc::SIGKILL);
            assert_eq!(talk.end().0, 137, "{options:?}");
        }
    }
}
