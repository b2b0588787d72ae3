//! Reports of targets that cannot be reached, and where they go.

use crate::listener::Listener;
use crate::options::Words;
use srt_common::Error;
use srt_common::fds::write_all;
use srt_common::report::Report;
use srt_common::sys::fd::{pollfd, ppoll};
use srt_common::tool::Tool;
use std::io;
use std::time::Duration;

/// Reports that a client of `listener` was refused: to `--report-fd`, else to `--status-fd`, else to stderr. `error` is
/// that of the target's last address. Returns whether there was room for the report.
pub fn refused(tool: &Tool, words: &Words, listener: &Listener, lost: bool, error: &io::Error) -> bool {
    let fd = words.report_fd.or(tool.status).unwrap_or(2);
    // The reader may be slow, and clients must not wait for it. On a pipe POLLOUT means room for PIPE_BUF, 4096
    // bytes (pipe(7)).
    if !matches!(ppoll(&mut [pollfd(fd, libc::POLLOUT)], Some(Duration::ZERO)), Ok(1)) {
        return false;
    }
    if words.report_fd.is_some() {
        let report = Report { pair: listener.pair, lost, errno: error.raw_os_error().unwrap_or(0) };
        let _gone = write_all(fd, report.to_string().as_bytes());
        return true;
    }
    let (listen, connect) = (&listener.name, &listener.target.name);
    let message = Error::system(format!("{listen}: cannot connect to {connect}"), error);
    if tool.status.is_some() {
        let event = if lost { "relay-lost" } else { "connect-failed" };
        tool.tell(event, |event| {
            event.text("listen", listen).text("connect", connect).text("message", &message.message)
        });
    } else {
        let hint = "the program that made the socket is dead or made it anew: start srt-relay again";
        tool.warn(&if lost { message.hint(hint) } else { message });
    }
    true
}
