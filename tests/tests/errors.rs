//! Malformed options of every kind end in one clear line: 125 (2 from the tools that run no command), never a panic,
//! nothing has run, and nothing is left behind: no process, no mount, no file, no socket.

use srt_tests::{Ran, Scratch, Who, both, run, tool};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

/// Runs `"$@"` as the only other process of a pid namespace, in a mount namespace of its own, and tells on stdout
/// what it has left there. Zombies are nobody: this shell does not reap its stepchildren. Mostly there is not even one, and
/// nothing to look at.
const TELLING_WHAT_IS_LEFT: &str = r#"
    before=$(grep -v "/mounted " /proc/self/mountinfo)
    "$@"
    code=$?
    tries=0
    while
        set -- /proc/[0-9]*/status
        left=
        test "$*" = /proc/1/status || left=$(grep -sL 'State:.Z' "$@" | grep -vx /proc/1/status)
        test -n "$left" && test $tries -lt 200
    do
        tries=$((tries + 1))
        sleep 0.01
    done
    for status in $left; do echo "left: $(grep Name $status)"; done
    after=$(grep -v "/mounted " /proc/self/mountinfo)
    test "$before" = "$after" || { echo "mounts changed"; echo "$before -> $after" >&2; }
    exit $code
"#;

/// What goes wrong, in a place of its own: a directory that must be the same afterwards.
struct Place {
    who: Who,
    scratch: Scratch,
    _listener: UnixListener,
}

impl Place {
    fn new(who: Who) -> Self {
        let scratch = who.scratch();
        scratch.file("file", "content");
        scratch.dir("directory");
        std::os::unix::fs::symlink("nowhere", scratch.join("dangling")).expect("symlink");
        let _listener = UnixListener::bind(scratch.join("socket")).expect("bind");
        let everybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(scratch.join("socket"), everybody).expect("chmod");
        Self { who, scratch, _listener }
    }

    fn command(&self, name: &str, words: &[impl AsRef<OsStr>]) -> Command {
        // Shown if the test fails.
        let shown =
            words.iter().map(|word| word.as_ref().to_string_lossy().chars().take(100).collect::<String>());
        eprintln!("{name} {:?}", shown.collect::<Vec<_>>());
        let mut command = if (self.who, name) == (Who::User, "srt-mount") {
            // With the capability that it needs.
            let mut command = self.who.command("unshare");
            command.args(["--user", "--map-current-user", "--keep-caps"]).arg(tool(name));
            command
        } else {
            self.who.command(name)
        };
        command.args(words).current_dir(self.scratch.path());
        command
    }

    /// Runs it, and tells on stdout what it has left.
    fn run(&self, name: &str, words: &[impl AsRef<OsStr>]) -> Ran {
        let inner = self.command(name, words);
        let mut outer = Command::new("unshare");
        outer.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        outer.args(["sh", "-c", TELLING_WHAT_IS_LEFT, "sh"]).arg(inner.get_program()).args(inner.get_args());
        inner.get_envs().for_each(|(key, value)| {
            outer.env(key, value.unwrap_or_default());
        });
        run(outer.current_dir(self.scratch.path()).stdin(Stdio::null()))
    }

    /// Wrong usage, or a failure before anything runs.
    #[track_caller]
    fn refuses(&self, name: &str, words: &[impl AsRef<OsStr>], code: i32, complaint: &str) {
        let ran = self.run(name, words);
        ran.code(code).says("").complains(complaint).one_clear_error(name);
        self.is_clear(&ran);
    }

    /// Whatever this means: no panic, and if it is refused, one clear line says so.
    #[track_caller]
    fn is_sane(&self, name: &str, words: &[impl AsRef<OsStr>]) {
        let ran = run(&mut self.command(name, words));
        if ran.code != Some(0) {
            ran.one_clear_error(name);
        }
        ran.says("");
        self.is_clear(&ran);
    }

    /// Lines for a terminal: not longer than a pipe takes at once, and no control characters.
    #[track_caller]
    fn is_clear(&self, ran: &Ran) {
        assert!(ran.err.len() <= 4096, "{} bytes: {ran:#?}", ran.err.len());
        assert!(!ran.err.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{ran:#?}");
        assert!(!ran.err.contains("os error") && !ran.err.contains("RUST_BACKTRACE"), "{ran:#?}");
    }
}

/// Nothing was made, nothing is gone.
impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut names: Vec<_> = std::fs::read_dir(self.scratch.path())
                .expect("the directory")
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["dangling", "directory", "file", "socket"]);
            assert_eq!(std::fs::read(self.scratch.join("file")).expect("the file"), b"content");
        }
    }
}

/// The command that must not run.
fn before_true<T: AsRef<OsStr>>(words: &[T]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).chain(["--".into(), "true".into()]).collect()
}

#[test]
fn what_is_left_is_noticed() {
    let place = Place::new(Who::Root);
    let mut script =
        place.scratch.script("left", "#!/bin/sh\nsleep 100 >/dev/null 2>&1 &\nmount -t tmpfs x /mnt\n");
    script.set_extension("");
    place.run(script.to_str().expect("UTF-8"), &[""; 0]).says("left: Name:\tsleep\nmounts changed");
    std::fs::remove_file(script).expect("remove");
}

mod srt_ns {
    use super::*;

