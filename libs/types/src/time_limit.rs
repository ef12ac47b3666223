//! The limits that time sets to a task, and what passing one of them comes to.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    chain::EndKind,
    clock::Timestamp,
    failure::{Failure, FailureKind},
};

/// A limit that time sets to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    /// `expires_at`: not started by then.
    Expiry,
    /// `start_timeout`: not started within this after its earliest start.
    StartTimeout,
    /// `timeout`: one attempt takes longer.
    Timeout,
    /// `heartbeat_timeout`: the handler reports nothing for longer.
    Heartbeat,
    /// `deadline`: all attempts and backoffs take longer.
    Deadline,
}

impl TimeLimit {
    /// All limits.
    pub const ALL: [Self; 5] = [Self::Expiry, Self::StartTimeout, Self::Timeout, Self::Heartbeat, Self::Deadline];

    /// The kind of the failure when it is passed.
    #[must_use]
    pub const fn failure_kind(self) -> &'static str {
        match self {
            Self::Expiry => FailureKind::EXPIRED,
            Self::StartTimeout => FailureKind::START_TIMEOUT,
            Self::Timeout => FailureKind::TIMEOUT,
            Self::Heartbeat => FailureKind::HEARTBEAT_TIMEOUT,
            Self::Deadline => FailureKind::DEADLINE,
        }
    }
}

/// The last moment at which a task may start for the first time in its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartBy {
    /// Not started by then, it expires.
    pub at: Timestamp,
    /// The limit that is passed then.
    pub limit: TimeLimit,
}

impl StartBy {
    /// The earliest of the limits that a task has; `None` when it has none.
    #[must_use]
    pub fn earliest(
        expires_at: Option<Timestamp>,
        start_timeout_at: Option<Timestamp>,
        deadline_at: Option<Timestamp>,
    ) -> Option<Self> {
        let limits =
            [(expires_at, TimeLimit::Expiry), (start_timeout_at, TimeLimit::StartTimeout), (deadline_at, TimeLimit::Deadline)];
        limits.into_iter().filter_map(|(at, limit)| Some(Self { at: at?, limit })).min_by_key(|start_by| start_by.at)
    }
}

/// Why a task that waits may not start any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfTime {
    /// It was never started in its budget, and this limit has passed.
    NotStarted(TimeLimit),
    /// It was, and its deadline has passed before another attempt.
    NoTimeLeft,
}

impl OutOfTime {
    /// Whether the time of a task is over that waits after so many attempts. Only what was never started expires; what was has
    /// until its deadline.
    #[must_use]
    pub fn of(attempts_used: u32, start_by: Option<StartBy>, deadline_at: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        if attempts_used == 0 {
            start_by.filter(|start_by| start_by.at <= now).map(|start_by| Self::NotStarted(start_by.limit))
        } else {
            deadline_at.filter(|at| *at <= now).map(|_| Self::NoTimeLeft)
        }
    }

    /// How its next slot is closed.
    #[must_use]
    pub const fn end(self) -> EndKind {
        match self {
            Self::NotStarted(_) => EndKind::Expired,
            Self::NoTimeLeft => EndKind::Failed,
        }
    }

    /// What is kept with the end.
    #[must_use]
    pub fn failure(self) -> Failure {
        let (limit, message) = match self {
            Self::NotStarted(TimeLimit::StartTimeout) => {
                (TimeLimit::StartTimeout, "not started within start_timeout of its earliest start")
            }
            Self::NotStarted(TimeLimit::Deadline) => (TimeLimit::Deadline, "the deadline passed before a start"),
            Self::NotStarted(limit @ (TimeLimit::Expiry | TimeLimit::Timeout | TimeLimit::Heartbeat)) => {
                (limit, "not started before it expired")
            }
            Self::NoTimeLeft => (TimeLimit::Deadline, "the deadline passed before the next attempt"),
        };
        Failure::new(limit.failure_kind(), message).fatal()
    }
}

/// A time that lies a duration ahead; `None` beyond the calendar.
#[must_use]
pub fn after(time: Timestamp, by: Duration) -> Option<Timestamp> {
    TimeDelta::from_std(by).ok().and_then(|by| time.checked_add_signed(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(second, 0).expect("a time")
    }

    #[test]
    fn every_limit_has_a_kind_of_its_own() {
        let kinds: std::collections::BTreeSet<_> = TimeLimit::ALL.into_iter().map(TimeLimit::failure_kind).collect();
        assert_eq!(kinds.len(), TimeLimit::ALL.len());
    }

    #[test]
    fn the_earliest_limit_says_how_a_task_ends() {
        let start_by =
            |expiry: i64, start: i64, deadline: i64| StartBy::earliest(Some(at(expiry)), Some(at(start)), Some(at(deadline)));
        for (start_by, kind) in [
            (start_by(1, 2, 3), "EXPIRED"),
            (start_by(2, 1, 3), "START_TIMEOUT"),
            (start_by(3, 2, 1), "DEADLINE"),
            (start_by(1, 1, 1), "EXPIRED"),
        ] {
            assert_eq!(OutOfTime::of(0, start_by, None, at(0)), None, "there is time");
            let over = OutOfTime::of(0, start_by, None, at(1)).expect("over");
            assert_eq!((over.end(), over.failure().kind.as_str()), (EndKind::Expired, kind));
        }
        assert_eq!(StartBy::earliest(None, None, None), None);
    }

    #[test]
    fn what_was_started_has_until_its_deadline() {
        let start_by = StartBy::earliest(Some(at(1)), None, Some(at(9)));
        assert_eq!(OutOfTime::of(1, start_by, Some(at(9)), at(8)), None);
        let over = OutOfTime::of(1, start_by, Some(at(9)), at(9)).expect("over");
        assert_eq!((over.end(), over.failure().kind.as_str()), (EndKind::Failed, "DEADLINE"));
    }
}
