//! Redis and the queue engine on it.

use std::time::Duration;

use oxcart_queue::{EngineOptions, RedisOptions};
use oxcart_service::config::{Secret, duration};
use serde::{Deserialize, Serialize};

/// Redis.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port/db`, or `rediss://` for TLS.
    pub url: Secret<String>,
    /// Connections of one dispatcher at most.
    pub connections: usize,
    /// Longest wait for a connection and for an answer, each.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Take a Redis that may evict entries. Nothing is lost for good, but tasks start late.
    pub allow_eviction: bool,
}

impl Default for RedisConfig {
    fn default() -> Self {
        let url = "redis://127.0.0.1:6379/0";
        let options = RedisOptions::new(url);
        Self {
            url: Secret::new(url.to_owned()),
            connections: options.connections,
            timeout: options.timeout,
            allow_eviction: options.allow_eviction,
        }
    }
}

impl RedisConfig {
    /// What the engine takes.
    #[must_use]
    pub fn options(&self) -> RedisOptions {
        RedisOptions {
            connections: self.connections,
            timeout: self.timeout,
            allow_eviction: self.allow_eviction,
            ..RedisOptions::new(self.url.expose().clone())
        }
    }
}

/// The queue engine. Its deployment and window are those of the dispatcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Deliveries without an end after which a task is taken for poison.
    pub max_deliveries: u8,
    /// Every so many lease calls the lowest priority goes first, so that it is never starved; 0 for never.
    pub lowest_band_every: u32,
    /// Calls that the journal of a queue keeps, about.
    pub journal_calls: usize,
    /// Bytes of small results and errors that one call may put into the journal.
    pub journal_note_bytes: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        let options = EngineOptions::default();
        Self {
            max_deliveries: options.max_deliveries,
            lowest_band_every: options.lowest_band_every,
            journal_calls: options.journal_calls,
            journal_note_bytes: options.journal_note_bytes,
        }
    }
}
