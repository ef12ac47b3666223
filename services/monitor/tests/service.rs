//! The service as a whole, over gRPC: the real store, and a dispatcher that says what the test tells it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use oxcart_monitor::Config;
use oxcart_proto::pb::{
    common::v1::{QueueSubscription, WorkerInfo, WorkerState},
    dispatcher::v1::{JournalGap, PartitionInfo, SessionInfo, StreamJournalResponse, Transition, stream_journal_response::Message},
    monitor::v1::{watch_events_response::Kind, *},
};
use oxcart_store::model::{Close, EndOutcome, Replay, RunRecord, Start, StartOutcome, TaskRecord, View};
use oxcart_types::{
    Clock as _, EndKind, Failure, IdSource as _, LeaseToken, ReplaySpec, Run, SystemClock, SystemIds, TaskId, TaskState,
};
use support::{Fixture, ago, entry};
use tonic::Code;
use tonic_types::StatusExt as _;

impl Fixture {
    async fn read(&self, id: TaskId) -> TaskRecord {
        self.store.get(&[id], View::Full).await.expect("read").remove(0).expect("the task")
    }

    async fn begin(&self, task: TaskId, seconds_ago: i64) -> LeaseToken {
        let token = SystemIds.lease_token();
        let start = Start { task, run: Run::FIRST, token, worker: SystemIds.worker_id() };
        let outcome = self.store.start(&[start], ago(seconds_ago)).await.expect("started").remove(0);
        assert!(matches!(outcome, StartOutcome::Started { .. }), "{outcome:?}");
        token
    }
}

