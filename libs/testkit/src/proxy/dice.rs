//! Chance, from a seed.

use std::sync::{Mutex, PoisonError};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Chance that all connections of a proxy share.
#[derive(Debug)]
pub(super) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// True once in `number` times.
    pub(super) fn one_in(&self, number: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..number.max(1)) == 0
    }

    /// From 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