    /// Words before `-- true`, and what the complaint must contain.
    const BAD: &[(&[&str], &str)] = &[
        (&["true"], "true"),
        (&["-x"], "-x"),
        (&["--nope"], "--nope"),
        (&["--Share", "net"], "--Share"),
        (&["--share", "NET"], "--share NET: expected a list of net, ipc, uts, cgroup, user"),
        (&["--share", "net,"], "--share net,: expected"),
        (&["--share", "net,,ipc"], "--share net,,ipc: expected"),
        (&["--share", "net, ipc"], "--share net, ipc: expected"),
        (&["--share", "pid"], "--share pid: expected"),
        (&["--share", "mnt"], "--share mnt: expected"),
        (&["--share", "net", "--share", "ipc"], "--share"),
        (&["--share", "user"], "--share user needs --allow-userns"),
        (
            &["--share", "user", "--allow-userns", "--uid", "1"],
            "--uid and --gid need a user namespace of their own",
        ),
        (&["--share", "uts", "--hostname", "x"], "--hostname needs a uts namespace"),
        (&["--share", "net", "--relay", "1=s"], "--relay and --publish need a net namespace"),
        (&["--share", "net", "--publish", "s=1"], "--relay and --publish need a net namespace"),
        (&["--keep-session", "--keep-session"], "--keep-session: given twice"),
        (&["--allow-userns", "--uid", "0", "--allow-userns"], "--allow-userns: given twice"),
        (&["--keep-admin", "--keep-admin"], "--keep-admin: given twice"),
        (&["--outlive-parent", "--outlive-parent"], "--outlive-parent: given twice"),
        (&["--as-pid-1", "--as-pid-1"], "--as-pid-1: given twice"),
        (&["--wait-all", "--wait-all"], "--wait-all: given twice"),
        (&["--uid", "0", "--uid", "0"], "--uid 0: given twice"),
        (&["--uid"], "--uid: expected a value"),
        (&["--hostname", "x", "env"], "env: unexpected argument"),
        (&["--uid", "-1"], "--uid"),
        (&["--uid", "4294967295"], "--uid 4294967295"),
        (&["--uid", "4294967296"], "--uid"),
        (&["--uid", "+1"], "--uid +1: expected a number"),
        (&["--uid", "0x10"], "--uid"),
        (&["--uid", " 1"], "--uid"),
        (&["--uid", "root"], "--uid"),
        (&["--gid", "-1"], "--gid"),
        (&["--gid", "4294967295"], "--gid 4294967295"),
        (&["--gid", "1.0"], "--gid"),
        (
            &["--hostname", "0123456789012345678901234567890123456789012345678901234567890123x"],
            "expected 1 to 64 bytes",
        ),
        (&["--relay", "80"], "--relay 80: expected PORT=SOCKET"),
        (&["--relay", "80="], "--relay 80=: expected PORT=SOCKET"),
        (&["--relay", "=socket"], "--relay =socket: expected PORT=SOCKET"),
        (&["--relay", "0=socket"], "--relay 0=socket: expected PORT=SOCKET, with a port from 1 to 65535"),
        (&["--relay", "65536=socket"], "from 1 to 65535"),
        (&["--relay", "-1=socket"], "from 1 to 65535"),
        (&["--relay", "080=socket"], "from 1 to 65535"),
        (&["--publish", "x=080"], "from 1 to 65535"),
        (&["--relay", "+80=socket"], "from 1 to 65535"),
        (&["--relay", "080=socket"], "from 1 to 65535"),
        (&["--relay", "0x50=socket"], "from 1 to 65535"),
        (&["--relay", " 80=socket"], "from 1 to 65535"),
        (&["--relay", "99999999999999999999=socket"], "from 1 to 65535"),
        (&["--relay", "socket=80"], "--relay socket=80: expected PORT=SOCKET"),
        (&["--relay", "80=none"], "--relay 80=none: cannot open none: No such file or directory"),
        (&["--relay", "80=file"], "--relay 80=file: file is not a Unix socket"),
        (&["--relay", "80=directory"], "directory is not a Unix socket"),
        (&["--relay", "80=/dev/null"], "/dev/null is not a Unix socket"),
        (&["--relay", "80=dangling"], "dangling is a symbolic link to nowhere"),
        (&["--relay", "80=file/x"], "cannot open file/x: Not a directory"),
        (
            &["--relay", "80=socket", "--relay", "80=socket"],
            "--relay 80=socket: cannot listen on port 80: Address",
        ),
        (&["--publish", "x"], "--publish x: expected SOCKET=PORT"),
        (&["--publish", "x="], "--publish x=: expected SOCKET=PORT"),
        (&["--publish", "=80"], "--publish =80: expected SOCKET=PORT"),
        (&["--publish", "x=0"], "from 1 to 65535"),
        (&["--publish", "x=65536"], "from 1 to 65535"),
        (&["--publish", "x=080"], "from 1 to 65535"),
        (&["--publish", "80=x"], "--publish 80=x: expected SOCKET=PORT"),
        (&["--publish", "none/x=80"], "--publish none/x=80: cannot open none: No such file or directory"),
        (&["--publish", "file/x=80"], "--publish file/x=80: cannot open file: Not a directory"),
        (&["--publish", "file=80"], "something that is not a socket is there"),
        (&["--publish", "directory=80"], "something that is not a socket is there"),
        (&["--publish", "dangling=80"], "something that is not a socket is there"),
        (&["--publish", "socket=80"], "another process listens there already"),
        (&["--publish", "/=80"], "not a file name"),
        (&["--publish", "..=80"], "not a file name"),
        (&["--publish", "/proc/x=80"], "cannot listen on /proc/x"),
        (&["--publish", "good=80", "--publish", "file=81"], "--publish file=81"),
        (&["--publish", "good=80", "--publish", "good=81"], "another process listens there already"),
        (&["--publish", "good=80", "--relay", "80=none"], "cannot open none"),
        (&["--publish", "good=80", "--hostname", ""], "--hostname"),
        (&["--kill-after", "-1"], "--kill-after"),
        (&["--kill-after", "+1"], "--kill-after +1: expected seconds"),
        (&["--lifetime-fd", "+0"], "--lifetime-fd +0: expected a number"),
        (&["--kill-after", "1.5s"], "--kill-after"),
        (&["--kill-after", "4294967296"], "--kill-after"),
        (&["--status-fd", "99"], "--status-fd 99: not an open descriptor"),
        (&["--status-fd", "-1"], "--status-fd -1: not an open descriptor"),
        (&["--status-fd", "2147483648"], "--status-fd"),
        (&["--status-fd", "two"], "--status-fd"),
        (&["--keep-fd", "99"], "--keep-fd 99: not an open descriptor"),
        (&["--keep-fd", "-1"], "--keep-fd -1: not an open descriptor"),
        (&["--keep-fd", "99999999999"], "--keep-fd"),
        (&["--as-pid-1", "--wait-all"], "--wait-all needs srt-init, which --as-pid-1 leaves out"),
    ];

