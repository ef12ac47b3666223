//! The store behind the queue engine, and the way of each dispatcher to it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use oxcart_queue::{
    Checked, Complete, EngineOptions, Enqueue, EnqueueCause, EnqueueStatus, EntryKey, Extend, ExtendCause, Inspected, JournalFrom,
    JournalRead, LeaseRequest, LeaseStatus, Leased, Listed, MemoryEngine, PageCursor, Partition, PartitionStats, Place, Presence,
    QueueEngine, QueueError, Release, Remove, RemoveStatus, Settings, TickLimits, Ticked, Wakeup,
};
use oxcart_types::{QueueName, Run, TaskId};
use tokio::sync::broadcast;

use crate::{
    log::{Event, Fate, Pid},
    rng::Rng,
    shared::{Shared, Way, pass, step},
    time::EngineClock,
};

/// Snapshots that a rollback may go back to.
const SNAPSHOTS: usize = 12;

/// The store behind the engine: one master, or two that both think so.
pub struct EngineHost {
    shared: Arc<Shared>,
    masters: Mutex<Masters>,
}

struct Masters {
    first: Arc<MemoryEngine>,
    /// Another master, whom some processes talk to.
    second: Option<(Arc<MemoryEngine>, Vec<Pid>)>,
    snapshots: VecDeque<Arc<MemoryEngine>>,
}

impl EngineHost {
    /// An empty store.
    #[must_use]
    pub fn new(shared: Arc<Shared>, options: EngineOptions) -> Arc<Self> {
        let first = Arc::new(MemoryEngine::new(options, Arc::new(EngineClock::default())));
        Arc::new(Self { shared, masters: Mutex::new(Masters { first, second: None, snapshots: VecDeque::new() }) })
    }

    fn masters(&self) -> MutexGuard<'_, Masters> {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The master that a process talks to.
    fn master(&self, of: Pid) -> Arc<MemoryEngine> {
        let masters = self.masters();
        match &masters.second {
            Some((second, followers)) if followers.contains(&of) => Arc::clone(second),
            Some(_) | None => Arc::clone(&masters.first),
        }
    }

    /// The master, when there is one only.
    #[must_use]
    pub fn engine(&self) -> Arc<MemoryEngine> {
        Arc::clone(&self.masters().first)
    }

    /// Copies the store as it is, as a replica that falls behind from now on.
    pub fn snapshot(&self) {
        let mut masters = self.masters();
        let copy = Arc::new(masters.first.fork());
        if masters.snapshots.len() == SNAPSHOTS {
            masters.snapshots.pop_front();
        }
        masters.snapshots.push_back(copy);
    }

    /// The store comes back empty.
    pub fn wipe(&self) {
        let mut masters = self.masters();
        masters.first = Arc::new(masters.first.emptied());
        masters.second = None;
        masters.snapshots.clear();
        drop(masters);
        self.shared.note(Event::Fault("the queue store lost everything".to_owned()));
    }

    /// A replica that is behind takes over. `hidden`: its sequence numbers do not tell.
    pub fn roll_back(&self, rng: &mut Rng, hidden: bool) {
        let mut masters = self.masters();
        if masters.snapshots.is_empty() {
            return;
        }
        let at = usize::try_from(rng.below(masters.snapshots.len() as u64)).unwrap_or(0);
        let stale = Arc::new(masters.snapshots[at].fork());
        if hidden {
            stale.hide_rollback(&masters.first);
        }
        masters.first = stale;
        masters.second = None;
        drop(masters);
        self.shared.note(Event::Fault(format!("the queue store went back to snapshot {at}, hidden: {hidden}")));
    }

    /// A second master comes up beside the first, and these talk to it.
    pub fn split(&self, followers: Vec<Pid>) {
        let mut masters = self.masters();
        let second = Arc::new(masters.first.fork());
        self.shared.note(Event::Fault(format!("a second queue store for {followers:?}")));
        masters.second = Some((second, followers));
    }

    /// One of two masters is left.
    pub fn heal(&self, keep_second: bool) {
        let mut masters = self.masters();
        if let Some((second, _)) = masters.second.take() {
            if keep_second {
                masters.first = second;
            }
            self.shared.note(Event::Fault(format!("one queue store again, the second: {keep_second}")));
        }
    }

    /// The store offers a run of a task that nobody asked for.
    pub async fn lie(&self, task: TaskId, run: Run, queue: QueueName) {
        let engine = self.engine();
        let key = EntryKey { task, band: 5, fairness: 0 };
        let entry =
            Enqueue { key, run, delay: std::time::Duration::ZERO, cause: EnqueueCause::Submitted, note: bytes::Bytes::new() };
        let _ = engine.enqueue(&Partition::first(queue), &[entry]).await;
        self.shared.note(Event::Fault(format!("the queue store makes up run {run} of {task}")));
    }

    /// The engine of a process.
    #[must_use]
    pub fn of(self: &Arc<Self>, by: Pid) -> Arc<dyn QueueEngine> {
        Arc::new(Engine { host: Arc::clone(self), by })
    }
}

/// The engine as one process has it.
struct Engine {
    host: Arc<EngineHost>,
    by: Pid,
}

fn unavailable(what: &str) -> QueueError {
    QueueError::Unavailable(Box::new(io::Error::other(what.to_owned())))
}

