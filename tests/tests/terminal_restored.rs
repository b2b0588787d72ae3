//! The terminals on 0, 1 and 2 are afterwards as they were, whoever has changed what about them in which kind of session:
//! modes, output flow, exclusive use, file mode, O_NONBLOCK and the foreground.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::processes::{self, child_named};
use srt_tests::talk::{State, Talk, Terminal};
use srt_tests::{Who, both, has, run, skip, tool, wait, wait_until};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const SESSIONS: [&[&str]; 5] =
    [&[], &["--keep-session"], &["--as-pid-1"], &["--keep-session", "--as-pid-1"], &["--wait-all"]];

/// What can be changed about a terminal; the last one keeps everybody from writing to it.
const THINGS: [&str; 5] = ["raw", "nonblock", "mode", "exclusive", "flow"];

/// Starts a command with a terminal of its own on each of 0, 1, 2, the first of which is its session's, if any.
fn on_three(command: &mut Command, terminals: &[Terminal; 3], controls: Option<usize>) -> Child {
    command.stdin(terminals[0].stdio()).stdout(terminals[1].stdio()).stderr(terminals[2].stdio());
    let terminal = controls.map(|number| terminals[number].fd());
    // SAFETY: all three calls are async-signal-safe, and act on the child alone.
    unsafe {
        command.pre_exec(move || {
            let done = libc::setsid() >= 0;
            let done = done && terminal.is_none_or(|fd| libc::ioctl(fd, libc::TIOCSCTTY, 0) == 0);
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let child = command.spawn().expect("spawn");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child
}

fn three(who: Who) -> [Terminal; 3] {
    std::array::from_fn(|_| Terminal::new(who))
}

fn states(terminals: &[Terminal; 3]) -> Vec<State> {
    terminals.iter().map(Terminal::state).collect()
}

/// A virtual console that nobody uses. The end of a session hangs up whoever has it open.
fn console(who: Who) -> std::io::Result<File> {
    let path = if who == Who::Root { "/dev/tty62" } else { "/dev/tty63" };
    File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path)
}

/// What its keyboard and its meta key send, and whether it shows text: KDGKBMODE, KDGKBMETA and KDGETMODE.
fn console_modes(who: Who) -> [libc::c_int; 3] {
    let console = console(who).expect("a console");
    [0x4b44, 0x4b62, 0x4b3b].map(|request| {
        let mut mode = -1;
        // SAFETY: both fill one integer.
        unsafe { libc::ioctl(console.as_raw_fd(), request, &raw mut mode) };
        mode
    })
}

/// Runs a command in a session of its own on it.
fn on_console(who: Who, command: &mut Command) {
    let stdio = || Stdio::from(console(who).expect("a console"));
    command.stdin(stdio()).stdout(stdio()).stderr(stdio());
    // SAFETY: both calls are async-signal-safe, and act on the child alone.
    unsafe {
        command.pre_exec(|| match libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        });
    }
    wait(&mut command.spawn().expect("spawn"), "the command on a console");
}

/// Rows and columns of both consoles.
fn console_sizes() -> [[u16; 2]; 2] {
    [Who::Root, Who::User].map(|who| {
        let (console, mut size) = (console(who).expect("a console"), [0_u16; 4]);
        // SAFETY: the four numbers of a struct winsize.
        unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        [size[0], size[1]]
    })
}

/// VT_RESIZE: rows and columns of all consoles.
fn resize_consoles(who: Who, [rows, columns]: [u16; 2]) {
    let (console, sizes) = (console(who).expect("a console"), [rows, columns, 0]);
    // SAFETY: the three numbers of a struct vt_sizes.
    unsafe { libc::ioctl(console.as_raw_fd(), 0x5609, &raw const sizes) };
}

// One user after the other: VT_RESIZE changes all consoles.
#[test]
fn the_virtual_consoles_have_the_size_that_they_had() {
    if console(Who::User).is_err() {
        srt_tests::skip!("there are no virtual consoles");
    }
    const SPOILED: [[u16; 2]; 2] = [[10, 20]; 2];
    if console_sizes() == SPOILED {
        // A run of this test that failed.
        resize_consoles(Who::Root, [25, 80]);
    }
    let before = console_sizes();
    assert_ne!(before, SPOILED);
    for who in [Who::Root, Who::User] {
        for options in [&["--keep-session"][..], &["--keep-session", "--as-pid-1"]] {
            let sandbox = Sandbox::bare(who).ns(options);
            on_console(who, &mut sandbox.command(&[INSIDE, "spoil", "0", "size"]));
            assert_eq!(console_sizes(), before, "{options:?}");
        }
        // The control, undone at once.
        on_console(who, who.command(tool("attack")).args(["spoil", "0", "size"]));
        let after = console_sizes();
        resize_consoles(who, before[0]);
        assert_eq!(after, SPOILED);
        assert_eq!(console_sizes(), before);
    }
}

#[test]
fn without_a_sandbox_a_command_leaves_its_terminal_as_it_likes() {
    for who in [Who::Root, Who::User] {
        for thing in THINGS {
            for fd in ["0", "1", "2"] {
                let terminals = three(who);
                let before = states(&terminals);
                let mut child =
                    on_three(who.command(tool("attack")).args(["spoil", fd, thing]), &terminals, None);
                wait(&mut child, "the attack");
                let number: usize = fd.parse().expect("a number");
                let after = states(&terminals);
                for other in 0..3 {
                    assert_eq!(before[other] == after[other], other != number, "{thing} of {fd}: {after:#?}");
                }
            }
        }
    }
}

/// All changes of all sessions share the kernel's limit: one in a tenth of a second.
static TURN: Mutex<()> = Mutex::new(());

both! {
    fn a_virtual_console_hears_and_shows_what_it_did(who) {
        if console(who).is_err() {
            srt_tests::skip!("there are no virtual consoles");
        }
        let set = |request, mode: libc::c_int| {
            // Anew: the end of a session hangs up its terminal.
            let console = console(who).expect("a console");
            // SAFETY: both take an integer.
            assert_eq!(unsafe { libc::ioctl(console.as_raw_fd(), request, mode) }, 0);
        };
        // K_UNICODE, K_METABIT and KD_TEXT, whatever a run that failed has left.
        let before = [3, 3, 0];
        let things = [("keyboard", 0x4b45), ("meta", 0x4b63), ("graphics", 0x4b3a)];
        for ((_, request), mode) in things.into_iter().zip(before) {
            set(request, mode);
        }
        assert_eq!(console_modes(who), before);
        for (number, (thing, request)) in things.into_iter().enumerate() {
            for options in [&["--keep-session"][..], &["--keep-session", "--as-pid-1"]] {
                let sandbox = Sandbox::bare(who).ns(options);
                on_console(who, &mut sandbox.command(&[INSIDE, "spoil", "0", thing]));
                assert_eq!(console_modes(who), before, "{thing} {options:?}");
            }
            // The control, undone at once.
            on_console(who, who.command(tool("attack")).args(["spoil", "0", thing]));
            assert_ne!(console_modes(who)[number], before[number], "{thing}");
            set(request, before[number]);
        }
        assert_eq!(console_modes(who), before);
    }

    fn each_terminal_on_0_1_and_2_is_as_it_was_after_each_change(who) {
        for options in SESSIONS {
            let mut wrong = vec![];
            for thing in THINGS {
                let terminals = three(who);
                let before = states(&terminals);
                // One after the other: what is stopped or non-blocking must not be needed for the next.
                let script = format!("for fd in 2 1 0; do {INSIDE} spoil $fd {thing} || exit 9; done");
                let sandbox = Sandbox::bare(who).ns(options);
                let mut child = on_three(&mut sandbox.command(&["sh", "-c", &script]), &terminals, Some(0));
                wait(&mut child, "the end of the sandbox");
                if states(&terminals) != before {
                    wrong.push((thing, states(&terminals)));
                }
            }
            assert!(wrong.is_empty(), "{options:?}: {wrong:#?}");
        }
    }

    fn a_terminal_that_is_nobodys_or_another_sessions_is_as_it_was(who) {
        // The session has none, or it is the one on 2.
        for controls in [None, Some(2)] {
            for options in SESSIONS {
                let terminals = three(who);
                let before = states(&terminals);
                let sandbox = Sandbox::bare(who).ns(options);
                let mut child = on_three(&mut sandbox.command(&[INSIDE, "spoil-all"]), &terminals, controls);
                wait(&mut child, "the end of the sandbox");
                assert_eq!(states(&terminals), before, "{options:?} {controls:?}");
            }
        }
    }

    fn however_the_command_ends_the_terminals_are_as_they_were(who) {
        for options in SESSIONS {
            for end in ["exit 3", "kill -9 $$", "kill -TERM $$", "kill -9 0", "told"] {
                let mut terminals = three(who);
                let before = states(&terminals);
                let work = who.scratch();
                let script = match end {
                    "told" => format!("{INSIDE} spoil-all; touch done; exec sleep 1000"),
                    end => format!("{INSIDE} spoil-all; {end}; exit 3"),
                };
                let sandbox = Sandbox::new(who, work.path()).ns(options).ns(&["--kill-after", "1"]);
                let mut child = on_three(&mut sandbox.command(&["sh", "-c", &script]), &terminals, Some(0));
                if end == "told" {
                    wait_until("the attack", || work.join("done").exists());
                    assert_ne!(states(&terminals), before, "nothing was spoilt");
                    processes::kill(child.id().try_into().expect("a pid"), libc::SIGTERM);
                }
                wait(&mut child, "the end of the sandbox");
                assert_eq!(states(&terminals), before, "{options:?} {end}");
                terminals.iter_mut().for_each(Terminal::drain);
            }
        }
    }

    fn one_terminal_on_all_of_them_is_as_it_was(who) {
        for options in SESSIONS {
            let terminal = Terminal::new(who);
            let before = terminal.state();
            let mut command = Sandbox::bare(who).ns(options).command(&[INSIDE, "spoil-all"]);
            command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
            let fd = terminal.fd();
            // SAFETY: both calls are async-signal-safe, and act on the child alone.
            unsafe { command.pre_exec(move || { libc::setsid(); libc::ioctl(fd, libc::TIOCSCTTY, 0); Ok(()) }); }
            let mut child = command.spawn().expect("spawn");
            wait(&mut child, "the end of the sandbox");
            assert_eq!(terminal.state(), before, "{options:?}");
        }
    }

    fn the_flags_of_whatever_0_1_and_2_are_are_as_they_were(who) {
        // Packets (O_DIRECT), with which a reader of few bytes loses what the caller writes next; and a log to append to.
        let spoil = "import fcntl, os
for fd, flags in ((0, os.O_NONBLOCK), (1, os.O_NONBLOCK | os.O_DIRECT), (2, os.O_NONBLOCK)):
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND";
        let scratch = who.scratch();
        let flags = |file: &dyn AsRawFd| {
            // SAFETY: integers.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
        };
        for options in SESSIONS {
            let (input, _feeder) = std::io::pipe().expect("a pipe");
            let (_reader, output) = std::io::pipe().expect("a pipe");
            let log = File::options().append(true).create(true).open(scratch.join("log")).expect("open");
            let before = [flags(&input), flags(&output), flags(&log)];
            let mut command = who.command("srt-ns");
            command.args(options).args(["--", "/usr/bin/python3", "-c", spoil]);
            command.stdin(input.try_clone().expect("clone")).stdout(output.try_clone().expect("clone"));
            let status = command.stderr(log.try_clone().expect("clone")).status().expect("srt-ns");
            assert!(status.success(), "{options:?}");
            assert_eq!([flags(&input), flags(&output), flags(&log)], before, "{options:?}");
        }
    }

    fn what_was_unusual_before_is_unusual_afterwards(who) {
        for options in SESSIONS {
            let terminals = three(who);
            // Non-blocking, exclusive, mode 0600, raw: as a caller may have it for reasons of its own.
            for terminal in &terminals {
                for thing in &THINGS[..4] {
                    run(Who::Root.command(tool("attack")).args(["spoil", "0", thing]).stdin(terminal.stdio())).ok();
                }
            }
            let before = states(&terminals);
            assert!(before.iter().all(|state| state.exclusive && state.flags & libc::O_NONBLOCK != 0), "{before:#?}");
            let script = "for fd in 0 1 2; do exec 3<&$fd; done; stty sane; chmod 0600 /proc/self/fd/0; exit 0";
            let sandbox = Sandbox::bare(who).ns(options);
            let mut child = on_three(&mut sandbox.command(&["sh", "-c", script]), &terminals, Some(0));
            wait(&mut child, "the end of the sandbox");
            assert_eq!(states(&terminals), before, "{options:?}");
        }
    }

    fn what_a_sidecar_changes_until_it_is_dead_is_as_it_was(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // It has the caller's stderr, and goes on while everybody else is dead.
        let terminals = three(who);
        let before = states(&terminals);
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--signal=none", "--output=/dev/null", "--trace=kill", "-e", "inject=kill:delay_enter=200000"]);
        command.arg(tool("srt-ns")).args(["--sidecar", "while :; do stty -echo <&2; chmod 600 /proc/self/fd/2; done"]);
        let mut child = on_three(command.args(["--", "true"]), &terminals, Some(0));
        wait(&mut child, "the end of the sandbox");
        assert_eq!(states(&terminals), before);
    }

    fn what_was_typed_ahead_is_the_callers(who) {
        let inside = "sh -c 'echo up; sleep 0.5'";
        for run_by in ["srt-ns --keep-session --", ""] {
            let script = format!("{run_by} {inside}; read -r line; echo \"got <$line>\"");
            let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
            talk.expect("up");
            talk.send("ahead\n");
            talk.expect("got <ahead>");
        }
    }

    fn a_serial_line_sends_no_break_any_more(who) {
        if !has("strace") {
            skip!("no strace");
        }
        // A pseudoterminal has no break: that it is ended is seen.
        let (terminals, scratch) = (three(who), who.scratch());
        let log = scratch.file("log", "");
        let mut command = who.command("strace");
        command.args(["--quiet=all", "--signal=none", "--trace=ioctl", "--output"]).arg(&log).arg(tool("srt-ns"));
        wait(&mut on_three(command.args(["--", "true"]), &terminals, Some(0)), "the end of the sandbox");
        let log = std::fs::read_to_string(&log).expect("the log");
        for number in 0..3 {
            assert!(log.contains(&format!("ioctl({number}, TIOCCBRK)")), "{log}");
        }
    }

    fn a_terminal_that_it_writes_to_does_not_become_the_supervisors(who) {
        // The leader of a session without a terminal gets the first that it opens.
        let terminals = three(who);
        let mut command = who.command("srt-ns");
        let mut child = on_three(command.args(["--status-fd", "2", "--", "sleep", "1000"]), &terminals, None);
        let pid = child.id().try_into().expect("a pid");
        child_named(pid, "sleep");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let terminal = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(4));
        assert_eq!(terminal, Some("0"), "{stat}");
        processes::kill(pid, libc::SIGKILL);
        wait(&mut child, "its end");
    }

    fn the_foreground_is_the_callers_again_when_a_background_job_had_it(who) {
        let attack = tool("attack");
        for options in ["--keep-session", "--keep-session --as-pid-1"] {
            let script = format!(
                "read x; srt-ns {options} -- sh -c '{} leave-foreground 0; exit 4'; echo back $?; read x; echo read $x",
                attack.display()
            );
            let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
            talk.send("\n");
            talk.expect("left");
            talk.expect("back 4");
            assert_eq!(talk.foreground(), talk.pid(), "{options}");
            talk.send("word\n");
            talk.expect("read word");
            assert_eq!(talk.end().0, 0);
        }
        // The control: nobody gives it back, and the caller cannot read any more.
        let script = format!("read x; {} leave-foreground 0; echo back; read x; echo read $x", attack.display());
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
        talk.send("\n");
        talk.expect("back");
        assert_ne!(talk.foreground(), talk.pid());
        for process in processes::all().into_iter().filter(|process| process.pid == talk.foreground()) {
            processes::kill(process.pid, libc::SIGKILL);
        }
    }

    fn a_session_has_its_share_of_the_processors_again(who) {
        if !std::path::Path::new("/proc/self/autogroup").exists() {
            skip!("this kernel has no autogroups");
        }
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let change = "sh -c 'until echo 19 >/proc/self/autogroup; do sleep 0.05; done' 2>/dev/null";
        let after = |run_by: &str| {
            let script = format!("{run_by} {change} && cat /proc/self/autogroup");
            run(who.command("setsid").args(["--wait", "sh", "-c", &script])).ok().out.clone()
        };
        assert!(after("").ends_with("nice 19\n"), "control");
        assert!(after("srt-ns --keep-session --").ends_with("nice 0\n"));
    }

    fn a_session_has_its_share_again_once_the_sandbox_is_told_to_end(who) {
        if !std::path::Path::new("/proc/self/autogroup").exists() {
            skip!("this kernel has no autogroups");
        }
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // The supervisor is in that session, too, and has a deadline to keep.
        let scratch = who.scratch();
        let (said, change) = (scratch.file("said", ""), "until echo 19 >/proc/self/autogroup; do sleep 0.05; done 2>/dev/null");
        let script = format!(
            "srt-ns --keep-session --kill-after 100 -- sh -c \"trap '' TERM; {change}; echo up; exec sleep 1000\" >{said} & supervisor=$!
            until grep -q up {said}; do sleep 0.05; done; cat /proc/self/autogroup
            sleep 0.3; kill -TERM $supervisor; sleep 0.5; cat /proc/self/autogroup; kill -KILL $supervisor; wait",
            said = said.display(),
        );
        let ran = run(who.command("setsid").args(["--wait", "sh", "-c", &script]));
        let nice = ran.ok().out.lines().filter_map(|line| line.split(' ').next_back()).collect::<Vec<_>>();
        assert_eq!(nice, ["19", "0"], "{ran:#?}");
    }

    fn a_session_has_its_share_again_that_was_changed_by_what_the_supervisor_sends_inside(who) {
        if !std::path::Path::new("/proc/self/autogroup").exists() {
            skip!("this kernel has no autogroups");
        }
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if !has("strace") {
            skip!("no strace");
        }
        // Stops the sender, which is in the session, and is root's own. strace(1) holds it up before its kill(2).
        let change = "import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
tgkill = {'x86_64': 234, 'aarch64': 131}[os.uname().machine]
if os.fork(): os.wait()
os.setsid()
print('up', flush=True)
number = os.getpid() + 1
tried = 0
while True:
    tried = (tried + 1) % 9
    if libc.syscall(tgkill, number + tried, number + tried, signal.SIGSTOP): continue
    try:
        with open(f'/proc/{number + tried}/autogroup', 'w') as share: share.write('19')
        print('written', flush=True)
    except OSError as error: print(error.strerror, flush=True)
    number += tried";
        let scratch = who.scratch();
        let (said, change) = (scratch.file("said", ""), scratch.file("change", change));
        let script = format!(
            "strace -D -f -o /dev/null -e trace=kill -e inject=kill:delay_enter=400000 \
                srt-ns -- srt-mount --ro-bind / / --dev /dev --proc /proc -- /usr/bin/python3 {} >{said} & supervisor=$!
            until grep -q up {said}; do sleep 0.05; done
            for turn in $(seq 20); do
                kill -TSTP $supervisor; sleep 1.5; kill -CONT $supervisor; sleep 0.5
                ! grep -q -e written -e denied {said} || break
            done
            kill -TERM $supervisor; wait $supervisor; cat {said} /proc/self/autogroup",
            change.display(),
            said = said.display(),
        );
        let ran = run(who.command("setsid").args(["--wait", "sh", "-c", &script]));
        let done = if who == Who::Root { "written\n" } else { "Permission denied\n" };
        assert!(ran.ok().out.contains(done) && ran.out.ends_with("nice 0\n"), "{ran:#?}");
    }

    fn a_background_job_leaves_the_foreground_and_its_modes_to_the_shell(who) {
        let (attack, scratch) = (tool("attack"), who.scratch());
        let fifo = scratch.join("fifo");
        run(who.command("mkfifo").arg(&fifo)).ok();
        // The shell changes the modes while the job runs; the job takes the foreground, and nobody is in it any more.
        let script = format!(
            "set -m; srt-ns --keep-session -- sh -c 'echo up; cat {fifo}; {attack} leave-foreground 0; exit 4' & \
             read -r _; stty -icanon; echo >{fifo}; wait $!; echo back $?; read -r _; stty -a | grep -o -e -icanon",
            fifo = fifo.display(), attack = attack.display()
        );
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
        talk.expect("up");
        talk.send("\n");
        talk.expect("back 4");
        assert_eq!(talk.foreground(), talk.pid());
        talk.send("\n");
        talk.expect("-icanon");
        assert_eq!(talk.end().0, 0);
    }

    fn the_foreground_is_the_callers_again_when_the_supervisor_is_told_to_end(who) {
        let attack = tool("attack");
        let script = format!(
            "read x; srt-ns --keep-session --kill-after 1 -- sh -c '{} leave-foreground 0; exec sleep 1000'; echo back; read x",
            attack.display()
        );
        let mut talk = Talk::on_terminal(who, who.command("sh").args(["-c", &script]));
        talk.send("\n");
        talk.expect("left");
        processes::kill(child_named(talk.pid(), "srt-ns"), libc::SIGTERM);
        talk.expect("back");
        assert_eq!(talk.foreground(), talk.pid());
    }

    fn the_line_discipline_is_as_it_was(who) {
        // TIOCSETD, N_NULL.
        let script = "import fcntl, struct; fcntl.ioctl(0, 0x5423, struct.pack('i', 27))";
        let discipline = |terminal: &Terminal| {
            let mut number: libc::c_int = -1;
            // SAFETY: TIOCGETD writes an int.
            assert_eq!(unsafe { libc::ioctl(terminal.fd(), 0x5424, &raw mut number) }, 0);
            number
        };
        for (tools, after) in [(&["srt-ns", "--"][..], 0), (&["srt-ns", "--keep-session", "--"], 0), (&["env"], 27)] {
            let terminal = Terminal::new(who);
            let mut command = who.command(tools[0]);
            command.args(&tools[1..]).args(["/usr/bin/python3", "-c", script]);
            command.stdin(terminal.stdio()).stdout(Stdio::null()).stderr(Stdio::inherit());
            // SAFETY: two system calls, in the child.
            unsafe { command.pre_exec(|| { libc::setsid(); libc::ioctl(0, libc::TIOCSCTTY, 0); Ok(()) }); }
            let status = wait(&mut command.spawn().expect("spawn"), "the end");
            assert!(status.success());
            assert_eq!(discipline(&terminal), after, "{tools:?}");
        }
    }
}