    both! {
        fn malformed_options_are_refused(who) {
            let place = Place::new(who);
            for (words, complaint) in BAD {
                place.refuses("srt-ns", &before_true(words), 125, complaint);
            }
            place.run("srt-ns", &before_true(&["--relay", "80=dangling"])).hints("srt-ns", "--relay 80=dangling", "name the socket itself");
            place.refuses("srt-ns", &["--"], 125, "nothing follows --");
            place.refuses("srt-ns", &[""; 0], 125, "missing -- before PROGRAM");
            place.refuses("srt-ns", &["--uid"], 125, "--uid: expected a value");
            // What is wrong is told where nothing follows --, too.
            for (word, hint) in [("-h", "see --help"), ("--uid=5", "write --uid 5"), ("--chekc", "write srt-ns [options]")] {
                place.run("srt-ns", &[word]).code(125).hints("srt-ns", &format!("{word}: unknown option"), hint);
            }
        }

        fn a_start_that_fails_half_way_leaves_nothing(who) {
            let place = Place::new(who);
            // Everything is there when PROGRAM turns out to be none: relay, guardian, sidecar, srt-init, sockets.
            let all = ["--publish", "good=80", "--relay", "80=socket", "--sidecar", "exec sleep 100", "--"];
            place.refuses("srt-ns", &[&all[..], &["/none"]].concat(), 127, "cannot run /none: No such file or directory");
            place.refuses("srt-ns", &[&all[..], &["/etc"]].concat(), 126, "cannot run /etc: Permission denied");
            // It has ended before the command starts, or a moment after, or nobody has noticed when `true` ends.
            let early = ["--publish", "good=80", "--sidecar", "exit 3", "--sidecar", "sleep 100"];
            place.run("srt-ns", &before_true(&early)).says("");
        }
    }
}

mod srt_mount {
    use super::*;
    use srt_tests::pass_fd;
    use std::io::{Seek, Write};
    use std::os::fd::AsRawFd;

