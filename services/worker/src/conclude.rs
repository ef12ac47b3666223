//! What a run comes to: a pure function of what the handler did and why it was asked to stop.

use std::time::Duration;

use oxcart_sdk::{Class, StopReason, TaskError, TaskResult};
use oxcart_types::{FailureKind, Payload};

/// What a run comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Conclusion {
    /// With this result.
    Succeeded(Payload),
    /// The dispatcher is asked what follows.
    Failed(TaskError),
    /// The task becomes CANCELLED.
    Cancelled(TaskError),
    /// Given back; costs no attempt.
    Released {
        /// Not before this has passed.
        delay: Duration,
        /// For people.
        reason: String,
    },
    /// Another worker has the run: there is nothing to write.
    Abandoned,
}

/// What the handler did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It returned.
    Returned(TaskResult<Payload>),
    /// It did not stop in time, or its thread was lost.
    Aborted,
}

/// What a handler may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of a result at most.
    pub(crate) result_bytes: usize,
    /// It may give the task back once more.
    pub(crate) may_release: bool,
}

/// What a run comes to. A success stands, whatever was asked meanwhile: the work is done.
pub(crate) fn conclude(outcome: Outcome, stop: Option<&StopReason>, bounds: Bounds) -> Conclusion {
    let error = match outcome {
        Outcome::Returned(Ok(result)) if result.as_bytes().len() > bounds.result_bytes => {
            let size = result.as_bytes().len();
            return Conclusion::Failed(
                TaskError::fatal(format!("the result has {size} bytes; at most {} are allowed", bounds.result_bytes))
                    .kind(FailureKind::RESULT_TOO_LARGE),
            );
        }
        Outcome::Returned(Ok(result)) => return Conclusion::Succeeded(result),
        Outcome::Returned(Err(error)) => Some(error),
        Outcome::Aborted => None,
    };
    match stop {
        Some(StopReason::LeaseLost) => Conclusion::Abandoned,
        Some(StopReason::Shutdown) => released("the worker shuts down"),
        Some(StopReason::LeaseUncertain) => released("the lease was uncertain"),
        Some(StopReason::Cancelled { reason }) => Conclusion::Cancelled(TaskError::fatal(reason).kind(FailureKind::CANCELLED)),
        Some(StopReason::Timeout) => {
            Conclusion::Failed(TaskError::retryable("the attempt ran longer than its timeout").kind(FailureKind::TIMEOUT))
        }
        Some(StopReason::HeartbeatTimeout) => Conclusion::Failed(
            TaskError::retryable("the handler reported nothing for longer than its heartbeat timeout")
                .kind(FailureKind::HEARTBEAT_TIMEOUT),
        ),
        Some(StopReason::Deadline) => {
            Conclusion::Failed(TaskError::fatal("the task ran longer than its deadline").kind(FailureKind::DEADLINE))
        }
        None => match error {
            // Nobody asked, and yet the handler is gone: its runtime was taken down.
            None => released("the handler was aborted"),
            Some(error) => match error.class() {
                Class::Retryable | Class::Fatal => Conclusion::Failed(error),
                Class::Cancelled => Conclusion::Cancelled(error),
                // A task that is given back for ever would never end, and cost two rows each time.
                Class::Released { .. } if !bounds.may_release => Conclusion::Failed(
                    TaskError::retryable(format!(
                        "the handler gave the task back too often; the last time it said: {}",
                        error.message()
                    ))
                    .kind(FailureKind::RELEASE_LIMIT),
                ),
                Class::Released { delay } => Conclusion::Released { delay, reason: error.message().to_owned() },
            },
        },
    }
}

