//! The entries of one partition and the indexes that order them.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use oxcart_types::{LeaseToken, Run, TaskId};

use super::{fairness::Fairness, journal::Journal};
use crate::engine::{EntryKey, Settings};

/// Where an entry is, with what only an entry there has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// Ready, at this pass of its band.
    Ready { pass: u64 },
    /// Waits for its time.
    Delayed { due_ms: u64 },
    /// Given out.
    Leased { until_ms: u64, token: LeaseToken },
    /// Set aside.
    Quarantined,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: EntryKey,
    pub(super) run: Run,
    pub(super) deliveries: u8,
    pub(super) spot: Spot,
}

/// Position among the ready entries: band, pass, task.
pub(super) type Rank = (u8, u64, TaskId);

/// One partition. An entry is in `entries` and in exactly one of the indexes that its [`Spot`] names; only
/// [`State::put`] and [`State::take`] change either, so that they cannot part.
#[cfg_attr(feature = "simulation", derive(Clone))]
pub(super) struct State {
    pub(super) incarnation: u64,
    /// Calls that changed something.
    pub(super) seq: u64,
    /// Lease calls that gave something out.
    pub(super) turns: u64,
    pub(super) settings: Settings,
    pub(super) fairness: Fairness,
    pub(super) journal: Journal,
    entries: HashMap<TaskId, Entry>,
    ready: BTreeSet<Rank>,
    delayed: BTreeSet<(u64, TaskId)>,
    leases: BTreeSet<(u64, TaskId)>,
    quarantined: usize,
}

impl State {
    pub(super) fn new(incarnation: u64, journal_calls: usize) -> Self {
        Self {
            incarnation,
            seq: 0,
            turns: 0,
            settings: Settings::default(),
            fairness: Fairness::default(),
            journal: Journal::new(journal_calls),
            entries: HashMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            leases: BTreeSet::new(),
            quarantined: 0,
        }
    }

    pub(super) fn get(&self, task: TaskId) -> Option<&Entry> {
        self.entries.get(&task)
    }

    /// Puts an entry in, in place of one with its id.
    pub(super) fn put(&mut self, entry: Entry) {
        let task = entry.key.task;
        if let Some(old) = self.entries.insert(task, entry) {
            self.unindex(&old);
        }
        match entry.spot {
            Spot::Ready { pass } => {
                self.ready.insert((entry.key.band, pass, task));
            }
            Spot::Delayed { due_ms } => {
                self.delayed.insert((due_ms, task));
            }
            Spot::Leased { until_ms, .. } => {
                self.leases.insert((until_ms, task));
            }
            Spot::Quarantined => self.quarantined += 1,
        }
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, task: TaskId) -> Option<Entry> {
        let entry = self.entries.remove(&task)?;
        self.unindex(&entry);
        Some(entry)
    }

    fn unindex(&mut self, entry: &Entry) {
        let task = entry.key.task;
        match entry.spot {
            Spot::Ready { pass } => {
                self.ready.remove(&(entry.key.band, pass, task));
            }
            Spot::Delayed { due_ms } => {
                self.delayed.remove(&(due_ms, task));
            }
            Spot::Leased { until_ms, .. } => {
                self.leases.remove(&(until_ms, task));
            }
            Spot::Quarantined => self.quarantined -= 1,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn ready_count(&self) -> u64 {
        self.ready.len() as u64
    }

    pub(super) fn delayed_count(&self) -> u64 {
        self.delayed.len() as u64
    }

    pub(super) fn leased_count(&self) -> u64 {
        self.leases.len() as u64
    }

    pub(super) const fn quarantined_count(&self) -> u64 {
        self.quarantined as u64
    }

    /// The ready entry that goes next, of bands from `band` on.
    pub(super) fn next_ready(&self, band: u8) -> Option<TaskId> {
        self.ready.range((band, 0, TaskId::from_bytes([0; 16]))..).next().map(|(.., task)| *task)
    }

    /// The band served last that has a ready entry.
    pub(super) fn lowest_band(&self) -> Option<u8> {
        self.ready.last().map(|(band, ..)| *band)
    }

    /// The delayed entry due next.
    pub(super) fn next_due(&self) -> Option<(u64, TaskId)> {
        self.delayed.first().copied()
    }

    /// The lease that ends next.
    pub(super) fn next_expiry(&self) -> Option<(u64, TaskId)> {
        self.leases.first().copied()
    }

    /// Ready entries after a position, in their order.
    pub(super) fn ready_after(&self, after: Option<Rank>) -> impl Iterator<Item = (Rank, &Entry)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.ready.range((after, Bound::Unbounded)).filter_map(|rank| Some((*rank, self.entries.get(&rank.2)?)))
    }

    /// Delayed entries after a position, by the time at which they are due.
    pub(super) fn delayed_after(&self, after: Option<(u64, TaskId)>) -> impl Iterator<Item = (u64, &Entry)> {
        self.timed_after(&self.delayed, after)
    }

    /// Leased entries after a position, by the ends of their leases.
    pub(super) fn leased_after(&self, after: Option<(u64, TaskId)>) -> impl Iterator<Item = (u64, &Entry)> {
        self.timed_after(&self.leases, after)
    }

    fn timed_after<'a>(
        &'a self,
        index: &'a BTreeSet<(u64, TaskId)>,
        after: Option<(u64, TaskId)>,
    ) -> impl Iterator<Item = (u64, &'a Entry)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        index.range((after, Bound::Unbounded)).filter_map(|(ms, task)| Some((*ms, self.entries.get(task)?)))
    }

    /// Entries in quarantine after a task, by their tasks; walks all entries.
    pub(super) fn quarantined_after(&self, after: Option<TaskId>) -> Vec<&Entry> {
        if self.quarantined == 0 {
            return Vec::new();
        }
        let here = |entry: &&Entry| entry.spot == Spot::Quarantined && after.is_none_or(|after| entry.key.task > after);
        let mut found: Vec<_> = self.entries.values().filter(here).collect();
        found.sort_unstable_by_key(|entry| entry.key.task);
        found
    }

    /// For each of the tasks that are ready, the number of entries that go before it; one walk for all.
    pub(super) fn ahead(&self, tasks: impl Iterator<Item = TaskId>) -> HashMap<TaskId, u64> {
        let mut wanted: Vec<Rank> = tasks
            .filter_map(|task| match self.entries.get(&task)? {
                Entry { key, spot: Spot::Ready { pass }, .. } => Some((key.band, *pass, task)),
                Entry { .. } => None,
            })
            .collect();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut found = HashMap::new();
        for (ahead, rank) in (0_u64..).zip(&self.ready) {
            match wanted.peek() {
                None => break,
                Some(next) if next == rank => {
                    found.insert(rank.2, ahead);
                    wanted.next();
                }
                Some(_) => {}
            }
        }
        found
    }
}
