//! Each stage works alone, under a system tool, or in front of one: every combination that the documentation names, with
//! the real program.

use srt_tests::{Ran, Scratch, Who, both, chain, pass_fd, path_with_tools, run, run_bwrap, tool, wait_until};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

/// What most trees here are made of. /tmp is the host's, where the tools under test are: wrappers look them up inside.
const TREE: [&str; 9] = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/mnt"];

/// A command line in words.
fn line(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|part| part.iter().map(|word| (*word).to_owned())).collect()
}

/// Runs `words`, the tools by their names.
fn run_line(who: Who, words: &[String]) -> Ran {
    run_bwrap(|| run(who.command("env").args(words)))
}

/// What a process tells of its privileges and its place: capabilities, no_new_privs, filter, PID 1, who it is.
const STATE: &str = "
    grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'
    cat /proc/1/comm
    id -u
    touch /usr/touched 2>/dev/null && echo touched
    true";

fn state(no_new_privs: bool, filtered: bool, init: &str, uid: u32) -> String {
    let none = "0000000000000000";
    let sets = format!("CapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nCapAmb:{none}");
    format!(
        "{sets}\nNoNewPrivs:{}\nSeccomp:{}\n{init}\n{uid}",
        i32::from(no_new_privs),
        if filtered { 2 } else { 0 }
    )
}

/// A server on a Unix socket that everybody may use: each caller gets a greeting and its own words back.
struct Server {
    _scratch: Scratch,
    path: String,
}

impl Server {
    fn start(who: Who) -> Self {
        let scratch = who.scratch();
        let path = scratch.join("server");
        let listener = srt_tests::unix_listener(who, &path);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut said = String::new();
                let _gone = stream.read_to_string(&mut said).and_then(|_| write!(stream, "hello, {said}"));
            }
        });
        Self { path: path.to_str().expect("UTF-8").to_owned(), _scratch: scratch }
    }
}

