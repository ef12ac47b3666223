//! The contract of a queue engine: operations, their replies and what each of them promises.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oxcart_types::{FairnessKey, LeaseToken, Priority, QueueName, Run, TaskId, Timestamp, WorkerId};
use tokio::sync::broadcast;

/// Items of one call at most: bounds the time that one script holds Redis.
pub const MAX_ITEMS: usize = 1000;

/// Announcements that a receiver of [`QueueEngine::wakeups`] may lag behind before it loses some.
pub const WAKEUP_BACKLOG: usize = 1024;

/// A part of a queue that lives under one hash tag, so that scripts see it whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Queue.
    pub queue: QueueName,
    /// Number, from 0.
    pub number: u16,
}

impl Partition {
    /// The first partition of a queue.
    #[must_use]
    pub const fn first(queue: QueueName) -> Self {
        Self { queue, number: 0 }
    }
}

/// What finds an entry without a lookup. It must stay the same while the entry waits: to move a waiting entry to another band
/// or fairness key, take it out under the old key and put the next run in under the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// Task.
    pub task: TaskId,
    /// Band, 0 served first to 9 served last; see [`Priority::band`].
    pub band: u8,
    /// Fairness key as a number, 0 for none; see [`FairnessKey::id`].
    pub fairness: u32,
}

impl EntryKey {
    /// The key of a task.
    #[must_use]
    pub fn new(task: TaskId, priority: Priority, fairness: Option<&FairnessKey>) -> Self {
        Self { task, band: priority.band(), fairness: fairness.map_or(0, FairnessKey::id) }
    }
}

/// Why an entry is put in; only the journal tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnqueueCause {
    /// Handed over by submission.
    Submitted,
    /// The run before failed and is to be retried.
    Retried,
    /// The run before was given back.
    Released,
}

/// An entry on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueue {
    /// Key.
    pub key: EntryKey,
    /// Run that may be started.
    pub run: Run,
    /// Due this long from now; ready at once when zero.
    pub delay: Duration,
    /// Why.
    pub cause: EnqueueCause,
    /// Travels with the journal entry; empty for none.
    pub note: Bytes,
}

/// What became of an entry on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnqueueStatus {
    /// New.
    Created,
    /// The same run was there; nothing changed.
    Exists,
    /// A newer run is there; nothing changed.
    Older,
    /// Took the place of an older run, its lease included.
    Superseded,
    /// No room for a first run; nothing changed. Later runs always find room: a retried or released task keeps its place.
    WindowFull,
}

/// A lease wanted: its proof, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Proof.
    pub token: LeaseToken,
    /// Who gets it; goes into the journal.
    pub worker: WorkerId,
}

/// The part of a queue's settings that the engine acts on. SQL owns them; here they live as long as the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Settings {
    /// Grows with every change; an older one changes nothing. 0 for none: the defaults.
    pub revision: u64,
    /// Give nothing out.
    pub paused: bool,
}

/// A request for leases.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// One per lease wanted, at most [`MAX_ITEMS`], served from the first on; unused ones are dropped.
    pub claims: Vec<Claim>,
    /// Life of the claims until they are extended.
    pub claim_ttl: Duration,
    /// Take expired leases back first. Not right after an outage: their holders could not extend them.
    pub reap: bool,
    /// What the caller knows of the settings: applied first when the partition has older ones, so that a pause outlives a
    /// partition that was lost.
    pub settings: Settings,
}

/// A lease given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Key.
    pub key: EntryKey,
    /// Run that the holder may ask SQL to start.
    pub run: Run,
    /// Times given out, this one included.
    pub deliveries: u8,
    /// Proof.
    pub token: LeaseToken,
}

/// Answer to a [`LeaseRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leased {
    /// The leases, in the order of the claims: lowest band first, within a band fair among fairness keys and first in, first
    /// out within one.
    pub granted: Vec<Granted>,
    /// Entries still ready.
    pub ready: u64,
    /// Until the next delayed entry is due; `None` when there is none.
    pub next_due: Option<Duration>,
    /// The settings that the call obeyed.
    pub settings: Settings,
}

/// A lease that its holder works on, with all that is needed to make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extend {
    /// Key.
    pub key: EntryKey,
    /// Run that SQL gave; may be above the granted one when the holder took over.
    pub run: Run,
    /// Proof.
    pub token: LeaseToken,
    /// Times given out, for an adoption.
    pub deliveries: u8,
    /// Life from now.
    pub ttl: Duration,
}

