//! The service: its parts and its background loops.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use oxcart_proto::pb::{
    dispatcher::v1::dispatcher_service_client::DispatcherServiceClient, monitor::v1::monitor_service_server::MonitorServiceServer,
};
use oxcart_service::{
    Component, Metrics, NotReady, Readiness, ServiceError,
    page::PageTokens,
    reconcile::{self, Progress, ReconcilerSpec},
    server::MAX_MESSAGE_BYTES,
};
use oxcart_store::Store;
use oxcart_types::{Clock, IdSource};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::RoutesBuilder, transport::Channel};

use crate::{
    config::Config,
    error::MonitorError,
    grpc::{Api, all_queues},
    metrics::MonitorMetrics,
    queue_metrics::Shown,
    recorder::Recorder,
    registry,
    retention::Retention,
};

/// What the service needs from its process.
pub struct Deps {
    /// SQL.
    pub store: Store,
    /// The dispatcher.
    pub dispatcher: Channel,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// The monitor service.
pub struct Monitor {
    core: Arc<Core>,
    ids: Arc<dyn IdSource>,
    registry: Metrics,
}

/// What the RPCs share.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) dispatcher: DispatcherServiceClient<Channel>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) tokens: PageTokens,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) metrics: MonitorMetrics,
    /// Cancelled when the service stops: ends the watches.
    pub(crate) stopping: CancellationToken,
}

impl Monitor {
    /// Puts the service together. Nothing runs before [`Component::run`].
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Self {
        let Deps { store, dispatcher, clock, ids, metrics } = deps;
        // A batch of the journal carries small results and may be larger than what may be submitted.
        let dispatcher = DispatcherServiceClient::new(dispatcher).max_decoding_message_size(4 * MAX_MESSAGE_BYTES);
        let core = Core {
            store,
            dispatcher,
            clock,
            tokens: PageTokens::new(config.page_token_key.expose()),
            watchers: Arc::new(Semaphore::new(config.max_watchers)),
            metrics: MonitorMetrics::register(&metrics),
            stopping: CancellationToken::new(),
            config,
        };
        Self { core: Arc::new(core), ids, registry: metrics }
    }

    fn start_registry(&self, tracker: &TaskTracker, shutdown: CancellationToken) {
        let spec =
            ReconcilerSpec { name: "worker_registry", period: self.core.config.registry.period, wake: Arc::new(Notify::new()) };
        let core = Arc::clone(&self.core);
        reconcile::spawn(spec, tracker, shutdown, &self.registry, move || {
            let core = Arc::clone(&core);
            async move {
                let forget_after = core.config.registry.forget_after;
                let seen = registry::refresh(&core.store, &core.dispatcher, core.clock.now(), forget_after).await?;
                core.metrics.sessions_seen(seen);
                Ok::<_, MonitorError>(Progress::Idle)
            }
        });
    }

    fn start_queue_metrics(&self, tracker: &TaskTracker, shutdown: CancellationToken) {
        let config = &self.core.config.queue_metrics;
        let spec = ReconcilerSpec { name: "queue_metrics", period: config.period, wake: Arc::new(Notify::new()) };
        let (core, shown) = (Arc::clone(&self.core), Arc::new(Mutex::new(Shown::new(config.max_queues))));
        reconcile::spawn(spec, tracker, shutdown, &self.registry, move || {
            let (core, shown) = (Arc::clone(&core), Arc::clone(&shown));
            async move {
                let queues = all_queues(&core).await;
                let seen = queues.inspect_err(|_| core.metrics.queues.show(Vec::new()))?;
                let folded = shown.lock().unwrap_or_else(PoisonError::into_inner).fold(seen);
                core.metrics.queues.show(folded);
                Ok::<_, MonitorError>(Progress::Idle)
            }
        });
    }

    fn start_retention(&self, tracker: &TaskTracker, shutdown: CancellationToken) {
        let spec = ReconcilerSpec { name: "retention", period: self.core.config.retention.rest, wake: Arc::new(Notify::new()) };
        let (core, state) = (Arc::clone(&self.core), Arc::new(tokio::sync::Mutex::new(Retention::default())));
        reconcile::spawn(spec, tracker, shutdown, &self.registry, move || {
            let (core, state) = (Arc::clone(&core), Arc::clone(&state));
            async move { state.lock().await.pass(&core).await }
        });
    }

    fn start_recorder(&self, tracker: &TaskTracker, shutdown: CancellationToken) {
        let recorder = Recorder {
            store: self.core.store.clone(),
            dispatcher: self.core.dispatcher.clone(),
            clock: Arc::clone(&self.core.clock),
            ids: Arc::clone(&self.ids),
            metrics: self.core.metrics.clone(),
            config: self.core.config.recorder.clone(),
        };
        tracker.spawn(recorder.run(shutdown));
    }
}

#[async_trait]
impl Component for Monitor {
    fn name(&self) -> &'static str {
        "monitor"
    }

    fn grpc_services(&self) -> &'static [&'static str] {
        &["oxcart.monitor.v1.MonitorService"]
    }

    fn register(&self, routes: &mut RoutesBuilder) {
        let service = MonitorServiceServer::new(Api(Arc::clone(&self.core)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            // A page of 1000 tasks with long errors is larger than what may be asked for.
            .max_encoding_message_size(4 * MAX_MESSAGE_BYTES);
        routes.add_service(service);
    }

    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(StoreAnswers(self.core.store.clone()))
    }

    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let tracker = TaskTracker::new();
        self.start_registry(&tracker, shutdown.clone());
        self.start_queue_metrics(&tracker, shutdown.clone());
        self.start_recorder(&tracker, shutdown.clone());
        self.start_retention(&tracker, shutdown.clone());
        tracker.close();
        shutdown.cancelled().await;
        self.core.stopping.cancel();
        tracker.wait().await;
        Ok(())
    }
}

/// Ready while SQL answers. Without the dispatcher most of it still works, and what does not says so itself.
struct StoreAnswers(Store);

#[async_trait]
impl Readiness for StoreAnswers {
    async fn check(&self) -> Result<(), NotReady> {
        self.0.ping().await.map_err(|error| NotReady(error.to_string()))
    }
}
