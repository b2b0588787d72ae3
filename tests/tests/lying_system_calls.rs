//! A system call that says it has been done and was not (an outer filter that answers 0), and one that fails for another
//! reason than a fallback is for: the command does not run.

use srt_tests::host::with_another_relay;
use srt_tests::processes::{attach_strace, inside};
use srt_tests::raw_filters::lying;
use srt_tests::refusals::{in_front, refuse_value};
use srt_tests::{DEFAULT_RULES, Ran, Scratch, Who, both, has, run, skip, tool, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// What locks the command down, or builds its file tree, and returns 0.
const LIES: &str = "seccomp,prctl,capset,mount_setattr,move_mount,pivot_root,umount2,unshare,setns,chroot,fchdir,setsid,\
                    close_range,keyctl,getdents64";

/// Says which part of the lock-down is missing. Every call of the command's stops for strace: a `read` of the shell's would
/// be one for each byte of a line.
const LOCKED: &str = r#"
gap() { echo "gap: $*"; }
field= seen=0
for value in $(cat /proc/self/status); do
    case $field in Cap???:|NoNewPrivs:|Seccomp:) seen=$((seen + 1)) ;; esac
    case $field in
        CapBnd:) bounding=$value ;; # Nobody without CAP_SETPCAP can drop it, and no_new_privs makes it mean nothing.
        Cap???:) test "$value" = 0000000000000000 || gap "$field $value" ;;
        NoNewPrivs:) test "$value" = 1 || gap "$field $value" ;;
        Seccomp:) test "$value" = 2 || gap "$field $value" ;;
    esac
    field=$value
done
test $seen = 7 || gap "$seen fields of seven"
"#;

