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

/// What a run comes to. A success stands, whatever was asked meanwhile: the work is done.
pub(crate) fn conclude(outcome: Outcome, stop: Option<&StopReason>, max_result_bytes: usize) -> Conclusion {
    let error = match outcome {
        Outcome::Returned(Ok(result)) if result.as_bytes().len() > max_result_bytes => {
            let size = result.as_bytes().len();
            return Conclusion::Failed(
                TaskError::fatal(format!("the result has {size} bytes; at most {max_result_bytes} are allowed"))
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
            let conclusion = conclude(Outcome::Returned(Ok(Payload::null())), stop.as_ref(), 100);
            assert_eq!(conclusion, Conclusion::Succeeded(Payload::null()), "{stop:?}");
        }
    }

    #[test]
    fn a_result_over_the_limit_fails_for_good() {
        let Conclusion::Failed(error) = conclude(Outcome::Returned(Ok(Payload::null())), None, 3) else { panic!("4 bytes") };
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
            assert_eq!(name(conclude(returned(), stop.as_ref(), 100)), expected);
            assert_eq!(name(conclude(Outcome::Aborted, stop.as_ref(), 100)), expected);
        }
        assert_eq!(name(conclude(Outcome::Aborted, None, 100)), "released the handler was aborted");
    }

    #[test]
    fn without_a_reason_to_stop_the_handler_decides() {
        let delay = Duration::from_secs(3);
        let conclude = |error: TaskError| conclude(Outcome::Returned(Err(error)), None, 100);
        assert_eq!(conclude(TaskError::fatal("x")), Conclusion::Failed(TaskError::fatal("x")));
        assert_eq!(conclude(TaskError::retryable("x")), Conclusion::Failed(TaskError::retryable("x")));
        assert_eq!(conclude(TaskError::cancelled()), Conclusion::Cancelled(TaskError::cancelled()));
        assert_eq!(conclude(TaskError::released(delay, "busy")), Conclusion::Released { delay, reason: "busy".to_owned() });
    }
}
