//! Connects as the first thing it does: `connect-at-once PORT=WORD…` expects WORD of 127.0.0.1:PORT and [::1]:PORT.
//! Static, so that nothing comes before it.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::ExitCode;

fn main() -> ExitCode {
    for argument in std::env::args().skip(1) {
        let (port, word) = argument.split_once('=').expect("PORT=WORD");
        let port: u16 = port.parse().expect("a port");
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let mut said = String::new();
            let heard = TcpStream::connect((address, port)).and_then(|mut way| way.read_to_string(&mut said));
            if heard.is_err() || said != word {
                eprintln!("{address} {port}: {heard:?}, {said:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
