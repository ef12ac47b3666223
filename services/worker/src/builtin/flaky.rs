//! `flaky`: fails some attempts and then succeeds. For demonstrations and tests of retries.

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use serde::Deserialize;

/// Kind of its failures when none is named.
const KIND: &str = "Flaky";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// Attempts that fail.
    times: u32,
    /// Kind of the failures.
    #[serde(default)]
    kind: Option<String>,
    /// The failures are not to be retried.
    #[serde(default)]
    fatal: bool,
}

/// Returns the attempt that succeeded.
pub(super) async fn run(ctx: TaskContext, input: Input) -> TaskResult<u32> {
    if ctx.attempt() > input.times {
        return Ok(ctx.attempt());
    }
    fail(&ctx, input.times, input.kind.as_deref().unwrap_or(KIND), input.fatal)
}

/// The failure of an attempt that is to fail.
pub(super) fn fail<T>(ctx: &TaskContext, times: u32, kind: &str, fatal: bool) -> TaskResult<T> {
    let message = format!("attempt {} of {times} that fail", ctx.attempt());
    let error = if fatal { TaskError::fatal(message) } else { TaskError::retryable(message) };
    Err(error.kind(kind))
}

#[cfg(test)]
mod tests {
    use oxcart_sdk::{Class, RunInfo};

    use super::*;

    #[tokio::test]
    async fn it_fails_as_often_as_told() {
        let (first, _) = TaskContext::detached();
        let error = run(first.clone(), Input { times: 1, kind: None, fatal: false }).await.expect_err("the first fails");
        assert_eq!((error.kind_str(), error.class()), (KIND, Class::Retryable));
        let (second, _) = TaskContext::detached_as(RunInfo { attempt: 2, ..first.info().clone() }, None);
        assert_eq!(run(second, Input { times: 1, kind: None, fatal: false }).await, Ok(2));
        let error = run(first, Input { times: 1, kind: Some("Bad".into()), fatal: true }).await.expect_err("fatal");
        assert_eq!((error.kind_str(), error.class()), ("Bad", Class::Fatal));
    }
}
