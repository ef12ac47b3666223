//! The two engines side by side: the same random calls at the same times must get the same replies, leave the same entries
//! and tell the same story; and after each call the invariants hold, by what the journal tells and the engine shows.
//!
//! `PROPTEST_CASES=n` makes a longer run, `OXCART_MODEL_SEED=n` other calls.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

#[path = "model/replay.rs"]
mod replay;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use oxcart_queue::{
    Claim, Complete, EngineOptions, Enqueue, EnqueueCause, EntryKey, Extend, ExtendCause, Inspected, JournalEntry, JournalFrom,
    JournalId, LeaseRequest, LeaseStatus, Outcome, PartitionStats, Place, Release, Remove, Settings, TickLimits, Transition,
};
use oxcart_types::{LeaseToken, TaskId};
use proptest::{
    collection::btree_map,
    prelude::*,
    sample::select,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    replay::{Replay, assert_order},
    support::{Backend, Rig, items, partition},
};

const TASKS: u64 = 14;
/// Random lists of calls by themselves.
const CASES: u32 = 150;
/// Every so many lease calls that give something out the lowest band comes first.
const LOWEST_BAND_EVERY: u32 = 3;

/// The key of a task never changes while it waits; all bands and fairness keys are mixed.
fn key(number: u64) -> EntryKey {
    let fairness = [0, 1, u32::MAX][usize::try_from(number % 3).expect("below three")];
    EntryKey { band: [0, 4, 9, 4][usize::try_from(number % 4).expect("below four")], fairness, ..items::key(number) }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(Vec<(u64, u32, u64, EnqueueCause, &'static str)>),
    Lease {
        wanted: u64,
        ttl_ms: u64,
    },
    Extend(ExtendCause, Vec<(u64, u32, bool, u8, u64)>),
    Complete(Vec<(u64, bool, Outcome, &'static str)>),
    Release(Vec<(u64, bool, u64, bool)>),
    Remove(Vec<(u64, u32, bool)>),
    Missing(u32),
    Tick {
        promote: usize,
        reap: usize,
    },
    /// Settings of this revision, paused or not.
    Configure(u64, bool),
    Advance(u64),
}

/// Several tasks, each once, with something for each.
fn some<T: std::fmt::Debug + 'static>(each: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Vec<(u64, T)>> {
    btree_map(0..TASKS, each, 0..8).prop_map(|map| map.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let delay = || select(vec![0, 0, 0, 1, 1000, 5000]);
    let note = || select(vec!["", "", "abc", "\0efgh"]);
    let runs = || select(vec![1_u32, 1, 2, 3, 300]);
    // Mostly the token that holds the lease, sometimes another.
    let right = || prop::bool::weighted(0.8);
    let cause = select(vec![EnqueueCause::Submitted, EnqueueCause::Retried, EnqueueCause::Released]);
    let outcome = select(vec![Outcome::Done, Outcome::Failed, Outcome::Cancelled, Outcome::Dropped]);
    let step = prop_oneof![
        5 => some((runs(), delay(), cause, note()))
            .prop_map(|items| Step::Enqueue(items.into_iter().map(|(n, (run, delay, cause, note))| (n, run, delay, cause, note)).collect())),
        5 => (0..6_u64, select(vec![1000_u64, 10_000])).prop_map(|(wanted, ttl_ms)| Step::Lease { wanted, ttl_ms }),
        2 => (any::<bool>(), some((runs(), right(), 0..4_u8, select(vec![0, 1000, 30_000]))))
            .prop_map(|(starts, items)| {
                let cause = if starts { ExtendCause::Started } else { ExtendCause::Heartbeat };
                Step::Extend(cause, items.into_iter().map(|(n, (run, right, deliveries, ttl))| (n, run, right, deliveries, ttl)).collect())
            }),
        2 => some((right(), outcome, note()))
            .prop_map(|items| Step::Complete(items.into_iter().map(|(n, (right, outcome, note))| (n, right, outcome, note)).collect())),
        2 => some((right(), delay(), any::<bool>()))
            .prop_map(|items| Step::Release(items.into_iter().map(|(n, (right, delay, free))| (n, right, delay, free)).collect())),
        1 => some((runs(), any::<bool>()))
            .prop_map(|items| Step::Remove(items.into_iter().map(|(n, (run, take))| (n, run, take)).collect())),
        1 => runs().prop_map(Step::Missing),
        2 => (0..4_usize, 0..4_usize).prop_map(|(promote, reap)| Step::Tick { promote, reap }),
        1 => (0..9_u64, prop::bool::weighted(0.3)).prop_map(|(revision, paused)| Step::Configure(revision, paused)),
        4 => select(vec![1, 999, 1000, 5000, 10_000, 61_000]).prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..60)
}

/// Drives one engine; two of them fed with the same steps know the same tokens.
struct Driver {
    rig: Rig,
    held: HashMap<TaskId, LeaseToken>,
    next_token: u64,
    read: JournalId,
    replay: Replay,
    entries: Vec<Option<Inspected>>,
    /// Lease calls that gave something out.
    turns: u32,
}

/// All that can be seen after a step, without what must differ.
#[derive(Debug, PartialEq)]
struct Seen {
    reply: String,
    stats: PartitionStats,
    entries: Vec<Option<Inspected>>,
    journal: Vec<JournalEntry>,
}

impl Driver {
    async fn new(backend: Backend) -> Self {
        let options = EngineOptions {
            window: 9,
            max_deliveries: 3,
            lowest_band_every: LOWEST_BAND_EVERY,
            journal_note_bytes: 9,
            ..EngineOptions::default()
        };
        Self {
            rig: Rig::with(backend, options).await,
            held: HashMap::new(),
            next_token: 0,
            read: JournalId::default(),
            replay: Replay::default(),
            entries: Vec::new(),
            turns: 0,
        }
    }

    fn fresh(&mut self) -> LeaseToken {
        self.next_token += 1;
        items::token(self.next_token)
    }

    fn token(&mut self, number: u64, right: bool) -> LeaseToken {
        match self.held.get(&items::task(number)) {
            Some(token) if right => *token,
            Some(_) | None => self.fresh(),
        }
    }

    async fn step(&mut self, step: &Step) -> Seen {
        let reply = self.call(step).await;
        let entries = self.inspect().await;
        let engine = &*self.rig.engine;
        let stats = PartitionStats { incarnation: 0, ..engine.stats(&partition()).await.unwrap() };
        let read = engine.journal(&partition(), JournalFrom::After(self.read), 1000).await.unwrap();
        assert!(!read.gap);
        self.read = read.last;
        self.assert_told(step, &read.entries, &entries);
        self.entries = entries.clone();
        Seen { reply, stats, entries, journal: read.entries }
    }

    async fn inspect(&self) -> Vec<Option<Inspected>> {
        let keys: Vec<_> = (0..TASKS).map(key).collect();
        self.rig.engine.inspect(&partition(), &keys).await.unwrap()
    }

    /// What the call has told fits what was there before it and what is there now.
    fn assert_told(&mut self, step: &Step, told: &[JournalEntry], after: &[Option<Inspected>]) {
        self.replay.follow(told, &self.entries);
        self.replay.assert_same(after, self.rig.now());
        if let Step::Lease { .. } = step
            && told.iter().any(|entry| entry.transition == Transition::Granted)
        {
            self.turns += 1;
            assert_order(told, &self.entries, after, self.turns.is_multiple_of(LOWEST_BAND_EVERY));
        }
    }

    async fn call(&mut self, step: &Step) -> String {
        let ms = |ms: &u64| Duration::from_millis(*ms);
        let engine = std::sync::Arc::clone(&self.rig.engine);
        let partition = partition();
        match step {
            Step::Enqueue(list) => {
                let item = |(number, run, delay, cause, note): &(u64, u32, u64, EnqueueCause, &'static str)| Enqueue {
                    key: key(*number),
                    run: items::run(*run),
                    delay: ms(delay),
                    cause: *cause,
                    note: Bytes::from_static(note.as_bytes()),
                };
                format!("{:?}", engine.enqueue(&partition, &list.iter().map(item).collect::<Vec<_>>()).await.unwrap())
            }
            Step::Lease { wanted, ttl_ms } => {
                let claims = (0..*wanted).map(|_| Claim { token: self.fresh(), worker: items::worker() }).collect();
                let request = LeaseRequest { claims, claim_ttl: ms(ttl_ms), reap: true, settings: Settings::default() };
                let leased = engine.lease(&partition, &request).await.unwrap();
                self.held.extend(leased.granted.iter().map(|granted| (granted.key.task, granted.token)));
                format!("{leased:?}")
            }
            Step::Extend(cause, list) => {
                let mut extends = Vec::new();
                for (number, run, right, deliveries, ttl) in list {
                    let token = self.token(*number, *right);
                    extends.push(Extend { key: key(*number), run: items::run(*run), token, deliveries: *deliveries, ttl: ms(ttl) });
                }
                let statuses = engine.extend(&partition, *cause, &extends).await.unwrap();
                let adopted = extends.iter().zip(&statuses).filter(|(_, status)| **status == LeaseStatus::Adopted);
                self.held.extend(adopted.map(|(extend, _)| (extend.key.task, extend.token)));
                format!("{statuses:?}")
            }
            Step::Complete(list) => {
                let mut completes = Vec::new();
                for (number, right, outcome, note) in list {
                    let (task, token) = (items::task(*number), self.token(*number, *right));
                    completes.push(Complete { task, token, outcome: *outcome, note: Bytes::from_static(note.as_bytes()) });
                }
                format!("{:?}", engine.complete(&partition, &completes).await.unwrap())
            }
            Step::Release(list) => {
                let mut releases = Vec::new();
                for (number, right, delay, uncounted) in list {
                    let (task, token) = (items::task(*number), self.token(*number, *right));
                    releases.push(Release { task, token, delay: ms(delay), uncounted: *uncounted });
                }
                format!("{:?}", engine.release(&partition, &releases).await.unwrap())
            }
            Step::Remove(list) => {
                let item = |(number, run, take): &(u64, u32, bool)| Remove {
                    key: key(*number),
                    up_to: items::run(*run),
                    take_lease: *take,
                };
                format!("{:?}", engine.remove(&partition, &list.iter().map(item).collect::<Vec<_>>()).await.unwrap())
            }
            Step::Missing(run) => {
                let list: Vec<_> = (0..TASKS).map(|number| (key(number), items::run(*run))).collect();
                format!("{:?}", engine.missing(&partition, &list).await.unwrap())
            }
            Step::Tick { promote, reap } => {
                format!("{:?}", engine.tick(&partition, TickLimits { promote: *promote, reap: *reap }).await.unwrap())
            }
            Step::Configure(revision, paused) => {
                let settings = Settings { revision: *revision, paused: *paused };
                format!("{:?}", engine.configure(&partition, settings).await.unwrap())
            }
            Step::Advance(by) => {
                self.rig.advance(ms(by)).await;
                String::new()
            }
        }
    }

    /// What is listed is what is there, each entry once, and all of it fits together.
    async fn assert_pages_show_the_same(&self, seen: &Seen) {
        let engine = &*self.rig.engine;
        let mut listed = Vec::new();
        for place in [Place::Ready, Place::Delayed, Place::Leased, Place::Quarantined] {
            // So few entries are one page in both engines.
            listed.extend(engine.list(&partition(), place, None, 1000).await.unwrap().entries);
        }
        listed.sort_by_key(|entry| entry.key.task);
        let mut there: Vec<_> = seen.entries.iter().flatten().map(|entry| Inspected { ahead: 0, ..*entry }).collect();
        there.sort_by_key(|entry| entry.key.task);
        assert_eq!(listed, there);
        let mut from = None;
        loop {
            let page = engine.check(&partition(), from.as_ref(), 1000).await.unwrap();
            assert_eq!(page.damaged, []);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }

    /// What the engine counts by place is what it shows by task: an entry is in exactly one place.
    fn assert_one_place_each(seen: &Seen) {
        let count = |place| seen.entries.iter().flatten().filter(|entry| entry.place == place).count() as u64;
        let PartitionStats { ready, delayed, leased, quarantined, .. } = seen.stats;
        assert_eq!(
            [ready, delayed, leased, quarantined],
            [Place::Ready, Place::Delayed, Place::Leased, Place::Quarantined].map(count)
        );
    }
}

async fn compare(steps: Vec<Step>) {
    let mut memory = Driver::new(Backend::Memory).await;
    let mut redis = Driver::new(Backend::Redis).await;
    for (at, step) in steps.iter().enumerate() {
        let (expected, seen) = (memory.step(step).await, redis.step(step).await);
        assert_eq!(expected, seen, "after step {at}, {step:?}");
        Driver::assert_one_place_each(&seen);
        redis.rig.assert_redis_is_consistent(&seen.stats).await;
        if at + 1 == steps.len() {
            memory.assert_pages_show_the_same(&seen).await;
            redis.assert_pages_show_the_same(&seen).await;
        }
    }
}

/// The same cases in every run, so that a failure is one of the change that it came with.
fn runner() -> TestRunner {
    let seed = std::env::var("OXCART_MODEL_SEED").map_or(1, |seed| seed.parse::<u64>().expect("a number"));
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { CASES };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(ProptestConfig { cases, ..config }, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn both_engines_do_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runner().run(&steps(), |steps| {
        runtime.block_on(compare(steps));
        Ok(())
    });
    outcome.unwrap_or_else(|failed| panic!("{failed}"));
}
