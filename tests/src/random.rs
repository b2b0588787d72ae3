//! Random tests that can be repeated: each round has a seed, and a failure tells it.

use std::time::Duration;

/// Numbers that look random, from a seed: splitmix64, which makes unlike sequences of seeds that are alike.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A new sequence every time; `SRT_SEED` repeats one.
    pub fn unlike_before() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("time");
        let seed = number("SRT_SEED").unwrap_or(now.as_nanos() as u64);
        eprintln!("SRT_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A time below `limit`.
    pub fn time_below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.bits() as f64 / u64::MAX as f64)
    }
}

/// Runs `usual` rounds with the seeds 1, 2, 3… `SRT_SEED=7` runs the one with seed 7, `SRT_SEED=7 SRT_ROUNDS=1000` a
/// thousand from there on. Tells the seed of the round that fails.
pub fn rounds(usual: u64, mut round: impl FnMut(&mut Random)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("SRT_SEED={} repeats this", self.0);
            }
        }
    }
    let first = number("SRT_SEED");
    let count = number("SRT_ROUNDS").unwrap_or(if first.is_some() { 1 } else { usual });
    let first = first.unwrap_or(1);
    for seed in first..first.saturating_add(count) {
        let seed = Seed(seed);
        round(&mut Random::new(seed.0));
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
