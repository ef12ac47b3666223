//! What a user can rely on, whatever the system runs on: the same scenarios against embedded mode and against four processes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxcart_proto::pb::{
    common::v1::{IdempotencyPolicy, RetryPolicy, Run, RunEnd, Task, TaskSpec, TaskState, task_spec::Start},
    monitor::v1::{
        ListQueuesRequest, ListTaskRunsRequest, ListTasksRequest, ListWorkersRequest, WatchEventsRequest, watch_events_response,
    },
    submission::v1::{
        BatchSubmitTasksRequest, CancelOutcome, DeleteTaskRequest, ExecuteTaskRequest, ReplayTaskRequest, StreamSubmitTasksRequest,
        SubmitTaskRequest, UpdateTaskRequest,
    },
};
use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::cancels;
use crate::client::{Clients, PATIENCE, result_json, spec};

fn ensure_state(task: &Task, state: TaskState) -> Result<()> {
    ensure!(task.state() == state, "expected {state:?}, found {task:?}");
    Ok(())
}

fn delayed(task: TaskSpec, delay: Duration) -> Result<TaskSpec> {
    Ok(TaskSpec { start: Some(Start::Delay(delay.try_into()?)), ..task })
}

fn retrying(task: TaskSpec, max_attempts: i32) -> Result<TaskSpec> {
    let initial_backoff = Some(Duration::from_millis(50).try_into()?);
    Ok(TaskSpec { retry_policy: Some(RetryPolicy { max_attempts, initial_backoff, ..Default::default() }), ..task })
}

/// Runs all scenarios, one after the other, on one system.
pub async fn all(clients: &Clients) -> Result<()> {
    success(clients).await.context("success")?;
    execute(clients).await.context("execute")?;
    retry_then_success(clients).await.context("retry then success")?;
    failure(clients).await.context("failure")?;
    replay(clients).await.context("replay")?;
    timeout(clients).await.context("timeout")?;
    heartbeats(clients).await.context("heartbeats")?;
    delay(clients).await.context("delay")?;
    expiry(clients).await.context("expiry")?;
    cancel_waiting(clients).await.context("cancel while it waits")?;
    cancel_running(clients).await.context("cancel while it runs")?;
    cancels::grace(clients).await.context("cancel in bulk while it runs")?;
    cancels::storm(clients, 2000, 1).await.context("cancel storm")?;
    cancels::rule_under_load(clients).await.context("cancel rule under load")?;
    update_waiting(clients).await.context("update while it waits")?;
    idempotency(clients).await.context("idempotency")?;
    batches(clients).await.context("batches")?;
    stream(clients).await.context("stream")?;
    deletion(clients).await.context("deletion")?;
    reading(clients).await.context("reading")?;
    watching(clients).await.context("watching")?;
    bad_input(clients).await.context("bad input")
}

/// A task runs, and its result is the handler's, byte for byte.
pub async fn success(clients: &Clients) -> Result<()> {
    let json = r#"{"n":12345678901234567890.10}"#;
    let id = clients.submit(spec("echo", json)).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Succeeded)?;
    ensure!(result_json(&task) == Some(json), "{task:?}");
    ensure!(task.run == 1 && task.attempt == 1 && task.start_time.is_some() && task.end_time.is_some(), "{task:?}");
    Ok(())
}

