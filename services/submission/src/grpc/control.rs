//! UpdateTask, CancelTask and DeleteTask.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::{changes, scalar, task::to_task},
    pb::submission::v1 as pb,
};
use oxcart_store::{DeleteOutcome, View};
use oxcart_types::{Limits, Violations, violation::reason};

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
    if request.reason.len() > Limits::REASON_BYTES {
        let (length, max) = (request.reason.len(), Limits::REASON_BYTES);
        bad.add("reason", reason::FIELD_INVALID, format!("has {length} bytes; at most {max} are allowed"));
    }
    let (id, grace) = checked(bad, id.zip(grace))?;
    let (cancelled, record) = core.cancel(id, request.reason, grace).await?;
    let outcome = match cancelled {
        Cancelled::Acknowledged => pb::CancelOutcome::Acknowledged,
        Cancelled::Requested => pb::CancelOutcome::Requested,
    };
    Ok(pb::CancelTaskResponse { outcome: outcome.into(), task: Some(to_task(record, View::Basic)) })
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
