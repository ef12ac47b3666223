//! What can go wrong, and the one place that says it on the wire.

use std::time::Duration;

use oxcart_service::status::{self, reason};
use oxcart_store::{Conflict, StoreError};
use oxcart_types::{CancelRuleId, EndKind, OperationId, QueueName, RequestId, TaskId, Violations};
use tonic::Status;

use crate::sweep::SweepError;

const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Invalid(#[from] Violations),
    #[error("the request conflicts with what is stored")]
    Conflict(Conflict),
    #[error("the task conflicts with what is stored")]
    TaskConflict(Conflict),
    #[error("task {0} does not exist")]
    NoTask(TaskId),
    #[error("queue {0} does not exist")]
    NoQueue(QueueName),
    #[error("task {0} has a run that is open")]
    Running(TaskId),
    #[error("task {0} has ended as {1}")]
    Finished(TaskId, EndKind),
    #[error("task {0} has not ended")]
    NotFinished(TaskId),
    #[error("task {0} has succeeded; say allow_succeeded to replay it all the same")]
    Succeeded(TaskId),
    #[error("the request id {0} was used with another body")]
    RequestReused(RequestId),
    #[error("task {0} has changed since it was read")]
    Changed(TaskId),
    #[error("batch operation {0} does not exist")]
    NoOperation(OperationId),
    #[error("batch operation {0} is completed")]
    OperationFinished(OperationId),
    #[error("cancel rule {0} does not exist")]
    NoCancelRule(CancelRuleId),
    #[error("{0} operations are at work; wait for the end of one")]
    TooManyOperations(usize),
    #[error("{0} cancel rules are active; delete one first")]
    TooManyCancelRules(usize),
    #[error("too much is waiting")]
    Busy,
    #[error("queue {queue:?} has about {waiting} tasks that wait; its limit is {limit}")]
    Backlog { queue: QueueName, waiting: u64, limit: u64 },
    #[error("too many calls wait for tasks")]
    TooManyWaiters,
    #[error("a verification is under way")]
    Verifying,
    #[error("the dispatcher cannot be asked: {0}")]
    Dispatcher(String),
    #[error("the dispatcher has not confirmed what was submitted before")]
    Unconfirmed,
    #[error("the outcome of the commit is unknown")]
    Unanswered,
    #[error("shutting down")]
    ShuttingDown,
    #[error("the task has not ended in time")]
    Deadline,
    #[error(transparent)]
    Store(#[from] std::sync::Arc<StoreError>),
    #[error("a step of the service broke off")]
    Broken(#[from] tokio::task::JoinError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(std::sync::Arc::new(error))
    }
}

impl From<SweepError> for Error {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Store(error) => error.into(),
            error @ (SweepError::Dispatcher(_) | SweepError::Cursor(_) | SweepError::NotTaken(_)) => {
                Self::Dispatcher(status::chain(&error))
            }
        }
    }
}

impl Error {
    /// The same of a request with one task, which has no place in a list.
    pub(crate) fn of_one_task(self) -> Self {
        match self {
            Self::Conflict(conflict) => Self::TaskConflict(conflict),
            other => other,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Invalid(violations) => status::invalid_argument(&violations),
            Error::Conflict(conflict) => conflicting(conflict, |index| format!("tasks[{index}]")),
            Error::TaskConflict(conflict) => conflicting(conflict, |_| "task".to_owned()),
            Error::NoTask(id) => status::not_found(reason::TASK_NOT_FOUND, "task", id.to_string()),
            Error::NoQueue(queue) => status::not_found(reason::QUEUE_NOT_FOUND, "queue", queue.to_string()),
            Error::Running(id) => status::failed_precondition(reason::TASK_RUNNING, id.to_string(), text),
            Error::Finished(id, _) => status::failed_precondition(reason::TASK_FINISHED, id.to_string(), text),
            Error::NotFinished(id) => status::failed_precondition(reason::TASK_NOT_FINISHED, id.to_string(), text),
            Error::Succeeded(id) => status::failed_precondition(reason::TASK_SUCCEEDED, id.to_string(), text),
            Error::RequestReused(request) => request_reused(request),
            Error::Changed(_) => status::aborted(reason::ETAG_MISMATCH, text),
            Error::NoOperation(id) => status::not_found(reason::BATCH_OPERATION_NOT_FOUND, "batch operation", id.to_string()),
            Error::OperationFinished(id) => status::failed_precondition(reason::BATCH_OPERATION_FINISHED, id.to_string(), text),
            Error::NoCancelRule(id) => status::not_found(reason::CANCEL_RULE_NOT_FOUND, "cancel rule", id.to_string()),
            Error::TooManyOperations(_) => status::resource_exhausted(reason::TOO_MANY_OPERATIONS, text, LATER),
            Error::TooManyCancelRules(_) => status::resource_exhausted(reason::TOO_MANY_CANCEL_RULES, text, LATER),
            Error::Busy => status::resource_exhausted(reason::OVERLOADED, text, SOON),
            Error::Backlog { .. } => status::resource_exhausted(reason::QUEUE_FULL, text, LATER),
            Error::TooManyWaiters => status::resource_exhausted(reason::TOO_MANY_WATCHERS, text, LATER),
            Error::Verifying => status::resource_exhausted(reason::OVERLOADED, text, LATER),
            Error::Dispatcher(_) => status::unavailable(reason::DISPATCHER_UNAVAILABLE, text, LATER),
            Error::Unconfirmed => status::unavailable(reason::DISPATCHER_UNAVAILABLE, text, LATER),
            Error::Unanswered => status::unavailable(reason::STORE_UNAVAILABLE, text, SOON),
            Error::ShuttingDown => status::unavailable(reason::SHUTTING_DOWN, text, SOON),
            Error::Deadline => status::deadline_exceeded(text),
            Error::Store(error) => store(&error),
            Error::Broken(error) => status::internal(&error),
        }
    }
}

fn store(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(error = status::chain(error), "SQL is unavailable");
            status::unavailable(reason::STORE_UNAVAILABLE, "the database is unavailable", LATER)
        }
        StoreError::Busy => status::resource_exhausted(reason::OVERLOADED, error.to_string(), SOON),
        StoreError::Schema { .. } | StoreError::Corrupt(_) | StoreError::Refused(_) | StoreError::Configuration(_) => {
            status::internal(error)
        }
    }
}

/// `field` names the task at an index of the request.
fn conflicting(conflict: Conflict, field: impl Fn(usize) -> String) -> Status {
    match conflict {
        Conflict::TaskIdTaken { index, id } => status::already_exists(
            reason::TASK_ID_TAKEN,
            "task",
            id.to_string(),
            format!("{}: the id {id} belongs to a task with another body", field(index)),
        ),
        Conflict::KeyTaken { index, key, holder } => status::already_exists(
            reason::IDEMPOTENCY_KEY_TAKEN,
            "task",
            holder.to_string(),
            format!("{}: the idempotency key {key:?} belongs to task {holder}", field(index)),
        ),
        Conflict::RequestReused { request } => request_reused(request),
    }
}

fn request_reused(request: RequestId) -> Status {
    let description = format!("the request id {request} was used with another body");
    status::already_exists(reason::REQUEST_ID_REUSED, "request", request.to_string(), description)
}
