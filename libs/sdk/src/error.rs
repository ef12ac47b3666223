//! How a handler says that it did not succeed.

use std::{fmt, time::Duration};

use oxcart_types::{Failure, FailureKind, Limits};

/// What a handler returns.
pub type TaskResult<T = ()> = Result<T, TaskError>;

/// What follows from a [`TaskError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The task is tried again while its retry policy allows.
    Retryable,
    /// The task fails, whatever its policy says.
    Fatal,
    /// The task becomes CANCELLED.
    Cancelled,
    /// The run is given back and costs no attempt; another one follows after the delay.
    Released {
        /// Not before this has passed.
        delay: Duration,
    },
}

/// Why a handler did not return a result.
///
/// `?` on any `std::error::Error` makes one that is retried, with its causes as detail. For that reason the type does not
/// implement `Error` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    class: Class,
    kind: String,
    message: String,
    detail: String,
    retry_after: Option<Duration>,
}

impl TaskError {
    fn with_class(class: Class, kind: &str, message: impl fmt::Display) -> Self {
        Self { class, kind: kind.to_owned(), message: message.to_string(), detail: String::new(), retry_after: None }
    }

    /// Tried again while the policy allows.
    pub fn retryable(message: impl fmt::Display) -> Self {
        Self::with_class(Class::Retryable, FailureKind::ERROR, message)
    }

    /// Not tried again.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self::with_class(Class::Fatal, FailureKind::ERROR, message)
    }

    /// The handler stopped because it was asked to.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::with_class(Class::Cancelled, FailureKind::CANCELLED, "the handler was cancelled")
    }

    /// The run is given back: see [`crate::TaskContext::release`]. The delay is at most [`Limits::BACKOFF`].
    pub fn released(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::with_class(Class::Released { delay: delay.min(Limits::BACKOFF) }, "RELEASED", reason)
    }

    /// Names the kind of the error, for machines: policies may refuse to retry it.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Asks for this backoff in place of the policy's.
    #[must_use]
    pub fn after(mut self, backoff: Duration) -> Self {
        self.retry_after = Some(backoff);
        self
    }

    /// Adds a stack, a response body or the like.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// What follows.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// One line for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The kind.
    #[must_use]
    pub fn kind_str(&self) -> &str {
        &self.kind
    }

    /// As the platform keeps it; texts are cut to their limits.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let mut failure = Failure::new(self.kind, self.message).with_detail(self.detail);
        failure.fatal = self.class == Class::Fatal;
        match self.retry_after {
            Some(after) => failure.retry_after(after),
            None => failure,
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self::retryable(error).detail(causes.join("\n"))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_others_are_retried_and_keep_their_causes() {
        fn parse() -> TaskResult<u8> {
            Ok("300".parse::<u8>()?)
        }
        let error = parse().expect_err("out of range");
        assert_eq!(error.class(), Class::Retryable);
        assert_eq!(error.clone().into_failure().kind.as_str(), FailureKind::ERROR);
        assert!(!error.into_failure().fatal);
    }

    #[test]
    fn a_delay_has_a_bound() {
        let error = TaskError::released(Duration::MAX, "busy");
        assert_eq!(error.class(), Class::Released { delay: Limits::BACKOFF });
    }

    #[test]
    fn a_failure_carries_what_the_handler_said() {
        let error = TaskError::fatal("no such mailbox").kind("BadAddress").after(Duration::from_secs(3)).detail("550");
        let failure = error.into_failure();
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str(), failure.detail.as_str()),
            ("BadAddress", "no such mailbox", "550")
        );
        assert!(failure.fatal);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
    }
}
