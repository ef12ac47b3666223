//! What is refused while SQL or the dispatcher is away, and what idempotency keys and cancels do.

use std::time::Duration;

use oxcart_proto::pb::{
    common::v1::{IdempotencyPolicy, TaskSpec, TaskState},
    submission::v1::{
        BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, ExecuteTaskRequest, SubmitResult, SubmitTaskRequest,
    },
};
use oxcart_service::status::{reason_of, retry_after};
use oxcart_store::{End, EndOutcome, StoreError, StoreOptions, TaskFilter};
use oxcart_submission::Config;
use oxcart_testkit::{MariaDbServer, wait_for};
use oxcart_types::{Clock as _, EndKind, Failure, FailureKind, IdSource as _, SystemClock, SystemIds};
use tonic::{Code, Status};

use crate::support::{PATIENCE, System, config, echo, fake::FakeDispatcher, serve, start, start_on};

async fn try_submit(system: &System, task: TaskSpec) -> Result<SubmitResult, Status> {
    let request = SubmitTaskRequest { task: Some(task), ..SubmitTaskRequest::default() };
    system.client.clone().submit_task(request).await.map(|answer| answer.into_inner().result.expect("a result"))
}

fn refused(answer: Result<SubmitResult, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    assert!(retry_after(&status).is_some(), "{status:?}");
    (status.code(), reason_of(&status).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sql_a_submit_is_unavailable_and_nothing_is_stored() {
    let server = MariaDbServer::start().await.expect("a server");
    let url = server.create_database().await.expect("a database");
    let options = StoreOptions { url, max_connections: 2, acquire_timeout: Duration::from_secs(5) };
    let system = start_on(config(), options).await;
    server.process().kill().expect("killed");
    assert_eq!(refused(try_submit(&system, echo()).await), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
    server.restart().await.expect("up again");
    let back = wait_for("an answer", PATIENCE, async || try_submit(&system, echo()).await.ok());
    let id = back.await.expect("in time").task_id;
    let stored = system.store.list(&TaskFilter::default(), None, 10).await.expect("a page").tasks;
    assert_eq!(stored.iter().map(|task| task.spec.id.to_string()).collect::<Vec<_>>(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_a_submit_is_told_to_come_back_and_nothing_is_stored() {
    let server = MariaDbServer::start().await.expect("a server");
    let url = server.create_database().await.expect("a database");
    let options = StoreOptions { url, max_connections: 1, acquire_timeout: Duration::from_millis(100) };
    let system = start_on(config(), options).await;
    server.process().pause().expect("frozen");
    // Of two only one can get the connection, and keeps it.
    let second = tokio::select! {
        one = system.store.ping() => one,
        other = system.store.ping() => other,
    };
    assert!(matches!(second, Err(StoreError::Busy)), "{second:?}");
    assert_eq!(refused(try_submit(&system, echo()).await), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    server.process().resume().expect("thawed");
    let back = wait_for("an answer", PATIENCE, async || try_submit(&system, echo()).await.ok());
    let id = back.await.expect("in time").task_id;
    let stored = wait_for("a page", PATIENCE, async || system.store.list(&TaskFilter::default(), None, 10).await.ok());
    let stored = stored.await.expect("in time").tasks;
    assert_eq!(stored.iter().map(|task| task.spec.id.to_string()).collect::<Vec<_>>(), [id]);
}

/// Submits until the bound on unconfirmed tasks is met.
async fn until_refused(system: &System) {
    let met = wait_for("a refusal", PATIENCE, async || {
        let answer = try_submit(system, echo()).await;
        answer.is_err().then_some(answer)
    });
    assert_eq!(refused(met.await.expect("in time")), (Code::Unavailable, "DISPATCHER_UNAVAILABLE".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_on_unconfirmed_tasks_submits_are_refused_also_after_a_restart() {
    let config = Config { unconfirmed_tasks: 3, ..config() };
    let system = start(config.clone()).await;
    system.dispatcher.state().down = true;
    until_refused(&system).await;

    let dispatcher = FakeDispatcher::default();
    dispatcher.state().down = true;
    let next = serve(config, system.store.clone(), dispatcher);
    until_refused(&next).await;
    next.dispatcher.state().down = false;
    let room = wait_for("room", PATIENCE, async || try_submit(&next, echo()).await.ok());
    room.await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_what_would_fill_it_further_and_no_other_does() {
    let system = start(Config { queue_backlog: 12, backlog_period: Duration::from_millis(50), ..config() }).await;
    // The fake dispatcher says that ten tasks wait in the default queue.
    system.dispatcher.state().window_full = true;
    let full = wait_for("a count", PATIENCE, async || {
        let batch = BatchSubmitTasksRequest { tasks: vec![echo(); 3], ..BatchSubmitTasksRequest::default() };
        system.client.clone().batch_submit_tasks(batch).await.err()
    });
    let status = full.await.expect("refused in time");
    assert_eq!((status.code(), reason_of(&status).unwrap_or_default()), (Code::ResourceExhausted, "QUEUE_FULL".to_owned()));
    assert!(retry_after(&status).is_some() && status.message().contains("its limit is 12"), "{status:?}");
    try_submit(&system, TaskSpec { queue: "other".to_owned(), ..echo() }).await.expect("another queue has room");
    system.dispatcher.state().window_full = false;
    wait_for("room", PATIENCE, async || try_submit(&system, echo()).await.ok()).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_return_reject_and_replace() {
    let system = start(config()).await;
    let keyed = |name: &str, policy: IdempotencyPolicy| TaskSpec {
        task_name: name.to_owned(),
        idempotency_key: "order-1".to_owned(),
        idempotency_policy: policy.into(),
        ..TaskSpec::default()
    };
    let taken = (Code::AlreadyExists, Some("IDEMPOTENCY_KEY_TAKEN".to_owned()));
    let conflict = |answer: Result<SubmitResult, Status>| {
        let status = answer.expect_err("taken");
        (status.code(), reason_of(&status))
    };
    let first = try_submit(&system, keyed("echo", IdempotencyPolicy::ReturnExisting)).await.expect("new");
    let again = try_submit(&system, keyed("echo", IdempotencyPolicy::ReturnExisting)).await.expect("known");
    assert_eq!((&again.task_id, first.deduplicated, again.deduplicated), (&first.task_id, false, true));
    assert_eq!(conflict(try_submit(&system, keyed("other", IdempotencyPolicy::ReturnExisting)).await), taken);
    assert_eq!(conflict(try_submit(&system, keyed("echo", IdempotencyPolicy::Reject)).await), taken);

    system.handed_off(&first.task_id).await;
    let second = try_submit(&system, keyed("other", IdempotencyPolicy::Replace)).await.expect("replaced");
    assert!(!second.deduplicated && second.task_id != first.task_id);
    system.reaches(&first.task_id, TaskState::Cancelled).await;
    let gone = wait_for("the removal", PATIENCE, async || (!system.dispatcher.has(&first.task_id)).then_some(()));
    gone.await.expect("in time");

    // What runs is not replaced.
    system.begin(&second.task_id).await;
    assert_eq!(conflict(try_submit(&system, keyed("third", IdempotencyPolicy::Replace)).await), taken);
    assert_eq!(system.get(&second.task_id).await.state(), TaskState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_an_open_run_is_asked_for_and_decides_how_a_failure_ends() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    let run = system.begin(&id).await;
    let request = CancelTaskRequest { task_id: id.clone(), reason: "enough".to_owned(), ..CancelTaskRequest::default() };
    let answer = system.client.clone().cancel_task(request).await.expect("asked").into_inner();
    assert_eq!((answer.outcome(), answer.task.map(|task| task.state())), (CancelOutcome::Requested, Some(TaskState::Running)));
    assert_eq!(system.dispatcher.state().notified, std::slice::from_ref(&id));
    let end = End {
        task: run.task,
        run: run.run,
        token: run.token,
        kind: EndKind::Retry,
        attempts_used: 1,
        result: None,
        failure: Some(Failure::new(FailureKind::CANCELLED, "stopped")),
        next_run_at: Some(SystemClock.now()),
    };
    let ended = system.store.end(&[end], SystemClock.now()).await.expect("an answer");
    assert_eq!(ended, [EndOutcome::Written(EndKind::Cancelled)]);
    system.reaches(&id, TaskState::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_cancels_his_execution_only_if_he_said_so() {
    let system = start(config()).await;
    let mut left = Vec::new();
    for cancel_on_disconnect in [false, true] {
        let task_id = SystemIds.task_id().to_string();
        let task = Some(TaskSpec { task_id: task_id.clone(), ..echo() });
        let request = ExecuteTaskRequest { task, cancel_on_disconnect, ..ExecuteTaskRequest::default() };
        let mut client = system.client.clone();
        let call = tokio::spawn(async move { client.execute_task(request).await });
        system.handed_off(&task_id).await;
        call.abort();
        left.push(task_id);
    }
    system.reaches(&left[1], TaskState::Cancelled).await;
    // Left first, so that it had the time to be cancelled, too.
    system.reaches(&left[0], TaskState::Queued).await;
}
