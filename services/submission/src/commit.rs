//! Group commit: what arrives while a commit is in flight is committed together.
//!
//! Unlike [`oxcart_service::coalesce::Batcher`] it counts tasks, not calls: one call brings up to 1000.

use std::{sync::Arc, time::Instant};

use oxcart_store::{Accepted, Entry, NewTask, Store, StoreError, SubmitUnit, UnitOutcome};
use oxcart_types::{Clock, IdSource, Limits, Run};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    config::Config,
    error::Error,
    handoff::{Handoff, Handoffs},
    metrics::Meters,
};

/// Calls that may wait, whatever their size.
const WAITING_CALLS: usize = 10_000;

type Answer = Result<UnitOutcome, Arc<StoreError>>;

struct Item {
    unit: SubmitUnit,
    answer: oneshot::Sender<Answer>,
    /// Held until the answer.
    _room: Room,
}

/// What a call takes of the bounds on tasks and on bytes in memory.
struct Room {
    _tasks: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// The committer. Clones share it.
#[derive(Clone)]
pub(crate) struct Committer {
    sender: mpsc::Sender<Item>,
    tasks: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    handoffs: Handoffs,
    unconfirmed_tasks: usize,
}

/// Bounds of one batch.
#[derive(Clone, Copy)]
struct BatchBounds {
    lanes: usize,
    tasks: usize,
    bytes: usize,
}

/// What a lane needs.
#[derive(Clone)]
pub(crate) struct CommitDeps {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) handoffs: Handoffs,
    pub(crate) meters: Meters,
}

impl Committer {
    pub(crate) fn spawn(config: &Config, deps: CommitDeps) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_CALLS);
        let handoffs = deps.handoffs.clone();
        let bounds =
            BatchBounds { lanes: lanes(config, &deps.store), tasks: config.commit_tasks.max(1), bytes: config.commit_bytes.max(1) };
        tokio::spawn(run(receiver, bounds, deps));
        // A call of the largest size must find its place in an idle service.
        let tasks = Arc::new(Semaphore::new(config.waiting_tasks.max(Limits::BATCH_ITEMS)));
        let bytes = Arc::new(Semaphore::new(config.waiting_bytes.clamp(Limits::MESSAGE_BYTES, Semaphore::MAX_PERMITS)));
        Self { sender, tasks, bytes, handoffs, unconfirmed_tasks: config.unconfirmed_tasks }
    }

    /// Commits a unit; the answer comes after the commit. Dropping the future before that may or may not undo the call, as with
    /// any answer that is lost.
    pub(crate) async fn commit(&self, unit: SubmitUnit) -> Result<Vec<Accepted>, Error> {
        if self.handoffs.unconfirmed() >= self.unconfirmed_tasks {
            return Err(Error::Unconfirmed);
        }
        let room = Room { _tasks: take(&self.tasks, unit.tasks.len())?, _bytes: take(&self.bytes, bytes(&unit))? };
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Item { unit, answer, _room: room }).map_err(|_| Error::Busy)?;
        match answered.await.map_err(|_| Error::Unanswered)?? {
            UnitOutcome::Accepted(accepted) => Ok(accepted),
            UnitOutcome::Refused(conflict) => Err(Error::Conflict(conflict)),
        }
    }
}

fn take(of: &Arc<Semaphore>, count: usize) -> Result<OwnedSemaphorePermit, Error> {
    let count = u32::try_from(count).map_err(|_| Error::Busy)?;
    Arc::clone(of).try_acquire_many_owned(count).map_err(|_| Error::Busy)
}

/// Bytes of payloads and metadata, which are most of what a call holds in memory.
fn bytes(unit: &SubmitUnit) -> usize {
    unit.tasks.iter().map(|task| task.spec.size_bytes()).sum()
}

/// Commits in flight at once. A second one for a single writer would only wait there, with calls that could have joined the next.
fn lanes(config: &Config, store: &Store) -> usize {
    if store.has_one_writer() { 1 } else { config.commit_lanes.max(1) }
}

