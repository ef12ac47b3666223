//! The retry budget of a queue: how many of its grants may be retries. When everything that a queue does fails, the retries of all
//! of it would crowd out what might succeed, and whatever it calls would be hit hardest when it comes back; so backoffs are
//! stretched, and no retry becomes a failure.
//!
//! Each replica keeps the budgets of what it grants and decides itself, in memory: a restart forgives.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use oxcart_types::QueueName;
use tokio::time::Instant;

/// Grants are averaged over about this long.
const AVERAGED_OVER: Duration = Duration::from_secs(10);
/// Turns that were not taken are kept for this long.
const KEPT: Duration = Duration::from_secs(1);
/// The least time that grants are averaged over.
const YOUNGEST: Duration = Duration::from_millis(100);
/// Turns per second at least, where a configuration allows none.
const SLOWEST: f64 = 0.01;

/// What a queue may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowance {
    /// Share of the grants that may be retries; 0 for no budget.
    pub(crate) share: f64,
    /// Retries per second that are always allowed.
    pub(crate) floor: f64,
    /// Longest time that is added to a backoff.
    pub(crate) max_stretch: Duration,
}

/// The budgets of all queues.
#[derive(Debug)]
pub(crate) struct RetryBudgets {
    allowance: Allowance,
    max_queues: usize,
    queues: Mutex<HashMap<QueueName, Budget>>,
}

impl RetryBudgets {
    /// Budgets of at most `max_queues` queues; those beyond have none.
    pub(crate) fn new(allowance: Allowance, max_queues: usize) -> Self {
        Self { allowance, max_queues, queues: Mutex::default() }
    }

    /// So many entries of a queue were granted.
    pub(crate) fn granted(&self, queue: &QueueName, count: usize, now: Instant) {
        self.with(queue, now, |budget| budget.granted(count));
    }

    /// Takes a retry out of the budget of its queue: how much later than its backoff it is to be.
    pub(crate) fn stretch(&self, queue: &QueueName, now: Instant) -> Duration {
        self.with(queue, now, |budget| budget.take(&self.allowance)).unwrap_or_default()
    }

