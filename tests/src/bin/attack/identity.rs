//! Who the attacker is, and who it would like to be.

use crate::sys::{c, sys};
use crate::{Outcome, number};
use std::io;
use std::ptr::null;

pub fn attack(words: &[&str]) -> Option<Outcome> {
    let done = |result: io::Result<i64>| result.map(|_| "done".to_owned());
    let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
    Some(match *words {
        // Any capability in any set of /proc/self/status.
        ["capabilities"] => {
            let held = held();
            if held.is_empty() { refused() } else { Ok(held.join(" ")) }
        }
        ["effective-capabilities"] => {
            let held: Vec<_> = held().into_iter().filter(|line| line.starts_with("CapEff")).collect();
            if held.is_empty() { refused() } else { Ok(held.join(" ")) }
        }
        // An euid that is not the one that was told: a setuid program.
        ["euid-other-than", uid] => {
            // SAFETY: no argument, no failure.
            let euid = unsafe { libc::geteuid() };
            if u64::from(euid) == number(uid) { refused() } else { Ok(format!("euid {euid}")) }
        }
        ["may-gain-privileges"] => match sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) {
            Ok(0) => Ok("no_new_privs is not set".into()),
            _ => refused(),
        },
        ["capset"] => {
            let (header, data) = ([0x2008_0522_u32, 0], [1_u32 << 21, 1 << 21, 1 << 21, 0, 0, 0]);
            done(sys!(libc::SYS_capset, header.as_ptr(), data.as_ptr()))
        }
        ["ambient"] => {
            done(sys!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 21, 0, 0))
        }
        ["setuid", uid] => done(sys!(libc::SYS_setresuid, number(uid), number(uid), number(uid))),
        ["setgroups"] => {
            let groups = [0_u32];
            done(sys!(libc::SYS_setgroups, 1, groups.as_ptr()))
        }
        // What root may, each with arguments that change nothing.
        ["sethostname"] => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
            done(sys!(libc::SYS_sethostname, name.as_ptr(), name.trim_end().len()))
        }
        ["nice"] => done(sys!(libc::SYS_setpriority, 0, 0, -1)),
        ["real-time"] => {
            let priority = 1_i32;
            done(sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority))
        }
        ["raise-limit"] => {
            let limits = [1_u64 << 20, 1 << 29];
            done(sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limits.as_ptr(), null::<u8>()))
        }
        ["bpf"] => {
            // BPF_MAP_CREATE of a hash: privileged where unprivileged_bpf_disabled says so.
            let attr = [1_u32, 4, 4, 1, 0, 0, 0, 0];
            done(sys!(libc::SYS_bpf, 0, attr.as_ptr(), size_of_val(&attr)))
        }
        ["syslog"] => done(sys!(libc::SYS_syslog, 10, 0, 0)),
        ["userfaultfd-kernel"] => done(sys!(libc::SYS_userfaultfd, 0)),
        ["fanotify-permission"] => done(sys!(libc::SYS_fanotify_init, 4 /* FAN_CLASS_CONTENT */, 0)),
        ["swapoff"] => match sys!(libc::SYS_swapoff, c"/nonexistent") {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok("allowed".into()),
            other => done(other),
        },
        ["delete-module"] => match sys!(libc::SYS_delete_module, c"srt_no_such_module", libc::O_NONBLOCK) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok("allowed".into()),
            other => done(other),
        },
        // Gives FILE the capability CAP_DAC_OVERRIDE, effective: struct vfs_cap_data, revision 2.
        ["set-file-capability", file] => {
            let data = [0x0200_0001_u32, 2, 0, 0, 0];
            let (file, size) = (c(file), size_of_val(&data));
            done(sys!(libc::SYS_setxattr, file.as_c_str(), c"security.capability", data.as_ptr(), size, 0))
        }
        _ => return None,
    })
}

/// The lines of /proc/self/status that tell of a capability.
fn held() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let lines = status.lines().filter(|line| line.starts_with("Cap"));
    let sets: Vec<_> = lines.map(|line| line.replace('\t', "")).collect();
    assert_eq!(sets.len(), 5, "{status}");
    sets.into_iter().filter(|set| !set.ends_with(":0000000000000000")).collect()
}
