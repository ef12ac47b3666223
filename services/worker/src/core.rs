//! What the parts of a worker share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oxcart_sdk::Handlers;
use oxcart_types::{Clock, Timestamp, WorkerId};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    gate::Gate,
    held::Held,
    metrics::Meters,
    run::Concluded,
    session::{SessionHandle, Settings},
    store::RunStore,
};

/// What the parts of a worker share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) worker: WorkerId,
    pub(crate) started_at: Timestamp,
    pub(crate) handlers: Handlers,
    pub(crate) held: Arc<Held>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) session: SessionHandle,
    pub(crate) settings: watch::Receiver<Settings>,
    pub(crate) session_open: watch::Receiver<bool>,
    /// Bounded by the leases held: each is concluded once.
    pub(crate) concluded: mpsc::UnboundedSender<Concluded>,
    /// Runs handlers, apart from everything that keeps leases alive.
    pub(crate) handler_runtime: Handle,
    pub(crate) meters: Meters,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) released_by_drain: AtomicU64,
    /// Asks the worker to leave, with the time that running tasks get.
    pub(crate) drain: watch::Sender<Option<Duration>>,
    /// True when the worker has nothing left.
    pub(crate) drained: watch::Sender<bool>,
    /// The time for running tasks is over: nothing waits for a dispatcher any more.
    pub(crate) hurry: CancellationToken,
    /// The worker is at its very end: nothing waits for the database any more.
    pub(crate) give_up: CancellationToken,
}

impl Core {
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    /// The database failed: no new tasks until it answers again.
    pub(crate) fn store_failed(&self, step: &'static str, error: &oxcart_store::StoreError) {
        if self.gate.set_store_down(true) {
            tracing::warn!(step, %error, "the database fails; taking no new tasks until it works");
            self.session.window_changed();
        }
        self.meters.store_errors.inc();
    }

    /// The database answered.
    pub(crate) fn store_works(&self) {
        if self.gate.set_store_down(false) {
            tracing::info!("the database works again");
            self.session.window_changed();
        }
    }

    /// Asks the worker to leave; the first to ask sets the time.
    pub(crate) fn request_drain(&self, timeout: Option<Duration>) {
        self.drain.send_if_modified(|asked| {
            let first = asked.is_none();
            asked.get_or_insert(timeout.unwrap_or(self.config.drain_timeout));
            first
        });
    }

    pub(crate) fn count_success(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits between tries of a step: 50 ms doubled to 1 s.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub(crate) const fn new() -> Self {
        Self(Duration::from_millis(50))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}
