//! A system that refuses, for real: a seccomp filter, a sysctl or a mount between the kernel and the tool under test.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A system call, and the error number that it gets.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    call: libc::c_long,
    argument: u32,
    test: u32,
    bits: u32,
    errno: i32,
}

/// `call` fails with `errno`.
pub fn refuse(call: libc::c_long, errno: i32) -> Refusal {
    Refusal { call, argument: 0, test: 0, bits: 0, errno }
}

/// `call` fails with `errno` if its argument (0 is the first) has one of `bits`.
pub fn refuse_flag(call: libc::c_long, argument: u32, bits: libc::c_int, errno: i32) -> Refusal {
    Refusal { call, argument, test: libc::BPF_JSET, bits: bits as u32, errno }
}

/// `call` fails with `errno` if its argument (0 is the first) is `value`. 0 for `errno` is a lie: the call is not made,
/// and answers 0.
pub fn refuse_value(call: libc::c_long, argument: u32, value: libc::c_int, errno: i32) -> Refusal {
    Refusal { test: libc::BPF_JEQ, ..refuse_flag(call, argument, value, errno) }
}

/// The filter as the kernel takes it: one refusal after the other, then all is allowed. seccomp(2): of the bytes of an
/// argument the low half comes first on every machine that the tools run on.
pub fn filter(refusals: &[Refusal]) -> Vec<libc::sock_filter> {
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let jump = |test, k, jf| instruction(libc::BPF_JMP | test | libc::BPF_K, 0, jf, k);
    let give = |what| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let mut program = vec![];
    for refusal in refusals {
        let number = u32::try_from(refusal.call).expect("a system call number");
        let errno = give(libc::SECCOMP_RET_ERRNO | refusal.errno as u32);
        program.push(load(NUMBER));
        if refusal.bits == 0 {
            program.extend([jump(libc::BPF_JEQ, number, 1), errno]);
        } else {
            let holds = jump(refusal.test, refusal.bits, 1);
            program.extend([
                jump(libc::BPF_JEQ, number, 3),
                load(ARGUMENTS + 8 * refusal.argument),
                holds,
                errno,
            ]);
        }
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

/// Puts the refusals in front of `command`, without no_new_privs: the test is root.
pub fn in_front(command: &mut Command, refusals: &[Refusal]) {
    let mut program = filter(refusals);
    // SAFETY: prctl(2) is async-signal-safe, and the program lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let length = program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
            let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
            match libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// `command`, after a shell script that prepares what it sees: as `program` (and its options) lets the shell run.
fn prepared(program: &str, options: &[&str], script: &str, command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(options).args(["sh", "-euc", &format!("{script}\nexec \"$@\""), "sh"]);
    outer.arg(command.get_program()).args(command.get_args());
    outer.current_dir("/").stdin(std::process::Stdio::null());
    for (key, value) in command.get_envs() {
        outer.env(key, value.unwrap_or(OsStr::new("")));
    }
    outer
}

/// `command` in a mount namespace of its own, in which `script`, run by root, has changed the mounts.
pub fn with_mounts(script: &str, command: &Command) -> Command {
    prepared("unshare", &["--mount"], script, command)
}

/// `command` with the limit `name` (of /proc/sys/user) at 0, in a user namespace of its own with the same ids and no
/// capability but root's.
pub fn with_none_of(name: &str, command: &Command) -> Command {
    let root = !command.get_args().any(|word| word == "--reuid=1000");
    let script = format!("echo 0 >/proc/sys/user/{name}");
    if root {
        return prepared("unshare", &["--user", "--map-root-user"], &script, command);
    }
    // setpriv --reuid=1000 --regid=1000 --clear-groups -- TOOL ARGS: the same ids inside, where they can be had once.
    let mut words = command.get_args().skip_while(|word| *word != "--").skip(1);
    let mut tool = Command::new("setpriv");
    tool.args(["--inh-caps=-all", "--ambient-caps=-all", "--"])
        .arg(words.next().expect("a tool"))
        .args(words);
    command.get_envs().for_each(|(key, value)| {
        tool.env(key, value.unwrap_or_default());
    });
    let ids = ["--reuid=1000", "--regid=1000", "--clear-groups", "--"];
    let unshare = ["unshare", "--user", "--map-current-user", "--keep-caps"];
    prepared("setpriv", &[&ids[..], &unshare[..]].concat(), &script, &tool)
}
