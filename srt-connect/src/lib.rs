//! Connects stdin and stdout through a proxy to HOST PORT: the parts. See `main.rs` for their order.
//!
//! The modules that parse untrusted bytes do no I/O: [`destination`], [`proxy`], [`http`], [`socks`]. [`dial`] does
//! it until the tunnel is established, [`stream`] after that.

#![forbid(unsafe_code)]

pub mod copy;
pub mod credentials;
pub mod deadline;
pub mod destination;
pub mod dial;
pub mod handshake;
pub mod http;
pub mod options;
pub mod proxy;
pub mod socks;
