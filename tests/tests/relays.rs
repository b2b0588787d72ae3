//! The relays themselves: where they lead whatever happens to a path, what they can do if they are taken over, and that
//! there is no sandbox without them.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::{Events, Greeter, with_another_relay};
use srt_tests::processes::{child_named, descendants};
use srt_tests::talk::Talk;
use srt_tests::{Who, both, has, run, skip, tool, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SOCAT: &str = "socat -u TCP4:127.0.0.1:4000 -";

/// srt-ns with a relay from 4000 to this socket.
fn relayed(who: Who, socket: &Path) -> Command {
    let mut command = who.command("srt-ns");
    command.arg("--relay").arg(format!("4000={}", socket.display()));
    command
}

/// The files of /proc/PID/status that say what a process may do.
fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

fn namespace(pid: i32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace")
}

/// Every path below a directory.
fn tree(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        into.push(path.clone());
        if fs::symlink_metadata(&path).expect("metadata").is_dir() {
            tree(&path, into);
        }
    }
}

both! {
    fn what_happens_to_the_path_from_inside_redirects_nothing(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        let attacks = [
            "mv dir/real.sock dir/away; mv dir/decoy.sock dir/real.sock",
            "rm dir/real.sock; ln dir/decoy.sock dir/real.sock",
            "rm dir/real.sock; ln -s decoy.sock dir/real.sock",
            "mv dir away; mkdir dir; ln -s ../away/decoy.sock dir/real.sock",
            "mv dir away; mv other dir",
        ];
        for attack in attacks {
            for (relay, expected) in [("--relay", "real"), ("--sidecar", "decoy")] {
                let scratch = who.scratch();
                for dir in ["dir", "other"] {
                    scratch.dir(dir);
                }
                let socket = scratch.join("dir/real.sock");
                let _real = Greeter::start(&socket, "real");
                let _decoy = Greeter::start(&scratch.join("dir/decoy.sock"), "decoy");
                let _third = Greeter::start(&scratch.join("other/real.sock"), "decoy");
                let value = match relay {
                    "--relay" => format!("4000={}", socket.display()),
                    _ => format!("exec socat TCP-LISTEN:4000,bind=127.0.0.1,fork UNIX-CONNECT:{}", socket.display()),
                };
                let script = format!(
                    "until said=$({SOCAT} 2>/dev/null); do sleep 0.01; done; test \"$said\" = real || exit 3
                     {attack}
                     {SOCAT}"
                );
                let mut command = who.command("srt-ns");
                command.args([relay, &value, "--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--bind"]);
                command.args([scratch.path(), scratch.path()]).arg("--chdir").arg(scratch.path());
                let ran = run(command.args(["--", "srt-seccomp", "--", "sh", "-euc", &script]));
                assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{relay}: {attack}: {ran:?}");
            }
        }
    }

    fn directories_exchanged_during_the_start_redirect_nothing(who) {
        let scratch = who.scratch();
        scratch.dir("p/real");
        scratch.dir("secret");
        let _proxy = Greeter::start(&scratch.join("p/real/s.sock"), "proxy");
        let _other = Greeter::start(&scratch.join("secret/s.sock"), "other");
        run(who.command("mkfifo").arg(scratch.join("options"))).ok();
        let (real, away) = (scratch.join("p/real"), scratch.join("p/away"));
        let swap = |leads: bool| {
            if leads {
                fs::rename(&real, &away).and_then(|()| std::os::unix::fs::symlink(scratch.join("secret"), &real)).expect("swap");
            } else {
                fs::remove_file(&real).and_then(|()| fs::rename(&away, &real)).expect("swap back");
            }
        };
        let published = format!("--publish {}/new.sock=5999", real.display());
        let relay = format!("--relay 3128={}/s.sock", real.display());
        let placeholder = format!("--placeholder {}/sub/.x", real.display());
        scratch.dir("p/real/sub");
        scratch.dir("secret/sub");
        for option in [relay, published, placeholder] {
            // What srt-ns opens is another's; when srt-mount looks, the way there is as it should be.
            swap(true);
            let script = format!(
                "exec srt-ns {option} --keep-fd 9 -- srt-mount --ro-bind / / --dev /dev --bind {0}/p {0}/p --args 9 -- \
                 echo the command runs 9< <(cat {0}/options)",
                scratch.text()
            );
            let talk = Talk::over_pipes(who.command("bash").args(["-c", &script]));
            wait_until("srt-mount to read its options", || {
                descendants(talk.pid()).iter().any(|process| process.name == "srt-mount")
            });
            swap(false);
            fs::write(scratch.join("options"), "--tmpfs\0/mnt\0").expect("write");
            let (code, said) = talk.end();
            assert!(code == 125 && !said.contains("the command runs"), "{option}: {code} {said}");
            assert!(!scratch.join("secret/new.sock").exists() && !scratch.join("secret/sub/.x").exists(), "{option}");
        }
    }

    fn unlinking_the_socket_takes_nothing_away(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        let scratch = who.scratch();
        let socket = scratch.join("p.sock");
        let _greeter = Greeter::start(&socket, "hello");
        let script = format!("rm \"$1\"; {SOCAT}");
        run(relayed(who, &socket).args(["--", "sh", "-euc", &script, "sh"]).arg(&socket)).ok().says("hello");
        assert!(!socket.exists());
    }

    fn a_proxy_that_made_its_socket_anew_is_reported_and_not_followed(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        let scratch = who.scratch();
        let socket = scratch.join("p.sock");
        let greeter = Greeter::start(&socket, "first");
        let mut command = relayed(who, &socket);
        let over_v6 = SOCAT.replace("TCP4:127.0.0.1:", "TCP6:[::1]:");
        let script = format!("while read -r how; do case $how in 6) {over_v6} ;; *) {SOCAT} ;; esac 2>&1; echo .; done; exit 7");
        command.args(["--status-fd", "9", "--", "sh", "-c", &script]);
        let events = Events::of(&mut command, &scratch);
        let mut talk = Talk::over_pipes(&mut command);
        talk.send("\n");
        assert_eq!(talk.expect(".\n"), "first");

        drop(greeter);
        fs::remove_file(&socket).expect("unlink");
        let _again = Greeter::start(&socket, "second");
        talk.send("\n");
        let said = talk.expect(".\n");
        assert!(!said.contains("second"), "{said}");
        let is_lost = |line: &&str| line.contains("relay-lost");
        wait_until("relay-lost", || events.text().lines().any(|line| is_lost(&line)));
        // Each loopback address has a listener of its own, and both are the user's one option.
        talk.send("6\n");
        talk.expect(".\n");
        wait_until("relay-lost of ::1", || events.text().lines().filter(is_lost).count() == 2);
        let text = events.text();
        for lost in text.lines().filter(is_lost) {
            assert!(lost.starts_with("{\"stage\":\"srt-ns\",\"event\":\"relay-lost\""), "{lost}");
            assert!(lost.contains(&format!("4000={}", socket.display())) && lost.ends_with('}'), "{lost}");
        }
        talk.close_input();
        let (code, rest) = talk.end();
        assert_eq!(code, 7);
        // On the status descriptor alone: stderr is the command's, too.
        let all = said + &rest;
        assert!(!all.contains("srt-relay: ") && !all.contains("srt-ns: "), "on stderr: {all}");
    }

    fn kill_minus_one_inside_leaves_the_relays_serving(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("p.sock"), "hello");
        // The control is a socat in the sandbox, which the same kill(2) ends. Nothing is killed if this is no sandbox.
        let script = format!(
            "test $$ -lt 10 || exit 99
             socat TCP-LISTEN:5000,bind=127.0.0.1,fork EXEC:'echo inside' & inside=$!
             until socat -u TCP4:127.0.0.1:5000 - 2>/dev/null; do sleep 0.01; done
             {SOCAT}; echo
             kill -9 -1
             wait $inside; echo $?
             socat -u TCP4:127.0.0.1:5000 - 2>/dev/null || echo refused
             {SOCAT}"
        );
        let ran = run(relayed(who, &scratch.join("p.sock")).args(["--", "sh", "-c", &script]));
        ran.ok().says("inside\nhello\n137\nrefused\nhello");
    }

    fn a_relay_has_nothing_that_is_worth_taking_over(who) {
        if !has("socat") {
            srt_tests::skip!("no socat");
        }
        let scratch = who.scratch();
        let socket = scratch.join("p.sock");
        let _greeter = Greeter::start(&socket, "hello");
        let published = scratch.join("published.sock");
        let mut command = relayed(who, &socket);
        command.arg("--publish").arg(format!("{}=8000", published.display()));
        // Descriptors and variables that the caller lets everybody have.
        let events = Events::of(&mut command, &scratch);
        command.env("SECRET_TOKEN", "hunter2").args(["--", "sh", "-c"]);
        let mut talk = Talk::over_pipes(command.arg(format!("{SOCAT}; echo; readlink /proc/self/ns/net; read -r _")));
        assert_eq!(talk.line(), "hello");
        let network = talk.line();
        let relay = child_named(talk.pid(), "srt-relay");
        let supervisor = talk.pid();

        // Its root: the socket that it connects to, at the path that it uses, and nothing else.
        let root = PathBuf::from(format!("/proc/{relay}/root/"));
        let mut paths = Vec::new();
        tree(&root, &mut paths);
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.strip_prefix(&root).expect("below it").to_str().expect("UTF-8").to_owned())
            .collect();
        let [proc, own, fd, pin] = &names[..] else { panic!("{names:?}") };
        assert_eq!([proc, own, fd], ["proc", "proc/self", "proc/self/fd"]);
        assert!(pin.strip_prefix("proc/self/fd/").is_some_and(|fd| fd.parse::<i32>().is_ok()), "{pin}");
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let (there, here) = (fs::metadata(&paths[3]).expect("there"), fs::metadata(&socket).expect("here"));
        assert!(here.file_type().is_socket());
        assert_eq!((there.dev(), there.ino()), (here.dev(), here.ino()));
        let mounts = fs::read_to_string(format!("/proc/{relay}/mountinfo")).expect("mountinfo");
        for (line, end) in mounts.lines().zip([" / ", pin.as_str()]) {
            assert!(line.contains(end), "{mounts}");
        }
        assert_eq!(mounts.lines().count(), 2, "{mounts}");
        let options = mounts.lines().next().and_then(|line| line.split(' ').nth(5)).expect("options");
        assert!(options.split(',').any(|option| option == "ro"), "{mounts}");
        assert_eq!(fs::read_link(format!("/proc/{relay}/cwd")).expect("cwd"), Path::new("/"));

        // Its descriptors: no file, no directory, none of the caller's but stderr.
        let kinds: BTreeMap<i32, String> = fs::read_dir(format!("/proc/{relay}/fd"))
            .expect("fd")
            .map(|entry| entry.expect("an entry").path())
            .filter_map(|path| {
                let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                // That of a connection may go meanwhile.
                Some((number.expect("a number"), fs::read_link(&path).ok()?.to_string_lossy().into_owned()))
            })
            .collect();
        for (number, kind) in &kinds {
            let expected = match number {
                0 | 1 => kind == "/dev/null",
                2 => kind.starts_with("pipe:"),
                _ => {
                    ["socket:", "anon_inode:", "pipe:"].iter().any(|start| kind.starts_with(start))
                        || *kind == socket.to_string_lossy()
                }
            };
            assert!(expected, "{kinds:?}");
        }
        let caller = fs::read_link(format!("/proc/{supervisor}/fd/1")).map(|kind| kind.to_string_lossy().into_owned());
        assert!(kinds.iter().filter(|(number, _)| **number > 2).all(|(_, kind)| Some(kind) != caller.as_ref().ok()), "{kinds:?}");

        let may = status(relay);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(may[set], "0000000000000000", "{set}");
        }
        assert_eq!([&may["NoNewPrivs"], &may["Seccomp"], &may["Threads"]], ["1", "2", "1"]);
        assert_eq!(fs::read(format!("/proc/{relay}/environ")).expect("environ"), b"");
        let stat = fs::read_to_string(format!("/proc/{relay}/stat")).expect("stat");
        let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).expect("a session");
        assert_eq!(session, relay.to_string(), "{stat}");

        // Where it is: in the sandbox's network, in the host's pid namespace, in nobody else's mounts.
        assert_eq!(namespace(relay, "net").to_string_lossy(), network);
        assert_ne!(namespace(relay, "net"), namespace(std::process::id().try_into().expect("pid"), "net"));
        assert_eq!(namespace(relay, "pid"), namespace(std::process::id().try_into().expect("pid"), "pid"));
        assert_ne!(namespace(relay, "mnt"), namespace(supervisor, "mnt"));
        // The supervisor has what is asserted away above.
        assert!(fs::read_dir(format!("/proc/{supervisor}/root/")).expect("its root").count() > 4);
        assert!(fs::read_link(format!("/proc/{supervisor}/fd/1")).is_ok());
        assert_eq!(events.text(), "");
        talk.send("\n");
        assert_eq!(talk.end(), (0, String::new()));
    }

    fn a_relay_that_does_not_come_up_is_fatal_and_the_command_does_not_run(who) {
        for (port, words) in [
            (1001, "srt-relay ended before the command could start"),
            (1003, "srt-relay ended before the command could start"),
            (1002, "srt-relay is not ready after 10 seconds"),
        ] {
            let scratch = who.scratch();
            let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
            let (marker, published) = (scratch.join("ran"), scratch.join("p.sock"));
            let mut command = who.command(ns);
            command.arg("--publish").arg(format!("{}={port}", published.display()));
            command.args(["--status-fd", "9", "--", "touch"]).arg(&marker);
            let events = Events::of(&mut command, &scratch);
            let start = Instant::now();
            let ran = run(&mut command);
            // One that has said something else is not waited for.
            assert!(port == 1002 || start.elapsed() < Duration::from_secs(6), "{port}: {:?}", start.elapsed());
            ran.code(125).complains(words).one_clear_error("srt-ns");
            assert!(events.text().starts_with("{\"stage\":\"srt-ns\",\"event\":\"failed\",\"code\":125,"), "{}", events.text());
            assert!(!events.text().contains("started"), "{}", events.text());
            assert!(!marker.exists(), "the command has run");
            assert!(!published.exists(), "the published socket is still there");
        }
    }

    fn what_a_relay_that_was_taken_over_says_without_end_is_not_kept(who) {
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, env!("CARGO_BIN_EXE_fake-relay"));
        let mut command = who.command(ns);
        command.arg("--publish").arg(format!("{}=1005", scratch.join("p.sock").display())).args(["--", "sh", "-c", "echo ready; read -r _"]);
        let mut talk = Talk::over_pipes(&mut command);
        // The line behind it is understood.
        talk.expect("its socket is gone or was replaced");
        let most: u64 = status(talk.pid())["VmHWM"].trim_end_matches("kB").trim().parse().expect("a number");
        assert!(most < 16 << 10, "{most} KiB");
        talk.send("\n");
        assert_eq!(talk.end().0, 0);
    }

    fn a_umask_takes_nothing_from_a_relay(who) {
        let scratch = who.scratch();
        let socket = scratch.join("s.sock");
        let _greeter = Greeter::start(&socket, "hello");
        let mut command = who.command("sh");
        command.args(["-c", "umask 0777; exec \"$@\"", "sh"]).arg(tool("srt-ns"));
        command.arg("--relay").arg(format!("4000={}", socket.display()));
        run(command.args(["--", "sh", "-c", SOCAT])).ok().says("hello");
    }

    fn a_relay_that_is_not_there_or_no_program_is_fatal(who) {
        let scratch = who.scratch();
        let ns = with_another_relay(&scratch, "/etc/passwd");
        let socket = format!("{}=8000", scratch.join("p.sock").display());
        run(who.command(&ns).args(["--publish", &socket, "--", "echo", "it ran"])).code(125).says("").complains("srt-relay");
        fs::remove_file(scratch.join("tools/srt-relay")).expect("unlink");
        let ran = run(who.command(&ns).args(["--publish", &socket, "--", "echo", "it ran"]));
        ran.code(125).says("").complains("hint: --relay and --publish need srt-relay beside srt-ns");
        run(who.command(&ns).args(["--", "echo", "it ran"])).ok().says("it ran");
        assert!(!scratch.join("p.sock").exists());
    }

    fn without_ipv6_a_relay_listens_on_ipv4_alone(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let _greeter = Greeter::start(&scratch.join("s"), "word");
        for (lie, code) in [
            ("inject=bind:error=EADDRNOTAVAIL:when=2", 0),
            ("inject=socket:error=EAFNOSUPPORT:when=2", 0),
            // The control: without 127.0.0.1 there is no port.
            ("inject=bind:error=EADDRNOTAVAIL:when=1", 125),
            ("inject=bind:error=EACCES:when=2", 125),
        ] {
            let mut command = who.command("strace");
            command.args(["--follow-forks", "--quiet=all", "--signal=none", "--output=/dev/null"]);
            let call = lie.split(['=', ':']).nth(1).expect("a call");
            command.arg(format!("--trace={call}")).args(["-e", lie]).arg(tool("srt-ns"));
            command.arg("--relay").arg(format!("4000={}", scratch.join("s").display()));
            let ran = run(command.args(["--", "echo", "ran"]));
            assert_eq!((ran.code, ran.out.as_str()), (Some(code), if code == 0 { "ran\n" } else { "" }), "{lie}: {ran:#?}");
        }
    }
}
