//! srt-connect beside the other programs that go through an HTTP proxy for ssh: from before the start to the first
//! byte of the server's greeting.

use crate::relays::{find, free_port};
use crate::report::{Bench, Result, Row, Target};
use crate::streams::{Duplex, Listener};
use crate::timing::{Contender, Turns, interleave};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const GREETING: &[u8] = b"SSH-2.0-benchmark\r\n";

/// An address, so that nobody asks a name server.
const SERVER: [&str; 2] = ["127.0.0.1", "22"];

pub fn run(bench: &mut Bench) -> Result<()> {
    let port = free_port()?;
    let proxy = Listener::tcp(port)?;
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(client) = proxy.accept_whenever() {
                // Who does not get its greeting reports that itself.
                let _gone = serve(client);
            }
        });
        let result = measure(bench, port);
        proxy.shut_down();
        result
    });
    let row = result?;
    let best = row.figures.iter().skip(1).min_by(|a, b| a.value.median.total_cmp(&b.value.median));
    let name = best.and_then(|best| PEERS.iter().find(|peer| best.who.starts_with(**peer)));
    bench.add(match name {
        Some(name) => row.target(Target::at_most(0.85, name)),
        None => row,
    });
    Ok(())
}

const PEERS: [&str; 3] = ["nc -X connect", "ncat --proxy", "socat PROXY:"];

fn measure(bench: &mut Bench, port: u16) -> Result<Row> {
    let proxy = format!("127.0.0.1:{port}");
    let [host, server_port] = SERVER.map(str::to_owned);
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let mut all = vec![(
        "srt-connect".to_owned(),
        bench.tools.join("srt-connect"),
        words(&["--proxy", &format!("http://{proxy}"), &host, &server_port]),
    )];
    let peers: [(&str, &str, Vec<String>); 3] = [
        (PEERS[0], "nc.openbsd", words(&["-X", "connect", "-x", &proxy, &host, &server_port])),
        (PEERS[1], "ncat", words(&["--proxy", &proxy, "--proxy-type", "http", &host, &server_port])),
        (PEERS[2], "socat", words(&["-", &format!("PROXY:127.0.0.1:{host}:{server_port},proxyport={port}")])),
    ];
    for (name, program, args) in peers {
        match find(program) {
            Some(path) => all.push((name.to_owned(), path, args)),
            None => bench.miss(format!("{name}: no {program}")),
        }
    }
    let contenders = all.into_iter().map(|(name, program, args)| -> Contender<'_, f64> {
        (name, Box::new(move || first_byte(&program, &args)))
    });
    let turns = Turns { rounds: bench.pick(200, 30), budget: Duration::from_secs(bench.pick(5, 2)) };
    let results = interleave(turns, contenders.collect())?;
    Ok(Row::compare("connect", "from its start to the server's first byte", "ms", results))
}

fn first_byte(program: &PathBuf, args: &[String]) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let mut greeting = vec![0; GREETING.len()];
    let first = out.read_exact(&mut greeting[..1]).map(|()| start.elapsed().as_secs_f64() * 1e3);
    let rest = first.and_then(|time| out.read_exact(&mut greeting[1..]).map(|()| time));
    // It waits for more, from either side.
    let _ended = child.kill();
    let status = child.wait()?;
    let time = rest.map_err(|error| format!("no greeting: {error} ({status})"))?;
    if greeting == GREETING { Ok(time) } else { Err("not the server's greeting".into()) }
}

/// An HTTP proxy (RFC 9110, 9.3.6) and the server behind it in one: what is after the proxy's answer is the server's.
fn serve(mut client: Box<dyn Duplex>) -> Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0; 512]);
    while !request.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&byte[..count]),
        }
    }
    let [host, port] = SERVER;
    let expected = format!("CONNECT {host}:{port} HTTP/1.");
    if !request.starts_with(expected.as_bytes()) {
        return Err("not the request that was expected".into());
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    client.write_all(GREETING)?;
    // Until it has ended.
    while client.read(&mut byte)? > 0 {}
    Ok(())
}
