//! An update of a task, as one value.

use oxcart_types::{HandoffId, LeaseToken, TaskChanges, TaskId, Timestamp};

/// An update; see [`crate::Store::update`].
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// Task.
    pub(crate) task: TaskId,
    /// New values.
    pub(crate) changes: TaskChanges,
    /// What the task must look like; anything goes when `None`.
    pub(crate) etag: Option<String>,
    /// Closer token: the same over all tries of one update.
    pub(crate) by: LeaseToken,
    /// Outbox row, when the task is due.
    pub(crate) handoff: HandoffId,
    /// Now.
    pub(crate) now: Timestamp,
    /// Due later than this goes to the agenda.
    pub(crate) horizon: Timestamp,
}
