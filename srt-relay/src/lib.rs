//! The parts of `srt-relay`: the command line, the sockets that it names, and the loop that moves bytes between them.
//! See `main.rs` for the order in which they are used.

#![forbid(unsafe_code)]

pub mod address;
pub mod attempt;
pub mod connection;
pub mod life;
pub mod listener;
pub mod lockdown;
pub mod options;
pub mod relay;
pub mod stock;
pub mod target;
