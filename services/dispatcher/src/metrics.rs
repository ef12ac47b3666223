//! What the dispatcher measures; names are under `oxcart_dispatcher_`.

use std::time::Duration;

use oxcart_queue::{EnqueueStatus, LeaseStatus, Ticked};
use oxcart_service::metrics::latency_histogram;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Leases granted and sent.
pub(crate) const GRANTS: &str = "grants";
/// Grants that no session could take; given back.
pub(crate) const GRANTS_RETURNED: &str = "grants_returned";
/// Grants of entries that were given out before: a lease ran out, or was given back and counted.
pub(crate) const REDELIVERIES: &str = "redeliveries";
/// Leases settled, by outcome.
pub(crate) const SETTLES: &str = "settles";
/// Reports about leases, by what became of them.
pub(crate) const LEASE_REPORTS: &str = "lease_reports";
/// Entries put in, by status.
pub(crate) const ENQUEUES: &str = "enqueues";
/// Verdicts, by decision.
pub(crate) const VERDICTS: &str = "verdicts";
/// Delayed entries made ready by the reconciler.
pub(crate) const PROMOTED: &str = "promoted";
/// Expired leases taken back by the reconciler.
pub(crate) const REAPED: &str = "reaped";
/// Entries put in quarantine by the reconciler.
pub(crate) const QUARANTINED: &str = "quarantined";
/// Open sessions.
pub(crate) const SESSIONS: &str = "sessions";
/// Leases that stopped counting without a settle: lost grants, vanished work.
pub(crate) const LEASES_PRUNED: &str = "leases_pruned";
/// Items of one engine call, by operation.
pub(crate) const BATCH_ITEMS: &str = "batch_items";
/// Time of one engine call in seconds, by operation.
pub(crate) const ENGINE_CALL_SECONDS: &str = "engine_call_seconds";
/// Engine calls that failed, by operation.
pub(crate) const ENGINE_FAILURES: &str = "engine_failures";
/// Readers of the journal.
pub(crate) const JOURNAL_READERS: &str = "journal_readers";
/// Gaps that readers of the journal met: they were slower than the journal is trimmed.
pub(crate) const JOURNAL_GAPS: &str = "journal_gaps";

/// What became of something that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    outcome: &'static str,
}

/// What the engine said about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Status {
    status: &'static str,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Decision {
    decision: &'static str,
}

/// A call of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    operation: &'static str,
}

// Values of labels, so that every series is there from the start: one that appears with its first count has no rate for it.
const OUTCOMES: [&str; 6] = ["done", "failed", "cancelled", "dropped", "retried", "released"];
const LEASE_STATUSES: [&str; 4] = ["ok", "adopted", "unknown", "lost"];
const ENQUEUE_STATUSES: [&str; 5] = ["created", "exists", "older", "superseded", "window_full"];
const DECISIONS: [&str; 3] = ["retry", "stretched", "fail"];
const OPERATIONS: [&str; 16] = [
    "configure",
    "enqueue",
    "lease",
    "start",
    "heartbeat",
    "complete",
    "release",
    "remove",
    "tick",
    "missing",
    "inspect",
    "list",
    "check",
    "stats",
    "journal",
    "partitions",
];

type Histograms = Family<Operation, Histogram, fn() -> Histogram>;

/// The metrics of one dispatcher.
#[derive(Debug, Clone)]
pub(crate) struct DispatcherMetrics {
    pub(crate) grants: Counter,
    pub(crate) grants_returned: Counter,
    pub(crate) redeliveries: Counter,
    settles: Family<Outcome, Counter>,
    lease_reports: Family<Status, Counter>,
    enqueues: Family<Status, Counter>,
    verdicts: Family<Decision, Counter>,
    promoted: Counter,
    reaped: Counter,
    quarantined: Counter,
    pub(crate) sessions: Gauge,
    pub(crate) leases_pruned: Counter,
    batch_items: Histograms,
    engine_call_seconds: Histograms,
    engine_failures: Family<Operation, Counter>,
    pub(crate) journal_readers: Gauge,
    pub(crate) journal_gaps: Counter,
}

fn batch_histogram() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0])
}

