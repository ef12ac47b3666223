//! Submitting tasks and seeing what becomes of them.

mod builder;
mod bulk;
mod error;
mod handle;
mod replay;
mod retry;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{Task as TaskView, TaskSpec},
        submission::v1::{
            BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, GetTaskRequest, ReplayTaskRequest, SubmitResult,
            WaitTaskRequest, submission_service_client::SubmissionServiceClient,
        },
    },
};
use oxcart_types::{IdSource, Limits, SystemIds, TaskId};
use tonic::transport::Channel;

pub use self::{
    builder::TaskBuilder,
    bulk::BulkSummary,
    error::{ClientError, FieldViolation},
    handle::TaskHandle,
    replay::ReplayOptions,
    retry::RetryOptions,
};
use crate::{client::retry::with_retries, handler::Task};

/// Writes the trace context of the caller into the metadata of a task, so that the handler's span continues it.
pub type Propagator = Arc<dyn Fn(&mut BTreeMap<String, String>) + Send + Sync>;

/// A client of the submission service; cheap to clone.
///
/// Every task gets its id here, so that a submit whose answer was lost can be repeated and is accepted once. Calls are
/// repeated when the service is unavailable: see [`RetryOptions`].
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    service: SubmissionServiceClient<Channel>,
    ids: Arc<dyn IdSource>,
    propagator: Option<Propagator>,
    retry: RetryOptions,
}

/// What is set before a [`Client`] is made.
pub struct ClientBuilder {
    channel: Channel,
    ids: Arc<dyn IdSource>,
    propagator: Option<Propagator>,
    retry: RetryOptions,
}

impl ClientBuilder {
    /// Makes ids with this.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Writes trace contexts with this.
    #[must_use]
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = Some(propagator);
        self
    }

    /// Repeats calls like this.
    #[must_use]
    pub fn retry(mut self, retry: RetryOptions) -> Self {
        self.retry = retry;
        self
    }

    /// Makes the client.
    #[must_use]
    pub fn build(self) -> Client {
        // Room above the limit of what may be submitted: a full answer carries more than what was asked.
        let service = SubmissionServiceClient::new(self.channel).max_decoding_message_size(4 * Limits::MESSAGE_BYTES);
        Client(Arc::new(Inner { service, ids: self.ids, propagator: self.propagator, retry: self.retry }))
    }
}

