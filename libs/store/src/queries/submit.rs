//! Submission: group commit of units.

use std::collections::HashSet;

use diesel::{ExpressionMethods as _, Insertable, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, Failure, FailureKind, HandoffId, Run, TaskId, Timestamp};

use super::{
    Conn, cancel_rules, close, dialect, handoffs, heads, keys,
    sql::{CHUNK, chunks, sorted_ids},
};
use crate::{
    AgendaRow, AgendaWhy, NewTask, SetAside, SubmitUnit, UnitOutcome,
    columns::Id16,
    fault::Step,
    plan::{self, Known, Plan, ReplacedSlot},
    rows::{agenda::AgendaInsert, chain::EndFacts, spec::TaskInsert},
    schema,
};

#[derive(Debug, Insertable)]
#[diesel(table_name = schema::task_tags)]
pub(crate) struct TagRow {
    pub(crate) task: Id16,
    pub(crate) tag: String,
}

#[derive(Debug, Insertable)]
#[diesel(table_name = schema::task_children)]
struct ChildRow {
    parent: Id16,
    task: Id16,
}

/// Commits units; see [`crate::Store::submit`]. `again`: an earlier try found a key or id taken, so every id is looked up and
/// not just those that callers chose.
pub(crate) async fn submit(
    conn: &mut Conn,
    units: &[SubmitUnit],
    handoff: HandoffId,
    now: Timestamp,
    again: bool,
) -> Step<Vec<UnitOutcome>> {
    let known = known(conn, units, now, again).await?;
    let Plan { tasks, keys, freed, slots, mut outcomes } = plan::plan(known, units);
    for slot in slots {
        cancel_replaced(conn, slot, now).await?;
    }
    keys::free(conn, &freed).await?;
    if !keys.is_empty() {
        keys::insert(conn, keys, now).await?;
    }
    let cancelled = cancel_rules::close_at_submission(conn, &tasks, now).await?;
    insert_tasks(conn, &tasks, &cancelled, handoff).await?;
    let open = tasks.iter().filter(|task| !cancelled.contains(&task.spec.id));
    let handed_off: Vec<TaskId> = open.filter(|task| task.set_aside.is_none()).map(|task| task.spec.id).collect();
    handoffs::insert(conn, handoff, &handed_off, now).await?;
    for outcome in &mut outcomes {
        if let UnitOutcome::Accepted(accepted) = outcome {
            accepted.iter_mut().for_each(|task| task.cancelled = !task.deduplicated && cancelled.contains(&task.id));
        }
    }
    Ok(outcomes)
}

/// Reads what stands in the way of units.
async fn known(conn: &mut Conn, units: &[SubmitUnit], now: Timestamp, again: bool) -> Step<Known> {
    let names = plan::key_names(units);
    let mut known = Known { keys: keys::living(conn, &names, now).await?, ..Known::default() };
    let replacing = plan::replacing(units).filter_map(|name| known.keys.get(&name)?.as_slice().first().map(|(id, _)| *id));
    let holders: Vec<TaskId> = replacing.collect();
    known.holders = heads::heads(conn, &holders).await?;
    let asked = units.iter().flat_map(|unit| &unit.tasks).filter(|task| again || task.id_chosen).map(|task| task.spec.id);
    for ids in sorted_ids(asked).chunks(CHUNK) {
        use schema::tasks::dsl;
        let query = dsl::tasks.filter(dsl::id.eq_any(ids.to_vec())).select((dsl::id, dsl::digest));
        let rows = query.load::<(Id16, Id16)>(conn).await?;
        known.tasks.extend(rows.into_iter().map(|(id, digest)| (TaskId::from(id), digest.0)));
    }
    Ok(known)
}

/// Cancels the holder of a key. Its slot was free a moment ago; when it is not any more, everything is decided anew.
async fn cancel_replaced(conn: &mut Conn, slot: ReplacedSlot, now: Timestamp) -> Step<()> {
    let failure = Failure::new(FailureKind::CANCELLED, "replaced by a task with the same idempotency key");
    let facts = EndFacts {
        task: slot.task,
        run: slot.run,
        kind: EndKind::Cancelled,
        by: slot.by,
        attempts_used: slot.attempts_used,
        next_run_at: None,
        result: None,
        failure: Some(&failure),
        at: now,
    };
    if close::take_slot(conn, facts).await? { Ok(()) } else { Err(crate::fault::start_over()) }
}

/// Writes tasks with their tags, places in trees and agenda rows; those that are cancelled already need no look.
async fn insert_tasks(conn: &mut Conn, tasks: &[&NewTask], cancelled: &HashSet<TaskId>, handoff: HandoffId) -> Step<()> {
    let mut rows = Vec::with_capacity(tasks.len());
    let mut tags = Vec::new();
    let mut children = Vec::new();
    let mut agenda = Vec::new();
    for task in tasks {
        let spec = &task.spec;
        rows.push(TaskInsert::encode(task, handoff)?);
        tags.extend(spec.tags.iter().map(|tag| TagRow { task: spec.id.into(), tag: tag.as_str().to_owned() }));
        children.extend(spec.parent.map(|parent| ChildRow { parent: parent.into(), task: spec.id.into() }));
        if cancelled.contains(&spec.id) {
            continue;
        }
        if let Some(SetAside { at, why }) = task.set_aside.or_else(|| expiry(task)) {
            let row = AgendaRow { task: spec.id, at, run: Run::FIRST, why };
            agenda.push(AgendaInsert::encode(&row, &spec.queue, spec.priority)?);
        }
    }
    rows.sort_by_key(|row| row.id);
    for rows in chunks(rows, TaskInsert::weight) {
        dialect::insert!(conn, schema::tasks::table, rows)?;
    }
    for rows in chunks(tags, |_| 0) {
        dialect::insert!(conn, schema::task_tags::table, rows)?;
    }
    for rows in chunks(children, |_| 0) {
        dialect::insert!(conn, schema::task_children::table, rows)?;
    }
    for rows in chunks(agenda, |_| 0) {
        dialect::insert!(conn, schema::agenda::table, rows)?;
    }
    Ok(())
}

/// A task that may run at once is looked at again when it should have started. One that is set aside has a row already, whose
/// visit arms this one.
fn expiry(task: &NewTask) -> Option<SetAside> {
    task.spec.start_by(task.created_at).map(|start_by| SetAside { at: start_by.at, why: AgendaWhy::Expiry })
}
