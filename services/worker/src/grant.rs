//! A grant, read from the contract.

use std::time::Duration;

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_types::{LeaseToken, Priority, QueueName, Run, TaskId, violation::Invalid};

use crate::moment::Moment;

/// A claim is not begun in its last seconds: the start must reach SQL before somebody else may be granted the same run.
const MARGIN: Duration = Duration::from_secs(2);

/// Permission to ask SQL for a start.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) token: LeaseToken,
    pub(crate) queue: QueueName,
    pub(crate) priority: Priority,
    pub(crate) deliveries: u32,
    /// Fairness key of the task; empty until its specification is read.
    pub(crate) fairness_key: String,
    /// Nothing new begins under the grant after this.
    pub(crate) fresh_until: Moment,
}

impl Grant {
    /// True while something new may begin under it.
    pub(crate) fn is_fresh(&self) -> bool {
        Moment::now() < self.fresh_until
    }
}

/// Reads the grants of a batch that arrived at `received`; a malformed one is left out and told, the others count.
pub(crate) fn read(batch: pb::GrantBatch, received: Moment) -> Vec<Result<Grant, Invalid>> {
    let ttl = scalar::duration_or_zero(batch.expires_in);
    // Claims that live but a few seconds, in tests, keep half of their life.
    let fresh_until = received + ttl.saturating_sub(MARGIN.min(ttl / 2));
    let queue = batch.queue.parse::<QueueName>();
    let read = |grant: pb::Grant| {
        Ok(Grant {
            task: grant.task_id.parse()?,
            run: scalar::run(grant.run)?,
            token: scalar::lease_token(&grant.lease_token)?,
            queue: queue.clone()?,
            priority: Priority::try_from(i64::from(grant.priority))?,
            deliveries: scalar::count(grant.deliveries)?,
            fairness_key: String::new(),
            fresh_until,
        })
    };
    batch.grants.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_grant_does_not_spoil_the_others() {
        let good = pb::Grant {
            task_id: "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".into(),
            run: 1,
            lease_token: vec![7; 16],
            deliveries: 1,
            priority: 4,
        };
        let grants = vec![good.clone(), pb::Grant { run: 0, ..good.clone() }, pb::Grant { lease_token: vec![], ..good }];
        let expires_in = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        let read = read(pb::GrantBatch { queue: "default".into(), grants, expires_in }, Moment::now());
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
        let grant = read.into_iter().next().and_then(Result::ok).expect("good");
        assert!(grant.is_fresh());
        assert!(grant.fresh_until.remaining() <= Duration::from_secs(8));
    }
}
