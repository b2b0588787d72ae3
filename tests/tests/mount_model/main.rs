//! Lists of mounts that nobody thought of are built for real, and compared with what they promise: a list is refused
//! where it must be, no link leads out, read-only is read-only, what is masked is hidden, what is protected stays in
//! place, and on the host nothing changes but what was granted.
//!
//! What a descriptor is open on may have another name by then, and its own name may lead to something else.
//!
//! Of --proc, --proc-pids, --sys, --mqueue it knows the places; their files are the kernel's (tests/proc.rs, values.rs,
//! srt-mount/tests/filesystems.rs). Of what --overlay leaves in its two directories on the host it knows the files that
//! were written; the rest is overlayfs's own affair.
//!
//! The promises are a small model (model.rs). A list grows by an operation at a time, most of them good ones, and
//! then an attacker inside looks at paths, writes, renames and removes; the model says of each whether it can be done.
//! More: SRT_SEED=7 SRT_ROUNDS=1000.

mod model;

use model::{Descriptor, Model, Refusal};
use srt_tests::random::{Random, rounds};
use srt_tests::{Scratch, Who, both, pass_fd, run, tool};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// How many lists the usual run builds.
const LISTS: u64 = 40;

/// Names of what the sandbox may be given, some of them through links. `w` is what it usually can write.
const PLACES: [&str; 38] = [
    "w",
    "w/a",
    "w/a/b",
    "w/a/b/c",
    "w/a/b/c/f",
    "w/a/b/f",
    "w/a/f",
    "w/d",
    "w/d/e",
    "w/d/e/f",
    "w/d/f",
    "w/f",
    // Links inside; out, with `..` and absolute; to a file, to nothing, to themselves; one behind another.
    "w/in",
    "w/in/f",
    "w/in/c",
    "w/abs",
    "w/abs/e",
    "w/out",
    "w/out/in",
    "w/a/up",
    "w/a/up/f",
    "w/a/root",
    "w/flink",
    "w/dangle",
    "w/dangle/x",
    "w/loop",
    "w/twice/c",
    "w/new",
    "w/new/deep",
    "w/a/../d",
    "w/a/b/../f",
    "o",
    "o/b",
    "o/b/f",
    "o/f",
    "o/back",
    "o/back/b",
    "m/x",
];
/// Some that are there and are no links.
const DIRECTORIES: [&str; 7] = ["w/a", "w/a/b", "w/d", "w/d/e", "o", "m", "m/x"];
const FILES: [&str; 7] = ["w/f", "w/a/f", "w/a/b/f", "w/d/e/f", "o/f", "o/b/f", "m/file"];
/// Where nothing is shown but what is mounted there.
const ELSEWHERE: [&str; 4] = ["m", "m/x", "m/file", "m/x/deep"];
/// Looked at and attacked, never granted.
const CANARY: [&str; 4] = ["canary", "canary/f", "canary/in", "canary/in/f"];
/// The layers of overlays, which nobody writes.
const LAYERS: [[&str; 2]; 5] =
    [["l1", "l2"], ["l2", "l1"], ["l1", "canary"], ["w/out", "l2"], ["l1/sub", "l2/sub"]];
/// What descriptors are open on, from [`OPEN`] on: directories and files that the caller opened by these names.
const OPENED: [&str; 9] = ["w", "w/a", "w/a/b", "w/f", "w/d/f", "o", "o/b", "o/b/f", REMOVED];
/// Removed once it is open; as its path the kernel says the name of another file then.
const REMOVED: &str = "gone/f";
const NOT_REMOVED: &str = "gone/f (deleted)";
/// Higher than any descriptor that this process opens.
const OPEN: usize = 500;
/// What others hold, from [`HELD`] on.
const HOLDS: [&str; 2] = ["held\n", "more that is held\n"];
const HELD: usize = 520;
/// One that the caller has open and srt-ns has closed, and one that was never open.
const CLOSED: [usize; 2] = [540, 541];
/// Where some of the words come from, perhaps.
const ARGS: usize = 530;
/// What changes places with what, after that. The last two: a directory moves away, a file is replaced.
const MOVES: [[&str; 2]; 6] = [
    ["w/a", "o/b"],
    ["w/a/b", "w/d"],
    ["w/f", "o/b/f"],
    ["w/d/f", "m/file"],
    ["w/a/b", "m/moved"],
    ["w/d/f", "w/f"],
];

