//! Stride scheduling over fairness keys, per band.

use std::collections::HashMap;

use crate::{
    engine::EntryKey,
    rules::{self, is_stale, next_pass},
};

/// Keys remembered before stale ones are looked for.
const PRUNE_FROM: usize = 1024;

/// Last passes of the fairness keys and the virtual time of each band.
#[derive(Default)]
#[cfg_attr(feature = "simulation", derive(Clone))]
pub(super) struct Fairness {
    last: HashMap<(u8, u32), u64>,
    virtual_time: HashMap<u8, u64>,
    prune_at: usize,
}

impl Fairness {
    /// The pass of the next entry of a key.
    pub(super) fn next(&mut self, key: &EntryKey) -> u64 {
        let virtual_time = self.virtual_time.get(&key.band).copied().unwrap_or(0);
        let last = self.last.get(&(key.band, key.fairness)).copied();
        let pass = next_pass(last, virtual_time);
        self.last.insert((key.band, key.fairness), pass);
        self.prune();
        pass
    }

    /// One call gave out `count` entries of a band, the last one at `pass`.
    pub(super) fn served(&mut self, band: u8, pass: u64, count: u64) {
        let virtual_time = self.virtual_time.entry(band).or_insert(0);
        *virtual_time = rules::served(*virtual_time, pass, count);
    }

    /// Nothing is ready: nobody is owed a turn.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets keys whose last pass no longer matters. Amortised over the insertions that made it necessary.
    fn prune(&mut self) {
        if self.last.len() > self.prune_at.max(PRUNE_FROM) {
            let times = &self.virtual_time;
            self.last.retain(|(band, _), last| !is_stale(*last, times.get(band).copied().unwrap_or(0)));
            self.prune_at = self.last.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::TaskId;

    use super::*;

    #[test]
    fn keys_without_entries_are_forgotten() {
        let mut fairness = Fairness::default();
        for n in 0..1_000_000_u32 {
            let key = EntryKey { task: TaskId::from_bytes([1; 16]), band: 3, fairness: n };
            let pass = fairness.next(&key);
            fairness.served(3, pass, 1);
        }
        assert!(fairness.last.len() <= 3 * PRUNE_FROM, "{}", fairness.last.len());
    }
}
