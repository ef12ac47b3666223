//! Settings of queues.

use chrono::NaiveDateTime;
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Text, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{QueueName, Timestamp};

use super::{Conn, dialect, sql::raw};
use crate::{
    Pause, QueueRow,
    columns::{self, TEXT_BYTES},
    fault::Step,
    upsert::Upsert,
};

const UPSERT: Upsert = Upsert {
    table: "queues",
    columns: &["name", "revision", "paused_at", "paused_by", "pause_reason", "created_at", "updated_at"],
    replace: &["paused_at", "paused_by", "pause_reason", "updated_at"],
    keep: &[],
    guard: Some("revision"),
};
const COLUMNS: &str = "name, revision, paused_at, paused_by, pause_reason, created_at, updated_at";
/// Queues read at once: more than any dispatcher keeps moving.
const MAX_ROWS: i64 = 10_000;
/// Bytes of who paused a queue.
const ACTOR_BYTES: usize = 128;

#[derive(Debug, QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    paused_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<Text>)]
    paused_by: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pause_reason: Option<String>,
    #[diesel(sql_type = SqlTimestamp)]
    created_at: NaiveDateTime,
    #[diesel(sql_type = SqlTimestamp)]
    updated_at: NaiveDateTime,
}

impl Row {
    fn decode(self) -> Step<QueueRow> {
        let pause = |since| Pause {
            since: columns::read_time(since),
            by: self.paused_by.unwrap_or_default(),
            reason: self.pause_reason.unwrap_or_default(),
        };
        Ok(QueueRow {
            queue: columns::read_name(&self.name)?,
            revision: u64::try_from(self.revision).unwrap_or_default(),
            pause: self.paused_at.map(pause),
            created_at: columns::read_time(self.created_at),
            updated_at: columns::read_time(self.updated_at),
        })
    }
}

/// Reads all queues that have settings, by name; see [`crate::Store::queues`].
pub(crate) async fn all(conn: &mut Conn) -> Step<Vec<QueueRow>> {
    let query = raw(format!("SELECT {COLUMNS} FROM queues ORDER BY name LIMIT ?")).bind::<BigInt, _>(MAX_ROWS);
    query.load::<Row>(conn).await?.into_iter().map(Row::decode).collect()
}

/// Reads a queue; see [`crate::Store::queue`].
pub(crate) async fn get(conn: &mut Conn, queue: &QueueName) -> Step<Option<QueueRow>> {
    read(conn, queue, "").await
}

async fn read(conn: &mut Conn, queue: &QueueName, lock: &str) -> Step<Option<QueueRow>> {
    let query = raw(format!("SELECT {COLUMNS} FROM queues WHERE name = ?{lock}")).bind::<Text, _>(queue.as_str().to_owned());
    query.load::<Row>(conn).await?.pop().map(Row::decode).transpose()
}

/// Pauses a queue; see [`crate::Store::pause_queue`].
pub(crate) async fn pause(conn: &mut Conn, queue: &QueueName, pause: &Pause) -> Step<QueueRow> {
    let now = pause.since;
    let row = match read(conn, queue, dialect::UPDATE).await? {
        Some(row) => {
            let since = row.pause.as_ref().map_or(now, |before| before.since);
            QueueRow { pause: Some(Pause { since, ..pause.clone() }), ..changed(row, 0, now) }
        }
        None => QueueRow {
            queue: queue.clone(),
            revision: revision(0, now),
            pause: Some(pause.clone()),
            created_at: now,
            updated_at: now,
        },
    };
    write(conn, row).await
}

/// Ends a pause; see [`crate::Store::resume_queue`].
pub(crate) async fn resume(conn: &mut Conn, queue: &QueueName, now: Timestamp) -> Step<Option<QueueRow>> {
    match read(conn, queue, dialect::UPDATE).await? {
        Some(row) if row.pause.is_some() => write(conn, QueueRow { pause: None, ..changed(row, 0, now) }).await.map(Some),
        unchanged => Ok(unchanged),
    }
}

/// Lifts a revision; see [`crate::Store::lift_queue`].
pub(crate) async fn lift(conn: &mut Conn, queue: &QueueName, above: u64, now: Timestamp) -> Step<Option<QueueRow>> {
    match read(conn, queue, dialect::UPDATE).await? {
        Some(row) if row.revision <= above => write(conn, changed(row, above, now)).await.map(Some),
        unchanged => Ok(unchanged),
    }
}

/// The row with the revision that follows its own and `above`.
fn changed(row: QueueRow, above: u64, now: Timestamp) -> QueueRow {
    QueueRow { revision: revision(row.revision.max(above), now), updated_at: now, ..row }
}

fn revision(before: u64, now: Timestamp) -> u64 {
    before.saturating_add(1).max(u64::try_from(now.timestamp_micros()).unwrap_or_default())
}

async fn write(conn: &mut Conn, row: QueueRow) -> Step<QueueRow> {
    let pause = row.pause.as_ref();
    let by = pause.map(|pause| columns::fit("paused_by", pause.by.clone(), ACTOR_BYTES)).transpose()?;
    let reason = pause.map(|pause| columns::fit("pause_reason", pause.reason.clone(), TEXT_BYTES)).transpose()?;
    let query = raw(dialect::upsert_sql(&UPSERT, 1))
        .bind::<Text, _>(row.queue.as_str().to_owned())
        .bind::<BigInt, _>(i64::try_from(row.revision).unwrap_or(i64::MAX))
        .bind::<Nullable<SqlTimestamp>, _>(pause.map(|pause| columns::time(pause.since)))
        .bind::<Nullable<Text>, _>(by)
        .bind::<Nullable<Text>, _>(reason)
        .bind::<SqlTimestamp, _>(columns::time(row.created_at))
        .bind::<SqlTimestamp, _>(columns::time(row.updated_at));
    query.execute(conn).await?;
    Ok(row)
}
