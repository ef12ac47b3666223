//! Signs of life, progress, checkpoints: a cache that the age guard of takeovers reads.

use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Limits, Run, TaskId, Timestamp};

use super::{
    Conn, dialect,
    sql::{CHUNK, chunks, raw},
};
use crate::{
    Live,
    columns::{self, BLOB_BYTES, Id16, TEXT_BYTES},
    fault::Step,
    upsert::Upsert,
};

const UPSERT: Upsert = Upsert {
    table: "live",
    columns: &[
        "task",
        "run",
        "seen_at",
        "progress_current",
        "progress_total",
        "progress_message",
        "progress_at",
        "checkpoint_type",
        "checkpoint",
    ],
    replace: &["seen_at"],
    keep: &["progress_current", "progress_total", "progress_message", "progress_at", "checkpoint_type", "checkpoint"],
    guard: Some("run"),
};

/// Notes signs of life; see [`crate::Store::set_live`].
pub(crate) async fn set(conn: &mut Conn, live: &[Live], now: Timestamp) -> Step<()> {
    let mut rows: Vec<&Live> = live.iter().collect();
    rows.sort_by_key(|row| row.task);
    let weight = |row: &&Live| row.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.as_bytes().len());
    for rows in chunks(rows, weight) {
        let mut query = raw(dialect::upsert_sql(&UPSERT, rows.len()));
        for row in rows {
            let progress = row.progress.as_ref();
            let message = progress.map(|progress| columns::fit("progress_message", progress.message.clone(), TEXT_BYTES));
            let checkpoint = row.checkpoint.as_ref();
            let kind = checkpoint.map(|c| columns::fit("checkpoint_type", c.content_type().to_owned(), Limits::CONTENT_TYPE_BYTES));
            let bytes = checkpoint.map(|c| columns::fit("checkpoint", c.as_bytes().to_vec(), BLOB_BYTES));
            query = query
                .bind::<Binary, _>(Id16::from(row.task))
                .bind::<Integer, _>(columns::run(row.run)?)
                .bind::<SqlTimestamp, _>(columns::time(now))
                .bind::<Nullable<BigInt>, _>(progress.map(|progress| progress.current))
                .bind::<Nullable<BigInt>, _>(progress.map(|progress| progress.total))
                .bind::<Nullable<Text>, _>(message.transpose()?)
                .bind::<Nullable<SqlTimestamp>, _>(progress.map(|progress| columns::time(progress.at)))
                .bind::<Nullable<Text>, _>(kind.transpose()?)
                .bind::<Nullable<Binary>, _>(bytes.transpose()?);
        }
        query.execute(conn).await?;
    }
    Ok(())
}

/// As [`UPSERT`], but what the row says goes.
const FORGET: Upsert = Upsert {
    replace: &["seen_at", "progress_current", "progress_total", "progress_message", "progress_at", "checkpoint_type", "checkpoint"],
    keep: &[],
    ..UPSERT
};

/// Forgets checkpoint and progress of tasks, and what runs before these may yet report.
pub(crate) async fn forget(conn: &mut Conn, runs: &[(TaskId, Run)], now: Timestamp) -> Step<()> {
    for runs in runs.chunks(CHUNK) {
        let mut query = raw(dialect::upsert_sql(&FORGET, runs.len()));
        for (task, run) in runs {
            query = query
                .bind::<Binary, _>(Id16::from(*task))
                .bind::<Integer, _>(columns::run(*run)?)
                .bind::<SqlTimestamp, _>(columns::time(now))
                .bind::<Nullable<BigInt>, _>(None::<i64>)
                .bind::<Nullable<BigInt>, _>(None::<i64>)
                .bind::<Nullable<Text>, _>(None::<String>)
                .bind::<Nullable<SqlTimestamp>, _>(None::<chrono::NaiveDateTime>)
                .bind::<Nullable<Text>, _>(None::<String>)
                .bind::<Nullable<Binary>, _>(None::<Vec<u8>>);
        }
        query.execute(conn).await?;
    }
    Ok(())
}
