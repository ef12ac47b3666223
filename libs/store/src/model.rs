//! What goes into the store and what comes out: plain data, one type per row or step.

pub use oxcart_types::filter::TaskFilter;
pub use oxcart_types::record::{Cancel, Progress, ReplayRecord, RunEndRecord, RunRecord, TaskRecord, View};
use oxcart_types::{
    ChainHead, EndKind, Failure, FairnessKey, HandoffId, LeaseToken, Payload, Priority, QueueName, ReplaySpec, RequestId, Run,
    StartBy, TaskId, TaskSpec, Timestamp, Violations, WorkerId,
};

// ---- submitting ----------------------------------------------------------------------------------------------------------

/// A task to be committed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Specification.
    pub spec: TaskSpec,
    /// [`TaskSpec::digest`] of it.
    pub digest: [u8; 16],
    /// The caller chose the id, so it may be taken.
    pub id_chosen: bool,
    /// Time of submission.
    pub created_at: Timestamp,
    /// Handed to the dispatcher with the commit batch when `None`; else kept in the agenda until then.
    pub set_aside: Option<SetAside>,
}

/// Why and until when a task stays in the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    /// Look again at.
    pub at: Timestamp,
    /// Why.
    pub why: AgendaWhy,
}

/// Tasks that are committed together or not at all: one call of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmitUnit {
    /// The tasks.
    pub tasks: Vec<NewTask>,
    /// The client's name for the call, and how long it is remembered.
    pub request: Option<(RequestId, Timestamp)>,
}

/// What became of a [`SubmitUnit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitOutcome {
    /// Every task of it is committed, now or before; in the order of the unit.
    Accepted(Vec<Accepted>),
    /// Nothing of it is stored.
    Refused(Conflict),
}

/// A committed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Id; the holder's when the task was known before.
    pub id: TaskId,
    /// Known before: by its id, the request id or the idempotency key.
    pub deduplicated: bool,
    /// A holder that a `Replace` key cancelled, with the run whose slot was closed: its entry is to be removed.
    pub replaced: Option<(TaskId, Run)>,
    /// A cancel rule picked it: it is stored, and CANCELLED.
    pub cancelled: bool,
}

/// Why a unit is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// The id belongs to a task with another body.
    TaskIdTaken {
        /// Index in the unit.
        index: usize,
        /// The id.
        id: TaskId,
    },
    /// The idempotency key belongs to a task with another body, or its policy refuses.
    KeyTaken {
        /// Index in the unit.
        index: usize,
        /// The key.
        key: String,
        /// Its holder.
        holder: TaskId,
    },
    /// The request id was used with another body.
    RequestReused {
        /// The request id.
        request: RequestId,
    },
}

// ---- handing off ---------------------------------------------------------------------------------------------------------

/// What the dispatcher needs to know of a task that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Task.
    pub task: TaskId,
    /// Run that may be started.
    pub run: Run,
    /// Queue.
    pub queue: QueueName,
    /// Priority.
    pub priority: Priority,
    /// Fairness key.
    pub fairness_key: Option<FairnessKey>,
    /// Not before; at once when `None` or past.
    pub due_at: Option<Timestamp>,
}

/// An outbox row that nobody has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleHandoff {
    /// Row.
    pub id: HandoffId,
    /// Those of its tasks that may still run and that no agenda row keeps.
    pub entries: Vec<Entry>,
}

// ---- agenda --------------------------------------------------------------------------------------------------------------

/// Why SQL must look at a task again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgendaWhy {
    /// Due later than the horizon.
    Time,
    /// Something before it has not finished.
    Dependency,
    /// The window of its queue was full; the feeder takes these.
    Room,
    /// A retry is due; the dispatcher should have it already.
    Retry,
    /// It expires, or its deadline passes.
    Expiry,
    /// A cancelled run should have ended by now.
    CancelGrace,
}

