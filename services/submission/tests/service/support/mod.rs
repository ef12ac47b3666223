//! A submission service on SQLite, and a dispatcher that does what a test tells it.

pub(crate) mod fake;

use std::{sync::Arc, time::Duration};

use oxcart_proto::pb::{
    common::v1::{Task, TaskSpec, TaskState},
    submission::v1::{
        CancelTaskRequest, GetTaskRequest, SubmitTaskRequest, operation_service_client::OperationServiceClient,
        submission_service_client::SubmissionServiceClient,
    },
};
use oxcart_service::{Component as _, Metrics, local};
use oxcart_store::{End, EndOutcome, RunKey, Start, StartOutcome, Store, StoreOptions};
use oxcart_submission::{Config, Deps, Submission};
use oxcart_testkit::wait_for;
use oxcart_types::{Clock as _, EndKind, IdSource as _, Payload, Run, SystemClock, SystemIds, WorkerId};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};

use self::fake::FakeDispatcher;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The system of a test. Everything in it ends with it.
pub(crate) struct System {
    pub(crate) client: SubmissionServiceClient<Channel>,
    pub(crate) operations: OperationServiceClient<Channel>,
    pub(crate) dispatcher: FakeDispatcher,
    pub(crate) store: Store,
    pub(crate) stop: CancellationToken,
    metrics: Metrics,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sweepers at a pace that tests can wait for.
pub(crate) fn config() -> Config {
    let short = Duration::from_millis(50);
    let mut config = Config { commit_lanes: 1, reread_period: Duration::from_millis(300), ..Config::default() };
    let sweep = &mut config.sweep;
    sweep.handoff_age = short;
    sweep.handoff_period = short;
    sweep.agenda_period = short;
    sweep.feeder_period = short;
    sweep.watch_period = short;
    sweep.audit_step_period = short;
    sweep.reverse_audit_step_period = short;
    sweep.reverse_audit_rest = Duration::from_secs(3600);
    sweep.audit_rest = Duration::from_secs(3600);
    sweep.audit_min_age = Duration::from_secs(3600);
    config
}

pub(crate) async fn start(config: Config) -> System {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", dir.path().join("oxcart.db").display());
    let options = StoreOptions { url, max_connections: 4, acquire_timeout: Duration::from_secs(5) };
    let mut system = start_on(config, options).await;
    system._dir = Some(dir);
    system
}

/// On a database that may have a past.
pub(crate) async fn start_on(config: Config, options: StoreOptions) -> System {
    Store::migrate(&options).await.expect("migrations");
    let store = Store::connect(options).await.expect("a store");
    serve(config, store, FakeDispatcher::default())
}

/// On a store, with this dispatcher.
pub(crate) fn serve(config: Config, store: Store, dispatcher: FakeDispatcher) -> System {
    let (stop, metrics) = (CancellationToken::new(), Metrics::new());
    let (to_dispatcher, incoming) = local::transport();
    let served =
        Server::builder().add_service(dispatcher.service()).serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::spawn(served);

    let deps = Deps {
        store: store.clone(),
        dispatcher: to_dispatcher.channel(),
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
        metrics: metrics.clone(),
    };
    let submission = Submission::new(config, deps);
    let mut routes = tonic::service::Routes::builder();
    submission.register(&mut routes);
    let (to_submission, incoming) = local::transport();
    let served =
        Server::builder().add_routes(routes.routes()).serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::spawn(served);
    tokio::spawn(Box::new(submission).run(stop.clone()));
    let client = SubmissionServiceClient::new(to_submission.channel());
    let operations = OperationServiceClient::new(to_submission.channel());
    System { client, operations, dispatcher, store, stop, metrics, _dir: None }
}

pub(crate) fn echo() -> TaskSpec {
    TaskSpec { task_name: "echo".to_owned(), ..TaskSpec::default() }
}

impl System {
    pub(crate) async fn submit(&self, task: TaskSpec) -> String {
        let request = SubmitTaskRequest { task: Some(task), ..SubmitTaskRequest::default() };
        let answer = self.client.clone().submit_task(request).await.expect("submitted").into_inner();
        answer.result.expect("a result").task_id
    }

    pub(crate) async fn get(&self, task_id: &str) -> Task {
        let request = GetTaskRequest { task_id: task_id.to_owned(), view: 0 };
        self.client.clone().get_task(request).await.expect("found").into_inner().task.expect("a task")
    }

    pub(crate) async fn cancel(&self, task_id: &str) {
        let request = CancelTaskRequest { task_id: task_id.to_owned(), ..CancelTaskRequest::default() };
        self.client.clone().cancel_task(request).await.expect("cancelled");
    }

    pub(crate) async fn reaches(&self, task_id: &str, state: TaskState) {
        wait_for(&format!("{state:?}"), PATIENCE, async || (self.get(task_id).await.state() == state).then_some(()))
            .await
            .expect("in time");
    }

    /// Waits until the dispatcher was given a task.
    pub(crate) async fn handed_off(&self, task_id: &str) {
        wait_for("the hand-off", PATIENCE, async || self.dispatcher.has(task_id).then_some(())).await.expect("in time");
    }

    /// Waits until the queues were looked at this often, from now on. More than one look tells that the first was acted upon.
    pub(crate) async fn looked(&self, times: usize) {
        self.dispatcher.state().looks = 0;
        wait_for("looks at the queues", PATIENCE, async || (self.dispatcher.state().looks >= times).then_some(()))
            .await
            .expect("in time");
    }

    /// Waits until this many calls wait for tasks.
    pub(crate) async fn waited_for(&self, calls: usize) {
        let line = format!("oxcart_submission_waiters {calls}\n");
        let met =
            wait_for("a waiting call", PATIENCE, async || self.metrics.encode().expect("metrics").contains(&line).then_some(()));
        met.await.expect("in time");
    }

    /// Ends an open run well, as a worker does.
    pub(crate) async fn succeed(&self, key: RunKey) {
        let end = End {
            task: key.task,
            run: key.run,
            token: key.token,
            kind: EndKind::Succeeded,
            attempts_used: 1,
            result: Some(Payload::null()),
            failure: None,
            next_run_at: None,
        };
        let ended = self.store.end(&[end], SystemClock.now()).await.expect("an answer");
        assert!(matches!(ended.as_slice(), [EndOutcome::Written(EndKind::Succeeded)]), "{ended:?}");
    }

    /// Starts the first run of a task, as a worker does.
    pub(crate) async fn begin(&self, task_id: &str) -> RunKey {
        self.begin_run(task_id, 1).await
    }

    /// Starts a run of a task, as a worker does.
    pub(crate) async fn begin_run(&self, task_id: &str, run: u32) -> RunKey {
        let run = Run::new(run).expect("a run");
        let key = RunKey { task: task_id.parse().expect("an id"), run, token: SystemIds.lease_token() };
        let start = Start { task: key.task, run: key.run, token: key.token, worker: WorkerId::from_bytes([1; 16]) };
        let started = self.store.start(&[start], SystemClock.now()).await.expect("an answer");
        assert!(matches!(started.as_slice(), [StartOutcome::Started { .. }]), "{started:?}");
        key
    }
}
