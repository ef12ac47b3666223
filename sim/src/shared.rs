//! What all processes of a world share: the dice, the log, what was seen, and which faults there are at the moment.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oxcart_ledger::Observation;

use crate::{
    log::{Event, Fate, Log, Pid, seen},
    rng::Rng,
    time,
};

/// How much goes wrong with every single call, in millionths, and how slow things are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// A step of SQL, or a call of the engine, is lost on its way.
    pub lost: u32,
    /// Its answer is lost: it took effect all the same.
    pub unanswered: u32,
    /// A write on a connection breaks it, before or after it arrives.
    pub cut: u32,
    /// A unary call arrives twice.
    pub doubled: u32,
    /// Something takes much longer than usual.
    pub slow: u32,
}

/// The faults of the moment.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// What goes wrong now and then.
    pub rates: Rates,
    /// Until then no step of SQL arrives.
    pub sql_down: Duration,
    /// Until then no call of the queue engine arrives.
    pub engine_down: Duration,
    /// Processes that go down now take their machines along: nobody is told that their connections are gone.
    pub silent: bool,
}

/// What all processes of a world share.
pub struct Shared {
    rng: Mutex<Rng>,
    log: Mutex<Log>,
    seen: Mutex<Vec<Observation>>,
    faults: Mutex<Faults>,
    /// Microseconds; what the scheduler has come to.
    now: AtomicU64,
    sent: AtomicU64,
}

/// What a call meets on its way.
pub enum Way {
    /// Nothing but time.
    Clear(Duration),
    /// It is lost after this time.
    Lost(Duration),
}

impl Shared {
    /// Of a world.
    #[must_use]
    pub fn new(rng: Rng) -> Arc<Self> {
        Arc::new(Self {
            rng: Mutex::new(rng),
            log: Mutex::default(),
            seen: Mutex::default(),
            faults: Mutex::default(),
            now: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    /// The dice.
    pub fn rng(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    /// The log.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// The faults of the moment.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Vec<Observation>> {
        lock(&self.seen)
    }

    /// True time: of the process that runs, else of the scheduler.
    #[must_use]
    pub fn now(&self) -> Duration {
        time::current().unwrap_or_else(|| Duration::from_micros(self.now.load(Ordering::Relaxed)))
    }

    /// The scheduler has come so far.
    pub fn set_now(&self, now: Duration) {
        self.now.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes an event.
    pub fn note(&self, event: Event) {
        self.log().add(self.now(), event);
    }

    /// Notes what a client or a handler saw.
    pub fn see(&self, observation: Observation) {
        if let Some(event) = seen(&observation) {
            self.note(event);
        }
        self.seen().push(observation);
    }

    /// A message went out.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that went out.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Time that something takes.
    #[must_use]
    pub fn latency(&self) -> Duration {
        let slow = self.faults().rates.slow;
        let mut rng = self.rng();
        if rng.chance(slow) { rng.millis(20, 4000) } else { rng.millis(0, 2) }
    }

    /// What a request to a store meets that is away until `down`.
    #[must_use]
    pub fn request(&self, down: impl Fn(&Faults) -> Duration) -> Way {
        let (lost, down) = {
            let faults = self.faults();
            (faults.rates.lost, down(&faults))
        };
        if down > self.now() {
            // Some are refused at once, some hang.
            let mut rng = self.rng();
            return Way::Lost(if rng.percent(70) { rng.millis(1, 5) } else { rng.millis(500, 3000) });
        }
        let time = self.latency();
        if self.rng().chance(lost) { Way::Lost(time) } else { Way::Clear(time) }
    }

    /// What its answer meets.
    #[must_use]
    pub fn answer(&self) -> Way {
        let lost = self.faults().rates.unanswered;
        let time = self.latency();
        if self.rng().chance(lost) { Way::Lost(time) } else { Way::Clear(time) }
    }
}

/// Waits; not at all for no time, so that what could happen at once does.
pub async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Notes the fate of a step or call.
pub fn step(shared: &Shared, by: Pid, what: Option<&'static str>, fate: Fate) {
    shared.note(match what {
        Some(what) => Event::Call { by, what, fate },
        None => Event::Step { by, fate },
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