/// A row of the agenda. A visit deletes or re-arms it only if it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgendaRow {
    /// Task.
    pub task: TaskId,
    /// Look again at.
    pub at: Timestamp,
    /// Run that it is about; an upsert never lowers it.
    pub run: Run,
    /// Why.
    pub why: AgendaWhy,
}

/// A row of the agenda with what is needed to act on it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgendaVisit {
    /// The row, as it stands after the claim.
    pub row: AgendaRow,
    /// The task; `None` when it is gone: delete the row.
    pub task: Option<OpenTask>,
}

/// A task and the head of its chain, without payload: what sweepers decide on.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenTask {
    /// What the dispatcher needs; `entry.run` is the run that may start next, or the open one.
    pub entry: Entry,
    /// Head of the chain.
    pub head: ChainHead,
    /// When the open run started; `None` when none is open.
    pub started_at: Option<Timestamp>,
    /// The last moment at which the first run of the budget may start.
    pub start_by: Option<StartBy>,
    /// When the task must have ended.
    pub deadline_at: Option<Timestamp>,
    /// The newest cancel that counts.
    pub cancel: Option<Cancel>,
}

/// Where a task stands, open or ended: what is compared with what a queue has of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The task and the head of its chain.
    pub task: OpenTask,
    /// When the newest run ended; `None` while it is open, and before the first.
    pub ended_at: Option<Timestamp>,
    /// Last sign of life of the newest run.
    pub heartbeat_at: Option<Timestamp>,
}

impl Standing {
    /// How the task ended; `None` while it is open.
    #[must_use]
    pub fn terminal(&self) -> Option<EndKind> {
        self.task.head.terminal()
    }
}

/// A stretch of a walk over all tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// Open tasks found that no agenda row hides.
    pub open: Vec<OpenTask>,
    /// Open tasks with a limit of time that wait for room in their queues, where nobody looks at them before there is some.
    pub without_room: Vec<OpenTask>,
    /// The first task of the stretch that has not ended, hidden and young ones included: what a low-watermark may not pass.
    pub first_open: Option<TaskId>,
    /// Walk on after this; `None` at the end.
    pub next_after: Option<TaskId>,
}

/// A place among the replays, which are walked by their time.
pub type ReplayPosition = (Timestamp, TaskId);

/// A stretch of a walk over replays: a task that was replayed may lie below the mark where a walk over tasks begins.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayWalk {
    /// Replayed tasks that are open and that no agenda row hides.
    pub open: Vec<OpenTask>,
    /// The time of the first replay of the stretch whose task has not ended: what a low-watermark may not pass.
    pub first_open: Option<Timestamp>,
    /// Walk on after this; `None` at the end.
    pub next_after: Option<ReplayPosition>,
}

// ---- running -------------------------------------------------------------------------------------------------------------

/// A task as a worker needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Specification.
    pub spec: TaskSpec,
    /// Time of submission.
    pub created_at: Timestamp,
}

/// A start to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Task.
    pub task: TaskId,
    /// Run.
    pub run: Run,
    /// Token of the grant.
    pub token: LeaseToken,
    /// Who starts.
    pub worker: WorkerId,
}

/// A budget of attempts that a replay began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The run whose terminal end does not count any more; the runs of the budget come after it.
    pub after: Run,
    /// Counted starts; those of the task's policy when `None`.
    pub max_attempts: Option<u32>,
    /// When it began: the deadline of the task counts from here.
    pub began_at: Timestamp,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq)]
pub enum StartOutcome {
    /// The slot is mine, now or from an earlier try.
    Started {
        /// Counted starts in the budget in force, this one included.
        attempt: u32,
        /// Checkpoint of the runs before.
        checkpoint: Option<Payload>,
        /// The budget in force; `None` while the task was never replayed.
        budget: Option<Budget>,
    },
    /// The slot is not mine; the head of the chain says why.
    Refused(Box<RefusedStart>),
    /// There is no such task.
    NoTask,
}

