//! Walks over all that is open.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{TaskId, Timestamp};

use super::{Conn, heads, sql::raw};
use crate::{
    AgendaWhy, OpenTask, ReplayPosition, ReplayWalk, Walk,
    columns::{self, Id16},
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
    let (mut open, mut without_room, mut first_open) = (Vec::new(), Vec::new(), None);
    for row in rows {
        let head = row.decode()?;
        // Ids that callers choose do not follow the time of submission, so a young task does not end the walk.
        if head.terminal().is_none() {
            first_open.get_or_insert(head.task.entry.task);
        }
        if head.terminal().is_some() || head.created_at >= created_before {
            continue;
        }
        if !head.is_kept() {
            open.push(head.task);
        } else if head.agenda_why == Some(AgendaWhy::Room) && head.task.start_by.is_some() {
            without_room.push(head.task);
        }
    }
    Ok(Walk { open, without_room, first_open, next_after })
}

/// Reads open tasks by their ids; see [`crate::Store::open_tasks`].
pub(crate) async fn open_tasks(conn: &mut Conn, ids: &[TaskId]) -> Step<Vec<OpenTask>> {
    let heads = heads::heads(conn, ids).await?;
    Ok(heads.into_values().filter(|head| head.terminal().is_none() && !head.is_kept()).map(|head| head.task).collect())
}

#[derive(Debug, QueryableByName)]
struct ReplayedRow {
    #[diesel(sql_type = Binary)]
    task: Id16,
    #[diesel(sql_type = SqlTimestamp)]
    replayed_at: chrono::NaiveDateTime,
}

/// Walks over replays by time; see [`crate::Store::walk_replays`].
pub(crate) async fn walk_replays(
    conn: &mut Conn,
    after: Option<ReplayPosition>,
    replayed_before: Timestamp,
    limit: usize,
) -> Step<ReplayWalk> {
    let sql = "SELECT task, replayed_at FROM replays WHERE replayed_at >= ? AND (replayed_at > ? OR task > ?) \
         ORDER BY replayed_at, task LIMIT ?";
    let (at, task) = after.map_or((Timestamp::UNIX_EPOCH, Id16([0; 16])), |(at, task)| (at, task.into()));
    let query = raw(sql)
        .bind::<SqlTimestamp, _>(columns::time(at))
        .bind::<SqlTimestamp, _>(columns::time(at))
        .bind::<Binary, _>(task)
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query.load::<ReplayedRow>(conn).await?;
    let next_after = rows.last().filter(|_| rows.len() == limit).map(|row| (columns::read_time(row.replayed_at), row.task.into()));
    let ids: Vec<TaskId> = rows.iter().map(|row| row.task.into()).collect();
    let mut heads = heads::heads(conn, &ids).await?;
    let (mut open, mut first_open) = (Vec::new(), None);
    for row in rows {
        // A task that was replayed twice is met twice: once is enough.
        let Some(head) = heads.remove(&TaskId::from(row.task)).filter(|head| head.terminal().is_none()) else { continue };
        let replayed_at = columns::read_time(row.replayed_at);
        first_open.get_or_insert(replayed_at);
        if !head.is_kept() && replayed_at < replayed_before {
            open.push(head.task);
        }
    }
    Ok(ReplayWalk { open, first_open, next_after })
}
