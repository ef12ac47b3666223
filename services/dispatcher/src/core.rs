//! What the parts of one dispatcher share.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use oxcart_queue::{Partition, QueueEngine, QueueError};
use oxcart_service::{
    Metrics,
    reconcile::{self, Progress, ReconcilerSpec},
};
use oxcart_types::{Clock, IdSource, QueueName};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    config::Config,
    error::DispatcherError,
    metrics::DispatcherMetrics,
    partition::Lane,
    retry_budget::RetryBudgets,
    session::{Sessions, Unheard},
};

/// What the parts of one dispatcher share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) engine: Arc<dyn QueueEngine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) metrics: DispatcherMetrics,
    /// Metrics of the process, where reconcilers are counted.
    process: Metrics,
    pub(crate) sessions: Sessions,
    pub(crate) retry_budgets: RetryBudgets,
    /// Cancels that wait for their holders.
    pub(crate) unheard: Unheard,
    /// Cancelled first: no new grants, sessions are sent elsewhere.
    pub(crate) draining: CancellationToken,
    /// Background tasks, waited for at shutdown.
    pub(crate) tasks: TaskTracker,
    lanes: RwLock<HashMap<Partition, Arc<Lane>>>,
    outage: Mutex<Outage>,
}

/// When the engine last failed to answer.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    hold_until: Option<Instant>,
}

impl Core {
    pub(crate) fn new(
        config: Config,
        engine: Arc<dyn QueueEngine>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        process: Metrics,
    ) -> Arc<Self> {
        let metrics = DispatcherMetrics::register(&process);
        let retry_budgets = RetryBudgets::new(config.retry_allowance(), config.max_partitions);
        let sessions = Sessions::new(config.max_sessions, metrics.sessions.clone());
        let unheard = Unheard::new(config.lease_ttl);
        Arc::new(Self {
            config,
            engine,
            clock,
            ids,
            metrics,
            process,
            sessions,
            retry_budgets,
            unheard,
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
            lanes: RwLock::default(),
            outage: Mutex::default(),
        })
    }

    /// Starts a reconciler of this dispatcher, which ends when it drains. Its passes do not fail: [`Core::observe`] sees what the
    /// engine refuses. A pass that panics is logged, counted and followed by the next.
    pub(crate) fn reconcile<F, Fut>(&self, spec: ReconcilerSpec, span: &tracing::Span, mut pass: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Progress> + Send + 'static,
    {
        let span = span.clone();
        let work = move || {
            let pass = pass();
            async move { Ok::<_, Infallible>(pass.await) }.instrument(span.clone())
        };
        reconcile::spawn(spec, &self.tasks, self.draining.clone(), &self.process, work);
    }

    /// The lane of a partition, made when it is first needed.
    pub(crate) fn lane(self: &Arc<Self>, partition: &Partition) -> Result<Arc<Lane>, DispatcherError> {
        if let Some(lane) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(partition) {
            return Ok(Arc::clone(lane));
        }
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(partition) {
            return Ok(Arc::clone(lane));
        }
        if lanes.len() >= self.config.max_partitions {
            return Err(DispatcherError::TooManyPartitions(self.config.max_partitions));
        }
        let lane = Lane::start(self, partition.clone());
        lanes.insert(partition.clone(), Arc::clone(&lane));
        Ok(lane)
    }

    /// Wakes the granter of a partition, if it has one.
    pub(crate) fn wake(&self, partition: &Partition) {
        if let Some(lane) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(partition) {
            lane.wake.notify_one();
        }
    }

    /// Wakes the granters of a queue.
    pub(crate) fn wake_queue(&self, queue: &QueueName) {
        self.wake(&Partition::first(queue.clone()));
    }

    /// Wakes all granters.
    pub(crate) fn wake_all(&self) {
        for lane in self.lanes.read().unwrap_or_else(PoisonError::into_inner).values() {
            lane.wake.notify_one();
        }
    }

    /// Notes how an engine call went. A beginning and an end of an outage are logged here, single failures nowhere.
    pub(crate) fn observe<T>(&self, operation: &'static str, items: usize, began: Instant, result: &Result<T, QueueError>) {
        self.metrics.engine_call(operation, items, began.elapsed(), result.is_ok());
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => {
                if let Some(since) = outage.since.take() {
                    let lasted = since.elapsed();
                    tracing::info!(seconds = lasted.as_secs_f64(), "the queue engine answers again");
                    if lasted > self.config.outage_threshold {
                        outage.hold_until = Some(Instant::now() + self.config.lease_ttl);
                    }
                }
            }
            Err(error @ QueueError::Unavailable(_)) => {
                if outage.since.is_none() {
                    outage.since = Some(began);
                    tracing::warn!(operation, error = %oxcart_service::status::chain(error), "the queue engine does not answer");
                }
            }
            Err(error @ (QueueError::Unsafe(_) | QueueError::BadCall(_) | QueueError::Corrupt(_))) => {
                tracing::error!(operation, error = %oxcart_service::status::chain(error), "the queue engine refuses a call");
            }
        }
    }

    /// How long the engine has not answered.
    pub(crate) fn outage(&self) -> Option<Duration> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).since.map(|since| since.elapsed())
    }

    /// Whether expired leases may be taken back: not right after an outage, since holders could not extend them.
    pub(crate) fn may_reap(&self) -> bool {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.since.is_none() && outage.hold_until.is_none_or(|until| until <= Instant::now())
    }
}
