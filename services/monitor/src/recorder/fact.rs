//! What of the journal must become a fact in SQL.

use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{JournalEntry, Transition},
};
use oxcart_types::{LeaseToken, Run, TaskId};

/// Something that the dispatcher saw and SQL may not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) kind: FactKind,
    pub(super) task: TaskId,
    pub(super) run: Run,
    /// Who writes it: the same over all tries, so that a step whose answer was lost finds its own work.
    pub(super) by: LeaseToken,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactKind {
    /// The lease of a run ran out: if the run is open, it is LOST.
    Reaped,
    /// An entry was given out too often: the task has FAILED with POISON.
    Quarantined,
}

/// The fact in an entry, if there is one. An entry that cannot be read has none: it was not written by this version, and the
/// audit gets there without it.
pub(super) fn fact(entry: &JournalEntry, by: impl FnOnce() -> LeaseToken) -> Option<Fact> {
    let kind = match entry.transition() {
        Transition::Reaped => FactKind::Reaped,
        Transition::Quarantined => FactKind::Quarantined,
        Transition::Unspecified
        | Transition::Enqueued
        | Transition::Granted
        | Transition::Started
        | Transition::Done
        | Transition::Failed
        | Transition::Retried
        | Transition::Released
        | Transition::Cancelled
        | Transition::Dropped
        | Transition::Adopted
        | Transition::Removed => return None,
    };
    Some(Fact { kind, task: entry.task_id.parse().ok()?, run: scalar::run(entry.run).ok()?, by: by() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f";

    fn entry(transition: Transition, task_id: &str, run: i32) -> JournalEntry {
        JournalEntry { transition: transition.into(), task_id: task_id.to_owned(), run, ..Default::default() }
    }

    #[test]
    fn only_reaped_and_quarantined_are_facts() {
        let by = LeaseToken::from_bytes([7; 16]);
        let kinds: Vec<_> = (0..20)
            .filter_map(|n| Transition::try_from(n).ok())
            .filter_map(|t| fact(&entry(t, ID, 3), || by))
            .map(|f| (f.kind, f.run.get(), f.by))
            .collect();
        assert_eq!(kinds, [(FactKind::Reaped, 3, by), (FactKind::Quarantined, 3, by)]);
    }

    #[test]
    fn entries_that_cannot_be_read_are_left_out() {
        let by = || LeaseToken::from_bytes([7; 16]);
        assert_eq!(fact(&entry(Transition::Reaped, "x", 1), by), None);
        assert_eq!(fact(&entry(Transition::Reaped, ID, 0), by), None);
    }
}
