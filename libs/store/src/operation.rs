//! Operations on many tasks: what they are and how far they are.

use std::time::Duration;

use oxcart_types::{CancelRuleId, EndKind, Failure, LeaseToken, OperationId, RequestId, Run, Tag, TaskId, Timestamp};

use crate::{Cancel, Entry, OpenTask};

/// Which tasks an operation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// These.
    Tasks(Vec<TaskId>),
    /// Those with this tag.
    Tag(Tag),
    /// Those that match this filter; times in it count from the start of the operation.
    Filter(String),
    /// This one, and all that it and its children started.
    Tree(TaskId),
}

/// An operation that cancels, to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// Id.
    pub id: OperationId,
    /// The client's name for the call.
    pub request: Option<RequestId>,
    /// Which tasks.
    pub selector: Selector,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// Time for running handlers to stop by themselves.
    pub grace: Duration,
    /// Now.
    pub created_at: Timestamp,
}

/// What became of a [`NewOperation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationStarted {
    /// It is stored, now or by an earlier call with the same request id.
    Started(Box<Operation>),
    /// The request id was used for something else.
    RequestReused(RequestId),
    /// As many are at work as may be.
    TooMany,
}

/// State of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationState {
    /// At work.
    Running,
    /// Done.
    Completed,
    /// Stopped by a caller.
    Stopped,
}

/// What an operation has come to so far, in tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Picked.
    pub matched: i64,
    /// Cancelled: no run of them will start.
    pub cancelled: i64,
    /// Running and asked to stop.
    pub requested: i64,
    /// Had ended before.
    pub finished: i64,
    /// Could not be found.
    pub failed: i64,
}

/// An operation as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub asked: NewOperation,
    /// Cancel rule whose sweep it is.
    pub rule: Option<CancelRuleId>,
    /// State.
    pub state: OperationState,
    /// Batches recorded.
    pub step: i64,
    /// The next batch comes after this.
    pub position: Option<TaskId>,
    /// What it has come to.
    pub counts: OperationCounts,
    /// The first failures, for people.
    pub failures: Vec<String>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A batch that was carried out, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStep {
    /// Operation.
    pub id: OperationId,
    /// [`Operation::step`] as it was read: when somebody else has recorded a batch since, this one does not count.
    pub step: i64,
    /// What the batch adds.
    pub added: OperationCounts,
    /// The next batch comes after this.
    pub position: Option<TaskId>,
    /// The first failures, those of earlier batches included.
    pub failures: Vec<String>,
    /// When the next batch is due; `None` when there is none.
    pub next_at: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What became of an attempt to stop an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationStopped {
    /// It is stopped, now or before.
    Stopped(Box<Operation>),
    /// It was completed.
    Completed,
    /// There is no such operation.
    NoOperation,
}

/// A member of a tree that is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeMember {
    /// Task.
    pub task: TaskId,
    /// As what it is counted so far.
    pub counted: Option<Counted>,
    /// Its children up to this one are members already.
    pub after: Option<TaskId>,
}

/// As what a task is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Cancelled.
    Cancelled,
    /// Asked to stop.
    Requested,
    /// Had ended before.
    Finished,
    /// Not found.
    Failed,
}

/// A task to be cancelled.
#[derive(Debug, Clone, PartialEq)]
pub struct CancelTask {
    /// Task.
    pub task: TaskId,
    /// Closer token: the same over all tries.
    pub by: LeaseToken,
    /// What a run that is open is told.
    pub cancel: Cancel,
    /// What is kept with the closed slot of a task that waits.
    pub failure: Failure,
}

/// What became of a [`CancelTask`].
#[derive(Debug, Clone, PartialEq)]
pub enum CancelOutcome {
    /// The slot of this run is closed, now or by an earlier try: no run will start.
    Closed {
        /// The run.
        run: Run,
        /// What the dispatcher knew of the task.
        entry: Box<Entry>,
    },
    /// A run is open, and the cancel is written: no other one will start.
    Requested(Box<OpenTask>),
    /// The task had ended.
    Ended(EndKind),
    /// There is no such task.
    NoTask,
}
