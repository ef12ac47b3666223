//! What a worker may be granted: a pure state machine.
//!
//! ```text
//!            window, grants, settles
//!               ┌───┐
//! open ──▶ Active ──┘── goodbye, drain ──▶ Leaving ──┐
//!            └──────── supersede, close ──────────────┴──▶ Closed
//! ```
//!
//! A session in `Leaving` is granted nothing more; its reports are still taken. The window counts every lease that was granted
//! or named as held and has not been seen settled, grants in flight included. A lease that the engine must have taken back by
//! now stops counting, so that a lost grant cannot eat a slot for ever.

use std::{collections::HashMap, time::Duration};

use oxcart_queue::EntryKey;
use oxcart_types::{LeaseToken, QueueName, Run};
use tokio::time::Instant;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Grants flow.
    Active,
    /// No more grants; reports are taken.
    Leaving,
    /// Over.
    Closed,
}

/// What moves a session from one phase to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhaseEvent {
    /// The worker said goodbye, or this replica drains.
    Leave,
    /// The stream is over or a newer session took its place.
    Close,
}

/// The next phase.
pub(crate) const fn next_phase(phase: Phase, event: PhaseEvent) -> Phase {
    match (phase, event) {
        (Phase::Active | Phase::Leaving, PhaseEvent::Leave) => Phase::Leaving,
        (Phase::Closed, PhaseEvent::Leave) | (Phase::Active | Phase::Leaving | Phase::Closed, PhaseEvent::Close) => Phase::Closed,
    }
}

/// A queue that a session takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Queue.
    pub(crate) queue: QueueName,
    /// Share among the sessions of the queue, at least 1.
    pub(crate) weight: u32,
    /// Slots that the queue may use; `None` for no limit of its own.
    pub(crate) slots: Option<u32>,
}

/// The window as the worker sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Grows with every change.
    pub(crate) sequence: i64,
    /// Leases held at once.
    pub(crate) slots: u32,
    /// Queues.
    pub(crate) queues: Vec<Subscription>,
}

/// A lease that counts against the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Key of its entry.
    pub(crate) key: EntryKey,
    /// Run as granted or reported.
    pub(crate) run: Run,
    /// Queue.
    pub(crate) queue: QueueName,
    /// When the engine takes it back unless it is extended.
    pub(crate) until: Instant,
}

/// Slots taken for a lease call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Slots.
    pub(crate) slots: u32,
    /// Share of this session among those of the queue.
    pub(crate) weight: u32,
}

/// The state of one session.
#[derive(Debug)]
pub(crate) struct SessionState {
    phase: Phase,
    window: Window,
    counted: HashMap<LeaseToken, Counted>,
    reserved: HashMap<QueueName, u32>,
    /// Queues that found no free slot while another queue's lease call had them reserved.
    starved: Vec<QueueName>,
}

impl SessionState {
    /// Opens with a window and the leases that the worker still holds.
    pub(crate) fn open(window: Window, held: impl IntoIterator<Item = (LeaseToken, Counted)>) -> Self {
        let counted = held.into_iter().collect();
        Self { phase: Phase::Active, window, counted, reserved: HashMap::new(), starved: Vec::new() }
    }

    /// Moves on.
    pub(crate) fn advance(&mut self, event: PhaseEvent) {
        self.phase = next_phase(self.phase, event);
    }

    /// Sets the window; `false` when it is older than the one in force, which then stays.
    pub(crate) fn set_window(&mut self, window: Window) -> bool {
        let newer = window.sequence > self.window.sequence;
        if newer {
            self.window = window;
        }
        newer
    }

