//! Cancels at scale: a storm of them, bulk operations and rules under load. What was answered must be what stands at the end.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use oxcart_proto::convert::scalar::to_timestamp;
use oxcart_proto::pb::{
    common::v1::{RetryPolicy, Run, Task, TaskSelector, TaskSpec, TaskState, task_selector::Selector, task_spec::Start},
    submission::v1::{
        BatchAction, BatchGetTasksRequest, BatchOperation, BatchOperationSpec, BatchOperationState, CancelOutcome, CancelRule,
        CreateCancelRuleRequest, DeleteCancelRuleRequest, GetBatchOperationRequest, StartBatchOperationRequest,
    },
};
use oxcart_types::{Clock as _, SystemClock};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Mutex, time::Instant};
use tonic::Code;

use crate::client::{Clients, PATIENCE, is_terminal, spec};

/// Cancels in flight at once.
const IN_FLIGHT: usize = 64;

/// What a cancel by id was answered.
#[derive(Debug, Clone)]
enum Answer {
    Acknowledged(Task),
    Requested(Task),
    Finished,
}

/// Cancels every one of `count` tasks at a random moment, before, during and after its run, half of them by id and half by tag;
/// then checks that every answer is what stands at the end.
pub async fn storm(clients: &Clients, count: usize, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let tag = format!("storm-{seed}");
    let mut tasks = Vec::with_capacity(count);
    for n in 0..count {
        tasks.push(stormy(&mut random, if n % 2 == 0 { vec![] } else { vec![tag.clone()] })?);
    }
    let mut ids = Vec::with_capacity(count);
    for batch in tasks.chunks(1000) {
        ids.extend(patiently(|| clients.submit_all(batch.to_vec())).await?);
    }
    let by_id: Vec<(String, Duration)> =
        ids.iter().step_by(2).map(|id| (id.clone(), Duration::from_millis(random.random_range(0..1500)))).collect();
    let tag_delay = Duration::from_millis(random.random_range(0..800));
    let cancels = async {
        let cancel = |(id, delay): (String, Duration)| async move {
            tokio::time::sleep(delay).await;
            Ok::<_, anyhow::Error>((id.clone(), cancel(clients, &id).await?))
        };
        let answers: Vec<Result<_>> = futures_util::stream::iter(by_id).map(cancel).buffer_unordered(IN_FLIGHT).collect().await;
        answers.into_iter().collect::<Result<HashMap<String, Answer>>>()
    };
    let bulk = async {
        tokio::time::sleep(tag_delay).await;
        bulk_cancel(clients, Selector::Tag(tag.clone())).await
    };
    let (answers, operation) = tokio::try_join!(cancels, bulk)?;
    clients.wait_all(&ids).await?;
    for (id, answer) in &answers {
        check_answer(answer, &patiently(|| clients.get(id)).await?).with_context(|| format!("task {id}"))?;
    }
    check_operation(clients, &ids, &operation).await
}

