//! What SQLite says in its own way.

use crate::upsert::Upsert;

/// There is one writer, so nothing needs a lock.
pub(crate) const SHARE: &str = "";
/// As [`SHARE`].
pub(crate) const UPDATE: &str = "";
/// As [`SHARE`].
pub(crate) const CLAIM: &str = "";

/// The statement of an upsert of `rows` rows.
pub(crate) fn upsert_sql(upsert: &Upsert, rows: usize) -> String {
    let table = upsert.table;
    let replaced = upsert.replace.iter().map(|column| format!("{column} = excluded.{column}"));
    let kept = upsert.keep.iter().map(|column| format!("{column} = COALESCE(excluded.{column}, {table}.{column})"));
    let guard = upsert.guard.iter().map(|guard| format!("{guard} = excluded.{guard}"));
    let updates: Vec<String> = replaced.chain(kept).chain(guard).collect();
    let guarded = upsert.guard.map(|guard| format!(" WHERE excluded.{guard} >= {table}.{guard}")).unwrap_or_default();
    format!("{} ON CONFLICT ({}) DO UPDATE SET {}{guarded}", upsert.insert_sql(rows), upsert.key(), updates.join(", "))
}

/// Inserts rows; a key that is taken is an error. diesel-async has no multi-row insert for SQLite, so diesel's own runs where
/// the wrapper would run it anyway.
macro_rules! insert {
    ($conn:expr, $table:expr, $rows:expr) => {{
        let rows = $rows;
        $conn.spawn_blocking(move |conn| diesel::RunQueryDsl::execute(diesel::insert_into($table).values(rows), conn)).await
    }};
}

/// Inserts rows whose keys are free and says how many those were.
macro_rules! insert_new {
    ($conn:expr, $table:expr, $rows:expr) => {{
        let rows = $rows;
        $conn
            .spawn_blocking(move |conn| diesel::RunQueryDsl::execute(diesel::insert_or_ignore_into($table).values(rows), conn))
            .await
    }};
}

pub(crate) use {insert, insert_new};
