//! `--relay` with the programs that people run: what is asked for gets out through a proxy on the host, and
//! nothing gets out beside it.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::{Greeter, HostRelay, chain_out, own_program};
use srt_tests::noise::Noise;
use srt_tests::servers::{Server, microsocks, tinyproxy, web};
use srt_tests::{MANY_KEYS, Ran, Scratch, Who, at_once, both, has, run, turn_of, wait};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// The host: files over http, and both kinds of proxies, each behind a Unix socket.
struct Host {
    web: Server,
    http: Server,
    _socks: Server,
    _relays: [HostRelay; 2],
    /// For srt-ns: 3128 inside is the HTTP proxy, 1080 the SOCKS5 proxy.
    options: [String; 4],
    scratch: Scratch,
}

impl Host {
    fn start(who: Who) -> Self {
        let scratch = who.scratch();
        scratch.dir("work");
        let (web, http, socks) = (web(who), tinyproxy(who, None), microsocks(who, None));
        let relays = [
            HostRelay::start(who, scratch.join("http.sock"), http.port),
            HostRelay::start(who, scratch.join("socks.sock"), socks.port),
        ];
        let [first, second] =
            [3128, 1080].map(|port| format!("{port}={}", relays[usize::from(port == 1080)].socket.display()));
        let options = ["--relay".into(), first, "--relay".into(), second];
        Self { web, http, _socks: socks, _relays: relays, options, scratch }
    }

    /// Puts a file on the web server.
    fn serve(&self, name: &str, content: impl AsRef<[u8]>) {
        self.web.scratch.file(format!("www/{name}"), content);
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.web.port)
    }

    /// Runs a script in the chain with this URL as `$1`.
    #[track_caller]
    fn inside(&self, who: Who, script: &str, url: &str) -> Ran {
        let work = self.scratch.join("work");
        let mut command = chain_out(who, &self.options, &work);
        command.env("HOME", &work).env("GIT_CONFIG_NOSYSTEM", "1");
        run(command.args(["sh", "-euc", script, "sh", url]))
    }
}

/// What the environment must have; the reason if it has not.
fn missing(programs: &[&str]) -> Option<String> {
    let all = ["tinyproxy", "microsocks", "python3"];
    all.iter().chain(programs).find(|program| !has(program)).map(|program| format!("no {program}"))
}

