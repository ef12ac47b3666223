//! The public API: decode, call, encode.

mod actor;
mod control;
mod deadline;
mod execute;
mod operations;
mod queues;
mod read;
mod stream;
mod submit;
mod trace;
mod verify;

use std::{pin::Pin, sync::Arc};

use oxcart_proto::pb::submission::v1::{self as pb, submission_service_server::SubmissionService};
use oxcart_service::telemetry::propagation::TraceContext;
use oxcart_types::{TaskId, Violations};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::{operations::OperationApi, queues::QueueApi, verify::VerifyApi};
use crate::{core::Core, error::Error};

/// The gRPC service.
pub(crate) struct Api(pub(crate) Arc<Core>);

type Answers = Pin<Box<dyn Stream<Item = Result<pb::StreamSubmitTasksResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SubmissionService for Api {
    type StreamSubmitTasksStream = Answers;

    async fn submit_task(&self, request: Request<pb::SubmitTaskRequest>) -> Result<Response<pb::SubmitTaskResponse>, Status> {
        let trace = TraceContext::of_call(request.metadata());
        Ok(submit::one(&self.0, request.into_inner(), trace).await.map(Response::new)?)
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<pb::BatchSubmitTasksRequest>,
    ) -> Result<Response<pb::BatchSubmitTasksResponse>, Status> {
        let trace = TraceContext::of_call(request.metadata());
        Ok(submit::batch(&self.0, request.into_inner(), trace).await.map(Response::new)?)
    }

    async fn stream_submit_tasks(
        &self,
        request: Request<Streaming<pb::StreamSubmitTasksRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let trace = TraceContext::of_call(request.metadata());
        Ok(Response::new(stream::serve(Arc::clone(&self.0), request.into_inner(), trace)))
    }

    async fn execute_task(&self, request: Request<pb::ExecuteTaskRequest>) -> Result<Response<pb::ExecuteTaskResponse>, Status> {
        let deadline = deadline::of_caller(request.metadata());
        let trace = TraceContext::of_call(request.metadata());
        execute::execute(&self.0, request.into_inner(), deadline, trace).await.map(Response::new)
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::GetTaskResponse>, Status> {
        Ok(read::one(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn batch_get_tasks(
        &self,
        request: Request<pb::BatchGetTasksRequest>,
    ) -> Result<Response<pb::BatchGetTasksResponse>, Status> {
        Ok(read::batch(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn wait_task(&self, request: Request<pb::WaitTaskRequest>) -> Result<Response<pb::WaitTaskResponse>, Status> {
        let deadline = deadline::of_caller(request.metadata());
        Ok(read::wait(&self.0, request.into_inner(), deadline).await.map(Response::new)?)
    }

    async fn update_task(&self, request: Request<pb::UpdateTaskRequest>) -> Result<Response<pb::UpdateTaskResponse>, Status> {
        Ok(control::update(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn cancel_task(&self, request: Request<pb::CancelTaskRequest>) -> Result<Response<pb::CancelTaskResponse>, Status> {
        let actor = actor::of_caller(&request);
        Ok(control::cancel(&self.0, request.into_inner(), actor).await.map(Response::new)?)
    }

    async fn replay_task(&self, request: Request<pb::ReplayTaskRequest>) -> Result<Response<pb::ReplayTaskResponse>, Status> {
        Ok(control::replay(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn delete_task(&self, request: Request<pb::DeleteTaskRequest>) -> Result<Response<pb::DeleteTaskResponse>, Status> {
        Ok(control::delete(&self.0, request.into_inner()).await.map(Response::new)?)
    }
}

/// Reads the id of a task that exists; those that were never made are not found later.
fn task_id(bad: &mut Violations, text: &str) -> Option<TaskId> {
    if text.is_empty() {
        bad.take("task_id", Err(oxcart_types::violation::Invalid::required()))
    } else {
        bad.take("task_id", text.parse())
    }
}

/// The value of a field that was noted as bad when it is missing.
fn checked<T>(bad: Violations, value: Option<T>) -> Result<T, Error> {
    match value {
        Some(value) if bad.is_empty() => Ok(value),
        _ => Err(Error::Invalid(bad)),
    }
}
