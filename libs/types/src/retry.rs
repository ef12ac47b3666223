//! When a failed run is tried again.

use std::time::Duration;

use crate::{
    failure::{Failure, FailureKind},
    limits::Limits,
    violation::{Violations, reason},
};

/// How failures of a task are retried. Validated on construction: every value here is in bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    max_attempts: u32,
    initial_backoff: Duration,
    multiplier: f64,
    max_backoff: Duration,
    jitter: f64,
    non_retryable_kinds: Vec<FailureKind>,
    max_crashes: u32,
}

/// The parts of a [`RetryPolicy`] before they are checked; `None` takes the default.
#[derive(Debug, Clone, Default)]
pub struct RetryPolicyParts {
    /// Counted starts in all, the first included.
    pub max_attempts: Option<i64>,
    /// Backoff before the second attempt.
    pub initial_backoff: Option<Duration>,
    /// Factor between one backoff and the next.
    pub multiplier: Option<f64>,
    /// Cap of one backoff.
    pub max_backoff: Option<Duration>,
    /// Share of a backoff that is random: 0.1 means ±10 %.
    pub jitter: Option<f64>,
    /// Kinds of failures that end the task at once.
    pub non_retryable_kinds: Vec<String>,
    /// Runs that may be lost with their workers, the last one ends the task.
    pub max_crashes: Option<i64>,
}

impl Default for RetryPolicy {
    /// Two attempts, that is one retry, after about a second.
    fn default() -> Self {
        Self {
            max_attempts: 2,
            initial_backoff: Duration::from_secs(1),
            multiplier: 2.0,
            max_backoff: Duration::from_secs(3600),
            jitter: 0.1,
            non_retryable_kinds: Vec::new(),
            max_crashes: 5,
        }
    }
}

impl RetryPolicy {
    /// Checks the parts.
    ///
    /// # Errors
    /// Every part that is out of bounds.
    pub fn new(parts: RetryPolicyParts) -> Result<Self, Violations> {
        let defaults = Self::default();
        let mut bad = Violations::new();
        let max_attempts = match parts.max_attempts {
            None => defaults.max_attempts,
            Some(n) => u32::try_from(n).ok().filter(|n| (1..=Limits::MAX_ATTEMPTS).contains(n)).unwrap_or_else(|| {
                bad.add("max_attempts", reason::FIELD_INVALID, format!("is {n}; 1 to {} are allowed", Limits::MAX_ATTEMPTS));
                1
            }),
        };
        let initial_backoff = parts.initial_backoff.unwrap_or(defaults.initial_backoff);
        let max_backoff = parts.max_backoff.unwrap_or(defaults.max_backoff.max(initial_backoff));
        for (field, backoff) in [("initial_backoff", initial_backoff), ("max_backoff", max_backoff)] {
            if backoff > Limits::BACKOFF {
                bad.add(field, reason::FIELD_INVALID, format!("is {backoff:?}; at most {:?} are allowed", Limits::BACKOFF));
            }
        }
        if initial_backoff > max_backoff {
            bad.add(
                "initial_backoff",
                reason::FIELD_CONFLICT,
                format!("is {initial_backoff:?}, above max_backoff {max_backoff:?}"),
            );
        }
        let multiplier = parts.multiplier.unwrap_or(defaults.multiplier);
        if !(1.0..=100.0).contains(&multiplier) {
            bad.add("backoff_multiplier", reason::FIELD_INVALID, format!("is {multiplier}; 1 to 100 are allowed"));
        }
        let jitter = parts.jitter.unwrap_or(defaults.jitter);
        if !(0.0..=1.0).contains(&jitter) {
            bad.add("jitter", reason::FIELD_INVALID, format!("is {jitter}; 0 to 1 are allowed"));
        }
        if parts.non_retryable_kinds.len() > Limits::NON_RETRYABLE_KINDS {
            let (n, max) = (parts.non_retryable_kinds.len(), Limits::NON_RETRYABLE_KINDS);
            bad.add("non_retryable_kinds", reason::FIELD_INVALID, format!("has {n} kinds; at most {max} are allowed"));
        }
        for (i, kind) in parts.non_retryable_kinds.iter().enumerate() {
            if kind.is_empty() || kind.len() > Limits::ERROR_KIND_BYTES {
                let max = Limits::ERROR_KIND_BYTES;
                bad.add(
                    format!("non_retryable_kinds[{i}]"),
                    reason::FIELD_INVALID,
                    format!("has {} bytes; 1 to {max} are allowed", kind.len()),
                );
            }
        }
        let max_crashes = match parts.max_crashes {
            None => defaults.max_crashes,
            Some(n) => u32::try_from(n).ok().filter(|n| (1..=Limits::MAX_ATTEMPTS).contains(n)).unwrap_or_else(|| {
                bad.add("max_crashes", reason::FIELD_INVALID, format!("is {n}; 1 to {} are allowed", Limits::MAX_ATTEMPTS));
                1
            }),
        };
        bad.check()?;
        let non_retryable_kinds = parts.non_retryable_kinds.into_iter().map(FailureKind::new).collect();
        Ok(Self { max_attempts, initial_backoff, multiplier, max_backoff, jitter, non_retryable_kinds, max_crashes })
    }

