//! What at least two of the srt tools use, without any policy: the error format, exit status, the split at `--`,
//! descriptors, exec, path walks, sockets, the drop of privileges, the creation of a file system, the messages of a
//! start.

#![deny(unsafe_code)]

pub mod args;
pub mod error;
pub mod events;
pub mod exec;
pub mod fds;
pub mod filesystem;
pub mod interpreter;
pub mod lifetime;
pub mod mountinfo;
pub mod path_walk;
pub mod privileges;
pub mod procfs;
pub mod relay_report;
pub mod startup;
pub mod sys;
pub mod tcp_address;
pub mod tool;
pub mod unique_name;
pub mod unix_listener;
pub mod unix_socket;

pub use error::{Context, Error, Kind, Result};