impl DispatcherMetrics {
    /// Registers all of them.
    pub(crate) fn register(metrics: &oxcart_service::Metrics) -> Self {
        let made = Self {
            grants: Counter::default(),
            grants_returned: Counter::default(),
            redeliveries: Counter::default(),
            settles: Family::default(),
            lease_reports: Family::default(),
            enqueues: Family::default(),
            verdicts: Family::default(),
            promoted: Counter::default(),
            reaped: Counter::default(),
            quarantined: Counter::default(),
            sessions: Gauge::default(),
            leases_pruned: Counter::default(),
            batch_items: Family::new_with_constructor(batch_histogram),
            engine_call_seconds: Family::new_with_constructor(latency_histogram),
            engine_failures: Family::default(),
            journal_readers: Gauge::default(),
            journal_gaps: Counter::default(),
        };
        made.show_all();
        metrics.sub_registry("dispatcher", |registry| {
            registry.register(GRANTS, "Leases granted and sent", made.grants.clone());
            registry.register(GRANTS_RETURNED, "Grants that no session could take", made.grants_returned.clone());
            registry.register(REDELIVERIES, "Grants of entries that were given out before", made.redeliveries.clone());
            registry.register(SETTLES, "Leases settled, by outcome", made.settles.clone());
            registry.register(LEASE_REPORTS, "Reports about leases, by what became of them", made.lease_reports.clone());
            registry.register(ENQUEUES, "Entries put in, by status", made.enqueues.clone());
            registry.register(VERDICTS, "Verdicts on failures, by decision", made.verdicts.clone());
            registry.register(PROMOTED, "Delayed entries made ready by the reconciler", made.promoted.clone());
            registry.register(REAPED, "Expired leases taken back by the reconciler", made.reaped.clone());
            registry.register(QUARANTINED, "Entries put in quarantine by the reconciler", made.quarantined.clone());
            registry.register(SESSIONS, "Open sessions", made.sessions.clone());
            registry.register(LEASES_PRUNED, "Leases that stopped counting without a settle", made.leases_pruned.clone());
            registry.register(BATCH_ITEMS, "Items of one engine call", made.batch_items.clone());
            registry.register(ENGINE_CALL_SECONDS, "Time of one engine call", made.engine_call_seconds.clone());
            registry.register(ENGINE_FAILURES, "Engine calls that failed", made.engine_failures.clone());
            registry.register(JOURNAL_READERS, "Readers of the journal", made.journal_readers.clone());
            registry.register(JOURNAL_GAPS, "Gaps that readers of the journal met", made.journal_gaps.clone());
        });
        made
    }

    fn show_all(&self) {
        for outcome in OUTCOMES {
            drop(self.settles.get_or_create(&Outcome { outcome }));
        }
        for status in LEASE_STATUSES {
            drop(self.lease_reports.get_or_create(&Status { status }));
        }
        for status in ENQUEUE_STATUSES {
            drop(self.enqueues.get_or_create(&Status { status }));
        }
        for decision in DECISIONS {
            drop(self.verdicts.get_or_create(&Decision { decision }));
        }
        for operation in OPERATIONS {
            let operation = Operation { operation };
            drop(self.batch_items.get_or_create(&operation));
            drop(self.engine_call_seconds.get_or_create(&operation));
            drop(self.engine_failures.get_or_create(&operation));
        }
    }

    pub(crate) fn engine_call(&self, operation: &'static str, items: usize, took: Duration, ok: bool) {
        debug_assert!(OPERATIONS.contains(&operation), "{operation} is not shown from the start");
        let operation = Operation { operation };
        self.engine_call_seconds.get_or_create(&operation).observe(took.as_secs_f64());
        self.batch_items.get_or_create(&operation).observe(f64::from(u32::try_from(items).unwrap_or(u32::MAX)));
        if !ok {
            self.engine_failures.get_or_create(&operation).inc();
        }
    }

    pub(crate) fn ticked(&self, ticked: &Ticked) {
        self.promoted.inc_by(ticked.promoted);
        self.reaped.inc_by(ticked.reaped);
        self.quarantined.inc_by(ticked.quarantined);
    }

    pub(crate) fn settled(&self, outcome: &'static str, count: u64) {
        debug_assert!(OUTCOMES.contains(&outcome), "{outcome} is not shown from the start");
        self.settles.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    pub(crate) fn verdict(&self, decision: &'static str) {
        self.verdicts.get_or_create(&Decision { decision }).inc();
    }

    pub(crate) fn enqueued(&self, statuses: &[EnqueueStatus]) {
        for status in statuses {
            let status = match status {
                EnqueueStatus::Created => "created",
                EnqueueStatus::Exists => "exists",
                EnqueueStatus::Older => "older",
                EnqueueStatus::Superseded => "superseded",
                EnqueueStatus::WindowFull => "window_full",
            };
            self.enqueues.get_or_create(&Status { status }).inc();
        }
    }

    /// Counts what became of reported leases; simple successes are counted once a batch.
    pub(crate) fn reported(&self, statuses: impl Iterator<Item = LeaseStatus>) {
        let (mut ok, mut adopted, mut unknown, mut lost) = (0, 0, 0, 0);
        for status in statuses {
            match status {
                LeaseStatus::Ok => ok += 1,
                LeaseStatus::Adopted => adopted += 1,
                LeaseStatus::Unknown => unknown += 1,
                LeaseStatus::Lost => lost += 1,
            }
        }
        for (status, count) in [("ok", ok), ("adopted", adopted), ("unknown", unknown), ("lost", lost)] {
            if count > 0 {
                self.lease_reports.get_or_create(&Status { status }).inc_by(count);
            }
        }
    }
}
