//! What srt-mount says before it mounts anything.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::{both, run};

both! {
    fn help_and_version_are_printed_on_stdout(who) {
        assert!(run(who.command("srt-mount").arg("--help")).ok().out.contains("--ro-bind SRC DEST"));
        assert!(run(who.command("srt-mount").arg("--version")).ok().out.starts_with("srt-mount "));
    }
}
