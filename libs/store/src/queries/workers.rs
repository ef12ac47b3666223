//! Workers as last heard of.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable,
    sql_types::{Binary, SmallInt, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Timestamp, WorkerId};

use super::{
    Conn, dialect,
    sql::{chunks, raw},
};
use crate::{
    WorkerRow,
    columns::{self, BLOB_BYTES, Id16},
    fault::Step,
    schema::workers::dsl,
    upsert::Upsert,
};

const UPSERT: Upsert = Upsert {
    table: "workers",
    columns: &["id", "seen_at", "first_seen_at", "stopped", "info"],
    replace: &["seen_at", "stopped", "info"],
    keep: &[],
    guard: None,
};

/// Writes workers; see [`crate::Store::put_workers`].
pub(crate) async fn put(conn: &mut Conn, rows: &[WorkerRow]) -> Step<()> {
    let mut rows: Vec<&WorkerRow> = rows.iter().collect();
    rows.sort_by_key(|row| row.id);
    for rows in chunks(rows, |row| row.info.len()) {
        let mut query = raw(dialect::upsert_sql(&UPSERT, rows.len()));
        for row in rows {
            query = query
                .bind::<Binary, _>(Id16::from(row.id))
                .bind::<SqlTimestamp, _>(columns::time(row.seen_at))
                .bind::<SqlTimestamp, _>(columns::time(row.first_seen_at))
                .bind::<SmallInt, _>(i16::from(row.stopped))
                .bind::<Binary, _>(columns::fit("info", row.info.clone(), BLOB_BYTES)?);
        }
        query.execute(conn).await?;
    }
    Ok(())
}

#[derive(Debug, Queryable)]
struct Row {
    id: Id16,
    seen_at: chrono::NaiveDateTime,
    first_seen_at: chrono::NaiveDateTime,
    stopped: i16,
    info: Vec<u8>,
}

/// Lists workers by id; see [`crate::Store::workers`].
pub(crate) async fn list(conn: &mut Conn, after: Option<WorkerId>, from: Option<Timestamp>, limit: usize) -> Step<Vec<WorkerRow>> {
    let mut query = dsl::workers
        .select((dsl::id, dsl::seen_at, dsl::first_seen_at, dsl::stopped, dsl::info))
        .order(dsl::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if let Some(after) = after {
        query = query.filter(dsl::id.gt(Id16::from(after)));
    }
    if let Some(from) = from {
        query = query.filter(dsl::seen_at.ge(columns::time(from)));
    }
    let rows = query.load::<Row>(conn).await?;
    let read = |row: Row| WorkerRow {
        id: row.id.into(),
        seen_at: columns::read_time(row.seen_at),
        first_seen_at: columns::read_time(row.first_seen_at),
        stopped: row.stopped != 0,
        info: row.info,
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Deletes workers last seen before; see [`crate::Store::forget_workers`].
pub(crate) async fn forget(conn: &mut Conn, seen_before: Timestamp) -> Step<()> {
    diesel::delete(dsl::workers.filter(dsl::seen_at.lt(columns::time(seen_before)))).execute(conn).await?;
    Ok(())
}
