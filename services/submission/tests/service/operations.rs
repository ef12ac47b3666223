//! Bulk cancels and cancel rules, through the API.

use std::{collections::HashMap, time::Duration};

use oxcart_proto::pb::{
    common::v1::{ParentLink, TaskIdList, TaskSelector, TaskSpec, TaskState, task_selector::Selector, task_spec::Start},
    submission::v1::{
        BatchAction, BatchOperation, BatchOperationSpec, BatchOperationState, CancelOutcome, CancelRule, CancelTaskRequest,
        CreateCancelRuleRequest, DeleteCancelRuleRequest, GetBatchOperationRequest, ListBatchOperationsRequest,
        ListCancelRulesRequest, StartBatchOperationRequest, StopBatchOperationRequest,
    },
};
use oxcart_service::status::reason_of;
use oxcart_store::{End, EndOutcome, RunKey};
use oxcart_testkit::wait_for;
use oxcart_types::{Clock as _, EndKind, SystemClock, TaskId};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{PATIENCE, System, config, echo, serve, start};

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn in_seconds(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: SystemClock.now().timestamp() + seconds, nanos: 0 }
}

fn tagged(tag: &str) -> TaskSpec {
    TaskSpec { tags: vec![tag.to_owned()], ..echo() }
}

fn request(selector: Selector) -> StartBatchOperationRequest {
    let spec = BatchOperationSpec {
        action: BatchAction::Cancel.into(),
        selector: Some(TaskSelector { selector: Some(selector) }),
        reason: "bad data".to_owned(),
        grace_period: Some(seconds(5)),
    };
    StartBatchOperationRequest { spec: Some(spec), ..StartBatchOperationRequest::default() }
}

impl System {
    async fn bulk(&self, selector: Selector) -> BatchOperation {
        let answer = self.operations.clone().start_batch_operation(request(selector)).await.expect("started").into_inner();
        answer.batch_operation.expect("an operation")
    }

    async fn operation(&self, id: &str) -> BatchOperation {
        let request = GetBatchOperationRequest { batch_operation_id: id.to_owned() };
        self.operations.clone().get_batch_operation(request).await.expect("found").into_inner().batch_operation.expect("it")
    }

    async fn completed(&self, id: &str) -> BatchOperation {
        let done = async || {
            let operation = self.operation(id).await;
            (operation.state() == BatchOperationState::Completed).then_some(operation)
        };
        wait_for("the end of the operation", PATIENCE, done).await.expect("in time")
    }

    async fn rule(&self, rule: CancelRule) -> CancelRule {
        let request = CreateCancelRuleRequest { cancel_rule: Some(rule), ..CreateCancelRuleRequest::default() };
        self.operations.clone().create_cancel_rule(request).await.expect("made").into_inner().cancel_rule.expect("it")
    }

    async fn rules(&self, include_ended: bool) -> Vec<CancelRule> {
        let request = ListCancelRulesRequest { include_ended, ..ListCancelRulesRequest::default() };
        self.operations.clone().list_cancel_rules(request).await.expect("listed").into_inner().cancel_rules
    }

    async fn end(&self, run: RunKey, kind: EndKind) {
        let end = End {
            task: run.task,
            run: run.run,
            token: run.token,
            kind,
            attempts_used: 1,
            result: None,
            failure: None,
            next_run_at: None,
        };
        let outcome = self.store.end(&[end], SystemClock.now()).await.expect("an answer");
        assert!(matches!(outcome.as_slice(), [EndOutcome::Written(_)]), "{outcome:?}");
    }
}

fn on_tag(tag: &str, lasting: i64) -> CancelRule {
    CancelRule {
        selector: Some(TaskSelector { selector: Some(Selector::Tag(tag.to_owned())) }),
        expires_at: Some(in_seconds(lasting)),
        reason: "bad data".to_owned(),
        ..CancelRule::default()
    }
}

