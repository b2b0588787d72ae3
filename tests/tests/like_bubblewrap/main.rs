//! srt-mount means what bubblewrap means: the same list of mounts goes through both, and what the command sees is
//! compared: paths, types, owners, modes, contents, what may be written, mount flags from statfs(2) and
//! mountinfo; and what is left on the host.
//!
//! Where srt-mount is stricter on purpose, the case says so and why. A difference that is not named fails the
//! test, and so does a named one that does not show.

mod case;
mod cases;
mod mounts;
mod random;
mod run;

use case::{Case, Difference, Expect, World};
use run::{Outcome, Side, outcome, srt_refuses};
use srt_tests::tree::Facts;
use srt_tests::{Who, both, has, skip};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

both! {
    fn every_list_gives_the_tree_that_bubblewrap_gives(who) {
        if !has("bwrap") {
            skip!("bubblewrap is not installed");
        }
        if srt_tests::run(who.command("unshare").args(["--user", "--mount", "true"])).code != Some(0) {
            skip!("no mount namespace can be had");
        }
        let (_place, show_tree) = install_show_tree();

        // One name runs alone: SRT_CASE="…" cargo test -p srt-tests --test like_bubblewrap -- --nocapture
        let wanted = std::env::var("SRT_CASE").ok();
        let chosen = |case: &Case| {
            case.only.is_none_or(|only| only == who)
                && wanted.as_ref().is_none_or(|wanted| case.name.contains(wanted.as_str()))
        };
        let cases: Vec<Case> = cases::all().into_iter().filter(chosen).collect();
        let count = cases.len();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), count, "two cases have the same name");
        let cases = Mutex::new(cases.into_iter());
        let failures = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| loop {
                    let Some(case) = cases.lock().expect("cases").next() else { return };
                    // A thread for each case, since a thread can have a mount namespace: what the case mounts on
                    // the "host" is its own.
                    let world = World { scratch: who.scratch(), show_tree: show_tree.clone() };
                    let text = std::thread::scope(|scope| {
                        let done = scope.spawn(|| {
                            own_namespaces();
                            let text = check(&case, who, &world);
                            world.unmount();
                            text
                        });
                        done.join().unwrap_or_else(|_| "the test panicked\n".to_owned())
                    });
                    if !text.is_empty() {
                        failures.lock().expect("failures").insert(case.name, text);
                    }
                });
            }
        });
        let failures = failures.into_inner().expect("failures");
        let text: String = failures.iter().map(|(name, text)| format!("\n== {name}\n{text}")).collect();
        assert!(failures.is_empty(), "{} of {count} cases ({who:?}):\n{text}", failures.len());
        assert!(wanted.is_some() || count >= 45, "only {count} cases");
    }
}

/// The differences that were met: numbers in the case's list of them, and after that in its list of parents.
type Seen = BTreeSet<usize>;

both! {
    /// Lists that nobody thought of, from a fixed seed. More: SRT_SEED=7 SRT_ROUNDS=1000.
    fn random_lists_give_the_tree_that_bubblewrap_gives(who) {
        if !has("bwrap") {
            skip!("bubblewrap is not installed");
        }
        let (_place, show_tree) = install_show_tree();
        let world = World { scratch: who.scratch(), show_tree };
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let mut lists = random::Lists::new(number("SRT_SEED").unwrap_or(2));
        let mut wrong = String::new();
        for _ in 0..number("SRT_ROUNDS").unwrap_or(40) {
            let case = lists.next();
            let theirs = outcome(&case, who, Side::Bwrap, &world);
            let ours = outcome(&case, who, Side::Chain, &world);
            lists.last_was_good(theirs.inside.is_ok() && ours.inside.is_ok());
            let found = match (&theirs.inside, &ours.inside) {
                (Ok(_), Err((_, err))) if err.contains("is a symbolic link to") => String::new(),
                (Ok(_), Err((_, err))) if err.contains("which this sandbox may replace") => String::new(),
                (Ok(_), Err((_, err))) if err.contains("add a mount of a directory") => String::new(),
                (Ok(_), Ok(_)) => compare(&case, who, &theirs, &ours, &mut Seen::new()),
                (Err(_), Err(_)) => String::new(),
                (Ok(_), Err((code, err))) => format!("  srt-mount refuses: {code:?} {err}\n"),
                (Err((code, err)), Ok(_)) => format!("  bubblewrap refuses: {code:?} {err}\n"),
            };
            if !found.is_empty() {
                let _infallible = write!(wrong, "{:?}:\n{found}", case.options);
            }
        }
        assert!(wrong.is_empty(), "{who:?}:\n{wrong}");
    }
}

