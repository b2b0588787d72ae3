//! What is protected stays where it is: `--mask`, `--ro-bind` and the pins above them.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{sh, sh_on, words};
use srt_tests::{Scratch, Who, both, pass_fd, run, run_bwrap, tool};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// A project with something to protect two directories below its root.
fn project(who: Who) -> Scratch {
    let scratch = who.scratch();
    scratch.file("p/.git/hooks/pre-commit", "hook");
    scratch.file("p/.env", "secret");
    scratch.file("p/src/main", "main");
    scratch
}

/// The lists in which the project is writable: by itself, and as a part of the whole tree.
fn bases(scratch: &Scratch) -> [Vec<String>; 3] {
    let dir = scratch.text();
    let list = |text: &str| words(text).into_iter().map(|word| word.replace("DIR", dir)).collect::<Vec<_>>();
    [list("--ro-bind / / --bind DIR DIR"), list("--bind / /"), list("--bind / / --proc /proc --bind DIR DIR")]
}

#[track_caller]
fn in_project(
    who: Who,
    base: &[String],
    protect: &[&str],
    scratch: &Scratch,
    script: &str,
) -> srt_tests::Ran {
    let mut command = who.command("srt-ns");
    command.args(["--", "srt-mount"]).args(base);
    command.args(protect.iter().map(|word| word.replace("DIR", scratch.text())));
    command.args(["--chdir", scratch.text(), "--", "sh", "-c", script]);
    run(&mut command)
}

