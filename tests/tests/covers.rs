//! What is covered, for whom, and for whom nothing has to be: the keys and message queues of the host, the nodes of /dev,
//! and a /proc that can be mounted again by a sandbox inside.

use srt_tests::attacks::{INSIDE, Sandbox, outside};
use srt_tests::{READ_ONLY, Ran, Who, both, run, tool};
use std::process::Command;

/// The caller's keys, as a command lists them.
const LIST_KEYS: &str = "cat /proc/keys /proc/key-users 2>/dev/null; true";

/// Behind a caller who has a key of their own.
fn with_a_key(who: Who, words: &[&str]) -> Ran {
    run(who.command(tool("attack")).arg("with-key").args(words))
}

/// The chain around `words`, as words.
fn chain<'a>(ns: &'a [&'a str], words: &[&'a str]) -> Vec<&'a str> {
    [&["srt-ns"], ns, &["--", "srt-mount"], &READ_ONLY, &["--", "srt-seccomp", "--"], words].concat()
}

both! {
    fn the_callers_keys_are_not_listed(who) {
        // The control: they are, outside.
        let listed = with_a_key(who, &["sh", "-c", LIST_KEYS]);
        assert!(listed.ok().out.contains("srt-attack"), "{listed:#?}");
        let uids = listed.out.lines().filter(|line| line.contains(": ") && line.contains('/')).count();
        assert!(uids > 0, "no key-users: {listed:#?}");
        with_a_key(who, &chain(&[], &["sh", "-c", LIST_KEYS])).ok().says("");
        if who == Who::Root {
            with_a_key(who, &chain(&["--allow-userns"], &["sh", "-c", LIST_KEYS])).ok().says("");
        }
        // Nor through another procfs.
        let words = ["srt-ns", "--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/mnt",
                     "--proc", "/mnt/proc", "--", "srt-seccomp", "--", "sh", "-c",
                     "cat /mnt/proc/keys /mnt/proc/key-users 2>/dev/null; true"];
        with_a_key(who, &words).ok().says("");
    }

    fn a_sandbox_inside_a_sandbox_has_a_proc_of_its_own(who) {
        // Nothing that is covered may keep the kernel from a new procfs (`mount_too_revealing`), but for uid 0 of the host.
        let inner = chain(&[], &["sh", "-c", "test -d /proc/self && echo nested"]);
        let ran = run(who.command("srt-ns").args(&chain(&["--allow-userns"], &inner)[1..]));
        if who == Who::User {
            ran.ok().says("nested");
        }
        // The overflow uid is nobody's, and not the host's uid 0.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).current_dir("/");
        command.env("PATH", srt_tests::path_with_tools()).args(chain(&["--allow-userns"], &inner));
        run(&mut command).ok().says("nested");
    }

    fn dev_null_can_be_touched_where_it_is_the_kernel_that_protects_it(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        let ran = run(&mut sandbox.command(&["touch", "/dev/null", "/dev/zero", "/dev/full"]));
        if who == Who::User {
            ran.ok();
        }
        // Its mode and owner are the host's all the same.
        let attacks = ["chmod-same /dev/null", "chown-same /dev/null", "chmod /dev/null", "setxattr /dev/null"];
        let before = std::fs::metadata("/dev/null").expect("stat");
        sandbox.each(&attacks).all_were_refused();
        // The host's uid 0 by another number is the host's uid 0.
        sandbox.clone().ns(&["--uid", "1234", "--gid", "1234"]).each(&attacks).all_were_refused();
        let mode = std::os::unix::fs::MetadataExt::mode;
        assert_eq!(mode(&before), mode(&std::fs::metadata("/dev/null").expect("stat")));
        if who == Who::Root {
            outside(who, &attacks[..2]).all_got_through();
        }
    }

    fn a_mounted_message_queue_in_a_read_only_tree_gives_no_messages(who) {
        let scratch = who.scratch();
        let directory = scratch.dir("mq");
        let name = format!("srt-attack-{}-{}", std::process::id(), who.uid());
        let path = directory.join(&name).display().to_string();
        let path = path.as_str();
        outside(who, &[format!("mq-make {name}"), format!("mq-send {name}"), format!("mq-send {name}")]).all_got_through();
        // In a mount namespace in which the host's queues are visible, as on systems with a /dev/mqueue.
        let visible = |words: &[&str]| {
            let mut command = Who::Root.command("unshare");
            let script = "mount -t mqueue none \"$0\" && exec \"$@\"";
            command.args(["--mount", "--propagation", "private", "sh", "-ec", script]).arg(&directory);
            if who == Who::User {
                command.args(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
            }
            run(command.args(words))
        };
        let attack = tool("attack");
        let attack = attack.to_str().expect("UTF-8");
        // The control: reading is taking.
        let taken = visible(&[attack, "mq-take", path]);
        assert!(taken.out.contains("succeeded: secret"), "{taken:#?}");
        for mounts in [&["--ro-bind", "/", "/"][..], &["--ro-bind", "/", "/", "--ro-bind", directory.to_str().expect("UTF-8"), "/mnt"]] {
            let rest = ["--dev", "/dev", "--proc", "/proc", "--", "srt-seccomp", "--", attack, "each"];
            let at_mnt = format!("mq-take /mnt/{name}");
            let [take, get] = [format!("mq-take {path}"), format!("mq-get /{name}")];
            let words = [&["srt-ns", "--", "srt-mount"], mounts, &rest, &[&take, &at_mnt, &get]].concat();
            let ran = visible(&words);
            assert_eq!(ran.code, Some(0), "{ran:#?}");
            assert_eq!(ran.out.matches(": refused").count(), 3, "{mounts:?}: {ran:#?}");
        }
        let left = visible(&[attack, "mq-take", path]);
        outside(who, &[format!("mq-remove {name}")]).all_got_through();
        assert!(left.out.contains("succeeded: secret"), "the message is gone: {left:#?}");
    }

    fn signals_whose_sender_the_kernel_has_dropped_are_still_the_insides(who) {
        // PID 1 cannot tell such a signal from one of the outside by what comes with it (prlimit(2), RLIMIT_SIGPENDING).
        for options in [&[][..], &["--wait-all"], &["--keep-session"]] {
            let sandbox = Sandbox::bare(who).ns(options);
            let script = format!(
                "trap 'echo caught' TERM INT HUP QUIT USR1 USR2 ALRM CONT WINCH
                for signal in 1 2 3 10 12 13 14 15 18 20 21 22 28 29 34 35 36 63 64; do
                    {INSIDE} sigqueue-lost 1 $signal
                    {INSIDE} kill 1 $signal
                done | sort | uniq -c >&2
                sleep 0.1; test -d /proc/self && echo still here; exit 6"
            );
            let ran = run(&mut sandbox.command(&["sh", "-c", &script]));
            ran.code(6).says("still here");
            // The control: they were sent.
            assert!(ran.err.contains("succeeded"), "{ran:#?}");
        }
    }
}
