//! Periodic work with no input: idempotent, woken by signal and by period, supervised.
//!
//! The same code serves the normal path and recovery: a pass looks at what is there and does what is missing.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use oxcart_types::{Clock, SystemClock, Timestamp};
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{metrics::Metrics, status};

/// Part of the period by which a pass may be late, so that replicas do not march in step.
const JITTER: f64 = 0.1;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left: sleep for a period.
    Idle,
    /// Nothing is left until this has passed: sleep as long, at most a period.
    Until(Duration),
    /// There is more: go on at once.
    More,
}

/// How a reconciler is run.
#[derive(Debug, Clone)]
pub struct ReconcilerSpec {
    /// Name in logs and metrics, for example `feeder`.
    pub name: &'static str,
    /// Longest sleep between two passes, jitter aside.
    pub period: Duration,
    /// Ends a sleep.
    pub wake: Arc<Notify>,
}

/// How a reconciler does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcilerStatus {
    /// Passes so far.
    pub passes: u64,
    /// When a pass last succeeded.
    pub last_success: Option<Timestamp>,
    /// The error of the last pass, if it failed.
    pub last_error: Option<String>,
    /// How long the last pass took.
    pub last_duration: Option<Duration>,
    /// Failures in a row.
    pub failures: u32,
}

/// Sees how a reconciler does, and wakes it.
#[derive(Debug, Clone)]
pub struct ReconcilerHandle {
    wake: Arc<Notify>,
    status: Arc<Mutex<ReconcilerStatus>>,
}

impl ReconcilerHandle {
    /// How it does.
    #[must_use]
    pub fn status(&self) -> ReconcilerStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends its sleep.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Starts a reconciler on `tracker`. A pass that fails is logged and repeated after a backoff; one that panics likewise. Once
/// `shutdown` is cancelled no pass begins, and the one that runs is finished.
pub fn spawn<F, Fut, E>(
    spec: ReconcilerSpec,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
    metrics: &Metrics,
    work: F,
) -> ReconcilerHandle
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Progress, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let handle = ReconcilerHandle { wake: Arc::clone(&spec.wake), status: Arc::default() };
    metrics.reconciler_started(spec.name);
    let supervisor = Supervisor { spec, metrics: metrics.clone(), status: Arc::clone(&handle.status), failures: 0 };
    tracker.spawn(supervisor.run(shutdown, work));
    handle
}

struct Supervisor {
    spec: ReconcilerSpec,
    metrics: Metrics,
    status: Arc<Mutex<ReconcilerStatus>>,
    failures: u32,
}

/// Why a pass failed.
enum Fault<E> {
    Error(E),
    Panic,
}

impl<E: std::error::Error + 'static> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => f.write_str(&status::chain(error)),
            Self::Panic => f.write_str("panicked"),
        }
    }
}

impl Supervisor {
    async fn run<F, Fut, E>(mut self, shutdown: CancellationToken, mut work: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Progress, E>>,
        E: std::error::Error + 'static,
    {
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            // Unwind safe: a pass starts from what is stored, not from what a broken pass left in memory.
            let outcome = match AssertUnwindSafe(async { work().await }).catch_unwind().await {
                Ok(Ok(progress)) => Ok(progress),
                Ok(Err(error)) => Err(Fault::Error(error)),
                Err(_) => Err(Fault::Panic),
            };
            self.note(&outcome, begun.elapsed());
            match outcome {
                // Others get their turn, also when there is always more.
                Ok(Progress::More) => tokio::task::yield_now().await,
                Ok(Progress::Idle) => self.sleep(&shutdown, jittered(self.spec.period)).await,
                Ok(Progress::Until(due)) => self.sleep(&shutdown, due.min(self.spec.period)).await,
                // Only time ends a backoff: signals keep coming while the store is down.
                Err(_) => drop(tokio::time::timeout(backoff(self.failures), shutdown.cancelled()).await),
            }
        }
    }