    /// Queues that it takes from.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &QueueName> {
        self.window.queues.iter().map(|subscription| &subscription.queue)
    }

    /// Leases that count.
    pub(crate) fn counted(&self) -> u32 {
        u32::try_from(self.counted.len()).unwrap_or(u32::MAX)
    }

    /// The lease under a token, when it counts here.
    pub(crate) fn lease(&self, token: &LeaseToken) -> Option<&Counted> {
        self.counted.get(token)
    }

    /// Free slots for a queue; 0 when it is not subscribed or nothing is granted any more.
    pub(crate) fn free(&self, queue: &QueueName) -> u32 {
        match (self.phase, self.subscription(queue)) {
            (Phase::Active, Some(subscription)) => self.room(subscription, self.reserved.values().sum()),
            (Phase::Active, None) | (Phase::Leaving | Phase::Closed, _) => 0,
        }
    }

    /// Takes at most `max` free slots for a lease call; ended by [`Self::settle_reservation`].
    pub(crate) fn reserve(&mut self, queue: &QueueName, max: u32) -> Option<Reserved> {
        let slots = self.free(queue).min(max);
        let weight = self.subscription(queue)?.weight;
        if slots > 0 {
            *self.reserved.entry(queue.clone()).or_default() += slots;
            return Some(Reserved { slots, weight });
        }
        let blocked = self.phase == Phase::Active && !self.reserved.is_empty();
        if blocked && !self.starved.contains(queue) {
            self.starved.push(queue.clone());
        }
        None
    }

    /// Ends a reservation: what was granted counts from now on, the rest is free again. Returns the queues to be woken.
    pub(crate) fn settle_reservation(
        &mut self,
        queue: &QueueName,
        reserved: u32,
        granted: impl IntoIterator<Item = (LeaseToken, Counted)>,
    ) -> Vec<QueueName> {
        if let Some(slots) = self.reserved.get_mut(queue) {
            *slots = slots.saturating_sub(reserved);
            if *slots == 0 {
                self.reserved.remove(queue);
            }
        }
        self.counted.extend(granted);
        std::mem::take(&mut self.starved)
    }

    /// Stops counting leases that ended.
    pub(crate) fn uncount<'a>(&mut self, tokens: impl IntoIterator<Item = &'a LeaseToken>) {
        for token in tokens {
            self.counted.remove(token);
        }
    }

    /// Counts a lease until a later time; one that was not counted is counted from now on.
    pub(crate) fn extend(&mut self, token: LeaseToken, lease: Counted) {
        self.counted.insert(token, lease);
    }

    /// Stops counting leases that the engine took back `grace` ago; says how many.
    pub(crate) fn prune(&mut self, now: Instant, grace: Duration) -> usize {
        let before = self.counted.len();
        self.counted.retain(|_, lease| lease.until + grace > now);
        before - self.counted.len()
    }

    fn subscription(&self, queue: &QueueName) -> Option<&Subscription> {
        self.window.queues.iter().find(|subscription| subscription.queue == *queue)
    }

    fn room(&self, subscription: &Subscription, reserved: u32) -> u32 {
        let all = self.window.slots.saturating_sub(self.counted().saturating_add(reserved));
        let Some(limit) = subscription.slots else { return all };
        let queue = &subscription.queue;
        let counted = self.counted.values().filter(|lease| lease.queue == *queue).count();
        let mine = self.reserved.get(queue).copied().unwrap_or(0);
        all.min(limit.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX)).saturating_sub(mine))
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::{Priority, TaskId};
    use proptest::prelude::*;

    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().expect("name")
    }

    fn window(sequence: i64, slots: u32) -> Window {
        let queues = ["a", "b"].map(|name| Subscription { queue: queue(name), weight: 1, slots: (name == "b").then_some(2) });
        Window { sequence, slots, queues: queues.to_vec() }
    }

    fn lease(n: u8, name: &str, until: Instant) -> (LeaseToken, Counted) {
        let key = EntryKey::new(TaskId::from_bytes([n; 16]), Priority::default(), None);
        let counted = Counted { key, run: Run::new(1).expect("run"), queue: queue(name), until };
        (LeaseToken::from_bytes([n; 16]), counted)
    }

    #[test]
    fn phases_only_move_forward() {
        use {Phase::*, PhaseEvent::*};
        let table = [(Active, Leave, Leaving), (Leaving, Leave, Leaving), (Closed, Leave, Closed)];
        for (from, event, to) in table.into_iter().chain([Active, Leaving, Closed].map(|phase| (phase, Close, Closed))) {
            assert_eq!(next_phase(from, event), to);
        }
    }

    #[test]
    fn an_older_window_is_dropped() {
        let mut state = SessionState::open(window(2, 4), []);
        assert!(!state.set_window(window(2, 9)) && !state.set_window(window(1, 9)));
        assert_eq!(state.free(&queue("a")), 4);
        assert!(state.set_window(window(3, 0)));
        assert_eq!(state.free(&queue("a")), 0);
    }

    #[test]
    fn held_leases_count_and_a_queue_keeps_to_its_own_limit() {
        let now = Instant::now();
        let state = SessionState::open(window(1, 4), [lease(1, "b", now)]);
        assert_eq!((state.free(&queue("a")), state.free(&queue("b")), state.free(&queue("c"))), (3, 1, 0));
    }

    #[test]
    fn a_queue_that_found_all_reserved_is_woken() {
        let mut state = SessionState::open(window(1, 2), []);
        assert_eq!(state.reserve(&queue("a"), 9), Some(Reserved { slots: 2, weight: 1 }));
        assert_eq!(state.reserve(&queue("b"), 9), None);
        assert_eq!(state.settle_reservation(&queue("a"), 2, []), [queue("b")]);
        assert_eq!(state.reserve(&queue("b"), 9), Some(Reserved { slots: 2, weight: 1 }));
    }

    #[test]
    fn who_leaves_is_granted_nothing_and_a_lost_grant_stops_counting() {
        let now = Instant::now();
        let mut state = SessionState::open(window(1, 2), [lease(1, "a", now)]);
        assert_eq!(state.prune(now, Duration::from_secs(1)), 0);
        assert_eq!(state.prune(now + Duration::from_secs(2), Duration::from_secs(1)), 1);
        state.advance(PhaseEvent::Leave);
        assert_eq!((state.free(&queue("a")), state.reserve(&queue("a"), 1)), (0, None));
    }

    proptest! {
        #[test]
        fn what_counts_never_exceeds_the_slots(steps in prop::collection::vec((0u8..3, 0u32..6, any::<bool>()), 1..200), slots in 0u32..8) {
            let now = Instant::now();
            let mut state = SessionState::open(window(1, slots), []);
            let (mut next, mut open) = (0u8, Vec::new());
            for (step, n, which) in steps {
                let name = if which { "a" } else { "b" };
                match step {
                    0 => if let Some(got) = state.reserve(&queue(name), n) { open.push((name, got.slots)) },
                    1 => if let Some((name, reserved)) = open.pop() {
                        let granted: Vec<_> = (0..n.min(reserved)).map(|_| { next = next.wrapping_add(1); lease(next, name, now) }).collect();
                        state.settle_reservation(&queue(name), reserved, granted);
                    },
                    _ => {
                        let token = state.counted.keys().next().copied();
                        state.uncount(token.as_ref());
                    }
                }
                prop_assert!(state.counted() + state.reserved.values().sum::<u32>() <= slots);
                let b = state.counted.values().filter(|lease| lease.queue == queue("b")).count();
                prop_assert!(b <= 2);
            }
        }
    }
}
