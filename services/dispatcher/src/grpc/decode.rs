//! Requests into the domain. Everything that is wrong with a request is told at once.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use oxcart_proto::{
    convert::scalar,
    pb::{common::v1 as common, dispatcher::v1 as pb},
};
use oxcart_queue::{EnqueueCause, EntryKey, Extend, Partition};
use oxcart_types::{
    FairnessKey, LeaseToken, Limits, Priority, QueueName, Run, TaskId, Violations, WorkerId,
    violation::{Invalid, reason},
};

use crate::{
    config::Config,
    error::DispatcherError,
    journal::note,
    session::{Subscription, Window},
};

/// Items of one partition, with their positions in the request.
pub(crate) struct Group<T> {
    pub(crate) partition: Partition,
    pub(crate) positions: Vec<usize>,
    pub(crate) items: Vec<T>,
}

/// Groups items by partition; order within a partition stays.
pub(crate) fn by_partition<T>(items: impl IntoIterator<Item = (Partition, T)>) -> Vec<Group<T>> {
    let mut groups: Vec<Group<T>> = Vec::new();
    let mut index: HashMap<Partition, usize> = HashMap::new();
    for (position, (partition, item)) in items.into_iter().enumerate() {
        // Nearly always the same queue as the item before.
        let at = match groups.last() {
            Some(last) if last.partition == partition => groups.len() - 1,
            _ => *index.entry(partition.clone()).or_insert(groups.len()),
        };
        if at == groups.len() {
            groups.push(Group { partition, positions: Vec::new(), items: Vec::new() });
        }
        groups[at].positions.push(position);
        groups[at].items.push(item);
    }
    groups
}

/// Reads items and their keys; refuses too many, none where that is senseless, and tasks named twice.
struct Reader<'a> {
    field: &'a str,
    bad: Violations,
    seen: HashSet<TaskId>,
    /// The queue before: nearly always the same, so its text is kept once.
    queue: Option<QueueName>,
}

/// Most violations that one answer names.
const MAX_VIOLATIONS: usize = 20;

impl<'a> Reader<'a> {
    fn new(field: &'a str, len: usize, min: usize, max: usize) -> Result<Self, DispatcherError> {
        if len < min || len > max {
            return Err(DispatcherError::invalid(field, format!("has {len} items; {min} to {max} are allowed")));
        }
        Ok(Self { field, bad: Violations::new(), seen: HashSet::with_capacity(len), queue: None })
    }

    fn take<T>(&mut self, position: usize, name: &str, result: Result<T, Invalid>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(invalid) => {
                if self.bad.as_slice().len() < MAX_VIOLATIONS {
                    self.bad.add(format!("{}[{position}].{name}", self.field), invalid.reason, invalid.description);
                }
                None
            }
        }
    }

    fn task(&mut self, position: usize, name: &str, text: &str) -> Option<TaskId> {
        let task = self.take(position, name, text.parse::<TaskId>())?;
        let once = self.seen.insert(task);
        let twice = || Invalid::because(reason::FIELD_CONFLICT, format!("{task} is named twice"));
        self.take(position, name, once.then_some(task).ok_or_else(twice))
    }

    fn queue(&mut self, position: usize, text: &str) -> Option<QueueName> {
        if self.queue.as_ref().is_none_or(|queue| queue.as_str() != text) {
            self.queue = Some(self.take(position, "queue", text.parse())?);
        }
        self.queue.clone()
    }

    fn key(&mut self, position: usize, task: TaskId, priority: i32, fairness: &str) -> Option<EntryKey> {
        let priority = self.take(position, "priority", Priority::try_from(i64::from(priority)))?;
        let fairness =
            if fairness.is_empty() { None } else { Some(self.take(position, "fairness_key", fairness.parse::<FairnessKey>())?) };
        Some(EntryKey::new(task, priority, fairness.as_ref()))
    }

    fn lease(&mut self, position: usize, lease: Option<common::LeaseKey>) -> Option<(TaskId, Run, LeaseToken)> {
        let lease = self.take(position, "lease", lease.ok_or_else(Invalid::required))?;
        let task = self.task(position, "lease.task_id", &lease.task_id);
        let run = self.take(position, "lease.run", scalar::run(lease.run));
        let token = self.take(position, "lease.lease_token", scalar::lease_token(&lease.lease_token));
        Some((task?, run?, token?))
    }

    fn duration(&mut self, position: usize, name: &str, value: Option<prost_types::Duration>) -> Option<Duration> {
        let Some(value) = value else { return Some(Duration::ZERO) };
        self.take(position, name, scalar::duration_up_to(value, Limits::HORIZON))
    }

    fn finish<T>(self, items: Vec<T>) -> Result<Vec<T>, DispatcherError> {
        self.bad.check()?;
        Ok(items)
    }
}

