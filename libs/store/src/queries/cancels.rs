//! Cancels that were asked for while a run was open.

use std::collections::HashMap;

use diesel_async::RunQueryDsl as _;
use oxcart_types::TaskId;

use super::{
    Conn, agenda, dialect, heads,
    sql::{CHUNK, sorted_ids, with_ids},
};
use crate::{
    AgendaRow, AgendaWhy, Cancel,
    fault::Step,
    rows::chain::{CancelRow, FIRST_BUDGET},
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

/// Notes a cancel; see [`crate::Store::request_cancel`]. The first one stands.
pub(crate) async fn request_cancel(conn: &mut Conn, task: TaskId, cancel: &Cancel) -> Step<()> {
    let homes = heads::lock(conn, &[task], dialect::SHARE).await?;
    let Some(head) = heads::head(conn, task).await?.filter(|_| homes.contains_key(&task)) else { return Ok(()) };
    if head.terminal().is_some() {
        return Ok(());
    }
    let rows = vec![CancelRow::encode(task, head.task.head.replayed, cancel)?];
    dialect::insert_new!(conn, crate::schema::cancels::table, rows)?;
    let grace = chrono::TimeDelta::from_std(cancel.grace).unwrap_or(chrono::TimeDelta::MAX);
    let at = cancel.requested_at.checked_add_signed(grace).unwrap_or(cancel.requested_at);
    let row = AgendaRow { task, at, run: head.task.entry.run, why: AgendaWhy::CancelGrace };
    agenda::upsert(conn, &[row], &homes).await
}
