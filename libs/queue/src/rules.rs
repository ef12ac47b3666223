//! The rules that both engines follow, as pure functions. The Redis scripts repeat those of fairness and backoff in Lua
//! (`redis/scripts/lib.lua`); the model test holds the two against each other.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use oxcart_types::Timestamp;

/// Passes of one band end here: a score is `band · PASS_LIMIT + pass`, exact in the doubles of Redis.
pub(crate) const PASS_LIMIT: u64 = 1 << 48;

/// What one entry moves its fairness key forward by. Above 1 so that a weight can divide it.
pub(crate) const STRIDE: u64 = 1000;

/// Durations are cut to this; far beyond what any limit allows, and far from overflow.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// A duration in whole milliseconds, rounded up so that nothing is ever early.
pub(crate) fn to_millis(duration: Duration) -> u64 {
    let nanos = duration.min(LONGEST).as_nanos();
    u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch as a time; one out of range is the epoch.
pub(crate) fn to_time(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// True when the notes of one call fit into the journal. If not, all of them are dropped: half of them would mislead.
pub(crate) fn notes_fit<'a>(notes: impl Iterator<Item = &'a Bytes>, budget: usize) -> bool {
    notes.map(Bytes::len).try_fold(0_usize, usize::checked_add).is_some_and(|total| total <= budget)
}

/// The pass of the next entry of a fairness key: one stride after its last one, but never behind the virtual time of the
/// band, so that a key that was idle saves up no turns. Strictly grows per key, hence first in, first out within one.
pub(crate) fn next_pass(last: Option<u64>, virtual_time: u64) -> u64 {
    last.map_or(virtual_time, |last| last.saturating_add(STRIDE).max(virtual_time)).min(PASS_LIMIT - 1)
}

/// The virtual time of a band after `count` of its entries were given out, the last one at `pass`: that pass, or one for each
/// entry, but never more than a stride ahead of the pass.
///
/// The second half moves time on while all entries come from keys never seen before: else they would all stand at the same
/// pass, in front of any key that comes back, and none of them could ever be forgotten.
pub(crate) fn served(virtual_time: u64, pass: u64, count: u64) -> u64 {
    let counted = virtual_time.saturating_add(count).min(pass.saturating_add(STRIDE));
    virtual_time.max(pass).max(counted).min(PASS_LIMIT - 1)
}

/// True when forgetting the last pass of a key changes nothing.
pub(crate) const fn is_stale(last: u64, virtual_time: u64) -> bool {
    last.saturating_add(STRIDE) <= virtual_time
}

/// What follows when a lease runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// Ready at once.
    Ready,
    /// Waits this many milliseconds.
    Delayed(u64),
    /// Given out too often.
    Quarantined,
}

/// A lease that ran out after so many deliveries: at once after the first, then 1 s · 2^(deliveries − 2), at most 60 s.
pub(crate) fn reaped(deliveries: u8, max_deliveries: u8) -> Reaped {
    if deliveries >= max_deliveries {
        return Reaped::Quarantined;
    }
    match deliveries {
        0 | 1 => Reaped::Ready,
        more => Reaped::Delayed(1000_u64.checked_shl(u32::from(more) - 2).map_or(60_000, |ms| ms.min(60_000))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_up() {
        assert_eq!(to_millis(Duration::ZERO), 0);
        assert_eq!(to_millis(Duration::from_nanos(1)), 1);
        assert_eq!(to_millis(Duration::from_millis(7)), 7);
        assert!(to_millis(Duration::MAX) < 1 << 48);
    }

    #[test]
    fn a_key_takes_turns_and_saves_none() {
        assert_eq!(next_pass(None, 0), 0);
        assert_eq!(next_pass(Some(0), 0), STRIDE);
        assert_eq!(next_pass(None, 5000), 5000);
        assert_eq!(next_pass(Some(100), 5000), 5000);
        assert_eq!(next_pass(Some(u64::MAX), 0), PASS_LIMIT - 1);
        assert!(is_stale(4000, 5000));
        assert_eq!(next_pass(Some(4000), 5000), next_pass(None, 5000));
        assert!(!is_stale(4001, 5000));
    }

    #[test]
    fn time_moves_on_with_what_is_served() {
        assert_eq!(served(0, 5000, 1), 5000);
        assert_eq!(served(7000, 5000, 3), 7000);
        assert_eq!(served(5000, 5000, 3), 5003);
        assert_eq!(served(5999, 5000, 3), 6000);
        assert_eq!(served(PASS_LIMIT - 1, PASS_LIMIT - 1, 9), PASS_LIMIT - 1);
    }

    #[test]
    fn the_backoff_of_lost_leases_doubles_up_to_a_minute() {
        let waits: Vec<_> = (0..=9).map(|deliveries| reaped(deliveries, 9)).collect();
        let delays = [1, 2, 4, 8, 16, 32, 60].map(|s| Reaped::Delayed(s * 1000));
        assert_eq!(waits[..2], [Reaped::Ready, Reaped::Ready]);
        assert_eq!(waits[2..9], delays);
        assert_eq!(waits[9], Reaped::Quarantined);
        assert_eq!(reaped(254, 255), Reaped::Delayed(60_000));
        assert_eq!(reaped(1, 1), Reaped::Quarantined);
    }

    #[test]
    fn notes_fit_together_or_not_at_all() {
        let notes = [Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        assert!(notes_fit(notes.iter(), 5));
        assert!(!notes_fit(notes.iter(), 4));
    }
}
