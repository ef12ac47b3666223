//! Operations on many tasks: the next batch of the one that has been due for longest.
//!
//! A batch is cancelled first and recorded then. Whoever dies in between leaves a batch that is done again, which changes
//! nothing; of two that do the same batch, the first to record it is counted.

use std::{sync::Arc, time::Duration};

use oxcart_service::reconcile::Progress;
use oxcart_store::{CancelTask, Counted, Operation, OperationCounts, OperationStep, Selector, TreeMember};
use oxcart_types::{EndKind, LeaseToken, TaskId, TaskState, Timestamp};

use super::SweepError;
use crate::{
    admission::{add, before},
    cancel::{BATCH, Done, Reason},
    core::Core,
    pick,
};

/// A claimed operation comes back after this, when its visitor vanished.
const CLAIM: Duration = Duration::from_secs(30);
/// Failures that an operation keeps.
const FAILURES: usize = 20;
/// Rows that are deleted in one pass.
const FORGOTTEN: usize = 1000;

/// Carries out one batch of one operation.
pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    let now = core.clock.now();
    let Some(operation) = core.store.claim_operation(now, add(now, CLAIM)).await? else { return Ok(Progress::Idle) };
    match operation.asked.selector {
        Selector::Tree(_) => tree(&core, operation, now).await?,
        Selector::Tasks(_) | Selector::Tag(_) | Selector::Filter(_) => list(&core, operation, now).await?,
    }
    Ok(Progress::More)
}

/// Ends rules whose time is over, and forgets rules and operations that ended long ago.
pub(super) async fn tidy(core: Arc<Core>) -> Result<Progress, SweepError> {
    let now = core.clock.now();
    let forget_before = before(now, core.config.operations_kept);
    let ended = core.store.sweep_cancel_rules(now, forget_before, FORGOTTEN).await?;
    core.meters.swept("cancel_rules", "end", ended);
    let forgotten = core.store.forget_operations(forget_before, FORGOTTEN).await?;
    Ok(if ended.max(forgotten) >= FORGOTTEN { Progress::More } else { Progress::Idle })
}

async fn list(core: &Core, operation: Operation, now: Timestamp) -> Result<(), SweepError> {
    let asked = &operation.asked;
    let batch = pick::batch(&core.store, &asked.selector, asked.created_at, operation.position).await?;
    // What is cancelled already may have been so by an earlier try of this batch: its closer tells.
    let over = |(_, state): &(TaskId, TaskState)| state.is_terminal() && *state != TaskState::Cancelled;
    let (finished, open): (Vec<_>, Vec<_>) = batch.tasks.into_iter().partition(over);
    let open: Vec<TaskId> = open.into_iter().map(|(task, _)| task).collect();
    let mut added = OperationCounts::default();
    finished.iter().for_each(|_| count(&mut added, None, Counted::Finished));
    let mut failures = operation.failures.clone();
    for task in &batch.missing {
        count(&mut added, None, Counted::Failed);
        note(&mut failures, *task);
    }
    for (task, outcome) in open.iter().zip(cancel(core, &operation, &open, now).await?) {
        let counted = counted(None, outcome);
        count(&mut added, None, counted);
        if counted == Counted::Failed {
            note(&mut failures, *task);
        }
    }
    let next_at = batch.next.map(|_| now);
    let step = OperationStep { id: asked.id, step: operation.step, added, position: batch.next, failures, next_at, at: now };
    if core.store.record_step(&step).await? {
        meter(core, added);
    }
    Ok(())
}

