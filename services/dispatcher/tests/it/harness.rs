//! A dispatcher that serves in this process, and a worker that speaks to it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use oxcart_dispatcher::{Config, Deps, Dispatcher};
use oxcart_proto::pb::{
    common::v1 as common,
    dispatcher::v1::{
        self as pb, dispatcher_service_client::DispatcherServiceClient, open_session_request::Message as Request,
        open_session_response::Message, session_service_client::SessionServiceClient,
    },
};
use oxcart_queue::{EngineOptions, MemoryEngine, Partition, QueueEngine};
use oxcart_service::{Metrics, Server, ServerOptions, local};
use oxcart_types::{IdSource as _, SystemClock, SystemIds, TaskId, WorkerId};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long is looked whether something comes that must not.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

pub(crate) fn engine() -> Arc<dyn QueueEngine> {
    Arc::new(MemoryEngine::new(EngineOptions::default(), Arc::new(SystemClock)))
}

pub(crate) struct Served {
    pub(crate) channel: Channel,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start(engine: Arc<dyn QueueEngine>, config: Config) -> Self {
        let (connector, incoming) = local::transport();
        let metrics = Metrics::new();
        let deps = Deps { engine, clock: Arc::new(SystemClock), ids: Arc::new(SystemIds), metrics: metrics.clone() };
        let server = Server::new(ServerOptions::default()).with(Dispatcher::new(config, deps)).with_local(incoming);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { Box::pin(server.serve(listener, None, stop)).await.expect("served and drained") });
        Self { channel: connector.channel(), metrics, shutdown, task }
    }

    /// Checks a counter of the dispatcher.
    pub(crate) fn assert_counted(&self, name: &str, count: u64) {
        let (text, line) = (self.metrics.encode().expect("a text"), format!("oxcart_dispatcher_{name}_total {count}"));
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }

    pub(crate) async fn plain() -> Self {
        Self::start(engine(), Config::default()).await
    }

    pub(crate) fn dispatcher(&self) -> DispatcherServiceClient<Channel> {
        DispatcherServiceClient::new(self.channel.clone())
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn enqueue(&self, count: usize, delay: Option<Duration>) -> Vec<String> {
        let tasks: Vec<_> = (0..count).map(|_| SystemIds.task_id().to_string()).collect();
        let items = tasks.iter().map(|task| pb::EnqueueItem { key: Some(key(task, 1)), delay: delay.map(to_duration) }).collect();
        let answer = self.dispatcher().enqueue_tasks(pb::EnqueueTasksRequest { items }).await.expect("enqueued").into_inner();
        assert!(answer.statuses.iter().all(|status| *status == i32::from(pb::EnqueueStatus::Created)), "{:?}", answer.statuses);
        tasks
    }

    /// Ready, delayed, leased.
    pub(crate) async fn counts(&self) -> (i64, i64, i64) {
        let info = self.dispatcher().get_queue_info(pb::GetQueueInfoRequest::default()).await.expect("info").into_inner();
        info.partitions.first().map_or((0, 0, 0), |one| (one.ready_count, one.delayed_count, one.leased_count))
    }
}

pub(crate) fn to_duration(duration: Duration) -> prost_types::Duration {
    oxcart_proto::convert::scalar::to_duration(duration)
}

pub(crate) fn key(task: &str, run: i32) -> pb::EntryKey {
    pb::EntryKey { task_id: task.to_owned(), run, queue: "default".into(), priority: 4, ..pb::EntryKey::default() }
}

pub(crate) fn window(sequence: i64, slots: i32) -> common::Window {
    let queue = common::QueueSubscription { queue: "default".into(), ..Default::default() };
    common::Window { sequence, slots, queues: vec![queue] }
}

pub(crate) fn worker_info(worker: WorkerId) -> common::WorkerInfo {
    common::WorkerInfo { worker_id: worker.to_string(), ..Default::default() }
}

pub(crate) fn new_worker() -> WorkerId {
    SystemIds.worker_id()
}