/// The synchronous mode answers with the finished task; a task that fails is an answer, too.
pub async fn execute(clients: &Clients) -> Result<()> {
    let request = ExecuteTaskRequest { task: Some(spec("echo", "[1]")), ..Default::default() };
    let task = clients.submission.clone().execute_task(request).await?.into_inner().task.context("a task")?;
    ensure!(result_json(&task) == Some("[1]"), "{task:?}");
    let failing = retrying(spec("flaky", r#"{"times":9}"#), 1)?;
    let request = ExecuteTaskRequest { task: Some(failing), ..Default::default() };
    let task = clients.submission.clone().execute_task(request).await?.into_inner().task.context("a task")?;
    ensure_state(&task, TaskState::Failed)
}

/// Two failures and a success: three runs, each with its end.
pub async fn retry_then_success(clients: &Clients) -> Result<()> {
    let id = clients.submit(retrying(spec("flaky", r#"{"times":2}"#), 5)?).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Succeeded)?;
    let ends: Vec<_> = task.runs.iter().map(Run::end).collect();
    ensure!(ends == [RunEnd::Retry, RunEnd::Retry, RunEnd::Succeeded], "{ends:?}");
    ensure!(task.attempt == 3, "{task:?}");
    Ok(())
}

/// Attempts are used up, and the last error is kept.
pub async fn failure(clients: &Clients) -> Result<()> {
    let id = clients.submit(retrying(spec("flaky", r#"{"times":9}"#), 2)?).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Failed)?;
    ensure!(task.attempt == 2 && task.error.is_some(), "{task:?}");
    Ok(())
}

/// A finished task runs again under its own id, with a new budget of attempts, and keeps its history.
pub async fn replay(clients: &Clients) -> Result<()> {
    let id = clients.submit(retrying(spec("flaky", r#"{"times":1}"#), 1)?).await?;
    ensure_state(&clients.wait(&id).await?, TaskState::Failed)?;
    let request = ReplayTaskRequest { task_id: id.clone(), max_attempts: 2, reason: "again".to_owned(), ..Default::default() };
    clients.submission.clone().replay_task(request.clone()).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Succeeded)?;
    let runs: Vec<_> = task.runs.iter().map(|run| (run.end(), run.attempt, run.replayed)).collect();
    ensure!(runs == [(RunEnd::Failed, 1, true), (RunEnd::Retry, 1, false), (RunEnd::Succeeded, 2, false)], "{runs:?}");
    let refused = clients.submission.clone().replay_task(request).await.expect_err("it has succeeded");
    ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");
    Ok(())
}

/// An attempt that takes too long fails with a kind of its own.
pub async fn timeout(clients: &Clients) -> Result<()> {
    let timeout = Some(Duration::from_millis(200).try_into()?);
    let id = clients.submit(retrying(TaskSpec { timeout, ..spec("sleep", r#"{"ms":60000}"#) }, 1)?).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Failed)?;
    ensure!(task.error.as_ref().is_some_and(|error| error.kind == "TIMEOUT"), "{task:?}");
    Ok(())
}

/// A handler that says nothing for too long fails with a kind of its own.
pub async fn heartbeats(clients: &Clients) -> Result<()> {
    let heartbeat_timeout = Some(Duration::from_millis(200).try_into()?);
    let id = clients.submit(retrying(TaskSpec { heartbeat_timeout, ..spec("sleep", r#"{"ms":60000}"#) }, 2)?).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Failed)?;
    ensure!(task.error.as_ref().is_some_and(|error| error.kind == "HEARTBEAT_TIMEOUT"), "{task:?}");
    ensure!(task.attempt == 2, "it is tried again: {task:?}");
    Ok(())
}

/// A delayed task does not start before its time, and then does.
pub async fn delay(clients: &Clients) -> Result<()> {
    let delay = Duration::from_millis(700);
    let id = clients.submit(delayed(spec("echo", "1"), delay)?).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Succeeded)?;
    let nanos = |time: Option<prost_types::Timestamp>| time.map(|t| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos));
    let (created, started) = (nanos(task.create_time).context("created")?, nanos(task.start_time).context("started")?);
    ensure!(started - created >= delay.as_nanos() as i128, "started {} ns after its submission", started - created);
    Ok(())
}

/// A task that cannot start in time expires without a run.
pub async fn expiry(clients: &Clients) -> Result<()> {
    let deadline = Some(Duration::from_millis(300).try_into()?);
    // Nobody takes from this queue.
    let task = TaskSpec { queue: "nobody".to_owned(), deadline, ..spec("echo", "1") };
    let id = clients.submit(task).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Expired)?;
    ensure!(task.attempt == 0, "{task:?}");
    ensure!(task.error.as_ref().is_some_and(|error| error.kind == "DEADLINE"), "{task:?}");
    let start_timeout = Some(Duration::from_millis(300).try_into()?);
    let id = clients.submit(TaskSpec { queue: "nobody".to_owned(), start_timeout, ..spec("echo", "1") }).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Expired)?;
    ensure!(task.error.as_ref().is_some_and(|error| error.kind == "START_TIMEOUT"), "{task:?}");
    Ok(())
}

/// A cancel of a task that waits is final at once.
pub async fn cancel_waiting(clients: &Clients) -> Result<()> {
    for delay in [Duration::from_secs(60), Duration::from_secs(3600)] {
        let id = clients.submit(delayed(spec("echo", "1"), delay)?).await?;
        let (outcome, task) = clients.cancel(&id).await?;
        ensure!(outcome == CancelOutcome::Acknowledged, "{outcome:?}");
        ensure_state(&task, TaskState::Cancelled)?;
        let (again, _) = clients.cancel(&id).await?;
        ensure!(again == CancelOutcome::Acknowledged, "{again:?}");
    }
    Ok(())
}

/// A cancel of a running task reaches its handler.
pub async fn cancel_running(clients: &Clients) -> Result<()> {
    let id = clients.submit(spec("sleep", r#"{"ms":60000}"#)).await?;
    clients.wait_for_state(&id, TaskState::Running).await?;
    let (outcome, task) = clients.cancel(&id).await?;
    // A handler that stops at once may have ended its run before the answer is written: then the cancel is final already.
    let expected = if task.state() == TaskState::Cancelled { CancelOutcome::Acknowledged } else { CancelOutcome::Requested };
    ensure!(outcome == expected, "{outcome:?} {task:?}");
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Cancelled)?;
    let finished = clients.submit(spec("echo", "1")).await?;
    clients.wait(&finished).await?;
    let refused = clients.cancel(&finished).await.expect_err("a finished task");
    let status = refused.downcast_ref::<tonic::Status>().context("a status")?;
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    Ok(())
}

/// A task that waits can be changed: here it is brought forward.
pub async fn update_waiting(clients: &Clients) -> Result<()> {
    let id = clients.submit(delayed(spec("echo", "1"), Duration::from_secs(3600))?).await?;
    let request = UpdateTaskRequest {
        task_id: id.clone(),
        spec: Some(TaskSpec { priority: Some(9), tags: vec!["urgent".to_owned()], ..Default::default() }),
        update_mask: Some(FieldMask { paths: ["priority", "tags", "run_at"].map(str::to_owned).to_vec() }),
        ..Default::default()
    };
    clients.submission.clone().update_task(request).await?;
    let task = clients.wait(&id).await?;
    ensure_state(&task, TaskState::Succeeded)?;
    let spec = task.spec.context("a specification")?;
    ensure!(spec.priority == Some(9) && spec.tags == ["urgent"], "{spec:?}");
    Ok(())
}

/// One task per key, per id and per request; another body is refused.
pub async fn idempotency(clients: &Clients) -> Result<()> {
    let key = format!("key-{}", clients.submit(spec("echo", "0")).await?);
    let keyed = |json: &str, policy: IdempotencyPolicy| TaskSpec {
        idempotency_key: key.clone(),
        idempotency_policy: policy.into(),
        ..spec("echo", json)
    };
    let first = clients.submit(keyed("1", IdempotencyPolicy::ReturnExisting)).await?;
    let second = clients.submit(keyed("1", IdempotencyPolicy::ReturnExisting)).await?;
    ensure!(first == second, "{first} {second}");
    for (task, code) in [
        (keyed("2", IdempotencyPolicy::ReturnExisting), Code::AlreadyExists),
        (keyed("1", IdempotencyPolicy::Reject), Code::AlreadyExists),
        (TaskSpec { task_id: first.clone(), ..spec("echo", "\"other\"") }, Code::AlreadyExists),
    ] {
        let refused = clients.submit(task).await.expect_err("taken");
        let status = refused.downcast_ref::<tonic::Status>().context("a status")?;
        ensure!(status.code() == code && status.message().starts_with("task: "), "{status:?}");
    }
    let request_id = "6f6f6f6f-7b1e-4cc3-98c4-dc0c0c073981";
    let request = |json: &str| BatchSubmitTasksRequest {
        tasks: vec![spec("echo", json), spec("echo", json)],
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let ids = |answer: tonic::Response<oxcart_proto::pb::submission::v1::BatchSubmitTasksResponse>| {
        answer.into_inner().results.into_iter().map(|r| r.task_id).collect::<Vec<_>>()
    };
    let first = ids(clients.submission.clone().batch_submit_tasks(request("1")).await?);
    let second = ids(clients.submission.clone().batch_submit_tasks(request("1")).await?);
    ensure!(first == second, "{first:?} {second:?}");
    let reused = clients.submission.clone().batch_submit_tasks(request("2")).await.expect_err("another body");
    ensure!(reused.code() == Code::AlreadyExists, "{reused:?}");
    Ok(())
}

/// Batches of a thousand all run.
pub async fn batches(clients: &Clients) -> Result<()> {
    let ids = clients.submit_all((0..3000).map(|n| spec("echo", &n.to_string())).collect()).await?;
    let ended = clients.wait_all(&ids).await?;
    ensure!(ended.get(&TaskState::Succeeded) == Some(&3000), "{ended:?}");
    Ok(())
}

/// A bulk stream answers batch by batch; a bad batch is refused and the stream goes on.
pub async fn stream(clients: &Clients) -> Result<()> {
    let message = |sequence: i64, tasks: Vec<TaskSpec>| StreamSubmitTasksRequest { sequence, tasks, ..Default::default() };
    let good = |n: usize| (0..n).map(|i| spec("echo", &i.to_string())).collect::<Vec<_>>();
    let batches = vec![message(1, good(500)), message(2, vec![spec("", "1")]), message(3, good(500))];
    let mut answers = clients.submission.clone().stream_submit_tasks(futures_util::stream::iter(batches)).await?.into_inner();
    let mut ids = Vec::new();
    let mut sequences = Vec::new();
    while let Some(answer) = answers.message().await? {
        sequences.push(answer.sequence);
        ensure!(answer.error.is_some() == (answer.sequence == 2), "{answer:?}");
        ids.extend(answer.results.into_iter().map(|r| r.task_id));
    }
    ensure!(sequences == [1, 2, 3] && ids.len() == 1000, "{sequences:?} {}", ids.len());
    let ended = clients.wait_all(&ids).await?;
    ensure!(ended.get(&TaskState::Succeeded) == Some(&1000), "{ended:?}");
    Ok(())
}

/// Only finished tasks can be deleted, and then they are gone.
pub async fn deletion(clients: &Clients) -> Result<()> {
    let open = clients.submit(delayed(spec("echo", "1"), Duration::from_secs(3600))?).await?;
    let delete = |id: &str| {
        let request = DeleteTaskRequest { task_id: id.to_owned() };
        let mut submission = clients.submission.clone();
        async move { submission.delete_task(request).await }
    };
    ensure!(delete(&open).await.expect_err("open").code() == Code::FailedPrecondition);
    clients.cancel(&open).await?;
    delete(&open).await?;
    ensure!(delete(&open).await.expect_err("gone").code() == Code::NotFound);
    Ok(())
}

/// Lists, runs, queues and workers.
pub async fn reading(clients: &Clients) -> Result<()> {
    let tagged = TaskSpec { tags: vec!["reading".to_owned()], ..spec("echo", "1") };
    let ids = clients.submit_all(vec![tagged; 5]).await?;
    clients.wait_all(&ids).await?;
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let filter = r#"state = SUCCEEDED AND tags:reading AND queue = "default""#.to_owned();
        let request = ListTasksRequest { filter, page_size: 2, page_token };
        let page = clients.monitor.clone().list_tasks(request).await?.into_inner();
        found.extend(page.tasks.into_iter().filter_map(|t| t.spec).map(|s| s.task_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    found.reverse();
    ensure!(found == ids, "{found:?} {ids:?}");
    let request = ListTaskRunsRequest { task_id: ids[0].clone(), ..Default::default() };
    let runs = clients.monitor.clone().list_task_runs(request).await?.into_inner().runs;
    ensure!(runs.len() == 1 && runs[0].end() == RunEnd::Succeeded, "{runs:?}");
    let queues = clients.monitor.clone().list_queues(ListQueuesRequest::default()).await?.into_inner().queues;
    ensure!(queues.iter().any(|q| q.queue == "default"), "{queues:?}");
    clients
        .poll("a worker in the registry", || async {
            let workers = clients.monitor.clone().list_workers(ListWorkersRequest::default()).await?.into_inner().workers;
            Ok(workers.into_iter().find(|w| w.task_names.iter().any(|n| n == "echo")))
        })
        .await?;
    Ok(())
}

/// Events are seen live, in order.
pub async fn watching(clients: &Clients) -> Result<()> {
    let id = clients.submit(delayed(spec("echo", "1"), Duration::from_millis(500))?).await?;
    let request = WatchEventsRequest { filter: format!("task_id = {id}"), ..Default::default() };
    let mut events = clients.monitor.clone().watch_events(request).await?.into_inner();
    let mut types = Vec::new();
    let seen = async {
        while let Some(message) = events.message().await? {
            if let Some(watch_events_response::Kind::Events(batch)) = message.kind {
                types.extend(batch.events.into_iter().map(|e| e.r#type));
            }
            if types.iter().any(|t| t == "task.succeeded") {
                return Ok(());
            }
        }
        anyhow::bail!("the stream ended")
    };
    tokio::time::timeout(PATIENCE, seen).await.context("no task.succeeded")??;
    ensure!(types.contains(&"task.granted".to_owned()), "{types:?}");
    Ok(())
}

/// Mistakes are told, all at once, with reason and field, and nothing is stored.
pub async fn bad_input(clients: &Clients) -> Result<()> {
    let bad = TaskSpec {
        queue: "No Such Name!".to_owned(),
        priority: Some(11),
        timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..spec("", "{not json")
    };
    let request = SubmitTaskRequest { task: Some(bad), ..Default::default() };
    let refused = clients.submission.clone().submit_task(request).await.expect_err("bad");
    ensure!(refused.code() == Code::InvalidArgument, "{refused:?}");
    let details = refused.get_error_details();
    let fields: Vec<_> = details.bad_request().context("BadRequest")?.field_violations.iter().map(|v| v.field.as_str()).collect();
    for field in ["task.task_name", "task.queue", "task.priority", "task.timeout", "task.payload"] {
        ensure!(fields.contains(&field), "{field} is missing in {fields:?}");
    }
    ensure!(details.error_info().is_some(), "no ErrorInfo");
    let too_many = BatchSubmitTasksRequest { tasks: vec![spec("echo", "1"); 1001], ..Default::default() };
    let refused = clients.submission.clone().batch_submit_tasks(too_many).await.expect_err("1001 tasks");
    ensure!(refused.code() == Code::InvalidArgument, "{refused:?}");
    Ok(())
}
