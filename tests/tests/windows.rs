//! The window between two looks at a name, held open: strace(1) stops the tool behind the first look, the test changes
//! what the name leads to, and lets it go on. A race would show one of the outcomes, now and then.

use srt_tests::host::{Events, Greeter};
use srt_tests::processes::{Family, Process, child_named, descendants, kill, wait_for_end};
use srt_tests::talk::Talk;
use srt_tests::{Scratch, Who, both, dead_socket, has, landlock_abi, skip, tool, wait_until};
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// `tool`, stopped behind its first call of this name; strace is a child of the tool, which is so the caller's own child.
fn stopped_behind(who: Who, scratch: &Scratch, call: &str, tool_name: &str) -> Command {
    stopped_at(who, scratch, call, 1, tool_name)
}

/// The same behind a later one.
fn stopped_at(who: Who, scratch: &Scratch, call: &str, when: usize, tool_name: &str) -> Command {
    let mut command = who.command("strace");
    command.args(["-D", "--quiet=all", "--output"]).arg(scratch.file("log", ""));
    command.arg(format!("--trace={call}")).args(["-e", &format!("inject={call}:signal=SIGSTOP:when={when}")]);
    command.arg(tool(tool_name));
    command
}

/// strace of the tool alone, which is so the caller's own child, with this injected.
fn delayed(who: Who, inject: &str) -> Command {
    let mut command = who.command("strace");
    command.args(["-D", "--quiet=all", "--signal=none", "--output=/dev/null"]);
    command.arg(format!("--trace={}", inject.split(':').next().unwrap_or(inject)));
    command.args(["-e", &format!("inject={inject}")]);
    command
}

/// Waits for the stop; the number of the tool's process. strace's log tells: a traced process is in state `t` at every call.
fn stop_of(talk: &Talk, scratch: &Scratch, name: &str) -> i32 {
    let log = scratch.join("log");
    wait_until("the stop", || fs::read_to_string(&log).is_ok_and(|log| log.contains("stopped by SIGSTOP")));
    let mut all = Process::find(talk.pid()).into_iter().chain(descendants(talk.pid()));
    let tree = srt_tests::processes::tree(talk.pid() as u32);
    all.find(|process| process.name == name)
        .unwrap_or_else(|| panic!("no {name}: {tree} {:?}", fs::read_to_string(&log)))
        .pid
}

fn said_by(socket: &Path) -> String {
    let mut text = String::new();
    UnixStream::connect(socket).and_then(|mut stream| stream.read_to_string(&mut text)).expect("a listener");
    text
}

