//! Putting a worker together and running it.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{QueueSubscription, WorkerInfo, WorkerKind, WorkerState},
        worker::v1::worker_service_server::WorkerServiceServer,
    },
};
use oxcart_sdk::Handlers;
use oxcart_service::{Component, Metrics, NotReady, Readiness, ServiceError};
use oxcart_types::{Clock, IdSource};
use tokio::{
    runtime::{Handle, Runtime},
    sync::{mpsc, watch as channel},
};
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Channel};

use crate::{
    builtin,
    config::Config,
    core::Core,
    drain,
    error::WorkerError,
    finish,
    grant::Grant,
    grpc::Control,
    held::Held,
    metrics::Meters,
    run::Concluded,
    session::{Actor, ActorState, Notice, SessionEvents, SessionHandle, Settings},
    start,
    store::RunStore,
    watch,
};

/// Notices that wait at most; what is beyond is found again in SQL.
const NOTICES: usize = 1024;

/// What a worker works with.
pub struct Deps {
    /// The database.
    pub store: Arc<dyn RunStore>,
    /// A way to a dispatcher.
    pub dispatcher: Channel,
    /// The user's handlers; the built-in ones are added.
    pub handlers: Handlers,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes the id of this process.
    pub ids: Arc<dyn IdSource>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// A worker, ready to run.
pub struct WorkerService {
    core: Arc<Core>,
    control: Control,
    actor: Actor,
    grants: mpsc::UnboundedReceiver<Vec<Grant>>,
    notices: mpsc::Receiver<Notice>,
    concluded: mpsc::UnboundedReceiver<Concluded>,
    runtime: HandlerRuntime,
}

impl WorkerService {
    /// Puts a worker together; nothing is connected before it runs.
    ///
    /// # Errors
    /// A setting is out of bounds, two handlers have one name, or the threads of the handlers cannot be started.
    pub fn new(config: Config, deps: Deps) -> Result<Self, WorkerError> {
        let runtime = HandlerRuntime::new(config.handler_threads).map_err(WorkerError::Runtime)?;
        Self::build(config, deps, runtime)
    }

    /// As [`Self::new`], with handlers on a runtime of the caller's: one that blocks its thread then keeps others from theirs.
    ///
    /// # Errors
    /// A setting is out of bounds, or two handlers have one name.
    pub fn with_handlers_on(runtime: Handle, config: Config, deps: Deps) -> Result<Self, WorkerError> {
        Self::build(config, deps, HandlerRuntime::Borrowed(runtime))
    }

    fn build(config: Config, deps: Deps, runtime: HandlerRuntime) -> Result<Self, WorkerError> {
        config.check().map_err(WorkerError::Configuration)?;
        let handlers = builtin::handlers(&config.builtin)?.merge(deps.handlers)?;
        let (session, commands) = SessionHandle::new();
        let (grant_sender, grants) = mpsc::unbounded_channel();
        let (notice_sender, notices) = mpsc::channel(NOTICES);
        let (concluded_sender, concluded) = mpsc::unbounded_channel();
        let (settings_sender, settings) = channel::channel(Settings::default());
        let (open_sender, session_open) = channel::channel(false);
        let slots = config.slots;
        let queues = config
            .queues
            .iter()
            .map(|(queue, weight)| QueueSubscription { queue: queue.clone(), weight: scalar::to_count(*weight), slots: 0 })
            .collect::<Vec<_>>();
        let core = Arc::new(Core {
            store: deps.store,
            worker: deps.ids.worker_id(),
            started_at: deps.clock.now(),
            clock: deps.clock,
            handlers,
            held: Arc::new(Held::new(usize::try_from(slots).unwrap_or(usize::MAX))),
            gate: Arc::default(),
            session,
            settings,
            session_open,
            concluded: concluded_sender,
            handler_runtime: runtime.handle(),
            meters: Meters::new(&deps.metrics, slots),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            released_by_drain: AtomicU64::new(0),
            drain: channel::Sender::new(None),
            drained: channel::Sender::new(false),
            hurry: CancellationToken::new(),
            give_up: CancellationToken::new(),
            config,
        });
        let info = info(&core, queues.clone());
        let actor = Actor {
            channel: deps.dispatcher,
            mode: core.config.link,
            commands,
            events: SessionEvents { grants: grant_sender, notices: notice_sender, settings: settings_sender, open: open_sender },
            held: Arc::clone(&core.held),
            gate: Arc::clone(&core.gate),
            meters: core.meters.clone(),
            info: Arc::clone(&info),
            queues,
            slots: scalar::to_count(slots),
            abort_grace: core.config.abort_grace,
            state: ActorState::new(),
        };
        let control = Control { core: Arc::clone(&core), info };
        Ok(Self { core, control, actor, grants, notices, concluded, runtime })
    }
}

#[async_trait]
impl Component for WorkerService {
    fn name(&self) -> &'static str {
        "worker"
    }

