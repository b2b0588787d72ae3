//! The modules of srt-ns. `main.rs` shows how they are used.

#![forbid(unsafe_code)]

pub mod check;
pub mod child;
pub mod cleanup;
pub mod command;
pub mod empty_root;
pub mod helpers;
pub mod init;
pub mod namespaces;
pub mod options;
pub mod placeholder;
pub mod relay;
pub mod signals;
pub mod supervisor;
pub mod terminal;
pub mod watchdog;
