//! A worker on a real store and a scripted dispatcher.

pub mod dispatcher;
pub mod store;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oxcart_proto::pb::worker::v1::worker_service_client::WorkerServiceClient;
use oxcart_sdk::{Handlers, TaskContext, TaskError, TaskResult};
use oxcart_service::{Component as _, Metrics, ServiceError};
use oxcart_store::model::{NewTask, SubmitUnit, TaskRecord, UnitOutcome, View};
use oxcart_testkit::wait_for;
use oxcart_types::{
    Clock as _, IdSource as _, Limits, Payload, Priority, QueueName, RetryPolicy, Run, SystemClock, SystemIds, TaskId, TaskSpec,
    TaskState, retry::RetryPolicyParts,
};
use oxcart_worker::{Config, Deps, WorkerService};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::RoutesBuilder,
    transport::{Channel, Endpoint, Server},
};
use tracing::Instrument as _;

use self::{
    dispatcher::{Dispatcher, outcome},
    store::SwitchedStore,
};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long the `blocks` handler keeps its thread.
pub const BLOCKED: Duration = Duration::from_secs(4);

pub struct Rig {
    pub dispatcher: Dispatcher,
    pub store: SwitchedStore,
    /// Lets the `gated` handler go on.
    pub gate: Arc<Notify>,
    /// Times that the `counts` handler was entered.
    pub entered: Arc<AtomicUsize>,
    /// The worker's own RPCs.
    pub control: WorkerServiceClient<Channel>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<Result<(), ServiceError>>,
    _folder: tempfile::TempDir,
}

pub fn config() -> Config {
    Config { drain_timeout: Duration::from_millis(200), abort_grace: Duration::from_millis(200), ..Config::default() }
}

/// `gated` waits for the rig; the others do what their names say.
fn handlers(gate: Arc<Notify>, entered: Arc<AtomicUsize>) -> Handlers {
    let counts = move |_ctx: TaskContext, (): ()| {
        entered.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    };
    let gate_again = Arc::clone(&gate);
    // Fails the first time, and then waits for the rig; it returns its deadline.
    let again = move |ctx: TaskContext, (): ()| {
        let gate = Arc::clone(&gate_again);
        async move {
            if ctx.run() == Run::FIRST {
                return Err(TaskError::fatal("not yet"));
            }
            gate.notified().await;
            Ok(ctx.deadline().map(|at| at.timestamp_micros()))
        }
    };
    let handlers = Handlers::new().handle_fn("gated", move |_ctx, (): ()| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Ok("done")
        }
    });
    let blocks = async |_ctx: TaskContext, (): ()| -> TaskResult {
        std::thread::park_timeout(BLOCKED);
        Ok(())
    };
    let panics = async |_ctx: TaskContext, (): ()| -> TaskResult { panic!("boom") };
    let releases = async |ctx: TaskContext, (): ()| -> TaskResult<u32> {
        if ctx.run().get() == 1 { Err(ctx.release(Duration::ZERO, "later")) } else { Ok(ctx.attempt()) }
    };
    let never = async |ctx: TaskContext, (): ()| -> TaskResult { Err(ctx.release(Duration::ZERO, "not now")) };
    let steps = async |ctx: TaskContext, (): ()| -> TaskResult<u32> {
        match ctx.restore::<u32>()? {
            Some(step) => Ok(step),
            None => {
                ctx.checkpoint(&7)?;
                Err(TaskError::retryable("half way"))
            }
        }
    };
    let speaks = async |ctx: TaskContext, (): ()| -> TaskResult { speak(&ctx) };
    let speaks_deeper = async |ctx: TaskContext, (): ()| -> TaskResult {
        let deeper = async { speak(&ctx) };
        deeper.instrument(tracing::info_span!("deeper", step = 2)).await
    };
    let speaks_blocking = |ctx: TaskContext, (): ()| -> TaskResult { speak(&ctx) };
    handlers
        .and_then(|h| h.handle_fn("speaks", speaks))
        .and_then(|h| h.handle_fn("speaks.deeper", speaks_deeper))
        .and_then(|h| h.handle_blocking("speaks.blocking", speaks_blocking))
        .and_then(|h| h.handle_fn("counts", counts))
        .and_then(|h| h.handle_fn("again", again))
        .and_then(|h| h.handle_fn("blocks", blocks))
        .and_then(|h| h.handle_fn("never", never))
        .and_then(|h| h.handle_fn("panics", panics))
        .and_then(|h| h.handle_fn("releases", releases))
        .and_then(|h| h.handle_fn("steps", steps))
        .expect("names")
}

