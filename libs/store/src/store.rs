//! The handle that services hold.

use oxcart_types::{HandoffId, LeaseToken, QueueName, Run, TaskChanges, TaskId, Timestamp, WorkerId};

use crate::{error::StoreError, model::*};

/// How to reach the database and how much of it to use.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `mysql://user:password@host:port/database`, `sqlite:path/to/file.db` or `sqlite::memory:`.
    pub url: String,
    /// Connections of the pool at most (MySQL; SQLite has one writer and this many readers).
    pub max_connections: usize,
    /// Waiting longer than this for a connection gives [`StoreError::Busy`].
    pub acquire_timeout: std::time::Duration,
}

/// The store. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Store(());

impl Store {
    /// Connects and checks that the schema is the one this program needs.
    pub async fn connect(_options: StoreOptions) -> Result<Self, StoreError> { todo!() }
    /// Brings the schema up to date, under a lock, so that several processes may do it at once. Returns the versions applied.
    pub async fn migrate(_options: &StoreOptions) -> Result<Vec<String>, StoreError> { todo!() }
    /// Answers when the database does.
    pub async fn ping(&self) -> Result<(), StoreError> { todo!() }
    /// Commits units in one transaction. One outbox row (`handoff`) covers all tasks of them that are not set aside; it is not
    /// written when there are none. A unit that conflicts is refused alone. Repeating the call after an unknown outcome finds
    /// what was committed when ids were chosen or a request id was given.
    pub async fn submit(&self, _units: Vec<SubmitUnit>, _handoff: HandoffId, _now: Timestamp) -> Result<Vec<UnitOutcome>, StoreError> { todo!() }
    /// The dispatcher has these: deletes outbox rows, and writes agenda rows for what found no room, in one transaction.
    pub async fn confirm_handoffs(&self, _done: &[HandoffId], _no_room: &[AgendaRow]) -> Result<(), StoreError> { todo!() }
    /// Outbox rows made before `made_before`, oldest first.
    pub async fn stale_handoffs(&self, _made_before: Timestamp, _limit: usize) -> Result<Vec<StaleHandoff>, StoreError> { todo!() }
    /// Number of outbox rows, counted up to `cap`.
    pub async fn count_handoffs(&self, _cap: usize) -> Result<usize, StoreError> { todo!() }
    /// Claims agenda rows due at `now`, `Room` rows left out, by moving them to `until` (SKIP LOCKED).
    pub async fn claim_agenda(&self, _now: Timestamp, _until: Timestamp, _limit: usize) -> Result<Vec<AgendaVisit>, StoreError> { todo!() }
    /// Deletes agenda rows that are unchanged.
    pub async fn clear_agenda(&self, _rows: &[AgendaRow]) -> Result<(), StoreError> { todo!() }
    /// Writes agenda rows; a row that is there is changed only if its run is not above.
    pub async fn set_agenda(&self, _rows: &[AgendaRow]) -> Result<(), StoreError> { todo!() }
    /// Queues with rows that found no room.
    pub async fn queues_without_room(&self) -> Result<Vec<QueueName>, StoreError> { todo!() }
    /// The best rows of a queue that found no room: highest priority, then oldest.
    pub async fn best_without_room(&self, _queue: &QueueName, _limit: usize) -> Result<Vec<(AgendaRow, Entry)>, StoreError> { todo!() }
    /// Rows of the agenda by queue and reason, counted up to `cap` each.
    pub async fn count_agenda(&self, _cap: u64) -> Result<Vec<AgendaCount>, StoreError> { todo!() }
    /// Walks over tasks submitted before `created_before`, by id, `limit` rows at a time.
    pub async fn walk_open(&self, _after: Option<TaskId>, _created_before: Timestamp, _limit: usize) -> Result<Walk, StoreError> { todo!() }

