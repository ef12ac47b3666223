//! ListTasks and ListTaskRuns.

use oxcart_proto::{
    convert::task::{to_run, to_task, trace_id},
    pb::monitor::v1::{ListTaskRunsRequest, ListTaskRunsResponse, ListTasksRequest, ListTasksResponse},
};
use oxcart_service::page::{self, Query};
use oxcart_store::model::{TaskRecord, View};
use oxcart_types::{
    Limits, Run, TaskId, Violations,
    filter::{FilterError, TaskQuery},
};
use prost::Message;

use crate::{error::MonitorError, service::Core};

/// Bytes of one page: clients take a message of the common limit, and what is around the tasks needs its place.
const PAGE_BYTES: usize = Limits::MESSAGE_BYTES / 4 * 3;

pub(super) async fn list_tasks(core: &Core, request: ListTasksRequest) -> Result<ListTasksResponse, MonitorError> {
    let size = page::size(request.page_size, 50)?;
    let query = TaskQuery::parse(&request.filter, core.clock.now()).map_err(FilterError::into_violations)?;
    let paging = Query { rpc: "ListTasks", parameters: &request.filter };
    let before = core.tokens.read(&paging, &request.page_token)?.map(|position| task_id(&position)).transpose()?;
    if let Some(id) = query.task {
        let found = core.store.get(&[id], View::Basic).await?.into_iter().flatten().filter(|task| query.matches(task));
        return Ok(ListTasksResponse { tasks: found.map(basic).collect(), next_page_token: String::new() });
    }
    let found = core.store.list(&query.store, before, size).await?;
    let (tasks, cut_at) = fill(found.tasks.into_iter().map(|task| (task.spec.id, query.has_more_tags(&task).then(|| basic(task)))));
    let next_before = cut_at.or(found.next_before);
    let next_page_token = next_before.map(|id| core.tokens.write(&paging, id.as_bytes())).unwrap_or_default();
    Ok(ListTasksResponse { tasks, next_page_token })
}

/// Fills a page with the tasks that match, as far as its bytes go; says after which row it was cut. A page has one task at least,
/// so that the next one is another.
fn fill<M: Message>(rows: impl IntoIterator<Item = (TaskId, Option<M>)>) -> (Vec<M>, Option<TaskId>) {
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for (id, task) in rows {
        if let Some(task) = task {
            bytes += task.encoded_len();
            if bytes > PAGE_BYTES && !page.is_empty() {
                return (page, last);
            }
            page.push(task);
        }
        last = Some(id);
    }
    (page, None)
}

fn basic(task: TaskRecord) -> oxcart_proto::pb::common::v1::Task {
    to_task(task, View::Basic)
}

fn task_id(position: &[u8]) -> Result<TaskId, Violations> {
    position.try_into().map(TaskId::from_bytes).map_err(|_| page::invalid())
}

pub(super) async fn list_task_runs(core: &Core, request: ListTaskRunsRequest) -> Result<ListTaskRunsResponse, MonitorError> {
    let mut violations = Violations::new();
    let id = violations.take("task_id", request.task_id.parse::<TaskId>());
    let size = page::size(request.page_size, 100).unwrap_or_else(|bad| {
        for violation in bad.as_slice() {
            violations.add(violation.field.clone(), violation.reason, violation.description.clone());
        }
        0
    });
    violations.check()?;
    let Some(id) = id else { return Ok(ListTaskRunsResponse::default()) };
    let parameters = id.to_string();
    let paging = Query { rpc: "ListTaskRuns", parameters: &parameters };
    let after = core.tokens.read(&paging, &request.page_token)?.map(|position| run(&position)).transpose()?;
    // One more than asked tells whether there is a next page.
    let mut runs = core.store.runs(id, after, size + 1).await?.ok_or(MonitorError::NoTask(id))?;
    let more = runs.len() > size;
    runs.truncate(size);
    let last = runs.last().filter(|_| more).map(|last| last.run);
    let next_page_token = last.map(|run| core.tokens.write(&paging, &run.get().to_be_bytes())).unwrap_or_default();
    // A task that was deleted in between has no trace to name.
    let trace =
        core.store.get(&[id], View::Basic).await?.into_iter().flatten().next().map(|task| trace_id(&task)).unwrap_or_default();
    Ok(ListTaskRunsResponse { runs: runs.into_iter().map(|run| to_run(run, &trace)).collect(), next_page_token })
}

fn run(position: &[u8]) -> Result<Run, Violations> {
    position.try_into().ok().map(u32::from_be_bytes).and_then(Run::new).ok_or_else(page::invalid)
}

#[cfg(test)]
mod tests {
    use oxcart_types::{IdSource as _, SystemIds};

    use super::*;

    #[test]
    fn a_page_ends_before_its_bytes_do() {
        let rows: Vec<(TaskId, Option<String>)> =
            [1, PAGE_BYTES / 2, PAGE_BYTES / 3, PAGE_BYTES / 2].map(|size| (SystemIds.task_id(), Some("x".repeat(size)))).into();
        let (page, cut_at) = fill(rows.clone());
        assert_eq!((page.len(), cut_at), (3, Some(rows[2].0)));
        let (page, cut_at) = fill(rows[3..].to_vec());
        assert_eq!((page.len(), cut_at), (1, None));
        let (page, cut_at) = fill([(rows[0].0, Some("x".repeat(2 * PAGE_BYTES))), (rows[1].0, None), rows[2].clone()]);
        assert_eq!((page.len(), cut_at), (1, Some(rows[1].0)), "one that is too large by itself, and what is skipped");
    }
}
