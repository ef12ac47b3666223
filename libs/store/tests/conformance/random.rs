//! Random steps by several callers at once on a few tasks; afterwards every chain must be legal.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use oxcart_store::{CloseOutcome, EndOutcome, ReplayOutcome, RunRecord, Start, StartOutcome, Store, TakeOver};
use oxcart_types::{EndKind, LeaseToken, Run, TaskChanges, TaskId, chain::StartKind};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rstest::rstest;

use crate::support::{Database, Fixture, at, attempts, cancel, close, end, handoff, replay, run, start, task_with, token};

const TASKS: usize = 12;
const CALLERS: u64 = 6;
const STEPS: usize = 120;
/// Starts that a task may have, releases left out.
const MAX_ATTEMPTS: i64 = 5;

/// What callers were told.
#[derive(Default)]
struct Told {
    /// Runs that somebody was allowed to enter, each with its token.
    started: HashMap<(TaskId, Run), LeaseToken>,
    /// Ends that were acknowledged.
    ended: HashMap<(TaskId, Run), EndKind>,
    /// Slots that were closed.
    closed: HashSet<(TaskId, Run)>,
    /// Ends that were undone, as far as callers saw them.
    replayed: HashSet<(TaskId, Run)>,
}

struct Caller {
    store: Store,
    ids: Vec<TaskId>,
    told: Arc<Mutex<Told>>,
    random: StdRng,
    /// Runs of my own that may be open.
    mine: Vec<Start>,
}