    async fn sleep(&self, shutdown: &CancellationToken, at_most: Duration) {
        tokio::select! {
            () = self.spec.wake.notified() => {}
            () = tokio::time::sleep(at_most) => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn note<E: std::error::Error + 'static>(&mut self, outcome: &Result<Progress, Fault<E>>, took: Duration) {
        let name = self.spec.name;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.passes += 1;
        status.last_duration = Some(took);
        match outcome {
            Ok(_) => {
                if self.failures > 0 {
                    tracing::info!(reconciler = name, failures = self.failures, "works again");
                }
                let now = SystemClock.now();
                self.failures = 0;
                status.last_success = Some(now);
                status.last_error = None;
                self.metrics.pass_ended(name, "ok", took, Some(now.timestamp()));
            }
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                let text = fault.to_string();
                let retry_in = backoff(self.failures);
                tracing::warn!(reconciler = name, failures = self.failures, ?retry_in, error = text, "pass failed");
                status.last_error = Some(text);
                self.metrics.pass_ended(name, if matches!(fault, Fault::Panic) { "panic" } else { "error" }, took, None);
            }
        }
        status.failures = self.failures;
    }
}

fn jittered(period: Duration) -> Duration {
    period.mul_f64(1.0 + rand::random::<f64>() * JITTER)
}

/// Doubles with each failure in a row.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Fixture {
        handle: ReconcilerHandle,
        tracker: TaskTracker,
        shutdown: CancellationToken,
        metrics: Metrics,
    }

    fn start(work: impl Fn(u32) -> Result<Progress, std::io::Error> + Send + Sync + 'static) -> Fixture {
        let (tracker, shutdown, metrics) = (TaskTracker::new(), CancellationToken::new(), Metrics::new());
        let spec = ReconcilerSpec { name: "test", period: HOUR, wake: Arc::default() };
        let (passes, work) = (Arc::new(AtomicU32::new(0)), Arc::new(work));
        let handle = spawn(spec, &tracker, shutdown.clone(), &metrics, move || {
            let (pass, work) = (passes.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&work));
            async move { work(pass) }
        });
        Fixture { handle, tracker, shutdown, metrics }
    }

    async fn passes(handle: &ReconcilerHandle, at_least: u64) {
        while handle.status().passes < at_least {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_on_while_there_is_more_then_by_signal_or_period() {
        let fixture = start(|pass| Ok(if pass < 3 { Progress::More } else { Progress::Idle }));
        let begun = Instant::now();
        passes(&fixture.handle, 3).await;
        fixture.handle.wake();
        passes(&fixture.handle, 4).await;
        assert!(begun.elapsed() < HOUR);
        // Longer than a period with its jitter, and shorter than two.
        tokio::time::sleep(HOUR * 3 / 2).await;
        assert_eq!(fixture.handle.status().passes, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn sleeps_no_longer_than_until_the_next_thing_is_due() {
        let fixture = start(|pass| Ok(Progress::Until(if pass == 1 { HOUR / 4 } else { HOUR * 9 })));
        passes(&fixture.handle, 1).await;
        let begun = Instant::now();
        passes(&fixture.handle, 2).await;
        assert!((HOUR / 4..HOUR / 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        passes(&fixture.handle, 3).await;
        assert!((HOUR..HOUR * 3 / 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn survives_errors_and_panics_and_says_so() {
        let fixture = start(|pass| match pass {
            1 => Err(std::io::Error::other("disk full")),
            2 => panic!("told to"),
            _ => Ok(Progress::Idle),
        });
        passes(&fixture.handle, 1).await;
        assert_eq!(fixture.handle.status().last_error.as_deref(), Some("disk full"));
        passes(&fixture.handle, 2).await;
        assert_eq!((fixture.handle.status().last_error.as_deref(), fixture.handle.status().failures), (Some("panicked"), 2));
        passes(&fixture.handle, 3).await;
        let status = fixture.handle.status();
        assert!(status.last_error.is_none() && status.last_success.is_some() && status.failures == 0, "{status:?}");
        let text = fixture.metrics.encode().unwrap();
        for outcome in ["ok", "error", "panic"] {
            assert!(text.contains(&format!("oxcart_reconciler_passes_total{{name=\"test\",outcome=\"{outcome}\"}} 1")), "{text}");
        }
    }

    // Not with paused time: it moves only while nothing runs, and here something always does.
    #[tokio::test]
    async fn ends_with_the_shutdown() {
        let fixture = start(|_| Ok(Progress::More));
        passes(&fixture.handle, 10).await;
        fixture.shutdown.cancel();
        fixture.tracker.close();
        fixture.tracker.wait().await;
    }

    #[test]
    fn backoff_is_bounded() {
        assert_eq!(backoff(1), FIRST_BACKOFF);
        assert_eq!(backoff(2), FIRST_BACKOFF * 2);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }
}
