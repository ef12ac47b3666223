//! The dispatcher as a component.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use oxcart_proto::pb::dispatcher::v1::{
    dispatcher_service_server::{DispatcherServiceServer, SERVICE_NAME as DISPATCHER_SERVICE},
    session_service_server::{SERVICE_NAME as SESSION_SERVICE, SessionServiceServer},
};
use oxcart_queue::QueueEngine;
use oxcart_service::{Component, Metrics, NotReady, Readiness, ServiceError};
use oxcart_types::{Clock, IdSource};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{config::Config, core::Core, grpc, metrics::DispatcherMetrics};

/// Leases stop counting this long after the engine took them back.
const PRUNE_GRACE: Duration = Duration::from_secs(1);

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
        let metrics = DispatcherMetrics::register(&deps.metrics);
        Self { core: Core::new(config, deps.engine, deps.clock, deps.ids, metrics) }
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
        follow(&self.core, &shutdown).await;
        self.core.draining.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
        Ok(())
    }
}

/// Passes wake-ups of other replicas on, finds partitions that others made, and forgets leases that nobody can hold any more.
async fn follow(core: &Arc<Core>, shutdown: &CancellationToken) {
    let mut wakeups = core.engine.wakeups();
    let mut discovery = tokio::time::interval(core.config.discovery_period);
    let mut prune = tokio::time::interval(Duration::from_secs(1));
    let mut announced = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            woken = wakeups.recv(), if announced => match woken {
                Ok(partition) => core.wake(&partition),
                Err(RecvError::Lagged(_)) => core.wake_all(),
                // The engine announces nothing any more; the poll goes on.
                Err(RecvError::Closed) => announced = false,
            },
            _ = discovery.tick() => discover(core).await,
            _ = prune.tick() => {
                let (pruned, queues) = core.sessions.prune(Instant::now(), PRUNE_GRACE);
                core.metrics.leases_pruned.inc_by(pruned as u64);
                for queue in queues {
                    core.wake_queue(&queue);
                }
            }
        }
    }
}

async fn discover(core: &Arc<Core>) {
    let began = Instant::now();
    let result = core.engine.partitions().await;
    core.observe("partitions", 1, began, &result);
    for partition in result.into_iter().flatten() {
        if let Err(error) = core.lane(&partition) {
            tracing::warn!(%error, "a partition is not kept moving by this replica");
            return;
        }
    }
}
