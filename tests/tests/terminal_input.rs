//! Promise 5: nothing is typed into the caller's terminal.

use srt_tests::attacks::{INSIDE, Sandbox};
use srt_tests::{Ran, Who, both, run, tool};

/// TIOCSTI, as it is and with a high half, which the kernel drops.
const TIOCSTI: [&str; 3] = ["0x5412", "0x100005412", "0xffffffff00005412"];
const TIOCLINUX: [&str; 2] = ["0x541c", "0xdead0000541c"];

/// Runs a sandbox, or the attack itself, on a terminal in whose session somebody else reads afterwards; what was
/// typed is at the end of the output.
fn on_a_terminal(who: Who, sandbox: Option<&Sandbox>, attack: &str) -> Ran {
    let mut command = who.command(tool("attack"));
    command.arg("on-a-terminal");
    match sandbox {
        Some(sandbox) => command.arg(tool("srt-ns")).args(sandbox.words()).arg(INSIDE),
        None => command.arg(tool("attack")),
    };
    run(command.args(attack.split(' ')))
}

fn typed(ran: &Ran) -> bool {
    assert!(ran.out.contains("typed"), "{ran:#?}");
    !ran.out.contains("typed \"\"")
}

fn legacy_tiocsti() -> bool {
    std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").map_or(true, |text| text.trim() == "1")
}

both! {
    fn tiocsti_types_nothing_into_the_callers_terminal(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        for sandbox in [sandbox.clone(), sandbox.clone().ns(&["--keep-session"])] {
            for request in TIOCSTI {
                for attack in ["inject 0", "inject 1", "inject-dev-tty", "inject-reopened 0", "steal 0"] {
                    let ran = on_a_terminal(who, Some(&sandbox), &format!("{attack} {request}"));
                    assert!(!typed(&ran) && ran.out.contains("refused"), "{attack} {request}: {ran:#?}");
                }
            }
        }
        // Either protection is enough: the session without the filter …
        let open = sandbox.seccomp(&["--allow", "tty-inject"]);
        for attack in ["inject 0", "inject-dev-tty"] {
            let ran = on_a_terminal(who, Some(&open), &format!("{attack} 0x5412"));
            assert!(!typed(&ran) && ran.out.contains("refused"), "{ran:#?}");
        }
        if !legacy_tiocsti() && who == Who::User {
            srt_tests::skip!("the sysctl dev.tty.legacy_tiocsti is 0: TIOCSTI works nowhere");
        }
        // … and without both it works.
        for request in TIOCSTI {
            assert!(typed(&on_a_terminal(who, None, &format!("inject 0 {request}"))));
        }
        if legacy_tiocsti() {
            let ran = on_a_terminal(who, Some(&open.ns(&["--keep-session"])), "inject 0 0x5412");
            assert!(typed(&ran), "{ran:#?}");
        }
    }

    fn tioclinux_pastes_nothing(who) {
        let work = who.scratch();
        for request in TIOCLINUX {
            // A pseudoterminal does not know the request (ENOTTY): that it is EPERM inside is the filter's doing.
            let attack = format!("paste 0 {request}");
            let ran = on_a_terminal(who, Some(&Sandbox::new(who, work.path()).ns(&["--keep-session"])), &attack);
            assert!(ran.out.contains("Operation not permitted"), "{ran:#?}");
            let ran = on_a_terminal(who, None, &attack);
            assert!(ran.out.contains("(os error 25)") || ran.out.contains("(os error 22)"), "{ran:#?}");
        }
    }

    fn no_serial_line_receives_what_it_sends_or_changes_its_divisor(who) {
        let work = who.scratch();
        // A pseudoterminal knows none of them: TIOCMBIS, TIOCMBIC, TIOCMSET, TIOCSRS485, TIOCSSERIAL.
        for request in ["0x5416", "0x5417", "0x5418", "0xdead00005418", "0x542f", "0x541f"] {
            let attack = format!("ioctl 0 {request} 0");
            let ran = on_a_terminal(who, Some(&Sandbox::new(who, work.path())), &attack);
            assert!(ran.out.contains("Operation not permitted"), "{ran:#?}");
            let ran = on_a_terminal(who, None, &attack);
            // TIOCSSERIAL reads its argument first, here none.
            let known = [22, 25, 14].map(|errno| format!("(os error {errno})"));
            assert!(known.iter().any(|errno| ran.out.contains(errno)), "{ran:#?}");
        }
    }

    fn the_callers_terminal_is_not_the_commands(who) {
        let work = who.scratch();
        let sandbox = Sandbox::new(who, work.path());
        // /dev/tty opens nothing in a session without a terminal.
        let ran = on_a_terminal(who, Some(&sandbox), "open-write /dev/tty");
        assert!(ran.out.contains("refused: No such device or address"), "{ran:#?}");
        assert!(on_a_terminal(who, None, "open-write /dev/tty").out.contains("succeeded"));
        // The foreground of a terminal that is not one's own.
        let ran = on_a_terminal(who, Some(&sandbox), "foreground 0 2");
        assert!(ran.out.contains("refused"), "{ran:#?}");
        // Ctrl-C and hang-up reach the caller's groups only through the supervisor: no group of the caller's has a
        // number inside. (1 is srt-init's own, which what a terminal sends does nothing to.)
        for group in 3..8 {
            let attack = format!("foreground 0 {group}");
            let ran = on_a_terminal(who, Some(&sandbox.clone().ns(&["--keep-session"])), &attack);
            assert!(ran.out.contains("refused"), "{ran:#?}");
        }
    }

    fn no_other_terminal_of_the_host_is_there(who) {
        let work = who.scratch();
        // The outer terminal has a number on the host; inside there is another devpts.
        let ran = on_a_terminal(who, Some(&Sandbox::new(who, work.path())), "list /dev/pts");
        assert!(ran.out.contains("succeeded: ptmx\n"), "{ran:#?}");
        let ran = on_a_terminal(who, None, "list /dev/pts");
        assert!(ran.out.contains("0") || ran.out.contains("1"), "{ran:#?}");
    }
}