/// Says which protection of the file tree is missing, after [`LOCKED`], and how many mounts there are. `$2` are the names of
/// the host's namespaces.
const PROBE: &str = r#"
test "$bounding" = 0000000000000000 || gap "CapBnd: $bounding"
test -w "$0/lower" && gap "what is mounted read-only can be written"
test -w "$0/work/three/four" && gap "what is mounted read-only below a writable directory can be written"
test -w /proc/sys/kernel/core_pattern && gap "the host's settings can be written"
test -s "$0/work/one/two/secret" && gap "what is masked can be read"
test -e /var/log && gap "what something is mounted on can be seen"
for keys in /proc/keys /proc/key-users; do read -r line <$keys 2>/dev/null && gap "the caller's keys are listed: $keys"; done
mv "$0/work/one" "$0/work/moved" 2>/dev/null && mv "$0/work/moved" "$0/work/one" && gap "a directory above a mask can be moved"
readlink /proc/1/exe >/dev/null && gap "PID 1 can be looked into"
test -c /dev/null && "$1" chmod-same /dev/null >/dev/null && gap "the host's /dev/null can be changed"
cd /proc/self/ns
names=$(readlink user pid net ipc uts cgroup mnt) || gap "no name of a namespace: $names"
for name in $names; do case " $2 " in *" $name "*) gap "a namespace is the host's: $name" ;; esac done
set -- $(cat /proc/self/stat)
test "${6:-0}" = 0 && gap "the session is the caller's"
set -- /proc/self/fd/*
test $# -gt 4 && gap "descriptors: $*"
echo "mounts $(grep -vc "/mounted " /proc/self/mountinfo)"
"#;

/// What builds a file tree. A fallback is for one errno each (an older kernel's), and EIO is none of them.
const BUILDING: &str = "open_tree,move_mount,mount_setattr,fsopen,fsconfig,fsmount";

/// A chain with every kind of mount in which srt-mount has a second way: pins below a writable bind, and overlays.
fn traced(who: Who, scratch: &Scratch, calls: &str, inject: Option<&str>) -> Ran {
    let log = scratch.join("log");
    let mut command = who.command("strace");
    command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output"]).arg(&log);
    command.arg(format!("--trace={calls}")).args(inject.iter().flat_map(|what| ["-e", what]));
    let [work, lower, other] =
        ["work", "lower", "other"].map(|name| scratch.join(name).display().to_string());
    command.arg(tool("srt-ns")).args([
        "--",
        "srt-mount",
        "--ro-bind",
        "/",
        "/",
        "--tmpfs",
        "/var/log/..",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]);
    command.args(["--bind", &work, &work, "--mask", &format!("{work}/one/two/secret"), "--ro-bind", "/etc"]);
    command.arg(format!("{work}/three/four"));
    command.args(["--overlay-src", &lower, "--overlay-src", &other, "--ro-overlay", "/mnt"]);
    run(command
        .args(["--", "srt-seccomp", "--", "sh", "-c", &format!("{LOCKED}{PROBE}")])
        .arg(scratch.path())
        .arg(tool("attack"))
        .arg(fs::read_to_string(scratch.join("host")).expect("the names")))
}

fn place(who: Who) -> Scratch {
    let scratch = who.scratch();
    for directory in ["work/one/two", "work/three/four", "lower", "other"] {
        scratch.dir(directory);
    }
    scratch.file("work/one/two/secret", "secret");
    let names = ["user", "pid", "net", "ipc", "uts", "cgroup", "mnt"];
    let link =
        |name| fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace").display().to_string();
    scratch.file("host", names.map(link).join(" "));
    scratch.file("log", "");
    scratch
}

/// A call's name, and which one of its process's it is.
type Call = (String, usize);

/// Each call of the chain and which one of its process's it is, after a run in which all went well.
/// And which of them must not be answered for, whatever the command finds.
fn calls(who: Who, scratch: &Scratch, names: &str) -> (BTreeMap<Call, String>, BTreeSet<Call>) {
    traced(who, scratch, names, None).ok();
    let log = fs::read_to_string(scratch.join("log")).expect("the log");
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut calls, mut firsts, mut must) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        let Some((process, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let count = counts.entry((process, name)).or_default();
        *count += 1;
        // What fails as it is, a probe, has a way out that is not looked at here.
        if !arguments.contains(" = -1 ") {
            calls.insert((name.to_owned(), *count), arguments.to_owned());
            // What is taken from a process that the command may never see: the first time it does take something.
            let takes = [
                "PR_SET_NO_NEW_PRIVS",
                "PR_SET_DUMPABLE",
                "{effective=0, permitted=0, inheritable=0}",
                "KEYCTL_JOIN_SESSION_KEYRING",
            ];
            if let Some(what) = takes.iter().find(|what| arguments.contains(**what))
                && firsts.insert((process, *what))
            {
                must.insert((name.to_owned(), *count));
            }
        }
    }
    (calls, must)
}

/// How many mounts the command has seen, if it ran.
fn mounts(ran: &Ran) -> Option<usize> {
    ran.out.lines().find_map(|line| line.strip_prefix("mounts ")?.parse().ok())
}

both! {
    fn a_call_that_was_not_done_though_it_says_so_lets_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = place(who);
        let whole = traced(who, &scratch, LIES, None);
        assert!(!whole.ok().out.contains("gap"), "{whole:#?}");
        let whole = mounts(&whole).expect("it ran");
        let mut gaps = vec![];
        let (calls, must) = calls(who, &scratch, LIES);
        assert!(must.len() > 3, "{must:?}");
        assert!(calls.len() > 30, "{calls:#?}");
        let mut dropped = 0;
        for ((name, when), arguments) in calls {
            // Of the forty that empty the bounding set the first will do.
            dropped += usize::from(arguments.starts_with("PR_CAPBSET_DROP"));
            if arguments.starts_with("PR_CAPBSET_DROP") && dropped > 1 {
                continue;
            }
            let told = traced(who, &scratch, LIES, Some(&format!("inject={name}:retval=0:when={when}")));
            let refused = told.code == Some(125) && mounts(&told).is_none() && told.err.starts_with("srt-");
            // A lie that takes nothing from the sandbox need not be noticed.
            let whole = told.code == Some(0) && !told.out.contains("gap") && mounts(&told).is_some_and(|mounts| mounts <= whole);
            if !refused && (!whole || must.contains(&(name.clone(), when))) {
                gaps.push(format!("{name}({arguments}, the {when}. time: {:?} {:?} {:?}", told.code, told.out, told.err));
            }
        }
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    fn an_outer_filter_that_answers_for_the_kernel_lets_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // Every one of a kind, in srt-seccomp alone: what it locks down with, all of it or one of both.
        let scratch = place(who);
        for calls in [&["seccomp"][..], &["prctl"], &["capset"], &["seccomp", "prctl"], &["seccomp", "prctl", "capset"], &["capset", "capget"]] {
            for options in [&[][..], &["--deny", "ptrace"], &["--allow", "unix"]] {
                let mut command = who.command("strace");
                command.args(["--quiet=all", "--output"]).arg(scratch.join("log"));
                command.arg(format!("--trace={}", calls.join(",")));
                for call in calls {
                    command.args(["-e", &format!("inject={call}:retval=0")]);
                }
                let script = format!("{LOCKED}echo it ran");
                command.arg(tool("srt-seccomp")).args(options).args(["--", "sh", "-c", &script]);
                let told = run(&mut command);
                // A call that the tool does not make, or that had nothing to take, may lie.
                let whole = (told.code, told.out.as_str()) == (Some(0), "it ran\n");
                let refused = (told.code, told.out.as_str()) == (Some(125), "");
                assert!(whole || refused, "{calls:?} {options:?}: {told:#?}");
            }
        }
    }

    fn a_filter_outside_that_answers_for_the_kernel_lets_nothing_run(who) {
        // Without strace: what a container's filter can be.
        let scratch = who.scratch();
        let outer = lying(&scratch, "outer");
        run(who.command("srt-seccomp").arg("--load").arg(&outer).args(["--", "echo", "it ran"])).ok().says("it ran");
        for options in [&[][..], &["--deny", "ptrace"], &["--allow", "unix"], &["--deny", "userns,mount"]] {
            let mut command = who.command("srt-seccomp");
            // The outer one must not deny itself what the inner one is to deny: it would be seen to hold.
            command.args(["--allow", DEFAULT_RULES, "--load"]).arg(&outer).arg("--");
            command.arg(tool("srt-seccomp")).args(options).args(["--", "echo", "it ran"]);
            run(&mut command).says("").code(125).one_clear_error("srt-seccomp");
        }
    }

    fn a_fallback_is_for_one_error_alone(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = place(who);
        let (all, _) = calls(who, &scratch, BUILDING);
        for call in ["open_tree", "fsconfig", "move_mount"] {
            assert!(all.keys().filter(|(name, _)| name == call).count() > 2, "{all:#?}");
        }
        let mut ran = vec![];
        for ((name, when), arguments) in all {
            let told = traced(who, &scratch, BUILDING, Some(&format!("inject={name}:error=EIO:when={when}")));
            if (told.code, told.out.as_str()) != (Some(125), "") || !told.err.starts_with("srt-") {
                ran.push(format!("{name}({arguments}, the {when}. time: {:?} {:?} {:?}", told.code, told.out, told.err));
            }
        }
        assert!(ran.is_empty(), "{ran:#?}");
    }

    fn two_calls_that_lie_together_let_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        for lies in [&["pivot_root"][..], &["umount2"], &["pivot_root", "umount2"]] {
            let mut command = who.command("strace");
            command.args(["--quiet=all", "--follow-forks", "--output=/dev/null"]).arg(format!("--trace={}", lies.join(",")));
            for lie in lies { command.args(["-e", &format!("inject={lie}:retval=0")]); }
            // --as-pid-1: the one process that has a mount namespace is srt-mount.
            command.arg(tool("srt-ns")).args(["--as-pid-1", "--", "srt-mount", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--", "echo", "ran"]);
            let ran = run(&mut command);
            assert_eq!((ran.code, ran.out.as_str()), (Some(125), ""), "{lies:?}: {ran:#?}");
        }
    }
}

both! {
    fn a_lookup_that_the_kernel_gives_up_is_made_again(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // openat2(2), EAGAIN: something was renamed meanwhile, anywhere. It is told of a lookup in a root alone.
        let scratch = place(who);
        let start = |inject: Option<&str>| {
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--trace=openat2", "--output"]).arg(scratch.join("log"));
            command.args(inject.iter().flat_map(|what| ["-e", what])).arg(tool("srt-ns")).args(["--", "srt-mount"]);
            run(command.args(["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--mask", "/etc/passwd", "--", "echo", "ran"]))
        };
        start(None).ok().says("ran");
        let log = fs::read_to_string(scratch.join("log")).expect("the log");
        let looked: Vec<bool> = log.lines().filter(|line| line.contains("openat2(")).map(|line| line.contains("RESOLVE_IN_ROOT")).collect();
        assert!(looked.contains(&true), "{log}");
        for (at, _) in looked.into_iter().enumerate().filter(|(_, in_root)| *in_root) {
            // The next calls are those that are made again.
            let ran = start(Some(&format!("inject=openat2:error=EAGAIN:when={}..{}", at + 1, at + 5)));
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), "ran\n"), "from the {}. time on: {ran:#?}", at + 1);
        }
    }

    fn a_namespace_that_was_not_made_though_it_says_so_lets_nothing_run(who) {
        // Without a procfs or mounts of the sandbox's own, which are refused without their namespaces.
        let ns = tool("srt-ns");
        lies_of_unshare(&mut || who.command("strace"), &[ns.to_str().expect("a path"), "--", "echo", "ran"], 3);
        lies_of_unshare(&mut || who.command("strace"), &[ns.to_str().expect("a path"), "--as-pid-1", "--", "echo", "ran"], 3);
        // Where one call for all is refused there are two.
        let others = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        let refuse = |flags, errno| refuse_value(libc::SYS_unshare, 0, flags, errno);
        let together = || refuse(libc::CLONE_NEWUSER | others, libc::EPERM);
        for (refusals, wanted) in [(vec![together()], (Some(0), "ran\n")), (vec![together(), refuse(others, 0)], (Some(125), ""))] {
            let mut command = who.command("srt-ns");
            in_front(command.args(["--", "echo", "ran"]), &refusals);
            let ran = run(&mut command);
            assert_eq!((ran.code, ran.out.as_str()), wanted, "{ran:#?}");
        }
    }

    fn a_process_group_that_was_not_left_though_it_says_so_lets_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        for options in [&["--keep-session"][..], &["--keep-session", "--as-pid-1"]] {
            for (lie, wanted) in [(None, (Some(0), "ran\n")), (Some("inject=setpgid:retval=0"), (Some(125), ""))] {
                let mut command = who.command("strace");
                command.args(["--follow-forks", "--quiet=all", "--output=/dev/null", "--trace=setpgid"]);
                command.args(lie.iter().flat_map(|lie| ["-e", lie])).arg(tool("srt-ns")).args(options);
                let ran = run(command.args(["--", "echo", "ran"]));
                assert_eq!((ran.code, ran.out.as_str()), wanted, "{options:?} {lie:?}: {ran:#?}");
            }
        }
    }
}

both! {
    fn no_user_namespace_can_be_made_though_the_writing_of_their_limit_was_answered_for(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // Opened, it would be stdin; and written, though it was not.
        for (lie, wanted) in [(None, Some(0)), (Some("inject=openat:retval=0:when=1"), Some(125)), (Some("inject=write:retval=1"), Some(125))] {
            let mut command = who.command("strace");
            command.args(["--quiet=all", "--output=/dev/null", "--trace-path=/proc/sys/user/max_user_namespaces"]);
            command.args(lie.iter().flat_map(|lie| ["-e", lie])).arg(tool("srt-ns"));
            command.stdin(fs::File::options().read(true).write(true).open("/dev/null").expect("/dev/null"));
            let ran = run(command.args(["--", "sh", "-c", "! unshare --user true 2>&1"]));
            assert_eq!(ran.code, wanted, "{lie:?}: {ran:#?}");
        }
    }

    fn no_capability_is_left_though_the_command_s_own_capset_was_answered_for(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        // As uid 0 inside an exec makes of an inheritable capability one that can be used.
        for (lies, options) in [(false, &["--uid", "0"][..]), (true, &["--uid", "0"]), (true, &["--uid", "0", "--keep-admin"])] {
            let socket = scratch.join("p.sock");
            let mut command = who.command(&ns);
            command.args(options).arg("--publish").arg(format!("{}=1006", socket.display()));
            command.args(["--", "grep", "Cap[IPE]", "/proc/self/status"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().expect("srt-ns");
            let strace = lies.then(|| attach_strace(inside(child.id(), 2), "capset", "retval=0"));
            wait_until("the relay to be let go", || UnixStream::connect(&socket).is_ok());
            let ran = child.wait_with_output().expect("its end");
            strace.map(|mut strace| strace.wait());
            if lies {
                assert!(ran.status.code() == Some(125) && ran.stdout.is_empty(), "{options:?}: {ran:?}");
            } else {
                assert_eq!(String::from_utf8_lossy(&ran.stdout).matches("\t0000000000000000\n").count(), 3, "{ran:?}");
            }
        }
    }
}

/// Root without a user namespace of its own has rights over what the host has: no refusal that comes later tells of a
/// namespace that was not made.
#[test]
fn with_rights_over_the_hosts_neither() {
    // What goes wrong here goes wrong in copies of the host's.
    let mut copies = || {
        let mut command = Who::Root.command("unshare");
        command.args(["--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--", "strace"]);
        command
    };
    let (ns, mount) = (tool("srt-ns"), tool("srt-mount"));
    let (ns, mount) = (ns.to_str().expect("a path"), mount.to_str().expect("a path"));
    lies_of_unshare(&mut copies, &[ns, "--share", "user", "--allow-userns", "--", "echo", "ran"], 3);
    // Each of them alone.
    for share in ["user,ipc,uts", "user,ipc,cgroup", "user,uts,cgroup"] {
        lies_of_unshare(&mut copies, &[ns, "--share", share, "--allow-userns", "--", "echo", "ran"], 3);
        let alone = [ns, "--share", share, "--allow-userns", "--as-pid-1", "--", "echo", "ran"];
        lies_of_unshare(&mut copies, &alone, 3);
    }
    // Without srt-init, which has namespaces of its own to make.
    lies_of_unshare(
        &mut copies,
        &[ns, "--share", "user", "--allow-userns", "--as-pid-1", "--", "echo", "ran"],
        3,
    );
    lies_of_unshare(&mut copies, &[mount, "--ro-bind", "/", "/", "--tmpfs", "/mnt", "--", "echo", "ran"], 1);
}

/// What root's mounts share with others they go on sharing in a copy, unless that is made private. The copies of another
/// user namespace receive mounts, but share none of their own (mount_namespaces(7)).
#[test]
fn mounts_that_stay_shared_though_they_were_made_private_let_nothing_run() {
    if !has("strace") {
        skip!("no strace");
    }
    for (lie, wanted) in
        [(None, (Some(0), "ran\n")), (Some("inject=mount_setattr:retval=0:when=1"), (Some(125), ""))]
    {
        for namespaces in [&[][..], &["unshare", "-Ur", "--"]] {
            // The root is none of them: pivot_root(2) would refuse it.
            let script = "mount -t tmpfs tmpfs /mnt && mount --make-shared /mnt && exec \"$@\"";
            let ran = lies_of_mount_setattr(lie, script, namespaces, &["/", "/", "--", "echo", "ran"]);
            assert_eq!((ran.code, ran.out.as_str()), wanted, "{lie:?}: {ran:#?}");
        }
    }
}

/// The attributes of a mount below another one are not read back.
#[test]
fn a_mount_that_stays_writable_below_a_read_only_one_lets_nothing_run() {
    if !has("strace") {
        skip!("no strace");
    }
    let attack = tool("attack");
    let script = format!(
        "mount -t tmpfs -o nosuid,nodev tmpfs /mnt && cp {} /mnt/attack && mkdir /mnt/below &&
        mount -t tmpfs tmpfs /mnt/below && echo >/mnt/below/file && mount -o remount,bind,ro,nosuid,nodev /mnt && : | \"$@\"",
        attack.display()
    );
    for (lie, wanted) in [(None, 7), (Some("inject=mount_setattr:retval=0:when=2+"), 125)] {
        let attack = ["/mnt", "/mnt", "--", "/mnt/attack", "open-write", "/mnt/below/file"];
        let ran = lies_of_mount_setattr(lie, &script, &[], &attack);
        assert_eq!(ran.code, Some(wanted), "{lie:?}: {ran:#?}");
        assert!(!ran.out.contains("succeeded"), "{ran:#?}");
    }
}

/// `srt-mount --ro-bind` after a script in a mount namespace of its own, with a lie of strace's.
fn lies_of_mount_setattr(lie: Option<&str>, script: &str, namespaces: &[&str], bind: &[&str]) -> Ran {
    let mut command = Who::Root.command("unshare");
    command.args(["--mount", "--propagation=private", "--", "sh", "-c", script, "sh"]).args(namespaces);
    command.args(["strace", "--quiet=all", "--output=/dev/null", "--trace=mount_setattr"]);
    command.args(lie.iter().flat_map(|lie| ["-e", lie])).arg(tool("srt-mount"));
    run(command.arg("--ro-bind").args(bind))
}

/// Answers for each of the unshare(2) calls of a process.
fn lies_of_unshare(strace: &mut dyn FnMut() -> std::process::Command, program: &[&str], calls: usize) {
    if !has("strace") {
        skip!("no strace");
    }
    for lie in 0..=calls {
        let mut command = strace();
        command.args(["--follow-forks", "--quiet=all", "--output=/dev/null", "--trace=unshare"]);
        if lie > 0 {
            command.args(["-e", &format!("inject=unshare:retval=0:when={lie}")]);
        }
        let ran = run(command.args(program));
        let wanted = if lie == 0 { (Some(0), "ran\n") } else { (Some(125), "") };
        assert_eq!((ran.code, ran.out.as_str()), wanted, "{program:?}, the {lie}. time: {ran:#?}");
    }
}
