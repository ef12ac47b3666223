//! Handlers: what users write.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::TaskContext,
    error::{TaskError, TaskResult},
};

/// Ties a name, an input and an output together, for typed submission and typed handling.
pub trait Task: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the handler.
    const NAME: &'static str;
    /// What the handler returns.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// Runs tasks of one type, with hooks.
///
/// Hooks never change what becomes of the run; one that panics is logged.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of `{T}`",
    note = "implement `Handler` with `async fn run(&self, ctx: TaskContext, input: {T}) -> TaskResult<Output>`, or register a closure with `handle_fn`"
)]
pub trait Handler<T: Task>: Send + Sync + 'static {
    /// Does the work. It may be called more than once for a task: see [`TaskContext::run`].
    fn run(&self, ctx: TaskContext, input: T) -> impl Future<Output = TaskResult<T::Output>> + Send;

    /// The handler returned a result; it is about to be written, and may yet be refused when another run was faster.
    fn on_success(&self, _ctx: &TaskContext, _output: &T::Output) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The run failed and another one follows after `backoff`.
    fn on_retry(&self, _ctx: &TaskContext, _error: &TaskError, _backoff: Duration) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The run failed and no other follows.
    fn on_failure(&self, _ctx: &TaskContext, _error: &TaskError) -> impl Future<Output = ()> + Send {
        async {}
    }
}
