//! What goes wrong, how it is told, and with which code the program ends.

use std::{io::Write as _, process::ExitCode};

use oxcart_sdk::ClientError;
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
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Client(ClientError::from_status(&status))
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl CliError {
    /// The code that the program ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Timeout(_) => Exit::Timeout,
            Self::Other(_) => Exit::Failed,
            Self::Client(ClientError::Refused { code, .. }) => exit_of(*code),
            Self::Client(ClientError::Address { .. } | ClientError::Input(_)) => Exit::Usage,
            Self::Client(_) => Exit::Failed,
        }
    }

    /// The lines for stderr: what, why for machines, and every violation.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self::Client(ClientError::Refused { reason, message, violations, code, .. }) = self else {
            return vec![format!("error: {self}")];
        };
        let message = if message.is_empty() { format!("{code:?}") } else { message.clone() };
        let mut lines = vec![format!("error: {message}")];
        if !reason.is_empty() {
            lines.push(format!("reason: {reason}"));
        }
        lines.extend(violations.iter().map(|v| format!("  {}: {}", v.field, v.description)));
        if *code == Code::Unavailable && reason.is_empty() {
            lines
                .push("hint: is the system running? `oxcart dev` starts one; --address or OXCART_ADDRESS names another".to_owned());
        }
        lines
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
        let status = Status::with_error_details(Code::InvalidArgument, "1 field is wrong", details);
        assert_eq!(
            CliError::from(status).lines(),
            ["error: 1 field is wrong", "reason: FIELD_INVALID", "  task.queue: is not allowed"]
        );
    }
}
