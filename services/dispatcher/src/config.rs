//! Settings of the dispatcher.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry_budget::Allowance;

/// Settings of the dispatcher. Durations are written like `10s` or `250ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the deployment, as the queue engine has it: journal cursors of another one are refused.
    pub deployment: String,
    /// Life of a claim until its start is confirmed.
    #[serde(with = "oxcart_service::config::duration")]
    pub claim_ttl: Duration,
    /// Life of a lease.
    #[serde(with = "oxcart_service::config::duration")]
    pub lease_ttl: Duration,
    /// Heartbeats are due this often.
    #[serde(with = "oxcart_service::config::duration")]
    pub heartbeat_interval: Duration,
    /// A session that sends or reads nothing for this long is dropped.
    #[serde(with = "oxcart_service::config::duration")]
    pub session_timeout: Duration,
    /// Sessions of this replica at most; 1 or more.
    pub max_sessions: usize,
    /// Leases that one session may hold at once at most; larger windows are cut to it.
    pub max_slots: u32,
    /// Queues that one window may name.
    pub max_queues_per_session: usize,
    /// Messages that may wait for a session to read them.
    pub session_buffer: usize,
    /// Queue partitions that this replica keeps moving at most.
    pub max_partitions: usize,
    /// Calls of one kind that may wait for one partition.
    pub max_waiting_calls: usize,
    /// While there is free room, a partition is asked again after this long even when nothing was announced.
    #[serde(with = "oxcart_service::config::duration")]
    pub grant_poll: Duration,
    /// Due entries and expired leases are looked at this often when no timer says sooner.
    #[serde(with = "oxcart_service::config::duration")]
    pub tick_period: Duration,
    /// The engine's list of partitions is read this often.
    #[serde(with = "oxcart_service::config::duration")]
    pub discovery_period: Duration,
    /// After an outage of the engine longer than this, expired leases are left alone for one lease, so that holders come first.
    #[serde(with = "oxcart_service::config::duration")]
    pub outage_threshold: Duration,
    /// Readers of the journal at most: every watcher of monitor is one.
    pub max_journal_readers: usize,
    /// The journal is read this often even when nothing was announced.
    #[serde(with = "oxcart_service::config::duration")]
    pub journal_poll: Duration,
    /// A journal stream that has nothing to say sends a sign of life this often.
    #[serde(with = "oxcart_service::config::duration")]
    pub journal_progress: Duration,
    /// Share of a queue's grants, in percent, that may be retries; beyond it, and beyond the floor, backoffs are stretched. 0 for
    /// no budget.
    pub retry_share_percent: u32,
    /// Retries of a queue per second that are not stretched, whatever it grants.
    pub retry_floor_per_second: u32,
    /// Longest time that the budget adds to a backoff.
    #[serde(with = "oxcart_service::config::duration")]
    pub retry_stretch: Duration,
    /// Entries that a partition holds at most, as the engine has it: told by `GetQueueInfo`.
    pub window: u64,
}

impl Config {
    /// What the retry budget of a queue allows.
    pub(crate) fn retry_allowance(&self) -> Allowance {
        Allowance {
            share: f64::from(self.retry_share_percent) / 100.0,
            floor: f64::from(self.retry_floor_per_second),
            max_stretch: self.retry_stretch,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deployment: "oxcart".to_owned(),
            claim_ttl: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(10),
            session_timeout: Duration::from_secs(15),
            max_sessions: 1000,
            max_slots: 10_000,
            max_queues_per_session: 100,
            session_buffer: 64,
            max_partitions: 1000,
            max_waiting_calls: 1024,
            grant_poll: Duration::from_millis(250),
            tick_period: Duration::from_secs(1),
            discovery_period: Duration::from_secs(5),
            outage_threshold: Duration::from_secs(5),
            max_journal_readers: 320,
            journal_poll: Duration::from_millis(500),
            journal_progress: Duration::from_secs(15),
            retry_share_percent: 20,
            retry_floor_per_second: 10,
            retry_stretch: Duration::from_secs(120),
            window: 100_000,
        }
    }
}