/// Why leases are extended; only the journal tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtendCause {
    /// SQL took the starts: claims become leases.
    Started,
    /// Heartbeat. Not in the journal, except for adoptions.
    Heartbeat,
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseStatus {
    /// Extended or ended.
    Ok,
    /// Extend only: the engine did not know it, or knew it only as waiting with a run not above; made again.
    Adopted,
    /// Not there: ended before, or lost with Redis.
    Unknown,
    /// Another holder has it, or a newer run waits.
    Lost,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The run succeeded.
    Done,
    /// The task failed.
    Failed,
    /// The task was cancelled.
    Cancelled,
    /// Nothing was run: the task had ended.
    Dropped,
}

/// The end of a lease whose task needs no further run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// Task.
    pub task: TaskId,
    /// Proof.
    pub token: LeaseToken,
    /// How.
    pub outcome: Outcome,
    /// Travels with the journal entry, best effort; empty for none.
    pub note: Bytes,
}

/// A lease given back: the same run waits again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Task.
    pub task: TaskId,
    /// Proof.
    pub token: LeaseToken,
    /// Not given out again before this has passed.
    pub delay: Duration,
    /// Does not count as a delivery.
    pub uncounted: bool,
}

/// An entry to be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remove {
    /// Key.
    pub key: EntryKey,
    /// An entry of a later run stays.
    pub up_to: Run,
    /// Take the lease of a leased entry, too; else it stays and its token is told.
    pub take_lease: bool,
}

/// What became of an entry to be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveStatus {
    /// It waited (ready, delayed or in quarantine) and is gone.
    Removed,
    /// It is, or was, leased under this token.
    Leased(LeaseToken),
    /// Not there.
    Unknown,
    /// A later run is there; nothing changed.
    Newer,
}

/// Whether an entry is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// There, with this run or a later one.
    Present,
    /// Not there, or with an earlier run only.
    Missing,
    /// In quarantine, with this run or a later one.
    Quarantined,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Ready to be given out.
    Ready,
    /// Waiting for its time.
    Delayed,
    /// Given out.
    Leased,
    /// Given out too often without a start.
    Quarantined,
}

/// An entry as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Key.
    pub key: EntryKey,
    /// Run.
    pub run: Run,
    /// Place.
    pub place: Place,
    /// Times given out.
    pub deliveries: u8,
    /// Entries that go before it; ready ones only.
    pub ahead: u64,
    /// Until it is due (delayed) or its lease ends (leased).
    pub remaining: Option<Duration>,
}

/// Where a page of [`QueueEngine::list`] or [`QueueEngine::check`] begins: what the page before it returned. Its text is the
/// engine's own; it may travel through hands that do not read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageCursor(pub String);

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// The entries, [`Inspected::ahead`] left at 0. May be empty while there are more.
    pub entries: Vec<Inspected>,
    /// The next page; `None` at the end.
    pub next: Option<PageCursor>,
}

/// How the parts of an entry do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Damage {
    /// A lease has an end, and no record of its run and token: nobody can settle it.
    LeaseWithoutRecord,
    /// A lease has a record, and no end: it would never be taken back.
    RecordWithoutLease,
    /// The entry is in two places.
    TwoPlaces,
}

/// An entry whose parts do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged {
    /// Task.
    pub task: TaskId,
    /// Key and run, when a record tells them.
    pub known: Option<(EntryKey, Run)>,
    /// How.
    pub damage: Damage,
}

/// A page of [`QueueEngine::check`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What does not fit together among the entries of the page.
    pub damaged: Vec<Damaged>,
    /// The next page; `None` at the end.
    pub next: Option<PageCursor>,
}

/// Bounds of one [`QueueEngine::tick`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickLimits {
    /// Delayed entries made ready at most.
    pub promote: usize,
    /// Expired leases taken back at most.
    pub reap: usize,
}

impl Default for TickLimits {
    fn default() -> Self {
        Self { promote: 500, reap: 200 }
    }
}

/// What a tick did, and what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticked {
    /// Delayed entries made ready.
    pub promoted: u64,
    /// Expired leases taken back, those put in quarantine included.
    pub reaped: u64,
    /// Entries put in quarantine.
    pub quarantined: u64,
    /// Entries ready.
    pub ready: u64,
    /// Until the next delayed entry is due; zero when one is due now.
    pub next_due: Option<Duration>,
    /// Until the next lease ends; zero when one has ended.
    pub next_expiry: Option<Duration>,
}

