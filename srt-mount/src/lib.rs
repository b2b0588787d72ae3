//! The parts of `srt-mount`: a private file tree, built from a list of mounts.

#![forbid(unsafe_code)]

pub mod detached;
pub mod dev;
pub mod namespace;
pub mod ops;
pub mod options;
pub mod overlay;
pub mod pins;
pub mod proc;
pub mod program;
pub mod root;
pub mod source;
pub mod sysfs;
