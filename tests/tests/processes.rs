//! Promise 3: no process outside is seen, signalled, traced or read, PID 1 included; promise 6: none of the command's
//! outlives the sandbox.

use srt_tests::attacks::{INSIDE, Sandbox, behind, outside};
use srt_tests::processes::{child_named, kill};
use srt_tests::talk::Talk;
use srt_tests::{Who, both, has, run, skip, tool, wait, wait_until};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

/// A process of the same user, outside.
fn victim(who: Who) -> Child {
    let child = who.command("sleep").arg("60").spawn().expect("sleep");
    // Through setpriv it is not yet the user's own.
    let name = format!("/proc/{}/comm", child.id());
    wait_until("the victim", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
    child
}

fn end(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// What shows, reads or changes a process by its number.
fn on(pid: u32) -> Vec<String> {
    vec![
        format!("kill {pid} 0"),
        format!("ptrace-seize {pid}"),
        format!("vm-read {pid}"),
        format!("vm-write {pid}"),
        format!("pidfd-getfd {pid} 0"),
        format!("kcmp {pid}"),
        format!("robust-list {pid}"),
        format!("? madvise {pid}"),
        format!("pidfd-signal {pid} 0"),
        format!("read /proc/{pid}/environ"),
        format!("read /proc/{pid}/mem"),
        format!("list /proc/{pid}/fd"),
        format!("list /proc/{pid}/root/"),
        format!("read /proc/{pid}/cmdline"),
    ]
}

both! {
    fn a_process_outside_is_neither_seen_nor_touched(who) {
        let work = who.scratch();
        let victim = victim(who);
        // Behind number 1 no process has so high a number inside, or it is the attacker's own: so neither is asked.
        let attacks = on(victim.id());
        let ran = Sandbox::new(who, work.path()).each(&["processes"]);
        let seen: Vec<u32> = ran.said().split(' ').map(|pid| pid.parse().expect("a number")).collect();
        assert!(seen.contains(&1) && seen.len() <= 4 && !seen.contains(&victim.id()), "{seen:?}");
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        let control: Vec<_> = attacks.iter().filter(|attack| !attack.contains("/mem")).collect();
        outside(who, &control).all_got_through();
        assert!(outside(who, &["processes"]).said().split(' ').any(|pid| pid == victim.id().to_string()));
        end(victim);
    }

    fn pid_1_is_not_starved_of_a_processor(who) {
        // A PID 1 that gets no turn could not end the sandbox, even when it is killed.
        let starve = ["chrt --idle --pid 0 1", "chrt --batch --pid 0 1", "taskset --pid 1 1", "renice 19 --pid 1", "renice 19 --pgrp 1", "renice 19 --user $(id -u)", "renice 19 --pgrp $$"];
        let work = who.scratch();
        for command in starve {
            let sandbox = Sandbox::new(who, work.path());
            let ran = run(&mut sandbox.command(&["sh", "-c", &format!("LC_ALL=C {command}")]));
            assert!(ran.code != Some(0) && ran.err.contains("Operation not permitted"), "{command}: {ran:#?}");
            run(&mut sandbox.seccomp(&["--allow", "pid1"]).command(&["sh", "-c", command])).ok();
        }
        // Where the command is PID 1 itself, its scheduling is its own.
        let own = "taskset --pid 1 $$ && renice 19 --pid $$ && chrt --batch --pid 0 $$";
        let sandbox = || Sandbox::new(who, work.path());
        run(&mut sandbox().ns(&["--as-pid-1"]).command(&["sh", "-c", own])).ok();
        if fs::exists("/proc/1/autogroup").expect("/proc") {
            let open = ["sh", "-c", ": >/proc/1/autogroup"];
            let refused = if who == Who::Root { "Read-only file system" } else { "Permission denied" };
            for proc in ["--proc", "--proc-pids"] {
                let sandbox = Sandbox::new(who, work.path()).mounts(&[proc, "/proc"]);
                run(&mut sandbox.command(&open)).code(2).complains(&format!("cannot create /proc/1/autogroup: {refused}"));
                // The command's own.
                run(&mut sandbox.ns(&["--as-pid-1"]).command(&open)).ok();
            }
        }
        // uid 0 of a container is the owner of PID 1's files, too.
        if fs::exists("/proc/1/autogroup").expect("/proc") {
            for (option, code) in [(&[][..], 2), (&["--as-pid-1"], 0)] {
                let mut command = who.command("unshare");
                command.arg("-Ur").arg(tool("srt-ns")).args(option).args(["--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc"]);
                run(command.args(["--", "sh", "-c", ": >/proc/1/autogroup"])).code(code);
            }
        }
        let own = "chrt --batch --pid 0 $$ && taskset --pid 1 $$ && renice 19 --pid $$ && nice chrt --idle 0 true";
        run(&mut Sandbox::new(who, work.path()).command(&["sh", "-c", own])).ok();
    }

    fn pid_1_is_neither_traced_nor_read_nor_ended(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        let mut attacks = vec![
            "ptrace-attach 1".to_owned(),
            "write /proc/1/mem".into(),
            "read /proc/1/maps".into(),
            "read /proc/1/auxv".into(),
            "read /proc/1/io".into(),
            "read /proc/1/stack".into(),
            "read /proc/1/syscall".into(),
            "list /proc/1/fdinfo".into(),
            "list /proc/1/map_files".into(),
            "list /proc/1/cwd/".into(),
            "read /proc/1/exe".into(),
            "write /proc/1/exe".into(),
            "overwrite-exe 1".into(),
            "perf 1".into(),
            "stat /proc/1/ns/mnt/".into(),
            // Nobody inside can look like the supervisor.
            "sigqueue 1 34".into(),
        ];
        // It may be signalled, which does nothing, and that it exists and is called srt-init is no secret.
        // (uid 0 may list its descriptor, the end of a pipe that only writes, and not open it.)
        let open = ["kill 1", "pidfd-signal 1", "read /proc/1/cmdline", "list /proc/1/fd"];
        attacks.extend(on(1).into_iter().filter(|attack| !open.iter().any(|known| attack.starts_with(known))));
        sandbox.each(&attacks).all_were_refused();
        // Again: when the command begins srt-init may not have closed yet what it has sent the word by.
        let list = || sandbox.each(&["list /proc/1/fd"]).said().to_owned();
        let settled = |number: &String| number.parse::<u32>().is_ok() || number.starts_with("refused");
        let number = std::iter::repeat_with(list).take(10).find(settled).expect("one descriptor");
        if number.parse::<u32>().is_ok() {
            sandbox.each(&[format!("write /proc/1/fd/{number}")]).all_were_refused();
        }
        // The same on a process that is none of srt-ns's.
        let victim = victim(who);
        let control: Vec<String> = attacks
            .iter()
            .filter(|attack| !["ptrace-attach", "write", "overwrite-exe", "read /proc/1/stack", "perf", "stat", "sigqueue"].iter().any(|not| attack.starts_with(not)))
            .filter(|attack| !attack.contains("map_files") && !attack.contains("/mem"))
            .map(|attack| attack.replace("/1/", &format!("/{}/", victim.id())).replace(" 1", &format!(" {}", victim.id())))
            .collect();
        outside(who, &control).all_got_through();
        outside(who, &[format!("ptrace-attach {}", victim.id())]).all_got_through();
        end(victim);
    }

    fn pid_1_tells_nothing_of_the_caller(who) {
        let work = who.scratch();
        let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/1/comm; cat /proc/1/environ 2>/dev/null; readlink /proc/1/root /proc/1/exe; cut -d' ' -f4,5 /proc/1/mountinfo";
        let mut command = Sandbox::new(who, work.path()).ns(&["--hostname", "secret-word"]).command(&["sh", "-c", script]);
        run(command.env("SECRET", "secret-word")).ok().says("srt-init \nsrt-init");
    }

    fn what_the_supervisor_sends_inside_tells_nothing_of_the_caller(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let work = who.scratch();
        // It is held open, so that it is seen by one that is not in the command's group, which is stopped first.
        let script = "import os
if os.fork(): os.wait()
os.setsid()
print('ready', flush=True)
said = set()
while True:
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try: words = open(f'/proc/{pid}/cmdline', 'rb').read()
        except OSError: continue
        if words not in said: print(words, flush=True)
        said.add(words)";
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null", "--seccomp-bpf", "--trace=kill"]);
        command.args(["-e", "inject=kill:delay_enter=500000"]).arg(srt_tests::tool("srt-ns"));
        command.args(Sandbox::new(who, work.path()).ns(&["--hostname", "secret-word"]).words());
        let mut talk = Talk::over_pipes(command.args(["/usr/bin/python3", "-c", script]));
        talk.expect("ready");
        talk.expect("srt-init");
        let supervisor = child_named(talk.pid(), "srt-ns");
        kill(supervisor, libc::SIGTSTP);
        let said = talk.expect("srt-ns");
        kill(supervisor, libc::SIGKILL);
        let more = talk.end().1;
        assert!(!said.contains("secret-word") && !more.contains("secret-word"), "{said}{more}");
    }

    fn no_signal_ends_pid_1_from_inside(who) {
        let work = who.scratch();
        let all: Vec<String> = (1..=64)
            .flat_map(|signal| {
                let kinds: &[&str] = if [9, 19].contains(&signal) { &["kill", "pidfd-signal", "tgkill"] } else { &["kill", "sigio"] };
                kinds.iter().map(move |kind| format!("{kind} 1 {signal}")).collect::<Vec<_>>()
            })
            .collect();
        // The attacker lives to the end of its list, and its own status comes out.
        let mut words = vec![INSIDE, "each"];
        words.extend(all.iter().map(String::as_str));
        // A forwarded signal would end the attacker, PID 2.
        run(&mut Sandbox::new(who, work.path()).seccomp(&["--allow", "sigio"]).command(&words)).ok();
        // Control: where PID 1 is an ordinary program, any of them that it does not expect does nothing either (the
        // kernel's own protection), but one that it handles works: a shell with a trap.
        let script = "trap 'exit 3' TERM; \"$1\" kill 1 15; exit 0";
        let attack = srt_tests::tool("attack");
        let ran = run(who.command("unshare").args(["-Urpf", "sh", "-c", script, "sh"]).arg(attack));
        ran.code(3);
    }

    fn signals_to_everybody_and_to_every_group_stay_inside(who) {
        let work = who.scratch();
        // The caller and its process group, with the sandbox in the foreground, as in a script.
        let survives = |sandbox: &Sandbox, attack: &str| {
            let mut command = who.command("setsid");
            command.args(["-w", "sh", "-c", "\"$@\"; echo survived", "sh"]).arg(srt_tests::tool("srt-ns"));
            run(command.args(sandbox.words()).arg(INSIDE).args(attack.split(' ')))
        };
        let sandbox = Sandbox::new(who, work.path());
        for attack in ["kill 0 9", "kill -1 9", "kill -2 9"] {
            for sandbox in [sandbox.clone(), sandbox.clone().ns(&["--keep-session"]), sandbox.clone().ns(&["--as-pid-1"])] {
                let ran = survives(&sandbox, attack);
                assert!(ran.code == Some(0) && ran.out.ends_with("survived\n"), "{attack} {sandbox:?} {ran:#?}");
            }
        }
        // A pid namespace alone does not do it: the group of the caller has no number there, but is number 0.
        let attack = srt_tests::tool("attack");
        let script = "unshare -Urpf sh -c '\"$1\" kill 0 9; true' sh \"$1\"; echo survived";
        let ran = run(who.command("setsid").args(["-w", "sh", "-c", script, "sh"]).arg(attack));
        assert!(!ran.out.contains("survived"), "{ran:#?}");
        // And everybody else of this user, in a pid namespace that holds them.
        let script = "sleep 60 & \"$1\" kill -1 9; wait $!; echo $?";
        let ran = run(who.command("unshare").args(["-Urpf", "sh", "-c", script, "sh"]).arg(srt_tests::tool("attack")));
        assert!(ran.out.contains("137"), "{ran:#?}");
    }

    fn a_process_outside_is_not_found_by_its_file_handle(who) {
        let work = who.scratch();
        let victim = victim(who);
        let handle = outside(who, &[format!("? pidfd-handle {}", victim.id())]);
        let ns = outside(who, &["? ns-handle /proc/self/ns/net"]);
        let attacks: Vec<String> = [("pidfd", &handle), ("ns", &ns)]
            .iter()
            .filter(|(_, handle)| handle.said().contains(':') && !handle.said().contains("refused"))
            .map(|(kind, handle)| format!("{kind}-by-handle {}", handle.said()))
            .collect();
        if attacks.is_empty() {
            end(victim);
            srt_tests::skip!("this kernel has no file handles of pidfds and namespaces");
        }
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        outside(who, &attacks[..1]).all_got_through();
        end(victim);
    }

    fn a_child_given_to_the_supervisor_and_a_trace_by_it_confuse_nobody(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        // Children of the supervisor's end with 42 before the command ends with 7.
        let script = "for i in 1 2 3 4 5; do /tmp/attack clone-parent 42; done; exit 7";
        run(&mut sandbox.command(&["sh", "-c", script])).code(7);
        // The command itself gives one away.
        run(&mut sandbox.command(&[INSIDE, "clone-parent", "42"])).code(0);
        run(&mut sandbox.command(&[INSIDE, "traceme"])).code(0);
        // Outside it is the parent's child, too: a shell waits for a child that it never had.
        outside(who, &["clone-parent 42", "traceme"]).all_got_through();
    }

    fn ipc_objects_of_the_host_are_not_found(who) {
        let work = who.scratch();
        let key = 0x5372_0000 + std::process::id() % 0x10000 + who.uid();
        let name = format!("srt-attack-{key}");
        let all = |what: &str| {
            [format!("shm-{what} {key}"), format!("sem-{what} {key}"), format!("msg-{what} {key}"), format!("mq-{what} {name}")]
        };
        outside(who, &all("make")).all_got_through();
        let sandbox = Sandbox::new(who, work.path());
        sandbox.each(&all("get")).all_were_refused_with(libc::ENOENT);
        sandbox.clone().ns(&["--share", "ipc"]).each(&all("get")).all_got_through();
        outside(who, &all("get")).all_got_through();
        outside(who, &all("remove")).all_got_through();
        // What the command makes goes with it.
        sandbox.each(&all("make")).all_got_through();
        outside(who, &all("get")).all_were_refused_with(libc::ENOENT);
    }

    fn a_daemon_that_ignores_every_signal_ends_with_the_sandbox(who) {
        let work = who.scratch();
        let lock = work.join("lock");
        let words = [INSIDE, "daemon", lock.to_str().expect("UTF-8")];
        run(&mut Sandbox::new(who, work.path()).command(&words)).ok();
        // Its lock is free at once: whoever waits for srt-ns need not wait for anything else.
        let free = || run(who.command("flock").arg("-n").arg(&lock).arg("true")).code == Some(0);
        assert!(free(), "the daemon lives");
        // Outside it stays, and has to be found.
        let ran = run(who.command(srt_tests::tool("attack")).args(&words[1..]));
        ran.ok();
        assert!(!free());
        wait_until("the daemon's end", || {
            let _killed = run(Who::Root.command("fuser").args(["-k", "-s"]).arg(&lock));
            free()
        });
    }

    fn a_sandbox_that_is_killed_takes_the_daemon_with_it(who) {
        let work = who.scratch();
        let (lock, ready) = (work.join("lock"), work.join("ready"));
        let script = format!("/tmp/attack daemon {} && touch {} && sleep 60", lock.display(), ready.display());
        let mut child = Sandbox::new(who, work.path()).command(&["sh", "-c", &script]).spawn().expect("srt-ns");
        wait_until("the daemon", || ready.exists());
        let free = || run(who.command("flock").arg("-n").arg(&lock).arg("true")).code == Some(0);
        assert!(!free());
        child.kill().expect("kill");
        assert_eq!(wait(&mut child, "srt-ns").signal(), Some(9));
        wait_until("the daemon's end", free);
    }

    fn limits_of_the_sandbox_are_not_the_callers_to_lose(who) {
        // A command that is outside all it can reach: no signal from a descriptor's owner either.
        let work = who.scratch();
        let victim = victim(who);
        let attack = format!("sigio {} 9", victim.id());
        Sandbox::new(who, work.path()).seccomp(&["--allow", "sigio"]).each(&[&attack]).all_were_refused();
        outside(who, &[&attack]).all_got_through();
        let mut victim = victim;
        assert_eq!(wait(&mut victim, "the victim").signal(), Some(9));
        behind(who, &["env"], &["kill 0 0"]).all_got_through();
    }
}
