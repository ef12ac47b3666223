//! The audit walk.

use diesel::sql_types::{BigInt, Binary};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{TaskId, Timestamp};

use super::{Conn, heads, sql::raw};
use crate::{
    OpenTask, Walk,
    columns::Id16,
    fault::Step,
    rows::head::{HEAD_COLUMNS, HEAD_TABLES, HeadRow},
};

/// Walks over tasks by id; see [`crate::Store::walk_open`].
pub(crate) async fn walk_open(conn: &mut Conn, after: Option<TaskId>, created_before: Timestamp, limit: usize) -> Step<Walk> {
    let sql = format!("SELECT {HEAD_COLUMNS} FROM {HEAD_TABLES} WHERE t.id > ? ORDER BY t.id LIMIT ?");
    let after = after.map_or(Id16([0; 16]), Id16::from);
    let query = raw(sql).bind::<Binary, _>(after).bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query.load::<HeadRow>(conn).await?;
    let next_after = if rows.len() < limit { None } else { rows.last().map(HeadRow::id) };
    let (mut open, mut first_open) = (Vec::new(), None);
    for row in rows {
        let head = row.decode()?;
        // Ids that callers choose do not follow the time of submission, so a young task does not end the walk.
        if head.terminal().is_none() {
            first_open.get_or_insert(head.task.entry.task);
        }
        if head.terminal().is_none() && !head.is_kept() && head.created_at < created_before {
            open.push(head.task);
        }
    }
    Ok(Walk { open, first_open, next_after })
}

/// Reads open tasks by their ids; see [`crate::Store::open_tasks`].
pub(crate) async fn open_tasks(conn: &mut Conn, ids: &[TaskId]) -> Step<Vec<OpenTask>> {
    let heads = heads::heads(conn, ids).await?;
    Ok(heads.into_values().filter(|head| head.terminal().is_none() && !head.is_kept()).map(|head| head.task).collect())
}
