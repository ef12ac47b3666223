//! What a sweeper does with a task: pure decisions.

use std::time::Duration;

use oxcart_store::{AgendaRow, AgendaWhy, OpenTask};
use oxcart_types::{ChainHead, EndKind, Failure, FailureKind, OutOfTime, Timestamp};

use crate::admission::{add, before};

/// Until a row that can do nothing yet is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a visit of the agenda does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Offers the next run to the dispatcher; the row goes when it is taken.
    Enqueue,
    /// Closes the next slot; the row goes.
    Close(EndKind, Failure),
    /// Looks again.
    Rearm(Timestamp, AgendaWhy),
    /// Tells the holder of the open run once more that it is cancelled; the row goes, the audit sees to the rest.
    Remind,
    /// The row goes.
    Delete,
}

impl Action {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Close(..) => "close",
            Self::Rearm(..) => "rearm",
            Self::Remind => "remind",
            Self::Delete => "delete",
        }
    }
}

/// Where a chain stands.
enum Standing {
    /// The next run may start.
    Waiting,
    /// A run is open.
    Open,
    /// The task has ended.
    Ended,
}

fn standing(head: &ChainHead) -> Standing {
    if head.has_open_run() {
        Standing::Open
    } else if head.terminal().is_some() {
        Standing::Ended
    } else {
        Standing::Waiting
    }
}

/// Why a task that waits is to be closed now; `None` when it is not.
pub(crate) fn closing(task: &OpenTask, now: Timestamp) -> Option<(EndKind, Failure)> {
    if !matches!(standing(&task.head), Standing::Waiting) {
        return None;
    }
    if let Some(cancel) = &task.cancel {
        return Some((EndKind::Cancelled, Failure::new(FailureKind::CANCELLED, cancel.reason.clone())));
    }
    let over = OutOfTime::of(task.head.attempts_used(), task.start_by, task.deadline_at, now)?;
    Some((over.end(), over.failure()))
}

/// What a visit of an agenda row does. `task` is `None` when it is gone.
pub(crate) fn visit(row: &AgendaRow, task: Option<&OpenTask>, now: Timestamp, horizon: Duration) -> Action {
    let Some(task) = task else { return Action::Delete };
    match standing(&task.head) {
        Standing::Ended => Action::Delete,
        Standing::Open => match row.why {
            AgendaWhy::CancelGrace => Action::Remind,
            // The run began: whatever the row was for has happened.
            AgendaWhy::Time | AgendaWhy::Dependency | AgendaWhy::Room | AgendaWhy::Retry | AgendaWhy::Expiry => Action::Delete,
        },
        Standing::Waiting => {
            if let Some((kind, failure)) = closing(task, now) {
                return Action::Close(kind, failure);
            }
            match row.why {
                AgendaWhy::Time | AgendaWhy::Retry | AgendaWhy::Expiry | AgendaWhy::CancelGrace => match task.entry.due_at {
                    Some(due) if due > add(now, horizon) => Action::Rearm(before(due, horizon), AgendaWhy::Time),
                    Some(_) | None => Action::Enqueue,
                },
                AgendaWhy::Dependency => Action::Rearm(add(now, LOOK_AGAIN), AgendaWhy::Dependency),
                // The feeder's; it stays his.
                AgendaWhy::Room => Action::Rearm(now, AgendaWhy::Room),
            }
        }
    }
}

/// The row that a task needs once the dispatcher has it: its time may be over before it starts.
pub(crate) fn watch_time(row: &AgendaRow, task: &OpenTask) -> Option<AgendaRow> {
    let start_by = task.start_by.map(|start_by| start_by.at);
    let at = if task.head.attempts_used() == 0 { start_by } else { task.deadline_at };
    at.map(|at| AgendaRow { at, why: AgendaWhy::Expiry, ..*row })
}

/// What the audit asks of the dispatcher about a task, if anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Audited {
    /// Ask whether it is there, and offer it when it is not.
    Offer,
    /// Close it.
    Close(EndKind, Failure),
    /// A run is open and may still be adopted.
    Leave,
}

/// What the audit does with a task that no agenda row hides.
pub(crate) fn audit(task: &OpenTask, now: Timestamp, open_run_age: Duration) -> Audited {
    match standing(&task.head) {
        Standing::Ended => Audited::Leave,
        // The open run is offered under its own number: whoever gets it takes it over.
        Standing::Open if task.started_at.is_none_or(|at| at <= before(now, open_run_age)) => Audited::Offer,
        Standing::Open => Audited::Leave,
        Standing::Waiting => match closing(task, now) {
            Some((kind, failure)) => Audited::Close(kind, failure),
            None => Audited::Offer,
        },
    }
}

/// True for tasks that a resync offers: those that wait.
pub(crate) fn waits(task: &OpenTask) -> bool {
    matches!(standing(&task.head), Standing::Waiting)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
