//! What goes wrong, how it is told, and with which code the program ends.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use oxcart_queue::QueueError;
use oxcart_sdk::ClientError;
use oxcart_store::StoreError;
use tonic::{Code, Status};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Ok = 0,
    /// A task, a check or the command itself failed.
    Failed = 1,
    /// The command or its input is wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The state of things does not allow it.
    Conflict = 4,
    /// The system cannot be reached, or is busy.
    Unavailable = 5,
    /// It took too long.
    Timeout = 124,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The input is wrong.
    #[error("{0}")]
    Usage(String),
    /// The system answered with an error.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody answers at the address.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: anyhow::Error,
    },
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// Nobody reads the output any more: `oxcart task list | head -1`.
    #[error("the output is closed")]
    OutputClosed,
    /// Anything else.
    #[error("{0}")]
    Other(#[from] anyhow::Error),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Client(ClientError::from_status(&status))
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Other(error.into()),
        }
    }
}

impl CliError {
    /// The code that the program ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Timeout(_) => Exit::Timeout,
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::OutputClosed => Exit::Ok,
            Self::Other(error) => error.chain().find_map(exit_of_cause).unwrap_or(Exit::Failed),
            Self::Client(ClientError::Refused { code, .. }) => exit_of(*code),
            Self::Client(ClientError::Address { .. } | ClientError::Input(_)) => Exit::Usage,
            Self::Client(_) => Exit::Failed,
        }
    }

    /// The lines for stderr: what, why for machines, every violation, and what can be done.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Client(ClientError::Refused { reason, message, violations, code, retry_after }) => {
                let what = match violations.len() {
                    0 if message.is_empty() => format!("{code:?}"),
                    // The message holds the only violation in full.
                    0 | 1 => message.clone(),
                    n => format!("{n} things are wrong with the request"),
                };
                let mut lines = vec![format!("error: {what}")];
                if !reason.is_empty() {
                    lines.push(format!("reason: {reason}"));
                }
                if violations.len() > 1 {
                    lines.extend(violations.iter().map(|v| format!("  {}: {}", v.field, v.description)));
                }
                lines.extend(retry_after.map(|after| format!("hint: try again in {after:?}")));
                lines
            }
            Self::Unreachable { source, .. } => vec![
                format!("error: {self}: {}", causes(source)),
                "hint: is the system running? `oxcart dev` starts one; --address or OXCART_ADDRESS names another".to_owned(),
            ],
            Self::OutputClosed => Vec::new(),
            Self::Other(error) => vec![format!("error: {}", causes(error))],
            Self::Usage(_) | Self::Timeout(_) | Self::Client(_) => vec![format!("error: {self}")],
        }
    }

    /// Writes the lines to stderr.
    pub(crate) fn tell(&self) {
        let mut stderr = std::io::stderr().lock();
        for line in self.lines() {
            // There is nobody left to tell when stderr is gone.
            let _ = writeln!(stderr, "{line}");
        }
    }
}

/// An error and its causes in one line, without those that a line above has told already.
fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.ends_with(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

/// What a cause says about the whole; nothing for most.
fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(StoreError::Unavailable(_) | StoreError::Busy), _) | (_, Some(QueueError::Unavailable(_))) => Some(Exit::Unavailable),
        (Some(StoreError::Configuration(_)), _) => Some(Exit::Usage),
        (Some(StoreError::Schema { .. }), _) => Some(Exit::Conflict),
        _ => None,
    }
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Exit::Conflict,
        Code::Unavailable | Code::ResourceExhausted => Exit::Unavailable,
        Code::DeadlineExceeded => Exit::Timeout,
        Code::Cancelled
        | Code::Unknown
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn codes_become_exit_codes() {
        let exit = |code| CliError::from(Status::new(code, "x")).exit() as u8;
        assert_eq!([Code::InvalidArgument, Code::NotFound, Code::Aborted, Code::Unavailable].map(exit), [2, 3, 4, 5]);
        assert_eq!(
            [Code::DeadlineExceeded, Code::Internal, Code::ResourceExhausted, Code::AlreadyExists].map(exit),
            [124, 1, 5, 4]
        );
        assert_eq!(CliError::Usage(String::new()).exit() as u8, 2);
        assert_eq!(CliError::Timeout(String::new()).exit() as u8, 124);
    }

    #[test]
    fn errors_name_reason_and_violations() {
        let mut details = ErrorDetails::new();
        details.set_error_info("FIELD_INVALID", "oxcart.dev", std::collections::HashMap::new());
        details.add_bad_request_violation("task.queue", "is not allowed");
        details.add_bad_request_violation("task.priority", "is 10");
        let status = Status::with_error_details(Code::InvalidArgument, "task.queue: is not allowed; task.priority: is 10", details);
        assert_eq!(
            CliError::from(status).lines(),
            [
                "error: 2 things are wrong with the request",
                "reason: FIELD_INVALID",
                "  task.queue: is not allowed",
                "  task.priority: is 10"
            ]
        );
    }

    #[test]
    fn one_violation_is_told_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("task_id", "is required");
        let status = Status::with_error_details(Code::InvalidArgument, "task_id: is required", details);
        assert_eq!(CliError::from(status).lines(), ["error: task_id: is required"]);
    }

    #[test]
    fn what_can_be_tried_again_says_when() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(std::time::Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "the database is unavailable", details);
        assert_eq!(CliError::from(status).lines(), ["error: the database is unavailable", "hint: try again in 2s"]);
    }

    #[test]
    fn causes_are_told_once_and_decide_the_exit_code() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let store = StoreError::Unavailable(refused.into());
        let error = CliError::from(anyhow::Error::from(store).context("cannot use the database"));
        assert_eq!(error.lines(), ["error: cannot use the database: the database is unavailable: connection refused"]);
        assert_eq!(error.exit(), Exit::Unavailable);
        let error = CliError::from(anyhow::Error::from(StoreError::Configuration("no URL".to_owned())));
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn an_output_that_is_closed_is_no_error() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit(), error.lines()), (Exit::Ok, Vec::new()));
    }
}