    /// Words before `-- true`, `@` being the directory, and what the complaint must contain.
    const BAD: &[(&[&str], &str)] = &[
        (&["true"], "true: expected an option; PROGRAM follows --"),
        (&["-x"], "-x"),
        (&[""], "expected an option"),
        (&["--nope"], "--nope: unknown option"),
        (&["--Bind", "/", "/"], "--Bind: unknown option"),
        (&["--bind=/", "/"], "--bind=/: unknown option"),
        (&["--ro-bind", "/", "/", "/"], "/: expected an option"),
        // Numbers.
        (&["--chmod", "8", "/"], "--chmod: 8 is not"),
        (&["--chmod", "10000", "/"], "--chmod: 10000 is not"),
        (&["--chmod", "-1", "/"], "--chmod: -1 is not"),
        (&["--chmod", "+7", "/"], "--chmod: +7 is not"),
        (&["--chmod", "0o7", "/"], "--chmod: 0o7 is not"),
        (&["--chmod", "77777777777777777777777", "/"], "--chmod"),
        (&["--perms", "rwx", "--dir", "/x"], "--perms: rwx is not"),
        (&["--size", "0", "--tmpfs", "/tmp"], "--size: 0 is not"),
        (&["--size", "1M", "--tmpfs", "/tmp"], "--size: 1M is not"),
        (&["--size", "-5", "--tmpfs", "/tmp"], "--size: -5 is not"),
        (&["--size", "9223372036854775808", "--tmpfs", "/tmp"], "--size: 9223372036854775808 is not"),
        (&["--size", "99999999999999999999999", "--tmpfs", "/tmp"], "--size"),
        (&["--bind-fd", "x", "/x"], "--bind-fd: x is not"),
        (&["--bind-fd", "-1", "/x"], "--bind-fd: -1 is not"),
        (&["--bind-fd", "2147483648", "/x"], "--bind-fd: 2147483648 is not"),
        (&["--keep-fd", "0x1"], "--keep-fd: 0x1 is not"),
        (&["--keep-fd", "+0"], "--keep-fd: +0 is not"),
        // Descriptors that are not open, or open on nothing of use.
        (&["--bind-fd", "99", "/x"], "99 is not an open descriptor"),
        (&["--ro-bind-fd", "99", "/x"], "99 is not an open descriptor"),
        (&["--file", "99", "/x"], "99 is not an open descriptor"),
        (&["--bind-data", "99", "/x"], "99 is not an open descriptor"),
        (&["--ro-bind-data", "99", "/x"], "99 is not an open descriptor"),
        (&["--args", "99"], "--args 99: not an open descriptor"),
        (&["--keep-fd", "99"], "--keep-fd 99: not an open descriptor"),
        (&["--status-fd", "99"], "--status-fd 99: not an open descriptor"),
        // What belongs to another option.
        (&["--perms", "755"], "--perms: expected one of"),
        (&["--perms", "755", "--proc", "/proc"], "--perms: expected one of"),
        (&["--perms", "755", "--perms", "755", "--dir", "/x"], "--perms: given twice"),
        (&["--size", "5", "--dir", "/x"], "--size: expected one of"),
        (&["--size", "5", "--size", "5", "--tmpfs", "/x"], "--size: given twice"),
        (&["--overlay-src", "/usr"], "--overlay-src: expected one of"),
        (&["--overlay-src", "/usr", "--tmpfs", "/x"], "--overlay-src: expected one of"),
        (&["--tmp-overlay", "/x"], "--tmp-overlay: expected at least 1"),
        (&["--overlay", "/a", "/b", "/x"], "--overlay: expected at least 1"),
        (&["--overlay-src", "/usr", "--ro-overlay", "/x"], "--ro-overlay: expected at least 2"),
        (&["--chdir", "/", "--chdir", "/"], "--chdir: given twice"),
        (&["--placeholders", "--placeholders"], "--placeholders: given twice"),
        (&["--status-fd", "0", "--status-fd", "0"], "--status-fd: given twice"),
        // Sources.
        (&["--bind", "none", "/x"], "--bind none /x: cannot open none: No such file or directory"),
        (&["--ro-bind", "/none", "/x"], "--ro-bind /none /x: cannot open /none: No such file or directory"),
        (&["--dev-bind", "dangling", "/x"], "cannot open dangling: No such file or directory"),
        (&["--ro-bind", "file/x", "/x"], "cannot open file/x: Not a directory"),
        (&["--ro-bind-try", "file/x", "/x"], "cannot open file/x: Not a directory"),
        (&["--overlay-src", "none", "--tmp-overlay", "/x"], "cannot open none: No such file or directory"),
        (&["--overlay-src", "file", "--tmp-overlay", "/x"], "cannot open file: Not a directory"),
        // Destinations.
        (&["--ro-bind", "file", "/"], "/"),
        (&["--ro-bind", "/", "/", "--tmpfs", "@/file"], "@/file"),
        (&["--ro-bind", "/", "/", "--ro-bind", "@/file", "@/directory"], "@/directory is a directory"),
        (&["--ro-bind", "/", "/", "--ro-bind", "@/directory", "@/file"], "@/file"),
        (&["--ro-bind", "/", "/", "--tmpfs", "@/file/below"], "@/file"),
        (&["--ro-bind", "/", "/", "--tmpfs", "@/missing"], "@/missing"),
        (&["--ro-bind", "/", "/", "--tmpfs", "@/dangling"], "@/dangling"),
        (&["--ro-bind", "/", "/", "--mask", "@/missing"], "@/missing"),
        (&["--bind", "/", "/", "--tmpfs", "@/missing"], "@/missing does not exist"),
        (&["--bind", "/", "/", "--bind", "@/file", "@/missing"], "@/missing does not exist"),
        (&["--ro-bind", "/", "/", "--remount-ro", "@/missing"], "@/missing"),
        (&["--ro-bind", "/", "/", "--remount-ro", "@/directory"], "@/directory"),
        (&["--ro-bind", "/", "/", "--chmod", "755", "@/file"], "Read-only file system"),
        (&["--ro-bind", "/", "/", "--dir", "@/missing"], "Read-only file system"),
        (&["--ro-bind", "/", "/", "--symlink", "x", "@/missing"], "Read-only file system"),
        (&["--tmpfs", "/", "--symlink", "a", "/x", "--symlink", "b", "/x"], "/x"),
        (&["--ro-bind", "/", "/", "--chdir", "/none"], "/none"),
        (&["--ro-bind", "/", "/", "--chdir", "/etc/passwd"], "/etc/passwd"),
        // What was made before the failure is gone: the directory's content is compared in the end.
        (&["--placeholders", "--bind", "/", "/", "--tmpfs", "@/made", "--remount-ro", "/none"], "/none"),
        (&["--placeholders", "--bind", "/", "/", "--tmpfs", "@/a/b/c/d", "--remount-ro", "/none"], "/none"),
        (
            &["--placeholders", "--bind", "/", "/", "--ro-bind", "@/file", "@/a/b", "--chdir", "/none"],
            "/none",
        ),
        (&["--bind", "/", "/", "--dir", "@/a/b", "--remount-ro", "/none"], "/none"),
    ];

    /// Every option with its operands: those in `--help`, and those named in another's text.
    fn options() -> Vec<(String, Vec<String>)> {
        let help = run(Who::Root.command("srt-mount").arg("--help")).ok().out.clone();
        let mut options = vec![];
        for line in help.lines().filter(|line| line.starts_with("  --") && !line.contains("--help")) {
            let (usage, text) = line.trim_start().split_once("  ").unwrap_or((line.trim(), ""));
            let mut words = usage.split(' ').map(str::to_owned);
            let name = words.next().expect("a name");
            let operands: Vec<_> = words.collect();
            let also = text
                .split([' ', ':', ';', ','])
                .filter(|word| word.ends_with("-try") || word.starts_with("--ro-bind-"));
            options.extend(
                also.filter(|_| name.contains("bind")).map(|also| (also.to_owned(), operands.clone())),
            );
            options.push((name, operands));
        }
        assert!(options.len() >= 31, "{options:?}");
        options
    }

    /// What --args reads.
    fn arguments(place: &Place, content: &[u8]) -> Command {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("write");
        file.rewind().expect("rewind");
        let mut command = place.command("srt-mount", &before_true(&["--args", "9"]));
        pass_fd(&mut command, file.as_raw_fd(), 9);
        std::mem::forget(file); // For the child; a test process ends soon.
        command
    }

