//! What the journal alone tells, and what must hold of it: I8, no lease is given out while another is good; I10, the order;
//! I11, an entry is in one place, and the journal says which.

use std::{collections::HashMap, time::Duration};

use oxcart_queue::{Inspected, JournalEntry, Place, Transition};
use oxcart_types::{TaskId, Timestamp};

/// Where the journal says that an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Waits, until then when it says so.
    Waiting(Option<Timestamp>),
    Leased,
    Quarantined,
}

/// An entry as the journal tells it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    place: Told,
    run: u32,
    deliveries: u8,
}

/// All entries as the journal tells them.
#[derive(Debug, Default)]
pub(crate) struct Replay(HashMap<TaskId, Entry>);

impl Replay {
    /// Goes on with what one call added. `before` is what was seen right before the call, at the same time.
    pub(crate) fn follow(&mut self, entries: &[JournalEntry], before: &[Option<Inspected>]) {
        for told in entries {
            let known = self.0.get(&told.task).copied();
            let held = before.iter().flatten().find(|seen| seen.key.task == told.task && seen.place == Place::Leased);
            let place = match told.transition {
                Transition::Enqueued | Transition::Retried => {
                    assert!(known.is_none_or(|known| known.run < told.run.get()), "{told:?} over {known:?}");
                    Some(Told::Waiting(told.due_at))
                }
                // Given back by its holder, or put in again under a later run.
                Transition::Released => {
                    let own = known.is_some_and(|known| known.place == Told::Leased && known.run <= told.run.get());
                    assert!(own || known.is_none_or(|known| known.run < told.run.get()), "{told:?} over {known:?}");
                    Some(Told::Waiting(told.due_at))
                }
                Transition::Granted => {
                    assert!(known.is_some_and(|known| matches!(known.place, Told::Waiting(_))), "I8: {told:?} over {known:?}");
                    Some(Told::Leased)
                }
                Transition::Started | Transition::Done | Transition::Failed | Transition::Cancelled | Transition::Dropped => {
                    assert!(known.is_some_and(|known| known.place == Told::Leased), "{told:?} over {known:?}");
                    (told.transition == Transition::Started).then_some(Told::Leased)
                }
                Transition::Reaped | Transition::Quarantined => {
                    assert!(known.is_some_and(|known| known.place == Told::Leased), "{told:?} over {known:?}");
                    let left = held.and_then(|held| held.remaining);
                    assert_eq!(left, Some(Duration::ZERO), "I8: {told:?} took a lease back that was good");
                    let waits = told.transition == Transition::Reaped;
                    Some(if waits { Told::Waiting(told.due_at) } else { Told::Quarantined })
                }
                Transition::Adopted => {
                    assert!(known.is_none_or(|known| known.place != Told::Leased), "I8: {told:?} over {known:?}");
                    Some(Told::Leased)
                }
                Transition::Removed => {
                    assert!(known.is_some(), "{told:?} of nothing");
                    None
                }
            };
            match place {
                Some(place) => self.0.insert(told.task, Entry { place, run: told.run.get(), deliveries: told.deliveries }),
                None => self.0.remove(&told.task),
            };
        }
    }

    /// What the engine shows is what its journal has told.
    pub(crate) fn assert_same(&self, seen: &[Option<Inspected>], now: Timestamp) {
        assert_eq!(seen.iter().flatten().count(), self.0.len(), "I11: {seen:?} {self:?}");
        for seen in seen.iter().flatten() {
            let told = self.0.get(&seen.key.task).unwrap_or_else(|| panic!("I11: not in the journal: {seen:?}"));
            let place = match told.place {
                // Becoming ready is not told: it follows from the time.
                Told::Waiting(due) if seen.place == Place::Ready => due.is_none_or(|due| due <= now),
                Told::Waiting(due) => {
                    let left = due.and_then(|due| due.signed_duration_since(now).to_std().ok()).unwrap_or_default();
                    seen.place == Place::Delayed && due.is_some() && seen.remaining == Some(left)
                }
                Told::Leased => seen.place == Place::Leased,
                Told::Quarantined => seen.place == Place::Quarantined,
            };
            assert!(place, "I11: {seen:?}, told {told:?}");
            assert_eq!(seen.deliveries, told.deliveries, "{seen:?}, told {told:?}");
            // A heartbeat may raise the run of a lease, which is not told.
            let raised = seen.place == Place::Leased && seen.run.get() > told.run;
            assert!(raised || seen.run.get() == told.run, "{seen:?}, told {told:?}");
        }
    }
}

/// I10: nothing is given out before what has the same band and fairness key and stood before it, and nothing of a band before
/// all of those that go first; `lowest_first` when it is the other end's turn.
pub(crate) fn assert_order(
    granted: &[JournalEntry],
    before: &[Option<Inspected>],
    after: &[Option<Inspected>],
    lowest_first: bool,
) {
    let stood = |task: TaskId| before.iter().flatten().find(|seen| seen.key.task == task && seen.place == Place::Ready);
    let left: Vec<&Inspected> = after.iter().flatten().filter(|seen| seen.place == Place::Ready).collect();
    let given = granted.iter().filter(|told| told.transition == Transition::Granted);
    for given in given.filter_map(|told| stood(told.task)) {
        for left in left.iter().filter_map(|left| stood(left.key.task)) {
            let same = (left.key.band, left.key.fairness) == (given.key.band, given.key.fairness);
            assert!(!same || given.ahead < left.ahead, "I10: {given:?} before {left:?}");
            assert!(lowest_first || given.key.band <= left.key.band, "I10: {given:?} before {left:?}");
        }
    }
}
