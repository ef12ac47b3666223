//! What can go wrong, and the one place where it becomes a status.

use std::time::Duration;

use oxcart_service::status::{self, reason};
use oxcart_store::StoreError;
use oxcart_types::{TaskId, Violations};
use tonic::Status;

/// Why a call or a background step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MonitorError {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(#[from] Violations),
    /// The cursor of a watch is malformed, or of another deployment.
    #[error("the cursor is malformed or of another deployment")]
    Cursor,
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(TaskId),
    /// As many watchers as there may be.
    #[error("there are {0} watchers already")]
    TooManyWatchers(usize),
    /// The service is stopping.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// SQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dispatcher.
    #[error("the dispatcher answered {:?}: {}", .0.code(), .0.message())]
    Dispatcher(Box<Status>),
}

/// When a caller may try again what was refused for now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<MonitorError> for Status {
    fn from(error: MonitorError) -> Self {
        match error {
            MonitorError::Invalid(violations) => status::invalid_argument(&violations),
            MonitorError::Cursor => {
                let mut violations = Violations::new();
                violations.add(
                    "after_cursor",
                    oxcart_types::violation::reason::FIELD_INVALID,
                    "is malformed or of another deployment",
                );
                status::invalid_argument(&violations)
            }
            MonitorError::NoTask(id) => status::not_found(reason::TASK_NOT_FOUND, "task", id.to_string()),
            MonitorError::TooManyWatchers(_) => {
                status::resource_exhausted(reason::TOO_MANY_WATCHERS, error.to_string(), RETRY_AFTER)
            }
            MonitorError::ShuttingDown => status::unavailable(reason::SHUTTING_DOWN, error.to_string(), RETRY_AFTER),
            MonitorError::Store(error) => store(&error),
            MonitorError::Dispatcher(status) => dispatcher(&status),
        }
    }
}

fn store(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) => status::unavailable(reason::STORE_UNAVAILABLE, "the database is unavailable", RETRY_AFTER),
        StoreError::Busy => status::resource_exhausted(reason::OVERLOADED, "all database connections are in use", RETRY_AFTER),
        StoreError::Schema { .. } | StoreError::Corrupt(_) | StoreError::Refused(_) | StoreError::Configuration(_) => {
            status::internal(error)
        }
    }
}

/// The dispatcher is the callee's callee: what it refuses is no mistake of the caller.
fn dispatcher(answer: &Status) -> Status {
    use tonic::Code;
    match answer.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted | Code::Aborted | Code::Unknown => {
            status::unavailable(reason::DISPATCHER_UNAVAILABLE, "the dispatcher is unavailable", RETRY_AFTER)
        }
        _ => status::internal(answer),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn every_error_has_its_code_and_reason() {
        let violations = oxcart_service::page::invalid();
        let table = [
            (MonitorError::Invalid(violations), Code::InvalidArgument, "PAGE_TOKEN_INVALID"),
            (MonitorError::Cursor, Code::InvalidArgument, "FIELD_INVALID"),
            (MonitorError::NoTask(TaskId::from_bytes([1; 16])), Code::NotFound, "TASK_NOT_FOUND"),
            (MonitorError::TooManyWatchers(3), Code::ResourceExhausted, "TOO_MANY_WATCHERS"),
            (MonitorError::ShuttingDown, Code::Unavailable, "SHUTTING_DOWN"),
            (StoreError::Unavailable("down".into()).into(), Code::Unavailable, "STORE_UNAVAILABLE"),
            (StoreError::Busy.into(), Code::ResourceExhausted, "OVERLOADED"),
            (StoreError::Corrupt("row".to_owned()).into(), Code::Internal, "INTERNAL"),
            (MonitorError::Dispatcher(Box::new(Status::unavailable("down"))), Code::Unavailable, "DISPATCHER_UNAVAILABLE"),
            (MonitorError::Dispatcher(Box::new(Status::invalid_argument("bug"))), Code::Internal, "INTERNAL"),
        ];
        for (error, code, reason) in table {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{text}");
            assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), Some(reason), "{text}");
        }
    }
}
