//! Slots of chains: who wrote which.

use std::collections::HashMap;

use diesel::{ExpressionMethods as _, QueryDsl as _, sql_types::Integer};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{LeaseToken, Run, TaskId, chain::StartKind};

use super::{
    Conn,
    sql::{CHUNK, Raw, places, sorted_ids, with_ids},
};
use crate::{
    codes::Coded as _,
    columns::{self, Id16},
    fault::Step,
    rows::chain::{EndSlot, StartSlot},
    schema::starts::dsl,
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

/// The run of a task whose slot was closed by the holder of a token, however long ago.
pub(crate) async fn closed_by(conn: &mut Conn, task: TaskId, token: LeaseToken) -> Step<Option<Run>> {
    let query = dsl::starts
        .filter(dsl::task.eq(Id16::from(task)))
        .filter(dsl::token.eq(Id16::from(token)))
        .filter(dsl::kind.eq(StartKind::Closer.code()))
        .select(dsl::run);
    let runs = query.load::<i32>(conn).await?;
    Ok(runs.into_iter().next().map(columns::read_run).transpose()?)
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
