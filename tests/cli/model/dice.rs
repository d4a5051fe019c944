//! Dice that fall the same way for the same seed, and the seeds of a test.

use std::env;
use std::ops::Range;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one, which is not zero.
    pub fn throw(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }

    /// Whether something happens that happens once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.throw(times) == 0
    }

    /// A number of milliseconds below this one, small ones more often.
    pub fn moment(&mut self, below: usize) -> u64 {
        let below = self.throw(below) + 1;
        self.throw(below) as u64
    }

    /// One of these; `None` if there are none.
    pub fn one<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.throw(all.len())) }
    }
}

/// The seeds of a test: so many from `PIPELINE_SEED` on, or as many as `PIPELINE_ROUNDS` says.
pub fn seeds(rounds: u64) -> Range<u64> {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")))
    };
    let first = number("PIPELINE_SEED").unwrap_or(0);
    first..first.saturating_add(number("PIPELINE_ROUNDS").unwrap_or(rounds))
}
