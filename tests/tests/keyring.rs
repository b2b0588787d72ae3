//! The kernel's keyrings: what the caller keeps there stays the caller's.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::host::LoopMount;
use srt_tests::{Scratch, Who, both, run, tool};
use std::ffi::OsString;
use std::path::PathBuf;

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

/// An encrypted directory of this user's. `None`: not on this machine.
fn encrypted(who: Who, scratch: &Scratch) -> Option<(LoopMount, PathBuf)> {
    let mounted = LoopMount::new(scratch, 16, &["mkfs.ext4", "-q", "-O", "encrypt"], "loop")?;
    let directory = mounted.path().join("private");
    std::fs::create_dir(&directory).expect("a directory");
    std::os::unix::fs::chown(&directory, Some(who.uid()), Some(who.uid())).expect("chown");
    let encrypts = run(who.command(tool("attack")).arg("encrypt").arg(&directory));
    (encrypts.code == Some(0)).then_some((mounted, directory))
}

both! {
    fn the_keys_of_an_encrypted_file_system_cannot_be_taken_away(who) {
        let scratch = who.scratch_in("/var/tmp");
        let Some((_mounted, directory)) = encrypted(who, &scratch) else {
            srt_tests::skip!("no encrypted file system can be mounted here");
        };
        let file = directory.join("file");
        run(who.command("sh").args(["-c", "echo secret >\"$1\"", "sh"]).arg(&file)).ok();
        let read = || run(who.command("cat").arg(&file)).code == Some(0);
        let directory = directory.to_str().expect("UTF-8");
        let attacks = [format!("lock {directory}")];
        // All that the attack sees is read-only.
        Sandbox::bare(who).each(&attacks).all_were_refused_with(libc::EPERM);
        assert!(read());
        Sandbox::bare(who).seccomp(&["--allow", "keyring"]).each(&attacks).all_got_through();
        assert!(!read(), "the control");
    }

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
