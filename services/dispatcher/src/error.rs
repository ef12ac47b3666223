//! What a call of the dispatcher can fail with, and how it looks on the wire.

use std::time::Duration;

use oxcart_queue::QueueError;
use oxcart_service::status::{self, reason};
use oxcart_types::{Violations, violation};
use tonic::Status;

/// Callers are asked to wait this long after a failure that passes.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a call can fail with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatcherError {
    /// The request is malformed.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// The first message of a session is not open.
    #[error("the first message of a session must be open")]
    SessionNotOpen,
    /// The worker speaks a version that is not understood.
    #[error("protocol version {0} is not supported; this dispatcher speaks 1")]
    ProtocolVersion(i32),
    /// A newer session of the same worker took over.
    #[error("a newer session of this worker took over")]
    Superseded,
    /// The limit of sessions is reached.
    #[error("{0} sessions are open; no more are allowed")]
    TooManySessions(usize),
    /// The limit of partitions is reached.
    #[error("{0} queue partitions are in use; no more are allowed")]
    TooManyPartitions(usize),
    /// The limit of journal readers is reached.
    #[error("{0} readers of the journal are open; no more are allowed")]
    TooManyReaders(usize),
    /// The peer sends or reads nothing.
    #[error("the session was silent for {0:?}")]
    SessionSilent(Duration),
    /// This replica drains.
    #[error("this dispatcher is shutting down")]
    ShuttingDown,
    /// The engine did not answer.
    #[error("the queue engine does not answer")]
    Engine(#[source] QueueError),
    /// The engine has not answered for long.
    #[error("the queue engine has not answered for {0:?}")]
    EngineDown(Duration),
}

impl DispatcherError {
    /// One violation.
    pub(crate) fn invalid(field: &str, description: impl Into<String>) -> Self {
        let mut violations = Violations::new();
        violations.add(field, violation::reason::FIELD_INVALID, description);
        Self::Invalid(violations)
    }
}

impl From<DispatcherError> for Status {
    fn from(error: DispatcherError) -> Self {
        let text = error.to_string();
        match error {
            DispatcherError::Invalid(violations) => status::invalid_argument(&violations),
            DispatcherError::SessionNotOpen => status::failed_precondition(reason::SESSION_NOT_OPEN, "open", text),
            DispatcherError::ProtocolVersion(_) => {
                status::failed_precondition(reason::PROTOCOL_VERSION_UNSUPPORTED, "protocol_version", text)
            }
            DispatcherError::Superseded => status::aborted(reason::SESSION_SUPERSEDED, text),
            DispatcherError::TooManySessions(_) => status::resource_exhausted(reason::TOO_MANY_SESSIONS, text, RETRY_AFTER),
            DispatcherError::TooManyPartitions(_) => status::resource_exhausted(reason::TOO_MANY_QUEUES, text, RETRY_AFTER),
            DispatcherError::TooManyReaders(_) => status::resource_exhausted(reason::TOO_MANY_WATCHERS, text, RETRY_AFTER),
            DispatcherError::SessionSilent(_) => status::deadline_exceeded(text),
            DispatcherError::ShuttingDown => status::unavailable(reason::SHUTTING_DOWN, text, RETRY_AFTER),
            DispatcherError::Engine(QueueError::Unavailable(_)) | DispatcherError::EngineDown(_) => {
                status::unavailable(reason::DISPATCHER_UNAVAILABLE, text, RETRY_AFTER)
            }
            DispatcherError::Engine(QueueError::Unsafe(_) | QueueError::BadCall(_) | QueueError::Corrupt(_)) => {
                status::internal(&error)
            }
        }
    }
}
