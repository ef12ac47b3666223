//! What SQL holds at the end.

use std::collections::BTreeMap;

use oxcart_store::{Store, StoreError, TaskFilter, View};
use oxcart_types::{
    TaskId, Timestamp,
    record::{RunRecord, TaskRecord},
};

/// Tasks read in one go.
const PAGE: usize = 500;

/// A task with every run of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The task, in full.
    pub task: TaskRecord,
    /// Its runs, oldest first.
    pub runs: Vec<RunRecord>,
}

impl Chain {
    /// It was replayed at `at` or later: what was promised of its end before then does not count any more.
    #[must_use]
    pub fn is_replayed_since(&self, at: Timestamp) -> bool {
        self.runs.iter().filter_map(|run| run.end.as_ref()?.replay.as_ref()).any(|replay| replay.at >= at)
    }
}

/// Reads every task that there is, those too that nobody knows to have submitted.
///
/// # Errors
/// The database fails, or holds what cannot be read: a chain that no sequence of legal steps could have written among it.
pub async fn read_chains(store: &Store) -> Result<BTreeMap<TaskId, Chain>, StoreError> {
    let mut chains = BTreeMap::new();
    let mut before = None;
    loop {
        let page = store.list(&TaskFilter::default(), before, PAGE).await?;
        let ids: Vec<TaskId> = page.tasks.iter().map(|task| task.spec.id).collect();
        for mut task in store.get(&ids, View::Full).await?.into_iter().flatten() {
            let newest = std::mem::take(&mut task.runs);
            let whole = newest.first().is_none_or(|run| run.run == oxcart_types::Run::FIRST);
            let runs = if whole { newest } else { every_run(store, task.spec.id).await? };
            chains.insert(task.spec.id, Chain { task, runs });
        }
        match page.next_before {
            Some(next) => before = Some(next),
            None => return Ok(chains),
        }
    }
}

async fn every_run(store: &Store, task: TaskId) -> Result<Vec<RunRecord>, StoreError> {
    let mut runs: Vec<RunRecord> = Vec::new();
    loop {
        let page = store.runs(task, runs.last().map(|run| run.run), PAGE).await?.unwrap_or_default();
        let done = page.len() < PAGE;
        runs.extend(page);
        if done {
            return Ok(runs);
        }
    }
}
