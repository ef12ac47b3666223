//! Names of spans and of their attributes that more than one service uses, so that a trace reads alike from end to end. Dashboards
//! and searches are built on them; docs/tracing.md explains them to operators.

/// A task was accepted with a trace context of its own: in that trace, linked to the call that brought it.
pub const SUBMIT: &str = "submit";
/// A handler at work.
pub const RUN: &str = "run";
/// The end of a run on its way into SQL.
pub const OUTCOME: &str = "outcome";

/// Id of the task.
pub const TASK_ID: &str = "task.id";
/// Name of the task: which handler.
pub const TASK_NAME: &str = "task.name";
/// Queue of the task.
pub const QUEUE: &str = "queue";
/// Number of the run.
pub const RUN_NUMBER: &str = "run";
/// Counted starts, this one included.
pub const ATTEMPT: &str = "attempt";
/// How the run ended: a kind of end, such as `SUCCEEDED` or `RETRY`; `FENCED` when another end stands.
pub const END: &str = "end";
/// Kind of the failure, when there is one.
pub const ERROR_KIND: &str = "error.kind";
/// The trace, for log lines.
pub const TRACE_ID: &str = "trace_id";
/// The span, for log lines; only where spans are exported.
pub const SPAN_ID: &str = "span_id";
