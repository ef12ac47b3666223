//! UpdateTask, CancelTask, ReplayTask and DeleteTask.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::{changes, scalar, task::to_task},
    pb::submission::v1 as pb,
};
use oxcart_store::{DeleteOutcome, View};
use oxcart_types::{Limits, ReplaySpec, Violations, violation::reason};

use super::{checked, task_id};
use crate::{cancel::Cancelled, core::Core, error::Error};

/// Time for a running handler to stop, when the caller names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

pub(super) async fn update(core: &Arc<Core>, request: pb::UpdateTaskRequest) -> Result<pb::UpdateTaskResponse, Error> {
    let mut bad = Violations::new();
    let id = task_id(&mut bad, &request.task_id);
    let changes = changes::update(request.spec, request.update_mask, core.clock.now()).map_err(|part| {
        for v in part.as_slice() {
            bad.add(v.field.clone(), v.reason, v.description.clone());
        }
    });
    let (id, changes) = checked(bad, id.zip(changes.ok()))?;
    let etag = (!request.etag.is_empty()).then_some(request.etag);
    let record = core.update(id, changes, etag).await?;
    Ok(pb::UpdateTaskResponse { task: Some(to_task(record, View::Basic)) })
}

pub(super) async fn cancel(core: &Arc<Core>, request: pb::CancelTaskRequest) -> Result<pb::CancelTaskResponse, Error> {
    let mut bad = Violations::new();
    let id = task_id(&mut bad, &request.task_id);
    let grace = request
        .grace_period
        .map_or(Some(DEFAULT_GRACE), |grace| bad.take("grace_period", scalar::duration_up_to(grace, Limits::GRACE)));
    check_reason(&mut bad, &request.reason);
    let (id, grace) = checked(bad, id.zip(grace))?;
    let (cancelled, record) = core.cancel(id, request.reason, grace).await?;
    let outcome = match cancelled {
        Cancelled::Acknowledged => pb::CancelOutcome::Acknowledged,
        Cancelled::Requested => pb::CancelOutcome::Requested,
    };
    Ok(pb::CancelTaskResponse { outcome: outcome.into(), task: Some(to_task(record, View::Basic)) })
}

fn check_reason(bad: &mut Violations, text: &str) {
    if text.len() > Limits::REASON_BYTES {
        let (length, max) = (text.len(), Limits::REASON_BYTES);
        bad.add("reason", reason::FIELD_INVALID, format!("has {length} bytes; at most {max} are allowed"));
    }
}

pub(super) async fn replay(core: &Arc<Core>, request: pb::ReplayTaskRequest) -> Result<pb::ReplayTaskResponse, Error> {
    let mut bad = Violations::new();
    let id = task_id(&mut bad, &request.task_id);
    let max_attempts = match u32::try_from(request.max_attempts) {
        Ok(0) => None,
        Ok(attempts) if attempts <= Limits::MAX_ATTEMPTS => Some(attempts),
        Ok(_) | Err(_) => {
            let (given, max) = (request.max_attempts, Limits::MAX_ATTEMPTS);
            bad.add("max_attempts", reason::FIELD_INVALID, format!("is {given}; 0 to {max} are allowed"));
            None
        }
    };
    check_reason(&mut bad, &request.reason);
    let request_id = core.request(&request.request_id, core.clock.now(), &mut bad);
    let id = checked(bad, id)?;
    let spec = ReplaySpec {
        max_attempts,
        reset_checkpoint: request.reset_checkpoint,
        allow_succeeded: request.allow_succeeded,
        reason: request.reason,
    };
    let record = core.replay(id, spec, request_id).await?;
    Ok(pb::ReplayTaskResponse { task: Some(to_task(record, View::Basic)) })
}

pub(super) async fn delete(core: &Arc<Core>, request: pb::DeleteTaskRequest) -> Result<pb::DeleteTaskResponse, Error> {
    let mut bad = Violations::new();
    let id = task_id(&mut bad, &request.task_id);
    let id = checked(bad, id)?;
    match core.store.delete(id).await? {
        DeleteOutcome::Deleted => {
            core.waiters.changed(id);
            Ok(pb::DeleteTaskResponse {})
        }
        DeleteOutcome::NotFinished => Err(Error::NotFinished(id)),
        DeleteOutcome::NoTask => Err(Error::NoTask(id)),
    }
}