pub(crate) fn lease_key(grant: &pb::Grant) -> common::LeaseKey {
    common::LeaseKey { task_id: grant.task_id.clone(), run: grant.run, lease_token: grant.lease_token.clone() }
}

pub(crate) fn held(grant: &pb::Grant) -> pb::HeldLease {
    let lease = Some(lease_key(grant));
    pb::HeldLease { lease, queue: "default".into(), priority: grant.priority, deliveries: grant.deliveries, ..Default::default() }
}

pub(crate) fn settle(grant: &pb::Grant, outcome: pb::settle::Outcome) -> pb::Settle {
    let lease = Some(lease_key(grant));
    pb::Settle {
        lease,
        queue: "default".into(),
        attempt: 1,
        priority: grant.priority,
        outcome: Some(outcome),
        ..Default::default()
    }
}

pub(crate) fn done(grants: &[pb::Grant]) -> pb::SettleReport {
    let outcome = || pb::settle::Outcome::Done(pb::SettleDone::default());
    pb::SettleReport { sequence: 7, settles: grants.iter().map(|grant| settle(grant, outcome())).collect() }
}

/// A worker over a stream.
pub(crate) struct Worker {
    sender: mpsc::Sender<pb::OpenSessionRequest>,
    inbound: Streaming<pb::OpenSessionResponse>,
}

impl Worker {
    pub(crate) async fn raw(served: &Served, first: Request) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(16);
        sender.send(pb::OpenSessionRequest { message: Some(first) }).await.expect("room");
        let inbound = served.sessions().open_session(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { sender, inbound })
    }

    pub(crate) async fn open(served: &Served, id: WorkerId, slots: i32, held: Vec<pb::HeldLease>) -> (Self, pb::SessionOpened) {
        let open = pb::SessionOpen { protocol_version: 1, worker: Some(worker_info(id)), window: Some(window(1, slots)), held };
        let mut worker = Self::raw(served, Request::Open(open)).await.expect("opened");
        let Message::Opened(opened) = worker.next().await else { panic!("opened comes first") };
        (worker, opened)
    }

    pub(crate) async fn send(&self, message: Request) {
        self.sender.send(pb::OpenSessionRequest { message: Some(message) }).await.expect("the stream takes it");
    }

    pub(crate) async fn next(&mut self) -> Message {
        self.try_next().await.expect("no error").message.expect("a message")
    }

    pub(crate) async fn try_next(&mut self) -> Result<pb::OpenSessionResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("a message in time");
        next.map(|message| message.expect("the stream goes on"))
    }

    /// Collects this many grants.
    pub(crate) async fn grants(&mut self, count: usize) -> Vec<pb::Grant> {
        let mut grants = Vec::new();
        while grants.len() < count {
            match self.next().await {
                Message::Grants(batch) => grants.extend(batch.grants),
                other => panic!("not a grant: {other:?}"),
            }
        }
        assert_eq!(grants.len(), count);
        grants
    }

    /// Nothing comes.
    pub(crate) async fn silent(&mut self) {
        let came = tokio::time::timeout(SILENCE, self.inbound.message()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

/// An engine whose calls fail while it is told to.
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn QueueEngine>,
    pub(crate) failing: std::sync::atomic::AtomicBool,
}

macro_rules! forward {
    ($self:ident, $call:expr) => {{
        if $self.failing.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(oxcart_queue::QueueError::Unavailable("told to fail".into()));
        }
        $call.await
    }};
}