impl Caller {
    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => self.start().await,
            40..70 => self.end().await,
            70..80 => self.take_over().await,
            80..88 => self.close().await,
            88..92 => self.request_cancel().await,
            92..96 => self.update().await,
            _ => self.replay().await,
        }
    }

    fn any(&mut self) -> TaskId {
        *self.ids.choose(&mut self.random).expect("a task")
    }

    /// A batch over some tasks, of the run that seems next, or of any; some are asked for twice.
    async fn start(&mut self) {
        let mut wanted = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let id = self.any();
            let known = self.store.runs(id, None, 100).await.expect("runs").expect("a task").len();
            let number = if self.random.random_bool(0.8) { known + 1 } else { self.random.random_range(1..20) };
            wanted.push(start(id, u32::try_from(number).expect("a run")));
        }
        if self.random.random_bool(0.2) {
            wanted.extend(self.mine.last().copied());
        }
        let tries = if self.random.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..tries {
            let outcomes = self.store.start(&wanted, at(100)).await.expect("start");
            for (start, outcome) in wanted.iter().zip(outcomes) {
                if matches!(outcome, StartOutcome::Started { .. }) {
                    let mut told = self.told.lock().expect("a lock");
                    let before = told.started.insert((start.task, start.run), start.token);
                    assert!(before.is_none_or(|token| token == start.token), "two owners of one run");
                    self.mine.push(*start);
                }
            }
        }
    }

    async fn end(&mut self) {
        let Some(start) = self.mine.choose(&mut self.random).copied() else { return };
        // Mostly ends after which the chain goes on, so that chains grow long.
        let kind = match self.random.random_range(0..20) {
            0 => EndKind::Succeeded,
            1 => EndKind::Failed,
            2..12 => EndKind::Retry,
            _ => EndKind::Released,
        };
        let runs = self.store.runs(start.task, start.run.previous(), 1).await.expect("runs").expect("a task");
        let link = runs.first().expect("a run that was acknowledged");
        let mut end = end(start.task, start.run.get(), start.token, kind);
        end.attempts_used = if kind == EndKind::Released { link.attempt - 1 } else { link.attempt };
        let tries = if self.random.random_bool(0.3) { 2 } else { 1 };
        for _ in 0..tries {
            match self.store.end(std::slice::from_ref(&end), at(100)).await.expect("end")[0] {
                EndOutcome::Written(kind) => {
                    let before = self.told.lock().expect("a lock").ended.insert((start.task, start.run), kind);
                    assert!(before.is_none_or(|before| before == kind), "an end has changed");
                }
                EndOutcome::Fenced(_) => {}
                EndOutcome::NotMine => panic!("a start was acknowledged and is not mine"),
            }
        }
    }

    async fn take_over(&mut self) {
        let id = self.any();
        let known = self.store.runs(id, None, 100).await.expect("runs").expect("a task").len();
        let number = u32::try_from(known.max(1)).expect("a run");
        let take = TakeOver { task: id, run: run(number), by: token(), silent_since: at(200) };
        self.store.take_over(&[take], at(100)).await.expect("take over");
    }

    async fn close(&mut self) {
        let id = self.any();
        if self.random.random_bool(0.8) {
            return;
        }
        if let CloseOutcome::Closed(run) = self.store.close(&close(id, EndKind::Cancelled)).await.expect("close") {
            self.told.lock().expect("a lock").closed.insert((id, run));
        }
    }

    async fn request_cancel(&mut self) {
        let id = self.any();
        if self.random.random_bool(0.1) {
            self.store.request_cancel(id, &cancel()).await.expect("cancel");
        }
    }

    async fn replay(&mut self) {
        let id = self.any();
        let known = self.store.runs(id, None, 1000).await.expect("runs").expect("a task");
        let replay = replay(id);
        // The answer may be lost: a repeat finds the same replay, as long as no other came after it.
        let tries = if self.random.random_bool(0.3) { 2 } else { 1 };
        for _ in 0..tries {
            let outcome = self.store.replay(std::slice::from_ref(&replay), handoff(), at(100)).await.expect("replay");
            if let [ReplayOutcome::Replayed(_)] = outcome.as_slice() {
                let last = known.last().filter(|link| link.end.as_ref().is_some_and(|end| end.kind.is_terminal()));
                if let Some(last) = last {
                    self.told.lock().expect("a lock").replayed.insert((id, last.run));
                }
            }
        }
    }

    async fn update(&mut self) {
        let id = self.any();
        let changes = TaskChanges { run_at: Some(Some(at(50))), ..TaskChanges::default() };
        self.store.update(id, &changes, None, token(), handoff(), at(100), at(900)).await.expect("update");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_chain_is_legal_whatever_happens(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[values(1, 2, 3)] seed: u64,
) {
    let store = Fixture::new(database).await;
    let mut ids = Vec::new();
    for _ in 0..TASKS {
        ids.push(store.submit_one(task_with(|spec| spec.retry = attempts(MAX_ATTEMPTS))).await);
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let callers = (0..CALLERS).map(|number| {
        let mut caller = Caller {
            store: store.store.clone(),
            ids: ids.clone(),
            told: Arc::clone(&told),
            random: StdRng::seed_from_u64(seed * 100 + number),
            mine: Vec::new(),
        };
        tokio::spawn(async move {
            for _ in 0..STEPS {
                caller.step().await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("a caller");
    }
    let told = std::mem::take(&mut *told.lock().expect("a lock"));
    let (mut runs, mut replays) = (0, 0);
    for id in ids {
        let record = store.get_one(id).await;
        let chain = store.runs(id, None, 1000).await.expect("runs").expect("a task");
        check(id, &chain, &told);
        let last = chain.last().and_then(|link| link.end.as_ref());
        assert_eq!(record.state.is_terminal(), last.is_some_and(|end| end.kind.is_terminal() && end.replay.is_none()));
        runs += chain.len();
        replays += chain.iter().filter(|link| is_replayed(link)).count();
    }
    assert!(runs > TASKS && replays > 0, "nothing happened");
}

fn is_replayed(link: &RunRecord) -> bool {
    link.end.as_ref().is_some_and(|end| end.replay.is_some())
}

/// The rules of a chain, and that nobody was told otherwise.
fn check(id: TaskId, chain: &[RunRecord], told: &Told) {
    let mut counted = 0;
    for (index, link) in chain.iter().enumerate() {
        assert_eq!(link.run.get() as usize, index + 1, "runs are numbered without gaps");
        let last = index + 1 == chain.len();
        match &link.end {
            None => assert!(last && link.kind == StartKind::Worker, "only the newest run is open"),
            Some(end) => {
                assert!(last || is_replayed(link) || !end.kind.is_terminal(), "a terminal end is the last, or was undone");
                assert!(end.kind.is_terminal() || !is_replayed(link), "there was nothing to undo");
                counted += i64::from(link.kind == StartKind::Worker && end.kind != EndKind::Released);
            }
        }
        assert!(counted <= MAX_ATTEMPTS, "more starts than attempts");
        if is_replayed(link) {
            counted = 0;
        }
        let run = (id, link.run);
        assert!(!told.replayed.contains(&run) || is_replayed(link), "an acknowledged replay is gone");
        assert_eq!(told.started.contains_key(&run), link.kind == StartKind::Worker, "{link:?}");
        if told.closed.contains(&run) {
            assert!((last || is_replayed(link)) && link.kind == StartKind::Closer, "a run after an acknowledged cancel");
        }
        if let Some(kind) = told.ended.get(&run) {
            assert_eq!(link.end.as_ref().map(|end| end.kind), Some(*kind), "an acknowledged end has changed");
        }
    }
    let beyond = told.started.keys().any(|(task, run)| *task == id && run.get() as usize > chain.len());
    assert!(!beyond, "a run was acknowledged and is gone");
}
