//! A task as it is read: plain data that the store fills and the contracts show.

use std::time::Duration;

use crate::{
    chain::{ChainHead, EndKind, Run, StartKind},
    clock::Timestamp,
    failure::Failure,
    id::WorkerId,
    payload::Payload,
    spec::TaskSpec,
    state::TaskState,
};

/// How much of a task to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Without payload, result, error detail and runs.
    Basic,
    /// Everything, with the newest 50 runs.
    Full,
}

/// A task as the store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Specification; the payload is `null` in the basic view.
    pub spec: TaskSpec,
    /// Time of submission.
    pub created_at: Timestamp,
    /// Head of the chain.
    pub head: ChainHead,
    /// State that follows from it.
    pub state: TaskState,
    /// When the latest run started; `None` when none did.
    pub started_at: Option<Timestamp>,
    /// When the task ended; `None` while it is open.
    pub ended_at: Option<Timestamp>,
    /// When the next run is due.
    pub next_run_at: Option<Timestamp>,
    /// Worker of the latest run.
    pub worker: Option<WorkerId>,
    /// Result of a task that succeeded; full view only.
    pub result: Option<Payload>,
    /// Latest failure.
    pub failure: Option<Failure>,
    /// Latest progress.
    pub progress: Option<Progress>,
    /// The newest cancel that counts.
    pub cancel: Option<Cancel>,
    /// The newest 50 runs, oldest first; full view only.
    pub runs: Vec<RunRecord>,
}

/// One link of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Number.
    pub run: Run,
    /// A worker's start, or a closed slot.
    pub kind: StartKind,
    /// Counted starts, this one included.
    pub attempt: u32,
    /// Worker; `None` for a closed slot.
    pub worker: Option<WorkerId>,
    /// Start.
    pub started_at: Timestamp,
    /// End; `None` while it is open.
    pub end: Option<RunEndRecord>,
}

/// The end of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEndRecord {
    /// Kind.
    pub kind: EndKind,
    /// When.
    pub at: Timestamp,
    /// Failure, when it has one.
    pub failure: Option<Failure>,
    /// When the next run is due.
    pub next_run_at: Option<Timestamp>,
    /// The replay that has undone it, if there was one.
    pub replay: Option<ReplayRecord>,
}

/// A replay: the end that it belongs to does not count any more, and a new budget of attempts began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRecord {
    /// When.
    pub at: Timestamp,
    /// Counted starts of the budget; those of the task's policy when `None`.
    pub max_attempts: Option<u32>,
    /// Why, for people; may be empty.
    pub reason: String,
}

/// Latest progress report of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Units done.
    pub current: i64,
    /// Units in all; 0 when unknown.
    pub total: i64,
    /// Short text for people.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// A cancel that was asked for while a run was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Time for the handler to stop by itself.
    pub grace: Duration,
}

impl TaskRecord {
    /// Opaque; differs after every change that a caller can see, progress included. It follows from the chain alone, so a
    /// wait survives any restart.
    #[must_use]
    pub fn etag(&self) -> String {
        let run = self.head.latest.map_or(0, |latest| latest.run.get());
        let progress = self.progress.as_ref().map_or(0, |progress| progress.at.timestamp_micros());
        let cancel = u8::from(self.cancel.is_some());
        format!("{run}-{}-{cancel}-{progress:x}", self.state)
    }
}
