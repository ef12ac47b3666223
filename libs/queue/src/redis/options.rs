//! How the engine reaches Redis.

use std::{fmt, time::Duration};

/// How the engine reaches Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port/db`, or `rediss://` for TLS.
    pub url: String,
    /// Connections at most, besides the one that listens for announcements.
    pub connections: usize,
    /// Longest wait for a connection and for an answer, each.
    pub timeout: Duration,
    /// Takes a Redis that may evict entries. Nothing is lost for good, since SQL is the truth, but tasks start late.
    pub allow_eviction: bool,
    /// Tests only: the name of a key that holds the time in milliseconds since the epoch, instead of the clock of Redis.
    pub clock_key: Option<String>,
}

impl RedisOptions {
    /// The defaults, for a Redis at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 16, timeout: Duration::from_secs(1), allow_eviction: false, clock_key: None }
    }
}

impl fmt::Debug for RedisOptions {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("allow_eviction", &self.allow_eviction)
            .field("clock_key", &self.clock_key)
            .finish_non_exhaustive()
    }
}
