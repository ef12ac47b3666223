//! The metrics of the service, under `oxcart_monitor_`; what the chassis counts for every service is not here.

use oxcart_service::Metrics;
use oxcart_types::{EndKind, Timestamp};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::queue_metrics::QueueMetrics;

/// Ends that the recorder writes.
const RECORDED: [EndKind; 3] = [EndKind::Lost, EndKind::Failed, EndKind::Cancelled];

/// Entries of the journal that the recorder has read.
const JOURNAL_ENTRIES: &str = "recorder_journal_entries";
/// Parts of the journal that were gone before the recorder read them.
const JOURNAL_GAPS: &str = "recorder_journal_gaps";
/// Ends of runs that the recorder wrote, by kind.
const FACTS_RECORDED: &str = "recorder_facts";
/// Facts that SQL knew already.
const FACTS_KNOWN: &str = "recorder_facts_known";
/// Facts left to the audit: too many, or a run that kept showing life.
const FACTS_DROPPED: &str = "recorder_facts_dropped";
/// Times that the recorder could not follow the journal.
const RECORDER_ERRORS: &str = "recorder_errors";
/// Facts that wait to be written.
const RECORDER_PENDING: &str = "recorder_pending_facts";
/// When the newest entry that the recorder has read was made, or when the dispatcher said that there was nothing newer, in Unix
/// seconds; 0 before it has read anything.
const RECORDER_WATERMARK: &str = "recorder_watermark_timestamp_seconds";
/// Gaps that watchers were told of: events that they did not get.
const WATCH_GAPS: &str = "watch_gaps";
/// Tasks that ended long ago and were dropped.
const DROPPED_TASKS: &str = "retention_dropped_tasks";
/// Watchers of events.
const WATCHERS: &str = "watchers";
/// Worker sessions at the last look.
const SESSIONS: &str = "worker_sessions";

/// The metrics; clones share their values.
#[derive(Clone, Default)]
pub(crate) struct MonitorMetrics {
    pub(crate) journal_entries: Counter,
    pub(crate) journal_gaps: Counter,
    pub(crate) facts_known: Counter,
    pub(crate) facts_dropped: Counter,
    pub(crate) recorder_errors: Counter,
    pub(crate) watch_gaps: Counter,
    pub(crate) queues: QueueMetrics,
    recorder_pending: Gauge,
    recorder_watermark: Gauge,
    pub(crate) dropped_tasks: Counter,
    facts: Family<FactLabels, Counter>,
    watchers: Gauge,
    sessions: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FactLabels {
    end: &'static str,
}

impl MonitorMetrics {
    /// Makes the metrics known to the process.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        for end in RECORDED {
            drop(this.facts.get_or_create(&FactLabels { end: end.as_str() }));
        }
        metrics.sub_registry("monitor", |registry| {
            registry.register(JOURNAL_ENTRIES, "Entries of the journal read by the recorder", this.journal_entries.clone());
            registry.register(JOURNAL_GAPS, "Parts of the journal that were gone before they were read", this.journal_gaps.clone());
            registry.register(FACTS_RECORDED, "Ends of runs written by the recorder", this.facts.clone());
            registry.register(FACTS_KNOWN, "Facts of the journal that SQL knew already", this.facts_known.clone());
            registry.register(FACTS_DROPPED, "Facts of the journal left to the audit", this.facts_dropped.clone());
            registry.register(
                RECORDER_ERRORS,
                "Times that the recorder could not follow the journal",
                this.recorder_errors.clone(),
            );
            registry.register(RECORDER_PENDING, "Facts of the journal that wait to be written", this.recorder_pending.clone());
            registry.register(RECORDER_WATERMARK, "Time up to which the recorder has read", this.recorder_watermark.clone());
            registry.register(WATCH_GAPS, "Gaps that watchers were told of", this.watch_gaps.clone());
            registry.register_collector(Box::new(this.queues.clone()));
            registry.register(DROPPED_TASKS, "Tasks that ended long ago and were dropped", this.dropped_tasks.clone());
            registry.register(WATCHERS, "Watchers of events", this.watchers.clone());
            registry.register(SESSIONS, "Worker sessions at the last look", this.sessions.clone());
        });
        this
    }

    pub(crate) fn facts_recorded(&self, end: EndKind) {
        self.facts.get_or_create(&FactLabels { end: end.as_str() }).inc();
    }

    /// So many facts wait.
    pub(crate) fn pending(&self, facts: usize) {
        self.recorder_pending.set(i64::try_from(facts).unwrap_or(i64::MAX));
    }

    /// The recorder has read everything up to `at`.
    pub(crate) fn read_up_to(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.recorder_watermark.set(at.timestamp());
        }
    }

    pub(crate) fn sessions_seen(&self, sessions: usize) {
        self.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// Counts a watcher until the answer is dropped.
    pub(crate) fn watching(&self) -> Watching {
        self.watchers.inc();
        Watching(self.watchers.clone())
    }
}

/// A watcher that is counted.
pub(crate) struct Watching(Gauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}
