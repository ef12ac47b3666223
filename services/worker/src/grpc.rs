//! `WorkerService`: control of this process.

use std::{str::FromStr as _, sync::Arc};

use async_trait::async_trait;
use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{Progress, WorkerInfo},
        worker::v1::{
            DrainWorkerRequest, DrainWorkerResponse, GetWorkerRequest, GetWorkerResponse, HandlerSpec, ListRunningTasksRequest,
            ListRunningTasksResponse, RunningTask, worker_service_server::WorkerService,
        },
    },
};
use oxcart_types::{Limits, TaskId};
use tonic::{Request, Response, Status};

use crate::{
    attempt::Attempt,
    core::Core,
    error::{CallError, ending},
};

/// Tasks of a page when none are asked for.
const PAGE: usize = 100;

/// The RPCs of this process.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) core: Arc<Core>,
    pub(crate) info: Arc<dyn Fn() -> WorkerInfo + Send + Sync>,
}

#[async_trait]
impl WorkerService for Control {
    async fn get_worker(&self, _request: Request<GetWorkerRequest>) -> Result<Response<GetWorkerResponse>, Status> {
        let handlers = self.core.handlers.names().map(|name| HandlerSpec { task_name: name.to_owned() }).collect();
        Ok(Response::new(GetWorkerResponse { worker: Some((self.info)()), handlers }))
    }

    async fn list_running_tasks(
        &self,
        request: Request<ListRunningTasksRequest>,
    ) -> Result<Response<ListRunningTasksResponse>, Status> {
        let ListRunningTasksRequest { page_size, page_token } = request.into_inner();
        let page = match usize::try_from(page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(Limits::PAGE_ROWS),
            Err(_) => return Err(CallError::PageSize(page_size).into()),
        };
        let after = match page_token.as_str() {
            "" => None,
            token => Some(TaskId::from_str(token).map_err(|_| CallError::PageToken)?),
        };
        let mut attempts = self.core.held.attempts();
        attempts.retain(|attempt| !attempt.over.is_cancelled() && after.is_none_or(|after| attempt.key.task > after));
        attempts.sort_by_key(|attempt| attempt.key.task);
        let more = attempts.len() > page;
        attempts.truncate(page);
        let next_page_token = attempts.last().filter(|_| more).map(|last| last.key.task.to_string()).unwrap_or_default();
        let tasks = attempts.iter().map(|attempt| running_task(attempt)).collect();
        Ok(Response::new(ListRunningTasksResponse { tasks, next_page_token }))
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Result<Response<DrainWorkerResponse>, Status> {
        let DrainWorkerRequest { timeout, wait } = request.into_inner();
        let timeout = timeout
            .map(|timeout| scalar::duration_up_to(timeout, Limits::GRACE))
            .transpose()
            .map_err(|invalid| CallError::Timeout(invalid.description))?;
        self.core.request_drain(timeout);
        if wait {
            let mut drained = self.core.drained.subscribe();
            drained.wait_for(|drained| *drained).await.map_err(|_| ending())?;
        }
        let released = self.core.released_by_drain.load(std::sync::atomic::Ordering::Relaxed);
        let released_count = i32::try_from(released).unwrap_or(i32::MAX);
        Ok(Response::new(DrainWorkerResponse { worker: Some((self.info)()), released_count }))
    }
}

fn running_task(attempt: &Attempt) -> RunningTask {
    let progress =
        attempt.reports().progress.clone().map(|(current, total, message)| Progress { current, total, message, update_time: None });
    RunningTask {
        task_id: attempt.key.task.to_string(),
        task_name: attempt.name.to_string(),
        run: scalar::to_run(attempt.key.run),
        attempt: scalar::to_count(attempt.number),
        start_time: Some(scalar::to_timestamp(attempt.started_at)),
        progress,
    }
}
