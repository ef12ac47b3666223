//! Facts on their way into SQL.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::fact::Fact;

/// Facts kept at most; those beyond are left to the audit.
const CAPACITY: usize = 10_000;
/// Facts of one step.
const BATCH: usize = 500;

/// Facts that are new, and facts that are to be looked at again. Bounded, and each fact by its tries.
pub(super) struct Pending {
    new: VecDeque<Fact>,
    /// In the order of their times, since each is put in with the same wait.
    later: VecDeque<(Instant, Fact, u32)>,
    retry_after: Duration,
    max_tries: u32,
}

impl Pending {
    pub(super) fn new(retry_after: Duration, max_tries: u32) -> Self {
        Self { new: VecDeque::new(), later: VecDeque::new(), retry_after, max_tries }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.later.is_empty()
    }

    /// Facts that wait.
    pub(super) fn len(&self) -> usize {
        self.new.len() + self.later.len()
    }

    /// A fact is waiting for its first try.
    pub(super) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }

    /// Puts in a fact; false when there is no room.
    pub(super) fn push(&mut self, fact: Fact) -> bool {
        let room = self.len() < CAPACITY;
        if room {
            self.new.push_back(fact);
        }
        room
    }

    /// Puts a fact in again after `tries` tries; false when it had its last.
    pub(super) fn push_again(&mut self, fact: Fact, tries: u32, now: Instant) -> bool {
        let again = tries < self.max_tries && self.len() < CAPACITY;
        if again {
            self.later.push_back((now + self.retry_after, fact, tries));
        }
        again
    }

    /// Takes what may be tried now, with the number of this try.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Fact, u32)> {
        let mut due = Vec::new();
        while due.len() < BATCH
            && let Some(fact) = self.new.pop_front()
        {
            due.push((fact, 1));
        }
        while due.len() < BATCH
            && let Some((_, fact, tries)) = self.later.pop_front_if(|(at, _, _)| *at <= now)
        {
            due.push((fact, tries + 1));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::{LeaseToken, Run, TaskId};

    use super::{super::fact::FactKind, *};

    fn fact(n: u8) -> Fact {
        Fact { kind: FactKind::Reaped, task: TaskId::from_bytes([n; 16]), run: Run::FIRST, by: LeaseToken::from_bytes([n; 16]) }
    }

    #[test]
    fn a_fact_is_tried_a_bounded_number_of_times_with_a_wait_between() {
        let (now, wait) = (Instant::now(), Duration::from_secs(5));
        let mut pending = Pending::new(wait, 2);
        assert!(pending.push(fact(1)));
        assert_eq!(pending.take_due(now), [(fact(1), 1)]);
        assert!(pending.push_again(fact(1), 1, now));
        assert!(pending.take_due(now).is_empty() && !pending.is_empty());
        assert_eq!(pending.take_due(now + wait), [(fact(1), 2)]);
        assert!(!pending.push_again(fact(1), 2, now), "the second try was the last");
        assert!(pending.is_empty());
    }

    #[test]
    fn there_is_a_limit() {
        let now = Instant::now();
        let mut pending = Pending::new(Duration::ZERO, 9);
        assert!((0..CAPACITY).all(|_| pending.push(fact(1))));
        assert!(!pending.push(fact(2)));
        assert_eq!(pending.take_due(now).len(), BATCH);
    }
}
