//! What the tools are measured beside: where it is, which version.

use std::process::Command;

/// What a program says to `--version`, in one line.
pub fn version(program: impl AsRef<std::ffi::OsStr>, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Some(said.lines().find(|line| !line.trim().is_empty())?.trim().to_owned())
}

/// The kernel and the processors.
pub fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {}, {}, {processors} processors", kernel.trim(), std::env::consts::ARCH)
}

/// How this was linked, and with it the tools, which cargo builds for the same target.
pub fn linkage() -> &'static str {
    match (cfg!(target_env = "musl"), cfg!(target_feature = "crt-static")) {
        (true, true) => "static, musl",
        (true, false) => "dynamic, musl",
        (false, true) => "static, glibc",
        (false, false) => "dynamic, glibc",
    }
}