both! {
    fn whether_a_socket_is_dead_is_asked_behind_another_bind_in_its_directory(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        // Who is inside bind(2) of that name has the directory locked until then, and listens after it.
        let scratch = who.scratch();
        let socket = scratch.join("s.sock");
        dead_socket(&socket);
        srt_tests::chown_to(who, &socket);
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["-D", "--quiet=all", "--signal=none", "--trace=bind,connect", "--output"]).arg(&log);
        command.arg(tool("srt-relay")).args(["--ready-fd", "1", &format!("unix:{}", socket.display()), "tcp:127.0.0.1:9"]);
        let mut talk = Talk::over_pipes(&mut command);
        assert_eq!(talk.line(), "ready");
        talk.signal(libc::SIGTERM);
        talk.end();
        family.ends();
        let log = fs::read_to_string(&log).expect("the log");
        let at = |text: &str| log.lines().enumerate().filter(|(_, line)| line.starts_with(text)).map(|(at, _)| at).last();
        assert!(at("bind(").zip(at("connect(")).is_some_and(|(bound, asked)| bound < asked), "{log}");
    }

    fn a_child_that_stops_and_dies_between_two_looks_is_dead(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let mut command = delayed(who, "waitid:delay_enter=300000");
        command.arg(tool("srt-ns")).args(["--as-pid-1", "--", "sh", "-c", "echo up; read x"]);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("up");
        let command = child_named(talk.pid(), "sh");
        kill(command, libc::SIGSTOP);
        // The first look has come and the second has not, or neither.
        std::thread::sleep(std::time::Duration::from_millis(450));
        kill(command, libc::SIGKILL);
        assert_eq!(talk.end().0, 137);
    }

    fn a_relays_socket_that_is_replaced_after_it_was_pinned_is_not_connected_to(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        for swap in [false, true] {
            let scratch = who.scratch();
            let socket = scratch.join("p.sock");
            let _granted = Greeter::start(&socket, "granted");
            let _other = Greeter::start(&scratch.join("other.sock"), "other");
            let mut command = stopped_behind(who, &scratch, "unshare", "srt-ns");
            command.args(["--relay", &format!("8080={}", socket.display()), "--", "bash", "-c", "cat </dev/tcp/127.0.0.1/8080"]);
            let talk = Talk::over_pipes(&mut command);
            let pid = stop_of(&talk, &scratch, "srt-ns");
            if swap {
                fs::rename(scratch.join("other.sock"), &socket).expect("rename");
            }
            kill(pid, libc::SIGCONT);
            let (code, said) = talk.end();
            match swap {
                false => assert_eq!((code, said.as_str()), (0, "granted")),
                true => assert!(code == 125 && said.contains("the socket was replaced during the start"), "{code} {said}"),
            }
        }
    }

    fn a_relays_socket_may_go_once_the_start_was_told(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let scratch = who.scratch();
        scratch.dir("d");
        let socket = scratch.join("d/p.sock");
        let _granted = Greeter::start(&socket, "granted");
        // srt-mount looks at the way to the socket late.
        let mut command = who.command("strace");
        command.args(["-D", "-f", "--quiet=all", "--output"]).arg(scratch.file("log", ""));
        command.args(["--trace=openat2", "-e", "inject=openat2:delay_enter=500000:when=1"]).arg(tool("srt-ns"));
        command.args(["--status-fd", "1", "--relay", &format!("8080={}", socket.display()), "--"]);
        command.args(["srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"]);
        command.args(["bash", "-c", "cat </dev/tcp/127.0.0.1/8080"]);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("\"started\"");
        fs::remove_dir_all(scratch.join("d")).expect("remove");
        let (code, said) = talk.end();
        assert!(code == 0 && said.contains("granted"), "{code} {said}");
    }

    fn a_command_that_dies_before_it_has_said_a_word_is_the_end(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        for stage in [&["echo", "ran"][..], &["srt-mount", "--ro-bind", "/", "/", "--", "echo", "ran"]] {
            let scratch = who.scratch();
            let log = scratch.file("log", "");
            let mut command = who.command("strace");
            command.args(["-D", "-f", "--quiet=all", "--output"]).arg(&log);
            command.args(["--trace=setsid", "-e", "inject=setsid:signal=SIGSTOP"]);
            command.arg(tool("srt-ns")).arg("--").args(stage);
            let talk = Talk::over_pipes(&mut command);
            let stops = || fs::read_to_string(&log).expect("the log").matches("stopped by SIGSTOP").count();
            wait_until("the stops of srt-init and the command", || stops() == 2);
            // srt-init is the supervisor's child, the command is srt-init's.
            let all = descendants(talk.pid());
            let child_of = |pid| all.iter().find(|process| process.parent == pid && process.name == "srt-ns").expect("a child").pid;
            let init = child_of(talk.pid());
            kill(child_of(init), libc::SIGKILL);
            kill(init, libc::SIGCONT);
            let (code, said) = talk.end();
            assert!(code == 137 && !said.contains("ran"), "{stage:?}: {code} {said}");
            family.ends();
        }
    }

    fn the_last_words_of_pid_1_count_though_its_end_is_seen_first(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let script = "trap 'exit 3' USR1; trap 'kill -9 $$' USR2; echo ready; while :; do sleep 0.05; done";
        for (signal, expected) in [(libc::SIGUSR1, 3), (libc::SIGUSR2, 137)] {
            // Between the look at what PID 1 tells and the one at who is dead.
            let mut command = delayed(who, "waitid:delay_enter=150000");
            let mut talk = Talk::over_pipes(command.arg(tool("srt-ns")).args(["--", "sh", "-c", script]));
            talk.expect("ready");
            talk.signal(signal);
            assert_eq!(talk.end().0, expected);
        }
    }

    fn a_sidecar_that_dies_between_two_looks_lets_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let scratch = who.scratch();
        // Behind the look that finds nobody dead, and before the one that finds that its shell has started.
        let mut command = stopped_behind(who, &scratch, "waitid", "srt-ns");
        let sidecar = format!("while [ ! -e {}/end ]; do sleep 0.01; done; exit 3", scratch.text());
        command.args(["--sidecar", &sidecar, "--", "echo", "it ran"]);
        let talk = Talk::over_pipes(&mut command);
        let supervisor = stop_of(&talk, &scratch, "srt-ns");
        let all = || descendants(supervisor).into_iter().filter(|process| process.parent == supervisor);
        wait_until("the shell", || all().any(|process| process.name == "sh"));
        let shell = all().find(|process| process.name == "sh").expect("it runs").pid;
        scratch.file("end", "");
        wait_for_end(shell);
        // The command may need a moment until it waits for its turn.
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(supervisor, libc::SIGCONT);
        let (code, said) = talk.end();
        let told = said.starts_with(&format!("srt-ns: --sidecar {sidecar}: ended before the command could start"));
        assert!(code == 125 && told && said.lines().count() == 1, "{code} {said:?}");
    }

    fn a_continuation_that_comes_while_the_supervisor_gets_ready_to_stop_is_not_lost(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let mut command = delayed(who, "rt_sigpending:delay_enter=300000");
        let mut talk = Talk::over_pipes(command.arg(tool("srt-ns")).args(["--", "sh", "-c", "echo ready; exec sleep 1000"]));
        talk.expect("ready");
        let sleep = child_named(talk.pid(), "sleep");
        let state = || Process::find(sleep).expect("it runs").state;
        talk.signal(libc::SIGTSTP);
        wait_until("the stop of the command", || state() == 'T');
        talk.signal(libc::SIGCONT);
        wait_until("its end", || state() != 'T');
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 143);
    }

    fn a_command_that_ends_by_itself_at_the_deadline_was_not_killed(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let scratch = who.scratch();
        // The first signal is forwarded, the next one would kill: it waits for the command's own end.
        let mut command = delayed(who, "pidfd_send_signal:delay_enter=2000000:when=2");
        command.arg(tool("srt-ns")).args(["--status-fd", "9", "--kill-after", "0.1", "--", "sh", "-c"]);
        command.arg("trap 'sleep 0.3; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
        let events = Events::of(&mut command, &scratch);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("ready");
        talk.signal(libc::SIGTERM);
        assert_eq!(talk.end().0, 0);
        assert!(events.text().ends_with("\"exited\",\"code\":0}\n"), "{}", events.text());
    }

    fn a_mount_point_that_is_replaced_by_a_link_once_it_is_made_is_not_mounted_on(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let data = who.scratch();
        for (call, option) in [("mkdirat", vec!["--tmpfs"]), ("mknodat", vec!["--ro-bind", "/etc/passwd"])] {
            // To another place, and to a sibling, which is beneath the directory, too.
            for link in [None, Some("target"), Some("other")] {
                let scratch = who.scratch();
                let (work, made) = (scratch.dir("work"), scratch.join("work/made"));
                if call == "mkdirat" { scratch.dir("work/other") } else { scratch.file("work/other", "") };
                let target = if call == "mkdirat" { data.dir("target") } else { data.file("file", "") };
                let mut command = who.command("strace");
                command.args(["-D", "-f", "--quiet=all", "--output"]).arg(scratch.file("log", "")).arg(format!("--trace={call}"));
                command.args(["-e", &format!("inject={call}:signal=SIGSTOP:when=1")]).arg(tool("srt-ns"));
                command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--bind"]).args([&work, &work]);
                command.arg("--placeholders").args(&option).arg(&made).args(["--", "grep", "-c", target.to_str().expect("UTF-8"), "/proc/self/mountinfo"]);
                let talk = Talk::over_pipes(&mut command);
                let pid = stop_of(&talk, &scratch, "srt-mount");
                if let Some(link) = link {
                    let _file = fs::remove_file(&made);
                    let _directory = fs::remove_dir(&made);
                    let target = if link == "other" { Path::new(link) } else { &target };
                    std::os::unix::fs::symlink(target, &made).expect("symlink");
                }
                kill(pid, libc::SIGCONT);
                let (code, said) = talk.end();
                match link {
                    None => assert_eq!((code, said.as_str()), (1, "0\n"), "{call}"),
                    Some(_) => assert!(code == 125 && said.contains("is a symbolic link to"), "{call}: {code} {said}"),
                }
            }
        }
    }

    fn a_path_of_landlocks_that_is_replaced_by_a_link_gives_no_rights(who) {
        if !has("strace") {
            skip!("no strace");
        }
        if landlock_abi() < 5 {
            skip!("no Landlock of ABI 5");
        }
        let _family = Family::new();
        for swap in [false, true] {
            let scratch = who.scratch();
            scratch.file("granted/file", "granted");
            scratch.file("other/file", "other");
            let start = |when| {
                let mut command = stopped_at(who, &scratch, "openat2", when, "srt-seccomp");
                command.arg("--read").arg(scratch.join("granted")).args(["/usr", "/lib", "/lib64", "/bin"].iter().flat_map(|path| ["--read", path]));
                command.args(["--", "cat"]).arg(scratch.join("granted/file"));
                Talk::over_pipes(&mut command)
            };
            // Behind the last call that takes its name.
            assert_eq!(start(1000).end(), (0, "granted".into()));
            let log = fs::read_to_string(scratch.join("log")).expect("the log");
            let last = log.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains("\"granted\"")).expect("a look at it") + 1;
            let talk = start(last);
            let pid = stop_of(&talk, &scratch, "srt-seccomp");
            if swap {
                fs::rename(scratch.join("granted"), scratch.join("moved")).expect("rename");
                std::os::unix::fs::symlink(scratch.join("other"), scratch.join("granted")).expect("symlink");
            }
            kill(pid, libc::SIGCONT);
            let (code, said) = talk.end();
            match swap {
                false => assert_eq!((code, said.as_str()), (0, "granted")),
                true => assert!(code == 125 && said.contains("cannot open it"), "{code} {said}"),
            }
        }
    }

    fn a_socket_that_comes_to_life_while_it_is_replaced_stays(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        for swap in [false, true] {
            let scratch = who.scratch();
            let socket = scratch.join("s.sock");
            dead_socket(&socket);
            srt_tests::chown_to(who, &socket);
            // Behind the look that finds it dead.
            let mut command = stopped_behind(who, &scratch, "connect", "srt-relay");
            command.args(["--ready-fd", "1", &format!("unix:{}", socket.display()), "tcp:127.0.0.1:9"]);
            let mut talk = Talk::over_pipes(&mut command);
            let pid = stop_of(&talk, &scratch, "srt-relay");
            let living = swap.then(|| {
                fs::remove_file(&socket).expect("remove");
                Greeter::start(&socket, "alive")
            });
            kill(pid, libc::SIGCONT);
            if living.is_some() {
                let (code, said) = talk.end();
                assert!(code == 1 && said.contains("another process listens there already"), "{code} {said}");
                assert_eq!(said_by(&socket), "alive");
            } else {
                assert_eq!(talk.line(), "ready");
                talk.signal(libc::SIGTERM);
                assert_eq!(talk.end().0, 0);
            }
            let left: Vec<_> = fs::read_dir(scratch.path()).expect("list").filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
            assert!(!left.iter().any(|name| name.starts_with(".srt-")), "{left:?}");
        }
    }

    fn a_dead_socket_that_is_removed_while_it_is_replaced_leaves_its_place(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        // Behind the bind that finds it there, and behind the look that finds it dead.
        for (call, answer) in [("bind", "EADDRINUSE"), ("connect", "ECONNREFUSED")] {
            let scratch = who.scratch();
            let socket = scratch.join("s.sock");
            dead_socket(&socket);
            srt_tests::chown_to(who, &socket);
            let mut command = stopped_behind(who, &scratch, call, "srt-relay");
            command.args(["--ready-fd", "1", &format!("unix:{}", socket.display()), "tcp:127.0.0.1:9"]);
            let mut talk = Talk::over_pipes(&mut command);
            let pid = stop_of(&talk, &scratch, "srt-relay");
            let log = fs::read_to_string(scratch.join("log")).expect("the log");
            assert!(log.contains(answer), "control: {log}");
            fs::remove_file(&socket).expect("remove");
            kill(pid, libc::SIGCONT);
            assert_eq!(talk.line(), "ready", "{call}");
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, 0);
        }
    }

    fn a_parent_that_dies_between_two_looks_is_told_from_the_one_that_adopts(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let family = Family::new();
        let scratch = who.scratch();
        // Behind uname(2): the parent's number is known, and nothing watches it yet.
        let inner = stopped_behind(who, &scratch, "uname", "srt-ns");
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0; \"$@\" <&3 & echo started; wait", "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.args(["--", "echo", "it ran"]);
        let mut talk = Talk::over_pipes(&mut command);
        talk.expect("started");
        let pid = stop_of(&talk, &scratch, "srt-ns");
        talk.signal(libc::SIGKILL);
        talk.status();
        kill(pid, libc::SIGCONT);
        let (_, said) = talk.end();
        assert!(said.contains("srt-ns: the parent process is dead") && !said.contains("it ran"), "{said}");
        family.ends();
    }
}