/// Numbers of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStats {
    /// Random number made when the partition was created; a new one means that everything in it was lost.
    pub incarnation: u64,
    /// Write calls since; below an earlier reading of the same incarnation means a rollback.
    pub seq: u64,
    /// Ready.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Given out.
    pub leased: u64,
    /// In quarantine.
    pub quarantined: u64,
    /// The ready entry that goes next; its id tells when it was submitted.
    pub next_ready: Option<TaskId>,
    /// The settings in force.
    pub settings: Settings,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Put in by submission.
    Enqueued,
    /// Given out.
    Granted,
    /// Its start was confirmed.
    Started,
    /// Ended: [`Outcome::Done`].
    Done,
    /// Ended: [`Outcome::Failed`].
    Failed,
    /// Put in again for a retry.
    Retried,
    /// Given back, or put in again after a release.
    Released,
    /// Ended: [`Outcome::Cancelled`].
    Cancelled,
    /// Ended: [`Outcome::Dropped`].
    Dropped,
    /// Its lease ran out; it waits again.
    Reaped,
    /// Its lease ran out once too often.
    Quarantined,
    /// A heartbeat made its lease again.
    Adopted,
    /// Taken out.
    Removed,
}

/// Position in the journal of one partition. Later entries are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalId {
    /// Milliseconds of the engine's clock.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// What happened.
    pub transition: Transition,
    /// When, by the engine's clock.
    pub at: Timestamp,
    /// Task.
    pub task: TaskId,
    /// Run.
    pub run: Run,
    /// Times given out.
    pub deliveries: u8,
    /// Who got the lease: [`Transition::Granted`] only.
    pub worker: Option<WorkerId>,
    /// When it is due next: after [`Transition::Enqueued`], `Retried`, `Released`, `Reaped` with a delay.
    pub due_at: Option<Timestamp>,
    /// What came along with the call; empty for none.
    pub note: Bytes,
}

/// A stretch of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRead {
    /// Entries after the position asked for, oldest first. One call of a script is never split over two reads.
    pub entries: Vec<JournalEntry>,
    /// Read on after this.
    pub last: JournalId,
    /// Entries right after the position asked for are gone (trimmed, or the partition is a new one).
    pub gap: bool,
    /// The read ended at its limit of calls: there may be more.
    pub more: bool,
}

/// Something happened in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wakeup {
    /// Where.
    pub partition: Partition,
    /// Something became ready; else only the journal has news.
    pub ready: bool,
}

/// Where to read the journal from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFrom {
    /// After a position.
    After(JournalId),
    /// From the oldest entry that is kept.
    Oldest,
    /// Only learn the newest position.
    Newest,
}

/// Why an operation could not be carried out. Nothing is known about its effect, unless it says so: repeat it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The store behind the engine cannot be reached or answers with an error that passes.
    #[error("the queue store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store is set up so that entries may vanish, or belongs to another deployment; nothing was changed.
    #[error("the queue store must not be used: {0}")]
    Unsafe(String),
    /// The call breaks the engine's contract (too many items, an id twice); nothing was changed.
    #[error("bad call of the queue engine: {0}")]
    BadCall(String),
    /// The store answered something that this engine never wrote.
    #[error("the queue store holds foreign data: {0}")]
    Corrupt(String),
}

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Deployment: keeps several systems in one Redis apart.
    pub deployment: String,
    /// Entries that a partition holds at most; first runs beyond are [`EnqueueStatus::WindowFull`].
    pub window: u64,
    /// Deliveries after which an expired lease leads to quarantine.
    pub max_deliveries: u8,
    /// Every so many lease calls the lowest non-empty band is served first; 0 for never.
    pub lowest_band_every: u32,
    /// Script calls that the journal of a partition keeps, about.
    pub journal_calls: usize,
    /// Bytes of notes that one script call may put into the journal; all notes of a call that has more are dropped.
    pub journal_note_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            deployment: "oxcart".to_owned(),
            window: 100_000,
            max_deliveries: 5,
            lowest_band_every: 16,
            journal_calls: 4096,
            journal_note_bytes: 64 * 1024,
        }
    }
}

