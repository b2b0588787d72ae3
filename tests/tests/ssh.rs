//! ssh, git and rsync from inside the chain: srt-connect as `ProxyCommand`, through a port of `--relay`, through real
//! proxies with and without a password, to a real sshd on the host. (From outside: srt-connect's own tests.)

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::host::HostRelay;
use srt_tests::servers::{Server, Sshd, microsocks, tinyproxy};
use srt_tests::{READ_ONLY, Ran, Who, both, has, run, tools};
use std::fs;

const LOGIN: Option<(&str, &str)> = Some(("proxy-user", "s3cret"));

/// Names of the hosts in the client's configuration, one for each way.
const WAYS: [&str; 5] = ["http", "http-password", "socks", "socks-password", "straight"];

/// An sshd, and sandboxes with ways to it.
struct Host {
    sshd: Sshd,
    proxies: [Server; 4],
    _relays: Vec<HostRelay>,
    options: Vec<String>,
}

impl Host {
    fn start(who: Who) -> Self {
        let sshd = Sshd::start(who);
        let scratch = sshd.scratch();
        let proxies =
            [tinyproxy(who, None), tinyproxy(who, LOGIN), microsocks(who, None), microsocks(who, LOGIN)];
        let mut relays = Vec::new();
        let mut options = Vec::new();
        let mut config =
            format!("Host *\n{}", fs::read_to_string(sshd.client_config()).expect("the configuration"));
        scratch.file("password", "proxy-user:s3cret\n");
        for (number, (proxy, way)) in proxies.iter().zip(WAYS).enumerate() {
            let (port, socket) = (3128 + number, scratch.join(format!("{way}.sock")));
            options.extend(["--relay".to_owned(), format!("{port}={}", socket.display())]);
            relays.push(HostRelay::start(who, socket, proxy.port));
            let scheme = if way.starts_with("http") { "http" } else { "socks5h" };
            let login = if way.ends_with("password") {
                format!(" --auth-fd 7 7<{}/password", scratch.text())
            } else {
                String::new()
            };
            config.push_str(&format!(
                "Host {way}\nHostName localhost\nProxyCommand srt-connect --proxy {scheme}://127.0.0.1:{port} %h %p{login}\n"
            ));
        }
        config.push_str("Host straight\nHostName 127.0.0.1\n");
        scratch.file("ways", config);
        scratch.dir("work");
        Self { sshd, proxies, _relays: relays, options }
    }

    /// Runs a script in the chain; `$SSH` is ssh with the configuration.
    #[track_caller]
    fn inside(&self, script: &str) -> Ran {
        let scratch = self.sshd.scratch();
        let ssh = format!("ssh -F {}/ways", scratch.text());
        let mut command = self.sshd.command("srt-ns");
        command.args(&self.options).args(["--", "srt-mount"]).args(READ_ONLY);
        command.args(["--tmpfs", "/tmp", "--ro-bind"]).args([tools(), tools()]);
        command.arg("--ro-bind").args([scratch.path(), scratch.path()]);
        command
            .arg("--bind")
            .args([scratch.join("work"), scratch.join("work")])
            .arg("--chdir")
            .arg(scratch.join("work"));
        command.args(["--", "srt-seccomp", "--", "sh", "-euc", script]);
        run(command
            .env("SSH", &ssh)
            .env("GIT_SSH_COMMAND", &ssh)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", scratch.join("home/.gitconfig"))
            .env("HOME", scratch.join("work")))
    }
}

/// What the environment must have; the reason if it has not.
fn missing() -> Option<String> {
    let programs = ["sshd", "ssh", "ssh-keygen", "tinyproxy", "microsocks", "git", "rsync", "unshare"];
    programs.iter().find(|program| !has(program)).map(|program| format!("no {program}"))
}

both! {
    fn ssh_from_inside_goes_through_every_kind_of_proxy_and_in_no_other_way(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        let script = "for way in http http-password socks socks-password; do
                          code=0; echo from stdin | $SSH $way 'id -u; cat; exit 7' || code=$?; echo $way: $code
                      done
                      code=0; $SSH straight true || code=$?; echo straight: $code";
        let ran = host.inside(script);
        let expected: String = WAYS[..4].iter().map(|way| format!("{}\nfrom stdin\n{way}: 7\n", who.uid())).collect();
        ran.ok().says(&(expected + "straight: 255"));
        // The one that did not go through had no way at all, but outside it has.
        assert!(ran.err.contains("refused") && ran.err.lines().count() == 1, "{ran:?}");
        run(host.sshd.command("ssh").args(["-F"]).arg(host.sshd.scratch().join("ways")).args(["straight", "true"])).ok();
        let log = host.proxies[0].log();
        assert!(log.contains(&format!("CONNECT localhost:{} HTTP/1.1", host.sshd.port())), "{log}");
    }

    fn git_clones_and_pushes_over_ssh_from_inside(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        let script = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
                      git init -q -b main start; cd start; head -c 3000000 /dev/urandom >blob; git add blob; git commit -qm blob
                      for way in http http-password socks socks-password; do
                          $SSH $way \"git init -q --bare -b main $HOME/origin-$way\"
                          git push -q ssh://$way$HOME/origin-$way main
                          git clone -q ssh://$way$HOME/origin-$way ../clone-$way
                          cmp blob ../clone-$way/blob && echo $way
                      done";
        host.inside(script).ok().says("http\nhttp-password\nsocks\nsocks-password");
    }

    fn rsync_copies_both_ways_over_ssh_from_inside(who) {
        if let Some(why) = missing() {
            srt_tests::skip!("{why}");
        }
        let host = Host::start(who);
        let script = "mkdir from; head -c 3000000 /dev/urandom >from/blob
                      for way in http http-password socks socks-password; do
                          rsync -r -e \"$SSH\" from/ $way:$HOME/there-$way/
                          rsync -r -e \"$SSH\" $way:$HOME/there-$way/ back-$way/
                          cmp from/blob back-$way/blob && echo $way
                      done";
        host.inside(script).ok().says("http\nhttp-password\nsocks\nsocks-password");
    }
}
