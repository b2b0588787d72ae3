//! Every `sh` block of every page runs as it stands there, as root and as an ordinary user: in a project directory,
//! with a home directory. The word after `sh` names what else has to be there. What stands in a block `output` is what
//! the block before it prints.

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::pages::{Block, agent_recipe, blocks, page, workspace};
use srt_tests::processes::Family;
use srt_tests::servers::passwd_files;
use srt_tests::talk::Talk;
use srt_tests::{MANY_PROCESSES, Ran, Scratch, Who, both, has, run, run_bwrap, skip, tools, turn_of};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a block needs, after `sh` in its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fixture {
    /// Nothing but the project and the home directory.
    None,
    /// Builds or tests all this: compared with what CI runs, and not run from within.
    Setup,
    /// Measures all this: CI runs it with `--quick`.
    Bench,
    /// Installs the tools: run once, by root.
    Install,
    /// A network with example.org, where a web server and an sshd listen.
    Network,
    /// The same, and a proxy on 127.0.0.1:3128.
    Proxy,
    /// The same, and an srt-relay that leads there from `$dir/proxy.sock`.
    Relay,
    /// A /dev/net/tun that every user can open, as udev makes it.
    Tun,
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
            "install" => Self::Install,
            "tun" => Self::Tun,
            "setup" => Self::Setup,
            "bench" => Self::Bench,
            "network" => Self::Network,
            "proxy" => Self::Proxy,
            "relay" => Self::Relay,
            "terminal" => Self::Terminal,
            "root" => Self::Root,
            "docker" => Self::Docker,
            other => panic!("a page has a block for {other:?}, which no test knows"),
        }
    }
}

fn fixture(block: &Block) -> Fixture {
    Fixture::named(&block.fixture)
}

