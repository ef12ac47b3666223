//! How the pools of connections are used, for metrics.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// How one pool is used. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// What runs on it: `read` or `write` steps, or `all`.
    pub pool: &'static str,
    /// Connections that it may have.
    pub size: usize,
    /// Connections at work.
    pub in_use: usize,
    /// Steps that wait for a connection.
    pub waiting: usize,
    /// Steps that got one.
    pub acquired: u64,
    /// Steps that got none in time.
    pub timed_out: u64,
    /// Time that steps waited, all together.
    pub waited: Duration,
}

/// Counts those who wait for a connection.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    waiting: AtomicUsize,
    acquired: AtomicU64,
    timed_out: AtomicU64,
    waited_us: AtomicU64,
}

/// Somebody who waits; also one who is given up.
pub(crate) struct Wait<'a> {
    meter: &'a Meter,
    began: Instant,
}

impl Meter {
    /// Somebody begins to wait.
    pub(crate) fn begin(&self) -> Wait<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Wait { meter: self, began: Instant::now() }
    }

    /// The numbers.
    pub(crate) fn usage(&self, pool: &'static str, size: usize, free: usize) -> PoolUsage {
        PoolUsage {
            pool,
            size,
            in_use: size.saturating_sub(free),
            waiting: self.waiting.load(Ordering::Relaxed),
            acquired: self.acquired.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
        }
    }
}

impl Wait<'_> {
    /// The wait is over.
    pub(crate) fn end(self, in_time: bool) {
        let counter = if in_time { &self.meter.acquired } else { &self.meter.timed_out };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.meter.waiting.fetch_sub(1, Ordering::Relaxed);
        let waited = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.meter.waited_us.fetch_add(waited, Ordering::Relaxed);
    }
}
