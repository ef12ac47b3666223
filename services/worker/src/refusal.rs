//! What follows when SQL refuses a start: a pure function over the head of the chain.

use std::time::Duration;

use chrono::TimeDelta;
use oxcart_store::model::{OpenTask, RefusedStart};
use oxcart_types::{
    EndKind, Failure, FailureKind, OutOfTime, Run, TaskState, Timestamp,
    chain::{LatestRun, StartKind},
};

/// What to do with the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The task has ended: settle the delivery as dropped.
    Drop(TaskState),
    /// This open run shows no life: end it as lost, then start the next one as a step of its own.
    TakeOver(Run),
    /// Somebody else is at it, or may be: the same entry again after a delay.
    GiveBack(Duration),
    /// The chain stands elsewhere than the grant said, and this run may start now, under the same grant.
    Start(Run),
    /// This run may start later: put it into the queue for then.
    Enqueue(Run, Duration),
    /// No run may start any more: close this slot, which is the next.
    Close(Run, Closing),
}

/// Why no run may start any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// A cancel counts.
    Cancelled,
    /// Its time is over.
    OutOfTime(OutOfTime),
}

impl Closing {
    /// How the slot is closed.
    pub(crate) const fn kind(self) -> EndKind {
        match self {
            Self::Cancelled => EndKind::Cancelled,
            Self::OutOfTime(over) => over.end(),
        }
    }

    /// What is kept with the end.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Cancelled => Failure::new(FailureKind::CANCELLED, "the task was cancelled").fatal(),
            Self::OutOfTime(over) => over.failure(),
        }
    }
}

/// Shortest delay of a grant that is given back, so that it does not return at once.
const PAUSE: Duration = Duration::from_secs(1);

/// What follows a refused start of `granted`. `fresh`: the claim is young enough to begin something new under it. A run that
/// showed life within `lease_ttl` is left alone.
pub(crate) fn after_refusal(refused: &RefusedStart, granted: Run, fresh: bool, now: Timestamp, lease_ttl: Duration) -> Next {
    let task = &refused.task;
    match task.head.latest {
        None => after_closed_chain(task, Run::FIRST, task.entry.due_at, granted, now),
        Some(LatestRun { run, end: None, kind: StartKind::Worker, .. }) => {
            let last_sign = task.started_at.into_iter().chain(refused.heartbeat_at).max();
            let silent = last_sign.map_or(lease_ttl, |at| since(at, now));
            match lease_ttl.checked_sub(silent) {
                // Silent for a whole lease. An old grant may itself have been taken back by now: it takes nothing over.
                None | Some(Duration::ZERO) if fresh => Next::TakeOver(run),
                None | Some(Duration::ZERO) => Next::GiveBack(PAUSE),
                Some(left) => Next::GiveBack(left.max(PAUSE)),
            }
        }
        // The terminal end was undone.
        Some(LatestRun { run, end: Some(_), .. }) if task.head.replayed == Some(run) => {
            after_closed_chain(task, run.next(), None, granted, now)
        }
        // Start and end of a closed slot are one transaction: what is read here is a defect, and somebody will see it again.
        Some(LatestRun { end: None, kind: StartKind::Closer, .. }) => Next::GiveBack(lease_ttl),
        Some(LatestRun { run, end: Some(end), .. }) => match end.kind {
            EndKind::Succeeded => Next::Drop(TaskState::Succeeded),
            EndKind::Failed => Next::Drop(TaskState::Failed),
            EndKind::Cancelled => Next::Drop(TaskState::Cancelled),
            EndKind::Expired => Next::Drop(TaskState::Expired),
            EndKind::Retry | EndKind::Released | EndKind::Lost => {
                after_closed_chain(task, run.next(), end.next_run_at, granted, now)
            }
        },
    }
}

/// No run is open and the task has not ended: `next` may start at `due`, unless something forbids it.
fn after_closed_chain(task: &OpenTask, next: Run, due: Option<Timestamp>, granted: Run, now: Timestamp) -> Next {
    if task.cancel.is_some() {
        return Next::Close(next, Closing::Cancelled);
    }
    if let Some(over) = OutOfTime::of(task.head.attempts_used(), task.start_by, task.deadline_at, now) {
        return Next::Close(next, Closing::OutOfTime(over));
    }
    match due.map(|due| until(due, now)) {
        Some(wait) if !wait.is_zero() => Next::Enqueue(next, wait),
        _ if next == granted => Next::GiveBack(PAUSE),
        _ => Next::Start(next),
    }
}

/// Time from `from` to `now`; zero when `from` lies ahead.
pub(crate) fn since(from: Timestamp, now: Timestamp) -> Duration {
    (now - from).max(TimeDelta::zero()).to_std().unwrap_or_default()
}

/// Time from `now` to `to`; zero when `to` is past.
pub(crate) fn until(to: Timestamp, now: Timestamp) -> Duration {
    since(now, to)
}

