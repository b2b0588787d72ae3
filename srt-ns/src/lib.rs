//! The parts of srt-ns. `main.rs` is the story that uses them.

#![deny(unsafe_code)]

pub mod beside;
pub mod caller;
pub mod command;
pub mod companion;
pub mod empty_root;
pub mod guardian;
pub mod init;
pub mod lifeline;
pub mod namespaces;
pub mod options;
pub mod pipe;
pub mod relays;
pub mod sidecar;
pub mod supervisor;
pub mod sys;
pub mod terminal;