    fn grpc_services(&self) -> &'static [&'static str] {
        &["oxcart.worker.v1.WorkerService"]
    }

    fn register(&self, routes: &mut RoutesBuilder) {
        routes.add_service(WorkerServiceServer::new(self.control.clone()));
    }

    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(Ready(Arc::clone(&self.core)))
    }

    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let Self { core, actor, grants, notices, concluded, runtime, control: _ } = *self;
        let session = tokio::spawn(actor.run());
        let parts = [
            tokio::spawn(start::run(Arc::clone(&core), grants)),
            tokio::spawn(finish::run(Arc::clone(&core), concluded)),
            tokio::spawn(watch::run(Arc::clone(&core), notices)),
        ];
        let mut asked = core.drain.subscribe();
        let patience = tokio::select! {
            () = shutdown.cancelled() => core.config.drain_timeout,
            asked = asked.wait_for(Option::is_some) => asked.ok().and_then(|asked| *asked).unwrap_or(core.config.drain_timeout),
        };
        drain::drain(&core, patience).await;
        let ended = session.await;
        // A worker that was drained by a call answers on, until its process is told to end.
        shutdown.cancelled().await;
        for part in parts {
            part.abort();
        }
        drop(runtime);
        ended.map_err(|error| ServiceError::component("worker", error))
    }
}

/// How this process describes itself.
fn info(core: &Arc<Core>, queues: Vec<QueueSubscription>) -> Arc<dyn Fn() -> WorkerInfo + Send + Sync> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").map(|host| host.trim().to_owned()).unwrap_or_default();
    let display_name = if core.config.display_name.is_empty() { host.clone() } else { core.config.display_name.clone() };
    let core = Arc::clone(core);
    Arc::new(move || {
        let state = if core.gate.is_draining() {
            WorkerState::Draining
        } else if core.gate.is_paused() {
            WorkerState::Paused
        } else {
            WorkerState::Active
        };
        let count = |count: &AtomicU64| i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        WorkerInfo {
            worker_id: core.worker.to_string(),
            display_name: display_name.clone(),
            state: state.into(),
            kind: WorkerKind::Service.into(),
            host: host.clone(),
            pid: i64::from(std::process::id()),
            build_id: core.config.build_id.clone(),
            sdk: concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            queues: queues.clone(),
            task_names: core.handlers.names().map(str::to_owned).collect(),
            slots: scalar::to_count(core.config.slots),
            used_slots: i32::try_from(core.held.len()).unwrap_or(i32::MAX),
            start_time: Some(scalar::to_timestamp(core.started_at)),
            heartbeat_time: Some(scalar::to_timestamp(core.clock.now())),
            labels: core.config.labels.clone().into_iter().collect(),
            succeeded_count: count(&core.succeeded),
            failed_count: count(&core.failed),
        }
    })
}

/// Ready while a session is open and the database answers.
struct Ready(Arc<Core>);

#[async_trait]
impl Readiness for Ready {
    async fn check(&self) -> Result<(), NotReady> {
        if !*self.0.session_open.borrow() {
            return Err(NotReady("no session with a dispatcher".to_owned()));
        }
        self.0.store.ping().await.map_err(|error| NotReady(error.to_string()))
    }
}

/// Threads for handlers.
enum HandlerRuntime {
    /// They end with it: a handler that blocks its thread is left behind, so that the process can end.
    Owned(Option<Runtime>),
    /// Somebody else's.
    Borrowed(Handle),
}

impl HandlerRuntime {
    fn new(threads: usize) -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if threads > 0 {
            builder.worker_threads(threads);
        }
        builder.thread_name("handler").enable_all().build().map(|runtime| Self::Owned(Some(runtime)))
    }

    fn handle(&self) -> Handle {
        match self {
            Self::Owned(Some(runtime)) => runtime.handle().clone(),
            // Taken only by drop.
            Self::Owned(None) => Handle::current(),
            Self::Borrowed(handle) => handle.clone(),
        }
    }
}

impl Drop for HandlerRuntime {
    fn drop(&mut self) {
        if let Self::Owned(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}
