//! The agenda: what SQL must look at again, and when.

use std::collections::HashMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{BigInt, Binary, Integer, SmallInt, Text, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{QueueName, TaskId, Timestamp};

use super::{
    Conn, dialect,
    heads::{self, Home},
    sql::{CHUNK, raw, sorted_ids, with_ids},
};
use crate::{
    AgendaCount, AgendaRow, AgendaVisit, AgendaWhy, Entry,
    codes::{Coded as _, Lane},
    columns::{self, Id16},
    fault::Step,
    rows::agenda::{AgendaInsert, AgendaSlot},
    schema::agenda::dsl,
    upsert::Upsert,
};

const UPSERT: Upsert = Upsert {
    table: "agenda",
    columns: &["task", "at", "run", "why", "lane", "queue", "band"],
    replace: &["at", "why", "lane", "queue", "band"],
    keep: &[],
    guard: Some("run"),
};

/// Writes rows, of which none lowers the run of a row that is there. Tasks without a home are gone and get none.
pub(crate) async fn upsert(conn: &mut Conn, rows: &[AgendaRow], homes: &HashMap<TaskId, Home>) -> Step<()> {
    let mut inserts = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(home) = homes.get(&row.task) {
            inserts.push(AgendaInsert::encode(row, &home.queue, home.priority)?);
        }
    }
    inserts.sort_by_key(|row| row.task);
    for rows in inserts.chunks(CHUNK) {
        let query = rows.iter().fold(raw(dialect::upsert_sql(&UPSERT, rows.len())), |query, row| {
            query
                .bind::<Binary, _>(row.task)
                .bind::<SqlTimestamp, _>(row.at)
                .bind::<Integer, _>(row.run)
                .bind::<SmallInt, _>(row.why)
                .bind::<SmallInt, _>(row.lane)
                .bind::<Text, _>(row.queue.clone())
                .bind::<SmallInt, _>(row.band)
        });
        query.execute(conn).await?;
    }
    Ok(())
}

/// Writes rows; see [`crate::Store::set_agenda`].
pub(crate) async fn set(conn: &mut Conn, rows: &[AgendaRow]) -> Step<()> {
    let ids: Vec<TaskId> = rows.iter().map(|row| row.task).collect();
    let homes = heads::lock(conn, &ids, dialect::SHARE).await?;
    upsert(conn, rows, &homes).await
}

const SLOT_COLUMNS: &str = "task, at, run, why";

