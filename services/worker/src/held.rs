//! The leases that this worker holds: from the grant until the settle is on its way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oxcart_types::{LeaseToken, Run, TaskId};
use tokio::sync::Notify;

use crate::{attempt::Attempt, grant::Grant, moment::Moment};

/// The leases held. The number of slots bounds it.
#[derive(Debug)]
pub(crate) struct Held {
    slots: usize,
    leases: Mutex<HashMap<LeaseToken, Lease>>,
    changed: Notify,
}

/// One lease.
#[derive(Debug)]
struct Lease {
    task: TaskId,
    /// `None` until SQL took the start.
    attempt: Option<Arc<Attempt>>,
    /// The dispatcher knows that it started.
    confirmed: bool,
    received: Moment,
    /// The lease holds at least until then; `None` before the first answer.
    good_until: Option<Moment>,
}

/// The newest run of each task, in their order: a message about leases names a task once, and an older run that is still at work
/// has lost its lease to the newer one.
pub(crate) fn newest_runs<T>(items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> (TaskId, Run)) -> Vec<T> {
    let mut newest: Vec<T> = Vec::new();
    let mut places: HashMap<TaskId, usize> = HashMap::new();
    for item in items {
        let (task, run) = key(&item);
        match places.get(&task) {
            Some(&place) if key(&newest[place]).1 < run => newest[place] = item,
            Some(_) => {}
            None => {
                places.insert(task, newest.len());
                newest.push(item);
            }
        }
    }
    newest
}

/// What became of a grant on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has a slot.
    Admitted,
    /// The same grant is here already.
    Duplicate,
    /// There is no slot for it.
    Full,
}

impl Held {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, leases: Mutex::default(), changed: Notify::new() }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<LeaseToken, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a grant.
    pub(crate) fn admit(&self, grant: &Grant) -> Admission {
        let mut leases = self.leases();
        if leases.contains_key(&grant.token) {
            return Admission::Duplicate;
        }
        if leases.len() >= self.slots {
            return Admission::Full;
        }
        let lease = Lease { task: grant.task, attempt: None, confirmed: false, received: Moment::now(), good_until: None };
        leases.insert(grant.token, lease);
        Admission::Admitted
    }

    /// SQL took the start.
    pub(crate) fn begin(&self, attempt: &Arc<Attempt>) {
        if let Some(lease) = self.leases().get_mut(&attempt.key.token) {
            lease.attempt = Some(Arc::clone(attempt));
        }
    }

    /// The lease is settled, or on its way to be.
    pub(crate) fn remove(&self, tokens: impl IntoIterator<Item = LeaseToken>) {
        let mut leases = self.leases();
        for token in tokens {
            leases.remove(&token);
        }
        drop(leases);
        self.changed.notify_waiters();
    }

    /// Leases in all.
    pub(crate) fn len(&self) -> usize {
        self.leases().len()
    }

    /// Waits until no lease is held.
    pub(crate) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.len() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The runs at work.
    pub(crate) fn attempts(&self) -> Vec<Arc<Attempt>> {
        self.leases().values().filter_map(|lease| lease.attempt.clone()).collect()
    }

    /// The run at work on a task.
    pub(crate) fn attempt_of(&self, task: TaskId) -> Option<Arc<Attempt>> {
        self.leases().values().find(|lease| lease.task == task && lease.attempt.is_some()).and_then(|lease| lease.attempt.clone())
    }

    /// Runs whose start the dispatcher does not know of and that were granted longer ago than `age`.
    pub(crate) fn unconfirmed(&self, age: Duration) -> Vec<Arc<Attempt>> {
        let is_old = |lease: &&Lease| !lease.confirmed && lease.received.elapsed() >= age;
        self.leases().values().filter(is_old).filter_map(|lease| lease.attempt.clone()).collect()
    }

    /// Runs whose start the dispatcher knows of.
    pub(crate) fn confirmed(&self) -> Vec<Arc<Attempt>> {
        self.leases().values().filter(|lease| lease.confirmed).filter_map(|lease| lease.attempt.clone()).collect()
    }

    /// The dispatcher extended these leases.
    pub(crate) fn extended(&self, tokens: &[LeaseToken], good_until: Moment) {
        let mut leases = self.leases();
        for token in tokens {
            if let Some(lease) = leases.get_mut(token) {
                lease.confirmed = true;
                lease.good_until = Some(good_until);
            }
        }
    }

    /// Runs of which nobody can say whether their leases hold: no good answer until `margin` before their end.
    pub(crate) fn uncertain(&self, margin: Duration, first_answer_within: Duration) -> Vec<Arc<Attempt>> {
        let is_uncertain = |lease: &&Lease| match lease.good_until {
            Some(until) => until.remaining() < margin,
            None => lease.received.elapsed() > first_answer_within,
        };
        self.leases().values().filter(is_uncertain).filter_map(|lease| lease.attempt.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::{IdSource as _, SystemIds};

    use super::*;

    #[test]
    fn of_a_task_that_runs_twice_here_only_the_newest_run_is_reported() {
        let (a, b) = (SystemIds.task_id(), SystemIds.task_id());
        let run = |number| Run::new(number).expect("a run");
        let held = [(a, run(2)), (b, run(1)), (a, run(3)), (a, run(1))];
        assert_eq!(newest_runs(held, |key| *key), [(a, run(3)), (b, run(1))]);
    }
}
