//! The steps of the store that a worker takes, as a seam: tests put a database between that fails on purpose.

use async_trait::async_trait;
use oxcart_store::{
    Store, StoreError,
    model::{Cancel, Close, CloseOutcome, End, EndOutcome, Live, RunKey, Start, StartOutcome, TakeOver, TakeOverOutcome, TaskRow},
};
use oxcart_types::{TaskId, Timestamp};

/// See the methods of [`Store`]. Every step may be repeated.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Reads tasks; unknown ones are left out.
    async fn load(&self, ids: &[TaskId]) -> Result<Vec<TaskRow>, StoreError>;
    /// Writes starts.
    async fn start(&self, starts: &[Start], now: Timestamp) -> Result<Vec<StartOutcome>, StoreError>;
    /// Writes ends.
    async fn end(&self, ends: &[End], now: Timestamp) -> Result<Vec<EndOutcome>, StoreError>;
    /// Ends runs of vanished workers.
    async fn take_over(&self, runs: &[TakeOver], now: Timestamp) -> Result<Vec<TakeOverOutcome>, StoreError>;
    /// Which of these runs are open and owned by their token.
    async fn still_mine(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError>;
    /// Notes signs of life, progress and checkpoints.
    async fn set_live(&self, live: &[Live], now: Timestamp) -> Result<(), StoreError>;
    /// Which of these tasks have a cancel that counts.
    async fn cancels(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Cancel)>, StoreError>;
    /// Closes the next slot of a task.
    async fn close(&self, close: &Close) -> Result<CloseOutcome, StoreError>;
    /// Answers when the database does.
    async fn ping(&self) -> Result<(), StoreError>;
}

#[async_trait]
impl RunStore for Store {
    async fn load(&self, ids: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        Self::load(self, ids).await
    }

    async fn start(&self, starts: &[Start], now: Timestamp) -> Result<Vec<StartOutcome>, StoreError> {
        Self::start(self, starts, now).await
    }

    async fn end(&self, ends: &[End], now: Timestamp) -> Result<Vec<EndOutcome>, StoreError> {
        Self::end(self, ends, now).await
    }

    async fn take_over(&self, runs: &[TakeOver], now: Timestamp) -> Result<Vec<TakeOverOutcome>, StoreError> {
        Self::take_over(self, runs, now).await
    }

    async fn still_mine(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        Self::still_mine(self, runs).await
    }

    async fn set_live(&self, live: &[Live], now: Timestamp) -> Result<(), StoreError> {
        Self::set_live(self, live, now).await
    }

    async fn cancels(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Cancel)>, StoreError> {
        Self::cancels(self, tasks).await
    }

    async fn close(&self, close: &Close) -> Result<CloseOutcome, StoreError> {
        Self::close(self, close).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Self::ping(self).await
    }
}