/// A decoded entry key.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) partition: Partition,
    pub(crate) key: EntryKey,
    pub(crate) run: Run,
    pub(crate) delay: Duration,
}

/// Reads entry keys, each with a delay.
pub(crate) fn keys(
    field: &str,
    keys: Vec<(pb::EntryKey, Option<prost_types::Duration>)>,
    max: usize,
) -> Result<Vec<Keyed>, DispatcherError> {
    let mut reader = Reader::new(field, keys.len(), 1, max)?;
    let mut read = Vec::with_capacity(keys.len());
    for (position, (key, delay)) in keys.into_iter().enumerate() {
        let task = reader.task(position, "task_id", &key.task_id);
        let run = reader.take(position, "run", scalar::run(key.run));
        let queue = reader.queue(position, &key.queue);
        let delay = reader.duration(position, "delay", delay);
        let fairness_id = if key.fairness_key.is_empty() { key.fairness_id } else { 0 };
        if let (Some(task), Some(run), Some(queue), Some(delay)) = (task, run, queue, delay)
            && let Some(key) = reader.key(position, task, key.priority, &key.fairness_key)
        {
            let key = EntryKey { fairness: key.fairness | fairness_id, ..key };
            read.push(Keyed { partition: Partition::first(queue), key, run, delay });
        }
    }
    reader.finish(read)
}

/// A decoded held lease.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) queue: QueueName,
    /// With the longest life that the holder allows, or zero for the default.
    pub(crate) extend: Extend,
    pub(crate) remaining: Option<Duration>,
}

/// Reads held leases.
pub(crate) fn held(field: &str, leases: Vec<pb::HeldLease>) -> Result<Vec<Held>, DispatcherError> {
    let mut reader = Reader::new(field, leases.len(), 0, Limits::BATCH_ITEMS)?;
    let mut read = Vec::with_capacity(leases.len());
    for (position, held) in leases.into_iter().enumerate() {
        let lease = reader.lease(position, held.lease);
        let queue = reader.queue(position, &held.queue);
        let remaining = match held.remaining {
            Some(left) => reader.take(position, "remaining", scalar::duration(left)).map(Some),
            None => Some(None),
        };
        let deliveries = u8::try_from(held.deliveries.clamp(0, 255)).unwrap_or(u8::MAX);
        if let (Some((task, run, token)), Some(queue), Some(remaining)) = (lease, queue, remaining)
            && let Some(key) = reader.key(position, task, held.priority, &held.fairness_key)
        {
            read.push(Held { queue, extend: Extend { key, run, token, deliveries, ttl: Duration::ZERO }, remaining });
        }
    }
    reader.finish(read)
}

/// A decoded settle.
pub(crate) struct Settle {
    pub(crate) queue: QueueName,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) token: LeaseToken,
    pub(crate) kind: SettleKind,
    pub(crate) note: Bytes,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleKind {
    /// The run succeeded.
    Done,
    /// The task failed.
    Failed,
    /// The task was cancelled.
    Cancelled,
    /// Nothing was run.
    Dropped,
    /// A later run waits; its entry takes the place of the lease.
    Next {
        /// Its place.
        key: EntryKey,
        /// The later run.
        run: Run,
        /// Due after this.
        delay: Duration,
        /// Retried or released.
        cause: EnqueueCause,
    },
    /// The same run waits again.
    Released {
        /// Not before this has passed.
        delay: Duration,
        /// Does not count as a delivery.
        uncounted: bool,
    },
}

impl SettleKind {
    /// For metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dropped => "dropped",
            Self::Next { cause: EnqueueCause::Retried, .. } => "retried",
            Self::Next { cause: EnqueueCause::Released | EnqueueCause::Submitted, .. } | Self::Released { .. } => "released",
        }
    }
}

