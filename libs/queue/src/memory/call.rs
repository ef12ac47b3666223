//! One call on one partition: what it moves, at one moment, with one journal record.

use oxcart_types::{LeaseToken, WorkerId};

use super::state::{Entry, Spot, State};
use crate::{
    engine::{EngineOptions, EntryKey, Settings, TickLimits, Transition},
    record::{Fact, RecordWriter},
    rules::{Reaped, reaped},
};

/// A call under way, holding the partition.
pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) options: &'a EngineOptions,
    pub(super) now_ms: u64,
    record: RecordWriter,
    changed: bool,
    was_idle: bool,
    readied: bool,
}

/// Counts of [`Call::reap`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReapCounts {
    pub(super) reaped: u64,
    pub(super) quarantined: u64,
}

/// What goes into the journal besides the entry itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told<'a> {
    pub(super) worker: Option<WorkerId>,
    pub(super) due_ms: Option<u64>,
    pub(super) note: &'a [u8],
}

impl<'a> Call<'a> {
    pub(super) fn begin(state: &'a mut State, options: &'a EngineOptions, now_ms: u64) -> Self {
        let was_idle = state.ready_count() == 0;
        Self { state, options, now_ms, record: RecordWriter::new(now_ms), changed: false, was_idle, readied: false }
    }

    /// Writes the journal. `None` when there is nothing to announce, else whether something became ready.
    pub(super) fn finish(self) -> Option<bool> {
        if self.changed {
            self.state.seq += 1;
        }
        let ready = self.readied && self.state.ready_count() > 0;
        if self.record.is_empty() {
            return (ready && self.was_idle).then_some(true);
        }
        self.state.journal.push(self.now_ms, self.record.finish());
        Some(ready)
    }

    pub(super) fn tell(&mut self, transition: Transition, entry: &Entry, told: Told<'_>) {
        let Told { worker, due_ms, note } = told;
        self.record.add(Fact {
            transition,
            task: entry.key.task,
            run: entry.run,
            deliveries: entry.deliveries,
            worker,
            due_ms,
            note,
        });
    }

    /// Puts an entry in place of the one with its id.
    pub(super) fn put(&mut self, entry: Entry) {
        self.changed = true;
        self.state.put(entry);
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, entry: &Entry) {
        self.changed = true;
        self.state.take(entry.key.task);
    }

    /// Where an entry waits `delay_ms` from now: at the end of its line when that is zero.
    pub(super) fn waiting(&mut self, key: &EntryKey, delay_ms: u64) -> Spot {
        if delay_ms == 0 {
            self.readied = true;
            Spot::Ready { pass: self.state.fairness.next(key) }
        } else {
            Spot::Delayed { due_ms: self.now_ms + delay_ms }
        }
    }

    pub(super) const fn leased(&self, ttl_ms: u64, token: LeaseToken) -> Spot {
        Spot::Leased { until_ms: self.now_ms + ttl_ms, token }
    }

    /// Applies settings that are newer than those in force. The end of a pause is as if what is ready had become so now.
    pub(super) fn configure(&mut self, settings: Settings) {
        if settings.revision > self.state.settings.revision {
            self.state.settings = settings;
            self.changed = true;
            self.was_idle |= !settings.paused;
            self.readied |= !settings.paused;
        }
    }

    /// Takes leases back that have run out.
    pub(super) fn reap(&mut self, limit: usize) -> ReapCounts {
        let mut counts = ReapCounts::default();
        for _ in 0..limit {
            let Some((until_ms, task)) = self.state.next_expiry() else { break };
            let Some(entry) = self.state.get(task).copied() else { break };
            if until_ms > self.now_ms {
                break;
            }
            counts.reaped += 1;
            let (transition, spot) = match reaped(entry.deliveries, self.options.max_deliveries) {
                Reaped::Ready => (Transition::Reaped, self.waiting(&entry.key, 0)),
                Reaped::Delayed(delay_ms) => (Transition::Reaped, self.waiting(&entry.key, delay_ms)),
                Reaped::Quarantined => {
                    counts.quarantined += 1;
                    (Transition::Quarantined, Spot::Quarantined)
                }
            };
            self.tell(transition, &entry, Told { due_ms: spot.due_ms(), ..Told::default() });
            self.put(Entry { spot, ..entry });
        }
        counts
    }

    /// Makes entries ready whose time has come.
    pub(super) fn promote(&mut self, limit: usize) -> u64 {
        let mut promoted = 0;
        for _ in 0..limit {
            let Some((due_ms, task)) = self.state.next_due() else { break };
            let Some(entry) = self.state.get(task).copied() else { break };
            if due_ms > self.now_ms {
                break;
            }
            let spot = self.waiting(&entry.key, 0);
            self.put(Entry { spot, ..entry });
            promoted += 1;
        }
        promoted
    }

    /// What lease and tick begin with: late entries first get their places.
    pub(super) fn settle_time(&mut self, limits: TickLimits) -> (ReapCounts, u64) {
        (self.reap(limits.reap), self.promote(limits.promote))
    }
}

impl Spot {
    /// When an entry that waits for its time is due.
    pub(super) const fn due_ms(&self) -> Option<u64> {
        match self {
            Self::Delayed { due_ms } => Some(*due_ms),
            Self::Ready { .. } | Self::Leased { .. } | Self::Quarantined => None,
        }
    }
}
