//! What every process of a running sandbox holds, in one table: whoever takes one of them over must find nothing in it.

use srt_tests::host::{Greeter, chain_out};
use srt_tests::processes::{Family, child_named, descendants, status_field};
use srt_tests::talk::Talk;
use srt_tests::{Scratch, Who, both, has, pass_fd, run, skip, tool, tools, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a process may hold.
struct Row {
    name: &'static str,
    /// It is dumpable: its own user has ptrace(2) access, /proc/PID/root and /proc/PID/fd included.
    readable: bool,
    /// `Seccomp` in proc_pid_status(5).
    seccomp: &'static str,
    /// What its descriptors may be open on: the beginning of the link, `*`: any number of them in any order.
    descriptors: &'static [&'static str],
    /// What its root directory holds.
    root: Root,
    /// The namespaces in which it is the host's, of [`NAMESPACES`].
    hosts: &'static [&'static str],
    /// It blocks signals, and reads them from a descriptor or not at all.
    blocks: bool,
    /// It has an argv and an environment of the caller's.
    environment: bool,
}

#[derive(PartialEq)]
enum Root {
    Host,
    Nothing,
    /// /proc/self/fd/N alone.
    Sockets,
    Sandbox,
}

const NAMESPACES: [&str; 7] = ["user", "pid", "net", "mnt", "ipc", "uts", "cgroup"];

const TABLE: &[Row] = &[
    Row {
        name: "srt-ns",
        readable: false,
        seccomp: "0",
        descriptors: &[
            "pipe:",
            "socket:",
            "anon_inode:[signalfd]",
            "anon_inode:[pidfd]",
            "TOOLS",
            "SCRATCH",
            "/dev/tty",
            "AUTOGROUP",
            "*",
        ],
        root: Root::Host,
        hosts: &["pid", "mnt"],
        blocks: true,
        environment: true,
    },
    Row {
        name: "srt-init",
        readable: false,
        seccomp: "0",
        descriptors: &["pipe:"],
        root: Root::Nothing,
        // Its root is attached nowhere: no path leads from there into the host's tree.
        hosts: &["mnt"],
        blocks: true,
        environment: false,
    },
    Row {
        name: "srt-watchdog",
        readable: false,
        seccomp: "0",
        descriptors: &["pipe:", "socket:", "anon_inode:[pidfd]", "/proc/", "SCRATCH", "*"],
        root: Root::Host,
        // It was forked before there was a network namespace to enter.
        hosts: &["pid", "net", "mnt"],
        blocks: true,
        environment: true,
    },
    Row {
        name: "srt-relay",
        readable: false,
        seccomp: "2",
        descriptors: &["/dev/null", "pipe:", "socket:", "anon_inode:", "SCRATCH", "*"],
        root: Root::Sockets,
        hosts: &["pid"],
        blocks: true,
        environment: false,
    },
    Row {
        name: "sleep",
        readable: true,
        seccomp: "0",
        descriptors: &["/dev/null", "/dev/null", "pipe:"],
        root: Root::Host,
        hosts: &["pid", "mnt"],
        blocks: false,
        environment: true,
    },
    Row {
        name: "cat",
        readable: true,
        seccomp: "2",
        descriptors: &["pipe:", "pipe:", "pipe:"],
        root: Root::Sandbox,
        hosts: &[],
        blocks: false,
        environment: true,
    },
];

/// A sandbox with every kind of helper, whose caller has a secret as descriptor 9.
fn sandbox(who: Who, scratch: &Scratch, options: &[&str]) -> Command {
    let mut words: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
    words.extend(["--relay".to_owned(), format!("8080={}", scratch.join("p.sock").display())]);
    words.extend(["--publish".to_owned(), format!("{}=8000", scratch.join("published.sock").display())]);
    words.extend(["--sidecar", "exec sleep 1000"].map(str::to_owned));
    let mut command = chain_out(who, &words, &scratch.join("work"));
    command.args(["sh", "-c", "echo ready; exec cat"]);
    command
}

fn link(pid: i32, what: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/{what}"));
    link.unwrap_or_else(|error| panic!("{what} of {pid}: {error}")).to_string_lossy().into_owned()
}

/// The links of all descriptors, in order. What was closed since they were listed is empty, and fits nothing.
fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").map(|entry| entry.expect("an entry"));
    let mut numbers: Vec<i32> =
        entries.map(|entry| entry.file_name().to_string_lossy().parse().expect("a number")).collect();
    numbers.sort_unstable();
    let link = |number| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
    numbers.into_iter().map(|number| link(number).to_string_lossy().into_owned()).collect()
}

