//! The one way to make an error for the wire: a status with google.rpc details.
//!
//! Every status carries an `ErrorInfo` with a [`reason`] and [`DOMAIN`], so that programs never read messages.

use std::{collections::HashMap, error::Error, time::Duration};

use oxcart_types::Violations;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use uuid::Uuid;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "oxcart.dev";

/// Key in the metadata of an internal error's `ErrorInfo`: the id under which the log has the whole of it.
pub const ERROR_ID: &str = "errorId";

/// Violations in one answer at most.
const SHOWN_VIOLATIONS: usize = 24;
/// Bytes of violations in one answer at most. They travel three times in HTTP/2 trailers, of which clients take 16 KiB: as the
/// message, where a byte may become three, and twice in the details, in base64.
const SHOWN_BYTES: usize = 2048;

/// Reasons of errors; those of violations are in [`oxcart_types::violation::reason`].
pub mod reason {
    pub use oxcart_types::violation::reason::*;

    macro_rules! reasons {
        ($($(#[$doc:meta])* $name:ident;)*) => {
            $($(#[$doc])* pub const $name: &str = stringify!($name);)*
            #[cfg(test)]
            pub(super) const ALL: &[&str] = &[$($name),*];
        };
    }

    // The one list: what a comment of a contract names is here, and what is here is answered somewhere.
    reasons! {
        /// No task has this id.
        TASK_NOT_FOUND;
        /// No queue has this name.
        QUEUE_NOT_FOUND;
        /// No bulk operation has this id.
        BATCH_OPERATION_NOT_FOUND;
        /// No cancel rule has this id.
        CANCEL_RULE_NOT_FOUND;
        /// No service has this name.
        SERVICE_NOT_FOUND;
        /// A task with this id exists already, with another body.
        TASK_ID_TAKEN;
        /// Another task holds this idempotency key.
        IDEMPOTENCY_KEY_TAKEN;
        /// A request id was used again with another body.
        REQUEST_ID_REUSED;
        /// The task has ended.
        TASK_FINISHED;
        /// The task has not ended.
        TASK_NOT_FINISHED;
        /// The task has succeeded.
        TASK_SUCCEEDED;
        /// The task runs right now.
        TASK_RUNNING;
        /// The bulk operation was completed.
        BATCH_OPERATION_FINISHED;
        /// The first message of a session did not open it.
        SESSION_NOT_OPEN;
        /// The peer speaks another version of the protocol.
        PROTOCOL_VERSION_UNSUPPORTED;
        /// The caller's copy is out of date.
        ETAG_MISMATCH;
        /// A newer session of the same worker took over.
        SESSION_SUPERSEDED;
        /// More is waiting than may wait.
        OVERLOADED;
        /// A queue holds as many tasks as it may.
        QUEUE_FULL;
        /// As many bulk operations are at work as may be.
        TOO_MANY_OPERATIONS;
        /// As many cancel rules are active as may be.
        TOO_MANY_CANCEL_RULES;
        /// Too many queues.
        TOO_MANY_QUEUES;
        /// Too many sessions.
        TOO_MANY_SESSIONS;
        /// Too many watchers.
        TOO_MANY_WATCHERS;
        /// A message is larger than the server takes.
        MESSAGE_TOO_LARGE;
        /// SQL does not answer.
        STORE_UNAVAILABLE;
        /// The dispatcher or its queue does not answer.
        DISPATCHER_UNAVAILABLE;
        /// The server drains.
        SHUTTING_DOWN;
        /// The server noticed that the time of the call is over.
        DEADLINE_EXCEEDED;
        /// A fault of the server.
        INTERNAL;
        /// Not served here.
        FEATURE_DISABLED;
    }
}

/// `INVALID_ARGUMENT` with every violation; the reason is that of the first.
#[must_use]
pub fn invalid_argument(violations: &Violations) -> Status {
    let reason = violations.as_slice().first().map_or(reason::FIELD_INVALID, |violation| violation.reason);
    let shown = shown(violations);
    let mut details = with_reason(reason, []);
    details.set_bad_request(
        shown.as_slice().iter().map(|v| FieldViolation::new(v.field.clone(), v.description.clone())).collect::<Vec<_>>(),
    );
    Status::with_error_details(Code::InvalidArgument, shown.to_string(), details)
}

/// As many violations as fit into an answer, and how many more there are.
fn shown(violations: &Violations) -> Violations {
    let (mut shown, mut bytes) = (Violations::new(), 0);
    let all = violations.as_slice();
    for (i, v) in all.iter().enumerate() {
        bytes += v.field.len() + v.description.len();
        if i == SHOWN_VIOLATIONS || (i > 0 && bytes > SHOWN_BYTES) {
            let rest = all.len() - i;
            shown.add("...", reason::FIELD_INVALID, format!("and {rest} more violations that do not fit into an answer"));
            break;
        }
        shown.add(v.field.clone(), v.reason, v.description.clone());
    }
    shown
}

/// `NOT_FOUND`.
#[must_use]
pub fn not_found(reason: &str, resource_type: &str, name: impl Into<String>) -> Status {
    let name = name.into();
    let description = format!("{resource_type} {name} does not exist");
    of_resource(Code::NotFound, reason, resource_type, name, description)
}

/// `ALREADY_EXISTS`. `description` says what holds the name.
#[must_use]
pub fn already_exists(reason: &str, resource_type: &str, name: impl Into<String>, description: impl Into<String>) -> Status {
    of_resource(Code::AlreadyExists, reason, resource_type, name.into(), description.into())
}

/// `FAILED_PRECONDITION`: the call cannot work before `subject` is changed.
#[must_use]
pub fn failed_precondition(reason: &str, subject: impl Into<String>, description: impl Into<String>) -> Status {
    let (subject, description) = (subject.into(), description.into());
    let mut details = with_reason(reason, [("subject", subject.clone())]);
    details.add_precondition_failure_violation(reason, subject, description.clone());
    Status::with_error_details(Code::FailedPrecondition, description, details)
}

/// `ABORTED`: somebody else was faster.
#[must_use]
pub fn aborted(reason: &str, description: impl Into<String>) -> Status {
    Status::with_error_details(Code::Aborted, description, with_reason(reason, []))
}

/// `OUT_OF_RANGE`.
#[must_use]
pub fn out_of_range(reason: &str, description: impl Into<String>) -> Status {
    Status::with_error_details(Code::OutOfRange, description, with_reason(reason, []))
}

/// `DEADLINE_EXCEEDED`, noticed by the server.
#[must_use]
pub fn deadline_exceeded(description: impl Into<String>) -> Status {
    Status::with_error_details(Code::DeadlineExceeded, description, with_reason(reason::DEADLINE_EXCEEDED, []))
}

/// `RESOURCE_EXHAUSTED`: come back after `retry_after`.
#[must_use]
pub fn resource_exhausted(reason: &str, description: impl Into<String>, retry_after: Duration) -> Status {
    let description = description.into();
    let mut details = with_reason(reason, []);
    details.add_quota_failure_violation(reason, description.clone()).set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, description, details)
}

/// `UNAVAILABLE`: come back after `retry_after`.
#[must_use]
pub fn unavailable(reason: &str, description: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = with_reason(reason, []);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, description, details)
}

/// `UNIMPLEMENTED`: not served here.
#[must_use]
pub fn unimplemented(description: impl Into<String>) -> Status {
    Status::with_error_details(Code::Unimplemented, description, with_reason(reason::FEATURE_DISABLED, []))
}

/// `INTERNAL`. The caller gets an id and nothing else; the log gets the id and the whole chain of causes. The one place that logs
/// such an error.
#[must_use]
pub fn internal(error: &(dyn Error + 'static)) -> Status {
    let id = Uuid::new_v4().to_string();
    tracing::error!(error_id = id, error = %chain(error), "internal error");
    let details = with_reason(reason::INTERNAL, [(ERROR_ID, id.clone())]);
    Status::with_error_details(Code::Internal, format!("internal error {id}"), details)
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Adds the details that a status made by the library lacks: of what it finds in the head of a call, or while a stream of
/// messages is read.
#[must_use]
pub fn explained(bare: Status) -> Status {
    if !bare.details().is_empty() {
        return bare;
    }
    let reason = match bare.code() {
        Code::Unimplemented => reason::FEATURE_DISABLED,
        // The only thing that the library finds out of range is the length of a message.
        Code::OutOfRange => reason::MESSAGE_TOO_LARGE,
        Code::InvalidArgument => reason::FIELD_INVALID,
        Code::DeadlineExceeded | Code::Cancelled => reason::DEADLINE_EXCEEDED,
        Code::ResourceExhausted => reason::OVERLOADED,
        Code::Unavailable => reason::SHUTTING_DOWN,
        // The only thing that the library does not find is a service whose health is asked for.
        Code::NotFound => reason::SERVICE_NOT_FOUND,
        _ => reason::INTERNAL,
    };
    let message = match (bare.code(), bare.message()) {
        (Code::Unimplemented, "") => "there is no such method here; reflection lists those that there are",
        (_, message) => message,
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details_and_metadata(bare.code(), message, details, bare.metadata().clone())
}

/// The reason of a status made by Oxcart.
#[must_use]
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// How long the server asks to wait before the call is repeated.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

fn with_reason<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn of_resource(code: Code, reason: &str, resource_type: &str, name: String, description: String) -> Status {
    let mut details = with_reason(reason, [("name", name.clone())]);
    details.set_resource_info(resource_type, name, "", description.clone());
    Status::with_error_details(code, description, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the comments of the contracts promise is what the services can answer.
    #[test]
    fn violations_fit_into_the_trailers_of_an_answer() {
        let mut bad = Violations::new();
        for n in 0..5000 {
            bad.add(format!("items[{n}].queue"), reason::FIELD_INVALID, "ä".repeat(60));
        }
        let status = invalid_argument(&bad);
        let told = status.get_details_bad_request().expect("details").field_violations;
        assert!((10..=24).contains(&(told.len() - 1)), "{}", told.len());
        assert!(told.last().expect("the rest").description.starts_with("and 49"), "{:?}", told.last());
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).expect("headers");
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes < 16 * 1024, "{bytes} bytes of trailers");
    }

    #[test]
    fn contracts_name_reasons_that_exist() {
        const SERVICES: [&str; 4] = [
            include_str!("../../../proto/oxcart/submission/v1/submission_service.proto"),
            include_str!("../../../proto/oxcart/dispatcher/v1/dispatcher_service.proto"),
            include_str!("../../../proto/oxcart/worker/v1/worker_service.proto"),
            include_str!("../../../proto/oxcart/monitor/v1/monitor_service.proto"),
        ];
        const COMMON: &str = include_str!("../../../proto/oxcart/common/v1/common.proto");
        const CODES: [&str; 8] = [
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "OUT_OF_RANGE",
        ];
        let violations = [reason::FIELD_INVALID, reason::FILTER_SYNTAX, reason::FILTER_FIELD_UNKNOWN, reason::PAGE_TOKEN_INVALID];
        let declared: Vec<&str> = SERVICES.into_iter().chain([COMMON]).flat_map(enum_values).collect();
        let mut seen = 0;
        for word in SERVICES.into_iter().flat_map(capitals_in_comments) {
            seen += 1;
            let known = reason::ALL.contains(&word)
                || violations.contains(&word)
                || CODES.contains(&word)
                || declared.iter().any(|value| value.ends_with(word));
            assert!(known, "a contract names {word}, which is no code, no reason and no enum value");
        }
        assert!(seen > 50, "{seen} words were found");
    }

    /// The words in capitals of more than one part, in comments.
    fn capitals_in_comments(proto: &'static str) -> impl Iterator<Item = &'static str> {
        let words = |line: &'static str| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_name = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        proto.lines().filter_map(|line| line.split_once("//")).flat_map(move |(_, comment)| words(comment).filter(is_name))
    }

    fn enum_values(proto: &'static str) -> impl Iterator<Item = &'static str> {
        let is_value = |line: &&str| line.starts_with(|c: char| c.is_ascii_uppercase());
        proto.lines().map(str::trim).filter(is_value).filter_map(|line| line.split_once(" = ")).map(|(name, _)| name)
    }

    #[test]
    fn every_violation_is_named() {
        let mut violations = Violations::new();
        violations.add("tasks[0].name", reason::FIELD_REQUIRED, "is required");
        violations.add("tasks[1].queue", reason::FIELD_INVALID, "has a space");
        let status = invalid_argument(&violations);
        assert_eq!((status.code(), reason_of(&status).as_deref()), (Code::InvalidArgument, Some(reason::FIELD_REQUIRED)));
        let fields: Vec<_> = status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["tasks[0].name", "tasks[1].queue"]);
    }

    #[test]
    fn an_internal_error_is_masked() {
        let secret = std::io::Error::other("password is hunter2");
        let status = internal(&secret);
        assert!(!status.message().contains("hunter2") && !String::from_utf8_lossy(status.details()).contains("hunter2"));
        let info = status.get_details_error_info().unwrap();
        assert!(status.message().contains(&info.metadata[ERROR_ID]));
    }

    #[test]
    fn causes_are_kept() {
        let error = crate::ServiceError::component("monitor", std::io::Error::other("disk full"));
        assert_eq!(chain(&error), "monitor failed: disk full");
    }

    #[test]
    fn retry_info_reads_back() {
        let after = Duration::from_millis(1500);
        for status in [unavailable(reason::STORE_UNAVAILABLE, "x", after), resource_exhausted(reason::OVERLOADED, "x", after)] {
            assert_eq!(retry_after(&status), Some(after));
        }
        assert_eq!(retry_after(&not_found(reason::TASK_NOT_FOUND, "task", "1")), None);
    }
}
