//! How much of each queue waits, and what is refused because of it.
//!
//! The dispatcher knows what its window holds, the agenda what waits outside of it. Both are counted now and then; what this
//! replica submitted since is added. So the bound is one of order, not of single tasks, and costs no query on the way of a submit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oxcart_service::reconcile::Progress;
use oxcart_store::SubmitUnit;
use oxcart_types::QueueName;

use crate::{core::Core, error::Error, sweep::SweepError};

/// Tasks of one queue that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    /// As last counted.
    counted: u64,
    /// Submitted since the count before the last began.
    before: u64,
    /// Submitted since the last count began.
    since: u64,
}

impl Waiting {
    const fn total(self) -> u64 {
        self.counted.saturating_add(self.before).saturating_add(self.since)
    }
}

/// The queues' backlogs.
#[derive(Debug)]
pub(crate) struct Backlogs {
    limit: u64,
    queues: Mutex<HashMap<QueueName, Waiting>>,
}

impl Backlogs {
    /// At most about `limit` tasks a queue.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, queues: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, Waiting>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a unit that would fill a queue beyond its limit.
    pub(crate) fn check(&self, unit: &SubmitUnit) -> Result<(), Error> {
        let queues = self.lock();
        for (queue, tasks) in by_queue(unit) {
            let waiting = queues.get(queue).copied().unwrap_or_default().total();
            if waiting.saturating_add(tasks) > self.limit {
                return Err(Error::Backlog { queue: queue.clone(), waiting, limit: self.limit });
            }
        }
        Ok(())
    }

    /// A unit was committed.
    pub(crate) fn add(&self, queues: impl IntoIterator<Item = (QueueName, u64)>) {
        let mut known = self.lock();
        for (queue, tasks) in queues {
            known.entry(queue).or_default().since += tasks;
        }
    }

    /// A count begins: what is submitted from now on may be in it or not, and is added to it.
    fn begin_count(&self) {
        for waiting in self.lock().values_mut() {
            waiting.before = waiting.before.saturating_add(std::mem::take(&mut waiting.since));
        }
    }

    /// A count ends. Queues in which nothing waits are forgotten.
    fn end_count(&self, counted: &HashMap<QueueName, u64>) {
        let mut queues = self.lock();
        for queue in counted.keys() {
            queues.entry(queue.clone()).or_default();
        }
        queues.retain(|queue, waiting| {
            waiting.counted = counted.get(queue).copied().unwrap_or(0);
            waiting.before = 0;
            waiting.total() > 0
        });
    }
}

/// Tasks of a unit by queue.
pub(crate) fn by_queue(unit: &SubmitUnit) -> HashMap<&QueueName, u64> {
    let mut queues = HashMap::new();
    for task in &unit.tasks {
        *queues.entry(&task.spec.queue).or_default() += 1;
    }
    queues
}

/// Counts what waits.
pub(crate) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    core.backlogs.begin_count();
    let mut counted: HashMap<QueueName, u64> = HashMap::new();
    for partition in core.dispatcher.partitions(&[]).await? {
        if let Ok(queue) = partition.queue.parse() {
            let waiting = partition.ready_count.saturating_add(partition.delayed_count);
            *counted.entry(queue).or_default() += u64::try_from(waiting).unwrap_or(0);
        }
    }
    for agenda in core.store.count_agenda(core.config.queue_backlog).await? {
        *counted.entry(agenda.queue).or_default() += agenda.count;
    }
    core.backlogs.end_count(&counted);
    Ok(Progress::Idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().expect("a name")
    }

    fn total(backlogs: &Backlogs, name: &str) -> Option<u64> {
        backlogs.lock().get(&queue(name)).map(|waiting| waiting.total())
    }

    #[test]
    fn what_is_submitted_during_a_count_is_not_forgotten() {
        let backlogs = Backlogs::new(10);
        backlogs.add([(queue("a"), 3), (queue("b"), 1)]);
        backlogs.begin_count();
        backlogs.add([(queue("a"), 2)]);
        assert_eq!(total(&backlogs, "a"), Some(5));
        backlogs.end_count(&HashMap::from([(queue("a"), 3), (queue("c"), 7)]));
        assert_eq!((total(&backlogs, "a"), total(&backlogs, "b"), total(&backlogs, "c")), (Some(5), None, Some(7)));
    }

    #[test]
    fn a_count_that_fails_loses_nothing() {
        let backlogs = Backlogs::new(10);
        backlogs.add([(queue("a"), 3)]);
        backlogs.begin_count();
        backlogs.begin_count();
        assert_eq!(total(&backlogs, "a"), Some(3));
    }
}
