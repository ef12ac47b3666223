//! Verdicts on failures. They change nothing here: a verdict counts once the worker has written it.

use oxcart_proto::{
    convert::{scalar, value},
    pb::dispatcher::v1 as pb,
};
use oxcart_types::{Limits, Verdict, Violations, retry::FailCause, violation};

use crate::{core::Core, error::DispatcherError};

/// Decides on a report, in order. A retry budget of the queue would be asked here.
pub(crate) fn verdicts(core: &Core, report: pb::FailureReport) -> Result<pb::VerdictBatch, DispatcherError> {
    if report.failures.len() > Limits::BATCH_ITEMS {
        return Err(DispatcherError::invalid(
            "failures",
            format!("has {} items; at most {} are allowed", report.failures.len(), Limits::BATCH_ITEMS),
        ));
    }
    let mut bad = Violations::new();
    let mut verdicts = Vec::with_capacity(report.failures.len());
    for (i, failure) in report.failures.into_iter().enumerate() {
        match verdict(failure, rand::random()) {
            Ok(verdict) => verdicts.push(verdict),
            Err(part) => bad.nest(&format!("failures[{i}]"), part),
        }
    }
    bad.check()?;
    for verdict in &verdicts {
        core.metrics.verdict(match &verdict.decision {
            Some(pb::verdict::Decision::RetryIn(_)) => "retry",
            Some(pb::verdict::Decision::Fail(_)) | None => "fail",
        });
    }
    Ok(pb::VerdictBatch { sequence: report.sequence, verdicts })
}

fn verdict(failure: pb::Failure, dice: f64) -> Result<pb::Verdict, Violations> {
    let mut bad = Violations::new();
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
    let decision = match policy.verdict(attempt, &error, remaining, dice) {
        Verdict::Retry(backoff) => pb::verdict::Decision::RetryIn(scalar::to_duration(backoff)),
        Verdict::Fail(cause) => pb::verdict::Decision::Fail(i32::from(match cause {
            FailCause::AttemptsUsedUp => pb::FailCause::AttemptsUsedUp,
            FailCause::NotRetryable => pb::FailCause::NotRetryable,
            FailCause::Deadline => pb::FailCause::Deadline,
        })),
    };
    Ok(pb::Verdict { task_id: lease.task_id, run: lease.run, decision: Some(decision) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_retried_until_attempts_are_used_up() {
        let failure = |attempt| pb::Failure { lease: Some(Default::default()), attempt, ..Default::default() };
        let decide = |attempt| verdict(failure(attempt), 0.5).map(|verdict| verdict.decision).expect("good");
        let second = prost_types::Duration { seconds: 1, nanos: 0 };
        assert_eq!(decide(1), Some(pb::verdict::Decision::RetryIn(second)));
        assert_eq!(decide(2), Some(pb::verdict::Decision::Fail(i32::from(pb::FailCause::AttemptsUsedUp))));
        assert_eq!(verdict(pb::Failure { attempt: -1, ..failure(1) }, 0.5).expect_err("negative").as_slice()[0].field, "attempt");
    }
}
