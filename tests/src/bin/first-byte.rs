//! A client that is there first: `first-byte PORT` connects to 127.0.0.1:PORT until it gets a byte, and prints how often
//! it tried and when the byte came, in nanoseconds of CLOCK_MONOTONIC. For the benchmark.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("first-byte PORT");
    for tries in 1..10_000 {
        let mut byte = [0];
        let came =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut way| way.read_exact(&mut byte));
        if came.is_ok() {
            println!("{tries} {}", srt_tests::monotonic_nanos());
            return;
        }
        // As eager as a client can be without taking the time from whom it waits for.
        std::thread::sleep(Duration::from_micros(200));
    }
    panic!("no byte on port {port}");
}
