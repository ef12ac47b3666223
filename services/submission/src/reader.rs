//! Reads of single tasks, coalesced.

use std::sync::Arc;

use oxcart_service::coalesce::{Batcher, BatcherOptions, SubmitError};
use oxcart_store::{Store, StoreError, TaskRecord, View};
use oxcart_types::{Limits, TaskId};

use crate::error::Error;

type Read = Result<Option<TaskRecord>, Arc<StoreError>>;

/// Reads tasks; clones share the batches.
#[derive(Clone)]
pub(crate) struct Reader {
    basic: Batcher<TaskId, Read>,
    full: Batcher<TaskId, Read>,
}

impl Reader {
    /// `waiting` reads may wait at once.
    pub(crate) fn spawn(store: &Store, waiting: usize) -> Self {
        let reads = |view| {
            let store = store.clone();
            let options = BatcherOptions { max_batch: Limits::BATCH_ITEMS, max_waiting: waiting, lanes: 2 };
            Batcher::spawn(options, move |ids| read(store.clone(), ids, view))
        };
        Self { basic: reads(View::Basic), full: reads(View::Full) }
    }

    pub(crate) async fn read(&self, task: TaskId, view: View) -> Result<Option<TaskRecord>, Error> {
        let batcher = match view {
            View::Basic => &self.basic,
            View::Full => &self.full,
        };
        match batcher.submit(task).await {
            Ok(read) => Ok(read?),
            Err(SubmitError::Busy) => Err(Error::Busy),
            Err(SubmitError::Unanswered) => Err(Error::Unanswered),
        }
    }

    pub(crate) async fn basic(&self, task: TaskId) -> Result<Option<TaskRecord>, Error> {
        self.read(task, View::Basic).await
    }
}

async fn read(store: Store, ids: Vec<TaskId>, view: View) -> Vec<Read> {
    match store.get(&ids, view).await {
        Ok(records) => records.into_iter().map(Ok).collect(),
        Err(error) => {
            let error = Arc::new(error);
            ids.iter().map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}
