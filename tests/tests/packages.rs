//! What tests/release packs, made here of the tools under test: whole, the same bytes each time, and it works. (The builds
//! themselves and a new Debian take longer: tests/release by hand.)

use srt_tests::pages::workspace;
use srt_tests::{Who, run, run_with_input, tool};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOOLS: [&str; 5] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Runs tests/package on stripped copies of `from`.
fn pack(to: &Path, umask: &str, from: impl Fn(&str) -> PathBuf) {
    let built = Who::Root.scratch();
    for name in TOOLS {
        run(Command::new("strip").arg("-o").arg(built.join(name)).arg(from(name))).ok();
    }
    let script = format!("umask {umask} && exec tests/package \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", &target()]).arg(built.path()).arg(to);
    // Whoever clones may be another user than the one who runs this.
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        // dpkg-deb(1): a release's level would be half of the whole test, and no byte is compared with a release's.
        .env("DPKG_DEB_COMPRESSOR_LEVEL", "0");
    // Longer than any deadline of a tool's: two compressors on a busy machine.
    let output = command.current_dir(workspace()).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The one file in a directory whose name ends like this.
fn ending(directory: &Path, end: &str) -> PathBuf {
    let mut all = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    all.find(|path| path.to_string_lossy().ends_with(end)).unwrap_or_else(|| panic!("no {end}"))
}

/// The man pages and completions of the repository: what stands at `path` below a tool's directory or srt-common.
fn committed(chosen: impl Fn(&Path) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for directory in TOOLS.iter().chain(&["srt-common"]).map(|name| workspace().join(name)) {
        for directory in [directory.join("completions"), directory] {
            let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
            let names = files.filter(|path| path.is_file() && chosen(path));
            found.extend(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
        }
    }
    found
}

#[test]
fn what_is_packed_is_whole_the_same_bytes_each_time_and_works() {
    // Any program will do to compare, and a small one is quicker to compress.
    let [one, another, real] = [(); 3].map(|()| Who::Root.scratch());
    let small = |_: &str| PathBuf::from("/bin/true");
    std::thread::scope(|scope| {
        scope.spawn(|| pack(one.path(), "022", small));
        scope.spawn(|| pack(another.path(), "077", small));
        scope.spawn(|| pack(real.path(), "022", tool));
    });
    run(Command::new("diff").arg("--recursive").args([one.path(), another.path()])).ok();
    the_tarball_has_the_tools_their_pages_and_the_sums_of_all_files(real.path());
    the_sbom_names_what_is_linked_and_each_has_its_license(real.path());
    what_the_package_installs_makes_a_sandbox(real.path(), Who::Root);
    what_the_package_installs_makes_a_sandbox(real.path(), Who::User);
}

fn the_tarball_has_the_tools_their_pages_and_the_sums_of_all_files(out: &Path) {
    let into = Who::Root.scratch();
    run(Command::new("tar").arg("-xzf").arg(ending(out, ".tar.gz")).arg("-C").arg(into.path())).ok();
    let top = ending(into.path(), &target());
    run(Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&top))
        .ok();
    let sums = fs::read_to_string(top.join("SHA256SUMS")).expect("sums");
    let files: BTreeSet<_> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<_> = files.iter().map(|path| base(path)).collect();
    for name in TOOLS {
        assert!(files.contains(&*format!("bin/{name}")), "{files:#?}");
    }
    let docs = ["copyright", "sbom.cdx.json", "LICENSE", "README.md", "CHANGELOG.md", "events.schema.json"];
    for name in docs {
        assert!(files.contains(&*format!("share/doc/srt/{name}")), "{files:#?}");
    }
    let page = |path: &Path| path.extension().is_some_and(|end| end == "1" || end == "7");
    let completion = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("completions"));
    for name in committed(|path| page(path) || completion(path)) {
        let name = name.strip_suffix(".bash").unwrap_or(&name);
        assert!(names.contains(name), "{name} is not in {files:#?}");
    }
}

fn the_sbom_names_what_is_linked_and_each_has_its_license(out: &Path) {
    let into = Who::Root.scratch();
    run(Command::new("dpkg-deb").arg("--extract").arg(ending(out, ".deb")).arg(into.path())).ok();
    let script = "import json, sys
for one in json.load(sys.stdin)['components']: print(one['name'], ' '.join(l['expression'] for l in one['licenses']))";
    let bom = fs::read(into.join("usr/share/doc/srt/sbom.cdx.json")).expect("an SBOM");
    let said = run_with_input(Command::new("python3").args(["-c", script]), &bom);
    let mut names: Vec<_> = said.ok().out.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    let mut expected = vec!["argh", "argh_shared", "libc", "rust-std", "seccompiler", "srt-common"];
    expected.extend(TOOLS);
    expected.sort_unstable();
    assert_eq!(names, expected);
    let text = fs::read_to_string(into.join("usr/share/doc/srt/copyright")).expect("licenses");
    for name in names.iter().filter(|name| **name != "rust-std") {
        assert!(text.contains(&format!("== {name} ")), "{name} has no license there");
    }
}

/// One number, in one place: all crates have the workspace's.
#[test]
fn every_crate_has_the_version_of_the_workspace() {
    for name in TOOLS.iter().chain(&["srt-common", "tests"]) {
        let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("\nversion.workspace = true\n"), "{name}");
        let versions: Vec<_> = manifest.lines().filter(|line| line.starts_with("version")).collect();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
}

fn what_the_package_installs_makes_a_sandbox(out: &Path, who: Who) {
    let into = who.scratch();
    run(Command::new("dpkg-deb").arg("--extract").arg(ending(out, ".deb")).arg(into.path())).ok();
    let root = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"];
    let command = &mut who.command(into.join("usr/bin/srt-ns"));
    command.args(["--", "srt-mount"]).args(root).args(["srt-seccomp", "--", "cat", "/proc/1/comm"]);
    run(command.env("PATH", "/usr/bin:/bin")).ok().says("srt-init");
}
