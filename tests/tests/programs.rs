//! Real programs in the sandbox of README's recipe for an agent: a JVM, node, npm, python and cargo do their work in the
//! project, and what they write elsewhere is refused. (git and make: srt-seccomp's tests.)

#![allow(clippy::expect_used, clippy::panic)]

use srt_tests::pages::agent_recipe;
use srt_tests::{Scratch, Who, both, has, landlock_abi, path_with_tools, run, skip};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user with a home and a project. Not in /tmp, which the recipe hides. `$OUT` is a file outside of the project.
struct Place {
    who: Who,
    scratch: Scratch,
}

impl Place {
    fn new(who: Who) -> Self {
        let scratch = who.scratch_in("/var/tmp");
        for dir in ["home/.cargo", "home/.npm", "outside", "project/.git"] {
            scratch.dir(dir);
        }
        Self { who, scratch }
    }

    /// A command of the user's, in the project.
    fn command(&self, program: &str) -> Command {
        let mut command = self.who.command(program);
        // Not what cargo has set for this test: cargo reads it, too.
        command.env_clear().env("PATH", path_with_tools()).env("LC_ALL", "C.UTF-8");
        command.env("HOME", self.scratch.join("home")).env("OUT", self.outside());
        command.current_dir(self.scratch.join("project"));
        command
    }

    /// The same in the recipe's sandbox, with more words for srt-mount and srt-seccomp, as a shell reads them. Where
    /// Landlock is too old for `--landlock`, without it.
    fn inside(&self, mount: &str, seccomp: &str, program: &str) -> Command {
        let recipe = agent_recipe();
        let stage = " -- \\\n  srt-seccomp --landlock -- \\\n";
        let (sandbox, _) = recipe.split_once(stage).expect("the last stage");
        let landlock = if landlock_abi() >= 5 { "--landlock" } else { "" };
        let script = format!("{sandbox} {mount} -- srt-seccomp {landlock} {seccomp} -- \"$@\"");
        let mut command = self.command("sh");
        command.args(["-euc", &script, "sh", program]);
        command
    }

    fn outside(&self) -> PathBuf {
        self.scratch.join("outside/file")
    }

    /// The control of a refused write: this command, out of the sandbox, has done it.
    #[track_caller]
    fn control(&self, command: &mut Command, says: &str) {
        assert!(!self.outside().exists(), "it is written from inside");
        run(command).ok().says(says);
        assert!(self.outside().exists(), "the control");
    }
}

/// A cgroup of the test's own.
struct Cgroup(PathBuf);

impl Cgroup {
    /// With this limit, in the hierarchy that has it.
    fn with_memory(who: Who, bytes: u64) -> Option<Self> {
        let name = format!("srt-programs-{}-{}", who.uid(), std::process::id());
        let versions = [("memory", "memory.limit_in_bytes"), ("", "memory.max")];
        versions.iter().find_map(|(controller, limit)| {
            let hierarchy = Path::new("/sys/fs/cgroup").join(controller);
            if !hierarchy.join("cgroup.procs").exists() {
                return None;
            }
            fs::create_dir(hierarchy.join(&name)).ok()?;
            let cgroup = Self(hierarchy.join(&name));
            let mut limit = File::options().write(true).open(cgroup.0.join(limit)).ok()?;
            limit.write_all(bytes.to_string().as_bytes()).ok()?;
            Some(cgroup)
        })
    }

    /// The command starts in it.
    fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let processes = File::options().write(true).open(self.0.join("cgroup.procs")).expect("a cgroup");
        // SAFETY: write(2) alone. 0 is the writer (cgroups(7)).
        unsafe { command.pre_exec(move || (&processes).write_all(b"0")) }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _busy = fs::remove_dir(&self.0);
    }
}

