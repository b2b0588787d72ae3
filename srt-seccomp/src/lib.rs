//! The parts of srt-seccomp: the command line, the rules, the filter made of them, filters that the user
//! brings, Landlock. `main.rs` tells in which order they act.

#![forbid(unsafe_code)]

pub mod cli;
pub mod filter;
pub mod landlock;
pub mod load;
pub mod rules;
pub mod syscalls;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter knows the system call numbers of x86_64 and aarch64 only");
