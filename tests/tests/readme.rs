//! Every `sh` block of README.md runs as it stands there, as root and as an ordinary user: in a project directory,
//! with a home directory. The word after `sh` names what else has to be there.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::processes::Family;
use srt_tests::servers::passwd_files;
use srt_tests::talk::Talk;
use srt_tests::{Ran, Scratch, Who, both, has, run, skip, tools};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// What a block needs, after `sh` in its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fixture {
    /// Nothing but the project and the home directory.
    None,
    /// Builds or tests all this: compared with what CI runs, and not run from within.
    Setup,
    /// Measures all this: CI runs it with `--quick`.
    Bench,
    /// A network with example.org, where a web server and an sshd listen.
    Network,
    /// The same, and a proxy on 127.0.0.1:3128.
    Proxy,
    /// The same, and an srt-relay that leads there from `$dir/proxy.sock`.
    Relay,
    /// A terminal, on which `exit` is typed.
    Terminal,
    /// A caller who is root.
    Root,
    /// A container as Docker makes them, without its seccomp filter.
    Docker,
}

impl Fixture {
    fn named(name: &str) -> Self {
        match name {
            "" => Self::None,
            "setup" => Self::Setup,
            "bench" => Self::Bench,
            "network" => Self::Network,
            "proxy" => Self::Proxy,
            "relay" => Self::Relay,
            "terminal" => Self::Terminal,
            "root" => Self::Root,
            "docker" => Self::Docker,
            other => panic!("README has a block for {other:?}, which no test knows"),
        }
    }
}

#[derive(Debug)]
struct Block {
    fixture: Fixture,
    line: usize,
    text: String,
}

/// The blocks that a shell understands. Anything but those and `text` is an error: it would not be run.
fn blocks() -> Vec<Block> {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let mut blocks: Vec<Block> = vec![];
    let mut inside = None;
    for (number, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (None, Some(true)) => {
                let text = &mut blocks.last_mut().expect("a block").text;
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
            (Some(""), Some(_)) => inside = None,
            (Some("text"), None) => inside = Some(false),
            (Some(info), None) if info.split(' ').next() == Some("sh") => {
                let fixture = Fixture::named(info["sh".len()..].trim());
                blocks.push(Block { fixture, line: number + 1, text: String::new() });
                inside = Some(true);
            }
            (Some(info), _) => panic!("README.md:{}: a fence with {info:?}", number + 1),
        }
    }
    assert_eq!(inside, None, "README.md: a block has no end");
    blocks
}

fn blocks_for(fixture: Fixture) -> Vec<Block> {
    let blocks: Vec<_> = blocks().into_iter().filter(|block| block.fixture == fixture).collect();
    assert!(!blocks.is_empty(), "README has no block for {fixture:?}: the test is of no use");
    blocks
}

/// A user with a home, a project, and the tools in PATH. Not in /tmp, which the recipes hide.
struct Place {
    who: Who,
    scratch: Scratch,
}