    both! {
        fn malformed_options_are_refused(who) {
            let place = Place::new(who);
            let here = |word: &str| word.replace('@', place.scratch.text());
            for (words, complaint) in BAD {
                let words: Vec<_> = words.iter().map(|word| here(word)).collect();
                place.refuses("srt-mount", &before_true(&words), 125, &here(complaint));
            }
            place.refuses("srt-mount", &["--"], 125, "nothing follows --");
            place.refuses("srt-mount", &["--ro-bind", "/", "/", "--", "/none"], 127, "cannot run /none");
            place.refuses("srt-mount", &["--ro-bind", "/", "/", "--", "/etc"], 126, "cannot run /etc");
            place.refuses("srt-mount", &["--ro-bind", "/", "/", "--", ""], 127, "cannot run : No such file");
            place.refuses("srt-mount", &["--", "/bin/sh"], 127, "cannot run /bin/sh");
        }

        fn a_missing_or_empty_word_is_refused(who) {
            let place = Place::new(who);
            for (option, operands) in options() {
                for count in 0..operands.len() {
                    // As many numbers or paths as it takes, but one: the last is missing, or empty.
                    let some: Vec<&str> = operands.iter().take(count).map(|name| if name.contains('D') && name != "DEST" { "0" } else { "7" }).collect();
                    let mut words = [&[option.as_str()], &some[..]].concat();
                    let ran = run(&mut place.command("srt-mount", &before_true(&words)));
                    ran.code(125).says("").complains(&format!("{option}: expected")).one_clear_error("srt-mount");
                    words.push("");
                    words.extend(std::iter::repeat_n("7", operands.len() - count - 1));
                    let ran = run(&mut place.command("srt-mount", &before_true(&words)));
                    ran.code(125).says("").complains(&option).one_clear_error("srt-mount");
                }
                let glued = format!("{option}=1");
                let ran = run(&mut place.command("srt-mount", &before_true(&[&glued])));
                ran.code(125).says("").complains(&format!("{glued}: unknown option")).one_clear_error("srt-mount");
            }
        }

        fn no_byte_in_a_word_does_harm(who) {
            let place = Place::new(who);
            let long = vec![b'x'; 100_000];
            let deep = b"x/".repeat(50_000);
            let digits = vec![b'9'; 5_000];
            let values: &[&[u8]] = &[
                b"\xff\xfe", b"\n\x1b[2J", b"%s", b"\xe2\x80\xae", b"-", b"help", b".", b"..", b"//", b"/../..", b"/proc/self/fd/0",
                &long, &deep, &digits,
            ];
            for value in values.iter().map(|bytes| OsStr::from_bytes(bytes)) {
                place.is_sane("srt-mount", &before_true(&[value]));
                for (option, operands) in options() {
                    // --bind / / first, for root on a read-only copy: what is made goes away, what is not is refused.
                    let words = ["--ro-bind", "/", "/", "--tmpfs", "/tmp", &option].map(OsStr::new);
                    let words: Vec<_> = words.into_iter().chain(std::iter::repeat_n(value, operands.len())).collect();
                    let ran = run(&mut place.command("srt-mount", &before_true(&words)));
                    if ran.code != Some(0) {
                        ran.one_clear_error("srt-mount");
                    }
                    place.is_clear(&ran);
                }
            }
        }

        fn what_args_reads_is_refused_like_any_other(who) {
            let place = Place::new(who);
            let million = vec![b'x'; 1_000_000];
            for (content, complaint) in [
                (&b"--nope\0"[..], "--nope: unknown option"),
                (b"--bind\0/\0", "--bind: expected DEST"),
                (b"\0", "expected an option"),
                (b"\0\0", "expected an option"),
                (b"--ro-bind\0/\0/\0\0", "expected an option"),
                (b"--args\09\0", "--args"),
                (b"--ro-bind\0/\0/\0--tmpfs\0/\n", "/\\n"),
                (b"\xff\xfe\0", "expected an option"),
                (b"--\0true\0", "--"),
                (&[b"--ro-bind\0/\0/\0--tmpfs\0/", &million[..]].concat(), "File name too long"),
                (&[b"--ro-bind\0", &million[..], b"\0/\0"].concat(), "File name too long"),
                (&b"--ro-bind\0/\0/\0--tmpfs\0".iter().copied().chain(b"a/".repeat(500_000)).collect::<Vec<_>>(), "too long"),
                (&b"x\0".repeat(500_000), "x: expected an option"),
                (&million, "expected an option"),
                (&b"--tmpfs\0/tmp\0".repeat(100_000), "100000 mounts are more than a mount namespace holds"),
                (&b"--ro-bind\0/usr\0/usr\0".repeat(100_000), "100000 mounts are more than a mount namespace holds"),
                (&b"--perms\0".repeat(100_000), "--perms"),
            ] {
                let ran = run(&mut arguments(&place, content));
                ran.code(125).says("").complains(complaint).one_clear_error("srt-mount");
                place.is_clear(&ran);
            }
            // The control: so many options are no error in themselves.
            let tries = [&b"--ro-bind\0/\0/\0"[..], &b"--ro-bind-try\0/none\0/x\0".repeat(100_000)].concat();
            run(&mut arguments(&place, &tries)).ok();
        }

        fn a_directory_as_a_standard_descriptor_is_refused(who) {
            let place = Place::new(who);
            for redirection in ["<@", "3<@ >&3"] {
                let script = format!("exec \"$@\" {}", redirection.replace('@', place.scratch.text()));
                let inner = place.command("srt-mount", &before_true(&["--ro-bind", "/", "/"]));
                let mut shell = Command::new("sh");
                shell.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
                run(&mut shell).code(125).complains("is a directory").one_clear_error("srt-mount");
            }
        }
    }
}

mod srt_seccomp {
    use super::*;

