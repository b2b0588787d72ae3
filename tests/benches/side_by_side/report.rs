//! What was measured: rows with a figure for each peer, the table, the targets, the JSON.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The tools under test.
pub const TOOLS: [&str; 5] = ["srt-ns", "srt-mount", "srt-seccomp", "srt-relay", "srt-connect"];

/// Those that a chain is made of.
const STAGES: [&str; 3] = ["srt-ns", "srt-mount", "srt-seccomp"];

/// Programs of the benchmark's own.
const OWN: [&str; 3] = ["floor", "first-byte", "load-filter"];

/// All there is to report, and how thorough to be.
pub struct Bench {
    /// A fifth of the time, for CI.
    pub quick: bool,
    /// Where the tools under test were built.
    pub built: PathBuf,
    /// A directory that goes away in the end, which everybody may enter, and which is not in /tmp: sandboxes have a /tmp
    /// of their own.
    pub work: tempfile::TempDir,
    /// A copy of the tools in it, so that an ordinary user can run them wherever the checkout lies.
    pub tools: PathBuf,
    /// The same of the three stages built with musl, as releases are: `SRT_BENCH_MUSL` names where they are.
    pub musl: Option<PathBuf>,
    pub rows: Vec<Row>,
    /// Peers that could not be had, and what could not be measured here, each with the reason.
    pub missing: Vec<String>,
    started: Instant,
}

/// The distribution of one figure.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    pub min: f64,
    pub p10: f64,
    pub p25: f64,
    pub median: f64,
    pub p75: f64,
    pub n: usize,
}

impl Stats {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        // Between the two neighbours of the place, as numpy and R do it.
        let at = |part: f64| {
            let place = part * values.len().saturating_sub(1) as f64;
            let (low, high) = (values.get(place.floor() as usize), values.get(place.ceil() as usize));
            let (low, high) = (*low.unwrap_or(&f64::NAN), *high.unwrap_or(&f64::NAN));
            low + (high - low) * place.fract()
        };
        Self { min: at(0.0), p10: at(0.1), p25: at(0.25), median: at(0.5), p75: at(0.75), n: values.len() }
    }
}

/// One peer's figure in a row.
pub struct Figure {
    pub who: String,
    pub value: Stats,
    /// Ours over this one's, round by round; none for ours.
    pub ratio: Option<Stats>,
}

/// What the project wants of a figure.
#[derive(Clone, Debug)]
pub struct Target {
    /// The peer by the start of its name, whose ratio is meant; without one, our own figure.
    pub peer: Option<&'static str>,
    pub bound: f64,
    /// Otherwise at least.
    pub at_most: bool,
}

impl Target {
    /// Ours is at most this part of the peer's.
    pub fn at_most(bound: f64, peer: &'static str) -> Self {
        Self { peer: Some(peer), bound, at_most: true }
    }

    /// Ours is at least so many times the peer's.
    pub fn at_least(bound: f64, peer: &'static str) -> Self {
        Self { peer: Some(peer), bound, at_most: false }
    }

    /// Our own figure is at most this.
    pub fn own_at_most(bound: f64) -> Self {
        Self { peer: None, bound, at_most: true }
    }

    /// Our own figure is at least this.
    pub fn own_at_least(bound: f64) -> Self {
        Self { peer: None, bound, at_most: false }
    }
}

/// One thing measured, for all peers.
pub struct Row {
    pub group: &'static str,
    pub what: String,
    pub unit: &'static str,
    /// Ours first.
    pub figures: Vec<Figure>,
    pub targets: Vec<Target>,
}

/// A target beside what was measured.
pub struct Verdict {
    pub peer: String,
    pub measured: f64,
    pub target: Target,
    pub met: bool,
}

impl Row {
    /// A row from what each peer's rounds gave, ours first; a round's values are at the same place in all of them.
    pub fn compare(
        group: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        measured: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let own = measured.first().map_or(vec![], |(_, values)| values.clone());
        let figures = measured.into_iter().enumerate().map(|(place, (who, values))| {
            let pairs = own.iter().zip(&values).map(|(own, other)| own / other).collect();
            Figure { who, value: Stats::of(values), ratio: (place > 0).then(|| Stats::of(pairs)) }
        });
        Self { group, what: what.into(), unit, figures: figures.collect(), targets: vec![] }
    }