impl Client {
    /// A client over a channel, with ids of the system and the default retries.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self::builder(channel).build()
    }

    /// A client over a channel, to be configured.
    #[must_use]
    pub fn builder(channel: Channel) -> ClientBuilder {
        ClientBuilder { channel, ids: Arc::new(SystemIds), propagator: None, retry: RetryOptions::default() }
    }

    /// Connects to `http://host:port` when first used.
    ///
    /// # Errors
    /// The address is none.
    pub fn connect_lazy(address: impl Into<String>) -> Result<Self, ClientError> {
        let address = address.into();
        let endpoint = tonic::transport::Endpoint::from_shared(address.clone())
            .map_err(|error| ClientError::Address { address, source: Box::new(error) })?;
        Ok(Self::new(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(5)).connect_lazy()))
    }

    /// Describes a task for the handler `name`; nothing happens before [`TaskBuilder::submit`].
    pub fn task(&self, name: impl Into<String>) -> TaskBuilder {
        TaskBuilder::new(self.clone(), name.into())
    }

    /// Submits a typed task with all defaults.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit<T: Task>(&self, task: &T) -> Result<TaskHandle<T::Output>, ClientError> {
        self.task(T::NAME).payload(task)?.submit_as().await
    }

    /// Submits up to 1000 tasks, all or none; the handles are in the order of the tasks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit_all(&self, tasks: Vec<TaskBuilder>) -> Result<Vec<TaskHandle>, ClientError> {
        let request_id = self.0.ids.task_id().to_string();
        let tasks = tasks.into_iter().map(|task| task.into_spec(&self.0)).collect();
        let request = BatchSubmitTasksRequest { tasks, request_id, validate_only: false };
        let response = self.call(async |mut service, request| service.batch_submit_tasks(request).await, request).await?;
        response.results.into_iter().map(|result| self.handle(result)).collect()
    }

    /// Submits any number of tasks over one stream, in batches of 1000 of which several are on their way at once. Each batch
    /// is accepted as a whole or refused as a whole; the summary counts them.
    ///
    /// # Errors
    /// See [`ClientError`]; what was accepted before the error stays accepted.
    pub async fn submit_stream<I>(&self, tasks: I) -> Result<BulkSummary, ClientError>
    where
        I: IntoIterator<Item = TaskBuilder>,
        I::IntoIter: Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let specs: Box<dyn Iterator<Item = TaskSpec> + Send> = Box::new(tasks.into_iter().map(move |task| task.into_spec(&inner)));
        bulk::submit(self.0.service.clone(), Arc::clone(&self.0.ids), self.0.retry.clone(), specs).await
    }

    /// Reads a task, all of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, id: TaskId) -> Result<TaskView, ClientError> {
        let request = GetTaskRequest { task_id: id.to_string(), ..Default::default() };
        let response = self.call(async |mut service, request| service.get_task(request).await, request).await?;
        response.task.ok_or(ClientError::Malformed("no task in the answer"))
    }

    /// Waits until a task has ended, for as long as that takes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn wait(&self, id: TaskId) -> Result<TaskView, ClientError> {
        loop {
            let request = WaitTaskRequest { task_id: id.to_string(), ..Default::default() };
            let response = self.call(async |mut service, request| service.wait_task(request).await, request).await?;
            if response.satisfied {
                return response.task.ok_or(ClientError::Malformed("no task in the answer"));
            }
        }
    }

    /// Cancels a task: acknowledged when no run will start any more, requested while a handler has yet to stop. `grace` is the
    /// time for the handler to stop by itself; the service's default when `None`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, id: TaskId, reason: &str, grace: Option<Duration>) -> Result<CancelOutcome, ClientError> {
        let request = CancelTaskRequest {
            task_id: id.to_string(),
            reason: reason.to_owned(),
            grace_period: grace.map(scalar::to_duration),
            tree: false,
        };
        let response = self.call(async |mut service, request| service.cancel_task(request).await, request).await?;
        Ok(response.outcome())
    }

    /// Runs a finished task again under its own id, with a new budget of attempts, due now and without expiry. A repeat after an
    /// answer that was lost replays it once.
    ///
    /// # Errors
    /// See [`ClientError`]: among others, the task has not ended, or it has succeeded and `options` do not allow that.
    pub async fn replay(&self, id: TaskId, options: ReplayOptions) -> Result<TaskView, ClientError> {
        let request = ReplayTaskRequest {
            task_id: id.to_string(),
            max_attempts: options.max_attempts.map_or(0, scalar::to_count),
            reset_checkpoint: options.reset_checkpoint,
            allow_succeeded: options.allow_succeeded,
            reason: options.reason,
            request_id: self.0.ids.task_id().to_string(),
        };
        let response = self.call(async |mut service, request| service.replay_task(request).await, request).await?;
        response.task.ok_or(ClientError::Malformed("no task in the answer"))
    }

    /// A handle of a task that was submitted before.
    #[must_use]
    pub fn existing(&self, id: TaskId) -> TaskHandle {
        TaskHandle::new(self.clone(), id, false)
    }

    fn handle<O>(&self, result: SubmitResult) -> Result<TaskHandle<O>, ClientError> {
        let id = result.task_id.parse().map_err(|_| ClientError::Malformed("the answer has a bad task_id"))?;
        Ok(TaskHandle::new(self.clone(), id, result.deduplicated))
    }

    async fn call<Q, R, F>(&self, call: F, request: Q) -> Result<R, ClientError>
    where
        Q: Clone,
        F: AsyncFn(SubmissionServiceClient<Channel>, Q) -> Result<tonic::Response<R>, tonic::Status>,
    {
        with_retries(&self.0.retry, async || call(self.0.service.clone(), request.clone()).await)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| ClientError::from_status(&status))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientBuilder")
    }
}