/// Why a start was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedStart {
    /// The task and the head of its chain.
    pub task: OpenTask,
    /// The last sign of life of the open run.
    pub heartbeat_at: Option<Timestamp>,
}

/// An end to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Task.
    pub task: TaskId,
    /// Run.
    pub run: Run,
    /// Token that wrote its start.
    pub token: LeaseToken,
    /// Kind. FAILED, RETRY, RELEASED and LOST become CANCELLED when a cancel was asked for.
    pub kind: EndKind,
    /// Attempts used so far; a release has given its own back.
    pub attempts_used: u32,
    /// Result, with SUCCEEDED.
    pub result: Option<Payload>,
    /// Failure, with FAILED and RETRY.
    pub failure: Option<Failure>,
    /// When the next run is due, with RETRY and RELEASED; an agenda row for it is written in the same transaction with RETRY.
    pub next_run_at: Option<Timestamp>,
}

/// What became of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOutcome {
    /// The slot is mine, now or from an earlier try, with this kind.
    Written(EndKind),
    /// Somebody else's end stands: this run's result is dropped.
    Fenced(EndKind),
    /// The start is not mine, or is not there.
    NotMine,
}

/// A run to be taken over from a worker that has vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeOver {
    /// Task.
    pub task: TaskId,
    /// The open run.
    pub run: Run,
    /// Who writes the end: my token.
    pub by: LeaseToken,
    /// Start and last heartbeat must be older than this.
    pub silent_since: Timestamp,
}

/// What became of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOverOutcome {
    /// The run is over, by me: LOST, FAILED when its attempts or crashes are used up, CANCELLED when a cancel was asked for.
    Ended(EndKind),
    /// The run shows life: not yet.
    TooYoung,
    /// The run is over, by somebody else.
    Over(EndKind),
    /// There is no such run.
    NoRun,
}

/// A run by its number and the token that should own it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunKey {
    /// Task.
    pub task: TaskId,
    /// Run.
    pub run: Run,
    /// Token.
    pub token: LeaseToken,
}

/// Sign of life of a run, and what it reports. A cache, never a fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Task.
    pub task: TaskId,
    /// Run; an older one than stored changes nothing.
    pub run: Run,
    /// Progress; `None` leaves what is stored.
    pub progress: Option<Progress>,
    /// Checkpoint; `None` leaves what is stored.
    pub checkpoint: Option<Payload>,
}

// ---- closing -------------------------------------------------------------------------------------------------------------

/// A slot to be closed so that no run can begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    /// Task.
    pub task: TaskId,
    /// Only the slot of this run: what was decided on an older look at the chain must not close a later slot, least of all
    /// one that a replay has opened. Whatever slot is next when `None`.
    pub run: Option<Run>,
    /// CANCELLED, EXPIRED or FAILED.
    pub kind: EndKind,
    /// Closer token: the same over all tries of one close.
    pub by: LeaseToken,
    /// Why; kept with the end.
    pub failure: Failure,
    /// Now.
    pub at: Timestamp,
}

/// What became of a close.
#[derive(Debug, Clone, PartialEq)]
pub enum CloseOutcome {
    /// The slot of this run is closed, now or from an earlier try: no run will start.
    Closed(Run),
    /// A run is open.
    Running(Box<OpenTask>),
    /// The next slot is that of this run, and not of the one asked for.
    Moved(Run),
    /// The task has ended.
    Ended(EndKind),
    /// There is no such task.
    NoTask,
}

// ---- replaying -----------------------------------------------------------------------------------------------------------

