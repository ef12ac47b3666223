//! UpdateTask, CancelTask, ReplayTask and DeleteTask.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::{changes, scalar, task::to_task},
    pb::submission::v1 as pb,
};
use oxcart_store::{DeleteOutcome, Selector, TaskRecord, View};
use oxcart_types::{Limits, ReplaySpec, TaskId, Violations, violation::reason};

use super::{checked, task_id};
use crate::{cancel::Cancelled, core::Core, error::Error, operation::Asked};

/// Time for a running handler to stop, when the caller names none.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(30);

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

pub(super) async fn cancel(
    core: &Arc<Core>,
    request: pb::CancelTaskRequest,
    actor: String,
) -> Result<pb::CancelTaskResponse, Error> {
    let mut bad = Violations::new();
    let id = task_id(&mut bad, &request.task_id);
    let grace = request
        .grace_period
        .map_or(Some(DEFAULT_GRACE), |grace| bad.take("grace_period", scalar::duration_up_to(grace, Limits::GRACE)));
    check_reason(&mut bad, "reason", &request.reason);
    let (id, grace) = checked(bad, id.zip(grace))?;
    if request.tree {
        return cancel_tree(core, id, request.reason, grace, actor).await;
    }
    let (cancelled, record) = core.cancel(id, request.reason, grace).await?;
    Ok(cancel_response(cancelled, record, String::new()))
}

/// The root first, so that it starts nothing more; an operation sees to the rest. A root that has ended may have children that
/// have not.
async fn cancel_tree(
    core: &Arc<Core>,
    root: TaskId,
    reason: String,
    grace: Duration,
    actor: String,
) -> Result<pb::CancelTaskResponse, Error> {
    let (cancelled, record) = match core.cancel(root, reason.clone(), grace).await {
        Err(Error::Finished(..)) => (Cancelled::Acknowledged, core.reader.basic(root).await?.ok_or(Error::NoTask(root))?),
        answer => answer?,
    };
    let asked = Asked { request: None, reason, actor, grace };
    let operation = core.start_operation(Selector::Tree(root), asked).await?;
    Ok(cancel_response(cancelled, record, operation.asked.id.to_string()))
}

fn cancel_response(cancelled: Cancelled, record: TaskRecord, batch_operation_id: String) -> pb::CancelTaskResponse {
    let outcome = match cancelled {
        Cancelled::Acknowledged => pb::CancelOutcome::Acknowledged,
        Cancelled::Requested => pb::CancelOutcome::Requested,
    };
    pb::CancelTaskResponse { outcome: outcome.into(), task: Some(to_task(record, View::Basic)), batch_operation_id }
}

/// Notes a reason that is too long.
pub(super) fn check_reason(bad: &mut Violations, field: &str, text: &str) {
    if text.len() > Limits::REASON_BYTES {
        let (length, max) = (text.len(), Limits::REASON_BYTES);
        bad.add(field, reason::FIELD_INVALID, format!("has {length} bytes; at most {max} are allowed"));
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
    check_reason(&mut bad, "reason", &request.reason);
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
