//! The outbox: what the dispatcher has not confirmed.

use diesel::{ExpressionMethods as _, Insertable, QueryDsl as _, Queryable, QueryableByName, sql_types::BigInt};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{HandoffId, TaskId, Timestamp};

use super::{
    Conn, agenda, dialect, heads,
    sql::{CHUNK, raw, sorted_ids},
};
use crate::{
    AgendaRow, StaleHandoff,
    columns::{self, BLOB_BYTES, Id16},
    fault::Step,
    schema::handoffs::{self, dsl},
};

/// Bytes of an id in a list of them.
const ID_BYTES: usize = 16;

#[derive(Debug, Clone, Insertable, Queryable)]
#[diesel(table_name = handoffs)]
struct HandoffRow {
    id: Id16,
    made_at: chrono::NaiveDateTime,
    tasks: Vec<u8>,
}

/// Writes the outbox row of a commit batch; none when there are no tasks.
pub(crate) async fn insert(conn: &mut Conn, id: HandoffId, tasks: &[TaskId], now: Timestamp) -> Step<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let tasks = columns::fit("handoffs.tasks", columns::join_ids(tasks), BLOB_BYTES)?;
    let rows = vec![HandoffRow { id: id.into(), made_at: columns::time(now), tasks }];
    dialect::insert!(conn, handoffs::table, rows)?;
    Ok(())
}

/// Deletes outbox rows, and writes agenda rows for what found no room; see [`crate::Store::confirm_handoffs`].
pub(crate) async fn confirm(conn: &mut Conn, done: &[HandoffId], no_room: &[AgendaRow]) -> Step<()> {
    if !no_room.is_empty() {
        agenda::set(conn, no_room).await?;
    }
    for ids in sorted_ids(done.iter().copied()).chunks(CHUNK) {
        diesel::delete(dsl::handoffs.filter(dsl::id.eq_any(ids.to_vec()))).execute(conn).await?;
    }
    Ok(())
}

/// Outbox rows that have waited, with what of them may still run; see [`crate::Store::stale_handoffs`].
pub(crate) async fn stale(conn: &mut Conn, made_before: Timestamp, limit: usize) -> Step<Vec<StaleHandoff>> {
    let query = dsl::handoffs
        .filter(dsl::made_at.lt(columns::time(made_before)))
        .order((dsl::made_at, dsl::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((dsl::id, dsl::made_at, dsl::tasks));
    let mut stale = Vec::new();
    for row in query.load::<HandoffRow>(conn).await? {
        let ids = columns::split_ids(&row.tasks)?;
        let heads = heads::heads(conn, &ids).await?;
        let waiting = |id| heads.get(id).filter(|head| head.task.head.next_run().is_some() && !head.is_kept());
        let entries = ids.iter().filter_map(waiting).map(|head| head.task.entry.clone()).collect();
        stale.push(StaleHandoff { id: row.id.into(), entries });
    }
    Ok(stale)
}

#[derive(Debug, QueryableByName)]
struct Sum {
    #[diesel(sql_type = BigInt)]
    tasks: i64,
}

/// Counts the tasks of the oldest outbox rows; see [`crate::Store::count_unconfirmed`].
pub(crate) async fn count_unconfirmed(conn: &mut Conn, rows: usize) -> Step<usize> {
    // MySQL sums to a decimal. SQLite takes the type for a number as it is.
    let query = raw(format!(
        "SELECT CAST(COALESCE(SUM(LENGTH(tasks)), 0) / {ID_BYTES} AS SIGNED) AS tasks \
         FROM (SELECT tasks FROM handoffs ORDER BY made_at LIMIT ?) oldest"
    ));
    let sum: Sum = query.bind::<BigInt, _>(i64::try_from(rows).unwrap_or(i64::MAX)).get_result(conn).await?;
    Ok(usize::try_from(sum.tasks).unwrap_or_default())
}
