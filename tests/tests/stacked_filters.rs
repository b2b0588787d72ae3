//! `--load` more than once: a filter that forbids seccomp(2) but not prctl(2) may be followed by another, as under
//! bubblewrap.

use srt_tests::raw_filters::denying;
use srt_tests::{Scratch, Who, both, run};
use std::path::PathBuf;
use std::process::Command;

/// An allow-list: what these programs need, prctl(2) among it, but neither seccomp(2) nor sethostname(2).
fn allow_list(scratch: &Scratch, name: &str) -> PathBuf {
    denying(scratch, name, &[libc::SYS_seccomp, libc::SYS_sethostname, libc::SYS_bpf])
}

fn loading(who: Who, filters: &[&PathBuf]) -> Command {
    let mut command = who.command("srt-seccomp");
    for filter in filters {
        command.arg("--load").arg(filter);
    }
    command.arg("--");
    command
}

/// Which system calls are refused with EPERM, by number, in a program of any kind.
const PROBE: &str = "import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(number):
    ctypes.set_errno(0)
    libc.syscall(int(number), -1, -1, -1, -1, -1)
    return 'refused' if ctypes.get_errno() == 1 else 'answered'
print(*[refused(number) for number in sys.argv[1:]])
";

fn probe(mut command: Command, calls: &[libc::c_long]) -> String {
    command.args(["/usr/bin/python3", "-c", PROBE]).args(calls.iter().map(ToString::to_string));
    run(&mut command).ok().out.trim().to_owned()
}

both! {
    fn a_filter_that_forbids_seccomp_but_not_prctl_is_followed_by_another(who) {
        let scratch = who.scratch();
        let first = allow_list(&scratch, "first");
        let second = denying(&scratch, "second", &[libc::SYS_splice]);
        let third = denying(&scratch, "third", &[libc::SYS_tee]);
        // Calls that fail with something else than EPERM when they are answered, for bad descriptors.
        let calls = [libc::SYS_seccomp, libc::SYS_splice, libc::SYS_tee, libc::SYS_vmsplice];
        assert_eq!(probe(loading(who, &[&first]), &calls), "refused answered answered answered");
        assert_eq!(probe(loading(who, &[&first, &second]), &calls), "refused refused answered answered");
        assert_eq!(probe(loading(who, &[&first, &second, &third]), &calls), "refused refused refused answered");
        assert_eq!(probe(loading(who, &[&second, &first, &first]), &calls), "refused refused answered answered");
    }

    fn descriptors_and_files_stack_as_well(who) {
        let scratch = who.scratch();
        let first = allow_list(&scratch, "first");
        let second = denying(&scratch, "second", &[libc::SYS_splice]);
        let mut command = who.command("srt-seccomp");
        command.arg("--load").arg(&first).args(["--load-fd", "209", "--"]);
        let file = std::fs::File::open(&second).expect("open");
        srt_tests::pass_fd(&mut command, std::os::fd::AsRawFd::as_raw_fd(&file), 209);
        assert_eq!(probe(command, &[libc::SYS_seccomp, libc::SYS_splice]), "refused refused");
    }

    fn a_filter_that_forbids_prctl_is_the_last_or_nothing_runs(who) {
        let scratch = who.scratch();
        let first = denying(&scratch, "first", &[libc::SYS_splice]);
        let last = denying(&scratch, "last", &[libc::SYS_prctl, libc::SYS_seccomp]);
        assert_eq!(probe(loading(who, &[&first, &last]), &[libc::SYS_prctl, libc::SYS_splice]), "refused refused");
        let ran = run(loading(who, &[&last, &first]).args(["echo", "it ran"]));
        ran.code(125).says("").one_clear_error("srt-seccomp");
    }

    fn bubblewrap_stacks_them_in_the_same_way(who) {
        // The control.
        if !srt_tests::has("bwrap") {
            srt_tests::skip!("no bwrap");
        }
        let scratch = who.scratch();
        let first = allow_list(&scratch, "first");
        let second = denying(&scratch, "second", &[libc::SYS_splice]);
        let mut command = who.command("sh");
        let script = "exec bwrap --ro-bind / / --add-seccomp-fd 3 --add-seccomp-fd 4 -- \"$@\" 3<\"$FIRST\" 4<\"$SECOND\"";
        command.env("FIRST", first).env("SECOND", second).args(["-c", script, "sh"]);
        assert_eq!(probe(command, &[libc::SYS_seccomp, libc::SYS_splice, libc::SYS_tee]), "refused refused answered");
    }
}
