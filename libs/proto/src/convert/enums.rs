//! Enumerations. An unknown number from outside is a mistake to be told, never a default.

use oxcart_types::{EndKind, IdempotencyPolicy, TaskState, WaitReason, violation::Invalid};

use crate::pb::common::v1 as pb;

/// Writes a state.
#[must_use]
pub const fn to_task_state(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Pending => pb::TaskState::Pending,
        TaskState::Queued => pb::TaskState::Queued,
        TaskState::Running => pb::TaskState::Running,
        TaskState::Retrying => pb::TaskState::Retrying,
        TaskState::Succeeded => pb::TaskState::Succeeded,
        TaskState::Failed => pb::TaskState::Failed,
        TaskState::Cancelled => pb::TaskState::Cancelled,
        TaskState::Expired => pb::TaskState::Expired,
    }
}

/// Reads a state; `None` for unspecified and for numbers of a newer contract, which readers treat as not terminal.
#[must_use]
pub fn task_state(number: i32) -> Option<TaskState> {
    match pb::TaskState::try_from(number).ok()? {
        pb::TaskState::Unspecified => None,
        pb::TaskState::Pending => Some(TaskState::Pending),
        pb::TaskState::Queued => Some(TaskState::Queued),
        pb::TaskState::Running => Some(TaskState::Running),
        pb::TaskState::Retrying => Some(TaskState::Retrying),
        pb::TaskState::Succeeded => Some(TaskState::Succeeded),
        pb::TaskState::Failed => Some(TaskState::Failed),
        pb::TaskState::Cancelled => Some(TaskState::Cancelled),
        pb::TaskState::Expired => Some(TaskState::Expired),
    }
}

/// Writes why a task waits.
#[must_use]
pub const fn to_wait_reason(reason: WaitReason) -> pb::WaitReason {
    match reason {
        WaitReason::Handoff => pb::WaitReason::Handoff,
        WaitReason::Time => pb::WaitReason::Time,
        WaitReason::Dependency => pb::WaitReason::Dependency,
        WaitReason::Room => pb::WaitReason::Room,
    }
}

/// Writes how a run ended.
#[must_use]
pub const fn to_run_end(kind: EndKind) -> pb::RunEnd {
    match kind {
        EndKind::Succeeded => pb::RunEnd::Succeeded,
        EndKind::Failed => pb::RunEnd::Failed,
        EndKind::Cancelled => pb::RunEnd::Cancelled,
        EndKind::Expired => pb::RunEnd::Expired,
        EndKind::Retry => pb::RunEnd::Retry,
        EndKind::Released => pb::RunEnd::Released,
        EndKind::Lost => pb::RunEnd::Lost,
    }
}

/// Reads an idempotency policy.
///
/// # Errors
/// An unknown number.
pub fn idempotency_policy(number: i32) -> Result<IdempotencyPolicy, Invalid> {
    match pb::IdempotencyPolicy::try_from(number) {
        Ok(pb::IdempotencyPolicy::Unspecified | pb::IdempotencyPolicy::ReturnExisting) => Ok(IdempotencyPolicy::ReturnExisting),
        Ok(pb::IdempotencyPolicy::Reject) => Ok(IdempotencyPolicy::Reject),
        Ok(pb::IdempotencyPolicy::Replace) => Ok(IdempotencyPolicy::Replace),
        Err(_) => Err(Invalid::value(format!("{number} is no IdempotencyPolicy"))),
    }
}

/// Writes an idempotency policy.
#[must_use]
pub const fn to_idempotency_policy(policy: IdempotencyPolicy) -> pb::IdempotencyPolicy {
    match policy {
        IdempotencyPolicy::ReturnExisting => pb::IdempotencyPolicy::ReturnExisting,
        IdempotencyPolicy::Reject => pb::IdempotencyPolicy::Reject,
        IdempotencyPolicy::Replace => pb::IdempotencyPolicy::Replace,
    }
}
