//! The sweepers: each looks at what is there and does what is missing. All are idempotent, and two owners at once are harmless.

mod agenda;
mod audit;
mod decide;
mod feeder;
mod handoffs;
mod keys;
mod operations;
mod orphans;
mod resync;
mod reverse;
mod settings;
mod walk;
mod watch;

use std::{sync::Arc, time::Duration};

use oxcart_service::{
    Metrics,
    reconcile::{self, Progress, ReconcilerSpec},
};
use oxcart_store::StoreError;
use tokio::sync::{Mutex, Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::orphans::end_orphans;
pub(crate) use self::{audit::look as audit_tasks, walk::Walk};
use crate::{backlog, core::Core, dispatcher::DispatcherError};

/// Why a pass failed; it is logged and repeated by the reconciler.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Dispatcher(#[from] DispatcherError),
    #[error("a stored cursor cannot be read")]
    Cursor(#[from] serde_json::Error),
    #[error("{0} hand-offs were not taken")]
    NotTaken(usize),
}

/// Starts all sweepers.
pub(crate) fn spawn(core: &Arc<Core>, tracker: &TaskTracker, shutdown: &CancellationToken, metrics: &Metrics) {
    let sweeps = Sweeps { core, tracker, shutdown, metrics };
    let config = &core.config.sweep;
    sweeps.start("handoffs", config.handoff_period, (), |core, _| handoffs::pass(core));
    sweeps.start("agenda", config.agenda_period, (), |core, _| agenda::pass(core));
    sweeps.start("feeder", config.feeder_period, (), |core, _| feeder::pass(core));
    sweeps.start("watch", config.watch_period, watch::Watch::default(), watch::pass);
    sweeps.start("audit", config.audit_step_period, audit::Audit::default(), audit::pass);
    sweeps.start("backlog", core.config.backlog_period, (), |core, _| backlog::pass(core));
    sweeps.start("reverse_audit", config.reverse_audit_step_period, reverse::ReverseAudit::default(), reverse::pass);
    sweeps.start("settings", config.watch_period, (), |core, _| settings::pass(core));
    sweeps.start("keys", config.keys_period, (), |core, _| keys::pass(core));
    sweeps.start("operations_end", config.keys_period, (), |core, _| operations::tidy(core));
    let wake = Arc::clone(&core.operations_wake);
    sweeps.start_with("operations", config.operations_period, wake, (), |core, _| operations::pass(core));
}

/// Tells the dispatcher the settings of queues once; when it does not answer, the sweeper goes on trying.
pub(crate) async fn tell_settings(core: &Arc<Core>) {
    if let Err(error) = settings::pass(Arc::clone(core)).await {
        let error = oxcart_service::status::chain(&error);
        tracing::info!(error, "the dispatcher is not there yet to hear of the settings of queues");
    }
}

struct Sweeps<'a> {
    core: &'a Arc<Core>,
    tracker: &'a TaskTracker,
    shutdown: &'a CancellationToken,
    metrics: &'a Metrics,
}

impl Sweeps<'_> {
    /// Starts a sweeper whose passes share a state that may be lost.
    fn start<S, F, Fut>(&self, name: &'static str, period: Duration, state: S, pass: F)
    where
        S: Send + 'static,
        F: Fn(Arc<Core>, StateGuard<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Progress, SweepError>> + Send + 'static,
    {
        self.start_with(name, period, Arc::new(Notify::new()), state, pass);
    }

    /// As [`Self::start`]; `wake` ends its sleep.
    fn start_with<S, F, Fut>(&self, name: &'static str, period: Duration, wake: Arc<Notify>, state: S, pass: F)
    where
        S: Send + 'static,
        F: Fn(Arc<Core>, StateGuard<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Progress, SweepError>> + Send + 'static,
    {
        let spec = ReconcilerSpec { name, period, wake };
        let (core, state, pass) = (Arc::clone(self.core), Arc::new(Mutex::new(state)), Arc::new(pass));
        reconcile::spawn(spec, self.tracker, self.shutdown.clone(), self.metrics, move || {
            let (core, state, pass) = (Arc::clone(&core), Arc::clone(&state), Arc::clone(&pass));
            async move { pass(core, state.lock_owned().await).await }
        });
    }
}

type StateGuard<S> = tokio::sync::OwnedMutexGuard<S>;
