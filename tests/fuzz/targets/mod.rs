//! What is fuzzed: the parts that read bytes of others. A function each, which panics where a promise is broken; the seeds
//! of each are in `seeds/NAME`.

mod connect_http_answer;
mod connect_proxy;
mod connect_socks_answer;
mod connect_target;
mod mount_args;
mod mount_options;
mod mountinfo;
mod ns_options;
mod relay_options;
mod seccomp_load;
mod segments;

/// A name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("connect_http_answer", connect_http_answer::check),
    ("connect_proxy", connect_proxy::check),
    ("connect_socks_answer", connect_socks_answer::check),
    ("connect_target", connect_target::check),
    ("mount_args", mount_args::check),
    ("mount_options", mount_options::check),
    ("mountinfo", mountinfo::check),
    ("ns_options", ns_options::check),
    ("relay_options", relay_options::check),
    ("seccomp_load", seccomp_load::check),
];
