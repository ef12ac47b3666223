//! What is known of a task and of what it waits for.

use std::time::Duration;

use oxcart_proto::pb::{common::v1::WorkerInfo, dispatcher::v1::EntryPlace};
use oxcart_store::{Pause, TaskRecord, WaitingInSql};
use oxcart_types::Timestamp;

/// Everything that blockers are found in.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// When they were gathered.
    pub(crate) now: Timestamp,
    /// The task, basic view.
    pub(crate) task: TaskRecord,
    /// Last sign of life of the open run.
    pub(crate) heartbeat_at: Option<Timestamp>,
    /// Where it waits in SQL.
    pub(crate) waiting: WaitingInSql,
    /// Set while its queue is paused.
    pub(crate) pause: Option<Pause>,
    /// What the dispatcher says, or why it says nothing.
    pub(crate) queue: Result<QueueFacts, String>,
    /// Workers that were heard of lately, lost ones included.
    pub(crate) workers: Vec<WorkerInfo>,
}

/// What the dispatcher says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct QueueFacts {
    /// The entry of the task; `None` when it has none.
    pub(crate) entry: Option<EntryFacts>,
    /// Entries that are ready.
    pub(crate) ready: i64,
    /// Entries in all.
    pub(crate) held: i64,
    /// Entries that may be held.
    pub(crate) window: i64,
}

/// The entry of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryFacts {
    /// Where it is.
    pub(crate) place: EntryPlace,
    /// Times given out.
    pub(crate) deliveries: i32,
    /// Entries that go before it.
    pub(crate) ahead: i64,
    /// Until it is due, or its lease ends.
    pub(crate) remaining: Option<Duration>,
}