const ATTACK: &str = "
    mv p/.git p/git2; mv p p2; rm -rf p/.git/hooks; rmdir p/.git/hooks; mv p/.git/hooks p/h; mv p/.env p/e; rm -f p/.env
    ln -s /etc p/.git/hooks; mv -T p/src p/.git; mv -T p/src p/.git/hooks
    /usr/bin/python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for a, b in ((b\"p/.git\", b\"p/src\"), (b\"p/src\", b\"p/.git\"), (b\"p\", b\"x\"), (b\"p/.git/hooks\", b\"p/src\")):
    libc.renameat2(-100, a, -100, b, 2)' 2>/dev/null
    true";

both! {
    fn what_lies_above_a_protected_path_cannot_be_renamed_or_replaced(who) {
        for protect in [
            &["--ro-bind", "DIR/p/.git/hooks", "DIR/p/.git/hooks"][..],
            &["--mask", "DIR/p/.git/hooks"],
            &["--mask", "DIR/p/.git/hooks/pre-commit"],
            &["--ro-bind", "DIR/p/.git/hooks/pre-commit", "DIR/p/.git/hooks/pre-commit"],
            &["--tmpfs", "DIR/p/.git/hooks"],
        ] {
            for base in bases(&project(who)) {
                let scratch = project(who);
                let base: Vec<String> = base.iter().map(|word| if word.starts_with("/tmp/") { scratch.text().to_owned() } else { word.clone() }).collect();
                in_project(who, &base, protect, &scratch, ATTACK).ok();
                let hook = fs::read_to_string(scratch.join("p/.git/hooks/pre-commit"));
                assert_eq!(hook.expect("in its place"), "hook", "{base:?} {protect:?}");
            }
        }
        // Control: without protection the attack works.
        let scratch = project(who);
        in_project(who, &bases(&scratch)[0], &[], &scratch, ATTACK).ok();
        assert!(!scratch.join("p/.git/hooks/pre-commit").exists());
        // Control: with the mount point alone held by a bind mount, what is above it can be renamed.
        let scratch = project(who);
        let hooks = scratch.join("p/.git/hooks");
        let mut bwrap = who.command("bwrap");
        bwrap.args(["--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--ro-bind"]).arg(&hooks).arg(&hooks);
        bwrap.args(["--chdir", scratch.text(), "sh", "-c", ATTACK]);
        run_bwrap(|| run(&mut bwrap)).ok();
        assert!(!hooks.exists(), "bwrap pins, too");
    }

    fn what_lies_above_a_protected_path_in_an_overlay_stays_there(who) {
        let (scratch, other) = (project(who), who.scratch());
        other.file("up/q/.git/hooks/pre-commit", "hook");
        let (up, work) = (other.join("up"), other.dir("work"));
        let overlay = format!("--ro-bind / / --overlay-src DIR --overlay {} {} DIR", up.display(), work.display());
        let base: Vec<_> = words(&overlay).into_iter().map(|word| word.replace("DIR", scratch.text())).collect();
        let hooks = up.join("q/.git/hooks").display().to_string();
        let attack = "mv q/.git q/moved; cat q/.git/hooks/pre-commit";
        in_project(who, &base, &["--ro-bind", &hooks, "DIR/q/.git/hooks"], &scratch, attack).ok().says("hook");
        // The control, last: it stays in the upper layer.
        in_project(who, &base, &[], &scratch, attack).code(1);
    }

    fn a_pin_is_no_file_system_boundary(who) {
        let script = "
            touch p/.git/new && mv p/.git/new p/src/ && ln p/src/new p/.git/hard && mv p/.git/hard . && mv p/src x && mv x p/src &&
            cd p/.git && mv ../src/new ../../../$(basename $OLDPWD)/n; cd $OLDPWD; ls; rm -f n hard; stat -c %d . p p/.git | uniq | wc -l";
        for base in 0..3 {
            let scratch = project(who);
            let base = &bases(&scratch)[base];
            let protect = ["--ro-bind", "DIR/p/.git/hooks", "DIR/p/.git/hooks", "--mask", "DIR/p/.env"];
            in_project(who, base, &protect, &scratch, script).ok().says("hard\nn\np\n1");
        }
    }

    fn paths_with_links_in_the_middle_are_pinned_where_they_lead(who) {
        let scratch = project(who);
        // The link lies where the command cannot write.
        let links = who.scratch();
        std::os::unix::fs::symlink(scratch.join("p/.git"), links.join("link")).expect("symlink");
        let name = format!("{}/link/hooks", links.text());
        in_project(who, &bases(&scratch)[0], &["--mask", &name], &scratch, ATTACK).ok();
        assert!(scratch.join("p/.git/hooks/pre-commit").exists());
    }

    fn a_mask_hides_files_and_directories(who) {
        let scratch = project(who);
        let protect = ["--mask", "DIR/p/.env", "--mask", "DIR/p/.git"];
        let script = "cat p/.env; ls -A p/.git; stat -c %a p/.env p/.git; touch p/.git/x; echo x > p/.env; chmod 777 p/.env; cat p/.env";
        let ran = in_project(who, &bases(&scratch)[0], &protect, &scratch, script);
        ran.ok().says("444\n555").complains("Read-only");
        assert_eq!(fs::read(scratch.join("p/.env")).expect("read"), b"secret");
        sh_on(who, "--ro-bind", &["--mask", "/dev/null", "--mask", "/etc"], "test -f /dev/null && ls -A /etc").ok().says("");
    }

    fn a_file_that_can_be_used_by_another_name_cannot_be_protected(who) {
        // What an earlier run left: it made both before the user wrote anything into one of them.
        let scratch = project(who);
        fs::hard_link(scratch.join("p/.env"), scratch.join("p/src/copy")).expect("link");
        let script = "cat p/src/copy; echo more >> p/src/copy";
        for base in &bases(&scratch) {
            for protect in [
                &["--mask", "DIR/p/.env"][..],
                &["--mask-try", "DIR/p/.env"],
                &["--ro-bind", "DIR/p/.env", "DIR/p/.env"],
                &["--ro-bind", "/dev/null", "DIR/p/.env"],
                &["--bind", "/dev/null", "DIR/p/.env"],
            ] {
                let ran = in_project(who, base, protect, &scratch, script);
                ran.code(125).says("").one_clear_error("srt-mount").complains("p/.env has another name, a hard link");
                ran.complains("hint: find it with find -samefile");
            }
            // A writable bind protects nothing.
            in_project(who, base, &["--bind", "DIR/p/.env", "DIR/p/.env"], &scratch, "cat p/src/copy").ok().says("secret");
        }
        // What lies between it and the writable bind now may not have been there then.
        let base = &bases(&scratch)[0];
        let mounted = |text: &str| words(text).iter().map(|word| word.replace("DIR", scratch.text())).collect::<Vec<_>>();
        for between in [
            "--ro-bind-try DIR/p DIR/p --mask-try DIR/p/.env",
            "--ro-bind DIR/p /mnt --mask /mnt/.env",
            "--tmpfs DIR/p --ro-bind DIR/p/src DIR/p/src --mask DIR/p/src/copy",
            "--overlay-src /etc/ssl --overlay-src DIR/p --ro-overlay DIR/p --mask DIR/p/.env",
            "--bind DIR/p/.env DIR/p/.env --remount-ro DIR/p/.env",
        ] {
            let ran = in_project(who, base, &words(between), &scratch, script);
            ran.code(125).says("").one_clear_error("srt-mount").complains("has another name, a hard link");
        }
        // Where no run could write, none has made a name.
        for name in ["usr", "proc"] {
            scratch.dir(format!("root/{name}"));
        }
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), scratch.join("root").join(name)).expect("symlink");
        }
        for (base, elsewhere) in [
            ("--ro-bind / / --bind DIR/p/.git DIR/p/.git", "--mask DIR/p/.env"),
            ("--bind DIR/root / --ro-bind /usr /usr", "--mask /usr/bin/perl --dir DIR"),
            ("--ro-bind / / --bind DIR DIR", "--ro-bind /usr/bin DIR/p/src --mask DIR/p/src/perl"),
            ("--ro-bind / / --bind DIR DIR", "--ro-bind /usr/bin/perl DIR/p/src/main --remount-ro DIR/p/src/main"),
        ] {
            in_project(who, &mounted(base), &words(elsewhere), &scratch, "echo runs").ok().says("runs");
        }
        if who == Who::User {
            // perl(1) is also perl5.*(1), root's in a directory of root's (proc_sys_fs(5), protected_hardlinks).
            assert_eq!(fs::read_to_string("/proc/sys/fs/protected_hardlinks").expect("sysctl"), "1\n");
            in_project(who, &mounted("--bind / /"), &["--mask", "/usr/bin/perl"], &scratch, "test ! -s /usr/bin/perl").ok();
        }
        // link(2) asks for no permission in the directory of the first name.
        let others = if who == Who::Root { Who::User.scratch() } else { Who::Root.scratch() };
        let file = others.file("conf", "secret");
        std::os::unix::fs::chown(&file, Some(who.uid()), None).expect("chown");
        fs::hard_link(&file, others.join("other")).expect("link");
        let base = mounted(&format!("--ro-bind / / --bind {0} {0}", others.text()));
        let ran = in_project(who, &base, &["--mask", &file.display().to_string()], &scratch, "true");
        ran.code(125).complains("conf has another name");
        // As long as there is a mount on it, the command makes no other name for it.
        fs::remove_file(scratch.join("p/src/copy")).expect("remove");
        let script = "ln p/.env p/src/copy || ln p/.git/hooks/pre-commit p/src/copy && cat p/src/copy";
        let ran = in_project(who, &bases(&scratch)[0], &["--mask", "DIR/p/.env"], &scratch, script);
        ran.ok().says("hook").complains("cross-device link");
    }

    fn a_device_of_the_hosts_that_is_open_keeps_its_mode(who) {
        // The mode that it has, which changes nothing.
        let chmod = "for fd in 0, 1, 2, 7, 8:
    try: os.chmod(f'/proc/self/fd/{fd}', 0o666) if fd == 8 else os.fchmod(fd, 0o666)
    except OSError as error: print(fd, error.errno, file=out)
    else: print(fd, 'changed', file=out)
print('O_PATH', fcntl.fcntl(8, fcntl.F_GETFL) & os.O_PATH != 0, file=out)";
        let (read, path) = (fs::File::options(), libc::O_PATH);
        let null = || read.clone().read(true).write(true).open("/dev/null").expect("open");
        let (seven, eight) = (null(), read.clone().read(true).custom_flags(path).open("/dev/zero").expect("open"));
        let scratch = who.scratch();
        let answers = |words: &[&str]| {
            let name = scratch.file("answers", "");
            let code = format!("import fcntl, os\nout = open('{}', 'a')\n{chmod}", name.display());
            let mut command = who.command(words[0]);
            command.args(&words[1..]).args(["/usr/bin/python3", "-c", &code]);
            let copies = [&seven, &eight].map(srt_tests::above);
            pass_fd(&mut command, copies[0].as_raw_fd(), 7);
            pass_fd(&mut command, copies[1].as_raw_fd(), 8);
            let status = command.stdin(null()).stdout(null()).stderr(null()).status().expect("spawn");
            assert!(status.success(), "{words:?}");
            fs::read_to_string(name).expect("answers")
        };
        let each = |answer| [0, 1, 2, 7, 8].map(|fd| format!("{fd} {answer}\n")).concat() + "O_PATH True\n";
        let (alone, refused) = if who == Who::Root { ("changed", "30") } else { ("1", "1") };
        assert_eq!(answers(&["env"]), each(alone));
        let keep = ["--keep-fd", "7", "--keep-fd", "8"];
        let own = ["--bind", scratch.text(), scratch.text(), "--proc", "/proc"];
        for ns in [&[][..], &["--uid", "1234", "--gid", "1234"]] {
            for dev in [&["--dev", "/dev"][..], &[], &["--ro-bind", "/dev", "/dev"], &["--dev", "/dev", "--dev", "/tmp"]] {
                let start = [&["srt-ns"], &keep[..], ns, &["--", "srt-mount", "--ro-bind", "/", "/"]].concat();
                let words = [&start, dev, &own, &keep, &["--"]].concat();
                assert_eq!(answers(&words), each(refused), "{words:?}");
            }
        }
        if who == Who::Root {
            // Where the host has no procfs.
            let alone = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /proc && exec \"$@\"", "sh", "srt-mount", "--ro-bind", "/", "/"];
            for dev in [&["--dev", "/dev"][..], &[]] {
                let words = [&alone, dev, &own, &keep, &["--"]].concat();
                assert_eq!(answers(&words), each(refused), "{words:?}");
            }
        }
    }

    fn a_mask_of_nothing_is_an_error(who) {
        sh(who, &words("--mask /no/such"), "true").code(125).one_clear_error("srt-mount")
            .complains("--mask /no/such: cannot open /no/such in the new root: No such file or directory");
    }

    fn a_hundred_masks_have_their_pins(who) {
        let scratch = who.scratch();
        let mut options = vec![];
        for n in 0..100 {
            scratch.file(format!("d{}/e{n}/secret", n % 7), "secret");
            options.extend(["--mask".to_owned(), format!("{}/d{}/e{n}/secret", scratch.text(), n % 7)]);
        }
        let script = format!("cd {}; for d in d* d*/e*; do mv $d moved 2>/dev/null && echo moved $d; done; cat d*/e*/secret", scratch.text());
        sh_on(who, "--bind", &options, &script).ok().says("");
    }

    fn pins_alone_with_files_find_a_place_to_hide(who) {
        // No operation mounts a directory but the root itself.
        let scratch = project(who);
        let secret = format!("{}/p/.env", scratch.text());
        let script = format!("cd {}; mv p q; cat {secret}; ls -di / /.. | cut -d' ' -f1 | uniq | wc -l; ls /proc/self/fd | wc -l", scratch.text());
        sh_on(who, "--bind", &["--mask", &secret], &script).ok().complains("busy");
    }

    fn the_mounts_of_the_caller_stay_as_they_are(who) {
        let mounts = || {
            let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
            // Other tests have theirs.
            text.lines().filter(|line| !line.contains("/mounted ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = mounts();
        let scratch = project(who);
        let secret = format!("{}/p/.env", scratch.text());
        let mut command = Who::Root.command("srt-mount");
        command.args(["--bind", "/", "/", "--mask", &secret, "--dev", "/dev", "--tmpfs", "/tmp", "--", "true"]);
        run(&mut command).ok();
        sh_on(who, "--bind", &["--mask", &secret, "--proc", "/proc"], "true").ok();
        assert_eq!(mounts(), before);
        assert_eq!(fs::read(scratch.join("p/.env")).expect("read"), b"secret");
    }

    fn a_mount_made_on_the_host_later_does_not_show(who) {
        let scratch = who.scratch();
        scratch.dir("m");
        let (ready, go) = (scratch.join("ready"), scratch.join("go"));
        // In a mount namespace of this test's own, whose mounts are shared, as systemd leaves them.
        let script = "mount --make-rshared / && { setpriv --reuid $1 --regid $1 --clear-groups $2 -- srt-mount --bind / / -- \
            sh -c 'touch $0; until test -e $1; do sleep 0.01; done; ls -A $2' $3 $4 $5 & } && until test -e $3; do sleep 0.01; done && \
            mount -t tmpfs none $5 && touch $5/later && ls $5 && touch $4 && wait";
        let mut command = Who::Root.command("unshare");
        command.args(["-m", "sh", "-c", script, "sh", &who.uid().to_string()]).arg(tool("srt-ns"));
        run(command.arg(ready).arg(go).arg(scratch.join("m"))).ok().says("later");
    }

    fn a_device_that_is_opened_again_has_the_callers_flags(who) {
        let script = "import fcntl; print([fcntl.fcntl(fd, fcntl.F_GETFL) & 0o6003 for fd in (0, 2)])";
        for (flags, number) in [(libc::O_APPEND, 0o2000), (libc::O_NONBLOCK, 0o4000), (0, 0)] {
            let null = || fs::File::options().read(true).write(true).custom_flags(flags).open("/dev/null").expect("open");
            let input = null();
            // run() takes stderr.
            let mut shell = who.command("sh");
            shell.args(["-c", "exec \"$@\" 2<&9", "sh"]).arg(tool("srt-ns")).args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--", "/usr/bin/python3", "-c", script]).stdin(null());
            pass_fd(&mut shell, input.as_raw_fd(), 9);
            let wanted = number | 2;
            run(&mut shell).ok().says(&format!("[{wanted}, {wanted}]"));
        }
    }
}
