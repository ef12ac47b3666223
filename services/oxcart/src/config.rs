//! The configuration of all services: one file, any part of it.

mod redis;
mod server;
mod store;
#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use oxcart_queue::EngineOptions;
use oxcart_service::{
    config::{ConfigError, load},
    telemetry::TelemetryConfig,
};
use serde::{Deserialize, Serialize};

pub use self::{
    redis::{QueueConfig, RedisConfig},
    server::{ListenConfig, ServerConfig},
    store::StoreConfig,
};

/// Prefix of environment variables: `OXCART_STORE__URL` sets `store.url`.
pub const ENV_PREFIX: &str = "OXCART";

/// Shortest life of a claim.
const SHORTEST_CLAIM: Duration = Duration::from_millis(100);

/// Readers of the journal besides watchers that room is kept for: recorders and submission services, some replicas of each.
const OTHER_JOURNAL_READERS: usize = 32;

/// The configuration. Every part has defaults; unknown keys are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The database.
    pub store: StoreConfig,
    /// Redis; read by the dispatcher only.
    pub redis: RedisConfig,
    /// The queue engine, on Redis or in memory.
    pub queue: QueueConfig,
    /// The submission service.
    pub submission: oxcart_submission::Config,
    /// The dispatcher service.
    pub dispatcher: oxcart_dispatcher::Config,
    /// The worker service.
    pub worker: oxcart_worker::Config,
    /// The monitor service.
    pub monitor: oxcart_monitor::Config,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Addresses.
    pub server: ServerConfig,
}

impl Config {
    /// Reads a file, when there is one, and the environment over it.
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown, or a value does not fit its key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        load(file, ENV_PREFIX)
    }

    /// Checks what one value cannot say alone.
    ///
    /// # Errors
    /// What does not fit, for people.
    pub fn check(&self) -> Result<(), String> {
        self.worker.check()?;
        if self.monitor.recorder.silence < self.dispatcher.lease_ttl {
            return Err(format!(
                "monitor.recorder.silence is {:?}, below dispatcher.lease_ttl {:?}: runs that are alive would count as lost",
                self.monitor.recorder.silence, self.dispatcher.lease_ttl
            ));
        }
        if self.server.dispatcher_addresses.is_empty() {
            return Err("server.dispatcher_addresses names no dispatcher".to_owned());
        }
        // The recorder and the waiters of submission read the journal, too.
        if self.monitor.max_watchers.saturating_add(OTHER_JOURNAL_READERS) > self.dispatcher.max_journal_readers {
            return Err(format!(
                "monitor.max_watchers is {}; dispatcher.max_journal_readers {} leaves {} to watchers",
                self.monitor.max_watchers,
                self.dispatcher.max_journal_readers,
                self.dispatcher.max_journal_readers.saturating_sub(OTHER_JOURNAL_READERS)
            ));
        }
        if self.dispatcher.heartbeat_interval.saturating_mul(2) > self.dispatcher.lease_ttl {
            return Err(format!(
                "dispatcher.heartbeat_interval is {:?}, more than half of dispatcher.lease_ttl {:?}: one lost heartbeat would lose the \
                 leases",
                self.dispatcher.heartbeat_interval, self.dispatcher.lease_ttl
            ));
        }
        // A claim is confirmed after a quarter of its life, and covers a commit and two hops at least.
        if self.dispatcher.claim_ttl < SHORTEST_CLAIM {
            return Err(format!(
                "dispatcher.claim_ttl is {:?}; {SHORTEST_CLAIM:?} or more is allowed: what is granted would be gone before it starts",
                self.dispatcher.claim_ttl
            ));
        }
        self.check_urls()?;
        self.check_counts()
    }

    fn check_urls(&self) -> Result<(), String> {
        let one_of = |key: &str, url: &str, schemes: &[&str]| match schemes.iter().any(|scheme| url.starts_with(scheme)) {
            true => Ok(()),
            false => Err(format!("{key} begins with none of {}", schemes.join(", "))),
        };
        one_of("store.url", self.store.url.expose(), &["mysql:", "sqlite:"])?;
        one_of("redis.url", self.redis.url.expose(), &["redis:", "rediss:", "redis+unix:", "unix:"])
    }

    /// What stands still when there is none of it.
    fn check_counts(&self) -> Result<(), String> {
        let (submission, dispatcher) = (&self.submission, &self.dispatcher);
        let counts = [
            ("store.max_connections", self.store.max_connections),
            ("redis.connections", self.redis.connections),
            ("submission.payload_bytes", submission.payload_bytes),
            ("submission.commit_lanes", submission.commit_lanes),
            ("submission.commit_tasks", submission.commit_tasks),
            ("submission.commit_bytes", submission.commit_bytes),
            ("submission.waiting_tasks", submission.waiting_tasks),
            ("submission.waiting_bytes", submission.waiting_bytes),
            ("submission.queue_backlog", usize::try_from(submission.queue_backlog).unwrap_or(usize::MAX)),
            ("submission.unconfirmed_tasks", submission.unconfirmed_tasks),
            ("submission.handoff_lanes", submission.handoff_lanes),
            ("submission.sweep.audit_rows", submission.sweep.audit_rows),
            ("dispatcher.window", usize::try_from(dispatcher.window).unwrap_or(usize::MAX)),
            ("dispatcher.max_sessions", dispatcher.max_sessions),
            ("dispatcher.max_queues_per_session", dispatcher.max_queues_per_session),
            ("dispatcher.session_buffer", dispatcher.session_buffer),
            ("dispatcher.max_partitions", dispatcher.max_partitions),
            ("dispatcher.max_waiting_calls", dispatcher.max_waiting_calls),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(format!("{key} is 0; 1 or more is allowed")),
            None => Ok(()),
        }
    }

    /// The options of the queue engine.
    #[must_use]
    pub fn engine_options(&self) -> EngineOptions {
        let queue = &self.queue;
        EngineOptions {
            deployment: self.dispatcher.deployment.clone(),
            window: self.dispatcher.window,
            max_deliveries: queue.max_deliveries,
            lowest_band_every: queue.lowest_band_every,
            journal_calls: queue.journal_calls,
            journal_note_bytes: queue.journal_note_bytes,
        }
    }
}
