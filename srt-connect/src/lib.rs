//! stdin and stdout through a proxy to HOST PORT: the parts. `main.rs` is the story.
//!
//! What reads foreign bytes is pure and has no descriptor: [`destination`], [`proxy`], [`http`], [`socks`]. What acts is
//! [`dial`] before the tunnel stands and [`stream`] after it.

#![forbid(unsafe_code)]

pub mod credentials;
pub mod deadline;
pub mod destination;
pub mod dial;
pub mod handshake;
pub mod http;
pub mod options;
pub mod proxy;
pub mod socks;
pub mod stream;
