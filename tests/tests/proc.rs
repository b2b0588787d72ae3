//! /proc, /sys and /dev: what in them is the host's cannot be written, by uid 0 either, which the kernel lets do it
//! without any capability.

use srt_tests::attacks::{INSIDE, Sandbox, outside};
use srt_tests::{Who, both, run, skip};
use std::fs;
use std::os::unix::fs::chown;

/// Files that change the host for whoever is uid 0. Opened, not written.
const OF_THE_HOST: [&str; 12] = [
    "open-write /proc/sys/kernel/core_pattern",
    "open-write /proc/sys/kernel/hostname",
    "? open-write /proc/sys/kernel/modprobe",
    "open-write /proc/sys/vm/overcommit_memory",
    "open-write /proc/sys/fs/suid_dumpable",
    "open-write /proc/sys/kernel/randomize_va_space",
    "? open-write /proc/sys/user/max_user_namespaces",
    "? open-write /proc/sysrq-trigger",
    "? open-write /proc/irq/default_smp_affinity",
    "? open-write /proc/sys/kernel/yama/ptrace_scope",
    "? open-write /sys/kernel/uevent_helper",
    "? open-write /sys/kernel/mm/transparent_hugepage/enabled",
];

/// All files below a directory that can be opened for writing; those of processes are processes.rs's business.
const WRITABLE: &str = r#"find "$0" -xdev -path '/proc/[0-9]*' -prune -o -path '*/self/*' -prune -o -path '*/thread-self/*' -prune \
    -o -type f -writable -print 2>/dev/null | sort"#;

