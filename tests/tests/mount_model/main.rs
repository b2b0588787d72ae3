//! Lists of mounts that nobody thought of are built for real, and compared with what they promise: a list is refused
//! where it must be, no link leads out, read-only is read-only, what is masked is hidden, what is protected stays in
//! place, and on the host nothing changes but what was granted.
//!
//! The promises are a small model (model.rs). A list grows by an operation at a time, most of them good ones, and
//! then an attacker inside looks at paths, writes, renames and removes; the model says of each whether it can be done.
//! More: SRT_SEED=7 SRT_ROUNDS=1000.

mod model;

use model::{Model, Refusal};
use srt_tests::random::{Random, rounds};
use srt_tests::{Scratch, Who, both, run, tool};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

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
/// Where nothing is shown but what is mounted there.
const ELSEWHERE: [&str; 4] = ["m", "m/x", "m/file", "m/x/deep"];
/// Looked at and attacked, never granted.
const CANARY: [&str; 4] = ["canary", "canary/f", "canary/in", "canary/in/f"];
/// The layers of overlays, which nobody writes.
const LAYERS: [[&str; 2]; 5] =
    [["l1", "l2"], ["l2", "l1"], ["l1", "canary"], ["w/out", "l2"], ["l1/sub", "l2/sub"]];

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
        "l1/f",
        "l1/one",
        "l1/sub/f",
        "l1/sub/g",
        "l2/f",
        "l2/two",
        "l2/sub/f",
        "l2/both/f",
    ] {
        scratch.file(file, format!("{file} of the host\n"));
    }
    scratch.dir("m/x");
    scratch.dir("w/d/empty");
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
    ] {
        symlink(target, scratch.join(link)).expect("symlink");
    }
    scratch
}

/// An operation that may make sense behind these.
fn operation(random: &mut Random, scratch: &Scratch, list: &[Vec<String>]) -> Vec<String> {
    let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    let dest = if random.one_in(3) { random.one_of(&ELSEWHERE) } else { random.one_of(&PLACES) };
    let (dest, source) = (at(dest), at(random.one_of(&PLACES)));
    let earlier = list.get(random.below(list.len().max(1))).and_then(|op| op.last()).cloned();
    let dest = earlier.clone().filter(|_| random.one_in(6)).unwrap_or(dest);
    let words: Vec<&str> = match random.below(24) {
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
        kind => {
            let [low, high] = random.one_of(&LAYERS).map(at);
            let option = if kind == 22 { "--ro-overlay" } else { "--tmp-overlay" };
            let words = ["--overlay-src", &low, "--overlay-src", &high, option, &dest];
            return words.map(str::to_owned).to_vec();
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
        list.push(vec!["--bind".to_owned(), at("w"), at("w")]);
    }
    let length = 2 + random.below(7);
    // What is to be wrong at its end: nothing, or anything, or one of the two kinds of links.
    let wrong = [Refusal::Other, Refusal::Planted, Refusal::Link];
    let wanted = (!random.one_in(2)).then(|| random.one_of(&wrong));
    for _ in 0..150 {
        list.push(operation(random, scratch, &list));
        match host.built(&list, placeholders) {
            // A user may grant what lies behind a link, if that is no link of an earlier run.
            Ok(model) if model.grants(&canary) => drop(list.pop()),
            Ok(_) if list.len() < length => {}
            Ok(_) if wanted.is_none() => break,
            Err(refusal) if list.len() == length && wanted == Some(refusal) => break,
            _ => drop(list.pop()),
        }
    }
    (list, placeholders)
}

/// What to do inside, and what it must come to: in words, or whether it succeeds.
fn attacks(random: &mut Random, scratch: &Scratch, model: &mut Model) -> Vec<(String, Expected)> {
    let at = |name: &str| scratch.join(name).to_str().expect("UTF-8").to_owned();
    let everywhere: Vec<String> =
        PLACES.iter().chain(&ELSEWHERE).chain(&CANARY).map(|name| at(name)).collect();
    let look = |model: &Model| -> Vec<_> {
        let words = everywhere.iter().filter_map(|path| {
            let (verb, says) = model.look(path)?;
            Some((format!("{verb} {path}"), Expected::Says(says)))
        });
        words.collect()
    };
    let mut all = look(model);
    for number in 0..100 {
        let (path, other) = (random.one_of(&everywhere), random.one_of(&everywhere));
        let above = if random.one_in(2) { path.rsplit_once('/').expect("a slash").0 } else { &other };
        let words = match random.below(12) {
            0..=2 => format!("truncate-open {path}"),
            3 => format!("create {path}/created{number}"),
            4 => format!("mkdir {path}/made{number}"),
            5 => format!("symlink {other} {path}/linked{number}"),
            6 => format!("unlink {path}"),
            7 => format!("rmdir {path}"),
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
    let host = Model::of_host(scratch.path());
    let (list, placeholders) = list(random, &scratch, &host);
    let built = host.built(&list, placeholders);
    let mut inside = built.as_ref().unwrap_or(&host).clone();
    let attacks = attacks(random, &scratch, &mut inside);

    let mut command = who.command("srt-ns");
    // The network namespace takes longer than all others, and has no files.
    command.args(["--share", "net", "--", "srt-mount", "--ro-bind", "/", "/"]).args(list.iter().flatten());
    command.args(placeholders.then_some("--placeholders")).arg("--").arg(tool("attack")).arg("all");
    let ran = run(command.args(attacks.iter().map(|(words, _)| words)));
    let shown: Vec<String> = list.iter().map(|op| op.join(" ").replace(scratch.text(), "")).collect();
    let shown = format!("{who:?}, placeholders: {placeholders}\n{shown:#?}");

    let left = Model::of_host(scratch.path()).host(scratch.path());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(scratch.text()), "{shown}: left a mount\n{mounts}");
    if let Err(refusal) = built {
        assert_eq!(ran.code, Some(125), "the model: {refusal:?} in {shown}{ran:#?}");
        ran.one_clear_error("srt-mount").says("");
        assert_eq!(left, host.host(scratch.path()), "{shown}: refused, and left something");
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
    assert_eq!(left, inside.host(scratch.path()), "{shown}: what is left on the host\n{:#?}", ran.out);
    let canary = std::fs::read_to_string(scratch.join("canary/in/f")).expect("the canary");
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
