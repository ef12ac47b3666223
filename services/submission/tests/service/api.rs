//! Every RPC, and what bad input gets.

use crate::support::{config, echo, start};
use oxcart_proto::pb::{
    common::v1::{Payload, TaskSpec, TaskState, payload::Content, task_spec::Start},
    submission::v1::{
        BatchGetTasksRequest, BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, DeleteTaskRequest, ExecuteTaskRequest,
        StreamSubmitTasksRequest, SubmitTaskRequest, UpdateTaskRequest, WaitTaskRequest,
    },
};
use oxcart_service::status::reason_of;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn fields(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    bad.into_iter().map(|violation| violation.field).collect()
}

fn new_id() -> String {
    use oxcart_types::{IdSource as _, SystemIds};
    SystemIds.task_id().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_every_violation() {
    let system = start(config()).await;
    let duration = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let json = |text: &str| Some(Payload { content: Some(Content::Json(text.to_owned())), ..Payload::default() });
    let cases: Vec<(TaskSpec, &str, &str)> = vec![
        (TaskSpec::default(), "FIELD_REQUIRED", "task.task_name"),
        (TaskSpec { queue: "A b".into(), ..echo() }, "FIELD_INVALID", "task.queue"),
        (TaskSpec { task_id: "x".into(), ..echo() }, "FIELD_INVALID", "task.task_id"),
        (TaskSpec { priority: Some(10), ..echo() }, "FIELD_INVALID", "task.priority"),
        (TaskSpec { start: Some(Start::Delay(duration(-1))), ..echo() }, "FIELD_INVALID", "task.delay"),
        (TaskSpec { timeout: Some(duration(i64::MAX)), ..echo() }, "FIELD_INVALID", "task.timeout"),
        (TaskSpec { payload: json("{"), ..echo() }, "PAYLOAD_INVALID_JSON", "task.payload"),
        (TaskSpec { payload: json(&"1".repeat(300_000)), ..echo() }, "PAYLOAD_TOO_LARGE", "task.payload"),
        (TaskSpec { idempotency_policy: 9, ..echo() }, "FIELD_INVALID", "task.idempotency_policy"),
    ];
    for (task, reason, field) in cases {
        let request = SubmitTaskRequest { task: Some(task), ..SubmitTaskRequest::default() };
        let status = system.client.clone().submit_task(request).await.expect_err(field);
        assert_eq!((status.code(), reason_of(&status).as_deref()), (Code::InvalidArgument, Some(reason)), "{field}");
        assert_eq!(fields(&status), [field]);
    }
    let twice = TaskSpec { task_id: new_id(), ..echo() };
    for (tasks, field) in [(vec![], "tasks"), (vec![echo(); 1001], "tasks"), (vec![twice.clone(), twice], "tasks[1].task_id")] {
        let request = BatchSubmitTasksRequest { tasks, ..BatchSubmitTasksRequest::default() };
        let status = system.client.clone().batch_submit_tasks(request).await.expect_err(field);
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    let stored = system.store.list(&oxcart_store::TaskFilter::default(), None, 10).await.expect("a page");
    assert!(stored.tasks.is_empty(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_finds_its_first_answer_and_another_body_is_refused() {
    let system = start(config()).await;
    let request_id = new_id();
    let submit = async |name: &str| {
        let delay = Some(Start::Delay(prost_types::Duration { seconds: 1, nanos: 0 }));
        let task = Some(TaskSpec { task_name: name.to_owned(), start: delay, ..TaskSpec::default() });
        let request = SubmitTaskRequest { task, request_id: request_id.clone(), validate_only: false };
        system.client.clone().submit_task(request).await.map(|answer| answer.into_inner().result.expect("a result"))
    };
    let (first, again) = (submit("echo").await.expect("new"), submit("echo").await.expect("known"));
    assert_eq!((first.task_id, true), (again.task_id, again.deduplicated));
    let reused = submit("other").await.expect_err("another body");
    assert_eq!((reused.code(), reason_of(&reused).as_deref()), (Code::AlreadyExists, Some("REQUEST_ID_REUSED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_stores_nothing() {
    let system = start(config()).await;
    let task_id = new_id();
    let task = Some(TaskSpec { task_id: task_id.clone(), ..echo() });
    let request = SubmitTaskRequest { task, validate_only: true, ..SubmitTaskRequest::default() };
    system.client.clone().submit_task(request).await.expect("good");
    let request = BatchGetTasksRequest { task_ids: vec![task_id.clone()], view: 0 };
    let answer = system.client.clone().batch_get_tasks(request).await.expect("answered").into_inner();
    assert_eq!(answer.missing_task_ids, [task_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_in_order_and_a_refused_batch_does_not_end_it() {
    let system = start(config()).await;
    let batch = |sequence, tasks| StreamSubmitTasksRequest { sequence, tasks, request_id: String::new() };
    let batches = vec![batch(1, vec![echo(); 10]), batch(2, vec![TaskSpec::default()]), batch(5, vec![echo()])];
    let mut answers = system.client.clone().stream_submit_tasks(tokio_stream::iter(batches)).await.expect("open").into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.expect("no error") {
        seen.push((answer.sequence, answer.results.len(), answer.error.map(|error| error.code)));
    }
    assert_eq!(seen, [(1, 10, None), (2, 0, Some(Code::InvalidArgument.into())), (5, 1, None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_is_updated_cancelled_and_deleted() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    let mut client = system.client.clone();
    let early = client.delete_task(DeleteTaskRequest { task_id: id.clone() }).await.expect_err("not finished");
    assert_eq!(reason_of(&early).as_deref(), Some("TASK_NOT_FINISHED"));

    let request = UpdateTaskRequest {
        task_id: id.clone(),
        spec: Some(TaskSpec { priority: Some(9), ..TaskSpec::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["priority".to_owned()] }),
        etag: String::new(),
    };
    let updated = client.update_task(request).await.expect("updated").into_inner().task.expect("a task");
    assert_eq!(updated.spec.and_then(|spec| spec.priority), Some(9));

    // What this process does the wait hears of without a journal.
    let request = WaitTaskRequest { task_id: id.clone(), ..WaitTaskRequest::default() };
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.wait_task(request).await }
    });
    let cancel = CancelTaskRequest { task_id: id.clone(), ..CancelTaskRequest::default() };
    for _ in 0..2 {
        let answer = client.cancel_task(cancel.clone()).await.expect("cancelled").into_inner();
        assert_eq!(answer.outcome(), CancelOutcome::Acknowledged);
    }
    let waited = waiting.await.expect("no panic").expect("an answer").into_inner();
    assert_eq!((waited.satisfied, waited.task.map(|task| task.state())), (true, Some(TaskState::Cancelled)));

    client.delete_task(DeleteTaskRequest { task_id: id.clone() }).await.expect("deleted");
    let gone = client.cancel_task(cancel).await.expect_err("gone");
    assert_eq!((gone.code(), reason_of(&gone).as_deref()), (Code::NotFound, Some("TASK_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_whose_time_is_over_cancels_its_task() {
    let system = start(config()).await;
    let task_id = new_id();
    let execute = ExecuteTaskRequest {
        task: Some(TaskSpec { task_id: task_id.clone(), ..echo() }),
        cancel_on_disconnect: true,
        ..ExecuteTaskRequest::default()
    };
    let mut request = tonic::Request::new(execute);
    request.set_timeout(std::time::Duration::from_secs(1));
    system.client.clone().execute_task(request).await.expect_err("nobody runs it");
    system.reaches(&task_id, TaskState::Cancelled).await;
}
