//! A monitor on SQLite in memory, with a dispatcher that says what the test tells it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use oxcart_monitor::{Config, Deps, Monitor};
use oxcart_proto::pb::{
    dispatcher::v1::{
        dispatcher_service_server::{DispatcherService, DispatcherServiceServer},
        *,
    },
    monitor::v1::monitor_service_client::MonitorServiceClient,
};
use oxcart_service::{Metrics, Server, ServerOptions, local};
use oxcart_store::{NewTask, Store, StoreOptions, SubmitUnit};
use oxcart_types::{
    Clock as _, IdSource as _, Payload, Priority, QueueName, RetryPolicy, SystemClock, SystemIds, TaskId, TaskSpec, Timestamp,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait, transport::Channel};

/// What the dispatcher says and hears.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) journal: broadcast::Sender<StreamJournalResponse>,
    pub(crate) opened: Arc<Mutex<Vec<StreamJournalRequest>>>,
    pub(crate) removed: Arc<Mutex<Vec<RemoveTasksRequest>>>,
    pub(crate) sessions: Arc<Mutex<Vec<SessionInfo>>>,
    pub(crate) partitions: Arc<Mutex<Vec<PartitionInfo>>>,
}

#[async_trait]
impl DispatcherService for Fake {
    type StreamJournalStream = Pin<Box<dyn Stream<Item = Result<StreamJournalResponse, Status>> + Send>>;

    async fn enqueue_tasks(&self, _: Request<EnqueueTasksRequest>) -> Result<Response<EnqueueTasksResponse>, Status> {
        Err(Status::internal("monitor never enqueues"))
    }

    async fn remove_tasks(&self, request: Request<RemoveTasksRequest>) -> Result<Response<RemoveTasksResponse>, Status> {
        self.removed.lock().unwrap().push(request.into_inner());
        Ok(Response::new(RemoveTasksResponse::default()))
    }

    async fn find_missing_tasks(&self, _: Request<FindMissingTasksRequest>) -> Result<Response<FindMissingTasksResponse>, Status> {
        Err(Status::internal("monitor never audits"))
    }

    async fn inspect_tasks(&self, _: Request<InspectTasksRequest>) -> Result<Response<InspectTasksResponse>, Status> {
        Ok(Response::new(InspectTasksResponse::default()))
    }

    async fn list_entries(&self, _: Request<ListEntriesRequest>) -> Result<Response<ListEntriesResponse>, Status> {
        Err(Status::internal("monitor never audits"))
    }

    async fn check_entries(&self, _: Request<CheckEntriesRequest>) -> Result<Response<CheckEntriesResponse>, Status> {
        Err(Status::internal("monitor never audits"))
    }

    async fn get_queue_info(&self, _: Request<GetQueueInfoRequest>) -> Result<Response<GetQueueInfoResponse>, Status> {
        let partitions = self.partitions.lock().unwrap().clone();
        Ok(Response::new(GetQueueInfoResponse { partitions, read_time: None }))
    }

    async fn configure_queues(&self, _: Request<ConfigureQueuesRequest>) -> Result<Response<ConfigureQueuesResponse>, Status> {
        Err(Status::internal("monitor sets nothing"))
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        let sessions = self.sessions.lock().unwrap().clone();
        Ok(Response::new(ListSessionsResponse { sessions, next_page_token: String::new() }))
    }

    async fn stream_journal(&self, request: Request<StreamJournalRequest>) -> Result<Response<Self::StreamJournalStream>, Status> {
        let request = request.into_inner();
        if request.after_cursor == "malformed" {
            return Err(Status::invalid_argument("cursor"));
        }
        let entries = BroadcastStream::new(self.journal.subscribe());
        self.opened.lock().unwrap().push(request);
        Ok(Response::new(Box::pin(entries.map(|entry| entry.map_err(|_| Status::internal("the test fell behind"))))))
    }
}

