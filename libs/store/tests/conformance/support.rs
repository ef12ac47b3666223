//! A fresh database per test, and short ways to say what happens on it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chrono::{TimeDelta, TimeZone as _, Utc};
use oxcart_store::{
    Cancel, Close, End, EndOutcome, NewTask, Replay, ReplayOutcome, Start, StartOutcome, Store, StoreOptions, SubmitUnit,
    TaskRecord, UnitOutcome, View,
};
use oxcart_testkit::MariaDbServer;
use oxcart_types::{
    EndKind, Failure, HandoffId, IdSource as _, LeaseToken, Limits, Payload, Priority, ReplaySpec, RetryPolicy, Run, SystemIds,
    TaskId, TaskSpec, TaskState, Timestamp, WorkerId, retry::RetryPolicyParts,
};

/// A database that the suite runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    MariaDb,
    SqliteFile,
    SqliteMemory,
}

/// A store on a database of its own.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) options: StoreOptions,
    _directory: tempfile::TempDir,
}

impl std::ops::Deref for Fixture {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Fixture {
    /// With a migrated schema.
    pub(crate) async fn new(database: Database) -> Self {
        let unmigrated = Unmigrated::new(database).await;
        Store::migrate(&unmigrated.options).await.expect("migrate");
        let store = Store::connect(unmigrated.options.clone()).await.expect("connect");
        Self { store, options: unmigrated.options, _directory: unmigrated.directory }
    }

    pub(crate) async fn submit_one(&self, task: NewTask) -> TaskId {
        let id = task.spec.id;
        assert_eq!(self.submit_units(vec![unit(vec![task])]).await, [accepted(&[id])]);
        id
    }

    pub(crate) async fn submit_units(&self, units: Vec<SubmitUnit>) -> Vec<UnitOutcome> {
        self.store.submit(units, SystemIds.handoff_id(), at(0)).await.expect("submit")
    }

    pub(crate) async fn get_one(&self, id: TaskId) -> TaskRecord {
        self.store.get(&[id], View::Full).await.expect("get").pop().flatten().expect("a task")
    }

    pub(crate) async fn state(&self, id: TaskId) -> TaskState {
        self.get_one(id).await.state
    }

    pub(crate) async fn start_one(&self, start: Start, now: Timestamp) -> StartOutcome {
        self.store.start(&[start], now).await.expect("start").pop().expect("an outcome")
    }

    pub(crate) async fn end_one(&self, end: End, now: Timestamp) -> EndOutcome {
        self.store.end(&[end], now).await.expect("end").pop().expect("an outcome")
    }

    pub(crate) async fn replay_one(&self, replay: Replay, now: Timestamp) -> ReplayOutcome {
        self.store.replay(&[replay], handoff(), now).await.expect("replay").pop().expect("an outcome")
    }

    /// Starts a run that must start.
    pub(crate) async fn begin(&self, id: TaskId, run: u32, now: Timestamp) -> LeaseToken {
        let start = start(id, run);
        let outcome = self.start_one(start, now).await;
        assert!(matches!(outcome, StartOutcome::Started { .. }), "{outcome:?}");
        start.token
    }

    /// A task whose first run is open.
    pub(crate) async fn running(&self) -> (TaskId, LeaseToken) {
        let id = self.submit_one(task()).await;
        (id, self.begin(id, 1, at(1)).await)
    }

    /// A task whose first run was given back.
    pub(crate) async fn ended_released(&self) -> TaskId {
        let (id, token) = self.running().await;
        self.end_one(end(id, 1, token, EndKind::Released), at(2)).await;
        id
    }

    /// A task that has ended so.
    pub(crate) async fn ended(&self, kind: EndKind) -> TaskId {
        let (id, token) = self.running().await;
        assert_eq!(self.end_one(end(id, 1, token, kind), at(2)).await, EndOutcome::Written(kind));
        id
    }
}

/// A database without a schema.
pub(crate) struct Unmigrated {
    pub(crate) options: StoreOptions,
    pub(crate) directory: tempfile::TempDir,
}

impl Unmigrated {
    pub(crate) async fn new(database: Database) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = match database {
            Database::MariaDb => {
                let server = MariaDbServer::shared().await.expect("a server");
                server.create_database().await.expect("a database")
            }
            Database::SqliteFile => format!("sqlite:{}", directory.path().join("store.db").display()),
            Database::SqliteMemory => "sqlite::memory:".to_owned(),
        };
        Self { options: StoreOptions { url, max_connections: 8, acquire_timeout: Duration::from_secs(30) }, directory }
    }
}