    /// The same policy with another number of counted starts, within its bounds.
    #[must_use]
    pub fn with_max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts.clamp(1, Limits::MAX_ATTEMPTS);
        self
    }

    /// Counted starts in all, the first included.
    #[must_use]
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Backoff before the second attempt.
    #[must_use]
    pub const fn initial_backoff(&self) -> Duration {
        self.initial_backoff
    }

    /// Factor between one backoff and the next.
    #[must_use]
    pub const fn multiplier(&self) -> f64 {
        self.multiplier
    }

    /// Cap of one backoff.
    #[must_use]
    pub const fn max_backoff(&self) -> Duration {
        self.max_backoff
    }

    /// Share of a backoff that is random.
    #[must_use]
    pub const fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Runs that may be lost with their workers, counted apart from failures: the last one ends the task as poison, whatever
    /// attempts are left.
    #[must_use]
    pub const fn max_crashes(&self) -> u32 {
        self.max_crashes
    }

    /// The policy as it goes into the digests of requests. Those are stored: what came later is added only where it is not the
    /// default.
    pub(crate) fn digest_text(&self) -> String {
        let Self { max_attempts, initial_backoff, multiplier, max_backoff, jitter, non_retryable_kinds, max_crashes } = self;
        let mut text = format!(
            "RetryPolicy {{ max_attempts: {max_attempts:?}, initial_backoff: {initial_backoff:?}, multiplier: {multiplier:?}, \
             max_backoff: {max_backoff:?}, jitter: {jitter:?}, non_retryable_kinds: {non_retryable_kinds:?} }}"
        );
        if *max_crashes != Self::default().max_crashes {
            text.push_str(&format!(" max_crashes: {max_crashes}"));
        }
        text
    }

    /// Kinds of failures that end the task at once.
    #[must_use]
    pub fn non_retryable_kinds(&self) -> &[FailureKind] {
        &self.non_retryable_kinds
    }

    /// Backoff after `attempt` counted starts (1 for the first), with `dice` in 0..=1 for the jitter: 0.5 gives the middle.
    #[must_use]
    pub fn backoff(&self, attempt: u32, dice: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // In floating point the power saturates at infinity instead of overflowing, and `min` brings it back.
        let cap = self.max_backoff.as_secs_f64();
        let base = (self.initial_backoff.as_secs_f64() * self.multiplier.powi(exponent)).min(cap);
        let spread = 1.0 + self.jitter * dice.clamp(0.0, 1.0).mul_add(2.0, -1.0);
        Duration::from_secs_f64((base * spread).clamp(0.0, cap))
    }

    /// The verdict on a failure after `attempt` counted starts. `deadline_remaining` is what is left of the task's deadline.
    #[must_use]
    pub fn verdict(&self, attempt: u32, failure: &Failure, deadline_remaining: Option<Duration>, dice: f64) -> Verdict {
        if failure.fatal || self.non_retryable_kinds.contains(&failure.kind) {
            return Verdict::Fail(FailCause::NotRetryable);
        }
        if attempt >= self.max_attempts {
            return Verdict::Fail(FailCause::AttemptsUsedUp);
        }
        let backoff = failure.retry_after.unwrap_or_else(|| self.backoff(attempt, dice));
        if deadline_remaining.is_some_and(|remaining| backoff >= remaining) {
            return Verdict::Fail(FailCause::Deadline);
        }
        Verdict::Retry(backoff)
    }
}

/// What is to follow a failed run. It has no effect until it is written as the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another run, due after this long.
    Retry(Duration),
    /// The task fails.
    Fail(FailCause),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailCause {
    /// All attempts are used up.
    AttemptsUsedUp,
    /// The failure is fatal, or of a kind that is not retried.
    NotRetryable,
    /// The next attempt would begin after the task's deadline.
    Deadline,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(parts: RetryPolicyParts) -> RetryPolicy {
        RetryPolicy::new(parts).expect("in bounds")
    }

    #[test]
    fn every_bad_part_is_named() {
        let parts = RetryPolicyParts {
            max_attempts: Some(0),
            initial_backoff: Some(Duration::from_secs(9)),
            multiplier: Some(f64::NAN),
            max_backoff: Some(Duration::from_secs(1)),
            jitter: Some(-0.1),
            non_retryable_kinds: vec![String::new()],
            max_crashes: Some(1001),
        };
        let bad = RetryPolicy::new(parts).expect_err("all wrong");
        let fields: Vec<_> = bad.as_slice().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            ["max_attempts", "initial_backoff", "backoff_multiplier", "jitter", "non_retryable_kinds[0]", "max_crashes"]
        );
    }

    #[test]
    fn verdicts() {
        let policy =
            policy(RetryPolicyParts { max_attempts: Some(2), non_retryable_kinds: vec!["Bad".into()], ..Default::default() });
        let failure = Failure::new("Smtp", "refused");
        assert_eq!(policy.verdict(1, &failure, None, 0.5), Verdict::Retry(Duration::from_secs(1)));
        assert_eq!(policy.verdict(2, &failure, None, 0.5), Verdict::Fail(FailCause::AttemptsUsedUp));
        assert_eq!(policy.verdict(1, &Failure::new("Bad", ""), None, 0.5), Verdict::Fail(FailCause::NotRetryable));
        assert_eq!(policy.verdict(1, &failure.clone().fatal(), None, 0.5), Verdict::Fail(FailCause::NotRetryable));
        let soon = Some(Duration::from_millis(900));
        assert_eq!(policy.verdict(1, &failure, soon, 0.5), Verdict::Fail(FailCause::Deadline));
        let asked = failure.retry_after(Duration::from_millis(800));
        assert_eq!(policy.verdict(1, &asked, soon, 0.5), Verdict::Retry(Duration::from_millis(800)));
    }

    proptest! {
        #[test]
        fn a_backoff_never_leaves_its_bounds(attempt in 0..u32::MAX, dice in -1.0..2.0f64, multiplier in 1.0..100.0f64, jitter in 0.0..=1.0f64) {
            let policy = policy(RetryPolicyParts { multiplier: Some(multiplier), jitter: Some(jitter), ..Default::default() });
            prop_assert!(policy.backoff(attempt, dice) <= policy.max_backoff());
        }
    }
}