/// A running monitor.
pub(crate) struct Fixture {
    pub(crate) fake: Fake,
    pub(crate) store: Store,
    pub(crate) monitor: MonitorServiceClient<Channel>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) async fn store() -> Store {
    let options = StoreOptions { url: "sqlite::memory:".to_owned(), max_connections: 4, acquire_timeout: Duration::from_secs(5) };
    Store::connect(options).await.expect("a store")
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(store().await, Config::default()).await
    }

    pub(crate) async fn with(store: Store, mut config: Config) -> Self {
        config.registry.period = Duration::from_millis(20);
        config.recorder.retry_after = Duration::from_millis(20);
        let fake = Fake {
            journal: broadcast::channel(1024).0,
            opened: Arc::default(),
            removed: Arc::default(),
            sessions: Arc::default(),
            partitions: Arc::default(),
        };
        let shutdown = CancellationToken::new();
        let (to_dispatcher, dispatcher) = local::transport();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(DispatcherServiceServer::new(fake.clone()))
                .serve_with_incoming(dispatcher),
        );
        let metrics = Metrics::new();
        let deps = Deps {
            store: store.clone(),
            dispatcher: to_dispatcher.channel(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            metrics: metrics.clone(),
        };
        let (to_monitor, monitor) = local::transport();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Server::new(ServerOptions::default()).with(Monitor::new(config, deps)).with_local(monitor);
        tokio::spawn(server.serve(listener, None, shutdown.clone()));
        let fixture = Self { fake, store, monitor: MonitorServiceClient::new(to_monitor.channel()), metrics, shutdown };
        // The recorder is the first reader: what is said before it listens is not heard.
        fixture.until("the recorder reads the journal", async || !fixture.fake.opened.lock().unwrap().is_empty()).await;
        fixture
    }

    /// The value of a metric of monitor without labels.
    pub(crate) fn measured(&self, name: &str) -> Option<f64> {
        let text = self.metrics.encode().expect("a text");
        text.lines().find_map(|line| line.strip_prefix("oxcart_monitor_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !condition().await {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Says entries to everybody who reads the journal.
    pub(crate) fn say(&self, cursor: &str, entries: Vec<JournalEntry>) {
        let message = stream_journal_response::Message::Batch(JournalBatch { entries });
        self.fake.journal.send(StreamJournalResponse { message: Some(message), cursor: cursor.to_owned() }).expect("a reader");
    }

    /// Commits a task.
    pub(crate) async fn submit(&self, name: &str, tags: &[&str], at: Timestamp) -> TaskId {
        self.submit_as(SystemIds.task_id(), name, tags, at).await
    }

    /// Commits a task of this id.
    pub(crate) async fn submit_as(&self, id: TaskId, name: &str, tags: &[&str], at: Timestamp) -> TaskId {
        let mut tags: Vec<_> = tags.iter().map(|tag| tag.parse().expect("a tag")).collect();
        tags.sort();
        let spec = TaskSpec {
            id,
            name: name.parse().expect("a name"),
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            payload: Payload::null(),
            tags,
            metadata: Default::default(),
            run_at: None,
            expires_at: None,
            start_timeout: None,
            timeout: None,
            heartbeat_timeout: None,
            deadline: None,
            retry: RetryPolicy::default(),
            idempotency: None,
            parent: None,
            fairness_key: None,
        };
        let task = NewTask { digest: spec.digest(), spec, id_chosen: false, created_at: at, set_aside: None };
        let unit = SubmitUnit { tasks: vec![task], request: None };
        self.store.submit(vec![unit], SystemIds.handoff_id(), at).await.expect("submitted");
        id
    }
}

/// That long ago.
pub(crate) fn ago(seconds: i64) -> Timestamp {
    SystemClock.now() - chrono::TimeDelta::seconds(seconds)
}

/// An entry of the journal.
pub(crate) fn entry(transition: Transition, task: TaskId, run: i32) -> JournalEntry {
    JournalEntry {
        transition: transition.into(),
        transition_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        task_id: task.to_string(),
        run,
        queue: "default".to_owned(),
        ..Default::default()
    }
}
