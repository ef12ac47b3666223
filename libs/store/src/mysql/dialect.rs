//! What MySQL says in its own way.

use crate::upsert::Upsert;
/// After a SELECT: waits for, and keeps, a lock that lets others read and lock the rows too, and nobody change them.
pub(crate) const SHARE: &str = " LOCK IN SHARE MODE";
/// After a SELECT: waits for, and keeps, the rows.
pub(crate) const UPDATE: &str = " FOR UPDATE";
/// After a SELECT: keeps the rows, and passes over those that another transaction keeps.
pub(crate) const CLAIM: &str = " FOR UPDATE SKIP LOCKED";

/// The statement of an upsert of `rows` rows.
pub(crate) fn upsert_sql(upsert: &Upsert, rows: usize) -> String {
    let guarded = |column: &str, value: String| match upsert.guard {
        Some(guard) => format!("{column} = IF(VALUES({guard}) >= {guard}, {value}, {column})"),
        None => format!("{column} = {value}"),
    };
    let replaced = upsert.replace.iter().map(|column| guarded(column, format!("VALUES({column})")));
    let kept = upsert.keep.iter().map(|column| guarded(column, format!("COALESCE(VALUES({column}), {column})")));
    // MySQL assigns from left to right, and later expressions see the new values: the guard comes last.
    let guard = upsert.guard.iter().map(|guard| format!("{guard} = GREATEST(VALUES({guard}), {guard})"));
    let updates: Vec<String> = replaced.chain(kept).chain(guard).collect();
    format!("{} ON DUPLICATE KEY UPDATE {}", upsert.insert_sql(rows), updates.join(", "))
}

/// Inserts rows; a key that is taken is an error.
macro_rules! insert {
    ($conn:expr, $table:expr, $rows:expr) => {
        diesel_async::RunQueryDsl::execute(diesel::insert_into($table).values($rows), $conn).await
    };
}

/// Inserts rows whose keys are free and says how many those were.
macro_rules! insert_new {
    ($conn:expr, $table:expr, $rows:expr) => {
        diesel_async::RunQueryDsl::execute(diesel::insert_or_ignore_into($table).values($rows), $conn).await
    };
}

pub(crate) use {insert, insert_new};
