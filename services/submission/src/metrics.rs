//! Names of the service's metrics, all under `oxcart_submission_`.

use oxcart_service::{Metrics, metrics::latency_histogram};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::dispatcher::Offered;

/// Tasks committed. The exposition format adds `_total`.
pub const COMMITTED_TASKS: &str = "committed_tasks";
/// Commits to SQL; with [`COMMITTED_TASKS`] the mean size of a batch.
pub const COMMITS: &str = "commits";
/// Commits that failed; their callers were told, and may have repeated them.
pub const COMMIT_FAILURES: &str = "commit_failures";
/// Time of one commit.
pub const COMMIT_SECONDS: &str = "commit_seconds";
/// Tasks that a submit named again: found, and not inserted.
pub const DEDUPLICATED_TASKS: &str = "deduplicated_tasks";
/// Tasks offered to the dispatcher, by what became of them.
pub const HANDOFFS: &str = "handoffs";
/// Tasks committed here that the dispatcher has not confirmed.
pub const UNCONFIRMED_TASKS: &str = "unconfirmed_tasks";
/// What sweepers did to tasks, by sweeper and action.
pub const SWEPT: &str = "swept_tasks";
/// Resyncs begun because a queue partition was lost or rolled back.
pub const RESYNCS: &str = "resyncs";
/// Finished tasks that were replayed.
pub const REPLAYED_TASKS: &str = "replayed_tasks";
/// Calls that wait for a task.
pub const WAITERS: &str = "waiters";

/// Label of [`HANDOFFS`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HandoffLabels {
    pub(crate) outcome: &'static str,
}

/// Labels of [`SWEPT`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SweepLabels {
    pub(crate) sweeper: &'static str,
    pub(crate) action: &'static str,
}

/// What sweepers do, so that every series is there from the start.
const SWEEPS: [(&str, &str); 23] = [
    ("handoffs", "enqueue"),
    ("agenda", "enqueue"),
    ("agenda", "close"),
    ("agenda", "rearm"),
    ("agenda", "remind"),
    ("agenda", "delete"),
    ("feeder", "enqueue"),
    ("resync", "enqueue"),
    ("resync", "spill"),
    ("resync", "close"),
    ("audit", "enqueue"),
    ("audit", "spill"),
    ("audit", "close"),
    ("audit", "poison"),
    ("reverse_audit", "remove"),
    ("verify", "remove"),
    ("verify", "enqueue"),
    ("verify", "spill"),
    ("verify", "close"),
    ("keys", "forget"),
    ("operations", "cancel"),
    ("operations", "request"),
    ("cancel_rules", "end"),
];

/// The metrics of the service; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) committed: Counter,
    pub(crate) deduplicated: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) handoffs: Family<HandoffLabels, Counter>,
    pub(crate) unconfirmed: Gauge,
    pub(crate) swept: Family<SweepLabels, Counter>,
    pub(crate) resyncs: Counter,
    pub(crate) replayed: Counter,
    pub(crate) waiters: Gauge,
}

impl Meters {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let meters = Self {
            committed: Counter::default(),
            deduplicated: Counter::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            commit_seconds: latency_histogram(),
            handoffs: Family::default(),
            unconfirmed: Gauge::default(),
            swept: Family::default(),
            resyncs: Counter::default(),
            replayed: Counter::default(),
            waiters: Gauge::default(),
        };
        for outcome in Offered::ALL {
            drop(meters.handoffs.get_or_create(&HandoffLabels { outcome: outcome.as_str() }));
        }
        for (sweeper, action) in SWEEPS {
            drop(meters.swept.get_or_create(&SweepLabels { sweeper, action }));
        }
        metrics.sub_registry("submission", |registry| {
            registry.register(COMMITTED_TASKS, "Tasks committed", meters.committed.clone());
            registry.register(COMMITS, "Commits to SQL", meters.commits.clone());
            registry.register(COMMIT_FAILURES, "Commits that failed", meters.commit_failures.clone());
            registry.register(COMMIT_SECONDS, "Time of one commit", meters.commit_seconds.clone());
            registry.register(DEDUPLICATED_TASKS, "Tasks that a submit named again", meters.deduplicated.clone());
            registry.register(HANDOFFS, "Tasks offered to the dispatcher", meters.handoffs.clone());
            registry.register(UNCONFIRMED_TASKS, "Tasks not confirmed by the dispatcher", meters.unconfirmed.clone());
            registry.register(SWEPT, "What sweepers did to tasks", meters.swept.clone());
            registry.register(RESYNCS, "Resyncs begun", meters.resyncs.clone());
            registry.register(REPLAYED_TASKS, "Finished tasks that were replayed", meters.replayed.clone());
            registry.register(WAITERS, "Calls that wait for a task", meters.waiters.clone());
        });
        meters
    }

    pub(crate) fn swept(&self, sweeper: &'static str, action: &'static str, tasks: usize) {
        debug_assert!(SWEEPS.contains(&(sweeper, action)), "{sweeper} {action} is not shown from the start");
        if tasks > 0 {
            self.swept.get_or_create(&SweepLabels { sweeper, action }).inc_by(tasks as u64);
        }
    }
}
