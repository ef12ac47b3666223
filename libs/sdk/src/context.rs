//! What a handler knows of the run that it works on, and what it can say while it does.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oxcart_types::{Limits, Payload, QueueName, Run, Tag, TaskId, TaskName, Timestamp, WorkerId};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    codec,
    error::{TaskError, TaskResult},
    stop::{StopReason, StopSignal},
};

/// The run that a handler works on.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// Task.
    pub task_id: TaskId,
    /// Handler.
    pub task_name: TaskName,
    /// Run; strictly growing per task, fit as a fencing token.
    pub run: Run,
    /// Counted starts, this one included.
    pub attempt: u32,
    /// Counted starts that the policy allows.
    pub max_attempts: u32,
    /// Queue.
    pub queue: QueueName,
    /// Tags.
    pub tags: Vec<Tag>,
    /// What travels with the task; W3C trace context of its submission included.
    pub metadata: BTreeMap<String, String>,
    /// W3C trace context of the run: `traceparent`, and `tracestate` when there is one. Empty when nobody traces the task.
    pub trace_context: BTreeMap<String, String>,
    /// When the task must have ended, all attempts included.
    pub deadline: Option<Timestamp>,
    /// The process that runs it.
    pub worker_id: WorkerId,
}

/// Takes what a running handler reports. No call may block.
pub trait Reporter: Send + Sync + 'static {
    /// Units done, units in all (0 when unknown), and a short text for people.
    fn progress(&self, current: i64, total: i64, message: String);
    /// The handler is at work.
    fn heartbeat(&self);
    /// What the next run gets when this one does not finish.
    fn checkpoint(&self, checkpoint: Payload);
}

/// What a handler is given: cheap to clone.
#[derive(Clone)]
pub struct TaskContext(Arc<Inner>);

struct Inner {
    info: RunInfo,
    stop: StopSignal,
    restored: Option<Payload>,
    reporter: Arc<dyn Reporter>,
}

impl TaskContext {
    /// The context of a run; for those who run handlers. `restored` is the checkpoint of the runs before.
    pub fn new(info: RunInfo, stop: StopSignal, restored: Option<Payload>, reporter: Arc<dyn Reporter>) -> Self {
        Self(Arc::new(Inner { info, stop, restored, reporter }))
    }

    /// The run, all of it.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        &self.0.info
    }

    /// Task.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        self.0.info.task_id
    }

    /// Number of the run. It grows with every run of the task, so that other systems can refuse an older one.
    #[must_use]
    pub fn run(&self) -> Run {
        self.0.info.run
    }

    /// Counted starts, this one included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.info.attempt
    }

    /// Counted starts that the policy allows.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.0.info.max_attempts
    }

    /// True when a failure of this attempt ends the task.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.attempt() >= self.max_attempts()
    }

    /// Queue.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.0.info.queue
    }

    /// Tags.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.0.info.tags
    }

    /// What travels with the task.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.info.metadata
    }

    /// W3C trace context of the run: `traceparent`, and `tracestate` when there is one. Send them as headers with the calls
    /// that the handler makes, and what is called belongs to the trace of the task. Empty when nobody traces the task.
    #[must_use]
    pub fn trace_context(&self) -> &BTreeMap<String, String> {
        &self.0.info.trace_context
    }

    /// When the task must have ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.0.info.deadline
    }

    /// The process that runs it.
    #[must_use]
    pub fn worker_id(&self) -> WorkerId {
        self.0.info.worker_id
    }

    /// Cancelled when the handler is asked to stop. A handler that looks at it stops in good order; one that does not is
    /// aborted at its next `.await` after a grace period.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        self.0.stop.token()
    }

    /// True when the handler is asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.stop.token().is_cancelled()
    }

    /// Why it is asked to stop.
    #[must_use]
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.0.stop.reason()
    }

    /// Runs a future until it is done or the handler is asked to stop.
    ///
    /// # Errors
    /// [`TaskError::cancelled`] when the handler is asked to stop first.
    pub async fn or_cancelled<T>(&self, future: impl Future<Output = T>) -> TaskResult<T> {
        self.cancellation().run_until_cancelled(future).await.ok_or_else(TaskError::cancelled)
    }

    /// Reports progress: `total` is 0 when unknown. Never blocks; only the newest report of a second is kept.
    pub fn progress(&self, current: i64, total: i64, message: impl Into<String>) {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(Limits::REASON_BYTES));
        self.0.reporter.progress(current, total, message);
    }

    /// Says that the handler is at work, which progress and checkpoints say too. A handler of a task with a heartbeat timeout must
    /// do one of these at least that often. Never blocks, and costs next to nothing.
    pub fn heartbeat(&self) {
        self.0.reporter.heartbeat();
    }

    /// Keeps a value for the next run, should this one not finish. Never blocks: it is written within about a second, and
    /// before the end of the run in any case but the death of the process.
    ///
    /// # Errors
    /// The value cannot be written as JSON or is over the limit of a payload.
    pub fn checkpoint<T: Serialize>(&self, value: &T) -> TaskResult {
        self.0.reporter.checkpoint(codec::encode(value)?);
        Ok(())
    }

    /// What the newest checkpoint of an earlier run holds.
    ///
    /// # Errors
    /// The checkpoint does not read as `T`.
    pub fn restore<T: DeserializeOwned>(&self) -> TaskResult<Option<T>> {
        self.0.restored.as_ref().map(codec::decode).transpose()
    }

    /// Gives the run back: `return Err(ctx.release(delay, "upstream is closed"))`. Costs no attempt.
    #[must_use]
    pub fn release(&self, delay: Duration, reason: impl fmt::Display) -> TaskError {
        TaskError::released(delay, reason)
    }

    /// A context without a platform behind it, to test handlers: first run of a task named `test`. What the handler reports
    /// is kept in [`Detached`].
    #[must_use]
    pub fn detached() -> (Self, Detached) {
        let info = RunInfo {
            task_id: TaskId::from_bytes([1; 16]),
            task_name: codec::test_name(),
            run: Run::FIRST,
            attempt: 1,
            max_attempts: 1,
            queue: QueueName::default_queue(),
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            trace_context: BTreeMap::new(),
            deadline: None,
            worker_id: WorkerId::from_bytes([2; 16]),
        };
        Self::detached_as(info, None)
    }

    /// As [`Self::detached`], of another run and with a checkpoint.
    #[must_use]
    pub fn detached_as(info: RunInfo, restored: Option<Payload>) -> (Self, Detached) {
        let detached = Detached::default();
        let context = Self::new(info, detached.stop.clone(), restored, Arc::new(detached.clone()));
        (context, detached)
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("info", &self.0.info).finish_non_exhaustive()
    }
}

