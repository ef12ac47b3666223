//! Errors of Redis as errors of the engine.

use std::{fmt, time::Duration};

use deadpool_redis::redis::{ErrorKind, RedisError};

use crate::engine::QueueError;

/// No answer in time.
#[derive(Debug)]
pub(super) struct TimedOut(pub(super) Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for TimedOut {}

impl TimedOut {
    pub(super) fn error(after: Duration) -> QueueError {
        QueueError::Unavailable(Box::new(Self(after)))
    }
}

/// An error of a script or command. Those that a script itself raises pass, like those of the network: a full memory, a
/// server that loads or changes roles.
pub(super) fn from_redis(error: RedisError) -> QueueError {
    match (error.kind(), error.code()) {
        (_, Some("FOREIGN")) => QueueError::Unsafe(error.detail().unwrap_or_default().to_owned()),
        (_, Some("WRONGTYPE")) => QueueError::Corrupt(error.to_string()),
        (ErrorKind::UnexpectedReturnType | ErrorKind::Parse, _) => QueueError::Corrupt(error.to_string()),
        _ => QueueError::Unavailable(Box::new(error)),
    }
}
