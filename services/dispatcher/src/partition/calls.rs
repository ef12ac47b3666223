//! Engine calls of one kind on one partition: what waits while one is in flight becomes the next one.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Weak},
};

use oxcart_queue::{MAX_ITEMS, Partition, QueueError};
use oxcart_service::coalesce::{Batcher, BatcherOptions};
use oxcart_types::TaskId;
use tokio::time::Instant;

use crate::core::Core;

/// Callers whose items may become one batch.
const MAX_CALLERS: usize = 256;

type Reply<O> = Pin<Box<dyn Future<Output = Result<Vec<O>, QueueError>> + Send>>;

/// Engine calls of one kind on one partition.
pub(crate) struct Calls<I, O>(Batcher<Vec<I>, Option<Vec<O>>>);

impl<I: Send + 'static, O: Send + 'static> Calls<I, O> {
    /// Makes a call with at most [`MAX_ITEMS`] items, each task once. `None` when it failed or could not be taken: the outcome is
    /// unknown, and repeating it is safe.
    pub(crate) async fn call(&self, items: Vec<I>) -> Option<Vec<O>> {
        if items.is_empty() {
            return Some(Vec::new());
        }
        self.0.submit(items).await.ok().flatten()
    }
}

/// Starts the batcher of one kind of calls.
pub(crate) fn calls<I, O>(
    core: &Arc<Core>,
    partition: &Partition,
    name: &'static str,
    task: fn(&I) -> TaskId,
    make: impl Fn(Arc<Core>, Partition, Vec<I>) -> Reply<O> + Send + Sync + 'static,
) -> Calls<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    let options = BatcherOptions { max_batch: MAX_CALLERS, max_waiting: core.config.max_waiting_calls, lanes: 1 };
    // Weak, since the core owns the lanes, which own the batchers.
    let core = Arc::downgrade(core);
    let partition = partition.clone();
    let make = Arc::new(make);
    Calls(Batcher::spawn(options, move |groups: Vec<Vec<I>>| {
        let (core, partition, make) = (Weak::clone(&core), partition.clone(), Arc::clone(&make));
        async move {
            let Some(core) = core.upgrade() else { return groups.into_iter().map(|_| None).collect() };
            let mut answers = Vec::with_capacity(groups.len());
            for (sizes, items) in pack(groups, task) {
                let (began, count) = (Instant::now(), items.len());
                let result = make(Arc::clone(&core), partition.clone(), items).await;
                core.observe(name, count, began, &result);
                match result {
                    Ok(replies) => {
                        let mut replies = replies.into_iter();
                        answers.extend(sizes.into_iter().map(|size| Some(replies.by_ref().take(size).collect())));
                    }
                    Err(_) => answers.extend(sizes.into_iter().map(|_| None)),
                }
            }
            answers
        }
    }))
}

/// Packs the items of several callers, in order, into calls that the engine takes: not too many items, each task once.
fn pack<I>(groups: Vec<Vec<I>>, task: fn(&I) -> TaskId) -> Vec<(Vec<usize>, Vec<I>)> {
    let mut packed: Vec<(Vec<usize>, Vec<I>)> = Vec::new();
    let alone = groups.len() == 1;
    let mut tasks = HashSet::new();
    for group in groups {
        let fits = packed.last().is_some_and(|(_, items)| items.len() + group.len() <= MAX_ITEMS)
            && !group.iter().any(|item| tasks.contains(&task(item)));
        if !alone {
            if !fits {
                tasks.clear();
            }
            tasks.extend(group.iter().map(task));
        }
        match packed.last_mut() {
            Some((sizes, items)) if fits => {
                sizes.push(group.len());
                items.extend(group);
            }
            _ => packed.push((vec![group.len()], group)),
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u8]) -> Vec<TaskId> {
        numbers.iter().map(|&n| TaskId::from_bytes([n; 16])).collect()
    }

    #[test]
    fn a_task_is_in_a_call_once_and_order_stays() {
        let packed = pack(vec![ids(&[1, 2]), ids(&[3]), ids(&[2]), ids(&[1])], |id| *id);
        assert_eq!(packed, [(vec![2, 1], ids(&[1, 2, 3])), (vec![1, 1], ids(&[2, 1]))]);
    }

    #[test]
    fn a_call_never_has_too_many_items() {
        let group = |from: u16| {
            (from..from + 600).map(|n| TaskId::from_bytes([n.to_be_bytes(); 8].concat().try_into().expect("16"))).collect()
        };
        let packed = pack(vec![group(0), group(1000), group(2000)], |id: &TaskId| *id);
        assert_eq!(packed.iter().map(|(_, items)| items.len()).collect::<Vec<_>>(), [600, 600, 600]);
    }
}
