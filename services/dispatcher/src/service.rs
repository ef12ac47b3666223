//! The dispatcher as a component.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use oxcart_proto::pb::dispatcher::v1::{
    dispatcher_service_server::{DispatcherServiceServer, SERVICE_NAME as DISPATCHER_SERVICE},
    session_service_server::{SERVICE_NAME as SESSION_SERVICE, SessionServiceServer},
};
use oxcart_queue::{QueueEngine, Wakeup};
use oxcart_service::{
    Component, Metrics, NotReady, Readiness, ServiceError,
    reconcile::{Progress, ReconcilerSpec},
};
use oxcart_types::{Clock, IdSource};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{config::Config, core::Core, grpc};

/// Leases stop counting this long after the engine took them back.
const PRUNE_GRACE: Duration = Duration::from_secs(1);
/// Such leases are looked for this often.
const PRUNE_PERIOD: Duration = Duration::from_secs(1);
/// An engine that announces nothing is listened to again after this; granters poll meanwhile.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What the dispatcher is given.
pub struct Deps {
    /// The queue engine.
    pub engine: Arc<dyn QueueEngine>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Lease tokens.
    pub ids: Arc<dyn IdSource>,
    /// Metrics of the process.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

/// The dispatcher service.
pub struct Dispatcher {
    core: Arc<Core>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("config", &self.core.config).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher over an engine. Nothing runs before [`Component::run`] and the first call.
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Self {
        Self { core: Core::new(config, deps.engine, deps.clock, deps.ids, deps.metrics) }
    }
}

struct EngineReadiness(Arc<dyn QueueEngine>);

#[async_trait]
impl Readiness for EngineReadiness {
    async fn check(&self) -> Result<(), NotReady> {
        self.0.ping().await.map_err(|error| NotReady(oxcart_service::status::chain(&error)))
    }
}

#[async_trait]
impl Component for Dispatcher {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    fn grpc_services(&self) -> &'static [&'static str] {
        &[DISPATCHER_SERVICE, SESSION_SERVICE]
    }

    fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(DispatcherServiceServer::new(grpc::dispatcher::Service(Arc::clone(&self.core))));
        routes.add_service(SessionServiceServer::new(grpc::session::Service(Arc::clone(&self.core))));
    }

    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(EngineReadiness(Arc::clone(&self.core.engine)))
    }

    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let core = &self.core;
        let spec = |name, period| ReconcilerSpec { name, period, wake: Arc::default() };
        let span = tracing::Span::none();
        let listened = Arc::clone(core);
        core.reconcile(spec("listener", LISTEN_AGAIN), &span, move || listen(Arc::clone(&listened)));
        let discovered = Arc::clone(core);
        core.reconcile(spec("discovery", core.config.discovery_period), &span, move || discover(Arc::clone(&discovered)));
        let pruned = Arc::clone(core);
        core.reconcile(spec("pruner", PRUNE_PERIOD), &span, move || prune(Arc::clone(&pruned)));
        shutdown.cancelled().await;
        self.core.draining.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
        Ok(())
    }
}

/// Passes on what the engine announces: what became ready, through this replica or another, wakes its granter. Ends with the
/// announcements, or when the dispatcher drains.
async fn listen(core: Arc<Core>) -> Progress {
    let mut wakeups = core.engine.wakeups();
    // What was announced while nobody listened.
    core.wake_all();
    loop {
        let woken = tokio::select! {
            () = core.draining.cancelled() => return Progress::Idle,
            woken = wakeups.recv() => woken,
        };
        match woken {
            Ok(Wakeup { partition, ready: true }) => core.wake(&partition),
            Ok(Wakeup { ready: false, .. }) => {}
            Err(RecvError::Lagged(_)) => core.wake_all(),
            Err(RecvError::Closed) => return Progress::Idle,
        }
    }
}

/// Finds partitions that other replicas made.
async fn discover(core: Arc<Core>) -> Progress {
    let began = Instant::now();
    let result = core.engine.partitions().await;
    core.observe("partitions", 1, began, &result);
    for partition in result.into_iter().flatten() {
        if let Err(error) = core.lane(&partition) {
            tracing::warn!(%error, "a partition is not kept moving by this replica");
            break;
        }
    }
    Progress::Idle
}

/// Forgets leases that nobody can hold any more.
async fn prune(core: Arc<Core>) -> Progress {
    let (pruned, queues) = core.sessions.prune(Instant::now(), PRUNE_GRACE);
    core.metrics.leases_pruned.inc_by(pruned as u64);
    for queue in queues {
        core.wake_queue(&queue);
    }
    Progress::Idle
}
