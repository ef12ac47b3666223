//! Names and counters of a worker. All begin with `oxcart_worker_`; counters get `_total` behind.

use oxcart_service::{Metrics, metrics::long_histogram};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

/// Runs that began.
pub const STARTED: &str = "runs_started";
/// Runs that succeeded.
pub const SUCCEEDED: &str = "runs_succeeded";
/// Runs that failed, for good or to be tried again.
pub const FAILED: &str = "runs_failed";
/// Runs and grants that were given back.
pub const RELEASED: &str = "runs_released";
/// Runs of vanished workers that were ended.
pub const TAKEN_OVER: &str = "runs_taken_over";
/// Ends that were refused because somebody else's stands.
pub const FENCED: &str = "ends_fenced";
/// Grants for handlers that are not here.
pub const UNKNOWN_HANDLER: &str = "grants_without_handler";
/// Connections to the dispatcher that failed or broke.
pub const SESSION_FAILURES: &str = "session_failures";
/// Steps that the database did not take.
pub const STORE_ERRORS: &str = "store_errors";
/// Runs that were stopped because another worker has them.
pub const LEASES_LOST: &str = "leases_lost";
/// Runs that this worker may hold at once.
pub const SLOTS: &str = "slots";
/// Leases held now.
pub const LEASES_HELD: &str = "leases_held";
/// Time from when a task could first start (its submission, or the time that it asked for) to the start of its first run.
pub const START_DELAY_SECONDS: &str = "start_delay_seconds";
/// Time from start to conclusion of a run.
pub const RUN_SECONDS: &str = "run_seconds";

/// The counters; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) started: Counter,
    pub(crate) succeeded: Counter,
    pub(crate) failed: Counter,
    pub(crate) released: Counter,
    pub(crate) taken_over: Counter,
    pub(crate) fenced: Counter,
    pub(crate) unknown_handler: Counter,
    pub(crate) session_failures: Counter,
    pub(crate) store_errors: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) leases_held: Gauge,
    pub(crate) start_delay_seconds: Histogram,
    pub(crate) run_seconds: Histogram,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics, slots: u32) -> Self {
        let room = Gauge::<i64>::default();
        room.set(i64::from(slots));
        let meters = Self {
            started: Counter::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            released: Counter::default(),
            taken_over: Counter::default(),
            fenced: Counter::default(),
            unknown_handler: Counter::default(),
            session_failures: Counter::default(),
            store_errors: Counter::default(),
            leases_lost: Counter::default(),
            leases_held: Gauge::default(),
            start_delay_seconds: long_histogram(),
            run_seconds: long_histogram(),
        };
        let counters = [
            (STARTED, "Runs that began", &meters.started),
            (SUCCEEDED, "Runs that succeeded", &meters.succeeded),
            (FAILED, "Runs that failed, for good or to be tried again", &meters.failed),
            (RELEASED, "Runs and grants that were given back", &meters.released),
            (TAKEN_OVER, "Runs of vanished workers that were ended", &meters.taken_over),
            (FENCED, "Ends that were refused because another stands", &meters.fenced),
            (UNKNOWN_HANDLER, "Grants for handlers that are not here", &meters.unknown_handler),
            (SESSION_FAILURES, "Connections to the dispatcher that failed or broke", &meters.session_failures),
            (LEASES_LOST, "Runs that were stopped because another worker has them", &meters.leases_lost),
            (STORE_ERRORS, "Steps that the database did not take", &meters.store_errors),
        ];
        metrics.sub_registry("worker", |registry| {
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
            registry.register(SLOTS, "Runs that this worker may hold at once", room);
            registry.register(LEASES_HELD, "Leases held now", meters.leases_held.clone());
            registry.register(
                START_DELAY_SECONDS,
                "Time from when a task could first start to its first start",
                meters.start_delay_seconds.clone(),
            );
            registry.register(RUN_SECONDS, "Time from start to conclusion of a run", meters.run_seconds.clone());
        });
        meters
    }
}
