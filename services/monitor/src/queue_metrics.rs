//! The numbers of queues as metrics: a snapshot that every scrape shows whole, with a bounded number of series.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oxcart_proto::{convert::scalar, pb::monitor::v1::QueueStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

/// Tasks by queue and state; `pending` wait in SQL, all others are with the dispatcher.
const TASKS: &str = "queue_tasks";
/// Age of the ready task that goes next, by queue.
const OLDEST_READY: &str = "queue_oldest_ready_age_seconds";
/// Workers that take tasks of a queue.
const WORKERS: &str = "queue_workers";
/// Tasks of a queue that its workers can run at once.
const SLOTS: &str = "queue_slots";

/// Label of the queues that have no series of their own. No queue can have this name.
const OTHER: &str = "_other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    queue: String,
    state: &'static str,
}

/// What was last seen; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueMetrics(Arc<Mutex<Vec<QueueStats>>>);

impl QueueMetrics {
    fn seen(&self) -> MutexGuard<'_, Vec<QueueStats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows these from now on; none when nothing is known, since old numbers would look like new ones.
    pub(crate) fn show(&self, queues: Vec<QueueStats>) {
        *self.seen() = queues;
    }
}

impl Collector for QueueMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let queues = self.seen().clone();
        if queues.is_empty() {
            return Ok(());
        }
        let mut tasks = encoder.encode_descriptor(TASKS, "Tasks by queue and state", None, MetricType::Gauge)?;
        for queue in &queues {
            let states = [
                ("pending", queue.pending_count),
                ("ready", queue.ready_count),
                ("delayed", queue.delayed_count),
                ("leased", queue.leased_count),
                ("quarantined", queue.quarantined_count),
            ];
            for (state, count) in states {
                let labels = TaskLabels { queue: queue.queue.clone(), state };
                ConstGauge::new(count).encode(tasks.encode_family(&labels)?)?;
            }
        }
        let mut gauge = |name, help, value: fn(&QueueStats) -> f64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for queue in &queues {
                let labels = QueueLabels { queue: queue.queue.clone() };
                ConstGauge::new(value(queue)).encode(family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        gauge(OLDEST_READY, "Age of the ready task that goes next", |queue| {
            scalar::duration_or_zero(queue.oldest_ready_age).as_secs_f64()
        })?;
        gauge(WORKERS, "Workers that take tasks of the queue", |queue| f64::from(queue.worker_count))?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        gauge(SLOTS, "Tasks that the workers of the queue can run at once", |queue| queue.slot_count as f64)
    }
}

/// Queues that have series of their own. Names of queues come from outside, so there must be a limit; who has series keeps them as
/// long as the queue exists, so that no series comes and goes with the order of the day.
#[derive(Debug)]
pub(crate) struct Shown {
    max: usize,
    names: BTreeSet<String>,
}

impl Shown {
    /// At most `max` queues.
    pub(crate) const fn new(max: usize) -> Self {
        Self { max, names: BTreeSet::new() }
    }

    /// Leaves queues that are shown as they are, and adds up the rest. Free places go to the queues with most tasks.
    pub(crate) fn fold(&mut self, mut queues: Vec<QueueStats>) -> Vec<QueueStats> {
        let all: BTreeSet<&str> = queues.iter().map(|queue| queue.queue.as_str()).collect();
        self.names.retain(|name| all.contains(name.as_str()));
        queues.sort_by_cached_key(|queue| (Reverse(total(queue)), queue.queue.clone()));
        for queue in &queues {
            if self.names.len() >= self.max {
                break;
            }
            self.names.insert(queue.queue.clone());
        }
        let (mut shown, rest): (Vec<_>, Vec<_>) = queues.into_iter().partition(|queue| self.names.contains(&queue.queue));
        shown.extend(rest.into_iter().reduce(add).map(|other| QueueStats { queue: OTHER.to_owned(), ..other }));
        shown
    }
}

const fn total(queue: &QueueStats) -> i64 {
    queue.pending_count + queue.ready_count + queue.delayed_count + queue.leased_count + queue.quarantined_count
}

/// Both together. Workers and slots count once for each queue that they serve; the oldest of both is the oldest.
fn add(mut sum: QueueStats, queue: QueueStats) -> QueueStats {
    sum.pending_count += queue.pending_count;
    sum.ready_count += queue.ready_count;
    sum.delayed_count += queue.delayed_count;
    sum.leased_count += queue.leased_count;
    sum.quarantined_count += queue.quarantined_count;
    sum.worker_count += queue.worker_count;
    sum.slot_count += queue.slot_count;
    let older = scalar::duration_or_zero(queue.oldest_ready_age) > scalar::duration_or_zero(sum.oldest_ready_age);
    if older {
        sum.oldest_ready_age = queue.oldest_ready_age;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oxcart_service::Metrics;

    use super::*;

    fn queue(name: &str, ready: i64, age: u64) -> QueueStats {
        let oldest_ready_age = Some(scalar::to_duration(Duration::from_secs(age)));
        QueueStats { queue: name.to_owned(), ready_count: ready, oldest_ready_age, worker_count: 1, ..Default::default() }
    }

    fn names(queues: &[QueueStats]) -> Vec<(&str, i64)> {
        queues.iter().map(|queue| (queue.queue.as_str(), queue.ready_count)).collect()
    }

    #[test]
    fn queues_beyond_the_limit_are_one_and_places_are_kept() {
        let mut shown = Shown::new(2);
        let first = shown.fold(vec![queue("a", 1, 9), queue("b", 7, 1), queue("c", 5, 2), queue("d", 2, 8)]);
        assert_eq!(names(&first), [("b", 7), ("c", 5), (OTHER, 3)]);
        let other = &first[2];
        assert_eq!((other.worker_count, other.oldest_ready_age.map(|age| age.seconds)), (2, Some(9)));
        // b and c keep their series; when c is gone, its place goes to the deepest.
        assert_eq!(
            names(&shown.fold(vec![queue("a", 90, 0), queue("b", 0, 0), queue("c", 1, 0)])),
            [("c", 1), ("b", 0), (OTHER, 90)]
        );
        assert_eq!(
            names(&shown.fold(vec![queue("a", 2, 0), queue("b", 0, 0), queue("d", 9, 0)])),
            [("d", 9), ("b", 0), (OTHER, 2)]
        );
    }

    #[test]
    fn a_scrape_shows_the_last_look_and_nothing_when_it_failed() {
        let (metrics, queues) = (Metrics::new(), QueueMetrics::default());
        metrics.sub_registry("monitor", |registry| registry.register_collector(Box::new(queues.clone())));
        queues.show(vec![queue("mail", 3, 12)]);
        let text = metrics.encode().expect("a text");
        for line in [
            r#"oxcart_monitor_queue_tasks{queue="mail",state="ready"} 3"#,
            r#"oxcart_monitor_queue_tasks{queue="mail",state="pending"} 0"#,
            r#"oxcart_monitor_queue_oldest_ready_age_seconds{queue="mail"} 12.0"#,
            r#"oxcart_monitor_queue_workers{queue="mail"} 1.0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        queues.show(Vec::new());
        assert!(!metrics.encode().expect("a text").contains("mail"));
    }
}