impl Place {
    fn new(who: Who) -> Self {
        let place = Self { who, scratch: who.scratch_in("/var/tmp") };
        let scratch = &place.scratch;
        run(Command::new("cp").arg("-r").arg(tools()).arg(scratch.join("bin"))).ok();
        for dir in ["home/.ssh", "home/.cache", "project", "run"] {
            scratch.dir(dir);
        }
        for private in ["home/.ssh", "run"] {
            fs::set_permissions(scratch.join(private), fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        scratch.file("home/.ssh/secret", "the key");
        scratch.file("project/.env", "PASSWORD=hunter2\n");
        let makefile = "test:\n\t@cp Makefile tested && echo tests pass\nclean:\n\trm -rf tested\n";
        scratch.file("project/Makefile", makefile);
        let git =
            "git init -q -b main && git add Makefile && git -c user.name=a -c user.email=a@b commit -qm one";
        run(place.command("sh").args(["-euc", git])).ok();
        place
    }

    /// A command of the user's, in the project.
    fn command(&self, program: &str) -> Command {
        self.settle(self.who.command(program))
    }

    /// The user's environment and working directory.
    fn settle(&self, mut command: Command) -> Command {
        let path =
            format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.scratch.join("bin").display());
        command
            .current_dir(self.scratch.join("project"))
            .env("HOME", self.scratch.join("home"))
            .env("PATH", path);
        command.env("dir", self.scratch.join("run")).env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    /// bash with a block, under whatever `inside` puts in front.
    fn bash(&self, block: &Block, inside: impl FnOnce(Command) -> Command) -> Command {
        let script = self.scratch.file("block", &block.text);
        let mut bash = self.who.command("bash");
        bash.arg("-eu").arg(script);
        self.settle(inside(bash))
    }

    /// Runs a block to its end, after which nobody may be left.
    #[track_caller]
    fn run(&self, family: &Family, block: &Block, inside: impl FnOnce(Command) -> Command) -> Ran {
        let ran = run(&mut self.bash(block, inside));
        assert_eq!(ran.code, Some(0), "README.md:{}: {}\n{ran:#?}", block.line, block.text);
        family.ends();
        ran
    }

    fn exists(&self, path: &str) -> bool {
        self.scratch.join(path).symlink_metadata().is_ok()
    }
}

/// Puts words in front of a command.
fn under(words: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(inner.get_program()).args(inner.get_args());
    command
}

/// A network of its own with example.org in it: real servers, in a pid namespace, so that none stays.
struct Network {
    holder: Child,
    pid: String,
}

impl Network {
    fn start(place: &Place) -> Self {
        let (who, scratch) = (place.who, &place.scratch);
        scratch.file("www/index.html", "this is example.org\n");
        scratch.file("hosts", "127.0.0.1 localhost example.org git.example.org elsewhere.example\n");
        passwd_files(who, scratch, &["git"]);
        for key in ["host_key", "home/.ssh/id_ed25519"] {
            let mut keygen = who.command("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(scratch.join(key))).ok();
        }
        let host_key = fs::read_to_string(scratch.join("host_key.pub")).expect("the host's key");
        scratch.file("home/.ssh/known_hosts", format!("example.org {host_key}"));
        let dir = scratch.text();
        scratch.file(
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1:22\nHostKey {dir}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
                 AuthorizedKeysFile {dir}/home/.ssh/id_ed25519.pub\nPasswordAuthentication no\n"
            ),
        );
        scratch.file("tinyproxy.conf", "Listen 127.0.0.1\nPort 3128\nMaxClients 100\nLogLevel Warning\n");
        let (home, project) = (scratch.join("home"), scratch.join("project"));
        run(place.command("git").args(["clone", "-q", "--bare"]).arg(project).arg(home.join("project.git")))
            .ok();
        // Ports below 1024 are root's: the user's servers get them from a sysctl of this network.
        let script = r#"
            ip link set lo up
            echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
            mount --bind "$1/hosts" /etc/hosts
            mount --bind "$1/passwd" /etc/passwd
            mount --bind "$1/shadow" /etc/shadow
            mkdir -p /run/sshd
            as="setpriv --reuid=$2 --regid=$2 --clear-groups --"
            $as python3 -m http.server --bind 127.0.0.1 --directory "$1/www" 80 >/dev/null 2>&1 &
            $as /usr/sbin/sshd -D -e -f "$1/sshd_config" &
            for port in 80 22; do
                until socat -u OPEN:/dev/null TCP:127.0.0.1:$port 2>/dev/null; do sleep 0.02; done
            done
            echo ready
            exec sleep infinity
        "#;
        let uid = who.uid().to_string();
        let mut command = place.settle(Command::new("unshare"));
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            script,
            "sh",
            dir,
            &uid,
        ]);
        let log = fs::File::create(scratch.join("servers.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut holder = command.spawn().expect("unshare");
        let mut word = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut word).expect("a line");
        let log = || fs::read_to_string(scratch.join("servers.log")).unwrap_or_default();
        assert_eq!(word, "ready\n", "the servers do not come up: {}", log());
        let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id()));
        let pid = pid.expect("the holder's child").trim().to_owned();
        Self { holder, pid }
    }

    /// A command in it. setns(2): entering a mount namespace resets the working directory to its root.
    fn inside(&self, place: &Place, inner: &Command) -> Command {
        let project = place.scratch.join("project");
        let there = ["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh", project.to_str().expect("UTF-8")];
        let enter = ["nsenter", "--target", &self.pid, "--net", "--mount", "--"];
        under(&[&enter[..], &there].concat(), inner)
    }

    /// A server in it, which is a child of the test's.
    fn serve(&self, place: &Place, program: &str, arguments: &[&str]) -> Running {
        let mut command = place.who.command(place.scratch.join("bin").join(program));
        if !place.exists(&format!("bin/{program}")) {
            command = place.who.command(program);
        }
        command.args(arguments);
        let mut command = place.settle(self.inside(place, &command));
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a server"))
    }

    /// A proxy on 127.0.0.1:3128, which accepts.
    fn proxy(&self, place: &Place) -> Running {
        let config = place.scratch.join("tinyproxy.conf");
        let proxy = self.serve(place, "tinyproxy", &["-d", "-c", config.to_str().expect("UTF-8")]);
        srt_tests::wait_until("tinyproxy", || {
            let mut socat = Command::new("socat");
            socat.args(["-u", "OPEN:/dev/null", "TCP:127.0.0.1:3128"]);
            run(&mut place.settle(self.inside(place, &socat))).code == Some(0)
        });
        proxy
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn missing(programs: &[&str]) -> Option<String> {
    programs.iter().find(|program| !has(program)).map(|program| format!("no {program}"))
}

const SERVERS: [&str; 9] =
    ["ip", "socat", "curl", "git", "python3", "sshd", "ssh", "ssh-keygen", "tinyproxy"];

both! {
    fn the_recipes_that_need_nothing(who) {
        if let Some(why) = missing(&["git", "make", "bwrap", "curl", "python3"]) {
            skip!("{why}");
        }
        let family = Family::new();
        for block in blocks_for(Fixture::None) {
            let place = Place::new(who);
            let ran = place.run(&family, &block, |bash| bash);
            // What the recipe is for.
            let text = &block.text;
            if text.contains("make test") {
                assert!(ran.out.contains("tests pass") && place.exists("project/tested"), "{ran:#?}");
            }
            if text.contains("--tmp-overlay") {
                assert!(ran.out.contains("made") && !place.exists("project/made"), "{ran:#?}");
            }
            if text.contains(".cache") {
                assert!(place.exists("home/.cache/built"), "{ran:#?}");
            }
            if text.contains("--publish") {
                assert!(ran.out.contains("Directory listing") && ran.out.contains("Makefile"), "{ran:#?}");
            }
            if text.contains("ls -l") {
                assert!(ran.out.contains("Makefile"), "{ran:#?}");
            }
        }
    }

    fn what_the_agents_recipe_hides_and_protects(who) {
        if let Some(why) = missing(&["git", "make"]) {
            skip!("{why}");
        }
        let _family = Family::new();
        let block = blocks_for(Fixture::None).into_iter().find(|block| block.text.contains("--mask")).expect("the recipe");
        let place = Place::new(who);
        let (sandbox, _) = block.text.split_once("  sh -c '").expect("the agent's command");
        let attempt = |command: &str| {
            let text = format!("{sandbox} sh -c '{command}'\n");
            let inside = run(&mut place.bash(&Block { text, ..Block { fixture: block.fixture, line: block.line, text: String::new() } }, |bash| bash));
            // The control: outside, it works.
            let outside = run(place.command("sh").args(["-c", command]));
            assert_eq!(outside.code, Some(0), "{command}: {outside:#?}");
            inside
        };
        for secret in ["grep hunter2 .env", "cat $HOME/.ssh/secret"] {
            let ran = attempt(secret);
            assert!(ran.code != Some(0) && ran.out.is_empty(), "{secret}: {ran:#?}");
        }
        for write in [
            "echo evil >> .git/hooks/pre-commit", "git config a.b evil", "echo /tmp >.git/commondir && rm .git/commondir",
            "mv .git elsewhere && mv elsewhere .git", "touch $HOME/planted",
        ] {
            let ran = attempt(write);
            assert_ne!(ran.code, Some(0), "{write}: {ran:#?}");
        }
        attempt("echo work > file").ok();
        assert!(place.exists("project/file"));
    }

    fn the_recipes_with_a_proxy(who) {
        if let Some(why) = missing(&SERVERS) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
        let network = Network::start(&place);
        let proxy = network.proxy(&place);
        for block in blocks_for(Fixture::Proxy) {
            let ran = run(&mut place.bash(&block, |bash| network.inside(&place, &bash)));
            assert_eq!(ran.code, Some(0), "README.md:{}: {}\n{ran:#?}", block.line, block.text);
        }
        drop((proxy, network));
        family.ends();
    }

    fn the_recipes_with_a_relay_to_a_proxy(who) {
        if let Some(why) = missing(&SERVERS).or(missing(&["bwrap"])) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
        let network = Network::start(&place);
        let socket = place.scratch.join("run/proxy.sock");
        let proxy = network.proxy(&place);
        let relay = network.serve(&place, "srt-relay", &[&format!("unix:{}", socket.display()), "tcp:127.0.0.1:3128"]);
        srt_tests::wait_until("srt-relay", || socket.exists());
        for block in blocks_for(Fixture::Relay) {
            let ran = run(&mut place.bash(&block, |bash| network.inside(&place, &bash)));
            assert_eq!(ran.code, Some(0), "README.md:{}: {}\n{ran:#?}", block.line, block.text);
            if block.text.contains("git clone") {
                assert!(place.exists("project/project/Makefile"), "{ran:#?}");
            } else {
                assert!(ran.out.contains("this is example.org"), "{ran:#?}");
            }
        }
        drop((proxy, relay, network));
        family.ends();
    }

    fn the_recipes_with_a_network(who) {
        if let Some(why) = missing(&SERVERS) {
            skip!("{why}");
        }
        let family = Family::new();
        for block in blocks_for(Fixture::Network) {
            let place = Place::new(who);
            let network = Network::start(&place);
            let ran = run(&mut place.bash(&block, |bash| network.inside(&place, &bash)));
            assert_eq!(ran.code, Some(0), "README.md:{}: {}\n{ran:#?}", block.line, block.text);
            assert!(ran.out.contains("this is example.org"), "{ran:#?}");
            // The one host that is not in the list; with the control that it is there.
            let denied = Block { text: block.text.replace("http://example.org/", "http://elsewhere.example/"), ..block };
            let ran = run(&mut place.bash(&denied, |bash| network.inside(&place, &bash)));
            assert!(!ran.out.contains("this is example.org") && ran.out.contains("ilter"), "{ran:#?}");
            let mut curl = Command::new("curl");
            curl.args(["-sS", "http://elsewhere.example/"]);
            run(&mut place.settle(network.inside(&place, &curl))).ok().says("this is example.org");
            drop(network);
            family.ends();
        }
    }

    fn the_recipes_on_a_terminal(who) {
        let family = Family::new();
        for block in blocks_for(Fixture::Terminal) {
            let place = Place::new(who);
            let mut talk = Talk::on_terminal(who, &mut place.bash(&block, |bash| bash));
            talk.send("echo $((40 + 2)); sleep 1000 & jobs\n");
            talk.expect("42");
            talk.expect("Running");
            talk.send("exit\n");
            let (code, said) = talk.end();
            assert_eq!(code, 0, "README.md:{}: {said}", block.line);
            family.ends();
        }
    }

    fn the_recipes_inside_docker(who) {
        if let Some(why) = missing(&["make", "git", "setpriv"]) {
            skip!("{why}");
        }
        let family = Family::new();
        // Docker's capabilities, its masks and its read-only paths.
        let script = r#"
            mount -t proc proc /proc
            for path in bus fs irq sys sysrq-trigger; do
                test -e /proc/$path || continue
                mount --bind /proc/$path /proc/$path
                mount -o remount,bind,ro /proc/$path
            done
            for file in kcore keys timer_list; do
                ! test -e /proc/$file || mount --bind /dev/null /proc/$file
            done
            exec setpriv --inh-caps=-all --bounding-set="-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write" -- "$@"
        "#;
        let docker = |inner: Command| under(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script, "sh"], &inner);
        for block in blocks_for(Fixture::Docker) {
            let place = Place::new(who);
            let ran = place.run(&family, &block, docker);
            assert!(ran.out.contains("tests pass"), "{ran:#?}");
            // It is such a container: what works elsewhere is refused.
            for text in ["srt-ns -- true", "srt-ns --allow-userns -- srt-mount --ro-bind / / --proc /proc -- true"] {
                let refused = Block { text: text.into(), ..Block { fixture: block.fixture, line: 0, text: String::new() } };
                run(&mut place.bash(&refused, docker)).code(125).complains("hint: ");
            }
        }
    }
}