#[cfg(test)]
mod tests {
    use oxcart_store::model::{Cancel, Entry};
    use oxcart_types::{ChainHead, Priority, QueueName, StartBy, TaskId, TimeLimit, chain::LatestEnd};

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_000_000 + second, 0).expect("a time")
    }

    fn run(n: u32) -> Run {
        Run::new(n).expect("from 1")
    }

    fn refused(latest: Option<LatestRun>) -> RefusedStart {
        let entry = Entry {
            task: TaskId::from_bytes([1; 16]),
            run: Run::FIRST,
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            fairness_key: None,
            due_at: None,
        };
        let head = ChainHead { latest, previous_end: None, replayed: None, waiting: None };
        let started_at = latest.filter(|l| l.end.is_none()).map(|_| at(-60));
        RefusedStart {
            task: OpenTask { entry, head, started_at, start_by: None, deadline_at: None, cancel: None },
            heartbeat_at: None,
        }
    }

    fn open(n: u32) -> RefusedStart {
        refused(Some(LatestRun { run: run(n), kind: StartKind::Worker, attempt: n, end: None }))
    }

    fn ended(n: u32, kind: EndKind, due: Option<Timestamp>) -> RefusedStart {
        let end = LatestEnd { kind, attempts_used: n, next_run_at: due };
        refused(Some(LatestRun { run: run(n), kind: StartKind::Worker, attempt: n, end: Some(end) }))
    }

    fn with(mut refused: RefusedStart, change: impl FnOnce(&mut RefusedStart)) -> RefusedStart {
        change(&mut refused);
        refused
    }

    fn cancelled(refused: &mut RefusedStart) {
        refused.task.cancel = Some(Cancel { reason: String::new(), requested_at: at(0), grace: LEASE });
    }

    #[test]
    fn every_head_of_a_chain_has_its_answer() {
        let secs = Duration::from_secs;
        let expired = Some(StartBy { at: at(-1), limit: TimeLimit::Expiry });
        let not_started = OutOfTime::NotStarted(TimeLimit::Expiry);
        let table = [
            // Ended.
            (ended(1, EndKind::Succeeded, None), 1, Next::Drop(TaskState::Succeeded)),
            (ended(1, EndKind::Failed, None), 2, Next::Drop(TaskState::Failed)),
            (ended(1, EndKind::Cancelled, None), 1, Next::Drop(TaskState::Cancelled)),
            (ended(1, EndKind::Expired, None), 1, Next::Drop(TaskState::Expired)),
            // Open and silent; a heartbeat is a sign of life as good as the start.
            (open(1), 1, Next::TakeOver(run(1))),
            (open(3), 2, Next::TakeOver(run(3))),
            (with(open(1), |r| r.heartbeat_at = Some(at(-10))), 1, Next::GiveBack(secs(20))),
            (with(open(1), |r| r.task.started_at = Some(at(-29))), 1, Next::GiveBack(secs(1))),
            (with(open(1), |r| r.task.started_at = Some(at(5))), 1, Next::GiveBack(LEASE)),
            (with(open(1), cancelled), 1, Next::TakeOver(run(1))),
            // Another run than granted.
            (ended(1, EndKind::Retry, Some(at(-1))), 1, Next::Start(run(2))),
            (ended(2, EndKind::Released, Some(at(7))), 1, Next::Enqueue(run(3), secs(7))),
            (ended(2, EndKind::Lost, None), 5, Next::Start(run(3))),
            (refused(None), 2, Next::Start(run(1))),
            (with(refused(None), |r| r.task.entry.due_at = Some(at(9))), 2, Next::Enqueue(run(1), secs(9))),
            // The granted one, and due: somebody was between; look again later.
            (ended(1, EndKind::Retry, Some(at(-1))), 2, Next::GiveBack(secs(1))),
            (ended(1, EndKind::Retry, Some(at(3))), 2, Next::Enqueue(run(2), secs(3))),
            // The end was undone: what follows it is due at once.
            (with(ended(1, EndKind::Failed, None), |r| r.task.head.replayed = Some(run(1))), 1, Next::Start(run(2))),
            (with(ended(2, EndKind::Failed, None), |r| r.task.head.replayed = Some(run(1))), 1, Next::Drop(TaskState::Failed)),
            // Nothing may start.
            (with(ended(1, EndKind::Retry, None), cancelled), 2, Next::Close(run(2), Closing::Cancelled)),
            (with(refused(None), |r| r.task.start_by = expired), 1, Next::Close(run(1), Closing::OutOfTime(not_started))),
            (with(ended(1, EndKind::Retry, None), |r| r.task.start_by = expired), 1, Next::Start(run(2))),
            (
                with(ended(1, EndKind::Retry, None), |r| r.task.deadline_at = Some(at(-1))),
                2,
                Next::Close(run(2), Closing::OutOfTime(OutOfTime::NoTimeLeft)),
            ),
        ];
        for (refused, granted, expected) in table {
            assert_eq!(after_refusal(&refused, run(granted), true, at(0), LEASE), expected, "{refused:?} granted {granted}");
        }
    }

    #[test]
    fn an_old_grant_takes_nothing_over() {
        assert_eq!(after_refusal(&open(1), run(1), false, at(0), LEASE), Next::GiveBack(PAUSE));
        let broken = refused(Some(LatestRun { run: run(1), kind: StartKind::Closer, attempt: 0, end: None }));
        assert_eq!(after_refusal(&broken, run(1), true, at(0), LEASE), Next::GiveBack(LEASE));
    }
}
