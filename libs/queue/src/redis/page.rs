//! Pages of SCAN: which key of the partition, and where in it.

use crate::{
    check,
    engine::{MAX_ITEMS, PageCursor, Place, QueueError},
};

/// The beginning and the end of a scan.
const EDGE: &str = "0";
/// The keys that a check goes over, as `check.lua` numbers them.
const CHECKED_KEYS: std::ops::RangeInclusive<u8> = 1..=5;

/// One step of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The key, as the script numbers it.
    key: u8,
    /// Cursor of SCAN: digits.
    at: String,
}

impl Step {
    /// The step of a list that a cursor stands for.
    pub(super) fn of_list(place: Place, from: Option<&PageCursor>) -> Result<Self, QueueError> {
        let key = number(place);
        match from {
            None => Ok(Self { key, at: EDGE.to_owned() }),
            Some(cursor) => Self::read(cursor).filter(|step| step.key == key).ok_or_else(|| check::bad_cursor(cursor)),
        }
    }

    /// The step of a check that a cursor stands for.
    pub(super) fn of_check(from: Option<&PageCursor>) -> Result<Self, QueueError> {
        match from {
            None => Ok(Self { key: *CHECKED_KEYS.start(), at: EDGE.to_owned() }),
            Some(cursor) => {
                Self::read(cursor).filter(|step| CHECKED_KEYS.contains(&step.key)).ok_or_else(|| check::bad_cursor(cursor))
            }
        }
    }

    fn read(cursor: &PageCursor) -> Option<Self> {
        let (key, at) = cursor.0.split_once('.')?;
        // SCAN takes any number, and Redis refuses what is none.
        at.parse::<u64>().ok()?;
        Some(Self { key: key.parse().ok()?, at: at.to_owned() })
    }

    /// The arguments of the script.
    pub(super) fn args(&self, limit: usize) -> [Vec<u8>; 3] {
        let limit = limit.clamp(1, MAX_ITEMS);
        [self.key.to_string().into_bytes(), self.at.clone().into_bytes(), limit.to_string().into_bytes()]
    }

    /// What follows in a list when SCAN returned `at`.
    pub(super) fn next_of_list(&self, at: &str) -> Option<PageCursor> {
        (at != EDGE).then(|| cursor(self.key, at))
    }

    /// What follows in a check when SCAN returned `at`: the rest of the key, or the next key.
    pub(super) fn next_of_check(&self, at: &str) -> Option<PageCursor> {
        if at != EDGE {
            return Some(cursor(self.key, at));
        }
        (self.key < *CHECKED_KEYS.end()).then(|| cursor(self.key + 1, EDGE))
    }
}

fn cursor(key: u8, at: &str) -> PageCursor {
    PageCursor(format!("{key}.{at}"))
}

/// The place as `list.lua` and `inspect.lua` number it.
const fn number(place: Place) -> u8 {
    match place {
        Place::Ready => 1,
        Place::Delayed => 2,
        Place::Leased => 3,
        Place::Quarantined => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_goes_over_every_key() {
        let mut step = Step::of_check(None).expect("the first");
        let mut keys = vec![step.key];
        while let Some(next) = step.next_of_check(EDGE) {
            step = Step::of_check(Some(&next)).expect("a cursor");
            keys.push(step.key);
        }
        assert_eq!(keys, [1, 2, 3, 4, 5]);
        let within = step.next_of_check("17").expect("more of the last key");
        assert_eq!(Step::of_check(Some(&within)).expect("a cursor"), Step { key: 5, at: "17".to_owned() });
    }

    #[test]
    fn cursors_of_other_walks_are_refused() {
        let of_list = |text: &str| Step::of_list(Place::Leased, Some(&PageCursor(text.to_owned())));
        assert!(of_list("3.17").is_ok());
        for bad in ["", "3", "3.", "3.x", "3.-1", "1.17", "x.17", "3.17.1"] {
            assert!(matches!(of_list(bad), Err(QueueError::BadCall(_))), "{bad}");
        }
        for bad in ["0.1", "6.1"] {
            assert!(Step::of_check(Some(&PageCursor(bad.to_owned()))).is_err(), "{bad}");
        }
    }
}