/// What the `speaks` handlers log.
pub const SPOKEN: &str = "halfway";

fn speak(ctx: &TaskContext) -> TaskResult {
    tracing::info!(traceparent = ctx.trace_context().get("traceparent"), "{SPOKEN}");
    Ok(())
}

async fn control(service: &WorkerService) -> WorkerServiceClient<Channel> {
    let mut routes = RoutesBuilder::default();
    service.register(&mut routes);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(Server::builder().add_routes(routes.routes()).serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    WorkerServiceClient::new(endpoint.connect_lazy())
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_with(config(), Dispatcher::default()).await
    }

    pub async fn start_with(config: Config, dispatcher: Dispatcher) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SwitchedStore::open(folder.path()).await;
        let address = dispatcher.start().await;
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        let (gate, entered) = (Arc::new(Notify::new()), Arc::default());
        let metrics = Metrics::new();
        let deps = Deps {
            store: Arc::new(store.clone()),
            dispatcher: channel,
            handlers: handlers(Arc::clone(&gate), Arc::clone(&entered)),
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            metrics: metrics.clone(),
        };
        let service = Box::new(WorkerService::new(config, deps).expect("a worker"));
        let control = control(&service).await;
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(service.run(shutdown.clone()));
        Self { dispatcher, store, gate, entered, control, metrics, shutdown, ended, _folder: folder }
    }

    pub fn spec(name: &str, json: &str, attempts: i64) -> TaskSpec {
        let parts = RetryPolicyParts {
            max_attempts: Some(attempts),
            initial_backoff: Some(Duration::from_millis(20)),
            ..Default::default()
        };
        TaskSpec {
            id: SystemIds.task_id(),
            name: name.parse().expect("a name"),
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            payload: Payload::json(json.to_owned(), &Limits::default()).expect("JSON"),
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            run_at: None,
            expires_at: None,
            start_timeout: None,
            timeout: None,
            heartbeat_timeout: None,
            deadline: None,
            retry: RetryPolicy::new(parts).expect("a policy"),
            idempotency: None,
            parent: None,
            fairness_key: None,
        }
    }

    /// Commits a task as submission does, without handing it to anybody.
    pub async fn submit(&self, spec: TaskSpec) -> TaskId {
        let (id, now) = (spec.id, SystemClock.now());
        let task = NewTask { digest: spec.digest(), id_chosen: false, created_at: now, set_aside: None, spec };
        let unit = SubmitUnit { tasks: vec![task], request: None };
        let outcomes = self.store.store.submit(vec![unit], SystemIds.handoff_id(), now).await.expect("a commit");
        assert!(matches!(outcomes.as_slice(), [UnitOutcome::Accepted(_)]), "{outcomes:?}");
        id
    }

    /// Submits and grants a task.
    pub async fn run(&self, name: &str, json: &str, attempts: i64) -> TaskId {
        let id = self.submit(Self::spec(name, json, attempts)).await;
        self.dispatcher.grant(id, 1);
        id
    }

    pub async fn record(&self, id: TaskId) -> TaskRecord {
        let found = self.store.store.get(&[id], View::Full).await.expect("an answer");
        found.into_iter().next().flatten().expect("a task")
    }

    pub async fn wait_state(&self, id: TaskId, state: TaskState) -> TaskRecord {
        let what = format!("task {id} to be {state}");
        let found = wait_for(&what, PATIENCE, async || {
            let record = self.record(id).await;
            (record.state == state).then_some(record)
        });
        match found.await {
            Ok(record) => record,
            Err(error) => panic!("{error}: {:?}", self.record(id).await),
        }
    }

    /// Waits until `holds` of what the dispatcher heard.
    pub async fn wait_heard(&self, what: &str, holds: impl Fn(&dispatcher::Heard) -> bool) {
        wait_for(what, PATIENCE, async || holds(&self.dispatcher.heard()).then_some(())).await.expect("heard");
    }

    /// Waits for the settles of a task, in short.
    pub async fn settles(&self, id: TaskId, count: usize) -> Vec<String> {
        let of = |settle: &&oxcart_proto::pb::dispatcher::v1::Settle| {
            settle.lease.as_ref().is_some_and(|key| key.task_id == id.to_string())
        };
        self.wait_heard("settles", |heard| heard.settles.iter().filter(of).count() >= count).await;
        self.dispatcher.heard().settles.iter().filter(of).map(outcome).collect()
    }

    /// Ends the worker.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.ended).await.expect("in time").expect("no panic").expect("no error");
    }
}