/// The other side of a detached context: stops the handler and shows what it reported.
#[derive(Debug, Clone, Default)]
pub struct Detached {
    stop: StopSignal,
    reports: Arc<Mutex<Reports>>,
}

#[derive(Debug, Default)]
struct Reports {
    heartbeats: usize,
    progress: Option<(i64, i64, String)>,
    checkpoint: Option<Payload>,
}

impl Detached {
    /// Asks the handler to stop.
    pub fn stop(&self, reason: StopReason) {
        self.stop.stop(reason);
    }

    /// The newest progress: done, in all, text.
    #[must_use]
    pub fn progress(&self) -> Option<(i64, i64, String)> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).progress.clone()
    }

    /// How often the handler said that it is at work, progress and checkpoints left out.
    #[must_use]
    pub fn heartbeats(&self) -> usize {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).heartbeats
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Payload> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).checkpoint.clone()
    }
}

impl Reporter for Detached {
    fn heartbeat(&self) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).heartbeats += 1;
    }

    fn progress(&self, current: i64, total: i64, message: String) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).progress = Some((current, total, message));
    }

    fn checkpoint(&self, checkpoint: Payload) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).checkpoint = Some(checkpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_in_the_next_run() {
        let (first, detached) = TaskContext::detached();
        assert_eq!(first.restore::<u32>(), Ok(None));
        first.checkpoint(&7_u32).expect("a number");
        first.progress(1, 2, "half");
        first.heartbeat();
        assert_eq!(detached.heartbeats(), 1);
        assert_eq!(detached.progress(), Some((1, 2, "half".to_owned())));
        let (second, _) = TaskContext::detached_as(first.info().clone(), detached.checkpoint());
        assert_eq!(second.restore::<u32>(), Ok(Some(7)));
        assert_eq!(second.restore::<String>().expect_err("a number").kind_str(), oxcart_types::FailureKind::INVALID_PAYLOAD);
    }

    #[tokio::test]
    async fn a_stop_ends_a_wait() {
        let (context, detached) = TaskContext::detached();
        assert_eq!(context.or_cancelled(async { 1 }).await, Ok(1));
        detached.stop(StopReason::Timeout);
        let waited = context.or_cancelled(std::future::pending::<()>()).await;
        assert_eq!(waited, Err(TaskError::cancelled()));
        assert_eq!(context.stop_reason(), Some(&StopReason::Timeout));
    }
}