both! {
    fn curl_gets_out_through_both_proxies_and_in_no_other_way(who) {
        if let Some(why) = missing(&["curl"]) {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        let megabytes = Noise::first(1, 8_000_000);
        host.serve("file", &megabytes);
        let url = host.url("file");
        for (name, option) in [
            ("http", "--proxy http://127.0.0.1:3128"),
            ("tunnel", "--proxytunnel --proxy http://[::1]:3128"),
            ("socks", "--proxy socks5h://127.0.0.1:1080"),
        ] {
            host.inside(who, &format!("curl -sS -f --max-time 20 {option} -o {name} \"$1\""), &url).ok();
            assert!(fs::read(host.scratch.join("work").join(name)).expect("the file") == megabytes, "{name}");
        }
        host.inside(who, "http_proxy=http://127.0.0.1:3128 curl -sS -f --max-time 20 -o variable \"$1\"", &url).ok();
        let log = host.http.log();
        assert!(log.contains(&format!("GET {url}")) && log.contains(&format!("CONNECT 127.0.0.1:{}", host.web.port)), "{log}");

        // The same host is there for the proxies alone; outside, it is there for everybody.
        let ran = host.inside(who, "curl -sS -f --max-time 20 \"$1\"", &url);
        ran.code(7).complains("connect");
        run(who.command("curl").args(["-sS", "-f", "--max-time", "20", "-o", "/dev/null", &url])).ok();
    }

    fn git_clones_over_http_through_both_proxies(who) {
        if let Some(why) = missing(&["git"]) {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        let www = host.web.scratch.join("www");
        let script = "git init -q -b main here && cd here && echo one > file && git add file && \
                      git -c user.name=a -c user.email=a@b commit -qm one && cd .. && \
                      git clone -q --bare here project.git && git -C project.git update-server-info";
        run(who.command("sh").args(["-euc", script]).current_dir(&www).env("GIT_CONFIG_NOSYSTEM", "1")).ok();
        let script = "git -c http.proxy=http://127.0.0.1:3128 clone -q \"$1\" a && \
                      git -c http.proxy=socks5h://127.0.0.1:1080 clone -q \"$1\" b && \
                      env http_proxy=http://localhost:3128 git clone -q \"$1\" c && cat a/file b/file c/file && \
                      ! git clone -q \"$1\" d 2>/dev/null && test ! -e d && echo not past them";
        host.inside(who, script, &host.url("project.git")).ok().says("one\none\none\nnot past them");
    }

    fn pip_installs_from_an_index_outside(who) {
        if let Some(why) = missing(&["pip3"]) {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        wheel(who, &host.web.scratch.join("www"));
        host.serve("simple/srt-sample/index.html", "<a href=\"/srt_sample-1.0-py3-none-any.whl\">srt_sample-1.0-py3-none-any.whl</a>");
        let pip = "pip3 --disable-pip-version-check --no-cache-dir --retries 0";
        let script = format!(
            "export http_proxy=http://127.0.0.1:3128
             {pip} -q download --no-deps -d down --index-url \"$1\" srt-sample
             {pip} -q install --no-deps --target lib --index-url \"$1\" srt-sample
             ls down
             PYTHONPATH=lib python3 -c 'import srt_sample; print(srt_sample.word)'
             unset http_proxy
             if {pip} -q download --no-deps -d past --index-url \"$1\" srt-sample 2>&1; then echo past it; else echo not past it; fi | tail -n 1"
        );
        let ran = host.inside(who, &script, &host.url("simple/"));
        ran.ok().says("srt_sample-1.0-py3-none-any.whl\nhello from a wheel\nnot past it");
    }

    fn the_port_accepts_from_the_first_instruction_on_200_times_in_a_row(who) {
        let scratch = who.scratch();
        let program = own_program(&scratch, env!("CARGO_BIN_EXE_connect-at-once"));
        let socket = scratch.join("p.sock");
        let _greeter = Greeter::start(&socket, "hello");
        let relay = format!("4000={}", socket.display());
        // In two rows: a start waits for the kernel more than it computes.
        at_once(2, 0..200, |round| {
            // Every tenth with all stages, which give the relay more time.
            let mut command = if round % 10 == 0 {
                chain_out(who, &["--relay", &relay], scratch.path())
            } else {
                let mut command = who.command("srt-ns");
                command.args(["--relay", &relay, "--"]);
                command
            };
            run(command.arg(&program).arg("4000=hello")).ok();
        });
        // Whoever opens the port beside the command is too late for it.
        let late = "sleep 10; exec socat TCP-LISTEN:4000,bind=127.0.0.1 OPEN:/dev/null";
        let ran = run(who.command("srt-ns").args(["--sidecar", late, "--"]).arg(&program).arg("4000=hello"));
        ran.code(1).complains("Connection refused");
    }

    fn two_relays_serve_50_sandboxes_at_once(who) {
        let _turn = turn_of(MANY_KEYS);
        let scratch = who.scratch();
        let program = own_program(&scratch, env!("CARGO_BIN_EXE_connect-at-once"));
        let _one = Greeter::start(&scratch.join("one.sock"), "one");
        let _two = Greeter::start(&scratch.join("two.sock"), "two");
        let relays = [("1111", "one"), ("2222", "two")].map(|(port, name)| format!("{port}={}/{name}.sock", scratch.text()));
        let start = || {
            let mut command = who.command("srt-ns");
            command.args(["--relay", &relays[0], "--relay", &relays[1], "--", "sh", "-c"]);
            // Each stays until all have connected: a full line on stdin.
            command.arg("for n in 1 2 3 4; do \"$0\" \"$@\" || exit; done; echo done; read -r _; \"$0\" \"$@\"");
            command.arg(&program).args(["1111=one", "2222=two"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("srt-ns")
        };
        let mut sandboxes: Vec<_> = (0..50).map(|_| start()).collect();
        for sandbox in &mut sandboxes {
            let mut word = [0; 5];
            use std::io::Read;
            let heard = sandbox.stdout.as_mut().expect("piped").read_exact(&mut word);
            assert!(heard.is_ok() && &word == b"done\n", "{word:?}");
        }
        for mut sandbox in sandboxes {
            drop(sandbox.stdin.take());
            assert!(wait(&mut sandbox, "the end of a sandbox").success());
        }
    }
}

/// A package for pip, made by hand: a wheel is a zip archive with four files.
fn wheel(who: Who, directory: &Path) {
    let script = r#"
import zipfile
info = "srt_sample-1.0.dist-info/"
files = {
    "srt_sample.py": "word = 'hello from a wheel'\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: srt-sample\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
files[info + "RECORD"] = "".join(name + ",,\n" for name in [*files, info + "RECORD"])
with zipfile.ZipFile("srt_sample-1.0-py3-none-any.whl", "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)
"#;
    run(who.command("python3").args(["-c", script]).current_dir(directory)).ok();
}
