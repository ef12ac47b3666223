//! Verdicts on failures. They change nothing here: a verdict counts once the worker has written it.

use std::time::Duration;

use oxcart_proto::{
    convert::{scalar, value},
    pb::dispatcher::v1 as pb,
};
use oxcart_types::{Limits, QueueName, Verdict, Violations, retry::FailCause, violation};
use tokio::time::Instant;

use crate::{core::Core, error::DispatcherError};

/// Decides on a report, in order.
pub(crate) fn verdicts(core: &Core, report: pb::FailureReport) -> Result<pb::VerdictBatch, DispatcherError> {
    if report.failures.len() > Limits::BATCH_ITEMS {
        return Err(DispatcherError::invalid(
            "failures",
            format!("has {} items; at most {} are allowed", report.failures.len(), Limits::BATCH_ITEMS),
        ));
    }
    let mut bad = Violations::new();
    let now = Instant::now();
    let stretch = |queue: &QueueName| core.retry_budgets.stretch(queue, now);
    let mut verdicts = Vec::with_capacity(report.failures.len());
    for (i, failure) in report.failures.into_iter().enumerate() {
        match verdict(failure, rand::random(), stretch) {
            Ok(verdict) => verdicts.push(verdict),
            Err(part) => bad.nest(&format!("failures[{i}]"), part),
        }
    }
    bad.check()?;
    let verdicts = verdicts.into_iter().map(|(verdict, stretched)| {
        core.metrics.verdict(match &verdict.decision {
            Some(pb::verdict::Decision::RetryIn(_)) if stretched => "stretched",
            Some(pb::verdict::Decision::RetryIn(_)) => "retry",
            Some(pb::verdict::Decision::Fail(_)) | None => "fail",
        });
        verdict
    });
    Ok(pb::VerdictBatch { sequence: report.sequence, verdicts: verdicts.collect() })
}

/// The verdict on one failure, and whether the budget of its queue has stretched its backoff.
fn verdict(
    failure: pb::Failure,
    dice: f64,
    stretch: impl FnOnce(&QueueName) -> Duration,
) -> Result<(pb::Verdict, bool), Violations> {
    let mut bad = Violations::new();
    // A queue that is not named, or not well, has no budget: the settle will tell.
    let queue = failure.queue.parse::<QueueName>().ok();
    let attempt = bad.take("attempt", scalar::count(failure.attempt));
    let remaining = failure.deadline_remaining.and_then(|left| bad.take("deadline_remaining", scalar::duration(left)));
    let policy = match value::retry_policy(failure.retry_policy.unwrap_or_default()) {
        Ok(policy) => Some(policy),
        Err(part) => {
            bad.nest("retry_policy", part);
            None
        }
    };
    let Some(lease) = failure.lease else {
        bad.add("lease", violation::reason::FIELD_REQUIRED, "is required");
        return Err(bad);
    };
    let (Some(attempt), Some(policy), true) = (attempt, policy, bad.is_empty()) else { return Err(bad) };
    let error = value::failure(failure.error.unwrap_or_default());
    let mut is_stretched = false;
    let decision = match policy.verdict(attempt, &error, remaining, dice) {
        Verdict::Retry(backoff) => {
            let stretched = queue.map_or(backoff, |queue| backoff + stretch(&queue));
            // The budget makes no failure of a retry: one that would come too late keeps its backoff.
            is_stretched = stretched > backoff && remaining.is_none_or(|remaining| stretched < remaining);
            pb::verdict::Decision::RetryIn(scalar::to_duration(if is_stretched { stretched } else { backoff }))
        }
        Verdict::Fail(cause) => pb::verdict::Decision::Fail(i32::from(match cause {
            FailCause::AttemptsUsedUp => pb::FailCause::AttemptsUsedUp,
            FailCause::NotRetryable => pb::FailCause::NotRetryable,
            FailCause::Deadline => pb::FailCause::Deadline,
        })),
    };
    Ok((pb::Verdict { task_id: lease.task_id, run: lease.run, decision: Some(decision) }, is_stretched))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(attempt: i32) -> pb::Failure {
        pb::Failure { lease: Some(Default::default()), queue: "default".to_owned(), attempt, ..Default::default() }
    }

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn a_failure_is_retried_until_attempts_are_used_up() {
        let decide =
            |attempt| verdict(failure(attempt), 0.5, |_| Duration::ZERO).map(|(verdict, _)| verdict.decision).expect("good");
        assert_eq!(decide(1), Some(pb::verdict::Decision::RetryIn(seconds(1))));
        assert_eq!(decide(2), Some(pb::verdict::Decision::Fail(i32::from(pb::FailCause::AttemptsUsedUp))));
        let bad = verdict(pb::Failure { attempt: -1, ..failure(1) }, 0.5, |_| Duration::ZERO).expect_err("negative");
        assert_eq!(bad.as_slice()[0].field, "attempt");
    }

    #[test]
    fn the_budget_stretches_backoffs_and_fails_nothing() {
        let decide = |failure| verdict(failure, 0.5, |_| Duration::from_secs(9)).expect("good");
        let (stretched, is_stretched) = decide(failure(1));
        assert_eq!((stretched.decision, is_stretched), (Some(pb::verdict::Decision::RetryIn(seconds(10))), true));
        // What would come too late keeps its backoff, and a failure stays one.
        let (short, is_stretched) = decide(pb::Failure { deadline_remaining: Some(seconds(10)), ..failure(1) });
        assert_eq!((short.decision, is_stretched), (Some(pb::verdict::Decision::RetryIn(seconds(1))), false));
        assert!(matches!(decide(failure(2)), (pb::Verdict { decision: Some(pb::verdict::Decision::Fail(_)), .. }, false)));
    }
}
