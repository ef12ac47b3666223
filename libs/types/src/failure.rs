//! Why a run failed.

use std::{fmt, time::Duration};

use crate::limits::Limits;

/// Kind of a failure, for machines. Handlers choose theirs; those of the platform are the constants, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FailureKind(String);

impl FailureKind {
    /// The attempt ran longer than its timeout.
    pub const TIMEOUT: &'static str = "TIMEOUT";
    /// The deadline passed before a start, during an attempt, or would before the next one.
    pub const DEADLINE: &'static str = "DEADLINE";
    /// Not started within its start timeout.
    pub const START_TIMEOUT: &'static str = "START_TIMEOUT";
    /// The handler reported nothing for longer than its heartbeat timeout.
    pub const HEARTBEAT_TIMEOUT: &'static str = "HEARTBEAT_TIMEOUT";
    /// Not started before it expired.
    pub const EXPIRED: &'static str = "EXPIRED";
    /// The worker vanished.
    pub const LEASE_LOST: &'static str = "LEASE_LOST";
    /// Given out too often without a start, or lost with its workers too often.
    pub const POISON: &'static str = "POISON";
    /// The handler gave the task back too often.
    pub const RELEASE_LIMIT: &'static str = "RELEASE_LIMIT";
    /// The payload is not what the handler takes.
    pub const INVALID_PAYLOAD: &'static str = "INVALID_PAYLOAD";
    /// The result is over its limit.
    pub const RESULT_TOO_LARGE: &'static str = "RESULT_TOO_LARGE";
    /// The handler panicked.
    pub const PANIC: &'static str = "PANIC";
    /// The task was cancelled.
    pub const CANCELLED: &'static str = "CANCELLED";
    /// The kind of errors whose handler names none.
    pub const ERROR: &'static str = "ERROR";

    /// A kind, cut to its limit; an empty one becomes [`Self::ERROR`].
    pub fn new(kind: impl Into<String>) -> Self {
        let kind = cut(kind.into(), Limits::ERROR_KIND_BYTES);
        Self(if kind.is_empty() { Self::ERROR.to_owned() } else { kind })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A failure of a run or of a task. Texts are cut to their limits on construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// One line for people.
    pub message: String,
    /// Stack, backtrace or the like; may be empty.
    pub detail: String,
    /// No further attempt, whatever the policy says.
    pub fatal: bool,
    /// Backoff asked for by the handler; overrides the policy's.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that may be retried.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::new(kind),
            message: cut(message.into(), Limits::ERROR_MESSAGE_BYTES),
            detail: String::new(),
            fatal: false,
            retry_after: None,
        }
    }

    /// No further attempt.
    #[must_use]
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// With a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = cut(detail.into(), Limits::ERROR_DETAIL_BYTES);
        self
    }

    /// With the handler's own backoff.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.min(Limits::BACKOFF));
        self
    }
}

/// Cuts a text at a character boundary so that it has at most `max` bytes.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failure = Failure::new("", "ä".repeat(Limits::ERROR_MESSAGE_BYTES));
        assert_eq!(failure.kind.as_str(), FailureKind::ERROR);
        assert_eq!(failure.message.len(), Limits::ERROR_MESSAGE_BYTES);
        assert_eq!(cut("aä".to_owned(), 2), "a");
    }
}