both! {
    fn a_jvm_takes_a_quarter_of_its_cgroups_limit_for_its_heap(who) {
        if !has("java") {
            skip!("no java");
        }
        let Some(cgroup) = Cgroup::with_memory(who, 512 << 20) else {
            skip!("no cgroup with a limit of memory can be had");
        };
        let place = Place::new(who);
        let heap = |mount| -> u64 {
            let mut java = place.inside(mount, "", "java");
            let ran = run(cgroup.enter(java.args(["-XX:+PrintFlagsFinal", "-version"])));
            let line = ran.ok().out.lines().find(|line| line.contains(" MaxHeapSize ")).expect("the flag");
            line.split_whitespace().nth(3).and_then(|bytes| bytes.parse().ok()).expect("bytes")
        };
        assert_eq!(heap("--sys /sys"), 128 << 20);
        assert!(heap("") > 128 << 20, "the control: by the host's /sys it is the host's quarter");
    }

    fn a_jvm_works_in_the_project(who) {
        if !has("java") {
            skip!("no java");
        }
        let place = Place::new(who);
        let logs = |to: &str| ["-Xlog:gc*:file=".to_owned() + to, "-version".to_owned()];
        run(place.inside("", "", "java").args(logs("gc.log"))).ok();
        assert!(fs::read_to_string(place.scratch.join("project/gc.log")).expect("a log").contains("[gc"));
        let outside = place.outside();
        let outside = logs(outside.to_str().expect("UTF-8"));
        run(place.inside("", "", "java").args(&outside)).code(1);
        place.control(place.command("java").args(&outside), "");
    }

    fn nodes_workers_and_processes_talk(who) {
        if !has("node") {
            skip!("no node");
        }
        let place = Place::new(who);
        place.scratch.file("project/talk.js", r#"
            const { fork } = require("child_process"), { writeFileSync } = require("fs"), net = require("net");
            const { Worker, isMainThread, parentPort, workerData } = require("worker_threads");
            const worker = n => new Promise(done => new Worker(__filename, { workerData: n }).on("message", done));
            if (!isMainThread) {
                parentPort.postMessage(2 * workerData);
            } else if (process.argv[2] == "client") {
                const client = net.connect("socket", () => client.write("21"));
                client.on("data", answer => { process.send(String(answer)); client.end(); process.disconnect(); });
            } else {
                Promise.all([1, 2, 3].map(worker)).then(all => {
                    console.log(all.join());
                    try { writeFileSync(process.env.OUT, ""); console.log("written"); } catch (e) { console.log(e.code); }
                    const server = net.createServer(peer => peer.on("data", n => peer.end(String(2 * n))));
                    server.listen("socket", () => fork(__filename, ["client"]).on("message", answer => {
                        console.log(answer);
                        server.close();
                    }));
                });
            }"#);
        run(place.inside("", "--allow unix", "node").arg("talk.js")).ok().says("2,4,6\nEROFS\n42");
        run(place.inside("", "", "node").arg("talk.js")).code(1).says("2,4,6\nEROFS").complains("listen EPERM");
        place.control(place.command("node").arg("talk.js"), "2,4,6\nwritten\n42");
    }

    fn npm_installs_runs_and_packs(who) {
        if !has("npm") {
            skip!("no npm");
        }
        let place = Place::new(who);
        for (file, text) in [
            ("package.json", r#"{"name": "project", "version": "1.0.0", "scripts": {"test": "node test.js"}, "dependencies": {"lib": "file:lib"}}"#),
            ("lib/package.json", r#"{"name": "lib", "version": "1.0.0", "main": "lib.js"}"#),
            ("lib/lib.js", "module.exports = 42;"),
            ("test.js", r#"console.log(require("lib"));
                try { require("fs").writeFileSync(process.env.OUT, ""); console.log("written"); } catch (e) { console.log(e.code); }"#),
        ] {
            place.scratch.file(format!("project/{file}"), text);
        }
        // recipes.md: Caches.
        let cache = r#"--overlay-src "$HOME/.npm" --tmp-overlay "$HOME/.npm""#;
        let script = "npm install --silent --offline && npm test --silent && npm pack --silent";
        run(place.inside(cache, "", "sh").args(["-c", script])).ok().says("42\nEROFS\nproject-1.0.0.tgz");
        assert!(place.scratch.join("project/project-1.0.0.tgz").exists());
        assert!(fs::read_dir(place.scratch.join("home/.npm")).expect("the cache").next().is_none());
        place.control(place.command("node").arg("test.js"), "42\nwritten");
    }

    fn pythons_pools_work(who) {
        if !has("python3") {
            skip!("no python3");
        }
        let place = Place::new(who);
        place.scratch.file("project/pool.py", r#"
import errno, multiprocessing, os, sys

def work(x):
    try:
        open(os.environ["OUT"], "w")
        return x + 1, "written"
    except OSError as error:
        return x + 1, errno.errorcode[error.errno]

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(pool.map(work, [1, 2]))
"#);
        let pool = |seccomp, method| run(place.inside("", seccomp, "python3").args(["pool.py", method]));
        pool("", "fork").ok().says("[(2, 'EROFS'), (3, 'EROFS')]");
        // It listens at a Unix socket for those who want a process.
        pool("--allow unix", "forkserver").ok().says("[(2, 'EROFS'), (3, 'EROFS')]");
        pool("", "forkserver").code(1).says("").complains("PermissionError");
        place.control(place.command("python3").args(["pool.py", "fork"]), "[(2, 'written'), (3, 'written')]");
    }
}

/// By the toolchain that built this test, which is often in a home that an ordinary user cannot read.
#[test]
fn cargo_builds_and_runs() {
    if !srt_tests::am_root() {
        skip!("the tests do not run as root");
    }
    let toolchain = Path::new(env!("CARGO")).parent().expect("a directory");
    if !toolchain.exists() {
        skip!("no {}", toolchain.display());
    }
    let place = Place::new(Who::Root);
    place.scratch.file("project/Cargo.toml", "[package]\nname = \"project\"\nedition = \"2024\"\n");
    place.scratch.file(
        "project/src/main.rs",
        r#"fn main() {
            let out = std::env::var_os("OUT").expect("OUT");
            println!("{:?}", std::fs::write(out, "").map_err(|error| error.kind()));
        }"#,
    );
    let mut path = toolchain.as_os_str().to_owned();
    path.push(":");
    path.push(path_with_tools());
    let cargo = |mut command: Command| {
        command.env("PATH", &path).args(["run", "--quiet", "--offline"]);
        command
    };
    run(&mut cargo(place.inside("", "", "cargo"))).ok().says("Err(ReadOnlyFilesystem)");
    place.control(&mut cargo(place.command("cargo")), "Ok(())");
}
