//! What can be configured.

use std::time::Duration;

use oxcart_types::Limits;
use serde::{Deserialize, Serialize};

/// Configuration of the submission service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of one payload; at most 1 MiB.
    pub payload_bytes: usize,
    /// Commits in flight at once on MySQL. SQLite has one writer: there it is always one.
    pub commit_lanes: usize,
    /// Tasks of one commit; one call of a client is never split.
    pub commit_tasks: usize,
    /// Bytes of payloads of one commit; one call of a client is never split.
    pub commit_bytes: usize,
    /// Tasks that may wait for a commit; beyond, submits are refused with `RESOURCE_EXHAUSTED`.
    pub waiting_tasks: usize,
    /// Bytes of payloads that may wait for a commit; beyond, submits are refused with `RESOURCE_EXHAUSTED`.
    pub waiting_bytes: usize,
    /// Tasks of one queue that may wait to start; beyond, submits to it are refused with `RESOURCE_EXHAUSTED`. Each replica knows
    /// the number from its last count and what it submitted since, so the bound is passed by what others submit in between.
    pub queue_backlog: u64,
    /// Between two counts of what waits.
    #[serde(with = "oxcart_service::config::duration")]
    pub backlog_period: Duration,
    /// Tasks that the dispatcher may have left unconfirmed; beyond, submits are refused with `UNAVAILABLE`.
    pub unconfirmed_tasks: usize,
    /// Calls to the dispatcher in flight at once.
    pub handoff_lanes: usize,
    /// Time after which a call to the dispatcher is given up.
    #[serde(with = "oxcart_service::config::duration")]
    pub dispatcher_timeout: Duration,
    /// What is due later than this waits in SQL.
    #[serde(with = "oxcart_service::config::duration")]
    pub horizon: Duration,
    /// Life of a request id.
    #[serde(with = "oxcart_service::config::duration")]
    pub request_ttl: Duration,
    /// Operations on many tasks that may be at work at once; beyond, they are refused with `RESOURCE_EXHAUSTED`.
    pub operations: usize,
    /// Cancel rules that may be active at once: every start and every submission asks each of them.
    pub cancel_rules: usize,
    /// Operations and cancel rules are kept as long after their end.
    #[serde(with = "oxcart_service::config::duration")]
    pub operations_kept: Duration,
    /// Calls that may wait for a task at once; beyond, they are refused with `RESOURCE_EXHAUSTED`.
    pub waiters: usize,
    /// Longest wait of one `WaitTask`.
    #[serde(with = "oxcart_service::config::duration")]
    pub max_wait: Duration,
    /// A waiter reads SQL this often, also when nothing was heard.
    #[serde(with = "oxcart_service::config::duration")]
    pub reread_period: Duration,
    /// The sweepers.
    pub sweep: SweepConfig,
}

/// Configuration of the sweepers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepConfig {
    /// Hand-offs that are older than this are offered again.
    #[serde(with = "oxcart_service::config::duration")]
    pub handoff_age: Duration,
    /// Between two looks at stale hand-offs.
    #[serde(with = "oxcart_service::config::duration")]
    pub handoff_period: Duration,
    /// Between two looks at the agenda.
    #[serde(with = "oxcart_service::config::duration")]
    pub agenda_period: Duration,
    /// Between two looks for room in the queues.
    #[serde(with = "oxcart_service::config::duration")]
    pub feeder_period: Duration,
    /// Between two looks at the incarnations of the queues.
    #[serde(with = "oxcart_service::config::duration")]
    pub watch_period: Duration,
    /// Between two steps of the audit: with `audit_rows` its rate.
    #[serde(with = "oxcart_service::config::duration")]
    pub audit_step_period: Duration,
    /// From the end of an audit cycle to the next.
    #[serde(with = "oxcart_service::config::duration")]
    pub audit_rest: Duration,
    /// Tasks of one step of the audit or of a resync; at most 1000.
    pub audit_rows: usize,
    /// Younger tasks are left to the normal path.
    #[serde(with = "oxcart_service::config::duration")]
    pub audit_min_age: Duration,
    /// Between two steps of the reverse audit over the queues: with `audit_rows` its rate.
    #[serde(with = "oxcart_service::config::duration")]
    pub reverse_audit_step_period: Duration,
    /// From the end of a cycle of the reverse audit to the next.
    #[serde(with = "oxcart_service::config::duration")]
    pub reverse_audit_rest: Duration,
    /// An open run that is older than this and unknown to the dispatcher is offered again: a lease and 45 s.
    #[serde(with = "oxcart_service::config::duration")]
    pub open_run_age: Duration,
    /// Between two deletions of expired keys.
    #[serde(with = "oxcart_service::config::duration")]
    pub keys_period: Duration,
    /// Between two looks for operations on many tasks; a new one does not wait for it.
    #[serde(with = "oxcart_service::config::duration")]
    pub operations_period: Duration,
    /// Between two looks at what still runs of a tree that is cancelled.
    #[serde(with = "oxcart_service::config::duration")]
    pub tree_round: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            payload_bytes: Limits::default().payload_bytes,
            commit_lanes: 2,
            commit_tasks: 2000,
            commit_bytes: 16 * 1024 * 1024,
            waiting_tasks: 20_000,
            waiting_bytes: 128 * 1024 * 1024,
            queue_backlog: 10_000_000,
            backlog_period: Duration::from_secs(10),
            unconfirmed_tasks: 100_000,
            handoff_lanes: 4,
            dispatcher_timeout: Duration::from_secs(5),
            horizon: Duration::from_secs(15 * 60),
            request_ttl: Duration::from_secs(24 * 3600),
            operations: 100,
            cancel_rules: 100,
            operations_kept: Duration::from_secs(30 * 24 * 3600),
            waiters: 50_000,
            max_wait: Duration::from_secs(55),
            reread_period: Duration::from_secs(3),
            sweep: SweepConfig::default(),
        }
    }
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            handoff_age: Duration::from_secs(10),
            handoff_period: Duration::from_secs(5),
            agenda_period: Duration::from_secs(1),
            feeder_period: Duration::from_secs(1),
            watch_period: Duration::from_secs(5),
            audit_step_period: Duration::from_millis(250),
            audit_rest: Duration::from_secs(60),
            audit_rows: 1000,
            audit_min_age: Duration::from_secs(60),
            reverse_audit_step_period: Duration::from_secs(1),
            reverse_audit_rest: Duration::from_secs(60),
            open_run_age: Duration::from_secs(75),
            keys_period: Duration::from_secs(60),
            operations_period: Duration::from_secs(1),
            tree_round: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Bounds that outside input meets.
    pub(crate) fn limits(&self) -> Limits {
        Limits { payload_bytes: self.payload_bytes.min(Limits::PAYLOAD_HARD_BYTES) }
    }
}

impl SweepConfig {
    /// [`Self::audit_rows`] within what one call to the dispatcher takes.
    pub(crate) fn rows(&self) -> usize {
        self.audit_rows.clamp(1, Limits::BATCH_ITEMS)
    }
}
