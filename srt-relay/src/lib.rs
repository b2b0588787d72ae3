//! The parts of `srt-relay`: the command line, the sockets that it names, and the loop that moves bytes between them.
//! See `main.rs` for the order in which they are used.

#![forbid(unsafe_code)]

pub mod address;
pub mod attempt;
pub mod connection;
pub mod listener;
pub mod lockdown;
pub mod options;
pub mod pool;
pub mod relay;
pub mod shutdown;
pub mod target;
