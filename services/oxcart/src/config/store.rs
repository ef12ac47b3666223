//! The database.

use std::time::Duration;

use oxcart_service::config::{Secret, duration};
use oxcart_store::StoreOptions;
use serde::{Deserialize, Serialize};

/// The database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `mysql://user:password@host:port/database`, or `sqlite:path/to/file.db` where everything runs in one process.
    pub url: Secret<String>,
    /// Connections of one process at most.
    pub max_connections: usize,
    /// Longest wait for a connection; then the call is refused, to be tried again.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: Secret::new("mysql://oxcart@127.0.0.1:3306/oxcart".to_owned()),
            max_connections: 16,
            acquire_timeout: Duration::from_millis(500),
        }
    }
}

impl StoreConfig {
    /// What the store takes.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            url: self.url.expose().clone(),
            max_connections: self.max_connections,
            acquire_timeout: self.acquire_timeout,
        }
    }
}
