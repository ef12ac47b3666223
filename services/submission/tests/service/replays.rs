//! Replays of finished tasks.

use std::time::Duration;

use oxcart_proto::{
    convert::spec::{SpecContext, task_spec},
    pb::{
        common::v1::TaskState,
        submission::v1::{CancelOutcome, CancelTaskRequest, ReplayTaskRequest, WaitTaskRequest},
    },
};
use oxcart_service::status::reason_of;
use oxcart_store::{End, EndOutcome, NewTask, RunKey, SubmitUnit};
use oxcart_testkit::wait_for;
use oxcart_types::{Clock as _, EndKind, Failure, IdSource as _, Limits, SystemClock, SystemIds, TaskId};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::{PATIENCE, System, config, echo, start};

fn replay(task_id: &str) -> ReplayTaskRequest {
    ReplayTaskRequest { task_id: task_id.to_owned(), ..ReplayTaskRequest::default() }
}

async fn ended(system: &System, run: RunKey, kind: EndKind) {
    let end = End {
        task: run.task,
        run: run.run,
        token: run.token,
        kind,
        attempts_used: 1,
        result: None,
        failure: Some(Failure::new("SMTP", "no route")),
        next_run_at: None,
    };
    let written = system.store.end(&[end], SystemClock.now()).await.expect("an answer");
    assert_eq!(written, [EndOutcome::Written(kind)]);
}

/// A task that has failed.
async fn failed(system: &System) -> String {
    let id = system.submit(echo()).await;
    system.handed_off(&id).await;
    ended(system, system.begin(&id).await, EndKind::Failed).await;
    system.dispatcher.state().entries.remove(&id);
    id
}

