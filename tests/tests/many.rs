//! Many sandboxes at once, and many one after the other: nothing accumulates.

use srt_tests::processes::Family;
use srt_tests::talk::Talk;
use srt_tests::{MANY_KEYS, Who, both, chain, tools, turn_of, wait_until};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of the kernel's own memory that it cannot give back under pressure: what namespaces and mounts are made of.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let names = ["SUnreclaim:", "Percpu:", "KernelStack:", "PageTables:"];
    let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024
}

/// How many keys a user has: proc_key-users(5).
fn keys(who: Who) -> usize {
    let text = fs::read_to_string("/proc/key-users").unwrap_or_default();
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{}:", who.uid())));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// How many directories there are in a tree, for the cgroups.
fn directories(path: &Path) -> usize {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + directories(&entry.path()))
        .sum()
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().count()
}

/// What must not be more afterwards than before.
fn everything() -> (usize, usize) {
    (mounts(), directories(Path::new("/sys/fs/cgroup")))
}

/// Other tests have mounts and cgroups, too, which come and go.
#[track_caller]
fn nothing_has_come((mounts, cgroups): (usize, usize)) {
    wait_until("mounts and cgroups to go", || everything().0 <= mounts && everything().1 <= cgroups);
}

/// Runs the chain a thousand times, in two rows, where there may be 100 namespaces of each kind at a time, and where every
/// directory that programs put temporary files into is new and empty; prints what is in them afterwards, and the mounts
/// that have come.
const THOUSAND: &str = r#"
set -e
mount --bind "$1" /mnt
for directory in /tmp /var/tmp /dev/shm /run; do
    if [ -d "$directory" ] && [ ! -L "$directory" ]; then mount -t tmpfs tmpfs "$directory"; fi
done
mkdir /tmp/work
for limit in /proc/sys/user/max_*_namespaces; do echo 100 >"$limit"; done
before=$(cat /proc/self/mountinfo)
row() {
    count=0 late=0
    while [ $count -lt 500 ]; do
        if said=$(/mnt/srt-ns -- srt-mount --ro-bind / / --dev /dev --proc /proc --bind /tmp/work /tmp/work -- srt-seccomp -- true 2>&1); then
            count=$((count + 1)) late=0
            continue
        fi
        # The kernel takes a network namespace apart in its own time; what is left behind for good is there after ten seconds.
        case $said in
            *"namespaces is reached"*) late=$((late + 1)); [ $late -lt 100 ] && sleep 0.1 && continue ;;
        esac
        echo "$said" >&2
        exit 1
    done
}
row & other=$!
row
wait $other
find /tmp /var/tmp /dev/shm /run -xdev -mindepth 1 ! -path /tmp/work
# One of another test's goes, see `LoopMount`.
grep -vxF "$before" /proc/self/mountinfo || :
echo $((2 * count))
"#;

#[test]
fn a_limit_of_namespaces_would_stop_what_leaves_some_behind() {
    // Its turn: a `Family` beside it would take this test's child for one of its own.
    let family = Family::new();
    let script = "for limit in /proc/sys/user/max_*_namespaces; do echo 100 >$limit; done
        exec 2>&1; i=0; while [ $i -lt 150 ]; do unshare -n sleep 1000 & i=$((i+1)); done; wait";
    let mut talk = Talk::over_pipes(Who::Root.command("unshare").args([
        "-Urpf",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        script,
    ]));
    talk.expect("No space left on device");
    drop(talk);
    family.ends();
}

both! {
    fn a_hundred_at_once_live_side_by_side_and_leave_nothing(who) {
        let _turn = turn_of(MANY_KEYS);
        let family = Family::new();
        let work = who.scratch();
        let before = everything();
        let (memory, before_keys) = (kernel_memory(), keys(who));
        let mut all: Vec<_> = (0..100)
            .map(|number| {
                let script = format!("echo ready; read word; echo $word {number}; exit {number}");
                Talk::over_pipes(chain(who, work.path()).args(["sh", "-c", &script]))
            })
            .collect();
        all.iter_mut().for_each(|talk| _ = talk.expect("ready"));
        // Each has its own namespaces.
        let members = family.members();
        let namespace = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/pid")).expect("it runs").ino();
        let inits: Vec<_> = members.iter().filter(|member| member.name == "srt-init").collect();
        assert_eq!(inits.iter().map(|init| namespace(init.pid)).collect::<HashSet<_>>().len(), 100);
        let with_all = kernel_memory();
        // A third is told to end, a third is killed, a third ends by itself.
        for (number, mut talk) in all.into_iter().enumerate() {
            let code = i32::try_from(number).expect("small");
            match number % 3 {
                0 => {
                    talk.send("hello\n");
                    talk.expect(&format!("hello {number}"));
                    assert_eq!(talk.end().0, code);
                }
                1 => {
                    talk.signal(libc::SIGTERM);
                    assert_eq!(talk.end().0, 143);
                }
                _ => {
                    talk.signal(libc::SIGKILL);
                    talk.status();
                }
            }
        }
        eprintln!("all gone after {:?}; {} KiB of the kernel each", family.ends(), with_all.saturating_sub(memory) / 102_400);
        nothing_has_come(before);
        // The kernel takes namespaces and keys apart in its own time, and other tests have theirs.
        let most = memory + (with_all.saturating_sub(memory)) / 2 + (16 << 20);
        wait_until("the kernel's memory to come back", || kernel_memory() < most);
        wait_until("the keys to go", || keys(who) < before_keys + 50);
        assert_eq!(fs::read_dir(work.path()).expect("work").count(), 0);
    }

    fn a_thousand_in_a_row_leave_nothing(who) {
        let family = Family::new();
        let before = everything();
        let (memory, before_keys) = (kernel_memory(), keys(who));
        let words = ["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c", THOUSAND, "sh"];
        run_for(who.command("unshare").args(words).arg(tools()));
        assert_eq!(family.members(), []);
        nothing_has_come(before);
        // A network namespace alone is a hundred KiB.
        wait_until("the kernel's memory to come back", || kernel_memory() < memory + (48 << 20));
        wait_until("the keys to go", || keys(who) < before_keys + 50);
    }
}

/// Runs the thousand, which may take longer than other things.
fn run_for(command: &mut Command) {
    let mut talk = Talk::over_pipes(command);
    let start = Instant::now();
    while talk.is_alive() {
        assert!(start.elapsed() < Duration::from_secs(300), "still not a thousand");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, said) = talk.end();
    assert_eq!((code, said.trim()), (0, "1000"));
}
