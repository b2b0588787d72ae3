//! The kernel's keyrings: what the caller keeps there stays the caller's.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::{Who, both, run, tool};
use std::ffi::OsString;

/// Runs attacks behind a program that has put a key into a new session keyring.
fn with_key(who: Who, sandbox: Option<&Sandbox>, attacks: &[&str]) -> String {
    let mut command = who.command(tool("attack"));
    command.arg("with-key");
    match sandbox {
        Some(sandbox) => {
            let words: Vec<OsString> = sandbox.words();
            command.arg(tool("srt-ns")).args(words).arg(INSIDE)
        }
        None => command.arg(tool("attack")),
    };
    run(command.arg("each").args(attacks)).ok().out.clone()
}

both! {
    fn a_key_of_the_caller_can_be_neither_found_nor_read(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        let attacks = ["key-by-name", "key-by-number", "request-key", "add-key"];
        let said = with_key(who, Some(&sandbox), &attacks);
        assert!(said.matches("refused: Operation not permitted").count() == 4, "{said}");
        // Without the filter the new session keyring still keeps it from being found.
        for options in [&[][..], &["--as-pid-1"], &["--wait-all"], &["--keep-session"]] {
            let sandbox = sandbox.clone().ns(options).seccomp(&["--allow", "keyring"]);
            let said = with_key(who, Some(&sandbox), &["key-by-name", "request-key"]);
            assert!(said.matches("refused").count() == 2 && !said.contains("secret of the caller"), "{options:?}: {said}");
        }
        let said = with_key(who, None, &attacks);
        assert!(said.matches("succeeded: secret of the caller").count() >= 3 && said.contains("add-key: succeeded"), "{said}");
    }
}
