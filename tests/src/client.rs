//! Talking to a system as any client would: over gRPC, with the generated types.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use oxcart_proto::pb::{
    common::v1::{Payload, Task, TaskSpec, TaskState, payload::Content},
    monitor::v1::monitor_service_client::MonitorServiceClient,
    submission::v1::{
        BatchGetTasksRequest, BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, GetTaskRequest, SubmitTaskRequest,
        WaitTaskRequest, operation_service_client::OperationServiceClient, submission_service_client::SubmissionServiceClient,
    },
};
use tonic::transport::Channel;

/// Longer than any bound that the protocol gives; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Clients of a running system.
#[derive(Clone)]
pub struct Clients {
    /// Submission.
    pub submission: SubmissionServiceClient<Channel>,
    /// Operations on many tasks.
    pub operations: OperationServiceClient<Channel>,
    /// Monitor.
    pub monitor: MonitorServiceClient<Channel>,
}

/// A task with a handler and JSON input.
pub fn spec(name: &str, json: &str) -> TaskSpec {
    let payload = Payload { content: Some(Content::Json(json.to_owned())), ..Default::default() };
    TaskSpec { task_name: name.to_owned(), payload: Some(payload), ..Default::default() }
}

impl Clients {
    /// Over one channel each.
    pub fn new(submission: Channel, monitor: Channel) -> Self {
        Self {
            operations: OperationServiceClient::new(submission.clone()),
            submission: SubmissionServiceClient::new(submission),
            monitor: MonitorServiceClient::new(monitor),
        }
    }

    /// Submits a task; its id.
    pub async fn submit(&self, task: TaskSpec) -> Result<String> {
        let request = SubmitTaskRequest { task: Some(task), ..Default::default() };
        let answer = self.submission.clone().submit_task(request).await?.into_inner();
        Ok(answer.result.context("a result")?.task_id)
    }

    /// Submits tasks in batches; their ids.
    pub async fn submit_all(&self, tasks: Vec<TaskSpec>) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(tasks.len());
        for batch in tasks.chunks(1000) {
            let request = BatchSubmitTasksRequest { tasks: batch.to_vec(), ..Default::default() };
            let answer = self.submission.clone().batch_submit_tasks(request).await?.into_inner();
            ids.extend(answer.results.into_iter().map(|r| r.task_id));
        }
        Ok(ids)
    }

    /// Reads a task.
    pub async fn get(&self, id: &str) -> Result<Task> {
        let request = GetTaskRequest { task_id: id.to_owned(), ..Default::default() };
        self.submission.clone().get_task(request).await?.into_inner().task.context("a task")
    }

    /// Waits for the end of a task.
    pub async fn wait(&self, id: &str) -> Result<Task> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let request = WaitTaskRequest { task_id: id.to_owned(), ..Default::default() };
            let answer = self.submission.clone().wait_task(request).await?.into_inner();
            let task = answer.task.context("a task")?;
            if answer.satisfied {
                return Ok(task);
            }
            if tokio::time::Instant::now() > until {
                bail!("task {id} did not end: {task:?}");
            }
        }
    }

    /// Waits until a task is in a state.
    pub async fn wait_for_state(&self, id: &str, state: TaskState) -> Result<Task> {
        self.poll(&format!("task {id} to be {state:?}"), || async {
            let task = self.get(id).await?;
            Ok((task.state() == state).then_some(task))
        })
        .await
    }

    /// Waits until all of these tasks have ended; how many ended in which state. Errors of a system that is being killed
    /// and restarted are part of the test and only prolong the wait.
    pub async fn wait_all(&self, ids: &[String]) -> Result<HashMap<TaskState, usize>> {
        let mut open: Vec<String> = ids.to_vec();
        let mut ended: HashMap<TaskState, usize> = HashMap::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while !open.is_empty() {
            let mut still = Vec::new();
            for batch in open.chunks(1000) {
                let request = BatchGetTasksRequest { task_ids: batch.to_vec(), ..Default::default() };
                let Ok(answer) = self.submission.clone().batch_get_tasks(request).await else {
                    still.extend_from_slice(batch);
                    continue;
                };
                let answer = answer.into_inner();
                if !answer.missing_task_ids.is_empty() {
                    bail!("acknowledged tasks are gone: {:?}", answer.missing_task_ids);
                }
                for task in answer.tasks {
                    if is_terminal(task.state()) {
                        *ended.entry(task.state()).or_default() += 1;
                    } else {
                        still.push(task.spec.context("a specification")?.task_id);
                    }
                }
            }
            open = still;
            if tokio::time::Instant::now() > until {
                bail!("{} of {} tasks did not end, among them {:?}", open.len(), ids.len(), open.first());
            }
            if !open.is_empty() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(ended)
    }

    /// Cancels a task.
    pub async fn cancel(&self, id: &str) -> Result<(CancelOutcome, Task)> {
        let request = CancelTaskRequest { task_id: id.to_owned(), reason: "test".to_owned(), ..Default::default() };
        let answer = self.submission.clone().cancel_task(request).await?.into_inner();
        Ok((answer.outcome(), answer.task.context("a task")?))
    }

    /// Asks until there is an answer.
    pub async fn poll<T, F>(&self, what: &str, mut ask: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ask().await? {
                return Ok(found);
            }
            if tokio::time::Instant::now() > until {
                bail!("waited in vain for {what}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether a task does not leave this state.
pub fn is_terminal(state: TaskState) -> bool {
    matches!(state, TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Expired)
}

/// The JSON text of a task's result.
pub fn result_json(task: &Task) -> Option<&str> {
    match task.result.as_ref()?.content.as_ref()? {
        Content::Json(text) => Some(text),
        Content::Data(_) | Content::Value(_) => None,
    }
}