#[test]
fn the_recipes_for_root() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    let family = Family::new();
    for block in blocks_for(Fixture::Root) {
        let ran = Place::new(Who::Root).run(&family, &block, |bash| bash);
        assert!(ran.out.starts_with("uid=1000") && !ran.out.contains("uid=0"), "{ran:#?}");
    }
}

/// CI runs the same commands, in the same order; they are the first ones in README.
#[test]
fn the_two_commands_are_what_ci_runs() {
    let all = blocks();
    let commands: Vec<&str> = all
        .iter()
        .take_while(|block| block.fixture == Fixture::Setup)
        .flat_map(|block| block.text.trim().split(" && "))
        .collect();
    assert_eq!(commands, ["cargo build --release", "tests/first-job", "tests/all"]);
    assert_eq!(all.iter().filter(|block| block.fixture == Fixture::Setup).count(), 2);
    let ci = fs::read_to_string(workspace().join(".ci/run")).expect(".ci/run");
    let mut lines = ci.lines();
    for command in commands {
        assert!(lines.any(|line| line == command), ".ci/run does not run {command}, or too early");
    }
    for block in blocks_for(Fixture::Bench) {
        let quick = format!("{} --quick", block.text.trim());
        assert!(ci.lines().any(|line| line.starts_with(&quick)), ".ci/run does not run {quick}");
    }
    for script in ["tests/first-job", "tests/bench", "tests/all", ".ci/run"] {
        let mode = fs::metadata(workspace().join(script)).expect(script).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} cannot be executed");
    }
}