async fn run(mut receiver: mpsc::Receiver<Item>, bounds: BatchBounds, deps: CommitDeps) {
    let lanes = Arc::new(Semaphore::new(bounds.lanes));
    let mut carried: Option<Item> = None;
    // The lane comes before the calls: what arrives while all lanes are taken joins the batch.
    while let Ok(lane) = Arc::clone(&lanes).acquire_owned().await {
        let first = match carried.take() {
            Some(item) => item,
            None => match receiver.recv().await {
                Some(item) => item,
                None => return,
            },
        };
        let (mut tasks, mut size) = (first.unit.tasks.len(), bytes(&first.unit));
        let mut items = vec![first];
        while let Ok(item) = receiver.try_recv() {
            tasks += item.unit.tasks.len();
            size += bytes(&item.unit);
            if tasks > bounds.tasks || size > bounds.bytes {
                carried = Some(item);
                break;
            }
            items.push(item);
        }
        let deps = deps.clone();
        // A task of its own: a panic costs this batch its answers and nothing else.
        tokio::spawn(async move {
            commit(items, &deps).await;
            drop(lane);
        });
    }
}

/// What is handed off of a task once it is committed.
fn entry(task: &NewTask) -> Option<Entry> {
    let spec = &task.spec;
    task.set_aside.is_none().then(|| Entry {
        task: spec.id,
        run: Run::FIRST,
        queue: spec.queue.clone(),
        priority: spec.priority,
        fairness_key: spec.fairness_key.clone(),
        due_at: spec.run_at,
    })
}

async fn commit(mut items: Vec<Item>, deps: &CommitDeps) {
    // A caller that has gone away while its call waited does not want it done any more.
    items.retain(|item| !item.answer.is_closed());
    if items.is_empty() {
        return;
    }
    let (handoff, now) = (deps.ids.handoff_id(), deps.clock.now());
    let entries: Vec<Vec<Option<Entry>>> = items.iter().map(|item| item.unit.tasks.iter().map(entry).collect()).collect();
    let (units, rest): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.unit, (item.answer, item._room))).unzip();
    let began = Instant::now();
    let committed = deps.store.submit(units, handoff, now).await;
    deps.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
    match committed {
        Ok(outcomes) => {
            let new = new_entries(entries, &outcomes);
            deps.meters.commits.inc();
            for ((answer, _room), outcome) in rest.into_iter().zip(outcomes) {
                if let UnitOutcome::Accepted(accepted) = &outcome {
                    let known = accepted.iter().filter(|task| task.deduplicated).count();
                    deps.meters.committed.inc_by((accepted.len() - known) as u64);
                    deps.meters.deduplicated.inc_by(known as u64);
                }
                // The caller may have gone away meanwhile: the task is committed all the same.
                let _ = answer.send(Ok(outcome));
            }
            // Without new entries there may still be an outbox row, of a try whose answer was lost: that is for the sweeper.
            if !new.is_empty() {
                deps.handoffs.push(Handoff { id: handoff, entries: new });
            }
        }
        Err(error) => {
            deps.meters.commit_failures.inc();
            let error = Arc::new(error);
            for (answer, _room) in rest {
                let _ = answer.send(Err(Arc::clone(&error)));
            }
        }
    }
}

fn new_entries(entries: Vec<Vec<Option<Entry>>>, outcomes: &[UnitOutcome]) -> Vec<Entry> {
    let mut new = Vec::new();
    for (entries, outcome) in entries.into_iter().zip(outcomes) {
        if let UnitOutcome::Accepted(accepted) = outcome {
            // What a cancel rule has picked has ended.
            let open = entries.into_iter().zip(accepted).filter(|(_, accepted)| !accepted.deduplicated && !accepted.cancelled);
            new.extend(open.filter_map(|(entry, _)| entry));
        }
    }
    new
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
