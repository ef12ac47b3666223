//! The engine of embedded mode: entries in this process, one mutex per partition.
//!
//! Every operation is logarithmic in what the partition holds, except [`QueueEngine::inspect`], which walks the ready
//! entries once per call to count those ahead, and [`QueueEngine::list`] of what is in quarantine, which walks all entries.

mod call;
mod fairness;
#[cfg(feature = "simulation")]
mod fork;
mod journal;
mod operations;
mod page;
mod state;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use async_trait::async_trait;
use oxcart_types::{Clock, Run};
use tokio::sync::broadcast;

use self::{call::Call, state::State};
use crate::{
    check,
    engine::{
        Checked, Complete, EngineOptions, Enqueue, EnqueueStatus, EntryKey, Extend, ExtendCause, Inspected, JournalFrom, JournalId,
        JournalRead, LeaseRequest, LeaseStatus, Leased, Listed, MAX_ITEMS, PageCursor, Partition, PartitionStats, Place, Presence,
        QueueEngine, QueueError, Release, Remove, RemoveStatus, Settings, TickLimits, Ticked, WAKEUP_BACKLOG, Wakeup,
    },
    rules::notes_fit,
};

/// Entries in this process. What it holds is gone when it is dropped; it is filled again from SQL.
pub struct MemoryEngine {
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    partitions: RwLock<HashMap<Partition, Arc<Mutex<State>>>>,
    wakeups: broadcast::Sender<Wakeup>,
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new(options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        let (wakeups, _) = broadcast::channel(WAKEUP_BACKLOG);
        Self { options, clock, partitions: RwLock::default(), wakeups }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0)
    }

    fn existing(&self, partition: &Partition) -> Option<Arc<Mutex<State>>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(partition).cloned()
    }

    fn made(&self, partition: &Partition) -> Arc<Mutex<State>> {
        self.existing(partition).unwrap_or_else(|| {
            let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Mutex::new(State::new(rand::random(), self.options.journal_calls)));
            partitions.entry(partition.clone()).or_insert_with(new).clone()
        })
    }

    /// Runs a call that may change the partition, and announces what it did.
    fn write<T>(&self, partition: &Partition, operation: impl FnOnce(&mut Call<'_>) -> T) -> T {
        let state = self.made(partition);
        let (reply, news) = {
            let mut state = lock(&state);
            // Read under the lock, so that calls on a partition see times in their order.
            let mut call = Call::begin(&mut state, &self.options, self.now_ms());
            let reply = operation(&mut call);
            (reply, call.finish())
        };
        if let Some(ready) = news {
            // Fails only when nobody listens.
            let _ = self.wakeups.send(Wakeup { partition: partition.clone(), ready });
        }
        reply
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl QueueEngine for MemoryEngine {
    async fn enqueue(&self, partition: &Partition, items: &[Enqueue]) -> Result<Vec<EnqueueStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let with_notes = notes_fit(items.iter().map(|item| &item.note), self.options.journal_note_bytes);
        Ok(self.write(partition, |call| items.iter().map(|item| operations::enqueue(call, item, with_notes)).collect()))
    }

    async fn lease(&self, partition: &Partition, request: &LeaseRequest) -> Result<Leased, QueueError> {
        check::at_most(request.claims.len())?;
        if request.claims.is_empty() {
            return Ok(Leased::default());
        }
        Ok(self.write(partition, |call| operations::lease(call, request)))
    }

    async fn configure(&self, partition: &Partition, settings: Settings) -> Result<Settings, QueueError> {
        Ok(self.write(partition, |call| {
            call.configure(settings);
            call.state.settings
        }))
    }

    async fn extend(&self, partition: &Partition, cause: ExtendCause, items: &[Extend]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.write(partition, |call| items.iter().map(|item| operations::extend(call, cause, item)).collect()))
    }

    async fn complete(&self, partition: &Partition, items: &[Complete]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::tasks(items.iter().map(|item| item.task))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let with_notes = notes_fit(items.iter().map(|item| &item.note), self.options.journal_note_bytes);
        Ok(self.write(partition, |call| items.iter().map(|item| operations::complete(call, item, with_notes)).collect()))
    }

    async fn release(&self, partition: &Partition, items: &[Release]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::tasks(items.iter().map(|item| item.task))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.write(partition, |call| items.iter().map(|item| operations::release(call, item)).collect()))
    }

    async fn remove(&self, partition: &Partition, items: &[Remove]) -> Result<Vec<RemoveStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.write(partition, |call| items.iter().map(|item| operations::remove(call, item)).collect()))
    }

    async fn missing(&self, partition: &Partition, items: &[(EntryKey, Run)]) -> Result<Vec<Presence>, QueueError> {
        check::keys(items.iter().map(|(key, _)| key))?;
        let Some(state) = self.existing(partition) else { return Ok(vec![Presence::Missing; items.len()]) };
        let state = lock(&state);
        Ok(items.iter().map(|(key, run)| operations::missing(&state, key, *run)).collect())
    }

    async fn inspect(&self, partition: &Partition, keys: &[EntryKey]) -> Result<Vec<Option<Inspected>>, QueueError> {
        check::keys(keys.iter())?;
        let Some(state) = self.existing(partition) else { return Ok(vec![None; keys.len()]) };
        let state = lock(&state);
        Ok(operations::inspect(&state, keys, self.now_ms()))
    }

    async fn list(
        &self,
        partition: &Partition,
        place: Place,
        from: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Listed, QueueError> {
        let from = from.map(|cursor| page::position(place, cursor)).transpose()?;
        let Some(state) = self.existing(partition) else { return Ok(Listed::default()) };
        let state = lock(&state);
        Ok(page::list(&state, place, from, limit.clamp(1, MAX_ITEMS), self.now_ms()))
    }

    /// Nothing here can be damaged: an entry is one value, and its indexes change with it.
    async fn check(&self, _: &Partition, from: Option<&PageCursor>, _: usize) -> Result<Checked, QueueError> {
        match from {
            None => Ok(Checked::default()),
            Some(cursor) => Err(check::bad_cursor(cursor)),
        }
    }

    async fn tick(&self, partition: &Partition, limits: TickLimits) -> Result<Ticked, QueueError> {
        check::at_most(limits.promote.max(limits.reap))?;
        Ok(self.write(partition, |call| operations::tick(call, limits)))
    }

    async fn stats(&self, partition: &Partition) -> Result<PartitionStats, QueueError> {
        Ok(operations::stats(&lock(&self.made(partition))))
    }

    async fn journal(&self, partition: &Partition, from: JournalFrom, max_calls: usize) -> Result<JournalRead, QueueError> {
        match self.existing(partition) {
            Some(state) => lock(&state).journal.read(from, max_calls.clamp(1, MAX_ITEMS)),
            None => {
                let gap = matches!(from, JournalFrom::After(position) if position != JournalId::default());
                Ok(JournalRead { entries: Vec::new(), last: JournalId::default(), gap, more: false })
            }
        }
    }

    async fn partitions(&self) -> Result<Vec<Partition>, QueueError> {
        let mut partitions: Vec<_> = self.partitions.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn wakeups(&self) -> broadcast::Receiver<Wakeup> {
        self.wakeups.subscribe()
    }

    async fn ping(&self) -> Result<(), QueueError> {
        Ok(())
    }
}
