//! Simulated time: one true time, and the clocks of processes, which stop, jump and disagree.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use oxcart_types::{Clock, HandoffId, IdSource, LeaseToken, TaskId, Timestamp, WorkerId};
use tokio::time::Instant;
use uuid::Uuid;

use crate::rng::Rng;

/// When every world begins.
const EPOCH_SECONDS: i64 = 1_800_000_000;
/// What the boot clock showed then: nobody may take a moment near zero for one long ago.
const UPTIME: Duration = Duration::from_secs(10_000);

thread_local! {
    static CURRENT: RefCell<Option<Arc<ProcessTime>>> = const { RefCell::new(None) };
}

/// The time of day at a true time.
#[must_use]
pub fn wall(now: Duration) -> Timestamp {
    let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_timestamp_micros(EPOCH_SECONDS * 1_000_000 + micros).unwrap_or_default()
}

/// The time of one process.
#[derive(Debug)]
pub struct ProcessTime {
    /// True time at its start.
    booted: Duration,
    /// What its runtime's clock showed then.
    base: Instant,
    /// Milliseconds for which its machine was suspended: its monotonic clock stood, its boot clock did not.
    suspended: AtomicU64,
    /// Milliseconds by which its time of day is ahead.
    skew: AtomicI64,
}

impl ProcessTime {
    /// Of a process whose runtime, the current one, begins now.
    #[must_use]
    pub fn begin(now: Duration, skew_ms: i64) -> Arc<Self> {
        Arc::new(Self { booted: now, base: Instant::now(), suspended: AtomicU64::new(0), skew: AtomicI64::new(skew_ms) })
    }

    /// True time as far as this process has come. Within its runtime only.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.booted + self.base.elapsed() + Duration::from_millis(self.suspended.load(Ordering::Relaxed))
    }

    /// What its runtime's clock shows at a true time.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        let suspended = Duration::from_millis(self.suspended.load(Ordering::Relaxed));
        self.base + at.saturating_sub(self.booted).saturating_sub(suspended)
    }

    /// Its machine slept for this long.
    pub fn suspend(&self, by: Duration) {
        self.suspended.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Sets its time of day wrong.
    pub fn set_skew(&self, ms: i64) {
        self.skew.store(ms, Ordering::Relaxed);
    }

    /// Runs something as this process.
    pub fn within<T>(self: &Arc<Self>, run: impl FnOnce() -> T) -> T {
        CURRENT.with(|current| *current.borrow_mut() = Some(Arc::clone(self)));
        let value = run();
        CURRENT.with(|current| *current.borrow_mut() = None);
        value
    }
}

/// True time as far as the process has come that runs on this thread now; `None` outside of all.
#[must_use]
pub fn current() -> Option<Duration> {
    CURRENT.with(|current| current.borrow().as_ref().map(|time| time.now()))
}

/// What the boot clock of the process shows that runs on this thread now.
pub(crate) fn boot_clock() -> Option<Duration> {
    let now = CURRENT.try_with(|current| current.borrow().as_ref().map(|time| time.now()));
    now.ok().flatten().map(|now| now + UPTIME)
}

/// The time of day of one process.
#[derive(Debug, Clone)]
pub struct ProcessClock(pub Arc<ProcessTime>);

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        wall(self.0.now()) + TimeDelta::milliseconds(self.0.skew.load(Ordering::Relaxed))
    }
}

/// The clock of the store behind the queue engine: true time, and never back, although processes are called one after the
/// other.
#[derive(Debug, Default)]
pub struct EngineClock(Mutex<Duration>);

impl Clock for EngineClock {
    fn now(&self) -> Timestamp {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = current().unwrap_or_default().max(*last);
        wall(*last)
    }
}

/// Ids that follow from the seed.
pub struct Ids {
    clock: ProcessClock,
    rng: Mutex<Rng>,
    worker: WorkerId,
}

impl Ids {
    /// Of one process.
    #[must_use]
    pub fn new(clock: ProcessClock, mut rng: Rng) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.next().to_be_bytes());
        let worker = WorkerId::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid());
        Self { clock, rng: Mutex::new(rng), worker }
    }

    fn bytes(&self) -> [u8; 16] {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        ((u128::from(rng.next()) << 64) | u128::from(rng.next())).to_be_bytes()
    }

    fn ordered(&self) -> Uuid {
        let millis = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or_default();
        let mut tail = [0; 10];
        tail.copy_from_slice(&self.bytes()[..10]);
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}

impl IdSource for Ids {
    fn task_id(&self) -> TaskId {
        TaskId::from_uuid(self.ordered())
    }

    fn handoff_id(&self) -> HandoffId {
        HandoffId::from_uuid(self.ordered())
    }

    fn lease_token(&self) -> LeaseToken {
        LeaseToken::from_bytes(self.bytes())
    }

    fn worker_id(&self) -> WorkerId {
        self.worker
    }
}
