//! A task that was submitted.

use std::{fmt, marker::PhantomData, time::Duration};

use oxcart_proto::{
    convert::value,
    pb::{
        common::v1::{Task as TaskView, TaskState},
        submission::v1::CancelOutcome,
    },
};
use oxcart_types::{Limits, Payload, TaskId};
use serde::de::DeserializeOwned;

use super::{Client, ClientError, ReplayOptions};
use crate::codec;

/// A task that was submitted, with the type of its result.
pub struct TaskHandle<O = serde_json::Value> {
    client: Client,
    id: TaskId,
    deduplicated: bool,
    output: PhantomData<fn() -> O>,
}

impl<O> TaskHandle<O> {
    pub(super) fn new(client: Client, id: TaskId, deduplicated: bool) -> Self {
        Self { client, id, deduplicated, output: PhantomData }
    }

    /// Id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// It was known before: by its id or by its idempotency key.
    #[must_use]
    pub fn deduplicated(&self) -> bool {
        self.deduplicated
    }

    /// The task as it is now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self) -> Result<TaskView, ClientError> {
        self.client.get(self.id).await
    }

    /// The task when it has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn wait(&self) -> Result<TaskView, ClientError> {
        self.client.wait(self.id).await
    }

    /// Cancels it: see [`Client::cancel`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, reason: &str, grace: Option<Duration>) -> Result<CancelOutcome, ClientError> {
        self.client.cancel(self.id, reason, grace).await
    }

    /// Runs it again once it has ended: see [`Client::replay`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay(&self, options: ReplayOptions) -> Result<TaskView, ClientError> {
        self.client.replay(self.id, options).await
    }
}

impl<O: DeserializeOwned> TaskHandle<O> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`ClientError::NotSucceeded`] when the task ended otherwise, [`ClientError::Result`] when the result does not fit, or
    /// any other.
    pub async fn result(&self) -> Result<O, ClientError> {
        codec::decode(&result_of(self.wait().await?)?).map_err(|error| ClientError::Result(error.message().to_owned()))
    }
}

fn result_of(task: TaskView) -> Result<Payload, ClientError> {
    if task.state() != TaskState::Succeeded {
        let error = task.error.as_ref().map(|error| format!("{}: {}", error.kind, error.message)).unwrap_or_default();
        return Err(ClientError::NotSucceeded { state: task.state().as_str_name(), error });
    }
    let limits = Limits { payload_bytes: Limits::PAYLOAD_HARD_BYTES };
    value::payload(task.result, &limits).map_err(|invalid| ClientError::Result(invalid.description))
}

impl<O> Clone for TaskHandle<O> {
    fn clone(&self) -> Self {
        Self::new(self.client.clone(), self.id, self.deduplicated)
    }
}

impl<O> fmt::Debug for TaskHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("id", &self.id).field("deduplicated", &self.deduplicated).finish_non_exhaustive()
    }
}
