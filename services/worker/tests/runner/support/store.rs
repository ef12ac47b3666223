//! The real store on a SQLite file, behind a switch that makes it fail.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use oxcart_store::{Store, StoreError, StoreOptions, model::*};
use oxcart_types::{TaskId, Timestamp};
use oxcart_worker::store::RunStore;
use tokio::sync::watch;

#[derive(Clone)]
pub struct SwitchedStore {
    pub store: Store,
    down: Arc<AtomicBool>,
    lost_answers: Arc<AtomicUsize>,
    held_starts: Arc<watch::Sender<bool>>,
    refused: Arc<Mutex<HashSet<TaskId>>>,
}

impl SwitchedStore {
    pub async fn open(folder: &std::path::Path) -> Self {
        let url = format!("sqlite:{}", folder.join("oxcart.db").display());
        let options = StoreOptions { url, max_connections: 4, acquire_timeout: Duration::from_secs(5) };
        Store::migrate(&options).await.expect("a schema");
        Self {
            store: Store::connect(options).await.expect("a store"),
            down: Arc::default(),
            lost_answers: Arc::default(),
            held_starts: Arc::new(watch::Sender::new(false)),
            refused: Arc::default(),
        }
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The next starts and ends are carried out, and their answers lost.
    pub fn lose_answers(&self, count: usize) {
        self.lost_answers.store(count, Ordering::SeqCst);
    }

    /// Starts are carried out, and their answers held back until this is taken back.
    pub fn hold_starts(&self, hold: bool) {
        self.held_starts.send_replace(hold);
    }

    /// Statements with a result of this task are refused, as a row that the schema does not take.
    pub fn refuse_result_of(&self, task: TaskId) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
    }

    fn refuses(&self, end: &End) -> bool {
        end.result.is_some() && self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&end.task)
    }

    fn unless_lost<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let lost = self.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lost { Err(StoreError::Unavailable("answer lost by the test".into())) } else { answer }
    }

    fn up(&self) -> Result<&Store, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable("switched off by the test".into()))
        } else {
            Ok(&self.store)
        }
    }
}

#[async_trait]
impl RunStore for SwitchedStore {
    async fn load(&self, ids: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        RunStore::load(self.up()?, ids).await
    }
    async fn start(&self, starts: &[Start], now: Timestamp) -> Result<Vec<StartOutcome>, StoreError> {
        let answer = RunStore::start(self.up()?, starts, now).await;
        let _ = self.held_starts.subscribe().wait_for(|held| !held).await;
        self.unless_lost(answer)
    }
    async fn end(&self, ends: &[End], now: Timestamp) -> Result<Vec<EndOutcome>, StoreError> {
        if ends.iter().any(|end| self.refuses(end)) {
            return Err(StoreError::Refused("refused by the test".into()));
        }
        let answer = RunStore::end(self.up()?, ends, now).await;
        self.unless_lost(answer)
    }
    async fn take_over(&self, runs: &[TakeOver], now: Timestamp) -> Result<Vec<TakeOverOutcome>, StoreError> {
        RunStore::take_over(self.up()?, runs, now).await
    }
    async fn still_mine(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        RunStore::still_mine(self.up()?, runs).await
    }
    async fn set_live(&self, live: &[Live], now: Timestamp) -> Result<(), StoreError> {
        RunStore::set_live(self.up()?, live, now).await
    }
    async fn cancels(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Cancel)>, StoreError> {
        RunStore::cancels(self.up()?, tasks).await
    }
    async fn close(&self, close: &Close) -> Result<CloseOutcome, StoreError> {
        RunStore::close(self.up()?, close).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        RunStore::ping(self.up()?).await
    }
}
