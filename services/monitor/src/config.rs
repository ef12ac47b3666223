//! What can be set.

use std::time::Duration;

use oxcart_service::config::{Secret, duration};
use serde::{Deserialize, Serialize};

/// Configuration of the monitor service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Watchers of events at once; more are refused.
    pub max_watchers: usize,
    /// Key of page tokens. A token grants nothing, so the key only keeps edited tokens out; all replicas must share it.
    pub page_token_key: Secret<String>,
    /// Tasks counted per queue and reason of those that wait in SQL; a longer wait is shown as this many.
    pub max_counted_tasks: u64,
    /// The worker registry.
    pub registry: RegistryConfig,
    /// The recorder.
    pub recorder: RecorderConfig,
    /// The metrics of queues.
    pub queue_metrics: QueueMetricsConfig,
    /// How long finished tasks are kept.
    pub retention: RetentionConfig,
}

/// Configuration of the worker registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Time between two looks at the sessions of the dispatcher.
    #[serde(with = "duration")]
    pub period: Duration,
    /// A worker not heard of for this long is shown as lost.
    #[serde(with = "duration")]
    pub lost_after: Duration,
    /// A worker not heard of for this long is forgotten.
    #[serde(with = "duration")]
    pub forget_after: Duration,
}

/// Configuration of the recorder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecorderConfig {
    /// A run is lost when its lease ran out and neither its start nor a heartbeat is younger than this. At least the time of a
    /// lease.
    #[serde(with = "duration")]
    pub silence: Duration,
    /// Time until a run that showed life is looked at again.
    #[serde(with = "duration")]
    pub retry_after: Duration,
    /// Looks at a run before it is left to whoever is granted the task next.
    pub max_tries: u32,
}

/// Configuration of the metrics of queues.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueMetricsConfig {
    /// Time between two looks at the queues.
    #[serde(with = "duration")]
    pub period: Duration,
    /// Queues with series of their own at most; the rest is one, `_other`.
    pub max_queues: usize,
}

/// How long finished tasks are kept. Idempotency keys have a life of their own, which is not cut short.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// A task that succeeded is dropped this long after its end; 0s keeps it for ever.
    #[serde(with = "duration")]
    pub succeeded_age: Duration,
    /// A task that failed, expired or was cancelled is dropped this long after its end; 0s keeps it for ever.
    #[serde(with = "duration")]
    pub other_age: Duration,
    /// Tasks that one step looks at, which is one transaction; at most 500.
    pub step_tasks: usize,
    /// Between two steps: with `step_tasks` the rate at which tasks are dropped.
    #[serde(with = "duration")]
    pub step_period: Duration,
    /// From the end of one walk over what is old to the next.
    #[serde(with = "duration")]
    pub rest: Duration,
}

impl Default for RetentionConfig {
    /// A month, at 5000 tasks a second.
    fn default() -> Self {
        const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
        Self {
            succeeded_age: MONTH,
            other_age: MONTH,
            step_tasks: 500,
            step_period: Duration::from_millis(100),
            rest: Duration::from_secs(600),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_watchers: 256,
            page_token_key: Secret::new("oxcart".to_owned()),
            max_counted_tasks: 100_000,
            registry: RegistryConfig::default(),
            recorder: RecorderConfig::default(),
            queue_metrics: QueueMetricsConfig::default(),
            retention: RetentionConfig::default(),
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { period: Duration::from_secs(3), lost_after: Duration::from_secs(45), forget_after: Duration::from_secs(24 * 3600) }
    }
}

impl Default for QueueMetricsConfig {
    fn default() -> Self {
        Self { period: Duration::from_secs(10), max_queues: 200 }
    }
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), retry_after: Duration::from_secs(5), max_tries: 8 }
    }
}
