//! Slots of chains: who wrote which.

use std::collections::HashMap;

use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Run, TaskId};

use super::{
    Conn,
    sql::{CHUNK, Raw, places, sorted_ids, with_ids},
};
use crate::{
    columns,
    fault::Step,
    rows::chain::{EndSlot, StartSlot},
};

/// Reads the start slots of runs, with a lock of the dialect; empty slots are left out.
pub(crate) async fn starts(conn: &mut Conn, runs: &[(TaskId, Run)], lock: &str) -> Step<HashMap<(TaskId, Run), StartSlot>> {
    let mut found = HashMap::with_capacity(runs.len());
    for runs in runs.chunks(CHUNK) {
        let sql = "SELECT task, run, kind, attempt, token, started_at FROM starts WHERE task IN ({ids}) AND run IN";
        let rows = slots::<StartSlot>(conn, sql, runs, lock).await?;
        for row in rows {
            found.insert((row.task.into(), columns::read_run(row.run)?), row);
        }
    }
    Ok(found)
}

/// Reads the end slots of runs; empty slots are left out.
pub(crate) async fn ends(conn: &mut Conn, runs: &[(TaskId, Run)]) -> Step<HashMap<(TaskId, Run), EndSlot>> {
    let mut found = HashMap::with_capacity(runs.len());
    for runs in runs.chunks(CHUNK) {
        let sql = "SELECT task, run, kind, ended_by FROM ends WHERE task IN ({ids}) AND run IN";
        for row in slots::<EndSlot>(conn, sql, runs, "").await? {
            found.insert((row.task.into(), columns::read_run(row.run)?), row);
        }
    }
    Ok(found)
}

/// Reads the slots of all pairs of these tasks and these runs: more than asked for when the runs of a batch differ, which is
/// rare and does no harm, and on both databases a lookup by the primary key, which a list of pairs is not.
async fn slots<T>(conn: &mut Conn, sql: &str, runs: &[(TaskId, Run)], lock: &str) -> Step<Vec<T>>
where
    T: diesel::deserialize::QueryableByName<super::Db> + Send + 'static,
{
    let ids = sorted_ids(runs.iter().map(|(task, _)| *task));
    let mut numbers = runs.iter().map(|(_, run)| columns::run(*run)).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    let query = with_ids(&format!("{sql} ({}){lock}", places(numbers.len())), &ids);
    let query = numbers.into_iter().fold(query, Raw::bind::<Integer, _>);
    Ok(query.load::<T>(conn).await?)
}