fn counts(operation: &BatchOperation) -> [i64; 5] {
    let o = operation;
    [o.matched_count, o.succeeded_count, o.requested_count, o.finished_count, o.failed_count]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_cancel_reaches_whatever_has_the_tag() {
    let system = start(config()).await;
    let queued = system.submit(tagged("bad")).await;
    let delayed = system.submit(TaskSpec { start: Some(Start::Delay(seconds(3600))), ..tagged("bad") }).await;
    let running = system.submit(tagged("bad")).await;
    let done = system.submit(tagged("bad")).await;
    let other = system.submit(tagged("good")).await;
    for id in [&queued, &running, &done] {
        system.handed_off(id).await;
    }
    let run = system.begin(&running).await;
    let finished = system.begin(&done).await;
    system.end(finished, EndKind::Succeeded).await;

    let dry = StartBatchOperationRequest { dry_run: true, ..request(Selector::Tag("bad".to_owned())) };
    let dry = system.operations.clone().start_batch_operation(dry).await.expect("counted").into_inner();
    let counted = dry.batch_operation.expect("counts");
    assert_eq!((counts(&counted), counted.batch_operation_id.as_str()), ([4, 2, 1, 1, 0], ""));
    let mut samples = dry.sample_task_ids;
    samples.sort_unstable();
    assert_eq!(samples, [&*queued, &*delayed, &*running]);
    assert_eq!(system.get(&queued).await.state(), TaskState::Queued, "a dry run changes nothing");

    let mut named = Request::new(request(Selector::Tag("bad".to_owned())));
    named.metadata_mut().insert("oxcart-actor", "alice".parse().expect("ASCII"));
    let begun = system.operations.clone().start_batch_operation(named).await.expect("started").into_inner();
    let id = begun.batch_operation.expect("an operation").batch_operation_id;
    let operation = system.completed(&id).await;
    assert_eq!(counts(&operation), [4, 2, 1, 1, 0]);
    assert_eq!((operation.actor.as_str(), operation.spec.expect("what").reason.as_str()), ("alice", "bad data"));
    for id in [&queued, &delayed] {
        let task = system.get(id).await;
        let error = task.error.clone().expect("why");
        assert_eq!((task.state(), error.message.as_str()), (TaskState::Cancelled, "bad data"));
        assert!(error.detail.contains(&operation.batch_operation_id), "{error:?}");
    }
    assert!(!system.dispatcher.has(&queued), "its entry is gone");
    assert!(system.dispatcher.state().removed.contains(&(queued.clone(), 1)), "up to the closed run, and no further");
    assert!(system.dispatcher.state().notified.contains(&running), "its worker is told");
    assert!(system.get(&running).await.cancel_requested);
    assert!(matches!(system.get(&other).await.state(), TaskState::Pending | TaskState::Queued));
    system.end(run, EndKind::Failed).await;
    assert_eq!(system.get(&running).await.state(), TaskState::Cancelled);

    let listed = system.operations.clone().list_batch_operations(ListBatchOperationsRequest::default()).await.expect("listed");
    assert_eq!(listed.into_inner().batch_operations.len(), 1, "a dry run is not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_filters_pick_too() {
    let system = start(config()).await;
    let listed = system.submit(echo()).await;
    let unknown = oxcart_types::IdSource::task_id(&oxcart_types::SystemIds).to_string();
    let ids = TaskIdList { task_ids: vec![listed.clone(), unknown.clone(), listed.clone()] };
    let operation = system.completed(&system.bulk(Selector::Ids(ids)).await.batch_operation_id).await;
    assert_eq!(counts(&operation), [2, 1, 0, 0, 1]);
    assert!(operation.failure_samples[0].contains(&unknown), "{operation:?}");
    assert_eq!(system.get(&listed).await.state(), TaskState::Cancelled);

    let mut mail = Vec::new();
    for _ in 0..3 {
        mail.push(system.submit(TaskSpec { queue: "mail".to_owned(), tags: vec!["a".into(), "b".into()], ..echo() }).await);
    }
    let half = system.submit(TaskSpec { queue: "mail".to_owned(), tags: vec!["a".into()], ..echo() }).await;
    let filter = "queue = mail AND tags:a AND tags:b AND create_time > now-1h".to_owned();
    let operation = system.completed(&system.bulk(Selector::Filter(filter)).await.batch_operation_id).await;
    assert_eq!(counts(&operation), [3, 3, 0, 0, 0]);
    for id in mail {
        assert_eq!(system.get(&id).await.state(), TaskState::Cancelled);
    }
    assert_ne!(system.get(&half).await.state(), TaskState::Cancelled);
}

/// More than one batch, and a process that dies after it has claimed the operation: another one carries on.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_goes_on_where_a_process_died() {
    let mut without_sweeper = config();
    without_sweeper.sweep.operations_period = Duration::from_secs(3600);
    let first = start(without_sweeper).await;
    let tasks = (0..1200).map(|_| tagged("bad")).collect::<Vec<_>>();
    let mut ids = Vec::new();
    for batch in tasks.chunks(600) {
        let request = oxcart_proto::pb::submission::v1::BatchSubmitTasksRequest { tasks: batch.to_vec(), ..Default::default() };
        let answer = first.client.clone().batch_submit_tasks(request).await.expect("submitted").into_inner();
        ids.extend(answer.results.into_iter().map(|result| result.task_id));
    }
    // The operation of a process that has cancelled a batch and died before it recorded it.
    let new = oxcart_store::NewOperation {
        id: oxcart_types::IdSource::operation_id(&oxcart_types::SystemIds),
        request: None,
        selector: oxcart_store::Selector::Tag("bad".parse().expect("a tag")),
        reason: "bad data".to_owned(),
        actor: "test".to_owned(),
        grace: Duration::from_secs(5),
        created_at: SystemClock.now() - chrono::TimeDelta::seconds(60),
    };
    first.store.start_operation(&new, 10).await.expect("stored");
    let long_ago = SystemClock.now() - chrono::TimeDelta::seconds(60);
    let claimed = first.store.claim_operation(long_ago, long_ago + chrono::TimeDelta::seconds(1)).await.expect("claimed");
    assert!(claimed.is_some());
    let now = SystemClock.now();
    let by = oxcart_types::LeaseToken::from_bytes(*new.id.as_bytes());
    let failure = oxcart_types::Failure::new(oxcart_types::FailureKind::CANCELLED, "bad data");
    let cancel = oxcart_store::Cancel { reason: "bad data".to_owned(), requested_at: now, grace: Duration::from_secs(5) };
    let cancelled: Vec<_> = ids[1000..]
        .iter()
        .map(|id| oxcart_store::CancelTask {
            task: id.parse().expect("an id"),
            by,
            cancel: cancel.clone(),
            failure: failure.clone(),
        })
        .collect();
    first.store.cancel_tasks(&cancelled).await.expect("cancelled");

    let second = serve(config(), first.store.clone(), first.dispatcher.clone());
    let operation = second.completed(&new.id.to_string()).await;
    let [matched, succeeded, requested, finished, failed] = counts(&operation);
    assert_eq!((matched, requested, failed), (1200, 0, 0));
    // What the dead process had done is known by its closer, and counted once.
    assert_eq!((succeeded, finished), (1200, 0));
    let mut states: HashMap<_, usize> = HashMap::new();
    for id in &ids {
        *states.entry(second.get(id).await.state()).or_default() += 1;
    }
    assert_eq!(states, HashMap::from([(TaskState::Cancelled, 1200)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_cancelled_with_what_it_starts_meanwhile() {
    let mut quick = config();
    quick.sweep.tree_round = Duration::from_millis(50);
    let system = start(quick).await;
    let child_of = |parent: &str| TaskSpec { parent: Some(ParentLink { parent_task_id: parent.to_owned() }), ..echo() };
    let root = system.submit(echo()).await;
    let child = system.submit(child_of(&root)).await;
    let grandchild = system.submit(child_of(&child)).await;
    let stranger = system.submit(echo()).await;
    assert_eq!(system.get(&child).await.spec.expect("what").parent.expect("a link").parent_task_id, root);
    let run = system.begin(&child).await;

    let request = CancelTaskRequest { task_id: root.clone(), tree: true, ..CancelTaskRequest::default() };
    let answer = system.client.clone().cancel_task(request.clone()).await.expect("cancelled").into_inner();
    assert_eq!(answer.outcome(), CancelOutcome::Acknowledged, "the root itself");
    let operation = answer.batch_operation_id;
    system.reaches(&grandchild, TaskState::Cancelled).await;
    wait_for("the child", PATIENCE, async || system.get(&child).await.cancel_requested.then_some(())).await.expect("asked to stop");
    // The handler of the child, on its way out, starts one more.
    let late = system.submit(child_of(&child)).await;
    assert_eq!(system.operation(&operation).await.state(), BatchOperationState::Running, "as long as something runs");
    system.end(run, EndKind::Failed).await;
    let done = system.completed(&operation).await;
    assert_eq!(counts(&done), [4, 3, 0, 1, 0], "the root was cancelled by the call itself");
    assert_eq!(system.get(&late).await.state(), TaskState::Cancelled);
    assert_eq!(system.get(&child).await.state(), TaskState::Cancelled);
    assert_ne!(system.get(&stranger).await.state(), TaskState::Cancelled);

    // A root that has ended may have children that have not.
    let late = system.submit(child_of(&child)).await;
    let request = CancelTaskRequest { task_id: child.clone(), ..request };
    let again = system.client.clone().cancel_task(request).await.expect("cancelled").into_inner();
    system.completed(&again.batch_operation_id).await;
    assert_eq!(system.get(&late).await.state(), TaskState::Cancelled);
    // And it can be counted before.
    let request = StartBatchOperationRequest { dry_run: true, ..request_of_tree(&root) };
    let counted = system.operations.clone().start_batch_operation(request).await.expect("counted").into_inner();
    assert_eq!(counts(&counted.batch_operation.expect("counts")), [5, 0, 0, 5, 0]);
}

fn request_of_tree(root: &str) -> StartBatchOperationRequest {
    request(Selector::TreeRootTaskId(root.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_cancels_what_is_there_and_what_comes() {
    let system = start(config()).await;
    let waiting = system.submit(tagged("bad")).await;
    let running = system.submit(tagged("bad")).await;
    let run = system.begin(&running).await;

    let dry = CreateCancelRuleRequest { cancel_rule: Some(on_tag("bad", 60)), dry_run: true, ..CreateCancelRuleRequest::default() };
    let dry = system.operations.clone().create_cancel_rule(dry).await.expect("counted").into_inner();
    assert_eq!((dry.matched_count, dry.sample_task_ids.len()), (2, 2));
    assert!(system.rules(true).await.is_empty(), "a dry run is not stored");

    let rule = system.rule(on_tag("bad", 60)).await;
    // A submit is accepted, and tells that its task is cancelled.
    let submit = oxcart_proto::pb::submission::v1::SubmitTaskRequest { task: Some(tagged("bad")), ..Default::default() };
    let result = system.client.clone().submit_task(submit).await.expect("accepted").into_inner().result.expect("a result");
    assert_eq!(result.state(), TaskState::Cancelled);
    let task = system.get(&result.task_id).await;
    assert_eq!((task.state(), task.error.clone().expect("why").message.as_str()), (TaskState::Cancelled, "bad data"));
    assert!(task.error.expect("why").detail.contains(&rule.cancel_rule_id));

    let sweep = system.completed(&rule.batch_operation_id).await;
    assert_eq!((sweep.cancel_rule_id.as_str(), sweep.requested_count), (rule.cancel_rule_id.as_str(), 1));
    assert_eq!(system.get(&waiting).await.state(), TaskState::Cancelled);
    assert!(system.get(&running).await.cancel_requested);
    let [listed] = <[CancelRule; 1]>::try_from(system.rules(false).await).expect("one");
    assert_eq!((listed.cancelled_count, listed.reason.as_str(), listed.end_time), (3, "bad data", None));
    system.end(run, EndKind::Failed).await;
    assert!(!system.dispatcher.has(&result.task_id), "it was never handed off");

    let delete = DeleteCancelRuleRequest { cancel_rule_id: rule.cancel_rule_id.clone() };
    for _ in 0..2 {
        system.operations.clone().delete_cancel_rule(delete.clone()).await.expect("ended");
    }
    assert!(system.rules(false).await.is_empty());
    assert!(system.rules(true).await[0].end_time.is_some(), "the audit keeps it");
    let after = system.submit(tagged("bad")).await;
    system.handed_off(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_and_change_nothing() {
    let mut small = config();
    small.operations = 1;
    small.cancel_rules = 1;
    let system = start(small).await;
    let tag = || Selector::Tag("a".to_owned());
    let with = |change: &dyn Fn(&mut BatchOperationSpec)| {
        let mut request = request(tag());
        request.spec.iter_mut().for_each(change);
        request
    };
    let many = (0..1001).map(|_| "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".to_owned()).collect();
    for (request, field) in [
        (StartBatchOperationRequest::default(), "spec.action"),
        (with(&|spec| spec.action = 99), "spec.action"),
        (with(&|spec| spec.selector = None), "spec.selector"),
        (with(&|spec| spec.reason = "x".repeat(1025)), "spec.reason"),
        (with(&|spec| spec.grace_period = Some(seconds(3601))), "spec.grace_period"),
        (request(Selector::Tag(String::new())), "spec.selector.tag"),
        (request(Selector::Filter(" ".to_owned())), "spec.selector.filter"),
        (request(Selector::Filter("state".to_owned())), "spec.selector.filter"),
        (request(Selector::Ids(TaskIdList::default())), "spec.selector.ids"),
        (request(Selector::Ids(TaskIdList { task_ids: many })), "spec.selector.ids"),
        (request(Selector::Ids(TaskIdList { task_ids: vec!["x".to_owned()] })), "spec.selector.ids.task_ids[0]"),
        (request(Selector::TreeRootTaskId("x".to_owned())), "spec.selector.tree_root_task_id"),
        (StartBatchOperationRequest { request_id: "x".to_owned(), ..request(tag()) }, "request_id"),
    ] {
        let status = system.operations.clone().start_batch_operation(request).await.expect_err(field);
        let bad = status.get_details_bad_request().expect("BadRequest").field_violations;
        assert_eq!((status.code(), bad[0].field.as_str()), (Code::InvalidArgument, field), "{bad:?}");
    }
    let rule = |selector: Selector| CancelRule { selector: Some(TaskSelector { selector: Some(selector) }), ..on_tag("a", 60) };
    for (rule, field) in [
        (CancelRule::default(), "cancel_rule.expires_at"),
        (on_tag("a", -1), "cancel_rule.expires_at"),
        (on_tag("a", 31 * 24 * 3600), "cancel_rule.expires_at"),
        (rule(Selector::TreeRootTaskId("0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".to_owned())), "cancel_rule.selector"),
        (rule(Selector::Filter("state = QUEUED".to_owned())), "cancel_rule.selector.filter"),
        (rule(Selector::Filter(String::new())), "cancel_rule.selector.filter"),
    ] {
        let request = CreateCancelRuleRequest { cancel_rule: Some(rule), ..CreateCancelRuleRequest::default() };
        let status = system.operations.clone().create_cancel_rule(request).await.expect_err(field);
        let bad = status.get_details_bad_request().expect("BadRequest").field_violations;
        assert_eq!((status.code(), bad[0].field.as_str()), (Code::InvalidArgument, field), "{bad:?}");
    }
    let listed = system.operations.clone().list_batch_operations(ListBatchOperationsRequest::default()).await.expect("listed");
    assert!(listed.into_inner().batch_operations.is_empty() && system.rules(true).await.is_empty(), "nothing is stored");

    // The operation of a tree is at work as long as something in it runs.
    let root = system.submit(echo()).await;
    system.begin(&root).await;
    let running = system.bulk(Selector::TreeRootTaskId(root)).await.batch_operation_id;
    let second = system.operations.clone().start_batch_operation(request(tag())).await.expect_err("one too many");
    assert_eq!((second.code(), reason_of(&second).as_deref()), (Code::ResourceExhausted, Some("TOO_MANY_OPERATIONS")));
    let stop = StopBatchOperationRequest { batch_operation_id: running.clone() };
    for _ in 0..2 {
        let stopped = system.operations.clone().stop_batch_operation(stop.clone()).await.expect("stopped").into_inner();
        assert_eq!(stopped.batch_operation.expect("it").state(), BatchOperationState::Stopped);
    }
    system.rule(on_tag("a", 60)).await;
    let request = CreateCancelRuleRequest { cancel_rule: Some(on_tag("b", 60)), ..CreateCancelRuleRequest::default() };
    let second = system.operations.clone().create_cancel_rule(request).await.expect_err("one too many");
    assert_eq!((second.code(), reason_of(&second).as_deref()), (Code::ResourceExhausted, Some("TOO_MANY_CANCEL_RULES")));
    let unknown = TaskId::from_bytes([7; 16]).to_string();
    let stop = StopBatchOperationRequest { batch_operation_id: unknown.clone() };
    let status = system.operations.clone().stop_batch_operation(stop).await.expect_err("unknown");
    assert_eq!((status.code(), reason_of(&status).as_deref()), (Code::NotFound, Some("BATCH_OPERATION_NOT_FOUND")));
    let delete = DeleteCancelRuleRequest { cancel_rule_id: unknown };
    let status = system.operations.clone().delete_cancel_rule(delete).await.expect_err("unknown");
    assert_eq!((status.code(), reason_of(&status).as_deref()), (Code::NotFound, Some("CANCEL_RULE_NOT_FOUND")));
}
