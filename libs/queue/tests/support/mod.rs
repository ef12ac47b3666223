//! Engines to test, each with a time that the test moves.

#![allow(dead_code, unreachable_pub, reason = "shared by several test binaries, none of which uses all of it")]

pub mod items;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::DateTime;
use oxcart_queue::{EngineOptions, MemoryEngine, Partition, PartitionStats, QueueEngine, RedisEngine, RedisOptions};
use oxcart_testkit::RedisServer;
use oxcart_types::{Clock as _, ManualClock, Timestamp};

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Redis,
}

/// An engine and its surroundings.
pub struct Rig {
    pub engine: Arc<dyn QueueEngine>,
    clock: ManualClock,
    redis_clock: Option<RedisClock>,
}

/// A key in Redis that an engine takes for its clock.
struct RedisClock {
    server: &'static RedisServer,
    key: String,
}

impl RedisClock {
    async fn set(&self, now: Timestamp) {
        self.server.command(&format!("SET {} {}", self.key, now.timestamp_millis())).await.expect("SET");
    }
}

impl Rig {
    /// An engine with the default options, at a time that stands still.
    pub async fn new(backend: Backend) -> Self {
        Self::with(backend, EngineOptions::default()).await
    }

    /// An engine at a time that stands still. Rigs share one Redis, each in a deployment of its own.
    pub async fn with(backend: Backend, options: EngineOptions) -> Self {
        let clock = ManualClock::at(start());
        match backend {
            Backend::Memory => {
                let engine = Arc::new(MemoryEngine::new(options, Arc::new(clock.clone())));
                Self { engine, clock, redis_clock: None }
            }
            Backend::Redis => {
                let server = RedisServer::shared().await.expect("a redis-server");
                let options = EngineOptions { deployment: deployment(), ..options };
                let redis_clock = RedisClock { server, key: format!("clock:{}", options.deployment) };
                redis_clock.set(clock.now()).await;
                let redis = RedisOptions { clock_key: Some(redis_clock.key.clone()), ..redis_options(server) };
                let engine = Arc::new(RedisEngine::connect(redis, options).await.expect("connect"));
                Self { engine, clock, redis_clock: Some(redis_clock) }
            }
        }
    }

    /// Moves the time of the engine forward.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        if let Some(redis_clock) = &self.redis_clock {
            redis_clock.set(self.clock.now()).await;
        }
    }

    /// Leases and what is held are the same tasks, and nothing is remembered of tasks that are not there.
    pub async fn assert_redis_is_consistent(&self, stats: &PartitionStats) {
        let RedisClock { server, key } = self.redis_clock.as_ref().expect("an engine on Redis");
        let deployment = key.trim_start_matches("clock:");
        let count = async |command: &str, key: char| {
            let line = format!("{command} ox:{{{deployment}:mail:0}}:{key}");
            server.command(&line).await.expect(command).parse::<u64>().expect("a number")
        };
        assert_eq!(count("HLEN", 'h').await, stats.leased);
        assert!(count("HLEN", 'x').await <= stats.ready + stats.delayed + stats.quarantined);
    }

    /// The time of the engine.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// How to reach a server, with patience: test machines are busy.
pub fn redis_options(server: &RedisServer) -> RedisOptions {
    RedisOptions { timeout: Duration::from_secs(20), ..RedisOptions::new(server.url()) }
}

/// A deployment that no other test of this process has.
pub fn deployment() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn start() -> Timestamp {
    DateTime::from_timestamp_millis(1_800_000_000_000).expect("in range")
}

/// The partition that most tests use.
pub fn partition() -> Partition {
    Partition::first("mail".parse().expect("a name"))
}