fn ends(runs: &[RunRecord]) -> Vec<Option<EndKind>> {
    runs.iter().map(|run| run.end.as_ref().map(|end| end.kind)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaped_run_that_is_silent_is_lost_and_twice_changes_nothing() {
    let fixture = Fixture::start().await;
    let task = fixture.submit("echo", &[], ago(100)).await;
    fixture.begin(task, 90).await;
    fixture.say("c1", vec![entry(Transition::Reaped, task, 1)]);
    fixture.until("the run is lost", async || fixture.read(task).await.state == TaskState::Queued).await;
    let first = fixture.read(task).await;
    assert_eq!(ends(&first.runs), [Some(EndKind::Lost)]);

    fixture.say("c2", vec![entry(Transition::Reaped, task, 1)]);
    fixture
        .until("the cursor is kept", async || {
            fixture.store.cursor("monitor.recorder").await.expect("read").as_deref() == Some("c2")
        })
        .await;
    assert_eq!(fixture.read(task).await.runs, first.runs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaped_run_that_shows_life_is_left_alone() {
    let fixture = Fixture::start().await;
    let task = fixture.submit("echo", &[], ago(10)).await;
    let token = fixture.begin(task, 1).await;
    fixture.say("c1", vec![entry(Transition::Reaped, task, 1)]);
    fixture
        .until("the recorder gives up", async || {
            fixture.store.cursor("monitor.recorder").await.expect("read").as_deref() == Some("c1")
        })
        .await;
    assert_eq!(fixture.read(task).await.state, TaskState::Running);
    let end = oxcart_store::model::End {
        task,
        run: Run::FIRST,
        token,
        kind: EndKind::Succeeded,
        attempts_used: 1,
        result: None,
        failure: None,
        next_run_at: None,
    };
    let ended = fixture.store.end(&[end], SystemClock.now()).await.expect("ended");
    assert_eq!(ended, [EndOutcome::Written(EndKind::Succeeded)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_task_fails_as_poison_and_leaves_the_queue() {
    let fixture = Fixture::start().await;
    let task = fixture.submit("echo", &[], ago(10)).await;
    fixture.say("c1", vec![entry(Transition::Quarantined, task, 1)]);
    fixture.until("the task has failed", async || fixture.read(task).await.state == TaskState::Failed).await;
    let failure = fixture.read(task).await.failure.expect("a failure");
    assert_eq!(failure.kind.as_str(), "POISON");
    fixture.until("its entry is removed", async || !fixture.fake.removed.lock().unwrap().is_empty()).await;
    let removed = fixture.fake.removed.lock().unwrap()[0].keys[0].clone();
    assert_eq!((removed.task_id, removed.run, removed.priority), (task.to_string(), 1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_that_is_told_late_does_not_end_a_replay() {
    let fixture = Fixture::start().await;
    let poisoned = fixture.submit("echo", &[], ago(10)).await;
    fixture.say("c1", vec![entry(Transition::Quarantined, poisoned, 1)]);
    fixture.until("the task has failed", async || fixture.read(poisoned).await.state == TaskState::Failed).await;
    // Of this one the entry of a run that is long past is told: the run was lost, and another one failed.
    let lost = fixture.submit("echo", &[], ago(100)).await;
    fixture.begin(lost, 90).await;
    fixture.say("c2", vec![entry(Transition::Reaped, lost, 1)]);
    fixture.until("the run is lost", async || fixture.read(lost).await.state == TaskState::Queued).await;
    let close = Close {
        task: lost,
        run: None,
        kind: EndKind::Failed,
        by: SystemIds.lease_token(),
        failure: Failure::new("X", "x"),
        at: SystemClock.now(),
    };
    fixture.store.close(&close).await.expect("closed");
    let replays =
        [poisoned, lost].map(|task| Replay { task, by: SystemIds.lease_token(), spec: ReplaySpec::default(), request: None });
    let (outbox, now) = (SystemIds.handoff_id(), SystemClock.now());
    fixture.store.replay(&replays, outbox, now).await.expect("replayed");
    fixture.store.confirm_handoffs(&[outbox], &[]).await.expect("confirmed");
    fixture.say("c3", vec![entry(Transition::Quarantined, poisoned, 1), entry(Transition::Quarantined, lost, 1)]);
    fixture
        .until("the cursor is kept", async || {
            fixture.store.cursor("monitor.recorder").await.expect("read").as_deref() == Some("c3")
        })
        .await;
    for task in [poisoned, lost] {
        assert_eq!(fixture.read(task).await.state, TaskState::Queued);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_goes_on_at_its_cursor() {
    let store = support::store().await;
    store.set_cursor("monitor.recorder", "kept").await.expect("written");
    let fixture = Fixture::with(store.clone(), Config::default()).await;
    assert_eq!(fixture.fake.opened.lock().unwrap()[0].after_cursor, "kept");

    store.set_cursor("monitor.recorder", "malformed").await.expect("written");
    let fixture = Fixture::with(store, Config::default()).await;
    let opened = fixture.fake.opened.lock().unwrap()[0].clone();
    assert!(opened.after_cursor.is_empty() && opened.from_oldest, "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_is_dropped_and_the_rest_stays() {
    let store = support::store().await;
    let mut config = Config::default();
    config.retention.succeeded_age = Duration::ZERO;
    config.retention.other_age = Duration::from_secs(3600);
    config.retention.rest = Duration::from_millis(50);
    let fixture = Fixture::with(store, config).await;
    let close = |task, kind, at| Close { task, run: None, kind, by: SystemIds.lease_token(), failure: Failure::new("X", "x"), at };
    let made = |seconds: i64| TaskId::lowest_at(ago(7200 + seconds));
    let open = fixture.submit_as(made(1), "echo", &[], ago(7200)).await;
    let lately = fixture.submit_as(made(2), "echo", &[], ago(7200)).await;
    fixture.store.close(&close(lately, EndKind::Failed, ago(10))).await.expect("closed");
    let old = fixture.submit_as(made(3), "echo", &[], ago(7200)).await;
    fixture.store.close(&close(old, EndKind::Failed, ago(7000))).await.expect("closed");
    let gone = async || fixture.store.get(&[old], View::Basic).await.expect("read") == [None];
    fixture.until("the old one is gone", gone).await;
    for (task, state) in [(open, TaskState::Pending), (lately, TaskState::Failed)] {
        assert_eq!(fixture.read(task).await.state, state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_page_by_page() {
    let fixture = Fixture::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.submit("echo", &["a", "b"], ago(5)).await.to_string());
    }
    fixture.submit("echo", &["a"], ago(5)).await;
    fixture.submit("other", &["a", "b"], ago(5)).await;
    let filter = "task_name = echo AND tags:a AND tags:b AND create_time > now-1h".to_owned();
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTasksRequest { filter: filter.clone(), page_size: 2, page_token: page_token.clone() };
        let page = fixture.monitor.clone().list_tasks(request).await.expect("a page").into_inner();
        found.extend(page.tasks.into_iter().filter_map(|task| task.spec).map(|spec| spec.task_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let other = ListTasksRequest { filter: "state = FAILED".to_owned(), page_token: page_token.clone(), ..Default::default() };
        let refused = fixture.monitor.clone().list_tasks(other).await.expect_err("of another query");
        assert_eq!(refused.get_details_error_info().expect("a reason").reason, "PAGE_TOKEN_INVALID");
    }
    found.reverse();
    assert_eq!(found, ids);

    let one = ListTasksRequest { filter: format!("task_id = {}", ids[0]), ..Default::default() };
    assert_eq!(fixture.monitor.clone().list_tasks(one).await.expect("a page").into_inner().tasks.len(), 1);
    let none = ListTasksRequest { filter: format!("{} AND state = FAILED", ids[0]), ..Default::default() };
    assert!(fixture.monitor.clone().list_tasks(none).await.expect("a page").into_inner().tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_with_reason_and_field() {
    let fixture = Fixture::start().await;
    let table = [
        (ListTasksRequest { filter: "state = ".to_owned(), ..Default::default() }, "FILTER_SYNTAX", "filter"),
        (ListTasksRequest { filter: "priority = 3".to_owned(), ..Default::default() }, "FILTER_FIELD_UNKNOWN", "filter"),
        (ListTasksRequest { page_size: -1, ..Default::default() }, "FIELD_INVALID", "page_size"),
        (ListTasksRequest { page_token: "00".to_owned(), ..Default::default() }, "PAGE_TOKEN_INVALID", "page_token"),
    ];
    for (request, reason, field) in table {
        let refused = fixture.monitor.clone().list_tasks(request).await.expect_err(reason);
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().expect("a reason").reason, reason);
        assert_eq!(details.bad_request().expect("violations").field_violations[0].field, field);
    }
    let request = ListTaskRunsRequest { task_id: SystemIds.task_id().to_string(), ..Default::default() };
    let refused = fixture.monitor.clone().list_task_runs(request).await.expect_err("no such task");
    assert_eq!(refused.code(), Code::NotFound);
    let request = ListTaskRunsRequest { task_id: "x".to_owned(), page_size: -1, ..Default::default() };
    let refused = fixture.monitor.clone().list_task_runs(request).await.expect_err("two mistakes");
    assert_eq!(refused.get_details_bad_request().expect("violations").field_violations.len(), 2);
    let request = WatchEventsRequest { after_cursor: "malformed".to_owned(), ..Default::default() };
    let refused = fixture.monitor.clone().watch_events(request).await.expect_err("a bad cursor");
    assert_eq!(refused.get_details_bad_request().expect("violations").field_violations[0].field, "after_cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_queues_come_from_all_sources() {
    let fixture = Fixture::start().await;
    let worker = WorkerInfo {
        worker_id: SystemIds.worker_id().to_string(),
        state: WorkerState::Active.into(),
        slots: 8,
        queues: vec![QueueSubscription { queue: "mail".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    *fixture.fake.sessions.lock().unwrap() = vec![SessionInfo { worker: Some(worker.clone()), ..Default::default() }];
    *fixture.fake.partitions.lock().unwrap() =
        vec![PartitionInfo { queue: "mail".to_owned(), ready_count: 3, ..Default::default() }];
    let workers =
        async || fixture.monitor.clone().list_workers(ListWorkersRequest::default()).await.expect("workers").into_inner().workers;
    fixture.until("the worker is registered", async || !workers().await.is_empty()).await;
    let found = workers().await.remove(0);
    assert_eq!((found.worker_id.as_str(), found.state()), (worker.worker_id.as_str(), WorkerState::Active));
    let queues = fixture.monitor.clone().list_queues(ListQueuesRequest::default()).await.expect("queues").into_inner().queues;
    assert_eq!(queues.len(), 1);
    assert_eq!((queues[0].queue.as_str(), queues[0].ready_count, queues[0].worker_count, queues[0].slot_count), ("mail", 3, 1, 8));
    let info = fixture.monitor.clone().get_server_info(GetServerInfoRequest {}).await.expect("info").into_inner();
    assert!(info.limits.contains_key("max_payload_bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_it_asked_for_and_hears_of_gaps() {
    let fixture = Fixture::with(support::store().await, Config { max_watchers: 1, ..Config::default() }).await;
    let (mine, other) = (SystemIds.task_id(), SystemIds.task_id());
    let request = WatchEventsRequest { filter: format!("task_id = {mine}"), after_cursor: "c0".to_owned() };
    let mut events = fixture.monitor.clone().watch_events(request.clone()).await.expect("a stream").into_inner();
    assert!(fixture.fake.opened.lock().unwrap().iter().any(|opened| opened.after_cursor == "c0"));
    let refused = fixture.monitor.clone().watch_events(request).await.expect_err("one at most");
    assert_eq!(refused.get_details_error_info().expect("a reason").reason, "TOO_MANY_WATCHERS");

    fixture.say("c1", vec![entry(Transition::Started, other, 1)]);
    fixture.say("c2", vec![entry(Transition::Granted, mine, 1), entry(Transition::Done, mine, 1)]);
    let message = events.message().await.expect("a message").expect("a message");
    let Some(Kind::Events(batch)) = message.kind else { panic!("events") };
    let types: Vec<_> = batch.events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!((types, message.cursor.as_str()), (vec!["task.granted", "task.succeeded"], "c2"));

    let gap =
        Message::Gap(JournalGap { queue: "default".to_owned(), lost_count: 7, reason: "trimmed".to_owned(), ..Default::default() });
    fixture.fake.journal.send(StreamJournalResponse { message: Some(gap), cursor: "c3".to_owned() }).expect("readers");
    let message = events.message().await.expect("a message").expect("a message");
    let Some(Kind::Gap(gap)) = message.kind else { panic!("a gap") };
    assert_eq!((gap.lost_count, gap.reason.as_str()), (7, "queue default: trimmed"));
    assert_eq!(fixture.measured("watch_gaps_total"), Some(1.0));
    // The recorder reads the same journal, at its own pace.
    fixture.until("the recorder has met the gap", async || fixture.measured("recorder_journal_gaps_total") == Some(1.0)).await;
    assert_eq!(fixture.measured("recorder_journal_entries_total"), Some(3.0));
    assert_eq!(fixture.measured("recorder_watermark_timestamp_seconds"), Some(1.0));

    fixture.shutdown.cancel();
    let ended = events.message().await.expect_err("the service stops");
    assert_eq!(ended.get_details_error_info().expect("a reason").reason, "SHUTTING_DOWN");
}
