//! A text that makes a name unique.

use crate::sys::process::getpid;
use std::time::{SystemTime, UNIX_EPOCH};

/// The pid of this process, which has one thread, and the time in nanoseconds.
pub fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", getpid(), now.as_nanos())
}
