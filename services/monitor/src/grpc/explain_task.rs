//! ExplainTask.

use oxcart_proto::{
    convert::{enums, scalar},
    pb::monitor::v1::{Blocker as PbBlocker, BlockerCode, ExplainTaskRequest, ExplainTaskResponse},
};
use oxcart_types::{TaskId, Violations};

use crate::{
    error::MonitorError,
    explain::{self, Blocker, Code},
    service::Core,
};

pub(super) async fn explain_task(core: &Core, request: ExplainTaskRequest) -> Result<ExplainTaskResponse, MonitorError> {
    let mut violations = Violations::new();
    let id = violations.take("task_id", request.task_id.parse::<TaskId>());
    violations.check()?;
    let Some(id) = id else { return Ok(ExplainTaskResponse::default()) };
    let facts = explain::gather(core, id).await?;
    let explained = explain::explain(&facts);
    Ok(ExplainTaskResponse {
        blockers: explained.blockers.into_iter().map(to_pb).collect(),
        ahead_count: explained.ahead,
        task_state: enums::to_task_state(facts.task.state).into(),
    })
}

fn to_pb(blocker: Blocker) -> PbBlocker {
    PbBlocker {
        code: code(blocker.code).into(),
        message: blocker.message,
        details: blocker.details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        clears_at: blocker.clears_at.map(scalar::to_timestamp),
    }
}

const fn code(code: Code) -> BlockerCode {
    match code {
        Code::Delayed => BlockerCode::Delayed,
        Code::Backoff => BlockerCode::Backoff,
        Code::Dependency => BlockerCode::Dependency,
        Code::Handoff => BlockerCode::Handoff,
        Code::WindowFull => BlockerCode::WindowFull,
        Code::QueuePaused => BlockerCode::QueuePaused,
        Code::NoWorker => BlockerCode::NoWorker,
        Code::NoHandler => BlockerCode::NoHandler,
        Code::NoFreeSlot => BlockerCode::NoFreeSlot,
        Code::WorkerLost => BlockerCode::WorkerLost,
        Code::Starting => BlockerCode::Starting,
        Code::Running => BlockerCode::Running,
        Code::CancelRequested => BlockerCode::CancelRequested,
        Code::Quarantined => BlockerCode::Quarantined,
        Code::Missing => BlockerCode::Missing,
        Code::DispatcherDown => BlockerCode::DispatcherDown,
        Code::Finished => BlockerCode::Finished,
        Code::Ahead => BlockerCode::Ahead,
    }
}
