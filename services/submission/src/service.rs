//! Putting the service together and running it.

use std::sync::Arc;

use async_trait::async_trait;
use oxcart_proto::pb::submission::v1::{
    operation_service_server::{self, OperationServiceServer},
    queue_service_server::{QueueServiceServer, SERVICE_NAME as QUEUE_SERVICE},
    submission_service_server::{SERVICE_NAME, SubmissionServiceServer},
    verify_service_server::{SERVICE_NAME as VERIFY_SERVICE, VerifyServiceServer},
};
use oxcart_service::{Component, Metrics, NotReady, Readiness, ServiceError};
use oxcart_store::Store;
use oxcart_types::{Clock, IdSource, Limits};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::RoutesBuilder, transport::Channel};

use crate::{
    backlog::Backlogs,
    cancel::Canceller,
    commit::{CommitDeps, Committer},
    config::Config,
    core::Core,
    dispatcher::Dispatcher,
    grpc::{Api, OperationApi, QueueApi, VerifyApi},
    handoff::Handoffs,
    metrics::Meters,
    reader::Reader,
    replay::{ReplayDeps, Replayer},
    sweep,
    wait::Waiters,
};

/// What the service stands on.
pub struct Deps {
    /// SQL.
    pub store: Store,
    /// The dispatcher.
    pub dispatcher: Channel,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and tokens.
    pub ids: Arc<dyn IdSource>,
    /// The metrics of the process.
    pub metrics: Metrics,
}

/// The submission service.
pub struct Submission {
    core: Arc<Core>,
    metrics: Metrics,
}

impl Submission {
    /// Puts the service together. Must be called within a runtime: the loops of its batches begin.
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Self {
        let Deps { store, dispatcher, clock, ids, metrics } = deps;
        let meters = Meters::register(&metrics);
        let dispatcher = Dispatcher::new(dispatcher, config.dispatcher_timeout);
        let handoffs = Handoffs::spawn(&config, store.clone(), dispatcher.clone(), Arc::clone(&clock), meters.clone());
        let commits = CommitDeps {
            store: store.clone(),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            handoffs: handoffs.clone(),
            meters: meters.clone(),
        };
        let replays = ReplayDeps {
            store: store.clone(),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            handoffs: handoffs.clone(),
            meters: meters.clone(),
        };
        let waiters = Waiters::new(config.waiters, meters.clone());
        let core = Core {
            canceller: Canceller::spawn(store.clone(), dispatcher.clone(), waiters.clone(), config.waiting_tasks),
            operations_wake: Arc::new(Notify::new()),
            limits: config.limits(),
            backlogs: Backlogs::new(config.queue_backlog),
            committer: Committer::spawn(&config, commits),
            reader: Reader::spawn(&store, config.waiters.max(1)),
            replayer: Replayer::spawn(config.waiting_tasks.max(1), replays),
            waiters,
            tracker: TaskTracker::new(),
            verifying: Arc::default(),
            stopping: CancellationToken::new(),
            config,
            store,
            dispatcher,
            clock,
            ids,
            meters,
            handoffs,
        };
        Self { core: Arc::new(core), metrics }
    }
}

struct StoreReadiness(Store);

#[async_trait]
impl Readiness for StoreReadiness {
    async fn check(&self) -> Result<(), NotReady> {
        // Not the dispatcher: without it tasks are accepted all the same.
        self.0.ping().await.map_err(|error| NotReady(error.to_string()))
    }
}

#[async_trait]
impl Component for Submission {
    fn name(&self) -> &'static str {
        "submission"
    }

    fn grpc_services(&self) -> &'static [&'static str] {
        &[SERVICE_NAME, operation_service_server::SERVICE_NAME, QUEUE_SERVICE, VERIFY_SERVICE]
    }

    fn register(&self, routes: &mut RoutesBuilder) {
        let api = Api(Arc::clone(&self.core));
        routes.add_service(SubmissionServiceServer::new(api).max_decoding_message_size(Limits::MESSAGE_BYTES));
        routes.add_service(QueueServiceServer::new(QueueApi(Arc::clone(&self.core))));
        routes.add_service(VerifyServiceServer::new(VerifyApi(Arc::clone(&self.core))));
        let operations = OperationApi(Arc::clone(&self.core));
        routes.add_service(OperationServiceServer::new(operations).max_decoding_message_size(Limits::MESSAGE_BYTES));
    }

    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(StoreReadiness(self.core.store.clone()))
    }

    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let core = self.core;
        let sweepers = TaskTracker::new();
        // Before anything is offered: a queue in memory begins without settings.
        sweep::tell_settings(&core).await;
        sweep::spawn(&core, &sweepers, &shutdown, &self.metrics);
        core.waiters.follow(&core.dispatcher, &shutdown).await;
        // Waits and streams end; what they began is finished.
        core.stopping.cancel();
        sweepers.close();
        sweepers.wait().await;
        core.tracker.close();
        core.tracker.wait().await;
        core.handoffs.drain().await;
        Ok(())
    }
}