impl Engine {
    /// The call arrives at a master, or does not.
    async fn reach(&self, what: &'static str) -> Result<Arc<MemoryEngine>, QueueError> {
        let shared = &self.host.shared;
        match shared.request(|faults| faults.engine_down) {
            Way::Clear(time) => {
                pass(time).await;
                Ok(self.host.master(self.by))
            }
            Way::Lost(time) => {
                pass(time).await;
                step(shared, self.by, Some(what), Fate::Lost);
                Err(unavailable("the call was lost"))
            }
        }
    }

    /// The answer comes back, or does not.
    async fn back<T>(&self, what: &'static str, answer: Result<T, QueueError>) -> Result<T, QueueError> {
        let shared = &self.host.shared;
        match shared.answer() {
            Way::Clear(time) => {
                step(shared, self.by, Some(what), Fate::Done);
                pass(time).await;
                answer
            }
            Way::Lost(time) => {
                step(shared, self.by, Some(what), Fate::Unanswered);
                pass(time).await;
                Err(unavailable("the answer was lost"))
            }
        }
    }
}

#[async_trait]
impl QueueEngine for Engine {
    async fn enqueue(&self, partition: &Partition, items: &[Enqueue]) -> Result<Vec<EnqueueStatus>, QueueError> {
        let engine = self.reach("enqueue").await?;
        let answer = engine.enqueue(partition, items).await;
        self.back("enqueue", answer).await
    }

    async fn lease(&self, partition: &Partition, request: &LeaseRequest) -> Result<Leased, QueueError> {
        let engine = self.reach("lease").await?;
        let answer = engine.lease(partition, request).await;
        self.back("lease", answer).await
    }

    async fn extend(&self, partition: &Partition, cause: ExtendCause, items: &[Extend]) -> Result<Vec<LeaseStatus>, QueueError> {
        let engine = self.reach("extend").await?;
        let answer = engine.extend(partition, cause, items).await;
        self.back("extend", answer).await
    }

    async fn complete(&self, partition: &Partition, items: &[Complete]) -> Result<Vec<LeaseStatus>, QueueError> {
        let engine = self.reach("complete").await?;
        let answer = engine.complete(partition, items).await;
        self.back("complete", answer).await
    }

    async fn release(&self, partition: &Partition, items: &[Release]) -> Result<Vec<LeaseStatus>, QueueError> {
        let engine = self.reach("release").await?;
        let answer = engine.release(partition, items).await;
        self.back("release", answer).await
    }

    async fn remove(&self, partition: &Partition, items: &[Remove]) -> Result<Vec<RemoveStatus>, QueueError> {
        let engine = self.reach("remove").await?;
        let answer = engine.remove(partition, items).await;
        self.back("remove", answer).await
    }

    async fn missing(&self, partition: &Partition, items: &[(EntryKey, Run)]) -> Result<Vec<Presence>, QueueError> {
        let engine = self.reach("missing").await?;
        let answer = engine.missing(partition, items).await;
        self.back("missing", answer).await
    }

    async fn inspect(&self, partition: &Partition, keys: &[EntryKey]) -> Result<Vec<Option<Inspected>>, QueueError> {
        let engine = self.reach("inspect").await?;
        let answer = engine.inspect(partition, keys).await;
        self.back("inspect", answer).await
    }

    async fn tick(&self, partition: &Partition, limits: TickLimits) -> Result<Ticked, QueueError> {
        let engine = self.reach("tick").await?;
        let answer = engine.tick(partition, limits).await;
        self.back("tick", answer).await
    }

    async fn stats(&self, partition: &Partition) -> Result<PartitionStats, QueueError> {
        let engine = self.reach("stats").await?;
        let answer = engine.stats(partition).await;
        self.back("stats", answer).await
    }

    async fn journal(&self, partition: &Partition, from: JournalFrom, max_calls: usize) -> Result<JournalRead, QueueError> {
        let engine = self.reach("journal").await?;
        let answer = engine.journal(partition, from, max_calls).await;
        self.back("journal", answer).await
    }

    async fn configure(&self, partition: &Partition, settings: Settings) -> Result<Settings, QueueError> {
        let engine = self.reach("configure").await?;
        let answer = engine.configure(partition, settings).await;
        self.back("configure", answer).await
    }

    async fn list(
        &self,
        partition: &Partition,
        place: Place,
        from: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Listed, QueueError> {
        let engine = self.reach("list").await?;
        let answer = engine.list(partition, place, from, limit).await;
        self.back("list", answer).await
    }

    async fn check(&self, partition: &Partition, from: Option<&PageCursor>, limit: usize) -> Result<Checked, QueueError> {
        let engine = self.reach("check").await?;
        let answer = engine.check(partition, from, limit).await;
        self.back("check", answer).await
    }

    async fn partitions(&self) -> Result<Vec<Partition>, QueueError> {
        let engine = self.reach("partitions").await?;
        let answer = engine.partitions().await;
        self.back("partitions", answer).await
    }

    fn wakeups(&self) -> broadcast::Receiver<Wakeup> {
        self.host.engine().wakeups()
    }

    async fn ping(&self) -> Result<(), QueueError> {
        let engine = self.reach("ping").await?;
        let answer = engine.ping().await;
        self.back("ping", answer).await
    }
}
