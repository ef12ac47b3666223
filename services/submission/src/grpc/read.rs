//! GetTask, BatchGetTasks and WaitTask.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::{scalar, task},
    pb::submission::v1 as pb,
};
use oxcart_store::View;
use oxcart_types::{Limits, TaskId, Violations, violation::reason};
use tokio::time::Instant;

use super::{checked, task_id};
use crate::{core::Core, error::Error, wait::Until};

/// A long poll ends this long before its caller's deadline.
const MARGIN: Duration = Duration::from_secs(5);

pub(super) async fn one(core: &Arc<Core>, request: pb::GetTaskRequest) -> Result<pb::GetTaskResponse, Error> {
    let mut bad = Violations::new();
    let view = view(&mut bad, request.view, View::Full);
    let id = task_id(&mut bad, &request.task_id);
    let id = checked(bad, id)?;
    let record = core.reader.read(id, view).await?.ok_or(Error::NoTask(id))?;
    Ok(pb::GetTaskResponse { task: Some(task::to_task(record, view)) })
}

pub(super) async fn batch(core: &Arc<Core>, request: pb::BatchGetTasksRequest) -> Result<pb::BatchGetTasksResponse, Error> {
    let mut bad = Violations::new();
    let view = view(&mut bad, request.view, View::Basic);
    let (asked, max) = (request.task_ids.len(), Limits::BATCH_ITEMS);
    if asked == 0 || asked > max {
        bad.add("task_ids", reason::FIELD_INVALID, format!("has {asked} ids; 1 to {max} are allowed"));
        return Err(bad.into());
    }
    let ids: Vec<TaskId> =
        request.task_ids.iter().enumerate().filter_map(|(i, id)| bad.take(&format!("task_ids[{i}]"), id.parse())).collect();
    bad.check()?;
    let (mut tasks, mut missing_task_ids) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for (id, record) in ids.iter().zip(core.store.get(&ids, view).await?) {
        match record {
            Some(record) => {
                bytes += record.spec.size_bytes() + record.result.as_ref().map_or(0, |result| result.as_bytes().len());
                tasks.push(task::to_task(record, view));
            }
            None => missing_task_ids.push(id.to_string()),
        }
    }
    // What clients would refuse is refused here, with a reason.
    if bytes > Limits::MESSAGE_BYTES {
        let mut bad = Violations::new();
        bad.add("view", reason::FIELD_INVALID, format!("the tasks have {bytes} bytes; ask for fewer, or for BASIC"));
        return Err(bad.into());
    }
    Ok(pb::BatchGetTasksResponse { tasks, missing_task_ids })
}

pub(super) async fn wait(
    core: &Arc<Core>,
    request: pb::WaitTaskRequest,
    timeout: Option<Duration>,
) -> Result<pb::WaitTaskResponse, Error> {
    let mut bad = Violations::new();
    let view = view(&mut bad, request.view, View::Full);
    let until = match pb::WaitUntil::try_from(request.wait_until) {
        Ok(pb::WaitUntil::Unspecified | pb::WaitUntil::Done) => Some(Until::Done),
        Ok(pb::WaitUntil::Changed) => Some(Until::Changed(request.known_etag)),
        Err(_) => {
            bad.add("wait_until", reason::FIELD_INVALID, format!("{} is no WaitUntil", request.wait_until));
            None
        }
    };
    let max_wait = request.max_wait.and_then(|wait| bad.take("max_wait", scalar::duration(wait))).unwrap_or(core.config.max_wait);
    let id = task_id(&mut bad, &request.task_id);
    let (id, until) = checked(bad, id.zip(until))?;
    // Callers with less time than the margin get half of it.
    let bound = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(MARGIN).max(timeout / 2));
    let deadline = Instant::now() + max_wait.min(core.config.max_wait).min(bound);
    let (record, satisfied) = core.wait(id, &until, view, deadline).await?;
    Ok(pb::WaitTaskResponse { task: Some(task::to_task(record, view)), satisfied })
}

/// Reads a view; one that is bad is noted, and the value does not count.
fn view(bad: &mut Violations, number: i32, unset: View) -> View {
    task::view(number, unset).unwrap_or_else(|part| {
        for v in part.as_slice() {
            bad.add(v.field.clone(), v.reason, v.description.clone());
        }
        unset
    })
}