/// A task that takes from nothing to 50 ms; some fail first, some are due later.
fn stormy(random: &mut StdRng, tags: Vec<String>) -> Result<TaskSpec> {
    let task = if random.random_bool(0.2) {
        let initial_backoff = Some(Duration::from_millis(50).try_into()?);
        let retry_policy = Some(RetryPolicy { max_attempts: 5, initial_backoff, ..Default::default() });
        TaskSpec { retry_policy, ..spec("flaky", r#"{"times":3}"#) }
    } else {
        spec("sleep", &format!(r#"{{"ms":{}}}"#, random.random_range(0..50)))
    };
    let start = if random.random_bool(0.2) {
        Some(Start::Delay(Duration::from_millis(random.random_range(0..2000)).try_into()?))
    } else {
        None
    };
    Ok(TaskSpec { tags, start, ..task })
}

/// Repeats a call that the system had no room for, as every client does: nothing of it was done.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(error) if is_busy(&error) && Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            answer => return answer,
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == Code::ResourceExhausted)
}

async fn cancel(clients: &Clients, id: &str) -> Result<Answer> {
    match patiently(|| clients.cancel(id)).await {
        Ok((CancelOutcome::Acknowledged, task)) => Ok(Answer::Acknowledged(task)),
        Ok((CancelOutcome::Requested, task)) => Ok(Answer::Requested(task)),
        Ok((CancelOutcome::Unspecified, task)) => bail!("no outcome: {task:?}"),
        Err(error) => match error.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
            Some(Code::FailedPrecondition) => Ok(Answer::Finished),
            _ => Err(error),
        },
    }
}

fn check_answer(answer: &Answer, end: &Task) -> Result<()> {
    match answer {
        Answer::Acknowledged(then) => {
            ensure!(then.state() == TaskState::Cancelled, "acknowledged as {:?}", then.state());
            ensure!(end.state() == TaskState::Cancelled, "acknowledged, and ended as {:?}", end.state());
            ensure!(end.run == then.run, "run {} after an acknowledged cancel of run {}", end.run, then.run);
        }
        Answer::Requested(then) => {
            ensure!(
                matches!(end.state(), TaskState::Cancelled | TaskState::Succeeded),
                "a cancel was requested, and the task ended as {:?}",
                end.state()
            );
            let later = end.runs.iter().filter(|run| run.run > then.run).find(|run| began(run));
            ensure!(later.is_none(), "a run began after the cancel of run {}: {later:?}", then.run);
        }
        Answer::Finished => {
            ensure!(is_terminal(end.state()) && end.state() != TaskState::Cancelled, "it had ended, and is {:?}", end.state());
        }
    }
    Ok(())
}

/// A worker began this run; the slot of one that was closed names none.
fn began(run: &Run) -> bool {
    !run.worker_id.is_empty()
}

/// What the operation counted is what became of the tasks with its tag.
async fn check_operation(clients: &Clients, ids: &[String], operation: &BatchOperation) -> Result<()> {
    let mut states: HashMap<TaskState, i64> = HashMap::new();
    for id in ids.iter().skip(1).step_by(2) {
        *states.entry(patiently(|| clients.get(id)).await?.state()).or_default() += 1;
    }
    let cancelled = states.get(&TaskState::Cancelled).copied().unwrap_or_default();
    let others: i64 = states.values().sum::<i64>() - cancelled;
    let tagged = i64::try_from(ids.len() / 2)?;
    ensure!(operation.matched_count == tagged && operation.failed_count == 0, "{operation:?}, {tagged} tasks");
    let sum = operation.succeeded_count + operation.requested_count + operation.finished_count;
    ensure!(sum == operation.matched_count, "{operation:?}");
    // Of those that were asked to stop, some may have succeeded all the same.
    let least = operation.succeeded_count;
    let most = operation.succeeded_count + operation.requested_count;
    ensure!((least..=most).contains(&cancelled), "{cancelled} are cancelled: {operation:?}");
    ensure!(others >= operation.finished_count, "{others} ended otherwise: {operation:?}");
    Ok(())
}

/// Cancels in bulk, and waits until the operation has done its work.
pub async fn bulk_cancel(clients: &Clients, selector: Selector) -> Result<BatchOperation> {
    let spec = BatchOperationSpec {
        action: BatchAction::Cancel.into(),
        selector: Some(TaskSelector { selector: Some(selector) }),
        reason: "test".to_owned(),
        ..Default::default()
    };
    let request = StartBatchOperationRequest { spec: Some(spec), ..Default::default() };
    let start = || async { Ok(clients.operations.clone().start_batch_operation(request.clone()).await?.into_inner()) };
    let answer = patiently(start).await?;
    completed(clients, answer.batch_operation.context("an operation")?.batch_operation_id).await
}

async fn completed(clients: &Clients, id: String) -> Result<BatchOperation> {
    clients
        .poll("the end of an operation", || async {
            let request = GetBatchOperationRequest { batch_operation_id: id.clone() };
            let get = || async { Ok(clients.operations.clone().get_batch_operation(request.clone()).await?.into_inner()) };
            let operation = patiently(get).await?.batch_operation;
            Ok(operation.filter(|operation| operation.state() != BatchOperationState::Running))
        })
        .await
}

/// The grace period ends a handler that does not listen, and its task is CANCELLED.
pub async fn grace(clients: &Clients) -> Result<()> {
    let tag = "grace".to_owned();
    let id = clients.submit(TaskSpec { tags: vec![tag.clone()], ..spec("sleep", r#"{"ms":60000}"#) }).await?;
    clients.wait_for_state(&id, TaskState::Running).await?;
    let operation = bulk_cancel(clients, Selector::Tag(tag)).await?;
    ensure!(operation.requested_count + operation.succeeded_count == 1, "{operation:?}");
    let task = clients.wait(&id).await?;
    ensure!(task.state() == TaskState::Cancelled, "{task:?}");
    Ok(())
}

/// A rule that is made while tasks with its tag are submitted and run: once it is made, not one of them starts; what ran is asked
/// to stop, and everything else is CANCELLED.
pub async fn rule_under_load(clients: &Clients) -> Result<()> {
    let tag = "ruled";
    let tagged = |json: &str| TaskSpec { tags: vec![tag.to_owned()], ..spec("sleep", json) };
    let known = Arc::new(Mutex::new(clients.submit_all((0..500).map(|_| tagged(r#"{"ms":20}"#)).collect()).await?));
    let submitting = {
        let (clients, known, task) = (clients.clone(), Arc::clone(&known), tagged(r#"{"ms":20}"#));
        async move {
            for _ in 0..40 {
                let ids = patiently(|| clients.submit_all(vec![task.clone(); 50])).await?;
                known.lock().await.extend(ids);
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    let ruling = async {
        // Some of them have run by now.
        let first = known.lock().await.first().cloned().context("a task")?;
        clients.wait_for_state(&first, TaskState::Succeeded).await?;
        let rule = make_rule(clients, Selector::Tag(tag.to_owned())).await?;
        let ids = known.lock().await.clone();
        Ok::<_, anyhow::Error>((rule, started(clients, &ids).await?))
    };
    let ((), (rule, started_before)) = tokio::try_join!(submitting, ruling)?;
    let sweep = completed(clients, rule.batch_operation_id.clone()).await?;
    ensure!(sweep.state() == BatchOperationState::Completed, "{sweep:?}");
    let ids = known.lock().await.clone();
    let ended = clients.wait_all(&ids).await?;
    let started_after = started(clients, &ids).await?;
    let late: Vec<_> = started_after.difference(&started_before).collect();
    ensure!(late.is_empty(), "{} tasks started after the rule was made, among them {:?}", late.len(), late.first());
    let cancelled = ended.get(&TaskState::Cancelled).copied().unwrap_or_default();
    ensure!(cancelled >= ids.len() - started_before.len() && cancelled > 0, "{ended:?}, {} had started", started_before.len());
    let request = DeleteCancelRuleRequest { cancel_rule_id: rule.cancel_rule_id };
    clients.operations.clone().delete_cancel_rule(request).await?;
    let after = clients.submit(tagged(r#"{"ms":1}"#)).await?;
    let task = clients.wait(&after).await?;
    ensure!(task.state() == TaskState::Succeeded, "{task:?}");
    Ok(())
}

async fn make_rule(clients: &Clients, selector: Selector) -> Result<CancelRule> {
    let in_an_hour = SystemClock.now() + Duration::from_secs(3600);
    let rule = CancelRule {
        selector: Some(TaskSelector { selector: Some(selector) }),
        expires_at: Some(to_timestamp(in_an_hour)),
        reason: "test".to_owned(),
        ..Default::default()
    };
    let request = CreateCancelRuleRequest { cancel_rule: Some(rule), ..Default::default() };
    let create = || async { Ok(clients.operations.clone().create_cancel_rule(request.clone()).await?.into_inner()) };
    patiently(create).await?.cancel_rule.context("a rule")
}

/// Which of these tasks a worker has started.
async fn started(clients: &Clients, ids: &[String]) -> Result<HashSet<String>> {
    let mut started = HashSet::new();
    for ids in ids.chunks(1000) {
        let request = BatchGetTasksRequest { task_ids: ids.to_vec(), ..Default::default() };
        let get = || async { Ok(clients.submission.clone().batch_get_tasks(request.clone()).await?.into_inner()) };
        for task in patiently(get).await?.tasks {
            if !task.worker_id.is_empty() {
                started.insert(task.spec.context("a specification")?.task_id);
            }
        }
    }
    Ok(started)
}