both! {
    fn the_first_job_does_its_work(who) {
        if let Some(why) = missing(&["git", "perl"]) {
            skip!("{why}");
        }
        if !workspace().join(".git").exists() {
            skip!("this is no checkout, only its files");
        }
        let _family = Family::new();
        let place = Place::new(who);
        // A checkout of the user's own: this one may lie where the user cannot go.
        let (checkout, clone) = (workspace(), place.scratch.join("clone"));
        run(Who::Root.command("git").args(["-c", "safe.directory=*", "clone", "-q", "--no-hardlinks"]).arg(checkout).arg(&clone)).ok();
        run(Command::new("cp").arg(checkout.join("tests/first-job")).arg(clone.join("tests"))).ok();
        run(Command::new("chown").arg("-R").arg(format!("{0}:{0}", who.uid())).arg(&clone)).ok();
        let ran = run(place.command(clone.join("tests/first-job").to_str().expect("UTF-8")).env("SRT_TOOLS", place.scratch.join("bin")));
        ran.ok();
        let mut refused = BTreeMap::new();
        for line in ran.out.lines() {
            if let Some((what, why)) = line.strip_prefix("refused: ").and_then(|line| line.split_once(": ")) {
                refused.insert(what.to_owned(), why.to_owned());
            }
        }
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["a Unix socket", "a network connection", "a write elsewhere"], "{ran:#?}");
        assert!(refused["a write elsewhere"].contains("Read-only file system"), "{ran:#?}");
        assert!(refused["a Unix socket"].contains("Operation not permitted"), "{ran:#?}");
        assert!(refused["a network connection"].contains("unreachable"), "{ran:#?}");
        assert!(ran.out.ends_with("== done\n"), "{ran:#?}");
    }
}

/// The whole of it takes minutes, and CI runs the quick one; here, its smallest part.
#[test]
fn the_benchmark_prints_a_table_and_writes_json() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    let _family = Family::new();
    let scratch = Who::Root.scratch();
    let json = scratch.join("bench.json");
    for block in blocks_for(Fixture::Bench) {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} --quick --only binaries --json \"$1\"", block.text.trim()), "sh"]);
        // Not `run`, which has a deadline: the first time, this compiles for a minute.
        let ran = command.arg(&json).current_dir(workspace()).output().expect("sh");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{out}\n{err}");
        for tool in ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect", "bubblewrap"] {
            assert!(out.contains(&format!("\n    {tool} ")), "no {tool} in\n{out}\n{err}");
        }
        assert!(fs::read_to_string(&json).expect("JSON").contains("srt-connect"));
    }
}
