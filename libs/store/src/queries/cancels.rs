//! Cancels that were asked for while a run was open.

use std::collections::HashMap;

use diesel_async::RunQueryDsl as _;
use oxcart_types::TaskId;

use super::{
    Conn, agenda, dialect,
    heads::{self, Home},
    sql::{CHUNK, chunks, sorted_ids, with_ids},
};
use crate::{
    AgendaRow, AgendaWhy, Cancel,
    fault::Step,
    rows::{
        chain::{CancelRow, FIRST_BUDGET},
        head::Head,
    },
};

/// Reads the cancels that count; see [`crate::Store::cancels`].
pub(crate) async fn cancels(conn: &mut Conn, tasks: &[TaskId]) -> Step<HashMap<TaskId, Cancel>> {
    let mut found = HashMap::new();
    for ids in sorted_ids(tasks.iter().copied()).chunks(CHUNK) {
        // A cancel of an earlier budget must not end a run of the one in force.
        let sql = format!(
            "SELECT c.task, c.budget, c.reason, c.requested_at, c.grace_nanos FROM cancels c WHERE c.task IN ({{ids}}) \
             AND c.budget = COALESCE((SELECT MAX(r.run) FROM replays r WHERE r.task = c.task), {FIRST_BUDGET})"
        );
        for row in with_ids(&sql, ids).load::<CancelRow>(conn).await? {
            found.insert(row.task.into(), row.decode()?);
        }
    }
    Ok(found)
}

/// Notes a cancel; see [`crate::Store::request_cancel`].
pub(crate) async fn request_cancel(conn: &mut Conn, task: TaskId, cancel: &Cancel) -> Step<()> {
    let homes = heads::lock(conn, &[task], dialect::SHARE).await?;
    let Some(head) = heads::head(conn, task).await?.filter(|_| homes.contains_key(&task)) else { return Ok(()) };
    if head.terminal().is_some() {
        return Ok(());
    }
    note(conn, &[(&head, cancel)], &homes).await
}

/// Writes cancels of tasks that have not ended, each with an agenda row at the end of its grace. The first cancel of a task
/// stands.
pub(crate) async fn note(conn: &mut Conn, cancels: &[(&Head, &Cancel)], homes: &HashMap<TaskId, Home>) -> Step<()> {
    let mut rows = Vec::with_capacity(cancels.len());
    let mut visits = Vec::with_capacity(cancels.len());
    for (head, cancel) in cancels {
        let entry = &head.task.entry;
        rows.push(CancelRow::encode(entry.task, head.task.head.replayed, cancel)?);
        let grace = chrono::TimeDelta::from_std(cancel.grace).unwrap_or(chrono::TimeDelta::MAX);
        let at = cancel.requested_at.checked_add_signed(grace).unwrap_or(cancel.requested_at);
        visits.push(AgendaRow { task: entry.task, at, run: entry.run, why: AgendaWhy::CancelGrace });
    }
    rows.sort_by_key(|row| row.task);
    for rows in chunks(rows, |_| 0) {
        dialect::insert_new!(conn, crate::schema::cancels::table, rows)?;
    }
    agenda::upsert(conn, &visits, homes).await
}
