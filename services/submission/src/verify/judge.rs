//! What an entry or a task is, given both sides: pure.

use std::time::Duration;

use oxcart_proto::pb::dispatcher::v1::{EntryDamage, EntryPlace};
use oxcart_store::{AgendaRow, AgendaWhy, OpenTask, Standing};
use oxcart_types::{Timestamp, WaitReason};

use super::FindingKind;
use crate::{admission::before, dispatcher::Found};

/// A row of the agenda that is due is visited within this, also when the visitor before vanished.
pub(super) const OVERDUE: Duration = Duration::from_secs(60);

/// What is wrong with an entry; `None` when nothing is, or when it comes right by itself with the next delivery or heartbeat.
/// No lease ends later than `longest_lease` from now.
pub(super) fn entry(found: &Found, standing: Option<&Standing>, longest_lease: Duration) -> Option<FindingKind> {
    let Some(standing) = standing else { return Some(FindingKind::EntryOfUnknownTask) };
    if standing.terminal().is_some() {
        return Some(FindingKind::EntryOfFinishedTask);
    }
    let home = &standing.task.entry;
    let run_is_open = standing.task.started_at.is_some();
    if found.place == EntryPlace::Leased {
        if found.remaining.is_some_and(|left| left > longest_lease) {
            return Some(FindingKind::LeaseTooLong);
        }
        // While a later run is open the holder may have taken over under the same grant: its heartbeat tells the queue.
        return (found.run < home.run && !run_is_open).then_some(FindingKind::LeaseOfEndedRun);
    }
    if found.run <= home.run && !found.is_at(home) {
        return Some(FindingKind::EntryMisplaced);
    }
    if found.place == EntryPlace::Quarantined {
        return Some(FindingKind::TaskQuarantined);
    }
    (found.run < home.run && !run_is_open).then_some(FindingKind::EntryBehind)
}

/// What is wrong with an open task that no row of the agenda keeps and that its queue does not have.
pub(super) fn missing(task: &OpenTask) -> FindingKind {
    if task.started_at.is_some() { FindingKind::RunWithoutLease } else { FindingKind::TaskMissing }
}

/// True for tasks that their queue must have: not those of an unconfirmed hand-off, and not those whose run began so lately that
/// its holder may still make the lease again.
pub(super) fn must_be_there(task: &OpenTask, now: Timestamp, open_run_age: Duration) -> bool {
    if task.head.waiting == Some(WaitReason::Handoff) {
        return false;
    }
    task.started_at.is_none_or(|at| at <= before(now, open_run_age))
}

/// True for a row that nothing clears: its task has ended or is gone, and it is the feeder's, or its time is long past.
pub(super) fn agenda(row: &AgendaRow, task: Option<&OpenTask>, now: Timestamp) -> bool {
    let open = task.is_some_and(|task| task.head.terminal().is_none());
    let cleared_by_itself = match row.why {
        AgendaWhy::Room => false,
        AgendaWhy::Time | AgendaWhy::Dependency | AgendaWhy::Retry | AgendaWhy::Expiry | AgendaWhy::CancelGrace => {
            row.at > before(now, OVERDUE)
        }
    };
    !open && !cleared_by_itself
}

/// The damage that a queue reports of an entry.
pub(super) const fn damage(damage: EntryDamage) -> Option<FindingKind> {
    match damage {
        EntryDamage::LeaseWithoutRecord => Some(FindingKind::LeaseWithoutRecord),
        EntryDamage::RecordWithoutLease => Some(FindingKind::RecordWithoutLease),
        EntryDamage::TwoPlaces => Some(FindingKind::EntryInTwoPlaces),
        EntryDamage::Unspecified => None,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