    const BAD: &[(&[&str], &str)] = &[
        (&["true"], "true"),
        (&["--nope"], "--nope"),
        (&["--allow", ","], "there is no rule \"\""),
        (&["--allow", "UNIX"], "there is no rule \"UNIX\""),
        (&["--allow", "unix vsock"], "there is no rule \"unix vsock\""),
        (&["--deny", "nope"], "--deny: there is no rule \"nope\""),
        (&["--allow", "unix", "--deny", "unix"], "in both --allow and --deny"),
        (&["--load", "none"], "--load none: cannot read the filter: No such file or directory"),
        (&["--load", "directory"], "--load directory: cannot read the filter: Is a directory"),
        (&["--load", "socket"], "--load socket: cannot read the filter: No such device or address"),
        (&["--load", "dangling"], "--load dangling: cannot read the filter: No such file or directory"),
        (&["--load", "file"], "--load file: 7 bytes are not a multiple of 8"),
        (&["--load", "/dev/null"], "--load /dev/null: the filter is empty"),
        (&["--load", "/dev/zero"], "--load /dev/zero: a filter has at most 4096 instructions"),
        (&["--load-fd", "99"], "--load-fd 99: cannot read the filter: Bad file descriptor"),
        (&["--load-fd", "-1"], "--load-fd -1"),
        (&["--load-fd", "x"], "--load-fd"),
        (&["--load-fd", "+0"], "--load-fd +0: expected a number"),
        (&["--status-fd", "+2"], "--status-fd +2: expected a number"),
        (&["--load-fd", "0"], "--load-fd 0: the filter is empty"),
        (&["--status-fd", "99"], "--status-fd 99: not an open descriptor"),
        (&["--keep-fd", "-2147483648"], "--keep-fd -2147483648: not an open descriptor"),
        (&["--keep-fd", "2147483648"], "--keep-fd"),
        (&["--export"], "--export runs no program"),
        (&["--list"], "--list runs no program"),
    ];

    both! {
        fn malformed_options_are_refused(who) {
            let place = Place::new(who);
            for (words, complaint) in BAD {
                place.refuses("srt-seccomp", &before_true(words), 125, complaint);
            }
            place.refuses("srt-seccomp", &["--"], 125, "nothing follows --");
            place.refuses("srt-seccomp", &["--", "/none"], 127, "cannot run /none");
            place.refuses("srt-seccomp", &["--", "/etc"], 126, "cannot run /etc");
            place.refuses("srt-seccomp", &["--", ""], 127, "cannot run : No such file or directory");
        }
    }
}

mod srt_relay {
    use super::*;

    const TO: &str = "unix:socket";