/// Seconds after the beginning of the test's time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().expect("a time") + TimeDelta::seconds(seconds)
}

pub(crate) fn run(number: u32) -> Run {
    Run::new(number).expect("a run")
}

pub(crate) fn token() -> LeaseToken {
    SystemIds.lease_token()
}

/// Ids in ascending order, also within a millisecond.
pub(crate) fn task_id() -> TaskId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = *SystemIds.task_id().as_bytes();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    TaskId::from_bytes(bytes)
}

/// The plainest task.
pub(crate) fn task() -> NewTask {
    let spec = TaskSpec {
        id: task_id(),
        name: "email.send".parse().expect("a name"),
        queue: "default".parse().expect("a queue"),
        priority: Priority::default(),
        payload: Payload::json("{\"to\":1}".to_owned(), &Limits::default()).expect("JSON"),
        tags: vec![],
        metadata: BTreeMap::new(),
        run_at: None,
        expires_at: None,
        start_timeout: None,
        timeout: None,
        heartbeat_timeout: None,
        deadline: None,
        retry: RetryPolicy::default(),
        idempotency: None,
        fairness_key: None,
        parent: None,
    };
    new_task(spec)
}

/// A task of this specification.
pub(crate) fn new_task(spec: TaskSpec) -> NewTask {
    NewTask { digest: spec.digest(), spec, id_chosen: false, created_at: at(0), set_aside: None }
}

/// A plain task with changes.
pub(crate) fn task_with(change: impl FnOnce(&mut TaskSpec)) -> NewTask {
    let mut spec = task().spec;
    change(&mut spec);
    new_task(spec)
}

pub(crate) fn attempts(max_attempts: i64) -> RetryPolicy {
    // Crashes are a bound of their own, which these tests are not about.
    let parts = RetryPolicyParts { max_attempts: Some(max_attempts), max_crashes: Some(1000), ..RetryPolicyParts::default() };
    RetryPolicy::new(parts).expect("a policy")
}

pub(crate) fn unit(tasks: Vec<NewTask>) -> SubmitUnit {
    SubmitUnit { tasks, request: None }
}

pub(crate) fn accepted(ids: &[TaskId]) -> UnitOutcome {
    let accepted = |id: &TaskId| oxcart_store::Accepted { id: *id, deduplicated: false, replaced: None, cancelled: false };
    UnitOutcome::Accepted(ids.iter().map(accepted).collect())
}

pub(crate) fn deduplicated(ids: &[TaskId]) -> UnitOutcome {
    let accepted = |id: &TaskId| oxcart_store::Accepted { id: *id, deduplicated: true, replaced: None, cancelled: false };
    UnitOutcome::Accepted(ids.iter().map(accepted).collect())
}

pub(crate) fn start(id: TaskId, number: u32) -> Start {
    Start { task: id, run: run(number), token: token(), worker: WorkerId::from_bytes([7; 16]) }
}

pub(crate) fn handoff() -> HandoffId {
    SystemIds.handoff_id()
}

/// An end with what its kind needs: one attempt used per run so far, the next run due at 10 s.
pub(crate) fn end(id: TaskId, number: u32, token: LeaseToken, kind: EndKind) -> End {
    let failed = matches!(kind, EndKind::Failed | EndKind::Retry);
    End {
        task: id,
        run: run(number),
        token,
        kind,
        attempts_used: if kind == EndKind::Released { number - 1 } else { number },
        result: (kind == EndKind::Succeeded).then(|| Payload::json("[1]".to_owned(), &Limits::default()).expect("JSON")),
        failure: failed.then(|| Failure::new("SMTP", "no route").with_detail("line 1")),
        next_run_at: (!kind.is_terminal()).then(|| at(10)),
    }
}

pub(crate) fn close(id: TaskId, kind: EndKind) -> Close {
    Close { task: id, run: None, kind, by: token(), failure: Failure::new(kind.as_str(), "closed"), at: at(3) }
}

/// A replay with the task's own budget, also of what succeeded.
pub(crate) fn replay(id: TaskId) -> Replay {
    let spec = ReplaySpec { allow_succeeded: true, reason: "once more".to_owned(), ..ReplaySpec::default() };
    Replay { task: id, by: token(), spec, request: None }
}

pub(crate) fn cancel() -> Cancel {
    Cancel { reason: "not needed".to_owned(), requested_at: at(5), grace: Duration::from_secs(30) }
}
