//! `--deny setid`: a command that runs as the host's root leaves no file with the set-user-ID or set-group-ID bit, by any
//! system call that takes a mode; without the bits all of them work.

use srt_tests::attacks::{Sandbox, outside};
use srt_tests::{Scratch, Who, both, in_chain, run};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Those that change a mode, and those that make a file. fchmodat2 is not on kernels before 6.6.
const CHANGE: [&str; 4] = ["chmod", "fchmod", "fchmodat", "? fchmodat2"];
const MAKE: [&str; 6] = ["mknod", "mknodat", "creat", "open", "openat", "openat2"];

/// S_ISUID, S_ISGID, both, with ordinary bits and with none, and with garbage that the kernel drops (umode_t is 16 bits).
const MODES: [&str; 6] = ["0x9ed", "0x5ed", "0xded", "0x800", "0x400", "0xffff0000000009ed"];

/// The words of each attack, with files of the user's for it in `work`.
fn attacks(scratch: &Scratch, modes: &[&str], without: &[&str]) -> Vec<String> {
    scratch.dir("work");
    let mut attacks = vec![];
    for (number, mode) in modes.iter().enumerate() {
        for call in CHANGE.iter().chain(&MAKE).filter(|call| !without.contains(call)) {
            let (probe, call) = call.strip_prefix("? ").map_or(("", *call), |call| ("? ", call));
            let name = format!("work/{call}-{number}");
            let path = match MAKE.contains(&call) {
                true => scratch.join(&name),
                false => scratch.file(&name, ""),
            };
            attacks.push(format!("{probe}setid {call} {} {mode}", path.display()));
        }
    }
    attacks
}

/// Who of the files in `work` has one of the bits.
fn with_bits(scratch: &Scratch) -> Vec<String> {
    let entries = fs::read_dir(scratch.join("work")).expect("work").map(|entry| entry.expect("entry"));
    entries
        .filter(|entry| entry.metadata().expect("stat").mode() & 0o6000 != 0)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn sandbox(who: Who, scratch: &Scratch) -> Sandbox {
    Sandbox::new(who, &scratch.dir("work"))
}

both! {
    fn no_call_leaves_a_file_with_a_setid_bit(who) {
        let scratch = who.scratch();
        let all = attacks(&scratch, &MODES, &["openat2"]);
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&all).all_were_refused();
        assert_eq!(with_bits(&scratch), [""; 0]);
        // fchmodat2(2) that an older kernel does not know is ENOSYS with or without the rule.
        let known: Vec<_> = all.iter().filter(|attack| !attack.starts_with("? ")).collect();
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&known).all_were_refused_with(libc::EPERM);
        // What openat2(2) is asked for lies in memory, where no filter can look: programs go on with openat(2).
        let paths = [format!("setid openat2 {} 0x1a4", scratch.join("work/new").display())];
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&paths).all_were_refused_with(libc::ENOSYS);
        assert_eq!(with_bits(&scratch), [""; 0]);
    }

    fn an_unnamed_file_gets_no_setid_bit_either(who) {
        let scratch = who.scratch();
        let attack = ["setid openat-tmpfile unused 0x9ed"];
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&attack).all_were_refused_with(libc::EPERM);
        sandbox(who, &scratch).each(&attack).all_got_through();
    }

    fn without_the_rule_they_are_left(who) {
        // The control, outside and inside: the rule is one on request.
        let scratch = who.scratch();
        outside(who, &attacks(&scratch, &MODES[..1], &[])).all_got_through();
        assert!(with_bits(&scratch).len() >= 9, "{:?}", with_bits(&scratch));
        let scratch = who.scratch();
        sandbox(who, &scratch).each(&attacks(&scratch, &MODES[..1], &[])).all_got_through();
        assert!(with_bits(&scratch).len() >= 9, "{:?}", with_bits(&scratch));
    }

    fn modes_without_the_bits_are_no_business_of_the_rule(who) {
        let scratch = who.scratch();
        let ordinary = attacks(&scratch, &["0x1ed", "0x180", "0x3ff"], &["openat2"]);
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&ordinary).all_got_through();
        // Where no file is made the mode says nothing, and may be garbage (open(2)).
        let file = scratch.file("work/file", "");
        let reads = [format!("setid read {} 0x9ed", file.display())];
        sandbox(who, &scratch).seccomp(&["--deny", "setid"]).each(&reads).all_got_through();
        let script = "umask 022; touch a; chmod 644 a; mkdir d; chmod 1777 d; cp a b; tar cf t a b; tar xf t; install -m 755 a c; \
                      /usr/bin/python3 -c 'open(\"p\", \"w\").write(\"x\")'; ls";
        let mut command = sandbox(who, &scratch).seccomp(&["--deny", "setid"]).command(&["sh", "-ec", script]);
        assert!(run(&mut command).ok().out.contains("p\n"));
    }

    fn the_rule_is_listed_and_not_in_force_unasked(who) {
        let listed = run(who.command("srt-seccomp").arg("--list"));
        let line = listed.ok().out.lines().find(|line| line.starts_with("setid")).unwrap_or_else(|| panic!("{listed:#?}"));
        assert!(line.contains("chmod") && line.contains("openat2"), "{line}");
        let scratch = who.scratch();
        in_chain(who, &scratch.dir("work"), "touch file; chmod u+s file").ok();
    }
}
