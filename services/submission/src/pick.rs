//! Which tasks a selector picks, a bounded number at a time.

use std::collections::HashSet;

use oxcart_store::{Selector, Store, StoreError, TaskFilter, TaskRecord, View};
use oxcart_types::{TaskId, TaskState, Timestamp, filter::TaskQuery};

use crate::cancel::BATCH;

/// Tasks that a count looks at, at most.
pub(crate) const COUNT_LIMIT: usize = 10_000;
/// Pages that a count reads, at most: each looks at 2000 rows or fewer.
const COUNT_PAGES: usize = 50;
/// Tasks that a count names.
const SAMPLES: usize = 10;

/// A batch of tasks.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// With their states.
    pub(crate) tasks: Vec<(TaskId, TaskState)>,
    /// Asked for by id and not there.
    pub(crate) missing: Vec<TaskId>,
    /// The next batch comes after this; `None` at the end.
    pub(crate) next: Option<TaskId>,
}

/// What a selector picks right now.
#[derive(Debug, Default)]
pub(crate) struct Count {
    /// All.
    pub(crate) matched: usize,
    /// Those that wait.
    pub(crate) waiting: usize,
    /// Those that run.
    pub(crate) running: usize,
    /// Those that have ended.
    pub(crate) finished: usize,
    /// Asked for by id and not there.
    pub(crate) missing: usize,
    /// There may be more.
    pub(crate) capped: bool,
    /// Some of those that have not ended.
    pub(crate) samples: Vec<TaskId>,
}

impl Count {
    fn add(&mut self, batch: &Batch) {
        self.matched += batch.tasks.len() + batch.missing.len();
        self.missing += batch.missing.len();
        for (task, state) in &batch.tasks {
            if state.is_terminal() {
                self.finished += 1;
                continue;
            }
            if *state == TaskState::Running {
                self.running += 1;
            } else {
                self.waiting += 1;
            }
            if self.samples.len() < SAMPLES {
                self.samples.push(*task);
            }
        }
    }
}

/// The batch of a selector after `position`; trees have batches of their own. `now` is what times in a filter count from.
pub(crate) async fn batch(
    store: &Store,
    selector: &Selector,
    now: Timestamp,
    position: Option<TaskId>,
) -> Result<Batch, StoreError> {
    match selector {
        Selector::Tasks(ids) => listed(store, ids, position).await,
        Selector::Tag(tag) => {
            let store_filter = TaskFilter { tag: Some(tag.clone()), ..TaskFilter::default() };
            found(store, &TaskQuery { store: store_filter, ..TaskQuery::default() }, position).await
        }
        Selector::Filter(filter) => {
            let query = TaskQuery::parse(filter, now).map_err(|error| StoreError::Corrupt(format!("a stored filter: {error}")))?;
            found(store, &query, position).await
        }
        Selector::Tree(root) => listed(store, &[*root], position).await,
    }
}

/// Of listed ids; they are sorted.
async fn listed(store: &Store, ids: &[TaskId], position: Option<TaskId>) -> Result<Batch, StoreError> {
    let begin = position.map_or(0, |position| ids.partition_point(|id| *id <= position));
    let rest = ids.get(begin..).unwrap_or_default();
    let now = rest.get(..BATCH).unwrap_or(rest);
    let mut batch = Batch { next: now.last().copied().filter(|_| now.len() < rest.len()), ..Batch::default() };
    for (id, record) in now.iter().zip(store.get(now, View::Basic).await?) {
        match record {
            Some(record) => batch.tasks.push((*id, record.state)),
            None => batch.missing.push(*id),
        }
    }
    Ok(batch)
}

/// Of a query, newest first.
async fn found(store: &Store, query: &TaskQuery, before: Option<TaskId>) -> Result<Batch, StoreError> {
    let picked = |record: TaskRecord| (record.spec.id, record.state);
    if let Some(id) = query.task {
        let found = store.get(&[id], View::Basic).await?.into_iter().flatten().filter(|record| query.matches(record));
        return Ok(Batch { tasks: found.map(picked).collect(), ..Batch::default() });
    }
    let page = store.list(&query.store, before, BATCH).await?;
    let tasks = page.tasks.into_iter().filter(|record| query.has_more_tags(record)).map(picked).collect();
    Ok(Batch { tasks, missing: Vec::new(), next: page.next_before })
}

/// Counts what a selector picks, up to a limit.
pub(crate) async fn count(store: &Store, selector: &Selector, now: Timestamp) -> Result<Count, StoreError> {
    if let Selector::Tree(root) = selector {
        return count_tree(store, *root).await;
    }
    let mut count = Count::default();
    let mut position = None;
    for _ in 0..COUNT_PAGES {
        let batch = batch(store, selector, now, position).await?;
        count.add(&batch);
        position = batch.next;
        if position.is_none() {
            return Ok(count);
        }
        if count.matched >= COUNT_LIMIT {
            break;
        }
    }
    count.capped = true;
    Ok(count)
}

async fn count_tree(store: &Store, root: TaskId) -> Result<Count, StoreError> {
    let mut count = Count::default();
    let mut known = HashSet::from([root]);
    let mut level = vec![root];
    while !level.is_empty() {
        let mut children = Vec::new();
        for ids in level.chunks(BATCH) {
            count.add(&listed(store, ids, None).await?);
            let left = COUNT_LIMIT.saturating_sub(known.len());
            let found = store.children(ids, left + 1).await?;
            if found.len() > left {
                count.capped = true;
                return Ok(count);
            }
            children.extend(found.into_iter().filter(|child| known.insert(*child)));
        }
        children.sort_unstable();
        level = children;
    }
    Ok(count)
}