    fn with<T>(&self, queue: &QueueName, now: Instant, act: impl FnOnce(&mut Budget) -> T) -> Option<T> {
        if self.allowance.share <= 0.0 {
            return None;
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains_key(queue) && queues.len() >= self.max_queues {
            queues.retain(|_, budget| {
                budget.settle(now);
                !budget.is_idle()
            });
            if queues.len() >= self.max_queues {
                return None;
            }
        }
        let budget = queues.entry(queue.clone()).or_insert_with(|| Budget::new(now));
        budget.settle(now);
        Some(act(budget))
    }
}

/// The budget of one queue. Retries are given turns, as many per second as are allowed; a turn that nobody takes is lost.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// Grants per second, as an average that forgets.
    average: f64,
    began_at: Instant,
    settled_at: Instant,
    /// The next turn.
    next_turn: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { average: 0.0, began_at: now, settled_at: now, next_turn: now.checked_sub(KEPT).unwrap_or(now) }
    }

    /// Brings the average up to `now`.
    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.settled_at).as_secs_f64();
        self.settled_at = now;
        self.average *= (-passed / AVERAGED_OVER.as_secs_f64()).exp();
    }

    fn granted(&mut self, count: usize) {
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.average += count / AVERAGED_OVER.as_secs_f64();
    }

    /// Retries per second that are allowed now.
    fn allowed(&self, allowance: &Allowance) -> f64 {
        // An average that is young stands for the time that there was, and not for all that it averages over.
        let age = self.settled_at.saturating_duration_since(self.began_at).max(YOUNGEST).as_secs_f64();
        let rate = self.average / (1.0 - (-age / AVERAGED_OVER.as_secs_f64()).exp());
        (rate * allowance.share).max(allowance.floor).max(SLOWEST)
    }

    /// Takes a turn: how far ahead it lies. What lies too far ahead is not waited for, so that a storm that is over is over after
    /// the longest stretch.
    fn take(&mut self, allowance: &Allowance) -> Duration {
        let now = self.settled_at;
        let step = Duration::from_secs_f64(self.allowed(allowance).recip());
        let earliest = now.checked_sub(KEPT).unwrap_or(now);
        self.next_turn = (self.next_turn.max(earliest) + step).min(now + allowance.max_stretch);
        self.next_turn.saturating_duration_since(now)
    }

    /// Nothing was granted for long, and nothing is ahead.
    fn is_idle(&self) -> bool {
        self.average < 0.01 && self.next_turn <= self.settled_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { share: 0.2, floor: 10.0, max_stretch: Duration::from_secs(600) };

    fn budgets(allowance: Allowance) -> (RetryBudgets, QueueName, Instant) {
        (RetryBudgets::new(allowance, 10), QueueName::default_queue(), Instant::now())
    }

    /// Retries that come due per second when each of `per_second` grants fails for `seconds`; retries are granted, too.
    fn storm(allowance: Allowance, per_second: usize, seconds: usize) -> Vec<usize> {
        const STEPS: usize = 20;
        let (budgets, queue, begun) = budgets(allowance);
        let mut due = vec![0; seconds * STEPS];
        for step in 0..seconds * STEPS {
            let now = begun + Duration::from_millis((step * 1000 / STEPS) as u64);
            budgets.granted(&queue, per_second / STEPS, now);
            for _ in 0..per_second / STEPS {
                let backoff = Duration::from_secs(1) + budgets.stretch(&queue, now);
                let at = step + (backoff.as_secs_f64() * STEPS as f64) as usize;
                if let Some(slot) = due.get_mut(at) {
                    *slot += 1;
                }
            }
        }
        due.chunks(STEPS).map(|second| second.iter().sum()).collect()
    }

    #[test]
    fn in_a_storm_a_fifth_of_the_grants_are_retries() {
        let due = storm(ALLOWANCE, 1000, 60);
        // A fifth of a thousand, and in the beginning what a second's worth of turns that nobody took adds.
        for (second, retries) in due.iter().enumerate() {
            assert!(*retries <= if second < 3 { 420 } else { 220 }, "{retries} retries in second {second}: {due:?}");
        }
        assert!(due[50] > 150, "what is allowed is used: {due:?}");
    }

    #[test]
    fn a_trickle_is_not_stretched() {
        let (budgets, queue, begun) = budgets(ALLOWANCE);
        for n in 0..100 {
            let now = begun + Duration::from_millis(100 * n);
            budgets.granted(&queue, 1, now);
            assert!(budgets.stretch(&queue, now) <= Duration::from_millis(100), "ten a second are always allowed");
        }
    }

    #[test]
    fn a_stretch_is_bounded_and_forgiven() {
        let allowance = Allowance { max_stretch: Duration::from_secs(30), ..ALLOWANCE };
        let (budgets, queue, now) = budgets(allowance);
        let longest = (0..10_000).map(|_| budgets.stretch(&queue, now)).max();
        assert_eq!(longest, Some(Duration::from_secs(30)));
        assert_eq!(budgets.stretch(&queue, now + Duration::from_secs(40)), Duration::ZERO);
        let none = RetryBudgets::new(Allowance { share: 0.0, ..ALLOWANCE }, 10);
        assert!((0..10_000).all(|_| none.stretch(&queue, now) == Duration::ZERO));
    }

    #[test]
    fn queues_are_bounded_and_apart() {
        let (_, queue, now) = budgets(ALLOWANCE);
        let budgets = RetryBudgets::new(ALLOWANCE, 2);
        let name = |name: &str| name.parse::<QueueName>().expect("a name");
        let taken = |queue: &QueueName, now| (0..100).map(|_| budgets.stretch(queue, now)).max();
        assert!(taken(&queue, now) > Some(Duration::from_secs(8)));
        assert_eq!(budgets.stretch(&name("other"), now), Duration::ZERO, "another queue has turns of its own");
        assert!(taken(&name("other"), now) > Some(Duration::ZERO));
        assert_eq!(taken(&name("third"), now), Some(Duration::ZERO), "there is no room for its budget");
        assert!(taken(&name("third"), now + Duration::from_secs(1000)) > Some(Duration::ZERO), "idle budgets make room");
    }
}
