//! As ssh's `ProxyCommand`, with a real sshd and real proxies: ssh, git and rsync.

#![allow(clippy::expect_used)]

use srt_tests::noise::Noise;
use srt_tests::servers::{Server, Sshd, microsocks, tinyproxy};
use srt_tests::{Scratch, Who, at_once, both, has, run, run_with_input};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const LOGIN: Option<(&str, &str)> = Some(("proxy-user", "s3cret"));

/// A way through a proxy: what to call it, and the words that follow `srt-connect`.
struct Way {
    name: &'static str,
    proxy: Server,
    arguments: String,
}

/// Every way there is, each through a proxy of its own.
fn ways(who: Who, scratch: &Scratch) -> Vec<Way> {
    let password = scratch.file("password", "proxy-user:s3cret\n");
    let way = |name, proxy: Server, scheme: &str, login: &str, more: String| {
        let arguments = format!("--proxy {scheme}://{login}127.0.0.1:{}{more}", proxy.port);
        Way { name, proxy, arguments }
    };
    let auth_fd = format!(" --auth-fd 7 7<{}", password.display());
    vec![
        way("HTTP", tinyproxy(who, None), "http", "", String::new()),
        way("HTTP with --auth-fd", tinyproxy(who, LOGIN), "http", "", auth_fd.clone()),
        way(
            "HTTP with a URL's password",
            tinyproxy(who, LOGIN),
            "http",
            "proxy-user:s%%33cret@",
            String::new(),
        ),
        way("SOCKS5", microsocks(who, None), "socks5h", "", String::new()),
        way("SOCKS5 with --auth-fd", microsocks(who, LOGIN), "socks5h", "", auth_fd),
        way(
            "SOCKS5 with a URL's password",
            microsocks(who, LOGIN),
            "socks5h",
            "proxy-user:s3cret@",
            String::new(),
        ),
    ]
}

/// A configuration for ssh(1) that leads to `sshd` by these arguments of srt-connect.
fn config(sshd: &Sshd, arguments: &str) -> PathBuf {
    let base = std::fs::read_to_string(sshd.client_config()).expect("the configuration");
    let tool = srt_tests::tool("srt-connect");
    let (arguments, redirection) = arguments.split_once(" 7<").unwrap_or((arguments, ""));
    let redirection = if redirection.is_empty() { String::new() } else { format!(" 7<{redirection}") };
    let line = format!("ProxyCommand {} {arguments} %h %p{redirection}\n", tool.display());
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    sshd.scratch().file(format!("config-{}", NEXT.fetch_add(1, Ordering::Relaxed)), base + &line)
}

/// What the environment must have; the reason if it has not.
fn missing() -> Option<String> {
    let programs = ["sshd", "ssh", "ssh-keygen", "tinyproxy", "microsocks", "git", "rsync", "unshare"];
    programs.iter().find(|program| !has(program)).map(|program| format!("no {program}"))
}

fn ssh(sshd: &Sshd, config: &Path, host: &str, script: &str, input: &[u8]) -> srt_tests::Ran {
    run_with_input(sshd.command("ssh").arg("-F").arg(config).args([host, script]), input)
}

