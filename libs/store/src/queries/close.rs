//! Closing the next slot of a task, so that no run can begin.

use std::collections::HashSet;

use oxcart_types::{EndKind, TaskId};

use super::{Conn, agenda, dialect, heads, slots, sql::chunks};
use crate::{
    Close, CloseOutcome,
    columns::{Id16, refuse},
    fault::Step,
    rows::{
        chain::{EndFacts, EndRow, StartRow},
        head::Head,
    },
    schema,
};

/// Looks at a chain at most: each time a slot is lost, another step has been taken on the task.
pub(crate) const LOOKS: usize = 8;

/// Closes the next slot of a task; see [`crate::Store::close`].
pub(crate) async fn close(conn: &mut Conn, close: &Close) -> Step<CloseOutcome> {
    match close.kind {
        EndKind::Cancelled | EndKind::Expired | EndKind::Failed => {}
        EndKind::Succeeded | EndKind::Retry | EndKind::Released | EndKind::Lost => {
            return Err(refuse("kind", format!("a slot cannot be closed as {}", close.kind)).into());
        }
    }
    heads::lock(conn, &[close.task], dialect::SHARE).await?;
    let mut last = None;
    // A slot that is taken does not prove that a run is open: it may have ended since. So look again.
    for _ in 0..LOOKS {
        let Some(head) = heads::head(conn, close.task).await? else { return Ok(CloseOutcome::NoTask) };
        if let Some(kind) = head.terminal() {
            return Ok(match head.task.head.latest {
                Some(latest) if head.closed_by(close.by) => CloseOutcome::Closed(latest.run),
                _ => CloseOutcome::Ended(kind),
            });
        }
        if let Some(run) = head.task.head.next_run() {
            if close.run.is_some_and(|wanted| wanted != run) {
                return Ok(CloseOutcome::Moved(run));
            }
            let facts = EndFacts {
                task: close.task,
                run,
                kind: close.kind,
                by: close.by,
                attempts_used: head.task.head.attempts_used(),
                next_run_at: None,
                result: None,
                failure: Some(&close.failure),
                at: close.at,
            };
            if take_slot(conn, facts).await? {
                // Whatever the agenda had it for is over.
                agenda::forget(conn, &[Id16::from(close.task)]).await?;
                return Ok(CloseOutcome::Closed(run));
            }
        } else {
            return Ok(CloseOutcome::Running(Box::new(head.task)));
        }
        last = Some(head);
    }
    // Somebody starts and ends runs faster than they can be read: that is as good as running.
    Ok(last.map_or(CloseOutcome::NoTask, |head: Head| CloseOutcome::Running(Box::new(head.task))))
}

/// Writes start and end of many slots, those of one task each; says which tasks' slots were free.
pub(crate) async fn take_slots(conn: &mut Conn, slots: &[EndFacts<'_>]) -> Step<HashSet<TaskId>> {
    let mut starts = Vec::with_capacity(slots.len());
    for slot in slots {
        starts.push(StartRow::closed(slot.task, slot.run, slot.attempts_used, slot.by, slot.at)?);
    }
    starts.sort_by_key(|row| (row.task, row.run));
    let mut all_new = true;
    for rows in chunks(starts, |_| 0) {
        let count = rows.len();
        all_new &= dialect::insert_new!(conn, schema::starts::table, rows)? == count;
    }
    let mut taken: HashSet<TaskId> = slots.iter().map(|slot| slot.task).collect();
    if !all_new {
        let runs: Vec<_> = slots.iter().map(|slot| (slot.task, slot.run)).collect();
        let found = slots::starts(conn, &runs, "").await?;
        let mine = |slot: &&EndFacts<'_>| found.get(&(slot.task, slot.run)).is_some_and(|start| start.closed_by(slot.by));
        taken = slots.iter().filter(mine).map(|slot| slot.task).collect();
    }
    let mut ends = Vec::with_capacity(taken.len());
    for slot in slots.iter().filter(|slot| taken.contains(&slot.task)) {
        ends.push(EndRow::encode(*slot)?);
    }
    // A slot of an earlier try has its end already: both are of one transaction.
    super::end::insert(conn, ends).await?;
    Ok(taken)
}

/// Writes start and end of a slot; false when the slot is taken.
pub(crate) async fn take_slot(conn: &mut Conn, facts: EndFacts<'_>) -> Step<bool> {
    let start = StartRow::closed(facts.task, facts.run, facts.attempts_used, facts.by, facts.at)?;
    let end = EndRow::encode(facts)?;
    if dialect::insert_new!(conn, schema::starts::table, vec![start])? == 0 {
        return Ok(false);
    }
    dialect::insert!(conn, schema::ends::table, vec![end])?;
    Ok(true)
}
