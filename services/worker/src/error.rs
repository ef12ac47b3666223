//! What can go wrong with a worker, and how callers are told.

use std::time::Duration;

use oxcart_sdk::HandlerNameError;
use oxcart_service::status;
use oxcart_types::{Violations, violation::reason};
use tonic::Status;

/// Why a worker cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting is out of bounds.
    #[error("{0}")]
    Configuration(String),
    /// Two handlers have one name.
    #[error(transparent)]
    Handlers(#[from] HandlerNameError),
    /// The threads of the handlers cannot be started.
    #[error("the threads of the handlers cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// What a caller did wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// Below zero.
    PageSize(i32),
    /// Malformed.
    PageToken,
    /// Negative or malformed.
    Timeout(String),
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let mut bad = Violations::new();
        match error {
            CallError::PageSize(size) => bad.add("page_size", reason::FIELD_INVALID, format!("is {size}; it cannot be negative")),
            CallError::PageToken => bad.add("page_token", reason::PAGE_TOKEN_INVALID, "is not a token of this list"),
            CallError::Timeout(description) => bad.add("timeout", reason::FIELD_INVALID, description),
        }
        status::invalid_argument(&bad)
    }
}

/// The worker is gone before it was drained: the process ends.
pub(crate) fn ending() -> Status {
    status::unavailable(status::reason::SHUTTING_DOWN, "the worker ends", Duration::from_secs(1))
}
