//! SubmitTask and BatchSubmitTasks.

use std::{collections::HashMap, sync::Arc};

use oxcart_proto::{convert::enums, pb::submission::v1 as pb};
use oxcart_service::telemetry::propagation::TraceContext;
use oxcart_store::{Accepted, NewTask, SubmitUnit, View};
use oxcart_types::{TaskId, TaskState};

use super::trace;
use crate::{core::Core, error::Error};

pub(super) async fn one(
    core: &Arc<Core>,
    request: pb::SubmitTaskRequest,
    trace: Option<TraceContext>,
) -> Result<pb::SubmitTaskResponse, Error> {
    let unit = core.admit_one(request.task, &request.request_id)?;
    let results = if request.validate_only {
        checked_only(&unit)
    } else {
        submit(core, unit, trace.as_ref()).await.map_err(Error::of_one_task)?
    };
    Ok(pb::SubmitTaskResponse { result: results.into_iter().next() })
}

pub(super) async fn batch(
    core: &Arc<Core>,
    request: pb::BatchSubmitTasksRequest,
    trace: Option<TraceContext>,
) -> Result<pb::BatchSubmitTasksResponse, Error> {
    let unit = core.admit_batch(request.tasks, &request.request_id)?;
    let results = if request.validate_only { checked_only(&unit) } else { submit(core, unit, trace.as_ref()).await? };
    Ok(pb::BatchSubmitTasksResponse { results })
}

/// Commits a unit and says what became of each task.
pub(super) async fn submit(
    core: &Arc<Core>,
    mut unit: SubmitUnit,
    trace: Option<&TraceContext>,
) -> Result<Vec<pb::SubmitResult>, Error> {
    let _spans = trace::join(&mut unit, trace);
    let accepted = core.submit(unit).await?;
    let known = states(core, &accepted).await?;
    let state = |task: &Accepted| if task.cancelled { Some(TaskState::Cancelled) } else { known.get(&task.id).copied() };
    Ok(accepted.iter().map(|task| result(task.id, state(task), task.deduplicated)).collect())
}

/// What would be accepted. Ids that the server would make are left out: another one is made when the task is submitted.
fn checked_only(unit: &SubmitUnit) -> Vec<pb::SubmitResult> {
    let shown = |task: &NewTask| pb::SubmitResult {
        task_id: if task.id_chosen { task.spec.id.to_string() } else { String::new() },
        ..pb::SubmitResult::default()
    };
    unit.tasks.iter().map(shown).collect()
}

/// The states of tasks that were there before.
async fn states(core: &Core, accepted: &[Accepted]) -> Result<HashMap<TaskId, TaskState>, Error> {
    let known: Vec<TaskId> = accepted.iter().filter(|task| task.deduplicated).map(|task| task.id).collect();
    if known.is_empty() {
        return Ok(HashMap::new());
    }
    let records = core.store.get(&known, View::Basic).await?;
    Ok(records.into_iter().flatten().map(|record| (record.spec.id, record.state)).collect())
}

fn result(id: TaskId, known: Option<TaskState>, deduplicated: bool) -> pb::SubmitResult {
    let state = enums::to_task_state(known.unwrap_or(TaskState::Pending));
    pb::SubmitResult { task_id: id.to_string(), state: state.into(), deduplicated }
}