/// The files of a round.
fn lay_out(who: Who) -> Scratch {
    let scratch = who.scratch();
    for file in [
        "w/f",
        "w/a/f",
        "w/a/b/f",
        "w/a/b/c/f",
        "w/d/f",
        "w/d/e/f",
        "o/f",
        "o/b/f",
        "o/b/c/f",
        "m/file",
        "canary/f",
        "canary/in/f",
        REMOVED,
        NOT_REMOVED,
        "l1/f",
        "l1/one",
        "l1/sub/f",
        "l1/sub/g",
        "l2/f",
        "l2/two",
        "l2/sub/f",
        "l2/both/f",
        "u/up/f",
        "u/up/b/f",
        "u/up/sub/g",
    ] {
        scratch.file(file, format!("{file} of the host\n"));
    }
    scratch.dir("m/x");
    scratch.dir("w/d/empty");
    scratch.dir("u/work");
    let absolute = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    for (target, link) in [
        ("a/b", "w/in"),
        (&absolute("w/d"), "w/abs"),
        (&absolute("canary"), "w/out"),
        ("../../canary", "w/a/up"),
        ("/", "w/a/root"),
        ("f", "w/flink"),
        ("nowhere", "w/dangle"),
        ("loop", "w/loop"),
        ("in", "w/twice"),
        ("../w/a", "o/back"),
        ("sub", "l1/link"),
        (&absolute("canary"), "u/up/out"),
        ("b", "u/up/in"),
    ] {
        symlink(target, scratch.join(link)).expect("symlink");
    }
    scratch
}

/// Opens what the caller hands over; then, perhaps, something gets another name.
fn hand_over(
    random: &mut Random,
    scratch: &Scratch,
) -> (BTreeMap<usize, File>, BTreeMap<String, Descriptor>) {
    let open = |name| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(scratch.join(name));
    let opened = OPENED.map(|name| open(name).expect(name));
    fs::remove_file(scratch.join(REMOVED)).expect("unlink");
    for _ in 0..random.below(3) {
        let [from, to] = random.one_of(&MOVES);
        let (from, to, aside) = (scratch.join(from), scratch.join(to), scratch.join("aside"));
        // What an earlier one has moved is not there.
        if from.is_dir() && to.is_dir() || from.is_file() && to.is_file() && random.one_in(2) {
            fs::rename(&from, &aside).and_then(|()| fs::rename(&to, &from)).expect("rename");
            fs::rename(&aside, &to).expect("rename");
        } else if from.exists() && to.parent().is_some_and(Path::is_dir) {
            fs::rename(&from, &to).expect("rename");
        }
    }
    let places = opened.iter().map(|file| {
        let path = path_of(file, scratch.path());
        Descriptor::On(path.map(|path| path.to_str().expect("UTF-8").to_owned()))
    });
    let held = HOLDS.map(|text| {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).expect("write");
        file
    });
    let texts = HOLDS.iter().map(|text| Descriptor::Holds((*text).to_owned()));
    let numbers = || (OPEN..).take(OPENED.len()).chain((HELD..).take(HOLDS.len()));
    let descriptors = numbers().map(|number| number.to_string()).zip(places.chain(texts)).collect();
    (numbers().zip(opened.into_iter().chain(held)).collect(), descriptors)
}

/// The name that a file has now below `top`.
fn path_of(file: &File, top: &Path) -> Option<PathBuf> {
    let inode = file.metadata().expect("stat").ino();
    let entries = fs::read_dir(top).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.path(), entry.metadata().expect("stat"))).find_map(|(path, meta)| {
        if meta.ino() == inode { Some(path) } else { meta.is_dir().then(|| path_of(file, &path)).flatten() }
    })
}

