//! Time and identity, injected.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::id::{CancelRuleId, HandoffId, LeaseToken, OperationId, TaskId, WorkerId};

/// A point in time, UTC, in whole microseconds: what both databases can keep.
pub type Timestamp = DateTime<Utc>;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, in whole microseconds.
    fn now(&self) -> Timestamp;
}

/// Cuts a time to whole microseconds.
#[must_use]
pub fn to_micros(time: Timestamp) -> Timestamp {
    // Not by `duration_trunc`, which counts in nanoseconds and cannot beyond the year 2262.
    let beyond = TimeDelta::nanoseconds(i64::from(time.timestamp_subsec_nanos() % 1000));
    time.checked_sub_signed(beyond).unwrap_or(time)
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    fn now(&self) -> Timestamp {
        to_micros(Utc::now())
    }
}

/// A clock that moves only when told to. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    /// Stands at `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(to_micros(start))))
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = TimeDelta::from_std(by).ok().and_then(|by| now.checked_add_signed(by)).map_or(*now, to_micros);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes identifiers.
pub trait IdSource: Send + Sync + 'static {
    /// A new task id; later ones are greater.
    fn task_id(&self) -> TaskId;
    /// A new outbox row.
    fn handoff_id(&self) -> HandoffId;
    /// A new lease token.
    fn lease_token(&self) -> LeaseToken;
    /// A new worker process.
    fn worker_id(&self) -> WorkerId;
    /// A new operation on many tasks; later ones are greater.
    fn operation_id(&self) -> OperationId {
        OperationId::from_uuid(self.task_id().as_uuid())
    }
    /// A new cancel rule; later ones are greater.
    fn cancel_rule_id(&self) -> CancelRuleId {
        CancelRuleId::from_uuid(self.task_id().as_uuid())
    }
}

/// Ids from the clock and the random source of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn task_id(&self) -> TaskId {
        TaskId::from_uuid(Uuid::now_v7())
    }

    fn handoff_id(&self) -> HandoffId {
        HandoffId::from_uuid(Uuid::now_v7())
    }

    fn lease_token(&self) -> LeaseToken {
        LeaseToken::from_bytes(rand::random())
    }

    fn worker_id(&self) -> WorkerId {
        WorkerId::from_uuid(Uuid::new_v4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_microseconds_also_far_from_now() {
        for seconds in [-62_135_596_800, -1, 0, 1_800_000_000, 253_402_300_799] {
            let time = DateTime::from_timestamp(seconds, 141_428_994).unwrap();
            assert_eq!(to_micros(time), DateTime::from_timestamp(seconds, 141_428_000).unwrap());
        }
    }
}