/// `show-tree` where every user can run it, and outside what the cases hide.
fn install_show_tree() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::Builder::new().prefix("srt-show-tree-").tempdir_in("/var/tmp").expect("tempdir");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let show_tree = place.path().join("show-tree");
    // By cp(1), as World::show_tree.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_show-tree")).arg(&show_tree).status();
    assert!(copied.expect("cp").success());
    (place, show_tree)
}

/// A copy of the host's mounts for this thread, all of them shared as systemd has them; and message queues of its own:
/// those of the host come and go while other tests run, and some sides see them.
fn own_namespaces() {
    // SAFETY: no pointers; only this thread is moved, and it is at its start.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC) };
    assert_eq!(done, 0, "unshare(CLONE_NEWNS | CLONE_NEWIPC)");
    for how in [libc::MS_PRIVATE, libc::MS_SHARED] {
        let none = std::ptr::null();
        // SAFETY: C strings, and null where mount(2) reads nothing.
        let done = unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | how, none.cast()) };
        assert_eq!(done, 0, "mount --make-r… /");
    }
}

/// Runs one case on all sides; returns what is wrong.
fn check(case: &Case, who: Who, world: &World) -> String {
    let mut wrong = String::new();
    let mut seen: Seen = BTreeSet::new();
    let pairs = match case.reference {
        Some(_) if !bwrap_knows(case) => [(Side::Reference, Side::Chain), (Side::Reference, Side::Alone)],
        _ => [(Side::Bwrap, Side::Chain), (Side::BwrapAlone, Side::Alone)],
    };
    for (theirs, ours) in pairs {
        let (theirs, ours) = (outcome(case, who, theirs, world), outcome(case, who, ours, world));
        let found = compare(case, who, &theirs, &ours, &mut seen);
        if !found.is_empty() {
            let _infallible = write!(wrong, "{pairs:?} {:?}:\n{found}", case.options);
        }
    }
    if wrong.is_empty()
        && bwrap_version() == (0, 8)
        && matches!(case.expect, Expect::Same | Expect::BwrapRefuses { .. })
    {
        for (at, difference) in case.differs.iter().enumerate() {
            if !seen.contains(&at) && difference.who.is_none_or(|only| only == who) {
                let _infallible =
                    writeln!(wrong, "named, but not there: {} ({})", difference.fact, difference.why);
            }
        }
    }
    wrong
}

/// Whether the installed bubblewrap has every option of the case.
fn bwrap_knows(case: &Case) -> bool {
    static HELP: OnceLock<String> = OnceLock::new();
    let help = HELP.get_or_init(|| srt_tests::run(Who::Root.command("bwrap").arg("--help")).out);
    let options = case.options.iter().filter_map(|word| word.to_str()).filter(|word| word.starts_with("--"));
    options.into_iter().all(|option| help.contains(&format!("{option} ")))
}

