//! Typed values as payloads and back: JSON.

use oxcart_types::{FailureKind, Limits, Payload, TaskName};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{TaskError, TaskResult};

/// The hard limit: what a deployment allows below that, it checks itself.
const HARD: Limits = Limits { payload_bytes: Limits::PAYLOAD_HARD_BYTES };

/// Writes a value as JSON.
pub(crate) fn encode<T: Serialize>(value: &T) -> TaskResult<Payload> {
    let text = serde_json::to_string(value).map_err(|error| TaskError::fatal(format!("cannot be written as JSON: {error}")))?;
    Payload::json(text, &HARD).map_err(|invalid| TaskError::fatal(invalid.description).kind(FailureKind::RESULT_TOO_LARGE))
}

/// Reads a value from a payload, whatever its media type says: bytes that are JSON read as JSON.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> TaskResult<T> {
    serde_json::from_slice(payload.as_bytes()).map_err(|error| {
        TaskError::fatal(format!("the payload does not fit the handler: {error}")).kind(FailureKind::INVALID_PAYLOAD)
    })
}

/// Name of the task of a detached context.
#[expect(clippy::expect_used, reason = "a constant that is in the alphabet of names")]
pub(crate) fn test_name() -> TaskName {
    "test".parse().expect("a name")
}
