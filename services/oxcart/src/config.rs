//! The configuration of all services: one file, any part of it.

mod redis;
mod server;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;

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
        Ok(())
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
