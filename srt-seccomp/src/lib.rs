//! The parts of srt-seccomp: the command line, the rules, the filter that is built from them, the user's filters,
//! Landlock. See `main.rs` for the order in which they are used.

#![forbid(unsafe_code)]

pub mod bpf;
pub mod filter;
mod landlock;
pub mod options;
pub mod rules;
pub mod syscalls;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter knows the system call numbers of x86_64 and aarch64 only");
