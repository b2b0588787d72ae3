//! A program planted by an earlier run, in PATH, in the working directory or beside nothing at all, is not taken for a
//! stage, and gets no capability.

use srt_tests::{Scratch, Who, both, path_with_tools, run, tool, tools};
use std::ffi::OsString;

const MARK: &str = "#!/bin/sh\necho PLANTED \"$(basename \"$0\")\"\n";

/// A directory that the last command could write, with programs named like the stages.
fn planted(who: Who) -> Scratch {
    let scratch = who.scratch();
    for name in ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "mytool"] {
        scratch.script(name, MARK);
    }
    scratch
}

fn first_in_path(scratch: &Scratch) -> OsString {
    let mut path = OsString::from(format!("{}:.:", scratch.text()));
    path.push(path_with_tools());
    path
}

both! {
    fn a_stage_named_without_a_slash_is_the_one_beside_the_running_tool(who) {
        let scratch = planted(who);
        let chain = ["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "srt-seccomp", "--"];
        let here = |command: &str| {
            let mut run_it = who.command(tool("srt-ns"));
            run_it.current_dir(scratch.path()).env("PATH", first_in_path(&scratch)).args(chain).arg(command);
            run(&mut run_it)
        };
        here("true").ok().says("");
        // Any other name is looked for in PATH, as ever.
        here("mytool").ok().says("PLANTED mytool");
        // Each stage alone.
        for (stage, words) in [
            ("srt-ns", vec!["--", "srt-seccomp", "--", "true"]),
            ("srt-seccomp", vec!["--", "srt-ns", "--help"]),
            ("srt-seccomp", vec!["--", "srt-mount", "--help"]),
        ] {
            let mut command = who.command(tool(stage));
            let ran = run(command.current_dir(scratch.path()).env("PATH", first_in_path(&scratch)).args(&words));
            assert!(!ran.out.contains("PLANTED"), "{stage} {words:?} {ran:#?}");
        }
    }

    fn a_stage_is_not_taken_from_the_new_root_where_the_command_could_write_it(who) {
        let scratch = planted(who);
        // The directory of the tools is covered by a writable one, in which the last run has left its own.
        let tools = tools().to_str().expect("UTF-8");
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        command.args(["--bind", scratch.text(), tools, "--", "srt-seccomp", "--", "sh", "-c", "grep Seccomp: /proc/self/status"]);
        run(&mut command).ok().says("Seccomp:\t2");
    }

    fn a_planted_stage_gets_no_capability_even_by_its_path(who) {
        let scratch = who.scratch();
        let fake = scratch.script("srt-mount", "#!/bin/sh\ngrep ^Cap /proc/self/status\n");
        let none = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                    CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000";
        let mut command = who.command("srt-ns");
        run(command.arg("--").arg(&fake)).ok().says(none);
        let mut command = who.command("srt-ns");
        run(command.current_dir(scratch.path()).args(["--", "./srt-mount"])).ok().says(none);
        // Control: asked for, it does get one.
        let mut command = who.command("srt-ns");
        let ran = run(command.args(["--keep-admin", "--"]).arg(&fake));
        assert!(ran.ok().out.contains("CapEff:\t0000000000200000"), "{ran:#?}");
    }

    fn without_a_path_programs_are_those_of_the_system(who) {
        let scratch = who.scratch();
        scratch.script("true", "#!/bin/sh\necho PLANTED\n");
        // Set by env(1): the test itself has to find setpriv.
        for (path, says) in [(vec!["-u", "PATH"], ""), (vec!["PATH=."], "PLANTED")] {
            let mut command = who.command("env");
            run(command.current_dir(scratch.path()).args(path).arg(tool("srt-ns")).args(["--", "true"])).ok().says(says);
        }
    }

    fn the_environment_loads_nothing_into_a_stage(who) {
        let scratch = who.scratch();
        // The loader of a dynamic program complains about what it cannot load: once for the command, never for a tool.
        let missing = scratch.join("evil.so");
        let mut command = srt_tests::chain(who, scratch.path());
        command.env("LD_PRELOAD", &missing).env("LD_AUDIT", &missing).env("GCONV_PATH", scratch.path());
        let ran = run(command.arg("true"));
        let control = run(who.command("true").env("LD_PRELOAD", &missing).env("LD_AUDIT", &missing));
        let complaints = |text: &str| text.matches("evil.so").count();
        // setpriv is dynamic, too.
        assert!(complaints(&control.err) > 0);
        assert_eq!(complaints(&ran.err), complaints(&control.err), "{ran:#?}\n{control:#?}");
    }

    fn path_words_that_are_not_directories_are_no_way_in(who) {
        let scratch = planted(who);
        for path in ["", ":", ".", "::/usr/bin", "/nonexistent:."] {
            // Set by env(1): the test itself has to find setpriv.
            let mut command = who.command("env");
            command.current_dir(scratch.path()).arg(format!("PATH={path}")).arg(tool("srt-ns"));
            run(command.args(["--", "srt-seccomp", "--", "/bin/true"])).ok().says("");
        }
    }

    fn a_root_that_the_command_may_write_names_no_stage(who) {
        // What runs from a mount of its own file has the path `/`, and without a procfs /proc/self/exe is anybody's.
        let scratch = planted(who);
        let (root, tools) = (scratch.text(), tools().to_str().expect("UTF-8"));
        scratch.script("evil/srt-seccomp", MARK);
        for directory in ["proc/self", "dev", "usr", "bin", "lib", "lib64", "tools", tools.trim_start_matches('/')] {
            scratch.dir(directory);
        }
        std::os::unix::fs::symlink("/evil/x", scratch.join("proc/self/exe")).expect("symlink");
        for (place, proc) in [("/tools", &["--proc", "/proc"][..]), (tools, &[])] {
            let mut command = who.command(tool("srt-ns"));
            command.current_dir("/").env("PATH", format!("/usr/bin:/bin:{place}"));
            command.args(["--", "srt-mount", "--bind", root, "/", "--dev", "/dev", "--ro-bind", tools, place]).args(proc);
            for directory in ["/usr", "/bin", "/lib", "/lib64"] {
                command.args(["--ro-bind-try", directory, directory]);
            }
            command.args(["--", "srt-seccomp", "--", "srt-seccomp", "--", "sh", "-c", "echo ran; ls /evil"]);
            run(&mut command).ok().says("ran\nsrt-seccomp");
        }
    }

    fn another_srt_mount_later_in_path_takes_nothing_from_the_one_beside(who) {
        let scratch = who.scratch();
        scratch.script("bin/srt-mount", "#!/bin/sh\necho another\n");
        let mut path = srt_tests::path_with_tools();
        path.push(":");
        path.push(scratch.join("bin"));
        let ran = run(who.command("srt-ns").env("PATH", path).args(["--", "srt-mount", "--ro-bind", "/", "/", "--", "echo", "ran"]));
        ran.ok().says("ran");
    }
}
