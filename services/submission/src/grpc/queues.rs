//! GetQueue, PauseQueue and ResumeQueue.

use std::sync::Arc;

use oxcart_proto::{
    convert::scalar,
    pb::submission::v1::{self as pb, queue_service_server::QueueService},
};
use oxcart_store::QueueRow;
use oxcart_types::{Limits, QueueName, Violations, violation::reason};
use tonic::{Request, Response, Status};

use super::checked;
use crate::{core::Core, error::Error, sweep::SweepError};

/// Bytes of who pauses a queue.
const ACTOR_BYTES: usize = 128;

/// The gRPC service.
pub(crate) struct QueueApi(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl QueueService for QueueApi {
    async fn get_queue(&self, request: Request<pb::GetQueueRequest>) -> Result<Response<pb::GetQueueResponse>, Status> {
        let queue = get(&self.0, request.into_inner()).await?;
        Ok(Response::new(pb::GetQueueResponse { queue: Some(queue) }))
    }

    async fn pause_queue(&self, request: Request<pb::PauseQueueRequest>) -> Result<Response<pb::PauseQueueResponse>, Status> {
        let queue = pause(&self.0, request.into_inner()).await?;
        Ok(Response::new(pb::PauseQueueResponse { queue: Some(queue) }))
    }

    async fn resume_queue(&self, request: Request<pb::ResumeQueueRequest>) -> Result<Response<pb::ResumeQueueResponse>, Status> {
        let queue = resume(&self.0, request.into_inner()).await?;
        Ok(Response::new(pb::ResumeQueueResponse { queue: Some(queue) }))
    }
}

async fn get(core: &Core, request: pb::GetQueueRequest) -> Result<pb::Queue, Error> {
    let mut bad = Violations::new();
    let queue = name(&mut bad, &request.queue);
    let queue = checked(bad, queue)?;
    if let Some(row) = core.store.queue(&queue).await? {
        return Ok(to_pb(&row));
    }
    let known = core.dispatcher.partitions(std::slice::from_ref(&queue)).await.map_err(SweepError::from)?;
    if known.is_empty() { Err(Error::NoQueue(queue)) } else { Ok(plain(&queue)) }
}

async fn pause(core: &Arc<Core>, request: pb::PauseQueueRequest) -> Result<pb::Queue, Error> {
    let mut bad = Violations::new();
    let queue = name(&mut bad, &request.queue);
    at_most(&mut bad, "reason", &request.reason, Limits::REASON_BYTES);
    at_most(&mut bad, "actor", &request.actor, ACTOR_BYTES);
    let queue = checked(bad, queue)?;
    core.pause_queue(queue, request.actor, request.reason).await.map(|row| to_pb(&row))
}

async fn resume(core: &Arc<Core>, request: pb::ResumeQueueRequest) -> Result<pb::Queue, Error> {
    let mut bad = Violations::new();
    let queue = name(&mut bad, &request.queue);
    let queue = checked(bad, queue)?;
    let row = core.resume_queue(queue.clone()).await?;
    Ok(row.as_ref().map_or_else(|| plain(&queue), to_pb))
}

fn name(bad: &mut Violations, text: &str) -> Option<QueueName> {
    bad.take("queue", text.parse())
}

fn at_most(bad: &mut Violations, field: &str, text: &str, max: usize) {
    if text.len() > max {
        bad.add(field, reason::FIELD_INVALID, format!("has {} bytes; at most {max} are allowed", text.len()));
    }
}

/// A queue without settings of its own.
fn plain(queue: &QueueName) -> pb::Queue {
    pb::Queue { queue: queue.to_string(), ..pb::Queue::default() }
}

fn to_pb(row: &QueueRow) -> pb::Queue {
    let pause = row.pause.as_ref().map(|pause| pb::PauseInfo {
        actor: pause.by.clone(),
        reason: pause.reason.clone(),
        pause_time: Some(scalar::to_timestamp(pause.since)),
    });
    let (create_time, update_time) = (Some(scalar::to_timestamp(row.created_at)), Some(scalar::to_timestamp(row.updated_at)));
    pb::Queue { pause, create_time, update_time, ..plain(&row.queue) }
}
