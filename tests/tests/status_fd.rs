//! --status-fd tells a failure of the tools from the command's own exit status, and what a script must know.

use srt_tests::processes::{descendants, kill};
use srt_tests::talk::{Talk, Terminal, fill_by};
use srt_tests::{DEADLINE, Ran, Who, both, chain_with, pass_fd, run, run_with_input, wait_until};
use std::fs;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, fchown};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const OPTIONS: [&str; 4] = ["--status-fd", "9", "--keep-fd", "9"];

/// Reads lines until there are `count`, or to the end.
fn lines(reader: &mut PipeReader, count: usize) -> Vec<String> {
    let start = Instant::now();
    let mut text = vec![];
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&mut poll, 1, 100) };
        assert!(start.elapsed() < DEADLINE, "nobody closes the status descriptor");
        let mut byte = [0];
        if poll.revents != 0 && reader.read(&mut byte).expect("read") == 0 {
            break;
        }
        if poll.revents != 0 {
            text.push(byte[0]);
        }
    }
    String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// Runs a command to its end, with descriptor 9 for its events.
fn with_status(command: &mut Command) -> (Ran, Vec<String>) {
    let (mut reader, writer) = pipe().expect("pipe");
    pass_fd(command, writer.as_raw_fd(), 9);
    let ran = run(command);
    drop(writer);
    let events = lines(&mut reader, usize::MAX);
    assert_json(&events);
    (ran, events)
}

/// Fails the test unless every line is one JSON object with a stage and an event.
fn assert_json(events: &[String]) {
    let script = "import json, sys
for line in sys.stdin: assert {'stage', 'event'} <= json.loads(line).keys()";
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    run_with_input(Who::Root.command("/usr/bin/python3").args(["-c", script]), text.as_bytes()).ok();
}

/// The value of a number in one line of JSON.
fn number(event: &str, key: &str) -> u64 {
    let (_, rest) = event.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {event}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} is no number in {event}"))
}

/// Writes until there is no room, without waiting for a reader.
fn fill(fd: i32) {
    fill_by(fd, 4096);
    fill_by(fd, 1);
}

fn failures(events: &[String]) -> Vec<&String> {
    events.iter().filter(|event| event.contains("\"event\":\"failed\"")).collect()
}