/// A finished task to be run again under its own id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Task.
    pub task: TaskId,
    /// Who replays: the same over all tries of one replay.
    pub by: LeaseToken,
    /// How.
    pub spec: ReplaySpec,
    /// The client's name for the call, and how long it is remembered.
    pub request: Option<(RequestId, Timestamp)>,
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The task is open again, now or from an earlier try; what may run is covered by the outbox row.
    Replayed(Box<Entry>),
    /// A call of the same request id has replayed it before.
    Known,
    /// The task has not ended.
    NotFinished,
    /// The task has succeeded, and that was to be left alone.
    Succeeded,
    /// There is no such task.
    NoTask,
    /// The request id was used for something else.
    RequestReused(RequestId),
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateOutcome {
    /// The values are changed; the entry of `closed` and earlier runs is to be removed from the queue that it was in.
    Updated {
        /// Run whose slot was closed.
        closed: Run,
        /// Queue and key before the change.
        before: Box<Entry>,
        /// What may run now; already covered by an outbox or agenda row.
        after: Box<Entry>,
        /// Outbox row of it, when it is due.
        handoff: Option<HandoffId>,
    },
    /// A run is open.
    Running,
    /// The task has ended.
    Ended(EndKind),
    /// The etag does not match.
    Changed,
    /// The new values do not agree with those that stay.
    Invalid(Violations),
    /// There is no such task.
    NoTask,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The task and all that belongs to it are gone.
    Deleted,
    /// The task has not ended.
    NotFinished,
    /// There is no such task.
    NoTask,
}

// ---- retention -----------------------------------------------------------------------------------------------------------

/// A step of a walk that drops what ended long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionStep {
    /// Go on after this task; from the first when `None`.
    pub after: Option<TaskId>,
    /// Only tasks with smaller ids.
    pub below: TaskId,
    /// Drops what SUCCEEDED before; nothing that did when `None`.
    pub succeeded_before: Option<Timestamp>,
    /// Drops what FAILED, was CANCELLED or EXPIRED before; nothing that did when `None`.
    pub others_before: Option<Timestamp>,
    /// Tasks that the step looks at, at most.
    pub limit: usize,
}

/// What a step of retention came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Tasks that are gone, with all that belonged to them.
    pub tasks: usize,
    /// Go on after this; `None` at the end.
    pub next_after: Option<TaskId>,
}

// ---- listing -------------------------------------------------------------------------------------------------------------

/// A page of tasks, newest submission first.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPage {
    /// The tasks, basic view.
    pub tasks: Vec<TaskRecord>,
    /// Go on before this id; `None` at the end. A page may be short, even empty, and still not be the last: the store looks
    /// at a bounded number of rows per call.
    pub next_before: Option<TaskId>,
}

// ---- workers and cursors -------------------------------------------------------------------------------------------------

/// A worker as last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    /// Process.
    pub id: WorkerId,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// When it was first heard of; kept from the first row.
    pub first_seen_at: Timestamp,
    /// It said goodbye.
    pub stopped: bool,
    /// The rest, as the encoded `WorkerInfo` of the contract: the store does not read it.
    pub info: Vec<u8>,
}

/// A queue that has settings of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    /// Queue.
    pub queue: QueueName,
    /// Grows with every change; above the time of the change in microseconds, so that it grows even over a database that was
    /// set back.
    pub revision: u64,
    /// Set while nothing is given out.
    pub pause: Option<Pause>,
    /// When it first had settings.
    pub created_at: Timestamp,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

/// Who paused a queue, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since.
    pub since: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Where a task waits in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingInSql {
    /// When its outbox row was made; `None` when there is none, or when it was confirmed.
    pub handoff_since: Option<Timestamp>,
    /// Its place among the tasks of its queue that found no room; `None` when it is none of them.
    pub room: Option<RoomPlace>,
}

/// A place among the tasks of a queue that found no room; numbers are cut to the cap asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomPlace {
    /// Tasks that the feeder takes before.
    pub ahead: u64,
    /// Tasks in all.
    pub waiting: u64,
}

/// Tasks that wait in SQL, by queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgendaCount {
    /// Queue.
    pub queue: QueueName,
    /// Why.
    pub why: AgendaWhy,
    /// How many; at most the cap asked for.
    pub count: u64,
}