both! {
    fn ssh_runs_through_every_kind_of_proxy(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let sshd = Sshd::start(who);
        at_once(3, ways(who, sshd.scratch()), |way| {
            let config = config(&sshd, &way.arguments);
            for host in ["localhost", "127.0.0.1"] {
                let ran = ssh(&sshd, &config, host, "id -u; cat; exit 7", b"from stdin");
                assert_eq!((ran.code, ran.out, ran.err), (Some(7), format!("{}\nfrom stdin", who.uid()), String::new()), "{}", way.name);
            }
            // tinyproxy says whom it connected; and no way leads around the proxy, since without it there is none.
            if way.name.starts_with("HTTP") {
                let log = way.proxy.log();
                assert!(log.contains(&format!("CONNECT localhost:{} HTTP/1.1", sshd.port())), "{log}");
            }
            drop(way.proxy);
            let ran = ssh(&sshd, &config, "localhost", "true", b"");
            ran.code(255).complains("srt-connect: proxy ").complains("cannot connect: Connection refused");
        });
    }

    fn an_ipv6_host_reaches_the_proxy_in_its_form(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        if !srt_tests::has_ipv6() {
            srt_tests::skip!("no IPv6 here");
        }
        let sshd = Sshd::start(who);
        for (scheme, proxy) in [("http", tinyproxy(who, None)), ("socks5h", microsocks(who, None))] {
            let config = config(&sshd, &format!("--proxy {scheme}://127.0.0.1:{}", proxy.port));
            ssh(&sshd, &config, "::1", "echo six", b"").ok().says("six");
        }
    }

    fn a_wrong_password_is_refused_in_words(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let wrong = "proxy-user:wrong@";
        for (scheme, proxy, login, words) in [
            ("http", tinyproxy(who, LOGIN), "", "refused: HTTP/1.0 407 Proxy Authentication Required"),
            ("http", tinyproxy(who, LOGIN), wrong, "refused: HTTP/1.0 401"),
            ("socks5h", microsocks(who, LOGIN), "", "refused: this proxy wants authentication"),
            ("socks5h", microsocks(who, LOGIN), wrong, "refused: wrong user name or password"),
        ] {
            let url = format!("{scheme}://{login}127.0.0.1:{}", proxy.port);
            let ran = run(who.command("srt-connect").args(["--proxy", &url, "127.0.0.1", "1"]));
            ran.code(1).complains(words).one_clear_error("srt-connect");
            assert!(!ran.err.contains("wrong@"), "{ran:?}");
        }
    }

    fn a_target_that_is_not_there_is_the_proxys_word(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        for (scheme, proxy, words) in
            [("http", tinyproxy(who, None), "refused: HTTP/1.1 500 Unable to connect"), ("socks5h", microsocks(who, None), "refused: connection refused")]
        {
            let url = format!("{scheme}://127.0.0.1:{}", proxy.port);
            // None of those that a test of another gets from the kernel.
            run(who.command("srt-connect").args(["--proxy", &url, "127.0.0.1", "1"]))
                .code(1)
                .complains(words)
                .one_clear_error("srt-connect");
        }
    }

    fn git_clones_and_pushes_over_ssh(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let sshd = Sshd::start(who);
        let scratch = sshd.scratch();
        let blob = Noise::first(1, 4_000_000);
        let work = scratch.dir("work");
        scratch.file("work/blob", &blob);
        let git = |directory: &Path, config: &Path, words: &[&str]| {
            let mut command = sshd.command("git");
            command.env("GIT_SSH_COMMAND", format!("ssh -F {}", config.display())).env("GIT_CONFIG_NOSYSTEM", "1");
            command.current_dir(directory).args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]);
            run(command.args(words)).ok().clone()
        };
        let config_of = |way: &Way| config(&sshd, &way.arguments);
        let ways = ways(who, scratch);
        for words in [&["init", "-q"][..], &["add", "blob"], &["commit", "-qm", "a blob"]] {
            git(&work, &config_of(&ways[0]), words);
        }
        at_once(2, ways.into_iter().filter(|way| !way.name.contains("URL")), |way| {
            let config = config_of(&way);
            let number = way.proxy.port.to_string();
            let (origin, clone) = (scratch.join(format!("origin-{number}")), scratch.join(format!("clone-{number}")));
            git(scratch.path(), &config, &["init", "-q", "--bare", origin.to_str().expect("UTF-8")]);
            let url = format!("ssh://localhost{}", origin.display());
            git(&work, &config, &["push", "-q", &url, "HEAD:main"]);
            git(scratch.path(), &config, &["clone", "-q", "-b", "main", &url, clone.to_str().expect("UTF-8")]);
            assert!(std::fs::read(clone.join("blob")).expect("the clone") == blob, "{}", way.name);
        });
    }

    fn rsync_copies_both_ways_over_ssh(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let sshd = Sshd::start(who);
        let scratch = sshd.scratch();
        let blob = Noise::first(1, 4_000_000);
        scratch.file("from/blob", &blob);
        at_once(2, ways(who, scratch).into_iter().filter(|way| !way.name.contains("URL")), |way| {
            let shell = format!("ssh -F {}", config(&sshd, &way.arguments).display());
            let rsync = |from: &str, to: &str| {
                run(sshd.command("rsync").args(["-r", "-e", &shell, from, to])).ok();
            };
            let there = format!("localhost:{}/there-{}/", scratch.text(), way.proxy.port);
            let back = format!("{}/back-{}/", scratch.text(), way.proxy.port);
            rsync(&format!("{}/from/", scratch.text()), &there);
            rsync(&there, &back);
            assert!(std::fs::read(format!("{back}blob")).expect("the copy") == blob, "{}", way.name);
        });
    }
}
