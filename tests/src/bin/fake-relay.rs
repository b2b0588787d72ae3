//! Takes srt-relay's place beside a copied srt-ns and misbehaves, in the way that the published port says.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

/// The pipe does not block.
fn while_there_is_room(mut write: impl FnMut() -> std::io::Result<usize>) {
    while write().is_err() {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let given = |option: &str| {
        let at = words.iter().position(|word| word == option).expect("the option") + 1;
        // SAFETY: srt-ns hands this descriptor over, and nobody else here uses it.
        unsafe { File::from_raw_fd(words[at].parse().expect("a number")) }
    };
    let (mut ready, mut report) = (given("--ready-fd"), given("--report-fd"));
    let forever = Duration::from_secs(3600);
    match words.last().and_then(|word| word.rsplit_once(':')).map(|(_, port)| port) {
        Some("1001") => return ExitCode::from(3),
        Some("1002") => std::thread::sleep(forever),
        Some("1003") => ready.write_all(b"READY?\n").expect("write"),
        Some("1004") => {
            // As long as a sidecar needs that ends at once.
            std::thread::sleep(Duration::from_secs(1));
            ready.write_all(b"ready\n").expect("write");
        }
        Some("1005") => {
            ready.write_all(b"ready\n").expect("write");
            // A line of 32 MiB, and one that is a report.
            (0..8192).for_each(|_| while_there_is_room(|| report.write(&[b'x'; 4096])));
            while_there_is_room(|| report.write(b"\nlost 0 111\n"));
        }
        Some("1006") => {
            let listener = words.iter().rev().nth(1).and_then(|word| word.strip_prefix("fd:"));
            let number = listener.and_then(|number| number.parse().ok()).expect("the socket's number");
            // SAFETY: srt-ns hands this descriptor over, and nobody else here uses it.
            let listener = unsafe { UnixListener::from_raw_fd(number) };
            // It does not block.
            while listener.accept().is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            ready.write_all(b"ready\n").expect("write");
        }
        other => panic!("{other:?}"),
    }
    drop(ready);
    std::thread::sleep(forever);
    ExitCode::SUCCESS
}