    /// A row of figures that are not for comparison with the first.
    pub fn list(
        group: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        measured: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let figures =
            measured.into_iter().map(|(who, values)| Figure { who, value: Stats::of(values), ratio: None });
        Self { group, what: what.into(), unit, figures: figures.collect(), targets: vec![] }
    }

    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// The targets, as ratios of medians; those of peers that are missing are left out.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let own = self.figures.first().map_or(f64::NAN, |figure| figure.value.median);
        let verdict = |target: &Target| {
            let (peer, measured) = match target.peer {
                None => (String::new(), own),
                Some(peer) => {
                    let figure = self.figures.iter().skip(1).find(|figure| figure.who.starts_with(peer))?;
                    (figure.who.clone(), own / figure.value.median)
                }
            };
            let met = if target.at_most { measured <= target.bound } else { measured >= target.bound };
            Some(Verdict { peer, measured, target: target.clone(), met })
        };
        self.targets.iter().filter_map(verdict).collect()
    }

    fn text(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        let mut text = format!("{}: {}{unit}\n", self.group, self.what);
        for figure in &self.figures {
            let Stats { median, p10, p25, p75, n, .. } = figure.value;
            let spread = match n {
                0 | 1 => String::new(),
                _ => format!("({} to {}; p10 {})", number(p25), number(p75), number(p10)),
            };
            let mut line = format!("    {:38} {:>9} {spread:22}", figure.who, number(median));
            // None where both are 0.
            if let Some(Stats { median, p25, p75, .. }) = figure.ratio.filter(|ratio| !ratio.median.is_nan())
            {
                _ = write!(line, " ours/this {} ({} to {})", number(median), number(p25), number(p75));
            }
            text += line.trim_end();
            text.push('\n');
        }
        for verdict in self.verdicts() {
            _ = writeln!(text, "    {}", verdict.text());
        }
        text
    }

    fn json(&self) -> String {
        let stats = |stats: &Stats| {
            let Stats { min, p10, p25, median, p75, n } = *stats;
            let [min, p10, p25, median, p75] = [min, p10, p25, median, p75].map(json_number);
            format!(r#"{{"min":{min},"p10":{p10},"p25":{p25},"median":{median},"p75":{p75},"n":{n}}}"#)
        };
        let figure = |figure: &Figure| {
            let ratio = figure.ratio.as_ref().map_or("null".to_owned(), stats);
            format!(
                r#"{{"who":{},"value":{},"ratio":{ratio}}}"#,
                json_text(&figure.who),
                stats(&figure.value)
            )
        };
        let verdict = |verdict: Verdict| {
            let (peer, measured) = (json_text(&verdict.peer), json_number(verdict.measured));
            let (bound, way) =
                (verdict.target.bound, if verdict.target.at_most { "at most" } else { "at least" });
            format!(r#"{{"peer":{peer},"measured":{measured},"{way}":{bound},"met":{}}}"#, verdict.met)
        };
        format!(
            r#"{{"group":{},"what":{},"unit":{},"figures":[{}],"targets":[{}]}}"#,
            json_text(self.group),
            json_text(&self.what),
            json_text(self.unit),
            self.figures.iter().map(figure).collect::<Vec<_>>().join(","),
            self.verdicts().into_iter().map(verdict).collect::<Vec<_>>().join(","),
        )
    }
}

impl Verdict {
    fn cells(&self) -> String {
        let way = if self.target.at_most { "≤" } else { "≥" };
        let said = if self.met { "met" } else { "**missed**" };
        format!("{} | {} | {way} {} | {said} |", self.peer, number(self.measured), number(self.target.bound))
    }

    fn text(&self) -> String {
        let way = if self.target.at_most { "at most" } else { "at least" };
        let of = if self.peer.is_empty() { String::new() } else { format!(" of {}", self.peer) };
        let said = if self.met { "met" } else { "MISSED" };
        format!("{said}: {}{of}, target {way} {}", number(self.measured), number(self.target.bound))
    }
}

fn copy(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        fs::copy(from.join(name), to.join(name))
            .map_err(|error| format!("{}: {error}", from.join(name).display()))?;
    }
    Ok(())
}

impl Bench {
    pub fn new(quick: bool) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("srt-bench-").tempdir_in("/var/tmp")?;
        fs::set_permissions(work.path(), Permissions::from_mode(0o755))?;
        // target/…/release/deps/this → target/…/release
        let exe = std::env::current_exe()?;
        let built = exe.ancestors().find(|dir| dir.join("srt-ns").is_file());
        let built = built.ok_or("srt-ns is not built: cargo build --release first, or run tests/bench")?;
        let tools = work.path().join("bin");
        // SRT_TOOLS: other builds of the tools (an absolute path), those with musl for one.
        let given = std::env::var_os("SRT_TOOLS").map(PathBuf::from);
        copy(given.as_deref().unwrap_or(built), &tools, &TOOLS)?;
        copy(built, &tools, &OWN)?;
        let musl = std::env::var_os("SRT_BENCH_MUSL").map(PathBuf::from);
        if let Some(musl) = &musl {
            copy(musl, &work.path().join("musl"), &STAGES)?;
        }
        let musl = musl.map(|_| work.path().join("musl"));
        let built = built.to_path_buf();
        Ok(Self { quick, built, work, tools, musl, rows: vec![], missing: vec![], started: Instant::now() })
    }

    /// Keeps a row, and shows it at once.
    pub fn add(&mut self, row: Row) {
        println!("{}", row.text());
        self.rows.push(row);
    }

    /// Notes what could not be measured and why, once.
    pub fn miss(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    /// One of two, by how thorough to be.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The targets again, all in one place, as COSTS.md has them, and what is missing.
    pub fn print_end(&self) {
        println!("| what | beside | measured | target | |\n| --- | --- | --- | --- | --- |");
        for row in &self.rows {
            for verdict in row.verdicts() {
                println!("| {}: {} | {}", row.group, row.what, verdict.cells());
            }
        }
        println!("\nRatios of medians: ours over the one beside; a figure of our own where there is none.");
        for missing in &self.missing {
            println!("missing: {missing}");
        }
        println!("took {} s", self.elapsed().as_secs());
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn json(&self) -> String {
        format!(
            "{{\"quick\":{},\"machine\":{},\"seconds\":{},\"missing\":[{}],\"rows\":[\n{}\n]}}\n",
            self.quick,
            json_text(&crate::peers::machine()),
            self.elapsed().as_secs(),
            self.missing.iter().map(|text| json_text(text)).collect::<Vec<_>>().join(","),
            self.rows.iter().map(Row::json).collect::<Vec<_>>().join(",\n"),
        )
    }
}

/// Three significant digits, all of a whole number.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        _ if value.fract() == 0.0 && value.abs() < 1e9 => format!("{value}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// JSON has no NaN.
fn json_number(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { "null".to_owned() }
}

fn json_text(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => _ = write!(json, "\\u{:04x}", u32::from(c)),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
