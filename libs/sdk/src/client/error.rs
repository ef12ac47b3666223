//! What a client is told when a call does not succeed.

use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt as _;

use crate::error::TaskError;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the service is none.
    #[error("{address:?} is no address: {source}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The input could not be written as JSON, or is over the hard limit.
    #[error("the input cannot be submitted: {0}")]
    Input(String),
    /// The service answered with an error.
    #[error("{code:?} {reason}: {message}")]
    Refused {
        /// gRPC status code.
        code: tonic::Code,
        /// Machine-readable reason, for example `TASK_NOT_FOUND`; empty when the service gave none.
        reason: String,
        /// For people.
        message: String,
        /// What is wrong with the fields of the request.
        violations: Vec<FieldViolation>,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The task ended without a result.
    #[error("the task ended {state}: {error}")]
    NotSucceeded {
        /// Its state.
        state: &'static str,
        /// Its last error.
        error: String,
    },
    /// The result does not fit the type asked for.
    #[error("the result does not fit: {0}")]
    Result(String),
    /// The service broke the contract.
    #[error("the service broke the contract: {0}")]
    Malformed(&'static str),
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub description: String,
}

impl ClientError {
    /// Reads the google.rpc details of a status.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Self::Refused {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// The machine-readable reason, when the service gave one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } if !reason.is_empty() => Some(reason),
            Self::Refused { .. }
            | Self::Address { .. }
            | Self::Input(_)
            | Self::NotSucceeded { .. }
            | Self::Result(_)
            | Self::Malformed(_) => None,
        }
    }

    pub(crate) fn input(error: &TaskError) -> Self {
        Self::Input(error.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn details_are_read() {
        let mut details = ErrorDetails::new();
        details.set_error_info("FIELD_INVALID", "oxcart.dev", std::collections::HashMap::new());
        details.add_bad_request_violation("task.queue", "is not allowed");
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(tonic::Code::InvalidArgument, "bad", details);
        let ClientError::Refused { code, reason, violations, retry_after, .. } = ClientError::from_status(&status) else {
            panic!("a refusal");
        };
        assert_eq!((code, reason.as_str()), (tonic::Code::InvalidArgument, "FIELD_INVALID"));
        assert_eq!(violations, [FieldViolation { field: "task.queue".into(), description: "is not allowed".into() }]);
        assert_eq!(retry_after, Some(Duration::from_secs(2)));
    }
}