fn refused(status: &Status) -> (Code, String) {
    (status.code(), reason_of(status).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_task_is_handed_off_again_and_a_wait_hears_of_its_new_end() {
    let system = start(config()).await;
    let mut client = system.client.clone();
    let id = failed(&system).await;
    let request = ReplayTaskRequest { request_id: SystemIds.task_id().to_string(), ..replay(&id) };
    let task = client.replay_task(request.clone()).await.expect("replayed").into_inner().task.expect("a task");
    assert!(matches!(task.state(), TaskState::Pending | TaskState::Queued), "{:?}", task.state());
    assert_eq!((task.run, task.attempt, task.end_time), (1, 0, None));
    system.handed_off(&id).await;
    assert_eq!(system.dispatcher.state().entries[&id].run, 2);
    system.reaches(&id, TaskState::Queued).await;

    // The old end counts for nothing: the wait goes on until the new one.
    let waiting = tokio::spawn({
        let (mut client, request) = (client.clone(), WaitTaskRequest { task_id: id.clone(), ..WaitTaskRequest::default() });
        async move { client.wait_task(request).await }
    });
    let second = system.begin_run(&id, 2).await;
    // The first answer was lost: the same call again replays nothing.
    let task = client.replay_task(request).await.expect("known").into_inner().task.expect("a task");
    assert_eq!((task.state(), task.run), (TaskState::Running, 2));
    ended(&system, second, EndKind::Succeeded).await;
    let waited = waiting.await.expect("no panic").expect("an answer").into_inner();
    assert_eq!((waited.satisfied, waited.task.map(|task| task.state())), (true, Some(TaskState::Succeeded)));
    let runs = system.get(&id).await.runs;
    assert_eq!(runs.iter().map(|run| run.replayed).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_replayed_is_refused_and_stays_as_it_is() {
    let system = start(config()).await;
    let mut client = system.client.clone();
    let open = system.submit(echo()).await;
    let status = client.replay_task(replay(&open)).await.expect_err("open");
    assert_eq!(refused(&status), (Code::FailedPrecondition, "TASK_NOT_FINISHED".to_owned()));
    ended(&system, system.begin(&open).await, EndKind::Succeeded).await;
    let status = client.replay_task(replay(&open)).await.expect_err("succeeded");
    assert_eq!(refused(&status), (Code::FailedPrecondition, "TASK_SUCCEEDED".to_owned()));
    assert_eq!(system.get(&open).await.state(), TaskState::Succeeded);
    let unknown = SystemIds.task_id().to_string();
    let status = client.replay_task(replay(&unknown)).await.expect_err("unknown");
    assert_eq!(refused(&status), (Code::NotFound, "TASK_NOT_FOUND".to_owned()));
    for bad in [
        ReplayTaskRequest { max_attempts: -1, ..replay(&open) },
        ReplayTaskRequest { max_attempts: 1001, ..replay(&open) },
        ReplayTaskRequest { reason: "x".repeat(1025), ..replay(&open) },
        ReplayTaskRequest { request_id: "x".to_owned(), ..replay(&open) },
        replay("x"),
    ] {
        let status = client.replay_task(bad).await.expect_err("bad");
        assert_eq!(refused(&status), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    }
    // A request id that a submission has used.
    let request_id = SystemIds.task_id().to_string();
    let submit = oxcart_proto::pb::submission::v1::SubmitTaskRequest {
        task: Some(echo()),
        request_id: request_id.clone(),
        ..Default::default()
    };
    client.submit_task(submit).await.expect("submitted");
    let failed = failed(&system).await;
    let status = client.replay_task(ReplayTaskRequest { request_id, ..replay(&failed) }).await.expect_err("reused");
    assert_eq!(refused(&status), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    assert_eq!(system.get(&failed).await.state(), TaskState::Failed);
    let allowed = ReplayTaskRequest { allow_succeeded: true, ..replay(&open) };
    client.replay_task(allowed).await.expect("replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_is_down_gets_a_replay_when_it_is_back() {
    let system = start(config()).await;
    let id = failed(&system).await;
    system.dispatcher.state().down = true;
    let task = system.client.clone().replay_task(replay(&id)).await.expect("replayed").into_inner().task.expect("a task");
    assert_eq!(task.state(), TaskState::Pending);
    system.dispatcher.state().down = false;
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_can_be_cancelled() {
    let system = start(config()).await;
    let id = failed(&system).await;
    let mut client = system.client.clone();
    client.replay_task(replay(&id)).await.expect("replayed");
    let cancel = CancelTaskRequest { task_id: id.clone(), ..CancelTaskRequest::default() };
    let answer = client.cancel_task(cancel).await.expect("cancelled").into_inner();
    assert_eq!(answer.outcome(), CancelOutcome::Acknowledged);
    assert_eq!(system.get(&id).await.state(), TaskState::Cancelled);
}

/// A task that was submitted and has failed long ago: below the mark where walks over tasks begin.
async fn failed_long_ago(system: &System) -> String {
    let mark = async || system.store.cursor("submission.audit.low_watermark").await.expect("a cursor");
    wait_for("the first mark", PATIENCE, mark).await.expect("in time");
    let now = SystemClock.now() - chrono::TimeDelta::days(1);
    let context = SpecContext { limits: &Limits::default(), now, ids: &SystemIds };
    let (mut spec, _) = task_spec(echo(), &context).expect("a task");
    let seconds = u64::try_from(now.timestamp()).expect("a time");
    spec.id = TaskId::from_uuid(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)));
    let task = NewTask { digest: spec.digest(), id_chosen: false, created_at: now, set_aside: None, spec };
    let id = task.spec.id.to_string();
    let unit = SubmitUnit { tasks: vec![task], request: None };
    let handoff = SystemIds.handoff_id();
    system.store.submit(vec![unit], handoff, now).await.expect("submitted");
    system.store.confirm_handoffs(&[handoff], &[]).await.expect("confirmed");
    ended(system, system.begin(&id).await, EndKind::Failed).await;
    id
}

/// † The audit walks open replays.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_a_replay_below_its_mark() {
    let mut config = config();
    config.sweep.audit_rest = Duration::from_millis(50);
    config.sweep.audit_min_age = Duration::ZERO;
    let system = start(config).await;
    let id = failed_long_ago(&system).await;
    system.client.clone().replay_task(replay(&id)).await.expect("replayed");
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
    system.dispatcher.state().entries.clear();
    system.handed_off(&id).await;
    assert_eq!(system.dispatcher.state().entries[&id].run, 2);
}

/// The walk of a resync begins at the same mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_queue_gets_its_replays_back() {
    let system = start(config()).await;
    let id = failed_long_ago(&system).await;
    system.client.clone().replay_task(replay(&id)).await.expect("replayed");
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
    let seen = async || system.store.cursor("submission.partitions").await.expect("a cursor");
    wait_for("the first look", PATIENCE, seen).await.expect("in time");
    system.dispatcher.wipe();
    system.handed_off(&id).await;
}