    /// Reads tasks for running them, in any order; unknown ones are left out.
    pub async fn load(&self, _ids: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> { todo!() }
    /// Writes starts. Guards: the run before has a non-terminal end with attempts left and due by `now`, no cancel counts,
    /// the task exists; a run n > 1 needs end n − 1. A start of another run than the next is refused.
    pub async fn start(&self, _starts: &[Start], _now: Timestamp) -> Result<Vec<StartOutcome>, StoreError> { todo!() }
    /// Writes ends. Guard: the start is there with the same token.
    pub async fn end(&self, _ends: &[End], _now: Timestamp) -> Result<Vec<EndOutcome>, StoreError> { todo!() }
    /// Ends runs of vanished workers.
    pub async fn take_over(&self, _runs: &[TakeOver], _now: Timestamp) -> Result<Vec<TakeOverOutcome>, StoreError> { todo!() }
    /// Which of these runs are open and owned by their token.
    pub async fn still_mine(&self, _runs: &[RunKey]) -> Result<Vec<bool>, StoreError> { todo!() }
    /// Notes signs of life, progress and checkpoints.
    pub async fn set_live(&self, _live: &[Live], _now: Timestamp) -> Result<(), StoreError> { todo!() }
    /// Which of these tasks have a cancel that counts.
    pub async fn cancels(&self, _tasks: &[TaskId]) -> Result<Vec<(TaskId, Cancel)>, StoreError> { todo!() }

    /// Closes the next slot of a task.
    pub async fn close(&self, _close: &Close) -> Result<CloseOutcome, StoreError> { todo!() }
    /// Notes a cancel for the open run, with an agenda row at the end of the grace.
    pub async fn request_cancel(&self, _task: TaskId, _cancel: &Cancel) -> Result<(), StoreError> { todo!() }
    /// Changes a task of which no run is open: closes the next slot as RELEASED and changes the row in one transaction.
    /// `horizon`: due later than this goes to the agenda, else to the outbox under `handoff`.
    pub async fn update(&self, _task: TaskId, _changes: &TaskChanges, _etag: Option<&str>, _by: LeaseToken, _handoff: HandoffId, _now: Timestamp, _horizon: Timestamp) -> Result<UpdateOutcome, StoreError> { todo!() }
    /// Deletes a finished task and all that belongs to it.
    pub async fn delete(&self, _task: TaskId) -> Result<DeleteOutcome, StoreError> { todo!() }

    /// Reads tasks in the order asked; `None` for unknown ones.
    pub async fn get(&self, _ids: &[TaskId], _view: View) -> Result<Vec<Option<TaskRecord>>, StoreError> { todo!() }
    /// Lists tasks by id, newest first, before `before`.
    pub async fn list(&self, _filter: &TaskFilter, _before: Option<TaskId>, _limit: usize) -> Result<TaskPage, StoreError> { todo!() }
    /// Pages over the chain of a task, oldest first, after run `after`; `None` when there is no such task.
    pub async fn runs(&self, _task: TaskId, _after: Option<Run>, _limit: usize) -> Result<Option<Vec<RunRecord>>, StoreError> { todo!() }

    /// Writes workers; one seen before is replaced.
    pub async fn put_workers(&self, _rows: &[WorkerRow]) -> Result<(), StoreError> { todo!() }
    /// Lists workers by id, after `after`, seen at or after `seen_from`.
    pub async fn workers(&self, _after: Option<WorkerId>, _seen_from: Option<Timestamp>, _limit: usize) -> Result<Vec<WorkerRow>, StoreError> { todo!() }
    /// Deletes workers last seen before.
    pub async fn forget_workers(&self, _seen_before: Timestamp) -> Result<(), StoreError> { todo!() }
    /// Reads a durable cursor.
    pub async fn cursor(&self, _name: &str) -> Result<Option<String>, StoreError> { todo!() }
    /// Writes a durable cursor.
    pub async fn set_cursor(&self, _name: &str, _value: &str) -> Result<(), StoreError> { todo!() }
    /// Deletes idempotency keys and request ids that have expired, up to `limit`.
    pub async fn forget_keys(&self, _expired_before: Timestamp, _limit: usize) -> Result<usize, StoreError> { todo!() }
}