/// An operation that may make sense behind these.
fn operation(random: &mut Random, scratch: &Scratch, list: &[Vec<String>]) -> Vec<String> {
    let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    let dest = if random.one_in(3) { random.one_of(&ELSEWHERE) } else { random.one_of(&PLACES) };
    let (dest, source) = (at(dest), at(random.one_of(&PLACES)));
    let earlier = list.get(random.below(list.len().max(1))).and_then(|op| op.last()).cloned();
    let dest = earlier.clone().filter(|_| random.one_in(6)).unwrap_or(dest);
    let number = |random: &mut Random, from: usize, count: usize| match random.one_in(24) {
        true => random.one_of(&CLOSED),
        false => from + random.below(count),
    };
    let opened = number(random, OPEN, OPENED.len());
    // One that an earlier operation has read, perhaps.
    let numbers = || list.iter().filter_map(|op| op[op.len() - 2].parse().ok());
    let read =
        numbers().find(|number| (HELD..HELD + HOLDS.len()).contains(number)).filter(|_| random.one_in(2));
    let held = read.unwrap_or_else(|| number(random, HELD, HOLDS.len())).to_string();
    // A random place seldom is of the same type.
    let is_file = OPENED.get(opened - OPEN).is_some_and(|name| name.ends_with('f'));
    let fitting = at(random.one_of(if is_file { &FILES } else { &DIRECTORIES }));
    let file = at(random.one_of(&FILES));
    let (fitting, file) = if random.one_in(3) { (&dest, &dest) } else { (&fitting, &file) };
    let opened = opened.to_string();
    // None that keeps its owner out of a directory.
    let mode = random.one_of(&["755", "750", "711", "700"]);
    let file_mode = random.one_of(&["644", "640", "600", "444", "400", "200", "0", "1777"]);
    let words: Vec<&str> = match random.below(46) {
        0..=2 => vec!["--bind", &source, &dest],
        // As most people do it.
        3..=4 => vec!["--bind", &dest, &dest],
        5 => vec!["--bind-try", &source, &dest],
        6..=7 => vec!["--ro-bind", &source, &dest],
        8..=10 => vec!["--ro-bind", &dest, &dest],
        11 => vec!["--ro-bind-try", &source, &dest],
        12..=13 => vec!["--tmpfs", &dest],
        14..=15 => vec!["--dir", &dest],
        16 => vec!["--symlink", random.one_of(&["f", "../canary", "/etc", "in"]), &dest],
        17..=19 => vec!["--mask", &dest],
        20 => vec!["--mask-try", &dest],
        21 => vec!["--remount-ro", earlier.as_deref().unwrap_or(&dest)],
        22..=24 => vec!["--bind-fd", &opened, fitting],
        25..=28 => vec!["--ro-bind-fd", &opened, fitting],
        29 => vec!["--dev-bind", &source, &dest],
        30 => vec!["--perms", mode, random.one_of(&["--dir", "--tmpfs"]), &dest],
        31 => vec!["--chmod", mode, &dest],
        32..=37 => {
            let option = random.one_of(&["--file", "--bind-data", "--ro-bind-data"]);
            let words = ["--perms", file_mode, option, &held, file];
            words[if random.one_in(2) { 0 } else { 2 }..].to_vec()
        }
        38..=39 => vec![random.one_of(&["--dev", "--proc", "--proc-pids", "--sys", "--mqueue"]), fitting],
        40..=41 => vec!["--size", "1000000", "--tmpfs", &dest],
        kind => {
            let [low, high] = random.one_of(&LAYERS).map(at);
            let layers = ["--overlay-src", &low, "--overlay-src", &high];
            // Two mounts that write into one directory are nobody's promise.
            let has_upper = list.iter().flatten().any(|word| word == "--overlay");
            let [upper, work] = ["u/up", "u/work"].map(at);
            let last = match kind {
                42 => vec!["--ro-overlay", &dest],
                44.. if !has_upper => vec!["--overlay", &upper, &work, &dest],
                _ => vec!["--tmp-overlay", &dest],
            };
            return layers.into_iter().chain(last).map(str::to_owned).collect();
        }
    };
    words.into_iter().map(str::to_owned).collect()
}

