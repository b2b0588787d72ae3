//! No privilege is left to the program, whatever the stage before left to us.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::{Ran, Who, both, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const NOTHING: &str = "0000000000000000";

/// `/proc/self/status` under srt-seccomp, started by `setpriv` with these options.
fn status(who: Who, setpriv: &[&str]) -> Ran {
    let mut command = match setpriv {
        [] => who.command("srt-seccomp"),
        _ => {
            let mut command = Command::new("setpriv");
            command.args(setpriv).arg("--").arg(srt_tests::tool("srt-seccomp"));
            command
        }
    };
    let ran = run(command.args(["--", "cat", "/proc/self/status"]));
    ran.ok();
    ran
}

fn field<'a>(ran: &'a Ran, name: &str) -> &'a str {
    let line = ran.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {ran:#?}")).trim()
}

#[track_caller]
fn nothing_is_left(ran: &Ran) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(ran, set), NOTHING, "{set}");
    }
    assert_eq!((field(ran, "NoNewPrivs"), field(ran, "Seccomp")), ("1", "2"));
}

both! {
    fn no_capability_is_left_in_any_set(who) {
        let ran = status(who, &[]);
        nothing_is_left(&ran);
        if who == Who::Root {
            assert_eq!(field(&ran, "CapBnd"), NOTHING);
        }
        // Control: the caller has them, and an ordinary user with ambient ones would keep them.
        let outside = run(Who::Root.command("cat").arg("/proc/self/status"));
        assert_ne!(field(&outside, "CapEff"), NOTHING);
    }

    fn ambient_and_inheritable_capabilities_go_too(who) {
        let uid = format!("--reuid={}", who.uid());
        let caps = ["--inh-caps=+net_admin,+sys_admin", "--ambient-caps=+net_admin,+sys_admin", &uid, "--clear-groups"];
        let control = run(Command::new("setpriv").args(caps).args(["--", "cat", "/proc/self/status"]));
        assert_ne!(field(&control, "CapAmb"), NOTHING, "control");
        nothing_is_left(&status(who, &caps));
    }

    fn without_cap_setpcap_the_bounding_set_stays_and_gives_nothing(who) {
        let uid = format!("--reuid={}", who.uid());
        let ran = status(who, &["--bounding-set=-setpcap", &uid]);
        nothing_is_left(&ran);
        assert_ne!(field(&ran, "CapBnd"), NOTHING);
    }

    fn uid_0_without_cap_sys_admin_can_have_the_filter(who) {
        let uid = format!("--reuid={}", who.uid());
        nothing_is_left(&status(who, &["--bounding-set=-sys_admin", &uid]));
        nothing_is_left(&status(who, &["--bounding-set=-all", &uid]));
    }

    fn a_setuid_program_gains_nothing(who) {
        let lab = who.scratch();
        let copy = lab.join("id");
        run(Who::Root.command("cp").arg("/usr/bin/id").arg(&copy)).ok();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("chmod");
        let uid = who.uid().to_string();
        run(who.command(&copy).arg("-u")).ok().says("0");
        run(who.command("srt-seccomp").arg("--").arg(&copy).arg("-u")).ok().says(&uid);
    }

    fn a_setuid_srt_seccomp_refuses_to_run(who) {
        let lab = who.scratch();
        let copy = lab.join("srt-seccomp-copy");
        run(Who::Root.command("cp").arg(srt_tests::tool("srt-seccomp")).arg(&copy)).ok();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("chmod");
        let ran = run(who.command(&copy).args(["--", "echo", "ran"]));
        if who == Who::Root {
            ran.ok(); // It is root that runs it: nothing is gained.
        } else {
            ran.code(125).one_clear_error("srt-seccomp").complains("refusing to run setuid").says("");
        }
    }

    fn the_filter_stays_over_fork_and_exec(who) {
        let python = "import socket; socket.socket(socket.AF_UNIX)";
        let script = format!("(sh -c 'exec python3 -c \"{python}\"') & wait $!");
        run(who.command("srt-seccomp").args(["--allow", "unix", "--", "sh", "-c", &script])).ok();
        let ran = run(who.command("srt-seccomp").args(["--", "sh", "-c", &script]));
        ran.code(1).complains("Operation not permitted");
        // One inside another can only forbid more.
        let inner = ["--", "srt-seccomp", "--allow", "unix", "--", "sh", "-c", &script];
        run(who.command("srt-seccomp").args(inner)).code(1).complains("Operation not permitted");
    }
}
