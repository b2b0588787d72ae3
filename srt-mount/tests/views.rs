//! What the sandbox sees of itself, and what it does not see of its caller.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use common::{mount, sh, sh_on, words};
use srt_tests::refusals::with_mounts;
use srt_tests::{Who, both, has, run, skip, tool};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A script that ends in `exec` of its arguments, with keys of the caller's uid about.
const WITH_KEYS: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 248, 'aarch64': 217}[os.uname().machine]
for name, ring in ((b'on-the-users-ring', -4), (b'on-the-session-ring', -3)):
    if libc.syscall(number, b'user', name, b'x', 1, ring) < 0: sys.exit(77)
os.execvp(sys.argv[1], sys.argv[1:])";

fn with_keys(who: Who) -> Command {
    let mut command = who.command("/usr/bin/python3");
    command.args(["-c", WITH_KEYS]);
    command
}

both! {
    fn the_callers_keys_do_not_show(who) {
        let host = run(with_keys(who).args(["cat", "/proc/keys"]));
        if host.code == Some(77) {
            skip!("no keys here");
        }
        // Control: they show to whoever has the same uid, and in a procfs that may be mounted in a sandbox inside.
        assert!(host.ok().out.contains("on-the-users-ring"), "{host:#?}");
        let inside = |allow: &[&str]| {
            let mut command = with_keys(who);
            command.arg(tool("srt-ns")).args(allow).args(["--", "srt-mount", "--ro-bind", "/", "/", "--proc", "/proc", "--"]);
            command
        };
        run(inside(&[]).args(["cat", "/proc/keys", "/proc/key-users"])).ok().says("");
        let ran = run(inside(&["--allow-userns"]).args(["cat", "/proc/keys"]));
        assert_eq!(ran.ok().out.contains("on-the-users-ring"), who == Who::User, "{ran:#?}");
    }

    fn where_user_namespaces_are_allowed_a_procfs_can_be_mounted_inside(who) {
        if who == Who::Root {
            return; // What uid 0 of the host could write is covered.
        }
        let nested = "--uid 1000 --gid 1000 --allow-userns -- srt-mount --ro-bind / / --proc /proc -- unshare -Urmpf --mount-proc cat /proc/1/comm";
        for outer in [&[][..], &["unshare", "-Ur"]] {
            let mut command = who.command("env");
            command.args(outer).arg(tool("srt-ns")).args(words(nested));
            run(&mut command).ok().says("cat");
        }
    }

    fn the_messages_of_the_hosts_queues_cannot_be_taken(who) {
        let script = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
mq = ctypes.CDLL('librt.so.1', use_errno=True) if os.path.exists('/lib/x86_64-linux-gnu/librt.so.1') else libc
open_, send = libc.mq_open, libc.mq_send
fd = open_(b'/srt-test', os.O_CREAT | os.O_RDWR, 0o666, None)
assert fd >= 0 and send(fd, b'message', 7, 0) == 0
os.fchmod(fd, 0o666)
os.execvp(sys.argv[1], sys.argv[1:])";
        let take = "
import ctypes, os, sys
try: fd = os.open('/dev/mqueue/srt-test', os.O_RDONLY | os.O_NONBLOCK)
except OSError as error: print(error.strerror); sys.exit()
buffer = ctypes.create_string_buffer(65536)
print(ctypes.CDLL(None, use_errno=True).mq_receive(fd, buffer, 65536, None))";
        // In a mount and ipc namespace of the test's own, whose mqueue the sandbox's caller sees.
        let outer = "mount -t tmpfs none /dev/shm 2> /dev/null; mkdir -p /dev/mqueue && mount -t mqueue none /dev/mqueue && exec \"$@\"";
        let inner = |options: &str, ns: &str, who: Who| {
            let mut command = Who::Root.command("unshare");
            command.args(["-mi", "sh", "-c", outer, "sh", "/usr/bin/python3", "-c", script]);
            if who == Who::User {
                command.args(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
            }
            if !options.is_empty() {
                command.arg(tool("srt-ns")).args(words(ns)).args(["--", "srt-mount"]).args(words(options)).arg("--");
            }
            command.args(["/usr/bin/python3", "-c", take]);
            run(&mut command)
        };
        inner("", "", who).ok().says("7");
        // Of an ipc namespace that is the caller's they are the command's, too.
        inner("--ro-bind / /", "--share ipc", who).ok().says("7");
        // Where they are the source read-only as well: to receive a message is to read. Written, they are what was asked for.
        let queues = "--ro-bind / / --tmpfs /dev/mqueue --ro-bind /dev/mqueue /dev/mqueue";
        for options in ["--ro-bind / /", "--bind / /", "--dev-bind / /", queues] {
            inner(options, "", who).ok().says("No such file or directory");
        }
        inner("--ro-bind / / --bind /dev/mqueue /dev/mqueue", "", who).ok().says("7");
    }

    fn a_new_sysfs_shows_the_sandboxs_devices_and_limits(who) {
        let script = "ls /sys/class/net; grep -q ' /sys sysfs' /proc/mounts || exit 3
            touch /sys/x 2> /dev/null && exit 4; echo 1 > /sys/kernel/x 2> /dev/null && exit 5
            awk '$2 ~ \"^/sys\" && $4 !~ \"^ro,\" { print }' /proc/mounts
            for f in $(awk '$2 ~ \"^/sys/fs/cgroup\" && $3 ~ \"cgroup\" { print $2 }' /proc/mounts); do cat $f/cgroup.procs > /dev/null || exit 6; done
            test -e /sys/fs/cgroup/cgroup.procs || test -e /sys/fs/cgroup/memory/cgroup.procs || test -e /sys/fs/cgroup/pids/cgroup.procs";
        let ran = sh_on(who, "--ro-bind", &words("--dev /dev --proc /proc --sys /sys"), script);
        ran.ok().says("lo");
        // cgroups(7): `ID:CONTROLLERS:PATH` for each hierarchy, as systemd names their directories.
        let ran = sh_on(who, "--ro-bind", &words("--dev /dev --proc /proc --sys /sys"), "ls -1 /sys/fs/cgroup; cat /proc/self/cgroup");
        let (cgroups, names): (Vec<_>, Vec<_>) = ran.ok().out.lines().partition(|line| line.contains(':'));
        let hierarchies = cgroups.iter().map(|line| line.split(':').nth(1).expect("controllers").trim_start_matches("name="));
        if cgroups.len() > 1 {
            let mut expected: Vec<_> = hierarchies.map(|name| if name.is_empty() { "unified" } else { name }).collect();
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
        // Control: the host's has the host's.
        let ran = sh_on(who, "--ro-bind", &["--proc", "/proc"], "ls -d /sys/class/net/*");
        assert_ne!(ran.ok().out.trim(), "/sys/class/net/lo", "{ran:#?}");
    }

    fn where_there_is_version_2_of_cgroups_alone_it_is_the_directory_itself(who) {
        let scratch = who.scratch();
        let file = scratch.file("cgroup", "0::/\n");
        let mut command = who.command("unshare");
        // The number of a process is that of the next program, too. Without a user namespace that is root's alone.
        if who == Who::User {
            command.args(["--user", "--map-root-user", "--keep-caps"]);
        }
        let look = "test -e /sys/fs/cgroup/cgroup.procs && test ! -e /sys/fs/cgroup/unified && echo well";
        let outer = "mount --bind \"$0\" /proc/$$/cgroup && exec \"$@\"";
        command.args(["--mount", "--net", "--cgroup", "sh", "-c", outer]).arg(file).arg(tool("srt-mount"));
        run(command.args(["--ro-bind", "/", "/", "--sys", "/sys", "--", "sh", "-c", look])).ok().says("well");
    }

    fn without_a_cgroup_namespace_the_hint_says_so(who) {
        let mut command = who.command("srt-ns");
        command.args(words("--share cgroup -- srt-mount --ro-bind / / --sys /sys -- true"));
        run(&mut command).code(125).hints("srt-mount", "--sys /sys: cannot make a cgroup", "--share cgroup");
    }

    fn where_a_new_mount_would_change_the_options_of_the_hosts_cgroups_it_is_refused(who) {
        if who == Who::User {
            return; // The kernel refuses it.
        }
        // As above, without a cgroup namespace.
        let scratch = who.scratch();
        let outer = "mount --bind \"$0\" /proc/$$/cgroup && exec \"$@\"";
        let mut command = who.command("unshare");
        command.args(["--mount", "--net", "sh", "-c", outer]).arg(scratch.file("cgroup", "0::/\n")).arg(tool("srt-mount"));
        let ran = run(command.args(["--ro-bind", "/", "/", "--sys", "/sys", "--", "true"]));
        ran.code(125).hints("srt-mount", "--sys /sys: cannot make a cgroup2 file system", "a cgroup namespace of its own");
    }

    fn without_a_network_namespace_a_sysfs_is_refused_with_a_hint(who) {
        if who == Who::Root {
            return;
        }
        let mut command = who.command("srt-ns");
        command.args(words("--share net -- srt-mount --ro-bind / / --sys /sys -- true"));
        run(&mut command).code(125).hints("srt-mount", "--sys /sys: cannot make a sysfs: Operation not permitted", "--ro-bind /sys /sys");
    }

    fn a_procfs_of_the_processes_alone(who) {
        let ran = sh(who, &["--dev", "/dev", "--proc-pids", "/proc"], "cd /proc; ls -d sys keys kcore sysrq-trigger self 2> /dev/null; cat self/comm");
        ran.ok().says("self\ncat");
    }

    fn the_nodes_of_dev_can_be_touched_but_for_root_of_the_host(who) {
        let ran = sh(who, &["--dev", "/dev"], "touch /dev/null 2> /dev/null; echo $?; echo x > /dev/null && head -c 1 /dev/zero | wc -c; chmod 600 /dev/null 2> /dev/null || echo kept");
        ran.ok().says(if who == Who::Root { "1\n1\nkept" } else { "0\n1\nkept" });
    }

    fn the_nodes_of_dev_stay_as_they_are_where_root_of_a_container_owns_them(who) {
        let scratch = who.scratch();
        let dev = scratch.dir("dev").display().to_string();
        // systemd-nspawn's, for one.
        let owner = if who == Who::Root { 0 } else { 1000 };
        let mounts = format!("mount -t tmpfs -o mode=755 none {dev} && cd {dev} && mkdir pts shm && for node in 1:3:null 1:5:zero 1:7:full \
                1:8:random 1:9:urandom 5:0:tty; do mknod -m 666 ${{node##*:}} c $(echo ${{node%:*}} | tr : ' '); done
            chown {owner}:{owner} * && mount --bind {dev} /dev");
        let look = "import os; print(oct(os.stat(\"/dev/null\").st_mode), os.stat(\"/dev/zero\").st_mtime == 1)";
        for (chain, expected) in [("", "0o20000 True"), ("srt-ns -- srt-mount --ro-bind / / --dev /dev --proc /proc --", "0o20666 False")] {
            for attack in ["os.chmod(\"/dev/null\", 0)", "os.fchmod(0, 0)"] {
                let attack = format!("import os\ntry: {attack}; os.utime(\"/dev/zero\", (1, 1))\nexcept OSError: print(\"kept\")");
                // What is left is looked at outside.
                let script = format!("{chain} python3 -c '{attack}' </dev/null; python3 -c '{look}'");
                let mut command = who.command("unshare");
                command.args(["-Ur", "sh", "-c", &script]);
                let ran = run(&mut with_mounts(&mounts, &command));
                assert!(ran.ok().out.trim().ends_with(expected), "{chain} {attack}: {ran:#?}");
            }
        }
    }

    fn a_mask_try_of_a_relative_path_that_is_not_there_is_an_error(who) {
        sh(who, &words("--mask-try .env"), "true").code(125).hints("srt-mount", "--mask-try .env: ", "PATH is relative to the new root");
        sh(who, &words("--mask-try usr/share"), "ls -A /usr/share").ok().says("");
    }

    fn a_mask_try_passes_over_what_nobody_inside_can_reach(who) {
        let scratch = who.scratch();
        scratch.file("there/secret", "secret");
        let text = scratch.text();
        let at = |name: &str| format!("{text}/{name}");
        let script = format!("test -z \"$(ls -A {text}/there)\" && echo hidden");
        let options = ["--mask-try", &at("no/such"), "--mask-try", &at("there/secret/x"), "--mask-try", "/root/.ssh/no", "--mask-try", &at("there")];
        sh_on(who, "--ro-bind", &options, &script).ok().says("hidden");
        sh_on(who, "--ro-bind", &["--mask", &at("no")], "true").code(125).hints("srt-mount", "No such file", "--mask-try");
        assert!(!scratch.join("no").exists());
        // Another failure is one.
        let in_circles = ["--tmpfs", "/mnt", "--symlink", "circle", "/mnt/circle", "--mask-try", "/mnt/circle/x"];
        sh(who, &in_circles, "true").code(125).one_clear_error("srt-mount").complains("Too many levels of symbolic links");
    }

    fn a_mask_try_does_not_pass_over_what_the_command_could_open_again(who) {
        // Its owner may have closed a directory in an earlier run. Where its group is none of the sandbox's, srt-mount has no
        // rights over it (user_namespaces(7)).
        let scratch = who.scratch();
        let at = |name: &str| format!("{}/{name}", scratch.text());
        scratch.file("m/sub/.env", "secret");
        std::os::unix::fs::symlink(at("m/sub"), at("link")).expect("a link");
        let close = |directory: &str, owner: u32| {
            std::os::unix::fs::chown(at(directory), Some(owner), Some(54321)).expect("chown");
            fs::set_permissions(at(directory), fs::Permissions::from_mode(0o000)).expect("chmod");
        };
        let script = format!("chmod 755 {0} 2>&1; cat {0}/.env 2>&1; echo ran", at("m/sub"));
        for (name, refusal) in [("m/sub/.env", "Permission denied"), ("m/sub/none/x", "Permission denied"), ("link/.env", "symbolic link")] {
            close("m/sub", who.uid());
            let ran = sh_on(who, "--ro-bind", &["--bind", &at("m"), &at("m"), "--mask-try", &at(name)], &script);
            let hint = if name.starts_with('m') { "mask the directory" } else { "name its target" };
            ran.code(125).hints("srt-mount", refusal, hint);
        }
        // Without -try nothing is passed over.
        close("m/sub", 54321);
        let ran = sh_on(who, "--ro-bind", &["--bind", &at("m"), &at("m"), "--mask", &at("m/sub/.env")], &script);
        ran.code(125).hints("srt-mount", "Permission denied", "mask the directory");
        // The directory itself can be hidden; and another's is closed for good.
        for (owner, option, name) in [(who.uid(), "--mask", "m/sub"), (54321, "--mask-try", "m/sub/.env")] {
            close("m/sub", owner);
            let ran = sh_on(who, "--ro-bind", &["--bind", &at("m"), &at("m"), option, &at(name)], &script);
            assert!(!ran.ok().out.contains("secret") && ran.out.ends_with("ran\n"), "{ran:#?}");
        }
    }

    fn a_way_back_from_what_is_missing_is_an_error(who) {
        // What is missing before `..` may be there in the next run, or is only hidden: the path leads to the secret then.
        let scratch = who.scratch();
        scratch.file("p/.env", "secret");
        scratch.file("p/dir/sub/x", "");
        scratch.file("p/file", "");
        fs::create_dir(scratch.join("p/closed")).expect("a directory");
        fs::create_dir(scratch.join("cfg")).expect("a directory");
        std::os::unix::fs::symlink("../p/build/..", scratch.join("cfg/p")).expect("a link");
        std::os::unix::fs::chown(scratch.join("p/closed"), Some(54321), Some(54321)).expect("chown");
        fs::set_permissions(scratch.join("p/closed"), fs::Permissions::from_mode(0o000)).expect("chmod");
        let at = |name: &str| format!("{}/{name}", scratch.text());
        let project = at("p");
        let env = at("p/.env");
        for (options, error) in [
            (vec!["--mask-try", &at("p/build/../.env")], "No such file or directory"),
            (vec!["--mask", &at("p/dir"), "--mask", &at("p/dir/sub/../../.env")], "No such file or directory"),
            (vec!["--mask-try", &at("p/file/../.env")], "Not a directory"),
            (vec!["--mask-try", &at("p/closed/x/../../.env")], "Permission denied"),
            (vec!["--mask-try", &at("cfg/p/.env")], "No such file or directory"),
            (vec!["--mask-try", &at("p/build/..")], "No such file or directory"),
            (vec!["--ro-bind-try", &at("p/build/../.env"), &env], "No such file or directory"),
            (vec!["--ro-bind-try", &at("cfg/p/.env"), &env], "No such file or directory"),
        ] {
            let options = [&["--bind", &project, &project][..], &options].concat();
            let ran = sh_on(who, "--ro-bind", &options, &format!("cat {env}"));
            ran.code(125).hints("srt-mount", error, "a path without ..").says("");
        }
        // Another error is what it is.
        std::os::unix::fs::symlink("loop", scratch.join("cfg/loop")).expect("a link");
        let ran = sh_on(who, "--ro-bind", &["--mask-try", &at("cfg/loop/../../p/.env")], "true");
        ran.code(125).one_clear_error("srt-mount").complains("Too many levels of symbolic links");
        assert!(!ran.err.contains("without .."), "{ran:#?}");
        // The way back from what is there, and from what is not, but is created.
        let there = ["--bind", &project, &project, "--mask-try", &at("p/dir/../.env"), "--mask-try", &at("p/dir/../no/x")];
        sh_on(who, "--ro-bind", &there, &format!("cat {env}; echo ran")).ok().says("ran");
        let made = ["--tmpfs", "/mnt", "--dir", "/mnt/a/../b/c/../d", "--tmpfs", "/mnt/e/f/../../a/g"];
        sh_on(who, "--ro-bind", &made, "cd /mnt; ls -d a/g b/c b/d e/f").ok().says("a/g\nb/c\nb/d\ne/f");
    }

    fn what_is_hidden_already_is_hidden(who) {
        let scratch = who.scratch();
        scratch.file("d/a/b", "secret");
        let at = |name: &str| format!("{}/{name}", scratch.text());
        let options = ["--mask", &at("d"), "--mask", &at("d/a"), "--mask", &at("d/a/b"), "--mask-try", &at("d/x"), "--mask", &at("d")];
        sh_on(who, "--bind", &options, &format!("ls -A {}", at("d"))).ok().says("");
        // A name that is nowhere is no such thing.
        sh_on(who, "--bind", &["--mask", &at("d"), "--mask", &at("e/f")], "true").code(125).complains(&at("e/f"));
        assert!(scratch.join("d/a/b").exists());
    }

    fn placeholders_are_made_for_masks(who) {
        let scratch = who.scratch();
        let text = scratch.text();
        let (file, directory) = (format!("{text}/.mcp.json"), format!("{text}/.git/hooks/"));
        let script = format!("cd {text}; stat -c '%F %a' .mcp.json .git/hooks; echo x > .mcp.json; touch .git/hooks/x; mv .git moved; true");
        let ran = sh_on(who, "--bind", &["--placeholders", "--mask", &file, "--mask", &directory], &script);
        ran.ok().says("regular empty file 444\ndirectory 555");
        assert_eq!(fs::read(&file).expect("made").len(), 0);
        assert_eq!(fs::read_dir(&directory).expect("made").count(), 0);
    }

    fn the_working_directory_goes_by_the_callers_name_for_it(who) {
        let scratch = who.scratch();
        scratch.dir("real/proj");
        std::os::unix::fs::symlink("real", scratch.join("link")).expect("symlink");
        let name = format!("{}/link/proj", scratch.text());
        let start = |options: &[&str], pwd: &str| {
            let mut command = mount(who, common::SYSTEM.iter().chain(options));
            command.args(["--", "sh", "-c", "echo $PWD; /bin/pwd"]).current_dir(scratch.join("real/proj")).env("PWD", pwd);
            run(&mut command)
        };
        let ran = start(&["--bind", &name, &name], &name);
        ran.ok().says(&format!("{name}\n{name}"));
        assert_eq!(ran.err, "");
        // One that lies is not asked; then nothing of that name is there, and a line says so.
        let ran = start(&["--bind", &name, &name], "/etc");
        let real = format!("{}/real/proj", scratch.text());
        assert_eq!(ran.ok().says("/\n/").err, format!("srt-mount: {real} is not in the new root: PROGRAM starts in /\n"));
        // One that PROGRAM may not enter, as root's when it stands in a user's private directory.
        for (home, directory) in [("/etc", "/etc"), ("/etc/passwd", "/"), ("", "/"), ("etc", "/")] {
            let mut command = mount(who, common::SYSTEM.iter().chain(&["--perms", "0", "--dir", real.as_str()]));
            command.args(["--", "/bin/pwd"]).current_dir(&real).env("PWD", &real).env("HOME", home);
            let line = format!("srt-mount: {real} cannot be entered: PROGRAM starts in {directory}\n");
            assert_eq!(run(&mut command).ok().says(directory).err, line);
        }
        // One that was removed has no name.
        scratch.dir("gone");
        let mut command = who.command("sh");
        command.args(["-c", &format!("cd {0}/gone && rmdir {0}/gone && exec \"$@\"", scratch.text()), "sh", "unshare", "-Ur"]);
        command.arg(tool("srt-mount")).args(common::SYSTEM).args(["--", "/bin/pwd"]);
        let line = "srt-mount: the working directory no longer exists: PROGRAM starts in /\n";
        assert_eq!(run(&mut command).ok().says("/").err, line);
        // By a name with a link in it, where that leads there inside, too.
        let ran = start(&["--ro-bind", scratch.text(), scratch.text()], &name);
        assert_eq!((ran.ok().says(&format!("{name}\n{real}")).err.as_str(), ran.code), ("", Some(0)));
    }

    fn an_overlay_of_many_layers_works_as_before_linux_6_8(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let scratch = who.scratch();
        let mut options = vec![];
        for n in 0..100 {
            scratch.file(format!("l{n}/f{n}"), "x");
            options.extend(["--overlay-src".to_owned(), format!("{}/l{n}", scratch.text())]);
        }
        options.extend(["--ro-overlay", "/mnt"].map(str::to_owned));
        let old = |options: &[String]| {
            let mut command = who.command("unshare");
            // The first fsconfig(2) of the overlay is refused, as an option that is not known.
            command.args(["-Ur", "strace", "-qq", "-o", "/dev/null", "-e", "trace=fsconfig", "-e", "inject=fsconfig:error=EINVAL:when=1"]);
            command.arg(tool("srt-mount")).args(["--ro-bind", "/", "/"]).args(options);
            run(command.args(["--", "sh", "-c", "ls /mnt | wc -l"]))
        };
        old(&options).ok().says("100");
        let more: Vec<String> = options[..200].iter().chain(&options).cloned().collect();
        old(&more).code(125).complains("more than 128 --overlay-src need Linux 6.8");
    }

    fn an_upper_layer_on_an_overlay_is_told(who) {
        if who != Who::Root {
            return; // Only root can mount the outer one here.
        }
        let scratch = who.scratch();
        for name in ["l", "u", "w", "m"] {
            scratch.dir(name);
        }
        let script = "mount -t tmpfs none \"$0\" && cd \"$0\" && mkdir l u w m && mount -t overlay none -o lowerdir=l,upperdir=u,workdir=w m && mkdir m/up m/wk m/low && \
            exec \"$@\" --overlay-src \"$0/m/low\" --overlay \"$0/m/up\" \"$0/m/wk\" /mnt -- true";
        let mut command = who.command("unshare");
        command.args(["-m", "sh", "-c", script, scratch.text()]).arg(tool("srt-ns")).args(["--", "srt-mount", "--ro-bind", "/", "/"]);
        run(&mut command).code(125).hints("srt-mount", "cannot make an overlay", "RW cannot lie on an overlay");
    }

    fn a_call_that_is_answered_and_not_made_is_noticed(who) {
        if !has("strace") {
            skip!("no strace");
        }
        for call in ["unshare", "mount_setattr", "move_mount", "pivot_root", "umount2", "capset", "prctl", "fsconfig", "open_tree", "fsmount"] {
            let scratch = who.scratch();
            let marker = format!("{}/ran", scratch.text());
            let mut command = who.command("unshare");
            let how = format!("inject={call}:retval=0");
            command.args(["-Urm", "strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &how]);
            command.arg(tool("srt-mount")).args(["--ro-bind", "/", "/", "--bind", scratch.text(), scratch.text(), "--mask", "/etc/passwd"]);
            let ran = run(command.args(["--", "touch", &marker]));
            assert_eq!(ran.code, Some(125), "{call}: {ran:#?}");
            assert!(!scratch.join("ran").exists(), "{call}");
        }
    }

    fn queues_that_cannot_be_told_from_the_hosts_let_nothing_run(who) {
        if !has("strace") {
            skip!("no strace");
        }
        let (made, opened) = ("--trace=fsopen", "--trace-path=/mnt");
        for (traced, lie, code) in [
            (made, None, 0),
            (made, Some("inject=fsopen:error=EIO:when=1"), 125),
            (opened, Some("inject=?open,openat:error=ENOMEM"), 125),
            (opened, Some("inject=?open,openat:error=ENOENT"), 0),
        ] {
            let mut command = Who::Root.command("unshare");
            let user = if who == Who::User { "setpriv --reuid=1000 --regid=1000 --clear-groups -- " } else { "" };
            let script = format!("mount -t mqueue none /mnt && exec {user}\"$@\"");
            command.args(["--mount", "sh", "-c", &script, "sh", "strace", "--follow-forks", "--quiet=all", "--output=/dev/null", traced]);
            command.args(lie.iter().flat_map(|lie| ["-e", lie])).arg(tool("srt-ns"));
            // As PID 1 there is no other process that makes a file system.
            let ran = run(command.args(["--as-pid-1", "--", "srt-mount", "--ro-bind", "/", "/", "--", "echo", "ran"]));
            assert_eq!((ran.code, ran.out.as_str()), (Some(code), if code == 0 { "ran\n" } else { "" }), "{lie:?}: {ran:#?}");
        }
    }
}

/// A cgroup of the test's own, in any hierarchy.
fn a_cgroup() -> Option<std::path::PathBuf> {
    let name = format!("srt-test-{}", std::process::id());
    ["pids", "memory", "."].iter().find_map(|hierarchy| {
        let path = std::path::Path::new("/sys/fs/cgroup").join(hierarchy).join(&name);
        (path.parent()?.join("cgroup.procs").exists() && fs::create_dir(&path).is_ok()).then_some(path)
    })
}

/// A JVM goes through mountinfo and takes the first file system of each hierarchy, `major:minor` in the third column.
#[test]
fn what_a_jvm_finds_first_is_the_sandboxs_cgroups() {
    let Some(cgroup) = a_cgroup() else { srt_tests::skip!("no cgroup can be made") };
    let first = "awk '/ - cgroup2? / && !seen[$3]++ && $4 != \"/\"' /proc/self/mountinfo";
    let ran = |options: &str| {
        let mut command = Who::Root.command("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]).arg(&cgroup);
        command.arg(tool("srt-ns")).args(words("-- srt-mount --ro-bind / / --dev /dev --proc /proc"));
        run(command.args(words(options)).args(["--", "sh", "-c", first]))
    };
    let (own, hosts) = (ran("--sys /sys"), ran(""));
    fs::remove_dir(&cgroup).expect("an empty cgroup");
    assert_ne!(hosts.ok().out, "", "the control: the host's, of which the cgroup namespace is a part");
    assert_eq!(own.ok().out, "", "the host's comes first: {own:#?}");
}
