//! Heads of chains, and the locks that keep a task in place.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{SmallInt, Text},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Priority, QueueName, TaskId};

use super::{
    Conn,
    sql::{CHUNK, sorted_ids, with_ids},
};
use crate::{
    Standing,
    columns::{self, Id16},
    fault::Step,
    rows::{
        head::{HEAD_COLUMNS, HEAD_TABLES, Head, HeadRow},
        spec::read_priority,
    },
};

/// Reads heads; unknown tasks are left out.
pub(crate) async fn heads(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<TaskId, Head>> {
    let mut heads = HashMap::with_capacity(ids.len());
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        let query = with_ids(&format!("SELECT {HEAD_COLUMNS} FROM {HEAD_TABLES} WHERE t.id IN ({{ids}})"), ids);
        for row in query.load::<HeadRow>(conn).await? {
            heads.insert(row.id(), row.decode()?);
        }
    }
    Ok(heads)
}

/// Says where tasks stand; see [`crate::Store::standings`].
pub(crate) async fn standings(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<TaskId, Standing>> {
    let standing = |head: Head| Standing { task: head.task, ended_at: head.ended_at, heartbeat_at: head.heartbeat_at };
    Ok(heads(conn, ids).await?.into_iter().map(|(id, head)| (id, standing(head))).collect())
}

/// Reads one head.
pub(crate) async fn head(conn: &mut Conn, id: TaskId) -> Step<Option<Head>> {
    Ok(heads(conn, &[id]).await?.remove(&id))
}

/// Where a task belongs.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Queue.
    pub(crate) queue: QueueName,
    /// Priority.
    pub(crate) priority: Priority,
}

#[derive(Debug, QueryableByName)]
struct HomeRow {
    #[diesel(sql_type = diesel::sql_types::Binary)]
    id: Id16,
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
}

/// Finds tasks, with a lock of the dialect: while it is kept no task is changed or deleted. Unknown tasks are left out.
pub(crate) async fn lock(conn: &mut Conn, ids: &[TaskId], lock: &str) -> Step<HashMap<TaskId, Home>> {
    let mut homes = HashMap::with_capacity(ids.len());
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        let query = with_ids(&format!("SELECT id, queue, priority FROM tasks WHERE id IN ({{ids}}) ORDER BY id{lock}"), ids);
        for row in query.load::<HomeRow>(conn).await? {
            let home = Home { queue: columns::read_name(&row.queue)?, priority: read_priority(row.priority)? };
            homes.insert(row.id.into(), home);
        }
    }
    Ok(homes)
}