both! {
    fn the_commands_own_125_126_and_127_are_no_failures(who) {
        let work = who.scratch();
        for code in [0, 1, 125, 126, 127] {
            let script = format!("exit {code}");
            let (ran, events) = with_status(chain_with(who, work.path(), &OPTIONS).args(["sh", "-c", &script]));
            ran.code(code);
            assert_eq!(failures(&events), [""; 0]);
            let told: Vec<&String> = events.iter().filter(|event| !event.contains("\"event\":\"exec\"")).collect();
            assert_eq!(told.len(), 3, "started, built and exited: {events:#?}");
            assert_eq!(events.len() - told.len(), 3, "an exec of each stage: {events:#?}");
            assert!(told[0].starts_with("{\"stage\":\"srt-ns\",\"event\":\"started\","), "{events:#?}");
            assert!(told[1].starts_with("{\"stage\":\"srt-mount\",\"event\":\"started\","), "{events:#?}");
            assert!(told[2].contains(&format!("\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":{code}")), "{events:#?}");
        }
    }

    fn a_failure_of_each_stage_is_told_with_its_code_and_message(who) {
        let work = who.scratch();
        let text = work.file("text", "");
        let text = text.to_str().expect("UTF-8");
        let status = "--status-fd 9 --keep-fd 9";
        for (words, stage, code, message) in [
            (format!("{status} --hostname -- x"), "srt-ns", 125, "--hostname"),
            (format!("--keep-fd 98 {status} -- true"), "srt-ns", 125, "98"),
            (format!("{status} --nope -- true"), "srt-ns", 125, "--nope"),
            (format!("{status} -- /missing"), "srt-ns", 127, "/missing"),
            (format!("{status} -- {text}"), "srt-ns", 126, text),
            (format!("{status} -- srt-mount {status} --bind /missing / -- true"), "srt-mount", 125, "/missing"),
            (format!("{status} -- srt-mount {status} --bind / / true"), "srt-mount", 125, "--"),
            (format!("{status} -- srt-mount {status} --ro-bind / / -- /missing"), "srt-mount", 127, "/missing"),
            (format!("{status} -- srt-mount {status} --ro-bind / / -- {text}"), "srt-mount", 126, text),
            (format!("{status} -- srt-seccomp {status} --allow nope -- true"), "srt-seccomp", 125, "nope"),
            (format!("{status} -- srt-seccomp {status} -- /missing"), "srt-seccomp", 127, "/missing"),
            (format!("{status} -- srt-seccomp {status} -- {text}"), "srt-seccomp", 126, text),
        ] {
            let (ran, events) = with_status(who.command("srt-ns").args(words.split(' ')));
            ran.code(code).one_clear_error(stage);
            let failures = failures(&events);
            assert_eq!(failures.len(), 1, "{words}: {events:#?}");
            let expected = format!("{{\"stage\":\"{stage}\",\"event\":\"failed\",\"code\":{code},\"message\":\"");
            assert!(failures[0].starts_with(&expected) && failures[0].contains(message), "{words}: {events:#?}");
            if message.starts_with('/') {
                assert!(failures[0].contains(&format!(",\"path\":\"{message}\"")), "{words}: {events:#?}");
            }
        }
    }

    fn the_last_event_is_how_the_command_ended(who) {
        let work = who.scratch();
        let (ran, events) = with_status(chain_with(who, work.path(), &OPTIONS).args(["sh", "-c", "kill -9 $$"]));
        ran.code(137);
        assert_eq!(events.last().map(String::as_str), Some("{\"stage\":\"srt-ns\",\"event\":\"exited\",\"signal\":9}"));
        // What the command ends with by itself is a code, though the exit status is the same.
        let (ran, events) = with_status(chain_with(who, work.path(), &OPTIONS).args(["sh", "-c", "exit 137"]));
        ran.code(137);
        assert_eq!(events.last().map(String::as_str), Some("{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":137}"));
    }

    fn started_tells_the_commands_number_and_its_namespaces(who) {
        for options in [&[][..], &["--share", "net,uts"], &["--as-pid-1"]] {
            let (mut reader, writer) = pipe().expect("pipe");
            let mut command = who.command("srt-ns");
            pass_fd(&mut command, writer.as_raw_fd(), 9);
            command.args(["--status-fd", "9"]).args(options);
            let mut talk = Talk::over_pipes(command.args(["--", "sh", "-c", "echo ready; read end; exit 4"]));
            drop(writer);
            talk.expect("ready");
            let events = lines(&mut reader, 1);
            assert!(events[0].starts_with("{\"stage\":\"srt-ns\",\"event\":\"started\","), "{events:#?}");
            let pid = number(&events[0], "pid");
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("the command runs");
            assert!(words.starts_with("sh\0-c\0echo ready"), "{words:?}");
            let (_, namespaces) = events[0].split_once("\"namespaces\":").expect("namespaces");
            for name in ["user", "pid", "net", "ipc", "uts", "cgroup"] {
                let inode = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/{name}")).expect("root may look").ino();
                assert_eq!(number(namespaces, name), inode(&pid.to_string()), "{name}");
                let shared = options.last().is_some_and(|shared| shared.split(',').any(|one| one == name));
                assert_eq!(number(namespaces, name) == inode("self"), shared, "{name}");
            }
            talk.send("\n");
            assert_eq!(talk.end().0, 4);
            let rest = lines(&mut reader, 3);
            let exited = "{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":4}";
            assert_eq!(rest, ["{\"stage\":\"srt-ns\",\"event\":\"exec\"}", exited]);
        }
    }

    fn the_command_does_not_get_the_status_descriptor(who) {
        let script = "[ -e /proc/self/fd/9 ] && exit 1; exit 0";
        for words in [&["srt-ns", "--status-fd", "9"][..], &["srt-seccomp", "--status-fd", "9"]] {
            let command = &mut who.command(words[0]);
            with_status(command.args(&words[1..]).args(["--", "sh", "-c", script])).0.ok();
        }
        // Were it kept, it would be there.
        let words = ["--status-fd", "9", "--keep-fd", "9", "--", "sh", "-c", script];
        with_status(who.command("srt-ns").args(words)).0.code(1);
    }

    fn a_reader_that_has_gone_away_changes_nothing(who) {
        let work = who.scratch();
        let (reader, writer) = pipe().expect("pipe");
        drop(reader);
        let mut command = chain_with(who, work.path(), &OPTIONS);
        pass_fd(&mut command, writer.as_raw_fd(), 9);
        let ran = run(command.args(["sh", "-c", "exit 6"]));
        assert!(ran.code(6).err.is_empty(), "{ran:#?}");
    }

    fn a_status_descriptor_that_nobody_reads_holds_up_nothing(who) {
        // A full pipe and a full terminal, which an ordinary user cannot open again since they are root's; and a full socket.
        let (_reader, writer) = pipe().expect("pipe");
        let (_near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let terminal = Terminal::new(Who::Root);
        for full in [writer.as_raw_fd(), far.as_raw_fd(), terminal.fd()] {
            fill(full);
            let mut command = who.command("srt-ns");
            pass_fd(&mut command, full, 9);
            run(command.args(["--status-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", "--", "sh", "-c", "exit 6"])).code(6);
        }
    }

    fn a_terminal_with_little_room_that_nobody_reads_holds_up_nothing(who) {
        let mut terminal = Terminal::new(who);
        let (scratch, name) = (who.scratch(), "x".repeat(2500));
        let up = scratch.join("up").display().to_string();
        let mut command = who.command("srt-ns");
        pass_fd(&mut command, terminal.fd(), 2);
        // What is said of its end, once the command runs, is longer than the room.
        let sidecar = format!("while [ ! -e {up} ]; do sleep 0.05; done; : {name}");
        command.args(["--sidecar", &sidecar, "--", "sh", "-c", &format!(">{up}; sleep 0.6; exit 6")]);
        terminal.leave_little_room();
        run(&mut command).code(6);
    }

    fn a_terminal_that_the_command_has_to_itself_holds_up_nothing(who) {
        for stderr in [true, false] {
            let mut terminal = Terminal::new(who);
            let (scratch, name) = (who.scratch(), "x".repeat(2500));
            let up = scratch.join("up").display().to_string();
            let mut command = who.command("srt-ns");
            pass_fd(&mut command, terminal.fd(), if stderr { 2 } else { 9 });
            if !stderr {
                command.args(["--status-fd", "9", "--keep-fd", "9"]);
            }
            let sidecar = format!("while [ ! -e {up} ]; do sleep 0.05; done; : {name}");
            command.args(["--sidecar", &sidecar, "--", "/usr/bin/python3", "-c"]);
            // Nobody opens it any more. (0x540c is TIOCEXCL.)
            let fd = if stderr { 2 } else { 9 };
            command.arg(format!("import fcntl, os, time; fcntl.ioctl({fd}, 0x540c); open('{up}', 'w'); time.sleep(0.6); os._exit(6)"));
            terminal.leave_little_room();
            run(&mut command).code(6);
        }
    }

    fn connections_that_fail_leave_room_for_the_end(who) {
        let scratch = who.scratch();
        let socket = scratch.join("s");
        let (mut reader, writer) = pipe().expect("pipe");
        // For a user who may not open it again, each event takes one of its 16 places.
        // One client of two is refused, after one that was not.
        let server = "import socket, time
for _ in range(150):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', 8000))
        listener.listen()
        listener.accept()[0].close()
    time.sleep(0.02)";
        let mut command = who.command("srt-ns");
        pass_fd(&mut command, writer.as_raw_fd(), 9);
        command.args(["--status-fd", "9", "--publish"]).arg(format!("{}=8000", socket.display()));
        let mut child = command.args(["--", "python3", "-c", server]).spawn().expect("spawn");
        drop(writer);
        while child.try_wait().expect("wait").is_none() {
            let _refused = UnixStream::connect(&socket).map(|mut stream| stream.read(&mut [0]));
            sleep(Duration::from_millis(5));
        }
        // Read only now, as a script does that waits for the end first.
        let events = lines(&mut reader, usize::MAX);
        let failed = events.iter().filter(|event| event.contains("\"event\":\"connect-failed\"")).count();
        assert!(failed >= 5, "{events:#?}");
        assert_eq!(events.last().map(String::as_str), Some("{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":0}"));
    }

    fn helpers_that_end_leave_room_for_the_end_in_a_pipe_of_another_user(who) {
      for (size, least) in [(16 << 12, 5), (4 << 12, 0)] {
        let (mut reader, writer) = pipe().expect("pipe");
        srt_common::sys::fd::fcntl(&writer, libc::F_SETPIPE_SZ, size).expect("F_SETPIPE_SZ");
        // Nobody without capabilities opens it again.
        fchown(&writer, Some(54321), None).expect("fchown");
        let mut command = who.command("srt-ns");
        pass_fd(&mut command, writer.as_raw_fd(), 9);
        command.args(["--status-fd", "9"]).args(["--sidecar", "exec sleep 1000"].repeat(20));
        let mut talk = Talk::over_pipes(command.args(["--", "sh", "-c", "echo ready; read -r _; exit 3"]));
        drop(writer);
        talk.expect("ready\n");
        let sidecars = || descendants(talk.pid()).into_iter().filter(|process| process.name == "sleep");
        wait_until("the sidecars", || sidecars().count() == 20);
        sidecars().for_each(|sidecar| kill(sidecar.pid, libc::SIGKILL));
        wait_until("their end", || sidecars().count() == 0);
        talk.send("\n");
        assert_eq!(talk.end(), (3, String::new()));
        let events = lines(&mut reader, usize::MAX);
        let ended = events.iter().filter(|event| event.contains("\"event\":\"sidecar-ended\"")).count();
        assert!(ended >= least, "{events:#?}");
        assert_eq!(events.last().map(String::as_str), Some("{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":3}"));
      }
    }

    fn a_status_descriptor_at_its_limit_holds_up_nothing(who) {
        let scratch = who.scratch();
        let file = scratch.file("events", "");
        let script = "ulimit -f 0; exec srt-ns --status-fd 9 -- sh -c 'exit 6' 9>>\"$0\"";
        // The supervisor's own SIGXFSZ is nothing for the command, whenever it comes.
        for _ in 0..20 {
            run(who.command("sh").args(["-c", script]).arg(&file)).code(6);
        }
        assert_eq!(fs::read_to_string(&file).expect("read"), "");
    }

    fn a_file_has_one_event_behind_the_other(who) {
        let scratch = who.scratch();
        let file = scratch.file("events", "");
        // Not to append: where the next one goes is what the open file says that all share.
        let script = "exec srt-ns --status-fd 9 -- sh -c 'exit 6' 9>\"$0\"";
        run(who.command("sh").args(["-c", script]).arg(&file)).code(6);
        let text = fs::read_to_string(&file).expect("read");
        let events: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_json(&events);
        assert_eq!(events.len(), 3, "started, exec, exited: {events:#?}");
    }

    fn standard_output_may_be_the_status_descriptor(who) {
        for words in [&["srt-ns", "--status-fd", "1", "--"][..], &["srt-seccomp", "--status-fd", "1", "--"]] {
            let ran = run(who.command(words[0]).args(&words[1..]).args(["echo", "it ran"]));
            assert!(ran.ok().out.contains("\"exec\"") && ran.out.contains("it ran\n"), "{ran:#?}");
        }
    }

    fn standard_error_may_be_the_status_descriptor(who) {
        let ran = run(who.command("srt-ns").args(["--status-fd", "2", "--", "sh", "-c", "exit 6"]));
        assert_eq!(ran.code(6).err.lines().count(), 3, "started, exec, exited: {ran:#?}");
    }
}