/// A tree is done with when nothing in it is open: what still runs may start more, and is looked at again.
async fn tree(core: &Core, operation: Operation, now: Timestamp) -> Result<(), SweepError> {
    let id = operation.asked.id;
    let mut members = core.store.tree_members(id, BATCH).await?;
    let step = OperationStep {
        id,
        step: operation.step,
        added: OperationCounts::default(),
        position: None,
        failures: operation.failures.clone(),
        next_at: Some(now),
        at: now,
    };
    if members.is_empty() {
        let next_at = core.store.next_round(id).await?.then(|| add(now, core.config.sweep.tree_round));
        core.store.record_step(&OperationStep { next_at, ..step }).await?;
        return Ok(());
    }
    // One with more children than a step finds comes first, alone: the others would be cancelled again with each of its steps.
    if let Some(wide) = members.iter().find(|member| member.after.is_some()).copied() {
        members = vec![wide];
    }
    let ids: Vec<TaskId> = members.iter().map(|member| member.task).collect();
    let mut step = step;
    let mut looked_at = Vec::with_capacity(members.len());
    for (member, outcome) in members.into_iter().zip(cancel(core, &operation, &ids, now).await?) {
        let now_counted = counted(member.counted, outcome);
        count(&mut step.added, member.counted, now_counted);
        if now_counted == Counted::Failed && member.counted.is_none() {
            note(&mut step.failures, member.task);
        }
        looked_at.push((TreeMember { ..member }, now_counted));
    }
    if core.store.record_tree_step(&step, &looked_at).await? {
        meter(core, step.added);
    }
    Ok(())
}

async fn cancel(core: &Core, operation: &Operation, tasks: &[TaskId], now: Timestamp) -> Result<Vec<Done>, SweepError> {
    let asked = &operation.asked;
    let detail = match operation.rule {
        Some(rule) => format!("by cancel rule {rule}"),
        None => format!("by operation {}", asked.id),
    };
    let by = LeaseToken::from_bytes(*asked.id.as_bytes());
    let reason = Reason { reason: asked.reason.clone(), detail, grace: asked.grace, by };
    let mut outcomes = Vec::with_capacity(tasks.len());
    for tasks in tasks.chunks(BATCH) {
        let tasks: Vec<CancelTask> = tasks.iter().map(|task| reason.task(*task, now)).collect();
        outcomes.extend(core.canceller.cancel(tasks).await?);
    }
    Ok(outcomes)
}

/// As what a task is counted that was counted so before.
fn counted(before: Option<Counted>, outcome: Done) -> Counted {
    match (before, outcome) {
        (Some(Counted::Cancelled | Counted::Finished | Counted::Failed), _) => before.unwrap_or(Counted::Finished),
        (_, Done::Requested) => Counted::Requested,
        (_, Done::Cancelled) | (Some(Counted::Requested), Done::Ended(EndKind::Cancelled)) => Counted::Cancelled,
        (_, Done::Ended(_)) => Counted::Finished,
        (_, Done::NoTask) => Counted::Failed,
    }
}

/// Moves one task from what it was counted as to what it is.
fn count(counts: &mut OperationCounts, before: Option<Counted>, now: Counted) {
    let place = |counts: &mut OperationCounts, counted, by| match counted {
        Counted::Cancelled => counts.cancelled += by,
        Counted::Requested => counts.requested += by,
        Counted::Finished => counts.finished += by,
        Counted::Failed => counts.failed += by,
    };
    match before {
        None => counts.matched += 1,
        Some(before) => place(counts, before, -1),
    }
    place(counts, now, 1);
}

fn note(failures: &mut Vec<String>, task: TaskId) {
    if failures.len() < FAILURES {
        failures.push(format!("{task}: the task does not exist"));
    }
}

fn meter(core: &Core, added: OperationCounts) {
    let number = |count: i64| usize::try_from(count).unwrap_or_default();
    core.meters.swept("operations", "cancel", number(added.cancelled));
    core.meters.swept("operations", "request", number(added.requested));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_counted_once_whatever_becomes_of_it() {
        let ended = Done::Ended;
        let mut counts = OperationCounts::default();
        // Found running, then cancelled; found running, then succeeded all the same; ended before; gone.
        for (first, then) in [
            (Counted::Requested, Some(ended(EndKind::Cancelled))),
            (Counted::Requested, Some(ended(EndKind::Succeeded))),
            (counted(None, ended(EndKind::Cancelled)), Some(ended(EndKind::Cancelled))),
            (counted(None, Done::NoTask), None),
        ] {
            count(&mut counts, None, first);
            if let Some(then) = then {
                count(&mut counts, Some(first), counted(Some(first), then));
            }
        }
        assert_eq!(counts, OperationCounts { matched: 4, cancelled: 1, requested: 0, finished: 2, failed: 1 });
    }
}