#[async_trait]
impl QueueEngine for Faulty {
    async fn enqueue(
        &self,
        p: &Partition,
        i: &[oxcart_queue::Enqueue],
    ) -> Result<Vec<oxcart_queue::EnqueueStatus>, oxcart_queue::QueueError> {
        forward!(self, self.inner.enqueue(p, i))
    }
    async fn lease(&self, p: &Partition, r: &oxcart_queue::LeaseRequest) -> Result<oxcart_queue::Leased, oxcart_queue::QueueError> {
        forward!(self, self.inner.lease(p, r))
    }
    async fn extend(
        &self,
        p: &Partition,
        c: oxcart_queue::ExtendCause,
        i: &[oxcart_queue::Extend],
    ) -> Result<Vec<oxcart_queue::LeaseStatus>, oxcart_queue::QueueError> {
        forward!(self, self.inner.extend(p, c, i))
    }
    async fn complete(
        &self,
        p: &Partition,
        i: &[oxcart_queue::Complete],
    ) -> Result<Vec<oxcart_queue::LeaseStatus>, oxcart_queue::QueueError> {
        forward!(self, self.inner.complete(p, i))
    }
    async fn release(
        &self,
        p: &Partition,
        i: &[oxcart_queue::Release],
    ) -> Result<Vec<oxcart_queue::LeaseStatus>, oxcart_queue::QueueError> {
        forward!(self, self.inner.release(p, i))
    }
    async fn remove(
        &self,
        p: &Partition,
        i: &[oxcart_queue::Remove],
    ) -> Result<Vec<oxcart_queue::RemoveStatus>, oxcart_queue::QueueError> {
        forward!(self, self.inner.remove(p, i))
    }
    async fn missing(
        &self,
        p: &Partition,
        i: &[(oxcart_queue::EntryKey, oxcart_types::Run)],
    ) -> Result<Vec<oxcart_queue::Presence>, oxcart_queue::QueueError> {
        forward!(self, self.inner.missing(p, i))
    }
    async fn inspect(
        &self,
        p: &Partition,
        k: &[oxcart_queue::EntryKey],
    ) -> Result<Vec<Option<oxcart_queue::Inspected>>, oxcart_queue::QueueError> {
        forward!(self, self.inner.inspect(p, k))
    }
    async fn configure(
        &self,
        p: &Partition,
        s: oxcart_queue::Settings,
    ) -> Result<oxcart_queue::Settings, oxcart_queue::QueueError> {
        forward!(self, self.inner.configure(p, s))
    }
    async fn list(
        &self,
        p: &Partition,
        place: oxcart_queue::Place,
        f: Option<&oxcart_queue::PageCursor>,
        l: usize,
    ) -> Result<oxcart_queue::Listed, oxcart_queue::QueueError> {
        forward!(self, self.inner.list(p, place, f, l))
    }
    async fn check(
        &self,
        p: &Partition,
        f: Option<&oxcart_queue::PageCursor>,
        l: usize,
    ) -> Result<oxcart_queue::Checked, oxcart_queue::QueueError> {
        forward!(self, self.inner.check(p, f, l))
    }
    async fn tick(&self, p: &Partition, l: oxcart_queue::TickLimits) -> Result<oxcart_queue::Ticked, oxcart_queue::QueueError> {
        forward!(self, self.inner.tick(p, l))
    }
    async fn stats(&self, p: &Partition) -> Result<oxcart_queue::PartitionStats, oxcart_queue::QueueError> {
        forward!(self, self.inner.stats(p))
    }
    async fn journal(
        &self,
        p: &Partition,
        f: oxcart_queue::JournalFrom,
        m: usize,
    ) -> Result<oxcart_queue::JournalRead, oxcart_queue::QueueError> {
        forward!(self, self.inner.journal(p, f, m))
    }
    async fn partitions(&self) -> Result<Vec<Partition>, oxcart_queue::QueueError> {
        forward!(self, self.inner.partitions())
    }
    fn wakeups(&self) -> tokio::sync::broadcast::Receiver<oxcart_queue::Wakeup> {
        self.inner.wakeups()
    }
    async fn ping(&self) -> Result<(), oxcart_queue::QueueError> {
        forward!(self, self.inner.ping())
    }
}

pub(crate) fn ids(count: usize) -> Vec<TaskId> {
    (0..count).map(|_| SystemIds.task_id()).collect()
}