both! {
    fn what_changes_the_host_cannot_be_opened_for_writing(who) {
        let work = who.scratch();
        Sandbox::new(who, work.path()).each(&OF_THE_HOST).all_were_refused();
        if who == Who::Root {
            outside(who, &OF_THE_HOST).all_got_through();
        }
    }

    fn no_file_of_proc_or_sys_is_writable_but_the_processes_own(who) {
        let work = who.scratch();
        for directory in ["/proc", "/sys"] {
            let sandbox = Sandbox::new(who, work.path());
            let found = run(&mut sandbox.command(&["sh", "-c", WRITABLE, directory])).out;
            // Two have mode 0666: a trigger for oneself (PSI), and what asks for CAP_CHECKPOINT_RESTORE when it is written.
            let open = ["/proc/pressure/", "/proc/sys/kernel/ns_last_pid"];
            let found: Vec<_> = found.lines().filter(|path| !open.iter().any(|open| path.starts_with(open))).collect();
            assert!(found.is_empty(), "{found:#?}");
            if who == Who::Root {
                let control = run(who.command("sh").args(["-c", WRITABLE, directory])).out;
                assert!(control.lines().count() > 100, "{control}");
            }
        }
    }

    fn the_modes_of_procs_files_are_the_hosts_and_stay(who) {
        // They are those of every procfs, and belong to uid 0 of the host, which needs no capability to change them.
        let entries = fs::read_dir("/proc").expect("/proc").map(|entry| entry.expect("an entry"));
        let attacks: Vec<String> = entries
            .filter(|entry| !entry.file_type().expect("a type").is_symlink())
            .filter_map(|entry| entry.file_name().into_string().ok())
            // Nobody changes the mode of /proc/sys.
            .filter(|name| name != "sys" && !name.starts_with(|first: char| first.is_ascii_digit()))
            .map(|name| format!("chmod-same /proc/{name}"))
            .collect();
        assert!(attacks.len() > 20, "{attacks:?}");
        let work = who.scratch();
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        if who == Who::Root {
            Sandbox::new(who, work.path()).ns(&["--uid", "1234"]).each(&attacks).all_were_refused();
            outside(who, &attacks).all_got_through();
        }
    }

    fn what_the_hosts_proc_shows_in_a_files_place_protects_none(who) {
        if who != Who::Root {
            return; // To anyone else nothing in a procfs of the sandbox is open that the host's could tell.
        }
        let scratch = who.scratch();
        let fake = scratch.file("fake", "");
        fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o444)).expect("chmod");
        let fake = fake.display();
        // Files of the procfs itself that its owner may write: which there are, is the kernel's choice.
        let entries = fs::read_dir("/proc").expect("/proc").map(|entry| entry.expect("an entry"));
        let open = entries.filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(|byte| !byte.is_ascii_digit()));
        let is_open = |meta: fs::Metadata| meta.is_file() && std::os::unix::fs::MetadataExt::mode(&meta) & 0o222 != 0;
        let Some(open) = open.map(|entry| entry.path()).find(|path| fs::symlink_metadata(path).is_ok_and(is_open)) else {
            skip!("no file of /proc can be written");
        };
        let open = open.display();
        // A file over the one that is asked about; and another file system in the place of the whole.
        for lie in [
            format!("mount --bind {fake} {open}"),
            format!("mount -t tmpfs tmpfs /proc && cp -p {fake} {open}"),
        ] {
            let script = format!(
                "{lie} && exec srt-mount --ro-bind / / --proc /proc -- sh -c 'test -e {open} && ! test -w {open} && echo read-only'"
            );
            run(who.command("unshare").args(["-pfm", "sh", "-c", &script])).ok().says("read-only");
        }
    }

    fn cgroup_files_cannot_be_written(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        let script = "find /sys/fs/cgroup -writable 2>/dev/null | head -3; mkdir /sys/fs/cgroup/srt-attack 2>&1; \
                      for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo 0 2>/dev/null >$f && echo moved; done; true";
        let ran = run(&mut sandbox.command(&["sh", "-c", script]));
        assert!(!ran.out.contains("moved") && !ran.out.contains("/sys/fs/cgroup/\n"), "{ran:#?}");
        assert!(!std::path::Path::new("/sys/fs/cgroup/srt-attack").exists());
        if who == Who::Root {
            let writable = "find /sys/fs/cgroup -name cgroup.procs -writable | head -1";
            let ran = run(who.command("sh").args(["-c", writable]));
            assert!(ran.out.contains("cgroup.procs"), "{ran:#?}");
        }
    }

    fn dev_holds_no_hardware_and_no_terminal_of_the_host(who) {
        let work = who.scratch();
        let listed = run(&mut Sandbox::new(who, work.path()).command(&["sh", "-c", "find /dev | sort; ls /dev/pts"]));
        let known = [
            "/dev", "/dev/core", "/dev/fd", "/dev/full", "/dev/null", "/dev/ptmx", "/dev/pts", "/dev/pts/ptmx", "/dev/random",
            "/dev/shm", "/dev/stderr", "/dev/stdin", "/dev/stdout", "/dev/tty", "/dev/urandom", "/dev/zero", "ptmx",
        ];
        assert_eq!(listed.ok().out.lines().collect::<Vec<_>>(), known);
    }

    fn the_nodes_in_dev_are_the_hosts_and_their_modes_and_owners_stay(who) {
        let work = who.scratch();
        // They belong to uid 0 of the host, which needs no capability to change their modes, owners and times.
        let attacks: Vec<String> = ["null", "zero", "full", "random", "urandom", "tty"]
            .iter()
            .flat_map(|node| ["chmod-same", "chown-same"].map(|attack| format!("{attack} /dev/{node}")))
            .collect();
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        Sandbox::new(who, work.path()).each(&["write /dev/null", "write /dev/zero", "read /dev/zero"]).all_got_through();
        if who == Who::Root {
            outside(who, &attacks).all_got_through();
        }
    }

    fn memory_of_the_kernel_and_its_log_cannot_be_read(who) {
        let work = who.scratch();
        let attacks = ["read /dev/mem", "read /dev/kmsg", "read /dev/port", "read /proc/kcore", "read /proc/kmsg", "read /dev/kvm", "write /dev/net/tun"];
        Sandbox::new(who, work.path()).each(&attacks).all_were_refused();
        if who == Who::Root {
            outside(who, &["read /dev/kmsg"]).all_got_through();
        }
    }

    fn the_tools_cannot_be_overwritten_through_proc(who) {
        let scratch = who.scratch();
        // Copies that belong to the user, so that nothing but the sandbox is in the way (CVE-2019-5736).
        let tools = scratch.dir("tools");
        for name in ["srt-ns", "srt-mount", "srt-seccomp"] {
            srt_tests::copy_program(srt_tests::tool(name), tools.join(name));
            chown(tools.join(name), Some(who.uid()), Some(who.uid())).expect("chown");
        }
        let before = fs::read(tools.join("srt-ns")).expect("read");
        let attacks = ["overwrite-exe 1", "write /proc/1/exe", "reopen-path /proc/1/exe", "link-fd /proc/1/exe /tmp/linked"];
        let mut command = who.command(tools.join("srt-ns"));
        command.args(Sandbox::new(who, &scratch.dir("work")).words()).args([INSIDE, "each"]).args(attacks);
        let ran = run(&mut command);
        assert_eq!(ran.ok().out.matches("refused").count(), attacks.len(), "{ran:#?}");
        // One that the command itself starts, and looks at while it waits for a filter, is on a read-only mount.
        let tools_text = tools.to_str().expect("UTF-8");
        let script = format!(
            "mkfifo fifo; {tools_text}/srt-seccomp --load fifo -- true & \
             until readlink /proc/$!/exe | grep -q srt-seccomp; do :; done; \
             /tmp/attack each \"open-write /proc/$!/exe\" \"overwrite-exe $!\" \"link-fd /proc/$!/exe work/linked\""
        );
        let sandbox = Sandbox::new(who, &scratch.join("work")).mounts(&["--ro-bind", tools_text, tools_text]);
        let ran = run(&mut sandbox.command(&["sh", "-c", &script]));
        assert_eq!(ran.ok().out.matches("refused").count(), 3, "{ran:#?}");
        for name in ["srt-ns", "srt-seccomp"] {
            assert_eq!(fs::read(srt_tests::tool(name)).expect("read"), fs::read(tools.join(name)).expect("read"));
        }
        assert_eq!(before, fs::read(tools.join("srt-ns")).expect("read"));

        // Outside: held while it runs, written when it does not.
        let copy = scratch.join("sleep");
        srt_tests::copy_program("/bin/sleep", &copy);
        chown(&copy, Some(who.uid()), Some(who.uid())).expect("chown");
        let mut victim = who.command(&copy).arg("60").spawn().expect("sleep");
        let pid = victim.id();
        srt_tests::wait_until("the victim", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        let reaper = std::thread::spawn(move || victim.wait().map(drop));
        outside(who, &[format!("overwrite-exe {pid}")]).all_got_through();
        reaper.join().expect("join").expect("wait");
        assert!(fs::read(&copy).expect("read").starts_with(b"OWNED"));
    }
}
