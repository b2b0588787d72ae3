//! The exit status is the command's own; 128+N if signal N ended it; 125, 126 and 127 as env(1) has them.

use srt_tests::talk::Talk;
use srt_tests::{Who, both, chain, in_chain, processes, run};

/// The signals that end a process which does not expect them, by number: signal(7), "Standard signals", and the
/// real-time ones, without the two that the C library keeps to itself.
fn fatal_signals() -> impl Iterator<Item = i32> {
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stopping = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let fatal = move |signal: &i32| !harmless.contains(signal) && !stopping.contains(signal);
    (1..=31).chain(34..=64).filter(fatal)
}

#[test]
fn a_fatal_signal_is_fatal_without_a_sandbox() {
    for signal in fatal_signals() {
        let alone = run(Who::Root.command("sh").args(["-c", &format!("ulimit -c 0; kill -{signal} $$")]));
        assert_eq!(alone.signal, Some(signal));
    }
}

both! {
    fn every_exit_code_comes_through_the_chain(who) {
        let work = who.scratch();
        for code in 0..=255 {
            let ran = in_chain(who, work.path(), &format!("exit {code}"));
            ran.code(code);
            assert!(ran.err.is_empty(), "{ran:#?}");
        }
    }

    fn every_fatal_signal_comes_through_the_chain_as_128_plus_its_number(who) {
        let work = who.scratch();
        for signal in fatal_signals() {
            let ran = in_chain(who, work.path(), &format!("ulimit -c 0; kill -{signal} $$"));
            ran.code(128 + signal);
        }
    }

    fn the_status_does_not_depend_on_who_is_pid_1(who) {
        for option in ["--outlive-parent", "--as-pid-1", "--wait-all", "--keep-session"] {
            for code in [0, 1, 2, 124, 125, 126, 127, 128, 129, 137, 143, 255] {
                let script = format!("exit {code}");
                run(who.command("srt-ns").args([option, "--", "sh", "-c", &script])).code(code);
            }
        }
    }

    fn a_signal_for_a_child_of_the_command_is_the_commands_business(who) {
        let work = who.scratch();
        in_chain(who, work.path(), "sh -c 'kill -9 $$'; exit 3").code(3);
    }

    fn the_first_process_counts_and_not_the_last(who) {
        let work = who.scratch();
        in_chain(who, work.path(), "(exec >/dev/null 2>&1; sleep 1000; exit 7) & exit 5").code(5);
        // The same where srt-init waits for all: the status is the command's, not that of the last one to end.
        let script = "sh -c 'exit 7' & exit 5";
        run(who.command("srt-ns").args(["--wait-all", "--", "sh", "-c", script])).code(5);
    }

    fn a_command_killed_from_outside_is_137(who) {
        let work = who.scratch();
        for option in ["--outlive-parent", "--as-pid-1", "--wait-all"] {
            let script = "echo ready; exec sleep 1000";
            let mut alone = who.command("srt-ns");
            let mut talk = Talk::over_pipes(alone.args([option, "--", "sh", "-c", script]));
            talk.expect("ready");
            processes::kill(processes::child_named(talk.pid(), "sleep"), libc::SIGKILL);
            assert_eq!(talk.end().0, 137, "{option}");
        }
        let mut talk = Talk::over_pipes(chain(who, work.path()).args(["sh", "-c", "echo ready; exec sleep 1000"]));
        talk.expect("ready");
        processes::kill(processes::child_named(talk.pid(), "sleep"), libc::SIGKILL);
        assert_eq!(talk.end().0, 137);
    }

    fn a_program_that_is_not_there_is_127(who) {
        let work = who.scratch();
        let missing = work.join("missing");
        for name in [missing.as_os_str(), "no-such-program-anywhere".as_ref(), "".as_ref()] {
            run(who.command("srt-ns").arg("--").arg(name)).code(127).one_clear_error("srt-ns");
            run(chain(who, work.path()).arg(name)).code(127).one_clear_error("srt-seccomp");
        }
    }

    fn a_program_that_cannot_be_run_is_126(who) {
        let work = who.scratch();
        let text = work.file("text", "just words");
        // Two files that say nonsense of what runs them: a name without end, and the file itself.
        let mut elf = vec![0; 200];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 3);
        elf[96..104].fill(0xff);
        let elf = work.file("elf", elf);
        let own = work.file("own", format!("#!{}/own\n", work.text()));
        for name in [text.as_path(), work.path(), &elf, &own] {
            run(who.command("srt-ns").arg("--").arg(name)).code(126).one_clear_error("srt-ns");
            run(chain(who, work.path()).arg(name)).code(126).one_clear_error("srt-seccomp");
        }
    }

    fn path_is_searched_as_execvp_does(who) {
        let work = who.scratch();
        work.file("first/prog", "");
        work.file("first/text", "");
        work.script("second/prog", "#!/bin/sh\nexit 9\n");
        // What is no directory is passed over, and what cannot be run while something else may.
        let path = format!("/etc/passwd:/none:{0}/first:{0}/second:{1}", work.text(), srt_tests::path_with_tools().display());
        let root = ["--ro-bind", "/", "/"];
        for words in [&["srt-ns", "--"][..], &["srt-ns", "--", "srt-mount", root[0], root[1], root[2], "--"], &["srt-seccomp", "--"]] {
            let start = |program: &str| run(who.command(words[0]).args(&words[1..]).arg(program).env("PATH", &path));
            let last = words.iter().rfind(|word| word.starts_with("srt-")).expect("a tool");
            start("prog").code(9);
            start("text").code(126).one_clear_error(last);
            // As env(1) has it.
            start("/etc/passwd/prog").code(126).complains("Not a directory").one_clear_error(last);
        }
    }

    fn a_script_without_an_interpreter_line_is_run_by_the_shell(who) {
        let work = who.scratch();
        let script = work.script("script", "exit 9\n");
        run(who.command("env").arg(&script)).code(9);
        run(chain(who, work.path()).arg(&script)).code(9);
        let script = work.script("arguments", "echo \"$#<$1><$2>\"\n");
        run(chain(who, work.path()).arg(&script).args(["a  b", ""])).ok().says("2<a  b><>");
    }

    fn a_stage_that_is_an_empty_file_is_126(who) {
        // As an installation leaves it where the disk is full. The shell would end well with it.
        let work = who.scratch();
        for name in ["srt-ns", "srt-mount", "srt-seccomp"] {
            srt_tests::copy_program(srt_tests::tool(name), work.join(name));
        }
        work.script("srt-seccomp", "");
        let ns = work.join("srt-ns");
        let tree = ["srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"];
        for stages in [&[][..], &tree] {
            for seccomp in ["srt-seccomp", work.join("srt-seccomp").to_str().expect("text")] {
                let ran = run(who.command(&ns).arg("--").args(stages).args([seccomp, "--", "false"]));
                ran.code(126).complains("Exec format error");
            }
        }
        // The control: it is executable.
        run(who.command("sh").args(["-c", "\"$0\""]).arg(work.join("srt-seccomp"))).code(0);
    }

    fn a_pid_1_whose_threads_make_the_supervisor_trace_them_ends_as_any_other(who) {
        // Each thread is one more that the supervisor has to reap, and one SIGCHLD may tell of all.
        let threads = "import ctypes, os, sys, threading, time
def run():
    if sys.argv[1] == 'traced': ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    time.sleep(1000)
for _ in range(40): threading.Thread(target=run, daemon=True).start()
time.sleep(0.3)
os._exit(7)";
        for kind in ["untraced", "traced"] {
            let words = ["--signal=KILL", "10", "srt-ns", "--as-pid-1", "--", "/usr/bin/python3", "-c", threads, kind];
            run(who.command("timeout").args(words)).code(7);
        }
    }

    fn a_stage_that_fails_is_125(who) {
        run(who.command("srt-ns").arg("true")).code(125);
        run(who.command("srt-ns").args(["--", "srt-mount", "true"])).code(125).one_clear_error("srt-mount");
        run(who.command("srt-ns").args(["--", "srt-seccomp", "true"])).code(125).one_clear_error("srt-seccomp");
    }
}