/// The blocks of every page that need this and nothing else.
fn blocks_for(wanted: Fixture) -> Vec<Block> {
    let blocks: Vec<_> = blocks().into_iter().filter(|block| fixture(block) == wanted).collect();
    assert!(!blocks.is_empty(), "no page has a block for {wanted:?}: the test is of no use");
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
        // Sixty megabytes: linked where that can be, which is on one file system.
        let bin = "cp -rl \"$1\" \"$2\" 2>/dev/null || { rm -rf \"$2\" && cp -r \"$1\" \"$2\"; }";
        run(Command::new("sh").args(["-euc", bin, "sh"]).arg(tools()).arg(scratch.join("bin"))).ok();
        for dir in ["new/home/.ssh", "new/home/.cache", "new/project", "run"] {
            scratch.dir(dir);
        }
        for private in ["new/home/.ssh", "run"] {
            fs::set_permissions(scratch.join(private), fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        scratch.file("new/home/.ssh/id_ed25519", "the key");
        // A user's own settings, of which some do not work in a sandbox.
        scratch.file("new/home/.ssh/config", "Host *\n  ControlMaster auto\n  ControlPath ~/.ssh/%C\n");
        scratch.file("new/project/.env", "PASSWORD=hunter2\n");
        let makefile = "test:\n\t@cp Makefile tested && echo tests pass\nclean:\n\trm -rf tested\n";
        scratch.file("new/project/Makefile", makefile);
        // Without the template's sample hooks: all this is copied for each block.
        let git = "git init -q --template= -b main && mkdir .git/hooks .git/info && git add Makefile && git -c user.name=a -c user.email=a@b commit -qm one && \
                   echo .env >> .git/info/exclude";
        place.reset();
        run(place.command("sh").current_dir(scratch.join("new/project")).args(["-euc", git])).ok();
        place.reset();
        place
    }

    /// The home and the project as they were at first.
    fn reset(&self) {
        let script = "rm -rf home project && cp -a new/. .";
        run(Command::new("sh").current_dir(self.scratch.path()).args(["-euc", script])).ok();
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
        command.env("dir", self.scratch.join("run")).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C.UTF-8");
        command
    }

    /// bash with a block, under whatever `inside` puts in front.
    fn bash(&self, text: &str, inside: impl FnOnce(Command) -> Command) -> Command {
        let script = self.scratch.file("block", text);
        let mut bash = self.who.command("bash");
        bash.arg("-eu").arg(script);
        self.settle(inside(bash))
    }

    /// Runs a block to its end in a fresh home and project, and compares what it prints with what the page says.
    #[track_caller]
    fn run(&self, block: &Block, inside: impl Fn(Command) -> Command) -> Ran {
        // The last one that is named here is the one at which a test was stuck.
        eprintln!("{}:{}", block.page, block.line);
        let together = |bash| match block.output {
            Some(_) => under(&["sh", "-c", "exec \"$@\" 2>&1", "sh"], &bash),
            None => bash,
        };
        let ran = run_bwrap(|| {
            self.reset();
            run(&mut self.bash(&block.text, |bash| inside(together(bash))))
        });
        assert_eq!(ran.code, Some(0), "{}:{}: {}\n{ran:#?}", block.page, block.line, block.text);
        if let Some(output) = &block.output {
            let home = self.scratch.join("home");
            let said = ran.out.replace(home.to_str().expect("UTF-8"), "/home/you");
            assert_eq!(&said, output, "{}:{}: {}", block.page, block.line, block.text);
        }
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
        fs::remove_file(scratch.join("new/home/.ssh/id_ed25519")).expect("a key");
        for key in ["host_key", "new/home/.ssh/id_ed25519"] {
            let mut keygen = who.command("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(scratch.join(key))).ok();
        }
        let host_key = fs::read_to_string(scratch.join("host_key.pub")).expect("the host's key");
        scratch.file("new/home/.ssh/known_hosts", format!("example.org {host_key}"));
        let dir = scratch.text();
        scratch.file(
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1:22\nHostKey {dir}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
                 AuthorizedKeysFile {dir}/new/home/.ssh/id_ed25519.pub\nPasswordAuthentication no\n"
            ),
        );
        scratch.file("tinyproxy.conf", "Listen 127.0.0.1\nPort 3128\nMaxClients 100\nLogLevel Warning\n");
        let (home, project) = (scratch.join("new/home"), scratch.join("project"));
        run(place.command("git").args(["clone", "-q", "--bare"]).arg(project).arg(home.join("project.git")))
            .ok();
        place.reset();
        // Ports below 1024 are root's: the user's servers get them from a sysctl of this network.
        let script = r#"
            ip link set lo up
            echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
            mount --bind "$1/hosts" /etc/hosts
            mount --bind "$1/passwd" /etc/passwd
            mount --bind "$1/shadow" /etc/shadow
            mkdir -p /run/sshd
            # The system's settings, which belong to root, whom a user namespace does not know.
            mount -t tmpfs tmpfs /etc/ssh/ssh_config.d
            echo 'Host *' > /etc/ssh/ssh_config.d/system.conf
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
    fn the_blocks_that_need_nothing(who) {
        if let Some(why) = missing(&["git", "make", "bwrap", "curl", "python3", "strace", "nsenter"]) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
        for block in blocks_for(Fixture::None) {
            // All of the user's processes count.
            let _turn = block.text.contains("--nproc").then(|| turn_of(MANY_PROCESSES));
            let ran = place.run(&block, |bash| bash);
            family.ends();
            // What the recipe is for.
            let text = &block.text;
            if text.contains("make test") {
                let thrown_away = text.contains("--tmp-overlay");
                assert!(ran.out.contains("tests pass") && place.exists("project/tested") != thrown_away, "{ran:#?}");
            }
            if text.contains("--tmp-overlay \"$PWD\"") {
                assert!(ran.out.contains("made") && !place.exists("project/made"), "{ran:#?}");
            }
            if text.contains("git apply") {
                assert!(ran.out.contains("+new") && place.exists("project/added"), "{ran:#?}");
            }
            if text.contains(".cache/built") {
                assert!(place.exists("home/.cache/built"), "{ran:#?}");
            }
            if text.contains("http.server") {
                assert!(ran.out.contains("Directory listing") && ran.out.contains("Makefile"), "{ran:#?}");
            }
            if text.contains("ls -l") {
                assert!(ran.out.contains("Makefile"), "{ran:#?}");
            }
            if text.contains("getent") {
                assert!(ran.out.contains("sandbox"), "{ran:#?}");
            }
        }
    }

    fn what_the_agents_recipe_hides_and_protects(who) {
        if let Some(why) = missing(&["git", "make"]) {
            skip!("{why}");
        }
        let _family = Family::new();
        let recipe = agent_recipe();
        let place = Place::new(who);
        let (sandbox, _) = recipe.split_once("  sh -c '").expect("the agent's command");
        let attempt = |command: &str| {
            place.reset();
            let inside = run(&mut place.bash(&format!("{sandbox} sh -c '{command}'\n"), |bash| bash));
            // The control: outside, it works.
            let outside = run(place.command("sh").args(["-c", command]));
            assert_eq!(outside.code, Some(0), "{command}: {outside:#?}");
            inside
        };
        for secret in ["grep hunter2 .env", "cat $HOME/.ssh/id_ed25519"] {
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

    /// What git would run or read outside, later, cannot be written; the positive control is the same write outside.
    fn what_the_worktrees_recipe_protects(who) {
        if let Some(why) = missing(&["git"]) {
            skip!("{why}");
        }
        let _family = Family::new();
        let recipe = page("tests/recipes.md").blocks().into_iter().find(|block| block.text.contains("git worktree"));
        let recipe = recipe.expect("the recipe").text;
        let place = Place::new(who);
        let (setup, sandbox) = recipe.split_once("srt-ns --").expect("the sandbox");
        let (sandbox, _) = sandbox.split_once("  sh -c '").expect("the agent's command");
        let writes = [
            "git config a.b evil", "echo evil >> $common/hooks/pre-commit", "mv $common/hooks $common/old",
            "echo /tmp > $common/commondir", "echo /tmp > $own/commondir", "rm $own/commondir", "echo /tmp > $own/gitdir",
            "echo gitdir: /tmp > .git", "rm .git", "echo evil >> $own/config.worktree",
        ];
        let each: String = writes.iter().map(|write| format!("({write}) 2>/dev/null && echo \"done: {write}\"\n")).collect();
        let script = place.scratch.file("writes", each);
        let attempt = |setup: &str, chain: &str| {
            place.reset();
            let text = format!("{setup}export common own\n{chain} sh {}\n", script.display());
            let ran = run(&mut place.bash(&text, |bash| bash));
            ran.out.lines().filter(|line| line.starts_with("done: ")).count()
        };
        let own_settings = format!("{setup}git config extensions.worktreeConfig true; git config --worktree a.b c\n");
        for (setup, exists) in [(setup, false), (&own_settings, true)] {
            assert_eq!(attempt(setup, &format!("srt-ns --{sandbox}")), 0);
            assert_eq!(place.exists("project/.git/worktrees/task/config.worktree"), exists);
            assert_eq!(attempt(setup, ""), writes.len());
        }
    }

    /// Nothing that a sandbox wrote is executed outside it, or inside without the filter; the positive control is the
    /// same with a name in place of a path.
    fn what_a_sandbox_wrote_starts_none_of_the_programs_of_the_page(who) {
        if let Some(why) = missing(&["make", "python3", "nsenter"]) {
            skip!("{why}");
        }
        let _family = Family::new();
        let place = Place::new(who);
        let block = |word: &str| {
            let found = page("tests/from-a-program.md").blocks().into_iter().find(|block| block.text.contains(word));
            found.expect(word).text
        };
        let planted = |text: &str| {
            place.reset();
            let ran = run(&mut place.bash(text, |bash| bash));
            (ran.code == Some(0), ran.out.contains("planted"))
        };
        let write = "printf '#!/bin/sh\\necho planted\\n' > bin/srt-seccomp && chmod +x bin/srt-seccomp";
        let join = block("nsenter").replace("--tmpfs /tmp", "--tmpfs /tmp --bind \"$PWD\" \"$PWD\"");
        let join = join.replace("-c 'echo inside", &format!("-c '{}; echo inside", write.replace('\'', "\"")));
        let join = format!("mkdir bin && PATH=$PWD/bin:$PATH\n{join}");
        let run_twice = "python3 -I \"$HOME/policy.py\" sh -c 'echo \"print(\\\"planted\\\")\" > subprocess.py'\n\
                         python3 -I \"$HOME/policy.py\" true\n";
        let policy = block("policy.py") + run_twice;
        for (text, control) in [
            (&join, join.replace("\"$tool\"", "srt-seccomp")),
            (&policy, policy.replace("\"$HOME/policy.py\"", "policy.py").replace("python3 -I", "python3")),
        ] {
            assert_eq!(planted(text), (true, false), "{text}");
            assert!(planted(&control).1, "{control}");
        }
    }

    fn the_blocks_with_a_network(who) {
        if let Some(why) = missing(&SERVERS).or(missing(&["bwrap"])) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
        let network = Network::start(&place);
        let inside = |bash: Command| network.inside(&place, &bash);
        for block in blocks_for(Fixture::Network) {
            let ran = place.run(&block, inside);
            assert!(ran.out.contains("this is example.org"), "{ran:#?}");
            if block.text.contains("FilterDefaultDeny") {
                // The one host that is not in the list; with the control that it is there.
                let denied = block.text.replace("http://example.org/", "http://elsewhere.example/");
                let ran = run(&mut place.bash(&denied, inside));
                assert!(!ran.out.contains("this is example.org") && ran.out.contains("ilter"), "{ran:#?}");
                let mut curl = Command::new("curl");
                curl.args(["-sS", "http://elsewhere.example/"]);
                run(&mut place.settle(network.inside(&place, &curl))).ok().says("this is example.org");
            }
        }

        let proxy = network.proxy(&place);
        for block in blocks_for(Fixture::Proxy) {
            let ran = place.run(&block, inside);
            assert_eq!(ran.out.contains("this is example.org"), block.text.contains("curl"), "{ran:#?}");
        }

        let socket = place.scratch.join("run/proxy.sock");
        let relay = network.serve(&place, "srt-relay", &[&format!("unix:{}", socket.display()), "tcp:127.0.0.1:3128"]);
        srt_tests::wait_until("srt-relay", || socket.exists());
        for block in blocks_for(Fixture::Relay) {
            let ran = place.run(&block, inside);
            if block.text.contains("git clone") {
                assert!(place.exists("project/project/Makefile"), "{ran:#?}");
                // The control: without -F none an ordinary user's ssh refuses the settings of the system.
                place.reset();
                let ran = run(&mut place.bash(&block.text.replace("-F none ", ""), inside));
                assert_eq!(ran.err.contains("Bad owner"), who == Who::User, "{ran:#?}");
                assert_ne!(ran.code, Some(0), "a ControlMaster needs a Unix socket: {ran:#?}");
            }
            assert_eq!(ran.out.contains("this is example.org"), block.text.contains("curl"), "{ran:#?}");
        }
        drop((proxy, relay, network));
        family.ends();
    }

    fn the_blocks_with_a_tun_device(who) {
        if let Some(why) = missing(&["slirp4netns", "ip"]) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
        let script = r#"mknod tun c 10 200 && chmod 666 tun && mount --bind tun /dev/net/tun && shift && exec "$@""#;
        let with_tun = |inner: Command| {
            let script = format!("cd \"$1\" && {script}");
            under(&["unshare", "--mount", "sh", "-euc", &script, "sh", place.scratch.text()], &inner)
        };
        for block in blocks_for(Fixture::Tun) {
            let text = format!("cd \"$HOME/../project\"\n{}", block.text);
            let ran = place.run(&Block { text, ..block }, with_tun);
            assert!(ran.out.contains("inet 10.0.2.100/24"), "{ran:#?}");
            family.ends();
        }
    }

    fn the_blocks_on_a_terminal(who) {
        let family = Family::new();
        let place = Place::new(who);
        for block in blocks_for(Fixture::Terminal) {
            let mut talk = Talk::on_terminal(who, &mut place.bash(&block.text, |bash| bash));
            talk.send("echo $((40 + 2)); sleep 1000 & jobs\n");
            talk.expect("42");
            talk.expect("Running");
            talk.send("exit\n");
            let (code, said) = talk.end();
            assert_eq!(code, 0, "{}:{}: {said}", block.page, block.line);
            family.ends();
        }
    }

    fn the_blocks_inside_docker(who) {
        if let Some(why) = missing(&["make", "git", "setpriv"]) {
            skip!("{why}");
        }
        let family = Family::new();
        let place = Place::new(who);
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
            let ran = place.run(&block, docker);
            family.ends();
            assert!(ran.out.contains("tests pass"), "{ran:#?}");
        }
        // It is such a container: what works elsewhere is refused.
        for text in ["srt-ns -- true", "srt-ns --allow-userns -- srt-mount --ro-bind / / --proc /proc -- true"] {
            run(&mut place.bash(text, docker)).code(125).complains("hint: ");
        }
    }
}

#[test]
fn the_blocks_for_root() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    let family = Family::new();
    let place = Place::new(Who::Root);
    for block in blocks_for(Fixture::Root) {
        let ran = place.run(&block, |bash| bash);
        family.ends();
        assert!(ran.out.starts_with("uid=1000") && !ran.out.contains("uid=0"), "{ran:#?}");
        // Outside, too, it is not root: what only root may read cannot be read. With --uid alone it can.
        let read = block.text.replace("-- id", "-- grep root: /etc/shadow");
        assert_ne!(run(&mut place.bash(&read, |bash| bash)).code, Some(0));
        let (_, sandbox) = read.split_once("srt-ns").expect("the sandbox");
        run(&mut place.bash(&format!("srt-ns --uid 1000{sandbox}"), |bash| bash)).ok();
    }
}

/// CI runs the same commands, in the same order; they are the first ones in README.
#[test]
fn the_two_commands_are_what_ci_runs() {
    let all: Vec<_> = blocks().into_iter().filter(|block| fixture(block) == Fixture::Setup).collect();
    assert!(all.iter().all(|block| block.page == "README.md"), "{all:?}");
    assert_eq!(page("README.md").blocks()[..2].iter().map(fixture).collect::<Vec<_>>(), [Fixture::Setup; 2]);
    let commands: Vec<&str> = all.iter().flat_map(|block| block.text.trim().split(" && ")).collect();
    assert_eq!(commands, ["cargo build --release", "tests/first-job", "tests/all"]);
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
        run(Who::Root.command("git").args(["-c", "safe.directory=*", "clone", "-q", "--depth=1"]).arg(format!("file://{}", checkout.display())).arg(&clone)).ok();
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

/// The whole of it takes minutes, and CI runs the quick one; here, its smallest part. What it builds for release is
/// what is installed next.
#[test]
fn the_benchmark_prints_a_table_and_what_it_built_can_be_installed() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    let _family = Family::new();
    let scratch = Who::Root.scratch();
    let json = scratch.join("bench.json");
    // Not `run`, which has a deadline: the first time, this compiles for a minute. It does so in a place of its own, where
    // nobody takes the result for a release, and without what a release is optimized with: link-time optimization of five
    // tools takes longer than all else here.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    let sh = |script: String| {
        let mut command = Command::new("sh");
        command.args(["-euc", &script, "sh"]).arg(&json).env("CARGO_INSTALL_ROOT", scratch.path());
        command.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_RELEASE_LTO", "off");
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        let ran = command.env("CARGO_NET_OFFLINE", "true").current_dir(workspace()).output().expect("sh");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{script}: {out}\n{err}");
        out.into_owned()
    };
    let tools = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];
    for block in blocks_for(Fixture::Bench) {
        let out = sh(format!("{} --quick --only binaries --json \"$1\"", block.text.trim()));
        for tool in tools.into_iter().chain(["bubblewrap"]) {
            assert!(out.contains(&format!("\n    {tool} ")), "no {tool} in\n{out}");
        }
        assert!(fs::read_to_string(&json).expect("JSON").contains("srt-connect"));
    }
    for block in blocks_for(Fixture::Install) {
        sh(block.text);
        for tool in tools {
            run(Command::new(scratch.join("bin").join(tool)).arg("--version")).ok();
        }
    }
}