/// A list, and whether it comes with `--placeholders`. Good but for its last operation, perhaps.
fn list(random: &mut Random, scratch: &Scratch, host: &Model) -> (Vec<Vec<String>>, bool) {
    let canary = scratch.join("canary").to_str().expect("UTF-8").to_owned();
    let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    let placeholders = random.one_in(3);
    let mut list = vec![];
    if !random.one_in(4) {
        let [option, source] =
            random.one_of(&[["--bind".to_owned(), at("w")], ["--bind-fd".to_owned(), OPEN.to_string()]]);
        list.push(vec![option, source, at("w")]);
    }
    let length = 2 + random.below(7);
    let changes =
        |list: &[Vec<String>]| host.built(list, placeholders).is_ok_and(|built| built.has_changed(host));
    // What is to be wrong at its end: nothing, or anything, or one of the two kinds of links, or a descriptor.
    let wrong = [Refusal::Other, Refusal::Planted, Refusal::Link, Refusal::Descriptor, Refusal::Descriptor];
    let wanted = (!random.one_in(2)).then(|| random.one_of(&wrong));
    for _ in 0..150 {
        list.push(operation(random, scratch, &list));
        match host.built(&list, placeholders) {
            // A user may grant what lies behind a link, if that is no link of an earlier run.
            Ok(model) if model.grants(&canary) => drop(list.pop()),
            Err(Refusal::Kernel) => drop(list.pop()),
            Ok(_) if list.len() < length => {}
            Ok(_) if wanted.is_none() => break,
            // What --file and --chmod have done to the host's own files before, no failure takes back.
            Err(refusal)
                if list.len() == length && wanted == Some(refusal) && !changes(&list[..length - 1]) =>
            {
                break;
            }
            _ => drop(list.pop()),
        }
    }
    (list, placeholders)
}

/// What to do inside, and what it must come to: in words, or whether it succeeds.
fn attacks(
    random: &mut Random,
    scratch: &Scratch,
    list: &[Vec<String>],
    model: &mut Model,
) -> Vec<(String, Expected)> {
    let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    let everywhere: Vec<String> =
        PLACES.iter().chain(&ELSEWHERE).chain(&CANARY).map(|name| at(name)).collect();
    let dests = || list.iter().filter_map(|op| op.last());
    let granted: Vec<String> = dests().cloned().chain(dests().map(|dest| format!("{dest}/f"))).collect();
    let look = |model: &Model| -> Vec<_> {
        let words = everywhere.iter().flat_map(|path| {
            let says = model.look(path).into_iter();
            says.map(move |(verb, says)| (format!("{verb} {path}"), Expected::Says(says)))
        });
        words.collect()
    };
    let mut all = look(model);
    for number in 0..100 {
        let other = random.one_of(&everywhere);
        let from = if random.one_in(3) { &granted } else { &everywhere };
        let path = random.one_of(from);
        let above = if random.one_in(2) { path.rsplit_once('/').expect("a slash").0 } else { &other };
        let words = match random.below(13) {
            0..=2 => format!("truncate-open {path}"),
            3 => format!("create {path}/created{number}"),
            4 => format!("mkdir {path}/made{number}"),
            5 => format!("symlink {other} {path}/linked{number}"),
            6 => format!("unlink {path}"),
            7 => format!("rmdir {path}"),
            11 => format!("chmod-same {path}"),
            8..=10 => format!("rename {path} {above}/moved{number}"),
            _ => format!("exchange {path} {other}"),
        };
        let mut then = model.clone();
        let succeeds = then.attack(&words.split(' ').collect::<Vec<_>>());
        // Most is read-only: of what is refused a part will do.
        if let Some(succeeds) = succeeds.filter(|succeeds| *succeeds || random.one_in(4)) {
            *model = then;
            all.push((words, Expected::Succeeds(succeeds)));
        }
    }
    all.extend(look(model));
    all
}

#[derive(Debug, PartialEq)]
enum Expected {
    Succeeds(bool),
    /// `None`: refused.
    Says(Option<String>),
}