fn compare(case: &Case, who: Who, theirs: &Outcome, ours: &Outcome, seen: &mut Seen) -> String {
    let mut wrong = String::new();
    let mut say = |text: String| wrong.push_str(&format!("  {text}\n"));
    if let (Some(says), Ok(_)) = (srt_refuses(case), &ours.inside) {
        say(format!("srt-mount does not refuse: expected {says:?}"));
        return wrong;
    }
    if let Err((code, err)) = &ours.inside {
        match srt_refuses(case) {
            None => say(format!("srt-mount refuses: {code:?} {err}")),
            Some(says) if !err.contains(says) => say(format!("expected {says:?} in {err}")),
            Some(_) => {}
        }
        let named = err
            .lines()
            .enumerate()
            .all(|(at, line)| line.starts_with(if at == 0 { "srt-mount: " } else { "srt-mount: hint: " }));
        if *code != Some(125) || !named || !(1..=2).contains(&err.lines().count()) {
            say(format!("no clear error: {code:?} {err:?}"));
        }
        if !ours.untouched {
            say("after the refusal something is left on the host".to_owned());
        }
    }
    match (&theirs.inside, &ours.inside, case.expect) {
        (Err(_), Err(_), Expect::BothRefuse(_)) => {}
        // The versions differ here; the table is of 0.8.
        (Err(_), Err(_), Expect::SrtRefuses { .. }) if bwrap_version() != (0, 8) => {}
        (Ok(_), Err(_), Expect::SrtRefuses { why, .. }) => {
            println!("{}: srt-mount refuses: {why}", case.name)
        }
        (Err(_), Ok(_), Expect::BwrapRefuses { why }) => println!("{}: bubblewrap refuses: {why}", case.name),
        (Ok(theirs_inside), Ok(ours_inside), expect) => {
            if matches!(expect, Expect::BwrapRefuses { .. }) && bwrap_version() == (0, 8) {
                say("bubblewrap does not refuse".to_owned());
            }
            for (theirs, ours) in [(theirs_inside, ours_inside), (&theirs.host, &ours.host)] {
                for (fact, theirs, ours) in differences(theirs, ours) {
                    let fits = |difference: &Difference| difference.fits(who, &fact, &theirs, &ours);
                    let made_private = |path: &&str| {
                        matches(&format!("{path}: mode"), &fact) && theirs == "700" && ours == "755"
                    };
                    let parent = case.parents.iter().position(made_private);
                    let parent = parent.map(|at| case.differs.len() + at);
                    match case.differs.iter().position(fits).or(parent) {
                        Some(at) => {
                            let why =
                                case.differs.get(at).map_or("the parent of a mount point", |found| found.why);
                            println!("{}: {fact}: {theirs} {ours}: {why}", case.name);
                            seen.insert(at);
                        }
                        None if cases::EVERYWHERE.iter().any(fits) => {}
                        None => say(format!("{fact}\n      bwrap: {theirs}\n      srt:   {ours}")),
                    }
                }
            }
        }
        (Err((code, err)), Ok(_), _) => say(format!("bubblewrap refuses: {code:?} {err}")),
        (Err((code, err)), Err(_), _) => say(format!("bubblewrap refuses too: {code:?} {err}")),
        (Ok(_), Err(_), _) => say("bubblewrap does not refuse".to_owned()),
    }
    wrong
}

fn bwrap_version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let text = srt_tests::run(Who::Root.command("bwrap").arg("--version")).out;
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    })
}

/// Facts that are not equal. Of a path that only one side has, its existence alone.
fn differences(theirs: &Facts, ours: &Facts) -> Vec<(String, String, String)> {
    let absent = |facts: &Facts, key: &str| {
        key.rsplit_once(": ").is_some_and(|(path, _)| !facts.contains_key(&format!("{path}: type")))
    };
    let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let mut found = vec![];
    for key in keys {
        let (a, b) = (theirs.get(key), ours.get(key));
        let lone = !key.ends_with(": type")
            && (absent(theirs, key) || absent(ours, key))
            && !(a.is_some() && b.is_some());
        if a != b && !lone {
            let text = |value: Option<&String>| value.map_or("-", |text| text).to_owned();
            found.push((key.clone(), text(a), text(b)));
        }
    }
    found
}

impl Difference {
    fn fits(&self, who: Who, fact: &str, theirs: &str, ours: &str) -> bool {
        self.who.is_none_or(|only| only == who)
            && matches(self.fact, fact)
            && matches(self.bwrap, theirs)
            && matches(self.srt, ours)
    }
}

/// `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter(|&at| text.is_char_boundary(at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}
