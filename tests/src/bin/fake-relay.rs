//! Takes srt-relay's place beside a copied srt-ns and misbehaves, in the way that the published port says.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let ready = words.iter().position(|word| word == "--ready-fd").expect("--ready-fd") + 1;
    // SAFETY: srt-ns hands this descriptor over, and nobody else here uses it.
    let mut ready = unsafe { File::from_raw_fd(words[ready].parse().expect("a number")) };
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
        other => panic!("{other:?}"),
    }
    drop(ready);
    std::thread::sleep(forever);
    ExitCode::SUCCESS
}
