//! What at least two of the srt tools use, without any policy: the error format, exit status, the split at `--`,
//! descriptors, exec, path walks, sockets, the drop of privileges, the creation of a file system, the messages of a
//! start.

#![deny(unsafe_code)]

pub mod args;
pub mod error;
pub mod exec;
pub mod fds;
pub mod filesystem;
pub mod handover;
pub mod interpreter;
pub mod links;
pub mod mountinfo;
pub mod parent;
pub mod privileges;
pub mod report;
pub mod status;
pub mod sys;
pub mod tcp_address;
pub mod token;
pub mod tool;
pub mod unix_listener;
pub mod unix_socket;

pub use error::{Context, Error, Kind, Result};