/// A client in a sandbox that has only sh(1) and python3(1): sends its argument to a port, prints the answer. `tries`:
/// the port may not accept yet.
fn client(port: u16, tries: u32) -> String {
    format!(
        "/usr/bin/python3 -c '
import socket, time
for attempt in range({tries}):
    try: server = socket.create_connection((\"127.0.0.1\", {port})); break
    except ConnectionRefusedError: time.sleep(0.01)
server.sendall(b\"sandbox\"); server.shutdown(socket.SHUT_WR)
print(server.makefile().read())'"
    )
}

mod replaced {
    use super::*;

    both! {
        fn unshare_in_place_of_srt_ns(who) {
            let unshare = ["unshare", "--user", "--map-current-user", "--keep-caps", "--pid", "--fork", "--kill-child", "--net"];
            let words = line(&[&unshare, &["srt-mount"], &TREE, &["--", "srt-seccomp", "--", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, true, "sh", who.uid()));
            // The same without a filter.
            let words = line(&[&unshare, &["srt-mount"], &TREE, &["--", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, false, "sh", who.uid()));
        }

        fn bwrap_in_place_of_srt_mount(who) {
            // bubblewrap as an ordinary user makes a user namespace of its own; as uid 0 it needs CAP_SYS_ADMIN, and leaves
            // what it has to the command unless told otherwise. Without --unshare-pid its --proc is the caller's /proc.
            let way = if who == Who::User { "--allow-userns" } else { "--keep-admin" };
            let bwrap = ["--", "bwrap", "--unshare-pid", "--cap-drop", "ALL"];
            let words = line(&[&["srt-ns", way], &bwrap, &TREE, &["srt-seccomp", "--", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, true, "bwrap", who.uid()));
        }

        fn bwrap_in_place_of_srt_ns_and_srt_mount(who) {
            let words = line(&[&["bwrap", "--unshare-all", "--die-with-parent"], &TREE, &["srt-seccomp", "--", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, true, "bwrap", who.uid()));
        }

        fn srt_mount_under_bwrap(who) {
            // --cap-add: bubblewrap's command has no capability otherwise.
            let bwrap = ["bwrap", "--unshare-all", "--unshare-user", "--cap-add", "CAP_SYS_ADMIN", "--dev-bind", "/", "/", "--proc", "/proc"];
            let words = line(&[&bwrap, &["srt-mount"], &TREE, &["--", "srt-seccomp", "--", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, true, "bwrap", who.uid()));
        }

        fn setpriv_in_place_of_srt_seccomp(who) {
            let words = line(&[&["srt-ns", "--", "srt-mount"], &TREE, &["--", "setpriv", "--no-new-privs", "--pdeathsig=KILL", "sh", "-c", STATE]]);
            run_line(who, &words).ok().says(&state(true, false, "srt-init", who.uid()));
        }

        fn the_exported_filter_under_bwrap(who) {
            let scratch = who.scratch();
            let filter = std::fs::File::create(scratch.join("filter")).expect("create");
            let exported = who.command("srt-seccomp").arg("--export").stdout(filter).status().expect("run");
            assert!(exported.success());
            let filter = std::fs::File::open(scratch.join("filter")).expect("open");
            let make = "import socket; socket.socket(socket.AF_UNIX); print(\"made\")";
            let bwrap = |seccomp: &[&str]| {
                let mut command = who.command("bwrap");
                command.args(["--unshare-all", "--unshare-user"]).args(TREE).args(seccomp);
                pass_fd(&mut command, filter.as_raw_fd(), 9);
                command.args(["/usr/bin/python3", "-c", make]);
                run_bwrap(|| run(&mut command))
            };
            bwrap(&["--seccomp", "9"]).code(1).complains("PermissionError: [Errno 1]");
            // The control.
            bwrap(&[]).ok().says("made");
        }

        fn socat_in_place_of_srt_relay(who) {
            let server = Server::start(who);
            let sidecar = format!("socat -t 30 TCP-LISTEN:8080,bind=127.0.0.1,fork UNIX-CONNECT:{}", server.path);
            let words = line(&[&["srt-ns", "--sidecar", &sidecar, "--", "srt-mount"], &TREE, &["--", "srt-seccomp", "--", "sh", "-c", &client(8080, 1000)]]);
            run_line(who, &words).ok().says("hello, sandbox");
        }

        fn srt_relay_in_place_of_socat_under_bwrap(who) {
            let server = Server::start(who);
            // The relay says when it accepts, and ends with the shell that started it.
            let relay = format!("srt-relay --ready-fd 1 tcp:127.0.0.1:8080 unix:{}", server.path);
            let client = client(8080, 1);
            let script = format!("mkfifo /mnt/ready; {relay} >/mnt/ready & read ready </mnt/ready; {client}");
            let words = line(&[&["bwrap", "--unshare-net"], &TREE, &["sh", "-c", &script]]);
            run_line(who, &words).ok().says("hello, sandbox");
        }

        fn srt_relay_on_the_host_and_in_the_sandbox(who) {
            // As an existing setup has socat on both sides, with a socket between them.
            let server = Server::start(who);
            let scratch = who.scratch();
            let middle = scratch.join("middle");
            let mut outer = who.command("srt-relay");
            outer.arg(format!("unix:{}", middle.display())).arg(format!("unix:{}", server.path));
            let mut outer = outer.spawn().expect("srt-relay");
            wait_until("the outer relay", || middle.exists());
            let relay = format!("8080={}", middle.display());
            let words = line(&[&["srt-ns", "--relay", &relay, "--", "srt-mount"], &TREE, &["--", "srt-seccomp", "--", "sh", "-c", &client(8080, 1)]]);
            run_line(who, &words).ok().says("hello, sandbox");
            outer.kill().and_then(|()| outer.wait()).expect("end");
        }
    }
}

mod alone {
    use super::*;

    both! {
        fn srt_ns(who) {
            run_line(who, &line(&[&["srt-ns", "--", "sh", "-c", "readlink /proc/self/ns/net"]])).ok();
            let ran = run_line(who, &line(&[&["srt-ns", "--", "sh", "-c", "grep -E '^(CapPrm|CapAmb|Seccomp):' /proc/self/status; echo $$"]]));
            ran.ok().says("CapPrm:\t0000000000000000\nCapAmb:\t0000000000000000\nSeccomp:\t0\n2");
        }

        fn srt_seccomp(who) {
            let words = line(&[&["srt-seccomp", "--", "sh", "-c", "grep -E '^(CapPrm|NoNewPrivs|Seccomp):' /proc/self/status"]]);
            run_line(who, &words).ok().says("CapPrm:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2");
        }

        fn srt_mount(who) {
            if who == Who::User {
                let words = line(&[&["unshare", "--user", "--map-root-user", "srt-mount"], &["--ro-bind", "/", "/", "--", "touch", "/usr/x"]]);
                run_line(who, &words).code(1).complains("Read-only file system");
            } else {
                let words = line(&[&["srt-mount"], &["--ro-bind", "/", "/", "--", "touch", "/usr/x"]]);
                run_line(who, &words).code(1).complains("Read-only file system");
            }
        }
    }
}

mod wrappers {
    use super::*;

    /// The chain with a wrapper at one of its places: 0 in front, 1 and 2 between the stages, 3 before the command.
    fn chain_with(place: usize, wrapper: &[&str], command: &[&str]) -> Vec<String> {
        let at = |here: usize| if here == place { wrapper } else { &[] };
        // The capability goes to the srt-mount beside srt-ns alone; a wrapper has to be trusted with it.
        let trust: &[&str] = if place == 1 { &["--keep-admin"] } else { &[] };
        line(&[
            at(0),
            &["srt-ns"],
            trust,
            &["--"],
            at(1),
            &["srt-mount"],
            &TREE,
            &["--"],
            at(2),
            &["srt-seccomp", "--"],
            at(3),
            command,
        ])
    }

    /// Words as one for a shell.
    fn quoted(words: &[String]) -> String {
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
    }

    both! {
        fn env_sets_a_variable(who) {
            for place in 0..4 {
                let words = chain_with(place, &["env", "--unset=HOME", "WORD=a b"], &["sh", "-c", "echo $WORD ${HOME-unset}"]);
                run_line(who, &words).ok().says("a b unset");
            }
            run_line(who, &chain_with(4, &[], &["sh", "-c", "echo ${WORD-unset} $HOME"])).ok().says("unset /nonexistent");
        }

        fn prlimit_sets_a_limit(who) {
            for place in 0..4 {
                let words = chain_with(place, &["prlimit", "--nofile=321:321", "--core=0"], &["sh", "-c", "ulimit -Hn; ulimit -c"]);
                run_line(who, &words).ok().says("321\n0");
            }
        }

        fn nice_lowers_the_priority(who) {
            let outside: i32 = run_line(who, &line(&[&["nice"]])).ok().out.trim().parse().expect("a number");
            for place in 0..4 {
                let inside = run_line(who, &chain_with(place, &["nice", "-n", "3"], &["nice"]));
                inside.ok().says(&(outside + 3).min(19).to_string());
            }
        }

        fn timeout_ends_the_command(who) {
            for place in 0..4 {
                run_line(who, &chain_with(place, &["timeout", "20"], &["sh", "-c", "exit 7"])).code(7);
                run_line(who, &chain_with(place, &["timeout", "0.5"], &["sleep", "1000"])).code(124);
                // timeout(1) sends itself the signal too.
                let killed = run_line(who, &chain_with(place, &["timeout", "--signal=KILL", "0.5"], &["sleep", "1000"]));
                assert_eq!(killed.code.or(killed.signal.map(|signal| 128 + signal)), Some(137), "{killed:#?}");
            }
        }

        fn strace_shows_every_exec_that_follows(who) {
            for place in 0..4 {
                let strace = ["strace", "--follow-forks", "--quiet=all", "--trace=execve,execveat", "--signal=none"];
                let ran = run_line(who, &chain_with(place, &strace, &["sh", "-c", "echo it ran; exit 7"]));
                ran.code(7).says("it ran");
                for (stage, name) in ["srt-ns", "srt-mount", "srt-seccomp", "sh"].into_iter().enumerate() {
                    let shown = ran.err.contains(&format!("[\"{name}\"")) || ran.err.contains(&format!("/{name}\""));
                    assert_eq!(shown, stage >= place, "{name} at {place}: {ran:#?}");
                }
            }
        }

        fn script_gives_a_terminal(who) {
            let command = ["sh", "-c", "test -t 0 && test -t 1 && echo a terminal; exit 7"];
            // The control.
            run_line(who, &chain_with(4, &[], &command)).code(7).says("");
            let stages = [
                line(&[&["srt-ns", "--"]]),
                line(&[&["srt-mount"], &TREE, &["--"]]),
                line(&[&["srt-seccomp", "--"]]),
            ];
            for place in 0..4 {
                let before = stages[..place].concat();
                let after = [stages[place..].concat(), line(&[&command])].concat();
                let script = line(&[&["script", "--quiet", "--return", "--command", &quoted(&after), "/dev/null"]]);
                let mut words = [before, script].concat();
                if place == 1 {
                    words.insert(1, "--keep-admin".to_owned());
                }
                let ran = run(who.command("env").arg("SHELL=/bin/sh").args(&words));
                ran.code(7).says("a terminal");
            }
        }

        fn all_of_them_at_once(who) {
            let all = ["nice", "-n", "1", "timeout", "20", "prlimit", "--core=0", "env", "WORD=there"];
            let words = line(&[
                &all, &["srt-ns", "--keep-admin", "--"], &all, &["srt-mount"], &TREE, &["--"], &all, &["srt-seccomp", "--"], &all,
                &["sh", "-c", "echo $WORD $(nice)"],
            ]);
            let outside: i32 = run_line(who, &line(&[&["nice"]])).ok().out.trim().parse().expect("a number");
            run_line(who, &words).ok().says(&format!("there {}", (outside + 4).min(19)));
        }
    }
}

mod inside_each_other {
    use super::*;

    fn nested(who: Who, outer: &[&str], inner: &[&str], command: &[&str]) -> Ran {
        let stages = |options| {
            line(&[&["srt-ns"], options, &["--", "srt-mount"], &TREE, &["--", "srt-seccomp", "--"]])
        };
        run_line(who, &[stages(outer), stages(inner), line(&[command])].concat())
    }

    #[test]
    fn a_whole_chain_in_a_whole_chain_as_an_ordinary_user() {
        let ran = nested(Who::User, &["--allow-userns"], &[], &["sh", "-c", STATE]);
        ran.ok().says(&state(true, true, "srt-init", Who::User.uid()));
        // Three deep, with names of their own and no network in any.
        let third = [
            "srt-ns",
            "--hostname",
            "third",
            "--",
            "sh",
            "-c",
            "uname -n; ls /sys/class/net >/dev/null; echo $$",
        ];
        nested(Who::User, &["--allow-userns"], &["--allow-userns"], &third).ok().says("third\n2");
        // Without it the inner one is told what is missing.
        let refused = nested(Who::User, &[], &[], &["true"]);
        refused.code(125).hints("srt-ns", "cannot create a user namespace", "give that one --allow-userns");
    }

    #[test]
    fn a_chain_in_a_chain_as_root_is_told_what_is_missing() {
        let refused = nested(Who::Root, &["--allow-userns"], &[], &["true"]);
        refused.code(125).hints("srt-ns", "cannot write /proc/self/uid_map", "uid 0 needs CAP_SETFCAP");
        // What the hint proposes: another uid inside. Then /proc/sys, which is root's, is still read-only, as --proc leaves it.
        let other = ["--allow-userns", "--uid", "1000", "--gid", "1000"];
        let refused = nested(Who::Root, &other, &[], &["true"]);
        refused.code(125).hints("srt-ns", "cannot forbid further user namespaces", "use --allow-userns");
        let words = line(&[
            &["srt-ns"],
            &other,
            &["--", "srt-ns", "--", "srt-mount"],
            &TREE,
            &["--", "srt-seccomp", "--", "sh", "-c", STATE],
        ]);
        run_line(Who::Root, &words).ok().says(&state(true, true, "srt-init", 1000));
    }

    both! {
        fn the_chain_in_bwrap(who) {
            let inner = line(&[&["srt-ns", "--", "srt-mount"], &TREE, &["--", "srt-seccomp", "--", "sh", "-c", STATE]]);
            let proc = ["--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc"];
            let outer = |more: &[&str]| [line(&[&["bwrap", "--unshare-user", "--unshare-net"], more]), inner.clone()].concat();
            if who == Who::User {
                run_line(who, &outer(&proc)).ok().says(&state(true, true, "srt-init", who.uid()));
                return;
            }
            // bubblewrap's --proc is partly covered for root, like srt-mount's.
            let refused = run_line(who, &outer(&proc));
            refused.code(125).hints("srt-mount", "cannot make a procfs", "a /proc that is not masked");
            run_line(who, &outer(&["--dev-bind", "/", "/"])).ok().says(&state(true, true, "srt-init", who.uid()));
            // As uid 0 the inner user namespace needs CAP_SETFCAP, to write its map.
            let refused = run_line(who, &outer(&["--cap-drop", "CAP_SETFCAP", "--dev-bind", "/", "/"]));
            refused.code(125).hints("srt-ns", "cannot write /proc/self/uid_map", "uid 0 needs CAP_SETFCAP");
        }

        fn an_unshare_in_the_chain(who) {
            let work = who.scratch();
            let make = ["unshare", "--user", "echo", "made"];
            run(chain(who, work.path()).args(make)).code(1).says("").complains("unshare failed: No space left on device");
            let words = line(&[&["srt-ns", "--allow-userns", "--"], &make]);
            run_line(who, &words).ok().says("made");
        }
    }
}

#[test]
fn a_stage_finds_its_siblings_without_a_path() {
    // PATH names none of them, as after a download into some directory.
    let mut command = Command::new(tool("srt-ns"));
    command.env("PATH", "/usr/bin:/bin").args(["--", "srt-mount"]).args(TREE).args([
        "--",
        "srt-seccomp",
        "--",
        "echo",
        "found",
    ]);
    run(command.current_dir("/")).ok().says("found");
    assert!(path_with_tools().to_string_lossy().contains("srt-tools"));
}
