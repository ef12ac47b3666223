//! Short ways to say what goes into an engine.

use std::time::Duration;

use bytes::Bytes;
use oxcart_queue::{
    Claim, Complete, Enqueue, EnqueueCause, EnqueueStatus, EntryKey, Extend, Granted, JournalEntry, JournalFrom, LeaseRequest,
    LeaseStatus, Outcome, Partition, Place, QueueEngine, Release, Settings, Transition,
};
use oxcart_types::{LeaseToken, Run, TaskId, WorkerId};

/// Life of the claims in tests.
pub const CLAIM: Duration = Duration::from_secs(10);

/// The task with this number; they order as their numbers.
pub fn task(number: u64) -> TaskId {
    TaskId::from_bytes((u128::from(number) + 1).to_be_bytes())
}

/// The number of a task.
pub fn number(task: TaskId) -> u64 {
    u64::try_from(u128::from_be_bytes(*task.as_bytes()) - 1).expect("a task of these tests")
}

pub fn numbers(granted: &[Granted]) -> Vec<u64> {
    granted.iter().map(|granted| number(granted.key.task)).collect()
}

pub const fn run(number: u32) -> Run {
    match Run::new(number) {
        Some(run) => run,
        None => panic!("runs begin at 1"),
    }
}

pub fn worker() -> WorkerId {
    WorkerId::from_bytes([7; 16])
}

pub fn token(number: u64) -> LeaseToken {
    LeaseToken::from_bytes((u128::from(number) << 8).to_be_bytes())
}

/// The key of a task without fairness key, in the middle band.
pub fn key(number: u64) -> EntryKey {
    EntryKey { task: task(number), band: 5, fairness: 0 }
}

/// A first run, ready at once.
pub fn entry(number: u64) -> Enqueue {
    entry_of(key(number))
}

pub fn entry_of(key: EntryKey) -> Enqueue {
    Enqueue { key, run: Run::FIRST, delay: Duration::ZERO, cause: EnqueueCause::Submitted, note: Bytes::new() }
}

pub fn delayed(number: u64, ms: u64) -> Enqueue {
    Enqueue { delay: Duration::from_millis(ms), ..entry(number) }
}

pub fn entry_run(number: u64, run_: u32) -> Enqueue {
    Enqueue { run: run(run_), ..entry(number) }
}

pub fn request(tokens: impl IntoIterator<Item = u64>) -> LeaseRequest {
    let claims = tokens.into_iter().map(|number| Claim { token: token(number), worker: worker() }).collect();
    LeaseRequest { claims, claim_ttl: CLAIM, reap: true, settings: Settings::default() }
}

pub fn done(granted: &Granted) -> Complete {
    Complete { task: granted.key.task, token: granted.token, outcome: Outcome::Done, note: Bytes::new() }
}

pub fn release(granted: &Granted) -> Release {
    Release { task: granted.key.task, token: granted.token, delay: Duration::ZERO, uncounted: false }
}

pub fn heartbeat(granted: &Granted) -> Extend {
    Extend {
        key: granted.key,
        run: granted.run,
        token: granted.token,
        deliveries: granted.deliveries,
        ttl: Duration::from_secs(30),
    }
}

/// Puts first runs in, all new.
pub async fn fill(engine: &dyn QueueEngine, partition: &Partition, numbers: impl IntoIterator<Item = u64>) {
    let items: Vec<_> = numbers.into_iter().map(entry).collect();
    let statuses = engine.enqueue(partition, &items).await.expect("enqueue");
    assert!(statuses.iter().all(|status| *status == EnqueueStatus::Created), "{statuses:?}");
}

/// Leases with the tokens of these numbers.
pub async fn lease(engine: &dyn QueueEngine, partition: &Partition, tokens: impl IntoIterator<Item = u64>) -> Vec<Granted> {
    engine.lease(partition, &request(tokens)).await.expect("lease").granted
}

pub async fn complete(engine: &dyn QueueEngine, partition: &Partition, granted: &Granted) -> LeaseStatus {
    engine.complete(partition, &[done(granted)]).await.expect("complete")[0]
}

/// Where the entry of a number is.
pub async fn place(engine: &dyn QueueEngine, partition: &Partition, number: u64) -> Option<Place> {
    engine.inspect(partition, &[key(number)]).await.expect("inspect")[0].map(|inspected| inspected.place)
}

/// All of the journal.
pub async fn journal(engine: &dyn QueueEngine, partition: &Partition) -> Vec<JournalEntry> {
    engine.journal(partition, JournalFrom::Oldest, 1000).await.expect("journal").entries
}

/// All of the journal in short.
pub async fn story(engine: &dyn QueueEngine, partition: &Partition) -> Vec<(Transition, u64)> {
    journal(engine, partition).await.iter().map(|entry| (entry.transition, number(entry.task))).collect()
}
