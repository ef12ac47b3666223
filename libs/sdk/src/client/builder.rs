//! Describing a task.

use std::time::Duration;

use oxcart_proto::{
    convert::{enums, scalar, value},
    pb::{
        common::v1::{ParentLink, RetryPolicy, Task as TaskView, TaskSpec, task_spec::Start},
        submission::v1::{ExecuteTaskRequest, SubmitTaskRequest},
    },
};
use oxcart_types::{Idempotency, Payload, TaskId, Timestamp};
use serde::Serialize;

use super::{Client, ClientError, Inner, TaskHandle};
use crate::codec;

/// A task in the making. Values are checked by the service, which names everything that is wrong at once.
#[derive(Debug, Clone)]
#[must_use = "nothing is submitted before `submit`"]
pub struct TaskBuilder {
    client: Client,
    spec: TaskSpec,
}

impl TaskBuilder {
    pub(super) fn new(client: Client, task_name: String) -> Self {
        Self { client, spec: TaskSpec { task_name, ..Default::default() } }
    }

    /// Input of the handler, written as JSON.
    ///
    /// # Errors
    /// [`ClientError::Input`].
    pub fn payload<T: Serialize>(self, input: &T) -> Result<Self, ClientError> {
        let payload = codec::encode(input).map_err(|error| ClientError::input(&error))?;
        Ok(self.raw_payload(payload))
    }

    /// Input of the handler as it is.
    pub fn raw_payload(mut self, payload: Payload) -> Self {
        self.spec.payload = Some(value::to_payload(payload));
        self
    }

    /// Chooses the id; else one is made.
    pub fn id(mut self, id: TaskId) -> Self {
        self.spec.task_id = id.to_string();
        self
    }

    /// Queue; `default` when not set.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.spec.queue = queue.into();
        self
    }

    /// 0 (last) to 9 (first); 4 when not set.
    pub fn priority(mut self, priority: u8) -> Self {
        self.spec.priority = Some(i32::from(priority));
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.spec.tags.push(tag.into());
        self
    }

    /// Names the task that started this one: a cancel of its tree cancels this one, too.
    pub fn parent(mut self, parent: TaskId) -> Self {
        self.spec.parent = Some(ParentLink { parent_task_id: parent.to_string() });
        self
    }

    /// Adds a pair that the handler sees.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.metadata.insert(key.into(), value.into());
        self
    }

    /// Not started before this has passed since acceptance.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.spec.start = Some(Start::Delay(scalar::to_duration(delay)));
        self
    }

    /// Not started before.
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.spec.start = Some(Start::RunAt(scalar::to_timestamp(at)));
        self
    }

    /// Not started by then: EXPIRED.
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.spec.expires_at = Some(scalar::to_timestamp(at));
        self
    }

    /// Not started within this after its earliest start: EXPIRED.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.spec.start_timeout = Some(scalar::to_duration(timeout));
        self
    }

    /// Limit of one attempt.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout = Some(scalar::to_duration(timeout));
        self
    }

    /// A handler that reports nothing for longer (progress, checkpoint, or [`crate::TaskContext::heartbeat`]) fails, and is tried
    /// again while the policy allows.
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.spec.heartbeat_timeout = Some(scalar::to_duration(timeout));
        self
    }

    /// Limit from acceptance to the end, all attempts included.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.spec.deadline = Some(scalar::to_duration(deadline));
        self
    }

    /// Counted starts in all; 1 means no retry.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy().max_attempts = scalar::to_count(attempts);
        self
    }

    /// Runs that may be lost with their workers; the last one ends the task as poison, whatever attempts are left.
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.policy().max_crashes = scalar::to_count(crashes);
        self
    }

    /// Backoff before the second attempt, and the factor from one to the next.
    pub fn backoff(mut self, initial: Duration, multiplier: f64) -> Self {
        let policy = self.policy();
        policy.initial_backoff = Some(scalar::to_duration(initial));
        policy.backoff_multiplier = multiplier;
        self
    }

    /// Kinds of errors that end the task at once.
    pub fn non_retryable<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
        self.policy().non_retryable_kinds.extend(kinds.into_iter().map(Into::into));
        self
    }

    /// One task per key while the key lives.
    pub fn idempotency(mut self, idempotency: Idempotency) -> Self {
        self.spec.idempotency_key = idempotency.key;
        self.spec.set_idempotency_policy(enums::to_idempotency_policy(idempotency.policy));
        self.spec.idempotency_ttl = Some(scalar::to_duration(idempotency.ttl));
        self
    }

    /// Tenant or the like: tasks of one priority are handed out fairly among these.
    pub fn fairness_key(mut self, key: impl Into<String>) -> Self {
        self.spec.fairness_key = key.into();
        self
    }

    /// Submits the task; when this returns, it is stored.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit(self) -> Result<TaskHandle, ClientError> {
        self.submit_as().await
    }

    /// As [`Self::submit`], for a result of a known type.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit_as<O>(self) -> Result<TaskHandle<O>, ClientError> {
        let client = self.client.clone();
        let request = SubmitTaskRequest { task: Some(self.into_spec(&client.0)), ..Default::default() };
        let response = client.call(async |mut service, request| service.submit_task(request).await, request).await?;
        client.handle(response.result.ok_or(ClientError::Malformed("no result in the answer"))?)
    }

    /// Submits the task and waits for its end: the synchronous mode. A task that fails is an answer, too.
    /// `cancel_on_disconnect`: the task is cancelled when this future is dropped or the connection breaks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn execute(self, cancel_on_disconnect: bool) -> Result<TaskView, ClientError> {
        let client = self.client.clone();
        let request = ExecuteTaskRequest { task: Some(self.into_spec(&client.0)), request_id: String::new(), cancel_on_disconnect };
        let response = client.call(async |mut service, request| service.execute_task(request).await, request).await?;
        response.task.ok_or(ClientError::Malformed("no task in the answer"))
    }

    /// The task as it is sent: with an id, so that a repeated call is the same task, and with the trace of the caller.
    pub(super) fn into_spec(mut self, client: &Inner) -> TaskSpec {
        if self.spec.task_id.is_empty() {
            self.spec.task_id = client.ids.task_id().to_string();
        }
        if let Some(propagator) = &client.propagator {
            let mut metadata = self.spec.metadata.drain().collect();
            propagator(&mut metadata);
            self.spec.metadata.extend(metadata);
        }
        self.spec
    }

    fn policy(&mut self) -> &mut RetryPolicy {
        // A policy that is given has the jitter that it names, so the default's is named.
        self.spec
            .retry_policy
            .get_or_insert_with(|| RetryPolicy { jitter: oxcart_types::RetryPolicy::default().jitter(), ..Default::default() })
    }
}