/// The names in the root directory of a process, below one of them too.
fn root_holds(pid: i32) -> Vec<String> {
    let list = |path: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(path).expect("a directory").map(|e| e.expect("an entry").path()).collect();
        names.sort();
        names
    };
    let root = format!("/proc/{pid}/root/");
    list(Path::new(&root))
        .iter()
        .map(|path| path.strip_prefix(&root).expect("below").display().to_string())
        .collect()
}

/// The `ST_*` flags of the mount that a path leads to (statvfs(3)).
fn mount_flags(path: &str) -> libc::c_ulong {
    let path = std::ffi::CString::new(path).expect("no NUL");
    // SAFETY: all-zero bytes are a valid statvfs.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and a statvfs to fill.
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) }, 0, "{path:?}");
    stat.f_flag
}

/// What one process holds against its row, a line for each that differs.
fn compare(who: Who, scratch: &Scratch, pid: i32, row: &Row, secret: &str, options: &[&str]) -> Vec<String> {
    let mut wrong = vec![];
    let own: i32 = std::process::id().try_into().expect("a pid");
    let mut expect = |what: &str, found: String, expected: &str| {
        if found != expected {
            wrong.push(format!("{}: {what}: {found}, not {expected}", row.name));
        }
    };
    let status = |name: &str| status_field(pid, name).unwrap_or_default();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        expect(set, status(set), "0000000000000000");
    }
    expect("NoNewPrivs", status("NoNewPrivs"), "1");
    expect("Seccomp", status("Seccomp"), row.seccomp);
    let uid = who.uid().to_string();
    for ids in ["Uid", "Gid"] {
        expect(ids, status(ids), &[uid.as_str(); 4].join("\t"));
    }
    // The two signals of the C library's own are left out.
    let mask = |name: &str| u64::from_str_radix(&status(name), 16).expect("a mask") & !(0b11 << 31);
    expect("blocks signals", (mask("SigBlk") != 0).to_string(), &row.blocks.to_string());
    if row.name == "srt-relay" {
        // What it takes itself, of what srt-ns has blocked for its own sake no more: HUP, INT, TERM; and TTOU.
        expect("SigBlk", format!("{:x}", mask("SigBlk")), "204003");
    }
    if !row.blocks && row.name != "srt-relay" {
        expect("SigIgn", format!("{:x}", mask("SigIgn")), "0");
    }
    // proc(5): root's, unless it is dumpable. Of root's own processes that says nothing: but the link of a process that was
    // not started in the sandbox's user namespace is read with the capabilities there, and this reader has none.
    let owner = fs::metadata(format!("/proc/{pid}/mem")).expect("mem").uid();
    match who {
        Who::User => expect("owner of mem", owner.to_string(), if row.readable { "1000" } else { "0" }),
        Who::Root if row.name != "srt-relay" => {
            let mut probe = Command::new("setpriv");
            probe.args(["--inh-caps=-all", "--bounding-set=-all", "readlink", &format!("/proc/{pid}/exe")]);
            expect("readable", (run(&mut probe).code == Some(0)).to_string(), &row.readable.to_string());
        }
        Who::Root => {}
    }
    // Where it stands.
    for namespace in NAMESPACES {
        let hosts = link(pid, &format!("ns/{namespace}")) == link(own, &format!("ns/{namespace}"));
        let expected = row.hosts.contains(&namespace);
        expect(namespace, hosts.to_string(), &expected.to_string());
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).expect("a session");
    let inside = options.contains(&"--keep-session") && ["srt-init", "cat"].contains(&row.name);
    if row.name != "srt-ns" && !inside {
        expect("session", session.to_owned(), &pid.to_string());
    }
    let holds = root_holds(pid);
    let same = |of: &str| {
        let id = |path: String| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).expect("a root");
        id(format!("/proc/{pid}/root/{of}")) == id(format!("/{of}"))
    };
    match row.root {
        Root::Host => expect("root", same("").to_string(), "true"),
        Root::Sandbox => expect("/tmp", same("tmp").to_string(), "false"),
        Root::Nothing => expect("root", holds.join(" "), ""),
        Root::Sockets => expect("root", holds.join(" "), "proc"),
    }
    if matches!(row.root, Root::Nothing | Root::Sockets) {
        let written = fs::write(format!("/proc/{pid}/root/new"), "").map_err(|error| error.raw_os_error());
        expect(
            "a write to its root",
            format!("{written:?}"),
            &format!("{:?}", Err::<(), _>(Some(libc::EROFS))),
        );
        expect("cwd", link(pid, "cwd"), "/");
        let flags = libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC;
        expect(
            "the flags of its root",
            (mount_flags(&format!("/proc/{pid}/root/")) & flags).to_string(),
            &flags.to_string(),
        );
    }
    // What it is open on.
    let open = descriptors(pid);
    let tools = tools().display().to_string();
    let fits = |found: &String, expected: &str| match expected {
        "SCRATCH" => found.starts_with(scratch.text()),
        "TOOLS" => found.starts_with(&tools),
        "AUTOGROUP" => *found == format!("/proc/{pid}/autogroup"),
        "*" => false,
        _ => found.starts_with(expected),
    };
    let fitting = match row.descriptors.contains(&"*") {
        true => open.iter().all(|found| row.descriptors.iter().any(|&expected| fits(found, expected))),
        false => {
            open.len() == row.descriptors.len() && open.iter().zip(row.descriptors).all(|(f, &e)| fits(f, e))
        }
    };
    expect("descriptors", if fitting { String::new() } else { format!("{open:?}") }, "");
    // Under --keep-fd the supervisor has had it; the command does not get it, since the stages between do not keep it.
    let may = options.contains(&"--keep-fd") && row.name == "srt-ns";
    expect("the caller's secret", (open.iter().any(|found| found == secret) && !may).to_string(), "false");
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("environ");
    let environment = environ.windows(7).any(|bytes| bytes == b"hunter2");
    expect("the caller's environment", environment.to_string(), &row.environment.to_string());
    wrong
}