    both! {
        fn malformed_addresses_and_options_are_refused(who) {
            let place = Place::new(who);
            for (words, complaint) in [
                (&[][..], "expected LISTEN CONNECT"),
                (&["--"], "expected LISTEN CONNECT"),
                (&["tcp:127.0.0.1:9"], "no CONNECT address follows"),
                (&["tcp:127.0.0.1:9", TO, "tcp:127.0.0.1:9"], "no CONNECT address follows"),
                (&["", TO], "expected tcp:IP:PORT, unix:PATH or fd:N"),
                (&["x", TO], "x: expected tcp:IP:PORT, unix:PATH or fd:N"),
                (&["udp:127.0.0.1:9", TO], "udp:127.0.0.1:9: expected tcp:IP:PORT"),
                (&["TCP:127.0.0.1:9", TO], "expected tcp:IP:PORT"),
                (&["tcp:", TO], "tcp:: expected IP:PORT"),
                (&["tcp:9", TO], "expected IP:PORT"),
                (&["tcp::9", TO], "expected an IP address or localhost"),
                (&["tcp:127.0.0.1:", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.0.0.1:0", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.0.0.1:65536", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.0.0.1:+9", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.0.0.1:09", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.0.0.1:http", TO], "expected a port from 1 to 65535"),
                (&["tcp:127.1:9", TO], "expected an IP address or localhost"),
                (&["tcp:example.org:9", TO], "expected an IP address or localhost"),
                (&["tcp:::1:9", TO], "expected brackets around an IPv6 address"),
                (&["tcp:[::1:9", TO], "expected"),
                (&["tcp:[]:9", TO], "expected an IPv6 address between the brackets"),
                (&["tcp:[127.0.0.1]:9", TO], "expected an IPv6 address between the brackets"),
                (&["tcp:[fe80::1%lo]:9", TO], "expected an IPv6 address between the brackets"),
                (&["unix:", TO], "unix:: expected unix:PATH"),
                (&["fd:", TO], "expected fd:N"),
                (&["fd:x", TO], "expected fd:N"),
                (&["fd:-1", TO], "expected fd:N"),
                (&["fd:2147483648", TO], "expected fd:N"),
                (&["fd:3", "fd:3"], "descriptor 3 is used twice"),
                (&["--max-connections", "0", "unix:x", TO], "--max-connections 0: expected 1 or more"),
                (&["--max-connections", "-1", "unix:x", TO], "--max-connections"),
                (&["--max-connections", "+1", "unix:x", TO], "--max-connections +1: expected a number"),
                (&["--max-connections", "2147483648", "unix:x", TO], "--max-connections"),
                (&["--connect-timeout", "-1", "unix:x", TO], "--connect-timeout"),
                (&["--connect-timeout", "1e3", "unix:x", TO], "--connect-timeout"),
                (&["--idle-timeout", "inf", "unix:x", TO], "--idle-timeout"),
                (&["--idle-timeout", "NaN", "unix:x", TO], "--idle-timeout"),
                (&["--idle-timeout", "99999999999", "unix:x", TO], "--idle-timeout"),
                (&["--ready-fd", "-1", "unix:x", TO], "--ready-fd"),
                (&["--ready-fd", "x", "unix:x", TO], "--ready-fd"),
                (&["--status-fd", "99", "unix:x", TO], "--status-fd 99: not an open descriptor"),
                (&["--ready-fd", "99", "unix:x", TO], "--ready-fd 99: not an open descriptor"),
                (&["--nope", "unix:x", TO], "--nope"),
                (&["-v", "unix:x", TO], "-v"),
            ] {
                place.refuses("srt-relay", words, 2, complaint);
            }
        }

        fn what_cannot_be_had_is_a_failure_and_the_sockets_made_before_are_gone(who) {
            let place = Place::new(who);
            for (words, complaint) in [
                (&["unix:good", TO, "unix:file", TO][..], "something that is not a socket is there"),
                (&["unix:good", TO, "unix:directory", TO], "something that is not a socket is there"),
                (&["unix:good", TO, "unix:dangling", TO], "something that is not a socket is there"),
                (&["unix:good", TO, "unix:socket", TO], "another process listens there already"),
                (&["unix:good", TO, "unix:good", TO], "another process listens there already"),
                (&["unix:good", TO, "unix:none/x", TO], "cannot open none: No such file or directory"),
                (&["unix:good", TO, "unix:/", TO], "not a file name"),
                (&["unix:good", TO, "unix:x", "unix:none"], "unix:none: No such file or directory"),
                (&["unix:good", TO, "unix:x", "unix:file"], "unix:file"),
                (&["unix:good", TO, "unix:x", "unix:directory"], "unix:directory"),
                (&["unix:good", TO, "unix:x", "fd:0"], "fd:0"),
                (&["unix:good", TO, "unix:x", "fd:99"], "fd:99"),
                (&["unix:good", TO, "fd:0", TO], "fd:0"),
                (&["unix:good", TO, "fd:99", TO], "fd:99"),
                (&["unix:good", TO, "tcp:192.0.2.1:9", TO], "tcp:192.0.2.1:9: Cannot assign requested address"),
            ] {
                place.refuses("srt-relay", words, 1, complaint);
            }
        }
    }
}

mod srt_connect {
    use super::*;

    both! {
        fn malformed_options_are_refused(who) {
            let place = Place::new(who);
            let to = ["example.org", "22"];
            for (words, complaint) in [
                (&[][..], "--proxy"),
                (&["--proxy", "", "a", "1"], "--proxy"),
                (&["--proxy", "http://127.0.0.1", "a", "1"], "--proxy"),
                (&["--proxy", "http://127.0.0.1:0", "a", "1"], "--proxy"),
                (&["--proxy", "http://127.0.0.1:65536", "a", "1"], "--proxy"),
                (&["--proxy", "http://proxy.example:1", "a", "1"], "write the proxy's address"),
                (&["--proxy", "http://[::1:1", "a", "1"], "--proxy"),
                (&["--proxy", "https://127.0.0.1:1", "a", "1"], "--proxy"),
                (&["--proxy", "127.0.0.1:1", "a", "1"], "--proxy"),
                (&["--proxy", "http+unix:", "a", "1"], "--proxy"),
                (&["--proxy", "http://127.0.0.1:1", "a"], "PORT"),
                (&["--proxy", "http://127.0.0.1:1", "a", "0"], "0"),
                (&["--proxy", "http://127.0.0.1:1", "", "1"], "HOST"),
                (&["--timeout", "+5", "--proxy", "http://127.0.0.1:1", "a", "1"], "--timeout +5: expected seconds"),
                (&["--auth-fd", "+0", "--proxy", "http://127.0.0.1:1", "a", "1"], "--auth-fd +0: expected a number"),
                (&["--timeout", "99999999999", "--proxy", "http://127.0.0.1:1", "a", "1"], "--timeout"),
            ] {
                place.refuses("srt-connect", words, 2, complaint);
            }
            let through = |proxy: &str| [&["--proxy", proxy][..], &to].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
            for (proxy, complaint) in [
                ("http+unix:none", "No such file or directory"),
                ("http+unix:file", "not a socket"),
                ("socks5h+unix:directory", "not a socket"),
                ("http://127.0.0.1:1", "Connection refused"),
            ] {
                place.refuses("srt-connect", &through(proxy), 1, complaint);
            }
        }
    }
}

mod every_tool {
    use super::*;

    /// Tool, what makes its command line complete, its status for wrong usage.
    const TOOLS: [(&str, &[&str], i32); 4] = [
        ("srt-ns", &["--", "true"], 125),
        ("srt-seccomp", &["--", "true"], 125),
        ("srt-relay", &["unix:none/x", "unix:socket"], 2),
        ("srt-connect", &["--proxy", "http://127.0.0.1:1", "a", "1"], 2),
    ];

    /// Options without a value.
    const SWITCHES: &[&str] = &[
        "--allow-userns",
        "--check",
        "--keep-admin",
        "--keep-session",
        "--outlive-parent",
        "--as-pid-1",
        "--wait-all",
        "--export",
        "--landlock",
        "--list",
        "--version",
        "--help",
    ];

    /// The options in `--help`, so that no new one is forgotten.
    fn options(name: &str) -> Vec<String> {
        let help = run(Who::Root.command(name).arg("--help")).ok().out.clone();
        let word = |line: &str| line.trim_start().split([' ', ',']).next().unwrap_or_default().to_owned();
        let all: Vec<_> = help.lines().filter(|line| line.starts_with("  --")).map(word).collect();
        assert!(all.len() > 3, "{help}");
        all
    }

    fn line(before: &[&OsStr], rest: &[&str]) -> Vec<OsString> {
        before.iter().map(|word| (*word).to_owned()).chain(rest.iter().map(OsString::from)).collect()
    }

    both! {
        fn a_value_after_an_equals_sign_is_refused(who) {
            let place = Place::new(who);
            for (name, rest, code) in TOOLS {
                for option in options(name) {
                    let word = format!("{option}=1");
                    let ran = run(&mut place.command(name, &line(&[word.as_ref()], rest)));
                    ran.code(code).says("").complains(&option).one_clear_error(name);
                }
            }
        }

        fn a_missing_or_empty_value_is_refused(who) {
            let place = Place::new(who);
            for (name, rest, code) in TOOLS {
                for option in options(name).iter().filter(|option| !SWITCHES.contains(&option.as_str())) {
                    let last = if code == 125 { vec![option.as_str(), "--", "true"] } else { vec![option.as_str()] };
                    place.refuses(name, &last, code, option);
                    let empty = line(&[option.as_ref(), "".as_ref()], if option == "--proxy" { &["a", "1"] } else { rest });
                    place.refuses(name, &empty, code, option);
                }
            }
        }

        fn no_byte_in_an_option_or_a_value_does_harm(who) {
            let place = Place::new(who);
            let long = vec![b'x'; 100_000];
            let many = vec![b'\n'; 100_000];
            let digits = vec![b'9'; 5_000];
            let values: &[&[u8]] = &[
                b"\xff\xfe", b"\xc3", b"\n", b"\r\x1b[2J", b"%s%n", b"{}", b"\xe2\x80\xae", b"--", b"-", b"help", &long, &many, &digits,
            ];
            for (name, rest, _) in TOOLS {
                for value in values.iter().map(|bytes| OsStr::from_bytes(bytes)) {
                    place.is_sane(name, &line(&[value], rest));
                    for option in options(name).iter().filter(|option| !SWITCHES.contains(&option.as_str())) {
                        // What a shell makes of it is the shell's business.
                        if option != "--sidecar" {
                            place.is_sane(name, &line(&[option.as_ref(), value], rest));
                        }
                    }
                    let glued = [b"--", value.as_bytes()].concat();
                    if glued != b"--help" {
                        place.is_sane(name, &line(&[OsStr::from_bytes(&glued)], rest));
                    }
                }
            }
        }

        fn paths_over_4096_bytes_are_refused(who) {
            let place = Place::new(who);
            let long = "x/".repeat(2050) + "x";
            let name = "y".repeat(256);
            for path in [&long, &name] {
                for (tool, words, code) in [
                    ("srt-ns", vec!["--relay".to_owned(), format!("80={path}"), "--".into(), "true".into()], 125),
                    ("srt-ns", vec!["--publish".into(), format!("{path}=80"), "--".into(), "true".into()], 125),
                    ("srt-ns", vec!["--".into(), path.clone()], 126),
                    ("srt-seccomp", vec!["--load".into(), path.clone(), "--".into(), "true".into()], 125),
                    ("srt-seccomp", vec!["--".into(), format!("./{path}")], 126),
                    ("srt-relay", vec![format!("unix:{path}"), "unix:socket".into()], 1),
                    ("srt-relay", vec!["unix:x".into(), format!("unix:{path}")], 1),
                    ("srt-connect", vec!["--proxy".into(), format!("http+unix:{path}"), "a".into(), "1".into()], 1),
                ] {
                    place.refuses(tool, &words, code, "too long");
                }
            }
        }

        fn a_message_that_nobody_can_read_changes_no_status(who) {
            for (name, _, code) in TOOLS.into_iter().chain([("srt-mount", &[][..], 125)]) {
                let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
                let wrong = |redirection: &str| {
                    let mut command = who.command("sh");
                    command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]).arg(tool(name)).arg("--nope");
                    run(&mut command)
                };
                wrong("2>/dev/full").code(code);
                wrong("2>&-").code(code);
                wrong("2>&- >&- <&-").code(code);
                // A pipe without a reader.
                wrong("2>&1 | true; exit 7").code(7);

                for ask in ["--help", "--version"] {
                    let mut command = who.command(name);
                    let unwritable = command.arg(ask).stdout(full()).stderr(Stdio::piped()).output().expect("run");
                    let failure = if code == 2 { 1 } else { code };
                    assert_eq!(unwritable.status.code(), Some(failure), "{unwritable:?}");
                    let said = String::from_utf8_lossy(&unwritable.stderr);
                    assert_eq!(said, format!("{name}: cannot write to stdout: No space left on device\n"));
                    let mut command = who.command("sh");
                    command.args(["-c", "exec \"$@\" >&-", "sh"]).arg(tool(name)).arg(ask);
                    let ran = run(&mut command);
                    ran.code(failure);
                    assert_eq!(ran.err, format!("{name}: cannot write to stdout: Bad file descriptor\n"));
                }
            }
        }

        fn a_failure_is_one_line_of_json_too(who) {
            for (name, words) in [("srt-ns", &["--uid", "x"][..]), ("srt-seccomp", &["--load", "/none\n\"\\"]), ("srt-mount", &["--nope"])] {
                let scratch = who.scratch();
                let status = scratch.file("status", "");
                let mut command = who.command("sh");
                command.args(["-c", &format!("exec \"$@\" 9>{}", status.display()), "sh"]).arg(tool(name));
                run(command.args(["--status-fd", "9"]).args(words).args(["--", "true"])).code(125).one_clear_error(name);
                let said = std::fs::read_to_string(status).expect("status");
                let start = format!("{{\"stage\":\"{name}\",\"event\":\"failed\",\"code\":125,\"message\":\"");
                assert!(said.starts_with(&start) && said.lines().count() == 1 && said.ends_with("}\n"), "{said}");
                let parsed = run(who.command("/usr/bin/python3").args(["-c", "import json, sys; json.loads(sys.argv[1])", &said]));
                parsed.ok();
            }
        }
    }
}
