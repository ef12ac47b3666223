//! Settings of a worker.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::builtin::BuiltinConfig;

/// Settings of a worker. Durations are written like `10s` or `500ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name for people; the host name when empty.
    pub display_name: String,
    /// Tasks that run at once; 1 to 10,000.
    pub slots: u32,
    /// Queues to take tasks from, with the share of each: `{ default = 1, mail = 3 }`.
    pub queues: BTreeMap<String, u32>,
    /// Labels for people and search.
    pub labels: BTreeMap<String, String>,
    /// Build of the user's code, shown by `oxcart worker list`.
    pub build_id: String,
    /// Threads that run handlers; the number of cores when 0. They are apart from those that keep the leases alive.
    pub handler_threads: usize,
    /// How the worker talks to the dispatcher.
    pub link: LinkMode,
    /// Tasks of one statement or message at most; 1 to 1000.
    pub batch: usize,
    /// Batches of starts, and batches of ends, that are on their way to the database at once.
    pub lanes: usize,
    /// Time for running handlers to finish after a request to stop, before they are asked to.
    #[serde(with = "oxcart_service::config::duration")]
    pub drain_timeout: Duration,
    /// Time for a handler to stop after it was asked to (timeout, deadline, shutdown), before it is aborted.
    #[serde(with = "oxcart_service::config::duration")]
    pub abort_grace: Duration,
    /// How long a task whose handler is not here is given back for.
    #[serde(with = "oxcart_service::config::duration")]
    pub unknown_handler_delay: Duration,
    /// What becomes of running tasks when nobody can say whether their leases still hold.
    pub lease_uncertain: LeaseUncertain,
    /// Times that a handler may give back a task, in one budget of attempts; a release beyond counts as a failed attempt of kind
    /// `RELEASE_LIMIT`.
    pub max_releases: u32,
    /// Bytes of a result at most; up to 1 MiB.
    pub max_result_bytes: usize,
    /// The built-in handlers.
    pub builtin: BuiltinConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            display_name: String::new(),
            slots: 256,
            queues: BTreeMap::from([("default".to_owned(), 1)]),
            labels: BTreeMap::new(),
            build_id: String::new(),
            handler_threads: 0,
            link: LinkMode::Auto,
            batch: 500,
            lanes: 2,
            drain_timeout: Duration::from_secs(25),
            abort_grace: Duration::from_secs(5),
            unknown_handler_delay: Duration::from_secs(5),
            lease_uncertain: LeaseUncertain::Verify,
            max_releases: 1000,
            max_result_bytes: 256 * 1024,
            builtin: BuiltinConfig::default(),
        }
    }
}

/// How the worker talks to the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkMode {
    /// A stream; long polls when streams do not pass.
    Auto,
    /// A stream only.
    Stream,
    /// Long polls only.
    Unary,
}

/// What becomes of running tasks when nobody can say whether their leases still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseUncertain {
    /// They go on while the database does not say that another worker has them.
    Verify,
    /// They are asked to stop, and given back.
    Cancel,
}

impl Config {
    /// Checks the bounds.
    ///
    /// # Errors
    /// What is out of bounds, for people.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=10_000).contains(&self.slots) {
            return Err(format!("worker.slots is {}; 1 to 10000 are allowed", self.slots));
        }
        if self.queues.is_empty() || self.queues.len() > 256 {
            return Err(format!("worker.queues names {} queues; 1 to 256 are allowed", self.queues.len()));
        }
        for (queue, weight) in &self.queues {
            queue.parse::<oxcart_types::QueueName>().map_err(|invalid| format!("worker.queues: {invalid}"))?;
            if !(1..=1000).contains(weight) {
                return Err(format!("worker.queues.{queue} is {weight}; 1 to 1000 are allowed"));
            }
        }
        if !(1..=oxcart_types::Limits::BATCH_ITEMS).contains(&self.batch) {
            return Err(format!("worker.batch is {}; 1 to 1000 are allowed", self.batch));
        }
        if !(1..=16).contains(&self.lanes) {
            return Err(format!("worker.lanes is {}; 1 to 16 are allowed", self.lanes));
        }
        if self.max_result_bytes > oxcart_types::Limits::PAYLOAD_HARD_BYTES {
            return Err(format!("worker.max_result_bytes is {}; at most 1 MiB is allowed", self.max_result_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_in_bounds_and_mistakes_are_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let queues = BTreeMap::from([("Bad Name".to_owned(), 1)]);
        for config in [
            Config { slots: 0, ..Config::default() },
            Config { queues: BTreeMap::new(), ..Config::default() },
            Config { queues, ..Config::default() },
            Config { batch: 1001, ..Config::default() },
            Config { lanes: 0, ..Config::default() },
            Config { max_result_bytes: 2 << 20, ..Config::default() },
        ] {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