/// What is ready, delayed and leased.
///
/// Every operation is atomic per call, may be repeated by anyone at any time, and journals what it did in the same step.
/// Calls take at most [`MAX_ITEMS`] items and each task once; replies come in the order of the items. An empty call does
/// nothing. All times are measured on the engine's own clock; callers only ever pass durations.
#[async_trait]
pub trait QueueEngine: Send + Sync + 'static {
    /// Puts entries in, ready or delayed. Keyed by (task, run).
    async fn enqueue(&self, partition: &Partition, items: &[Enqueue]) -> Result<Vec<EnqueueStatus>, QueueError>;

    /// Gives out ready entries. Promotes due ones and takes back expired leases first, if allowed, so that a lease call alone
    /// keeps a partition moving.
    async fn lease(&self, partition: &Partition, request: &LeaseRequest) -> Result<Leased, QueueError>;

    /// Applies settings, unless newer ones are in force; returns those in force then. While a partition is paused nothing is given
    /// out, and everything else goes on. Makes the partition when it is new. The end of a pause is announced.
    async fn configure(&self, partition: &Partition, settings: Settings) -> Result<Settings, QueueError>;

    /// Extends leases by their tokens; makes those again that the engine does not know.
    async fn extend(&self, partition: &Partition, cause: ExtendCause, items: &[Extend]) -> Result<Vec<LeaseStatus>, QueueError>;

    /// Ends leases by their tokens.
    async fn complete(&self, partition: &Partition, items: &[Complete]) -> Result<Vec<LeaseStatus>, QueueError>;

    /// Gives leases back by their tokens.
    async fn release(&self, partition: &Partition, items: &[Release]) -> Result<Vec<LeaseStatus>, QueueError>;

    /// Takes entries out, and what is left of damaged ones ([`QueueEngine::check`]): one call for each place that they are in.
    async fn remove(&self, partition: &Partition, items: &[Remove]) -> Result<Vec<RemoveStatus>, QueueError>;

    /// Says which entries are there. Changes nothing.
    async fn missing(&self, partition: &Partition, items: &[(EntryKey, Run)]) -> Result<Vec<Presence>, QueueError>;

    /// Says where entries are; `None` for unknown ones. Changes nothing.
    async fn inspect(&self, partition: &Partition, keys: &[EntryKey]) -> Result<Vec<Option<Inspected>>, QueueError>;

    /// Pages over the entries of one place, from the beginning when `from` is `None`; a page has about `limit` entries, at least
    /// 1 and at most [`MAX_ITEMS`] asked for. Not a snapshot: an entry that stays in the place, where it is, from the first page to
    /// the last is listed at least once. Changes nothing.
    ///
    /// # Errors
    /// [`QueueError::BadCall`]: `from` is not what this operation returned for the same place.
    async fn list(
        &self,
        partition: &Partition,
        place: Place,
        from: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Listed, QueueError>;

    /// Pages over all entries as [`QueueEngine::list`] does, and names those whose parts do not fit together. Each is looked at
    /// in one step, so what moves is not mistaken for damage. Changes nothing; an engine that cannot be damaged finds nothing.
    ///
    /// # Errors
    /// [`QueueError::BadCall`]: `from` is not what this operation returned.
    async fn check(&self, partition: &Partition, from: Option<&PageCursor>, limit: usize) -> Result<Checked, QueueError>;

    /// Makes due entries ready and takes back expired leases. A lease taken back waits again: at once after its first
    /// delivery, then with 1 s · 2^(deliveries − 2), at most 60 s; in quarantine from
    /// [`EngineOptions::max_deliveries`] on.
    async fn tick(&self, partition: &Partition, limits: TickLimits) -> Result<Ticked, QueueError>;

    /// Reads the numbers of a partition; makes the partition when it is new, so that it has an incarnation.
    async fn stats(&self, partition: &Partition) -> Result<PartitionStats, QueueError>;

    /// Reads the journal: at most `max_calls` script calls, taken as 1 to [`MAX_ITEMS`].
    async fn journal(&self, partition: &Partition, from: JournalFrom, max_calls: usize) -> Result<JournalRead, QueueError>;

    /// Partitions that have been used, as far as the store remembers.
    async fn partitions(&self) -> Result<Vec<Partition>, QueueError>;

    /// Announces partitions in which something became ready or was journalled, also through other engines on the same
    /// store. Best effort: a lagging or disconnected receiver loses announcements, so poll besides.
    fn wakeups(&self) -> broadcast::Receiver<Wakeup>;

    /// Checks that the store answers and may be used.
    async fn ping(&self) -> Result<(), QueueError>;
}