/// One list. Whether it was taken, and how many attacks got through and were refused.
fn round(random: &mut Random, who: Who) -> (bool, [usize; 2]) {
    let scratch = lay_out(who);
    let (files, descriptors) = hand_over(random, &scratch);
    let mut host = Model::of_host(scratch.path());
    host.descriptors = descriptors.into();
    let (list, placeholders) = list(random, &scratch, &host);
    let built = host.built(&list, placeholders);
    let mut inside = built.as_ref().unwrap_or(&host).clone();
    let attacks = attacks(random, &scratch, &list, &mut inside);

    let mut command = who.command("srt-ns");
    if !list.iter().any(|op| op[0] == "--sys") {
        // The network namespace takes longer than all others, and has no files but these.
        command.args(["--share", "net"]);
    }
    for (number, file) in &files {
        command.args(["--keep-fd", &number.to_string()]);
        pass_fd(&mut command, file.as_raw_fd(), *number as i32);
    }
    pass_fd(&mut command, files[&OPEN].as_raw_fd(), CLOSED[0] as i32);
    let (told, read) =
        list.split_at(if random.one_in(4) { random.below(list.len() + 1) } else { list.len() });
    let mut args = tempfile::tempfile().expect("a file");
    let words: String = read.iter().flatten().map(|word| format!("{word}\0")).collect();
    args.write_all(words.as_bytes()).and_then(|()| args.rewind()).expect("write");
    pass_fd(&mut command, args.as_raw_fd(), ARGS as i32);
    let args = ARGS.to_string();
    command.args(["--keep-fd", &args, "--", "srt-mount", "--ro-bind", "/", "/"]).args(told.iter().flatten());
    command.args(["--args", &args]);
    command.args(placeholders.then_some("--placeholders")).arg("--").arg(tool("attack")).arg("all");
    let ran = run(command.args(attacks.iter().map(|(words, _)| words)));
    let shown: Vec<String> = list.iter().map(|op| op.join(" ").replace(scratch.text(), "")).collect();
    let shown = format!("{who:?}, placeholders: {placeholders}\n{shown:#?}");

    let left = Model::of_host(scratch.path());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(scratch.text()), "{shown}: left a mount\n{mounts}");
    if let Err(refusal) = built {
        assert_eq!(ran.code, Some(125), "the model: {refusal:?} in {shown}{ran:#?}");
        ran.one_clear_error("srt-mount").says("");
        assert_eq!(
            left.host(scratch.path()),
            host.host(scratch.path()),
            "{shown}: refused, and left something"
        );
        return (false, [0, 0]);
    }
    assert_eq!(ran.code, Some(0), "the model takes {shown}: {}", ran.err);
    let mut counts = [0, 0];
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), attacks.len(), "{shown}{ran:#?}");
    for (at, ((words, expected), line)) in attacks.iter().zip(&lines).enumerate() {
        let said =
            line.strip_prefix(&format!("{words}: ")).unwrap_or_else(|| panic!("{line}: not of {words}"));
        let got = match (expected, said.strip_prefix("succeeded:").map(str::trim)) {
            (Expected::Succeeds(_), said) => {
                counts[usize::from(said.is_none())] += 1;
                Expected::Succeeds(said.is_some())
            }
            (Expected::Says(_), None) => Expected::Says(None),
            (Expected::Says(_), Some(names)) if words.starts_with("list") => {
                let names: BTreeSet<_> = names.split_whitespace().collect();
                Expected::Says(Some(names.into_iter().collect::<Vec<_>>().join(" ")))
            }
            (Expected::Says(_), Some(text)) => Expected::Says(Some(text.to_owned())),
        };
        if got != *expected {
            let done = |line: &&&str| line.contains(": succeeded: ") && !line.contains(" of the host");
            let before: Vec<_> = lines[..at].iter().filter(done).collect();
            let text = format!("{shown}\n{before:#?}\n{line}\nexpected {expected:?}");
            panic!("{}", text.replace(scratch.text(), ""));
        }
    }
    assert_eq!(
        left.host(scratch.path()),
        inside.host(scratch.path()),
        "{shown}: what is left on the host\n{:#?}",
        ran.out
    );
    let upper = scratch.join("u/up");
    let owned = left.owned_on_host(upper.to_str().expect("UTF-8"));
    assert_eq!(owned, inside.owned_by_upper(), "{shown}: what is left in RW\n{:#?}", ran.out);
    let canary = fs::read_to_string(scratch.join("canary/in/f")).expect("the canary");
    assert_eq!(canary, "canary/in/f of the host\n", "{shown}");
    (true, counts)
}

both! {
    fn random_lists_of_mounts_keep_what_they_promise(who) {
        let (mut taken, mut through, mut refused, mut lists) = (0, 0, 0, 0);
        rounds(LISTS, |random| {
            let (good, counts) = round(random, who);
            lists += 1;
            taken += usize::from(good);
            through += counts[0];
            refused += counts[1];
        });
        println!("{lists} lists, {taken} taken; {through} attacks got through, {refused} were refused");
        // A model that refuses everything would be right.
        if lists >= 30 {
            assert!(taken * 3 > lists && taken < lists && through > lists && refused > lists);
        }
    }
}
