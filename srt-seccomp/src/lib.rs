//! The parts of srt-seccomp: the command line, the rules, the filter made of them, filters that the user
//! brings. `main.rs` tells in which order they act.

#![deny(unsafe_code)]

pub mod cli;
pub mod filter;
pub mod load;
pub mod rules;
pub mod sys;
pub mod syscalls;