fn released(reason: &str) -> Conclusion {
    Conclusion::Released { delay: Duration::ZERO, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { result_bytes: 100, may_release: true };

    fn cancelled() -> StopReason {
        StopReason::Cancelled { reason: "enough".to_owned() }
    }

    const STOPS: fn() -> Vec<Option<StopReason>> = || {
        let all = [
            StopReason::Timeout,
            StopReason::HeartbeatTimeout,
            StopReason::Deadline,
            StopReason::Shutdown,
            StopReason::LeaseLost,
            StopReason::LeaseUncertain,
        ];
        all.into_iter().chain([cancelled()]).map(Some).chain([None]).collect()
    };

    #[test]
    fn a_success_stands() {
        for stop in STOPS() {
            let conclusion = conclude(Outcome::Returned(Ok(Payload::null())), stop.as_ref(), BOUNDS);
            assert_eq!(conclusion, Conclusion::Succeeded(Payload::null()), "{stop:?}");
        }
    }

    #[test]
    fn a_result_over_the_limit_fails_for_good() {
        let Conclusion::Failed(error) =
            conclude(Outcome::Returned(Ok(Payload::null())), None, Bounds { result_bytes: 3, ..BOUNDS })
        else {
            panic!("4 bytes")
        };
        assert_eq!((error.class(), error.kind_str()), (Class::Fatal, FailureKind::RESULT_TOO_LARGE));
    }

    #[test]
    fn the_reason_to_stop_outweighs_how_the_handler_stopped() {
        let name = |conclusion: Conclusion| match conclusion {
            Conclusion::Succeeded(_) => "succeeded".to_owned(),
            Conclusion::Failed(error) => format!("failed {}", error.kind_str()),
            Conclusion::Cancelled(error) => format!("cancelled {}", error.message()),
            Conclusion::Released { reason, .. } => format!("released {reason}"),
            Conclusion::Abandoned => "abandoned".to_owned(),
        };
        let table = [
            (Some(cancelled()), "cancelled enough"),
            (Some(StopReason::Timeout), "failed TIMEOUT"),
            (Some(StopReason::HeartbeatTimeout), "failed HEARTBEAT_TIMEOUT"),
            (Some(StopReason::Deadline), "failed DEADLINE"),
            (Some(StopReason::Shutdown), "released the worker shuts down"),
            (Some(StopReason::LeaseLost), "abandoned"),
            (Some(StopReason::LeaseUncertain), "released the lease was uncertain"),
        ];
        for (stop, expected) in table {
            let returned = || Outcome::Returned(Err(TaskError::retryable("broken pipe")));
            assert_eq!(name(conclude(returned(), stop.as_ref(), BOUNDS)), expected);
            assert_eq!(name(conclude(Outcome::Aborted, stop.as_ref(), BOUNDS)), expected);
        }
        assert_eq!(name(conclude(Outcome::Aborted, None, BOUNDS)), "released the handler was aborted");
    }

    #[test]
    fn without_a_reason_to_stop_the_handler_decides() {
        let delay = Duration::from_secs(3);
        let conclude = |error: TaskError| conclude(Outcome::Returned(Err(error)), None, BOUNDS);
        assert_eq!(conclude(TaskError::fatal("x")), Conclusion::Failed(TaskError::fatal("x")));
        assert_eq!(conclude(TaskError::retryable("x")), Conclusion::Failed(TaskError::retryable("x")));
        assert_eq!(conclude(TaskError::cancelled()), Conclusion::Cancelled(TaskError::cancelled()));
        assert_eq!(conclude(TaskError::released(delay, "busy")), Conclusion::Released { delay, reason: "busy".to_owned() });
    }
    #[test]
    fn a_release_too_many_is_a_failure_of_its_own_kind_and_the_platforms_are_not_counted() {
        let spent = Bounds { may_release: false, ..BOUNDS };
        let released = || Outcome::Returned(Err(TaskError::released(Duration::ZERO, "busy")));
        let Conclusion::Failed(error) = conclude(released(), None, spent) else { panic!("one too many") };
        assert_eq!((error.class(), error.kind_str()), (Class::Retryable, FailureKind::RELEASE_LIMIT));
        assert!(matches!(conclude(released(), Some(&StopReason::Shutdown), spent), Conclusion::Released { .. }));
    }
}