/// strace's log: the calls of each process, in its own order.
fn calls_of_each(log: &str) -> Vec<Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in log.lines() {
        if let Some((pid, call)) = line.split_once(' ') {
            all.entry(pid).or_default().push(call.trim_start().to_owned());
        }
    }
    all.into_values().collect()
}

fn at(calls: &[String], text: &str) -> Option<usize> {
    calls.iter().position(|call| call.contains(text))
}

both! {
    fn nothing_is_held_that_is_not_in_the_table(who) {
        for options in [&[][..], &["--keep-session"], &["--wait-all"], &["--outlive-parent"], &["--keep-fd", "9"]] {
            let family = Family::new();
            let scratch = who.scratch();
            scratch.dir("work");
            let _greeter = Greeter::start(&scratch.join("p.sock"), "hello");
            let mut command = sandbox(who, &scratch, options);
            command.env("SECRET_TOKEN", "hunter2");
            let (reader, _writer) = std::io::pipe().expect("a pipe");
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            let secret = link(std::process::id().try_into().expect("a pid"), &format!("fd/{}", reader.as_raw_fd()));
            let mut talk = Talk::over_pipes(&mut command);
            talk.expect("ready");
            let look = || -> Vec<String> {
                let all = TABLE.iter().flat_map(|row| {
                    let pid = if row.name == "srt-ns" { talk.pid() } else { child_named(talk.pid(), row.name) };
                    if row.environment {
                        // Who has a new name has not its new environment yet (execve(2)).
                        wait_until("its exec", || fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| !all.is_empty()));
                    }
                    compare(who, &scratch, pid, row, &secret, options)
                });
                all.collect()
            };
            let mut wrong = look();
            // What the start needed is closed once the command runs, which can reach nobody who still has it.
            let closes = |wrong: &str| wrong.contains(": descriptors: ");
            let deadline = Instant::now() + Duration::from_secs(5);
            while !wrong.is_empty() && wrong.iter().all(|wrong| closes(wrong)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                wrong = look();
            }
            // And there is nobody else.
            let mut names: Vec<String> = descendants(talk.pid()).into_iter().map(|process| process.name).collect();
            names.sort();
            assert_eq!(names, ["cat", "sleep", "srt-init", "srt-relay", "srt-watchdog"], "{options:?}");
            assert!(wrong.is_empty(), "{options:?}: {wrong:#?}");
            talk.close_input();
            assert_eq!(talk.end().0, 0);
            family.ends();
        }
    }

    fn every_helper_and_pid_1_join_a_keyring_of_their_own(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let _family = Family::new();
        let scratch = who.scratch();
        scratch.dir("work");
        let log = scratch.file("log", "");
        let _greeter = Greeter::start(&scratch.join("p.sock"), "hello");
        let inner = sandbox(who, &scratch, &[]);
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--trace=keyctl,execve,execveat,prctl", "--output"]);
        command.arg(&log).arg(tool("srt-ns"));
        let words: Vec<_> = inner.get_args().skip_while(|word| *word != "--relay").map(std::ffi::OsStr::to_owned).collect();
        let ran = run(command.args(words));
        ran.ok().says("ready");
        let log = fs::read_to_string(&log).expect("the log");
        let joined: BTreeSet<&str> = log
            .lines()
            .filter(|line| line.contains("KEYCTL_JOIN_SESSION_KEYRING") && !line.contains(" = -1 "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        for known_by in ["\"srt-relay\"", "\"-c\", \"exec sleep 1000\"]", "PR_SET_NAME, \"srt-watchdog\""] {
            let line = log.lines().find(|line| line.contains(known_by)).unwrap_or_else(|| panic!("no {known_by} in {log}"));
            assert!(joined.contains(line.split(' ').next().expect("a pid")), "{known_by}: {log}");
        }
        // And srt-init, whose keyring is the command's. (An ordinary user's strace cannot read its name any more.)
        assert_eq!(joined.len(), 4, "{log}");
    }

    fn what_refuses_goes_after_what_refuses_from_then_on(who) {
        let _family = Family::new();
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("s"), "word");
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output"]).arg(&log);
        command.arg("--trace=prctl,capset,execve,execveat,setsid,setpgid").arg(tool("srt-ns"));
        command.arg("--relay").arg(format!("4000={}", scratch.join("s").display()));
        run(command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--", "true"])).ok();
        let log = fs::read_to_string(&log).expect("the log");
        let (mut both, mut relays, mut armeds) = (0, 0, 0);
        for calls in calls_of_each(&log) {
            let end = calls.iter().position(|call| call.starts_with("execveat(")).unwrap_or(calls.len());
            let own = &calls[..end];
            let dropped = own.iter().rposition(|call| call.starts_with("capset("));
            // Armed before the call that takes the lock under which a parent dies.
            if let Some(armed) = at(own, "PR_SET_PDEATHSIG") {
                assert!(own.iter().position(|call| call.starts_with("setsid(") || call.starts_with("setpgid(")).is_some_and(|detached| armed < detached), "{calls:#?}");
                armeds += 1;
            }
            // The supervisor and srt-init.
            if let (Some(hidden), Some(dropped)) = (at(own, "PR_SET_DUMPABLE, SUID_DUMP_DISABLE"), dropped) {
                assert!(hidden < dropped, "{calls:#?}");
                both += 1;
            }
            // srt-relay starts without any, and can gain none.
            if calls.iter().any(|call| call.starts_with("execveat(") && call.contains("\"srt-relay\"")) {
                assert!(dropped.is_some_and(|at| own[at].contains("{effective=0, permitted=0, inheritable=0}")) && at(own, "PR_SET_NO_NEW_PRIVS, 1").is_some(), "{calls:#?}");
                relays += 1;
            }
        }
        assert_eq!((both, relays, armeds), (2, 1, 2), "{log}");
    }

    fn nobody_lets_the_command_run_who_has_not_locked_himself_down(who) {
        let _family = Family::new();
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output"]).arg(&log);
        command.arg("--trace=prctl,capset,close_range,sendmsg").arg(tool("srt-ns"));
        command.arg("--publish").arg(format!("{}=1004", scratch.join("p").display()));
        run(command.args(["--", "true"])).ok();
        let log = fs::read_to_string(&log).expect("the log");
        // The watchdog and srt-init name themselves.
        let both: Vec<_> = calls_of_each(&log).into_iter().filter(|calls| at(calls, "PR_SET_NAME").is_some()).collect();
        assert_eq!(both.len(), 2, "{log}");
        for calls in both {
            let says_so = at(&calls, "sendmsg(").expect("its only word");
            for step in ["PR_SET_NO_NEW_PRIVS, 1", "capset(", "PR_SET_DUMPABLE, SUID_DUMP_DISABLE", "close_range("] {
                assert!(at(&calls, step).is_some_and(|at| at < says_so), "{step}: {calls:#?}");
            }
        }
    }
}
