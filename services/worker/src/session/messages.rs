//! What the session sends, from the words of this crate to those of the contract.

use std::time::Duration;

use oxcart_proto::{
    convert::{enums, scalar, value},
    pb::{common::v1 as common, dispatcher::v1 as pb},
};
use oxcart_store::model::RunKey;
use oxcart_types::{Failure, Payload, Priority, QueueName, Run, TaskState};

use crate::{attempt::Attempt, grant::Grant};

/// How a lease ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Settlement {
    /// Succeeded; the result when it is small.
    Done(Option<Payload>),
    /// Failed; with the next run and when it is due, or for good.
    Failed(Failure, Option<(Run, Duration)>),
    /// Given back.
    Released {
        /// Run to enqueue.
        next: Run,
        /// Not before this has passed.
        delay: Duration,
        /// No handler has seen it.
        uncounted: bool,
        /// For people.
        reason: String,
    },
    /// Cancelled.
    Cancelled,
    /// Nothing was run; with the state that was found, when one was.
    Dropped(Option<TaskState>),
}

/// A lease to be ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settle {
    /// Task, run and token.
    pub(crate) key: RunKey,
    queue: QueueName,
    priority: Priority,
    fairness_key: String,
    /// Attempts used.
    pub(crate) attempt: u32,
    /// How.
    pub(crate) how: Settlement,
}

impl Settle {
    /// A lease to be ended, of a run that was granted so.
    pub(crate) fn new(key: RunKey, grant: &Grant, attempt: u32, how: Settlement) -> Self {
        let (queue, priority, fairness_key) = (grant.queue.clone(), grant.priority, grant.fairness_key.clone());
        Self { key, queue, priority, fairness_key, attempt, how }
    }

    /// As the contract has it.
    pub(crate) fn into_pb(self) -> pb::Settle {
        use pb::settle::Outcome;
        let outcome = match self.how {
            Settlement::Done(result) => Outcome::Done(pb::SettleDone { result: result.map(value::to_payload) }),
            Settlement::Failed(failure, next) => Outcome::Failed(pb::SettleFailed {
                error: Some(without_detail(failure)),
                next_run: next.map_or(0, |(run, _)| scalar::to_run(run)),
                retry_in: next.map(|(_, delay)| scalar::to_duration(delay)),
            }),
            Settlement::Released { next, delay, uncounted, reason } => Outcome::Released(pb::SettleReleased {
                next_run: scalar::to_run(next),
                delay: Some(scalar::to_duration(delay)),
                uncounted,
                reason,
            }),
            Settlement::Cancelled => Outcome::Cancelled(pb::SettleCancelled {}),
            Settlement::Dropped(state) => {
                let state = state.map_or(common::TaskState::Unspecified, enums::to_task_state);
                Outcome::Dropped(pb::SettleDropped { task_state: state.into() })
            }
        };
        pb::Settle {
            lease: Some(lease_key(&self.key)),
            queue: self.queue.to_string(),
            attempt: scalar::to_count(self.attempt),
            priority: i32::from(self.priority.get()),
            fairness_key: self.fairness_key,
            outcome: Some(outcome),
        }
    }
}

/// Proof of a lease.
pub(crate) fn lease_key(key: &RunKey) -> common::LeaseKey {
    common::LeaseKey { task_id: key.task.to_string(), run: scalar::to_run(key.run), lease_token: key.token.as_bytes().to_vec() }
}

/// A failure as it travels: its detail stays in SQL.
pub(crate) fn without_detail(mut failure: Failure) -> common::TaskError {
    failure.detail.clear();
    value::to_failure(failure)
}

/// A lease with all that is needed to make it again. `grace` is what the handler gets after its timeout.
pub(crate) fn held_lease(attempt: &Attempt, grace: Duration) -> pb::HeldLease {
    pb::HeldLease {
        lease: Some(lease_key(&attempt.key)),
        queue: attempt.grant.queue.to_string(),
        priority: i32::from(attempt.grant.priority.get()),
        fairness_key: attempt.grant.fairness_key.clone(),
        deliveries: scalar::to_count(attempt.grant.deliveries),
        remaining: attempt.remaining(grace).map(scalar::to_duration),
    }
}
