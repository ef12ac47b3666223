//! Random steps by sixteen callers at once beside an oracle: every answer must be one that some serial order of the calls
//! allows, and at the end the database must hold what the oracle holds.
//!
//! Each seed fixes what the callers ask for; what the database makes of it in time is its own. `OXCART_STORE_MODEL_SEEDS=from..to`
//! and `OXCART_STORE_MODEL_STEPS=n` make a longer run.

mod caller;
mod history;
mod oracle;

use std::sync::{Arc, atomic::AtomicU32};

use oxcart_store::Store;
use oxcart_types::{EndKind, chain::StartKind};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rstest::rstest;

use self::{
    caller::{Caller, Shared},
    history::Recorder,
    oracle::{Link, Plan},
};
use crate::support::{Database, Unmigrated, task_id};

const CALLERS: usize = 16;
const TASKS: usize = 16;
const STEPS: usize = 100;
/// Starts that any task may have at most, releases left out.
const MAX_ATTEMPTS: u32 = 9;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn some_serial_order_explains_every_answer(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let steps = std::env::var("OXCART_STORE_MODEL_STEPS").map_or(STEPS, |steps| steps.parse().expect("a number of steps"));
    for seed in seeds() {
        play(database, seed, steps).await;
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("OXCART_STORE_MODEL_SEEDS") else { return 1..4 };
    let (from, to) = range.split_once("..").expect("from..to");
    from.parse().expect("a seed")..to.parse().expect("a seed")
}

async fn play(database: Database, seed: u64, steps: usize) {
    let mut unmigrated = Unmigrated::new(database).await;
    unmigrated.options.max_connections = CALLERS;
    Store::migrate(&unmigrated.options).await.expect("migrate");
    let mut random = StdRng::seed_from_u64(seed);
    let shared = Arc::new(Shared {
        store: Store::connect(unmigrated.options.clone()).await.expect("connect"),
        ids: (0..TASKS).map(|_| task_id()).collect(),
        plans: (0..3).map(|payload| plan(&mut random, payload)).collect(),
        recorder: Recorder::default(),
        runs: (0..TASKS).map(|_| AtomicU32::new(0)).collect(),
    });
    let callers = (0..CALLERS).map(|number| {
        let mut caller = Caller::new(number, Arc::clone(&shared), StdRng::seed_from_u64(seed * 1000 + number as u64));
        tokio::spawn(async move {
            for _ in 0..steps {
                caller.step().await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap_or_else(|error| panic!("{database:?}, seed {seed}: {error}"));
    }
    let witness = Caller::new(CALLERS, Arc::clone(&shared), random);
    let mut runs = 0;
    for task in 0..TASKS {
        let record = witness.get(task).await;
        let chain = witness.chain(task).await;
        runs += chain.len();
        assert_legal(&chain);
        let ended = chain.last().and_then(|link| link.end).is_some_and(|(kind, _)| kind.is_terminal());
        assert_eq!(record.is_some_and(|record| record.state.is_terminal()), ended, "{database:?}, seed {seed}: {chain:?}");
    }
    witness.whole_agenda().await;
    assert!(runs > TASKS, "nothing happened");
    for (task, history) in shared.recorder.by_task(TASKS).iter().enumerate() {
        if let Err(story) = history::check(history) {
            panic!("{database:?}, seed {seed}, task {task}: {story}");
        }
    }
}

/// Times lie around those of the callers, so that some tasks are not due yet and some have expired.
fn plan(random: &mut StdRng, payload: u8) -> Plan {
    Plan {
        payload,
        priority: random.random_range(0..10),
        run_at: random.random_bool(0.3).then(|| random.random_range(98..108)),
        expires_at: random.random_bool(0.4).then(|| random.random_range(104..125)),
        deadline: random.random_bool(0.3).then(|| random.random_range(104..125)),
        max_attempts: random.random_range(2..=MAX_ATTEMPTS),
    }
}

/// The rules of a chain (I3, I5, I6), whatever the oracle thinks of it.
fn assert_legal(chain: &[Link]) {
    let mut counted = 0;
    for (index, link) in chain.iter().enumerate() {
        assert_eq!(link.run as usize, index + 1, "runs are numbered without gaps: {chain:?}");
        let last = index + 1 == chain.len();
        match link.end {
            None => assert!(last && link.kind == StartKind::Worker, "only the newest run is open: {chain:?}"),
            Some((kind, _)) => {
                assert!(last || !kind.is_terminal(), "a terminal end is the last: {chain:?}");
                counted += u32::from(link.kind == StartKind::Worker && kind != EndKind::Released);
            }
        }
        assert!(counted <= MAX_ATTEMPTS, "more starts than attempts: {chain:?}");
    }
}
