//! What people put between socat and the command today: `load-filter FILE PROGRAM [ARGS]` loads the raw BPF in FILE as
//! a seccomp filter and becomes PROGRAM. For the benchmark.

use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), Some(program)) = (args.next(), args.next()) else {
        panic!("load-filter FILE PROGRAM [ARGS]")
    };
    let mut filter = std::fs::read(file).expect("the filter");
    let program_of = libc::sock_fprog {
        // struct sock_filter is eight bytes.
        len: (filter.len() / 8).try_into().expect("short"),
        filter: filter.as_mut_ptr().cast(),
    };
    // SAFETY: integers; and a sock_fprog that outlives the call. The kernel copies what it points to, at any alignment.
    unsafe {
        let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none),
            0,
            "{}",
            Error::last_os_error()
        );
        let filtered = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program_of);
        assert_eq!(filtered, 0, "{}", Error::last_os_error());
    }
    panic!("{}", Command::new(program).args(args).exec());
}
