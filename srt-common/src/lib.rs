//! What at least two of the srt tools share, and that carries no policy: how an error looks, exit status, the
//! split at `--`, descriptors, exec, the way along a path, the dropping of privileges, the making of a file system.
//! Mounts, namespaces, BPF and proxies stay in their tool.

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
