//! Dice of which every throw follows from the seed.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The throws of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c908)
    }

    /// Other dice, which follow from these.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is above zero.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From `low` to `high`, both included.
    pub const fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whole milliseconds from `low` to `high`, both included.
    pub const fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.range(low, high))
    }

    /// Whole milliseconds from `low` to one of `highs`: mostly short and sometimes long.
    pub const fn varied(&mut self, low: u64, highs: &[u64]) -> Duration {
        let high = *self.pick(highs);
        self.millis(low, high)
    }

    /// True with this probability, in millionths.
    pub const fn chance(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < millionths as u64
    }

    /// True in so many of a hundred cases.
    pub const fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent as u64
    }

    /// One of them.
    pub const fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