/// Moves due rows to `until`, so that no other sweeper takes them; see [`crate::Store::claim_agenda`].
pub(crate) async fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp, limit: usize) -> Step<Vec<AgendaRow>> {
    let sql = format!("SELECT {SLOT_COLUMNS} FROM agenda WHERE lane = ? AND at <= ? ORDER BY at LIMIT ?{}", dialect::CLAIM);
    let query = raw(sql)
        .bind::<SmallInt, _>(Lane::Due.code())
        .bind::<SqlTimestamp, _>(columns::time(now))
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let slots = query.load::<AgendaSlot>(conn).await?;
    for ids in sorted_ids(slots.iter().map(|slot| slot.task)).chunks(CHUNK) {
        let moved = diesel::update(dsl::agenda.filter(dsl::task.eq_any(ids.to_vec()))).set(dsl::at.eq(columns::time(until)));
        moved.execute(conn).await?;
    }
    let at = columns::read_time(columns::time(until));
    let rows = slots.into_iter().map(|slot| slot.decode().map(|row| AgendaRow { at, ..row }));
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads rows by task; see [`crate::Store::agenda_page`].
pub(crate) async fn page(conn: &mut Conn, after: Option<TaskId>, limit: usize) -> Step<Vec<AgendaRow>> {
    let query = raw(format!("SELECT {SLOT_COLUMNS} FROM agenda WHERE task > ? ORDER BY task LIMIT ?"))
        .bind::<Binary, _>(after.map_or(Id16([0; 16]), Id16::from))
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let slots = query.load::<AgendaSlot>(conn).await?;
    Ok(slots.into_iter().map(AgendaSlot::decode).collect::<Result<_, _>>()?)
}

/// Adds what a visit needs to rows.
pub(crate) async fn visits(conn: &mut Conn, rows: &[AgendaRow]) -> Step<Vec<AgendaVisit>> {
    let ids: Vec<TaskId> = rows.iter().map(|row| row.task).collect();
    let mut heads = heads::heads(conn, &ids).await?;
    Ok(rows.iter().map(|row| AgendaVisit { row: *row, task: heads.remove(&row.task).map(|head| head.task) }).collect())
}

/// Deletes rows that are unchanged; see [`crate::Store::clear_agenda`].
pub(crate) async fn clear(conn: &mut Conn, rows: &[AgendaRow]) -> Step<()> {
    let seen: HashMap<TaskId, AgendaRow> =
        rows.iter().map(|row| (row.task, AgendaRow { at: columns::read_time(columns::time(row.at)), ..*row })).collect();
    for ids in sorted_ids(seen.keys().copied()).chunks(CHUNK) {
        let sql = format!("SELECT {SLOT_COLUMNS} FROM agenda WHERE task IN ({{ids}}) ORDER BY task{}", dialect::UPDATE);
        let mut unchanged = Vec::with_capacity(ids.len());
        for slot in with_ids(&sql, ids).load::<AgendaSlot>(conn).await? {
            let (id, row) = (slot.task, slot.decode()?);
            if seen.get(&row.task) == Some(&row) {
                unchanged.push(id);
            }
        }
        if !unchanged.is_empty() {
            diesel::delete(dsl::agenda.filter(dsl::task.eq_any(unchanged))).execute(conn).await?;
        }
    }
    Ok(())
}

/// Deletes the rows of tasks, at most [`CHUNK`].
pub(crate) async fn forget(conn: &mut Conn, tasks: &[Id16]) -> Step<()> {
    diesel::delete(dsl::agenda.filter(dsl::task.eq_any(tasks.to_vec()))).execute(conn).await?;
    Ok(())
}

#[derive(Debug, QueryableByName)]
struct LaneRow {
    #[diesel(sql_type = SmallInt)]
    lane: i16,
    #[diesel(sql_type = Text)]
    queue: String,
}

/// Queues with rows for the feeder; see [`crate::Store::queues_without_room`].
pub(crate) async fn queues_without_room(conn: &mut Conn) -> Step<Vec<QueueName>> {
    let query = raw("SELECT DISTINCT lane, queue FROM agenda WHERE lane = ?").bind::<SmallInt, _>(Lane::Feeder.code());
    let rows = query.load::<LaneRow>(conn).await?;
    Ok(rows.iter().map(|row| columns::read_name(&row.queue)).collect::<Result<_, _>>()?)
}

/// The best rows for the feeder; see [`crate::Store::best_without_room`].
pub(crate) async fn best_without_room(conn: &mut Conn, queue: &QueueName, limit: usize) -> Step<Vec<(AgendaRow, Entry)>> {
    let sql = format!("SELECT {SLOT_COLUMNS} FROM agenda WHERE lane = ? AND queue = ? ORDER BY band, at, task LIMIT ?");
    let query = raw(sql)
        .bind::<SmallInt, _>(Lane::Feeder.code())
        .bind::<Text, _>(queue.as_str().to_owned())
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let slots = query.load::<AgendaSlot>(conn).await?;
    let rows = slots.into_iter().map(AgendaSlot::decode).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<TaskId> = rows.iter().map(|row| row.task).collect();
    let mut heads = heads::heads(conn, &ids).await?;
    Ok(rows.into_iter().filter_map(|row| heads.remove(&row.task).map(|head| (row, head.task.entry))).collect())
}

#[derive(Debug, QueryableByName)]
struct WhyCount {
    #[diesel(sql_type = SmallInt)]
    why: i16,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Counts rows, looking at no more than `cap` of a queue and lane; see [`crate::Store::count_agenda`].
pub(crate) async fn count(conn: &mut Conn, cap: u64) -> Step<Vec<AgendaCount>> {
    let mut counts = Vec::new();
    for lane in raw("SELECT DISTINCT lane, queue FROM agenda").load::<LaneRow>(conn).await? {
        let sql = "SELECT why, COUNT(*) AS count FROM (SELECT why FROM agenda WHERE lane = ? AND queue = ? LIMIT ?) r GROUP BY why";
        let query = raw(sql)
            .bind::<SmallInt, _>(lane.lane)
            .bind::<Text, _>(lane.queue.clone())
            .bind::<BigInt, _>(i64::try_from(cap).unwrap_or(i64::MAX));
        for row in query.load::<WhyCount>(conn).await? {
            let count = u64::try_from(row.count).unwrap_or_default();
            counts.push(AgendaCount { queue: columns::read_name(&lane.queue)?, why: AgendaWhy::decode(row.why)?, count });
        }
    }
    Ok(counts)
}
