//! The RPCs: decode, call, encode; one file per group.

mod explain_task;
mod list_queues;
mod list_tasks;
mod list_workers;
mod server_info;
mod watch_events;

use std::sync::Arc;

use oxcart_proto::pb::monitor::v1::{
    ExplainTaskRequest, ExplainTaskResponse, GetServerInfoRequest, GetServerInfoResponse, ListQueuesRequest, ListQueuesResponse,
    ListTaskRunsRequest, ListTaskRunsResponse, ListTasksRequest, ListTasksResponse, ListWorkersRequest, ListWorkersResponse,
    WatchEventsRequest, monitor_service_server::MonitorService,
};
use tonic::{Request, Response, Status, async_trait};

pub(crate) use self::list_queues::all_queues;
use crate::service::Core;

/// The service as tonic calls it.
pub(crate) struct Api(pub(crate) Arc<Core>);

#[async_trait]
impl MonitorService for Api {
    type WatchEventsStream = watch_events::Events;

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        Ok(Response::new(list_tasks::list_tasks(&self.0, request.into_inner()).await?))
    }

    async fn list_task_runs(&self, request: Request<ListTaskRunsRequest>) -> Result<Response<ListTaskRunsResponse>, Status> {
        Ok(Response::new(list_tasks::list_task_runs(&self.0, request.into_inner()).await?))
    }

    async fn explain_task(&self, request: Request<ExplainTaskRequest>) -> Result<Response<ExplainTaskResponse>, Status> {
        Ok(Response::new(explain_task::explain_task(&self.0, request.into_inner()).await?))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        Ok(Response::new(list_queues::list_queues(&self.0, request.into_inner()).await?))
    }

    async fn list_workers(&self, request: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(list_workers::list_workers(&self.0, request.into_inner()).await?))
    }

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Result<Response<Self::WatchEventsStream>, Status> {
        Ok(Response::new(watch_events::watch_events(&self.0, request.into_inner()).await?))
    }

    async fn get_server_info(&self, _request: Request<GetServerInfoRequest>) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(server_info::server_info(&self.0)))
    }
}
