//! What needs no namespace: help, version, wrong usage.

use srt_tests::{Who, both, run};

both! {
    fn help_and_version_go_to_stdout(who) {
        let help = run(who.command("srt-ns").arg("--help"));
        assert!(help.ok().out.contains("--share") && help.err.is_empty(), "{help:#?}");
        let version = run(who.command("srt-ns").arg("--version"));
        version.ok().says(&format!("srt-ns {}", env!("CARGO_PKG_VERSION")));
    }

    fn wrong_usage_is_125_and_one_clear_error(who) {
        for words in [
            &["true"][..],
            &["--"],
            &["--nope", "--", "true"],
            &["--share", "nett", "--", "true"],
            &["--status-fd", "99", "--", "true"],
            &["--keep-fd", "99", "--", "true"],
            &["--keep-fd", "-1", "--", "true"],
        ] {
            run(who.command("srt-ns").args(words)).code(125).one_clear_error("srt-ns");
        }
    }

    fn a_missing_separator_gets_a_hint(who) {
        run(who.command("srt-ns").arg("true")).code(125).complains("hint: write srt-ns [options] -- PROGRAM");
    }
}

#[test]
fn help_of_the_program_is_the_programs_own() {
    run(Who::Root.command("srt-ns").args(["--", "sh", "-c", "echo \"$1\"", "sh", "--help"]))
        .ok()
        .says("--help");
}