/// Reads settles.
pub(crate) fn settles(settles: Vec<pb::Settle>) -> Result<Vec<Settle>, DispatcherError> {
    let mut reader = Reader::new("settles", settles.len(), 0, Limits::BATCH_ITEMS)?;
    let mut read = Vec::with_capacity(settles.len());
    for (position, settle) in settles.into_iter().enumerate() {
        let lease = reader.lease(position, settle.lease);
        let queue = reader.queue(position, &settle.queue);
        let outcome = reader.take(position, "outcome", settle.outcome.ok_or_else(Invalid::required));
        let (Some((task, run, token)), Some(queue), Some(outcome)) = (lease, queue, outcome) else { continue };
        let Some(key) = reader.key(position, task, settle.priority, &settle.fairness_key) else { continue };
        if let Some((kind, note)) = settle_kind(&mut reader, position, settle.attempt, outcome, key, run) {
            read.push(Settle { queue, task, run, token, kind, note });
        }
    }
    reader.finish(read)
}

fn settle_kind(
    reader: &mut Reader<'_>,
    position: usize,
    attempt: i32,
    outcome: pb::settle::Outcome,
    key: EntryKey,
    run: Run,
) -> Option<(SettleKind, Bytes)> {
    use pb::settle::Outcome;
    Some(match outcome {
        Outcome::Done(done) => (SettleKind::Done, note::done(attempt, done.result)),
        Outcome::Cancelled(_) => (SettleKind::Cancelled, note::ended(attempt, common::TaskState::Cancelled)),
        Outcome::Dropped(dropped) => (SettleKind::Dropped, note::ended(attempt, dropped.task_state())),
        Outcome::Failed(failed) if failed.next_run == 0 => {
            (SettleKind::Failed, note::failed(attempt, common::TaskState::Failed, failed.error))
        }
        Outcome::Failed(failed) => {
            let next = next_run(reader, position, "failed.next_run", failed.next_run, run, false)?;
            let delay = reader.duration(position, "failed.retry_in", failed.retry_in)?;
            let kind = SettleKind::Next { key, run: next, delay, cause: EnqueueCause::Retried };
            (kind, note::failed(attempt, common::TaskState::Retrying, failed.error))
        }
        Outcome::Released(released) => {
            let next = next_run(reader, position, "released.next_run", released.next_run, run, true)?;
            let delay = reader.duration(position, "released.delay", released.delay)?;
            if next == run {
                (SettleKind::Released { delay, uncounted: released.uncounted }, Bytes::new())
            } else {
                let kind = SettleKind::Next { key, run: next, delay, cause: EnqueueCause::Released };
                (kind, note::ended(attempt, common::TaskState::Queued))
            }
        }
    })
}

fn next_run(reader: &mut Reader<'_>, position: usize, field: &str, number: i32, run: Run, same: bool) -> Option<Run> {
    let next = reader.take(position, field, scalar::run(number))?;
    let good = next > run || (same && next == run);
    let wrong = || Invalid::value(format!("is {}, and the lease is for run {}", next.get(), run.get()));
    reader.take(position, field, good.then_some(next).ok_or_else(wrong))
}

/// Reads a worker id.
pub(crate) fn worker_id(field: &str, text: &str) -> Result<WorkerId, DispatcherError> {
    text.parse().map_err(|invalid: Invalid| DispatcherError::invalid(field, invalid.description))
}

/// Reads a window; more slots than the limit are cut to it.
pub(crate) fn window(config: &Config, window: common::Window) -> Result<Window, DispatcherError> {
    let mut bad = Violations::new();
    let slots = bad.take("window.slots", scalar::count(window.slots)).unwrap_or(0).min(config.max_slots);
    if window.queues.len() > config.max_queues_per_session {
        let (len, max) = (window.queues.len(), config.max_queues_per_session);
        return Err(DispatcherError::invalid("window.queues", format!("has {len} items; at most {max} are allowed")));
    }
    let mut queues: Vec<Subscription> = Vec::with_capacity(window.queues.len());
    for (i, subscription) in window.queues.iter().enumerate() {
        let queue = bad.take(&format!("window.queues[{i}].queue"), subscription.queue.parse::<QueueName>());
        let weight = bad.take(&format!("window.queues[{i}].weight"), scalar::count(subscription.weight));
        let limit = bad.take(&format!("window.queues[{i}].slots"), scalar::count(subscription.slots));
        if let (Some(queue), Some(weight), Some(limit)) = (queue, weight, limit) {
            if queues.iter().any(|other| other.queue == queue) {
                bad.add(format!("window.queues[{i}].queue"), reason::FIELD_CONFLICT, format!("{queue} is named twice"));
            }
            queues.push(Subscription { queue, weight: weight.clamp(1, 1000), slots: (limit > 0).then_some(limit) });
        }
    }
    bad.check()?;
    Ok(Window { sequence: window.sequence, slots, queues })
}
